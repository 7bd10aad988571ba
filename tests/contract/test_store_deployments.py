"""Aliases, statuses, exports, deployments and incidents. The same tests run on SQLite and on a real Dolt server."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from gtft.errors import ConflictError
from gtft.records.deployments import STATUSES, Deployments
from gtft.records.history import list_versions
from gtft.records.migrations import MIGRATIONS
from gtft.records.rows import (
    AliasRow,
    ArtifactRow,
    Change,
    DeploymentRow,
    IncidentRow,
    Message,
    ModelRow,
)
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


def register(store: Store, n: int, role: str = "witness", status: str = "approved") -> ModelRow:
    """A model of a run of its own, as the runner registers one."""
    run_id, adapter = f"run-{role}-{n}", f"sha256:{role}{n}"
    add_run(store, run_id)
    claim(store, run_id, "card")
    row = ModelRow(
        adapter, f"{role}-{n}", role, 0, status, run_id, "sha256:c", adapter, "e", "k",
        store.now_us(),
    )  # fmt: skip
    card = ArtifactRow(f"sha256:k{role}{n}", "card", "artifacts/k", {}, store.now_us())
    move = Change("active", "review", None, "w", "")
    store.change(run_id, "card", move, token="t1", artifact=card, model=row)
    return look(store, row)


def look(store: Store, model: ModelRow) -> ModelRow:
    return next(m for m in store.list_models() if m.id == model.id)


def make_deployment(store: Store, model: ModelRow, n: int = 1, mode: str = "live") -> DeploymentRow:
    now = store.now_us()
    return DeploymentRow(
        f"d{n}", model.id, model.role, "", mode, "preparing", None, "", "mayor", {"agent": "a"}, {},
        now, now,
    )  # fmt: skip


def kinds(store: Store, model: ModelRow) -> list[str]:
    return [e.kind for e in store.list_events(model.run_id)]


# -- versions and statuses


def test_versions_count_within_a_role(store: Store) -> None:
    made = [register(store, 1), register(store, 2), register(store, 1, "mayor")]
    assert [(m.role, m.version) for m in made] == [("witness", 1), ("witness", 2), ("mayor", 1)]


@pytest.mark.parametrize("frm", sorted(STATUSES))
def test_a_status_moves_as_the_table_says_and_no_other_way(store: Store, frm: str) -> None:
    rows = Deployments(store)
    for n, to in enumerate(sorted(STATUSES), 1):
        model = register(store, n, status=frm)
        if to == frm or to in STATUSES[frm]:
            rows.set_status(model, to, actor="me", text="why")
            assert look(store, model).status == to
        else:
            with pytest.raises(ConflictError, match=f"cannot become {to}"):
                rows.set_status(model, to, actor="me", text="why")
            assert look(store, model).status == frm


def test_a_status_that_somebody_else_moved_is_not_moved_again(store: Store) -> None:
    model = register(store, 1)
    rows = Deployments(store)
    rows.set_status(model, "archived", actor="ann", text="")
    with pytest.raises(ConflictError, match="no longer approved"):
        rows.set_status(model, "superseded", actor="bob", text="")
    assert kinds(store, model)[-1] == "model:archived"


# -- aliases


def test_an_alias_moves_and_tells_what_it_meant_before(store: Store, clock: list[float]) -> None:
    rows = Deployments(store)
    first, second = register(store, 1), register(store, 2)
    assert rows.set_alias("w@stable", first, actor="ann") is None
    clock[0] += 1
    assert rows.set_alias("w@stable", second, actor="bob", pin="audit") == first.id
    assert rows.list_aliases() == [AliasRow("w@stable", second.id, "audit", "bob", store.now_us())]
    assert kinds(store, second)[-1] == "model:alias"


def test_an_alias_is_dropped_only_where_it_points(store: Store) -> None:
    rows = Deployments(store)
    first, second = register(store, 1), register(store, 2)
    rows.set_alias("w@stable", first, actor="ann")
    (old,) = rows.list_aliases()
    rows.set_alias("w@stable", second, actor="bob")
    assert not rows.drop_alias(old, first, actor="ann")
    (now,) = rows.list_aliases()
    assert rows.drop_alias(now, second, actor="ann")
    assert not rows.drop_alias(now, second, actor="ann")
    assert rows.list_aliases() == []
    assert kinds(store, second)[-1] == "model:alias-dropped"


def test_two_who_move_one_alias_leave_one_whole_row(store: Store) -> None:
    rows = Deployments(store)
    models = [register(store, n) for n in range(1, 5)]
    with ThreadPoolExecutor(len(models)) as pool:
        told = list(pool.map(lambda m: rows.set_alias("w@stable", m, actor="ann"), models))
    (alias,) = rows.list_aliases()
    # Each found another model there, and nobody's move went unseen.
    assert sorted([*(t or "" for t in told), alias.model_id]) == ["", *sorted(m.id for m in models)]


def test_a_commit_that_was_lost_on_the_way_is_not_done_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit runs again as after a connection that broke during COMMIT: it finds its own event."""
    rows = Deployments(store)
    first, second = register(store, 1), register(store, 2)
    rows.set_alias("w@stable", first, actor="ann")
    run = store.units._try
    unit = {"id": ""}

    def twice(work, unit_id, is_repeat):  # type: ignore[no-untyped-def]
        unit["id"] = unit_id
        run(work, unit_id, is_repeat)
        return run(work, unit_id, True)

    monkeypatch.setattr(store.units, "_try", twice)
    assert rows.set_alias("w@stable", second, actor="bob") == first.id
    (alias,) = rows.list_aliases()
    rows.set_status(first, "archived", actor="ann", text="")
    row = make_deployment(store, second)
    rows.start(row, second)
    rows.activate(row.id, detail={}, ended={}, statuses={}, actor="ann", text="")
    rows.add_incident(IncidentRow("i1", second.id, None, None, "t", None, "ann", 1), second)
    rows.end(row.id, "undone", statuses={}, actor="ann", text="")
    assert rows.drop_alias(alias, second, actor="bob")
    rows.note_pruned(second, {second.id: 1}, actor="ann", text="")
    monkeypatch.undo()
    assert kinds(store, first)[-1] == "model:archived"
    assert kinds(store, second)[-7:] == [
        "deploy:preparing", "deploy:live", "incident", "deploy:undone", "model:alias-dropped",
        "pruned:artifact", "model:pruned",
    ]  # fmt: skip
    assert kinds(store, second).count("model:alias") == 1


