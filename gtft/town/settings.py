"""``settings/config.json`` of a town or a rig: read as gt reads it, and edited without touching another byte.

What cannot be edited without a guess is refused, with the reason: a key that is there twice, a key that gt takes
for one of ours, a byte-order mark, text that is no UTF-8, links, files that were made read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from gtft.errors import ConflictError, TownError, translate_os_error
from gtft.town.agents import Roster
from gtft.town.json_text import drop_member, set_member
from gtft.town.parts import is_link

SETTINGS = Path("settings") / "config.json"
REGISTRY = Path("settings") / "agents.json"
MOST_BYTES = 4 << 20
OUR_KEYS = ("agents", "role_agents")
# What gt writes when it makes such a file.
_NEW: dict[str, dict[str, Any]] = {
    "town": {"type": "town-settings", "version": 1},
    "rig": {"type": "rig-settings", "version": 1},
}
Level = Literal["town", "rig"]
# Of an agent (RuntimeConfig of gt), what we read and say again.
_TYPES = {
    "command": "a string",
    "provider": "a string",
    "prompt_mode": "a string",
    "args": "a list of strings",
    "exec_wrapper": "a list of strings",
    "env": "an object of strings",
}


@dataclass(frozen=True)
class SettingsFile:
    """One file as it stands. ``data`` None: absent; ``mode``: its permission bits."""

    path: Path
    data: bytes | None
    doc: Mapping[str, Any]
    mode: int = 0o644


def read_settings(path: Path, root: Path) -> SettingsFile:
    """The file below the town at ``root``. Raises TownError that says what about it cannot be edited."""
    if is_link(path, root):
        raise TownError(
            f"{path} is a symbolic link, or is in a folder that is one",
            why="what is behind it may be shared with others; gtft does not write through links",
            fix=f"put the file itself there, then again ({path})",
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        return SettingsFile(path, None, {})
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        raise TownError(f"{path} is no settings file", why="not a plain file of a few kilobytes")
    try:
        data = path.read_bytes()
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    doc = parse_settings(data, path)
    if fault := _find_fault(doc):
        raise TownError(
            f"{path} is nothing that gt can read",
            why=fault,
            fix="mend it by hand (gt config agent list must read it), then the same command again",
        )
    return SettingsFile(path, data, doc, stat.S_IMODE(found.st_mode))


def _find_fault(doc: Mapping[str, Any]) -> str:
    """A member of another type than gt's structs want; for gt it spoils the whole file."""
    for role, name in (doc.get("role_agents") or {}).items():
        if not isinstance(name, str | None):
            return f"role_agents.{role} is not a string"
    for name, agent in (doc.get("agents") or {}).items():
        if not isinstance(agent, dict | None):
            return f"agents.{name} is not an object"
        for key, value in (agent or {}).items():
            if not _fits(value, _TYPES.get(key.lower(), "")):
                return f"agents.{name}.{key} is not {_TYPES[key.lower()]}"
            if key.lower() in _TYPES and key not in _TYPES:
                return f"gt takes agents.{name}.{key} for {key.lower()} (it does not mind the case)"
    return ""


def _fits(value: Any, wanted: str) -> bool:
    if value is None or not wanted:
        return True
    if wanted == "a string":
        return isinstance(value, str)
    holds = list if wanted == "a list of strings" else dict
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, holds) and all(isinstance(v, str) for v in inside)


