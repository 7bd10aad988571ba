"""The check of promptfoo cases: their own JavaScript, contains and JSON assertions, judged as promptfoo 0.121.2 does.

The JavaScript comes from a repository, so it is hostile. It runs in one Node process (``promptfoo.js``, inside ``cage.py``): in a fresh
context per answer that gets strings and nothing else, without code made from strings, under limits of time and memory. Whatever it does,
the worst result is a failed answer; a process that hangs or dies is replaced.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.errors import MissingExtra
from gtft.evals.answer import Answer, BadAnswer

OLDEST_NODE = 20
# Per answer, for all its assertions together.
SECONDS = 5.0
_START_SECONDS = 60.0
# Node's own limit ends the code; after so many seconds more the process hangs and is killed.
_GRACE_SECONDS = 8.0
_MEGABYTES = 64
_LONGEST_TOLD = 90
_HERE = Path(__file__).parent
_DECLARATION = re.compile(r"(const|let|var)\s")


def check_promptfoo(answer: Answer, args: Mapping[str, Any]) -> None:
    """Every assertion of the case is met.

    ``args``: vars; transform, JavaScript that the answer goes through first, or None; assertions, promptfoo's own objects.
    A tool call is no answer here. Raises MissingExtra when there is no Node to judge with.
    """
    if answer.calls:
        raise BadAnswer("a tool call instead of a JSON decision")
    verdict = _borrow_judge().judge(answer.text, args)
    if verdict.get("passed") is True:
        return
    at, why = verdict.get("failed"), str(verdict.get("why"))[:200]
    if isinstance(at, int) and 0 <= at < len(args["assertions"]):
        raise BadAnswer(f"{_show(args['assertions'][at])}: {why}")
    raise BadAnswer(why)


def find_node(path: str | None) -> Path:
    """Node on ``path`` (a PATH). Raises MissingExtra when it is absent or too old."""
    found = shutil.which("node", path=path or "")
    said = ""
    if found:
        try:
            said = subprocess.run(
                [found, "--version"], capture_output=True, text=True, timeout=60, check=False
            ).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as e:
            said = str(e)
        version = re.match(r"v(\d+)\.", said)
        if version and int(version.group(1)) >= OLDEST_NODE:
            return Path(found)
    raise MissingExtra(
        f"these cases are judged by Node.js {OLDEST_NODE} or later",
        why=f"{found} is {said[:80] or 'no Node.js'}" if found else "there is no node on PATH",
        fix="install Node.js, or take gt-model-eval out of eval.suites",
    )


class Judge:
    """One Node process, started at the first answer and after each that broke it. ``seconds``: the limit per answer."""

    def __init__(self, node: Path, seconds: float = SECONDS) -> None:
        self._node = node
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def judge(self, output: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """``{"passed": true}``, or ``failed`` (place of the assertion, -1 for none) and ``why``."""
        transform, assertions = args.get("transform"), list(args["assertions"])
        task = {
            "output": output,
            "vars": args["vars"],
            "transform": transform,
            "assertions": assertions,
            "code": [make_transform(transform), *(_make_code(a) for a in assertions)],
        }
        line = json.dumps(task, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            # A process that died before this answer came gets a second one; code that kills it fails there.
            for _ in range(2):
                said = self._ask(line)
                if said is not None:
                    return said
        return {"failed": -1, "why": "the code ends the process that judges"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _ask(self, line: bytes) -> dict[str, Any] | None:
        """None when the process is dead."""
        process = self._process or self._start()
        end = time.monotonic() + self._seconds + _GRACE_SECONDS
        try:
            _write(process, line, end)
            said = _read_line(process, end)
        except BrokenPipeError:
            said = b""
        except TimeoutError:
            self.close()
            return {"failed": -1, "why": "the code hangs the process that judges"}
        try:
            found = json.loads(said)
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.close()
        return None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            *("-I", str(_HERE / "cage.py")),
            str(self._node),
            # No files, no child processes, no workers; eval and Function refuse in every context.
            *("--experimental-permission", "--disallow-code-generation-from-strings"),
            *("--no-addons", "--no-warnings", f"--max-old-space-size={_MEGABYTES}"),
            *("-e", (_HERE / "promptfoo.js").read_text("utf-8"), "--", str(self._seconds)),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={},
            cwd="/",
        )
        self._process = process
        try:
            ready = _read_line(process, time.monotonic() + _START_SECONDS)
        except TimeoutError:
            ready = b""
        if ready != b"ready\n":
            self.close()
            raise MissingExtra(
                "Node.js does not start, so these cases cannot be judged",
                why=f"{self._node} says nothing with the permission model on",
                fix="node --experimental-permission -e 0, or take gt-model-eval out of eval.suites",
            )
        return process


def make_body(code: str) -> str:
    """A javascript assertion as a function body: several lines are one already, one line is an expression, perhaps after
    declarations."""
    code = code.rstrip()
    if "\n" in code:
        return code
    code = re.sub(r";+\s*$", "", code.strip())
    if not _DECLARATION.match(code):
        return f"return {code}"
    cut = _find_last_semicolon(code)
    if cut < 0 or not code[cut + 1 :].strip():
        return code
    return f"{code[: cut + 1]} return {code[cut + 1 :].strip()}"


def make_transform(code: str | None) -> str | None:
    """A transform as a function body."""
    return code if code is None or "\n" in code else f"return {code}"


def _make_code(assertion: Mapping[str, Any]) -> str | None:
    is_code = assertion["type"] in ("javascript", "not-javascript")
    return make_body(assertion["value"]) if is_code else None


def _find_last_semicolon(code: str) -> int:
    quote, last, escaped = "", -1, False
    for at, char in enumerate(code):
        if not escaped and char in "'\"`" and quote in ("", char):
            quote = "" if quote else char
        elif char == ";" and not quote:
            last = at
        escaped = char == "\\" and not escaped
    return last


def _show(assertion: Mapping[str, Any]) -> str:
    value = assertion.get("value")
    if value is None:
        return str(assertion["type"])
    lines = [x.strip() for x in str(value).strip().splitlines()]
    return f"{assertion['type']} {lines[-1] if lines else ''}"[:_LONGEST_TOLD]


def _write(process: subprocess.Popen[bytes], line: bytes, end: float) -> None:
    """Raises TimeoutError at ``end`` (monotonic clock), BrokenPipeError when the process is dead."""
    assert process.stdin is not None
    for at in range(0, len(line), select.PIPE_BUF):
        left = end - time.monotonic()
        if left <= 0 or not select.select([], [process.stdin], [], left)[1]:
            raise TimeoutError
        os.write(process.stdin.fileno(), line[at : at + select.PIPE_BUF])


def _read_line(process: subprocess.Popen[bytes], end: float) -> bytes:
    """Up to a line end; shorter when the process ended. Raises TimeoutError at ``end`` (monotonic clock)."""
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError
        more = os.read(process.stdout.fileno(), 1 << 16)
        if not more:
            break
        said += more
    return said


_judge: Judge | None = None
_start_lock = threading.Lock()


def _borrow_judge() -> Judge:
    """The process-wide judge; it ends with this process."""
    global _judge
    with _start_lock:
        if _judge is None:
            _judge = Judge(find_node(os.environ.get("PATH")))
            atexit.register(_judge.close)
        return _judge
