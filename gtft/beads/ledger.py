"""The ledger: where beads live. One protocol, kept by the embedded ledger and, in a town, by ``bd``.

The protocol asks only for what ``bd`` can do through its CLI: beads made in one call with labels,
metadata and dependencies; claim; labels; notes; close with a reason; reopen. Status words are bd's
own (``open``, ``in_progress``, ``blocked``, ``hooked``, ``closed``); `map_state` says what they are to us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gtft.beads.lifecycle import State

LABEL = "gtft"
REVIEW_LABEL = "gtft:review"
FAILED_LABEL = "gtft:failed"
# Keeps Gas Town's reaper away from beads that wait for somebody.
KEEP_LABEL = "gt:keep"


@dataclass(frozen=True)
class NewBead:
    """A bead to create. ``key`` names it within one `Ledger.create_graph` call; ``{id}`` in the
    description stands for the id that the ledger gives it; ``parent`` and ``needs`` are keys or ids.
    An ``assignee`` is set while the bead stays open: it waits for that one alone."""

    key: str
    title: str
    description: str
    type: str = "task"
    priority: int = 2
    labels: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    acceptance: str = ""
    parent: str | None = None
    needs: tuple[str, ...] = ()
    assignee: str = ""


@dataclass(frozen=True)
class Bead:
    """A bead as the ledger shows it."""

    id: str
    title: str
    description: str
    type: str
    status: str
    priority: int
    assignee: str | None
    labels: tuple[str, ...]
    metadata: dict[str, str]
    needs: tuple[str, ...]
    parent: str | None
    close_reason: str | None
    notes: tuple[str, ...] = ()
    acceptance: str = ""


class Ledger(Protocol):
    """Every call raises ConflictError when the bead is not there or does not allow it, and TownError
    when the town cannot be reached. Every writing call may be repeated: what is already so stays so.

    ``actor`` is who does it; ``bd`` keeps it in the bead's history, the embedded ledger keeps none.
    """

    def create_graph(self, beads: tuple[NewBead, ...], *, actor: str) -> dict[str, str]:
        """Create all beads with their dependencies, or none. Returns key → id.

        The same beads again (a repeat after a crash) give the ids that are there already.
        """
        ...

    def show(self, bead_id: str) -> Bead: ...

    def look(self, bead_ids: Iterable[str], *, notes: bool = True) -> dict[str, Bead]:
        """Those of these beads that exist, by id. Without ``notes`` it is fast for many beads."""
        ...

    def find(self, *, label: str, metadata: dict[str, str] | None = None) -> list[Bead]:
        """All beads with the label (closed ones too) whose metadata has these values, oldest first."""
        ...

    def list_ready(self, *, label: str) -> list[Bead]:
        """Open, unassigned beads with no open blocker, oldest first within a priority; no epics."""
        ...

    def claim(self, bead_id: str, actor: str) -> bool:
        """Take an open bead: status in_progress, assignee = actor. False when somebody else has it.
        A claim by its holder succeeds again; a bead hooked to the actor is taken too."""
        ...

    def release(self, bead_id: str, *, failed: bool, actor: str) -> None:
        """Back to open and unassigned; the review label goes, the failed label follows ``failed``."""
        ...

    def hand_over(self, bead_id: str, actor: str) -> None:
        """Give a bead in progress to another actor (the lease of its holder lapsed)."""
        ...

    def submit(self, bead_id: str, note: str, *, actor: str) -> None:
        """Add the review label and a note with the evidence; the bead stays in progress."""
        ...

    def close(self, bead_id: str, reason: str, *, actor: str) -> None:
        """Close with a reason (`gtft.beads.rules.word_reason`); a closed bead keeps its own."""
        ...

    def reopen(self, bead_id: str, reason: str, *, actor: str) -> None:
        """A closed bead is open and unassigned again, the reason is a note; others stay as they are."""
        ...

    def block(self, bead_id: str, reason: str, *, actor: str) -> None:
        """Status blocked, the reason is a note: not ready and not to be claimed until released."""
        ...

    def need(self, bead_id: str, blocker: str, *, actor: str) -> None:
        """``bead_id`` is not ready before ``blocker`` is closed."""
        ...

    def note(self, bead_id: str, text: str, *, actor: str) -> None:
        """Add a note; one with the same text is kept once."""
        ...


def map_state(bead: Bead) -> State:
    """Our state of a bead (design.md 4.2)."""
    if bead.status == "closed":
        return "done"
    if bead.status in ("in_progress", "hooked"):
        return "review" if REVIEW_LABEL in bead.labels else "active"
    return "ready"
