"""Where a model comes from and what came of it: one reading of the store, and of the base's hashes on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import short_id
from gtft.errors import EvidenceError
from gtft.models.registry import Lineage, trace_lineage
from gtft.records.ancestry import list_ancestors, list_corpora
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance
from gtft.records.rows import (
    AliasRow,
    ArtifactRow,
    DeploymentRow,
    IncidentRow,
    ModelRow,
    WithdrawalRow,
)
from gtft.records.store import Store

BASE_FILE = "base.json"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class BaseLine:
    """The base as the training recorded it; ``files``: name → sha256, empty when they are not recorded any more."""

    name: str
    id: str
    revision: str | None
    quantization: str
    files: dict[str, str]


@dataclass(frozen=True)
class Story:
    """A model with what it was made from and what was made from it.

    ``continues`` and ``stacks_on``: the id of an earlier adapter, "" for none. ``children``: models whose training
    went on from this one or lies on it. ``corpora``: what its weights learnt from, by that adapter, and the
    ``withdrawals`` of it. ``pruned``: artifact id → when its bytes were removed,
    microseconds, of what was not put back.
    """

    lineage: Lineage
    base: BaseLine
    continues: str
    stacks_on: str
    aliases: tuple[AliasRow, ...]
    exports: tuple[ArtifactRow, ...]
    deployments: tuple[DeploymentRow, ...]
    incidents: tuple[IncidentRow, ...]
    corpora: dict[str, str]
    withdrawals: tuple[WithdrawalRow, ...]
    children: tuple[ModelRow, ...]
    pruned: dict[str, int]


def trace_model(store: Store, model: ModelRow, workspace: Path) -> Story:
    """Raises EvidenceError that names what the store has not."""
    found = trace_lineage(store, model)
    rows = Deployments(store)
    corpora = list_corpora(store, model)
    summary = found.adapter.summary
    return Story(
        lineage=found,
        base=_read_base(found.adapter, workspace),
        continues=str(summary.get("continues") or ""),
        stacks_on=str(summary.get("stacks_on") or ""),
        aliases=tuple(a for a in rows.list_aliases() if a.model_id == model.id),
        exports=tuple(rows.list_children(model.adapter_id, "export")),
        deployments=tuple(d for d in rows.list_deployments() if d.model_id == model.id),
        incidents=tuple(i for i in rows.list_incidents() if i.model_id == model.id),
        corpora=corpora,
        withdrawals=tuple(
            w
            for w in Governance(store).list_withdrawals()
            if not corpora.keys().isdisjoint(w.touched)
        ),
        children=tuple(_list_children(store, model)),
        pruned={
            gone: at
            for gone, at in rows.list_pruned().items()
            if (row := store.find_artifact(gone)) is None or not (workspace / row.path).is_dir()
        },
    )


def _list_children(store: Store, model: ModelRow) -> list[ModelRow]:
    below = []
    for other in store.list_models():
        row = store.find_artifact(other.adapter_id)
        if row is not None and model.adapter_id in list_ancestors(row):
            below.append(other)
    return below


def _read_base(adapter: ArtifactRow, workspace: Path) -> BaseLine:
    base: dict[str, Any] = adapter.summary.get("base") or {}
    path = workspace / adapter.path / BASE_FILE
    files: dict[str, str] = {}
    if path.is_file() and path.stat().st_size <= _MOST_BYTES:
        try:
            doc = json.loads(path.read_text("utf-8"))
            files = {str(k): str(v) for k, v in (doc.get("files") or {}).items()}
        except (OSError, ValueError, AttributeError) as e:
            raise EvidenceError(
                f"{BASE_FILE} of adapter {short_id(adapter.id)} cannot be read",
                why=str(e),
                fix="gtft doctor",
            ) from e
    return BaseLine(
        name=str(base.get("name") or "not recorded"),
        id=str(base.get("id") or ""),
        revision=base.get("revision"),
        quantization=str(base.get("quantization") or ""),
        files=files,
    )
