"""The way from sources to a snapshot, in the order of design section 6.

1. Files are sniffed and read in parallel: redacted by rule, cut, kept as shards (an unchanged file is not read again).
2. Labels, outcomes and what may be used are decided; exact and masked copies go.
3. Secret values are propagated, then the second reader looks at what is left.
4. Near copies, clusters, sides, the leak check. `gtft.corpus.snapshot` writes the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from gtft.artifact import hash_json
from gtft.corpus.claims import Claims, settle
from gtft.corpus.cleaning import Cleaner, add_values
from gtft.corpus.draft import Block, Draft
from gtft.corpus.example import Labels, Origin
from gtft.corpus.governance.admission import Admission
from gtft.corpus.governance.row import Row, hash_contributor
from gtft.corpus.governance.select import parse_select
from gtft.corpus.health.conflict import Row as ConflictRow
from gtft.corpus.health.conflict import Rules, find_conflicts
from gtft.corpus.intake import (
    SCENARIOS,
    Listed,
    digest_code,
    measure_files,
    plan_scenarios,
    plan_units,
    rename_unit,
)
from gtft.corpus.linking.linker import Linker
from gtft.corpus.linking.noise import is_own
from gtft.corpus.linking.outcome import WEIGHTS, contributor_of, judge
from gtft.corpus.linking.preference import (
    GOOD_OUTCOMES,
    Attempt,
    Judged,
    pair_attempts,
    pair_examples,
)
from gtft.corpus.linking.town_record import TownRecords, read_records
from gtft.corpus.partition.groups import Groups
from gtft.corpus.partition.sides import partition
from gtft.corpus.pool import Pool
from gtft.corpus.reading import Answer, Made, Setup, Unit, prepare
from gtft.corpus.redaction.canaries import check_rules
from gtft.corpus.redaction.redactor import Redactor, start_redactor
from gtft.corpus.redaction.sweeper import read_town_values
from gtft.corpus.scenarios import find_names
from gtft.corpus.segment import CHARACTERS_PER_TOKEN, Limits
from gtft.corpus.settings import Harvested, Settings
from gtft.corpus.shard import Bodies, Piece, Shard, read_shard, sweep_asides
from gtft.corpus.sources import FORMATS, SESSIONS
from gtft.corpus.tally import Tally
from gtft.errors import CorpusTooSmall, InputError, InternalError

Report = Callable[[int, int | None, str, str], None]
# Fewer bytes than this are read before a second process has started.
_WORTH_A_PROCESS = 24 << 20


@dataclass
class Timings:
    """Seconds by phase, measured by ``clock``."""

    clock: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self.clock()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start


@dataclass
class Reading:
    """What pass 1 gave: units with their shards in a fixed order, pairs of units that hold the same records,
    and the values of secrets (in memory only)."""

    units: list[Unit]
    shards: list[Shard]
    sharing: list[tuple[int, int]]
    values: dict[str, str]


def harvest(
    settings: Settings,
    listed: Sequence[Listed],
    cache: Path,
    workdir: Path,
    suites: Sequence[Path],
    report: Report,
    timings: Timings,
) -> tuple[Harvested, Cleaner]:
    """Decide everything; writes nothing but shards and what it needs in ``workdir``.

    ``suites`` are eval items that training must not hold. Raises InputError (a source is empty or
    unreadable, a rig has not agreed), CorpusTooSmall, RedactionError.
    """
    out = Harvested()
    with timings.phase("start"):
        admission = Admission(
            settings.governance,
            settings.scope,
            settings.role,
            parse_select(settings.select),
            settings.key,
            settings.harmful,
        )
        redactor = start_redactor(settings.key, settings.redaction, cache)
        check_rules(redactor)
        read_town_values(settings.settings_files, redactor)
        records = read_records(settings.records, tally=out.links)
    with timings.phase("read"):
        reading = _read_sources(settings, listed, admission, records, redactor, cache, report, out)
    with timings.phase("label"):
        groups = Groups()
        blocks: list[Block] = []
        drafts = list(_label(settings, reading, admission, records, groups, blocks, out))
        drafts = _drop_copies(drafts, groups, out)
        blocks += _pair_attempts(drafts)
        blocks += _pair_judged(settings.judged, drafts, out)
    cleaner = Cleaner(redactor, cache, workdir, settings.released, settings.sent_away)
    values = dict(reading.values)
    add_values(values, redactor.values)
    with timings.phase("propagate"):
        cleaner.propagate(drafts, blocks, values)
    with timings.phase("second reader"):
        drafts, blocks = cleaner.read_again(
            drafts,
            blocks,
            settings.workers,
            settings.stop_on_hit,
            out.dropped,
            out.left_out,
            report,
        )
    with timings.phase("partition"):
        report(0, None, "examples", "near copies, clusters and leaks")
        drafts = _drop_copies(drafts, groups, out)
        drafts = _settle_conflicts(drafts, out)
        partition(drafts, blocks, reading.shards, groups, suites, settings, out)
        _require_enough(settings, out)
    out.figures["consent"] = admission.describe()
    return out, cleaner


def _read_sources(
    settings: Settings,
    listed: Sequence[Listed],
    admission: Admission,
    records: TownRecords,
    redactor: Redactor,
    cache: Path,
    report: Report,
    out: Harvested,
) -> Reading:
    """Pass 1: every unit's shard, made where it is not there yet."""
    sweep_asides(cache)
    limits = Limits(settings.window_tokens * CHARACTERS_PER_TOKEN, settings.tool_result_chars)
    mark = hash_json([digest_code(), redactor.digest, limits.window, limits.result])
    units = plan_units(listed, admission.refuse_rig, mark, cache, out.tallies)
    names = [one.name for one in listed]
    out.licences = {one.name: one.source.licence for one in listed}
    if settings.scenarios:
        rigs = {r for r in records.rigs if not admission.refuse_rig(r)}
        made = Made(settings.scenarios, settings.seed, find_names(records, rigs))
        units.append(plan_scenarios(len(units), made, mark, cache))
        # Its source is the last one.
        names.append(SCENARIOS)
        out.tallies[SCENARIOS] = Tally()
    known = {u.number: s for u in units if (s := read_shard(u.shard)) is not None}
    values: dict[str, str] = {}
    missing = [u for u in units if u.number not in known]
    # Values of secrets are kept nowhere: files that had any are read again.
    again = [
        replace(u, keep=False) for u in units if u.number in known and known[u.number].table.secrets
    ]
    todo = missing + again
    workers = settings.workers if measure_files(todo) > _WORTH_A_PROCESS else 1
    setup = Setup(settings.key, settings.redaction, limits, redactor.dump_gate())
    with Pool(workers, prepare, setup) as pool:
        _read(pool, todo, known, values, names, report)
        alone = [u for u in units if u.made is None and FORMATS[u.type].alone]
        settled = settle([known[u.number].table.claims or Claims() for u in alone])
        losers = [rename_unit(u, lost) for u, lost in zip(alone, settled.lost, strict=True) if lost]
        found = {u.number: s for u in losers if (s := read_shard(u.shard)) is not None}
        _read(pool, [u for u in losers if u.number not in found], found, values, names, report)
    known |= found
    shards = [known[u.number] for u in units]
    for u, s in zip(units, shards, strict=True):
        out.tallies[names[u.source]].merge(Tally.from_dict(s.table.tally))
        out.inputs += [{"source": names[u.source], **i} for i in s.table.inputs]
    out.links.add("links", "phantom parents", settled.phantoms)
    sharing = [(alone[a].number, alone[b].number) for a, b in settled.pairs]
    return Reading(units, shards, sharing, values)


