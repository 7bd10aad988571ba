"""What flows back from service into the next harvest: whose answers they were, and what was done better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.errors import EvidenceError
from gtft.runner import lineage
from gtft.runner.moves import read_recipe
from gtft.runner.workspace import Workspace
from gtft.service import FOLDER, PREFERENCES_FOLDER, AnswerLine, add_answer
from gtft.workers.harvest import make_settings
from watch_case import SINCE, deploy, open_town, stamp, write_patrol


def put_line(ws: Workspace, session: str, took: str, why: str = "") -> None:
    line = {
        "at_us": 1,
        "deployment": "dep-live",
        "mode": "live",
        "took": took,
        "why": why,
        "session": session,
    }
    add_answer(ws.path, AnswerLine.model_validate(line))


def harvest(
    ws: Workspace, folder: Path, out: Path, **more: Any
) -> tuple[list[dict[str, Any]], Path]:
    """The examples of a harvest as the model's run would make it now, and the corpus."""
    (run,) = ws.store.list_runs()
    job = lineage.make_job(ws, run, out / "work")
    settings: Settings = replace(make_settings(job, read_recipe(run)), **more)
    made = make_corpus(settings, folder, out / "artifacts", out / "work", [], lambda *_: None)
    lines = [
        json.loads(line)
        for name in ("train.jsonl", "heldout.jsonl")
        for line in made.file(name).read_text().splitlines()
    ]
    return lines, made.path


def end_well(ws: Workspace, town: Path, session: str) -> None:
    """What the agent did in a session was closed, and is so still."""
    hook = {"session": session, "role": "gizmo/witness", "actor": "gizmo/witness", "bead": "gz-81"}
    bead = {"id": "gz-81", "title": "Look", "status": "closed", "closed_at": stamp(SINCE), "updated_at": stamp(SINCE),
            "close_reason": "looked at pump 1"}  # fmt: skip
    for path, doc in ((ws.path / "sessions.jsonl", hook), (town / "beads" / "issues.jsonl", bead)):
        with path.open("a") as f:
            f.write(json.dumps(doc) + "\n")


def test_sessions_that_our_model_answered_in_are_our_own(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path, sessions=12)
    deploy(ws, model, "live")
    ours, named, previous = (write_patrol(tmp_path, n) for n in (0, 1, 2))
    # This agent writes down the name that the server answered under; the other writes what it was set to.
    write_patrol(tmp_path, 1, model=model.name)
    put_line(ws, ours, "model")
    put_line(ws, named, "model")
    put_line(ws, previous, "previous", "timeout")
    (run,) = ws.store.list_runs()
    served = lineage.make_job(ws, run, tmp_path / "w").governance.served
    assert served == {ours: model.name, named: model.name}
    lines, _ = harvest(ws, tmp_path, tmp_path / "all", own_model=1.0, heldout=0.0)
    of = {line["origin"]["session"]: line for line in lines}
    mark = f"own:{model.name}:1"
    for session in (ours, named):
        assert of[session]["provenance"] == "own" and of[session]["by"][-1] == mark
    assert of[previous]["provenance"] == "agent" and of[previous]["by"][-1] == "agent:made-up"
    # Nothing of our own is trained on unless the recipe says so.
    lines, _ = harvest(ws, tmp_path, tmp_path / "none", heldout=0.0)
    left = {line["origin"]["session"] for line in lines}
    assert previous in left and not {ours, named} & left


def test_what_the_agent_did_better_becomes_a_pair_with_its_session(tmp_path: Path) -> None:
    ws, _ = open_town(tmp_path, sessions=12)
    lines, _ = harvest(ws, tmp_path, tmp_path / "first", heldout=0.0)
    one = next(line for line in lines if line["source"] == "claude-code")
    end_well(ws, tmp_path, one["origin"]["session"])
    *prompt, answer = one["messages"]
    row = {
        "example": one["id"],
        "prompt": prompt,
        "tools": [],
        "chosen": answer["content"],
        "rejected": '{"action": "stampede", "reason": "why not"}',
    }
    gone = {**row, "example": "ex-0000000000000000"}
    folder = ws.path / FOLDER / PREFERENCES_FOLDER
    folder.mkdir(parents=True)
    (folder / "dep-shadow.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(gone)}\n")
    _, corpus = harvest(ws, tmp_path, tmp_path / "second", heldout=0.0)
    (pair,) = [json.loads(x) for x in (corpus / "preferences.jsonl").read_text().splitlines()]
    assert pair["why"] == "shadow" and pair["prompt"] == prompt
    assert pair["chosen"][0]["content"] == answer["content"]
    assert "stampede" in pair["rejected"][0]["content"]
    (folder / "dep-shadow.jsonl").write_text('{"example": "ex-1"}\n')
    with pytest.raises(EvidenceError, match="is no preference"):
        harvest(ws, tmp_path, tmp_path / "third")
