"""Work in child processes: every task answered once, errors told, children gone when the parent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from gtft.corpus.pool import Pool
from gtft.errors import InputError, InternalError


def prepare(base: int) -> Callable[[int], tuple[int, int]]:
    def answer(task: int) -> tuple[int, int]:
        if task == 13:
            raise InputError("thirteen", why="it is unlucky", fix="count on")
        if task == 99:
            os._exit(3)
        return base + task, os.getpid()

    return answer


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_task_is_answered_once(workers: int) -> None:
    with Pool(workers, prepare, 100) as pool:
        assert sorted(n for n, _ in pool.answer(range(10))) == list(range(100, 110))
        again = [pid for _, pid in pool.answer(range(4))]
    assert (os.getpid() in again) == (workers == 1)


def test_an_error_of_a_task_is_raised_as_it_was() -> None:
    with Pool(2, prepare, 0) as pool, pytest.raises(InputError, match="thirteen") as caught:
        list(pool.answer(range(20)))
    assert caught.value.fix == "count on"


def test_a_child_that_dies_is_an_error() -> None:
    with Pool(2, prepare, 0) as pool, pytest.raises(InternalError, match="ended before"):
        list(pool.answer([1, 2, 99, 3]))


def test_tasks_are_made_as_they_are_needed() -> None:
    made: list[int] = []

    def make() -> object:
        for n in range(50):
            made.append(n)
            yield n

    with Pool(2, prepare, 0) as pool:
        next(pool.answer(make()))  # type: ignore[arg-type]
        assert len(made) <= 4


def test_children_end_with_a_parent_that_was_killed() -> None:
    code = (
        "import sys, time; sys.path.insert(0, 'tests/unit')\n"
        "from test_corpus_pool import prepare\n"
        "from gtft.corpus.pool import Pool\n"
        "if __name__ == '__main__':\n"
        "    pool = Pool(2, prepare, 0)\n"
        "    print(sorted({p for _, p in pool.answer(range(4))}), flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(p)) for p in parent.stdout.readline().strip("[]\n").split(",")]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_the_box_is_left_as_it_was() -> None:
    before = len(psutil.Process().children(recursive=True))
    with Pool(2, prepare, 0) as pool:
        list(pool.answer(range(4)))
    deadline = time.monotonic() + 10
    while len(psutil.Process().children(recursive=True)) > before + 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
