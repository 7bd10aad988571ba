"""The ``bd`` program: calling it, reading its JSON in every shape, and what its refusals mean."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gtft.beads.rules import check_actor
from gtft.errors import ConflictError, GtftError, TownError
from gtft.tool import Ran, find_tool, run_tool

OLDEST, NEWEST = (1, 0, 5), (2, 0, 0)
TRIES = 5
# A polecat's environment could lead to another database, or leave what we write uncommitted.
_NOT_INHERITED = (
    "BEADS_DB",
    "BD_DB",
    "BEADS_DOLT_SERVER_DATABASE",
    "BEADS_DOLT_DATA_DIR",
    "BEADS_ACTOR",
    "BD_ACTOR",
    "BD_DOLT_AUTO_COMMIT",
    "BD_JSON",
)
_ALWAYS = {
    "BD_JSON_ENVELOPE": "1",
    "BD_BACKUP_ENABLED": "false",
    "BD_NON_INTERACTIVE": "1",
    # In a town it is gt that starts and stops Dolt.
    "BEADS_DOLT_AUTO_START": "0",
}
_BUSY = re.compile(
    r"serialization failure|Error (1213|1205)|deadlock found|lock wait timeout|try restarting trans"
    r"|database is read only|database is locked|cannot acquire lock|lock timeout|lock is held"
    r"|bad connection|invalid connection|broken pipe|unexpected EOF",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"unreachable|circuit breaker|connection refused|connection reset|no such host|i/o timeout",
    re.IGNORECASE,
)
_SCHEMA = re.compile(r"schema[ _-]*(skew|version|drift|migration)|unknown column", re.IGNORECASE)
_NO_DATABASE = re.compile(
    r"no beads database|not initialized|no database|unknown database|database .* not found"
    r"|project identity|project_id",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r"read-only mode", re.IGNORECASE)
_ABSENT = re.compile(r"no issues? found matching|issue \S+ not found", re.IGNORECASE)
_REFUSED = re.compile(
    r"cannot close|cycle|circular|already claimed|not claimable|cannot add|can only block|not found"
    r"|already exists|pinned|validation failed|template",
    re.IGNORECASE,
)
# With several ids bd ends well when one of them worked; the others are told here.
_PARTLY = re.compile(r"^Error (?!fetching \S+ ?: (no issue found|ambiguous))", re.MULTILINE)
T = TypeVar("T")
_versions: dict[Path, tuple[int, int, int]] = {}


class Busy(TownError):
    """Another writer was in the way: the call may be tried again, after a look at what is there."""


class NoSuchBead(ConflictError):
    """None of the beads that the call names is there."""


class BdProgram:
    """``bd`` for the database of one ``.beads`` folder. ``wait`` sleeps the seconds it is given."""

    def __init__(
        self,
        beads_dir: Path,
        environ: Mapping[str, str],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.beads_dir = follow_redirect(beads_dir)
        self._environ = {k: v for k, v in environ.items() if k not in _NOT_INHERITED} | _ALWAYS
        self._environ["BEADS_DIR"] = str(self.beads_dir)
        self._wait = wait

    def read(self, *arguments: str) -> Any:
        """The payload of a call that changes nothing; tried again when the database is busy."""
        return self.persist(lambda: self._call(*arguments))

    def write(self, *arguments: str, actor: str, stdin: str = "") -> Any:
        """The payload of a call that changes something; raises Busy for the caller to look first."""
        check_actor(actor)
        # bd 1.0.5 imports even where it may only read.
        if self._environ.get("BD_READONLY", "").lower() in ("1", "t", "true"):
            raise read_only(f"bd {arguments[0]}", "BD_READONLY is set")
        return self._call(*arguments, f"--actor={actor}", stdin=stdin)

    def persist(self, attempt: Callable[[], T]) -> T:
        """``attempt()``, up to five times while it raises Busy; TownError when that was no use."""
        for n in range(1, TRIES + 1):
            try:
                return attempt()
            except Busy as e:
                if n == TRIES:
                    raise TownError(e.what, why=e.why, fix=e.fix) from e
                # Writers that collided must not collide again: the wait is drawn, and grows.
                self._wait(random.uniform(0.5, 1.5) * 0.1 * 2**n)  # noqa: S311
        raise AssertionError("unreachable")

    def _call(self, *arguments: str, stdin: str = "") -> Any:
        check_version(self._environ, self.beads_dir)
        ran = run_tool(
            "bd",
            *arguments,
            "--json",
            environ=self._environ,
            cwd=self.beads_dir.parent,
            stdin=stdin,
        )
        if ran.code != 0 or _PARTLY.search(ran.stderr):
            raise explain(ran)
        return read_payload(ran.stdout)


def check_version(environ: Mapping[str, str], beads_dir: Path) -> tuple[int, int, int]:
    """The version of the ``bd`` on PATH (asked once per process). Raises TownError when there is none,
    when gtft does not know how it behaves, or when ``beads_dir`` holds no database."""
    # Without it bd would walk up to some other database and write there.
    if not (beads_dir / "metadata.json").is_file():
        raise TownError(
            f"{beads_dir} holds no bead database", why="it has no metadata.json", fix="gt doctor"
        )
    path = find_tool("bd", environ)
    if path is not None and path in _versions:
        return _versions[path]
    ran = run_tool("bd", "version", environ=environ, cwd=beads_dir.parent)
    found = re.search(r"bd version v?(\d+)\.(\d+)\.(\d+)", ran.stdout)
    if ran.code != 0 or found is None:
        raise TownError(
            f"{path} does not answer as bd does",
            why=_first_lines(ran.stdout + ran.stderr) or f"bd version ended with {ran.code}",
            fix="install bd (docs/in-a-town.md), then: gtft doctor",
        )
    version = (int(found[1]), int(found[2]), int(found[3]))
    if not OLDEST <= version < NEWEST:
        raise TownError(
            f"bd {found[1]}.{found[2]}.{found[3]} is not one that gtft can use",
            why=f"it needs {_dotted(OLDEST)} or later, and below {_dotted(NEWEST)}",
            fix="install such a bd (docs/in-a-town.md), then: gtft doctor",
        )
    if path is not None:
        _versions[path] = version
    return version


def follow_redirect(beads_dir: Path) -> Path:
    """Where the beads of a worktree are: its ``.beads/redirect`` names a folder, seen from the
    worktree. One hop, as bd does it."""
    try:
        lines = (beads_dir / "redirect").read_text("utf-8").splitlines()
    except OSError:
        return beads_dir.absolute()
    target = next((x.strip() for x in lines if x.strip() and not x.strip().startswith("#")), "")
    found = (beads_dir.parent / target).resolve()
    return found if target and found.is_dir() else beads_dir.absolute()


def read_payload(text: str) -> Any:
    """What a bd call answered: the envelope's data, a bare object or array; None when it is no JSON.

    Numbers stay the text they were: a digest such as 123e4567 must not become one.
    """
    start = re.search(r"^[ \t]*[\[{]", text, re.MULTILINE)
    if start is None:
        return None
    try:
        payload = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(
            text, start.end() - 1
        )[0]
    except ValueError:
        return None
    if isinstance(payload, dict) and "schema_version" in payload and "data" in payload:
        return payload["data"]
    return payload


def explain(ran: Ran) -> GtftError:
    """The error behind a call that failed. bd says it as JSON on stdout or stderr, or as plain lines."""
    said: list[str] = []
    for stream in (ran.stdout, ran.stderr):
        payload = read_payload(stream)
        if isinstance(payload, dict) and payload.get("error"):
            said.insert(0, str(payload["error"]))
            said.append("schema skew" if payload.get("schema_skew") else "")
            said.append(stream[: stream.index("{")])
        else:
            said.append(stream)
    text = "\n".join(said)
    why = _first_lines(text) or f"it ended with {ran.code} and said nothing"
    call = f"bd {ran.argv[1] if len(ran.argv) > 1 else ''}".strip()
    if _BUSY.search(text):
        return Busy(f"{call}: the bead database is busy", why=why, fix="gt dolt status")
    if _AWAY.search(text):
        return TownError(
            "the town's Dolt server does not answer", why=why, fix="gt dolt status, gt dolt start"
        )
    if _SCHEMA.search(text):
        return TownError(
            "the bead database has another schema than this bd", why=why, fix="gt doctor"
        )
    if _NO_DATABASE.search(text):
        return TownError("bd finds no database that it may use", why=why, fix="gt doctor")
    if _READ_ONLY.search(text):
        return read_only(call, why)
    if _ABSENT.search(text):
        return NoSuchBead(f"{call}: no such bead", why=why, fix="gtft runs list")
    if _REFUSED.search(text):
        return ConflictError(f"{call} was refused", why=why, fix="gtft status")
    return TownError(f"{call} went wrong", why=why, fix="gtft doctor")


def read_only(call: str, why: str) -> TownError:
    return TownError(f"{call}: bd may only read here", why=why, fix="unset BD_READONLY")


def _first_lines(text: str) -> str:
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    # bd prints its whole usage after some errors.
    lines = lines[: lines.index("Usage:")] if "Usage:" in lines else lines
    return "; ".join(dict.fromkeys(lines[:2]))[:400]


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(str(x) for x in version)
