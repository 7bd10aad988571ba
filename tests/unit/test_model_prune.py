"""What a prune removes, what it never does, and that a kill in the middle leaves nothing half."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gtft.artifact import read_artifact
from gtft.cli.main import main
from gtft.errors import ConflictError, EvidenceError
from gtft.models.lineage import trace_model
from gtft.models.registry import archive, find_pruned, set_alias, unarchive
from gtft.models.retention import Piece, Pruning, Rules, plan_pruning, prune
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, ModelRow
from gtft.runner.doctor import examine
from gtft.runner.workspace import Workspace, open_workspace
from models_case import add_base, add_export, add_model, add_run, deploy, find

DAY = 86_400.0


@pytest.fixture
def ws(tmp_path: Path, clock: list[float]) -> Workspace:
    # Not on the test's clock: folders are younger than what the store says otherwise.
    return open_workspace(tmp_path / "ws")


def plan(ws: Workspace, keep: int = 0, **rules: float) -> Pruning:
    made = Rules(keep, older_than=rules.get("older_than", 0.0), corpora=bool(rules.get("corpora")))
    return plan_pruning(ws.store, ws.path, made, now_us=ws.store.now_us())


def going(made: Pruning) -> list[str]:
    return [r.model.name for r in made.removals]


def carry_out(ws: Workspace, made: Pruning) -> int:
    return prune(ws.store, ws.path, made, actor="ann", tell=lambda p: None)


def stays(ws: Workspace, model: ModelRow) -> str:
    """Why a model stays that nothing else would keep."""
    return {m.id: why for m, why in plan(ws).kept}[model.id]


def test_an_unused_model_goes_with_its_exports_and_checkpoints(ws: Workspace) -> None:
    base = add_base(ws, "nano-0123456789ab")
    model = add_model(ws, 1)
    export = add_export(ws, model)
    made = plan(ws)
    (removal,) = made.removals
    adapter = ws.store.find_artifact(model.adapter_id)
    assert adapter is not None
    assert [(p.what, p.path) for p in removal.pieces] == [
        ("export", f"artifacts/{export.path.name}"),
        ("checkpoints", f"runs/{model.run_id}/train/work"),
        ("adapter", adapter.path),
    ]
    assert [p.what for p in made.besides] == ["base"]
    assert made.bytes == sum(p.bytes for p in (*removal.pieces, *made.besides)) > 1500
    assert carry_out(ws, made) == made.bytes
    assert not base.exists() and not (ws.path / adapter.path).exists() and not export.path.exists()
    # What tells of it stays.
    for artifact_id in (model.corpus_id, model.eval_id, model.card_id):
        row = ws.store.find_artifact(artifact_id)
        assert row is not None and read_artifact(ws.path / row.path).id == artifact_id
    assert find(ws, model).status == "archived"
    assert find_pruned(ws.store, model, ws.path) is not None
    assert plan(ws) == Pruning((), (), ())


def test_the_plan_changes_nothing(ws: Workspace) -> None:
    add_base(ws, "nano-0123456789ab")
    add_model(ws, 1)
    before = sorted(ws.path.rglob("*"))
    plan(ws, corpora=True)
    assert sorted(p for p in ws.path.rglob("*")) == before
    assert Deployments(ws.store).list_pruned() == {}


def test_the_newest_of_each_role_and_the_young_stay(ws: Workspace) -> None:
    models = [add_model(ws, n) for n in range(1, 4)]
    other = add_model(ws, 1, "mayor")
    assert going(plan(ws, keep=1)) == [models[1].name, models[0].name]
    assert going(plan(ws, keep=3)) == []
    assert going(plan(ws, older_than=1.0)) == []
    assert stays_by(plan(ws, keep=1), other) == "one of the newest 1 of mayor"


def stays_by(made: Pruning, model: ModelRow) -> str:
    return next(why for m, why in made.kept if m.id == model.id)


def test_what_serves_and_what_rollback_goes_back_to_stays(ws: Workspace) -> None:
    first, second, third = (add_model(ws, n) for n in range(1, 4))
    deploy(ws, first, 1, end="superseded")
    deploy(ws, second, 2, end="superseded")
    deploy(ws, third, 3)
    assert stays(ws, third) == "live for witness"
    assert "gtft rollback --to goes back to it" in stays(ws, second)
    assert going(plan(ws)) == [first.name]
    marked = add_model(ws, 4, status="deployed")
    assert stays(ws, marked) == "deployed"


def test_aliases_and_pins_hold(ws: Workspace) -> None:
    one, two = add_model(ws, 1), add_model(ws, 2)
    set_alias(ws.store, "witness@stable", one, ws.path, actor="ann")
    set_alias(ws.store, "audit", two, ws.path, actor="ann", pin="cited in May")
    assert stays(ws, one) == "witness@stable means it"
    assert stays(ws, two) == "pinned by audit: cited in May"


@pytest.mark.parametrize("key", ["continues", "stacks_on"])
def test_what_a_kept_model_was_trained_from_stays_over_any_number_of_steps(
    ws: Workspace, key: str
) -> None:
    first = add_model(ws, 1)
    second = add_model(ws, 2, summary={key: first.adapter_id})
    third = add_model(ws, 3, summary={key: second.adapter_id})
    lone = add_model(ws, 1, "mayor")
    made = plan_pruning(ws.store, ws.path, Rules(1), now_us=ws.store.now_us())
    assert going(made) == []
    assert "was trained from it" in stays_by(made, first) and "was trained" in stays_by(
        made, second
    )
    set_alias(ws.store, "w1", third, ws.path, actor="ann")
    assert going(plan(ws)) == [lone.name]


def test_a_run_that_is_not_done_holds_what_it_names_and_the_bases(ws: Workspace) -> None:
    base = add_base(ws, "nano-unused")
    model, other = add_model(ws, 1), add_model(ws, 1, "mayor")
    mark = model.id.removeprefix("sha256:")[:12]
    add_run(ws, "run-now", state="ready", train={"continues": mark})
    add_run(ws, "run-eval", state="ready", eval={"models": [other.name]})
    assert "run-now needs it" in stays(ws, model)
    assert "run-eval needs it" in stays(ws, other)
    assert plan(ws).besides == () and base.exists()


def test_work_of_a_run_that_made_no_model_goes(ws: Workspace) -> None:
    add_run(ws, "run-failed")
    add_run(ws, "run-going", state="active")
    (piece,) = plan(ws).besides
    assert (piece.what, piece.path) == ("checkpoints", "runs/run-failed/train/work")


def test_a_base_stays_while_any_adapter_on_the_shelf_lies_on_it(ws: Workspace) -> None:
    for name in ("nano-a", "nano-b"):
        add_base(ws, name)
    add_model(ws, 1, base="nano-a")
    kept = add_model(ws, 2, base="nano-b")
    set_alias(ws.store, "w", kept, ws.path, actor="ann")
    assert [p.path for p in plan(ws).besides] == ["bases/nano-a"]
    (ws.artifacts / "adapter-odd").mkdir()
    assert plan(ws).besides == ()


def test_a_corpus_goes_only_when_asked_and_no_kept_model_knows_it(ws: Workspace) -> None:
    add_model(ws, 1, corpus={"n": 0})
    add_model(ws, 2, corpus={"n": 0})
    add_model(ws, 3, corpus={"own": True})
    kept = add_model(ws, 4, corpus={"n": 0})
    assert "corpus" not in {p.what for r in plan(ws).removals for p in r.pieces}
    gone = [p for r in plan(ws, corpora=1).removals for p in r.pieces if p.what == "corpus"]
    # 1 and 2 share one with nobody who stays; it is counted once.
    assert len(gone) == 2
    set_alias(ws.store, "w", kept, ws.path, actor="ann")
    gone = [p for r in plan(ws, corpora=1).removals for p in r.pieces if p.what == "corpus"]
    assert len(gone) == 1


def test_a_stored_path_that_leads_out_of_the_workspace_is_refused(ws: Workspace) -> None:
    model = add_model(ws, 1)
    out = ArtifactRow("sha256:out", "export", "../../elsewhere", {}, 1)
    rows = Deployments(ws.store)
    rows.add_artifact(out, (model.adapter_id,), model=model, actor="x", text="")
    with pytest.raises(EvidenceError, match="not a folder of this workspace"):
        plan(ws)


def test_a_link_in_place_of_an_adapter_is_refused(ws: Workspace, tmp_path: Path) -> None:
    model = add_model(ws, 1)
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    (ws.path / row.path).rename(tmp_path / "moved")
    (ws.path / row.path).symlink_to(tmp_path / "moved")
    with pytest.raises(EvidenceError, match="is a link"):
        plan(ws)
    assert (tmp_path / "moved" / "base.json").exists()


def test_what_is_put_to_use_after_the_plan_is_not_removed(ws: Workspace) -> None:
    model = add_model(ws, 1)
    made = plan(ws)
    deploy(ws, model, 1)
    with pytest.raises(ConflictError, match="nothing of it was removed"):
        carry_out(ws, made)
    assert all((ws.path / p.path).is_dir() for p in made.removals[0].pieces)


def test_a_pruned_model_is_told_and_does_not_come_back(ws: Workspace) -> None:
    model = add_model(ws, 1)
    carry_out(ws, plan(ws))
    model = find(ws, model)
    with pytest.raises(ConflictError, match="was pruned"):
        unarchive(ws.store, model, ws.path, actor="ann")
    with pytest.raises(ConflictError, match="was pruned"):
        set_alias(ws.store, "w", model, ws.path, actor="ann")
    assert not [
        f for f in examine(ws.path, ws.path, {}) if f.level == "wrong" and "adapter" in f.about
    ]


def test_an_adapter_that_was_made_again_is_not_taken_for_a_leftover(ws: Workspace) -> None:
    model = add_model(ws, 1)
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    shutil.copytree(ws.path / row.path, ws.path / "copy")
    carry_out(ws, plan(ws))
    (ws.path / "copy" / "artifact.json").touch()
    (ws.path / "copy").rename(ws.path / row.path)
    assert find_pruned(ws.store, model, ws.path) is None
    unarchive(ws.store, find(ws, model), ws.path, actor="ann")
    assert find(ws, model).status == "approved"
    archive(ws.store, find(ws, model), actor="ann")


def test_an_adapter_that_was_put_back_with_its_times_is_there_again(ws: Workspace) -> None:
    model = add_model(ws, 1)
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    shutil.copytree(ws.path / row.path, ws.path / "copy", copy_function=shutil.copy2)
    carry_out(ws, plan(ws))
    assert model.id in trace_model(ws.store, model, ws.path).pruned
    (ws.path / "copy").rename(ws.path / row.path)
    assert find_pruned(ws.store, model, ws.path) is None
    assert trace_model(ws.store, model, ws.path).pruned == {}
    assert going(plan(ws, keep=1)) == []
    unarchive(ws.store, find(ws, model), ws.path, actor="ann")
    # It may be pruned again, as any other.
    assert carry_out(ws, plan(ws)) and find_pruned(ws.store, model, ws.path) is not None


def test_a_prune_that_was_stopped_after_its_last_folder_is_finished(ws: Workspace) -> None:
    model = add_model(ws, 1)
    Deployments(ws.store).note_pruned(model, {model.id: 1}, actor="ann", text="")
    (left,) = plan(ws).removals
    assert left.noted and [p.what for p in left.pieces] == ["checkpoints", "adapter"]
    for piece in left.pieces:
        shutil.rmtree(ws.path / piece.path)
    (left,) = plan(ws).removals
    assert left.noted and left.pieces == ()
    carry_out(ws, plan(ws))
    assert plan(ws) == Pruning((), (), ())


def test_a_corpus_that_goes_later_is_noted_too(ws: Workspace) -> None:
    model = add_model(ws, 1)
    carry_out(ws, plan(ws))
    pruned_us = find_pruned(ws.store, model, ws.path)
    (removal,) = plan(ws, corpora=1).removals
    assert [p.what for p in removal.pieces] == ["corpus"] and not removal.noted
    assert carry_out(ws, plan(ws, corpora=1)) == removal.bytes > 0
    assert model.corpus_id in Deployments(ws.store).list_pruned()
    assert find_pruned(ws.store, model, ws.path) == pruned_us
    assert not [f for f in examine(ws.path, ws.path, {}) if "corpus" in f.about]


def test_a_prune_waits_for_an_export_and_takes_what_an_export_left(ws: Workspace) -> None:
    model = add_model(ws, 1)
    made = plan(ws)
    going_on = ws.artifacts / f".tmp-export-{os.getpid()}"
    going_on.mkdir()
    with pytest.raises(ConflictError, match="an export is being made"):
        carry_out(ws, made)
    assert all((ws.path / p.path).is_dir() for p in made.removals[0].pieces)
    # Of one that was killed.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    going_on.rename(ws.artifacts / f".tmp-export-{ended.pid}")
    carry_out(ws, made)
    with pytest.raises(ConflictError, match="archived in the meantime"):
        add_export(ws, model)
    (left,) = ws.artifacts.glob("export-*")
    (removal,) = plan(ws).removals
    assert [p.what for p in removal.pieces] == ["export"]
    carry_out(ws, plan(ws))
    assert not left.exists() and plan(ws) == Pruning((), (), ())


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from gtft.models import retention
from gtft.runner.workspace import open_workspace
where, at = sys.argv[1], int(sys.argv[2])
count = 0
def mark(real):
    def step(*a, **k):
        global count
        count += 1
        if count == at:
            if real is rmtree:
                # Some of it is gone already.
                next(p for p in Path(a[0]).rglob("*") if p.is_file()).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    return step
rmtree, rename = shutil.rmtree, Path.rename
shutil.rmtree, Path.rename = mark(rmtree), mark(rename)
ws = open_workspace(Path(where))
plan = retention.plan_pruning(ws.store, ws.path, retention.Rules(0), now_us=ws.store.now_us())
retention.prune(ws.store, ws.path, plan, actor="ann", tell=lambda p: None)
"""


