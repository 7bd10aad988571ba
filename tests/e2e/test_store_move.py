"""`gtft store move`: an embedded workspace goes into its town, and nothing is lost."""

import json
import os
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from gtft.beads.bd import BdLedger
from gtft.beads.ledger import Bead, NewBead
from gtft.beads.local import LocalLedger
from gtft.beads.transfer import read_old_beads, rename_bead
from gtft.cli.main import main
from gtft.errors import ConflictError, GtftError, TownError, UsageError
from gtft.records.dolt import Target
from gtft.records.rows import ArtifactRow, Change, Message, ModelRow
from gtft.records.store import Store, open_sqlite
from gtft.records.transfer import Rows, read_rows, rename_beads
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.moving import Moved, describe_home, move_workspace
from gtft.runner.workspace import Config, Workspace, open_workspace, read_config, write_config
from store_case import add_run, claim, make_target, query
from town_case import DoltServer, make_beads, need_tools, run

ME = "overseer/me"


@dataclass(frozen=True)
class Town:
    root: Path
    environ: dict[str, str]
    prefix: str
    target: Target

    @property
    def home(self) -> Path:
        return self.root / ".gtft"

    @property
    def beads_dir(self) -> Path:
        return self.root / "finetune" / "mayor" / "rig" / ".beads"

    def open(self) -> Workspace:
        return open_workspace(self.home, environ=self.environ)

    def move(self, **how: object) -> Moved:
        given: dict[str, object] = {
            "actor": ME,
            "environ": self.environ,
            "now": time.time,
            **how,
        }
        return move_workspace(self.home, "finetune", **given)  # type: ignore[arg-type]


@pytest.fixture
def town(dolt_server: DoltServer, tmp_path: Path) -> Town:
    """A rig with a real bead database; the town around it is only what gtft reads of one."""
    need_tools("bd")
    root = tmp_path / "town"
    prefix = f"m{uuid.uuid4().hex[:6]}"
    make_beads(root / "finetune" / "mayor" / "rig", dolt_server, prefix)
    (root / "mayor").mkdir()
    (root / "mayor" / "town.json").write_text('{"name": "tt"}')
    rigs = {"rigs": {"finetune": {"beads": {"prefix": prefix}}}}
    (root / "mayor" / "rigs.json").write_text(json.dumps(rigs))
    environ = dolt_server.environ | {"GT_DOLT_PORT": str(dolt_server.port)}
    return Town(root, environ, prefix, make_target(dolt_server, prefix))


def fill(town: Town, prefix: str, tag: str = "run") -> None:
    """An embedded workspace that has seen work: beads and rows in every state."""
    town.home.mkdir(parents=True)
    write_config(town.home, Config(prefix=prefix))
    ws = town.open()
    assert isinstance(ws.ledger, LocalLedger)
    for name in (f"{tag}-done", f"{tag}-failed", f"{tag}-new"):
        made = add_run(ws.store, name, root=str(town.root))
        finish_dispatch(ws, made)
    work(ws, f"{tag}-done", "harvest", ("one\n\ntwo 'quoted' ünï", "three"), close=True)
    work(ws, f"{tag}-done", "train", ("no end yet",), close=False)
    row = ws.store.find_stage(f"{tag}-failed", "harvest")
    claim(ws.store, f"{tag}-failed", "harvest")
    ws.ledger.claim(row.bead_id or "", ME)
    ws.ledger.release(row.bead_id or "", failed=True, actor=ME)
    change = Change(
        "active", "ready", "failed", ME, "no room", (Message("notice", {"to": ["me"]}),)
    )
    ws.store.change(f"{tag}-failed", "harvest", change, token="t1")
    blocked = ws.store.find_stage(f"{tag}-failed", "card").bead_id or ""
    ws.ledger.block(blocked, "waits for a person", actor=ME)
    asked = NewBead(
        key="review",
        title="Review the eval of run-new",
        description="Run: gtft review show",
        metadata={"gtft.run": f"{tag}-new", "gtft.stage": "review", "gtft.attempt": "1"},
        labels=("gtft", "gt:keep"),
        priority=1,
        assignee="rig/witness",
    )
    [review] = ws.ledger.create_graph((asked,), actor=ME).values()
    ws.ledger.need(ws.store.find_stage(f"{tag}-new", "eval").bead_id or "", review, actor=ME)
    ws.store.set_desired(f"{tag}-new", "pause", ME, "later")


