"""Every key of a recipe as a table, read from the schema: for messages, ``explain``, ``new`` and the docs."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gtft.recipe.effort import EFFORT
from gtft.recipe.lines import KeyPath
from gtft.recipe.schema import Recipe

# Stands in a path for any index of a list, and for any name in a table of the user's own names.
EACH = "[]"
ANY = "NAME"

Scalar = Literal["int", "float", "bool", "str", "other"]


@dataclass(frozen=True)
class Key:
    """One key. ``path`` is as written (``train.lora.r``, ``harvest.sources[].path``)."""

    path: str
    type: str
    scalar: Scalar
    required: bool
    default: Any
    choices: tuple[str, ...]
    range: str
    description: str

    @property
    def default_text(self) -> str:
        """The default in TOML spelling, or "required", or "none"."""
        if self.required:
            return "required"
        return "none" if self.default is None else write_value(self.default)

    @property
    def efforts(self) -> dict[str, Any]:
        """What each position of the effort dial gives, when the dial moves this key."""
        if not any(self.path in table for table in EFFORT.values()):
            return {}
        return {name: table.get(self.path, self.default) for name, table in EFFORT.items()}

    def as_dict(self) -> dict[str, Any]:
        return {
            "key": self.path,
            "type": self.type,
            "required": self.required,
            "default": self.default,
            "choices": list(self.choices),
            "range": self.range,
            "description": self.description,
            "effort": self.efforts,
        }


@dataclass(frozen=True)
class TableNote:
    """One table of the recipe: its path, what it is for, whether it repeats (``[[…]]``)."""

    path: str
    description: str
    repeats: bool


def write_value(value: Any) -> str:
    """A value in TOML spelling (strings of JSON and TOML agree for what the schema holds)."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {write_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def spell(path: KeyPath) -> str:
    """A concrete path in schema spelling: indices become ``[]``, free names become ``NAME``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += EACH
        elif out and f"{out}.{ANY}" in _by_path():
            out += f".{ANY}"
        else:
            out += f".{part}" if out else part
    return out


def find_key(path: KeyPath) -> Key | None:
    """The key at a concrete path; None for a table or an unknown key."""
    return _by_path().get(spell(path))


def is_leaf(path: KeyPath) -> bool:
    """Whether nothing of the schema lies below ``path``."""
    spelled = spell(path)
    below = (f"{spelled}.", f"{spelled}{EACH}")
    return spelled in _by_path() and not any(p.startswith(below) for p in _by_path())


def child_names(path: str) -> tuple[str, ...]:
    """The names that may stand directly below a table, in schema order; "" is the whole recipe."""
    prefix = f"{path}." if path else ""
    names: dict[str, None] = {}
    for known in (*_by_path(), *(t.path for t in all_tables())):
        if known.startswith(prefix) and known != path:
            names.setdefault(known[len(prefix) :].split(".")[0].removesuffix(EACH))
    return tuple(n for n in names if n)


def suggest(path: KeyPath) -> str:
    """What an unknown key probably meant, as the end of a sentence ("" when nothing is near)."""
    name = str(path[-1])
    parent = spell(path[:-1])
    near = difflib.get_close_matches(name.lower(), child_names(parent), n=1, cutoff=0.6)
    if near:
        return f"did you mean {f'{parent}.{near[0]}' if parent else near[0]}?"
    elsewhere = [p for p in _every_path() if p.rsplit(".", 1)[-1] == name.lower()]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    asked = (f"{parent}." if parent else "") + name
    near = difflib.get_close_matches(asked, _every_path(), n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    known = child_names(parent)
    return f"known here: {', '.join(known)}" if known else ""


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key in schema order."""
    return tuple(k for k in _walk(Recipe, "") if isinstance(k, Key))


@cache
def all_tables() -> tuple[TableNote, ...]:
    """Every table below the recipe, in schema order."""
    return tuple(t for t in _walk(Recipe, "") if isinstance(t, TableNote))


@cache
def _by_path() -> dict[str, Key]:
    return {k.path: k for k in all_keys()}


