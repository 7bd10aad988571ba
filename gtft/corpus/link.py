"""Session → role, rig, actor, bead: by what the files say, never by the folder's slug."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gtft.corpus.example import Conversation, Labels
from gtft.errors import translate_os_error

_TOWN_ROLES = frozenset({"mayor", "deacon", "boot"})
_RIG_ROLES = frozenset({"witness", "refinery"})
_NAMED = {"polecats": "polecat", "polecat": "polecat", "crew": "crew"}
_BEACON = re.compile(
    r"\[GAS TOWN\]\s+(?P<to>[^\n]{1,120}?)\s+<-\s+(?P<sender>[^\n•]{1,120}?)\s+•\s+"
    r"(?P<when>\S{1,40})\s+•\s+(?P<topic>[^\n]{1,200})"
)
_PRIME = re.compile(r"\[GAS TOWN\]\s+role:(?P<actor>\S{1,120})\s+pid:\S+\s+session:\S+")
_NEW_SPELLING = re.compile(r"^(?P<who>[\w-]+(?: [\w.-]+)?)(?:\s+\(rig:\s*(?P<rig>[\w.-]+)\))?$")
_BEAD = re.compile(r"^[a-z][a-z0-9]{1,15}(?:-[A-Za-z0-9_]+)+(?:\.\d+)*$")


def parse_actor(text: str) -> Labels | None:
    """An address in either spelling (``rig/polecats/nux``, ``polecat nux (rig: rig)``), or None."""
    parts = text.strip().strip("/").split("/")
    if len(parts) > 1:
        return _parse_path_actor(parts)
    found = _NEW_SPELLING.match(parts[0])
    if not found:
        return None
    rig = found["rig"]
    role, _, name = found["who"].partition(" ")
    if role in _TOWN_ROLES and not rig:
        return Labels(role=role, actor=role)
    if role == "dog" and name:
        return Labels(role="dog", actor=f"deacon/dogs/{name}")
    if role in _RIG_ROLES and rig:
        return Labels(role=role, rig=rig, actor=f"{rig}/{role}")
    if role in ("polecat", "crew") and name and rig:
        folder = "polecats" if role == "polecat" else "crew"
        return Labels(role=role, rig=rig, actor=f"{rig}/{folder}/{name}")
    return None


def _parse_path_actor(parts: list[str]) -> Labels | None:
    if parts[:2] == ["deacon", "dogs"] and len(parts) == 3:
        return Labels(role="dog", actor="/".join(parts))
    if len(parts) == 2 and parts[1] in _RIG_ROLES:
        return Labels(role=parts[1], rig=parts[0], actor="/".join(parts))
    if len(parts) == 3 and parts[1] in _NAMED:
        role = _NAMED[parts[1]]
        folder = "polecats" if role == "polecat" else "crew"
        return Labels(role=role, rig=parts[0], actor=f"{parts[0]}/{folder}/{parts[2]}")
    return None


def parse_prime(text: str) -> Labels | None:
    """The line that ``gt prime`` prints: ``[GAS TOWN] role:<actor> pid:N session:<id>``."""
    found = _PRIME.search(text)
    labels = parse_actor(found["actor"]) if found else None
    return replace(labels, rung="prime") if labels else None


def parse_beacon(text: str) -> Labels | None:
    """The beacon at the head of a first prompt; its topic may name the bead."""
    found = _BEACON.search(text[:2000])
    if not found:
        return None
    labels = parse_actor(found["to"])
    if labels is None:
        return None
    return replace(labels, rung="beacon", bead=_bead_of_topic(found["topic"]))


def _bead_of_topic(topic: str) -> str | None:
    _, _, bead = topic.strip().partition(":")
    bead = bead.strip()
    return bead if _BEAD.match(bead) and not bead.startswith("mol-") else None


def parse_cwd(cwd: str) -> Labels | None:
    """A working folder below a town: ``<rig>/polecats/<n>``, ``<rig>/witness``, ``mayor`` …"""
    parts = list(PurePosixPath(cwd.replace("\\", "/")).parts)
    for i in range(len(parts) - 1, 1, -1):
        part, before = parts[i], parts[i - 1]
        if before in ("home", "Users", "/"):
            return None
        following = parts[i + 1 :]
        if part in _NAMED and part != "polecat" and following:
            return _with_rung(_parse_path_actor([before, part, following[0]]))
        if part in _RIG_ROLES and following in ([], ["rig"]):
            return _with_rung(_parse_path_actor([before, part]))
        if part == "dogs" and before == "deacon" and following:
            return _with_rung(_parse_path_actor(["deacon", "dogs", following[0]]))
        if part in ("mayor", "deacon") and not following:
            return _with_rung(Labels(role=part, actor=part))
    return None


def _with_rung(labels: Labels | None) -> Labels | None:
    return replace(labels, rung="cwd") if labels else None


def link_session(
    texts: list[str], cwd: str | None, agent_name: str | None, parent: Labels | None
) -> Labels:
    """The first rung that decides: prime line, beacon, cwd, agent name, the parent session.

    ``texts`` are the first user texts of the session, harness text included.
    """
    beacon = next(filter(None, map(parse_beacon, texts)), None)
    candidates = (
        next(filter(None, map(parse_prime, texts)), None),
        beacon,
        parse_cwd(cwd) if cwd else None,
        _named(agent_name),
        replace(parent, rung="parent session") if parent and parent.role else None,
    )
    labels = next((c for c in candidates if c is not None), Labels())
    if labels.bead is None and beacon is not None and beacon.bead:
        return replace(labels, bead=beacon.bead)
    return labels


def read_recorded(path: Path) -> dict[str, Labels]:
    """Session → labels, as the session-start hook wrote them (docs/town-parts.md); {} without the file.

    A session that was resumed keeps its newest line. A line that names no agent of a town is left out.
    """
    found: dict[str, Labels] = {}
    try:
        lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    for line in lines:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(said, dict) or not isinstance(said.get("session"), str):
            continue
        names = (said.get("actor"), said.get("role"))
        parsed = (parse_actor(n) for n in names if isinstance(n, str))
        labels = next(filter(None, parsed), None)
        if labels is None:
            continue
        bead = said.get("bead")
        before = found.get(said["session"])
        if not (isinstance(bead, str) and _BEAD.match(bead)):
            bead = before.bead if before else None
        found[said["session"]] = replace(labels, bead=bead, rung="hook")
    return found


def apply_record(talk: Conversation, recorded: Mapping[str, Labels]) -> Conversation:
    """What the hook wrote is exact: it comes before every other rung, for sub-agents too."""
    found = recorded.get((talk.session or "").partition("#")[0])
    if found is None:
        return talk
    labels = replace(found, bead=found.bead or talk.labels.bead)
    link = f"bead:{labels.bead}"
    links = talk.links if labels.bead is None or link in talk.links else (*talk.links, link)
    return replace(talk, labels=labels, links=links)


def _named(agent_name: str | None) -> Labels | None:
    labels = parse_actor(agent_name) if agent_name else None
    return replace(labels, rung="agent name") if labels else None
