"""The server that answers for roles: is it there, start it, ask it a real question."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gtft.errors import GateFailed, UsageError, WorkerFailed, translate_os_error
from gtft.runner.detached import start_alone
from gtft.service import FOLDER, Route, read_address
from gtft.town.launch import TOKEN_HEADER, TOKEN_VARIABLE, is_healthy

LOG = "server.log"
# A server loads its base first.
START_SECONDS = 180.0
# The server follows routes.json within a second; a model may have to be loaded.
PROBE_SECONDS = 120.0
_PAUSE = 0.3
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?")
# The model failed or abstained, and who answered before is asked in the other protocol.
_NOT_THE_MODEL = 502
CHAT_PATH, MESSAGES_PATH = "/v1/chat/completions", "/v1/messages"
USUAL_PORT = 8750


@dataclass(frozen=True)
class Probe:
    """What a real question came back with."""

    text: str
    seconds: float


def find_endpoint(workspace: Path, environ: Mapping[str, str], given: str = "") -> str | None:
    """The address (no path) of a server whose health answers; None when there is none."""
    found = None if given else read_address(workspace)
    url = given.rstrip("/") or (found.url if found is not None else "")
    token = environ.get(TOKEN_VARIABLE, "")
    return url if url and is_healthy(f"{url}/health", token) else None


def check_address(url: str) -> None:
    """Raises UsageError for what is no address of a server: it stands in the town's settings from then on."""
    try:
        parts = urlsplit(url)
        good = bool(_ADDRESS.fullmatch(url)) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            f"{url!r} is no address of a server",
            why="http:// or https://, a host, a port and a path at most; no name, no password",
            fix="--endpoint http://127.0.0.1:8750",
        )


def name_path(role: str, rig: str) -> str:
    """Below which path a role is answered for."""
    return f"/rigs/{rig}/roles/{role}" if rig else f"/roles/{role}"


def start_server(workspace: Path, port: int, model: str, environ: Mapping[str, str]) -> int:
    """``gtft model serve --deployed`` in a session of its own, with ``model``, which is not in service yet; returns its
    process id."""
    argv = ("model", "serve", "--deployed", f"--port={port}", "--", model)
    try:
        return start_alone(workspace, argv, workspace / FOLDER / LOG, environ)
    except OSError as e:
        raise translate_os_error(e, "starting the server") from e


def wait_for_server(
    workspace: Path,
    pid: int,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
    seconds: float = START_SECONDS,
) -> str:
    """The address of a server that was started; ends it and raises WorkerFailed when it does not come up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (url := find_endpoint(workspace, environ)) is not None:
            return url
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            gone = False
        if gone:
            break
        tell("the server is starting")
        time.sleep(_PAUSE)
    stop_server(pid)
    log = workspace / FOLDER / LOG
    said = log.read_text("utf-8", "replace").strip().splitlines()[-3:] if log.exists() else []
    raise WorkerFailed(
        "the server did not start",
        why=" | ".join(said)[:600] or "it said nothing",
        fix=f"gtft model serve --deployed shows why (log: {log})",
    )


def stop_server(pid: int) -> None:
    """Ask a server that we started to end."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def probe(
    url: str, route: Route, *, environ: Mapping[str, str], seconds: float = PROBE_SECONDS
) -> Probe:
    """One real request, answered by the route's model. Raises GateFailed when it is not.

    A live route is asked in the protocol that is not its fallback's, so that a probe never reaches the server that
    answered before; where the model left that to it, the model is asked by its own name.
    """
    where = name_path(route.role, route.rig) if route.mode == "live" else ""
    foreign = "openai" if route.fallback and route.fallback.protocol == "anthropic" else "anthropic"
    path = MESSAGES_PATH if where and route.fallback and foreign == "anthropic" else CHAT_PATH
    body = {
        "model": route.model,
        "messages": [{"role": "user", "content": "Answer with one word: ready?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    began = time.monotonic()
    last = "no answer"
    while (left := seconds - (time.monotonic() - began)) > 0:
        try:
            return Probe(_ask(f"{url}{where}{path}", body, environ, left), time.monotonic() - began)
        except urllib.error.HTTPError as e:
            last = f"status {e.code}: {e.read(300).decode('utf-8', 'replace')}"
            if where and e.code == _NOT_THE_MODEL:
                where, path = "", CHAT_PATH
                continue
            # Not known yet, busy or loading: the server follows within a second.
            if e.code not in (404, 429, 502, 503):
                break
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as e:
            last = f"{type(e).__name__}: {e}"
        time.sleep(_PAUSE)
    raise GateFailed(
        f"{url}{where}{path} does not answer for {route.model}",
        why=last[:400],
        fix="gtft model serve --deployed (its log: service/server.log), then the same command again",
    )


def _ask(address: str, body: Mapping[str, Any], environ: Mapping[str, str], seconds: float) -> str:
    """The text of the answer, in either protocol. Raises ValueError when it is none of the model that was asked."""
    headers = {"Content-Type": "application/json", "X-Gtft-Probe": "1"}
    if token := environ.get(TOKEN_VARIABLE):
        headers[TOKEN_HEADER] = token
    request = urllib.request.Request(  # noqa: S310
        address, json.dumps(body).encode(), headers, method="POST"
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
        found: dict[str, Any] = json.loads(answer.read(1 << 20))
    # Until the server has read the new route, who was there before may answer.
    if found["model"] != body["model"]:
        raise ValueError(f"answered by {found['model']!r}")
    if "choices" not in found:
        return "".join(str(p.get("text", "")) for p in found["content"])
    message = found["choices"][0]["message"]
    if not isinstance(message["content"], str) and not message.get("tool_calls"):
        raise ValueError("an answer without content")
    return str(message["content"] or "")


def find_port() -> int:
    """A port for a new server: the usual one, where it is free. It stands in the town's settings."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = s.getsockname()[1]
            return found
    raise WorkerFailed("there is no free port on 127.0.0.1", fix="--endpoint URL of a server")
