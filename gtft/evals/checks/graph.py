"""Checks on graphs: do ``bd dep add`` commands make the right edges, and is a graph free of circles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gtft.evals.answer import Answer, BadAnswer

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


def check_dependencies(answer: Answer, args: Mapping[str, Any]) -> None:
    """Only ``bd dep add`` commands, exactly the edges of ``args``, and no cycle.

    ``args``: edges [[needs, needed], …]; existing, edges that are there already; type, the dependency's
    type (absent or null: any).
    """
    found: list[tuple[str, str]] = [_add(c, args.get("type")) for c in answer.commands()]
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


def parse_edge(command: Sequence[str]) -> tuple[str, tuple[str, str], str]:
    """("add" or "remove", (needs, needed), type) of one ``bd dep`` command. Raises BadAnswer on any other."""
    verb = command[2] if len(command) > 2 else ""
    if list(command[:2]) != ["bd", "dep"] or verb not in ("add", "remove"):
        raise BadAnswer(f"not a bd dep add command: {' '.join(command[:3])[:60]}")
    ids: list[str] = []
    kind = "blocks"
    words = list(command[3:])
    while words:
        word = words.pop(0)
        flag, has_value, value = word.partition("=")
        if flag in ("-t", "--type") and verb == "add":
            kind = value if has_value else (words.pop(0) if words else "")
            if kind not in _DEPENDENCY_TYPES:
                raise BadAnswer(f"bd knows no dependency type {kind[:40]}")
        elif word == "--json":
            continue
        elif word.startswith("-"):
            raise BadAnswer(f"bd dep {verb} has no flag {flag[:40]}")
        else:
            ids.append(word)
    if len(ids) != 2:
        raise BadAnswer(f"bd dep {verb} takes two ids, not {len(ids)}")
    return verb, (ids[0], ids[1]), kind


def _add(command: Sequence[str], expected: str | None) -> tuple[str, str]:
    verb, edge, kind = parse_edge(command)
    if verb != "add":
        raise BadAnswer(f"bd dep {verb} where only bd dep add is asked for")
    if kind != (expected or kind):
        raise BadAnswer(f"a dependency of type {kind}, not {expected}")
    return edge


def _show(edges: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{a} needs {b}" for a, b in edges)[:120]
