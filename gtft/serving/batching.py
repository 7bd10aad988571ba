"""Rows that go on together, with others joining and leaving between two tokens: the model's side of a server.

A row is read in pieces while others go on. Then it joins the rows of its model: all end at the same column, shorter ones
are padded on the left, so no padding stands inside a row and it answers as it would alone (as in `gtft.evals.asking.decode`).
What rows of a model have in common is computed once: keys and values of rows that run, or ran lately, are used again.
A model that keeps more than keys and values (recurrent, chunked) has its rows beside each other, each with its own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.errors import GtftError
from gtft.evals.asking.decode import (
    SHORTEST_PREFIX,
    call_model,
    count_layers,
    find_common,
    make_plain_cache,
)
from gtft.evals.asking.local import free_memory, is_out_of_memory
from gtft.serving.columns import make_cache
from gtft.serving.engine import End, Token
from gtft.serving.row import Row

# Tokens of a prompt that are read between two steps of the others.
_PIECE = 512
# Columns that are free after rows were laid out anew; later a quarter of what they have.
_FREE = 64
# Steps of one model before the next has its turn: switching adapters costs as much as a step of a small model.
_TURNS = 4
# Lines that have ended are taken out when they are this share of all: taking out copies what stays.
_LEAVING = 8
# Rows whose keys and values are kept after they ended.
_MOST_KEPT = 32

# What a model can raise for one row; whatever else comes is an error of ours.
_FAILURES = (RuntimeError, MemoryError, ValueError, TypeError, LookupError, OSError, GtftError)

Layers = list[tuple[Any, Any]]
Told = tuple[Row, Token | End]


@dataclass
class _Kept:
    """Keys and values (heads, tokens, width) of each layer, and the tokens that they belong to."""

    model: str
    ids: tuple[int, ...]
    layers: Layers


class Batcher:
    """All rows of one base. ``activate`` gives the model of a key, ready to answer; ``column``: bytes of keys and
    values of one token; ``budget``: bytes that all rows together may hold; ``rows``: most of them at once."""

    def __init__(
        self, activate: Callable[[str], Any], *, column: int, budget: int, rows: int
    ) -> None:
        self._activate, self.most = activate, rows
        # Laying rows out anew holds them twice for a moment.
        self._columns = max(1, budget // (2 * column))
        self._lanes: list[_Lane] = []
        self._reading: list[_Reading] = []
        self._joining: list[_Reading] = []
        self._kept: list[_Kept] = []

    @property
    def longest(self) -> int:
        """The most tokens that one row can have, prompt and answer."""
        return self._columns

    @property
    def rows(self) -> list[Row]:
        return [r.row for r in self._reading] + [r for lane in self._lanes for r in lane.rows if r]

    def fits(self, row: Row) -> bool:
        """Whether there is room for it now."""
        return len(self.rows) < self.most and self._count([row]) <= self._columns

    def add(self, row: Row) -> None:
        """Begin it; whoever calls has asked `fits`."""
        while (
            self._kept and self._count([row]) + sum(len(k.ids) for k in self._kept) > self._columns
        ):
            self._kept.pop(0)
        self._reading.append(_Reading(row))

    def advance(self) -> list[Told]:
        """Read a piece of the oldest prompts and take every other row a token on (some, where models take turns).

        An error ends the rows that it concerns, and nothing else.
        """
        import torch

        with torch.inference_mode():
            return self._advance()

    def _advance(self) -> list[Told]:
        told: list[Told] = []
        self._reading = [r for r in self._reading if not r.row.gone]
        for lane in self._lanes:
            lane.drop_gone(self._keep)
        self._lanes = [lane for lane in self._lanes if any(lane.rows)]
        told += self._read_some()
        turns = _TURNS if len(self._lanes) > 1 else 1
        for lane in list(self._lanes):
            for _ in range(turns):
                if lane in self._lanes and any(lane.rows):
                    told += self._step(lane)
        return told

    def drop_model(self, model: str) -> None:
        """Nothing of it is used again; whoever calls has seen that no row of it runs."""
        self._kept = [k for k in self._kept if k.model != model]

    def _count(self, more: Sequence[Row]) -> int:
        """Columns of all rows and of ``more``, each as wide as the widest of its model."""
        widths: dict[str, list[int]] = {}
        for row in [*self.rows, *more]:
            widths.setdefault(row.model, []).append(row.most)
        return sum(len(w) * max(w) for w in widths.values())

    def _read_some(self) -> list[Told]:
        """A piece of the prompts that wait; those that are read whole join together."""
        told: list[Told] = []
        left = _PIECE
        while self._reading and left > 0:
            reading = self._reading[0]
            before = reading.at
            try:
                told += self._read(reading)
            except _FAILURES as e:
                self._reading.remove(reading)
                told.append((reading.row, _fail(reading.row, e)))
            left -= max(1, reading.at - before)
        joining, self._joining = self._joining, []
        for model in dict.fromkeys(r.row.model for r in joining):
            come = [r for r in joining if r.row.model == model]
            try:
                self._join(come)
            except _FAILURES as e:
                told += [(r.row, _fail(r.row, e)) for r in come]
        return told

    def _read(self, reading: _Reading) -> list[Told]:
        row = reading.row
        model = self._activate(row.model)
        if reading.past is None:
            reading.begin(model, self._find_shared(row))
        logits = reading.read(model)
        if logits is None:
            return []
        told = _choose(logits, [row])
        self._reading.remove(reading)
        if not isinstance(told[-1][1], End):
            self._joining.append(reading)
        elif reading.layers:
            self._keep(row, reading.layers)
        return told

    def _join(self, come: Sequence[_Reading]) -> None:
        lane = next((n for n in self._lanes if n.model == come[0].row.model and n.shares), None)
        if not come[0].layers:
            self._lanes += [_Lane(r) for r in come]
            return
        if lane is None:
            lane, come = _Lane(come[0]), come[1:]
            self._lanes.append(lane)
        lane.join([(r.row, r.layers) for r in come])

    def _step(self, lane: _Lane) -> list[Told]:
        try:
            told = lane.step(self._activate(lane.model))
        except _FAILURES as e:
            # Without memory the last that came goes; an error of the model concerns all.
            running = [r for r in lane.rows if r]
            if is_out_of_memory(e) and len(running) > 1:
                lane.rewind()
                last = max(running, key=lambda r: r.began)
                lane.leave(last)
                return [(last, _fail(last, e))]
            self._lanes.remove(lane)
            return [(row, _fail(row, e)) for row in running]
        for row, what in told:
            if isinstance(what, End):
                lane.leave(row, self._keep)
        return told

    def _find_shared(self, row: Row) -> tuple[int, Layers]:
        """The longest beginning of a row that is there already: how many tokens, and their keys and values."""
        found: list[tuple[int, _Kept | _Reading | _Lane, int]] = [
            (_count_common(k.ids, row.ids), k, 0) for k in self._kept if k.model == row.model
        ]
        found += [
            (_count_common(r.row.ids, row.ids), r, 0)
            for r in self._joining
            if r.row.model == row.model and r.layers
        ]
        found += [
            (_count_common(other.ids, row.ids), lane, line)
            for lane in self._lanes
            if lane.model == row.model and lane.shares
            for line, other in enumerate(lane.rows)
            if other
        ]
        if not found:
            return 0, []
        shared, where, line = max(found, key=lambda f: f[0])
        shared = min(shared, len(row.ids) - 1)
        if shared < SHORTEST_PREFIX:
            return 0, []
        if isinstance(where, _Kept):
            self._kept.remove(where)
            self._kept.append(where)
        layers = where.show(line) if isinstance(where, _Lane) else where.layers
        return shared, [(k[:, :shared], v[:, :shared]) for k, v in layers]

    def _keep(self, row: Row, layers: Layers) -> None:
        """Remember what a row that ends has computed, where there is room."""
        width = layers[0][0].shape[1]
        ids = (*row.ids, *row.made)[:width]
        self._kept = [k for k in self._kept if k.model != row.model or ids[: len(k.ids)] != k.ids]
        while self._kept and (
            len(self._kept) >= _MOST_KEPT
            or self._count([]) + width + sum(len(k.ids) for k in self._kept) > self._columns
        ):
            self._kept.pop(0)
        if self._count([]) + width <= self._columns:
            self._kept.append(_Kept(row.model, ids, [(k.clone(), v.clone()) for k, v in layers]))


class _Reading:
    """A row whose prompt is being read, with a cache of its own."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.past: Any = None
        self.layers: Layers = []
        self.at = 0
        self._plain = False

    def begin(self, model: Any, shared: tuple[int, Layers]) -> None:
        count = count_layers(model)
        self._plain = not count
        self.past = make_plain_cache(model) if self._plain else make_cache(count)
        self.at, layers = shared
        for layer, (keys, values) in zip(self.past.layers, layers, strict=False):
            layer.begin([(keys, values)], self.at, len(self.row.ids))
        if not layers and not self._plain:
            for layer in self.past.layers:
                layer.room = len(self.row.ids)

    def read(self, model: Any) -> Any | None:
        """Logits (1, vocabulary) after the prompt's last token; None when there is more to read."""
        import torch

        ids = self.row.ids
        # A cache that is not ours may not be able to take a prompt in pieces.
        end = len(ids) if self._plain else min(len(ids), self.at + _PIECE)
        given = torch.tensor([ids[self.at : end]], device=model.device)
        positions = torch.arange(self.at, end, device=model.device)[None]
        logits = call_model(model, given, past=self.past, positions=positions).logits
        self.at = end
        if end < len(ids):
            return None
        if not self._plain:
            self.layers = [(layer.keys[0], layer.values[0]) for layer in self.past.layers]
        return logits[:, -1].float()


