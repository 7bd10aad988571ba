"""Memory as the kernel tells it: what a new process could have, and what this one holds. No torch here."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
# A limit above this is v1's way of saying that there is none.
NO_LIMIT = 1 << 60
_STATUS = Path("/proc/self/status")
_SAMPLE_SECONDS = 0.02


def read_limit(cgroups: Path, own: Path) -> tuple[int | None, int | None]:
    """(limit, used) of the tightest memory cgroup that holds us, bytes; (None, None) without one.

    ``own`` lists our cgroups as ``/proc/self/cgroup`` does. What the kernel can give back at once
    (inactive file pages) does not count as used.
    """
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return None, None
    best: tuple[int, int] | None = None
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            top, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = cgroups / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            found = _read_group(folder, *names)
            if found is not None and (best is None or found[0] - found[1] < best[0] - best[1]):
                best = found
            if folder == top:
                break
    return best if best is not None else (None, None)


def _read_group(folder: Path, limit: str, used: str, idle: str) -> tuple[int, int] | None:
    try:
        most = (folder / limit).read_text("utf-8").strip()
        now = int((folder / used).read_text("utf-8"))
        stat = dict(
            line.split(" ", 1) for line in (folder / "memory.stat").read_text("utf-8").splitlines()
        )
    except (OSError, ValueError):
        return None
    if not most.isdigit() or int(most) >= NO_LIMIT:
        return None
    return int(most), max(0, now - int(stat.get(idle, "0")))


def measure_free() -> int:
    """Bytes that a new process can have: the least of what the box and the tightest cgroup leave."""
    available = int(psutil.virtual_memory().available)
    limit, used = read_limit(CGROUPS, Path("/proc/self/cgroup"))
    if limit is None or used is None:
        return available
    return max(0, min(available, limit - used))


def read_anonymous() -> int:
    """Bytes of this process that are its own and in memory (RssAnon); its resident memory where the
    kernel does not tell them apart."""
    try:
        for line in _STATUS.read_text("ascii", "replace").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(psutil.Process().memory_info().rss)


class PeakSampler:
    """The peak of this process's anonymous memory since it was made or reset; a thread looks 50 times a
    second. ``ru_maxrss`` would also count mapped files, which the kernel can drop."""

    def __init__(self) -> None:
        self._peak = 0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="peak", daemon=True).start()

    @property
    def peak(self) -> int:
        """Bytes."""
        self._peak = max(self._peak, read_anonymous())
        return self._peak

    def close(self) -> int:
        """Stop looking; returns the peak."""
        self._ended.set()
        return self.peak

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, read_anonymous())


def give_back_large_blocks() -> None:
    """Have glibc return freed blocks of 1 MiB and more at once; elsewhere nothing happens.

    By itself it raises that bound to 32 MiB as blocks are freed, and keeps what is below in pieces: with
    gradient checkpointing an 85 M base then held 1168 MiB instead of 735. It costs page faults (a third more
    processor time), so it is for trainings that are short of memory.
    """
    import ctypes
    import sys

    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(-3, 1 << 20)  # M_MMAP_THRESHOLD
