"""Finding and opening input files; paths in a corpus never say where it was harvested."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gtft.artifact import hash_file
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.corpus.tally import Tally
from gtft.errors import InputError, translate_os_error

# Folders that hold nobody's history: version control, other people's code, caches.
_SKIPPED = frozenset({".git", ".hg", ".svn", ".venv", "__pycache__", "node_modules"})


@dataclass(frozen=True)
class InputFile:
    """A file to read. ``name`` is what manifests and reports call it."""

    path: Path
    name: str


def name_source(path: str) -> str:
    """A recipe's path as a corpus may state it: relative, no ``..``; an absolute one by its last part; a
    database without its host."""
    if path.startswith("sql:"):
        return path.partition("@")[0]
    pure = PurePosixPath(path)
    if pure.is_absolute():
        return pure.name
    parts = [p for p in pure.parts if p not in ("..", ".", "~")]
    return "/".join(parts) or "."


def list_files(root: Path, source_path: str, tally: Tally | None = None) -> tuple[InputFile, ...]:
    """The files of a source in a fixed order, whatever they are called. ``source_path`` as the recipe has
    it, below ``root``.

    No file is opened. Links, empty files and what is no plain file stay out; so do folders of version control
    and packages, and gtft's own workspaces. What stays out is counted in ``tally`` (table ``files``), named where somebody may miss it.
    Raises InputError when the path is missing, is not readable, or holds no file.
    """
    path = Path(source_path).expanduser()
    path = path if path.is_absolute() else root / path
    label = name_source(source_path)
    tally = tally if tally is not None else Tally()
    try:
        if path.is_file():
            return (InputFile(path, label),)
        if not path.is_dir():
            raise InputError(
                f"{source_path} does not exist",
                why=f"the recipe names it as a source, and it was looked for at {path}",
                fix="correct the path in the recipe (gtft recipe lint), or run from the town's folder",
            )
        # The source itself must be readable; below it an unreadable folder is named.
        os.scandir(path).close()
    except OSError as e:
        raise translate_os_error(e, f"listing {source_path}") from e
    prefix = "" if label == "." else f"{label}/"
    home = path.resolve()
    found = sorted(_walk(path, prefix, home, tally))
    if not found:
        raise InputError(
            f"{source_path} holds no file to read",
            why=f"the folder {path} was searched, subfolders included",
            fix="point the source at the folder that holds them, or remove it from the recipe",
        )
    return tuple(InputFile(Path(where), name) for name, where in found)


def _walk(path: Path, prefix: str, home: Path, tally: Tally) -> Iterator[tuple[str, str]]:
    """Name and place of every plain file below a folder."""
    waiting = [(str(path), prefix)]
    while waiting:
        folder, before = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as e:
            tally.add("files", "folder that cannot be read")
            tally.name("folder that cannot be read", before, 0, type(e).__name__)
            continue
        if any(e.name == KEY_FILE for e in entries):
            # Earlier corpora are no history: what was withdrawn since would come back from them.
            tally.add("files", "folder of a gtft workspace")
            continue
        for entry in entries:
            name = before + entry.name.encode("utf-8", "replace").decode()
            if entry.is_symlink():
                _note_link(entry, name, home, tally)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in _SKIPPED:
                    tally.add("files", f"folder {entry.name}")
                else:
                    waiting.append((entry.path, f"{name}/"))
            elif not entry.is_file(follow_symlinks=False):
                tally.add("files", "no plain file")
                tally.name("no plain file", name, 0)
            elif reason := _refuse(entry):
                tally.add("files", reason)
                tally.name(reason, name, 0)
            else:
                yield name, entry.path


def _note_link(entry: os.DirEntry[str], name: str, home: Path, tally: Tally) -> None:
    """A link is not followed: what it names in the folder is read there, what lies outside is not ours."""
    try:
        inside = Path(entry.path).resolve().is_relative_to(home)
    except (OSError, RuntimeError):
        inside = False
    if inside:
        tally.add("files", "link to what is read anyway")
    else:
        tally.add("files", "link that leaves the folder")
        tally.name("link that leaves the folder", name, 0)


def _refuse(entry: os.DirEntry[str]) -> str:
    """Why a file is not offered to any reader. Nothing is opened here: consent is asked first."""
    try:
        if not entry.stat(follow_symlinks=False).st_size:
            return "empty file"
    except OSError:
        return "file that cannot be read"
    return "" if os.access(entry.path, os.R_OK) else "file that cannot be read"


def open_input(file: InputFile) -> BinaryIO:
    """Open for reading. Raises InputError that names the file when the system refuses."""
    try:
        return file.path.open("rb")
    except OSError as e:
        raise translate_os_error(e, f"reading {file.name}") from e


def read_head(file: InputFile, size: int) -> bytes:
    """The first ``size`` bytes at most. Raises InputError as `open_input`."""
    try:
        with open_input(file) as f:
            return f.read(size)
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
