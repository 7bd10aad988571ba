"""Does a formula parse: the rules that both gt's and bd's parser keep (the portable subset)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from gtft.evals.answer import Answer, BadAnswer
from gtft.evals.checks.bead import has_cycle

_TYPES = frozenset({"workflow", "convoy", "expansion", "aspect"})
_PARTS = {"legs": "legs", "template": "template", "aspects": "aspects", "steps": "steps"}
_MOST_PARTS = 200


def check_formula(answer: Answer, args: Mapping[str, Any]) -> None:
    """One TOML fence (or the whole text) that is a valid formula and holds what the prompt named.

    ``args``: name, steps [id, …], needs [[step, needed], …]; a key that is absent or null is not compared.
    """
    doc = parse_formula(_find_toml(answer))
    if args.get("name") is not None and doc["formula"] != args["name"]:
        raise BadAnswer(f"the formula is called {doc['formula'][:60]}, not {args['name']}")
    steps = doc.get("steps", [])
    ids = [s["id"] for s in steps]
    if args.get("steps") is not None and sorted(ids) != sorted(args["steps"]):
        raise BadAnswer(f"steps {', '.join(ids)[:80]}, not {', '.join(args['steps'])}")
    if args.get("needs") is not None:
        found = sorted((s["id"], n) for s in steps for n in s.get("needs", []))
        if found != sorted((a, b) for a, b in args["needs"]):
            raise BadAnswer("the steps do not need each other as asked")


def parse_formula(text: str) -> dict[str, Any]:
    """A formula's document. Raises BadAnswer with the first rule that it breaks."""
    try:
        doc = tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadAnswer(f"not TOML: {str(e)[:80]}") from e
    name = doc.get("formula")
    if not isinstance(name, str) or not name.strip():
        raise BadAnswer("no formula name at the top level")
    for key, kind in (("version", int), ("description", str), ("type", str), ("pour", bool)):
        if key in doc and (type(doc[key]) is not kind):
            raise BadAnswer(f"{key} is not {kind.__name__}")
    if doc.get("type", "workflow") not in _TYPES:
        raise BadAnswer(f"there is no formula type {doc['type'][:40]}")
    extends = doc.get("extends", [])
    if not isinstance(extends, list) or not all(isinstance(x, str) for x in extends):
        raise BadAnswer("extends is not a list of names")
    parts = [p for p in _PARTS if doc.get(p)]
    if not parts and not extends:
        raise BadAnswer("no steps")
    for part in parts:
        _check_parts(doc[part], part)
    _check_variables(doc.get("vars", {}))
    return doc


def _check_parts(rows: Any, part: str) -> None:
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise BadAnswer(f"{part} is not a list of tables")
    if len(rows) > _MOST_PARTS:
        raise BadAnswer(f"more than {_MOST_PARTS} {part}")
    ids = [r.get("id") for r in rows]
    if not all(isinstance(i, str) and i for i in ids):
        raise BadAnswer(f"{part}: an id is missing")
    if len(set(ids)) != len(ids):
        raise BadAnswer(f"{part}: an id stands twice")
    if not all(isinstance(r.get("title"), str) and r["title"].strip() for r in rows):
        raise BadAnswer(f"{part}: a title is missing")
    edges: list[tuple[str, str]] = []
    for row in rows:
        needs = row.get("needs", [])
        if not isinstance(needs, list) or not all(isinstance(n, str) for n in needs):
            raise BadAnswer(f"{row['id'][:40]}: needs is not a list of ids")
        if unknown := [n for n in needs if n not in ids]:
            raise BadAnswer(f"{row['id'][:40]} needs {unknown[0][:40]}, which is no step")
        edges += [(row["id"], n) for n in needs]
        for key, kind in (("gate", dict), ("loop", dict), ("notes", str), ("description", str)):
            if key in row and not isinstance(row[key], kind):
                raise BadAnswer(f"{row['id'][:40]}: {key} is not a {kind.__name__}")
    if has_cycle(edges):
        raise BadAnswer("the steps wait for each other in a circle")


def _check_variables(variables: Any) -> None:
    if not isinstance(variables, dict):
        raise BadAnswer("vars is not a table")
    for name, value in variables.items():
        if isinstance(value, str):
            continue
        if not isinstance(value, dict):
            raise BadAnswer(f"variable {name[:40]} is neither a string nor a table")
        if "default" in value and not isinstance(value["default"], str):
            raise BadAnswer(f"variable {name[:40]}: the default is not a string")
        if value.get("required") and "default" in value:
            raise BadAnswer(f"variable {name[:40]} is required and has a default")


def _find_toml(answer: Answer) -> str:
    if answer.calls:
        raise BadAnswer("a tool call instead of a formula")
    blocks = [f.body for f in answer.fences if f.language in ("toml", "")]
    if len(blocks) > 1:
        raise BadAnswer(f"{len(blocks)} TOML blocks where one formula is asked for")
    return blocks[0] if blocks else answer.text
