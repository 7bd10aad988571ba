"""Finding and opening input files; paths in a corpus never say where it was harvested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gtft.artifact import hash_file
from gtft.errors import InputError, translate_os_error


@dataclass(frozen=True)
class InputFile:
    """A file to read. ``name`` is what manifests and reports call it."""

    path: Path
    name: str


def name_source(path: str) -> str:
    """A recipe's path as a corpus may state it: relative, no ``..``; an absolute one by its last part."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return pure.name
    parts = [p for p in pure.parts if p not in ("..", ".", "~")]
    return "/".join(parts) or "."


def list_files(root: Path, source_path: str, suffixes: tuple[str, ...]) -> tuple[InputFile, ...]:
    """The files of a source in a fixed order. ``source_path`` as the recipe has it, below ``root``.

    Raises InputError when the path is missing, is not readable, or holds no such file.
    """
    path = Path(source_path).expanduser()
    path = path if path.is_absolute() else root / path
    label = name_source(source_path)
    try:
        if path.is_file():
            return (InputFile(path, label),)
        if not path.is_dir():
            raise InputError(
                f"{source_path} does not exist",
                why=f"the recipe names it as a source, and it was looked for at {path}",
                fix="correct the path in the recipe (gtft recipe lint), or run from the town's folder",
            )
        found = sorted(
            (p.relative_to(path).as_posix(), p)
            for p in path.rglob("*")
            if p.name.endswith(suffixes)
        )
    except OSError as e:
        raise translate_os_error(e, f"listing {source_path}") from e
    if not found:
        raise InputError(
            f"{source_path} holds no {' or '.join('*' + s for s in suffixes)} file",
            why=f"the folder {path} was searched, subfolders included",
            fix="point the source at the folder that holds them, or remove it from the recipe",
        )
    prefix = "" if label == "." else f"{label}/"
    return tuple(InputFile(p, prefix + name) for name, p in found)


def open_input(file: InputFile) -> BinaryIO:
    """Open for reading. Raises InputError that names the file when the system refuses."""
    try:
        return file.path.open("rb")
    except OSError as e:
        raise translate_os_error(e, f"reading {file.name}") from e


def read_input_text(file: InputFile) -> str:
    """The whole file as text; bytes that are not UTF-8 become U+FFFD."""
    try:
        with open_input(file) as f:
            return f.read().decode("utf-8", "replace")
    except OSError as e:
        raise translate_os_error(e, f"reading {file.name}") from e


def describe_input(file: InputFile) -> dict[str, object]:
    """Name, size and sha256 for the manifest."""
    try:
        return {
            "file": file.name,
            "size": file.path.stat().st_size,
            "sha256": hash_file(file.path),
        }
    except OSError as e:
        raise translate_os_error(e, f"hashing {file.name}") from e


def list_optional(root: Path, source_path: str, suffixes: tuple[str, ...]) -> tuple[InputFile, ...]:
    """`list_files` of a folder that need not hold any; nothing for a single file."""
    path = Path(source_path).expanduser()
    path = path if path.is_absolute() else root / path
    if not path.is_dir() or not any(p.name.endswith(suffixes) for p in path.rglob("*")):
        return ()
    return list_files(root, source_path, suffixes)
