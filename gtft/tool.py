"""Programs of the town that gtft calls (``bd``, ``gt``): a list of arguments, never a shell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gtft.errors import TownError

# Longer than bd's own waits for a lock; shorter than a lease.
TIMEOUT_SECONDS = 45.0


@dataclass(frozen=True)
class Ran:
    """What a program said. ``code`` is its exit status."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def find_tool(name: str, environ: Mapping[str, str]) -> Path | None:
    """Where ``name`` is on the PATH of ``environ``; None when it is not there."""
    found = shutil.which(name, path=environ.get("PATH", ""))
    return Path(found) if found else None


def run_tool(
    name: str,
    *arguments: str,
    environ: Mapping[str, str],
    cwd: Path,
    stdin: str = "",
    timeout: float = TIMEOUT_SECONDS,
) -> Ran:
    """Run a program to its end, whatever its exit status. ``timeout`` in seconds.

    Raises TownError when it is not on PATH, cannot be started, or does not end in time (it is killed then).
    """
    path = find_tool(name, environ)
    if path is None:
        raise TownError(
            f"{name} is not on PATH",
            why="this workspace keeps its state in a town, and a town is reached through it",
            fix="install it (docs/in-a-town.md), then: gtft doctor",
        )
    try:
        done = subprocess.run(
            [str(path), *arguments],
            cwd=cwd,
            env=dict(environ),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise TownError(
            f"{name} {arguments[0] if arguments else ''} did not answer in {timeout:.0f} s",
            why="the town's Dolt server may hang; gtft never restarts it",
            fix="gt dolt status, then: gtft doctor",
        ) from e
    except (OSError, ValueError) as e:
        # No such folder, too long, or a character that no argument can carry.
        raise TownError(f"{name} could not be called", why=str(e), fix="gtft doctor") from e
    return Ran((name, *arguments), done.returncode, done.stdout, done.stderr)
