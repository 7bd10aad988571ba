"""The `Store`. The same tests run on SQLite and on a real Dolt server."""

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gtft.contract import STAGES
from gtft.errors import ConflictError, InputError
from gtft.records.migrations import MIGRATIONS
from gtft.records.rows import ArtifactRow, Change, Message, ModelRow
from gtft.records.store import Store, open_sqlite
from store_case import add_run, claim, make_database, open_store


@pytest.fixture(params=["sqlite", "dolt"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: list[float]) -> Store:
    if request.param == "dolt":
        target = make_database(request.getfixturevalue("dolt_server"))
        return open_store(target, lambda: clock[0])
    made = Store(open_sqlite(tmp_path / "s.db"), lambda: clock[0])
    made.migrate()
    return made


def test_migrate_twice_is_once_and_a_newer_store_is_refused(store: Store) -> None:
    assert store.migrate() == store.migrate() == len(MIGRATIONS)
    with store.units.engine.connect() as c, c.begin():
        c.execute(sa.text("INSERT INTO gtft_schema VALUES (99, 0)"))
    with pytest.raises(InputError, match="schema 99"):
        store.migrate()


def test_a_store_of_the_first_schema_is_brought_up_to_date(store: Store) -> None:
    with store.units.engine.connect() as c, c.begin():
        c.execute(sa.text("ALTER TABLE gtft_events DROP COLUMN unit"))
        c.execute(sa.text("DELETE FROM gtft_schema WHERE version > 1"))
        sql = "INSERT INTO gtft_events VALUES ('run-0', 1, NULL, 'note', 'me', 'old', 1)"
        c.execute(sa.text(sql))
    assert store.migrate() == len(MIGRATIONS)
    add_run(store)
    assert [e.text for e in store.list_events("run-0")] == ["old"]
    assert [e.kind for e in store.list_events("run-1")] == ["dispatched"]


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


def test_a_message_is_given_again_to_the_token_that_took_it(store: Store) -> None:
    add_run(store)
    claim(store, "run-1", "harvest")
    sent = (Message("notice", {"n": 1}),)
    store.change("run-1", "harvest", Change("active", "review", None, "w", "", sent), token="t1")
    lease = store.now_us() + 1_000_000
    first = store.take_message("a", lease)
    assert first is not None and store.take_message("a", lease) == first
    store.settle_message(first, "a", "away")
    # Given back: it waits for its lease to end, for this token too.
    assert store.take_message("a", lease) is None
    store.settle_message(first, "b", None)
    assert len(store.list_messages(pending=True)) == 1


def test_long_and_odd_text_comes_back_as_it_went_in(store: Store) -> None:
    odd = "naïve 🙂 %s :x \\ 'quoted' \"twice\" -- \x00\n" + "x" * 300_000
    run = replace(add_run(store, "run-a"), id="run-b", recipe={"recipe": {"text": odd}})
    store.add_run(run, tuple(replace(s, run_id="run-b") for s in store.list_stages("run-a")))
    seen = store.find_run("run-b")
    assert seen is not None and seen.recipe == run.recipe
    store.add_event("run-b", None, "note", "me", odd)
    assert store.list_events("run-b")[-1].text == odd


def test_names_differ_by_case_and_by_accent(store: Store) -> None:
    add_run(store, "run-a")
    add_run(store, "run-A")
    add_run(store, "run-á")
    assert [r.id for r in store.list_runs()] == ["run-A", "run-a", "run-á"]
    assert store.find_run("RUN-a") is None
    assert len(store.list_stages("run-A")) == 4


def test_rows_are_plain_values(store: Store) -> None:
    add_run(store)
    row = claim(store, "run-1", "harvest")
    assert row is not None
    assert {type(x) for x in row.__dict__.values()} == {int, str, type(None)}
    run = store.find_run("run-1")
    assert run is not None and type(run.created_us) is int
    assert [type(e.seq) for e in store.list_events("run-1")] == [int, int]
