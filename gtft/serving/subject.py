"""What a request is about: the bead and the session, as far as its headers, metadata or text tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

BEAD_HEADER = "x-gtft-bead"
# The last two are codex's, new and old.
_SESSION_HEADERS = ("x-claude-code-session-id", "x-session-id", "session-id", "session_id")
# Characters of the conversation's beginning that are looked at: it stays the same through a session.
_LOOKED_AT = 100_000
_ID = r"[a-z][a-z0-9]{0,15}(?:-[A-Za-z0-9_]{1,40}){1,6}(?:\.\d{1,6}){0,6}"
_BEAD = re.compile(_ID)
# The startup line, prime's blocks about the hook, a polecat's branch. Not commands: prime's own text has examples of them.
_NAMED = re.compile(
    rf"""(?:\bassigned:|\bBead\ ID:\s{{1,4}}\W{{0,4}}|\bHooked:\s{{1,4}}\W{{0,4}}|\bpolecat/[\w.-]{{1,60}}?/)
    (?P<bead>{_ID})(?![\w-])""",
    re.X,
)
# Who speaks before the agent does.
_TOLD = ("system", "developer", "user")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)


def find_bead(headers: Mapping[str, str], doc: Mapping[str, Any]) -> str:
    """The bead that a header or the metadata names, else the first one named before the agent says anything; "" for none.

    What the agent says comes after it was chosen who answers, and would change that half-way. Wisps and molecules are a
    town's own upkeep and no bead, as in the harvest.
    """
    metadata = doc.get("metadata")
    told = metadata.get("bead") if isinstance(metadata, dict) else None
    for given in (headers.get(BEAD_HEADER), told):
        if isinstance(given, str) and _BEAD.fullmatch(given) and _is_work(given):
            return given
    left = _LOOKED_AT
    for text in _list_texts(doc):
        for found in _NAMED.finditer(text[:left]):
            if _is_work(found["bead"]):
                return found["bead"]
        left -= len(text)
        if left <= 0:
            break
    return ""


def find_session(headers: Mapping[str, str], doc: Mapping[str, Any]) -> str:
    """The UUID of the agent's session: in a header, or at the end of the user id; "" for none."""
    metadata = doc.get("metadata")
    told = [headers.get(name) for name in _SESSION_HEADERS]
    told += (
        [metadata.get(k) for k in ("session_id", "user_id")] if isinstance(metadata, dict) else []
    )
    for text in told:
        if isinstance(text, str) and (found := _UUID.findall(text[:1000])):
            return str(found[-1]).lower()
    return ""


def _is_work(bead: str) -> bool:
    return not bead.startswith("mol-") and "-wisp-" not in bead


def _list_texts(doc: Mapping[str, Any]) -> Iterator[str]:
    """What the request says before the agent does, in its order, in the words of whichever protocol."""
    contents = [doc.get("system"), doc.get("instructions")]
    for messages in (doc.get("messages"), doc.get("input")):
        if isinstance(messages, str):
            contents.append(messages)
        elif isinstance(messages, list):
            told = takewhile(lambda m: isinstance(m, dict) and m.get("role") in _TOLD, messages)
            contents += [m.get("content") for m in told]
    for content in contents:
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            for block in content:
                if isinstance(block, dict) and isinstance(block.get("text"), str):
                    yield block["text"]
