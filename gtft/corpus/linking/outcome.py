"""How a session ended, as a weight: what was merged counts more, what was thrown away less or not at all.

An example is judged by what became of its bead while it was this session's, by a person's audit, and by what
its own turns say (denied, interrupted). Good words never outweigh bad ones about the same example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from gtft.corpus.example import Evidence, Labels, Mark
from gtft.corpus.linking.chronicle import Verdict, read_time
from gtft.corpus.linking.town_record import TownRecords

# The default weight of an example; the recipe's `outcomes` may say otherwise, 0 leaves it out.
WEIGHTS: Mapping[str, float] = {
    "audit good": 2.0,  # a person said so: the strongest word there is
    "merged": 1.5,  # it passed the merge queue's gates
    "closed": 1.0,  # done by the agent's own word
    "escalated": 1.0,  # asking for help is right behaviour, and rare
    "unknown": 0.8,  # most sessions: nothing says that it was wrong
    "merge_failed": 0.5,  # the work may be good, the gates were not met
    "interrupted": 0.5,  # somebody stopped it; what came before may be good
    "denied": 0.25,  # a person refused a call in it
    "rewound": 0.25,  # a person took a turn in it back
    "reopened": 0.25,  # said to be done, and was not
    "rejected": 0.25,  # what is worse than another attempt is better used as a pair
    "burned": 0.25,  # thrown away, or given to another before it was done
    "audit bad": 0.0,
}
_BAD_MARKS: tuple[Mark, ...] = ("denied", "rewound", "interrupted")
_NAMES = {"taken away": "burned"}
# Seconds that records of one moment may be apart.
_SLACK = 60.0


class Outcome(msgspec.Struct, frozen=True):
    name: str
    weight: float


def judge(
    labels: Labels, evidence: Evidence, marks: Sequence[Mark], records: TownRecords
) -> Outcome:
    """The outcome of an example with ``marks``, cut from the session of ``evidence``.

    ``marks`` are those of the example, not of the whole session. With several outcomes the lightest weighs.
    """
    audit = records.audits.get(labels.bead or "")
    if audit:
        return _weigh(f"audit {audit}")
    told = judge_bead(labels, evidence, records)
    marked = next((m for m in _BAD_MARKS if m in marks), None)
    if marked and WEIGHTS[marked] < WEIGHTS[told]:
        return _weigh(marked)
    return _weigh(told)


def judge_bead(labels: Labels, evidence: Evidence, records: TownRecords) -> str:
    """What became of the session's bead while it was this session's; "unknown" when nothing says so.

    The last word counts: a failed merge that was mended and merged is merged, what was closed and
    reopened is reopened. Words from before the session, or from after somebody else took the bead over,
    are about another attempt.
    """
    if not labels.bead:
        return "unknown"
    begun, over = _find_attempt(labels, evidence, records)
    said = [v for v in records.verdicts.get(labels.bead, ()) if _is_about(v, begun, over)]
    if not said:
        return "unknown"
    decisive = [v for v in said if v.name != "escalated"] or said
    name = decisive[-1].name
    if name == "closed" and "merged" in _since_open(decisive):
        name = "merged"
    return _NAMES.get(name, name)


def _since_open(verdicts: Sequence[Verdict]) -> set[str]:
    """What was said since the bead was last open."""
    since: set[str] = set()
    for v in verdicts:
        since = set() if v.name in ("reopened", "taken away", "merge_failed") else {*since, v.name}
    return since


def _find_attempt(labels: Labels, evidence: Evidence, records: TownRecords) -> tuple[float, float]:
    """From when to when what is said of the bead is about this session's attempt."""
    started, ended = read_time(evidence.started), read_time(evidence.ended)
    begun = -math.inf if math.isnan(started) else started - _SLACK
    done = begun if math.isnan(ended) else ended
    later = [
        at
        for at, actor in records.takers.get(labels.bead or "", ())
        if at > (begun if actor != labels.actor else done) + _SLACK
    ]
    return begun, min(later, default=math.inf) + _SLACK


def _is_about(verdict: Verdict, begun: float, over: float) -> bool:
    # A word without a time is the last one that is known.
    if math.isnan(verdict.at):
        return over == math.inf
    return begun <= verdict.at <= over


def _weigh(name: str) -> Outcome:
    return Outcome(name, WEIGHTS[name])


def contributor_of(labels: Labels, evidence: Evidence, records: TownRecords) -> str:
    """Who owns the work: the bead owner's e-mail, else the author's e-mail of the agent's commits then.

    "" when neither is known: the caller takes the town's owner, and counts it.
    """
    bead = records.beads.get(labels.bead or "")
    if bead and "@" in bead.owner:
        return bead.owner
    started, ended = read_time(evidence.started), read_time(evidence.ended)
    made = records.commits_by.get(labels.bead or "") or [
        c
        for c in records.commits_by.get(labels.actor or "", ())
        if started <= c.at <= ended + _SLACK
    ]
    emails = {c.email for c in made if "@" in c.email}
    return emails.pop() if len(emails) == 1 else ""