# -- what was made from a model, and what is gone of it


def test_exports_are_the_children_of_an_adapter(store: Store) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    made = ArtifactRow("sha256:x1", "export", "artifacts/x1", {"format": "gguf"}, store.now_us())
    other = ArtifactRow("sha256:x2", "other", "artifacts/x2", {}, store.now_us())
    for row in (made, other, made):
        rows.add_artifact(row, (model.adapter_id,), model=model, actor="ann", text="f16")
    assert rows.list_children(model.adapter_id, "export") == [made]
    assert rows.list_children("sha256:none", "export") == []
    assert store.list_parents("sha256:x1") == [model.adapter_id]


def test_a_pruned_model_is_archived_and_its_row_stays(store: Store, clock: list[float]) -> None:
    rows = Deployments(store)
    model = register(store, 1, status="superseded")
    clock[0] += 1
    rows.note_pruned(model, {model.id: 5, "sha256:x": 7}, actor="ann", text="12 bytes")
    assert rows.list_pruned() == {model.id: store.now_us(), "sha256:x": store.now_us()}
    assert look(store, model) == replace(model, status="archived")
    assert kinds(store, model)[-1] == "model:pruned"
    assert rows.list_unfinished_prunes() == {model.run_id}
    rows.finish_prune(model, actor="ann")
    assert rows.list_unfinished_prunes() == set() and model.id in rows.list_pruned()


@pytest.mark.parametrize("use", ["alias", "deployment"])
def test_what_was_put_to_use_in_the_meantime_is_not_pruned(store: Store, use: str) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    if use == "alias":
        rows.set_alias("w@stable", model, actor="ann")
    else:
        rows.start(make_deployment(store, model), model)
    with pytest.raises(ConflictError, match="is in use"):
        rows.note_pruned(model, {model.id: 5}, actor="ann", text="")
    assert rows.list_pruned() == {} and look(store, model).status == "approved"


