"""Following a worker whose runner died before it could note that it had started it."""

import fcntl
from pathlib import Path

from gtft.contract import EVENTS_FILE, LOCK_FILE, Produced
from gtft.runner.process import attach_worker, find_result

PRODUCED = '{"event": "artifact", "id": "sha256:a", "kind": "corpus", "path": "/x"}\n'


def test_a_worker_that_nobody_noted_is_followed_and_its_result_found(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_text(PRODUCED)
    with (tmp_path / LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker = attach_worker(tmp_path)
        assert not worker.has_ended()
        [event] = worker.read_events()
        assert isinstance(event, Produced)
        assert find_result(tmp_path) is None, "it still works"
    assert find_result(tmp_path) == event


def test_a_job_that_never_began_has_no_result(tmp_path: Path) -> None:
    assert find_result(tmp_path) is None