def work(ws: Workspace, run_id: str, stage: str, notes: tuple[str, ...], *, close: bool) -> None:
    assert claim(ws.store, run_id, stage, f"t-{stage}")
    bead = ws.store.find_stage(run_id, stage).bead_id or ""
    assert ws.ledger.claim(bead, "polecat/nux")
    for text in notes:
        ws.ledger.submit(bead, text, actor="polecat/nux")
    n = len(stage)
    row = ArtifactRow(
        f"sha256:{stage}-{run_id}", stage, f"artifacts/{stage}", {"n": n}, ws.store.now_us()
    )
    told = (Message("ledger", {"op": "note", "bead": bead, "actor": ME, "text": f"see {bead}."}),)
    model = ModelRow(
        f"sha256:m-{stage}-{run_id}",
        "witness-x",
        "witness",
        0,
        "approved",
        run_id,
        "c",
        "a",
        "e",
        "k",
        1,
    )
    ws.store.change(
        run_id,
        stage,
        Change("active", "review", None, "polecat/nux", "", told),
        token=f"t-{stage}",
        artifact=row,
        parents=("sha256:p",),
    )
    if close:
        ws.ledger.close(bead, f"accepted: {stage} of {run_id} as recorded", actor="gtft")
        done = Change("review", "done", None, "gtft", "")
        ws.store.change(run_id, stage, done, model=model)


@dataclass(frozen=True)
class Seen:
    rows: Rows
    beads: dict[str, Bead]


def see_old(folder: Path) -> Seen:
    rows = Store(open_sqlite(folder / "gtft.db"), time.time).units.run(read_rows)
    return Seen(rows, {o.bead.id: o.bead for o in read_old_beads(folder / "beads.db")})


def check_moved(town: Town, before: Seen, moved: Moved) -> None:
    """Everything that was in the embedded workspace is in the town, and nothing else of ours."""
    ids = {k: moved.renamed.get(k, k) for k in before.beads}
    ws = town.open()
    assert ws.home is not None and ws.home.rig.name == "finetune"
    assert ws.store.units.run(read_rows) == rename_beads(before.rows, ids)
    ledger = BdLedger(town.beads_dir, town.environ)
    wanted = {ids[k]: rename_bead(b, ids) for k, b in before.beads.items()}
    assert ledger.look(wanted) == wanted
    for row in ws.store.list_stages():
        bead = wanted[row.bead_id or ""]
        assert bead.metadata["gtft.run"] == row.run_id
        assert bead.metadata["gtft.stage"] == row.stage
        assert f"gtft run {bead.id}\n" in bead.description
    mine = run(
        "bd",
        "list",
        "--all",
        "--limit=0",
        "--json",
        environ=town.environ,
        cwd=town.beads_dir.parent,
    )
    assert {b["id"] for b in json.loads(mine.stdout)} >= set(wanted)
    assert not (town.home / "gtft.db").exists() and not (town.home / "beads.db").exists()
    assert see_old(moved.aside) == before


