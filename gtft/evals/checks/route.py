"""Where a bead lives: prefixes, routes and rigs, and the check on answers about them."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object

# What an answer says of an id that no route fits.
UNKNOWN = "unknown"


def find_prefix(bead: str, prefixes: Collection[str]) -> str | None:
    """The longest of ``prefixes`` (without the trailing dash) that ``bead`` begins with; None when none does.

    A prefix may hold dashes, so an id is never cut at its first or last one.
    """
    fitting = [p for p in prefixes if bead.startswith(p + "-") and len(bead) > len(p) + 1]
    return max(fitting, key=len, default=None)


def find_owner(rigs: Collection[str]) -> str:
    """Where work on the code of ``rigs`` is filed: with the one that owns it all, else at hq."""
    owners = set(rigs)
    return owners.pop() if len(owners) == 1 else "hq"


def check_route(answer: Answer, args: Mapping[str, Any]) -> None:
    """The whole answer is one JSON object with exactly the keys and values of ``expect``.

    ``args``: expect. A path may be written with a slash at its end, a prefix with or without its dash.
    """
    doc = parse_object(answer)
    expected: Mapping[str, Any] = args["expect"]
    if set(doc) != set(expected):
        raise BadAnswer(f"keys {', '.join(sorted(doc))[:80]}, not {', '.join(sorted(expected))}")
    for key, value in expected.items():
        if not _same(_write(key, doc[key]), _write(key, value)):
            raise BadAnswer(f"{key} {str(doc[key])[:60]}, not {value}")


def _write(key: str, value: Any) -> Any:
    if isinstance(value, str) and value and key == "path":
        return posixpath.normpath(value)
    if isinstance(value, str) and key == "prefix":
        return value.removesuffix("-")
    return value


def _same(a: Any, b: Any) -> bool:
    """Equal, and of one type: true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return set(a) == set(b) and all(_same(a[k], b[k]) for k in b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)
