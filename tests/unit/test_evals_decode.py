"""Our own decoding beside `model.generate`: the same tokens row by row, with and without a shared prefix."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

import evals_case  # noqa: F401 - sets the environment before torch is imported
from gtft.evals.asking.decode import Limits, decode, find_common, read_prefix

ENDS = frozenset({2, 5, 7, 11, 13, 17})
NEW = 20
FAMILIES = ("llama", "qwen3", "gemma3", "lfm2")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Tiny models of random weights: full attention, sliding windows of two makes, and one that also convolves."""
    import torch
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        Lfm2Config,
        Lfm2ForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    shape: dict[str, Any] = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    mixed = ["sliding_attention", "full_attention"]
    torch.manual_seed(4)
    made = {
        "llama": LlamaForCausalLM(LlamaConfig(**shape)),
        "qwen3": Qwen3ForCausalLM(
            Qwen3Config(**shape, use_sliding_window=True, sliding_window=8, layer_types=mixed)
        ),
        "gemma3": Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=8, layer_types=mixed)),
        "lfm2": Lfm2ForCausalLM(Lfm2Config(**shape, layer_types=["conv", "full_attention"])),
    }
    for model in made.values():
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, 0, 0.3)
        model.eval()
    return made


def make_rows(prefix: int) -> tuple[list[int], list[list[int]]]:
    """A prefix, and nine rows of very unlike lengths that begin with it."""
    dice = random.Random(1)
    begin = [dice.randrange(20, 99) for _ in range(prefix)]
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 40]
    return begin, [begin + [dice.randrange(20, 99) for _ in range(n)] for n in lengths]


def ask(model: Any, rows: list[list[int]], **settings: Any) -> list[Any]:
    given = {"ends": ENDS, "pad": 0, "limits": Limits(NEW, 60.0), "clock": lambda: 0.0, **settings}
    return decode(model, rows, **given)


def ask_transformers(model: Any, row: list[int]) -> list[int]:
    import torch

    made = model.generate(
        input_ids=torch.tensor([row]),
        attention_mask=torch.ones(1, len(row), dtype=torch.long),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=sorted(ENDS),
        pad_token_id=0,
    )
    return [int(t) for t in made[0, len(row) :]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_transformers_row_by_row(
    models: dict[str, Any], family: str
) -> None:
    model = models[family]
    begin, rows = make_rows(24)
    prefix = read_prefix(model, begin)
    # What a recurrent layer holds is no column of keys and values: nothing is shared.
    assert (prefix is None) == (family == "lfm2")
    together, shared = ask(model, rows), ask(model, rows, prefix=prefix)
    lengths = set()
    for row, plain, other in zip(rows, together, shared, strict=True):
        expected = ask_transformers(model, row)
        ended = expected[-1] in ENDS
        assert list(plain.ids) == list(other.ids) == (expected[:-1] if ended else expected)
        assert plain.finish == other.finish == ("stop" if ended else "length")
        lengths.add(len(plain.ids))
    assert len(lengths) > 1, "no row ended before another"


@pytest.mark.parametrize("family", FAMILIES)
def test_confidence_is_that_of_a_plain_forward(models: dict[str, Any], family: str) -> None:
    import torch

    model = models[family]
    begin, rows = make_rows(24)
    for row, found in zip(rows, ask(model, rows, prefix=read_prefix(model, begin)), strict=True):
        told = list(found.ids)
        with torch.inference_mode():
            logits = model(torch.tensor([row + told])).logits[0, len(row) - 1 :]
        chances = logits.log_softmax(-1)
        logs = [float(chances[n, t]) for n, t in enumerate(told)]
        if found.finish == "stop":
            logs.append(float(chances[len(told)].max()))
        assert found.confidence == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)


def test_the_same_batch_gives_the_same_bits(models: dict[str, Any]) -> None:
    begin, rows = make_rows(24)
    prefix = read_prefix(models["llama"], begin)
    first, second = (ask(models["llama"], rows, prefix=prefix) for _ in range(2))
    assert first == second


def test_a_draw_does_not_depend_on_the_neighbours(models: dict[str, Any]) -> None:
    model = models["llama"]
    _, rows = make_rows(4)

    def draw(chosen: list[list[int]], seed: int) -> list[tuple[int, ...]]:
        dice = [random.Random(f"{seed} {row}") for row in chosen]
        return [c.ids for c in ask(model, chosen, dice=dice, temperature=1.3)]

    together = draw(rows, 1)
    assert together == [draw([row], 1)[0] for row in rows]
    assert together == draw(rows[::-1], 1)[::-1]
    assert together != draw(rows, 2)
    assert together != [c.ids for c in ask(model, rows)]


def test_drawn_tokens_come_as_often_as_they_are_likely(models: dict[str, Any]) -> None:
    import torch

    model = models["llama"]
    row = list(range(20, 30))
    with torch.inference_mode():
        chances = (model(torch.tensor([row])).logits[0, -1] / 0.7).softmax(-1)
    dice = [random.Random(n) for n in range(2000)]
    drawn = ask(
        model, [row] * 2000, dice=dice, temperature=0.7, limits=Limits(1, 60.0), ends=frozenset()
    )
    for token in chances.topk(4).indices.tolist():
        share = sum(c.ids == (token,) for c in drawn) / 2000
        assert share == pytest.approx(float(chances[token]), abs=0.05)


def test_a_batch_that_uses_up_its_time_ends_those_that_still_run(models: dict[str, Any]) -> None:
    _, rows = make_rows(4)
    ticks = itertools.count()
    found = ask(models["llama"], rows, clock=lambda: float(next(ticks)), limits=Limits(NEW, 0.5))
    assert {c.finish for c in found} == {"stop", "timeout"}
    # Nine rows of half a second: four and a half of the clock's seconds, so five steps.
    assert {len(c.ids) for c in found if c.finish == "timeout"} == {5}
    assert sum(c.seconds for c in found) == pytest.approx(5)


def test_a_short_prefix_is_not_shared_and_a_row_keeps_a_token_of_its_own(
    models: dict[str, Any],
) -> None:
    model = models["llama"]
    begin, _ = make_rows(24)
    assert read_prefix(model, begin[:3]) is None
    prefix = read_prefix(model, begin)
    # One row is the prefix itself, one leaves it half way.
    rows = [begin, [*begin[:20], 50, 51], [*begin, 60]]
    assert [c.ids for c in ask(model, rows, prefix=prefix)] == [c.ids for c in ask(model, rows)]
    assert find_common([]) == ()
    assert find_common([(1, 2, 3), (1, 2), (1, 2, 9)]) == (1, 2)
