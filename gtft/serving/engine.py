"""What answers: the one seam between the protocols (HTTP) and whatever generates (this process, or another server).

An answer's tokens, put together, are its End's text. One Token is one token of the model, so its text may be empty: the
middle of a character, or what may still become a stop string, is told with a later token, at the latest with one that
has no logprob, after the last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Finish = Literal["stop", "length", "timeout", "cancelled", "error"]


@dataclass(frozen=True)
class Served:
    """A model that can be asked by ``name``, or by one of ``aliases``. ``id``: of its adapter, "" for a base.
    ``context``: the most tokens that prompt and answer have together."""

    name: str
    id: str
    role: str
    kind: Literal["base", "role", "task", "whole"]
    context: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A chat request, free of any protocol.

    ``messages`` are OpenAI's, with content as one text and the arguments of tool calls as objects; ``tools`` too.
    ``temperature`` 0 answers greedily; above it the same ``seed`` gives the same answer. ``top_logprobs``: None = no
    logprobs, else how many alternatives per token. ``max_tokens`` is cut to what the context leaves after the prompt.
    ``seconds``: the longest that it may take, waiting in the queue included.
    """

    model: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    max_tokens: int
    seconds: float
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class Token:
    """One token's share of the text; ``logprob`` is natural. ``top``: (text, logprob) of the likeliest."""

    text: str
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class End:
    """The last thing of every answer. ``text`` is the whole answer as it was generated (calls as the model writes
    them), ``confidence`` the geometric mean of the probabilities of its tokens, None when not known. ``left_out``: how
    many older messages were left out to make the prompt fit, in the way that training and eval cut; ``prompt_tokens`` counts
    them too: agents end or shorten their sessions by it.
    ``stopped_by``: the stop string that ended it, "" for none; it is not part of ``text``."""

    finish: Finish
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    confidence: float | None = None
    error: str = ""
    left_out: int = 0
    stopped_by: str = ""


class Unanswerable(Exception):
    """The request cannot be answered as it is (HTTP 400; 404 when ``missing``); the message says why."""

    def __init__(self, why: str, *, missing: bool = False) -> None:
        super().__init__(why)
        self.missing = missing


class Busy(Exception):
    """The queue is full (HTTP 429); ``after`` is when to ask again, seconds."""

    def __init__(self, after: float) -> None:
        super().__init__("the queue is full")
        self.after = after


class Engine(Protocol):
    """Answers in the order of asking, many at once where it can. All calls come from one event loop."""

    def list_models(self) -> tuple[Served, ...]: ...

    def answer(self, ask: Ask) -> AsyncIterator[Token | End]:
        """Tokens as they come, then one End. Closing the iterator early cancels the answer.

        The first step of the iterator raises Unanswerable or Busy, if any does; whatever goes wrong later is an End
        that says so.
        """
        ...

    async def count_tokens(self, ask: Ask) -> int:
        """Tokens of the prompt, as it would be sent if it all fitted. Raises Unanswerable."""
        ...

    def count_waiting(self) -> int:
        """Requests that were taken and are not begun."""
        ...

    async def aclose(self) -> None: ...
