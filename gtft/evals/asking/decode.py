"""Continuing token rows with a causal model: greedy or drawn, in a batch that shrinks as its rows end.

What all rows begin with is computed once (`read_prefix`). Rows are padded on the left, whole: of a shorter row the
end of the prefix is computed again, so that no padding stands inside a row and a window of attention is as wide as
it would be alone.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

# A shorter prefix costs more to spread than to compute.
SHORTEST_PREFIX = 16
# Rows that have ended leave when they are this share of the batch: leaving copies what stays.
_LEAVING = 8


@dataclass(frozen=True)
class Prefix:
    """What rows begin with, read by one model: its tokens, and keys and values of each layer (1, heads, tokens, width)."""

    ids: tuple[int, ...]
    layers: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Limits:
    """``tokens`` of one answer, ``seconds`` of wall time per row (a batch has the sum of its rows)."""

    tokens: int
    seconds: float


@dataclass(frozen=True)
class Continued:
    """``ids`` without the end token. ``finish``: "stop", "length" or "timeout". ``confidence``: the geometric mean
    of the probabilities of the tokens, end token included; None without any. ``seconds``: the row's share of each
    step that it took part in."""

    ids: tuple[int, ...]
    finish: str
    confidence: float | None
    seconds: float


def find_common(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all rows begin with."""
    if not rows:
        return ()
    # The first and the last in order differ soonest.
    told = [tuple(r) for r in rows]
    low, high = min(told), max(told)
    differ = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: next(differ, min(len(low), len(high)))]


def read_prefix(model: Any, ids: Sequence[int]) -> Prefix | None:
    """Compute a prefix for `decode`; None where it is too short, or where the model keeps more than keys and values."""
    import torch

    if len(ids) < SHORTEST_PREFIX or not count_layers(model):
        return None
    past = _make_cache(count_layers(model), len(ids))
    with torch.inference_mode():
        call_model(model, torch.tensor([list(ids)], device=model.device), past=past)
    return Prefix(tuple(ids), tuple((layer.keys, layer.values) for layer in past.layers))


def decode(
    model: Any,
    rows: Sequence[Sequence[int]],
    *,
    ends: Collection[int],
    pad: int,
    limits: Limits,
    clock: Callable[[], float],
    prefix: Prefix | None = None,
    dice: Sequence[random.Random] = (),
    temperature: float = 1.0,
) -> list[Continued]:
    """Continue each row until a token of ``ends`` or a limit; in order.

    Greedy without ``dice``; with them each row draws with its own, so that its neighbours do not change its draws.
    The same rows in the same batch give the same tokens on a CPU.
    """
    import torch

    with torch.inference_mode():
        batch = _Batch(model, rows, pad, limits, clock, prefix)
        return batch.run(frozenset(ends), dice, temperature)


class _Batch:
    """The state of one batch. ``_who``: which row stands in each line of the tensors."""

    def __init__(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        pad: int,
        limits: Limits,
        clock: Callable[[], float],
        prefix: Prefix | None,
    ) -> None:
        import torch

        self._model, self._limits, self._clock = model, limits, clock
        self._began = clock()
        self._count = len(rows)
        self._lengths = [len(r) for r in rows]
        self._longest = max(self._lengths)
        self._shared = _count_shared(prefix, rows)
        self._layers = count_layers(model)
        width = self._longest + limits.tokens
        if self._layers:
            self._past = _make_cache(self._layers, width)
            if prefix is not None and self._shared:
                pads = [self._longest - n for n in self._lengths]
                for layer, (keys, values) in zip(self._past.layers, prefix.layers, strict=True):
                    layer.begin(keys, values, pads, self._shared)
        else:
            self._past = make_plain_cache(model)
        device = model.device
        padded = [[pad] * (self._longest - len(r)) + list(r) for r in rows]
        self._ids = torch.tensor([r[self._shared :] for r in padded], device=device)
        starts = torch.tensor([self._longest - n for n in self._lengths], device=device)
        columns = torch.arange(width, device=device)
        self._mask = (columns >= starts[:, None]).long()
        self._positions = (columns - starts[:, None]).clamp(min=0)
        self._left = 0

    def run(
        self, ends: frozenset[int], dice: Sequence[random.Random], temperature: float
    ) -> list[Continued]:
        import torch

        made: list[list[int]] = [[] for _ in range(self._count)]
        scores = [0.0] * self._count
        finish = ["length"] * self._count
        seconds = [0.0] * self._count
        who = list(range(self._count))
        alive = [True] * self._count
        begin, now = self._shared, self._longest
        last = self._began
        deadline = self._began + self._limits.seconds * self._count
        for step in range(self._limits.tokens):
            logits = self._step(begin, now)
            drawn = [dice[r] for r in who] if dice else []
            chosen = _draw(logits, drawn, temperature) if drawn else logits.argmax(-1)
            chances = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
            tokens, logs = chosen.tolist(), chances.tolist()
            time = self._clock()
            share = (time - last) / sum(alive)
            last = time
            for line, row in enumerate(who):
                if not alive[line]:
                    continue
                seconds[row] += share
                scores[row] += logs[line]
                if tokens[line] in ends:
                    finish[row] = "stop"
                    alive[line] = False
                else:
                    made[row].append(tokens[line])
            living = sum(alive)
            if not living or step + 1 == self._limits.tokens:
                break
            if time >= deadline:
                for line, row in enumerate(who):
                    if alive[line]:
                        finish[row] = "timeout"
                break
            if self._layers and (len(who) - living) * _LEAVING >= len(who):
                keep = [line for line, lives in enumerate(alive) if lives]
                who = [who[line] for line in keep]
                alive = [True] * len(keep)
                index = torch.tensor(keep, device=chosen.device)
                chosen = chosen[index]
                self._keep(index, self._longest - max(self._lengths[r] for r in who), now)
            self._ids = chosen[:, None]
            begin, now = now, now + 1
        return [self._tell(made[r], finish[r], scores[r], seconds[r]) for r in range(self._count)]

    def _step(self, begin: int, end: int) -> Any:
        """Logits after column ``end - 1``, float32, one line per line of the batch."""
        out = call_model(
            self._model,
            self._ids,
            past=self._past,
            mask=self._mask[:, self._left : end],
            positions=self._positions[:, begin:end],
        )
        return out.logits[:, -1].float()

    def _keep(self, index: Any, left: int, now: int) -> None:
        """Only these lines go on, and of the columns only those that one of them uses."""
        self._mask, self._positions = self._mask[index], self._positions[index]
        for layer in self._past.layers:
            layer.keep(index, left - self._left)
        self._left = left

    def _tell(self, ids: list[int], finish: str, score: float, seconds: float) -> Continued:
        count = len(ids) + (finish == "stop")
        confidence = math.exp(score / count) if count else None
        return Continued(tuple(ids), finish, confidence, seconds)


