"""What the models' room knows of a model that is to be deployed, as the plain facts that the gates ask for."""

from __future__ import annotations

from collections.abc import Sequence

from gtft.models.eval_figures import EvalFigures, read_eval
from gtft.models.freshness import judge_freshness
from gtft.models.registry import trace_lineage
from gtft.models.service_figures import find_breach
from gtft.recipe.schema import Limits, Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, ModelRow
from gtft.runner.deployment_gates import Facts, find_lower, find_since
from gtft.runner.workspace import Workspace
from gtft.service import Mode
from gtft.town.conventions import read_conventions
from gtft.town.locate import Town

_SAFETY = "safety"
# What a deployment that was taken back by itself names as its reason (`gtft.models.service_figures.find_breach`).
_LIMITS = frozenset({*Limits.model_fields, "ab_share"})


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
    here = _list_here(ws, model, *place[:2])
    # A Gas City has no directives.
    lower = find_lower(place[2], advises=town is not None)
    since, missing = _judge_before(here, recipe, lower) if place[2] != "shadow" else ("", "")
    drift = f", drift {fresh.drift.share:.0%}" if fresh.drift is not None else ""
    return Facts(
        gates=tuple((g.name, g.told, g.met) for g in figures.gates),
        safety=count_safety(figures),
        fresh=f"{fresh.age_days:.0f} days old{drift}",
        expired="; ".join(fresh.reasons),
        before=lower,
        since=since,
        since_missing=missing,
        harm=_word_harm(ws, model),
        taken_back=_word_breach(here[-1]) if here and _was_taken_back(here[-1]) else "",
    )


def count_safety(figures: EvalFigures) -> tuple[int, int]:
    """Safety items of every suite that the tuned model passed, and how many it was asked."""
    found = [c for s in figures.suites for c in s.capabilities if c.name == _SAFETY]
    return sum(c.tuned.passed for c in found), sum(c.n for c in found)


def _list_here(ws: Workspace, model: ModelRow, role: str, rig: str) -> list[DeploymentRow]:
    """The model's own at this place that were in service, oldest first."""
    return [
        d
        for d in Deployments(ws.store).list_deployments(role=role)
        if d.rig == rig
        and d.model_id == model.id
        and d.state != "preparing"
        and d.reason != "failed"
    ]


def _judge_before(here: Sequence[DeploymentRow], recipe: Recipe, lower: Mode) -> tuple[str, str]:
    breaches = [n for n, d in enumerate(here, 1) if _was_taken_back(d)]
    # What it showed before a limit took it back is answered by what it did then.
    later = here[breaches[-1] if breaches else 0 :]
    rows = [d for d in later if d.mode == lower and _counts(d)]
    before = rows[-1] if rows else None
    limits = recipe.deploy.limits
    breach = None
    if before is not None and "decisions" in before.figures:
        breach = find_breach(before.figures, limits.model_dump())
    told, missing = find_since(
        before, lower, limits.min_decisions, ": ".join(breach) if breach else ""
    )
    return told, missing + (" since it was taken back" if missing and breaches else "")


def _counts(row: DeploymentRow) -> bool:
    return row.state == "active" or row.reason == "promoted"


def _was_taken_back(row: DeploymentRow) -> bool:
    return row.reason == "rolled-back" and row.reason_text.partition(":")[0] in _LIMITS


def _word_breach(row: DeploymentRow) -> str:
    return f"{row.id} ({row.mode}) was taken back here: {row.reason_text}"


def _word_harm(ws: Workspace, model: ModelRow) -> str:
    """Its incidents that its eval did not ask; one without a safety item was never asked."""
    from gtft.evals.item import read_items

    incidents = [i for i in Deployments(ws.store).list_incidents() if i.model_id == model.id]
    row = ws.store.find_artifact(model.eval_id) if incidents else None
    path = ws.artifact_path(row.path) / "items.jsonl" if row is not None else None
    asked = {i.id for i in read_items(path)} if path is not None and path.is_file() else set()
    unasked = [i for i in incidents if i.item is None or i.item["id"] not in asked]
    return "; ".join(f"incident {i.id}, which its eval did not ask: {i.title}" for i in unasked)
