"""What an installed hook does: one line or one small file, at once, and never an agent's trouble.

``session-start`` (Claude Code's SessionStart) appends to ``<town>/.gtft/sessions.jsonl``; ``bead-close`` (bd's
``on_close``) leaves ``<town>/.gtft/queue/<bead>.json``. Only the standard library is imported: it runs at the
start of every agent of a town.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# What names our entry in a settings file, whatever else its command says.
SESSION_MARK = "gtft hook session-start"
# Never an error, never a word: Claude Code puts what such a hook prints into the agent's context.
SESSION_COMMAND = (
    f"if command -v gtft >/dev/null 2>&1; then {SESSION_MARK} >/dev/null 2>&1 || true; fi"
)
SESSIONS = "sessions.jsonl"
QUEUE = "queue"
LOG = "hooks.log"
_MARKER = Path("mayor") / "town.json"
# What is longer is cut: a line is one write, so that agents that start together do not mix theirs.
_LONGEST = 400
_BEAD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9_]+)+(?:\.[0-9]+)*")
_TAIL = 256 * 1024


def find_home(cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """``.gtft`` of the town around ``cwd`` (or of GT_ROOT); None where gtft is not installed."""
    # bd tells its hooks BEADS_DIR, wherever it was called from.
    given = [Path(environ[k]) for k in ("GT_ROOT", "GT_TOWN_ROOT", "BEADS_DIR") if environ.get(k)]
    for folder in (cwd, *cwd.parents, *given, *(p for g in given for p in g.parents)):
        if (folder / _MARKER).is_file():
            home = folder / ".gtft"
            return home if (home / "install.json").is_file() else None
    return None


def read_stdin(seconds: float = 0.5, limit: int = 1 << 20) -> bytes:
    """What is on standard input, without ever waiting for it longer than ``seconds``."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return b""
    end = time.monotonic() + seconds
    fd, found = sys.stdin.fileno(), b""
    while len(found) < limit:
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        block = os.read(fd, 65536) if ready else b""
        if not block:
            break
        found += block
    return found


def record_session(home: Path, stdin: bytes, environ: Mapping[str, str], now: float) -> None:
    """One line: which session is which agent of the town. Raises OSError or ValueError."""
    said = json.loads(stdin or b"{}")
    if not isinstance(said, dict):
        raise ValueError("the hook's input is not a JSON object")
    session = _short(said.get("session_id")) or environ.get("CLAUDE_SESSION_ID")
    if not session:
        raise ValueError("the hook's input names no session_id")
    line = {
        "at": _format(now),
        "session": _short(session),
        "transcript": _short(said.get("transcript_path")),
        "cwd": _short(said.get("cwd")),
        "role": _short(environ.get("GT_ROLE")),
        "rig": _short(environ.get("GT_RIG")),
        "actor": _short(environ.get("BD_ACTOR") or environ.get("GT_ROLE")),
        "bead": _find_bead(home.parent, environ),
    }
    data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
    fd = os.open(home / SESSIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def queue_bead(home: Path, bead: str, environ: Mapping[str, str], now: float) -> None:
    """A small file for the next harvest: this bead is closed, and whose session did it.

    Raises OSError, or ValueError for what is no bead's id: the id becomes a file name.
    """
    if not _BEAD.fullmatch(bead) or len(bead) > 100:
        raise ValueError(f"{bead[:80]!r} is not a bead's id")
    actor = environ.get("BD_ACTOR") or environ.get("BEADS_ACTOR") or environ.get("GT_ROLE")
    session = environ.get("CLAUDE_SESSION_ID") or _find_session(home / SESSIONS, actor)
    line = {"bead": bead, "closed_at": _format(now), "actor": _short(actor), "session": session}
    folder = home / QUEUE
    folder.mkdir(exist_ok=True)
    aside = folder / f".{bead}.{os.getpid()}.tmp"
    aside.write_text(json.dumps(line, ensure_ascii=False) + "\n", "utf-8")
    aside.replace(folder / f"{bead}.json")


def log_error(home: Path, hook: str, error: Exception, now: float) -> None:
    """One line in ``hooks.log``; nothing when even that cannot be written."""
    line = f"{_format(now)} {hook}: {type(error).__name__}: {str(error)[:_LONGEST]}\n"
    try:
        with (home / LOG).open("a", encoding="utf-8") as f:
            f.write(line)
    except OSError:
        return


def _find_bead(root: Path, environ: Mapping[str, str]) -> str | None:
    """The bead on the agent's hook, from what gt left lying about: no call is made for it."""
    found: Any = environ.get("GT_WORK_BEAD")
    name = environ.get("GT_SESSION", "")
    if not found and name and "/" not in name:
        beat = root / ".runtime" / "heartbeats" / f"{name}.json"
        if beat.is_file():
            said = json.loads(beat.read_bytes())
            found = said.get("bead") if isinstance(said, dict) else None
    return found if isinstance(found, str) and _BEAD.fullmatch(found) else None


def _find_session(path: Path, actor: str | None) -> str | None:
    """The session that ``actor`` started last, among the newest lines."""
    if not actor or not path.is_file():
        return None
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - _TAIL))
        lines = f.read().splitlines()
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("actor") == actor:
            return _short(said.get("session"))
    return None


def _short(value: Any) -> str | None:
    return value[:_LONGEST] if isinstance(value, str) and value else None


def _format(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
