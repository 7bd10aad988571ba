"""Retrieval over a town's documents: what base+docs reads before it answers (BM25, Robertson and Zaragoza 2009)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gtft.artifact import hash_json
from gtft.errors import InputError, translate_os_error
from gtft.evals.asking.candidate import Unavailable
from gtft.evals.asking.prime import put_first
from gtft.evals.item import Item, Message

_SUFFIXES = frozenset({".md", ".txt", ".toml", ".rst"})
_WORDS = 120
_MOST_FILES = 5_000
_MOST_BYTES = 1 << 22


@dataclass(frozen=True)
class Passage:
    """A piece of a document; ``source`` is its path below the folder that the recipe names."""

    source: str
    text: str


@dataclass(frozen=True)
class Library:
    """The passages of a town's documents, searchable."""

    passages: tuple[Passage, ...]
    files: int
    # By reason: files that could not be read as text.
    skipped: dict[str, int]

    @property
    def key(self) -> str:
        """What its findings depend on."""
        return hash_json([[p.source, p.text] for p in self.passages])

    @cached_property
    def _index(self) -> Any:
        import bm25s

        index = bm25s.BM25()
        index.index([_words(p.text) for p in self.passages], show_progress=False)
        return index

    def find(self, query: str, most: int) -> list[Passage]:
        """The best passages, best first; only such as share a word with ``query``. Equal scores keep the order of
        the files."""
        known = self._index.vocab_dict
        words = [w for w in _words(query) if w in known]
        if not words:
            return []
        scores = self._index.get_scores(words)
        order = sorted(range(len(self.passages)), key=lambda i: (-float(scores[i]), i))[:most]
        return [self.passages[i] for i in order if scores[i] > 0]

    def extend(self, item: Item, most: int) -> tuple[Message, ...]:
        """The item's chat with what is found for its last request put first; as it is when nothing is."""
        asked = next((m["content"] for m in reversed(item.messages) if m["role"] == "user"), "")
        found = self.find(asked, most)
        if not found:
            return item.messages
        shown = "\n\n".join(f"[{p.source}]\n{p.text}" for p in found)
        return put_first(f"From the town's documents:\n\n{shown}", item)


def read_library(paths: Sequence[str], root: Path) -> Library:
    """The passages of files and folders (from ``root``): Markdown, text and TOML, in the order of their names.

    Raises InputError for a path that is not there, Unavailable when nothing can be searched.
    """
    if not paths:
        raise Unavailable("no documents: the recipe names none (eval.docs)")
    passages: list[Passage] = []
    skipped: dict[str, int] = {}
    files = 0
    for name, path in _list_files(paths, root):
        text = _read(path, skipped)
        files += text is not None
        passages += [Passage(name, piece) for piece in _cut(text or "")]
    if not passages:
        raise Unavailable(f"no documents: {len(paths)} paths of eval.docs hold no readable text")
    return Library(tuple(passages), files, dict(sorted(skipped.items())))


def _list_files(paths: Sequence[str], root: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for given in paths:
        start = Path(given).expanduser()
        start = start if start.is_absolute() else root / start
        if start.is_file():
            found = [(start.name, start)]
        elif start.is_dir():
            inside = sorted(p for p in start.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            found = [(str(p.relative_to(start)), p) for p in inside]
        else:
            raise InputError(
                f"the documents {given} do not exist",
                why="the recipe names them in eval.docs",
                fix="correct eval.docs in the recipe (gtft recipe lint)",
            )
        count += len(found)
        if count > _MOST_FILES:
            raise InputError(
                f"eval.docs names more than {_MOST_FILES} files",
                why="searching them would take longer than the eval",
                fix="name the folders that matter in eval.docs",
            )
        yield from found


def _read(path: Path, skipped: dict[str, int]) -> str | None:
    why = ""
    try:
        if path.stat().st_size > _MOST_BYTES:
            why = "longer than 4 MB"
        else:
            return path.read_text("utf-8")
    except UnicodeDecodeError:
        why = "not UTF-8"
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    skipped[why] = skipped.get(why, 0) + 1
    return None


def _cut(text: str) -> Iterator[str]:
    """Paragraphs under their heading, joined up to about 120 words."""
    heading, size = "", 0
    held: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        block = block.strip()
        if not block:
            continue
        words = len(block.split())
        if held and (block.startswith("#") or size + words > _WORDS):
            yield "\n".join(filter(None, [heading, *held]))
            held, size = [], 0
        if block.startswith("#") and "\n" not in block:
            heading = block
            continue
        held.append(block)
        size += words
    if held:
        yield "\n".join(filter(None, [heading, *held]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
