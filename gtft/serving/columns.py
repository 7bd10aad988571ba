"""Keys and values of rows that go on together: a cache with free columns, whose lines can be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def make_cache(layers: int) -> Any:
    """Of so many layers, empty. Each has ``begin``, ``put``, ``rewind`` and ``room`` besides what transformers asks of it."""
    from transformers import DynamicCache

    past = DynamicCache()
    # A window of attention is kept by the mask; the columns before it stay.
    past.layer_class_to_replicate = None
    past.layers = [_layer_class()() for _ in range(layers)]
    return past


@cache
def _layer_class() -> Any:
    """A cache layer with free columns: a step writes its own and copies none."""
    from transformers.cache_utils import DynamicLayer

    class Columns(DynamicLayer):  # type: ignore[misc]
        """``room``: columns that it is made with when the first come."""

        room = 0

        def __init__(self) -> None:
            super().__init__()
            self._used = 0

        def begin(self, lines: Sequence[tuple[Any, Any]], used: int, width: int) -> None:
            """Lines (heads, tokens, width), each in the last of the first ``used`` columns."""
            self._all = []
            for which in range(2):
                first = lines[0][which]
                whole = first.new_empty(len(lines), first.shape[0], width, first.shape[2])
                self._all.append(whole)
            self._adopt()
            for n, line in enumerate(lines):
                self.put(n, line, used)
            self.rewind(used)

        def put(self, n: int, line: tuple[Any, Any], used: int) -> None:
            """Another in line ``n``. What was before it is cleared: even masked, what is no number spreads."""
            for whole, part in zip(self._all, line, strict=True):
                start = used - part.shape[1]
                whole[n, :, :start] = 0
                whole[n, :, start:used] = part

        def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self._all = [
                    part.new_empty(*part.shape[:2], self.room, part.shape[-1])
                    for part in (key_states, value_states)
                ]
                self._adopt()
            end = self._used + key_states.shape[-2]
            self._all[0][:, :, self._used : end] = key_states
            self._all[1][:, :, self._used : end] = value_states
            self.rewind(end)
            return self.keys, self.values

        def get_seq_length(self) -> int:
            return self._used

        def rewind(self, used: int) -> None:
            self._used = used
            self.keys, self.values = (part[:, :, :used] for part in self._all)

        def _adopt(self) -> None:
            self.dtype, self.device = self._all[0].dtype, self._all[0].device
            self.is_initialized = True

    return Columns
