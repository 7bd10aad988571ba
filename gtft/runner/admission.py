"""Admission to a device: tickets in a folder that every runner of the user on this box shares.

A ticket is a file whose holder keeps an exclusive flock on it; the number in its name is its place, in
order of arrival. The lock belongs to the open file, which a worker inherits from its runner: it lasts
until both are gone, so an orphan worker still holds its device, and a dead holder's ticket is void at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from gtft.errors import InputError, translate_os_error

FOLDER_VARIABLE = "GTFT_RUNTIME_DIR"
LOCK_FILE = "lock"
TICKET = ".ticket"
# A ticket on its way: its maker holds the folder's lock.
RAW = ".raw"
ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Holder:
    """Who has a ticket, for which devices."""

    run: str
    workspace: str
    pid: int
    devices: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.run} (workspace {self.workspace})"


def find_folder(environ: Mapping[str, str]) -> Path:
    """Where the tickets are: ``GTFT_RUNTIME_DIR``, else ``/tmp/gtft-<uid>``.

    Not XDG_RUNTIME_DIR or TMPDIR: they differ between a terminal, an agent and a cron job of one user, and
    the first is removed at logout, which a training outlives.
    """
    given = environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path("/tmp") / f"gtft-{os.getuid()}"  # noqa: S108


def find_devices(environ: Mapping[str, str], count: int = 1) -> tuple[str, ...]:
    """The devices that a training of ``count`` processes uses: ``cuda:N``, or ``cpu`` without a GPU."""
    cards = _list_cards(environ)
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    names: list[str] = list(cards) if shown is None else []
    for given in shown.split(",") if shown else []:
        name = given.strip()
        match = next((n for n, uuid in cards.items() if name and uuid.startswith(name)), name)
        if match not in cards:
            # As CUDA does: what follows a name that it does not know is not visible.
            break
        names.append(match)
    return tuple(f"cuda:{n}" for n in names[: max(1, count)]) or ("cpu",)


def _list_cards(environ: Mapping[str, str]) -> dict[str, str]:
    """Index → UUID of the GPUs as the driver's own tool lists them; empty without one."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.partition(",") for line in done.stdout.splitlines())
    return {index.strip(): uuid.strip() for index, _, uuid in rows if index.strip().isdigit()}


class Turn:
    """Our place in the queue; a context manager that gives it back. Not taken before `take`."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._folder = folder
        self._holder = holder
        self._fd: int | None = None
        self._number = 0

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def fd(self) -> int | None:
        """The locked file, for the worker to inherit; None before `take`."""
        return self._fd

    def take(self) -> None:
        """Take a ticket behind all others, once. Raises InputError when the folder cannot be trusted."""
        if self._fd is not None:
            return
        _check_folder(self._folder)
        try:
            with (self._folder / LOCK_FILE).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._reap()
                self._number = max((n for n, _ in _list_tickets(self._folder)), default=0) + 1
                # Locked before it has its name: whoever sees a ticket sees it locked.
                raw = self._folder / f"{self._number:09}{RAW}"
                fd = os.open(raw, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.write(fd, json.dumps(asdict(self._holder)).encode())
                raw.rename(raw.with_suffix(TICKET))
        except OSError as e:
            raise translate_os_error(e, "taking a ticket for the device") from e
        self._fd = fd

    def find_obstacle(self, most: int) -> tuple[str, tuple[Holder, ...]] | None:
        """A device on which ``most`` others or more are before us, and who, the first first; None when it
        is our turn. Call it after `take`."""
        before = [path for n, path in _list_tickets(self._folder) if n < self._number]
        ahead = [h for p in before if (h := _read_holder(p)) is not None]
        for device in self._holder.devices:
            on = tuple(h for h in ahead if device in h.devices)
            if len(on) >= most:
                return device, on
        return None

    def release(self) -> None:
        """Our end of it; a worker that inherited the lock keeps the place."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _reap(self) -> None:
        """Remove tickets whose holder is gone; only under the folder's lock."""
        for path in self._folder.glob(f"*{RAW}"):
            path.unlink()
        for _, path in _list_tickets(self._folder):
            if _is_void(path):
                path.unlink(missing_ok=True)


def list_holders(folder: Path) -> tuple[Holder, ...]:
    """Everybody who waits or trains, in order of arrival."""
    found = (_read_holder(path) for _, path in _list_tickets(folder))
    return tuple(h for h in found if h is not None)


def _check_folder(folder: Path) -> None:
    """Ours alone, or nobody's word in it counts. Made on first use."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as e:
        raise translate_os_error(e, "opening the folder of the device's queue") from e
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not ours or found.st_mode & 0o077:
        raise InputError(
            f"{folder} cannot hold the queue for the device",
            why="it must be a folder of yours that only you may enter (mode 700)",
            fix=f"chmod 700 {folder}" if ours else f"set {FOLDER_VARIABLE} to a folder of yours",
        )


def _list_tickets(folder: Path) -> list[tuple[int, Path]]:
    named = ((p.stem, p) for p in folder.glob(f"*{TICKET}"))
    return sorted((int(stem), path) for stem, path in named if stem.isdigit())


def _is_void(path: Path) -> bool:
    """True when nobody holds the ticket."""
    try:
        with path.open("rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _read_holder(path: Path) -> Holder | None:
    """The holder of a ticket; None when it is void."""
    if _is_void(path):
        return None
    try:
        doc = json.loads(path.read_text("utf-8"))
        return Holder(
            str(doc["run"]), str(doc["workspace"]), int(doc["pid"]), tuple(map(str, doc["devices"]))
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{path} is not a ticket of the device's queue", why=str(e), fix=f"rm {path}"
        ) from e