def _count_shared(prefix: Prefix | None, rows: Sequence[Sequence[int]]) -> int:
    if prefix is None:
        return 0
    common = len(find_common([prefix.ids, *(tuple(r) for r in rows)]))
    shared = min(common, min(map(len, rows)) - 1)
    return shared if shared >= SHORTEST_PREFIX else 0


def _draw(logits: Any, dice: Sequence[random.Random], temperature: float) -> Any:
    """One token per line: where its die falls in the sum of the probabilities."""
    import torch

    sums = torch.softmax(logits.double() / temperature, -1).cumsum(-1)
    falls = torch.tensor([[d.random()] for d in dice], dtype=sums.dtype, device=sums.device)
    found = torch.searchsorted(sums, falls * sums[:, -1:], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def call_model(
    model: Any, ids: Any, *, past: Any, mask: Any | None = None, positions: Any | None = None
) -> Any:
    """One forward that writes to ``past``; logits of the last column only, where the model can do that."""
    wanted = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": 1}
    takes = _list_parameters(_bare(model).__class__)
    given = {k: v for k, v in wanted.items() if v is not None and k in takes}
    return model(input_ids=ids, past_key_values=past, use_cache=True, **given)


@cache
def _list_parameters(model: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def _bare(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_layers(model: Any) -> int:
    """Layers of a model that keeps keys and values and nothing else; 0 for others (recurrent, shared, chunked)."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    config = model.config.get_text_config(decoder=True)
    if not set(getattr(config, "layer_types", None) or ()) <= {
        "full_attention",
        "sliding_attention",
    }:
        return 0
    layers = make_plain_cache(model).layers
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return len(layers) if plain else 0


def make_plain_cache(model: Any) -> Any:
    """The cache that transformers itself would make."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _make_cache(layers: int, width: int) -> Any:
    from transformers import DynamicCache

    past = DynamicCache()
    # A window of attention is kept by the mask; the columns before it stay.
    past.layer_class_to_replicate = None
    past.layers = [_layer_class()(width) for _ in range(layers)]
    return past


@cache
def _layer_class() -> Any:
    """A cache layer with room for ``width`` columns: a step writes its own and copies none."""
    import torch
    from transformers.cache_utils import DynamicLayer

    class Roomy(DynamicLayer):  # type: ignore[misc]
        def __init__(self, width: int) -> None:
            super().__init__()
            self._width = width
            self._used = 0

        def begin(self, keys: Any, values: Any, pads: Sequence[int], columns: int) -> None:
            """Start with a prefix in the first ``columns``, shifted by each line's padding."""
            shape = (len(pads), keys.shape[1], self._width)
            self._all = [part.new_empty(*shape, part.shape[-1]) for part in (keys, values)]
            for whole, part in zip(self._all, (keys, values), strict=True):
                for line, pad in enumerate(pads):
                    whole[line, :, : min(pad, columns)] = 0
                    if pad < columns:
                        whole[line, :, pad:columns] = part[0, :, : columns - pad]
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self._show(columns)

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self._all = [
                    part.new_empty(*part.shape[:2], self._width, part.shape[-1])
                    for part in (key_states, value_states)
                ]
                self.dtype, self.device = key_states.dtype, key_states.device
                self.is_initialized = True
            end = self._used + key_states.shape[-2]
            self._all[0][:, :, self._used : end] = key_states
            self._all[1][:, :, self._used : end] = value_states
            self._show(end)
            return self.keys, self.values

        def get_seq_length(self) -> int:
            return self._used

        def keep(self, index: torch.Tensor, left: int) -> None:
            """Only these lines, without the first ``left`` columns."""
            for part in self._all:
                stays = part[:, :, left : self._used].index_select(0, index)
                part[: len(index), :, left : self._used] = stays
            self._all = [part[: len(index), :, left:] for part in self._all]
            self._show(self._used - left)

        def _show(self, used: int) -> None:
            self._used = used
            self.keys, self.values = (part[:, :, :used] for part in self._all)

    return Roomy
