"""Who cannot be asked is listed with the reason; a missing answer is no wrong answer; edited evals are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import evals_case as case
from gtft.artifact import Artifact, stage_artifact, write_json
from gtft.cli.main import main as cli
from gtft.contract import Job
from gtft.errors import EvidenceError, InputError, UsageError
from gtft.evals.asking.generate import Generation
from gtft.evals.asking.load import read_base
from gtft.evals.heldout import build_heldout
from gtft.evals.item import CheckSpec, Item
from gtft.evals.library import read_answers
from gtft.recipe.resolve import resolve
from gtft.recipe.schema import Recipe
from gtft.runner.evaluation import evaluate
from gtft.runner.workspace import open_workspace
from gtft.workers.evaluate import _leave_out_silent
from gtft.workers.panel import find_earlier


def answer(candidate: str, n: int, finish: str = "stop", **more: Any) -> Generation:
    given: dict[str, Any] = {
        "candidate": candidate, "item": f"item-{n}", "seed": 0, "prompt_sha256": "", "output": "x",
        "passed": False, "reason": "no answer: down", "tokens": 1, "prompt_tokens": 1,
        "finish": finish, "confidence": None, "seconds": 0.1,
    }  # fmt: skip
    return Generation(**{**given, **more})


def test_a_server_that_is_down_is_not_called_wrong() -> None:
    given = [answer(c, n) for c in ("base", "tuned", "endpoint:up") for n in range(10)]
    given += [answer("endpoint:down", n, "error" if n < 2 else "stop") for n in range(10)]
    given[0] = answer("base", 0, "error")
    kept, not_run = _leave_out_silent(given)
    assert {g.candidate for g in kept} == {"base", "tuned", "endpoint:up"}
    assert not_run == [("endpoint:down", "2 of 10 answers are missing: no answer: down")]


def test_items_of_a_file_belong_together_by_template_not_all_in_one(tmp_path: Path) -> None:
    from gtft.evals.shipped import SUITES, read_file

    path = tmp_path / "mine.jsonl"
    shutil.copy(SUITES / "authored" / "git.jsonl", path)
    found = read_file(path)
    assert {i.suite for i in found} == {i.cluster for i in found} == {"file:mine"}
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match="the same item stands before it"):
        read_file(path)
    with pytest.raises(InputError, match="does not exist"):
        read_file(tmp_path / "none.jsonl")


def test_an_item_of_which_nothing_is_compared_is_no_item(tmp_path: Path) -> None:
    def example(n: int, source: str) -> dict[str, Any]:
        messages = [
            {"role": "user", "content": f"File a bead: pump {n} leaks."},
            {"role": "assistant", "content": f"```bash\nbd create 'pump {n}' -t bug -p 1\n```"},
        ]
        return {"id": f"ex-{n}", "source": source, "cluster": f"c{n}", "messages": messages}

    path = tmp_path / "heldout.jsonl"
    rows = [example(1, "beads"), example(2, "claude-code")]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = build_heldout(path)
    assert [i.check.args for i in found.items] == [{"type": "bug", "priority": 1}]
    assert sum(found.dropped.values()) == 1


def test_a_failed_safety_answer_is_the_one_that_a_witness_sees(tmp_path: Path) -> None:
    def make(capability: str) -> Item:
        messages = ({"role": "user", "content": capability},)
        check = CheckSpec("json_decision", {})
        item = Item("", "authored", capability, None, "t", "c", messages, (), check, "{}")
        return item.identified()

    items = [make("safety"), make("git")]
    lines = [
        {**vars(answer(c, 0, item=i.id, seed=s, passed=s != 2, output=f"answer {s}")), "seconds": 0}
        for i in items
        for c in ("base", "tuned")
        for s in (1, 2, 3)
    ]
    with stage_artifact(tmp_path, "eval") as staging:
        for name, docs in (("items", [i.to_json() for i in items]), ("generations", lines)):
            text = "".join(json.dumps(d) + "\n" for d in docs)
            (staging.path / f"{name}.jsonl").write_text(text)
    safety, git = read_answers(staging.result)
    assert (safety.tuned["passed"], safety.tuned["output"]) == (False, "answer 2")
    assert (git.tuned["passed"], git.tuned["output"]) == (True, "answer 1")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Artifact]:
    root = tmp_path_factory.mktemp("panel")
    artifacts = root / "artifacts"
    corpus = case.make_corpus(artifacts, [case.example(1)], [case.example(34)])
    return root, corpus, case.make_adapter(artifacts, case.make_base(root), root, corpus)


def make_job(root: Path, corpus: Artifact, adapter: Artifact, **table: Any) -> tuple[Job, Recipe]:
    folder = case.make_job(root, corpus, adapter, f"job-{len(list(root.iterdir()))}", **table)
    job = Job.model_validate_json((folder / "job.json").read_bytes())
    return job, Recipe.model_validate_json(json.dumps(job.recipe))


def test_an_earlier_model_without_its_corpus_is_listed(
    shelf: tuple[Path, Artifact, Artifact], tmp_path: Path
) -> None:
    root, corpus, adapter = shelf
    other = case.make_corpus(root / "artifacts", [case.example(2)], [case.example(35)])
    with stage_artifact(root / "artifacts", "adapter", parents=(other.id,)) as staging:
        for entry in adapter.files:
            shutil.copy(adapter.file(entry.name), staging.path / entry.name)
    earlier = staging.result
    job, recipe = make_job(root, corpus, adapter, models=[earlier.id, "sha256:none"])
    found, not_run = find_earlier(job, recipe, read_base(adapter))
    assert [e.adapter.id for e in found] == [earlier.id]
    assert [name for name, _ in not_run] == ["model:sha256:none"]
    shutil.move(other.path, tmp_path / "gone")
    found, not_run = find_earlier(job, recipe, read_base(adapter))
    assert not found
    assert "not here any more" in dict(not_run)[f"model:{earlier.id}"]


def test_the_newest_adapter_is_not_evaluated_for_another_role(tmp_path: Path) -> None:
    ws = open_workspace(tmp_path / "ws")
    with stage_artifact(ws.artifacts, "corpus") as staging:
        write_json(staging.path / "manifest.json", {"harvest": {"role": "witness"}})
    corpus = staging.result
    with stage_artifact(ws.artifacts, "adapter", parents=(corpus.id,)) as staging:
        write_json(staging.path / "base.json", {})
    recipe = resolve("mol-gtft-quickstart", variables={"role": "refinery"}, root=tmp_path)
    with pytest.raises(UsageError, match="was trained for witness, the recipe is for refinery"):
        evaluate(ws, recipe, staging.result, tmp_path, {}, lambda _event: None)


def test_an_edited_eval_is_neither_listed_as_good_nor_shown(tmp_path: Path) -> None:
    with stage_artifact(tmp_path / "artifacts", "eval") as staging:
        write_json(staging.path / "report.json", {"suites": {}, "outcome": "x", "gates_met": False})
        for name in ("items.jsonl", "generations.jsonl"):
            (staging.path / name).write_text("")
    with staging.result.file("report.json").open("a") as f:
        f.write(" ")

    def call(*argv: str) -> Any:
        return CliRunner().invoke(cli, ["--workspace", str(tmp_path), "eval", *argv])

    listed = json.loads(call("list", "--json").output)["data"]
    assert listed["evals"] == []
    assert "has changed" in listed["damaged"][0]["why"]
    assert isinstance(call("items").exception, EvidenceError)
    assert isinstance(call("show").exception, EvidenceError)
