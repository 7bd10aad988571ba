"""Where formulas are: a path, ``./formulas``, the town's ``.beads/formulas``, those shipped with gtft."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from gtft.errors import UsageError, translate_os_error
from gtft.recipe.formula import SUFFIX
from gtft.recipe.portable import NAME


def search_folders(root: Path) -> tuple[Path, ...]:
    """The folders that hold formulas, nearest first; only those that exist."""
    found = [root / "formulas"]
    found += [folder / ".beads" / "formulas" for folder in (root, *root.resolve().parents)]
    found.append(shipped_folder())
    seen: dict[Path, Path] = {}
    for folder in found:
        if folder.is_dir():
            seen.setdefault(folder.resolve(), folder)
    return tuple(seen.values())


def shipped_folder(module: Path = Path(__file__)) -> Path:
    """The formulas that come with gtft: the checkout's, else the ones the wheel installed."""
    checkout = module.resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return checkout / "formulas"
    try:
        files = importlib.metadata.files("gtft") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.endswith(SUFFIX):
            return Path(str(file.locate())).resolve().parent
    return checkout / "formulas"


def find_formula(name_or_path: str | Path, search: Sequence[Path]) -> Path:
    """The file of a formula. What holds a separator or ends in ``.toml`` is a path, all else a name.

    Raises UsageError when there is none; a name never leads out of the folders searched.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith(".toml"):
        return _find_path(text)
    return find_named(text, search)


def find_named(name: str, search: Sequence[Path]) -> Path:
    """The file of a formula by its name only: for names that come from a bead or another file."""
    if not NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} is not a formula's name",
            why="a name is letters, digits, dot, dash and underscore, at most 100",
            fix="gtft recipe list",
        )
    for folder in search:
        path = folder / f"{name}{SUFFIX}"
        if path.is_file():
            return path
    known = [p.name.removesuffix(SUFFIX) for p in list_formulas(search)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise UsageError(
        f"there is no formula {name}" + (f"; did you mean {near[0]}?" if near else ""),
        why="looked in " + (", ".join(map(str, search)) or "no folder: none exists"),
        fix="gtft recipe list",
    )


def list_formulas(search: Sequence[Path]) -> tuple[Path, ...]:
    """Every formula file that a name would find, sorted by name."""
    found: dict[str, Path] = {}
    for folder in search:
        try:
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                found.setdefault(path.name, path)
        except OSError as e:
            raise translate_os_error(e, f"listing {folder}") from e
    return tuple(found[name] for name in sorted(found))


def _find_path(text: str) -> Path:
    path = Path(text)
    try:
        exists = "\0" not in text and path.is_file()
    except OSError as e:
        raise translate_os_error(e, f"looking for {text[:80]}") from e
    if not exists:
        raise UsageError(
            f"there is no formula file {text[:200]!r}",
            why="what holds a / or ends in .toml is read as a path",
            fix="gtft recipe list",
        )
    return path
