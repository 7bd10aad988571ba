"""One request after another: its body read, the engine asked, figures counted, until the client has its answer or is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gtft.serving.engine import Busy, End, Engine, Served, Token, Unanswerable
from gtft.serving.metrics import Metrics
from gtft.serving.question import Question, Refused, Stream, Tongue, Whole, collect, replay

# Bytes of one request's body, and of all that are held at once.
MOST_BODY = 4 << 20
MOST_HELD = 256 << 20
_BODY_SECONDS = 30.0
# Of a body that is too large, so much is read and dropped: a client that still writes would not hear why.
_MOST_PASSED_BY = 64 << 20
_LATER = 5.0

_T = TypeVar("_T")


class Gone(Exception):
    """The client does not wait any more."""


class Desk:
    """What all requests share. ``engine`` is None while models are loaded. ``make_key``: letters that no two answers share;
    ``make_seed``: a number to draw an answer with.

    ``now``: seconds since 1970; ``clock``: seconds that only go up.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        make_key: Callable[[], str],
        make_seed: Callable[[], int],
    ) -> None:
        self.engine: Engine | None = None
        self.closing = False
        self.metrics = Metrics()
        self.now, self.clock = now, clock
        self.make_key, self.make_seed = make_key, make_seed
        self.in_flight = 0
        self.held = 0

    def find_engine(self) -> Engine:
        """Raises Refused while there is none."""
        if self.closing:
            raise Refused(503, "this server is ending", after=_LATER)
        if self.engine is None:
            raise Refused(503, "the models are being loaded", after=_LATER)
        return self.engine


class Visit:
    """One request, from its headers to the last byte of its answer."""

    def __init__(self, desk: Desk, request: Request, tongue: Tongue) -> None:
        self.desk, self.request, self.tongue = desk, request, tongue
        self.began = desk.clock()
        self._held = 0
        self._ended = False
        desk.in_flight += 1

    async def serve(self, act: Callable[[Visit], Awaitable[Response]]) -> Response:
        """The response of ``act``, or the refusal that it raised. A streamed one ends the visit itself."""
        streams = False
        try:
            response = await act(self)
            streams = isinstance(response, Events)
            if not streams:
                self.end("answered" if response.status_code < 400 else "error")
            return response
        except (Refused, Busy, Unanswerable) as e:
            status, why, after = read_refusal(e)
            self.end({429: "busy", 503: "busy", 504: "timeout"}.get(status, _name(status)))
            return write_refusal(self.tongue, status, why, after)
        except (Gone, ClientDisconnect):
            self.end("gone")
            return Response(status_code=400)
        finally:
            if not streams:
                # A bug, or the server's end: nobody was answered.
                self.end("error")

    def end(self, outcome: str, end: End | None = None) -> None:
        """Count it; only the first call counts."""
        if end is not None and not self._ended:
            self.desk.metrics.count("gtft_tokens_total", end.prompt_tokens, kind="prompt")
            self.desk.metrics.count("gtft_tokens_total", end.tokens, kind="answer")
        if self._ended:
            return
        self._ended = True
        self.desk.in_flight -= 1
        self.desk.held -= self._held
        name = self.tongue.name
        self.desk.metrics.count("gtft_requests_total", protocol=name, outcome=outcome)
        self.desk.metrics.observe(name, self.desk.clock() - self.began)

    async def read_body(self, most: int = MOST_BODY) -> bytes:
        """All of it. Raises Refused when it is too large, too slow, or too much together with the others'."""
        said = self.request.headers.get("content-length", "")
        size = int(said) if said.isdigit() else 0
        body, seen = bytearray(), 0
        if size > _MOST_PASSED_BY:
            raise Refused(413, f"a request has at most {most} bytes")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in self.request.stream():
                    seen += len(chunk)
                    if seen <= most:
                        body += chunk
                        self._hold(len(chunk))
                    elif seen > _MOST_PASSED_BY:
                        break
        except TimeoutError as e:
            raise Refused(408, f"the request did not arrive within {_BODY_SECONDS:.0f} s") from e
        if max(size, seen) > most:
            raise Refused(413, f"a request has at most {most} bytes")
        return bytes(body)

    def _hold(self, size: int) -> None:
        self._held += size
        self.desk.held += size
        if self.desk.held > MOST_HELD:
            raise Refused(503, "too many large requests at once", after=_LATER)

    async def finish(self) -> None:
        """The end of what was passed on."""
        self.end("passed")

    def say_count(self, tokens: int) -> Response:
        return say({"input_tokens": tokens})

    async def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``, which ends when the client goes away. Raises Gone."""
        task = asyncio.create_task(work)
        gone = asyncio.create_task(self._wait_gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Gone
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _wait_gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    # -- answers

    async def answer(self, engine: Engine, question: Question) -> Response:
        """Ask, and answer as it was asked for. Raises Refused, Busy, Unanswerable or Gone."""
        if not question.stream:
            whole = await self.wait(collect(engine.answer(question.ask)))
            return self.tell(question, whole)
        pump = Pump(engine.answer(question.ask))
        try:
            first = await self.wait(pump.next())
            if isinstance(first, End):
                check_end(first)
        except BaseException:
            await pump.close()
            raise
        return self._stream(question, _chain(first, pump), pump.close)

    def tell(self, question: Question, whole: Whole) -> Response:
        """An answer that is there already, streamed where it was asked for so. Raises Refused for one that is none."""
        check_end(whole.end)
        if question.stream:
            return self._stream(question, replay(whole))
        doc = self.tongue.write(question, whole, self.desk.make_key(), int(self.desk.now()))
        self.end("answered", whole.end)
        return say(doc)

    def _stream(
        self,
        question: Question,
        events: AsyncIterator[Token | End],
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> Response:
        writer = self.tongue.stream(question, self.desk.make_key(), int(self.desk.now()))

        async def finish() -> None:
            if close is not None:
                await close()
            self.end("gone")

        return Events(self._write(writer, events), finish)

    async def _write(
        self, writer: Stream, events: AsyncIterator[Token | End]
    ) -> AsyncIterator[str]:
        yield writer.begin()
        async for event in events:
            if isinstance(event, Token):
                if text := writer.add(event):
                    yield text
            elif why := _find_fault(event):
                self.end("timeout" if event.finish == "timeout" else "error", event)
                yield writer.fail(why[1])
            else:
                # Counted before it is sent: a client that has the end may ask for the figures at once.
                self.end("answered", event)
                yield writer.finish(event)


class Pump:
    """Takes an answer from the engine in one task, as fast as it comes: a slow client holds nobody up."""

    def __init__(self, events: AsyncIterator[Token | End]) -> None:
        self._queue: asyncio.Queue[Token | End | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(events))

    async def next(self) -> Token | End:
        """Raises what the engine raises."""
        event = await self._queue.get()
        if event is not None:
            return event
        await self._task
        return End("error", "", 0, 0, 0.0, error="the answer has no end")

    async def close(self) -> None:
        """Ends the answer where it is not over."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, events: AsyncIterator[Token | End]) -> None:
        try:
            async with aclosing(events) as found:  # type: ignore[type-var]
                async for event in found:
                    self._queue.put_nowait(event)
        finally:
            self._queue.put_nowait(None)


