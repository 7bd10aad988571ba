"""Answers from this machine: one base with its models, one thread that computes, and a queue before it.

The event loop takes requests and passes tokens on. A second thread writes prompts, so that a long one holds up neither the
loop nor the answers that run. All three meet in `LocalEngine`, under one lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gtft.artifact import short_id
from gtft.errors import UsageError
from gtft.evals.asking.load import load_tokenizer
from gtft.evals.asking.local import count_bytes, find_ends
from gtft.serving.batching import Batcher
from gtft.serving.engine import Ask, Busy, End, Finish, Served, Token, Unanswerable
from gtft.serving.loading import BASE, Adapters, Checked
from gtft.serving.row import Row
from gtft.serving.template import PromptWriter, Written

QUEUE = 64
ROWS = 32
BUDGET = 1 << 30
# Of the context, so much stays for an answer when older messages can be left out for it.
_FOR_ANSWER = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Model:
    """What a request needs to know of a model before it is loaded."""

    served: Served
    writer: PromptWriter
    tokenizer: Any
    ends: frozenset[int]


class LocalEngine:
    """Answers with the models of one base. Greedy answers are those of the eval's `LocalCandidate`.

    ``queue``: requests that may wait beside those that run; ``rows``: that may run at once; ``budget``: bytes of keys and
    values for all of them. Closing it leaves ``adapters`` loaded.
    """

    def __init__(
        self,
        adapters: Adapters,
        *,
        base: str = BASE,
        queue: int = QUEUE,
        rows: int = ROWS,
        budget: int = BUDGET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adapters, self._queue, self._clock = adapters, max(1, queue), clock
        column = count_bytes(adapters.first.model)
        self._batcher = Batcher(adapters.activate, column=column, budget=budget, rows=max(1, rows))
        adapters.used = self._list_used
        self._context = min(adapters.context, self._batcher.longest)
        self._writers: dict[Any, tuple[Any, PromptWriter]] = {}
        self._models: dict[str, _Model] = {}
        for one in adapters.checked:
            self._models[one.artifact.id] = self._describe(one)
        first = next(iter(self._models.values()))
        self._models[BASE] = replace(
            first, served=Served(base, "", "", "base", self._context, (f"base:{adapters.record.name}",))
        )  # fmt: skip
        # What follows belongs to the lock.
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._ending = False
        self._fault = ""
        # What follows belongs to the event loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told: dict[Row, asyncio.Queue[Token | End]] = {}
        self._written = 0
        self._pace = 1.0
        self._pen = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def list_models(self) -> tuple[Served, ...]:
        return tuple(m.served for m in self._models.values())

    def count_waiting(self) -> int:
        return self._written + len(self._waiting)

    def count_running(self) -> int:
        """Requests whose answers are being written."""
        return len(self._told) - len(self._waiting)

    @property
    def fault(self) -> str:
        """Why nothing is answered any more; "" while all is well."""
        return self._fault

    async def answer(self, ask: Ask) -> AsyncIterator[Token | End]:
        """See `Engine.answer`."""
        key, model = self._find(ask.model)
        if self._written + len(self._told) >= self._queue + self._batcher.most:
            raise Busy(round(max(1.0, self._pace * self._queue / self._batcher.most), 1))
        began = self._clock()
        self._loop = asyncio.get_running_loop()
        self._written += 1
        try:
            written = await asyncio.wait_for(self._write(model, ask), ask.seconds)
        except TimeoutError:
            yield End("timeout", "", 0, 0, round(self._clock() - began, 4))
            return
        finally:
            self._written -= 1
        row = self._make_row(key, model, ask, written, began)
        told: asyncio.Queue[Token | End] = asyncio.Queue()
        self._told[row] = told
        timer = self._loop.call_later(
            began + ask.seconds - self._clock(), lambda: told.put_nowait(row.end("timeout"))
        )
        with self._changed:
            self._waiting.append(row)
            self._changed.notify()
        try:
            if self._fault:
                yield self._close(row, row.end("error", error=self._fault))
                return
            while True:
                what = await told.get()
                if isinstance(what, End):
                    yield self._close(row, what)
                    return
                yield what
        finally:
            timer.cancel()
            row.gone = True
            del self._told[row]
            with self._changed:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(row)
                self._changed.notify()

    async def count_tokens(self, ask: Ask) -> int:
        _, model = self._find(ask.model)
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._pen, model.writer.render, ask.messages, ask.tools)
        return len(ids)

    async def add_model(self, one: Checked) -> None:
        """Answer with another model of the same base from now on. Raises UsageError when it has another."""

        def add() -> _Model:
            self._adapters.add(one)
            return self._describe(one)

        self._models[one.artifact.id] = await asyncio.wrap_future(self._submit(add))

    async def remove_model(self, name: str) -> None:
        """Its requests that wait or run end in an error. Raises Unanswerable when there is none of that name."""
        key, _ = self._find(name)
        del self._models[key]
        for row, told in self._told.items():
            if row.model == key:
                told.put_nowait(row.end("error", error=f"the model {name} is not served any more"))
                row.gone = True

        def remove() -> None:
            self._batcher.drop_model(key)
            self._adapters.remove(key)

        await asyncio.wrap_future(self._submit(remove))

    async def aclose(self) -> None:
        """What waits or runs ends as cancelled."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._pen.shutdown(wait=False, cancel_futures=True)

    def _find(self, name: str) -> tuple[str, _Model]:
        for key, model in self._models.items():
            if name in (key, model.served.name, *model.served.aliases):
                return key, model
        raise Unanswerable(f"there is no model {name[:100]!r} here", missing=True)

    def _describe(self, one: Checked) -> _Model:
        """Tokenizers with the same files are one."""
        files = tuple(
            (f.name, f.sha256) for f in one.artifact.files if f.name.startswith(("token", "chat_", "special"))
        )  # fmt: skip
        if files not in self._writers:
            tokenizer = load_tokenizer(one.artifact)
            self._writers[files] = (tokenizer, PromptWriter(tokenizer))
        tokenizer, writer = self._writers[files]
        key, wanted = one.artifact.id, one.wanted
        served = Served(
            wanted.name, key, wanted.role, one.kind, self._context, (*wanted.aliases, short_id(key))
        )  # fmt: skip
        ends = find_ends(replace(self._adapters.first, tokenizer=tokenizer))
        return _Model(served, writer, tokenizer, ends)

    async def _write(self, model: _Model, ask: Ask) -> Written:
        if ask.max_tokens < 1:
            raise Unanswerable("max_tokens is below 1")
        room = self._context - min(ask.max_tokens, self._context // _FOR_ANSWER)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pen, model.writer.write, ask.messages, ask.tools, room
        )

    def _make_row(self, key: str, model: _Model, ask: Ask, written: Written, began: float) -> Row:
        def decode(ids: Any) -> str:
            return str(model.tokenizer.decode(list(ids), skip_special_tokens=False))

        return Row(
            key,
            written.ids,
            min(ask.max_tokens, self._context - len(written.ids)),
            model.ends,
            decode,
            stop=ask.stop,
            temperature=ask.temperature,
            top_p=ask.top_p,
            seed=ask.seed,
            top=ask.top_logprobs,
            began=began,
            left_out=written.left_out,
            whole=written.whole,
        )

    def _close(self, row: Row, end: End) -> End:
        spent = self._clock() - row.began
        self._pace = 0.9 * self._pace + 0.1 * spent
        return replace(end, seconds=round(spent, 4))

    def _submit(self, job: Callable[[], _T]) -> Future[_T]:
        """Have the computing thread do something between two tokens. Raises UsageError when it has ended."""
        future: Future[_T] = Future()
        with self._changed:
            if self._fault:
                raise _refuse_job(self._fault)
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    def _deliver(self, told: Sequence[tuple[Row, Token | End]]) -> None:
        for row, what in told:
            if row in self._told:
                self._told[row].put_nowait(what)

    def _work(self) -> None:
        """The computing thread."""
        fault = "the engine has ended because of an error in gtft"
        try:
            while self._await_work():
                self._pass_on(self._batcher.advance())
            fault = "the server is ending"
        finally:
            with self._changed:
                self._fault = fault
                self._waiting.clear()
                jobs = list(self._jobs)
            for _, future in jobs:
                future.set_exception(_refuse_job(fault))
            self._finish("cancelled" if self._ending else "error", fault)
            self._adapters.close()

    def _pass_on(self, told: Sequence[tuple[Row, Token | End]]) -> None:
        if not told or self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._deliver, told)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            for row, _ in told:
                row.gone = True

    def _finish(self, finish: Finish, fault: str) -> None:
        """Tell everybody who waits, wherever the error left their rows."""

        def tell() -> None:
            for row, told in self._told.items():
                told.put_nowait(row.end(finish, error=fault))

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                # The loop is closed: nobody waits any more.
                self._loop.call_soon_threadsafe(tell)

    def _await_work(self) -> bool:
        """Wait until there is something to compute, and begin what fits; False when the engine ends."""
        with self._changed:
            while not (self._ending or self._jobs or self._waiting or self._batcher.rows):
                self._changed.wait()
            if self._ending:
                return False
            jobs = list(self._jobs)
            self._jobs.clear()
            while self._waiting and self._begin(self._waiting[0]):
                self._waiting.popleft()
        for job, future in jobs:
            try:
                future.set_result(job())
            except Exception as e:  # noqa: BLE001
                # Whatever it is, it is raised where it is waited for; other answers go on.
                future.set_exception(e)
        return True

    def _begin(self, row: Row) -> bool:
        if row.gone:
            return True
        models = (self._list_used() | {row.model}) - {BASE}
        if not self._batcher.fits(row) or len(models) > self._adapters.most:
            return False
        self._batcher.add(row)
        return True

    def _list_used(self) -> set[str]:
        return {r.model for r in self._batcher.rows}


def _refuse_job(fault: str) -> UsageError:
    return UsageError(
        "the engine answers nothing any more",
        why=fault,
        fix="end this server and start it again: gtft model serve --help",
    )
