"""The states and legal moves: one table, and nothing beside it."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.beads.lifecycle import HELD, MOVES, STATES, check_move, render_moves
from gtft.errors import ConflictError

REASONS = (None, "paused", "failed", "cancelled", "rejected", "expired", "superseded")


@pytest.mark.parametrize(("frm", "to", "reason"), list(itertools.product(STATES, STATES, REASONS)))
def test_exactly_the_table_is_legal(frm: str, to: str, reason: str | None) -> None:
    listed = any((m.frm, m.to, m.reason) == (frm, to, reason) for m in MOVES)
    if listed:
        assert check_move(frm, to, reason).means  # type: ignore[arg-type]
    else:
        with pytest.raises(ConflictError):
            check_move(frm, to, reason)  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(MOVES), max_size=30))
def test_done_is_never_left_and_review_never_skipped(moves: list[object]) -> None:
    """Any walk through the table: done is final, and good work passes through review."""
    state, seen_review = "ready", False
    for m in moves:
        if m.frm != state:  # type: ignore[attr-defined]
            continue
        assert state != "done"
        seen_review = m.frm == "review"  # type: ignore[attr-defined]
        state = m.to  # type: ignore[attr-defined]
        if state == "done" and m.reason is None:  # type: ignore[attr-defined]
            assert seen_review


def test_every_state_is_reached_and_every_hold_can_be_resumed() -> None:
    assert {m.to for m in MOVES} == set(STATES)
    for reason in HELD:
        assert any(m.to == "ready" and m.reason == reason for m in MOVES)
    check_move("ready", "ready", None)


def test_the_docs_show_this_table() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md"
    assert render_moves() in page.read_text("utf-8")
