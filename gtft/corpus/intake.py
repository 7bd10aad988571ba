"""Sources → units of reading, each with the name under which its shard is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import xxhash

import gtft
from gtft.artifact import canonical_json
from gtft.corpus.example import Labels
from gtft.corpus.files import InputFile, list_files, name_source
from gtft.corpus.governance.consent import find_rig
from gtft.corpus.partition.suite import NEVER_TRAINED
from gtft.corpus.reading import Made, Unit
from gtft.corpus.sources import FORMATS
from gtft.corpus.sources.beads_sql import copy_beads, parse_address
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import Tally
from gtft.errors import InputError, translate_os_error

SCENARIOS = "scenarios"
# Markdown beside these is prose for the base model.
_WITH_DOCS = frozenset({"beads", "formulas"})


@dataclass(frozen=True)
class Source:
    """One place that history is read from; ``type`` "auto" takes each file for what it holds."""

    type: str
    path: str
    licence: str = "own"
    rig: str | None = None

    @property
    def name(self) -> str:
        """Its type and the end of its path."""
        return f"{self.type} {name_source(self.path)}"


@dataclass(frozen=True)
class Listed:
    """The files of one source in a fixed order."""

    source: Source
    # What manifests and reports call it: no two are called the same.
    name: str
    files: tuple[InputFile, ...]
    # The rig that each file is known to belong to before it is opened.
    rigs: tuple[str | None, ...]
    tally: Tally


def list_sources(
    sources: Sequence[Source],
    root: Path,
    rigs: Collection[str] = (),
    recorded: Mapping[str, Labels] | None = None,
    *,
    aside: Path,
    password: str = "",
) -> list[Listed]:
    """``rigs``: folders below ``root`` that are rigs; ``recorded``: what the session hook wrote.

    The beads of a database are copied to ``aside``, unredacted: whoever calls removes them.
    Raises InputError when there is no source, or when one is missing or empty; TownError when a database is away.
    """
    if not sources:
        raise InputError(
            "the recipe names no source",
            why="[gtft.harvest] sources is empty",
            fix="add a source to the formula, or: gtft recipe show NAME",
        )
    out: list[Listed] = []
    for source in sources:
        tally = Tally()
        address = parse_address(source.path)
        if address is None:
            files = list_files(root, source.path, tally)
        else:
            files = (copy_beads(address, password, aside),)
        known = tuple(
            source.rig
            or ((recorded or {}).get(f.path.stem, Labels()).rig)
            or find_rig(f.path, root, rigs)
            for f in files
        )
        same = sum(one.source.name == source.name for one in out)
        name = f"{source.name} ({same + 1})" if same else source.name
        out.append(Listed(source, name, files, known, tally))
    return out


def plan_units(
    listed: Sequence[Listed],
    refuse_rig: Callable[[str | None], str],
    mark: str,
    cache: Path,
    tallies: dict[str, Tally],
) -> list[Unit]:
    """The units in a fixed order. ``mark`` stands for everything but the files that a shard depends on.

    ``refuse_rig`` says why no file of a rig may be opened. Table ``files`` of each source's tally: taken,
    and left out by reason (named). Raises InputError when a source has no file of its format.
    """
    units: list[Unit] = []
    for at, one in enumerate(listed):
        tally = tallies.setdefault(one.name, Tally())
        tally.merge(one.tally)
        known = dict(zip(one.files, one.rigs, strict=True))
        for kind, files in _sort_files(one, refuse_rig, tally).items():
            groups = [(f,) for f in files] if FORMATS[kind].alone else [tuple(files)]
            for group in groups:
                shard = cache / _name_shard(kind, group, mark)
                rigs = {known[f] for f in group}
                rig = rigs.pop() if len(rigs) == 1 else None
                units.append(Unit(len(units), at, kind, group, shard, rig))
    return units


def plan_scenarios(number: int, made: Made, mark: str, cache: Path) -> Unit:
    """A unit that is made up instead of read. Its source has no number."""
    said = canonical_json(["scenarios", mark, repr(made)])
    shard = cache / (xxhash.xxh3_128_hexdigest(said.encode()) + ".shard")
    return Unit(number, -1, SCENARIOS, (), shard, made=made)


def rename_unit(unit: Unit, lost: frozenset[int]) -> Unit:
    """The same unit without the records that other files hold."""
    digest = xxhash.xxh3_128_hexdigest(repr(sorted(lost)).encode())
    shard = unit.shard.with_name(f"{unit.shard.stem}-{digest[:16]}{unit.shard.suffix}")
    return replace(unit, lost=lost, shard=shard)


def measure_files(units: Iterable[Unit]) -> int:
    """Bytes to read; a file that is gone by now has none."""
    total = 0
    for unit in units:
        for file in unit.files:
            with suppress(OSError):
                total += file.path.stat().st_size
    return total


def stamp_file(file: InputFile) -> list[object]:
    """What changes when a file does: name, inode, size, time; the name alone when it is gone."""
    try:
        s = file.path.stat()
    except FileNotFoundError:
        return [file.name]
    except OSError as e:
        raise translate_os_error(e, f"looking at {file.name}") from e
    return [file.name, s.st_ino, s.st_size, s.st_mtime_ns]


@cache
def digest_code() -> str:
    """The code that decides what a shard holds: another gtft reads everything again."""
    digest = xxhash.xxh3_128()
    for path in sorted((Path(gtft.__file__).parent / "corpus").rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _sort_files(
    one: Listed, refuse_rig: Callable[[str | None], str], tally: Tally
) -> dict[str, list[InputFile]]:
    wanted = one.source.type
    fitting = (wanted, "docs") if wanted in _WITH_DOCS else (wanted,)
    by_kind: dict[str, list[InputFile]] = {}
    refused = 0
    for file, rig in zip(one.files, one.rigs, strict=True):
        if refusal := refuse_rig(rig):
            refused += 1
            tally.add("files", refusal)
            continue
        if NEVER_TRAINED in file.path.parts:
            tally.add("files", f"{NEVER_TRAINED}: an eval set")
            tally.name("file of an eval set", file.name, 0)
            continue
        try:
            found = sniff(file)
        except InputError as e:
            tally.add("files", "that cannot be read")
            tally.name("file that cannot be read", file.name, 0, type(e.__cause__).__name__)
            continue
        may_be = [k for k in fitting if k in FORMATS and FORMATS[k].fits(file)] if not found else []
        kind = found or next(iter(may_be), None)
        if kind is None:
            tally.add("files", "of no known format")
            tally.name("file of no known format", file.name, 0)
        elif wanted != "auto" and kind not in fitting:
            tally.add("files", "of another format")
            tally.name("file of another format", file.name, 0, kind)
        else:
            tally.add("files", "taken")
            by_kind.setdefault(kind, []).append(file)
    if not by_kind and not refused:
        what = "file of a format that gtft reads" if wanted == "auto" else f"{wanted} file"
        raise InputError(
            f"{one.source.path} holds no {what}",
            why=f"{len(one.files)} files were looked into, subfolders included",
            fix="point the source at the folder that holds them, or remove it from the recipe",
        )
    return dict(sorted(by_kind.items()))


def _name_shard(kind: str, files: Sequence[InputFile], mark: str) -> str:
    said = canonical_json([kind, mark, [stamp_file(f) for f in files]])
    return xxhash.xxh3_128_hexdigest(said.encode()) + ".shard"
