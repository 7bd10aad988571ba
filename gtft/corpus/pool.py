"""Work spread over child processes that each prepare once and then answer tasks, one at a time.

A child ends by itself when its parent is gone, killed ones included: its pipe then reads end of file.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from gtft.errors import GtftError, InternalError, find_kind

Setting = TypeVar("Setting")
Task = TypeVar("Task")
Answer = TypeVar("Answer")
Handle = Callable[[Task], Answer]


class Pool(Generic[Setting, Task, Answer]):
    """``prepare(setting)`` is called once in each child and gives the function that answers tasks.

    With one worker there is no child: the tasks are answered here. ``prepare`` must be importable.
    """

    def __init__(
        self, workers: int, prepare: Callable[[Setting], Handle[Task, Answer]], setting: Setting
    ) -> None:
        self._prepare = prepare
        self._setting = setting
        self._workers = workers
        self._here: Handle[Task, Answer] | None = None
        self._children: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Pool[Setting, Task, Answer]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, pipe in self._children:
            pipe.close()
        for child, _ in self._children:
            if kind is not None:
                child.terminate()
            child.join()
        self._children.clear()

    def answer(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """The answers as they come, in no fixed order. Raises what a task raised.

        A task is made when a process is free for it, so that few of them are in memory at once.
        """
        waiting = iter(tasks)
        first = list(islice(waiting, 2))
        if self._workers == 1 or len(first) == 1:
            if self._here is None:
                self._here = self._prepare(self._setting)
            for task in chain(first, waiting):
                yield self._here(task)
            return
        waiting = chain(first, waiting)
        busy: list[Connection] = []
        for task in islice(waiting, self._workers):
            busy.append(self._child(len(busy)))
            busy[-1].send(task)
        while busy:
            for pipe in wait(busy):
                assert isinstance(pipe, Connection)
                answer = _receive(pipe)
                for task in islice(waiting, 1):
                    pipe.send(task)
                    break
                else:
                    busy.remove(pipe)
                yield answer

    def _child(self, number: int) -> Connection:
        if number == len(self._children):
            # Spawned, not forked: a fork would copy threads' locks and the parent's memory.
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_serve, args=(theirs, self._prepare, self._setting), daemon=True
            )
            child.start()
            theirs.close()
            self._children.append((child, ours))
        return self._children[number][1]


def _serve(
    pipe: Connection, prepare: Callable[[Setting], Handle[Task, Answer]], setting: Setting
) -> None:
    handle: Handle[Task, Answer] | None = None
    # The parent's end is closed, or the parent was killed: nobody waits for an answer.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = pipe.recv()
            try:
                handle = handle or prepare(setting)
                answer: tuple[Any, Any] = (handle(task), None)
            except GtftError as e:
                answer = (None, (e.kind, e.what, e.why, e.fix))
            pipe.send(answer)


def _receive(pipe: Connection) -> Any:
    try:
        answer, error = pipe.recv()
    except (EOFError, ConnectionResetError) as e:
        raise InternalError(
            "a reading process ended before it answered",
            why="it was killed, or failed as the log above says",
            fix="run the command again: what was read is kept",
        ) from e
    if error is not None:
        kind, what, why, fix = error
        raise find_kind(kind)(what, why=why, fix=fix)
    return answer