class _Lane:
    """Rows of one model in one cache. ``rows`` has a line for each; None where one has ended."""

    def __init__(self, reading: _Reading) -> None:
        self.model = reading.row.model
        self.rows: list[Row | None] = [reading.row]
        self.shares = bool(reading.layers)
        self._past = reading.past
        self._now = len(reading.row.ids)
        self._width = self._now if self.shares else 1 << 60
        self._starts = [0]
        self._mask: Any = None

    def join(self, come: Sequence[tuple[Row, Layers]]) -> None:
        """Into lines that are free; where there are too few, or too short ones, all are laid out anew."""
        rest = []
        for row, layers in come:
            length = layers[0][0].shape[1]
            if None not in self.rows or length > self._now:
                rest.append((row, layers))
                continue
            line = self.rows.index(None)
            for layer, part in zip(self._past.layers, layers, strict=True):
                layer.put(line, part, self._now)
            self.rows[line], self._starts[line], self._mask = row, self._now - length, None
        if rest:
            self._lay([line for line, r in enumerate(self.rows) if r], rest)

    def show(self, line: int) -> Layers:
        """A line's keys and values without its padding."""
        start = self._starts[line]
        return [(p.keys[line, :, start:], p.values[line, :, start:]) for p in self._past.layers]

    def leave(self, row: Row, keep: Callable[[Row, Layers], None] | None = None) -> None:
        line = self.rows.index(row)
        self.rows[line] = None
        if keep and self.shares:
            keep(row, self.show(line))

    def drop_gone(self, keep: Callable[[Row, Layers], None]) -> None:
        for row in self.rows:
            if row and row.gone:
                self.leave(row, keep)

    def rewind(self) -> None:
        """Forget a step that failed half-way."""
        for layer in self._past.layers:
            layer.rewind(self._now)

    def step(self, model: Any) -> list[Told]:
        """Every row's next token."""
        import torch

        stay = [line for line, r in enumerate(self.rows) if r]
        if self.shares and (
            self._now >= self._width or (len(self.rows) - len(stay)) * _LEAVING >= len(self.rows)
        ):
            if self._now >= self._width or len(stay) < len(self.rows):
                self._lay(stay, [])
            stay = list(range(len(self.rows)))
        device = model.device
        # A line that has ended goes on with anything until it is taken out.
        ids = torch.tensor([[r.made[-1] if r else 0] for r in self.rows], device=device)
        positions = torch.tensor([[self._now - s] for s in self._starts], device=device)
        mask = None
        if any(self._starts):
            if self._mask is None:
                starts = torch.tensor(self._starts, device=device)
                columns = torch.arange(self._width, device=device)
                self._mask = (columns >= starts[:, None]).long()
            mask = self._mask[:, : self._now + 1]
        out = call_model(model, ids, past=self._past, mask=mask, positions=positions)
        self._now += 1
        logits = out.logits[:, -1].float()
        if len(stay) < len(self.rows):
            logits = logits[torch.tensor(stay, device=device)]
        return _choose(logits, [r for r in self.rows if r])

    def _lay(self, stay: Sequence[int], come: Sequence[tuple[Row, Layers]]) -> None:
        """Lay out anew: these lines and those that come, all ending at the same column, with free columns after."""
        rows = [r for line in stay if (r := self.rows[line])] + [r for r, _ in come]
        parts = [self.show(line) for line in stay] + [layers for _, layers in come]
        lengths = [p[0][0].shape[1] for p in parts]
        longest = max(lengths)
        free = max(r.limit - len(r.made) for r in rows)
        width = longest + min(free, max(_FREE, longest // 4))
        laid = make_cache(len(self._past.layers))
        for n, layer in enumerate(laid.layers):
            layer.begin([p[n] for p in parts], longest, width)
        # Only now: without memory for it, everything stays as it was.
        self._past, self._now, self._width = laid, longest, width
        self.rows, self._starts, self._mask = list(rows), [longest - n for n in lengths], None


def _choose(logits: Any, rows: Sequence[Row]) -> list[Told]:
    """The next token of each row, from its line of ``logits``, and what it tells."""
    logs = logits.log_softmax(-1)
    chosen = logits.argmax(-1)
    for line, row in enumerate(rows):
        if row.temperature > 0:
            chosen[line] = _draw(logits[line], row)
    picked = logs.gather(1, chosen[:, None])[:, 0].tolist()
    told: list[Told] = []
    for line, (row, token, log) in enumerate(zip(rows, chosen.tolist(), picked, strict=True)):
        top: list[tuple[int, float]] = []
        if row.top:
            best = logs[line].topk(min(row.top, logs.shape[-1]))
            top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        told += [(row, what) for what in row.add(token, log, top)]
    return told


def _draw(logits: Any, row: Row) -> int:
    """Where the row's die falls in the sum of the probabilities; with ``top_p`` only the likeliest that reach it."""
    import torch

    chances = torch.softmax(logits.double() / row.temperature, -1)
    if row.top_p < 1:
        ordered, order = chances.sort(descending=True)
        chances[order[ordered.cumsum(-1) - ordered >= row.top_p]] = 0
    sums = chances.cumsum(-1)
    fall = torch.tensor(row.dice.random(), dtype=sums.dtype, device=sums.device)
    found = int(torch.searchsorted(sums, fall * sums[-1], right=True))
    return min(found, len(sums) - 1)


def _count_common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return len(find_common((a, b)))


def _fail(row: Row, error: Exception) -> End:
    said = str(error).splitlines()[0][:160] if str(error) else ""
    if is_out_of_memory(error):
        free_memory()
        return row.end("error", error=f"no memory: {said}")
    return row.end("error", error=f"{type(error).__name__}: {said}")