def parse_settings(data: bytes, path: Path) -> dict[str, Any]:
    """The object in a settings file. Raises TownError when gt would not read what we read."""

    def refuse(why: str) -> NoReturn:
        raise TownError(
            f"{path} cannot be edited as it is",
            why=why,
            fix="mend it by hand (gt config agent list must read it), then the same command again",
        )

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    def read_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in members:
            if key in found:
                raise ValueError(f"{key!r} is there twice, and readers differ on which one counts")
            found[key] = value
        return found

    if data.startswith(b"\xef\xbb\xbf"):
        refuse("it begins with a byte-order mark, which gt cannot read")
    try:
        text = data.decode("utf-8")
        doc = json.loads(text, parse_constant=no_constant, object_pairs_hook=read_object)
        # What no JSON could say again: half a surrogate pair, a number beyond every float.
        json.dumps(doc, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeDecodeError as e:
        refuse(f"byte {e.start} is not UTF-8")
    except UnicodeEncodeError:
        refuse("it holds half a surrogate pair, which is no character")
    except ValueError as e:
        refuse(str(e))
    except RecursionError:
        refuse("it is nested too deeply")
    if not isinstance(doc, dict):
        refuse("it is not a JSON object")
    for key in doc:
        if key not in OUR_KEYS and key.lower() in OUR_KEYS:
            refuse(f"gt takes {key!r} for {key.lower()!r} (it does not mind the case)")
    for key in OUR_KEYS:
        if doc.get(key) is not None and not isinstance(doc[key], dict):
            refuse(f"{key!r} is not an object")
    return doc


def read_roster(root: Path, rig: Path | None) -> Roster:
    """The settings that decide who runs a role. Raises TownError when a file cannot be read."""
    homes = [root] if rig is None else [root, rig]
    presets = [read_settings(h / REGISTRY, root).doc.get("agents") for h in homes]
    return Roster(
        town=read_settings(root / SETTINGS, root).doc,
        rig=read_settings(rig / SETTINGS, root).doc if rig is not None else {},
        presets=[p for p in presets if isinstance(p, dict)],
    )


def put_agent(
    found: SettingsFile, level: Level, role: str, name: str, config: Mapping[str, Any]
) -> bytes:
    """The file with ``agents.<name>`` and ``role_agents.<role>`` in it. Raises TownError for a name that is taken."""
    agents = found.doc.get("agents") or {}
    if name in agents and not is_ours(agents[name]):
        raise TownError(
            f"{found.path} already has an agent {name}, and it is not gtft's",
            why="it would be overwritten",
            fix=f"rename it (gt config agent get {name}), then the same command again",
        )
    if found.data is None:
        doc = {**_NEW[level], "agents": {name: dict(config)}, "role_agents": {role: name}}
        return (json.dumps(doc, indent=2) + "\n").encode()
    text = found.data.decode()
    # A null is no object that a member could be put into; gt reads it as an empty one.
    for key in OUR_KEYS:
        if key in found.doc and found.doc[key] is None:
            text = set_member(text, (key,), {})
    text = set_member(text, ("agents", name), dict(config))
    return set_member(text, ("role_agents", role), name).encode()


def take_agent(
    data: bytes, path: Path, role: str, name: str, previous: str | None, made: tuple[str, ...]
) -> bytes:
    """The file without our agent, and with the role's ``previous`` entry (None: without one).

    ``made``: objects that we put there, which go when they are empty. An entry that somebody pointed elsewhere
    since stays theirs.
    """
    doc = parse_settings(data, path)
    text = data.decode()
    roles = doc.get("role_agents") or {}
    if roles.get(role) == name:
        keys = ("role_agents", role)
        text = drop_member(text, keys) if previous is None else set_member(text, keys, previous)
    if is_ours((doc.get("agents") or {}).get(name)):
        text = drop_member(text, ("agents", name))
    if text == data.decode():
        return data
    left = json.loads(text)
    for key in made:
        if left.get(key) == {}:
            text = drop_member(text, (key,))
    return text.encode()


def keep_agent(
    data: bytes, rest: bytes, found: bytes, path: Path, role: str, name: str, previous: str | None
) -> bytes:
    """``data`` with our agent as it is in ``found``, where the role runs on it there. ``rest``: ``data`` without it.

    A role that somebody pointed elsewhere since stays theirs.
    """
    had, has, left = (parse_settings(d, path) for d in (found, data, rest))
    if not holds_agent(had, role, name):
        return rest
    config = had["agents"][name]
    if holds_agent(has, role, name) and has["agents"][name] == config:
        return data
    if (left.get("role_agents") or {}).get(role) != previous:
        return rest
    return put_agent(SettingsFile(path, rest, left), "town", role, name, config)


def holds_agent(doc: Mapping[str, Any], role: str, name: str) -> bool:
    """Whether the role runs on our agent by this file."""
    agents, roles = doc.get("agents") or {}, doc.get("role_agents") or {}
    return roles.get(role) == name and is_ours(agents.get(name))


def is_ours(config: Any) -> bool:
    """Whether an agent is one that gtft made: it is started through ``gtft deploy launch``."""
    wrapper = config.get("exec_wrapper") if isinstance(config, dict) else None
    return isinstance(wrapper, list) and "launch" in wrapper and "deploy" in wrapper


def check_writable(path: Path) -> None:
    """Raises TownError when the file, or the folder that it is to be put in, was made read-only."""
    folder = next(p for p in path.parents if p.exists())
    for where in (path, folder):
        try:
            mode = where.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as e:
            raise translate_os_error(e, f"looking at {where}") from e
        # Root may write anything: what counts is that somebody took the permission away.
        if not mode & 0o222 or not os.access(where, os.W_OK):
            raise TownError(
                f"{where} is read-only",
                why="somebody took the permission to write away, and gtft respects it",
                fix=f"chmod u+w {where}, then the same command again",
            )


def swap_file(path: Path, expect: bytes | None, new: bytes | None, mode: int) -> None:
    """Put ``new`` where ``expect`` is (None: no file), whole or not at all, keeping its owner and permissions.

    ``mode`` is for a file that is not there. It is written aside and synced; right before the rename the file is read once more. Raises ConflictError when
    it is not what we expect, and what the system refuses.
    """
    aside = name_aside(path)
    try:
        if new is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_aside(aside, path, new, mode)
        if read_bytes(path) != expect:
            raise ConflictError(
                f"{path} changed while gtft was at work",
                why="somebody else wrote it; nothing of theirs was overwritten",
                fix="the same command again",
            )
        if new is not None:
            aside.replace(path)
        elif expect is not None:
            path.unlink()
        if path.parent.is_dir():
            _sync(path.parent)
    except OSError as e:
        raise translate_os_error(e, f"writing {path.name}") from e
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def name_aside(path: Path) -> Path:
    """Where a file is written before its rename. One name: what a killed writer left is found again."""
    return path.with_name(f".{path.name}.gtft.tmp")


def read_bytes(path: Path) -> bytes | None:
    """None when there is no such file. Raises OSError."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_aside(aside: Path, path: Path, new: bytes, mode: int) -> None:
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(new)
        f.flush()
        with contextlib.suppress(FileNotFoundError, PermissionError):
            owner = path.stat()
            mode = stat.S_IMODE(owner.st_mode)
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, owner.st_uid, owner.st_gid)
        os.fchmod(fd, mode)
        os.fsync(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