def test_what_was_pruned_in_the_meantime_is_not_put_to_use(store: Store) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    rows.note_pruned(model, {model.id: 5}, actor="ann", text="")
    with pytest.raises(ConflictError, match="archived in the meantime"):
        rows.set_alias("w@stable", model, actor="ann")
    with pytest.raises(ConflictError, match="archived in the meantime"):
        rows.start(make_deployment(store, model), model)
    made = ArtifactRow("sha256:x1", "export", "artifacts/x1", {}, store.now_us())
    with pytest.raises(ConflictError, match="archived in the meantime"):
        rows.add_artifact(made, (model.adapter_id,), model=model, actor="ann", text="f16")
    assert (rows.list_aliases(), rows.list_deployments()) == ([], [])
    assert store.find_artifact(made.id) is None


def test_a_pin_that_was_set_in_the_meantime_does_not_move(store: Store) -> None:
    rows = Deployments(store)
    one, two = register(store, 1), register(store, 2)
    rows.set_alias("audit", one, actor="ann", pin="cited")
    with pytest.raises(ConflictError, match="a pin does not move"):
        rows.set_alias("audit", two, actor="bob")
    assert [(a.model_id, a.pin) for a in rows.list_aliases()] == [(one.id, "cited")]
    assert rows.set_alias("audit", one, actor="ann", pin="cited twice") == one.id


# -- deployments


def test_a_deployment_from_preparing_to_its_end(store: Store, clock: list[float]) -> None:
    rows = Deployments(store)
    model, old = register(store, 2), register(store, 1, status="deployed")
    before = make_deployment(store, old, 1)
    rows.start(before, old)
    rows.activate(before.id, detail={}, ended={}, statuses={}, actor="a", text="")
    row = make_deployment(store, model, 2)
    rows.start(row, model)
    assert rows.find("d2") == row
    clock[0] += 5
    message = Message("mail", {"to": ["mayor/"]})
    active = rows.activate(
        "d2",
        detail={"files": ["s"]},
        ended={"d1": "superseded"},
        statuses={model.id: "deployed", old.id: "superseded"},
        actor="mayor",
        text="on",
        messages=(message,),
    )
    assert (active.state, active.detail, active.updated_us) == (
        "active", {"files": ["s"]}, store.now_us(),
    )  # fmt: skip
    ended = rows.find("d1")
    assert ended is not None and (ended.state, ended.reason) == ("ended", "superseded")
    assert (look(store, model).status, look(store, old).status) == ("deployed", "superseded")
    rows.note_figures("d2", {"agreement": 0.9})
    statuses = {model.id: "approved", old.id: "deployed"}
    done = rows.end("d2", "rolled-back", statuses=statuses, actor="gtft", text="too slow")
    assert (done.reason, done.reason_text, done.figures, done.ended_us) == (
        "rolled-back", "too slow", {"agreement": 0.9}, store.now_us(),
    )  # fmt: skip
    assert (look(store, model).status, look(store, old).status) == ("approved", "deployed")
    assert [m.payload for m in store.list_messages(pending=True)] == [message.payload]
    assert rows.list_deployments(role="mayor") == []
    assert [d.id for d in rows.list_deployments(state="ended")] == ["d1", "d2"]


def test_what_has_ended_does_not_begin_again_and_ends_once(store: Store) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    rows.start(make_deployment(store, model), model)
    first = rows.end("d1", "failed", statuses={}, actor="a", text="no answer")
    assert rows.end("d1", "undone", statuses={}, actor="a", text="") == first
    with pytest.raises(ConflictError, match="has ended: failed"):
        rows.activate("d1", detail={}, ended={}, statuses={}, actor="a", text="")
    with pytest.raises(ConflictError, match="no deployment d9"):
        rows.end("d9", "undone", statuses={}, actor="a", text="")
    assert rows.find("d9") is None


