"""Eight processes claim two hundred ready beads: each bead is claimed once, embedded and in a town."""

import itertools
import multiprocessing as mp
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.beads.bd import BdLedger
from gtft.beads.ledger import map_state
from gtft.beads.local import LocalLedger
from gtft.records.dolt import Target, open_dolt
from gtft.records.store import Store
from gtft.runner.lease import claim_next
from gtft.runner.workspace import Config, Workspace, open_workspace, write_config
from run_case import add_run
from store_case import make_target
from town_case import DoltServer, make_beads, need_tools, run

BEADS = 200
# No lease may lapse during the race, however slow the box: a take-over is a claim too.
CONFIG = Config(lease_seconds=3600.0)
PROCESSES = 8


def open_on_dolt(
    path: Path, target: Target, beads_dir: Path | None, environ: dict[str, str]
) -> Workspace:
    """The store on Dolt; the beads of ``beads_dir`` through ``bd``, or (None) embedded ones."""
    path.mkdir(exist_ok=True)
    store = Store(open_dolt(target), time.time)
    store.migrate()
    ledger = (
        BdLedger(beads_dir, environ)
        if beads_dir
        else LocalLedger(path / "beads.db", "ft", time.time)
    )
    return Workspace(path, CONFIG, store, ledger, time.time, environ)


def claim_all(
    name: str,
    start: "mp.synchronize.Event",
    out: "mp.Queue[list[str]]",
    end: "mp.synchronize.Event",
    how: Callable[..., Workspace],
    *where: object,
) -> None:
    ws = how(*where)
    start.wait()
    won: list[str] = []
    while (claim := claim_next(ws, name)) is not None:
        won.append(claim.stage.bead_id or "")
    out.put(won)
    # What a process that is gone held may be taken over at once.
    end.wait()


def add_runs(ws: Workspace, count: int) -> None:
    for n in range(count):
        add_run(ws, f"run-{n:03}")


def race(processes: int, how: Callable[..., Workspace], *where: object) -> Counter[str]:
    """How often each bead was won."""
    context = mp.get_context("spawn")
    start, out, end = context.Event(), context.Queue(), context.Event()
    people = [
        context.Process(target=claim_all, args=(f"worker/{n}", start, out, end, how, *where))
        for n in range(processes)
    ]
    for p in people:
        p.start()
    start.set()
    won = [out.get(timeout=300) for _ in people]
    end.set()
    for p in people:
        p.join(timeout=60)
    return Counter(bead for beads in won for bead in beads)


def check_claims(ws: Workspace, claimed: Counter[str], count: int) -> None:
    assert len(claimed) == count
    assert set(claimed.values()) == {1}
    rows = ws.store.list_stages(state="active")
    assert len(rows) == count
    for row in rows:
        bead = ws.ledger.show(row.bead_id or "")
        assert map_state(bead) == "active"
        assert bead.assignee == row.worker
        events = [e for e in ws.store.list_events(row.run_id) if e.kind == "claimed"]
        assert [e.actor for e in events] == [row.worker]


def test_each_bead_is_claimed_once(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    ws = open_workspace(tmp_path)
    add_runs(ws, BEADS)
    check_claims(ws, race(PROCESSES, open_workspace, tmp_path), BEADS)


def write_beads(
    folder: Path,
    environ: dict[str, str],
    bead: str,
    stop: "mp.synchronize.Event",
    out: "mp.Queue[int]",
) -> None:
    """Write a bead through ``bd`` until told to stop."""
    for n in itertools.count():
        if stop.is_set():
            out.put(n)
            return
        run("bd", "update", bead, f"--add-label=n{n}", environ=environ, cwd=folder)
        run("bd", "comments", "add", bead, f"word {n}", environ=environ, cwd=folder)


@pytest.mark.parametrize(
    ("ledger", "beads", "processes"),
    [("embedded", BEADS, PROCESSES), ("bd", 16, 4)],
    ids=["dolt-store", "dolt-store-and-bd"],
)
def test_each_bead_is_claimed_once_on_dolt_beside_a_writer_through_bd(
    dolt_server: DoltServer, tmp_path: Path, ledger: str, beads: int, processes: int
) -> None:
    need_tools("bd")
    prefix = f"c{os.getpid()}{processes}"
    beads_dir = make_beads(tmp_path / "rig", dolt_server, prefix)
    environ = dolt_server.environ | {"BEADS_DIR": str(beads_dir), "BEADS_DOLT_AUTO_START": "0"}
    target = make_target(dolt_server, prefix)
    own = run("bd", "create", "--title=other work", "--silent", environ=environ, cwd=tmp_path)
    where = (tmp_path / "ws", target, beads_dir if ledger == "bd" else None, environ)
    ws = open_on_dolt(*where)
    add_runs(ws, beads)
    context = mp.get_context("spawn")
    stop, out = context.Event(), context.Queue()
    bead = own.stdout.strip()
    writer = context.Process(target=write_beads, args=(tmp_path, environ, bead, stop, out))
    writer.start()
    try:
        claimed = race(processes, open_on_dolt, *where)
    finally:
        stop.set()
    written = out.get(timeout=60)
    writer.join(timeout=60)
    check_claims(ws, claimed, beads)
    # Our versions took nothing back of what the other wrote, nor the other of ours.
    seen = BdLedger(beads_dir, environ).show(bead)
    assert written > 0
    assert {f"n{n}" for n in range(written)} == set(seen.labels)
    assert {f"word {n}" for n in range(written)} == set(seen.notes)
