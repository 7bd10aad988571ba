"""The parts that gtft puts into a town, and the four ways of putting one in and taking it out again.

- ``file``: a whole file of ours.
- ``block``: lines between two markers in a text file of the operator's.
- ``hook``: one entry below ``hooks.SessionStart`` of an agent's ``settings.json``.
- ``base``: the same entry in gt's ``hooks-base.json``, from which ``gt hooks sync`` writes those settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli

from gtft.errors import TownError
from gtft.town.hooks import SESSION_COMMAND, SESSION_MARK
from gtft.town.json_text import add_item, drop_items, list_items
from gtft.town.locate import Town

Kind = Literal["file", "block", "hook", "base"]
PLUGIN = "gtft-sweep"
ROLES = ("mayor", "witness", "polecat")
DIRECTIVES = Path(__file__).parent / "directives"
# The matcher is ours alone: gt merges by matcher, and its own ``""`` carries ``gt prime``.
SESSION_ENTRY: dict[str, Any] = {
    "matcher": "startup|resume|clear|compact",
    "hooks": [{"type": "command", "command": SESSION_COMMAND}],
}
_KEYS: dict[Kind, tuple[str, ...]] = {"hook": ("hooks", "SessionStart"), "base": ("SessionStart",)}
_SETTINGS = Path(".claude") / "settings.json"


@dataclass(frozen=True)
class Part:
    """One part. ``piece`` is what is ours in the file; ``mode`` is for a file that we make."""

    kind: Kind
    name: str
    path: Path
    piece: bytes
    mode: int = 0o644


def list_parts(
    town: Town,
    rig: str,
    formulas: Sequence[Path],
    plugin: Path,
    close_hook: Path,
    environ: Mapping[str, str],
) -> tuple[Part, ...]:
    """Every part of this gtft for this town, in the order in which they are put.

    ``rig`` is where the state is kept. Raises TownError when the workspace is linked to another rig.
    """
    root = town.root
    parts = [Part("file", "workspace", town.home / ".gitignore", b"*\n")]
    parts += _link(town, rig)
    folder = root / ".beads" / "formulas"
    parts += [Part("file", "formula", folder / f.name, f.read_bytes()) for f in formulas]
    for name, mode in (("plugin.md", 0o644), ("run.sh", 0o755)):
        piece = (plugin / name).read_bytes()
        parts.append(Part("file", "plugin", root / "plugins" / PLUGIN / name, piece, mode))
    for role in ROLES:
        piece = (DIRECTIVES / f"{role}.md").read_bytes()
        parts.append(Part("block", "directive", root / "directives" / f"{role}.md", piece))
    parts += _list_hooks(town, close_hook, environ)
    return tuple(parts)


def _link(town: Town, rig: str) -> list[Part]:
    path = town.home / "config.toml"
    linked = read_link(path)
    if linked is not None and linked != rig:
        raise TownError(
            f"this town's workspace is linked to the rig {linked}, not {rig}",
            why=f"[town] in {path} says so, and its runs are there",
            fix=f"gtft town install --rig {linked}",
        )
    # A link that is written otherwise is somebody else's (gtft store move), and stays as it is.
    if linked is not None and _find_block(path.read_bytes(), path) is None:
        return []
    piece = f'[town]\nrig = {json.dumps(rig)}\nroot = ".."\n'.encode()
    return [Part("block", "link", path, piece)]


def read_link(path: Path) -> str | None:
    """The rig that a workspace's ``config.toml`` is linked to; None without. Raises TownError."""
    if not path.is_file():
        return None
    try:
        table = tomli.loads(path.read_text("utf-8")).get("town")
    except ValueError as e:
        raise TownError(
            f"{path} cannot be read",
            why=str(e),
            fix="mend it; or delete it and, in a town, then: gtft town install",
        ) from e
    return str(table.get("rig")) if isinstance(table, dict) else None


def _list_hooks(town: Town, close_hook: Path, environ: Mapping[str, str]) -> list[Part]:
    entry = _spell(SESSION_ENTRY)
    parts = []
    home = environ.get("GT_HOME") or environ.get("HOME")
    if home:
        base = Path(home) / ".gt" / "hooks-base.json"
        parts.append(Part("base", "session hook", base, entry))
    parts += [Part("hook", "session hook", path, entry) for path in list_settings(town)]
    script = close_hook.read_bytes()
    for beads in dict.fromkeys((town.root / ".beads", *(r.beads_dir for r in town.rigs))):
        if beads.is_dir():
            parts.append(Part("file", "close hook", beads / "hooks" / "on_close", script, 0o755))
    return parts


