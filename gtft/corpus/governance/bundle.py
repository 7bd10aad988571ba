"""Bundles: a corpus as one file, so that who has no GPU can contribute what they have.

A bundle is a gzipped tar of plain members: ``artifact.json`` first, then the files that it lists. The same
corpus gives the same bytes. Unpacking trusts nothing in it: a member that the manifest does not list, or that
is anything but a regular file, ends it, and nothing appears on the shelf before every hash was checked.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from gtft.artifact import (
    MANIFEST,
    Artifact,
    read_artifact,
    short_id,
    stage_artifact,
    verify_artifact,
)
from gtft.corpus.governance.row import SIDES, Listed
from gtft.errors import DiskFull, EvidenceError, GtftError, UsageError, translate_os_error

KIND = "corpus"
MOST_FILES = 1000
MOST_BYTES = 16 << 30
# Files are read by line.
MOST_LINE = 64 << 20
# artifact.json is read whole.
MOST_MANIFEST = 4 << 20
_BLOCK = 512
_PIECE = 1 << 20
_REQUIRED = (*SIDES.values(), "manifest.json", "summary.json")

# Looks at a corpus before it is on the shelf; raises RedactionError when a file holds what looks like a secret.
Scan = Callable[[Artifact], object]


def pack(corpus: Artifact, out: Path) -> int:
    """Write the bundle of a corpus to ``out``; its size in bytes. The corpus is hashed again first.

    Raises EvidenceError when it has changed or is no corpus that `unpack` takes, UsageError when ``out`` is there already.
    """
    verify_artifact(corpus.path, kind=KIND, expect=corpus.id)
    _check(corpus, out.parent, out.name)
    if out.exists():
        raise UsageError(f"{out} is there already", fix="choose another name with -o, or remove it")
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    names = (MANIFEST, *(f.name for f in corpus.files))
    try:
        with (
            aside.open("wb") as f,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=f, mtime=0) as packed,
        ):
            for name in names:
                _add(packed, corpus.path / name, name)
            packed.write(bytes(2 * _BLOCK))
            packed.close()
            f.flush()
            os.fsync(f.fileno())
        aside.replace(out)
        return out.stat().st_size
    except OSError as e:
        raise translate_os_error(e, f"writing {out.name}") from e
    finally:
        aside.unlink(missing_ok=True)


def unpack(bundle: Path, artifacts: Path, scan: Scan, *, keep: bool = True) -> Artifact:
    """Check a bundle and put its corpus on the shelf; one that is there already stays as it is.

    ``keep`` False checks everything and leaves nothing behind. Raises EvidenceError for a bundle that is
    damaged, hostile or not what its manifest says, and whatever ``scan`` raises.
    """
    try:
        with bundle.open("rb") as raw, gzip.GzipFile(fileobj=raw) as f:
            return _unpack(_Reader(f, bundle.name), artifacts, scan, keep)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise _refuse(bundle.name, "it is cut off, or no gzip file", str(e)) from e
    except OSError as e:
        raise translate_os_error(e, f"reading {bundle.name}") from e


class _File(msgspec.Struct):
    name: str
    size: int
    sha256: str


class _Manifest(msgspec.Struct):
    """The types of artifact.json; whether it is true is `read_artifact`'s to say."""

    id: str
    kind: str
    parents: tuple[str, ...]
    files: tuple[_File, ...]


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any]


