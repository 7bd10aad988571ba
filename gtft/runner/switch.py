"""The switch of a role: its journal, the server's routes and the town's files, without the store.

``deployments/<place>.json`` in the workspace is written before any other byte. It holds what the files were before
gtft came, so that a rollback needs nothing else: no store, no server, no network. Its states::

    applying ──► active ──► removing ──► off ──► (gone)

``applying`` is taken back, or goes on when the store says that it is active; ``removing`` always goes on to ``off``,
which waits until the store was told.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from gtft.artifact import write_json
from gtft.errors import ConflictError, GtftError, InputError, UsageError, translate_os_error
from gtft.service import SPOKEN, Mode, Route, Routes, read_routes, write_routes
from gtft.town import city
from gtft.town.directive import has_block, take_block
from gtft.town.locate import MARKER
from gtft.town.parts import is_link
from gtft.town.settings import (
    SETTINGS,
    holds_agent,
    name_aside,
    parse_settings,
    read_bytes,
    swap_file,
    take_agent,
)

FOLDER = "deployments"
LOCK_FILE = "deploy.lock"
# How often a file that somebody else writes at the same moment is tried.
_TRIES = 5
_PAUSE = 0.05
State = Literal["applying", "active", "removing", "off"]
# How a file that we edited stands: as we left it; ours, and changed elsewhere; without ours.
Standing = Literal["as left", "changed", "gone"]
Step = Callable[[str], None]


def no_step(name: str) -> None:
    """What is called before each step; tests put a crash in its place."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    """A file of the town that is edited. Bytes are base64, None = no file.

    ``before``: as it was before gtft; ``found``: right before this step; ``left``: sha256 of what this step leaves.
    ``agent``: ours by name; ``previous`` and ``made`` are for settings: the role's entry before, objects we made.
    """

    path: str
    kind: Literal["settings", "directive", "city"]
    before: str | None
    found: str | None
    left: str | None
    mode: int
    agent: str = ""
    previous: str | None = None
    made: tuple[str, ...] = ()

    @field_validator("before", "found")
    @classmethod
    def _check_bytes(cls, value: str | None) -> str | None:
        base64.b64decode(value or "", validate=True)
        return value


class Previous(_Frozen):
    """How the agent that ran the role is started, where it is another program than the model's agent."""

    argv: tuple[str, ...]
    env: dict[str, str]
    # Before its first prompt: an option, "" = nothing, None = it takes no prompt.
    prompt: str | None
    is_claude: bool


class Launch(_Frozen):
    """What ``gtft deploy launch`` must know. ``given``: command and arguments of the model's agent;
    ``keys``: variables that point it at the server; ``words``: those of its command line that do;
    ``token``: a variable that it does not start without."""

    health: str
    protocol: Literal["anthropic", "openai"]
    keys: tuple[str, ...]
    given: tuple[str, ...]
    env: dict[str, str]
    words: tuple[str, ...] = ()
    token: str = ""
    previous: Previous | None = None


class Removal(_Frozen):
    reason: Literal["undone", "rolled-back", "failed", "superseded"]
    text: str
    actor: str
    at_us: int


class Journal(_Frozen):
    """One place's deployment. ``root``: the town, relative to the workspace; ``folders``: those we made in it."""

    format: Literal[1] = 1
    state: State
    role: str
    rig: str = ""
    root: str = ""
    deployment: str
    model: str
    model_id: str
    mode: Mode
    agent: str = ""
    files: tuple[FileEntry, ...] = ()
    folders: tuple[str, ...] = ()
    route: Route
    launch: Launch | None = None
    removal: Removal | None = None
    # What it takes the place of, until it is active.
    was: Journal | None = None

    @property
    def place(self) -> str:
        return name_place(self.role, self.rig)

    @property
    def where(self) -> str:
        return f"{self.rig}/{self.role}" if self.rig else self.role


@dataclass(frozen=True)
class Edit:
    """One file of the plan: its bytes now and then."""

    path: Path
    found: bytes | None
    new: bytes | None
    mode: int


