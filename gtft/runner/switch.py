"""The switch of a role: its journal, the server's routes and the town's files, without the store.

``deployments/<place>.json`` in the workspace is written before any other byte. It holds what the files were before
gtft came, so that a rollback needs nothing else: no store, no server, no network. Its states::

    applying ──► active ──► removing ──► off ──► (gone)

``applying`` is taken back, or goes on when the store says that it is active; ``removing`` always goes on to ``off``,
which waits until the store was told.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from gtft.artifact import write_json
from gtft.errors import (
    ConflictError,
    GtftError,
    InputError,
    TownError,
    UsageError,
    translate_os_error,
)
from gtft.service import SPOKEN, Mode, Route, Routes, read_routes, write_routes
from gtft.town import city
from gtft.town.directive import has_block, put_block, read_block, take_block
from gtft.town.locate import MARKER
from gtft.town.parts import is_link
from gtft.town.settings import (
    SETTINGS,
    holds_agent,
    keep_agent,
    name_aside,
    parse_settings,
    read_bytes,
    swap_file,
    take_agent,
)

FOLDER = "deployments"
# How often a file that somebody else writes at the same moment is tried.
_TRIES = 5
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

    @property
    def in_city(self) -> bool:
        return any(e.kind == "city" for e in self.files)


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


def list_journals(workspace: Path, role: str = "", rig: str | None = None) -> list[Journal]:
    """Every place's, or those of a role and rig, by name. Raises InputError when one of them cannot be read."""
    found = (_read(p) for p in _list_files(workspace, role, rig))
    return [j for j in found if j is not None]


def _list_files(workspace: Path, role: str = "", rig: str | None = None) -> Iterator[Path]:
    for path in sorted((workspace / FOLDER).glob("*.json")):
        of_rig, _, of_role = path.stem.rpartition("@")
        if (not role or of_role == role) and (rig is None or of_rig == rig):
            yield path


def _list_readable(workspace: Path) -> tuple[list[Journal], list[str]]:
    """Every place's, and the places whose journal cannot be read."""
    journals: list[Journal] = []
    unread: list[str] = []
    for path in _list_files(workspace):
        try:
            found = _read(path)
        except GtftError:
            unread.append(path.stem)
        else:
            journals += [] if found is None else [found]
    return journals, unread


