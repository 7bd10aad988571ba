"""The mask proof stops a run before its first step, and names what it leaves out."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import EvidenceError, TrainingError
from gtft.training.examples import Conversation, read_conversations
from gtft.training.mask import check_proof, prove
from training_case import Recorder, chat, make_tokenizer

tokenizer = functools.cache(make_tokenizer)


def good(n: int) -> Conversation:
    return Conversation(f"ex-{n}", chat(f"user: pump {n}", "assistant: mend"), ())


def mute(n: int) -> Conversation:
    return Conversation(f"mute-{n}", chat(f"user: pump {n}"), ())


def test_proof_accounts_for_every_example_and_token() -> None:
    proof = prove([good(1), mute(2), good(3)], tokenizer(), 64, Recorder())
    doc = proof.as_dict()
    assert doc["examples"] == 3 == len(proof.rows) + len(proof.empty)
    assert doc["empty_examples"] == [{"id": "mute-2", "cause": "no-assistant-turn"}]
    assert doc["supervised_tokens"] + doc["context_tokens"] == sum(n for _, n, _ in doc["per_row"])
    assert all(0 < trained < n for _, n, trained in doc["per_row"])


def test_all_masked_set_stops_before_step_one() -> None:
    proof = prove([mute(1), mute(2)], tokenizer(), 64, Recorder())
    with pytest.raises(TrainingError, match="none of the 2") as e:
        check_proof(proof, 1.0, Recorder())
    assert "no-assistant-turn" in e.value.why
    assert e.value.fix


def test_too_large_a_share_stops_and_a_small_one_is_told() -> None:
    proof = prove([*map(good, range(9)), mute(9)], tokenizer(), 64, Recorder())
    watch = Recorder()
    check_proof(proof, 0.1, watch)
    assert ("empty-rows", "1 examples train nothing: 1 no-assistant-turn") in watch.warnings
    with pytest.raises(TrainingError, match="1 of 10") as e:
        check_proof(proof, 0.09, Recorder())
    assert "mute-9" in e.value.why


def test_the_end_of_a_turn_is_trained_whatever_the_template_marks() -> None:
    other: Any = make_tokenizer()
    other.chat_template = other.chat_template.replace(
        "{{- '<|im_end|>' }}\n{%- endgeneration %}", "{%- endgeneration %}\n{{- '<|im_end|>' }}"
    )
    assert (
        prove([good(1)], other, 64, Recorder()).rows
        == prove([good(1)], tokenizer(), 64, Recorder()).rows
    )


def test_template_that_writes_no_end_of_turn_is_told() -> None:
    other: Any = make_tokenizer()
    other.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    watch = Recorder()
    check_proof(prove([good(1)], other, 64, Recorder()), 0.1, watch)
    assert [code for code, _ in watch.warnings] == ["no-end-of-turn"]


def test_rows_carry_the_weight_of_their_example(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = [
        {"id": f"ex-{n}", "messages": list(good(n).messages), **extra}
        for n, extra in enumerate([{}, {"weight": 0.25}])
    ]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    proof = prove(read_conversations(path), tokenizer(), 64, Recorder())
    assert [r.weight for r in proof.rows] == [1.0, 0.25]


@pytest.mark.parametrize("weight", ["NaN", "-1", '"heavy"', "Infinity"])
def test_weight_that_is_none_is_named(tmp_path: Path, weight: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"id": "ex-1", "messages": [], "weight": {weight}}}\n')
    with pytest.raises(EvidenceError, match=r"train\.jsonl:1"):
        list(read_conversations(path))


def test_line_that_is_not_an_example_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": "ex-1", "messages": [{"role": "user", "content": "a"}]}\n{"id": 3}\n')
    with pytest.raises(EvidenceError, match=r"train\.jsonl:2"):
        list(read_conversations(path))
