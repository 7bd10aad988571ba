"""A session that ran one of Gas Town's own cases is not trained on, wherever the folder of the cases lies."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gtft.artifact import Artifact
from gtft.evals.item import Item
from gtft.evals.promptfoo import read_cases
from gtft.recipe.resolve import resolve
from gtft.runner.dispatch import dispatch
from gtft.runner.execution import prepare_job
from gtft.runner.workspace import Workspace, open_workspace
from gtft.workers.frame import Reporter
from gtft.workers.harvest import work
from promptfoo_case import add_vars, answer, write_suite
from run_case import find_run
from tiny_town import make_town

CASE = add_vars(
    gauge="$ gauge --lock upper --since dawn\nupper basin 4.10 m, rising 2 cm per hour, float 7 stuck\n"
    "$ gauge --lock lower --since dawn\nlower basin 4.08 m, steady, no barge waiting\n",
    note="The engineer went home at noon and left the key of the sluice under the third flower pot.",
)


def harvest(ws: Workspace, root: Path, *sets: str) -> Artifact:
    path = root / "formulas" / "mol-gtft-tiny.formula.toml"
    sets = ("harvest.min_examples=1", "harvest.heldout=0", 'eval.suites=["authored"]', *sets)
    run = find_run(ws, dispatch(ws, resolve(path, root=root, sets=sets), "mayor", root))
    job = prepare_job(ws, run, ws.store.find_stage(run.id, "harvest"), "mayor")
    job.workdir.mkdir(parents=True, exist_ok=True)
    return work(job, Reporter(job.workdir, io.StringIO()))


def run_case(root: Path, item: Item, session: int) -> None:
    """A session in which an agent was given the case, beside those that `make_town` wrote."""
    name = f"s{session:03}.jsonl"
    records = [json.loads(x) for x in (root / "transcripts" / name).read_text().splitlines()]
    head = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:00 • patrol\n"
    records[0]["message"]["content"] = head + item.messages[0]["content"]
    records[1]["message"]["content"] = [{"type": "text", "text": answer("hold", "an answer")}]
    (root / "transcripts" / name).write_text("".join(json.dumps(r) + "\n" for r in records))


def trained(corpus: Artifact) -> str:
    return (corpus.path / "train.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    "place", ["gt-model-eval", "gizmo/mayor/rig/gt-model-eval", "gizmo/refinery/rig/gt-model-eval"]
)
def test_cases_below_the_town_are_known(tmp_path: Path, place: str) -> None:
    town = tmp_path / "town"
    (town / "mayor").mkdir(parents=True)
    (town / "mayor" / "town.json").write_text('{"name": "pier"}')
    ws = open_workspace(town / ".gtft")
    root = make_town(tmp_path / "elsewhere")
    aside = write_suite(tmp_path / "aside", [CASE])
    run_case(root, read_cases(aside).items[0], 3)
    assert "third flower pot" in trained(harvest(ws, root))
    write_suite(town / place, [CASE])
    corpus = harvest(ws, root)
    assert "third flower pot" not in trained(corpus)
    assert '"action\\": \\"nudge' in trained(corpus)
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    assert manifest["flow"][-1]["dropped"]["shares a rare phrase with an eval suite"] == 1


def test_cases_that_the_recipe_names_are_known(tmp_path: Path) -> None:
    ws = open_workspace(tmp_path / "ws")
    root = make_town(tmp_path / "root")
    folder = write_suite(tmp_path / "cases", [CASE])
    run_case(root, read_cases(folder).items[0], 3)
    assert "third flower pot" in trained(harvest(ws, root))
    assert "third flower pot" not in trained(harvest(ws, root, f"eval.gt_model_eval={folder}"))