class _Call(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: str = ""
    tool_calls: tuple[_Call, ...] = ()


class _Example(Listed, frozen=True):
    messages: tuple[_Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


class _Dropped(Exception):
    """Everything holds, and nothing is to be kept."""


def _unpack(reader: _Reader, artifacts: Path, scan: Scan, keep: bool) -> Artifact:
    found: Artifact | None = None
    manifest = reader.read_manifest()
    parents = _read_parents(manifest, reader.name)
    try:
        with stage_artifact(artifacts, KIND, parents) as staging:
            (staging.path / MANIFEST).write_bytes(manifest)
            found = _check(read_artifact(staging.path, kind=KIND), staging.path, reader.name)
            sizes = {f.name: f.size for f in found.files}
            hashes = {f.name: f.sha256 for f in found.files}
            while (head := reader.read_head()) is not None:
                _fit(head, sizes, reader.name)
                path = staging.path / head.name
                path.parent.mkdir(parents=True, exist_ok=True)
                if reader.copy(head.size, path) != hashes[head.name]:
                    raise _refuse(reader.name, f"{head.name} is not what its manifest says")
                del sizes[head.name]
            if sizes:
                raise _refuse(reader.name, f"{min(sizes)} is missing")
            verify_artifact(staging.path, kind=KIND, expect=found.id)
            _read_examples(found, reader.name)
            scan(found)
            (staging.path / MANIFEST).unlink()
            if not keep:
                raise _Dropped
        return staging.result
    except _Dropped:
        assert found is not None
        return Artifact(
            found.id, KIND, found.parents, found.files, artifacts / f"{KIND}-{short_id(found.id)}"
        )


def _read_examples(corpus: Artifact, name: str) -> None:
    """What is trained on must have the shape that training expects, whoever wrote it."""
    decoder = msgspec.json.Decoder(_Example)
    for file in SIDES.values():
        with corpus.file(file).open("rb") as f:
            for number, line in enumerate(f, start=1):
                try:
                    decoder.decode(line)
                except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
                    raise _refuse(name, f"{file}:{number} is no example", str(e)) from e


def _read_parents(manifest: bytes, name: str) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(manifest, type=_Manifest).parents
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise _refuse(name, f"its {MANIFEST} cannot be read", str(e)) from e


def _check(found: Artifact, room: Path, name: str) -> Artifact:
    """What the manifest promises, before anything else of the bundle is written."""
    names = [f.name for f in found.files]
    if len({n.casefold() for n in names}) != len(names):
        raise _refuse(name, "its manifest lists a file twice")
    size = sum(f.size for f in found.files)
    if len(names) > MOST_FILES or size > MOST_BYTES:
        raise _refuse(name, f"it is larger than {MOST_FILES} files or {MOST_BYTES >> 30} GiB")
    for f in found.files:
        if f.size < 0 or f.name == MANIFEST or not _is_plain(f.name):
            raise _refuse(name, f"its manifest lists {f.name[:80]!r}")
    for wanted in _REQUIRED:
        if wanted not in names:
            raise _refuse(name, f"it holds no {wanted}")
    if size > shutil.disk_usage(room).free:
        raise DiskFull(
            f"the bundle {name} does not fit on this disk",
            why=f"it unpacks to {size / 1e6:.0f} MB; nothing was written",
            fix="free some space (gtft doctor shows where), then unpack it again",
        )
    return found


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        0 < len(name) <= 100
        and name.isprintable()
        and "\\" not in name
        and not name.startswith("/")
        and not any(p in ("..", ".") or p.startswith(".") for p in parts)
        and "/".join(parts) == name
    )


def _fit(head: tarfile.TarInfo, left: dict[str, int], name: str) -> None:
    if head.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _refuse(name, f"{head.name[:80]!r} is not a regular file")
    if head.name not in left:
        raise _refuse(name, f"{head.name[:80]!r} is not in its manifest, or comes twice")
    if head.size != left[head.name]:
        raise _refuse(name, f"{head.name} has not the size that its manifest says")


class _Reader:
    """Members of a tar one after another: nothing is read that was not asked for, and links, devices and
    extended headers are told from files by their type only."""

    def __init__(self, f: gzip.GzipFile, name: str) -> None:
        self._f = f
        self.name = name

    def read_manifest(self) -> bytes:
        head = self.read_head()
        if head is None or head.name != MANIFEST or head.type != tarfile.REGTYPE:
            raise _refuse(self.name, f"it does not begin with {MANIFEST}")
        if not 0 < head.size <= MOST_MANIFEST:
            raise _refuse(self.name, f"its {MANIFEST} is larger than {MOST_MANIFEST >> 20} MiB")
        return self._take(head.size + -head.size % _BLOCK)[: head.size]

    def read_head(self) -> tarfile.TarInfo | None:
        block = self._take(_BLOCK)
        if not any(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as e:
            raise _refuse(self.name, "it is no tar file", str(e)) from e

    def copy(self, size: int, path: Path) -> str:
        """Write the member's ``size`` bytes to ``path``; their sha256."""
        digest = hashlib.sha256()
        with path.open("xb") as out:
            left, line = size, 0
            while left:
                piece = self._take(min(left, _PIECE))
                end = piece.rfind(b"\n")
                line = line + len(piece) if end < 0 else len(piece) - end
                if line > MOST_LINE:
                    raise _refuse(self.name, f"{path.name} has a line over {MOST_LINE >> 20} MiB")
                digest.update(piece)
                out.write(piece)
                left -= len(piece)
        self._take(-size % _BLOCK)
        return digest.hexdigest()

    def _take(self, size: int) -> bytes:
        try:
            found = self._f.read(size)
        except gzip.BadGzipFile as e:
            # It is an OSError: what writes the artifact would take it for a fault of the disk.
            raise EOFError(str(e)) from e
        if len(found) != size:
            raise EOFError("it ends in the middle of a member")
        return found


def _add(out: gzip.GzipFile, path: Path, name: str) -> None:
    head = tarfile.TarInfo(name)
    head.size = path.stat().st_size
    head.mode = 0o644
    out.write(head.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
    with path.open("rb") as f:
        while piece := f.read(_PIECE):
            out.write(piece)
    out.write(bytes(-head.size % _BLOCK))


def _refuse(name: str, what: str, why: str = "") -> GtftError:
    return EvidenceError(
        f"the bundle {name} is refused: {what}",
        why=why or "a bundle holds the files of one corpus, as its manifest lists them",
        fix="ask for it again, made with: gtft corpus pack",
    )
