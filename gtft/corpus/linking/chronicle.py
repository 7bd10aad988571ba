"""What became of a town's beads: who had which one when, and how it ended.

Fed with rows of exports, side tables, interactions and with events, in any order; `Chronicle.close` puts
them together. Times are seconds since 1970 (UTC), NaN where a row has none.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from gtft.corpus.jsonl import parse_object
from gtft.corpus.linking.link import parse_actor, parse_branch, read_bead
from gtft.corpus.sources.block import read_object, read_text
from gtft.corpus.sources.events import Event
from gtft.corpus.tally import Tally

FOREVER = math.inf
# "taken away": it was given to another worker before it was done.
VerdictName = Literal[
    "merged", "merge_failed", "rejected", "closed", "reopened", "burned", "escalated", "taken away"
]
_FINE_TIME = re.compile(r"(\.\d{6})\d+")
_FIELD = re.compile(
    r"^(source[_-]?issue|branch|close[_-]?reason|related[_-]?bead)[ \t]{0,4}:[ \t]{0,4}(\S.*)$",
    re.I | re.M,
)
_LONGEST_DESCRIPTION = 20_000
_ALIVE = frozenset({"hooked", "in_progress"})
# Who is given beads to work on; the others look after them.
_WORKERS = ("/polecats/", "/crew/", "/dogs/")


class Hold(msgspec.Struct, frozen=True):
    """A bead on an agent's hook, from ``start`` to ``end``."""

    bead: str
    start: float
    end: float = FOREVER


class Verdict(msgspec.Struct, frozen=True):
    """Something that became of a bead, at ``at``."""

    name: VerdictName
    at: float


class Bead(msgspec.Struct, frozen=True):
    """The newest row of a bead. ``closed_by`` is a session's id; ``assignee`` an actor."""

    id: str
    status: str
    assignee: str
    owner: str
    closed_by: str
    closed_at: float
    close_reason: str
    updated: float
    labels: tuple[str, ...] = ()


class _Move(msgspec.Struct, frozen=True, order=True):
    """``drop``: put down, done or not; ``take``: put on the hook of ``actor``. A drop sorts before a take."""

    at: float
    kind: Literal["drop", "drop, done", "take"]
    actor: str


