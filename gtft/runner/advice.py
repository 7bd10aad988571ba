"""Advice for an agent: the model's answer to what it sees, beside how far it can be trusted. Nothing here blocks anybody."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gtft.errors import GtftError
from gtft.service import (
    Address,
    AnswerLine,
    Route,
    add_answer,
    read_address,
    read_answers,
    read_routes,
    settle_answers,
)
from gtft.shelf import list_shelf, read_document

# Longest wait for an answer, seconds: an agent stands still meanwhile.
SECONDS = 20.0
LONGEST = 64 * 1024
_LARGEST_REPLY = 4 << 20
_TOKEN = "GTFT_SERVE_TOKEN"  # noqa: S105 - the name of a variable
# The model says itself that it does not know; to escalate is advice.
_ABSTAINING = ("ask", "abstain")


@dataclass(frozen=True)
class Advice:
    """``text`` "" when there is none; then ``why`` says so. ``id`` finds it again in the agent's transcript."""

    text: str = ""
    why: str = ""
    id: str = ""
    model: str = ""
    trust: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "text": self.text or None}


def find_role(role: str, rig: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The role and rig that are given, else those of the agent in whose session we are ("gizmo/witness")."""
    said = environ.get("GT_ROLE", "").strip("/").split("/")
    if not role:
        role = said[-1] if len(said) < 3 else said[1].rstrip("s")
        rig = rig or (said[0] if len(said) > 1 else environ.get("GT_RIG", ""))
    return role, rig


def ask_advice(
    workspace: Path,
    role: str,
    rig: str,
    situation: str,
    environ: Mapping[str, str],
    *,
    redact: Callable[[str], str],
    seconds: float = SECONDS,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
) -> Advice:
    """Ask the model that advises ``role``, and record what it said, redacted: the agent sees it as it came. Every
    trouble is an Advice without text; ``redact`` may raise a GtftError."""
    try:
        route = read_routes(workspace).find(role, rig)
        address = read_address(workspace)
    except GtftError as e:
        return Advice(why=e.what)
    if not situation.strip():
        return Advice(why="nothing was asked")
    if route is None or route.mode != "advise":
        return Advice(why=f"no model advises the role {role or '(none)'}: gtft deploy list")
    if address is None or route.model not in address.models:
        return Advice(why=f"{route.model} is not served now: gtft model serve {route.model}")
    asked = _word_question(route, rig, situation)
    began = clock()
    why, found = "", {}
    try:
        found = _ask(address, route.model, asked, route.max_new_tokens, environ, seconds, clock)
    except TimeoutError:
        why = "timeout"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        why = "error"
    text = str(found.get("text", ""))
    spent = round(clock() - began, 4)
    abstained = not why and (not text or _read_action(text) in _ABSTAINING)
    line = AnswerLine(
        at_us=int(now() * 1_000_000),
        deployment=route.deployment,
        mode="advise",
        took="nobody",
        why="abstained" if abstained else why,
        bead=environ.get("GT_WORK_BEAD", "")[:100],
        session=environ.get("CLAUDE_SESSION_ID", "")[:200],
        item=f"advice-{secrets.token_hex(4)}",
        prompt_sha256=hashlib.sha256(asked.encode()).hexdigest(),
        abstained=abstained,
        escalated=_read_action(text) == "escalate",
        seconds=spent,
        tokens=found.get("tokens", 0),
        prompt_tokens=found.get("prompt_tokens", 0),
    )
    words = {
        "timeout": f"{route.model} did not answer within {seconds:g} s",
        "error": f"{route.model} could not be asked",
        "abstained": f"{route.model} does not know",
    }
    try:
        add_answer(workspace, line.model_copy(update={"output": redact(text) if text else ""}))
    except GtftError as e:
        # What is not on record cannot be compared, and so is not said.
        return Advice(why=f"it could not be recorded: {e.what}")
    if line.why:
        return Advice(why=words[line.why], id=line.item, model=route.model, seconds=spent)
    trust = find_trust(workspace, route)
    return Advice(text, "", line.item, route.model, trust, spent)


def find_trust(workspace: Path, route: Route) -> str:
    """How far the model was right, in words: on held-out decisions of its evaluation, and as an adviser."""
    parts = []
    try:
        if held := _find_heldout(workspace, route.adapter):
            share, n, low, high = held
            parts.append(
                f"agrees with this town's {route.role} in {share:.0%} of {n} held-out decisions "
                f"({low * 100:.0f}–{high * 100:.0f} %)"
            )
        lines = settle_answers(read_answers(workspace, route.deployment))
        told = [a.agreed for a in lines if a.mode == "advise" and a.agreed is not None]
        if told:
            parts.append(f"was followed in {sum(told)} of {len(told)} cases so far")
    except (GtftError, OSError):
        parts.append("its record cannot be read")
    return "; ".join(parts) or "not known: no evaluation of it is on the shelf"


def _find_heldout(workspace: Path, adapter: str) -> tuple[float, int, float, float] | None:
    """Share, n and interval of the newest evaluation of an adapter; decisions, where it has any, else all items."""
    found = [a for a in list_shelf(workspace / "artifacts", "eval").found if adapter in a.parents]
    if not found:
        return None
    newest = max(found, key=lambda a: (a.path.stat().st_mtime_ns, a.id))
    try:
        suite = read_document(newest, "summary.json")["suites"]["heldout"]
        part = suite["capabilities"].get("patrol-decision", suite)
        rate = part["tuned"]
        return float(rate["rate"]), int(part["n"]), float(rate["low"]), float(rate["high"])
    except (KeyError, TypeError, ValueError):
        return None


def _word_question(route: Route, rig: str, situation: str) -> str:
    """As sessions of the role begin, which is how it was trained."""
    where = f" (rig: {rig or route.rig})" if rig or route.rig else ""
    return f"[GAS TOWN] {route.role}{where} <- advice\n{situation.strip()[:LONGEST]}"


def _ask(
    address: Address,
    model: str,
    asked: str,
    most: int,
    environ: Mapping[str, str],
    seconds: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """One request. Raises TimeoutError, OSError, HTTPException, or ValueError and its like for another shape."""
    end = clock() + seconds
    place = urlsplit(address.url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json"}
    if address.token and environ.get(_TOKEN):
        headers["Authorization"] = f"Bearer {environ[_TOKEN]}"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": asked}],
        "temperature": 0,
        "max_tokens": most,
    }
    connection = kind(place.hostname or "", place.port, timeout=seconds)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        said = bytearray()
        while block := response.read1(65536):
            said += block
            if clock() > end:
                raise TimeoutError
            if len(said) > _LARGEST_REPLY:
                raise ValueError("the reply is too long")
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"HTTP {response.status}")
    doc = json.loads(said)
    message = doc["choices"][0]["message"]
    # A call is advice too, written as a model writes it.
    calls = [_write_call(c["function"]) for c in message.get("tool_calls") or ()]
    text = "\n".join([message.get("content") or "", *calls])
    used = doc.get("usage") or {}
    counts = {"tokens": "completion_tokens", "prompt_tokens": "prompt_tokens"}
    return {
        # Half a character can be written in JSON and in nothing else.
        "text": text.strip().encode("utf-8", "replace").decode(),
        **{k: v for k, name in counts.items() if isinstance(v := used.get(name), int) and v >= 0},
    }


def _write_call(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    body = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{body}</tool_call>"


def _read_action(text: str) -> str:
    try:
        doc = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    action = doc.get("action") if isinstance(doc, dict) else None
    return action if isinstance(action, str) else ""
