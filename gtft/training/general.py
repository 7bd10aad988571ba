"""General text: what is replayed so that a training forgets less, and what shows whether it forgets.

Chats or passages from a file or folder of the user's, from what nano read, or from the set shipped with gtft.
An item is replayed or measured on by a hash of its content, never both. Files may be of any size and hold
anything: they are read in pieces, and what is no chat or text is counted, not taken.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gtft.artifact import canonical_json, hash_json
from gtft.errors import InputError, translate_os_error
from gtft.training.examples import Conversation
from gtft.training.nano_text import escape_special
from gtft.training.render import Renderer, Row
from gtft.training.watch import Watch

SHIPPED = Path(__file__).with_name("general.jsonl")
# Examples with this prefix are not the corpus's own.
PREFIX = "general:"
# One item of so many is measured on, the others are replayed.
_MEASURED_OF = 4
# Of a larger set this many items are taken, chosen by hash.
ITEMS_AT_MOST = 4096
BYTES_AT_MOST = 256 << 20
LINE_AT_MOST = 64 << 10
_FILES_AT_MOST = 20_000
_PASSAGE_CHARS = 700
_SUFFIXES = (".jsonl", ".md", ".txt")
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Item:
    """A chat (``messages``) or a passage (``text``); ``hash`` is the sha256 of its content."""

    hash: str
    text: str = ""
    messages: tuple[dict[str, Any], ...] = ()

    @property
    def measured(self) -> bool:
        return int(self.hash[-8:], 16) % _MEASURED_OF == 0


@dataclass(frozen=True)
class General:
    """The items of a set by hash, where they are from, and what was not taken: (cause, count)."""

    source: str
    items: tuple[Item, ...]
    skipped: tuple[tuple[str, int], ...] = ()

    @property
    def id(self) -> str:
        return hash_json([i.hash for i in self.items])

    @property
    def replayed(self) -> tuple[Item, ...]:
        return tuple(i for i in self.items if not i.measured)

    @property
    def measured(self) -> tuple[Item, ...]:
        return tuple(i for i in self.items if i.measured)

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "id": self.id,
            "items": len(self.items),
            "measured_items": len(self.measured),
            "skipped": dict(self.skipped),
        }


@dataclass(frozen=True)
class Mix:
    """Rows of one epoch: ``replayed`` general ones of ``wanted``, laid evenly among the corpus's own."""

    rows: tuple[Row, ...]
    replayed: int
    wanted: int

    @property
    def short(self) -> bool:
        return self.replayed < self.wanted

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.replayed,
            "wanted_rows": self.wanted,
            "share": round(self.replayed / len(self.rows), 4) if self.rows else 0.0,
        }


def read_general(given: str, *, root: Path, base_text: Path | None, watch: Watch) -> General:
    """The set that ``train.retention.general`` names; relative paths start at ``root``.

    "" is ``base_text`` (what nano read) or the shipped set. Raises InputError when there is nothing to read.
    """
    path = root / Path(given).expanduser() if given else base_text or SHIPPED
    source = "the shipped set" if path == SHIPPED else path.name
    skipped: Counter[str] = Counter()
    try:
        items = _choose(_read_files(_list_files(path, skipped), skipped))
    except OSError as e:
        raise translate_os_error(e, "reading general text (train.retention.general)") from e
    if not items:
        told = ", ".join(f"{n} {cause}" for cause, n in sorted(skipped.items()))
        raise InputError(
            f"there is no general text in {given or path.name}",
            why=told or "no .jsonl, .md or .txt file with text is there",
            fix='gtft run RECIPE --set train.retention.general="" takes the set shipped with gtft',
        )
    if given and skipped:
        told = ", ".join(f"{n} {cause}" for cause, n in sorted(skipped.items()))
        watch.warn("general-skipped", f"of the general text {source}, not taken: {told}")
    return General(source, items, tuple(sorted(skipped.items())))


def make_rows(items: Iterable[Item], tokenizer: Any, max_length: int) -> tuple[Row, ...]:
    """Rows of at most ``max_length`` tokens: of a passage every token is trained, of a chat the answers.

    A chat that the base's template refuses, or that is too long, has none.
    """
    renderer = Renderer(tokenizer, max_length)
    rows: list[Row] = []
    for item in items:
        example = PREFIX + item.hash[:16]
        if item.messages:
            rows += renderer.render(Conversation(example, item.messages, ())).rows
        elif row := _make_passage_row(example, item.text, tokenizer, max_length):
            rows.append(row)
    return tuple(rows)


def mix(rows: Sequence[Row], general: Sequence[Row], share: float, seed: int) -> Mix:
    """Put general rows among ``rows`` so that they make up ``share`` of them all.

    When there are too few, each is there once: a small set repeats from epoch to epoch, not within one.
    """
    wanted = round(len(rows) * share / (1 - share))
    ranked = sorted(
        range(len(general)),
        key=lambda i: (hashlib.sha256(f"{seed}:{general[i].example}".encode()).digest(), i),
    )
    taken = [general[i] for i in ranked[:wanted]]
    out: list[Row] = []
    put = 0
    for n, row in enumerate(rows, start=1):
        out.append(row)
        due = n * len(taken) // len(rows)
        out += taken[put:due]
        put = due
    return Mix(tuple(out), len(taken), wanted)


