"""Two or three models side by side, from the store alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gtft.models.adapter_figures import read_adapter
from gtft.models.card_since import read_export
from gtft.models.eval_figures import Comparison, read_eval
from gtft.models.registry import trace_lineage
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, ModelRow
from gtft.records.store import Store


@dataclass(frozen=True)
class Score:
    """One model on one suite or capability: shares with 95 % intervals; ``gain`` over its own base."""

    n: int
    share: float
    low: float
    high: float
    gain: float


@dataclass(frozen=True)
class Column:
    """One model. ``scores``: "suite" or "suite: capability" → score. ``bytes``: of the adapter's weights, None when
    the training did not record it. ``exports``: kind → bytes, and the mean KL to the trained model, nats per token."""

    model: ModelRow
    base: str
    base_id: str
    train: int
    heldout: int
    loss_last: float
    bytes: int | None
    gates_met: bool
    advice: str | None
    scores: dict[str, Score]
    deployments: tuple[dict[str, Any], ...]
    exports: dict[str, dict[str, float | None]]
    settings: dict[str, Any]


@dataclass(frozen=True)
class SideBySide:
    """``recipe``: key → its value in each, for keys that differ."""

    columns: tuple[Column, ...]
    recipe: dict[str, tuple[Any, ...]]

    @property
    def measured(self) -> tuple[str, ...]:
        """Every suite and capability that one of them was measured on, in the first one's order."""
        return tuple(dict.fromkeys(name for c in self.columns for name in c.scores))


def compare_models(store: Store, models: Sequence[ModelRow]) -> SideBySide:
    """Raises EvidenceError that names the figure or artifact which the store does not have."""
    columns = tuple(_read_column(store, m) for m in models)
    keys = sorted({k for c in columns for k in c.settings})
    rows = {k: tuple(c.settings.get(k) for c in columns) for k in keys}
    differ = {k: v for k, v in rows.items() if any(x != v[0] for x in v)}
    return SideBySide(columns, differ)


def _read_column(store: Store, model: ModelRow) -> Column:
    found = trace_lineage(store, model)
    rows = Deployments(store)
    recipe = found.run.recipe["recipe"]
    adapter = read_adapter(found.adapter, nano=recipe.get("base", {}).get("model") == "nano")
    measured = read_eval(found.eval)
    scores: dict[str, Score] = {}
    for suite in measured.suites:
        scores[suite.name] = _score(suite.overall)
        scores |= {f"{suite.name}: {c.name}": _score(c) for c in suite.capabilities}
    return Column(
        model=model,
        base=adapter.base.hub_id or adapter.base.name,
        base_id=adapter.base.id,
        train=_count(found.corpus, "train"),
        heldout=_count(found.corpus, "heldout"),
        loss_last=adapter.loss_last,
        bytes=adapter.files_bytes,
        gates_met=all(g.met for g in measured.gates),
        advice=measured.advice,
        scores=scores,
        deployments=tuple(
            {"id": d.id, "role": d.role, "rig": d.rig, "mode": d.mode, "state": d.state}
            | {"reason": d.reason, "figures": d.figures}
            for d in rows.list_deployments()
            if d.model_id == model.id
        ),
        exports={
            e.format: {
                "bytes": e.bytes,
                "kl": e.kl_mean,
            }
            for row in rows.list_children(model.adapter_id, "export")
            for e in (read_export(row),)
        },
        settings=_flatten(recipe),
    )


def _score(c: Comparison) -> Score:
    return Score(c.n, c.tuned.share, c.tuned.low, c.tuned.high, c.gain)


def _count(row: ArtifactRow, key: str) -> int:
    value = row.summary.get(key)
    return value if isinstance(value, int) else 0


def _flatten(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{before}{key}"
        if isinstance(value, dict) and value:
            out |= _flatten(value, f"{name}.")
        else:
            out[name] = json.loads(json.dumps(value))
    return out