@cache
def _every_path() -> tuple[str, ...]:
    return (*_by_path(), *(t.path for t in all_tables()))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key | TableNote]:
    # Scalars before tables, as TOML wants them written.
    inner: list[tuple[str, FieldInfo, type[BaseModel], bool]] = []
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        kind, table = _table_of(info.annotation)
        if table is None:
            yield _key(path, info)
            if kind == "names":
                yield _name_key(path, info)
        else:
            inner.append((path, info, table, kind == "list"))
    for path, info, table, repeats in inner:
        text = info.description or _first_line(table.__doc__)
        yield TableNote(path + (EACH if repeats else ""), text, repeats)
        if repeats:
            yield _key(path, info)
        yield from _walk(table, path + (EACH if repeats else "") + ".")


def _table_of(annotation: Any) -> tuple[str, type[BaseModel] | None]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table", annotation
    args = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is tuple and isinstance(args[0], type) and issubclass(args[0], BaseModel):
        return "list", args[0]
    return ("names" if origin is dict else "value"), None


def _key(path: str, info: FieldInfo) -> Key:
    annotation = info.annotation
    required = info.is_required()
    default = None if required else info.get_default(call_default_factory=True)
    if isinstance(default, tuple):
        default = list(default)
    return Key(
        path=path,
        type=_words(annotation),
        scalar=_scalar(annotation),
        required=required,
        default=default,
        choices=_choices(annotation),
        range=_range(info.metadata) or _inner_range(annotation),
        description=info.description or "",
    )


def _name_key(path: str, info: FieldInfo) -> Key:
    value = typing.get_args(info.annotation)[1]
    return Key(
        path=f"{path}.{ANY}",
        type=_words(value),
        scalar=_scalar(value),
        required=False,
        default=None,
        choices=(),
        range=_inner_range(info.annotation),
        description=f"one entry of {path}",
    )


def _strip(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Annotated:
        return _strip(typing.get_args(annotation)[0])
    if _is_union(annotation):
        rest = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _strip(rest[0]) if len(rest) == 1 else annotation
    return annotation


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _words(annotation: Any) -> str:
    bare = _strip(annotation)
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if bare in plain:
        return plain[bare]
    origin, args = typing.get_origin(bare), typing.get_args(bare)
    if origin is Literal:
        return "one of " + ", ".join(f'"{a}"' for a in args) if len(args) > 1 else f'"{args[0]}"'
    if origin is tuple:
        if isinstance(args[0], type) and issubclass(args[0], BaseModel):
            return "a list of tables"
        return f"a list of {_words(args[0]).removeprefix('a ')}"
    if origin is dict:
        return f"a table of NAME = {_words(args[1]).removeprefix('a ')}"
    if _is_union(bare):
        return " or ".join(_words(a) for a in args if a is not type(None))
    return "a table"


def _scalar(annotation: Any) -> Scalar:
    bare = _strip(annotation)
    names: dict[Any, Scalar] = {int: "int", float: "float", bool: "bool", str: "str"}
    if typing.get_origin(bare) is Literal:
        return "str" if all(isinstance(a, str) for a in typing.get_args(bare)) else "other"
    if _is_union(bare) and str in typing.get_args(bare):
        return "str"
    return names.get(bare, "other")


def _choices(annotation: Any) -> tuple[str, ...]:
    bare = _strip(annotation)
    if typing.get_origin(bare) is tuple:
        bare = _strip(typing.get_args(bare)[0])
    return tuple(map(str, typing.get_args(bare))) if typing.get_origin(bare) is Literal else ()


def _range(metadata: Iterable[Any]) -> str:
    parts: list[str] = []
    for m in metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            bound = getattr(m, name, None)
            if bound is not None:
                parts.append(f"{sign} {bound:g}")
    return ", ".join(parts)


def _inner_range(annotation: Any) -> str:
    for arg in typing.get_args(annotation):
        if typing.get_origin(arg) is Annotated:
            infos = typing.get_args(arg)[1:]
            return _range(m for i in infos for m in (getattr(i, "metadata", None) or [i]))
    return ""


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().splitlines()[0] if doc and not doc.startswith("!!!") else ""
