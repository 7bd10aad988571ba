"""What is Dolt's own in the store: the right database, versions, retries, a server that goes away."""

import multiprocessing as mp
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from gtft.errors import TownError, UsageError
from gtft.records.dolt import Target, check_target, open_dolt, read_url
from gtft.records.history import list_versions, read_stages_at, was_flattened
from gtft.records.migrations import MIGRATIONS
from gtft.records.rows import Change, Message, ModelRow
from gtft.records.store import Store
from gtft.records.tables import metadata
from gtft.records.unit import Unit, Units
from store_case import add_run, claim, make_database, make_target, open_store, query
from town_case import DoltServer, find_port, make_beads, make_server, need_tools


@pytest.fixture
def target(dolt_server: DoltServer) -> Target:
    return make_database(dolt_server)


@pytest.fixture
def beads(dolt_server: DoltServer, tmp_path: Path) -> Target:
    """A rig's own bead database."""
    return make_rig(dolt_server, tmp_path)


def make_rig(server: DoltServer, folder: Path) -> Target:
    need_tools("bd")
    prefix = f"r{folder.stat().st_ino % 1_000_000}"
    make_beads(folder / "rig", server, prefix)
    [(project,)] = server.query("SELECT value FROM metadata WHERE `key` = '_project_id'", prefix)
    return make_target(server, prefix, str(project))


def flatten(target: Target) -> None:
    """As gt's compactor does it."""
    root = query(target, "SELECT commit_hash FROM dolt_log ORDER BY commit_order LIMIT 1")[0][0]
    query(target, f"CALL DOLT_RESET('--soft', '{root}')")
    query(target, "CALL DOLT_COMMIT('-Am', 'compaction: flatten history to single commit')")


# -- the right database


def test_the_bead_database_of_the_rig_is_accepted(beads: Target) -> None:
    check_target(open_dolt(beads), beads)
    check_target(open_dolt(beads), replace(beads, project_id=""))


