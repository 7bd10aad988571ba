"""What the runner and the server tell each other, as files below ``<workspace>/service``.

``routes.json`` is written by whoever deploys and followed by the server: which model answers for which role.
``address.json`` is written by the server while it runs. ``answers/<deployment>.jsonl`` takes one line an answer,
from the server and from the shadow worker; it is appended to, and lines go only when what they tell was withdrawn
(`gtft corpus forget`) or cannot be read (`gtft doctor --fix`). ``preferences/<deployment>.jsonl`` holds what
the shadow worker saw the model do worse than the agent, for the next harvest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import is_alive, write_file, write_json
from gtft.errors import InputError, translate_os_error

FOLDER = "service"
ROUTES_FILE = "routes.json"
ADDRESS_FILE = "address.json"
ANSWERS_FOLDER = "answers"
PREFERENCES_FOLDER = "preferences"
MOST_LINE = 1 << 20
MEND = "gtft doctor --fix"

Mode = Literal["shadow", "advise", "live"]
MODES: tuple[Mode, ...] = ("shadow", "advise", "live")
# "The model is … for the witness."
SPOKEN: dict[Mode, str] = {"shadow": "in shadow", "advise": "advising", "live": "live"}
# Why it was not the model whose answer was acted on, or would have been.
Why = Literal["", "error", "timeout", "abstained", "ab"]

_T = TypeVar("_T", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fallback(_Frozen):
    """Who answers when the model cannot: the server that the agent would have asked, in the agent's own protocol.
    The agent's own credentials are passed on; gtft holds none."""

    protocol: Literal["anthropic", "openai"]
    url: str


class Route(_Frozen):
    """Which model answers for a role. ``rig`` "" = every rig. ``adapter``: id. ``seconds``: of one answer."""

    role: str
    rig: str = ""
    deployment: str
    model: str
    adapter: str
    mode: Mode
    seconds: float
    max_new_tokens: int
    fallback: Fallback | None = None
    # Beads that stay with the previous agent, to compare with (gtft.runner.watching).
    ab_share: float = 0.0


class Routes(_Frozen):
    routes: tuple[Route, ...] = ()

    def find(self, role: str, rig: str = "") -> Route | None:
        """The route of a role on a rig; that of the whole town where the rig has none of its own."""
        of_role = {r.rig: r for r in self.routes if r.role == role}
        return of_role.get(rig) or of_role.get("")


class Address(_Frozen):
    """Where the server listens: ``url`` without a path, such as http://127.0.0.1:8750."""

    url: str
    pid: int
    models: tuple[str, ...]
    # Whether a token is asked for (never the token).
    token: bool = False


class AnswerLine(_Frozen):
    """One answer for a role. ``agreed``: with what the agent did (shadow and advise), None when not compared (yet).

    ``took``: who gave the answer that was acted on; ``why``: why not the model (error, timeout, abstained, ab).
    Prompts are not kept: ``prompt_sha256`` finds them again in the session; nor is a live answer's ``output``, which may
    repeat what a prompt holds. A later line of the same session and
    item stands in place of the earlier one (`settle_answers`).
    """

    at_us: int
    deployment: str
    mode: Mode
    took: Literal["model", "previous", "nobody"]
    why: Why = ""
    bead: str = ""
    session: str = ""
    item: str = ""
    prompt_sha256: str = ""
    output: str = ""
    agreed: bool | None = None
    abstained: bool = False
    escalated: bool = False
    # Whether today's agent escalated where the model was asked; None when that is not known.
    agent_escalated: bool | None = None
    # What became of the session's bead (gtft.corpus.linking.outcome); "" when nobody looked yet.
    outcome: str = ""
    confidence: float | None = None
    seconds: float = Field(0.0, ge=0)
    tokens: int = Field(0, ge=0)
    prompt_tokens: int = Field(0, ge=0)


_ANSWER_FIELDS = set(AnswerLine.model_fields)


def read_routes(workspace: Path) -> Routes:
    """Raises InputError when the file is not what gtft writes."""
    return _read(workspace / FOLDER / ROUTES_FILE, Routes) or Routes()


def write_routes(workspace: Path, routes: Routes) -> None:
    """Atomic; the server follows within a second."""
    _write(workspace / FOLDER / ROUTES_FILE, routes)


def read_address(workspace: Path) -> Address | None:
    """The server that runs now, or None. (A process of that number may be another by now: ask its /health.)"""
    found = _read(workspace / FOLDER / ADDRESS_FILE, Address)
    return found if found is not None and is_alive(found.pid) else None


