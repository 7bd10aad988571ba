"""When a model is too old or its town has drifted from what it learned, and what the sweep makes of it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.models.freshness import Moved, expire_models, judge_freshness, measure_drift
from gtft.records.rows import ModelRow
from gtft.runner.workspace import Workspace, open_workspace
from models_case import add_model, deploy, find

DAY = 86_400.0
THEN = {f"formula mol-{n}": f"{n}" for n in range(9)} | {"directive witness": "d"}


@pytest.fixture
def ws(tmp_path: Path, clock: list[float]) -> Workspace:
    return open_workspace(tmp_path / "ws", now=lambda: clock[0])


def change(n: int) -> dict[str, str]:
    """The town now, with ``n`` formulas rewritten."""
    return THEN | {f"formula mol-{k}": "new" for k in range(n)}


def expire(ws: Workspace, now: dict[str, str] | None, dry_run: bool = False) -> list[Moved]:
    return expire_models(ws.store, now_us=ws.store.now_us(), conventions=now, dry_run=dry_run)


def add(ws: Workspace, n: int = 1, **given: object) -> ModelRow:
    return add_model(ws, n, corpus={"conventions": THEN}, **given)  # type: ignore[arg-type]


def test_what_is_new_gone_or_different_has_drifted() -> None:
    now = change(1) | {"formula mol-new": "x", "directive witness": "d2"}
    del now["formula mol-8"]
    drift = measure_drift(THEN, now)
    assert drift.changed == (
        "directive witness", "formula mol-0", "formula mol-8", "formula mol-new",
    )  # fmt: skip
    assert (drift.of, drift.share) == (11, 4 / 11)
    assert drift.told == ("3 of 10 formulas", "1 of 1 directives")
    assert measure_drift(THEN, THEN).told == () and measure_drift({}, {}).share == 0


def test_a_program_counts_only_where_both_times_could_ask_it() -> None:
    then = THEN | {"commands gt": "1.1.0 aa", "commands bd": "1.0.5 bb"}
    assert measure_drift(then, THEN).changed == ()
    assert measure_drift(THEN, then).changed == ()
    newer = measure_drift(then, then | {"commands gt": "1.2.0 cc"})
    assert newer.told == ("gt (1.1.0, now 1.2.0)",)
    same = measure_drift(then, then | {"commands bd": "1.0.5 zz"})
    assert same.told == ("the commands of bd",)


@pytest.mark.parametrize(("changed", "expired"), [(0, False), (2, False), (3, True), (9, True)])
def test_drift_is_judged_by_the_recipes_limit(ws: Workspace, changed: int, expired: bool) -> None:
    found = judge_freshness(
        ws.store, add(ws), now_us=ws.store.now_us(), conventions=change(changed)
    )
    assert (found.expired, found.max_drift) == (expired, 0.3)
    assert found.reasons == ((f"{changed} of 9 formulas changed since",) if expired else ())


@pytest.mark.parametrize(("days", "expired"), [(89.0, False), (90.0, True)])
def test_age_is_judged_without_a_town(
    ws: Workspace, clock: list[float], days: float, expired: bool
) -> None:
    model = add(ws)
    clock[0] += days * DAY
    found = judge_freshness(ws.store, model, now_us=ws.store.now_us(), conventions=None)
    assert (found.expired, found.drift, found.unknown) == (expired, None, "there is no town")
    assert found.reasons == (("90 days old, and its recipe allows 90",) if expired else ())


def test_limits_that_are_off_expire_nothing(ws: Workspace, clock: list[float]) -> None:
    model = add(ws, deploy={"max_age_days": 0, "max_drift": 1})
    clock[0] += 9999 * DAY
    now = ws.store.now_us()
    assert not judge_freshness(ws.store, model, now_us=now, conventions={}).expired


def test_a_harvest_that_recorded_nothing_leaves_the_age(ws: Workspace) -> None:
    found = judge_freshness(
        ws.store, add_model(ws, 1), now_us=ws.store.now_us(), conventions=change(9)
    )
    assert not found.expired and "did not record" in found.unknown


def test_a_recipe_from_before_there_was_a_deploy_table_has_its_defaults(ws: Workspace) -> None:
    model = add(ws)
    run = ws.store.find_run(model.run_id)
    assert run is not None
    del run.recipe["recipe"]["deploy"]
    with ws.store.units.engine.connect() as c, c.begin():
        c.exec_driver_sql("UPDATE gtft_runs SET recipe = ?", (json.dumps(run.recipe),))
    found = judge_freshness(ws.store, model, now_us=ws.store.now_us(), conventions=None)
    assert (found.max_age_days, found.max_drift) == (90, 0.3)


def test_expired_models_get_the_status_and_fresh_ones_lose_it(ws: Workspace) -> None:
    model = add(ws)
    (told,) = expire(ws, change(5), dry_run=True)
    assert told.to == "expired" and find(ws, model).status == "approved"
    (told,) = expire(ws, change(5))
    assert told.reasons == ("5 of 9 formulas changed since",)
    assert find(ws, model).status == "expired"
    assert ws.store.list_events(model.run_id)[-1].text == "5 of 9 formulas changed since"
    assert expire(ws, change(5)) == []
    # From where the town cannot be seen, nobody knows that it is fresh again.
    assert expire(ws, None) == [] and find(ws, model).status == "expired"
    (told,) = expire(ws, THEN)
    assert told.to == "approved" and find(ws, model).status == "approved"


def test_what_serves_is_told_and_stays(ws: Workspace) -> None:
    shadow, live = add(ws, 1), add(ws, 2, status="deployed")
    deploy(ws, shadow, 1)
    assert {(m.model.id, m.to) for m in expire(ws, change(9))} == {(shadow.id, ""), (live.id, "")}
    assert (find(ws, shadow).status, find(ws, live).status) == ("approved", "deployed")


def test_archived_models_and_candidates_are_left_alone(ws: Workspace) -> None:
    for n, status in enumerate(("archived", "candidate")):
        add(ws, n, status=status)
    superseded = add(ws, 9, status="superseded")
    assert [m.model.id for m in expire(ws, change(9))] == [superseded.id]


def test_the_sweep_expires_and_list_and_show_say_why(ws: Workspace) -> None:
    model = add_model(ws, 1, deploy={"max_age_days": 0.001})
    # The command has the real clock, which is behind the test's: the model is made older.
    with ws.store.units.engine.connect() as c, c.begin():
        c.exec_driver_sql("UPDATE gtft_models SET created_us = 1")

    def call(*args: str) -> str:
        done = CliRunner().invoke(main, ["--workspace", str(ws.path), *args])
        assert done.exit_code == 0, done.output
        return done.output

    assert "approved, expired: " in call("model", "list")
    assert f"would be expired: {model.run_id}: {model.name}" in call("sweep", "--dry-run")
    assert find(ws, model).status == "approved"
    assert f"expired: {model.run_id}" in call("sweep")
    assert find(ws, model).status == "expired"
    assert "no, expired: " in call("model", "show", model.name)
    shown = json.loads(call("model", "show", model.name, "--json"))["data"]["freshness"]
    assert shown["expired"] and shown["unknown"] == "there is no town"
    assert "nothing to do" in call("sweep")