@pytest.mark.parametrize("same_prefix", [True, False])
def test_a_workspace_moves_without_loss(town: Town, same_prefix: bool) -> None:
    fill(town, town.prefix if same_prefix else "zz")
    before = see_old(town.home)
    assert len(before.beads) == 16 and before.rows["gtft_outbox"] and before.rows["gtft_models"]
    dry = town.move(dry_run=True)
    assert read_config(town.home).town is None and (dry.runs, dry.beads) == (3, 16)
    moved = town.move()
    assert (moved.runs, moved.beads) == (3, 16)
    assert bool(moved.renamed) is not same_prefix
    check_moved(town, before, moved)
    log = query(town.target, "SELECT message FROM dolt_log")
    assert (f"gtft: 3 runs moved in ({ME})",) in log
    with pytest.raises(UsageError, match="no embedded store"):
        town.move()


class Cut(Exception):
    pass


@pytest.mark.parametrize("at", ["beads", "rows", "switch", "aside"])
def test_a_move_that_was_cut_off_is_done_again(town: Town, at: str) -> None:
    fill(town, town.prefix)

    def cut(step: str) -> None:
        if step == at:
            raise Cut(step)

    with pytest.raises(Cut):
        town.move(tell=cut)
    ws = town.open()
    if at != "aside":
        # The old workspace still counts, and goes on.
        assert ws.home is None
        row = ws.store.find_stage("run-done", "train")
        ws.ledger.close(row.bead_id or "", "accepted: train of run-done as recorded", actor=ME)
        ws.store.change("run-done", "train", Change("review", "done", None, "gtft", ""))
        failed = ws.store.find_stage("run-failed", "harvest").bead_id or ""
        ws.ledger.release(failed, failed=False, actor=ME)
        ws.ledger.note(failed, "again", actor=ME)
        before = see_old(town.home)
        check_moved(town, before, town.move())
        return
    # The town counts: what has moved on there is not put back.
    before = see_old(town.home)
    ws.store.set_desired("run-new", "run", ME)
    bead = ws.store.find_stage("run-done", "train").bead_id or ""
    ws.ledger.close(bead, "accepted: train of run-done as recorded", actor=ME)
    moved = town.move()
    assert see_old(moved.aside) == before
    ws = town.open()
    found = ws.store.find_run("run-new")
    assert found is not None and found.desired == "run"
    assert ws.ledger.show(bead).status == "closed"
    assert len(ws.store.list_runs()) == 3


def test_a_workspace_that_was_linked_before_it_moved_moves_too(town: Town) -> None:
    fill(town, town.prefix)
    before = see_old(town.home)
    with (town.home / "config.toml").open("a") as f:
        f.write('[town]\nrig = "finetune"\nroot = ".."\n')
    linked = town.open()
    assert linked.store.list_runs() == []
    assert describe_home(linked)["left_behind"] == str(town.home / "gtft.db")
    check_moved(town, before, town.move())
    assert describe_home(town.open())["left_behind"] is None


def test_a_bead_of_the_same_id_in_the_rig_is_left_alone(town: Town) -> None:
    fill(town, town.prefix)
    rig = town.beads_dir.parent
    run("bd", "create", f"--id={town.prefix}-1", "--title=not ours", environ=town.environ, cwd=rig)
    before = see_old(town.home)
    moved = town.move()
    assert set(moved.renamed) == {f"{town.prefix}-1"} | {
        f"{town.prefix}-1.{n}" for n in (1, 2, 3, 4)
    }
    check_moved(town, before, moved)
    assert BdLedger(town.beads_dir, town.environ).show(f"{town.prefix}-1").title == "not ours"


def test_a_second_workspace_joins_the_first(town: Town) -> None:
    fill(town, town.prefix)
    first = town.move()
    before = town.open().store.units.run(read_rows)
    # Another workspace from before the town was linked: its bead ids and model versions are taken.
    (town.home / "config.toml").rename(town.root / "config.toml")
    town.home.rename(town.root / "first")
    fill(town, town.prefix, "other")
    old = see_old(town.home)
    moved = town.move()
    assert not first.renamed and len(moved.renamed) == len(old.beads) == 16
    ws = town.open()
    after = ws.store.units.run(read_rows)
    for name, found in before.items():
        assert [r for r in after[name] if r in found] == found
        assert len(after[name]) == 2 * len(found)
    assert [(m.name, m.version) for m in ws.store.list_models()] == [
        ("witness-x", 1),
        ("witness-x", 2),
    ]
    ids = {k: moved.renamed[k] for k in old.beads}
    wanted = {ids[k]: rename_bead(b, ids) for k, b in old.beads.items()}
    assert BdLedger(town.beads_dir, town.environ).look(wanted) == wanted


