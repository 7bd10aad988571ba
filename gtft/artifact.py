"""Artifacts: immutable directories that a worker produced, named by their content.

An artifact directory holds its files and ``artifact.json``::

    {"format": 1, "id": "sha256:…", "kind": "corpus", "parents": ["sha256:…"],
     "files": [{"name": "train.jsonl", "size": 123, "sha256": "…"}, …]}

The id is the sha256 of that document without ``id``, as canonical JSON (sorted keys, no spaces,
UTF-8). No clock, path or host goes into it: the same content has the same id anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError, translate_os_error

MANIFEST = "artifact.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk. ``path`` is not part of its identity."""

    id: str
    kind: str
    parents: tuple[str, ...]
    files: tuple[FileEntry, ...]
    path: Path

    def file(self, name: str) -> Path:
        """The path of one of its files. Raises EvidenceError when it holds no such file."""
        if not any(f.name == name for f in self.files):
            raise EvidenceError(
                f"artifact {short_id(self.id)} has no file {name}",
                why=f"it is a {self.kind} artifact at {self.path}",
                fix="gtft doctor",
            )
        return self.path / name


@dataclass
class Staging:
    """An artifact being written: put files under ``path``; ``artifact`` is set when it is finished."""

    path: Path
    artifact: Artifact | None = field(default=None)

    @property
    def result(self) -> Artifact:
        if self.artifact is None:
            raise RuntimeError("the artifact is not finished yet")
        return self.artifact


def short_id(artifact_id: str) -> str:
    """The first 12 hex digits of an id, for people."""
    return artifact_id.removeprefix("sha256:")[:12]


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_json(value: Any) -> str:
    """``sha256:`` + hex digest of the canonical JSON of ``value``."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The sha256 hex digest of a file, read in blocks."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_file(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file so that a crash leaves the old bytes or the new ones: aside, fsync, rename.

    ``mode`` is its permission bits; None leaves them to the umask.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as f:
            if mode is not None:
                os.fchmod(f.fileno(), mode)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        aside.replace(path)
    except OSError as e:
        aside.unlink(missing_ok=True)
        raise translate_os_error(e, f"writing {path.name}") from e
    _fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_file` with indented, key-sorted JSON."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, (text + "\n").encode())


@contextmanager
def stage_artifact(root: Path, kind: str, parents: tuple[str, ...] = ()) -> Iterator[Staging]:
    """Write an artifact aside and publish it whole, or leave nothing.

    Put files (folders too) under ``staging.path``. On a clean exit they are fsynced, hashed and renamed
    to ``root/<kind>-<12 hex>``; an artifact that is already there is kept. On any error the
    temporary folder is removed. A folder left by a killed process is removed by the next writer.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep_dead(root)
        aside = root / f".tmp-{kind}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    except OSError as e:
        raise translate_os_error(e, f"preparing a {kind} artifact") from e
    staging = Staging(aside)
    try:
        yield staging
        staging.artifact = _publish(aside, root, kind, parents)
    except OSError as e:
        raise translate_os_error(e, f"writing a {kind} artifact") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_artifact(path: Path, *, kind: str | None = None) -> Artifact:
    """Read ``artifact.json`` and check that it is self-consistent. File contents are not hashed.

    Raises EvidenceError when it is missing, damaged, names a path outside itself or has another kind.
    """
    where = path / MANIFEST
    try:
        doc = json.loads(where.read_text("utf-8"))
        files = tuple(FileEntry(f["name"], int(f["size"]), f["sha256"]) for f in doc["files"])
        found = Artifact(doc["id"], doc["kind"], tuple(doc["parents"]), files, path)
        recomputed = _compute_id(found.kind, found.parents, files)
    except FileNotFoundError as e:
        raise EvidenceError(
            f"there is no artifact at {path}",
            why=f"{MANIFEST} does not exist there",
            fix="gtft runs show RUN, then: gtft runs resume RUN",
        ) from e
    except OSError as e:
        raise translate_os_error(e, "reading an artifact") from e
    except (ValueError, KeyError, TypeError) as e:
        raise EvidenceError(
            f"{where} cannot be read as an artifact manifest", why=repr(e), fix="gtft doctor"
        ) from e
    if recomputed != found.id:
        raise EvidenceError(
            f"{where} does not match its own id",
            why=f"it says {short_id(found.id)}, its content gives {short_id(recomputed)}",
            fix="gtft doctor",
        )
    for f in files:
        if Path(f.name).is_absolute() or ".." in Path(f.name).parts:
            raise EvidenceError(f"{where} names a path outside itself: {f.name}", fix="gtft doctor")
    if kind is not None and found.kind != kind:
        raise EvidenceError(f"{path} is a {found.kind}; expected: {kind}", fix="gtft doctor")
    return found


