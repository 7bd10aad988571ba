"""The `Ledger` protocol. The same tests run on every ledger there is: the embedded one, real ``bd`` on a
Dolt server as in a town, and real ``bd`` with its own embedded database.

One bead database serves all tests of a kind (``bd init`` takes seconds): a test's beads carry its own run.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gtft.beads.bd import BdLedger
from gtft.beads.ledger import (
    FAILED_LABEL,
    LABEL,
    REVIEW_LABEL,
    Bead,
    Ledger,
    NewBead,
    map_state,
)
from gtft.beads.local import LocalLedger
from gtft.errors import ConflictError, InputError
from town_case import make_beads, make_environ, make_server, need_tools

ME, OTHER = "gtft/box/1", "gtft/box/2"
_runs = itertools.count()


@pytest.fixture(scope="module", params=["embedded", "bd-server", "bd-embedded"])
def ledger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ledger]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        yield make_local(folder)
        return
    need_tools("dolt", "bd")
    if request.param == "bd-embedded":
        yield BdLedger(make_beads(folder / "rig", None), make_environ(folder / "rig"))
        return
    server = make_server(folder / "server")
    try:
        yield BdLedger(make_beads(folder / "rig", server), server.environ)
    finally:
        server.stop()


def make_local(folder: Path) -> LocalLedger:
    return LocalLedger(folder / "beads.db", "tt", lambda: 1_800_000_000.0)


@pytest.fixture
def run() -> str:
    """A name that no other test's beads carry."""
    return f"r{next(_runs)}"


def plan(run: str) -> tuple[NewBead, ...]:
    return (
        NewBead(
            key="epic",
            title="A run",
            description="Run: gtft run {id}",
            type="epic",
            labels=(LABEL, run),
            metadata={"gtft.run": run, "gtft.stage": "epic"},
        ),
        NewBead(
            key="a",
            title="First",
            description="Run: gtft run {id}",
            labels=(LABEL, "gtft:a", run),
            metadata={"gtft.run": run, "gtft.stage": "a"},
            acceptance="a hash\n- and a line",
            parent="epic",
        ),
        NewBead(
            key="b",
            title="Second",
            description="x",
            labels=(LABEL, run),
            metadata={"gtft.run": run, "gtft.stage": "b"},
            parent="epic",
            needs=("a",),
        ),
    )


def list_ready(ledger: Ledger, run: str) -> list[str]:
    return [x.id for x in ledger.list_ready(label=run)]


def make_one(ledger: Ledger, run: str, **fields: object) -> Bead:
    new = NewBead(key="x", title="One", description="", labels=(run,), metadata={"gtft.run": run})
    id_ = ledger.create_graph((NewBead(**{**vars(new), **fields}),), actor=ME)["x"]
    return ledger.show(id_)


def test_a_graph_is_made_whole(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    a, b = ledger.show(ids["a"]), ledger.show(ids["b"])
    assert a.description.splitlines()[0] == f"Run: gtft run {ids['a']}"
    assert a.parent == ids["epic"]
    assert a.labels == tuple(sorted((LABEL, "gtft:a", run)))
    assert a.acceptance == "a hash\n- and a line"
    assert b.needs == (ids["a"],)
    assert map_state(a) == "ready"
    found = ledger.find(label=LABEL, metadata={"gtft.run": run})
    assert [x.id for x in found] == list(ids.values())
    assert found[1:] == [a, b]
    assert ledger.find(label=LABEL, metadata={"gtft.run": "no such run"}) == []


def test_a_graph_made_again_is_the_same_graph(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    ledger.claim(ids["a"], ME)
    assert ledger.create_graph(plan(run), actor=OTHER) == ids
    assert len(ledger.find(label=LABEL, metadata={"gtft.run": run})) == 3
    assert ledger.show(ids["a"]).assignee == ME


def test_a_bead_may_hang_on_beads_that_are_there(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    late = NewBead(
        key="late", title="Late", description="", parent=ids["epic"], needs=(ids["a"], ids["b"])
    )
    bead = ledger.show(ledger.create_graph((late,), actor=ME)["late"])
    assert bead.parent == ids["epic"]
    assert bead.needs == tuple(sorted((ids["a"], ids["b"])))
    assert bead.labels == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"title": " "}, "title"),
        ({"priority": 5}, "priority"),
        ({"type": "no-such-type"}, "type"),
        ({"labels": ("two,labels",)}, "label"),
        ({"metadata": {"--flag": "x"}}, "metadata"),
        ({"parent": "tt-none"}, "tt-none"),
        ({"needs": ("tt-none",)}, "tt-none"),
        ({"needs": ("bad",)}, "circle"),
        ({"parent": "epic", "needs": ("epic",)}, "epic"),
        ({"parent": "a"}, "parent"),
        ({"assignee": "a\nb"}, "actor"),
        ({"key": "a"}, "same key"),
    ],
)
def test_a_graph_with_a_mistake_makes_nothing(
    ledger: Ledger, run: str, fields: dict[str, object], why: str
) -> None:
    bad = NewBead(**{**vars(NewBead(key="bad", title="Bad", description="")), **fields})
    with pytest.raises(ConflictError, match=why):
        ledger.create_graph((*plan(run), bad), actor=ME)
    assert ledger.find(label=run) == []


