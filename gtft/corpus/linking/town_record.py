"""What a town's records say about its sessions: typed rows of hook, events, costs, beads and commits.

Read once, in the parent process of a harvest. Nothing here is written into a corpus but labels, outcomes
and keyed hashes of contributors.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from gtft.corpus.example import Labels
from gtft.corpus.files import InputFile, read_input_text
from gtft.corpus.jsonl import read_document, read_rows
from gtft.corpus.linking.chronicle import Bead, Chronicle, Hold, Verdict, read_time
from gtft.corpus.linking.link import SURE, parse_actor, read_bead
from gtft.corpus.sources.block import read_object, read_text
from gtft.corpus.sources.costs import read_costs
from gtft.corpus.sources.events import Event, read_events
from gtft.corpus.tally import Tally
from gtft.errors import translate_os_error

_TRAILER = re.compile(r"^(?:Executed-By|Agent|Assignee):[ \t]{0,4}(\S{1,160})", re.I | re.M)
_WORD = re.compile(r"[a-z][a-z0-9]{0,15}-[A-Za-z0-9_.-]{1,60}")
_LONGEST_COMMIT = 20_000


class Stop(msgspec.Struct, frozen=True):
    """A cost row: this agent stopped at ``at``."""

    labels: Labels
    at: float


class Commit(msgspec.Struct, frozen=True):
    """Who a commit is from. ``actor`` is the agent that it names, else empty; NaN: no time."""

    email: str
    actor: str
    at: float
    beads: tuple[str, ...]


@dataclass(frozen=True)
class RecordPaths:
    """Where the records are; what is absent is left out. ``beads``: exports, side tables, interactions;
    ``queue``: what the close hook left (docs/town-parts.md).

    ``commits``: what ``git log --format=%x1e%aE%x1f%aN%x1f%aI%x1f%B`` wrote.
    """

    hook: Path | None = None
    events: tuple[Path, ...] = ()
    costs: tuple[Path, ...] = ()
    beads: tuple[Path, ...] = ()
    queue: tuple[Path, ...] = ()
    commits: tuple[Path, ...] = ()
    rigs: Path | None = None


@dataclass(frozen=True)
class TownRecords:
    """``starts``: the agents that a session's start events name. ``holds`` by actor and ``verdicts`` by bead,
    in order of time; ``takers``: bead → when it came to whose hook. ``closers``: session → beads it closed.
    ``commits_by``: those that name a bead, or an agent. ``audits``: bead → "good" or "bad".
    ``rigs``: names of the town's rigs, empty when unknown; ``prefixes``: a bead's prefix → its rig."""

    hooks: Mapping[str, Labels] = field(default_factory=dict)
    starts: Mapping[str, tuple[Labels, ...]] = field(default_factory=dict)
    holds: Mapping[str, list[Hold]] = field(default_factory=dict)
    verdicts: Mapping[str, list[Verdict]] = field(default_factory=dict)
    stops: tuple[Stop, ...] = ()
    beads: Mapping[str, Bead] = field(default_factory=dict)
    takers: Mapping[str, list[tuple[float, str]]] = field(default_factory=dict)
    closers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    audits: Mapping[str, str] = field(default_factory=dict)
    commits: tuple[Commit, ...] = ()
    commits_by: Mapping[str, list[Commit]] = field(default_factory=dict)
    rigs: frozenset[str] = frozenset()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def find_records(town: Path, home: Path) -> RecordPaths:
    """The records of the town at ``town`` and of the user at ``home``, as far as they are there.

    Raises InputError when a folder cannot be listed.
    """
    try:
        return _find_records(town, home)
    except OSError as e:
        raise translate_os_error(e, f"listing {town.name}") from e


def _find_records(town: Path, home: Path) -> RecordPaths:
    folders = [town / ".beads"]
    rigs = sorted(p for p in town.iterdir() if p.is_dir()) if town.is_dir() else []
    for rig in rigs:
        if not rig.name.startswith("."):
            folders += [rig / ".beads", rig / "mayor" / "rig" / ".beads"]
    beads = [p for f in folders for g in ("*.jsonl", "backup/*.jsonl") for p in sorted(f.glob(g))]
    hook, events, costs = (
        town / ".gtft" / "sessions.jsonl",
        town / ".events.jsonl",
        home / ".gt" / "costs.jsonl",
    )
    names = town / "mayor" / "rigs.json"
    return RecordPaths(
        hook=hook if hook.is_file() else None,
        events=(events,) if events.is_file() else (),
        costs=(costs,) if costs.is_file() else (),
        beads=tuple(p for p in beads if p.is_file()),
        queue=tuple(sorted((town / ".gtft" / "queue").glob("*.json"))),
        rigs=names if names.is_file() else None,
    )


def read_records(
    paths: RecordPaths,
    bead_rows: Iterable[Mapping[str, Any]] = (),
    tally: Tally | None = None,
) -> TownRecords:
    """Everything that the files say. ``bead_rows``: rows from elsewhere (``bd export``, SQL).

    Bad lines are counted and named in the records' ``tally``. Raises InputError when the system refuses to read.
    """
    tally = tally if tally is not None else Tally()
    rigs, prefixes = _read_rigs(paths.rigs, tally) if paths.rigs else (set(), {})
    chronicle = Chronicle(tally)
    for path in paths.beads:
        for row in read_rows(InputFile(path, path.name), tally):
            chronicle.take_row(row.value)
    for given in bead_rows:
        chronicle.take_row(given)
    starts: dict[str, dict[str, Labels]] = defaultdict(dict)
    for path in paths.events:
        for event in read_events(InputFile(path, path.name), tally):
            if event.type == "session_start":
                _note_start(event, starts, tally)
            else:
                chronicle.take_event(event)
    chronicle.close()
    stops = [
        Stop(cost.labels, read_time(cost.at))
        for path in paths.costs
        for cost in read_costs(InputFile(path, path.name), tally)
    ]
    hooks = read_recorded(paths.hook, tally) if paths.hook else {}
    takers: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for actor, holds in chronicle.holds.items():
        for hold in holds:
            takers[hold.bead].append((hold.start, actor))
    commits = tuple(c for p in paths.commits for c in _read_commits(p, chronicle.beads))
    commits_by: dict[str, list[Commit]] = defaultdict(list)
    for c in commits:
        for name in (*c.beads, *filter(None, [c.actor])):
            commits_by[name].append(c)
    closers: dict[str, set[str]] = defaultdict(set)
    for bead in chronicle.beads.values():
        if bead.closed_by and read_bead(bead.id):
            closers[bead.closed_by].add(bead.id)
    for path in paths.queue:
        for row in read_rows(InputFile(path, path.name), tally):
            session, closed = row.value.get("session"), read_bead(row.value.get("bead"))
            if isinstance(session, str) and closed in chronicle.beads and closed:
                closers[session].add(closed)
    if not rigs:
        said = [*hooks.values(), *(x for s in starts.values() for x in s.values())]
        rigs = {x.rig for x in said if x.rig}
    return TownRecords(
        hooks=hooks,
        starts={s: tuple(a.values()) for s, a in starts.items()},
        holds=chronicle.holds,
        verdicts=chronicle.verdicts,
        stops=tuple(sorted((s for s in stops if not math.isnan(s.at)), key=lambda s: s.at)),
        beads=chronicle.beads,
        takers=takers,
        closers={s: tuple(sorted(b)) for s, b in closers.items()},
        audits=chronicle.audits,
        commits=commits,
        commits_by=commits_by,
        rigs=frozenset(rigs),
        prefixes=prefixes,
        tally=tally,
    )


def read_recorded(path: Path, tally: Tally | None = None) -> dict[str, Labels]:
    """Session → labels, as the session-start hook wrote them (docs/town-parts.md); {} without the file.

    A session that was resumed keeps its newest line. A line that names no agent of a town is left out.
    """
    tally = tally if tally is not None else Tally()
    found: dict[str, Labels] = {}
    if not path.is_file():
        return found
    for row in read_rows(InputFile(path, path.name), tally):
        said = row.value
        session = said.get("session")
        labels = _read_address(said.get("actor"), said.get("role"))
        if not isinstance(session, str) or labels is None:
            tally.add("hook records", "names no session or no agent")
            continue
        before = found.get(session)
        bead = read_bead(said.get("bead")) or (before.bead if before else None)
        tally.add("hook records", "read")
        found[session] = replace(labels, bead=bead, rung="hook", confidence=SURE["hook"])
    return found


def _note_start(e: Event, starts: dict[str, dict[str, Labels]], tally: Tally) -> None:
    session = read_text(e.payload.get("session_id"))
    labels = _read_address(e.payload.get("role"), e.actor)
    if not session or labels is None or not labels.actor:
        tally.add("session starts", "names no session or no agent")
        return
    # The stand-in id is the actor and a process id: it names no transcript.
    by_process = session.startswith(f"{labels.actor}-")
    tally.add("session starts", "by process id" if by_process else "by session")
    before = starts[session].get(labels.actor)
    bead = read_bead(read_text(e.payload.get("topic")).partition(":")[2].strip())
    starts[session][labels.actor] = replace(
        labels,
        bead=bead or (before.bead if before else None),
        rung="events",
        confidence=SURE["events"],
    )


def _read_rigs(path: Path, tally: Tally) -> tuple[set[str], dict[str, str]]:
    """``mayor/rigs.json``: ``{"rigs": {name: {"beads": {"prefix": …}}}}``."""
    rigs: set[str] = set()
    prefixes: dict[str, str] = {}
    for row in read_document(InputFile(path, path.name), tally):
        for rig, entry in read_object(row.value.get("rigs")).items():
            rigs.add(rig)
            prefix = read_text(read_object(read_object(entry).get("beads")).get("prefix"))
            if prefix:
                prefixes[prefix.rstrip("-")] = rig
    return rigs, prefixes


def _read_commits(path: Path, beads: Mapping[str, Bead]) -> Iterator[Commit]:
    for record in read_input_text(InputFile(path, path.name)).split("\x1e"):
        parts = record.strip().split("\x1f")
        if len(parts) != 4:
            continue
        email, name, at, body = parts
        trailer = _TRAILER.search(body[:_LONGEST_COMMIT])
        labels = _read_address(trailer[1] if trailer else None, name)
        named = {w.rstrip(".-") for w in _WORD.findall(body[:_LONGEST_COMMIT])} & beads.keys()
        actor = (labels.actor if labels else "") or ""
        yield Commit(email, actor, read_time(at), tuple(sorted(named)))


def _read_address(*names: object) -> Labels | None:
    return next(filter(None, (parse_actor(n) for n in names if isinstance(n, str) and n)), None)
