"""Registered models with their folders, made by hand: a workspace to keep, compare and prune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, stage_artifact, write_json
from gtft.contract import STAGES
from gtft.recipe.schema import Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, DeploymentRow, ModelRow, Run, StageRow
from gtft.records.store import Store
from gtft.records.unit import Unit
from gtft.runner.workspace import Workspace

RATE = {"passed": 1, "rate": 0.5, "low": 0.4, "high": 0.6}
SUITE = {"n": 2, "base": {**RATE, "rate": 0.25}, "tuned": RATE, "gain": 0.25}


def make_recipe(role: str, **tables: Any) -> dict[str, Any]:
    made = Recipe.model_validate_json(json.dumps({"role": role, **tables}))
    return {"recipe": made.model_dump(mode="json"), "version": 1}


def add_base(ws: Workspace, name: str) -> Path:
    """What the training of a nano base leaves below ``bases``."""
    folder = ws.path / "bases" / name
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"w" * 500)
    return folder


def add_run(
    ws: Workspace, run_id: str, role: str = "witness", *, state: str = "done", **tables: Any
) -> None:
    now = ws.store.now_us()
    run = Run(
        run_id, "mol-x", "sha256:r", make_recipe(role, **tables), role, None, "mayor", str(ws.path),
        "run", now,
    )  # fmt: skip
    rows = tuple(
        StageRow(run_id, s, n, None, state, None, "", None, None, 0, None, None, None, None, now)
        for n, s in enumerate(STAGES)
    )
    ws.store.add_run(run, rows)
    work = ws.job_dir(run_id, "train") / "work" / "checkpoint-8"
    work.mkdir(parents=True)
    (work / "optimizer.pt").write_bytes(b"o" * 1000)


def add_model(
    ws: Workspace,
    n: int,
    role: str = "witness",
    *,
    status: str = "approved",
    base: str = "nano-0123456789ab",
    summary: dict[str, Any] | None = None,
    corpus: dict[str, Any] | None = None,
    corpus_artifact: Artifact | None = None,
    evaluated: dict[str, Any] | None = None,
    **tables: Any,
) -> ModelRow:
    """Model ``n`` of a role with all four artifacts. ``summary`` and ``corpus``: more of those summaries; ``tables``:
    of the recipe."""
    run_id = f"run-{role}-{n}"
    add_run(ws, run_id, role, **tables)
    made = corpus_artifact or _make(
        ws, "corpus", {"train": 8, "heldout": 2, "n": n} | (corpus or {})
    )
    ancestors = [v for k, v in (summary or {}).items() if k in ("continues", "stacks_on")]
    told = {"name": base, "path": f"bases/{base}", "id": f"sha256:{base}", "quantization": "nf4"}
    adapter = _make(
        ws, "adapter",
        {
            "base": told | {"revision": None},
            "adapter": {"trainable": 9, "r": 4, "alpha": 8, "files_bytes": 300},
            "tokens": {"supervised": 5}, "rows": 8, "empty_rows": 0, "steps": 2, "epochs": 1.0,
            "loss": {"first": 2.0, "last": 1.0, "series": [[1, 2.0]]}, "hyperparameters": {},
            "n": n, "role": role,
        } | (summary or {}),
        (made.id, *ancestors), {"base.json": told | {"files": {"config.json": "ab" * 32}}},
    )  # fmt: skip
    report = _make(
        ws, "eval",
        {
            "suites": {"heldout": SUITE | {"capabilities": {"safety": SUITE}}},
            "gates": [{"name": "g", "told": "t", "met": True}], "verdict": "better",
            "candidates": {"base": {"id": told["id"]}, "tuned": {"adapter": adapter.id}},
        } | (evaluated or {}),
        (made.id, adapter.id),
    )  # fmt: skip
    card = _make(ws, "card", {"model": f"{role}-{n}", "base": base}, (adapter.id, report.id))
    row = ModelRow(
        adapter.id, f"{role}-{adapter.path.name.removeprefix('adapter-')}", role, 0, status, run_id,
        made.id, adapter.id, report.id, card.id, ws.store.now_us(),
    )  # fmt: skip
    ws.store.units.run(lambda u: _add(ws.store, u, row, (made, adapter, report, card), ws.path))
    return find(ws, row)


def add_export(ws: Workspace, model: ModelRow, form: str = "gguf", **summary: Any) -> Artifact:
    made = _make(ws, "export", {"format": form, **summary}, (model.adapter_id,))
    row = _row(made, ws.path, ws.store.now_us())
    Deployments(ws.store).add_artifact(
        row, (model.adapter_id,), model=model, actor="ann", text=form
    )
    return made


def deploy(ws: Workspace, model: ModelRow, n: int, *, rig: str = "", end: str = "") -> None:
    rows, now = Deployments(ws.store), ws.store.now_us()
    row = DeploymentRow(
        f"d{n}", model.id, model.role, rig, "live", "preparing", None, "", "mayor", {}, {}, now, now
    )  # fmt: skip
    rows.start(row, model)
    rows.activate(row.id, detail={}, ended={}, statuses={}, actor="mayor", text="")
    if end:
        rows.end(row.id, end, statuses={}, actor="mayor", text="")


def find(ws: Workspace, model: ModelRow) -> ModelRow:
    return next(m for m in ws.store.list_models() if m.id == model.id)


def _make(
    ws: Workspace,
    kind: str,
    summary: dict[str, Any],
    parents: tuple[str, ...] = (),
    files: dict[str, Any] | None = None,
) -> Artifact:
    with stage_artifact(ws.artifacts, kind, parents) as staging:
        for name, value in {"summary.json": summary, **(files or {})}.items():
            write_json(staging.path / name, value)
    return staging.result


def _row(made: Artifact, workspace: Path, now_us: int) -> ArtifactRow:
    summary = json.loads((made.path / "summary.json").read_bytes())
    return ArtifactRow(made.id, made.kind, str(made.path.relative_to(workspace)), summary, now_us)


def _add(
    store: Store, u: Unit, model: ModelRow, made: tuple[Artifact, ...], workspace: Path
) -> None:
    for artifact in made:
        store._add_artifact(u, _row(artifact, workspace, model.created_us), artifact.parents)
    store._add_model(u, model)
