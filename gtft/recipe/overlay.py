"""Layers of a recipe: the formula, overlay files, ``--set``. Later ones win, key by key."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gtft.errors import Problem, RecipeError
from gtft.recipe.formula import Document, parse_document, read_bytes
from gtft.recipe.keys import find_key
from gtft.recipe.lines import KeyPath
from gtft.recipe.variables import convert

LayerName = Literal["default", "effort", "formula", "overlay", "set"]

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Place:
    """Where a value was written: a line of a file, or an option of the command line (line 0)."""

    layer: LayerName
    file: str
    line: int = 0

    def problem(self, key: str, text: str) -> Problem:
        return Problem(self.file, self.line, key, text)


@dataclass(frozen=True)
class Overlay:
    """An overlay file, as it is recorded with the run."""

    file: str
    sha256: str
    data: Mapping[str, Any]


@dataclass
class Layers:
    """The merged ``[gtft]`` data and, for every path in it, the place it comes from."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place | None:
        """The place of a path, else of its nearest ancestor."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return None

    def lay(self, document: Document, layer: LayerName, table: KeyPath) -> None:
        """Merge the table at ``table`` of a document: tables key by key, everything else whole."""
        data: Any = document.data
        for part in table:
            data = data[part]

        def place(path: KeyPath) -> Place:
            return Place(layer, document.file, document.lines.find((*table, *path)))

        self.places.setdefault((), place(()))
        self._merge(self.data, data, (), place)

    def lay_set(self, item: str) -> Problem | None:
        """Apply one ``key=value``; what is wrong with it, or None."""
        file = f"--set {item}"
        key, equals, text = item.partition("=")
        key = key.strip().removeprefix("gtft.")
        if not equals or not _KEY.fullmatch(key):
            return Problem(file, 0, "", "write --set KEY=VALUE, as train.epochs=3")
        path: KeyPath = ()
        at: Any = self.data
        *parents, last = key.split(".")
        for part in parents:
            step = _step(at, part)
            if step is None:
                return Problem(file, 0, key, f"there is no element {part} in that list")
            path += (step,)
            if isinstance(at, list):
                at = at[int(step)]
            else:
                if not isinstance(at.get(part), dict | list):
                    at[part] = {}
                    self._forget(path)
                    self.places[path] = Place("set", file)
                at = at[part]
            if not isinstance(at, dict | list):
                return Problem(file, 0, key, f"{part} is not a table")
        step = _step(at, last)
        if step is None:
            return Problem(file, 0, key, f"there is no element {last} in that list")
        path += (step,)
        at[step] = parse_value(text, path)
        self._forget(path)
        _mark(self.places, at[step], path, lambda _: Place("set", file))
        return None

    def _merge(
        self, into: dict[str, Any], data: Mapping[str, Any], path: KeyPath, place: Any
    ) -> None:
        for k, v in data.items():
            here = (*path, k)
            if isinstance(v, dict) and isinstance(into.get(k), dict):
                self._merge(into[k], v, here, place)
                continue
            if k in into:
                self._forget(here)
            into[k] = copy.deepcopy(v)
            _mark(self.places, v, here, place)

    def _forget(self, path: KeyPath) -> None:
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]


def read_overlay(path: Path) -> tuple[Document, KeyPath]:
    """An overlay file and the table in it that holds the keys: ``[gtft]``, or the top.

    Raises InputError or RecipeError.
    """
    document = parse_document(read_bytes(path), str(path))
    inner = document.data.get("gtft")
    if inner is None:
        return document, ()
    extra = [k for k in document.data if k != "gtft"]
    if extra or not isinstance(inner, dict):
        key = extra[0] if extra else "gtft"
        text = "an overlay holds either [gtft] tables or bare keys, not both"
        raise RecipeError(
            f"{path} is not an overlay",
            problems=(document.problem((key,), key, text),),
            fix="gtft recipe explain",
        )
    return document, ("gtft",)


def parse_value(text: str, path: KeyPath) -> Any:
    """The value of a ``--set``: TOML, or bare text. Text stays text where the key wants text."""
    text = text.strip()
    key = find_key(path)
    try:
        parsed = parse_document(f"value = {text}".encode("utf-8", "surrogatepass"), "").data
    except RecipeError:
        return text
    if set(parsed) != {"value"}:
        return text
    value = parsed["value"]
    if key is not None and key.scalar == "str" and not isinstance(value, str | list | dict):
        return text
    if key is not None and isinstance(value, str):
        return convert(value, key.scalar)
    return value


def _step(at: dict[str, Any] | list[Any], part: str) -> str | int | None:
    if isinstance(at, dict):
        return part
    is_index = part.isascii() and part.isdigit() and len(part) < 6
    return int(part) if is_index and int(part) < len(at) else None


def _mark(places: dict[KeyPath, Place], value: Any, path: KeyPath, place: Any) -> None:
    places[path] = place(path)
    if isinstance(value, Mapping):
        for k, v in value.items():
            _mark(places, v, (*path, k), place)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, v in enumerate(value):
            _mark(places, v, (*path, i), place)
