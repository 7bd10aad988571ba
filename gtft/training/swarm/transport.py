"""What Hivemind does to the process and box it runs in, kept in bounds.

Its processes die with the trainer (Linux: PR_SET_PDEATHSIG; elsewhere the runner ends the process group), Ctrl+C
keeps its handler, the start method is fork, and its unix sockets live in a private folder that is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from gtft.artifact import is_alive
from gtft.errors import InputError, InternalError

_PR_SET_PDEATHSIG = 1
_FOLDER = "gtft-swarm-"
# A unix socket's path holds at most 107 bytes (104 on macOS); Hivemind adds about 30.
_LONGEST = 70

_armed_by: int | None = None
_hooked = False


def _die_with_parent() -> None:
    """Runs in every child forked while armed, and in what that child forks: p2pd too."""
    global _armed_by
    parent = _armed_by
    if parent is None:
        return
    _armed_by = os.getpid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


class Host:
    """One per process. ``starting()`` around what starts Hivemind processes, ``close()`` at the end."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Fork, tied to this process's life, with the interrupt handler put back afterwards.

        Raises InternalError outside the main thread: the kernel's signal follows the thread that forked.
        """
        global _armed_by, _hooked
        if threading.current_thread() is not threading.main_thread():
            raise InternalError("a swarm peer must be started from the main thread")
        self._place_sockets()
        if not _hooked and sys.platform == "linux":
            os.register_at_fork(after_in_child=_die_with_parent)
            _hooked = True
        handler = signal.getsignal(signal.SIGINT)
        method = multiprocessing.get_start_method(allow_none=True)
        multiprocessing.set_start_method("fork", force=True)
        _armed_by = os.getpid()
        try:
            yield
        finally:
            _armed_by = None
            multiprocessing.set_start_method(method, force=True)
            signal.signal(signal.SIGINT, handler)

    def close(self) -> None:
        """Remove this process's sockets."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def _place_sockets(self) -> None:
        from hivemind.p2p import P2P

        if self.folder is not None:
            return
        root = Path(tempfile.gettempdir())
        if len(str(root)) > _LONGEST:
            root = Path("/tmp")  # noqa: S108
        sweep_sockets(root)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=root))
        P2P._UNIX_SOCKET_PREFIX = f"/unix{self.folder}/"


def sweep_sockets(root: Path) -> None:
    """Remove socket folders of this user whose process is gone (killed before it could)."""
    for folder in root.glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with contextlib.suppress(OSError):
            mine = (
                folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
            )
            if mine and pid.isdigit() and not is_alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def explain_start(error: BaseException) -> InputError:
    """Why a DHT did not start, in words that can be acted on."""
    text = " ".join(str(error).split())
    clocks = re.search(r"\(local: ([\d.]+), peer: ([\d.]+)\)", text)
    if clocks:
        off = float(clocks[1]) - float(clocks[2])
        return InputError(
            f"this machine's clock is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} the swarm's",
            why="records of a swarm live for seconds: clocks must agree within 3 s",
            fix="set the clock (timedatectl set-ntp true), then gtft runs resume RUN",
        )
    if "already taken" in text:
        return InputError(
            "another process uses this peer's identity",
            why=text[:200],
            fix="gtft runs list shows what runs here; end it, or join with an identity of its own",
        )
    if "bootstrap" in text or "initial_peers" in text:
        return InputError(
            "no peer of the swarm answers or lets this one in",
            why=text[:200],
            fix="check the addresses and that this peer is on the member list: gtft swarm status",
        )
    return InputError(
        "the swarm's network part did not start",
        why=text[:200] or type(error).__name__,
        fix="gtft doctor; is the port of listen free?",
    )