def test_another_database_is_refused(beads: Target, target: Target) -> None:
    with pytest.raises(TownError, match="not a bead database"):
        check_target(open_dolt(target), target)
    other = replace(beads, project_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(TownError, match="project id"):
        check_target(open_dolt(other), other)
    nowhere = replace(beads, database="nowhere")
    with pytest.raises(TownError, match="no such database"):
        check_target(open_dolt(nowhere), nowhere)
    with pytest.raises(TownError, match="no Dolt database"):
        check_target(open_dolt(beads), replace(beads, database=""))
    query(beads, "CALL DOLT_BRANCH('other')")
    branch = replace(beads, database=f"{beads.database}/other")
    with pytest.raises(TownError, match="branch 'other', not main"):
        check_target(open_dolt(branch), branch)
    with pytest.raises(TownError, match="the server opened"):
        check_target(open_dolt(branch), beads)


def test_a_server_that_is_away_is_waited_for_and_then_named() -> None:
    target = Target("127.0.0.1", find_port(), "root", "", "rig", "")
    began = time.monotonic()
    with pytest.raises(TownError, match="does not answer") as e:
        check_target(open_dolt(target), target, patience=1.0)
    assert 1.0 <= time.monotonic() - began < 5.0
    assert "gt dolt status" in e.value.fix


def test_the_address_of_a_store_opens_it_again_and_holds_no_password(target: Target) -> None:
    store = open_store(target)
    add_run(store)
    again = Store(open_dolt(read_url(store.url, "")), time.time)
    assert [r.id for r in again.list_runs()] == ["run-1"]
    secret = open_dolt(replace(target, password="made-up-word"))
    assert "made-up-word" not in Store(secret, time.time).url
    assert read_url(Store(secret, time.time).url, "made-up-word").password == "made-up-word"


# -- tables and versions


def migrate_once(target: Target, start: "mp.synchronize.Event", out: "mp.Queue[object]") -> None:
    store = Store(open_dolt(target), time.time)
    start.wait()
    try:
        out.put(store.migrate())
    except TownError as e:
        out.put(str(e))


def test_eight_first_opens_at_once_make_the_tables_once(target: Target) -> None:
    context = mp.get_context("spawn")
    start, out = context.Event(), context.Queue()
    people = [context.Process(target=migrate_once, args=(target, start, out)) for _ in range(8)]
    for p in people:
        p.start()
    start.set()
    assert [out.get(timeout=60) for _ in people] == [len(MIGRATIONS)] * 8
    for p in people:
        p.join(timeout=30)
    assert query(target, "SELECT version FROM gtft_schema ORDER BY version") == [
        (n,) for n in range(1, len(MIGRATIONS) + 1)
    ]
    assert query(target, "SELECT table_name FROM dolt_status") == []
    made = f"SELECT * FROM dolt_log WHERE message = 'gtft: schema {len(MIGRATIONS)}'"
    assert len(query(target, made)) == 1


def test_a_move_is_a_version_that_names_it_and_holds_our_tables_only(beads: Target) -> None:
    store = open_store(beads)
    add_run(store)
    # Somebody else's pending change in the same database stays pending.
    query(beads, "INSERT INTO config VALUES ('left.pending', '1')")
    row = store.find_stage("run-1", "harvest")
    lease = store.now_us() + 60_000_000
    assert store.claim(row, "rig/polecats/nux <x>\n", "t1", lease, "attempt 1")
    before = len(list_versions(store, "run-1"))
    assert store.renew("run-1", "harvest", "t1", lease + 1)
    store.add_event("run-1", "harvest", "note", "nux", "no version of its own")
    assert len(list_versions(store, "run-1")) == before
    sent = (Message("notice", {"n": 1}),)
    change = Change("active", "ready", "paused", "nux", "stopped", sent)
    store.change("run-1", "harvest", change, token="t1")
    taken = store.take_message("m", lease)
    assert taken is not None
    store.settle_message(taken, "m", None)
    versions = list_versions(store, "run-1")
    assert [v.message for v in reversed(versions)] == [
        "gtft run-1: dispatched mol-x (me)",
        "gtft run-1: harvest ready → active (rig/polecats/nux <x> )",
        "gtft run-1: harvest active → ready, paused (nux)",
    ]
    assert [v.author for v in versions] == ["nux", "rig/polecats/nux x", "me"]
    for v in versions:
        held = query(beads, "SELECT table_name FROM dolt_diff WHERE commit_hash = %s", v.hash)
        assert held and {x for (x,) in held} <= set(metadata.tables)
    assert ("left.pending", "1") in query(beads, "SELECT * FROM config")
    pending = {x for (x,) in query(beads, "SELECT table_name FROM dolt_status")}
    assert "config" in pending


def test_a_version_that_fails_loses_nothing(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(target)
    query(target, "DROP TABLE gtft_lineage")
    query(target, "CALL DOLT_COMMIT('-Am', 'lineage gone')")
    add_run(store)
    assert [e.kind for e in store.list_events("run-1")] == ["dispatched"]
    assert "rides on the next" in caplog.text


# -- history


def test_the_stages_of_a_run_as_they_were(target: Target) -> None:
    store = open_store(target)
    add_run(store)
    claim(store, "run-1", "harvest")
    at_claim = list_versions(store, "run-1")[0]
    store.change("run-1", "harvest", Change("active", "review", None, "w", ""), token="t1")
    seen = read_stages_at(store, "run-1", at_claim.hash)
    assert seen is not None
    assert (seen[0].stage, seen[0].state) == ("harvest", "active")
    now = read_stages_at(store, "run-1", "main")
    assert now is not None and now[0].state == "review"
    time.sleep(1.1)
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    store.change("run-1", "harvest", Change("review", "done", None, "gtft", ""))
    then = read_stages_at(store, "run-1", later)
    assert then is not None and then[0].state == "review"
    assert read_stages_at(store, "run-1", "2001-01-01T00:00:00") is None
    assert read_stages_at(store, "run-1", "0" * 32) is None


@pytest.mark.parametrize("ref", ["a'; DROP TABLE gtft_runs; --", "x y", "", "%s"])
def test_a_reference_that_is_none_is_refused(target: Target, ref: str) -> None:
    store = open_store(target)
    with pytest.raises(UsageError):
        read_stages_at(store, "run-1", ref)


def test_a_flattened_history_does_no_harm_and_is_named(beads: Target) -> None:
    store = open_store(beads)
    add_run(store)
    claim(store, "run-1", "harvest")
    old = list_versions(store, "run-1")[0]
    assert not was_flattened(store, "run-1")
    flatten(beads)
    # What gt does next; until then the old commits can still be read by their hash.
    query(beads, "CALL DOLT_GC()")
    assert was_flattened(store, "run-1")
    assert read_stages_at(store, "run-1", old.hash) is None
    store.change("run-1", "harvest", Change("active", "review", None, "w", ""), token="t1")
    assert [v.message for v in list_versions(store, "run-1")] == [
        "gtft run-1: harvest active → review (w)"
    ]
    assert [e.kind for e in store.list_events("run-1")] == ["dispatched", "claimed", "review"]
    # A run that began afterwards has all of its history.
    add_run(store, "run-2")
    assert not was_flattened(store, "run-2")


# -- other writers, and a server that goes away


def test_an_open_transaction_is_one(target: Target) -> None:
    """Dolt's greeting hides that autocommit is on; were it on, a unit that fails would be half done."""
    store = open_store(target)
    add_run(store)

    def fail(u: Unit) -> None:
        u.c.exec_driver_sql("UPDATE gtft_runs SET desired = 'cancel'")
        raise KeyError("stop")

    with pytest.raises(KeyError):
        store.units.run(fail)
    run = store.find_run("run-1")
    assert run is not None and run.desired == "run"


def test_a_unit_that_lost_is_run_again_from_a_fresh_read(target: Target) -> None:
    store = open_store(target)
    add_run(store)
    seen: list[str] = []

    def slow(u: Unit) -> None:
        sql = "SELECT desired FROM gtft_runs WHERE id = 'run-1'"
        seen.append(str(u.c.exec_driver_sql(sql).scalar()))
        if len(seen) == 1:
            store.set_desired("run-1", "pause", "somebody")
        u.c.exec_driver_sql("UPDATE gtft_runs SET desired = 'cancel' WHERE id = 'run-1'")

    store.units.run(slow)
    assert seen == ["run", "pause"]


def test_a_commit_whose_answer_is_lost_is_not_done_twice(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(target)
    lost: list[bool] = []
    real = pymysql.connections.Connection.commit

    def commit(self: pymysql.connections.Connection) -> None:
        real(self)
        if lost and lost.pop():
            raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")

    monkeypatch.setattr(pymysql.connections.Connection, "commit", commit)

    def losing(call: Callable[[], object]) -> object:
        lost.append(True)
        out = call()
        assert not lost
        return out

    losing(lambda: add_run(store))
    row = losing(lambda: claim(store, "run-1", "harvest"))
    assert row is not None
    messages = (Message("notice", {"n": 1}),)
    change = Change("active", "review", None, "w", "", messages)
    losing(lambda: store.change("run-1", "harvest", change, token="t1"))
    losing(lambda: store.set_desired("run-1", "pause", "me"))
    losing(lambda: store.add_event("run-1", None, "note", "me", "x"))
    first = losing(lambda: store.take_message("m", store.now_us() + 60_000_000))
    assert first is not None
    assert [e.kind for e in store.list_events("run-1")] == [
        "dispatched",
        "claimed",
        "review",
        "asked:pause",
        "note",
    ]
    assert len(store.list_messages(pending=True)) == 1
    assert store.list_messages(pending=True)[0].tries == 1


def test_connections_that_are_cut_when_idle_do_no_harm(
    dolt_server: DoltServer, target: Target
) -> None:
    store = open_store(target)
    add_run(store)
    dolt_server.query("SET GLOBAL wait_timeout = 1")
    try:
        for n in range(3):
            time.sleep(1.5)
            store.add_event("run-1", None, "note", "me", str(n))
    finally:
        dolt_server.query("SET GLOBAL wait_timeout = 30")
    assert [e.text for e in store.list_events("run-1")][1:] == ["0", "1", "2"]
    # A connection that a slow step holds against the rules: the unit is run again.
    naps = iter((2.0, 0.0))
    dolt_server.query("SET GLOBAL wait_timeout = 1")
    try:

        def nap(u: Unit) -> int:
            u.c.exec_driver_sql("SELECT 1").all()
            time.sleep(next(naps))
            return len(u.c.exec_driver_sql("SELECT * FROM gtft_events").all())

        assert Units(store.units.engine, 5.0).run(nap) == 4
    finally:
        dolt_server.query("SET GLOBAL wait_timeout = 30")


def test_registrations_at_once_of_one_model_get_versions_of_their_own(target: Target) -> None:
    store = open_store(target)
    start = threading.Barrier(4)
    for n in range(4):
        add_run(store, f"run-{n}")

    def register(n: int) -> None:
        rest = ("c", "a", "e", "k", store.now_us())
        model = ModelRow(f"m{n}", "witness-x", "witness", 0, "approved", f"run-{n}", *rest)
        claim(store, f"run-{n}", "harvest", f"t{n}")
        start.wait()
        change = Change("active", "review", None, "w", "")
        store.change(f"run-{n}", "harvest", change, token=f"t{n}", model=model)

    people = [threading.Thread(target=register, args=(n,)) for n in range(4)]
    for p in people:
        p.start()
    for p in people:
        p.join(60)
    assert sorted(m.version for m in store.list_models()) == [1, 2, 3, 4]


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[DoltServer]:
    need_tools("dolt")
    server = make_server(tmp_path / "dolt")
    yield server
    server.stop()


def write_notes(
    target: Target, name: str, stop: "mp.synchronize.Event", out: "mp.Queue[int]"
) -> None:
    store = Store(open_dolt(target), time.time, patience=60.0)
    n = 0
    while not stop.is_set():
        store.add_event("run-1", None, "note", name, str(n))
        store.set_desired("run-1", "pause" if n % 2 else "run", name, str(n))
        n += 1
    out.put(n)


def test_a_server_killed_while_writers_write_loses_nothing_and_repeats_nothing(
    own_server: DoltServer,
) -> None:
    target = make_database(own_server)
    store = open_store(target, patience=60.0)
    add_run(store)
    context = mp.get_context("spawn")
    stop, out = context.Event(), context.Queue()
    names = [f"w{n}" for n in range(3)]
    people = [context.Process(target=write_notes, args=(target, n, stop, out)) for n in names]
    for p in people:
        p.start()
    for _ in range(3):
        seen = len(store.list_events("run-1"))
        end = time.monotonic() + 30
        while len(store.list_events("run-1")) < seen + 10:
            assert time.monotonic() < end
        own_server.stop(kill=True)
        own_server.start()
    stop.set()
    written = [out.get(timeout=90) for _ in people]
    for p in people:
        p.join(timeout=30)
    events = store.list_events("run-1")
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    counts = Counter(
        (e.actor, e.kind.split(":")[0], e.text) for e in events if e.kind != "dispatched"
    )
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * sum(written)
    assert min(written) > 0
