"""The answer loss and the packs: against the plain way, which holds all logits and one row at a time."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.training.render import IGNORED, Row
from training_case import prepare_environment  # noqa: F401 - before torch

HEADS = ("plain", "bias", "scaled", "capped")


def make_model(head: str = "plain", attention: str = "sdpa", seed: int = 3) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config)
    if head == "bias":
        model.lm_head = torch.nn.Linear(32, 97, bias=True)
    if head == "scaled":
        model.config.logit_scale = 0.25
    if head == "capped":
        model.config.final_logit_softcapping = 2.0
        model.lm_head.weight.data.mul_(20)
    return model


def make_rows(count: int, seed: int = 5, longest: int = 24) -> list[Row]:
    dice = random.Random(seed)
    rows = []
    for n in range(count):
        size = dice.randint(3, longest)
        ids = array("i", (dice.randrange(97) for _ in range(size)))
        # Some rows train their first token too, which nothing predicts.
        spans = ((dice.randint(0, 1), 2), (size - 1, size))
        rows.append(Row(f"ex-{n}", ids, spans, cut=0, weight=dice.choice((0.25, 1.0, 2.0))))
    return rows


def score_plainly(model: Any, rows: list[Row], head: str = "plain") -> Any:
    """Sum of weight x nll with all logits, one row at a time, and the hits."""
    import torch

    total, hits = torch.zeros(()), 0
    for row in rows:
        logits = model(input_ids=torch.tensor([list(row.input_ids)])).logits[0, :-1].float()
        if head == "scaled":
            logits = logits * 0.25
        if head == "capped":
            logits = 2.0 * torch.tanh(logits / 2.0)
        target = torch.tensor(list(row.labels[1:]))
        each = torch.nn.functional.cross_entropy(
            logits, target, ignore_index=IGNORED, reduction="none"
        )
        total = total + row.weight * each.sum()
        hits += int(((logits.argmax(-1) == target) & (target != IGNORED)).sum())
    return total, hits


def read_gradients(model: Any, loss: Any) -> list[Any]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("head", HEADS)
def test_loss_and_every_gradient_equal_the_plain_way(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from gtft.training import loss
    from gtft.training.packing import Collator

    # A few positions at a time, so that the pieces are put together.
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 97 * 5)
    rows = make_rows(7)
    model = make_model(head)
    want, hits = score_plainly(model, rows, head)
    wanted = read_gradients(model, want)
    loss.add_answer_head(model)
    batch = Collator([(r,) for r in rows], pad=0)([{"unit": n} for n in range(len(rows))])
    out = model(**batch, answer_head=True)
    assert out.tokens == sum(r.supervised for r in rows)
    assert int(out.hits) == hits
    torch.testing.assert_close(out.nll, want, rtol=1e-4, atol=1e-4)
    for got, plain in zip(read_gradients(model, out.nll), wanted, strict=True):
        torch.testing.assert_close(got, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_each_other(attention: str) -> None:
    """The loss and the gradients of a packed batch are the sums over its rows."""
    import torch

    from gtft.training.loss import add_answer_head
    from gtft.training.packing import Collator

    rows = make_rows(9)
    model = make_model(attention=attention)
    want, _ = score_plainly(model, rows)
    wanted = read_gradients(model, want)
    add_answer_head(model)
    # Two packs of unlike length in one batch: the padding of the shorter one must not be seen either.
    batch = Collator([tuple(rows[:6]), tuple(rows[6:])], pad=0)([{"unit": 0}, {"unit": 1}])
    assert "attention_mask" not in batch
    out = model(**batch, answer_head=True)
    torch.testing.assert_close(out.nll, want, rtol=1e-4, atol=1e-4)
    for got, plain in zip(read_gradients(model, out.nll), wanted, strict=True):
        torch.testing.assert_close(got, plain, rtol=1e-3, atol=1e-4)


def test_one_row_by_itself_has_neither_padding_nor_a_mask() -> None:
    from gtft.training.packing import Collator

    batch = Collator([(Row("a", array("i", (5, 6, 7)), ((1, 3),), cut=0),)], pad=0)([{"unit": 0}])
    assert set(batch) == {"input_ids", "labels"}
    assert batch["labels"].tolist() == [[IGNORED, 6, 7]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=60), st.integers(8, 64))
def test_every_row_is_in_one_pack_and_packs_keep_to_their_capacity(
    lengths: list[int], capacity: int
) -> None:
    from gtft.training.packing import plan_packs

    packs = plan_packs(lengths, capacity)
    assert sorted(i for p in packs for i in p) == list(range(len(lengths)))
    for pack in packs:
        assert sum(lengths[i] for i in pack) <= capacity or len(pack) == 1
    # Best fit leaves no two packs that would fit into one.
    sums = sorted(sum(lengths[i] for i in p) for p in packs)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


def test_weights_are_balanced_over_the_tokens_and_change_the_loss_only_among_rows() -> None:
    from gtft.training.material import balance_weights

    rows = make_rows(20)
    even = balance_weights(rows)
    tokens = sum(r.supervised for r in rows)
    assert sum(r.weight * r.supervised for r in even) == pytest.approx(tokens)
    shares = {round(b.weight / a.weight, 9) for a, b in zip(rows, even, strict=True)}
    assert len(shares) == 1
    alike = [Row("a", array("i", (1, 2)), ((1, 2),), cut=0)] * 3
    assert balance_weights(alike) == tuple(alike)
