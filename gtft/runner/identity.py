"""Who acts: the actor's name, and whether a name fills a role."""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil


def find_actor(given: str | None, environ: Mapping[str, str]) -> str:
    """``--as``, else what the town set (BEADS_ACTOR, BD_ACTOR, GT_ROLE), else ``overseer/<user>``."""
    for name in (given, *(environ.get(k) for k in ("BEADS_ACTOR", "BD_ACTOR", "GT_ROLE"))):
        if name and name.strip():
            return name.strip()
    return f"overseer/{getpass.getuser()}"


def fills_role(actor: str, role: str) -> bool:
    """``witness`` and ``rig/witness`` fill the role witness; ``rig/polecats/nux`` fills polecat."""
    parts = actor.strip("/").split("/")
    return actor == role or role in parts or role + "s" in parts


def make_token() -> str:
    """``host|pid|start|uuid``: unique to a claim, and tells whether its process still lives."""
    pid = os.getpid()
    return f"{socket.gethostname()}|{pid}|{_read_start(pid)}|{uuid.uuid4().hex}"


def owner_is_gone(token: str) -> bool:
    """True when the token was made on this host by a process that is no more."""
    host, pid, start, _ = [*token.split("|"), "", "", "", ""][:4]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        # A zombie works no more; it only waits for its parent.
        if psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE:
            return True
        return _read_start(int(pid)) != start
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True
    except psutil.AccessDenied:
        return False


def _read_start(pid: int) -> str:
    """When a process began: in the kernel's ticks where it tells them, which no change of the clock moves."""
    stat = Path("/proc") / str(pid) / "stat"
    if stat.exists():
        # After the name, which may hold anything: field 22 of proc(5).
        return stat.read_text().rpartition(")")[2].split()[19]
    return f"{psutil.Process(pid).create_time():.2f}"
