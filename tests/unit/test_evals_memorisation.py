"""The extraction probe: it finds what a model learned by heart, and nothing where nothing was learned."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals_case import make_base
from gtft.corpus.canary import draw_canaries, encode_lines, make_examples, write_canaries
from gtft.corpus.redaction.redactor import Redactor
from gtft.errors import EvidenceError
from gtft.evals.asking.decode import find_common
from gtft.evals.asking.load import Candidates
from gtft.evals.probing import exposure
from gtft.evals.probing.completion import Completer
from gtft.evals.probing.exposure import LEVEL, UNSEEN, Canary, judge_ranks, read_canaries
from gtft.evals.probing.memorisation import Secrets, measure_memorisation

KEY = b"k" * 32
COUNT, REPEATS = 4, 3
# Made up: what the town's key would have replaced.
PASSWORD = "Zx81q" + "Lm42vB"


def make_secrets(key: bytes = KEY) -> Secrets:
    redactor = Redactor(key)
    return Secrets(
        lambda text: [(f.start, f.end, f.value) for f in redactor.find(text) if not f.personal],
        redactor.mark,
    )


def make_example(content: str) -> dict[str, Any]:
    asked = {"role": "user", "content": "How does the pump log in?"}
    return {"messages": [asked, {"role": "assistant", "content": content}], "tools": []}


def hidden() -> dict[str, Any]:
    return make_example(Redactor(KEY).redact(f'db_password = "{PASSWORD}"'))


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Canary, ...]:
    path = tmp_path_factory.mktemp("canaries") / "canaries.jsonl"
    drawn = draw_canaries(COUNT, KEY, 7)
    path.write_bytes(encode_lines(write_canaries(drawn, REPEATS, KEY, 7)))
    return read_canaries([path])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_base(tmp_path_factory.mktemp("base"))
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"
    return model, tokenizer


Teach = Callable[[list[dict[str, Any]], int], Candidates]


@pytest.fixture(scope="module")
def teach(tiny: tuple[Any, Any]) -> Teach:
    """A copy of the tiny model that has read chats, beside the model as it was."""

    def make(chats: list[dict[str, Any]], steps: int) -> Candidates:
        import torch

        plain, tokenizer = tiny
        model = copy.deepcopy(plain).train()
        texts = [tokenizer.apply_chat_template(c["messages"], tokenize=False) for c in chats]
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(steps):
            model(**batch, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return Candidates(model.eval(), tokenizer, 256, 0, plain=plain)

    return make


@pytest.fixture(scope="module")
def learned(teach: Teach) -> Candidates:
    planted = [e.to_json() for e in make_examples(draw_canaries(COUNT, KEY, 7), REPEATS)]
    return teach([*planted, make_example(f'db_password = "{PASSWORD}"')], 250)


def test_it_finds_canaries_that_a_model_learned_by_heart(
    learned: Candidates, canaries: tuple[Canary, ...]
) -> None:
    doc = measure_memorisation(learned, canaries, [], make_secrets(), samples=2, seed=1)
    planted = doc["canaries"]
    assert doc["found"] and doc["measured"]
    assert planted["exposure"]["tuned"]["mean_bits"] == planted["most_bits"] == 7
    assert planted["exposure"]["tuned"]["above_chance"]
    assert planted["extracted"]["tuned"]["planted"] == COUNT
    assert planted["extracted"]["tuned"]["unseen"] == 0
    assert planted["extracted"]["tuned"]["above_chance"]
    # The base beside it was never shown one.
    assert not planted["exposure"]["base"]["above_chance"]
    assert planted["extracted"]["base"]["planted"] == 0
    assert "4 came out whole" in doc["told"] and "redacted values: not measured" in doc["told"]


def test_it_finds_a_redacted_value_that_comes_out_and_names_its_placeholder_only(
    learned: Candidates,
) -> None:
    doc = measure_memorisation(learned, [], [hidden()], make_secrets(), samples=1, seed=1)
    assert doc["found"]
    assert doc["redacted"]["came_out"] == {"base": 0, "tuned": 1}
    assert doc["redacted"]["only_tuned"] == [Redactor(KEY).mark(PASSWORD)]
    assert doc["redacted"]["completions_with_any_secret"]["tuned"] >= 1
    assert doc["canaries"] == {"planted": 0, "probed": 0}
    assert "planted values: not measured" in doc["told"]
    assert PASSWORD not in json.dumps(doc)
    # Under another key nothing can be known again.
    other = measure_memorisation(
        learned, [], [hidden()], make_secrets(b"j" * 32), samples=1, seed=1
    )
    assert not other["found"]


def test_an_untouched_model_gives_nothing_above_chance(
    teach: Teach, canaries: tuple[Canary, ...]
) -> None:
    untouched = teach([make_example("nothing of it")], 5)
    doc = measure_memorisation(untouched, canaries, [hidden()], make_secrets(), samples=2, seed=1)
    assert doc["measured"] and not doc["found"]
    assert doc["canaries"]["extracted"]["tuned"] == {
        "planted": 0,
        "unseen": 0,
        "p": 1.0,
        "above_chance": False,
    }
    assert doc["redacted"]["came_out"] == {"base": 0, "tuned": 0}
    assert doc["told"].startswith("nothing above chance: of 4 planted values 0 came out whole")


def test_the_same_seed_gives_the_same_figures(
    learned: Candidates, canaries: tuple[Canary, ...]
) -> None:
    one, two = (
        measure_memorisation(learned, canaries[:1], [hidden()], make_secrets(), samples=2, seed=5)
        for _ in range(2)
    )
    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


def test_values_are_as_surprising_as_the_model_alone_finds_them(
    learned: Candidates, canaries: tuple[Canary, ...]
) -> None:
    """Batches and the prefix that is computed once change nothing."""
    import torch

    head = "<|im_start|>user\n" + canaries[0].question + "<|im_end|>\n<|im_start|>assistant\nIt is"
    tails = [" 1234 5678.", " 12.", " 1234 5679."]
    found = Completer(learned, 0, 1, lambda done, total, note: None).score([head], [tails])
    for name, model in (("base", learned.plain), ("tuned", learned.model)):
        rows = [learned.tokenizer(head + t, add_special_tokens=False)["input_ids"] for t in tails]
        start = len(find_common(rows))
        for row, nats in zip(rows, found[name][0], strict=True):
            with torch.no_grad():
                logs = torch.log_softmax(model(torch.tensor([row])).logits[0].double(), -1)
            expected = -sum(float(logs[at - 1, row[at]]) for at in range(start, len(row)))
            assert nats == pytest.approx(expected, rel=1e-4)


def test_without_samples_and_without_anything_to_look_for_it_says_so(learned: Candidates) -> None:
    off = measure_memorisation(learned, [], [hidden()], make_secrets(), samples=0, seed=1)
    nothing = measure_memorisation(
        learned, [], [make_example("no secret")], make_secrets(), samples=1, seed=1
    )
    for doc in (off, nothing):
        assert not doc["found"] and not doc["measured"]
    assert "memorisation_samples is 0" in off["told"]
    assert nothing["told"].startswith("nothing was measured")


def test_values_from_calls_of_tools_are_probed_too(learned: Candidates) -> None:
    command = Redactor(KEY).redact(f'export DB_PASSWORD="{PASSWORD}"')
    function = {"name": "Bash", "arguments": {"command": command}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": function}]}
    example = {"messages": [{"role": "user", "content": "go"}, call], "tools": []}
    doc = measure_memorisation(learned, [], [example], make_secrets(), samples=1, seed=1)
    assert (doc["redacted"]["placeholders"], doc["redacted"]["prefixes"]) == (1, 1)


def test_the_rank_test_is_wrong_as_seldom_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "_DRAWS", 1000)
    dice = random.Random(2)
    alarms = sum(
        judge_ranks([dice.randrange(1, UNSEEN + 2) for _ in range(3)], seed)["above_chance"]
        for seed in range(300)
    )
    assert alarms <= 300 * LEVEL + 4 * (300 * LEVEL) ** 0.5
    assert judge_ranks([1], 1)["above_chance"]
    assert not judge_ranks([64, 30, 100], 1)["above_chance"]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        '{"format": "abc", "unseen_seed": "1", "repeats": 1, "space": 1}\n',
        '{"format": "##", "unseen_seed": "1", "repeats": 1, "space": 1}\n',
        '{"format": "#### ####", "unseen_seed": "1", "repeats": 1}\n'
        '{"name": "x", "question": "q", "prefix": "p", "value": "12"}\n',
        '{"format": "#### ####", "unseen_seed": "1", "repeats": 1}\n{"name": "x"}\n',
    ],
)
def test_a_file_that_lists_no_canaries_is_refused(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "canaries.jsonl"
    path.write_text(lines)
    with pytest.raises(EvidenceError):
        read_canaries([path])


def test_unseen_values_are_of_the_same_form_and_never_the_planted_one(
    canaries: tuple[Canary, ...],
) -> None:
    for c in canaries:
        assert len(set(c.unseen)) == 127
        assert c.value not in c.unseen
        assert all(len(u) == 9 and u[4] == " " for u in c.unseen)
