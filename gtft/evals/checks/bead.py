"""Checks on ``bd`` commands: is the bead valid by bd's own rules, does the graph come out right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.evals.answer import Answer, BadAnswer

TYPES = frozenset(
    [
        "task",
        "bug",
        "feature",
        "epic",
        "chore",
        "decision",
        "message",
        "molecule",
        "gate",
        "spike",
        "story",
        "milestone",
        "event",
    ]
)
_TITLE_BYTES = 500
_LABEL_CHARS = 255
# Flag of `bd create` -> what it holds. None: a switch without a value.
_CREATE_FLAGS: dict[str, str | None] = {
    "--title": "title",
    "-t": "type",
    "--type": "type",
    "-p": "priority",
    "--priority": "priority",
    "-l": "labels",
    "--labels": "labels",
    "--label": "labels",
    "-d": "description",
    "--description": "description",
    "--body": "description",
    "--design": "design",
    "--acceptance": "acceptance",
    "--notes": "notes",
    "-a": "assignee",
    "--assignee": "assignee",
    "--parent": "parent",
    "--deps": "deps",
    "--metadata": "metadata",
    "--estimate": "estimate",
    "--external-ref": "external",
    "--id": "id",
    "--rig": "rig",
    "--actor": "actor",
    "--json": None,
    "--silent": None,
    "--ephemeral": None,
    "--no-inherit-labels": None,
}
_DEPENDENCY_TYPES = frozenset(
    [
        "blocks",
        "parent-child",
        "conditional-blocks",
        "waits-for",
        "related",
        "discovered-from",
        "tracks",
        "relates-to",
        "replies-to",
        "duplicates",
        "supersedes",
        "until",
        "caused-by",
        "validates",
        "authored-by",
        "assigned-to",
        "approved-by",
        "attests",
        "delegated-from",
    ]
)


@dataclass(frozen=True)
class NewBead:
    title: str
    type: str
    priority: int
    labels: tuple[str, ...]


def parse_create(command: Sequence[str]) -> NewBead:
    """The bead that one ``bd create`` command makes; bd's defaults are type task, priority 2.

    Raises BadAnswer on what bd would refuse.
    """
    if list(command[:2]) != ["bd", "create"]:
        raise BadAnswer(f"not a bd create command: {' '.join(command[:2])}")
    values: dict[str, str] = {}
    words = list(command[2:])
    while words:
        word = words.pop(0)
        flag, has_value, value = word.partition("=")
        if not word.startswith("-"):
            flag, has_value, value = "--title", "=", word
        if flag not in _CREATE_FLAGS:
            raise BadAnswer(f"bd create has no flag {flag}")
        key = _CREATE_FLAGS[flag]
        if key is None:
            continue
        if not has_value:
            if not words:
                raise BadAnswer(f"{flag} without a value")
            value = words.pop(0)
        if key in values and key != "labels":
            raise BadAnswer(f"{key} is given twice")
        values[key] = f"{values[key]},{value}" if key in values else value
    return _validate(values)


def _validate(values: Mapping[str, str]) -> NewBead:
    title = values.get("title", "").strip()
    if not title or len(title.encode("utf-8", "replace")) > _TITLE_BYTES:
        raise BadAnswer(f"a title has 1 to {_TITLE_BYTES} bytes")
    if title.startswith("-"):
        raise BadAnswer("the title looks like a flag")
    kind = values.get("type", "task")
    if kind not in TYPES:
        raise BadAnswer(f"bd knows no type {kind[:40]}")
    priority = values.get("priority", "2").removeprefix("P")
    if priority not in ("0", "1", "2", "3", "4"):
        raise BadAnswer(f"a priority is 0 to 4, not {priority[:40]}")
    labels = tuple(x.strip() for x in values.get("labels", "").split(",") if x.strip())
    if any(len(x) > _LABEL_CHARS or x.startswith("provides:") for x in labels):
        raise BadAnswer("a label is too long or reserved")
    return NewBead(title, kind, int(priority), labels)


def check_bead(answer: Answer, args: Mapping[str, Any]) -> None:
    """Exactly one ``bd create`` and nothing else, valid, with the type, priority and rig of ``args``.

    ``args``: type, priority, rig; a key that is absent or null is not compared.
    """
    commands = answer.commands()
    if len(commands) != 1:
        raise BadAnswer(f"{len(commands)} commands where one bd create is asked for")
    bead = parse_create(commands[0])
    for key, found in (("type", bead.type), ("priority", bead.priority)):
        expected = args.get(key)
        if expected is not None and found != expected:
            raise BadAnswer(f"{key} {found}, not {expected}")
    rigs = [x.removeprefix("rig:") for x in bead.labels if x.startswith("rig:")]
    if args.get("rig") is not None and rigs != [args["rig"]]:
        raise BadAnswer(f"rig label {', '.join(rigs) or 'missing'}, not {args['rig']}")


def check_dependencies(answer: Answer, args: Mapping[str, Any]) -> None:
    """Only ``bd dep add`` commands, exactly the edges of ``args``, and no cycle.

    ``args``: edges [[needs, needed], …]; existing, edges that are there already.
    """
    found: list[tuple[str, str]] = [_parse_dep(c) for c in answer.commands()]
    expected = {(a, b) for a, b in args["edges"]}
    if not found:
        raise BadAnswer("no bd dep add command")
    if set(found) != expected or len(found) != len(expected):
        raise BadAnswer(f"edges {_show(found)}, not {_show(sorted(expected))}")
    existing = [(a, b) for a, b in args.get("existing", [])]
    if has_cycle([*existing, *found]):
        raise BadAnswer("the graph has a cycle")


def has_cycle(edges: Sequence[tuple[str, str]]) -> bool:
    """Whether directed edges close a circle (Kahn's algorithm)."""
    nodes = {n for e in edges for n in e}
    incoming = dict.fromkeys(nodes, 0)
    following: dict[str, list[str]] = {n: [] for n in nodes}
    for a, b in set(edges):
        incoming[b] += 1
        following[a].append(b)
    free = [n for n in nodes if not incoming[n]]
    seen = 0
    while free:
        seen += 1
        for n in following[free.pop()]:
            incoming[n] -= 1
            if not incoming[n]:
                free.append(n)
    return seen != len(nodes)


def _parse_dep(command: Sequence[str]) -> tuple[str, str]:
    if list(command[:3]) != ["bd", "dep", "add"]:
        raise BadAnswer(f"not a bd dep add command: {' '.join(command[:3])}")
    ids: list[str] = []
    words = list(command[3:])
    while words:
        word = words.pop(0)
        flag, has_value, value = word.partition("=")
        if flag in ("-t", "--type"):
            kind = value if has_value else (words.pop(0) if words else "")
            if kind not in _DEPENDENCY_TYPES:
                raise BadAnswer(f"bd knows no dependency type {kind[:40]}")
        elif word == "--json":
            continue
        elif word.startswith("-"):
            raise BadAnswer(f"bd dep add has no flag {flag}")
        else:
            ids.append(word)
    if len(ids) != 2:
        raise BadAnswer(f"bd dep add takes two ids, not {len(ids)}")
    return ids[0], ids[1]


def _show(edges: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{a} needs {b}" for a, b in edges)[:120]