@pytest.mark.parametrize("at", [1, 2, 4, 6, 7])
def test_after_a_kill_there_is_no_half_artifact_and_the_next_prune_finishes(
    ws: Workspace, at: int
) -> None:
    """Killed before a rename (odd) or within a deletion (even) of export, checkpoints, adapter, base."""
    add_base(ws, "nano-0123456789ab")
    model = add_model(ws, 1)
    add_export(ws, model)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(ws.path), str(at)], env=dict(os.environ), check=False
    )
    assert done.returncode == -signal.SIGKILL
    # The store knows; what still stands under its own name is whole.
    assert find(ws, model).status == "archived"
    for path in ws.artifacts.glob("[a-z]*-*"):
        for entry in read_artifact(path).files:
            assert (path / entry.name).stat().st_size == entry.size
    assert find_pruned(ws.store, model, ws.path) is not None
    carry_out(ws, plan(ws))
    assert plan(ws) == Pruning((), (), ())
    assert not list(ws.path.rglob(".pruned-*")) and not list(ws.artifacts.glob("adapter-*"))
    assert not list((ws.path / "bases").iterdir())
    events = [e.kind for e in ws.store.list_events(model.run_id)]
    assert events.count("model:pruned") == 1


# -- the command


@pytest.fixture
def call(ws: Workspace) -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(main, ["--workspace", str(ws.path), "model", *args])


