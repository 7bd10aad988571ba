"""gt's cost log ``~/.gt/costs.jsonl``: one row whenever an agent stops, under its tmux name.

``{session_id, role, rig, worker, cost_usd, ended_at, work_item}``. The name is no session id of a
transcript, so a row is joined by who and when (`gtft.corpus.linking.linker`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gtft.corpus.example import Labels
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import read_rows
from gtft.corpus.linking.link import parse_actor, read_bead
from gtft.corpus.sources.block import read_text
from gtft.corpus.tally import Tally


class Cost(msgspec.Struct, frozen=True):
    """Who stopped, and when (``at`` as written, with its zone)."""

    labels: Labels
    at: str


def is_cost(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of gt's cost rows, by its keys."""
    return {"session_id", "role", "cost_usd", "ended_at"} <= row.keys()


def read_costs(file: InputFile, tally: Tally) -> Iterator[Cost]:
    """The rows that name an agent. Table ``costs``: read, and left out because no agent is named.

    Raises InputError when the system refuses to read.
    """
    for row in read_rows(file, tally):
        r = row.value
        if not is_cost(r):
            tally.name("row that is no cost", file.name, row.line, ",".join(sorted(r)[:8]))
            continue
        labels = _read_labels(r)
        if labels is None:
            tally.add("costs", "no agent named")
            continue
        tally.add("costs", "read")
        yield Cost(labels, read_text(r["ended_at"]))


def _read_labels(r: Mapping[str, Any]) -> Labels | None:
    role, rig, worker = (read_text(r.get(k)) for k in ("role", "rig", "worker"))
    if role in ("polecat", "crew"):
        address = f"{rig}/{'polecats' if role == 'polecat' else 'crew'}/{worker}"
    else:
        address = f"{rig}/{role}" if rig else role
    labels = parse_actor(address)
    bead = read_bead(r.get("work_item"))
    return Labels(labels.role, labels.rig, labels.actor, bead) if labels else None