def test_it_refuses_while_somebody_works_and_where_it_cannot(town: Town, tmp_path: Path) -> None:
    fill(town, town.prefix)
    ws = town.open()
    row = ws.store.find_stage("run-done", "train")
    ws.store.change("run-done", "train", Change("review", "done", None, "gtft", ""))
    later = ws.store.find_stage("run-done", "eval")
    assert ws.store.claim(later, "w", "elsewhere/1/x", ws.store.now_us() + 60_000_000, "")
    with pytest.raises(ConflictError, match="being worked on"):
        town.move()
    assert read_config(town.home).town is None and row.bead_id is not None
    assert BdLedger(town.beads_dir, town.environ).look([row.bead_id]) == {}
    with pytest.raises(TownError, match="not a rig"):
        move_workspace(town.home, "nowhere", actor=ME, environ=town.environ, now=time.time)
    outside = tmp_path / "elsewhere" / ".gtft"
    open_workspace(outside)
    with pytest.raises(TownError, match="stands in no town"):
        move_workspace(outside, "finetune", actor=ME, environ=town.environ, now=time.time)
    environ = town.environ | {"GT_ROOT": str(town.root)}
    with pytest.raises(UsageError, match="not the workspace of the town"):
        move_workspace(outside, "finetune", actor=ME, environ=environ, now=time.time)


def test_the_commands(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(town, town.prefix)
    for name in [k for k in os.environ if k.startswith(("GT_", "BD_", "BEADS_", "GTFT_"))]:
        monkeypatch.delenv(name)
    for name, value in town.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(town.root)

    def gtft(*argv: str) -> dict[str, object]:
        done = CliRunner().invoke(main, [*argv, "--json"], catch_exceptions=False)
        found = json.loads(done.stdout)
        assert found["ok"] and done.exit_code == 0
        data: dict[str, object] = found["data"]
        return data

    assert gtft("store")["rig"] is None
    assert gtft("history", "run-done")["versions"] == []
    with pytest.raises(GtftError, match="keeps no versions"):
        gtft("history", "run-done", "--at", "main")
    events = gtft("history", "run-done")["events"]
    assert gtft("store", "move", "--rig", "finetune", "--as", ME)["runs"] == 3
    seen = gtft("store")
    assert seen["rig"] == "finetune" and str(seen["store"]).startswith("mysql+pymysql://root@")
    assert gtft("history", "run-done")["events"] == events
    then = gtft("history", "run-done", "--at", "main")
    assert isinstance(then["stages"], list) and len(then["stages"]) == 4
    assert gtft("history", "run-done", "--at", "2001-01-01T00:00:00")["stages"] is None
    plain = CliRunner().invoke(main, ["history", "run-done", "--at", "main"])
    assert "harvest" in plain.stdout and plain.exit_code == 0


def test_a_bead_as_it_is_renamed() -> None:
    bead = Bead(
        "ft-1.2", "t", "Run: gtft run ft-1.2\n\nnot xft-1.2", "task", "open", 2, None, (), {},
        ("ft-1.1",), "ft-1", None,
    )  # fmt: skip
    ids = {"ft-1": "zz-9", "ft-1.1": "zz-9.1", "ft-1.2": "zz-9.2"}
    seen = rename_bead(bead, ids)
    assert seen == replace(
        bead,
        id="zz-9.2",
        description="Run: gtft run zz-9.2\n\nnot xft-1.2",
        needs=("zz-9.1",),
        parent="zz-9",
    )
