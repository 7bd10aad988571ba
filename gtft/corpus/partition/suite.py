"""The texts of eval suites, so that training can be kept apart from them.

Two shapes are read: gtft's own items (JSON lines with ``messages`` and ``reference``) and promptfoo's tests
(YAML: a list, or an object with ``tests``, of ``vars`` and ``assert``), as Gas Town's own gt-model-eval has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from gtft.errors import InputError, translate_os_error

# Gas Town's own cases: they stand in its repository, and so in many a rig.
NEVER_TRAINED = "gt-model-eval"
_YAML = frozenset({".yaml", ".yml"})
_TEXT = frozenset({".txt", ".md"})


def list_suites(paths: Sequence[Path]) -> list[Path]:
    """Files as they are, folders by what they hold. Raises InputError when one is missing."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            known = _YAML | _TEXT | {".jsonl"}
            found += sorted(p for p in path.rglob("*") if p.suffix in known and p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(
                f"the eval suite {path.name} does not exist",
                why="the recipe names it, so that training is kept apart from it",
                fix="correct [gtft.harvest] suites in the recipe (gtft recipe lint)",
            )
    return found


def read_suite(path: Path, *, made: bool = False) -> Iterator[str]:
    """What is asked, and the same with what is expected: a session may have run the item and answered otherwise.

    ``made``: of the items that were made of a session (they name it as their ``origin``), else of all others.
    Raises InputError for another shape.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    if path.suffix not in _YAML | _TEXT:
        yield from _read_items(path, text, made)
    elif path.suffix in _YAML and not made:
        yield from _read_promptfoo(path, text)
    elif not made:
        yield text


def _read_items(path: Path, text: str, made: bool) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            if bool(item.get("origin")) != made:
                continue
            asked = "\n".join([m["content"] for m in item["messages"]])
            yield asked
            if item.get("reference"):
                yield f"{asked}\n{item['reference']}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise _refuse(f"{path.name}:{number} is not an eval item", e) from e


def _read_promptfoo(path: Path, text: str) -> Iterator[str]:
    try:
        doc = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as e:
        raise _refuse(f"{path.name} is not YAML", e) from e
    tests = doc.get("tests", [doc]) if isinstance(doc, dict) else doc
    for test in tests if isinstance(tests, list) else [tests]:
        said = test.get("vars", test) if isinstance(test, dict) else test
        yield "\n".join(_list_strings(said))


def _list_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _list_strings(v)
    elif isinstance(value, list):
        for v in value:
            yield from _list_strings(v)


def _refuse(what: str, error: Exception) -> InputError:
    return InputError(
        what,
        why=f"{type(error).__name__}: training could not be kept apart from it",
        fix="gtft doctor",
    )