def name_place(role: str, rig: str) -> str:
    """The name of a place's files. Raises InputError for what is no plain name."""
    for name in (role, rig):
        if name.startswith(".") or not all(
            c.isascii() and (c.isalnum() or c in "-_.") for c in name
        ):
            raise InputError(f"{name!r} is no name of a role or rig", fix="gt rig list")
    return f"{rig}@{role}" if rig else role


def find_journal(workspace: Path, role: str, rig: str) -> Path:
    return workspace / FOLDER / f"{name_place(role, rig)}.json"


def read_journal(workspace: Path, role: str, rig: str = "") -> Journal | None:
    """Raises InputError when it cannot be read."""
    return _read(find_journal(workspace, role, rig))


def list_journals(workspace: Path) -> list[Journal]:
    """Every place's, by name. Raises InputError when one cannot be read."""
    found = (_read(p) for p in sorted((workspace / FOLDER).glob("*.json")))
    return [j for j in found if j is not None]


def find_in_service(workspace: Path, deployment: str, role: str, rig: str | None) -> Journal:
    """By its id or its model's name, else by place. Raises UsageError when there is nothing, or more than one."""
    journals = [j for j in list_journals(workspace) if j.state != "off"]
    found = [
        j
        for j in journals
        if (not deployment or deployment in (j.deployment, j.model))
        and (not role or j.role == role)
        and (rig is None or j.rig == rig)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        what = " ".join(filter(None, (deployment or "nothing", role and f"for {role}")))
        raise UsageError(
            f"{what}{' on ' + rig if rig else ''} is {'not ' if deployment else ''}in service",
            why=", ".join(f"{j.model} is {SPOKEN[j.mode]} for {j.where}" for j in journals),
            fix="gtft deploy list",
        )
    raise UsageError(
        f"{len(found)} deployments are in service",
        why=", ".join(f"{j.model} ({j.mode}) for {j.where}" for j in found),
        fix='say which: --role ROLE, and --rig RIG (--rig "" is the whole town)',
    )


def _read(path: Path) -> Journal | None:
    try:
        found = Journal.model_validate_json(path.read_bytes())
        why = "" if found.place == path.stem else f"it is about {found.place}"
    except FileNotFoundError:
        return None
    except OSError as e:
        raise translate_os_error(e, "reading a deployment's journal") from e
    except InputError as e:
        why = e.what
    except ValidationError as e:
        why = str(e.errors()[0]["msg"])
    if why:
        raise InputError(
            f"{path} is not what gtft writes",
            why=why,
            fix="restore it from a backup: it holds the settings as they were before",
        )
    return found


def write_journal(workspace: Path, journal: Journal) -> None:
    path = find_journal(workspace, journal.role, journal.rig)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_json(path, journal.model_dump(mode="json"))
    except OSError as e:
        raise translate_os_error(e, "writing a deployment's journal") from e


def drop_journal(workspace: Path, journal: Journal) -> None:
    find_journal(workspace, journal.role, journal.rig).unlink(missing_ok=True)


@contextmanager
def lock_deploy(workspace: Path, seconds: float = 0.0) -> Iterator[None]:
    """One switch at a time; the kernel drops the lock with its holder. Raises ConflictError when another still holds
    it after ``seconds``."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        f = (workspace / LOCK_FILE).open("a")
    except OSError as e:
        raise translate_os_error(e, "locking deployments") from e
    end = time.monotonic() + seconds
    with f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= end:
                    raise ConflictError(
                        "another deploy, promote or rollback is at work in this town",
                        why="one at a time, so that each sees what the other did",
                        fix="wait for it, then the same command again",
                    ) from e
            time.sleep(_PAUSE)
        yield


def put_routes(
    workspace: Path, changed: Journal | None = None, without: str = "", ended: Journal | None = None
) -> None:
    """``routes.json`` as the journals say, with ``changed`` in place of its own and without the place ``without``;
    what is asked for ``ended`` is passed on from now on."""
    write_routes(workspace, derive_routes(workspace, changed, without, ended))


def derive_routes(
    workspace: Path,
    changed: Journal | None = None,
    without: str = "",
    ended: Journal | None = None,
) -> Routes:
    """The routes of what is in service, and those that only pass on: an agent that was started while its role was
    live has our address until it is started anew."""
    journals = {j.place: j for j in list_journals(workspace) if j.state in ("applying", "active")}
    if changed is not None:
        journals[changed.place] = changed
    journals.pop(without, None)
    found = {name_place(r.role, r.rig): _pass_on(r) for r in _list_passing(workspace)}
    if ended is not None and ended.mode == "live" and ended.route.fallback is not None:
        found[ended.place] = _pass_on(ended.route)
    for place, j in journals.items():
        # Also while another model is compared or advises there.
        before = found[place].fallback if place in found and j.mode != "live" else None
        found[place] = j.route.model_copy(update={"fallback": before}) if before else j.route
    return Routes(routes=tuple(found[p] for p in sorted(found)))


def _pass_on(route: Route) -> Route:
    none = {"model": "", "adapter": "", "mode": "shadow", "ab_share": 0.0}
    return route.model_copy(update=none)


def _list_passing(workspace: Path) -> list[Route]:
    """What is passed on now, whoever is asked there: no journal holds it."""
    try:
        return [r for r in read_routes(workspace).routes if r.fallback and r.mode != "live"]
    except InputError:
        return []


def apply(
    workspace: Path,
    journal: Journal,
    edits: Sequence[Edit],
    *,
    start: Callable[[], None],
    check: Callable[[], None],
    activate: Callable[[], None],
    fail: Callable[[str], None],
    step: Step = no_step,
) -> Journal:
    """From the journal's first byte to ``active``; at any failure everything is taken back in reverse.

    ``start``, ``activate`` and ``fail`` tell the store; ``check`` asks the endpoint before the town is touched.
    """
    step("journal")
    write_journal(workspace, journal)
    try:
        step("store")
        start()
        step("routes")
        put_routes(workspace)
        step("check")
        check()
        for edit in edits:
            step(f"file {edit.path.name}")
            swap_file(edit.path, edit.found, edit.new, edit.mode)
        step("activate")
        activate()
    # Whatever ends it, a key included: the town is put back first.
    except BaseException as e:
        take_back(workspace, journal, fail, str(e) or type(e).__name__)
        raise
    step("active")
    return settle(workspace, journal)


def settle(workspace: Path, journal: Journal) -> Journal:
    """It is in service: what it took the place of, and files that are as they were before, are forgotten."""
    files = tuple(e for e in journal.files if e.left != hash_bytes(decode(e.before)))
    active = journal.model_copy(update={"state": "active", "was": None, "files": files})
    write_journal(workspace, active)
    put_routes(workspace)
    return active


def take_back(
    workspace: Path, journal: Journal, fail: Callable[[str], None], why: str, step: Step = no_step
) -> list[str]:
    """Undo ``applying``: files, routes, store, journal. Returns what could not be put back to the byte."""
    notes: list[str] = []
    step("back files")
    for entry in reversed(journal.files):
        notes += _restore(workspace, journal, entry, decode(entry.found))
    _drop_folders(workspace, journal, keep=() if journal.was is None else journal.was.folders)
    step("back routes")
    if journal.was is not None:
        put_routes(workspace, changed=journal.was)
    else:
        put_routes(workspace, without=journal.place)
    step("back store")
    fail(why)
    step("back journal")
    if journal.was is not None:
        write_journal(workspace, journal.was)
    else:
        drop_journal(workspace, journal)
    return notes


def remove(
    workspace: Path, journal: Journal, removal: Removal, step: Step = no_step
) -> tuple[Journal, list[str]]:
    """Out of service: the town's files as they were before, then the route. The journal stays, ``off``, for the store.

    Returns what could not be put back to the byte because somebody wrote there since.
    """
    going = journal.model_copy(update={"state": "removing", "removal": removal})
    step("journal")
    write_journal(workspace, going)
    notes: list[str] = []
    for entry in reversed(going.files):
        step(f"file {Path(entry.path).name}")
        notes += _restore(workspace, going, entry, decode(entry.before))
    _drop_folders(workspace, going)
    step("routes")
    put_routes(workspace, without=going.place, ended=going)
    step("off")
    off = going.model_copy(update={"state": "off"})
    write_journal(workspace, off)
    return off, notes


def _restore(workspace: Path, journal: Journal, entry: FileEntry, to: bytes | None) -> list[str]:
    """Put a file back, or, where somebody wrote to it since, take only what is ours out of it."""
    path = find_file(workspace, journal, entry)
    for n in range(_TRIES):
        try:
            # What a writer that was killed left behind.
            name_aside(path).unlink(missing_ok=True)
            now = read_bytes(path)
            if now == to:
                return []
            if hash_bytes(now) == entry.left or now == decode(entry.found):
                swap_file(path, now, to, entry.mode)
                return []
            if now is None:
                return [f"{path} was removed by somebody; it was not made again"]
            rest = strip(now, path, entry, journal.role)
            if rest == now:
                return []
            swap_file(path, now, rest, path.stat().st_mode & 0o7777)
            return [f"{path} was changed since: only what is gtft's was taken out"]
        except ConflictError:
            if n == _TRIES - 1:
                raise
        except OSError as e:
            raise translate_os_error(e, f"restoring {path.name}") from e
    return []


def strip(now: bytes, path: Path, entry: FileEntry, role: str) -> bytes:
    """The file without what is ours in it. Raises TownError when it cannot be understood."""
    if entry.kind == "directive":
        return take_block(now)
    if entry.kind == "city":
        return city.take_block(now, entry.agent)
    return take_agent(now, path, role, entry.agent, entry.previous, entry.made)


def _drop_folders(workspace: Path, journal: Journal, keep: Sequence[str] = ()) -> None:
    ours = {Path(journal.rig, name) for name in ("settings", "directives")}
    for name in sorted(journal.folders, reverse=True):
        if Path(name) not in ours or name in keep:
            continue
        folder = find_home(workspace, journal) / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def find_file(workspace: Path, journal: Journal, entry: FileEntry) -> Path:
    """A file of the journal's town. Raises InputError for one that gtft never edits, or that is reached by a link."""
    names = {
        "settings": SETTINGS,
        "directive": Path("directives", f"{journal.role}.md"),
        "city": Path(city.CITY),
    }
    home = "" if entry.kind == "city" else journal.rig
    root = find_home(workspace, journal)
    if Path(entry.path) != Path(home, names[entry.kind]):
        raise InputError(
            f"the journal of {journal.where} names {entry.path}, which gtft does not edit",
            fix=f"look at {find_journal(workspace, journal.role, journal.rig)}: somebody changed it",
        )
    path = root / entry.path
    if is_link(path, root):
        raise InputError(
            f"{path} is a symbolic link now, or is in a folder that is one",
            why="what is behind it is not what gtft edited",
            fix=f"put the file itself there, then again ({path})",
        )
    return path


def find_home(workspace: Path, journal: Journal) -> Path:
    """The root of the journal's town or city. Raises InputError for a folder that is none."""
    root = Path(os.path.normpath(workspace / journal.root))
    known = root == workspace.parent or (root / MARKER).is_file() or (root / city.CITY).is_file()
    if journal.files and not known:
        raise InputError(
            f"{root}, which the journal of {journal.where} names, is no town",
            fix=f"look at {find_journal(workspace, journal.role, journal.rig)}",
        )
    return root


def check_files(workspace: Path, journal: Journal) -> list[tuple[Path, Standing]]:
    """How the files of a place stand."""
    found: list[tuple[Path, Standing]] = []
    for entry in journal.files:
        path = find_file(workspace, journal, entry)
        try:
            now = read_bytes(path)
        except OSError as e:
            raise translate_os_error(e, f"reading {path.name}") from e
        if hash_bytes(now) == entry.left:
            found.append((path, "as left"))
            continue
        try:
            ours = now is not None and _holds(now, path, entry, journal.role)
        except GtftError:
            ours = False
        found.append((path, "changed" if ours else "gone"))
    return found


def _holds(now: bytes, path: Path, entry: FileEntry, role: str) -> bool:
    if entry.kind == "directive":
        return has_block(now)
    if entry.kind == "city":
        return city.take_block(now, entry.agent) != now
    return holds_agent(parse_settings(now, path), role, entry.agent)


def encode(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def hash_bytes(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