def _read(
    pool: Pool[Setup, Unit, Answer],
    todo: list[Unit],
    known: dict[int, Shard],
    values: dict[str, str],
    names: list[str],
    report: Report,
) -> None:
    # Largest first, so that no process waits long for the last one.
    todo = sorted(todo, key=lambda u: -measure_files([u]))
    by_number = {u.number: u for u in todo}
    for done, answer in enumerate(pool.answer(todo), start=1):
        add_values(values, answer.values)
        unit = by_number[answer.number]
        if unit.keep:
            found = read_shard(unit.shard)
            if found is None:
                raise InternalError(
                    f"what was read of {unit.files[0].name} cannot be read back",
                    why="the shard in the cache is not whole",
                    fix="run the command again",
                )
            known[unit.number] = found
        report(done, len(todo), "files", f"reading {names[unit.source]}")


def _label(
    settings: Settings,
    reading: Reading,
    admission: Admission,
    records: TownRecords,
    groups: Groups,
    blocks: list[Block],
    out: Harvested,
) -> Iterator[Draft]:
    """Every example with its labels, outcome and weight; what may not be used is dropped by reason."""
    talks = [t for s in reading.shards for t in s.table.talks]
    sessions = [t.evidence for t in talks if t.source in SESSIONS]
    linker = Linker(records, sessions, out.links)
    if unknown := sorted(set(settings.outcomes) - set(WEIGHTS)):
        raise InputError(
            f"{unknown[0]!r} is no outcome",
            why=f"[gtft.harvest] outcomes names it; known: {', '.join(WEIGHTS)}",
            fix="correct the name in the recipe",
        )
    weights = {**WEIGHTS, **settings.outcomes}
    rules = Rules()
    for a, b in reading.sharing:
        first, second = (reading.shards[n].table.talks for n in (a, b))
        if first and second:
            groups.join(first[0].links[0], second[0].links[0])
    shared = _list_shared(reading)
    for unit, shard in zip(reading.units, reading.shards, strict=True):
        rows: list[Row] = []
        who: list[Labels] = []
        for talk in shard.table.talks:
            evidence = talk.evidence
            if talk.source == "formulas":
                out.formulas.add(talk.links[0].removeprefix("formula:"))
            if talk.source in SESSIONS:
                labels = linker.decide(evidence)
            else:
                labels = next(iter(evidence.candidates), Labels())
                out.links.add("linked by", labels.rung)
            for link in talk.links[1:]:
                groups.join(talk.links[0], link)
            if labels.bead:
                groups.join(talk.links[0], f"bead:{labels.bead}")
            who.append(labels)
            rows.append(
                Row(
                    talk.source,
                    labels.role,
                    labels.rig or unit.rig,
                    labels.actor,
                    labels.bead,
                    evidence.session,
                    evidence.parent,
                    talk.links[0],
                    "",
                    evidence.started[:10],
                    talk.contributor
                    or hash_contributor(settings.key, contributor_of(labels, evidence, records)),
                    bead.labels if (bead := records.beads.get(labels.bead or "")) else (),
                    (*talk.links, *shared.get(unit.number, ())),
                )
            )
        for said in shard.table.prose:
            row = rows[said.talk]
            if reason := admission.refuse(row):
                out.left_out[f"prose: {reason}"] += 1
            else:
                talk = shard.table.talks[said.talk]
                rules.add(talk.file, said.text, row.started)
                text = msgspec.json.encode(said.text)
                blocks.append(Block("prose", row.cluster, text, row))
        own = {p.talk for p in shard.table.pieces if _names_own(p, settings)}
        # Its file names no model of ours, and the server says that one answered: which answers, nobody can tell.
        hidden = {
            n
            for n, t in enumerate(shard.table.talks)
            if n not in own and t.evidence.session in settings.governance.served
        }
        own |= hidden
        for pair in shard.table.pairs:
            row = rows[pair.talk]
            if pair.talk in own and settings.own_model < 1:
                out.left_out["pair: of our own models"] += 1
            elif reason := admission.refuse(row):
                out.left_out[f"pair: {reason}"] += 1
            else:
                talk = shard.table.talks[pair.talk]
                origin = Origin(talk.file, pair.lines, row.session, 0)
                blocks.append(Block("pair", row.cluster, pair.body, row, pair.why, origin))
        for place, piece in enumerate(shard.table.pieces):
            talk = shard.table.talks[piece.talk]
            labels = who[piece.talk]
            out.staged += 1
            found = judge(labels, talk.evidence, piece.marks, records)
            row = msgspec.structs.replace(rows[piece.talk], outcome=found.name)
            weight = weights.get(found.name, found.weight)
            reason = admission.refuse(row) or ("" if weight > 0 else f"outcome: {found.name}")
            if not reason and piece.id in settings.sent_away:
                reason = "dropped from quarantine"
            if reason:
                out.dropped[reason] += 1
                continue
            yield Draft(
                unit.number,
                place,
                shard.path,
                talk,
                piece,
                piece.id,
                piece.at,
                piece.size,
                row,
                talk.links[0],
                "own" if piece.talk in hidden or _names_own(piece, settings) else talk.provenance,
                weight,
            )
    out.rules = rules.finish()


