"""The `Store`. The same tests run on every engine there is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gtft.contract import STAGES
from gtft.errors import ConflictError, InputError
from gtft.records.rows import ArtifactRow, Change, Message, ModelRow, Run, StageRow
from gtft.records.store import Store, open_sqlite

MakeStore = Callable[[Path, list[float]], Store]


def make_sqlite(path: Path, clock: list[float]) -> Store:
    store = Store(open_sqlite(path / "s.db"), lambda: clock[0])
    store.migrate()
    return store


@pytest.fixture(params=[make_sqlite], ids=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: list[float]) -> Store:
    made: Store = request.param(tmp_path, clock)
    return made


def add_run(store: Store, run_id: str = "run-1") -> Run:
    run = Run(
        run_id,
        "mol-x",
        "sha256:r",
        {"recipe": {"a": 1}},
        "witness",
        None,
        "me",
        "/town",
        "run",
        store.now_us(),
    )
    rows = tuple(
        StageRow(
            run_id,
            s,
            n,
            None,
            "ready",
            None,
            "",
            None,
            None,
            0,
            None,
            None,
            None,
            None,
            store.now_us(),
        )
        for n, s in enumerate(STAGES)
    )
    store.add_run(run, rows)
    store.set_beads(run_id, f"tt-{run_id}", {s: f"{run_id}.{n}" for n, s in enumerate(STAGES)})
    return run


def claim(store: Store, run_id: str, stage: str, token: str = "t1") -> StageRow | None:
    row = store.find_stage(run_id, stage)
    return store.claim(row, "worker", token, store.now_us() + 60_000_000, "attempt 1")


def test_migrate_twice_is_once_and_a_newer_store_is_refused(store: Store, tmp_path: Path) -> None:
    assert store.migrate() == store.migrate()
    import sqlite3

    with sqlite3.connect(tmp_path / "s.db") as c:
        c.execute("INSERT INTO gtft_schema VALUES (99, 0)")
    with pytest.raises(InputError, match="schema 99"):
        store.migrate()


def test_a_run_comes_back_as_it_went_in(store: Store) -> None:
    run = add_run(store)
    seen = store.find_run("run-1")
    assert seen == replace(run, epic_bead="tt-run-1")
    assert [s.stage for s in store.list_stages("run-1")] == list(STAGES)
    assert [e.kind for e in store.list_events("run-1")] == ["dispatched"]
    with pytest.raises(ConflictError):
        add_run(store)


def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one(store: Store) -> None:
    add_run(store, "run-aa")
    add_run(store, "run-ab")
    assert store.find_run("run-aa") is not None
    assert store.find_run("run-a") is None
    assert store.find_run("run-%") is None


def test_only_the_first_stage_is_claimable_until_it_is_accepted(store: Store) -> None:
    add_run(store)
    assert [s.stage for s in store.list_claimable()] == ["harvest"]
    assert claim(store, "run-1", "harvest")
    assert store.list_claimable() == []
    store.change("run-1", "harvest", Change("active", "review", None, "w", ""), token="t1")
    assert store.list_claimable() == []
    store.change("run-1", "harvest", Change("review", "done", None, "gtft", ""))
    assert [s.stage for s in store.list_claimable()] == ["train"]


def test_a_run_that_is_paused_or_held_is_not_claimable(store: Store) -> None:
    add_run(store)
    store.set_desired("run-1", "pause", "me")
    assert store.list_claimable() == []
    store.set_desired("run-1", "run", "me")
    assert claim(store, "run-1", "harvest")
    store.change("run-1", "harvest", Change("active", "ready", "failed", "w", "why"), token="t1")
    assert store.list_claimable() == []
    store.change("run-1", "harvest", Change("ready", "ready", None, "me", "resumed"))
    assert len(store.list_claimable()) == 1


def test_a_claim_is_won_once_and_a_stale_view_loses(store: Store) -> None:
    add_run(store)
    stale = store.find_stage("run-1", "harvest")
    won = store.claim(stale, "one", "t1", store.now_us() + 1, "attempt 1")
    assert won is not None and won.worker == "one" and won.attempt == 1
    assert store.claim(stale, "two", "t2", store.now_us() + 1, "attempt 1") is None
    assert store.find_stage("run-1", "harvest").token == "t1"


def test_take_over_ends_the_old_lease(store: Store, clock: list[float]) -> None:
    add_run(store)
    assert claim(store, "run-1", "harvest", "old")
    clock[0] += 100
    seen = store.find_stage("run-1", "harvest")
    taken = store.claim(seen, "two", "new", store.now_us() + 1, "lapsed")
    assert taken is not None and taken.reason == "expired" and taken.attempt == 2
    assert not store.renew("run-1", "harvest", "old", store.now_us())
    assert store.renew("run-1", "harvest", "new", store.now_us())
    with pytest.raises(ConflictError):
        store.change("run-1", "harvest", Change("active", "review", None, "one", ""), token="old")


def test_a_change_is_all_or_nothing(store: Store) -> None:
    add_run(store)
    messages = (Message("ledger", {"op": "note"}),)
    with pytest.raises(ConflictError):
        store.change("run-1", "harvest", Change("active", "review", None, "w", "", messages))
    assert store.list_messages(pending=True) == []
    assert [e.kind for e in store.list_events("run-1")] == ["dispatched"]


def test_artifacts_lineage_and_models(store: Store) -> None:
    add_run(store)
    claim(store, "run-1", "harvest")
    row = ArtifactRow("sha256:c", "corpus", "artifacts/c", {"examples": 3}, store.now_us())
    store.change(
        "run-1",
        "harvest",
        Change("active", "review", None, "w", ""),
        token="t1",
        artifact=row,
        parents=("sha256:p", "sha256:p"),
    )
    assert store.find_artifact("sha256:c") == row
    assert store.list_parents("sha256:c") == ["sha256:p"]
    assert store.find_stage("run-1", "harvest").artifact_id == "sha256:c"
    model = ModelRow(
        "sha256:m",
        "witness-x",
        "witness",
        0,
        "approved",
        "run-1",
        "c",
        "a",
        "e",
        "k",
        store.now_us(),
    )
    store.change("run-1", "harvest", Change("review", "done", None, "gtft", ""), model=model)
    assert [(m.name, m.version) for m in store.list_models()] == [("witness-x", 1)]


def test_messages_go_out_in_order_of_their_run_and_are_retried(
    store: Store, clock: list[float]
) -> None:
    for run_id in ("run-1", "run-2"):
        add_run(store, run_id)
        claim(store, run_id, "harvest")
        sent = tuple(Message("notice", {"n": n}) for n in (1, 2))
        store.change(run_id, "harvest", Change("active", "review", None, "w", "", sent), token="t1")
    lease = store.now_us() + 1_000_000
    first = store.take_message("a", lease)
    assert first is not None and (first.run_id, first.payload) == ("run-1", {"n": 1})
    other = store.take_message("b", lease)
    assert other is not None and (other.run_id, other.payload) == ("run-2", {"n": 1})
    assert store.take_message("c", lease) is None
    store.settle_message(first, "a", "the ledger is away")
    clock[0] += 10
    again = store.take_message("a", store.now_us() + 1)
    assert again is not None and again.payload == {"n": 1} and again.tries == 1
    assert again.last_error == "the ledger is away"
    store.settle_message(again, "a", None)
    second = store.take_message("a", store.now_us() + 1)
    assert second is not None and second.payload == {"n": 2}
