"""Teach a small Llama the town's text from scratch: the plain loop behind ``base = "nano"``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gtft.errors import TrainingError
from gtft.recipe.schema import Nano
from gtft.training.watch import StopRequested, Watch

ROW_TOKENS = 256
ROWS_PER_STEP = 4
_PEAK_RATE = 3e-3
_WARMUP_SHARE = 0.05


@dataclass(frozen=True)
class Passage:
    """Tokens to read, and as many targets: the token itself, or -100 where it is only read."""

    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Pretrained:
    """``losses``: nats per token of each step; ``tokens``: tokens read in all."""

    model: Any
    losses: tuple[float, ...]
    tokens: int


def build_model(nano: Nano, vocab: int, *, eos: int, pad: int, seed: int) -> Any:
    """A randomly initialised ``LlamaForCausalLM`` (float32) of the recipe's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=nano.hidden,
        intermediate_size=_round_up(nano.hidden * 8 // 3, 64),
        num_hidden_layers=nano.layers,
        num_attention_heads=nano.heads,
        num_key_value_heads=nano.heads,
        max_position_embeddings=nano.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: Any,
    passages: Sequence[Passage],
    steps: int,
    *,
    seed: int,
    watch: Watch,
    clock: Callable[[], float],
) -> Pretrained:
    """Next-token training on passages, shuffled anew in every pass and laid end to end.

    The same input gives the same weights. Raises TrainingError when the loss is not finite and
    StopRequested when asked to stop (the base is small: it is built again from the start).
    """
    stream = _Stream(passages, ROW_TOKENS, seed)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.95),
        fused=True,
    )
    losses: list[float] = []
    started = clock()
    told = started
    model.train()
    for step in range(steps):
        if watch.stop_requested:
            raise StopRequested(None, "the nano base is not finished; it starts again on resume")
        for group in optimizer.param_groups:
            group["lr"] = _PEAK_RATE * _schedule(step, steps)
        rows, targets = stream.take(ROWS_PER_STEP)
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), targets[:, 1:].reshape(-1)
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the nano base's loss became {value} at step {step + 1}",
                why="pretraining diverged on this text",
                fix="gtft run RECIPE --set base.nano.steps=0, or give a base model",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(value)
        now = clock()
        if now - told >= 1.0 or step + 1 == steps:
            told = now
            left = (now - started) / (step + 1) * (steps - step - 1)
            watch.progress(step + 1, steps, "base steps", left, f"nano base, loss {value:.2f}")
    model.eval()
    return Pretrained(model, tuple(losses), steps * ROWS_PER_STEP * ROW_TOKENS)


class _Stream:
    """Endless rows of ``length + 1`` tokens, and their targets, from shuffled passages."""

    def __init__(self, passages: Sequence[Passage], length: int, seed: int) -> None:
        self._passages = passages
        self._length = length + 1
        self._random = torch.Generator().manual_seed(seed)
        self._ids: list[int] = []
        self._targets: list[int] = []

    def take(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        need = rows * self._length
        while len(self._ids) < need:
            for i in torch.randperm(len(self._passages), generator=self._random).tolist():
                self._ids.extend(self._passages[i].ids)
                self._targets.extend(self._passages[i].targets)
        ids, self._ids = self._ids[:need], self._ids[need:]
        targets, self._targets = self._targets[:need], self._targets[need:]
        shape = (rows, self._length)
        return torch.tensor(ids).view(shape), torch.tensor(targets).view(shape)


def _schedule(step: int, steps: int) -> float:
    warm = max(1, int(steps * _WARMUP_SHARE))
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _round_up(value: int, to: int) -> int:
    return (value + to - 1) // to * to