@pytest.mark.parametrize("args", [(), ("--dry-run",), ("--dry-run", "--yes")])
def test_without_yes_it_only_says_what_would_be_freed(
    ws: Workspace, call: Callable[..., Result], args: tuple[str, ...]
) -> None:
    model = add_model(ws, 1)
    shown = call("prune", "--keep", "0", *args)
    assert shown.exit_code == 0, shown.output
    assert model.name in shown.output and "would free" in shown.output
    data = json.loads(call("prune", "--keep", "0", "--json", *args).output)["data"]
    assert data["dry_run"] and data["bytes"] > 1000
    assert {p["what"] for p in data["models"][0]["pieces"]} == {"adapter", "checkpoints"}
    assert find(ws, model).status == "approved"


def test_with_yes_it_frees_and_show_tells_when(ws: Workspace, call: Callable[..., Result]) -> None:
    model = add_model(ws, 1)
    shown = call("prune", "--keep", "0", "--yes")
    assert shown.exit_code == 0 and "freed" in shown.output
    assert "pruned on 20" in call("show", model.name).output
    (row,) = json.loads(call("list", "--json").output)["data"]
    assert row["pruned"] and row["status"] == "archived"
    assert "nothing to remove" in call("prune", "--keep", "0").output


def test_by_default_the_newest_three_stay(ws: Workspace, call: Callable[..., Result]) -> None:
    for n in range(1, 5):
        add_model(ws, n)
    data = json.loads(call("prune", "--json").output)["data"]
    assert len(data["models"]) == 1 and len(data["kept"]) == 3


