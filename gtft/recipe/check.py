"""From merged ``[gtft]`` data to a ``Recipe``: fill, dial, validate, and say in plain words what is wrong."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gtft.errors import Problem
from gtft.recipe.effort import EFFORT
from gtft.recipe.keys import find_key, is_leaf, suggest
from gtft.recipe.lines import KeyPath, write_path
from gtft.recipe.methods import refuse_methods
from gtft.recipe.overlay import Layers, Place
from gtft.recipe.schema import Recipe
from gtft.recipe.variables import (
    Filled,
    check_uses,
    convert,
    has_raw_bytes,
    names_used,
    replace,
    show,
)

# Keys of the formula itself; one of these inside [gtft] slipped below a table header.
FORMULA_KEYS = ("formula", "description", "version", "type", "pour", "vars", "steps")

_INT64 = 2**63
# A file of thousands of unknown keys is not worth thousands of searches for what was meant.
_MAX_HINTS = 100
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_SCOPE = re.compile(r"rig:[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


@dataclass(frozen=True)
class Checked:
    """``recipe`` is None when there are problems, or when a required variable is still open."""

    recipe: Recipe | None
    problems: tuple[Problem, ...]
    # The variables that a value was filled from, by path.
    variables: Mapping[KeyPath, tuple[str, ...]]
    # Paths whose value waits for a required variable.
    waiting: frozenset[KeyPath]


def check_recipe(layers: Layers, filled: Filled, declared: Sequence[str], file: str) -> Checked:
    """Fill the variables, turn the dial, validate. ``layers`` gains the values of the dial."""
    work = _Check(layers, filled, tuple(declared), file)
    data = work.fill(layers.data, ())
    work.turn_dial(data)
    recipe = work.validate(data)
    problems = sorted(work.problems, key=lambda p: (p.file != file, p.file, p.line, p.key))
    if work.waiting or problems:
        recipe = None
    return Checked(recipe, tuple(problems), work.variables, frozenset(work.waiting))


class _Check:
    def __init__(
        self, layers: Layers, filled: Filled, declared: tuple[str, ...], file: str
    ) -> None:
        self.layers, self.filled, self.declared, self.file = layers, filled, declared, file
        self.problems: list[Problem] = []
        self.variables: dict[KeyPath, tuple[str, ...]] = {}
        self.waiting: set[KeyPath] = set()
        self.refused: set[KeyPath] = set()

    def report(self, path: KeyPath, text: str) -> None:
        place = self.layers.place(path) or Place("formula", self.file, 1)
        self.problems.append(place.problem(write_path(("gtft", *path)), text))
        self.refused.add(path)

    def fill(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, Mapping):
            return {k: self.fill(v, (*path, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v, (*path, i)) for i, v in enumerate(value)]
        if isinstance(value, str):
            return self._fill_text(value, path)
        why_not = _refuse(value)
        if why_not:
            self.report(path, why_not)
            return None
        return value

    def _fill_text(self, text: str, path: KeyPath) -> Any:
        check_uses(text, self.declared, lambda t: self.report(path, t), strict=True)
        used = names_used(text)
        if used:
            self.variables[path] = used
        if any(name in self.filled.missing for name in used):
            self.waiting.add(path)
        out = replace(text, self.filled.values)
        if has_raw_bytes(out):
            self.report(path, "holds bytes that are not text")
            return None
        key = find_key(path)
        whole = bool(used) and text == f"{{{{{used[0]}}}}}"
        return convert(out, key.scalar) if whole and key is not None else out

    def turn_dial(self, data: dict[str, Any]) -> None:
        effort = data.get("effort", Recipe.model_fields["effort"].default)
        dial: Mapping[str, int | float] = {}
        for name, table in EFFORT.items():
            dial = table if name == effort else dial
        for dotted, value in dial.items():
            *parents, last = dotted.split(".")
            at: Any = data
            for part in parents:
                at = at.setdefault(part, {}) if isinstance(at, dict) else None
            if isinstance(at, dict) and last not in at:
                at[last] = value
                path = tuple(dotted.split("."))
                self.layers.places[path] = Place("effort", f"effort {effort}")

    def validate(self, data: dict[str, Any]) -> Recipe | None:
        try:
            recipe = Recipe.model_validate_json(json.dumps(data))
        except ValidationError as e:
            told: set[KeyPath] = set()
            for error in e.errors(include_url=False):
                path = _trim(error["loc"])
                if path in told or path in self.refused or path in self.waiting:
                    continue
                told.add(path)
                self.report(path, self._words(error, path, data))
            return None
        for path, text in _cross_checks(recipe):
            if not any(w[: len(path)] == path for w in self.waiting | self.refused):
                self.report(path, text)
        return recipe

    def _words(self, error: ErrorDetails, path: KeyPath, data: dict[str, Any]) -> str:
        kind = error["type"]
        if kind == "extra_forbidden":
            if len(path) == 1 and path[0] in FORMULA_KEYS:
                return "is a key of the formula, not of gtft: move it above the first table"
            hint = suggest(path) if len(self.problems) < _MAX_HINTS else ""
            return "is not a key of gtft" + (f"; {hint}" if hint else "")
        key = find_key(path)
        element = isinstance(path[-1], int)
        if key is None and element:
            key = find_key(path[:-1])
        wanted = key.type if key else "a table"
        if kind == "missing":
            return f"is missing; it should be {wanted}"
        value = _at(data, path)
        if self.variables.get(path):
            source = ", ".join(self.variables[path])
            shown = f"{show(value)} (variable {source})"
        else:
            shown = show(value)
        if key is not None and key.range and kind.startswith(("greater_than", "less_than")):
            return f"must be {key.range}, is {shown}"
        if key is not None and element:
            wanted = wanted.removeprefix("a list of ")
        text = f"should be {wanted}, is {shown}"
        if key is not None and isinstance(value, str):
            near = difflib.get_close_matches(value, key.choices, n=1)
            text += f'; did you mean "{near[0]}"?' if near else ""
        return text


def _refuse(value: object) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if -_INT64 <= value < _INT64 else "is too large a number"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"must be a finite number, is {value}"
    return f"should not be a date or a time, is {value}"


def _trim(loc: tuple[int | str, ...]) -> KeyPath:
    """pydantic's place as a path: without the tags of union members."""
    path: KeyPath = ()
    for part in loc:
        if path and is_leaf(path):
            key = find_key(path)
            if isinstance(part, int) and key is not None and key.type.startswith("a list"):
                return (*path, part)
            return path
        path += (part,)
    return path


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        has = part in data if isinstance(data, dict) else isinstance(data, list)
        if not has or (isinstance(data, list) and not isinstance(part, int)):
            return None
        data = data[part]
    return data


