"""Candidates that answer on this machine: one loaded base, with an adapter on or off, and what is put before an item."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from gtft.evals.asking.candidate import Prompt, Reply
from gtft.evals.asking.decode import Continued, Limits, Prefix, decode, find_common, read_prefix
from gtft.evals.asking.generate import Extend, make_key, write_prompts
from gtft.evals.asking.load import Candidates
from gtft.evals.item import Item

# Bytes of keys and values that one batch may hold; a batch that would hold more is cut in parts.
_MOST_KEPT = 2 << 30


class LocalCandidate:
    """The tuned model, or with ``as_base`` what it is compared with.

    ``extend`` gives the chat to send for an item (a prime text, found passages); ``extension`` is the hash of what it
    adds. Seed 0 answers greedily, other seeds draw at ``temperature``.
    """

    def __init__(
        self,
        name: str,
        loaded: Candidates,
        *,
        as_base: bool,
        limits: Limits,
        clock: Callable[[], float],
        temperature: float = 1.0,
        extend: Extend | None = None,
        extension: str = "",
    ) -> None:
        self.name = name
        self.most: int | None = None
        self.key = make_key(
            [
                loaded.base,
                loaded.adapter,
                as_base,
                limits.tokens,
                limits.seconds,
                temperature,
                extension,
            ]
        )
        self._loaded, self._as_base, self._extend = loaded, as_base, extend
        self._limits, self._temperature, self._clock = limits, temperature, clock
        self._common: tuple[int, ...] = ()
        self._prefix: Prefix | None = None
        self._ends = find_ends(loaded)
        self._column = count_bytes(loaded.model)

    def write(self, items: Sequence[Item]) -> tuple[list[Prompt], list[Item]]:
        """What all prompts begin with is computed once, before the first answer."""
        room = self._loaded.context - self._limits.tokens
        prompts, too_long = write_prompts(items, self._loaded.tokenizer, room, self._extend)
        self._common = find_common([p.ids for p in prompts])
        return prompts, too_long

    def answer(self, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        widest = max(len(p.ids) for p in batch) + self._limits.tokens
        rows = max(1, _MOST_KEPT // (widest * self._column))
        with self._loaded.answering(as_base=self._as_base) as model:
            if self._prefix is None or self._prefix.ids != self._common:
                self._prefix = read_prefix(model, self._common)
            parts = (batch[i : i + rows] for i in range(0, len(batch), rows))
            return [reply for part in parts for reply in self._continue(model, part, seed)]

    def _continue(self, model: Any, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        """One part; halved when the machine has no memory for it."""
        began = self._clock()
        try:
            found = decode(
                model,
                [p.ids for p in batch],
                ends=self._ends,
                pad=self._loaded.tokenizer.pad_token_id,
                limits=self._limits,
                clock=self._clock,
                prefix=self._prefix,
                dice=[random.Random(f"{seed} {p.item.id}") for p in batch] if seed else (),  # noqa: S311
                temperature=self._temperature,
            )
        except (MemoryError, RuntimeError) as e:
            if not is_out_of_memory(e):
                raise
            told = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        else:
            return [self._reply(p, c) for p, c in zip(batch, found, strict=True)]
        free_memory()
        if len(batch) == 1:
            spent = self._clock() - began
            return [Reply("", 0, len(batch[0].ids), "error", spent, error=f"no memory: {told}")]
        half = len(batch) // 2
        return [
            *self._continue(model, batch[:half], seed),
            *self._continue(model, batch[half:], seed),
        ]

    def _reply(self, prompt: Prompt, found: Continued) -> Reply:
        text = self._loaded.tokenizer.decode(list(found.ids), skip_special_tokens=False).strip()
        confidence = None if found.confidence is None else round(found.confidence, 6)
        return Reply(
            text, len(found.ids), len(prompt.ids), found.finish, round(found.seconds, 4), confidence
        )


def find_ends(loaded: Candidates) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = {loaded.tokenizer.eos_token_id}
    extra = loaded.model.generation_config.eos_token_id
    ends |= set(extra if isinstance(extra, list) else [extra])
    im_end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    if isinstance(im_end, int) and im_end != loaded.tokenizer.unk_token_id:
        ends.add(im_end)
    return frozenset(e for e in ends if e is not None)


def count_bytes(model: Any) -> int:
    """Bytes of keys and values of one token, as the model's shape tells."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * width * model.dtype.itemsize)


def is_out_of_memory(error: Exception) -> bool:
    """Torch has a class for a device's memory, and only words for the processor's."""
    import torch

    words = ("DefaultCPUAllocator", "can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        w in str(error) for w in words
    )


def free_memory() -> None:
    """What is not used any more is given back, a device's too."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
