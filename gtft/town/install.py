"""Putting gtft's parts into a town and taking them out again, to the byte.

``<town>/.gtft/install.json`` says what was there before each part and what we wrote. It is written before
any file is touched, so that after a crash anywhere ``install`` and ``uninstall`` both still work.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from gtft.artifact import write_file, write_json
from gtft.errors import TownError, translate_os_error
from gtft.town.parts import Kind, Part, is_link, put, read, take

MANIFEST = "install.json"
FORMAT = 1
# ``changed``: ours, edited by hand since. ``foreign``: a file of that name which is not ours, or a link.
State = Literal["installed", "absent", "older", "changed", "foreign"]


@dataclass(frozen=True)
class Put:
    """What the manifest knows of one part. ``before`` is None when the file was absent.

    ``pieces`` and ``wrote`` are sha256 of our piece and of the whole file, of every version since
    ``before`` was noted.
    """

    kind: Kind
    name: str
    before: bytes | None
    mode: int
    pieces: tuple[str, ...]
    wrote: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What gtft put into this town. ``folders`` are those we made; ``version`` is gtft's."""

    version: str = ""
    rig: str = ""
    puts: dict[Path, Put] | None = None
    folders: tuple[Path, ...] = ()

    def get(self, path: Path) -> Put | None:
        return (self.puts or {}).get(path)


@dataclass(frozen=True)
class Change:
    """One file. ``new`` is None when it goes; ``note`` says why a file is left as it is."""

    path: Path
    name: str
    state: State
    old: bytes | None
    new: bytes | None
    mode: int
    note: str = ""

    @property
    def changes(self) -> bool:
        return self.old != self.new

    def diff(self, root: Path) -> str:
        """A unified diff, with paths relative to the town."""
        shown = show_path(self.path, root)
        lines = difflib.unified_diff(
            _split(self.old),
            _split(self.new),
            f"a/{shown}" if self.old is not None else "/dev/null",
            f"b/{shown}" if self.new is not None else "/dev/null",
        )
        return "".join(
            n if n.endswith("\n") else f"{n}\n\\ No newline at end of file\n" for n in lines
        )


@dataclass(frozen=True)
class Plan:
    """What an install or uninstall will do, and the manifest that it leaves."""

    changes: tuple[Change, ...]
    manifest: Manifest

    @property
    def work(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.changes)

    @property
    def kept(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.note)


def find_state(part: Part, known: Put | None, root: Path) -> State:
    """How a part stands in the town. Raises TownError when its file cannot be understood."""
    if is_link(part.path, root):
        return "foreign"
    return _find_state(part, known, _read(part.path))


def _find_state(part: Part, known: Put | None, found: bytes | None) -> State:
    piece = read(part.kind, found, part.path) if found is not None else None
    if piece is None:
        return "absent"
    if piece == part.piece:
        return "installed"
    if known is None:
        return "foreign" if part.kind == "file" else "changed"
    return "older" if _hash(piece) in known.pieces else "changed"


def plan_install(
    root: Path, parts: Sequence[Part], rig: str, version: str, *, force: bool = False
) -> Plan:
    """What would have to be written. ``force`` overwrites what was changed by hand, too."""
    manifest = read_manifest(root)
    puts: dict[Path, Put] = {}
    changes: list[Change] = []
    for part in parts:
        known = manifest.get(part.path)
        change, entry = _plan_part(root, part, known, force)
        changes.append(change)
        if entry is not None:
            puts[part.path] = entry
    # Parts of an older gtft that this one no longer has.
    for path, entry in (manifest.puts or {}).items():
        if all(p.path != path for p in parts):
            changes.append(_plan_removal(root, path, entry, force))
            puts[path] = entry
    folders = list(manifest.folders)
    for change in changes:
        if change.changes and change.new is not None:
            folders += [f for f in _missing_folders(change.path) if f not in folders]
    made = Manifest(version, rig, puts, tuple(folders))
    return Plan(tuple(changes), made)


