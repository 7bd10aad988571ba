"""The verdicts of the second reader, kept on disk: digests of texts that were clean, under the engine's version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gtft.artifact import write_file
from gtft.errors import translate_os_error

_SUFFIX = ".clean"
# More files than this are written together into one.
_MOST_FILES = 16


class Verdicts:
    """``folder`` holds one file per process that saved; None keeps everything in memory.

    A digest is 8 bytes of a hash keyed with the version: it says nothing about a text that somebody does not hold.
    """

    def __init__(self, folder: Path | None, version: str) -> None:
        self._folder = folder
        self._version = version
        self._new: set[int] = set()
        self._known = self._load()

    def is_clean(self, text: str) -> bool:
        digest = self._digest(text)
        if digest in self._new:
            return True
        i = int(np.searchsorted(self._known, np.uint64(digest)))
        return i < len(self._known) and int(self._known[i]) == digest

    def keep_clean(self, text: str) -> None:
        self._new.add(self._digest(text))

    def _digest(self, text: str) -> int:
        data = text.encode("utf-8", "surrogatepass")
        key = self._version.encode()
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), "little")

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(self._folder.glob(f"{self._version}-*{_SUFFIX}"))

    def _load(self) -> NDArray[np.uint64]:
        parts = []
        try:
            for path in self._files():
                data = path.read_bytes()
                # A file that is not whole tells nothing; its texts are read again.
                if len(data) % 8 == 0:
                    parts.append(np.frombuffer(data, dtype="<u8"))
        except FileNotFoundError:
            # Another process put the files together while this one read them.
            return self._load()
        except OSError as e:
            raise translate_os_error(e, "reading the verdicts of the second reader") from e
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype="<u8")

    def save(self) -> None:
        """Written aside and renamed; the name comes from the content, so two processes never disturb each other."""
        if self._folder is None or not self._new:
            return
        files = self._files()
        together = len(files) >= _MOST_FILES
        digests = np.array(sorted(self._new), dtype="<u8")
        if together:
            digests = np.union1d(digests, self._load())
        data = digests.tobytes()
        name = f"{self._version}-{hashlib.sha256(data).hexdigest()[:16]}{_SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(self._folder / name, data)
            for path in files if together else ():
                if path.name != name:
                    path.unlink(missing_ok=True)
        except OSError as e:
            raise translate_os_error(e, "writing the verdicts of the second reader") from e
        self._known = np.union1d(self._known, digests)
        self._new.clear()
