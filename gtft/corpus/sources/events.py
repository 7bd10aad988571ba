"""A town's event log ``<town>/.events.jsonl``: ``{ts, source: "gt", type, actor, payload, visibility}``.

Labels and outcomes come from it, never examples. gt lets events expire after days (`session_start` after three).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import read_rows
from gtft.corpus.sources.block import read_object, read_text
from gtft.corpus.tally import Tally

_TYPES = (
    "sling hook unhook handoff done mail spawn kill nudge boot halt session_start session_end session_death "
    "mass_death patrol_started polecat_checked polecat_nudged escalation_sent escalation_acked "
    "escalation_closed patrol_complete merge_started merged merge_failed merge_skipped scheduler_enqueue "
    "scheduler_dispatch scheduler_dispatch_failed scheduler_close_retry gtft_started gtft_done"
)
KNOWN = frozenset(_TYPES.split())


class Event(msgspec.Struct, frozen=True):
    """One event. ``at`` as written (ISO 8601, UTC)."""

    type: str
    actor: str
    at: str
    payload: dict[str, Any]


def is_event(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of gt's events, by its keys. Feed rows (``.feed.jsonl``) are not."""
    return (
        row.get("source") == "gt"
        and isinstance(row.get("type"), str)
        and isinstance(row.get("ts"), str)
    )


def read_events(file: InputFile, tally: Tally) -> Iterator[Event]:
    """The events of a file, in its order.

    Tables: ``events`` (by type; of another shape), ``drift`` (types that gtft does not know; they are kept).
    Raises InputError when the system refuses to read.
    """
    for row in read_rows(file, tally):
        if not is_event(row.value):
            tally.name("row that is no event", file.name, row.line, ",".join(sorted(row.value)[:8]))
            continue
        kind = row.value["type"]
        if kind not in KNOWN:
            tally.add("drift", f"event {kind[:60]}")
            kind = "other"
        tally.add("events", kind)
        yield Event(
            row.value["type"],
            read_text(row.value.get("actor")),
            row.value["ts"],
            read_object(row.value.get("payload")),
        )
