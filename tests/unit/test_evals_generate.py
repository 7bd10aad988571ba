"""Answers of any candidates: resumed, sealed, judged in a process of its own, failures counted; and local ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import evals_case as case
from gtft.artifact import Artifact, hash_json, stage_artifact
from gtft.errors import EvidenceError, UsageError
from gtft.evals.asking import generate as generation
from gtft.evals.asking import local
from gtft.evals.asking.candidate import Prompt, Reply
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.generate import Generation, generate
from gtft.evals.asking.load import Candidates, load_candidates, read_base
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.asking.referee import Referee
from gtft.evals.checks import Outcome, run_check
from gtft.evals.item import CheckSpec, Item

RIGHT = '{"rig": "harbor"}'
CHECK = CheckSpec("json_decision", {"expect": {"rig": ["harbor"]}})


def make_item(n: int, text: str = "", check: CheckSpec = CHECK) -> Item:
    message = {"role": "user", "content": text or f"which rig has pump {n}?"}
    return Item("", "authored", "decision", None, "t", "c", (message,), (), check, "").identified()


@dataclass
class Fake:
    """Answers from a function; remembers what it was asked."""

    reply: Callable[[Prompt, int], Reply]
    name: str = "endpoint:fake"
    key: str = "k"
    most: int | None = None
    asked: list[tuple[int, list[str]]] = field(default_factory=list)

    def write(self, items: Sequence[Item]) -> tuple[list[Prompt], list[Item]]:
        return [Prompt(i, i.messages, (), hash_json(list(i.messages))) for i in items], []

    def answer(self, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        self.asked.append((seed, [p.item.id for p in batch]))
        return [self.reply(p, seed) for p in batch]


class Watch:
    def __init__(self, stop_after: int = 10**9) -> None:
        self._left = stop_after
        self.told: list[int] = []

    @property
    def stop_requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    def progress(self, done: int, *_: object) -> None:
        self.told.append(done)


def right(_prompt: Prompt, seed: int) -> Reply:
    return Reply(RIGHT if seed != 2 else "{}", 5, 9, "stop", 0.5, 0.25)


def run(candidate: Fake, items: Sequence[Item], log: Path, **given: Any) -> list[Generation]:
    prompts = {candidate.name: candidate.write(items)[0]}
    settings = {"seeds": 1, "item_seconds": 9.0, "key": "x", "report": Watch(), **given}
    return generate([candidate], prompts, log=log, clock=lambda: 0.0, **settings)


ITEMS = [make_item(n) for n in range(7)]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generation, "BATCH", 2)
    return tmp_path / "log.jsonl"


def test_a_line_says_all_that_happened(log: Path) -> None:
    made = run(Fake(right), ITEMS[:1], log)
    (line,) = [json.loads(x) for x in log.read_text().splitlines()]
    assert line.keys() == {
        *("candidate", "item", "seed", "prompt_sha256", "output", "passed", "reason", "tokens"),
        *("prompt_tokens", "finish", "confidence", "seconds", "key", "sha256"),
    }
    assert line["seconds"] == 0.5
    (doc,) = [g.to_json() for g in made]
    assert doc["passed"] is True
    assert doc["confidence"] == 0.25
    assert "seconds" not in doc


def test_one_seed_is_greedy_and_more_are_drawn(log: Path) -> None:
    greedy, drawn = Fake(right), Fake(right)
    assert [g.seed for g in run(greedy, ITEMS[:2], log)] == [0, 0]
    made = run(drawn, ITEMS[:2], log, seeds=3)
    assert [(g.seed, g.passed) for g in made] == [
        *((1, True), (1, True), (2, False), (2, False), (3, True), (3, True))
    ]
    assert {seed for seed, _ in greedy.asked} == {0}


@pytest.mark.parametrize("kept", range(8))
def test_what_is_stored_is_not_asked_again_and_batches_stay_the_same(log: Path, kept: int) -> None:
    whole = Fake(right)
    expected = run(whole, ITEMS, log)
    assert [len(ids) for _, ids in whole.asked] == [2, 2, 2, 1]
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:kept]) + b'{"candidate": "endp')
    again = Fake(right)
    assert run(again, ITEMS, log) == expected
    ends = (2, 4, 6, 7)
    assert again.asked == [b for b, end in zip(whole.asked, ends, strict=True) if end > kept]
    assert log.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    "change", [{"key": "y"}, {"item_seconds": 8.0}, {"candidate": "other"}, {"items": ITEMS[:6]}]
)
def test_answers_made_under_other_settings_are_not_used(log: Path, change: dict[str, Any]) -> None:
    run(Fake(right), ITEMS, log)
    again = Fake(right, key=change.pop("candidate", "k"))
    items = change.pop("items", ITEMS)
    run(again, items, log, **change)
    assert sum(len(ids) for _, ids in again.asked) == len(items)
    assert len(log.read_bytes().splitlines()) == len(items)


def test_one_candidate_that_changed_is_asked_anew_and_the_other_is_not(log: Path) -> None:
    def ask(first: Fake, second: Fake) -> list[Generation]:
        prompts = {c.name: c.write(ITEMS)[0] for c in (first, second)}
        return generate(
            [first, second],
            prompts,
            seeds=1,
            item_seconds=1.0,
            log=log,
            key="x",
            report=Watch(),
            clock=lambda: 0.0,
        )

    first = ask(Fake(right, "base"), Fake(right, "tuned"))
    again = Fake(right, "base", key="changed"), Fake(right, "tuned")
    assert ask(*again) == first
    assert again[0].asked
    assert not again[1].asked


@pytest.mark.parametrize("damage", ["passed", "text", "hash", "not json", "no answer"])
def test_a_line_that_was_edited_is_refused(log: Path, damage: str) -> None:
    run(Fake(right), ITEMS, log)
    lines = log.read_text().splitlines()
    doc = json.loads(lines[2])
    if damage == "passed":
        doc["passed"] = not doc["passed"]
    elif damage == "text":
        doc["output"] = "{}"
    elif damage == "hash":
        doc["sha256"] = "0" * 64
    lines[2] = {"not json": "{", "no answer": "[]"}.get(damage, json.dumps(doc))
    edited = "".join(line + "\n" for line in lines)
    log.write_text(edited)
    with pytest.raises(EvidenceError, match=r"log\.jsonl:3"):
        run(Fake(right), ITEMS, log)
    assert log.read_text() == edited


def test_a_stop_is_between_batches_and_everything_answered_is_kept(log: Path) -> None:
    with pytest.raises(generation.StopRequested) as e:
        run(Fake(right), ITEMS, log, report=Watch(stop_after=2))
    assert e.value.done == 4
    again = Fake(right)
    assert len(run(again, ITEMS, log)) == 7
    assert [len(ids) for _, ids in again.asked] == [2, 1]


def test_the_same_prompt_is_answered_once(log: Path) -> None:
    """Two items may ask the same and check for something else."""
    other = replace(ITEMS[0], check=CheckSpec("json_decision", {"expect": {"rig": ["mole"]}}))
    items = [ITEMS[0], other.identified(), ITEMS[1]]
    fake = Fake(right)
    made = run(fake, items, log)
    assert [len(ids) for _, ids in fake.asked] == [2]
    assert [g.passed for g in made] == [True, False, True]


def test_what_did_not_come_is_a_failure_of_its_item(log: Path) -> None:
    replies = {
        ITEMS[0].id: Reply("", 0, 9, "error", 0.1, error="the server said 500"),
        ITEMS[1].id: Reply(RIGHT, 5, 9, "timeout", 9.0),
        ITEMS[2].id: Reply(RIGHT, 5, 9, "length", 0.1),
    }
    made = run(Fake(lambda p, _: replies[p.item.id]), ITEMS[:3], log)
    assert [(g.passed, g.reason) for g in made] == [
        (False, "no answer: the server said 500"),
        (False, "no answer within the time limit"),
        (True, ""),
    ]


CHECKS_THAT_FAIL = """
import os, sys, time
from gtft.evals import checks
from gtft.evals.asking.referee import serve
def hang(answer, args):
    while True: time.sleep(9)