def verify_artifact(path: Path, *, kind: str | None = None, expect: str | None = None) -> Artifact:
    """`read_artifact`, then hash every file again.

    ``expect`` is the id that the store recorded. Raises EvidenceError that names the file that is
    missing, added, a link, or changed.
    """
    found = read_artifact(path, kind=kind)
    if expect is not None and found.id != expect:
        raise EvidenceError(
            f"the artifact at {path} is {short_id(found.id)}, not {short_id(expect)}",
            why="the run recorded another one",
            fix="gtft runs show RUN",
        )
    listed = {f.name for f in found.files}
    try:
        present = {str(p.relative_to(path)) for p in _walk_files(path)} - {MANIFEST}
        for extra in sorted(present - listed):
            raise EvidenceError(f"{path / extra} is not part of the artifact", fix="gtft doctor")
        for f in found.files:
            where = path / f.name
            if f.name not in present:
                raise EvidenceError(
                    f"{where} is missing", why="the artifact lists it", fix="gtft runs resume RUN"
                )
            if where.stat().st_size != f.size or hash_file(where) != f.sha256:
                raise EvidenceError(
                    f"{where} has changed since it was written",
                    why="its sha256 differs from the artifact's",
                    fix="gtft runs resume RUN",
                )
    except OSError as e:
        raise translate_os_error(e, "hashing an artifact") from e
    return found


def _publish(aside: Path, root: Path, kind: str, parents: tuple[str, ...]) -> Artifact:
    entries: list[FileEntry] = []
    for p in sorted(_walk_files(aside)):
        with p.open("rb") as f:
            os.fsync(f.fileno())
        entries.append(FileEntry(str(p.relative_to(aside)), p.stat().st_size, hash_file(p)))
    files = tuple(sorted(entries, key=lambda f: f.name))
    artifact_id = _compute_id(kind, parents, files)
    doc = {**_identity(kind, parents, files), "id": artifact_id}
    write_json(aside / MANIFEST, doc)
    final = root / f"{kind}-{short_id(artifact_id)}"
    if final.exists():
        try:
            return verify_artifact(final, kind=kind, expect=artifact_id)
        except EvidenceError:
            # A damaged twin is moved out of the way, never trusted and never silently deleted.
            damaged = root / f".damaged-{final.name}-{os.getpid()}"
            final.rename(damaged)
    aside.rename(final)
    _fsync_directory(root)
    return Artifact(artifact_id, kind, parents, files, final)


def _identity(
    kind: str, parents: tuple[str, ...], files: tuple[FileEntry, ...]
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "kind": kind,
        "parents": sorted(parents),
        "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files],
    }


def _compute_id(kind: str, parents: tuple[str, ...], files: tuple[FileEntry, ...]) -> str:
    return hash_json(_identity(kind, parents, files))


def _walk_files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            p = Path(folder) / name
            if not stat.S_ISREG(p.lstat().st_mode):
                raise EvidenceError(
                    f"{p} is not a regular file",
                    why="an artifact holds no links or devices",
                    fix="gtft doctor",
                )
            yield p


def _sweep_dead(root: Path) -> None:
    for p in root.glob(".tmp-*"):
        pid = p.name.rsplit("-", 1)[-1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and not is_alive(int(pid)):
            shutil.rmtree(p, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether a process of this number is there, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
