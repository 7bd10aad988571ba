"""One answer being written, token by token."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from gtft.serving.engine import End, Finish, Token
from gtft.serving.spelling import Spelling


@dataclass(eq=False)
class Row:
    """One answer. ``model``: its key; ``limit``: most tokens; ``top``: alternatives per token, None = no logprobs.

    ``whole``: tokens of its prompt with what was left out.

    ``gone`` may be set by another thread: nobody waits for it any more. ``decode`` turns tokens to text.
    """

    model: str
    ids: tuple[int, ...]
    limit: int
    ends: Collection[int]
    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top: int | None = None
    began: float = 0.0
    left_out: int = 0
    whole: int = 0
    gone: bool = False
    made: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spelling = Spelling(self.decode, self.stop)
        self.dice = random.Random(self.seed)  # noqa: S311
        self._score, self._scored = 0.0, 0

    @property
    def most(self) -> int:
        """Columns that it can come to need."""
        return len(self.ids) + self.limit

    def add(
        self, token: int, log: float, top: Sequence[tuple[int, float]]
    ) -> Iterator[Token | End]:
        """What the next token tells: a Token, and an End when it is the last."""
        if not math.isfinite(log):
            yield self.end("error", error="the model's probabilities are not numbers")
            return
        self._score += log
        self._scored += 1
        if token in self.ends:
            yield from self._finish("stop")
            return
        self.made.append(token)
        alternatives = tuple((self.decode([i]), p) for i, p in top)
        yield self._say(self.spelling.add(token), None if self.top is None else log, alternatives)
        if self.spelling.stopped_by or len(self.made) >= self.limit:
            yield from self._finish("stop" if self.spelling.stopped_by else "length")

    def end(self, finish: Finish, *, error: str = "") -> End:
        """Whatever it came to. ``seconds`` is for whoever has the clock."""
        confidence = round(math.exp(self._score / self._scored), 6) if self._scored else None
        return End(
            finish,
            "".join(self.text),
            max(self.whole, len(self.ids)),
            len(self.made),
            0.0,
            confidence,
            error,
            self.left_out,
            self.spelling.stopped_by,
        )

    def _finish(self, finish: Finish) -> Iterator[Token | End]:
        if rest := self.spelling.end():
            yield self._say(rest, None, ())
        yield self.end(finish)

    def _say(self, text: str, log: float | None, top: tuple[tuple[str, float], ...]) -> Token:
        self.text.append(text)
        return Token(text, log, top)
