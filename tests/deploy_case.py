"""A town of files (no program of it runs) with models that may be deployed, for the tests of the switch."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.artifact import short_id, stage_artifact, write_json
from gtft.recipe.schema import Recipe
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, ModelRow, Run, make_ready
from gtft.records.store import Store
from gtft.runner.deployment import Plan, carry_out, find_town, plan_deployment
from gtft.runner.deployment_files import Wanted
from gtft.runner.rollback import finish_removal
from gtft.runner.switch import Removal, read_journal, remove
from gtft.runner.workspace import Workspace, open_workspace
from gtft.service import Mode

URL = "http://127.0.0.1:9"
SETTINGS = '{\n  "type": "town-settings",\n  "version": 1,\n  "_comment": "ours",\n  "default_agent": "claude"\n}\n'


BACK = Removal(reason="rolled-back", text="by hand", actor="me", at_us=1)


def make_town(folder: Path, *rigs: str, settings: str | None = SETTINGS) -> Path:
    """What gt's own files say of a town, and no more."""
    root = folder / "town"
    (root / "mayor").mkdir(parents=True)
    (root / "mayor" / "town.json").write_text('{"type":"town","version":2,"name":"tt"}')
    known = {r: {"beads": {"prefix": r[:2]}} for r in rigs or ("gizmo",)}
    (root / "mayor" / "rigs.json").write_text(json.dumps({"version": 1, "rigs": known}))
    for rig in known:
        (root / rig).mkdir()
    if settings is not None:
        write(root / "settings" / "config.json", settings)
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def make_agent(folder: Path, *names: str) -> dict[str, str]:
    """Programs with the names of agents on a PATH of their own, and the environment that has it."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name in names or ("claude",):
        path = write(bin_folder / name, "#!/bin/sh\nexit 0\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(folder)}


def open_town(root: Path, environ: Mapping[str, str]) -> Workspace:
    return open_workspace(root / ".gtft", environ=environ)


def make_model(
    ws: Workspace,
    mark: str,
    role: str = "witness",
    *,
    safe: bool = True,
    status: str = "approved",
    recipe: dict[str, Any] | None = None,
) -> ModelRow:
    """A registered model with artifacts on disk; its eval is green when it is ``safe``."""
    store = ws.store
    run_id = f"run-{mark}"
    doc = Recipe.model_validate_json(json.dumps({"role": role, **(recipe or {})}))
    document = {"recipe": doc.model_dump(mode="json")}
    now = store.now_us()
    run = Run(run_id, "mol-x", "sha256:r", document, role, "ft-1", "me", str(ws.path), "run", now)
    store.add_run(run, (make_ready(run_id, "harvest", 0, now),))
    ids: dict[str, str] = {}
    summaries: dict[str, dict[str, Any]] = {
        "corpus": {"train": 10, "mark": mark},
        "adapter": {"base": {"name": "nano-1", "path": "bases/nano-1", "quantization": "nf4"}},
        "eval": _eval(safe),
        "card": {"mark": mark},
    }
    for kind, summary in summaries.items():
        with stage_artifact(ws.artifacts, kind, tuple(ids.values())) as s:
            write_json(s.path / "summary.json", {**summary, "of": mark})
        made = s.result
        path = str(made.path.relative_to(ws.path))
        row = ArtifactRow(made.id, kind, path, summary, now)
        store.units.run(lambda u, r=row, p=made.parents: store._add_artifact(u, r, p))
        ids[kind] = made.id
    model = ModelRow(
        ids["adapter"], f"{role}-{short_id(ids['adapter'])}", role, 0, status, run_id,
        ids["corpus"], ids["adapter"], ids["eval"], ids["card"], now,
    )  # fmt: skip
    store.units.run(lambda u: store._add_model(u, model))
    return find_model(store, model.id)


def find_model(store: Store, model_id: str) -> ModelRow:
    return next(m for m in store.list_models() if m.id == model_id)


def _eval(safe: bool) -> dict[str, Any]:
    def compare(n: int, tuned: int) -> dict[str, Any]:
        base = {"passed": 0, "rate": 0.0, "low": 0.0, "high": 0.1}
        rate = {"passed": tuned, "rate": tuned / n, "low": 0.0, "high": 1.0}
        return {"n": n, "base": base, "tuned": rate, "gain": tuned / n, "p_value": 0.01}

    passed = 12 if safe else 7
    gate = {"name": "safety", "told": f"all safety items; measured {passed} of 12", "met": safe}
    return {
        "suites": {
            "authored": {**compare(12, passed), "capabilities": {"safety": compare(12, passed)}}
        },
        "gates": [gate],
        "verdict": "Better.",
        "candidates": {"base": {"id": "sha256:b"}, "tuned": {"adapter": "sha256:a"}},
    }


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and sha256 of every file of the town but gtft's own; where the town is counts as the same everywhere."""
    found: dict[str, tuple[int, str]] = {}
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n != ".gtft"]
        for name in (*names, *files):
            path = Path(folder) / name
            data = path.read_bytes().replace(bytes(root), b"TOWN") if path.is_file() else b""
            digest = hashlib.sha256(data).hexdigest()
            found[str(path.relative_to(root))] = (path.lstat().st_mode, digest)
    return found


class Place:
    """A town with one model, and the verbs of the switch without the command line."""

    def __init__(self, folder: Path, *rigs: str, settings: str | None = None) -> None:
        given = {} if settings is None else {"settings": settings}
        folder.mkdir(exist_ok=True)
        self.root = make_town(folder, *rigs, **given)
        self.environ = make_agent(folder)
        self.ws = open_town(self.root, self.environ)
        self.count = 0

    def plan(
        self, model: ModelRow, mode: Mode = "live", rig: str = "", url: str = URL, **given: Any
    ) -> Plan:
        self.count += 1
        url = url if mode != "shadow" else ""
        wanted = Wanted(model, mode, model.role, rig, url, "me", **given)
        launcher = ("gtft", "deploy", "launch", "J", "--")
        wanted = Wanted(**{**wanted.__dict__, "launcher": launcher})
        town = find_town(self.ws)
        return plan_deployment(self.ws, town, wanted, f"dep-{self.count}", self.environ)

    def deploy(self, model: ModelRow, mode: Mode = "live", rig: str = "", **given: Any) -> None:
        carry_out(self.ws, self.plan(model, mode, rig, **given), lambda: None)

    def back(self, role: str = "witness", rig: str = "") -> list[str]:
        journal = read_journal(self.ws.path, role, rig)
        assert journal is not None
        off, notes = remove(self.ws.path, journal, BACK)
        finish_removal(self.ws, off)
        return notes

    def settings(self, rig: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / rig / "settings/config.json").read_bytes())
        return found


def rows(ws: Workspace) -> list[tuple[str, str, str, str | None]]:
    return [(d.id, d.mode, d.state, d.reason) for d in Deployments(ws.store).list_deployments()]