def _make_passage_row(example: str, text: str, tokenizer: Any, max_length: int) -> Row | None:
    from array import array

    clean = escape_special(text, tuple(tokenizer.all_special_tokens))
    ids = array("i", tokenizer(clean, truncation=True, max_length=max_length)["input_ids"])
    return Row(example, ids, ((0, len(ids)),), cut=0) if len(ids) > 1 else None


def _choose(items: Iterable[Item]) -> tuple[Item, ...]:
    """Different items by hash; of very many those with the smallest hashes."""
    # A heap whose top is the largest hash kept: what a larger set holds besides is never held at once.
    heap: list[tuple[int, str]] = []
    held: dict[str, Item] = {}
    for item in items:
        if item.hash in held:
            continue
        rank = (-int(item.hash, 16), item.hash)
        if len(heap) < ITEMS_AT_MOST:
            heapq.heappush(heap, rank)
        elif rank > heap[0]:
            del held[heapq.heapreplace(heap, rank)[1]]
        else:
            continue
        held[item.hash] = item
    return tuple(held[h] for h in sorted(held))


def _list_files(path: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The files to read, in the order of their names. Links inside a folder are not followed."""
    if not path.is_dir():
        if not stat.S_ISREG(path.stat().st_mode):
            skipped["not a regular file"] += 1
            return
        yield path
        return
    count = 0
    for folder, inner, names in os.walk(path, onerror=_raise):
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if file.suffix.lower() not in _SUFFIXES or name.startswith("."):
                continue
            if not stat.S_ISREG(file.lstat().st_mode):
                skipped["links or special files"] += 1
                continue
            count += 1
            if count > _FILES_AT_MOST:
                skipped[f"files beyond the first {_FILES_AT_MOST}"] += 1
                return
            yield file


def _raise(error: OSError) -> None:
    raise error


def _read_files(files: Iterable[Path], skipped: Counter[str]) -> Iterator[Item]:
    left = BYTES_AT_MOST
    for file in files:
        if left <= 0:
            skipped[f"files beyond the first {BYTES_AT_MOST >> 20} MiB"] += 1
            continue
        with file.open("rb") as f:
            read = _read_chats if file.suffix.lower() == ".jsonl" else _read_passages
            yield from read(f, left, skipped)
            left -= f.tell()


def _read_lines(f: BinaryIO, limit: int, skipped: Counter[str]) -> Iterator[bytes]:
    """Lines; a longer one comes in pieces of LINE_AT_MOST. Stops after ``limit`` bytes."""
    while f.tell() < limit:
        line = f.readline(LINE_AT_MOST)
        if not line:
            return
        yield line
    if f.read(1):
        skipped[f"files longer than what is read ({BYTES_AT_MOST >> 20} MiB in all)"] += 1


def _read_chats(f: BinaryIO, limit: int, skipped: Counter[str]) -> Iterator[Item]:
    torn = False
    for line in _read_lines(f, limit, skipped):
        whole, torn = not torn, not line.endswith(b"\n") and len(line) == LINE_AT_MOST
        if torn or not whole:
            skipped["lines too long"] += whole
            continue
        if not line.strip():
            continue
        messages = _parse_chat(line)
        if messages is None:
            skipped["lines that are no chat"] += 1
        else:
            yield Item(hash_json(messages).removeprefix("sha256:"), messages=messages)


def _parse_chat(line: bytes) -> tuple[dict[str, Any], ...] | None:
    """``{"messages": [{"role", "content"}, …]}`` with text and an answer, or None."""
    try:
        doc = json.loads(line)
        if not isinstance(doc, dict) or not isinstance(doc.get("messages"), list):
            return None
        messages = tuple({"role": m["role"], "content": m["content"]} for m in doc["messages"])
        if not all(
            m["role"] in _ROLES and isinstance(m["content"], str) and m["content"].strip()
            for m in messages
        ):
            return None
        if not any(m["role"] == "assistant" for m in messages):
            return None
        # A lone surrogate is JSON, but no text.
        canonical_json(messages).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return messages


def _read_passages(f: BinaryIO, limit: int, skipped: Counter[str]) -> Iterator[Item]:
    """Paragraphs joined to passages of about 700 characters, a long one cut at its lines."""
    held: list[str] = []
    size = 0
    for raw in _read_lines(f, limit, skipped):
        line = raw.decode("utf-8", "replace").replace("\f", "\n")
        for piece in (line[i : i + _PASSAGE_CHARS] for i in range(0, len(line), _PASSAGE_CHARS)):
            full = size + len(piece) > 2 * _PASSAGE_CHARS
            if held and (full or (size > _PASSAGE_CHARS and not piece.strip())):
                yield from _make_passage(held, skipped)
                held, size = [], 0
            held.append(piece)
            size += len(piece)
    yield from _make_passage(held, skipped)


def _make_passage(pieces: list[str], skipped: Counter[str]) -> Iterator[Item]:
    text = "".join(pieces).strip("\n")
    odd = sum(c == "\ufffd" or (c < " " and c not in "\t\n\r") for c in text)
    if odd * 20 > len(text):
        skipped["passages that are not text"] += 1
    elif text.strip():
        yield Item(hashlib.sha256(text.encode()).hexdigest(), text=text)
