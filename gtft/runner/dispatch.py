"""Dispatch: a resolved recipe becomes a run: one epic bead, four stage beads, rows in the store."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from gtft.beads.ledger import KEEP_LABEL, LABEL, NewBead
from gtft.contract import STAGES
from gtft.errors import TownError
from gtft.recipe.resolve import Resolved
from gtft.records.rows import Run, make_ready
from gtft.runner.workspace import Workspace
from gtft.shelf import find_adapter

TITLES = {
    "harvest": "Harvest a corpus for {role}",
    "train": "Train the adapter for {role}",
    "eval": "Evaluate the adapter for {role}",
    "card": "Write the card of the {role} model",
}
ACCEPTANCE = {
    "harvest": "- [ ] corpus on disk, hash recorded",
    "train": "- [ ] adapter on disk, hash recorded",
    "eval": "- [ ] eval reviewed by a witness",
    "card": "- [ ] card written from the store",
}


def dispatch(ws: Workspace, resolved: Resolved, actor: str, root: Path) -> str:
    """Create a run and its beads; returns the run id. ``root``: where relative source paths start.

    The run's row comes first and its beads carry the run's id, so that a dispatch that was cut off is
    finished by `finish_dispatch` instead of being made twice. Raises TownError when they cannot be made now,
    UsageError when the recipe goes on from an adapter that is not there.
    """
    train = resolved.recipe.train
    for key, given in (("continues", train.continues), ("stacks_on", train.stacks_on)):
        if given:
            find_adapter(ws.artifacts, given, f"train.{key}")
    stamp = time.strftime("%m%d-%H%M%S", time.gmtime(ws.now()))
    run_id = f"run-{stamp}-{uuid.uuid4().hex[:6]}"
    now = ws.store.now_us()
    run = Run(
        id=run_id,
        recipe_name=resolved.formula,
        recipe_hash=resolved.hash,
        recipe=resolved.document,
        role=resolved.recipe.role,
        epic_bead=None,
        actor=actor,
        root=str(root.absolute()),
        desired="run",
        created_us=now,
    )
    stages = tuple(make_ready(run_id, stage, n, now) for n, stage in enumerate(STAGES))
    # A ledger that is away leaves no run behind: what was typed is typed again.
    ws.ledger.find(label=LABEL, metadata={"gtft.run": run_id})
    ws.store.add_run(run, stages)
    try:
        finish_dispatch(ws, run)
    except TownError as e:
        # Who only reads that it went wrong dispatches a second time.
        raise TownError(
            f"{run_id} is dispatched, but its beads are not made yet: {e.what}",
            why=e.why,
            fix=f"once that is mended ({e.fix}): gtft run {run_id}; do not dispatch it again",
        ) from e
    return run_id


def find_sources_root(ws: Workspace, cwd: Path) -> Path:
    """Where relative source paths of a new run start: the town, or without one the current folder."""
    return ws.home.town.root if ws.home is not None else cwd


def finish_dispatch(ws: Workspace, run: Run) -> None:
    """Create the run's beads if they are not there yet, and record their ids. Safe to repeat."""
    found = ws.ledger.find(label=LABEL, metadata={"gtft.run": run.id})
    ids = {b.metadata.get("gtft.stage", ""): b.id for b in found}
    # Somebody may have removed one before its id was noted.
    if not {"epic", *STAGES} <= ids.keys():
        ids = ws.ledger.create_graph(_plan_beads(run), actor=run.actor)
    ws.store.set_beads(run.id, ids["epic"], {s: ids[s] for s in STAGES})


def _plan_beads(run: Run) -> tuple[NewBead, ...]:
    facts = {"gtft.run": run.id, "gtft.recipe": run.recipe_hash}
    epic = NewBead(
        key="epic",
        title=f"gtft: {run.recipe_name} for {run.role}",
        description="Run: gtft run {id}\n\n"
        f"The run of recipe {run.recipe_name}; "
        f"its beads go harvest, train, eval, card. Evidence: gtft runs show {run.id}",
        type="epic",
        labels=(LABEL, KEEP_LABEL),
        metadata={**facts, "gtft.stage": "epic"},
        # An open box keeps `gt done` from closing the bead with the work unfinished (gas-town.md 3.3).
        acceptance="- [ ] eval reviewed by a witness",
    )
    beads = [epic]
    for n, stage in enumerate(STAGES):
        beads.append(
            NewBead(
                key=stage,
                title=TITLES[stage].format(role=run.role),
                description="Run: gtft run {id}\n\n"
                f"Stage {stage} of {run.id}, recipe "
                f"{run.recipe_name}. gtft closes this bead when its evidence holds.",
                labels=(LABEL, KEEP_LABEL, f"gtft:{stage}"),
                metadata={**facts, "gtft.stage": stage},
                acceptance=ACCEPTANCE[stage],
                parent="epic",
                needs=(STAGES[n - 1],) if n else (),
            )
        )
    return tuple(beads)