def test_only_the_unblocked_is_ready(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    assert list_ready(ledger, run) == [ids["a"]]
    assert ledger.claim(ids["a"], "worker/1")
    assert list_ready(ledger, run) == []
    ledger.close(ids["a"], "artifact re-hashed and found whole", actor=ME)
    assert list_ready(ledger, run) == [ids["b"]]


def test_ready_goes_by_priority_and_then_by_age(ledger: Ledger, run: str) -> None:
    beads = tuple(
        NewBead(key=str(n), title=f"{n}", description="", priority=p, labels=(run,))
        for n, p in enumerate((4, 2, 0, 2, 1))
    )
    ids = ledger.create_graph(beads, actor=ME)
    assert list_ready(ledger, run) == [ids[k] for k in "24130"]
    assert [b.priority for b in ledger.find(label=run)] == [4, 2, 0, 2, 1]


def test_a_bead_made_for_somebody_waits_for_that_one(ledger: Ledger, run: str) -> None:
    bead = make_one(ledger, run, assignee=OTHER)
    assert (bead.status, bead.assignee) == ("open", OTHER)
    assert list_ready(ledger, run) == []
    assert not ledger.claim(bead.id, ME)
    assert ledger.claim(bead.id, OTHER)


def test_a_claim_has_one_winner_and_is_repeatable_by_its_holder(ledger: Ledger, run: str) -> None:
    a = make_one(ledger, run).id
    assert ledger.claim(a, "worker/1")
    assert ledger.claim(a, "worker/1")
    assert not ledger.claim(a, "worker/2")
    assert ledger.show(a).assignee == "worker/1"
    assert map_state(ledger.show(a)) == "active"


def test_submit_release_and_hand_over(ledger: Ledger, run: str) -> None:
    a = make_one(ledger, run).id
    with pytest.raises(ConflictError):
        ledger.submit(a, "too early", actor=ME)
    assert ledger.show(a).notes == ()
    ledger.claim(a, "worker/1")
    ledger.submit(a, "corpus sha256:00", actor="worker/1")
    ledger.submit(a, "corpus sha256:00", actor="worker/1")
    assert map_state(ledger.show(a)) == "review"
    assert ledger.show(a).notes == ("corpus sha256:00",)
    for _ in range(2):
        ledger.release(a, failed=True, actor=ME)
        bead = ledger.show(a)
        assert (map_state(bead), bead.assignee) == ("ready", None)
        assert FAILED_LABEL in bead.labels
        assert REVIEW_LABEL not in bead.labels
    for _ in range(2):
        ledger.hand_over(a, "worker/2")
        assert ledger.show(a).assignee == "worker/2"
    ledger.submit(a, "corpus sha256:01", actor="worker/2")
    assert ledger.show(a).labels == (REVIEW_LABEL, run)
    ledger.release(a, failed=False, actor=ME)
    assert ledger.show(a).labels == (run,)


def test_close_is_final_and_an_epic_waits_for_its_children(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    with pytest.raises(ConflictError, match="cannot close"):
        ledger.close(ids["epic"], "all children are complete", actor=ME)
    with pytest.raises(ConflictError, match="cannot close"):
        ledger.close(ids["b"], "before the one that it needs", actor=ME)
    ledger.claim(ids["a"], ME)
    ledger.submit(ids["a"], "evidence", actor=ME)
    for key in ("a", "b"):
        ledger.close(ids[key], f"{key} accepted, artifact found whole", actor=ME)
    assert ledger.show(ids["a"]).labels == tuple(sorted((LABEL, "gtft:a", run)))
    ledger.close(ids["epic"], "all children are complete", actor=ME)
    ledger.close(ids["epic"], "another reason that comes too late", actor=ME)
    assert ledger.show(ids["epic"]).close_reason == "all children are complete"
    for call in (
        lambda: ledger.claim(ids["a"], "worker/3"),
        lambda: ledger.release(ids["a"], failed=False, actor=ME),
        lambda: ledger.hand_over(ids["a"], ME),
        lambda: ledger.submit(ids["a"], "x", actor=ME),
        lambda: ledger.block(ids["a"], "x", actor=ME),
    ):
        with pytest.raises(ConflictError, match="closed"):
            call()


def test_a_reopened_bead_is_anybodys(ledger: Ledger, run: str) -> None:
    a = make_one(ledger, run).id
    ledger.claim(a, ME)
    ledger.reopen(a, "it is not even closed", actor=ME)
    assert (ledger.show(a).status, ledger.show(a).notes) == ("in_progress", ())
    ledger.close(a, "accepted by the machine, hash equal", actor=ME)
    for _ in range(2):
        ledger.reopen(a, "-- its artifact is gone", actor=ME)
        bead = ledger.show(a)
        assert (bead.status, bead.assignee, bead.close_reason) == ("open", None, None)
        assert bead.notes == ("-- its artifact is gone",)
    assert list_ready(ledger, run) == [a]


def test_a_blocked_bead_waits_until_it_is_released(ledger: Ledger, run: str) -> None:
    a = make_one(ledger, run).id
    for _ in range(2):
        ledger.block(a, "the base model is not here", actor=ME)
    assert ledger.show(a).status == "blocked"
    assert ledger.show(a).notes == ("the base model is not here",)
    assert list_ready(ledger, run) == []
    with pytest.raises(ConflictError, match="blocked"):
        ledger.claim(a, ME)
    ledger.release(a, failed=False, actor=ME)
    assert list_ready(ledger, run) == [a]


def test_a_need_makes_a_bead_wait(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    gate = make_one(ledger, run).id
    for _ in range(2):
        ledger.need(ids["a"], gate, actor=ME)
    assert ledger.show(ids["a"]).needs == (gate,)
    assert list_ready(ledger, run) == [gate]
    for bead, blocker in (
        (gate, ids["b"]),
        (gate, gate),
        (gate, ids["epic"]),
        (ids["epic"], gate),
        (gate, "tt-none"),
        ("tt-none", gate),
    ):
        with pytest.raises(ConflictError):
            ledger.need(bead, blocker, actor=ME)
    assert ledger.show(gate).needs == ()


def test_look_gives_what_there_is(ledger: Ledger, run: str) -> None:
    ids = ledger.create_graph(plan(run), actor=ME)
    # A part of an id, and no id at all, are nobody's.
    part = ids["epic"][:-2]
    seen = ledger.look([ids["b"], "tt-none", part, ids["a"], "--help", ids["a"]])
    assert seen == {i: ledger.show(i) for i in (ids["a"], ids["b"])}
    assert ledger.look([]) == ledger.look(["tt-none"]) == {}
    bare = ledger.look([ids["b"], "tt-none", part, ids["a"]], notes=False)
    assert {i: replace(b, notes=()) for i, b in bare.items()} == {
        i: replace(b, notes=()) for i, b in seen.items()
    }
    assert ledger.look(["tt-none"], notes=False) == {}


def test_notes_stay_in_order_and_are_kept_once(ledger: Ledger, run: str) -> None:
    a = make_one(ledger, run).id
    texts = [f"note {n}" for n in (3, 1, 2, 5, 4)]
    for text in texts:
        ledger.note(a, text, actor=ME)
    ledger.note(a, "note 2", actor=OTHER)
    assert ledger.show(a).notes == tuple(texts)
    assert ledger.find(label=run)[0].notes == tuple(texts)
    with pytest.raises(ConflictError, match="empty"):
        ledger.note(a, " \n", actor=ME)


ODD = [
    "--help",
    "-",
    "two\nlines\n",
    "\"quotes\" 'and' `ticks` $(date) ; rm \\ %s {id",
    "naïve 日本 😀\u202e\u00a0",
    "x" * 30_000,
    "@/etc/hostname",
    '{"json": true}',
]


def test_odd_text_comes_back_as_it_was(ledger: Ledger, run: str) -> None:
    beads = tuple(
        NewBead(
            key=str(n),
            title=f"{n}",
            description=text,
            acceptance=text,
            labels=(run,),
            metadata={"gtft.text": text},
        )
        for n, text in enumerate(ODD)
    )
    ledger.create_graph(beads, actor=ME)
    made = ledger.find(label=run)
    assert [b.description for b in made] == ODD
    assert [b.acceptance for b in made] == ODD
    assert [b.metadata["gtft.text"] for b in made] == ODD
    first = made[0].id
    for text in ODD:
        ledger.note(first, text, actor=ME)
    assert ledger.show(first).notes == tuple(ODD)
    reason = "-- \"a\" 'reason'\nof 😀 its own"
    ledger.close(first, reason, actor="-a 'b' \"c\" 😀")
    assert ledger.show(first).close_reason == reason


def test_a_title_is_one_line_of_500_bytes(ledger: Ledger, run: str) -> None:
    assert make_one(ledger, run, title="-t x\n  y\0").title == "-t x y"
    long = make_one(ledger, run + "b", title="é" * 400).title
    assert len(long.encode()) <= 500
    assert long == "é" * 248 + "…"


def test_metadata_is_text_also_when_it_looks_like_a_number(ledger: Ledger, run: str) -> None:
    odd = {"a": "123e4567", "b": "007", "c": "true", "d": "null", "e": "1.50", "f": "-0", "g": ""}
    made = make_one(ledger, run, metadata=odd)
    assert made.metadata == odd
    assert [b.id for b in ledger.find(label=run, metadata={"a": "123e4567"})] == [made.id]
    assert ledger.find(label=run, metadata={"a": "123e4568"}) == []


@pytest.mark.parametrize(
    "bead_id",
    ["", " ", "--help", "-x", "tt-1 tt-2", "../x", "tt-1;ls", "tt-" + "9" * 300, "tt_1\n"],
)
def test_what_is_no_id_is_nobodys_bead(ledger: Ledger, bead_id: str) -> None:
    for call in (
        lambda: ledger.show(bead_id),
        lambda: ledger.claim(bead_id, ME),
        lambda: ledger.close(bead_id, "a reason of some length", actor=ME),
        lambda: ledger.note(bead_id, "x", actor=ME),
    ):
        with pytest.raises(ConflictError, match="there is no bead"):
            call()


@pytest.mark.parametrize("actor", ["", " ", "a\nb", "x" * 300])
def test_a_name_that_nobody_has_is_refused(ledger: Ledger, run: str, actor: str) -> None:
    bead = make_one(ledger, run)
    for call in (
        lambda: ledger.claim(bead.id, actor),
        lambda: ledger.hand_over(bead.id, actor),
        lambda: ledger.note(bead.id, "x", actor=actor),
    ):
        with pytest.raises(ConflictError, match="actor"):
            call()
    assert ledger.show(bead.id) == bead


def test_a_bead_that_is_not_there_is_said(ledger: Ledger) -> None:
    for call in (
        lambda: ledger.show("tt-999"),
        lambda: ledger.claim("tt-999", "x"),
        lambda: ledger.hand_over("tt-999", "x"),
        lambda: ledger.close("tt-999", "a reason of some length", actor=ME),
        lambda: ledger.reopen("tt-999", "x", actor=ME),
        lambda: ledger.block("tt-999", "x", actor=ME),
        lambda: ledger.submit("tt-999", "x", actor=ME),
        lambda: ledger.release("tt-999", failed=False, actor=ME),
        lambda: ledger.note("tt-999", "x", actor=ME),
    ):
        with pytest.raises(ConflictError, match="tt-999"):
            call()


def test_a_damaged_embedded_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "beads.db").write_bytes(b"this is no database " * 500)
    with pytest.raises(InputError, match="cannot be used"):
        make_local(tmp_path)