def _list_shared(reading: Reading) -> dict[int, tuple[str, ...]]:
    """For each unit the cluster keys of units that hold the same records: a copy is the same work."""
    keys: dict[int, set[str]] = {}
    for a, b in reading.sharing:
        for one, other in ((a, b), (b, a)):
            table = reading.shards[other].table
            links = keys.setdefault(one, set())
            links.update([t.links[0] for t in table.talks])
            if table.claims and table.claims.link:
                # A file that gave all its records up still says whose they were.
                links.add(table.claims.link)
    return {unit: tuple(sorted(found)) for unit, found in keys.items()}


def _pair_judged(
    judged: Sequence[Judged], drafts: Sequence[Draft], out: Harvested
) -> Iterator[Block]:
    """Pairs that people judged, of examples that are here: what was withdrawn takes its pairs with it. A pair from
    beside the agent says that the agent's way ended well, as long as it has."""
    known = {d.id: d for d in drafts}
    for j in judged:
        d = known.get(j.example)
        if d is None:
            out.left_out["pair: judged, of an example that is not here"] += 1
        elif j.why == "shadow" and d.row.outcome not in GOOD_OUTCOMES:
            out.left_out["pair: shadow, of an example that did not end well"] += 1
        else:
            body = msgspec.json.encode(j.to_row(), order="sorted")
            yield Block("pair", d.link, body, d.row, j.why)