class Chronicle:
    """``beads``, and after `close` also ``holds`` (by actor), ``verdicts`` and ``audits`` (by bead)."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.beads: dict[str, Bead] = {}
        self.holds: dict[str, list[Hold]] = defaultdict(list)
        self.verdicts: dict[str, list[Verdict]] = defaultdict(list)
        self.audits: dict[str, str] = {}
        self._moves: dict[str, list[_Move]] = defaultdict(list)
        self._requests: dict[str, str] = {}
        self._merges: list[tuple[Event, VerdictName]] = []
        self._opinions: list[tuple[float, str, str, str]] = []
        self._interactions: dict[str, str] = {}

    def take_row(self, r: Mapping[str, Any]) -> None:
        """A row of an export, of a side table or of interactions.jsonl, known by its keys."""
        if isinstance(r.get("id"), str) and isinstance(r.get("title"), str):
            self._take_bead(r)
        elif {"issue_id", "event_type"} <= r.keys():
            self._take_change(r)
        elif {"issue_id", "label"} <= r.keys() and "kind" not in r:
            self._take_label(read_text(r["issue_id"]), read_text(r["label"]), 0.0)
        elif {"id", "kind"} <= r.keys():
            self._take_interaction(r)

    def _take_bead(self, r: Mapping[str, Any]) -> None:
        self.tally.add("bead records", "bead")
        given = r.get("labels")
        labels = tuple(x for x in given if isinstance(x, str)) if isinstance(given, list) else ()
        bead = Bead(
            id=r["id"],
            status=read_text(r.get("status")),
            assignee=_address(r.get("assignee")),
            owner=read_text(r.get("owner")),
            closed_by=read_text(r.get("closed_by_session")),
            closed_at=read_time(r.get("closed_at")),
            close_reason=read_text(r.get("close_reason")),
            updated=_or(read_time(r.get("updated_at")), 0.0),
            labels=labels,
        )
        known = self.beads.get(bead.id)
        if known is not None and known.updated > bead.updated:
            return
        self.beads[bead.id] = bead
        for label in labels:
            self._take_label(bead.id, label, bead.updated)
        kind = r.get("issue_type")
        description = read_text(r.get("description"))[:_LONGEST_DESCRIPTION]
        if kind == "merge-request" or "gt:merge-request" in labels:
            self._take_request(bead, _read_fields(description))
        elif kind == "escalation" or "gt:escalation" in labels:
            related = read_bead(_read_fields(description).get("relatedbead"))
            if related:
                self._add(related, "escalated", read_time(r.get("created_at")))

    def _take_request(self, bead: Bead, said: Mapping[str, str]) -> None:
        """A merge request says which bead it is for, and how it ended."""
        branch = parse_branch(said.get("branch", ""))
        source = read_bead(said.get("sourceissue")) or (branch[1] if branch else None)
        if not source:
            return
        self._requests[bead.id] = source
        if bead.status != "closed":
            return
        reason = said.get("closereason") or bead.close_reason
        name = "merge_failed" if reason.startswith("conflict") else judge_reason(reason)
        if name in ("merged", "rejected", "merge_failed"):
            self._add(source, name, bead.closed_at)

    def _take_change(self, r: Mapping[str, Any]) -> None:
        """A row of the events table."""
        self.tally.add("bead records", "event")
        bead, at = read_bead(r["issue_id"]), read_time(r.get("created_at"))
        if bead is None:
            return
        if r["event_type"] == "reopened":
            self._add(bead, "reopened", at)
            return
        new = r.get("new_value")
        said = parse_object(new) if isinstance(new, str) else read_object(new)
        if said and said.get("assignee"):
            self._move(bead, at, "take", said["assignee"])
        elif said and said.get("status") == "open":
            self._move(bead, at, "drop")

    def _take_interaction(self, r: Mapping[str, Any]) -> None:
        self.tally.add("bead records", "interaction")
        issue, at = read_text(r.get("issue_id")), read_time(r.get("created_at"))
        if r["kind"] == "label":
            said = (read_text(r.get("parent_id")), read_text(r.get("label")))
            self._opinions.append((_or(at, 0.0), issue, *said))
            return
        self._interactions[read_text(r["id"])] = issue
        extra, bead = read_object(r.get("extra")), read_bead(issue)
        if r["kind"] != "field_change" or bead is None:
            return
        new = extra.get("new_value")
        if extra.get("field") == "assignee":
            self._move(bead, at, "take" if new else "drop", new)
        elif (extra.get("field"), extra.get("old_value"), new) == ("status", "closed", "open"):
            self._add(bead, "reopened", at)

    def _take_label(self, bead: str, label: str, at: float) -> None:
        """``audit:good``, ``audit/bad`` on a bead itself."""
        head, _, verdict = label.replace("/", ":").partition(":")
        if head == "audit":
            self._opinions.append((at, bead, "", verdict))

    def take_event(self, e: Event) -> None:
        """What a gt event says about a bead; others are passed over."""
        at, p = read_time(e.at), e.payload
        bead = read_bead(p.get("bead")) or read_bead(p.get("issue"))
        if e.type in ("merged", "merge_failed"):
            self._merges.append((e, "merged" if e.type == "merged" else "merge_failed"))
        elif bead is None:
            return
        elif e.type == "sling":
            self._move(bead, at, "take", p.get("target"))
        elif e.type == "hook":
            self._move(bead, at, "take", e.actor)
        elif e.type in ("unhook", "done"):
            self._move(bead, at, "drop, done" if e.type == "done" else "drop", e.actor)
        elif e.type == "escalation_sent":
            self._add(bead, "escalated", at)

    def _move(
        self, bead: str, at: float, kind: Literal["drop", "drop, done", "take"], actor: object = ""
    ) -> None:
        known = _address(actor)
        if not math.isnan(at) and (known or kind != "take"):
            self._moves[bead].append(_Move(at, kind, known))

    def _add(self, bead: str, name: VerdictName, at: float) -> None:
        self.verdicts[bead].append(Verdict(name, at))

    def close(self) -> None:
        """Put together what was fed."""
        for bead, moves in self._moves.items():
            self._follow(bead, sorted(moves))
        for row in self.beads.values():
            # Its moves have expired. Who had a closed one when it was worked on is not known any more.
            if row.assignee and row.status in _ALIVE and row.id not in self._moves:
                self.holds[row.assignee].append(Hold(row.id, row.updated))
            name = judge_reason(row.close_reason)
            if row.status in ("closed", "completed") and name:
                self._add(row.id, name, row.closed_at)
        for held in self.holds.values():
            held.sort(key=lambda h: (h.start, h.bead))
        for event, name in self._merges:
            merged = self._find_merged(event)
            if merged:
                self._add(merged, name, read_time(event.at))
        for verdicts in self.verdicts.values():
            verdicts.sort(key=lambda v: (_or(v.at, FOREVER), v.name))
        for _, issue, parent, label in sorted(self._opinions):
            bead, opinion = issue or self._interactions.get(parent, ""), read_opinion(label)
            if bead and opinion:
                self.audits[bead] = opinion

    def _follow(self, bead: str, moves: list[_Move]) -> None:
        """The moves of one bead as spans of time by actor."""
        holder, since = "", 0.0
        left, left_at = "", 0.0
        for move in moves:
            if move.kind == "take" and move.actor != holder:
                last, at = (holder, move.at) if holder else (left, left_at)
                if _is_worker(last) and _is_worker(move.actor) and last != move.actor:
                    self._add(bead, "taken away", at)
                if holder:
                    self.holds[holder].append(Hold(bead, since, move.at))
                holder, since, left = move.actor, move.at, ""
            elif move.kind != "take" and holder and move.actor in ("", holder):
                self.holds[holder].append(Hold(bead, since, move.at))
                left, left_at = ("" if move.kind == "drop, done" else holder), move.at
                holder = ""
        if holder:
            row = self.beads.get(bead)
            end = _or(row.closed_at, FOREVER) if row and row.status == "closed" else FOREVER
            self.holds[holder].append(Hold(bead, since, max(end, since)))

    def _find_merged(self, e: Event) -> str | None:
        """The bead of a merge event: named, by its request, by its branch, or what its worker had then."""
        p = e.payload
        branch = parse_branch(read_text(p.get("branch")))
        bead = (
            read_bead(p.get("bead"))
            or read_bead(p.get("issue"))
            or self._requests.get(read_text(p.get("mr")))
            or (branch[1] if branch else None)
        )
        if bead:
            return bead
        sender = parse_actor(e.actor) if e.actor else None
        rig = read_text(p.get("rig")) or (sender.rig or "" if sender else "")
        worker = read_text(p.get("worker")) or (branch[0] if branch else "")
        at = read_time(e.at)
        held = [h for h in self.holds.get(f"{rig}/polecats/{worker}", ()) if h.start <= at]
        return held[-1].bead if held else None


_HOUSEKEEPING = (
    "stale", "duplicate", "dup of", "pollution", "noise", "squashed", "test ", "superseded",
    "wontfix", "won't fix", "help artifact", "garbage", "maintenance", "obsolete", "no longer",
    "orphan", "patrol", "old handoff", "cancelled", "canceled",
)  # fmt: skip


def judge_reason(reason: str) -> VerdictName | None:
    """What a close reason says of the work; None: it says nothing about it (housekeeping)."""
    reason = reason[:200].lower().strip()
    if reason.startswith("burned"):
        return "burned"
    if reason.startswith(("rejected", "reject:")):
        return "rejected"
    if reason.startswith(_HOUSEKEEPING):
        return None
    if reason.startswith(("merged", "direct merge", "shipped")) or "merged to main" in reason:
        return "merged"
    return "closed"


def read_opinion(label: str) -> str | None:
    """An audit's label as "good" or "bad"; it is free text, so anything else is None."""
    word = label[:40].strip().lower()
    if word in ("good", "accept", "accepted", "approved", "pass", "+1"):
        return "good"
    return "bad" if word in ("bad", "reject", "rejected", "fail", "wrong", "-1") else None


def read_time(text: object) -> float:
    """ISO 8601 → seconds since 1970; NaN for anything else. Without a zone it is taken as UTC."""
    if not isinstance(text, str) or len(text) > 60:
        return math.nan
    try:
        when = datetime.fromisoformat(_FINE_TIME.sub(r"\1", text))
        # Go's zero time stands for "never".
        if when.year < 1990:
            return math.nan
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _read_fields(description: str) -> dict[str, str]:
    """The ``key: value`` lines of a merge request or an escalation; keys in lower case, joined."""
    return {re.sub("[_-]", "", m[1].lower()): m[2].strip() for m in _FIELD.finditer(description)}


def _address(value: object) -> str:
    labels = parse_actor(value) if isinstance(value, str) and value else None
    return (labels.actor if labels else "") or ""


def _is_worker(actor: str) -> bool:
    return any(folder in actor for folder in _WORKERS)


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value
