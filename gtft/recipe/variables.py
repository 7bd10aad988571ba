"""Variables: ``{{name}}`` in the strings of a formula. bd enforces nothing about them, so gtft does."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.errors import Problem
from gtft.recipe.formula import Document, Formula, Variable
from gtft.recipe.keys import Scalar
from gtft.recipe.lines import KeyPath

# The bead of a town that carries the run; `gt sling` passes it, a run without a town has none.
BEAD_VARIABLE = "issue"

# As bd fills it: no spaces inside the braces.
USE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}")
_LOOSE = re.compile(r"\{\{[^{}\n]{0,80}\}\}")

TYPES: dict[str, Scalar] = {
    "string": "str",
    "int": "int",
    "integer": "int",
    "float": "float",
    "number": "float",
    "bool": "bool",
    "boolean": "bool",
}

_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Filled:
    """The values of a formula's variables. ``given`` names those that came from ``--var``."""

    values: Mapping[str, str]
    given: frozenset[str]
    # Required and without a value: an error when a run is resolved, not when a file is checked.
    missing: tuple[str, ...]


def fill_variables(
    formula: Formula, given: Mapping[str, str]
) -> tuple[Filled, tuple[Problem, ...]]:
    """Values from ``given`` and the defaults, checked against enum, pattern and type.

    A required variable without a value is listed in ``missing``; `require_all` turns that into problems.
    """
    problems: list[Problem] = []
    declared = {v.name: v for v in formula.vars}
    values: dict[str, str] = {}
    for name, value in given.items():
        var = declared.get(name)
        if var is None:
            problems.append(
                Problem(f"--var {name}", 0, "", _unknown(name, tuple(declared), "--var NAME"))
            )
            continue
        why_not = check_value(var, value)
        if why_not:
            problems.append(Problem(f"--var {name}", 0, "", why_not))
        values[name] = value
    missing: list[str] = []
    for var in formula.vars:
        if var.name in values:
            continue
        if var.default is not None:
            values[var.name] = var.default
        elif var.required:
            missing.append(var.name)
        elif var.name != BEAD_VARIABLE:
            values[var.name] = ""
    return Filled(values, frozenset(given) & frozenset(declared), tuple(missing)), tuple(problems)


def require_all(formula: Formula, filled: Filled) -> Iterator[Problem]:
    """One problem per required variable without a value; the bead of a town may be absent."""
    meaning = {v.name: v.description for v in formula.vars}
    for name in filled.missing:
        if name != BEAD_VARIABLE:
            text = f"needs a value: --var {name}=VALUE"
            text += f" ({meaning[name]})" if meaning[name] else ""
            yield formula.document.problem(("vars", name), f"vars.{name}", text)


def check_value(var: Variable, value: str) -> str:
    """Why ``value`` may not be given to ``var``; "" when it may."""
    if has_raw_bytes(value) or any(c < " " and c not in "\t\n" for c in value):
        return "holds bytes that are not text"
    if var.enum and value not in var.enum:
        return f"must be one of {', '.join(var.enum)}, is {show(value)}"
    if var.pattern is not None:
        try:
            matches = re.fullmatch(var.pattern, value) is not None
        except re.error:
            return ""  # lint names the broken pattern
        if not matches:
            return f"must match {var.pattern}, is {show(value)}"
    scalar = TYPES.get(var.type, "str")
    if scalar != "str" and isinstance(convert(value, scalar), str):
        return f"must be of type {var.type}, is {show(value)}"
    return ""


