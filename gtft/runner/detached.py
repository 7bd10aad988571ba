"""A runner of its own session: it outlives the agent or terminal that asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gtft.runner.lease import may_take_over
from gtft.runner.workspace import Workspace

LOG = "runner.log"
START_SECONDS = 20.0
# Set in a runner that was started here, so that it does not start another.
MARK = "GTFT_DETACHED"


def is_agent(environ: Mapping[str, str]) -> bool:
    """True inside a Gas Town agent's session, whose commands end when the agent does."""
    return bool(environ.get("GT_ROLE")) and not environ.get(MARK)


def start_alone(workspace: Path, argv: Sequence[str], log: Path, environ: Mapping[str, str]) -> int:
    """Start ``gtft ARGV`` in a session of its own, its words in ``log``; returns its pid. It works from the workspace,
    never from the caller's folder: a worktree may be removed under it. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "gtft.cli.main", "--workspace", str(workspace), *argv],
            cwd=workspace,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environ, MARK: "1"},
        )
    return child.pid


def start_runner(ws: Workspace, run_id: str, actor: str) -> int:
    """``gtft run RUN``, as `start_alone` starts it."""
    log = ws.path / "runs" / run_id / LOG
    return start_alone(ws.path, ("run", run_id, f"--as={actor}"), log, ws.environ)


def find_runner(ws: Workspace, run_id: str) -> str | None:
    """Who works on the run now (its lease lives); None when nobody does."""
    for row in ws.store.list_stages(run_id, state="active"):
        if not may_take_over(ws, row):
            return row.worker
    return None


def wait_for_start(ws: Workspace, run_id: str, pid: int) -> bool:
    """True when the runner holds a stage, or got through what there was; False when it ended at once
    or did not begin in time."""
    end = time.monotonic() + START_SECONDS
    before = ws.store.list_stages(run_id)
    while time.monotonic() < end:
        if find_runner(ws, run_id) is not None or ws.store.list_stages(run_id) != before:
            return True
        if _has_ended(pid):
            return ws.store.list_stages(run_id) != before
        time.sleep(0.2)
    return False


def read_log_tail(ws: Workspace, run_id: str, lines: int = 12) -> str:
    path = log_path(ws, run_id)
    if not path.exists():
        return ""
    return "\n".join(path.read_text("utf-8", errors="replace").splitlines()[-lines:])


def log_path(ws: Workspace, run_id: str) -> Path:
    return ws.path / "runs" / run_id / LOG


def _has_ended(pid: int) -> bool:
    """True for a child of ours that ended; it is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