def test_a_piece_that_somebody_else_removed_counts_nothing(ws: Workspace) -> None:
    add_model(ws, 1)
    made = plan(ws)
    told: list[Piece] = []
    shutil.rmtree(ws.path / made.removals[0].pieces[0].path)
    freed = prune(ws.store, ws.path, made, actor="ann", tell=told.append)
    assert freed == made.bytes - made.removals[0].pieces[0].bytes
    assert len(told) == len(made.removals[0].pieces)


class _Town(NamedTuple):
    """Which models go on from which, and what holds them."""

    below: tuple[int, ...]
    how: tuple[str, ...]
    aliased: frozenset[int]
    deployed: tuple[int, ...]
    unfinished: frozenset[int]
    keep: int


@st.composite
def towns(draw: st.DrawFn) -> _Town:
    count = draw(st.integers(2, 6))
    several = st.frozensets(st.integers(0, count - 1), max_size=2)
    return _Town(
        tuple(draw(st.integers(-1, n - 1)) for n in range(count)),
        tuple(draw(st.sampled_from(["continues", "stacks_on"])) for _ in range(count)),
        draw(several),
        tuple(draw(st.lists(st.integers(0, count - 1), max_size=3, unique=True))),
        draw(several),
        draw(st.integers(0, 2)),
    )


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(town=towns())
def test_no_kept_model_loses_what_it_lies_on_in_any_lineage(
    town: _Town, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ws = open_workspace(tmp_path_factory.mktemp("lineage") / "ws")
    made: list[ModelRow] = []
    for n, (below, how) in enumerate(zip(town.below, town.how, strict=True)):
        made.append(add_model(ws, n, summary={how: made[below].id} if below >= 0 else {}))
    for n in town.aliased:
        set_alias(ws.store, f"witness@{n}", made[n], ws.path, actor="ann")
    for at, n in enumerate(town.deployed):
        deploy(ws, made[n], at, end="" if at + 1 == len(town.deployed) else "superseded")
    for n in town.unfinished:
        add_run(ws, f"run-open-{n}", state="ready", train={"continues": made[n].id})
    held = {*town.aliased, *town.deployed[-2:], *town.unfinished}
    held |= set(range(len(made) - town.keep, len(made)))
    for n in range(len(made) - 1, -1, -1):
        if n in held and town.below[n] >= 0:
            held.add(town.below[n])
    plan_made = plan(ws, keep=town.keep)
    order = [m.name for m in made]
    at = [order.index(name) for name in going(plan_made)]
    assert all(at.index(n) < at.index(town.below[n]) for n in at if town.below[n] in at)
    carry_out(ws, plan_made)
    there = {n for n, m in enumerate(made) if (ws.path / _adapter_path(ws, m)).is_dir()}
    assert there == held
    assert plan(ws, keep=town.keep).removals == ()


def _adapter_path(ws: Workspace, model: ModelRow) -> str:
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    return row.path


def test_a_model_stays_while_its_own_run_is_not_done(ws: Workspace) -> None:
    model = add_model(ws, 1, state="ready")
    assert stays(ws, model) == f"its run {model.run_id} is not done"