def write_address(workspace: Path, address: Address) -> None:
    _write(workspace / FOLDER / ADDRESS_FILE, address)


def find_answers(workspace: Path, deployment: str) -> Path:
    return workspace / FOLDER / ANSWERS_FOLDER / f"{deployment}.jsonl"


def stays_with_previous(bead: str, share: float) -> bool:
    """Whether a bead belongs to the ``share`` that the previous agent keeps, to compare with: by a hash of its id,
    so that whoever asks gets the same answer. What is about no bead goes to the model."""
    if not bead:
        return False
    return int.from_bytes(hashlib.sha256(bead.encode()).digest()[:8], "big") < share * 2**64


def add_answer(workspace: Path, line: AnswerLine) -> None:
    """Append one line, whole or not at all. What a killed writer left of a line is cut off first.

    One writer at a time: the kernel drops the lock with its holder. Raises DiskFull or InputError.
    """
    path = find_answers(workspace, line.deployment)
    data = line.model_dump_json().encode() + b"\n"
    if len(data) > MOST_LINE:
        cut = line.model_copy(update={"output": line.output[: MOST_LINE // 8]})
        data = cut.model_dump_json().encode() + b"\n"
    try:
        with _hold(path) as fd:
            end = _find_end(fd)
            os.ftruncate(fd, end)
            if os.write(fd, data) != len(data):
                os.ftruncate(fd, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as e:
        raise translate_os_error(e, "recording an answer") from e


@contextmanager
def _hold(path: Path) -> Iterator[int]:
    """The file, ours alone until the kernel drops the lock with us; one that was replaced meanwhile is opened again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), path.stat()):
                yield fd
                return
        finally:
            os.close(fd)


def drop_lines(path: Path, keep: Callable[[bytes], bool]) -> list[bytes]:
    """Take the lines that ``keep`` refuses out of a file of answers or preferences, and return them. A crash leaves the
    old file or the new one; who appends meanwhile waits. Raises DiskFull or InputError."""
    try:
        with _hold(path), path.open("rb") as f:
            kept: list[bytes] = []
            gone: list[bytes] = []
            for data in f:
                (kept if keep(data) else gone).append(data)
            if gone:
                write_file(path, b"".join(kept), mode=0o600)
    except OSError as e:
        raise translate_os_error(e, f"rewriting {path.name}") from e
    return gone


def _find_end(fd: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def settle_answers(lines: Iterable[AnswerLine]) -> list[AnswerLine]:
    """One line for each question, the newest word about it, in the order of their first lines."""
    found: dict[object, AnswerLine] = {}
    for n, line in enumerate(lines):
        found[(line.session, line.item) if line.item else n] = line
    return list(found.values())


def read_answers(workspace: Path, deployment: str) -> Iterator[AnswerLine]:
    """Every whole line; a last line that was cut off by a crash is left out. Raises InputError at one that is wrong."""
    path = find_answers(workspace, deployment)
    if not path.is_file():
        return
    with path.open("rb") as f:
        for n, data in enumerate(f, 1):
            if not data.endswith(b"\n"):
                return
            try:
                line = AnswerLine.model_validate_json(data)
            except ValidationError as e:
                why = str(e.errors()[0]["msg"])
                raise InputError(f"{path}:{n} is not an answer", why=why, fix=MEND) from e
            # There are many: they share what is the same of all, most of what each would hold.
            yield AnswerLine.model_construct(_fields_set=_ANSWER_FIELDS, **line.__dict__)


def find_damage(path: Path) -> tuple[int, int, bool]:
    """Of a file of answers: how many whole lines are none, the number of the first, and whether the last was cut off by
    a crash (the next answer takes its place)."""
    bad, first, torn = 0, 0, False
    with path.open("rb") as f:
        for n, data in enumerate(f, 1):
            torn = not data.endswith(b"\n")
            if not torn and not is_answer(data):
                bad, first = bad + 1, first or n
    return bad, first, torn


def is_answer(data: bytes) -> bool:
    """Whether a line can be read by `read_answers`."""
    try:
        AnswerLine.model_validate_json(data)
    except ValidationError:
        return False
    return True


def _write(path: Path, value: BaseModel) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value.model_dump(mode="json"))
    except OSError as e:
        raise translate_os_error(e, f"writing {path.name}") from e


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    except ValidationError as e:
        raise InputError(
            f"{path} is not what gtft writes", why=str(e.errors()[0]["msg"]), fix="gtft doctor"
        ) from e
