"""Answers from another OpenAI-compatible server, such as llama.cpp's, ``transformers serve`` or vLLM.

A request is sent once. When the server refuses a field that only tells more about the answer, it is sent once more without
it, and that field never again. Everything that is sent back is taken for hostile: bounded, and of any shape.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from gtft.evals.heldout import write_reference
from gtft.serving.engine import Ask, Busy, End, Finish, Served, Token, Unanswerable
from gtft.serving.spelling import Cutter

# Of one event, and of one answer, bytes.
_MOST_EVENT, _MOST_ANSWER = 4 << 20, 64 << 20
_CONNECT_S = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Fields that are asked for only to know more, or to draw alike.
_OPTIONAL = ("logprobs", "top_logprobs", "stream_options", "seed")


@dataclass(frozen=True)
class Upstream:
    """A model of another server: ``name`` there. ``lacks``: optional fields that it is known to refuse."""

    served: Served
    url: str
    name: str
    lacks: frozenset[str] = frozenset()


class UpstreamEngine:
    """``parallel``: requests that the other server gets at once, ``queue``: that may wait here for that.

    ``key`` is sent as the bearer token, to these servers and nobody else (redirects are not followed). ``count``
    counts the tokens of a prompt, where their tokenizer is at hand; it may raise Unanswerable.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        key: str = "",
        parallel: int = 4,
        queue: int = 64,
        count: Callable[[Ask], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams, self._queue, self._clock = list(upstreams), queue, clock
        self._parallel, self._count = parallel, count
        self._slots = asyncio.Semaphore(parallel)
        self._counting = asyncio.Lock()
        self._taken = 0
        self._begun = 0
        self._lacks: dict[str, set[str]] = {u.served.name: set(u.lacks) for u in upstreams}
        local = all(urlsplit(u.url).hostname in _LOOPBACK for u in upstreams)
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            # A proxy of the environment has nothing to do with this machine.
            trust_env=not local,
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def list_models(self) -> tuple[Served, ...]:
        return tuple(u.served for u in self._upstreams)

    def count_waiting(self) -> int:
        return self._taken - self._begun

    async def answer(self, ask: Ask) -> AsyncIterator[Token | End]:
        """See `Engine.answer`."""
        upstream = self._find(ask.model)
        if self._taken >= self._queue + self._parallel:
            raise Busy(1.0)
        began = self._clock()
        answer = _Answer(began, Cutter(ask.stop), ask.top_logprobs)
        begun = False
        self._taken += 1
        pieces = self._stream(upstream, ask, answer)
        try:
            async with asyncio.timeout(ask.seconds):
                await self._slots.acquire()
            begun = True
            self._begun += 1
            while True:
                async with asyncio.timeout(began + ask.seconds - self._clock()):
                    token = await anext(pieces, None)
                if token is None:
                    break
                yield token
            if rest := answer.write_rest():
                yield Token(rest)
            if not answer.prompt_tokens and self._count:
                answer.prompt_tokens = await self.count_tokens(ask)
            yield answer.end(answer.finish, self._clock())
        except TimeoutError:
            yield answer.end("timeout", self._clock())
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as e:
            yield answer.end("error", self._clock(), f"{type(e).__name__}: {e}")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
            # What a server answers is not trusted to have any shape.
            yield answer.end("error", self._clock(), f"not an answer: {type(e).__name__} {e}")
        finally:
            await pieces.aclose()
            self._taken -= 1
            if begun:
                self._begun -= 1
                self._slots.release()

    async def count_tokens(self, ask: Ask) -> int:
        self._find(ask.model)
        if self._count is None:
            raise Unanswerable("the server behind this one does not count tokens")
        # A tokenizer is for one thread at a time.
        async with self._counting:
            return await asyncio.to_thread(self._count, ask)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _find(self, name: str) -> Upstream:
        for upstream in self._upstreams:
            if name in (upstream.served.name, *upstream.served.aliases):
                return upstream
        raise Unanswerable(f"there is no model {name[:100]!r} here", missing=True)

    async def _stream(
        self, upstream: Upstream, ask: Ask, answer: _Answer
    ) -> AsyncGenerator[Token, None]:
        lacks = self._lacks[upstream.served.name]
        address = upstream.url.rstrip("/") + "/chat/completions"
        for last in (False, True):
            body = _write_body(upstream.name, ask, lacks)
            async with self._client.stream("POST", address, json=body) as response:
                if response.status_code != 200:
                    said = await _read_error(response)
                    named = [o for o in _OPTIONAL if o in body and o in said]
                    if response.status_code in (400, 422) and named and not last:
                        lacks.update(named)
                        continue
                    _refuse(response, said)
                async for doc in _read_events(response):
                    for token in answer.take(doc):
                        yield token
                    if answer.cutter.stopped_by:
                        # A server that does not know the stop string would go on.
                        break
                return


@dataclass
class _Answer:
    """What has come of one answer. ``pieces``: its tokens, as far as they can be counted from outside. ``stopped_there``:
    the stop string that the server says it cut off."""

    began: float
    cutter: Cutter
    top: int | None
    finish: Finish = "error"
    text: list[str] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    pieces: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    stopped_there: str = ""

    def take(self, doc: Mapping[str, Any]) -> list[Token]:
        """One event. Raises ValueError, TypeError or LookupError for what is none."""
        if "error" in doc:
            raise ValueError(_find_message(doc))
        if used := doc.get("usage"):
            self.tokens = _count(used.get("completion_tokens"))
            self.prompt_tokens = _count(used.get("prompt_tokens"))
        if not doc.get("choices"):
            return []
        choice = doc["choices"][0]
        delta = choice.get("delta") or {}
        if why := choice.get("finish_reason"):
            self.finish = "length" if why == "length" else "stop"
            if (told := choice.get("stop_reason")) in self.cutter.stop:
                self.stopped_there = told
        for call in delta.get("tool_calls") or ():
            known = self.calls.setdefault(
                int(call.get("index") or 0), {"name": "", "arguments": ""}
            )
            for key in known:
                known[key] += str((call.get("function") or {}).get(key) or "")
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is not a text")
        tokens = self._read_tokens(text, choice.get("logprobs"))
        if self.cutter.stopped_by:
            self.finish = "stop"
        return tokens

    def write_rest(self) -> str:
        """What was held back, then tool calls that came apart from the text, as our models write them.

        Raises ValueError.
        """
        rest = self.cutter.add("", last=True)
        if self.calls:
            calls = [
                {"function": {"name": c["name"], "arguments": json.loads(c["arguments"] or "{}")}}
                for _, c in sorted(self.calls.items())
            ]
            written = write_reference({"content": "", "tool_calls": calls})
            rest += f"\n{written}" if rest or any(self.text) else written
        self.text.append(rest)
        return rest

    def end(self, finish: Finish, now: float, error: str = "") -> End:
        if finish == "error" and not error:
            error = "the server ended half-way"
        confidence = math.exp(math.fsum(self.logs) / len(self.logs)) if self.logs else None
        return End(
            finish,
            "".join(self.text),
            self.prompt_tokens,
            self.tokens or self.pieces,
            round(now - self.began, 4),
            None if confidence is None else round(min(1.0, confidence), 6),
            " ".join(error.split())[:300],
            stopped_by=self.cutter.stopped_by or self.stopped_there,
        )

    def _read_tokens(self, text: str, logprobs: Any) -> list[Token]:
        listed = (logprobs or {}).get("content") or ()
        found = []
        for one in listed:
            log = float(one["logprob"])
            if not math.isfinite(log):
                continue
            self.logs.append(min(0.0, log))
            top = tuple(
                (str(t["token"]), float(t["logprob"])) for t in one.get("top_logprobs") or ()
            )
            found.append(Token("", log, top))
        self.pieces += max(len(listed), bool(text))
        if told := self.cutter.add(text):
            self.text.append(told)
            # Several tokens in one event: their text is told with the first.
            found[:1] = [replace(found[0], text=told) if found else Token(told)]
        return found


def _write_body(name: str, ask: Ask, lacks: Collection[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": name,
        "messages": [_shape(m) for m in ask.messages],
        "max_tokens": ask.max_tokens,
        "temperature": ask.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Always asked for: an answer's confidence is made of them. Some servers tell none without alternatives.
        "logprobs": True,
        "top_logprobs": ask.top_logprobs or 1,
    }
    if ask.temperature > 0:
        body |= {"top_p": ask.top_p, "seed": ask.seed}
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.tools:
        body["tools"] = list(ask.tools)
    return {k: v for k, v in body.items() if k not in lacks}


def _shape(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the protocol has it: the arguments of a call are JSON text."""
    out = dict(message)
    if calls := out.get("tool_calls"):
        out["tool_calls"] = [
            {
                **c,
                "id": str(c.get("id") or f"call-{n}"),
                "type": "function",
                "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"])},
            }
            for n, c in enumerate(calls)
        ]
    return out


async def _read_events(response: httpx.Response) -> AsyncIterator[Mapping[str, Any]]:
    """The objects of a stream of events. Raises ValueError for what is too large or no JSON object."""
    held, total = b"", 0
    async for piece in response.aiter_bytes():
        total += len(piece)
        *lines, held = (held + piece).split(b"\n")
        if len(held) > _MOST_EVENT or total > _MOST_ANSWER:
            raise ValueError("more than any answer has")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            doc = json.loads(data)
            if not isinstance(doc, dict):
                raise ValueError("an event is not a JSON object")
            yield doc


async def _read_error(response: httpx.Response) -> str:
    said = b""
    async for piece in response.aiter_bytes():
        said += piece
        if len(said) > _MOST_EVENT:
            break
    try:
        return _find_message(json.loads(said))
    except (ValueError, RecursionError):
        return said.decode("utf-8", "replace")[:300]


def _find_message(doc: Any) -> str:
    """What an error says, in whichever of the usual shapes."""
    found = doc.get("error", doc.get("detail", doc)) if isinstance(doc, dict) else doc
    if isinstance(found, dict):
        found = found.get("message", found)
    return " ".join(str(found).split())[:1000]


def _refuse(response: httpx.Response, said: str) -> None:
    """Raises what a status means to us."""
    code = response.status_code
    if code in (429, 503):
        wait = response.headers.get("retry-after", "")
        raise Busy(float(wait) if wait.isdigit() else 1.0)
    if code in (400, 413, 422):
        raise Unanswerable(said[:300] or f"the server behind this one answers {code}")
    if code == 404:
        raise Unanswerable(
            said[:300] or "the server behind this one has no such model", missing=True
        )
    raise httpx.HTTPError(f"the server answers {code}: {said[:200]}")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
