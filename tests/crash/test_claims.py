"""Eight processes claim two hundred ready beads: each bead is claimed once."""

import multiprocessing as mp
from collections import Counter
from pathlib import Path

from gtft.beads.ledger import map_state
from gtft.contract import STAGES
from gtft.records.rows import Run, StageRow
from gtft.runner.dispatch import finish_dispatch
from gtft.runner.lease import claim_next
from gtft.runner.workspace import open_workspace

BEADS = 200
PROCESSES = 8


def claim_all(
    path: Path, name: str, start: "mp.synchronize.Event", out: "mp.Queue[list[str]]"
) -> None:
    ws = open_workspace(path)
    start.wait()
    won: list[str] = []
    while (claim := claim_next(ws, name)) is not None:
        won.append(claim.stage.bead_id or "")
    out.put(won)


def test_each_bead_is_claimed_once(tmp_path: Path) -> None:
    ws = open_workspace(tmp_path)
    for n in range(BEADS):
        run = Run(
            f"run-{n:03}",
            "mol-x",
            "sha256:r",
            {"recipe": {}},
            "witness",
            None,
            "me",
            str(tmp_path),
            "run",
            ws.store.now_us(),
        )
        rows = tuple(
            StageRow(
                run.id, s, p, None, "ready", None, "", None, None, 0, None, None, None, None, 0
            )
            for p, s in enumerate(STAGES)
        )
        ws.store.add_run(run, rows)
        finish_dispatch(ws, run)
    context = mp.get_context("spawn")
    start, out = context.Event(), context.Queue()
    people = [
        context.Process(target=claim_all, args=(tmp_path, f"worker/{n}", start, out))
        for n in range(PROCESSES)
    ]
    for p in people:
        p.start()
    start.set()
    won = [out.get(timeout=300) for _ in people]
    for p in people:
        p.join(timeout=60)
    claimed = Counter(bead for beads in won for bead in beads)
    assert len(claimed) == BEADS
    assert set(claimed.values()) == {1}
    for row in ws.store.list_stages(state="active"):
        bead = ws.ledger.show(row.bead_id or "")
        assert map_state(bead) == "active"
        assert bead.assignee == row.worker