def list_settings(town: Town) -> list[Path]:
    """The settings files that ``gt hooks sync`` writes for the agents, where they are there.

    None is made: a settings file of ours alone would have no ``gt prime`` in it.
    """
    root = town.root
    agents = [root / "mayor", root / "deacon", root / "deacon" / "dogs" / "boot"]
    for rig in town.rigs:
        agents += [rig.path / role for role in ("crew", "polecats", "witness", "refinery")]
    return [a / _SETTINGS for a in agents if (a / _SETTINGS).is_file()]


def read(kind: Kind, found: bytes, path: Path) -> bytes | None:
    """Our piece in what was found in a file; None when it is not there. Raises TownError."""
    if kind == "file":
        return found
    if kind == "block":
        span = _find_block(found, path)
        return span.piece if span else None
    ours = [e for e in _list_entries(kind, found, path) if is_ours(e)]
    return b"\n".join(map(_spell, ours)) if ours else None


def put(part: Part, found: bytes | None) -> bytes:
    """The file with our piece in it, in place of an older one. Raises TownError."""
    if part.kind == "file":
        return part.piece
    if part.kind == "block":
        return _put_block(found or b"", part.piece, part.path)
    keys = _KEYS[part.kind]
    if found is None:
        value: Any = [SESSION_ENTRY]
        for key in reversed(keys):
            value = {key: value}
        return (json.dumps(value, indent=2) + "\n").encode()
    text = take(part.kind, found, part.path).decode()
    try:
        return add_item(text, keys, SESSION_ENTRY).encode()
    except ValueError as e:
        raise _refuse(part.path, e) from e


def take(kind: Kind, found: bytes, path: Path) -> bytes:
    """The file without our piece; everything else stays as it is. Raises TownError."""
    if kind == "file":
        return b""
    if kind == "block":
        span = _find_block(found, path)
        return found[: span.start] + found[span.end :] if span else found
    _list_entries(kind, found, path)
    return drop_items(found.decode(), _KEYS[kind], is_ours).encode()


def _spell(entry: Any) -> bytes:
    # One spelling, whoever wrote the file last.
    return json.dumps(entry, sort_keys=True).encode()


def is_ours(entry: Any) -> bool:
    """Whether an entry of a settings file calls our session hook."""
    hooks = entry.get("hooks") if isinstance(entry, dict) else None
    return isinstance(hooks, list) and any(
        isinstance(h, dict) and SESSION_MARK in str(h.get("command")) for h in hooks
    )


def _list_entries(kind: Kind, found: bytes, path: Path) -> list[Any]:
    try:
        return list_items(found.decode(), _KEYS[kind])
    except ValueError as e:
        raise _refuse(path, e) from e


def _refuse(path: Path, error: ValueError) -> TownError:
    return TownError(
        f"{path} is not what gt writes there",
        why=str(error),
        fix="mend it (gt hooks sync says what it expects), then again",
    )


@dataclass(frozen=True)
class _Block:
    start: int
    end: int
    piece: bytes


def _markers(path: Path) -> tuple[bytes, bytes, bytes]:
    """Begin, begin after a line that had no end, end: comments in the language of the file."""
    head, tail = ("# ", "") if path.suffix == ".toml" else ("<!-- ", " -->")
    words = ("gtft: begin", "gtft: begin here", "gtft: end")
    begin, glued, end = (f"{head}{w}{tail}\n".encode() for w in words)
    return begin, glued, end


def _find_block(found: bytes, path: Path) -> _Block | None:
    begin, glued, end = _markers(path)
    for marker, before in ((glued, 1), (begin, 0)):
        # The last one: ours is put at the end.
        at = found.rfind(marker)
        if at < 0 or (at and found[at - 1 : at] != b"\n"):
            continue
        stop = found.find(end, at)
        if stop < 0 or found[stop - 1 : stop] != b"\n":
            continue
        return _Block(max(0, at - before), stop + len(end), found[at + len(marker) : stop])
    return None


def _put_block(found: bytes, piece: bytes, path: Path) -> bytes:
    begin, glued, end = _markers(path)
    body = piece if piece.endswith(b"\n") else piece + b"\n"
    span = _find_block(found, path)
    if span is None:
        is_whole = not found or found.endswith(b"\n")
        return found + (begin if is_whole else b"\n" + glued) + body + end
    block = found[span.start : span.end]
    head = b"\n" + glued if block.startswith(b"\n" + glued) else begin
    return found[: span.start] + head + body + end + found[span.end :]


def is_link(path: Path, root: Path) -> bool:
    """Whether ``path``, or a folder of it below ``root``, is a symbolic link: such are left alone."""
    steps = [path, *path.parents]
    inside = steps[: steps.index(root)] if root in steps else [path]
    return any(p.is_symlink() for p in inside)
