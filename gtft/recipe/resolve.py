"""From a formula, variables, overlays and ``--set`` to one immutable, hashed recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import hash_json
from gtft.errors import Problem, RecipeError, UsageError
from gtft.recipe.check import Checked, check_recipe
from gtft.recipe.find import find_formula, find_named, search_folders
from gtft.recipe.formula import Formula, read_formula
from gtft.recipe.lines import KeyPath, write_path
from gtft.recipe.lint import lint_frame, problems_error
from gtft.recipe.overlay import LayerName, Layers, Overlay, read_overlay
from gtft.recipe.schema import Recipe
from gtft.recipe.variables import BEAD_VARIABLE, Filled, fill_variables, require_all

__all__ = [
    "Origin",
    "Resolved",
    "find_formula",
    "find_named",
    "parse_assignments",
    "resolve",
    "search_folders",
]


@dataclass(frozen=True)
class UsedVariable:
    """A variable that a value was filled from; ``given`` when its value came from ``--var``."""

    name: str
    value: str
    given: bool

    def __str__(self) -> str:
        source = "--var" if self.given else "its default"
        return f"variable {self.name} = {json.dumps(self.value, ensure_ascii=False)}, {source}"


@dataclass(frozen=True)
class Origin:
    """Where the value of one key comes from. ``line`` is 0 when there is no file."""

    layer: LayerName
    file: str = ""
    line: int = 0
    variables: tuple[UsedVariable, ...] = ()

    def __str__(self) -> str:
        if self.layer == "default":
            return "default"
        text = f"{self.layer} {self.file}:{self.line}" if self.line else self.file
        return "; ".join([text, *map(str, self.variables)])


@dataclass(frozen=True)
class Resolved:
    """A recipe ready to run. ``hash`` is over the recipe alone: the same settings, the same hash.

    ``document`` is pure JSON, for the store: recipe, hash, formula, variables, overlays, sets, origins.
    """

    recipe: Recipe
    formula: str
    version: int
    source: Path
    variables: Mapping[str, str]
    origins: Mapping[str, Origin]
    overlays: tuple[Overlay, ...]
    sets: tuple[str, ...]
    hash: str
    document: dict[str, Any]


def resolve(
    path_or_name: str | Path,
    *,
    variables: Mapping[str, str] | None = None,
    overlays: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
    root: Path,
) -> Resolved:
    """Read, check and fill a formula. ``root`` is where the search for a name begins.

    Values in order, later wins: default, effort, formula (with its variables), overlays, sets.
    Raises UsageError (no such formula), InputError (unreadable file) and RecipeError, which carries every
    problem found.
    """
    path = find_formula(path_or_name, search_folders(root))
    formula = read_formula(path, shown=show_path(path, root))
    return resolve_formula(formula, variables=variables, overlays=overlays, sets=sets)


def resolve_formula(
    formula: Formula,
    *,
    variables: Mapping[str, str] | None = None,
    overlays: Sequence[str | Path] = (),
    sets: Sequence[str] = (),
) -> Resolved:
    """`resolve` for a formula that is read already."""
    file = formula.document.file
    if "gtft" not in formula.document.data:
        raise plain_error(formula)
    problems: list[Problem] = list(lint_frame(formula))
    layers = Layers()
    if formula.gtft is not None:
        layers.lay(formula.document, "formula", ("gtft",))
    used: list[Overlay] = []
    for overlay in overlays:
        try:
            document, table = read_overlay(Path(overlay))
        except RecipeError as e:
            problems += e.problems
            continue
        layers.lay(document, "overlay", table)
        used.append(Overlay(document.file, document.sha256, document.data))
    for item in sets:
        wrong = layers.lay_set(item)
        if wrong:
            problems.append(wrong)
    filled, of_vars = fill_variables(formula, variables or {})
    problems += [*of_vars, *require_all(formula, filled)]
    checked = check_recipe(layers, filled, tuple(v.name for v in formula.vars), file)
    problems += checked.problems
    if BEAD_VARIABLE in filled.missing:
        problems += _without_bead(layers, checked)
    if problems or checked.recipe is None:
        in_order = sorted(problems, key=lambda p: (p.file != file, p.file, p.line, p.key))
        raise problems_error(file, tuple(in_order))
    origins = dict(_origins(checked.recipe, layers, checked, filled))
    return _build(formula, checked.recipe, filled, origins, tuple(used), tuple(sets))


def parse_assignments(items: Sequence[str], option: str = "--var") -> dict[str, str]:
    """``NAME=VALUE`` options as a dict, the last one of a name wins. Raises UsageError."""
    out: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{option} {item}: there is no value",
                why=f"it is written {option} NAME=VALUE",
                fix="gtft recipe show FORMULA lists its variables",
            )
        out[name.strip()] = value
    return out


def plain_error(formula: Formula) -> RecipeError:
    """The error of asking gtft to run what has no ``[gtft]`` table."""
    return RecipeError(
        f"{formula.name} is a plain formula: gt and bd run it, gtft has nothing to do",
        why=f"{formula.document.file} has no [gtft] table",
        fix="gtft recipe list, or: gtft recipe new NAME",
    )


def show_path(path: Path, root: Path) -> str:
    """A path as messages name it: relative when it lies below ``root``."""
    try:
        return str(path.resolve().relative_to(root.resolve()))
    except ValueError:
        return str(path)


def _without_bead(layers: Layers, checked: Checked) -> Iterator[Problem]:
    for path in sorted(checked.waiting, key=str):
        place = layers.place(path)
        if place is not None and BEAD_VARIABLE in checked.variables[path]:
            text = "uses {{issue}}, but no bead of a town carries this run: --var issue=BEAD"
            yield place.problem(write_path(("gtft", *path)), text)


def _origins(
    recipe: Recipe, layers: Layers, checked: Checked, filled: Filled
) -> Iterator[tuple[str, Origin]]:
    for path in _leaves(recipe.model_dump(mode="json"), ()):
        place = layers.places.get(path)
        if place is None:
            yield write_path(path), Origin("default")
            continue
        below = (names for p, names in checked.variables.items() if p[: len(path)] == path)
        used = tuple(
            UsedVariable(n, filled.values[n], n in filled.given)
            for n in dict.fromkeys(n for names in below for n in names)
        )
        yield write_path(path), Origin(place.layer, place.file, place.line, used)


def _leaves(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Paths of values; a list of scalars is one value, an empty table is one too."""
    if isinstance(value, dict) and value:
        for k, v in value.items():
            yield from _leaves(v, (*path, k))
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        for i, v in enumerate(value):
            yield from _leaves(v, (*path, i))
    else:
        yield path


