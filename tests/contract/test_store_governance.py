"""Consents and withdrawals in the store. The same tests run on SQLite and on a real Dolt server."""

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gtft.records.governance import Governance, make_withdrawal_id
from gtft.records.history import list_versions
from gtft.records.migrations import MIGRATIONS
from gtft.records.rows import ArtifactRow, Change, ConsentRow, ModelRow, WithdrawalRow
from gtft.records.store import Store, open_sqlite
from gtft.records.transfer import add_rows, read_rows
from store_case import add_run, claim, make_database, open_store


@pytest.fixture(params=["sqlite", "dolt"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: list[float]) -> Store:
    if request.param == "dolt":
        target = make_database(request.getfixturevalue("dolt_server"))
        return open_store(target, lambda: clock[0])
    made = Store(open_sqlite(tmp_path / "s.db"), lambda: clock[0])
    made.migrate()
    return made


def make_consent(store: Store, n: int = 1, rig: str = "harbor") -> ConsentRow:
    return ConsentRow(f"c{n}", rig, "2027-01-31", "witness", "ann", "mayor", store.now_us())


def make_withdrawal(store: Store, who: str = "s1", *touched: str) -> WithdrawalRow:
    return WithdrawalRow(
        make_withdrawal_id("session", who),
        "session",
        who,
        "asked to",
        "ann",
        touched,
        store.now_us(),
    )


def test_a_consent_comes_back_and_is_written_once(store: Store, clock: list[float]) -> None:
    room = Governance(store)
    row = make_consent(store)
    room.add_consent(row)
    room.add_consent(row)
    clock[0] += 1
    later = replace(make_consent(store, 2), until="", purpose="")
    room.add_consent(later)
    assert room.list_consents() == [row, later]


def test_a_revoked_consent_stands_no_more_and_is_kept(store: Store, clock: list[float]) -> None:
    room = Governance(store)
    for n, rig in enumerate(("harbor", "harbor", "lantern")):
        room.add_consent(make_consent(store, n, rig))
    clock[0] += 5
    room.revoke_consents("harbor", "harbor/crew/ann")
    assert [c.rig for c in room.list_consents(standing=True)] == ["lantern"]
    revoked = [c for c in room.list_consents() if c.revoked_us]
    assert {(c.rig, c.revoked_by, c.revoked_us) for c in revoked} == {
        ("harbor", "harbor/crew/ann", store.now_us())
    }
    clock[0] += 5
    room.revoke_consents("harbor", "mayor")
    assert {c.revoked_by for c in room.list_consents()} == {"harbor/crew/ann", None}
    room.add_consent(make_consent(store, 9))
    assert len(room.list_consents(standing=True)) == 2


def test_a_withdrawal_stands_once_and_what_it_touched_grows(store: Store) -> None:
    room = Governance(store)
    assert room.add_withdrawal(make_withdrawal(store, "s1", "sha256:b"))
    assert not room.add_withdrawal(replace(make_withdrawal(store, "s1", "sha256:a"), actor="bob"))
    assert room.add_withdrawal(make_withdrawal(store, "s2"))
    first, second = sorted(room.list_withdrawals(), key=lambda w: w.who)
    assert (first.who, first.actor, first.touched) == ("s1", "ann", ("sha256:a", "sha256:b"))
    assert second.touched == ()


def test_odd_names_come_back_as_they_went_in(store: Store) -> None:
    odd = "näive/'crew'/%s \\ 🙂"
    Governance(store).add_withdrawal(make_withdrawal(store, odd))
    assert [w.who for w in Governance(store).list_withdrawals()] == [odd]


def register(store: Store, stage: str, row: ArtifactRow, *parents: str, model: str = "") -> None:
    """A run of which only one stage is done, with what it made."""
    run_id = f"run-{row.id[-1]}"
    add_run(store, run_id)
    claim(store, run_id, stage)
    made = (
        ModelRow(row.id, model, "witness", 0, "approved", run_id, parents[0], row.id, "e", "k", 1)
        if model
        else None
    )
    store.change(
        run_id,
        stage,
        Change("active", "review", None, "w", ""),
        token="t1",
        artifact=row,
        parents=parents,
        model=made,
    )


def test_what_was_made_from_a_corpus_is_found_over_any_number_of_steps(store: Store) -> None:
    def make(kind: str, name: str) -> ArtifactRow:
        return ArtifactRow(f"sha256:{name}", kind, f"artifacts/{name}", {"n": 1}, store.now_us())

    register(store, "harvest", make("adapter", "1"), "sha256:c", model="witness-1")
    register(store, "harvest", make("adapter", "2"), "sha256:1")
    register(store, "harvest", make("eval", "3"), "sha256:1", "sha256:c")
    register(store, "harvest", make("adapter", "4"), "sha256:other", model="witness-4")
    adapters, models = Governance(store).list_made_from(["sha256:c"])
    assert {a.id for a in adapters} == {"sha256:1", "sha256:2"}
    assert [m.name for m in models] == ["witness-1"]
    assert Governance(store).list_made_from([]) == ([], [])
    assert Governance(store).list_made_from(["sha256:none"]) == ([], [])


def test_a_store_of_the_second_schema_gets_the_tables(store: Store) -> None:
    with store.units.engine.connect() as c, c.begin():
        c.execute(sa.text("DROP TABLE gtft_consents"))
        c.execute(sa.text("DROP TABLE gtft_withdrawals"))
        c.execute(sa.text("DELETE FROM gtft_schema WHERE version >= 3"))
    assert store.migrate() == len(MIGRATIONS)
    Governance(store).add_consent(make_consent(store))
    assert len(Governance(store).list_consents()) == 1


def test_a_move_takes_them_along(store: Store, tmp_path: Path) -> None:
    old = Store(open_sqlite(tmp_path / "old.db"), lambda: 5.0)
    old.migrate()
    Governance(old).add_consent(make_consent(old))
    Governance(old).add_withdrawal(make_withdrawal(old))
    rows = old.units.run(read_rows)
    for _ in range(2):
        store.units.run(lambda u: add_rows(u, rows, keep=False, message="moved", actor="me"))
    assert Governance(store).list_consents() == Governance(old).list_consents()
    assert Governance(store).list_withdrawals() == Governance(old).list_withdrawals()


def test_each_change_is_a_version_that_names_nobody(store: Store) -> None:
    room = Governance(store)
    room.add_consent(make_consent(store))
    room.add_withdrawal(make_withdrawal(store, "hmac:00ff"))
    room.revoke_consents("harbor", "mayor")
    if store.units.is_dolt:
        query = "SELECT message FROM dolt_log ORDER BY commit_order"
        with store.units.engine.connect() as c:
            said = [r[0] for r in c.exec_driver_sql(query).all()]
        assert said[-3:] == [
            "gtft: consent of rig harbor (mayor)",
            f"gtft: withdrawal {make_withdrawal_id('session', 'hmac:00ff')} of one session (ann)",
            "gtft: consent of rig harbor revoked (mayor)",
        ]
    assert list_versions(store, "run-1") == []
