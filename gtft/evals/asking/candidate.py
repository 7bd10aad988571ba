"""Who is asked: anything that turns prompts into answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gtft.evals.item import Item, Message

# How a reply ends that is no answer.
UNANSWERED = ("error", "timeout")


class Unavailable(Exception):
    """A candidate cannot be asked on this box; the message says why, for the report's list of what was not run."""


@dataclass(frozen=True)
class Prompt:
    """An item as one candidate reads it.

    ``item`` is the item as it was shortened to fit, and ``asked`` the id that it had before, "" where it is whole. ``messages`` is the chat that is sent, additions included
    (a prime text, found passages). ``ids`` are its tokens, empty for a candidate that is asked over a network.
    """

    item: Item
    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    sha256: str
    asked: str = ""


@dataclass(frozen=True)
class Reply:
    """One answer. ``finish``: "stop" at an end-of-turn token, "length" at the limit of tokens, "timeout" at the limit of
    time, "error" when there is no answer (``error`` says why).

    ``tokens`` and ``prompt_tokens`` are counted by the candidate. ``confidence`` is the geometric mean of the
    probabilities of the answer's tokens, end of turn included; None when it is not known. ``seconds``: this
    answer's share of the wall time. ``refused``: the error is about this prompt, others may be answered.
    """

    text: str
    tokens: int
    prompt_tokens: int
    finish: str
    seconds: float
    confidence: float | None = None
    error: str = ""
    refused: bool = False


class Candidate(Protocol):
    """``name``: base, tuned, base+prime, base+docs, tuned+prime, model:ID or endpoint:NAME. ``key``: what its answers depend
    on besides prompt, seed and limits (weights, settings): stored answers of another key are not used again."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def most(self) -> int | None:
        """How many prompts are asked at once, where fewer than usual: nothing stops a batch half-way."""
        ...

    def write(self, items: Sequence[Item]) -> tuple[list[Prompt], list[Item]]:
        """The prompts, and the items that cannot be made to fit."""
        ...

    def answer(self, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        """One reply per prompt, in order; never raises for what one prompt does. ``seed`` 0 is greedy decoding,
        others draw."""
        ...
