"""The checks in a process of their own: one that hangs or crashes costs its item, not the evaluation.

``python -m gtft.evals.asking.referee SECONDS`` reads lines ``[[check, args, output], …]`` and writes a line ``[passed, reason]``
for each check. It kills itself by an alarm when one check takes longer than ``SECONDS``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from gtft.errors import EvidenceError
from gtft.evals.checks import CHECKS, Outcome, run_check
from gtft.evals.item import CheckSpec

# A check takes microseconds; one that starts a program of its own takes a second.
CHECK_SECONDS = 20
COMMAND = (sys.executable, "-m", "gtft.evals.asking.referee")


class Referee:
    """The parent's side. A process is started at the first judgement, and again after one that was lost."""

    def __init__(self, seconds: int = CHECK_SECONDS, command: Sequence[str] = COMMAND) -> None:
        self._seconds = seconds
        self._command = [*command, str(seconds)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Referee:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def judge(self, asked: Sequence[tuple[CheckSpec, str]]) -> list[Outcome]:
        """One outcome for each check and answer, in order. Raises EvidenceError for a check that does not exist."""
        found: list[Outcome] = []
        for spec, _ in asked:
            require_check(spec)
        while len(found) < len(asked):
            found += self._ask(asked[len(found) :])
        return found

    def _ask(self, asked: Sequence[tuple[CheckSpec, str]]) -> list[Outcome]:
        """As many outcomes as there are up to the first check that the process does not survive, it included."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        found = []
        try:
            line = json.dumps([[spec.name, spec.args, output] for spec, output in asked])
            process.stdin.write(line + "\n")
            process.stdin.flush()
            for _ in asked:
                passed, reason = json.loads(process.stdout.readline())
                found.append(Outcome(passed, reason))
        except (BrokenPipeError, ValueError):
            found.append(Outcome(False, self._bury(process)))
        return found

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            # What a lost check has started is ended with it.
            start_new_session=True,
        )
        return self._process

    def _bury(self, process: subprocess.Popen[str]) -> str:
        """Why the process ended."""
        self._stop()
        if process.returncode == -signal.SIGALRM:
            return f"the check did not end within {self._seconds} seconds"
        return f"the check crashed (exit status {process.returncode})"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            process.wait(self._seconds + 1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def require_check(spec: CheckSpec) -> None:
    """Raises EvidenceError when there is no such check."""
    if spec.name not in CHECKS:
        raise EvidenceError(
            f"there is no check {spec.name}",
            why=f"checks are {', '.join(CHECKS)}",
            fix="gtft doctor",
        )


def serve(seconds: float) -> None:
    """The child's side: until its input ends, which it also does when the parent is killed."""
    for line in sys.stdin:
        for name, args, output in json.loads(line):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            outcome = run_check(CheckSpec(name, args), output)
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.stdout.write(json.dumps([outcome.passed, outcome.reason]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    serve(float(sys.argv[1]))
