"""The moves in code against the real bd: what is refused, which status and holder a bead has, and what is ready."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.evals.checks.lifecycle import Bead, Beads, Refused, run_command
from town_case import make_environ, need_tools, run

ME, OTHER = "loom/polecats/wilma", "loom/polecats/ulrik"
DONE = '--reason "merged and looked at by the crew"'
# Who types what, in one row; the beads are those of START.
TYPED = (
    (ME, "bd dep add tt-2 tt-1"),
    (ME, "bd dep add tt-1 tt-2"),
    (ME, "bd dep add tt-1 tt-1"),
    (ME, f"bd close tt-2 {DONE}"),
    (ME, "bd update tt-1 --claim"),
    (OTHER, "bd update tt-1 --claim"),
    (ME, "bd update tt-1 --claim"),
    (ME, f"bd close tt-1 {DONE}"),
    (OTHER, "bd update tt-1 --claim"),
    (OTHER, "bd update tt-2 --claim"),
    (OTHER, 'bd update tt-2 --status open --assignee ""'),
    (ME, "bd reopen tt-1"),
    (ME, "bd dep remove tt-2 tt-1"),
    (ME, "bd dep add tt-2 tt-9"),
    (ME, "bd defer tt-2"),
    (ME, "bd update tt-2 --claim"),
    (ME, "bd undefer tt-2"),
    (ME, "bd update tt-3 --claim"),
    (ME, "bd update tt-3 --status in_progress"),
    (ME, "bd update tt-3 --status gone"),
    (ME, f"bd close tt-4 {DONE}"),
    (ME, f"bd close tt-e {DONE}"),
    (ME, f"bd close tt-e.1 {DONE}"),
    (ME, f"bd close tt-e {DONE}"),
    (ME, f"bd close tt-m.1 {DONE}"),
    (ME, f"bd close tt-m.2 {DONE}"),
    (ME, f"bd close tt-9 {DONE}"),
)
START = Beads(
    {
        "tt-1": Bead(),
        "tt-2": Bead(),
        "tt-3": Bead("hooked", ME),
        "tt-4": Bead("pinned"),
        "tt-e": Bead(kind="epic"),
        "tt-e.1": Bead(parent="tt-e"),
        "tt-m": Bead(kind="molecule"),
        "tt-m.1": Bead(parent="tt-m"),
        "tt-m.2": Bead(parent="tt-m"),
    }
)

Bd = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bd(tmp_path: Path) -> Bd:
    need_tools("bd")
    environ = make_environ(tmp_path)
    folder = tmp_path / "rig"
    folder.mkdir()

    def call(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("bd", *argv, environ=environ, cwd=folder, check=check)

    call(
        "init", "-p", "tt", "--non-interactive", "--skip-hooks", "--skip-agents", "--stealth", "-q"
    )
    return call


def read_rows(bd: Bd, *argv: str) -> dict[str, tuple[str, str]]:
    doc = json.loads(bd(*argv, "--limit", "0", "--json").stdout)
    rows = doc if isinstance(doc, list) else doc["data"]
    return {r["id"]: (r["status"], r.get("assignee", "")) for r in rows}


def test_every_move_is_bds_own(bd: Bd) -> None:
    for id, bead in START.rows.items():
        where = ["--parent", bead.parent] if bead.parent else [f"--id={id}"]
        made = bd("create", f"--title={id}", f"--type={bead.kind}", *where, "--silent")
        assert made.stdout.strip() == id
        if bead != Bead(kind=bead.kind, parent=bead.parent):
            bd("update", id, "--status", bead.status, "--assignee", bead.assignee)
    beads = ready = START
    for actor, typed in TYPED:
        words = shlex.split(typed)
        real = bd(*words[1:], "--actor", actor, check=False)
        before = beads
        try:
            beads, refused = run_command(beads, words, actor), False
        except Refused:
            refused = True
        assert refused == (real.returncode != 0), f"{typed}: {real.stdout}{real.stderr}"
        if not refused and beads != before:
            expected = {k: (b.status, b.assignee) for k, b in beads.rows.items()}
            assert read_rows(bd, "list", "--all") == expected, typed
        if beads.ready() != ready.ready():
            ready = beads
            assert sorted(read_rows(bd, "ready")) == beads.ready(), typed