def _build(
    formula: Formula,
    recipe: Recipe,
    filled: Filled,
    origins: Mapping[str, Origin],
    overlays: tuple[Overlay, ...],
    sets: tuple[str, ...],
) -> Resolved:
    dump = recipe.model_dump(mode="json")
    digest = hash_json(dump)
    document: dict[str, Any] = {
        "format": 1,
        "recipe": dump,
        "hash": digest,
        "formula": formula.name,
        "version": formula.version,
        "formula_file": formula.document.file,
        "formula_sha256": formula.document.sha256,
        "variables": dict(filled.values),
        "overlays": [
            {"file": o.file, "sha256": o.sha256, "keys": _plain(o.data)} for o in overlays
        ],
        "sets": list(sets),
        "origins": {
            key: {
                "layer": o.layer,
                "file": o.file,
                "line": o.line,
                "variables": [v.name for v in o.variables],
            }
            for key, o in origins.items()
        },
    }
    return Resolved(
        recipe=recipe,
        formula=formula.name,
        version=formula.version,
        source=formula.source,
        variables=dict(filled.values),
        origins=origins,
        overlays=overlays,
        sets=sets,
        hash=digest,
        document=document,
    )


def _plain(value: Any) -> Any:
    """TOML data as JSON: dates and times as their text."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) else str(value)
