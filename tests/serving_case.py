"""What the serving tests share: an engine that answers by a script, and the real application on a real socket."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.service import AnswerLine, Fallback, Route, Routes, read_answers, write_routes
from gtft.serving.app import make_app
from gtft.serving.desk import Desk
from gtft.serving.engine import Ask, Busy, End, Served, Token, Unanswerable
from gtft.serving.gateway import Gateway
from gtft.serving.listen import Listener, open_socket
from gtft.serving.previous import Previous
from gtft.serving.question import Bounds

ADAPTER = "sha256:" + "ab" * 32
MODEL = "witness-ababababab"
CALL = '<tool_call>{"name": "Bash", "arguments": {"command": "bd show gt-abc12"}}</tool_call>'


@dataclass
class Script:
    """An engine: ``say`` writes the answer to an ask; ``finish`` and ``pause`` (seconds a token) are for all."""

    say: Callable[[Ask], str] = lambda ask: f"I heard {ask.messages[-1]['content']}."
    finish: str = "stop"
    pause: float = 0.0
    queue: int = 8
    models: tuple[Served, ...] = (Served(MODEL, ADAPTER, "witness", "role", 4096),)
    asked: list[Ask] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0

    def list_models(self) -> tuple[Served, ...]:
        return self.models

    async def answer(self, ask: Ask) -> AsyncIterator[Token | End]:
        if ask.model not in [m.name for m in self.models]:
            raise Unanswerable(f"there is no model {ask.model} here", missing=True)
        if self.running >= self.queue:
            raise Busy(3.0)
        self.asked.append(ask)
        self.running += 1
        done = False
        try:
            text, stopped = self.say(ask), ""
            for stop in ask.stop:
                if stop in text:
                    text, stopped = text.split(stop)[0], stop
            finish, pieces = self.finish, _cut(text)
            if len(pieces) > ask.max_tokens:
                finish, pieces = "length", pieces[: ask.max_tokens]
            for piece in pieces:
                await asyncio.sleep(self.pause)
                top = ((piece, -0.5), ("no", -2.0))[: ask.top_logprobs or 0]
                yield Token(piece, None if ask.top_logprobs is None else -0.5, top)
            tokens = len(pieces)
            text = "".join(pieces)
            yield End(finish, text, 7, tokens, 0.1, math.exp(-0.5), stopped_by=stopped)  # type: ignore[arg-type]
            done = True
        finally:
            self.running -= 1
            self.cancelled += not done

    async def count_tokens(self, ask: Ask) -> int:
        return sum(len(m["content"].split()) for m in ask.messages)

    def count_waiting(self) -> int:
        return 0

    async def aclose(self) -> None:
        pass


def _cut(text: str) -> list[str]:
    """Tokens of three characters: calls and words are cut anywhere."""
    return (
        ["".join(c) for c in itertools.batched(text, 3)]
        if hasattr(itertools, "batched")
        else [text[i : i + 3] for i in range(0, len(text), 3)]
    )


@dataclass
class Running:
    """A server that runs: ``url`` has no path."""

    url: str
    port: int
    desk: Desk
    listener: Listener
    workspace: Path
    admitted: list[Route]

    def send(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers, JSON (or text) of a request."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        line.request(method, path, data, given)
        response = line.getresponse()
        said = response.read().decode()
        line.close()
        try:
            doc = json.loads(said)
        except ValueError:
            doc = said
        return response.status, {k.lower(): v for k, v in response.getheaders()}, doc

    def chat(
        self, text: str = "which pump leaks?", *, below: str = "", **more: Any
    ) -> tuple[int, dict[str, str], Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
        return self.send("POST", f"{below}/v1/chat/completions", body)

    def read_metric(self, name: str) -> float:
        text = self.send("GET", "/metrics")[2]
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
        return sum(map(float, found))

    def read_lines(self, deployment: str = "dep-1") -> list[AnswerLine]:
        return list(read_answers(self.workspace, deployment))


@contextmanager
def serve(
    engine: Any,
    workspace: Path,
    *,
    token: str = "",
    seconds: float = 30.0,
    admit: Callable[[Route], Awaitable[None]] | None = None,
) -> Iterator[Running]:
    """The application as the worker makes it, in a thread with a loop of its own."""
    sock = open_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    keys = itertools.count()
    desk = Desk(
        now=time.time,
        clock=time.monotonic,
        make_key=lambda: f"k{next(keys)}x",
        make_seed=itertools.count(1).__next__,
    )
    desk.engine = engine
    admitted: list[Route] = []

    async def note(route: Route) -> None:
        admitted.append(route)
        if admit is not None:
            await admit(route)

    started: list[Listener] = []

    async def main() -> None:
        previous = Previous(token)
        gateway = Gateway(desk, workspace, previous, note)
        app = make_app(desk, gateway, Bounds(64, 1 << 20, seconds), token)
        listener = Listener(app, 10.0, lambda: setattr(desk, "closing", True))
        started.append(listener)
        await listener.serve(sockets=[sock])
        await previous.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    wait_until(lambda: bool(started) and started[0].started)
    yield Running(f"http://127.0.0.1:{port}", port, desk, started[0], workspace, admitted)
    started[0].stop()
    thread.join(30)
    assert not thread.is_alive()


def make_route(**changes: Any) -> Route:
    values: dict[str, Any] = {
        "role": "witness",
        "deployment": "dep-1",
        "model": MODEL,
        "adapter": ADAPTER,
        "mode": "live",
        "seconds": 5.0,
        "max_new_tokens": 64,
    }
    return Route.model_validate({**values, **changes})


def deploy(workspace: Path, *routes: Route) -> None:
    write_routes(workspace, Routes(routes=routes))


def fall_back(url: str, protocol: str = "openai") -> Fallback:
    return Fallback.model_validate({"protocol": protocol, "url": url})


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
