"""What the protocols share: a request that was read, an answer that was collected, a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from gtft.serving.engine import Ask, End, Token

_MOST_STOPS, _LONGEST_STOP = 16, 256


class Refused(Exception):
    """The request gets no answer: an HTTP status, and why in words that may be shown. ``after``: ask again then, seconds."""

    def __init__(self, status: int, why: str, *, after: float | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.after = status, why, after


@dataclass(frozen=True)
class Bounds:
    """Of one answer: ``tokens`` where the client does not say, ``most`` that it can ask for, ``seconds``."""

    tokens: int
    most: int
    seconds: float


@dataclass(frozen=True)
class Question:
    """A request in any protocol. ``metadata``: what the client says about itself, for finding bead and session.
    ``must_call``: it asked for a call of a tool; nothing can force a model to make one. ``wanted``: the tokens that
    it would take, where a role's answer may have fewer. ``echo``: what the answer repeats of the request. ``seeded``: it
    says how to draw; else no two answers need be alike."""

    ask: Ask
    stream: bool
    metadata: Mapping[str, str]
    must_call: bool = False
    include_usage: bool = False
    wanted: int = 0
    echo: Mapping[str, Any] = field(default_factory=dict)
    seeded: bool = False


@dataclass(frozen=True)
class Whole:
    tokens: tuple[Token, ...]
    end: End


class Stream(Protocol):
    """The writer of one streamed answer: server-sent events as text."""

    def begin(self) -> str: ...

    def add(self, token: Token) -> str: ...

    def finish(self, end: End) -> str: ...

    def fail(self, why: str) -> str: ...


class Tongue(Protocol):
    """One protocol: how requests are read, and answers and refusals written."""

    name: str

    def read(self, doc: Mapping[str, Any], bounds: Bounds) -> Question:
        """Raises Refused."""
        ...

    def write(self, question: Question, whole: Whole, key: str, at: int) -> dict[str, Any]: ...

    def stream(self, question: Question, key: str, at: int) -> Stream: ...

    def refuse(self, status: int, why: str) -> dict[str, Any]: ...


async def collect(events: AsyncIterator[Token | End]) -> Whole:
    """All of an answer. Raises what the engine raises before the first token."""
    tokens: list[Token] = []
    async with aclosing(events) as found:  # type: ignore[type-var]
        async for event in found:
            if isinstance(event, End):
                return Whole(tuple(tokens), event)
            tokens.append(event)
    return Whole(tuple(tokens), End("error", "", 0, 0, 0.0, error="the answer has no end"))


async def replay(whole: Whole) -> AsyncIterator[Token | End]:
    for token in whole.tokens:
        yield token
    yield whole.end


def read_stop(stop: Iterable[str]) -> tuple[str, ...]:
    """The strings that end an answer. Raises Refused for more than a token can be compared with."""
    found = tuple(s for s in stop if s)
    if len(found) > _MOST_STOPS or any(len(s) > _LONGEST_STOP for s in found):
        raise Refused(
            400, f"stop: at most {_MOST_STOPS} strings of {_LONGEST_STOP} characters each"
        )
    return found


def describe(error: ValidationError) -> str:
    """The first thing that is wrong, without the value that is wrong."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("_"))
    return f"{where or 'the body'}: {first['msg']}"[:300]