def has_raw_bytes(text: str) -> bool:
    """Whether an argument of the command line held bytes that are not UTF-8."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def convert(text: str, scalar: Scalar) -> int | float | bool | str:
    """Text as the type a key wants; the text itself when it is not of that type."""
    if scalar == "int" and _INT.fullmatch(text):
        return int(text)
    if scalar == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if scalar == "bool" and text in ("true", "false"):
        return text == "true"
    return text


def walk_strings(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every string below a TOML value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from walk_strings(v, (*path, k))
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for i, v in enumerate(value):
            yield from walk_strings(v, (*path, i))


def replace(text: str, values: Mapping[str, str]) -> str:
    """Fill every ``{{name}}`` that has a value, once: values are never filled again."""
    return USE.sub(lambda m: values.get(m.group(1), m.group(0)), text)


def names_used(text: str) -> tuple[str, ...]:
    """The variables a text uses, in order."""
    return tuple(dict.fromkeys(USE.findall(text)))


def check_uses(
    text: str, declared: Sequence[str], report: Callable[[str], None], *, strict: bool
) -> None:
    """Report what looks like a variable and would not be filled.

    ``strict`` (the ``[gtft]`` tables) refuses every ``{{…}}`` that is not a variable; prose may hold them.
    """
    for name in names_used(text):
        if name not in declared:
            report(_unknown(name, tuple(declared), "[vars.NAME]"))
    for found in _LOOSE.findall(text):
        if USE.fullmatch(found):
            continue
        inner = found[2:-2].strip()
        if inner in declared or strict:
            report(
                f"{found} is not filled in: write {{{{name}}}} without spaces, letters and _ only"
            )


def check_declarations(document: Document) -> Iterator[Problem]:
    """What gt or bd reject or silently lose in ``[vars]``."""
    raw = document.data.get("vars")
    if raw is None:
        return
    if not isinstance(raw, dict):
        yield document.problem(("vars",), "vars", "must be tables: [vars.NAME]")
        return
    for name, spec in raw.items():
        key = f"vars.{name}"
        if not USE.fullmatch(f"{{{{{name}}}}}"):
            yield document.problem(("vars", name), key, "a name is letters, digits and _ only")
        if isinstance(spec, str):
            continue
        if not isinstance(spec, dict):
            text = f'must be text or a table: write "{str(spec).lower()}" (gt and bd refuse this)'
            yield document.problem(("vars", name), key, text)
            continue
        for field, text in _check_one(name, spec):
            yield document.problem(("vars", name, field), f"{key}.{field}", text)


_FIELDS = ("description", "required", "default", "enum", "pattern", "type")


def _check_one(name: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in spec:
        if field not in _FIELDS:
            yield field, _unknown(field, _FIELDS, "")
    for field in ("description", "pattern"):
        if field in spec and not isinstance(spec[field], str):
            yield field, f"should be text, is {show(spec[field])}"
    if "required" in spec and not isinstance(spec["required"], bool):
        yield "required", f"should be true or false, is {show(spec['required'])}"
    if "default" in spec and not isinstance(spec["default"], str):
        fix = f'write default = "{str(spec["default"]).lower()}"'
        yield "default", f"must be text, or gt and bd lose it silently: {fix}"
    if "default" in spec and spec.get("required") is True:
        yield "required", "stands together with a default; bd refuses that: keep one of the two"
    if "type" in spec and spec["type"] not in tuple(TYPES):
        yield "type", f"should be one of {', '.join(TYPES)}, is {show(spec['type'])}"
    enum = spec.get("enum")
    if enum is not None and not (
        isinstance(enum, list) and enum and all(isinstance(e, str) for e in enum)
    ):
        yield "enum", "should be a list of texts"
        return
    if isinstance(spec.get("pattern"), str):
        try:
            re.compile(spec["pattern"])
        except (re.error, RecursionError, OverflowError) as e:
            yield "pattern", f"is not a regular expression: {e}"
            return
    default = spec.get("default")
    if isinstance(default, str) and spec.get("type", "string") in tuple(TYPES):
        var = Variable(
            name,
            enum=tuple(enum or ()),
            pattern=spec["pattern"] if isinstance(spec.get("pattern"), str) else None,
            type=spec.get("type", "string"),
        )
        why_not = check_value(var, default)
        if why_not:
            yield "default", why_not


def show(value: object) -> str:
    """A value for a message: quoted, on one line, cut to 60 characters."""
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "…"


def _unknown(name: str, known: Sequence[str], how: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{show(name)} is not known; did you mean {near[0]}?"
    listed = f"known: {', '.join(known)}" if known else "none is declared"
    return f"{show(name)} is not known; {listed}" + (f" ({how} declares one)" if "[" in how else "")
