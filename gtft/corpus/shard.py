"""What one unit of reading gave, kept in the workspace so that an unchanged file is not read again.

A shard's texts are redacted by rule; who spoke stands in it as the file says it. It depends on nothing but the
file, the limits, the rules and the key: labels, consent and outcomes are decided later. One file: bodies, word hashes, sketches, then a table.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import psutil
import xxhash

from gtft.corpus.claims import Claims
from gtft.corpus.example import Evidence, Mark, Provenance
from gtft.corpus.health.conflict import Taught
from gtft.corpus.partition.near import LANES
from gtft.errors import translate_os_error

_MAGIC = b"gtft-shard-1\n"
_TRAILER = 8 + 16 + len(_MAGIC)
# Files kept open while bodies are fetched in the order of their ids.
_OPEN_FILES = 200


class Talk(msgspec.Struct, frozen=True, array_like=True):
    """A conversation without its entries. ``contributor`` is a keyed hash, or empty."""

    source: str
    file: str
    links: tuple[str, ...]
    evidence: Evidence
    provenance: Provenance
    contributor: str


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """An example before it has labels; ``at`` and ``size`` say where its body is.

    ``id`` is its name; ``masked`` digests its words with ids and numbers masked, ``answers`` what it
    teaches, ``asked`` what stands before its first answer. ``words``: the first of its word hashes, and the one behind its last.
    """

    talk: int
    at: int
    size: int
    id: str
    masked: bytes
    answers: bytes
    taught: Taught | None
    asked: bytes
    words: tuple[int, int]
    lines: tuple[int, int]
    number: int
    by: tuple[str, ...]
    marks: tuple[Mark, ...]


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """A preference row, encoded: one prompt, the answer that was kept and the one that was not."""

    talk: int
    body: bytes
    why: str
    lines: tuple[int, int]


class Prose(msgspec.Struct, frozen=True, array_like=True):
    """Plain text for the base model."""

    talk: int
    text: str


class Table(msgspec.Struct, frozen=True, array_like=True):
    """Everything of a shard but bodies and words. ``secrets``: values stood in the text that was read."""

    talks: list[Talk]
    pieces: list[Piece]
    pairs: list[Pair]
    prose: list[Prose]
    tally: dict[str, Any]
    claims: Claims | None
    inputs: list[dict[str, Any]]
    secrets: bool


class Shard(msgspec.Struct, frozen=True):
    """A shard that was found whole. ``words_at``: where its word hashes begin, in bytes."""

    path: Path
    table: Table
    words_at: int
    words: int
    sketches_at: int

    def read_words(self, first: int = 0, last: int | None = None) -> npt.NDArray[np.uint64]:
        """Word hashes ``first`` to ``last``; all of them, piece by piece, without."""
        count = (self.words if last is None else last) - first
        with self.path.open("rb") as f:
            return np.fromfile(f, np.uint64, count, offset=self.words_at + first * 8)

    def read_sketches(self) -> npt.NDArray[np.uint32]:
        """One row of `LANES` minima a piece."""
        n = len(self.table.pieces)
        with self.path.open("rb") as f:
            flat = np.fromfile(f, np.uint32, n * LANES, offset=self.sketches_at)
        return flat.reshape(n, LANES)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Table).decode


class ShardWriter:
    """Bodies go to the disk as they come; `finish` adds the rest and gives the file its name."""

    def __init__(self, path: Path) -> None:
        """Raises a GtftError when the disk refuses."""
        self.path = path
        self.at = 0
        self._aside = path.with_suffix(f".{os.getpid()}.aside")
        self._digest = xxhash.xxh3_128()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Redacted by rule, but not yet by what other files know: nobody else reads it.
            handle = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = os.fdopen(handle, "wb", buffering=1 << 20)
        except OSError as e:
            raise translate_os_error(e, f"writing {path.name}") from e

    def add(self, data: bytes) -> int:
        """Write; where it stands."""
        at = self.at
        try:
            self._file.write(data)
        except OSError as e:
            raise translate_os_error(e, f"writing {self.path.name}") from e
        self._digest.update(data)
        self.at += len(data)
        return at

    def finish(
        self, words: npt.NDArray[np.uint64], sketches: npt.NDArray[np.uint32], table: Table
    ) -> None:
        encoded = _encode(table)
        for part in (words.tobytes(), sketches.tobytes(), encoded):
            self.add(part)
        self.add(np.array([len(encoded), words.size], np.uint32).tobytes())
        try:
            self._file.write(self._digest.digest() + _MAGIC)
            self._file.close()
            self._aside.replace(self.path)
        except OSError as e:
            raise translate_os_error(e, f"writing {self.path.name}") from e

    def discard(self) -> None:
        """Leave nothing; after `finish` it does nothing."""
        self._file.close()
        self._aside.unlink(missing_ok=True)


def sweep_asides(cache: Path) -> None:
    """What a killed process left half written."""
    for path in cache.glob("*.aside"):
        pid = path.suffixes[-2].lstrip(".")
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            path.unlink(missing_ok=True)


def read_shard(path: Path) -> Shard | None:
    """The shard at ``path``; None when there is none, or when it is not whole (it is then made again)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    body = len(data) - _TRAILER
    if body < 0 or not data.endswith(_MAGIC):
        return None
    view = memoryview(data)
    if xxhash.xxh3_128(view[: body + 8]).digest() != bytes(view[body + 8 : body + 24]):
        return None
    size, words = (int(n) for n in np.frombuffer(view[body : body + 8], np.uint32))
    try:
        table = _decode(view[body - size : body])
    except msgspec.DecodeError:
        return None
    sketches_at = body - size - len(table.pieces) * LANES * 4
    return Shard(path, table, sketches_at - words * 8, words, sketches_at)


class Bodies:
    """Fetches encoded bodies from many shards; only a bounded number of files is open at once."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, at: int, size: int) -> bytes:
        """Raises a GtftError when the file is away or was cut."""
        try:
            return os.pread(self._find(path), size, at)
        except OSError as e:
            raise translate_os_error(e, f"reading {path.name}") from e

    def close(self) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def _find(self, path: Path) -> int:
        handle = self._open.pop(path, None)
        if handle is None:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[path] = handle
        return handle
