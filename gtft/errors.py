"""The closed set of error kinds, and the exit code of each.

    GtftError
    ├── UsageError          2   the command line asks for something that does not exist
    ├── RecipeError         3   a formula or recipe is wrong (carries every problem found)
    ├── InputError          4   a file or folder that a run reads is missing, unreadable or empty
    ├── CorpusTooSmall      5   fewer examples than the recipe's minimum
    ├── BaseMissing         6   the base model is not where the recipe says
    ├── EvidenceError       7   an artifact is absent, changed, or not the one the run recorded
    ├── ConflictError       8   somebody else holds the bead, or the move is not legal now
    ├── DiskFull            9   no room to write; nothing half-written is left
    ├── RedactionError     10   the second scan still finds a secret: no corpus is written
    ├── GateFailed         11   a gate of the recipe is not met
    ├── ReviewError        12   the reviewer may not review this bead
    ├── WorkerFailed       13   a worker ended without an artifact
    ├── TrainingError      14   training cannot go on (all-masked rows, NaN, damaged checkpoint)
    ├── MissingExtra       15   an optional part of the install is needed
    ├── TownError          16   bd, gt or Dolt is absent, away, or not one that gtft can use
    └── InternalError      70   a bug in gtft

A worker that stopped on request with a checkpoint exits with 75 (``PAUSED_EXIT``).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

PAUSED_EXIT = 75


class GtftError(Exception):
    """Something the user can act on: what happened, why, and the next command."""

    kind = "gtft"
    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  next: {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The JSON form: kind, exit code, what, why, fix."""
        return {
            "kind": self.kind,
            "exit_code": self.exit_code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }


class UsageError(GtftError):
    kind = "usage"
    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake in a file. ``line`` is 1-based; 0 when the place is not known."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.key, self.text) if part)


class RecipeError(GtftError):
    kind = "recipe"
    exit_code = 3

    def __init__(
        self, what: str, *, problems: tuple[Problem, ...] = (), why: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.problems = problems

    def __str__(self) -> str:
        lines = [self.what, *(f"  {p}" for p in self.problems)]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  next: {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        out = super().as_dict()
        out["problems"] = [
            {"file": p.file, "line": p.line, "key": p.key, "text": p.text} for p in self.problems
        ]
        return out


class InputError(GtftError):
    kind = "input"
    exit_code = 4


class CorpusTooSmall(GtftError):
    kind = "corpus-too-small"
    exit_code = 5


class BaseMissing(GtftError):
    kind = "base-missing"
    exit_code = 6


class EvidenceError(GtftError):
    kind = "evidence"
    exit_code = 7


class ConflictError(GtftError):
    kind = "conflict"
    exit_code = 8


class DiskFull(GtftError):
    kind = "disk-full"
    exit_code = 9


class RedactionError(GtftError):
    kind = "redaction"
    exit_code = 10


class GateFailed(GtftError):
    kind = "gate"
    exit_code = 11


class ReviewError(GtftError):
    kind = "review"
    exit_code = 12


class WorkerFailed(GtftError):
    kind = "worker"
    exit_code = 13


class TrainingError(GtftError):
    kind = "training"
    exit_code = 14


class MissingExtra(GtftError):
    kind = "missing-extra"
    exit_code = 15


class TownError(GtftError):
    kind = "town"
    exit_code = 16


class InternalError(GtftError):
    kind = "internal"
    exit_code = 70


KINDS: tuple[type[GtftError], ...] = (
    UsageError,
    RecipeError,
    InputError,
    CorpusTooSmall,
    BaseMissing,
    EvidenceError,
    ConflictError,
    DiskFull,
    RedactionError,
    GateFailed,
    ReviewError,
    WorkerFailed,
    TrainingError,
    MissingExtra,
    TownError,
    InternalError,
)


def find_kind(kind: str) -> type[GtftError]:
    """The class of a kind's name, as read from a worker's ``failed`` event."""
    return next((k for k in KINDS if k.kind == kind), InternalError)


def translate_os_error(error: OSError, doing: str) -> GtftError:
    """An OSError as the kind a user can act on; ``doing`` completes "while …"."""
    path = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"the disk is full while {doing}{path}",
            why="the system refused to write; what was half written has been removed",
            fix="free some space (gtft doctor shows where), then the same command again (of a run: gtft runs resume RUN)",
        )
    missing = error.errno == errno.ENOENT
    return InputError(
        f"{error.strerror or error} while {doing}{path}",
        why="nothing is there under that name"
        if missing
        else "the system refused access to that file or folder",
        fix="check that it exists and that you may read it, then run the command again",
    )