def _cross_checks(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """What no single field can know."""
    if not _ROLE.fullmatch(recipe.role):
        yield ("role",), f"should be the name of a role, as witness; is {show(recipe.role)}"
    for i, entry in enumerate(recipe.scope):
        if not _SCOPE.fullmatch(entry):
            yield ("scope", i), f'should be written "rig:NAME", is {show(entry)}'
    if not recipe.base.model.strip():
        yield ("base", "model"), 'is empty; name a hub id, a local path, or "nano"'
    nano = recipe.base.nano
    if recipe.base.model == "nano":
        if nano.hidden % (2 * nano.heads):
            text = f"must be a multiple of twice the heads (2 × {nano.heads}), is {nano.hidden}"
            yield ("base", "nano", "hidden"), text
        if recipe.train.max_length > nano.context:
            text = (
                f"must be at most base.nano.context ({nano.context}), is {recipe.train.max_length}"
            )
            yield ("train", "max_length"), text
    yield from refuse_methods(recipe.base, recipe.train)
    if recipe.retrain.enabled and recipe.train.engine == "swarm":
        yield ("retrain", "enabled"), "can not seat a run in a swarm; start it with gtft swarm join"
    if not recipe.harvest.sources:
        yield ("harvest", "sources"), "is empty: add a [[gtft.harvest.sources]] table"
    for i, source in enumerate(recipe.harvest.sources):
        if not source.path.strip() or "\0" in source.path:
            yield ("harvest", "sources", i, "path"), "is empty; name a file or a folder"
    if recipe.harvest.heldout == 1:
        yield ("harvest", "heldout"), "leaves nothing to train on; must be below 1"
    if not recipe.eval.suites:
        yield ("eval", "suites"), "is empty: nothing would be measured"
    if recipe.harvest.heldout == 0 and "heldout" in recipe.eval.suites:
        text = 'keeps nothing for the suite "heldout": give a share, or leave the suite out'
        yield ("harvest", "heldout"), text
    names = [e.name for e in recipe.eval.endpoints]
    for i, endpoint in enumerate(recipe.eval.endpoints):
        if endpoint.name in names[:i]:
            yield ("eval", "endpoints", i, "name"), f"{endpoint.name} is another endpoint's name"
        if not endpoint.url.startswith(("http://", "https://")):
            yield ("eval", "endpoints", i, "url"), "must begin with http:// or https://"
    if not {"base", "tuned"} <= set(recipe.eval.candidates):
        yield ("eval", "candidates"), "must hold base and tuned: the verdict compares them"
    if not recipe.review.approvers:
        yield ("review", "approvers"), "is empty: nobody could approve"
