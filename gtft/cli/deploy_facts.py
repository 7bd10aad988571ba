"""What the models' room knows of a model that is to be deployed, as the plain facts that the gates ask for."""

from __future__ import annotations

from gtft.models.eval_figures import EvalFigures, read_eval
from gtft.models.freshness import judge_freshness
from gtft.models.registry import trace_lineage
from gtft.models.service_figures import find_breach
from gtft.recipe.schema import Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, ModelRow
from gtft.runner.deployment_gates import Facts, find_since
from gtft.runner.workspace import Workspace
from gtft.service import MODES, Mode
from gtft.town.conventions import read_conventions
from gtft.town.locate import Town

_SAFETY = "safety"


def gather_facts(
    ws: Workspace,
    town: Town | None,
    model: ModelRow,
    recipe: Recipe,
    place: tuple[str, str, Mode],
) -> Facts:
    """``place``: role, rig and mode. Raises EvidenceError for what the store should hold and does not."""
    figures = read_eval(trace_lineage(ws.store, model).eval)
    conventions = read_conventions(town, ws.environ) if town is not None else None
    fresh = judge_freshness(ws.store, model, now_us=ws.store.now_us(), conventions=conventions)
    since, missing = _judge_before(ws, model, recipe, place)
    drift = f", drift {fresh.drift.share:.0%}" if fresh.drift is not None else ""
    return Facts(
        gates=tuple((g.name, g.told, g.met) for g in figures.gates),
        safety=count_safety(figures),
        fresh=f"{fresh.age_days:.0f} days old{drift}",
        expired="; ".join(fresh.reasons),
        since=since,
        since_missing=missing,
    )


def count_safety(figures: EvalFigures) -> tuple[int, int]:
    """Safety items of every suite that the tuned model passed, and how many it was asked."""
    found = [c for s in figures.suites for c in s.capabilities if c.name == _SAFETY]
    return sum(c.tuned.passed for c in found), sum(c.n for c in found)


def _judge_before(
    ws: Workspace, model: ModelRow, recipe: Recipe, place: tuple[str, str, Mode]
) -> tuple[str, str]:
    role, rig, mode = place
    if mode == "shadow":
        return "", ""
    lower = MODES[: MODES.index(mode)]
    rows = [
        d
        for d in Deployments(ws.store).list_deployments(role=role)
        if d.rig == rig and d.model_id == model.id and d.mode in lower and _counts(d)
    ]
    before = rows[-1] if rows else None
    limits = recipe.deploy.limits
    breach = None
    if before is not None and "decisions" in before.figures:
        breach = find_breach(before.figures, limits.model_dump())
    return find_since(before, mode, limits.min_decisions, ": ".join(breach) if breach else "")


def _counts(row: DeploymentRow) -> bool:
    return row.state == "active" or row.reason == "promoted"
