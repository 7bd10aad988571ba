"""What the sources of a recipe hold, without harvesting them: files, bytes, age, and a count in passing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtft.corpus.files import InputFile, list_files
from gtft.corpus.sources import FORMATS, tell_format
from gtft.corpus.sources.beads import list_rows
from gtft.corpus.sources.beads_sql import parse_address
from gtft.corpus.tally import Tally
from gtft.errors import InputError, translate_os_error
from gtft.recipe.schema import Source


@dataclass(frozen=True)
class SourceSize:
    """One source. ``newest``: seconds since the epoch; ``count`` of ``unit``, before any filter."""

    type: str
    path: str
    files: int
    bytes: int
    newest: float
    count: int
    unit: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def survey_sources(sources: Sequence[Source], root: Path) -> tuple[SourceSize, ...]:
    """Every source, in the recipe's order. Raises InputError when one is missing, empty or unreadable."""
    return tuple(_survey(source, root) for source in sources)


def _survey(source: Source, root: Path) -> SourceSize:
    if parse_address(source.path):
        return SourceSize(source.type, source.path, 1, 0, 0.0, 1, "databases")
    files = _choose(list_files(root, source.path), source)
    try:
        stats = [f.path.stat() for f in files]
    except OSError as e:
        raise translate_os_error(e, f"looking at {source.path}") from e
    unit, count = COUNTS.get(source.type, ("files", len))
    return SourceSize(
        type=source.type,
        path=source.path,
        files=len(files),
        bytes=sum(s.st_size for s in stats),
        newest=max(s.st_mtime for s in stats),
        count=count(files),
        unit=unit,
    )


def _choose(files: Sequence[InputFile], source: Source) -> list[InputFile]:
    """Those that the source's reader takes; all that any reader takes when its type is "auto"."""
    kinds = set(FORMATS) if source.type == "auto" else {source.type}
    chosen = [f for f in files if tell_format(f, source.type) in kinds]
    if not chosen:
        raise InputError(
            f"{source.path} holds no {source.type} file",
            why=f"none of {len(files)} files is one by what it holds",
            fix="point the source at the folder that holds them, or remove it from the recipe",
        )
    return chosen


def _count_sessions(files: Sequence[InputFile]) -> int:
    """Transcript files; those of sub-agents belong to the session that started them."""
    return sum(not f.path.name.startswith("agent-") for f in files)


def _count_beads(files: Sequence[InputFile]) -> int:
    """Distinct ids of rows that have a title."""
    ids: set[str] = set()
    for file in files:
        for row in list_rows(file, Tally()):
            if isinstance(row.value.get("id"), str) and isinstance(row.value.get("title"), str):
                ids.add(row.value["id"])
    return len(ids)


COUNTS: dict[str, tuple[str, Callable[[Sequence[InputFile]], int]]] = {
    "claude-code": ("sessions", _count_sessions),
    "codex": ("sessions", len),
    "gemini": ("sessions", len),
    "pi": ("sessions", len),
    "beads": ("beads", _count_beads),
    "formulas": ("formulas", len),
    "docs": ("pages", len),
}
