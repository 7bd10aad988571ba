"""States and legal moves, as data. The code, the docs and the tests all read this one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gtft.errors import ConflictError

State = Literal["ready", "active", "review", "done"]
Reason = Literal["paused", "failed", "cancelled", "rejected", "expired", "superseded"]

STATES: tuple[State, ...] = ("ready", "active", "review", "done")
# A stage that stands at ready for one of these waits for somebody to resume it.
HELD: tuple[Reason, ...] = ("paused", "failed")


@dataclass(frozen=True)
class Move:
    """One legal move. ``reason`` None = the good way on."""

    frm: State
    to: State
    reason: Reason | None
    who: str
    means: str


MOVES: tuple[Move, ...] = (
    Move("ready", "active", None, "runner", "claimed, with a lease"),
    Move("active", "active", "expired", "runner", "the lease lapsed and another runner took over"),
    Move("active", "review", None, "runner", "the artifact is on disk and its hash is recorded"),
    Move("active", "ready", "paused", "runner", "stopped on request, with a checkpoint"),
    Move("active", "ready", "failed", "runner", "the worker ended without an artifact"),
    Move("review", "done", None, "reviewer", "the evidence was accepted"),
    Move("review", "done", "rejected", "witness", "the evidence was refused; the run ends"),
    Move("review", "ready", "failed", "runner", "the evidence no longer holds"),
    Move("ready", "ready", None, "anyone", "resumed: what held it is cleared"),
    Move("ready", "done", "cancelled", "anyone", "the run was cancelled"),
    Move("active", "done", "cancelled", "anyone", "the run was cancelled"),
    Move("review", "done", "cancelled", "anyone", "the run was cancelled"),
    Move("ready", "done", "rejected", "witness", "an earlier stage was rejected"),
    Move("ready", "done", "superseded", "runner", "a newer run took its place"),
)


def check_move(frm: State, to: State, reason: Reason | None) -> Move:
    """The move, if it is legal. Raises ConflictError with the moves that are."""
    for m in MOVES:
        if (m.frm, m.to, m.reason) == (frm, to, reason):
            return m
    legal = ", ".join(
        sorted({f"{m.to} ({m.reason})" if m.reason else m.to for m in MOVES if m.frm == frm})
    )
    asked = f"{to} ({reason})" if reason else to
    raise ConflictError(
        f"a bead cannot go from {frm} to {asked}",
        why=f"from {frm} it can go to: {legal or 'nowhere; it is finished'}",
        fix="gtft status",
    )


def render_moves() -> str:
    """The table as Markdown, for the docs."""
    rows = ["| from | to | reason | by | meaning |", "|---|---|---|---|---|"]
    rows += [f"| {m.frm} | {m.to} | {m.reason or '–'} | {m.who} | {m.means} |" for m in MOVES]
    return "\n".join(rows)
