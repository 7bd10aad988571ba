"""The box: its memory, cores and disk, and who else lives on it. Nothing is asked but the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from gtft.memory import CGROUPS, read_limit

GIB, MIB = 1024**3, 1024**2
# Below this no training is started: one on a nano base needs about 1.5 GiB.
LEAST_MEMORY = 2 * GIB

# Programs of agents, by the name of the process or of the script that an interpreter runs.
AGENTS = frozenset(
    [
        "amp",
        "auggie",
        "claude",
        "codex",
        "copilot",
        "cursor-agent",
        "gemini",
        "omp",
        "opencode",
        "pi",
        "vibe",
    ]
)
INTERPRETERS = ("node", "bun", "deno", "python")
RUNNER_VERBS = ("run", "work")
DOLT, AGENT, RUNNER, WORKER, PANE = (
    "Dolt server", "agent", "gtft runner", "gtft worker", "tmux pane",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Processes of one kind. ``resident``: their resident memory, bytes; shared pages count in each."""

    what: str
    pids: tuple[int, ...]
    resident: int


@dataclass(frozen=True)
class Gpu:
    """A card as its driver shows it; bytes."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True)
class Box:
    """Bytes throughout. ``limit`` and ``used`` are the cgroup's; None when it sets no limit."""

    cores: int
    load: float
    memory: int
    available: int
    limit: int | None
    used: int | None
    disk_free: int
    groups: tuple[Group, ...]
    gpus: tuple[Gpu, ...] = ()

    @property
    def free(self) -> int:
        """What a new process can have: the least of what the box and the cgroup leave."""
        if self.limit is None or self.used is None:
            return self.available
        return max(0, min(self.available, self.limit - self.used))

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "free": self.free}

    def name_machine(self) -> str:
        """What a card says of it: cores, memory, GPUs; nobody's name."""
        limit = self.memory if self.limit is None else min(self.memory, self.limit)
        gpus = ", ".join(f"{g.name} ({say_size(g.memory)})" for g in self.gpus) or "no GPU"
        return f"{say_count(self.cores, 'core')}, {say_size(limit)} of memory, {gpus}"

    def describe(self) -> list[str]:
        """Short lines for people."""
        memory = f"{say_size(self.free)} free of {say_size(self.memory)}"
        if self.limit is not None:
            memory += f"; the cgroup allows {say_size(self.limit)}, {say_size(self.used or 0)} used"
        lines = [
            f"memory: {memory}",
            f"cores: {self.cores}, load {self.load:.1f}",
            f"disk: {say_size(self.disk_free)} free",
        ]
        lines += [
            f"GPU: {c.name}, {say_size(c.free)} free of {say_size(c.memory)}" for c in self.gpus
        ]
        for g in self.groups:
            size = f": {say_size(g.resident)}" if g.resident else ""
            lines.append(say_count(len(g.pids), g.what) + size)
        if not self.groups:
            lines.append("nobody else of the town is on this box")
        return lines


def survey_box(folder: Path, cgroups: Path = CGROUPS) -> Box:
    """The box as it is now. ``folder``: where the disk is looked at; it must exist."""
    memory = psutil.virtual_memory()
    limit, used = read_limit(cgroups, Path("/proc/self/cgroup"))
    return Box(
        cores=len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count() or 1,
        load=psutil.getloadavg()[0],
        memory=memory.total,
        available=memory.available,
        limit=limit,
        used=used,
        disk_free=psutil.disk_usage(str(folder)).free,
        groups=tuple(_group_processes()),
        gpus=list_gpus(),
    )  # fmt: skip


def list_gpus() -> tuple[Gpu, ...]:
    """The cards, when the driver's own tool is there and answers; else none."""
    argv = (
        "nvidia-smi",
        "--query-gpu=name,memory.total,memory.free",
        "--format=csv,noheader,nounits",
    )
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True
        )
        rows = [line.rsplit(",", 2) for line in done.stdout.splitlines() if line.strip()]
        return tuple(Gpu(n.strip(), int(m) * MIB, int(f) * MIB) for n, m, f in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def classify(name: str, argv: Sequence[str]) -> str | None:
    """The kind of a process that matters to a training; None for every other one."""
    program = Path(argv[0]).name if argv else name
    script = _find_script(program, argv)
    if program == "dolt" and "sql-server" in argv:
        return DOLT
    module = argv[argv.index("-m") + 1] if "-m" in argv[:-1] else ""
    if module.startswith("gtft.workers."):
        return WORKER
    if (script or program) == "gtft" or module == "gtft.cli.main":
        return RUNNER if any(verb in argv[1:] for verb in RUNNER_VERBS) else None
    return AGENT if {name, program, script} & AGENTS else None


def _find_script(program: str, argv: Sequence[str]) -> str:
    """The name, without its ending, of the script that an interpreter runs."""
    if not program.startswith(INTERPRETERS):
        return ""
    return next((Path(a).name.partition(".")[0] for a in argv[1:] if not a.startswith("-")), "")


def _group_processes() -> Iterator[Group]:
    found: dict[str, list[tuple[int, int]]] = {}
    multiplexers: set[int] = set()
    parents: list[tuple[int, int]] = []
    for p in psutil.process_iter(["pid", "ppid", "name", "cmdline", "memory_info"]):
        i = p.info
        if i["pid"] == os.getpid() or not i["cmdline"]:
            continue
        if i["name"].startswith("tmux: server"):
            multiplexers.add(i["pid"])
        size = i["memory_info"].rss if i["memory_info"] else 0
        parents.append((i["pid"], i["ppid"]))
        kind = classify(i["name"], i["cmdline"])
        if kind is not None:
            found.setdefault(kind, []).append((i["pid"], size))
    panes = [(pid, 0) for pid, parent in parents if parent in multiplexers]
    if panes:
        found[PANE] = panes
    for kind in (DOLT, AGENT, RUNNER, WORKER, PANE):
        if kind in found:
            pids = tuple(sorted(pid for pid, _ in found[kind]))
            yield Group(kind, pids, sum(size for _, size in found[kind]))


def say_size(size: float) -> str:
    """Bytes for people: GiB, else MiB, else KiB."""
    for unit, step in (("GiB", GIB), ("MiB", MIB)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"


def say_count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