class Events(StreamingResponse):
    """Server-sent events; ``finish`` runs whatever becomes of the client."""

    def __init__(
        self, content: AsyncIterator[str | bytes], finish: Callable[[], Awaitable[None]]
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._finish = finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._finish()


def read_refusal(error: Refused | Busy | Unanswerable) -> tuple[int, str, float | None]:
    """Status, reason, and when to ask again."""
    if isinstance(error, Busy):
        return 429, "the queue is full", error.after
    if isinstance(error, Unanswerable):
        return (404 if error.missing else 400), str(error), None
    return error.status, error.why, error.after


def write_refusal(tongue: Tongue, status: int, why: str, after: float | None = None) -> Response:
    headers = {} if after is None else {"Retry-After": str(max(1, round(after)))}
    if status in (408, 413):
        headers["Connection"] = "close"
    return say(tongue.refuse(status, why[:500]), status, headers)


def say(
    doc: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII: what a model or a client wrote may hold what UTF-8 has no place for."""
    body = json.dumps(doc)
    return Response(body, status, dict(headers or {}), media_type="application/json")


def read_object(body: bytes) -> dict[str, Any]:
    """Raises Refused."""
    try:
        doc = json.loads(body)
        # Half a character can be written in JSON and in nothing else.
        json.dumps(doc, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"the body is not JSON: {str(e)[:80]}") from e
    if not isinstance(doc, dict):
        raise Refused(400, "the body is not a JSON object")
    return doc


def check_end(end: End) -> None:
    """Raises Refused when it ends an answer that is none."""
    if found := _find_fault(end):
        raise Refused(*found)


def ask_by_name(question: Question, engine: Engine, make_seed: Callable[[], int]) -> Question:
    """The question as it is put to the model that it means, with a seed of its own where it brings none."""
    name = find_name(question.ask.model, engine.list_models())
    seed = question.ask.seed if question.seeded else make_seed()
    return replace(question, ask=replace(question.ask, model=name, seed=seed))


def find_name(asked: str, models: Sequence[Served]) -> str:
    """The name of the model that is meant: the first where none is named; the only one of a role by its role."""
    if not asked:
        return models[0].name if models else ""
    if any(asked in (m.name, *m.aliases) for m in models):
        return asked
    of_role = [m.name for m in models if m.role == asked]
    return of_role[0] if len(of_role) == 1 else asked


def _find_fault(end: End) -> tuple[int, str] | None:
    if end.finish == "timeout":
        return 504, "no answer within the time limit"
    if end.finish == "cancelled":
        return 503, "this server is ending"
    if end.finish == "error":
        return 500, end.error or "the model could not answer"
    return None


def _name(status: int) -> str:
    return "refused" if status < 500 else "error"


async def _chain(first: Token | End, pump: Pump) -> AsyncIterator[Token | End]:
    event = first
    yield event
    while not isinstance(event, End):
        event = await pump.next()
        yield event