def _pair_attempts(drafts: Sequence[Draft]) -> Iterator[Block]:
    """A failed attempt at a bead beside one that was kept, where both were asked the same."""
    attempts = [
        Attempt(n, d.row.bead or "", d.piece.asked, d.row.outcome)
        for n, d in enumerate(drafts)
        if d.provenance != "own"
    ]
    bodies = Bodies()
    for kept, failed in pair_attempts(attempts):
        good, bad = drafts[kept.number], drafts[failed.number]
        messages = [d.read_body(bodies)["messages"] for d in (good, bad)]
        if pair := pair_examples(messages[0], messages[1], failed.outcome):
            origin = Origin(bad.talk.file, bad.piece.lines, bad.row.session, bad.piece.number)
            body = msgspec.json.encode(pair.to_row(), order="sorted")
            yield Block("pair", good.link, body, good.row, pair.why, origin)
    bodies.close()


def _names_own(piece: Piece, settings: Settings) -> bool:
    """Whether any of it was written by a model of ours, by the name that the file gives."""
    own = settings.own_models
    return bool(own) and any(is_own(b.removeprefix("agent:"), own) is not None for b in piece.by)


def _settle_conflicts(drafts: Sequence[Draft], out: Harvested) -> list[Draft]:
    """Of two decisions about the same question the later one stands."""
    rows = [
        ConflictRow(d.id, d.row.role, d.talk.evidence.started, d.piece.taught)
        for d in drafts
        if d.piece.taught is not None
    ]
    out.conflicts = find_conflicts(rows)
    dropped = {i for c in out.conflicts for i in c.dropped}
    if dropped:
        out.dropped["an older answer to a question that was decided again"] += len(dropped)
    out.outvoted = {d.id: d for d in drafts if d.id in dropped}
    return [d for d in drafts if d.id not in dropped]


def _drop_copies(drafts: Sequence[Draft], groups: Groups, out: Harvested) -> list[Draft]:
    """Exact copies, then those that differ in numbers and ids only and teach the same: the first stays."""
    kept: dict[str, Draft] = {}
    for d in drafts:
        first = kept.setdefault(d.id, d)
        if first is not d:
            groups.join(first.link, d.link)
            out.dropped["exact duplicate"] += 1
    masked: dict[bytes, Draft] = {}
    left: list[Draft] = []
    for d in kept.values():
        first = masked.setdefault(d.masked, d) if d.masked else d
        if first is d:
            left.append(d)
        else:
            groups.join(first.link, d.link)
            out.dropped["differs in numbers and ids only"] += 1
    return left


def _require_enough(settings: Settings, out: Harvested) -> None:
    if len(out.train) >= settings.min_examples:
        return
    drops = ", ".join(f"{n} {why}" for why, n in out.dropped.most_common(3)) or "none"
    raise CorpusTooSmall(
        f"{len(out.train)} training examples, and the recipe wants {settings.min_examples}",
        why=f"{out.staged} were read, {len(out.heldout)} are held out, dropped: {drops}",
        fix="add sessions and go on with this run, or start another with more sources or "
        "--set harvest.min_examples=N",
    )
