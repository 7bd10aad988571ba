"""Memory of the box as a training feels it: what is free, who holds it, when to give way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from gtft.memory import CGROUPS, read_limit
from gtft.runner.box import LEAST_MEMORY, classify, say_size

STALLS = Path("/proc/pressure/memory")
# Share of the time in which everything on the box stood still for memory (PSI, full, avg10).
MOST_STALLED = 0.2
SPARE = 512 * 1024**2
NAMED = 4


@dataclass(frozen=True)
class Reading:
    """Bytes that a new process could have, and all that there are; ``stalled``: share of the last 10 s in
    which everything waited for memory, 0 where the kernel does not tell."""

    free: int
    total: int
    stalled: float = 0.0


def measure_memory() -> Reading:
    """The box and its cgroup as they are now. Cheap: no process is looked at."""
    memory = psutil.virtual_memory()
    limit, used = read_limit(CGROUPS, Path("/proc/self/cgroup"))
    if limit is None or used is None:
        return Reading(memory.available, memory.total, read_stall(STALLS))
    free = max(0, min(memory.available, limit - used))
    return Reading(free, min(memory.total, limit), read_stall(STALLS))


def read_stall(path: Path) -> float:
    """``full avg10`` of a pressure file of the kernel, as a share; 0 where there is none."""
    try:
        text = path.read_text("ascii")
    except OSError:
        return 0.0
    for line in text.splitlines():
        kind, *values = line.split()
        figures = dict(v.partition("=")[::2] for v in values)
        if kind == "full" and "avg10" in figures:
            return float(figures["avg10"]) / 100
    return 0.0


def count_room(planned: int, headroom: int) -> int:
    """Bytes that must be free before a training starts. ``planned``: its peak, 0 when it is not known."""
    return planned + headroom if planned else max(LEAST_MEMORY, headroom)


def count_room_again(room: int, headroom: int, used: int) -> int:
    """Bytes that must be free before a training that gave way starts again. ``room``: what it needed at
    first; ``used``: what it held.

    More than it left behind itself by half a headroom, at most `SPARE`: else it would come back to where it
    gave way.
    """
    return max(room, used + headroom + min(headroom // 2, SPARE))


def is_low(reading: Reading, headroom: int) -> bool:
    """True when a running training should give way; never when nothing is reserved."""
    return headroom > 0 and (reading.free < headroom or reading.stalled > MOST_STALLED)


def say_low(reading: Reading, headroom: int) -> str:
    """``310.0 MiB free, 512.0 MiB reserved``, and the stall when that is the reason."""
    text = f"{say_size(reading.free)} free, {say_size(headroom)} reserved"
    if reading.free >= headroom:
        text += f", and the box stands still for memory {reading.stalled:.0%} of the time"
    return text


def measure_resident(pid: int) -> int:
    """Bytes of a process that are its own and in memory; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return 0


def name_holders() -> str:
    """The processes that hold the most memory, the largest first."""
    found: list[tuple[int, str]] = []
    for p in psutil.process_iter(["pid", "name", "cmdline", "memory_info"]):
        i = p.info
        if i["memory_info"]:
            kind = classify(i["name"] or "", i["cmdline"] or []) or i["name"]
            found.append((i["memory_info"].rss, f"{kind} (pid {i['pid']})"))
    found.sort(key=lambda entry: -entry[0])
    return ", ".join(f"{who} {say_size(size)}" for size, who in found[:NAMED])