def spin(answer, args):
    while True: pass
def crash(answer, args): os.abort()
def boom(answer, args): raise ZeroDivisionError
checks.CHECKS |= {"hang": hang, "spin": spin, "crash": crash, "boom": boom}
serve(float(sys.argv[1]))
"""


def test_a_check_that_hangs_or_crashes_costs_its_item_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from gtft.evals import checks

    for name in ("hang", "spin", "crash", "boom"):
        monkeypatch.setitem(checks.CHECKS, name, lambda *_: None)
    names = ["hang", "", "crash", "", "", "spin", "boom", ""]
    asked = [(CheckSpec(n, {}) if n else CHECK, RIGHT) for n in names]
    with Referee(1, (sys.executable, "-c", CHECKS_THAT_FAIL)) as referee:
        found = referee.judge(asked)
    slow = Outcome(False, "the check did not end within 1 seconds")
    passed = Outcome(True)
    assert [found[n] for n in (0, 1, 3, 4, 5, 7)] == [slow, passed, passed, passed, slow, passed]
    assert found[2].reason == "the check crashed (exit status -6)"
    assert found[6].reason == "the check crashed (exit status 1)"


def test_the_referee_judges_as_the_checks_do(log: Path) -> None:
    hostile = ["", "{" * 500_000, "\ud800", "\x00\u2028\r", "```json\n{}\n```", RIGHT]
    assert [run_check(CHECK, text).passed for text in hostile] == [False] * 5 + [True]
    with Referee() as referee:
        found = referee.judge([(CHECK, text) for text in hostile])
        with pytest.raises(EvidenceError, match="no check none"):
            referee.judge([(CheckSpec("none", {}), "")])
    assert [o.passed for o in found] == [False] * 5 + [True]
    assert [o for o in found if not o.passed and not o.reason] == []


@dataclass(frozen=True)
class World:
    root: Path
    base: Path
    corpus: Artifact
    adapter: Artifact
    other: Artifact


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("local")
    corpus = case.make_corpus(root / "artifacts", [case.example(1)], [case.example(2)])
    base = case.make_base(root)
    adapter = case.make_adapter(root / "artifacts", base, root, corpus)
    with stage_artifact(root / "artifacts", "adapter", parents=(corpus.id,)) as staging:
        for entry in adapter.files:
            (staging.path / entry.name).write_bytes(adapter.file(entry.name).read_bytes())
        weights = load_file(adapter.file("adapter_model.safetensors"))
        torch.manual_seed(8)
        turned = {n: w + 0.3 * torch.randn_like(w) for n, w in weights.items()}
        save_file(turned, staging.path / "adapter_model.safetensors")
    return World(root, base, corpus, adapter, staging.result)


@pytest.fixture(scope="module")
def loaded(world: World) -> Candidates:
    record = read_base(world.adapter)
    return load_candidates(world.adapter, record, world.base, beside=[(world.other, None)])


def make_local(loaded: Candidates, *, as_base: bool = False, **given: Any) -> LocalCandidate:
    settings = {"limits": Limits(12, 60.0), "clock": lambda: 0.0, **given}
    return LocalCandidate("it", loaded, as_base=as_base, **settings)


def answer(candidate: LocalCandidate, seed: int = 0) -> list[Reply]:
    prompts, too_long = candidate.write(ITEMS)
    assert not too_long
    return candidate.answer(prompts, seed)


def test_an_earlier_model_beside_answers_as_if_it_were_alone(
    world: World, loaded: Candidates
) -> None:
    alone = load_candidates(world.other, read_base(world.other), world.base)
    beside = loaded.beside[world.other.id]
    assert beside.model is loaded.model
    tuned, base = answer(make_local(loaded)), answer(make_local(loaded, as_base=True))
    earlier = answer(make_local(beside))
    assert earlier == answer(make_local(alone))
    assert tuned != earlier != base != tuned
    assert answer(make_local(beside, as_base=True)) == base
    assert answer(make_local(loaded)) == tuned
    keys = {
        make_local(loaded).key,
        make_local(loaded, as_base=True).key,
        make_local(beside).key,
        make_local(loaded, extension="sha256:00").key,
        make_local(loaded, limits=Limits(13, 60.0)).key,
    }
    assert len(keys) == 5


def test_a_model_of_another_base_is_refused(world: World, tmp_path: Path) -> None:
    with stage_artifact(tmp_path, "adapter") as staging:
        for entry in world.other.files:
            (staging.path / entry.name).write_bytes(world.other.file(entry.name).read_bytes())
        doc = json.loads(world.other.file("base.json").read_text())
        (staging.path / "base.json").write_text(json.dumps({**doc, "id": "sha256:" + "0" * 64}))
    record = read_base(world.adapter)
    with pytest.raises(UsageError, match="another base"):
        load_candidates(world.adapter, record, world.base, beside=[(staging.result, None)])


def test_what_is_put_before_an_item_is_sent_and_shared(loaded: Candidates) -> None:
    prime = {"role": "system", "content": "The harbor rig has pumps; answer with one JSON object."}
    primed = make_local(loaded, as_base=True, extend=lambda item: (prime, *item.messages))
    prompts, _ = primed.write(ITEMS)
    plain, _ = make_local(loaded, as_base=True).write(ITEMS)
    assert [p.messages for p in prompts] == [(prime, *i.messages) for i in ITEMS]
    assert [p.item for p in prompts] == [p.item for p in plain]
    assert not {p.sha256 for p in prompts} & {p.sha256 for p in plain}
    together = primed.answer(prompts, 0)
    assert primed._prefix is not None
    assert len(primed._prefix.ids) > 16
    unshared = make_local(loaded, as_base=True)
    told = [(r.text, r.tokens) for r in unshared.answer(prompts, 0)]
    assert [(r.text, r.tokens) for r in together] == told


def test_drawn_answers_differ_by_seed_and_not_by_batch(loaded: Candidates) -> None:
    candidate = make_local(loaded, temperature=1.5)
    prompts, _ = candidate.write(ITEMS)
    first = [r.text for r in candidate.answer(prompts, 1)]
    assert first == [candidate.answer([p], 1)[0].text for p in prompts]
    assert first != [r.text for r in candidate.answer(prompts, 2)]


def test_a_batch_that_has_no_memory_is_halved(
    loaded: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    candidate = make_local(loaded)
    prompts, _ = candidate.write(ITEMS)
    expected = [r.text for r in candidate.answer(prompts, 0)]
    real, sizes = local.decode, []
    poor = prompts[3].ids

    def decode(model: Any, rows: Sequence[Sequence[int]], **given: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 2 or poor in rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, rows, **given)

    monkeypatch.setattr(local, "decode", decode)
    found = candidate.answer(prompts, 0)
    assert max(sizes) == 7
    assert found[3].finish == "error"
    assert found[3].error.startswith("no memory: CUDA out of memory")
    assert [r.text for n, r in enumerate(found) if n != 3] == expected[:3] + expected[4:]

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the size of tensor a must match")

    monkeypatch.setattr(local, "decode", fail)
    with pytest.raises(RuntimeError, match="must match"):
        candidate.answer(prompts, 0)


def test_a_batch_that_holds_too_much_is_cut_in_parts(
    loaded: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = make_local(loaded)
    prompts, _ = candidate.write(ITEMS)
    expected = [r.text for r in candidate.answer(prompts, 0)]
    real, sizes = local.decode, []

    def decode(model: Any, rows: Sequence[Sequence[int]], **given: Any) -> Any:
        sizes.append(len(rows))
        return real(model, rows, **given)

    monkeypatch.setattr(local, "decode", decode)
    # Two layers, two heads of 32, keys and values of four or two bytes: three rows and no more.
    row = (max(len(p.ids) for p in prompts) + 12) * 2 * 2 * 64 * loaded.model.dtype.itemsize
    monkeypatch.setattr(local, "_MOST_KEPT", 3 * row)
    assert [r.text for r in candidate.answer(prompts, 0)] == expected
    assert sizes == [3, 3, 1]


def test_what_failed_for_the_servers_sake_is_asked_again(log: Path) -> None:
    down = Fake(lambda _p, _s: Reply("", 0, 0, "error", 0.1, error="connection refused"))
    assert {g.reason for g in run(down, ITEMS[:3], log)} == {"no answer: connection refused"}
    up = Fake(right)
    assert all(g.passed for g in run(up, ITEMS[:3], log))
    assert sum(len(asked) for _, asked in up.asked) == 3
    assert len(log.read_text().splitlines()) == 3


def test_other_code_does_not_use_stored_answers(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Fake(right), ITEMS[:2], log)
    monkeypatch.setattr(generation, "hash_code", lambda: "another")
    again = Fake(right)
    run(again, ITEMS[:2], log)
    assert again.asked


def test_half_a_character_breaks_no_file(log: Path, tmp_path: Path) -> None:
    half = Fake(lambda _p, _s: Reply('{"rig": "\\ud83d"} \ud83d', 1, 1, "stop", 0.1))
    (made,) = run(half, ITEMS[:1], log)
    assert not made.passed
    (tmp_path / "f").write_text(made.output + made.reason, "utf-8")


def test_a_candidate_may_ask_for_small_batches(log: Path) -> None:
    careful = Fake(right, most=1)
    run(careful, ITEMS[:3], log)
    assert [len(asked) for _, asked in careful.asked] == [1, 1, 1]
