"""What the town's records say of a role before a deployment and since: beads rejected or reopened, money, arms of an A/B."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import read_rows
from gtft.corpus.linking.chronicle import Verdict, read_time
from gtft.corpus.linking.link import parse_actor
from gtft.corpus.linking.town_record import RecordPaths, TownRecords
from gtft.corpus.sources.costs import is_cost
from gtft.corpus.tally import Tally
from gtft.models.service_figures import Share
from gtft.service import AnswerLine

# What became of a bead that was not well done.
_BAD = frozenset({"rejected", "reopened", "merge_failed", "burned", "taken away"})
_GOOD = frozenset({"merged", "closed"})
# Roles that are given beads; the others look after everybody's.
_WORKERS = frozenset({"polecat", "crew", "dog"})
# An outcome counts once it has stood this long, seconds: what is closed may be reopened.
STANDS_S = 86_400.0
_WORTH = ("cost_usd",)


def count_rejects(records: TownRecords, role: str, rig: str, start: float, end: float) -> Share:
    """Of the role's beads that something became of from ``start`` to ``end``, those rejected, reopened, thrown away or
    not merged. A role that is given no beads answers for all of its rig, or of the town."""
    hits = n = 0
    for bead in _list_beads(records, role, rig):
        said = [v.name for v in records.verdicts.get(bead, ()) if start <= v.at < end]
        if any(name in _BAD | _GOOD for name in said):
            n += 1
            hits += any(name in _BAD for name in said)
    return Share(hits, n)


def count_costs(
    paths: RecordPaths, role: str, rig: str, start: float, end: float
) -> tuple[int, float]:
    """Sessions of the role that stopped from ``start`` to ``end``, and what they cost, US dollars."""
    n, spent, tally = 0, 0.0, Tally()
    for path in paths.costs:
        for row in read_rows(InputFile(path, path.name), tally):
            r = row.value
            usd = r.get("cost_usd")
            if not is_cost(r) or r.get("role") != role or (rig and r.get("rig") != rig):
                continue
            if isinstance(usd, bool) or not isinstance(usd, int | float) or not math.isfinite(usd):
                continue
            if start <= read_time(r.get("ended_at")) < end:
                n, spent = n + 1, spent + usd
    return n, spent


def list_arms(
    records: TownRecords,
    answers: Iterable[AnswerLine],
    start: float,
    now: float,
) -> Iterator[tuple[bool, bool]]:
    """For each bead that was asked about and whose outcome stands: whether the previous agent kept it, and whether it
    ended well. In the order of outcomes.

    A bead counts for the side that its id was drawn for, whoever answered: a model that leaves the hard ones to the
    previous agent is no better for it. What named no bead when it was asked was not drawn, and counts for none.
    """
    kept = {a.bead: a.why == "ab" for a in answers if a.bead}
    ended = [(v, bead) for bead in kept if (v := _find_last(records.verdicts.get(bead, ()), start))]
    for verdict, bead in sorted(ended, key=lambda e: (e[0].at, e[1])):
        if verdict.at + STANDS_S <= now:
            yield kept[bead], verdict.name in _GOOD


def _find_last(verdicts: Sequence[Verdict], start: float) -> Verdict | None:
    said = [v for v in verdicts if v.at >= start and v.name in _BAD | _GOOD]
    return said[-1] if said else None


def _list_beads(records: TownRecords, role: str, rig: str) -> Iterator[str]:
    for bead in sorted(records.verdicts):
        if rig and records.prefixes.get(bead.rpartition("-")[0], rig) != rig:
            continue
        if role in _WORKERS:
            actors = (parse_actor(actor) for _, actor in records.takers.get(bead, ()))
            if not any(a is not None and a.role == role for a in actors):
                continue
        yield bead
