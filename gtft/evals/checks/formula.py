"""Does a formula parse: the rules that gt's and bd's parsers keep, taken together (the portable subset).

Where the two differ the stricter one counts, as both read the same file. What needs other files (``extends``) or
grows while it is cooked (``loop``, ``expand``) is checked for its shape only: see `find_beyond`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from gtft.evals.answer import Answer, BadAnswer
from gtft.evals.checks.graph import has_cycle

_TYPES = {"workflow": "steps", "convoy": "legs", "expansion": "template", "aspect": "aspects"}
_INT64 = 2**63
_DEEPEST = 40
# Key -> kind of its value, for whichever of the two parsers reads it.
_TOP = {
    "formula": "text", "description": "text", "type": "text", "version": "int", "pour": "bool", "agent": "text",
    "review_only": "bool", "phase": "text", "source": "text", "extends": "texts", "prompts": "text table",
    "output": "table", "inputs": "table", "compose": "table", "synthesis": "table", "vars": "table",
    "steps": "tables", "legs": "tables", "template": "tables", "aspects": "tables", "advice": "tables",
    "pointcuts": "tables",
}  # fmt: skip
_STEP = {
    "id": "text", "title": "text", "description": "text", "acceptance": "text", "notes": "text", "type": "text",
    "assignee": "text", "expand": "text", "waits_for": "text", "condition": "text", "needs": "texts",
    "depends_on": "texts", "labels": "texts", "parallel": "bool", "interactive": "bool", "priority": "int",
    "metadata": "table", "gate": "table", "loop": "table", "on_complete": "table", "expand_vars": "text table",
    "children": "tables",
}  # fmt: skip
_LEG = {"id": "text", "title": "text", "focus": "text", "description": "text", "agent": "text", "review_only": "bool"}  # fmt: skip
_GATE = {"type": "text", "id": "text", "await_id": "text", "timeout": "text"}
_SYNTHESIS = {"title": "text", "description": "text", "depends_on": "texts"}
_INPUT = {"description": "text", "type": "text", "default": "text", "required": "bool", "required_unless": "texts"}  # fmt: skip
_OUTPUT = {"directory": "text", "leg_pattern": "text", "synthesis": "text"}
_PARTS = {"steps": _STEP, "template": _STEP, "legs": _LEG, "aspects": _LEG}
# What pulls in other formulas or multiplies steps.
_BEYOND_TOP = ("extends", "compose", "advice", "pointcuts")
_BEYOND_STEP = ("loop", "expand", "expand_vars", "children", "on_complete", "waits_for")


def check_formula(answer: Answer, args: Mapping[str, Any]) -> None:
    """One TOML fence (or the whole text) that is a valid formula and holds what the prompt named.

    ``args``: name, version, pour, steps [id, …], titles {id: title}, needs [[step, needed], …],
    vars {name: default, or null for required}; a key that is absent or null is not compared.
    """
    doc = parse_formula(find_toml(answer))
    _refuse_losses(doc)
    for key, name in (("name", "formula"), ("version", "version"), ("pour", "pour")):
        if args.get(key) is not None and doc.get(name) != args[key]:
            raise BadAnswer(f"{name} is {str(doc.get(name))[:60]}, not {args[key]}")
    steps = doc.get("steps", [])
    ids = [s["id"] for s in steps]
    if args.get("steps") is not None and sorted(ids) != sorted(args["steps"]):
        raise BadAnswer(f"steps {', '.join(ids)[:80]}, not {', '.join(args['steps'])}")
    if args.get("needs") is not None:
        found = sorted((s["id"], n) for s in steps for n in s.get("needs", []))
        if found != sorted((a, b) for a, b in args["needs"]):
            raise BadAnswer("the steps do not need each other as asked")
    for step in steps if args.get("titles") is not None else ():
        if step["title"].strip() != args["titles"].get(step["id"]):
            raise BadAnswer(f"{step['id'][:40]} is titled {step['title'][:60]}")
    if args.get("vars") is not None:
        _compare_variables(doc.get("vars", {}), args["vars"])


def check_repair(answer: Answer, args: Mapping[str, Any]) -> None:
    """A mended formula: it parses, and its document is one of ``args["accept"]`` (only the order of needs is free)."""
    doc = parse_formula(find_toml(answer))
    shown = _normalise(doc)
    for accepted in args["accept"]:
        if shown == _normalise(accepted):
            return
    raise BadAnswer(f"it parses, but differs in {_name_difference(doc, args['accept'][0])}")


def parse_formula(text: str) -> dict[str, Any]:
    """A formula's document, known keys in lower case as both parsers see them.

    Raises BadAnswer with the first rule that it breaks.
    """
    try:
        text.encode()
        doc = tomllib.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadAnswer(f"not TOML: {str(e)[:80]}") from e
    _check_values(doc)
    doc = _read_table(doc, _TOP, "")
    if not doc.get("formula"):
        raise BadAnswer("no formula name at the top level")
    if doc.get("version", 1) < 0:
        raise BadAnswer("version is below 1")
    kind = doc.get("type") or _guess_type(doc)
    if kind not in _TYPES:
        raise BadAnswer("no steps" if kind is None else f"there is no formula type {kind[:40]}")
    for part, fields in _PARTS.items():
        if part in doc:
            doc[part] = [_read_table(row, fields, f"{part}: ") for row in doc[part]]
    main = _TYPES[kind]
    if not doc.get(main) and not (kind == "workflow" and doc.get("extends")):
        raise BadAnswer(f"no {main}")
    _check_parts(doc.get(main, []), main)
    if main != "steps":
        _check_parts(doc.get("steps", []), "steps")
    for step in doc.get("steps", []):
        _check_step(step)
    _check_convoy(doc, kind)
    _check_variables(doc.get("vars", {}))
    return doc


def find_beyond(doc: Mapping[str, Any]) -> str | None:
    """The first thing in a parsed document that no rule here can judge from the one file; None without one."""
    for key in _BEYOND_TOP:
        if doc.get(key):
            return key
    rows = [r for part in ("steps", "template") for r in doc.get(part, [])]
    return next((k for r in rows for k in _BEYOND_STEP if r.get(k)), None)


def find_toml(answer: Answer) -> str:
    """The body of the one TOML fence, or the whole text. Raises BadAnswer on calls and on several fences."""
    if answer.calls:
        raise BadAnswer("a tool call instead of a formula")
    blocks = [f.body for f in answer.fences if f.language in ("toml", "")]
    if len(blocks) > 1:
        raise BadAnswer(f"{len(blocks)} TOML blocks where one formula is asked for")
    return blocks[0] if blocks else answer.text


def _read_table(row: Mapping[str, Any], fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """The table with its known keys folded to lower case, each of its kind."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = key if key in fields else key.casefold()
        name = name if name in fields else key
        if name in found:
            raise BadAnswer(f"{where}{name} stands twice")
        if name in fields and not _is_kind(value, fields[name]):
            raise BadAnswer(f"{where}{name} is not {_KINDS[fields[name]]}")
        found[name] = value
    return found


