"""The `Ledger` protocol. The same tests run on every ledger there is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.beads.ledger import FAILED_LABEL, LABEL, REVIEW_LABEL, Ledger, NewBead, map_state
from gtft.beads.local import LocalLedger
from gtft.errors import ConflictError, InputError

MakeLedger = Callable[[Path], Ledger]


def make_local(path: Path) -> Ledger:
    return LocalLedger(path / "beads.db", "tt", lambda: 1_800_000_000.0)


@pytest.fixture(params=[make_local], ids=["embedded"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    made: Ledger = request.param(tmp_path)
    return made


def plan() -> tuple[NewBead, ...]:
    return (
        NewBead(
            key="epic",
            title="A run",
            description="Run: gtft run {id}",
            type="epic",
            labels=(LABEL,),
            metadata={"gtft.run": "r1", "gtft.stage": "epic"},
        ),
        NewBead(
            key="a",
            title="First",
            description="Run: gtft run {id}",
            labels=(LABEL, "gtft:a"),
            metadata={"gtft.run": "r1", "gtft.stage": "a"},
            parent="epic",
        ),
        NewBead(
            key="b",
            title="Second",
            description="x",
            labels=(LABEL,),
            metadata={"gtft.run": "r1", "gtft.stage": "b"},
            parent="epic",
            needs=("a",),
        ),
    )


def test_a_graph_is_made_whole(ledger: Ledger) -> None:
    ids = ledger.create_graph(plan())
    a, b = ledger.show(ids["a"]), ledger.show(ids["b"])
    assert a.description.splitlines()[0] == f"Run: gtft run {ids['a']}"
    assert a.parent == ids["epic"]
    assert a.labels == (LABEL, "gtft:a")
    assert b.needs == (ids["a"],)
    assert map_state(a) == "ready"
    assert {x.id for x in ledger.find(label=LABEL, metadata={"gtft.run": "r1"})} == set(
        ids.values()
    )
    assert ledger.find(label=LABEL, metadata={"gtft.run": "other"}) == []


def test_a_graph_with_a_mistake_makes_nothing(ledger: Ledger) -> None:
    broken = (*plan()[:2], NewBead(key="c", title=" ", description=""))
    with pytest.raises(ConflictError):
        ledger.create_graph(broken)
    assert ledger.find(label=LABEL) == []


def test_only_the_unblocked_is_ready(ledger: Ledger) -> None:
    ids = ledger.create_graph(plan())
    assert [x.id for x in ledger.list_ready(label=LABEL)] == [ids["a"]]
    assert ledger.claim(ids["a"], "worker/1")
    assert ledger.list_ready(label=LABEL) == []
    ledger.close(ids["a"], "artifact re-hashed and found whole")
    assert [x.id for x in ledger.list_ready(label=LABEL)] == [ids["b"]]


def test_a_claim_has_one_winner_and_is_repeatable_by_its_holder(ledger: Ledger) -> None:
    a = ledger.create_graph(plan())["a"]
    assert ledger.claim(a, "worker/1")
    assert ledger.claim(a, "worker/1")
    assert not ledger.claim(a, "worker/2")
    assert ledger.show(a).assignee == "worker/1"
    assert map_state(ledger.show(a)) == "active"


def test_submit_release_and_hand_over(ledger: Ledger) -> None:
    a = ledger.create_graph(plan())["a"]
    with pytest.raises(ConflictError):
        ledger.submit(a, "too early")
    ledger.claim(a, "worker/1")
    ledger.submit(a, "corpus sha256:00")
    ledger.submit(a, "corpus sha256:00")
    assert map_state(ledger.show(a)) == "review"
    assert ledger.show(a).notes == ("corpus sha256:00",)
    ledger.release(a, failed=True)
    bead = ledger.show(a)
    assert (map_state(bead), bead.assignee) == ("ready", None)
    assert FAILED_LABEL in bead.labels
    assert REVIEW_LABEL not in bead.labels
    ledger.hand_over(a, "worker/2")
    assert ledger.show(a).assignee == "worker/2"


def test_close_is_final_and_an_epic_waits_for_its_children(ledger: Ledger) -> None:
    ids = ledger.create_graph(plan())
    with pytest.raises(ConflictError, match="cannot close"):
        ledger.close(ids["epic"], "all children are complete")
    for key in ("a", "b"):
        ledger.close(ids[key], f"{key} accepted, artifact found whole")
    ledger.close(ids["epic"], "all children are complete")
    ledger.close(ids["epic"], "another reason that comes too late")
    assert ledger.show(ids["epic"]).close_reason == "all children are complete"
    assert not ledger.claim(ids["a"], "worker/3")
    with pytest.raises(ConflictError):
        ledger.release(ids["a"], failed=False)


def test_a_bead_that_is_not_there_is_said(ledger: Ledger) -> None:
    for call in (
        lambda: ledger.show("tt-999"),
        lambda: ledger.claim("tt-999", "x"),
        lambda: ledger.close("tt-999", "a reason of some length"),
    ):
        with pytest.raises(ConflictError, match="tt-999"):
            call()


def test_a_damaged_embedded_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "beads.db").write_bytes(b"this is no database " * 500)
    with pytest.raises(InputError, match="cannot be used"):
        make_local(tmp_path)