def _plan_part(root: Path, part: Part, known: Put | None, force: bool) -> tuple[Change, Put | None]:
    if is_link(part.path, root):
        note = "a symbolic link: left alone"
        return Change(part.path, part.name, "foreign", None, None, part.mode, note), known
    old = _read(part.path)
    state = _find_state(part, known, old)
    same = Change(part.path, part.name, state, old, old, part.mode)
    if state == "installed":
        return same, known
    if state == "changed" and not force:
        return replace(same, note="changed by hand: kept (--force overwrites it)"), known
    if state == "foreign" and not force:
        return replace(same, note="not from gtft: kept (--force overwrites it)"), known
    new = put(part, old)
    mode = part.mode if old is None or part.kind == "file" else _mode(part.path)
    entry = Put(part.kind, part.name, old, mode, (), ())
    if known is not None and old is not None and state != "absent":
        if part.kind == "file" or _hash(old) in known.wrote:
            entry = known
        else:
            entry = replace(entry, before=_take_out(known, old, part.path))
    elif old is not None:
        entry = replace(entry, mode=_mode(part.path))
    entry = replace(
        entry,
        pieces=_add(known.pieces if known else (), _hash(part.piece)),
        wrote=_add(entry.wrote, _hash(new)),
    )
    return Change(part.path, part.name, state, old, new, mode), entry


def plan_uninstall(root: Path, settings: Sequence[Path], *, force: bool = False) -> Plan:
    """What would have to be restored or removed. ``force`` removes files changed by hand, too.

    ``settings`` are the agents' settings files: gt copies our hook into those that it makes later.
    """
    manifest = read_manifest(root)
    puts = manifest.puts or {}
    changes = [_plan_removal(root, p, e, force) for p, e in reversed(puts.items())]
    for path in settings:
        if path not in puts and not is_link(path, root):
            old = path.read_bytes()
            new = take("hook", old, path)
            changes.append(Change(path, "session hook", "installed", old, new, _mode(path)))
    return Plan(tuple(changes), manifest)


def _plan_removal(root: Path, path: Path, entry: Put, force: bool) -> Change:
    if is_link(path, root):
        note = "a symbolic link now: left alone"
        return Change(path, entry.name, "foreign", None, None, entry.mode, note)
    found = _read(path)
    if found is None or found == entry.before:
        return Change(path, entry.name, "absent", found, found, entry.mode)
    if _hash(found) in entry.wrote or (entry.kind == "file" and force):
        return Change(path, entry.name, "installed", found, entry.before, entry.mode)
    if entry.kind == "file":
        note = "changed by hand: kept (--force removes it)"
        return Change(path, entry.name, "changed", found, found, entry.mode, note)
    # Somebody wrote elsewhere in the file: only what is ours goes.
    return Change(path, entry.name, "installed", found, _take_out(entry, found, path), _mode(path))


def _take_out(entry: Put, found: bytes, path: Path) -> bytes | None:
    """The file without our piece; None when nothing is left of a file that we made."""
    rest = take(entry.kind, found, path)
    return rest if rest.strip(b"{} \t\r\n") or entry.before is not None else None


def apply_install(root: Path, plan: Plan) -> None:
    """Write the manifest, then every file. Raises TownError when a file changed since the plan."""
    home = root / ".gtft"
    try:
        home.mkdir(exist_ok=True)
        write_manifest(root, plan.manifest)
        _carry_out(plan)
        # What an older gtft had, and this one has not, is out now.
        puts = {p: e for p, e in (plan.manifest.puts or {}).items() if not _is_gone(plan, p)}
        if puts != plan.manifest.puts:
            write_manifest(root, replace(plan.manifest, puts=puts))
    except OSError as e:
        raise translate_os_error(e, "installing into the town") from e


def apply_uninstall(root: Path, plan: Plan) -> tuple[Path, ...]:
    """Restore every file, then forget. Returns what is left of ours: files that were kept."""
    home = root / ".gtft"
    try:
        _carry_out(plan)
        kept = {c.path for c in plan.kept}
        puts = {p: e for p, e in (plan.manifest.puts or {}).items() if p in kept}
        if puts:
            write_manifest(root, replace(plan.manifest, puts=puts))
        else:
            (home / MANIFEST).unlink(missing_ok=True)
        for folder in (*sorted(plan.manifest.folders, reverse=True), home):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as e:
        raise translate_os_error(e, "uninstalling from the town") from e
    return tuple(sorted(kept))