_KINDS = {
    "text": "a text", "int": "a whole number", "bool": "true or false", "texts": "a list of texts",
    "table": "a table", "tables": "a list of tables", "text table": "a table of texts",
}  # fmt: skip


def _is_kind(value: Any, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "int":
            return type(value) is int
        case "bool":
            return isinstance(value, bool)
        case "table":
            return isinstance(value, dict)
        case "texts":
            return isinstance(value, list) and all(isinstance(v, str) for v in value)
        case "tables":
            return isinstance(value, list) and all(isinstance(v, dict) for v in value)
        case _:
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _guess_type(doc: Mapping[str, Any]) -> str | None:
    """As gt guesses it; bd takes workflow."""
    if doc.get("extends"):
        return "workflow"
    return next((t for t, part in _TYPES.items() if doc.get(part)), None)


def _check_parts(rows: Sequence[Mapping[str, Any]], part: str) -> None:
    ids = [r.get("id") for r in rows]
    if not all(ids):
        raise BadAnswer(f"{part}: an id is missing")
    known = set(ids)
    if len(known) != len(ids):
        raise BadAnswer(f"{part}: an id stands twice")
    edges: list[tuple[str, str]] = []
    for row in rows:
        for need in row.get("needs", []):
            if need not in known:
                raise BadAnswer(f"{row['id'][:40]} needs {need[:40]}, which is no step")
            edges.append((row["id"], need))
    if part == "steps":
        for row in rows:
            if unknown := [n for n in row.get("depends_on", []) if n not in known]:
                raise BadAnswer(f"{row['id'][:40]} depends on {unknown[0][:40]}, which is no step")
    if has_cycle(edges):
        raise BadAnswer("the steps wait for each other in a circle")


def _check_step(step: Mapping[str, Any]) -> None:
    name = step["id"][:40]
    if not step.get("title") and not step.get("expand"):
        raise BadAnswer(f"{name}: a title is missing")
    if not 0 <= step.get("priority", 2) <= 4:
        raise BadAnswer(f"{name}: a priority is 0 to 4")
    _read_table(step.get("gate", {}), _GATE, f"{name}: gate.")


def _check_convoy(doc: Mapping[str, Any], kind: str) -> None:
    _read_table(doc.get("output", {}), _OUTPUT, "output.")
    synthesis = _read_table(doc.get("synthesis", {}), _SYNTHESIS, "synthesis.")
    inputs = doc.get("inputs", {})
    others: list[str] = []
    for name, row in inputs.items():
        if not isinstance(row, dict):
            raise BadAnswer(f"input {name[:40]} is not a table")
        others += _read_table(row, _INPUT, f"input {name[:40]}: ").get("required_unless", [])
    if kind != "convoy":
        return
    legs = {leg["id"] for leg in doc["legs"]}
    if unknown := [d for d in synthesis.get("depends_on", []) if d not in legs]:
        raise BadAnswer(f"the synthesis depends on {unknown[0][:40]}, which is no leg")
    if unknown := [o for o in others if o not in inputs]:
        raise BadAnswer(f"an input is required unless {unknown[0][:40]}, which is no input")


def _check_variables(variables: Mapping[str, Any]) -> None:
    for name, value in variables.items():
        if not name:
            raise BadAnswer("a variable without a name")
        if not isinstance(value, str | dict):
            raise BadAnswer(f"variable {name[:40]} is neither a string nor a table")
        row = value if isinstance(value, dict) else {}
        if row.get("required") is True and isinstance(row.get("default"), str):
            raise BadAnswer(f"variable {name[:40]} is required and has a default")


def _refuse_losses(doc: Mapping[str, Any]) -> None:
    """What parses and is then dropped without a word."""
    for name, value in doc.get("vars", {}).items():
        if isinstance(value, dict) and not isinstance(value.get("default", ""), str):
            raise BadAnswer(f"variable {name[:40]}: gt and bd lose a default that is no string")
    for step in doc.get("steps", []):
        if step.get("depends_on"):
            raise BadAnswer(f"{step['id'][:40]}: gt ignores depends_on, the key is needs")


def _compare_variables(found: Mapping[str, Any], expected: Mapping[str, str | None]) -> None:
    if sorted(found) != sorted(expected):
        raise BadAnswer(f"variables {', '.join(found)[:80]}, not {', '.join(expected)}")
    for name, default in expected.items():
        value = found[name]
        row = {"default": value} if isinstance(value, str) else value
        if row.get("default") != default:
            raise BadAnswer(f"variable {name} has the default {str(row.get('default'))[:40]}")
        if default is None and row.get("required") is not True:
            raise BadAnswer(f"variable {name} is not required")


def _check_values(doc: Any) -> None:
    """Both parsers are written in Go: a number that 64 bits cannot hold is refused wherever it stands."""
    stack = [(doc, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _DEEPEST:
            raise BadAnswer("nested too deeply")
        if isinstance(value, dict):
            stack += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, list):
            stack += [(v, depth + 1) for v in value]
        elif type(value) is int and not -_INT64 <= value < _INT64:
            raise BadAnswer("a number that does not fit into 64 bits")


def _normalise(doc: Mapping[str, Any]) -> str:
    """The document as text: needs in order, no line ends at the end of a text."""
    steps = [
        {**s, "needs": sorted(s["needs"])} if "needs" in s else s for s in doc.get("steps", [])
    ]
    return json.dumps(_trim({**doc, "steps": steps}), sort_keys=True, default=repr)


def _trim(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _trim(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_trim(v) for v in value]
    return value.rstrip("\n") if isinstance(value, str) else value


def _name_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    for key in sorted({*found, *expected} - {"steps"}):
        if found.get(key) != expected.get(key):
            return key[:40]
    rows = {s["id"]: s for s in expected.get("steps", [])}
    for step in found.get("steps", []):
        if step != rows.pop(step["id"], None):
            return f"step {step['id'][:40]}"
    return f"step {next(iter(rows))}" if rows else "the order of its steps"
