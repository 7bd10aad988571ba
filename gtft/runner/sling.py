"""Giving a run to a polecat: ``gt sling``, as the town accepts it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gtft.errors import TownError, UsageError
from gtft.records.rows import Run
from gtft.runner.identity import fills_role, find_actor
from gtft.runner.workspace import Home, Workspace
from gtft.tool import Ran, run_tool

# gt starts a polecat's worktree, session and agent.
SLING_SECONDS = 300.0


@dataclass(frozen=True)
class Slung:
    """What was slung, the agent that has it on its hook, and both in words."""

    bead: str
    holder: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_sling(ws: Workspace, environ: Mapping[str, str]) -> Home:
    """The town to sling in. Raises UsageError without one, and for a polecat: gt lets none sling."""
    if ws.home is None:
        raise UsageError(
            "--sling needs a town, and this workspace is in none",
            why=f"{ws.path / 'config.toml'} has no [town]",
            fix="gtft town install, or leave --sling out and run: gtft work",
        )
    # As gt looks: GT_POLECAT counts only when there is no GT_ROLE.
    role = environ.get("GT_ROLE") or ("polecat" if environ.get("GT_POLECAT") else "")
    if role and fills_role(role, "polecat"):
        raise UsageError(
            f"{find_actor(None, environ)} is a polecat, and gt lets no polecat sling",
            why="dispatching is for the mayor, a witness or crew",
            fix='gt mail send mayor/ -s "dispatch a training" -m "gtft dispatch RECIPE --sling"',
        )
    return ws.home


def sling_run(ws: Workspace, run: Run, environ: Mapping[str, str]) -> Slung:
    """Sling the run's first open stage bead to the workspace's rig; the polecat then carries out the run.

    Not its epic, which a town with a scheduler refuses, and not to another rig, whose prefix differs.
    Raises TownError when gt refuses; the beads are there then, and the command is in the error.
    """
    home = check_sling(ws, environ)
    row = next(s for s in ws.store.list_stages(run.id) if s.state != "done")
    bead = row.bead_id or ""
    argv = make_sling(bead, home.rig.name)
    try:
        ran = run_tool("gt", *argv, environ=environ, cwd=home.town.root, timeout=SLING_SECONDS)
        why = "" if ran.code == 0 else read_error(ran)
    except TownError as e:
        why = e.what
    # gt hooks the bead first and then waits for the agent: what the bead says counts.
    holder = ws.ledger.show(bead).assignee or ""
    if why and not holder:
        raise TownError(
            f"gt would not sling {bead} to {home.rig.name}; the beads of {run.id} are there",
            why=why,
            fix=f"{shlex.join(('gt', *argv))}   (or without a polecat: gtft run {run.id})",
        )
    ws.store.add_event(run.id, row.stage, "slung", find_actor(None, environ), holder)
    # With a scheduler (max_polecats) gt only queues it.
    text = f"{bead} is slung to {holder}" if holder else f"{bead} is queued for {home.rig.name}"
    return Slung(bead, holder, f"{text}, but gt said: {why}" if why else text)


def read_error(ran: Ran) -> str:
    """gt's own words: its line ``Error: …``, which the usage follows."""
    lines = [*ran.stderr.splitlines(), *ran.stdout.splitlines()]
    said = next((x for x in lines if x.startswith("Error:")), "").removeprefix("Error:").strip()
    return said or f"gt exited with {ran.code}"


def make_sling(bead: str, rig: str) -> tuple[str, ...]:
    """The arguments of ``gt``: no polecat formula on top, no merge queue, no convoy."""
    return (
        "sling", bead, rig, "--hook-raw-bead", "--no-merge", "--no-convoy",
        "--args", f"Run: gtft run {bead}",
    )  # fmt: skip
