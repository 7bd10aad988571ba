"""The eval worker on a tiny real model: both candidates, resume, refusal of what cannot be trusted."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import evals_case as case
from gtft.artifact import Artifact, read_artifact, stage_artifact, verify_artifact
from gtft.cli.main import main as cli
from gtft.errors import EvidenceError
from gtft.evals.asking import generate as generation
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.load import Candidates, find_base, load_candidates, read_base
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.item import SAFETY, Item, read_items
from gtft.evals.library import read_answers
from gtft.evals.shipped import read_shipped
from gtft.runner.evidence import _check_generations
from gtft.workers import evaluate
from gtft.workers.frame import carry_out
from gtft.workers.gathering import INCIDENTS
from gtft.workers.incident import make_check


@dataclass(frozen=True)
class World:
    root: Path
    corpus: Artifact
    adapter: Artifact


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("evals")
    artifacts = root / "artifacts"
    corpus = case.make_corpus(
        artifacts, [case.example(n) for n in range(1, 7)], [case.example(n) for n in range(34, 38)]
    )
    base = case.make_base(root)
    return World(root, corpus, case.make_adapter(artifacts, base, root, corpus))


@pytest.fixture(scope="module")
def candidates(world: World) -> Candidates:
    record = read_base(world.adapter)
    return load_candidates(world.adapter, record, find_base(record, world.root, world.root))


@pytest.fixture(scope="module")
def done(world: World) -> tuple[Path, Artifact]:
    """One whole evaluation of the held-out items."""
    job = case.make_job(world.root, world.corpus, world.adapter, suites=["heldout"])
    previous = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert carry_out(evaluate.work, job) == 0
    finally:
        signal.signal(signal.SIGTERM, previous[0])
        signal.signal(signal.SIGINT, previous[1])
    return job, read_artifact(Path(last_event(job)["path"]))


@pytest.fixture(autouse=True)
def _signals() -> Any:
    previous = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGTERM, previous[0])
    signal.signal(signal.SIGINT, previous[1])


def last_event(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job / "events.jsonl").read_text().splitlines()[-1])
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in path.read_text("utf-8").splitlines()]


def test_one_generation_per_item_and_candidate(done: tuple[Path, Artifact], world: World) -> None:
    _, found = done
    verify_artifact(found.path, kind="eval")
    assert set(found.parents) == {world.corpus.id, world.adapter.id}
    items = read_items(found.file("items.jsonl"))
    rows = lines(found.file("generations.jsonl"))
    assert len(items) == 6
    wanted = {(c, i.id) for c in ("base", "tuned") for i in items}
    assert {(r["candidate"], r["item"]) for r in rows} == wanted
    assert len(rows) == len(wanted)
    assert not any("seconds" in r for r in rows)
    summary = json.loads(found.file("summary.json").read_text())
    assert summary["suites"]["heldout"]["n"] == 6
    assert summary["overlap"] == 0
    assert found.file("verdict.md").read_text().startswith("# Verdict")


def test_the_adapter_changes_the_answers(done: tuple[Path, Artifact]) -> None:
    rows = lines(done[1].file("generations.jsonl"))
    outputs = {c: [r["output"] for r in rows if r["candidate"] == c] for c in ("base", "tuned")}
    assert outputs["base"] != outputs["tuned"]


def test_the_same_adapter_gives_the_same_eval(done: tuple[Path, Artifact], world: World) -> None:
    again = case.make_job(world.root, world.corpus, world.adapter, "again", suites=["heldout"])
    assert carry_out(evaluate.work, again) == 0
    assert last_event(again)["id"] == done[1].id


def test_a_killed_eval_goes_on_and_ends_the_same(
    done: tuple[Path, Artifact], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BATCH", 2)
    reference = case.make_job(world.root, world.corpus, world.adapter, "small", suites=["heldout"])
    assert carry_out(evaluate.work, reference) == 0
    job = case.make_job(world.root, world.corpus, world.adapter, "killed", suites=["heldout"])
    shutil.copytree(reference / "work", job / "work")
    log = job / "work" / "generations.jsonl"
    kept = log.read_bytes().splitlines(keepends=True)[:5]
    # Five whole answers (the third batch is half done), then a torn line.
    log.write_bytes(b"".join(kept) + b'{"candidate": "ba')
    assert carry_out(evaluate.work, job) == 0
    assert last_event(job)["id"] == last_event(reference)["id"]
    assert log.read_bytes().splitlines(keepends=True)[:5] == kept
    assert len(lines(log)) == 12


def test_answers_of_another_adapter_are_not_used(
    done: tuple[Path, Artifact], tmp_path: Path
) -> None:
    log = tmp_path / "generations.jsonl"
    shutil.copy(done[0] / "work" / "generations.jsonl", log)
    assert generation._resume(log, {"base": "another", "tuned": "another"}) == {}
    assert log.read_bytes() == b""


def test_a_request_to_stop_pauses_between_batches(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BATCH", 2)
    job = case.make_job(world.root, world.corpus, world.adapter, "stopped", suites=["heldout"])
    answer = generation._answer

    def answer_then_stop(*args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return answer(*args)

    monkeypatch.setattr(generation, "_answer", answer_then_stop)
    assert carry_out(evaluate.work, job) == 75
    assert last_event(job)["event"] == "paused"
    assert len(lines(job / "work" / "generations.jsonl")) == 2


@pytest.mark.parametrize("damage", ["changed", "missing", "foreign"])
def test_an_adapter_that_cannot_be_trusted_is_not_evaluated(
    world: World, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / world.adapter.path.name
    shutil.copytree(world.adapter.path, copy)
    weights = copy / "adapter_model.safetensors"
    if damage == "changed":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
    elif damage == "missing":
        weights.unlink()
    adapter = Artifact(world.adapter.id, "adapter", (), world.adapter.files, copy)
    corpus = world.corpus
    if damage == "foreign":
        corpus = case.make_corpus(tmp_path / "a", [case.example(1)], [case.example(60)])
    job = case.make_job(tmp_path, corpus, adapter)
    assert carry_out(evaluate.work, job) == 7
    assert last_event(job)["kind"] == "evidence"
    assert not list((tmp_path / "artifacts").glob("eval-*"))


def test_a_base_that_changed_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.root / "bases", tmp_path / "bases")
    (tmp_path / "bases" / "tiny" / "config.json").write_text("{}")
    job = case.make_job(tmp_path, world.corpus, world.adapter)
    assert carry_out(evaluate.work, job) == 7
    assert "config.json" in last_event(job)["why"]


def test_a_base_that_is_gone_is_named(world: World, tmp_path: Path) -> None:
    job = case.make_job(tmp_path, world.corpus, world.adapter)
    assert carry_out(evaluate.work, job) == 6
    assert last_event(job)["kind"] == "base-missing"


def test_items_in_training_are_left_out(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.root / "bases", tmp_path / "bases")
    corpus = case.make_corpus(
        tmp_path / "artifacts",
        [case.example(n) for n in range(1, 5)],
        [{**case.example(2), "cluster": "session:99"}, case.example(70)],
    )
    base = tmp_path / "bases" / "tiny"
    adapter = case.make_adapter(tmp_path / "artifacts", base, tmp_path, corpus)
    job = case.make_job(tmp_path, corpus, adapter, suites=["heldout"])
    assert carry_out(evaluate.work, job) == 0
    report = json.loads((Path(last_event(job)["path"]) / "report.json").read_text())
    assert report["suites"]["heldout"]["n"] == 3
    assert [r["similarity"] for r in report["removed"]] == [1.0]
    copied = case.make_corpus(tmp_path / "b", [case.example(1)], [case.example(1)])
    adapter = case.make_adapter(tmp_path / "b", base, tmp_path, copied)
    job = case.make_job(tmp_path, copied, adapter, "all", suites=["heldout"])
    assert carry_out(evaluate.work, job) == 11
    assert last_event(job)["kind"] == "gate"


def test_batched_answers_equal_single_ones(candidates: Candidates, world: World) -> None:
    items = [i for i in read_shipped("authored") if len(i.messages[0]["content"]) < 120][:6]
    for as_base in (True, False):
        asked = LocalCandidate(
            "it", candidates, as_base=as_base, limits=Limits(10, 60.0), clock=lambda: 0.0
        )
        prompts, _ = asked.write(items)
        assert len({len(p.ids) for p in prompts}) > 1
        together = asked.answer(prompts, 0)
        alone = [asked.answer([p], 0)[0] for p in prompts]
        assert [(r.text, r.tokens, r.finish) for r in together] == [
            (r.text, r.tokens, r.finish) for r in alone
        ]


def test_four_bit_layers_are_guarded(candidates: Candidates) -> None:
    assert candidates.quantized_layers == 14
    import bitsandbytes

    packed = [m for m in candidates.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert all(m.support_avx512bf16_for_cpu is False for m in packed)


def test_long_prompts_lose_their_oldest_messages_first(candidates: Candidates) -> None:
    item = read_shipped("authored")[0]
    filler = {"role": "user", "content": "tide " * 40}
    call = {"role": "assistant", "content": "", "tool_calls": []}
    result = {"role": "tool", "content": "high water"}
    messages = ({"role": "user", "content": "start"}, filler, call, result)
    long = type(item)(**{**vars(item), "messages": messages})
    full, _ = generation.write_prompts([long], candidates.tokenizer, 1000)
    (cut,), none = generation.write_prompts([long], candidates.tokenizer, len(full[0].ids) - 30)
    assert not none
    assert [m["role"] for m in cut.item.messages] == ["user", "assistant", "tool"]
    assert cut.item.messages[0]["content"] == "start"
    assert cut.item.id != full[0].item.id
    assert generation.write_prompts([long], candidates.tokenizer, 3) == ([], [long])


def test_the_command_line_shows_it(done: tuple[Path, Artifact], world: World) -> None:
    def call(*args: str) -> str:
        result = CliRunner().invoke(cli, ["--workspace", str(world.root), "eval", *args])
        assert result.exit_code == 0, result.output
        return result.output

    prefix = done[1].id.removeprefix("sha256:")[:12]
    assert prefix in call()
    assert any(e["id"] == done[1].id for e in json.loads(call("list", "--json"))["data"]["evals"])
    assert "No difference between the tuned model and its base" in call("show", prefix)
    assert (
        json.loads(call("show", prefix, "--json"))["data"]["report"]["suites"]["heldout"]["n"] == 6
    )
    rows = json.loads(call("items", prefix, "--failed", "--json"))["data"]["items"]
    assert len(rows) == 6
    assert all(not r["tuned"]["passed"] for r in rows)
    assert (
        json.loads(call("items", prefix, "--capability", "safety", "--json"))["data"]["items"] == []
    )
    assert "more: -n 6" in call("items", prefix, "-n", "2")


def test_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--workspace", str(tmp_path), "eval", "show"])
    assert "there is no eval yet" in str(result.exception)


def test_what_an_earlier_adapter_was_trained_on_is_no_item(world: World, tmp_path: Path) -> None:
    """An adapter that goes on from another has read that one's corpus too, and the pairs of its own."""
    artifacts = tmp_path / "artifacts"
    base = case.make_base(tmp_path)
    earlier = case.make_corpus(artifacts, [], [case.example(1)])
    first = case.make_adapter(artifacts, base, tmp_path, earlier)
    heldout = [case.example(n) for n in range(1, 7)]
    asked, answered = heldout[1]["messages"]
    pair = {"prompt": [asked], "chosen": [answered], "rejected": [answered], "cluster": "session:2"}
    with stage_artifact(artifacts, "corpus") as staging:
        for name, rows in (
            ("heldout", heldout),
            ("train", [case.example(34)]),
            ("preferences", [pair]),
        ):
            text = "".join(json.dumps(r) + "\n" for r in rows)
            (staging.path / f"{name}.jsonl").write_text(text, "utf-8")
    corpus = staging.result
    with stage_artifact(artifacts, "adapter", parents=(corpus.id, first.id)) as staging:
        for entry in first.files:
            shutil.copy(first.file(entry.name), staging.path / entry.name)
    later = staging.result
    job = case.make_job(tmp_path, corpus, later, suites=["heldout"])
    assert carry_out(evaluate.work, job) == 0
    found = read_artifact(Path(last_event(job)["path"]))
    assert len(lines(found.file("items.jsonl"))) == 4
    shutil.rmtree(earlier.path)
    job = case.make_job(tmp_path, corpus, later, "without", suites=["heldout"])
    assert carry_out(evaluate.work, job) == EvidenceError.exit_code


def test_an_incident_that_does_not_fit_the_context_is_not_passed(world: World) -> None:
    job = case.make_job(world.root, world.corpus, world.adapter, "harm", suites=["heldout"])
    check, reference, how = make_check("")
    asked = {"role": "user", "content": "the tide rises and nux is idle. " * 60 + how}
    harm = Item(
        "", INCIDENTS, SAFETY, "witness", "inc-1", INCIDENTS, (asked,), (), check, reference
    ).identified()
    doc = json.loads((job / "job.json").read_text()) | {"incidents": [harm.to_json()]}
    (job / "job.json").write_text(json.dumps(doc))
    assert carry_out(evaluate.work, job) == 0
    found = read_artifact(Path(last_event(job)["path"]))
    report = json.loads(found.file("report.json").read_text())
    (safety,) = [g for g in report["gates"] if g["name"] == SAFETY]
    assert not safety["met"] and safety["measured"] == 0.0
    assert report["safety"]["tuned"]["failed"][0]["reason"].startswith("prompt longer")
    assert "1 incident items count as not passed" in (job / "events.jsonl").read_text()
    # As every reader of an eval expects: an answer of both to each item.
    assert harm.id in {a.item.id for a in read_answers(found)}
    _check_generations(found)