def find_in_service(workspace: Path, deployment: str, role: str, rig: str | None) -> Journal:
    """By its id or its model's name, else by place. Raises UsageError when there is nothing, or more than one."""
    # One of another place that cannot be read does not keep this one in service.
    journals = [j for j in list_journals(workspace, role, rig) if j.state != "off"]
    found = [j for j in journals if not deployment or deployment in (j.deployment, j.model)]
    if len(found) == 1:
        return found[0]
    if not found:
        others = [j for j in _list_readable(workspace)[0] if j.state != "off"]
        what = " ".join(filter(None, (deployment or "nothing", role and f"for {role}")))
        raise UsageError(
            f"{what}{' on ' + rig if rig else ''} is {'not ' if deployment else ''}in service",
            why=", ".join(f"{j.model} is {SPOKEN[j.mode]} for {j.where}" for j in others),
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
            fix="restore it from a backup: it holds the settings as they were before "
            "(gtft rollback --role ROLE --rig RIG of another place goes on without it)",
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
    readable, unread = _list_readable(workspace)
    journals = {j.place: j for j in readable if j.state in ("applying", "active")}
    if changed is not None:
        journals[changed.place] = changed
    journals.pop(without, None)
    present = _read_present(workspace)
    found = {p: _pass_on(r) for p, r in present.items() if r.fallback and r.mode != "live"}
    if ended is not None and ended.mode == "live" and ended.route.fallback is not None:
        found[ended.place] = _pass_on(ended.route)
    for place, j in journals.items():
        # Also while another model is compared or advises there.
        before = found[place].fallback if place in found and j.mode != "live" else None
        found[place] = j.route.model_copy(update={"fallback": before}) if before else j.route
    # What cannot be read is answered as it was.
    found |= {p: present[p] for p in unread if p in present}
    return Routes(routes=tuple(found[p] for p in sorted(found)))


def _pass_on(route: Route) -> Route:
    none = {"model": "", "adapter": "", "mode": "shadow", "ab_share": 0.0}
    return route.model_copy(update=none)


def _read_present(workspace: Path) -> dict[str, Route]:
    """The routes as they are, by place: what is only passed on is in no journal."""
    try:
        return {name_place(r.role, r.rig): r for r in read_routes(workspace).routes}
    except InputError:
        return {}


def apply(
    workspace: Path,
    journal: Journal,
    edits: Sequence[Edit],
    *,
    start: Callable[[], None],
    check: Callable[[], None],
    activate: Callable[[], None],
    is_active: Callable[[], bool],
    fail: Callable[[str], None],
    step: Step = no_step,
) -> Journal:
    """From the journal's first byte to ``active``; at any failure everything is taken back in reverse.

    ``start``, ``activate`` and ``fail`` tell the store, ``is_active`` asks it; ``check`` asks the endpoint before the
    town is touched, and may let others go first. Raises ConflictError when one of them took the place.
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
        if not _is_own(workspace, journal):
            raise ConflictError(
                f"{journal.where} was taken out of service while the endpoint was asked",
                why="nothing of the town was changed by this deployment",
                fix="gtft deploy list, then the same command again",
            )
        for edit in edits:
            step(f"file {edit.path.name}")
            swap_file(edit.path, edit.found, edit.new, edit.mode)
        step("activate")
        activate()
    # Whatever ends it, a key included: the town is put back first.
    except BaseException as e:
        if _is_own(workspace, journal):
            # Stopped when the store had heard of it already: it is in service.
            if is_active():
                settle(workspace, journal)
            else:
                take_back(workspace, journal, fail, str(e) or type(e).__name__)
        raise
    step("active")
    return settle(workspace, journal)


def _is_own(workspace: Path, journal: Journal) -> bool:
    return read_journal(workspace, journal.role, journal.rig) == journal


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
        notes += _restore(workspace, journal, entry, decode(entry.found), _keep_found)
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
        notes += _restore(workspace, going, entry, decode(entry.before), strip)
    _drop_folders(workspace, going)
    step("routes")
    put_routes(workspace, without=going.place, ended=going)
    step("off")
    off = going.model_copy(update={"state": "off"})
    write_journal(workspace, off)
    return off, notes


def _restore(
    workspace: Path,
    journal: Journal,
    entry: FileEntry,
    to: bytes | None,
    merge: Callable[[bytes, Path, FileEntry, str], bytes],
) -> list[str]:
    """Put a file back, or, where somebody wrote to it since, ``merge`` only what is ours."""
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
                return _tell_read_only(path)
            if now is None:
                return [f"{path} was removed by somebody; it was not made again"]
            rest = merge(now, path, entry, journal.role)
            if rest == now:
                return []
            swap_file(path, now, rest, entry.mode)
            told = f"{path} was changed since: only what is gtft's was taken out"
            return [told, *_tell_read_only(path)]
        except ConflictError:
            if n == _TRIES - 1:
                raise
        except OSError as e:
            raise translate_os_error(e, f"restoring {path.name}") from e
    return []


def _tell_read_only(path: Path) -> list[str]:
    # As root, or the owner of its folder, we may write what was made read-only since.
    if path.exists() and not path.stat().st_mode & 0o222:
        return [f"{path} was made read-only since; it was put back, and is read-only still"]
    return []


def strip(now: bytes, path: Path, entry: FileEntry, role: str) -> bytes:
    """The file without what is ours in it. Raises TownError when it cannot be understood."""
    if entry.kind == "settings":
        return take_agent(now, path, role, entry.agent, entry.previous, entry.made)
    rest = take_block(now) if entry.kind == "directive" else city.take_block(now, entry.agent)
    if rest == now and _holds(now, path, entry, role):
        raise TownError(
            f"gtft's block in {path} is damaged",
            why="one of the two comments around it is gone, and where it ends is not known",
            fix=f"take it out of {path} by hand, then: gtft doctor --fix",
        )
    return rest


def _keep_found(now: bytes, path: Path, entry: FileEntry, role: str) -> bytes:
    """The file with that of ours in it that was there before this step."""
    found = decode(entry.found)
    rest = strip(now, path, entry, role)
    if found is None:
        return rest
    if entry.kind == "settings":
        return keep_agent(now, rest, found, path, role, entry.agent, entry.previous)
    if entry.kind == "city":
        return city.keep_block(now, rest, found, entry.agent)
    said = read_block(found)
    if said is None:
        return rest
    return now if said == read_block(now) else put_block(rest, said)


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
        return city.has_block(now, entry.agent)
    return holds_agent(parse_settings(now, path), role, entry.agent)


def encode(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def decode(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def hash_bytes(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