def _carry_out(plan: Plan) -> None:
    for change in plan.work:
        if _read(change.path) != change.old:
            raise TownError(
                f"{change.path} changed while gtft was at work",
                why="somebody else wrote it; nothing of theirs was overwritten",
                fix="the same command again",
            )
        if change.new is None:
            change.path.unlink()
            continue
        change.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(change.path, change.new, mode=change.mode)


def _is_gone(plan: Plan, path: Path) -> bool:
    change = next((c for c in plan.changes if c.path == path), None)
    entry = plan.manifest.get(path)
    return change is not None and entry is not None and change.new == entry.before


def read_manifest(root: Path) -> Manifest:
    """What was installed; an empty one when nothing was. Raises TownError when it cannot be read."""
    path = root / ".gtft" / MANIFEST
    if not path.is_file():
        return Manifest()
    try:
        doc = json.loads(path.read_bytes())
        if doc["format"] != FORMAT:
            raise ValueError(f"format {doc['format']} is not one that this gtft knows")
        puts = {_find_path(root, e["path"], e["kind"]): _parse(e) for e in doc["parts"]}
        folders = tuple(_find_path(root, f, "folder") for f in doc["folders"])
        return Manifest(str(doc["gtft"]), str(doc["rig"]), puts, folders)
    except OSError as e:
        raise translate_os_error(e, "reading the town's install.json") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise TownError(
            f"{path} cannot be read",
            why=str(e),
            fix="restore it from a backup, or delete it: then the parts stay where they are",
        ) from e


def write_manifest(root: Path, manifest: Manifest) -> None:
    entries = [
        {
            "path": _name(path, root),
            "kind": e.kind,
            "name": e.name,
            "before": None if e.before is None else base64.b64encode(e.before).decode(),
            "mode": e.mode,
            "pieces": list(e.pieces),
            "wrote": list(e.wrote),
        }
        for path, e in (manifest.puts or {}).items()
    ]
    doc = {
        "format": FORMAT,
        "gtft": manifest.version,
        "rig": manifest.rig,
        "parts": entries,
        "folders": [_name(f, root) for f in manifest.folders],
    }
    write_json(root / ".gtft" / MANIFEST, doc)


def _parse(entry: dict[str, Any]) -> Put:
    if entry["kind"] not in get_args(Kind):
        raise ValueError(f"unknown kind {entry['kind']!r}")
    before = entry["before"]
    return Put(
        kind=cast(Kind, entry["kind"]),
        name=str(entry["name"]),
        before=None if before is None else base64.b64decode(before, validate=True),
        mode=int(entry["mode"]),
        pieces=tuple(map(str, entry["pieces"])),
        wrote=tuple(map(str, entry["wrote"])),
    )


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _find_path(root: Path, name: str, kind: str) -> Path:
    """Only below the town, but for gt's own ``hooks-base.json`` and its folder."""
    path = Path(name)
    if ".." in path.parts:
        raise ValueError(f"{name} leads out of the town")
    if not path.is_absolute():
        return root / path
    if (kind == "base" and path.parts[-2:] == (".gt", "hooks-base.json")) or (
        kind == "folder" and path.name == ".gt"
    ):
        return path
    raise ValueError(f"{name} is outside the town")


def show_path(path: Path, root: Path) -> str:
    return _name(path, root).lstrip("/")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def _missing_folders(path: Path) -> list[Path]:
    missing = []
    for folder in path.parents:
        if folder.exists():
            break
        missing.append(folder)
    return missing


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _add(known: tuple[str, ...], new: str) -> tuple[str, ...]:
    return known if new in known else (*known, new)


def _split(data: bytes | None) -> list[str]:
    return (data or b"").decode("utf-8", "replace").splitlines(keepends=True)