def test_an_activation_that_may_not_be_changes_nothing(store: Store) -> None:
    rows = Deployments(store)
    model, other = register(store, 1, status="archived"), register(store, 2)
    for n, m in enumerate((other, model), 1):
        rows.start(make_deployment(store, m, n), m)
    rows.activate("d1", detail={}, ended={}, statuses={}, actor="a", text="")
    with pytest.raises(ConflictError, match="archived and cannot become deployed"):
        rows.activate(
            "d2",
            detail={},
            ended={"d1": "superseded"},
            statuses={model.id: "deployed"},
            actor="a",
            text="",
        )
    states = {d.id: d.state for d in rows.list_deployments()}
    assert states == {"d1": "active", "d2": "preparing"}


def test_incidents_keep_their_item(store: Store) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    one = IncidentRow("i1", model.id, "d1", "gz-1", "näh 🙂", {"id": "x"}, "ann", 1)
    two = IncidentRow("i2", model.id, None, None, "t", None, "ann", 2)
    rows.add_incident(two, model)
    rows.add_incident(one, model, (Message("mail", {}),))
    assert rows.list_incidents() == [one, two]
    rows.set_item(two, {"id": "y"}, actor="ann", text="an item")
    rows.set_item(one, None, actor="ann", text="withdrawn")
    assert [i.item for i in rows.list_incidents()] == [None, {"id": "y"}]
    told = [e.text for e in store.list_events(model.run_id) if e.kind == "incident:item"]
    assert told == ["i2: an item", "i1: withdrawn"]


# -- the schema


def test_a_store_of_the_third_schema_numbers_models_by_role_and_gets_the_tables(
    store: Store,
) -> None:
    """There a version counted by name, so that nearly every model was version 1."""
    models = [register(store, 1), register(store, 2), register(store, 1, "mayor")]
    on = " ON gtft_models" if store.units.is_dolt else ""
    with store.units.engine.connect() as c, c.begin():
        for table in ("gtft_aliases", "gtft_deployments", "gtft_incidents"):
            c.execute(sa.text(f"DROP TABLE {table}"))
        c.execute(sa.text(f"DROP INDEX gtft_models_of_role{on}"))
        c.execute(sa.text("UPDATE gtft_models SET version = 1"))
        made = "CREATE UNIQUE INDEX gtft_models_version ON gtft_models (name, version)"
        c.execute(sa.text(made))
        c.execute(sa.text("DELETE FROM gtft_schema WHERE version >= 4"))
    for _ in range(2):
        assert store.migrate() == len(MIGRATIONS)
    assert [look(store, m).version for m in models] == [1, 2, 1]
    with store.units.engine.connect() as c:
        names = {str(i["name"]) for i in sa.inspect(c).get_indexes("gtft_models")}
    assert "gtft_models_of_role" in names and "gtft_models_version" not in names
    Deployments(store).set_alias("w@stable", models[0], actor="ann")
    assert register(store, 3).version == 3


def test_a_move_takes_them_along(store: Store, tmp_path: Path) -> None:
    old = Store(open_sqlite(tmp_path / "old.db"), lambda: 5.0)
    old.migrate()
    there = Deployments(old)
    model = register(old, 1)
    there.set_alias("w@stable", model, actor="ann", pin="audit")
    there.start(make_deployment(old, model), model)
    there.add_incident(IncidentRow("i1", model.id, "d1", None, "t", {"a": 1}, "ann", 1), model)
    rows = old.units.run(read_rows)
    for _ in range(2):
        store.units.run(lambda u: add_rows(u, rows, keep=False, message="moved", actor="me"))
    here = Deployments(store)
    assert here.list_aliases() == there.list_aliases()
    assert here.list_deployments() == there.list_deployments()
    assert here.list_incidents() == there.list_incidents()


def test_each_change_is_one_version(store: Store) -> None:
    rows = Deployments(store)
    model = register(store, 1)
    rows.set_alias("w@stable", model, actor="ann")
    rows.start(make_deployment(store, model), model)
    rows.end("d1", "undone", statuses={}, actor="ann", text="")
    if store.units.is_dolt:
        query = "SELECT message FROM dolt_log ORDER BY commit_order"
        with store.units.engine.connect() as c:
            said = [r[0] for r in c.exec_driver_sql(query).all()]
        assert said[-3:] == [
            "gtft: alias w@stable to witness-1 (ann)",
            "gtft: live of witness-1 for witness begins (mayor)",
            "gtft: live of witness-1 for witness undone (ann)",
        ]
    assert list_versions(store, "run-none") == []
