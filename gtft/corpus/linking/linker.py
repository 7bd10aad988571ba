"""Who a session was: the first rung of the cascade that decides, the town's records before the file's words.

Rungs, best first: the hook's record, gt's start events, prime line, beacon, working folder, then, where
none of these speaks, branch, agent name, parent session, closed beads, cost rows and commits by time.
Records are asked in the parent process only, so what was read from a file stays valid when they change.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from gtft.corpus.example import Evidence, Labels
from gtft.corpus.linking.chronicle import read_time
from gtft.corpus.linking.link import NOTES, SURE, parse_actor, parse_branch
from gtft.corpus.linking.town_record import TownRecords
from gtft.corpus.tally import Tally

_PARENTS = 8
# Seconds between a session's last record and the cost row of its stop.
_STOP_BEFORE, _STOP_AFTER = 2.0, 30.0
# Seconds by which a bead may reach the hook after its session started.
_SLING_AFTER = 180.0
# Seconds by which a bead may leave the hook before the session that works on it starts.
_PUT_DOWN_BEFORE = 60.0
# Rungs that stand aside when another speaks: they may name somebody else without being wrong.
_WEAK = frozenset({"branch", "agent name"})


class Linker:
    """Decides for every session of a harvest. ``sessions``: the evidence of all of them, in any order:
    sub-agents need their parents, and cost rows the sessions that account for them.

    Tables of ``tally``: ``linked by`` (rung), ``unlinked`` (reason), ``beads linked by`` (rung),
    ``link conflicts`` (rung/rung), ``links refused`` (reason).
    """

    def __init__(
        self, records: TownRecords, sessions: Iterable[Evidence] = (), tally: Tally | None = None
    ) -> None:
        self.records = records
        self.tally = tally if tally is not None else Tally()
        self._sessions = {e.session: e for e in sessions if e.session}
        self._spans: dict[str, list[tuple[float, float, str]]] | None = None

    def decide(self, evidence: Evidence) -> Labels:
        """Labels with the rung that decided and how sure that is. Role None: not linked."""
        labels = self._decide_actor(evidence, self.tally)
        if labels.role is None:
            self.tally.add("unlinked", self.explain(evidence))
            return Labels()
        self.tally.add("linked by", labels.rung)
        bead, rung = self.find_bead(evidence, labels)
        if bead:
            self.tally.add("beads linked by", rung)
        return replace(labels, bead=bead)

    def explain(self, evidence: Evidence) -> str:
        """Why a session is not linked, in a few words; for a linked one, by what it is."""
        labels = self._decide_actor(evidence, Tally())
        if labels.role is not None:
            return f"linked by {labels.rung}"
        notes = {c.rung for c in evidence.candidates if c.rung in NOTES}
        if len(self.records.starts.get(_key(evidence), ())) > 1:
            return "several agents claim the session"
        if "address not understood" in notes:
            return "address not understood"
        if any(c.role and not self._knows(c) for c in evidence.candidates):
            return "rig that the town does not have"
        if "cwd outside a town" in notes:
            return "outside the town"
        if evidence.parent:
            return "parent session not linked"
        if notes >= {"no prompt", "no cwd"}:
            return "no prompt and no cwd"
        return (
            "no cwd, and the prompt names no agent"
            if "no cwd" in notes
            else "nothing names an agent"
        )

    # --- who ---

    def _decide_actor(self, evidence: Evidence, tally: Tally, depth: int = 0) -> Labels:
        labels = self._decide_alone(evidence, tally)
        if evidence.parent and labels.rung not in ("hook", "events", "prime") and depth < _PARENTS:
            parent = self._sessions.get(evidence.parent)
            above = self._decide_actor(parent, Tally(), depth + 1) if parent else Labels()
            sure = above.confidence * SURE["parent session"]
            if above.role and sure > labels.confidence:
                return replace(above, bead=None, rung="parent session", confidence=round(sure, 3))
        if labels.role is None:
            labels = self._find_by_beads(evidence) or self._find_by_time(evidence) or labels
        return labels

    def _decide_alone(self, evidence: Evidence, tally: Tally) -> Labels:
        """By the rungs that name the session itself."""
        rungs = self._list_rungs(evidence, tally)
        if not rungs:
            return Labels()
        strong = [r for r in rungs if r.rung not in _WEAK] or rungs[:1]
        chosen = strong[0]
        votes = Counter(r.actor for r in rungs)
        if chosen.rung != "hook" and votes[chosen.actor] == 1:
            # One voice against two that agree.
            chosen = next((r for r in strong if votes[r.actor] > 1), chosen)
        sure = chosen.confidence
        for other in strong:
            if other.actor != chosen.actor:
                tally.add("link conflicts", f"{chosen.rung}/{other.rung}")
                sure *= 0.7
        if votes[chosen.actor] > 1:
            sure = (1 + sure) / 2
        return replace(chosen, confidence=round(sure, 3))

    def _list_rungs(self, evidence: Evidence, tally: Tally) -> list[Labels]:
        key = _key(evidence)
        said = [c for c in evidence.candidates if c.role]
        rungs = []
        hook = self.records.hooks.get(key)
        if hook:
            rungs.append(hook)
        started = self.records.starts.get(key, ())
        if len(started) > 1:
            # gt may fall back to an id that another agent left behind.
            tally.add("link conflicts", "events/events")
            named = {c.actor for c in (*rungs, *said)}
            started = tuple(s for s in started if s.actor in named)
        rungs += started[:1]
        for c in said:
            if self._knows(c):
                rungs.append(c)
            else:
                tally.add("links refused", f"{c.rung}: rig that the town does not have")
        branch = parse_branch(evidence.branch)
        rig = self._find_rig(branch[1]) if branch else None
        if branch and rig:
            actor = f"{rig}/polecats/{branch[0]}"
            rungs.append(Labels("polecat", rig, actor, branch[1], "branch", SURE["branch"]))
        return rungs

    def _knows(self, c: Labels) -> bool:
        """A folder may look like a town's; what gt itself wrote is believed."""
        if c.rung in ("prime", "beacon") or not c.rig or not self.records.rigs:
            return True
        return c.rig in self.records.rigs

    def _find_rig(self, bead: str | None) -> str | None:
        if not bead:
            return None
        head = bead
        while "-" in head:
            head = head.rpartition("-")[0]
            if head in self.records.prefixes:
                return self.records.prefixes[head]
        return None

    def _find_by_beads(self, evidence: Evidence) -> Labels | None:
        """Whose beads this session closed."""
        closed = self.records.closers.get(_key(evidence), ())
        actors = {self.records.beads[b].assignee for b in closed}
        if len(actors) != 1 or not (actor := actors.pop()):
            return None
        return _name(actor, "bead")

    def _find_by_time(self, evidence: Evidence) -> Labels | None:
        """Whose cost row or commits fall to this session: only where it says nothing of its own place,
        and no other session of that agent accounts for them."""
        if all(c.rung != "no cwd" for c in evidence.candidates):
            return None
        started, ended = _span(evidence)
        if math.isnan(ended):
            return None
        stops = self.records.stops
        first = bisect_left(stops, ended - _STOP_BEFORE, key=lambda s: s.at)
        last = bisect_right(stops, ended + _STOP_AFTER, key=lambda s: s.at)
        free = {
            s.labels.actor or ""
            for s in stops[first:last]
            if not self._accounted(s.labels, s.at, evidence)
        }
        if len(free) == 1:
            return _name(free.pop(), "costs")
        made = {
            c.actor
            for c in self.records.commits
            if c.actor
            and started <= c.at <= ended + _STOP_AFTER
            and not self._accounted(Labels(actor=c.actor), c.at, evidence)
        }
        return _name(made.pop(), "commits") if len(made) == 1 and not free else None

    def _accounted(self, labels: Labels, at: float, but: Evidence) -> bool:
        return any(
            begin <= at <= end + _STOP_AFTER and session != _key(but)
            for begin, end, session in self._list_spans().get(labels.actor or "", ())
        )

    def _list_spans(self) -> dict[str, list[tuple[float, float, str]]]:
        """When each agent was at work, by the sessions that are linked by themselves."""
        if self._spans is None:
            spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
            for session, evidence in self._sessions.items():
                actor = self._decide_alone(evidence, Tally()).actor
                started, ended = _span(evidence)
                if actor and not evidence.parent and not math.isnan(started) and "#" not in session:
                    spans[actor].append((started, ended, session))
            self._spans = spans
        return self._spans

    # --- on which bead ---

    def find_bead(
        self, evidence: Evidence, labels: Labels, depth: int = 0
    ) -> tuple[str | None, str]:
        """The bead a session was about, and the rung that says so; (None, "") when nothing decides."""
        parent = self._sessions.get(evidence.parent) if evidence.parent else None
        if (
            parent
            and depth < _PARENTS
            and labels.actor == self._decide_actor(parent, Tally()).actor
        ):
            return self.find_bead(parent, labels, depth + 1)
        actor = labels.actor or ""
        for bead, rung in self._list_beads(evidence, actor):
            if bead and not self._was_over(bead, actor, evidence):
                return bead, rung
        return self._find_held(evidence, actor)

    def _list_beads(self, evidence: Evidence, actor: str) -> Iterator[tuple[str | None, str]]:
        """Beads that are named for the session, the surest first."""
        key = _key(evidence)
        hook = self.records.hooks.get(key)
        for c in (hook, *self.records.starts.get(key, ()), *evidence.candidates):
            if c is not None and c.actor == actor:
                yield c.bead, c.rung
        branch = parse_branch(evidence.branch)
        if branch and actor.endswith(f"/polecats/{branch[0]}"):
            yield branch[1], "branch"
        own = {c.rung: c.bead for c in evidence.candidates if c.rung in ("claim", "commands")}
        yield own.get("claim"), "claim"
        closed = [
            b for b in self.records.closers.get(key, ()) if self.records.beads[b].assignee == actor
        ]
        if len(closed) == 1:
            yield closed[0], "closed by session"
        looked = own.get("commands")
        if looked and self._had(looked, actor):
            yield looked, "commands"

    def _had(self, bead: str, actor: str) -> bool:
        """Whether it ever was the agent's: anybody may look at a bead, or close it for another."""
        row = self.records.beads.get(bead)
        if any(h.bead == bead for h in self.records.holds.get(actor, ())):
            return True
        return row.assignee == actor if row else "/polecats/" in actor

    def _was_over(self, bead: str, actor: str, evidence: Evidence) -> bool:
        """Whether it was done or put down before: a copied prompt names the bead of its original."""
        started, _ = _span(evidence)
        row = self.records.beads.get(bead)
        ends = [h.end for h in self.records.holds.get(actor, ()) if h.bead == bead]
        if row and row.status == "closed":
            ends = [max(ends, default=row.closed_at)]
        return bool(ends) and max(ends) < started - _PUT_DOWN_BEFORE

    def _find_held(self, evidence: Evidence, actor: str) -> tuple[str | None, str]:
        """The one bead on the agent's hook while the session ran."""
        started, ended = _span(evidence)
        if math.isnan(started):
            return None, ""
        held = [
            h
            for h in self.records.holds.get(actor, ())
            if h.start <= max(ended, started + _SLING_AFTER) and h.end > started
        ]
        beads = {h.bead for h in held}
        if len(beads) > 1:
            # What was there at the start goes before what came later.
            beads = {h.bead for h in held if 0 < h.start <= started + _SLING_AFTER}
        together = [
            session
            for begin, end, session in self._list_spans().get(actor, ())
            if session != _key(evidence) and begin < ended and end > started
        ]
        if len(beads) != 1 or together:
            if beads:
                self.tally.add("links refused", "bead: several on the hook, or several sessions")
            return None, ""
        return beads.pop(), "hook at that time"


def _name(actor: str, rung: str) -> Labels | None:
    labels = parse_actor(actor)
    return replace(labels, rung=rung, confidence=SURE[rung]) if labels else None


def _key(evidence: Evidence) -> str:
    """The session's own id: a sub-agent's is written ``<session>#<agent>``."""
    return (evidence.session or "").partition("#")[0]


def _span(evidence: Evidence) -> tuple[float, float]:
    """First and last record in seconds since 1970; NaN where the file has no times."""
    started = read_time(evidence.started)
    ended = read_time(evidence.ended)
    return started, started if math.isnan(ended) else ended
