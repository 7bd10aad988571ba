"""Pass 1, in a process of its own: one unit of files → read → redacted by rule → cut → a shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash
from msgspec.json import encode

from gtft.corpus.claims import Claims
from gtft.corpus.draft import Features
from gtft.corpus.example import Conversation, Entry, Message, encode_body, name_body
from gtft.corpus.files import InputFile, describe_input
from gtft.corpus.governance.row import hash_contributor
from gtft.corpus.health.conflict import read_taught
from gtft.corpus.linking.link import complete
from gtft.corpus.linking.noise import noise_of, sift
from gtft.corpus.linking.preference import find_pairs, pair_branch
from gtft.corpus.partition.near import LANES, sketch
from gtft.corpus.partition.words import digest_masked, hash_many
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor
from gtft.corpus.segment import Cut, Limits, assemble, cut
from gtft.corpus.segment import Unit as Turn
from gtft.corpus.shard import Pair, Piece, Prose, ShardWriter, Table, Talk
from gtft.corpus.sources import FORMATS, SESSIONS
from gtft.corpus.tally import Tally

if TYPE_CHECKING:
    from gtft.corpus.scenarios.names import TownNames

# Features are made for many examples at once: numpy's overhead is paid once.
_BATCH = 2 << 20
# Preference pairs of one conversation, at most.
_MOST_PAIRS = 20


@dataclass(frozen=True)
class Setup:
    """What every reading process needs. ``key`` makes placeholders and pseudonyms; ``gate``: `Redactor.dump_gate`."""

    key: bytes
    config: RedactionConfig
    limits: Limits
    gate: bytes = b""


@dataclass(frozen=True)
class Made:
    """Examples to make up."""

    count: int
    seed: int
    names: TownNames


@dataclass(frozen=True)
class Unit:
    """Files of one source that are read together, and where what they give is kept. ``rig``: whose they are.

    ``made`` stands in place of files. ``lost`` are records that another file holds. ``keep`` False: only the secret values are wanted.
    """

    number: int
    source: int
    type: str
    files: tuple[InputFile, ...]
    shard: Path
    rig: str | None = None
    lost: frozenset[int] = frozenset()
    keep: bool = True
    made: Made | None = None


@dataclass(frozen=True)
class Answer:
    """``values``: secret → placeholder, for propagation; they are handed over in memory only."""

    number: int
    values: dict[str, str]


def prepare(setup: Setup) -> Callable[[Unit], Answer]:
    """One reader for many units: what it has judged clean is not looked at again."""
    redactor = Redactor(setup.key, setup.config, gate=setup.gate)
    told: dict[str, str] = {}

    def answer(unit: Unit) -> Answer:
        _read_unit(unit, setup, redactor)
        # The kind of a value may sink to a lesser one: see `Redactor.placeholder`.
        new = {v: p for v, p in redactor.values.items() if told.get(v) != p}
        told.update(new)
        return Answer(unit.number, new)

    return answer


def _read_unit(unit: Unit, setup: Setup, redactor: Redactor) -> None:
    tally = Tally()
    claims = Claims(unit.lost)
    writer = ShardWriter(unit.shard)
    placed = redactor.placed
    try:
        rows = _Rows(writer, setup, redactor, tally)
        files = tuple([f for f in unit.files if f.path.exists()])
        for gone in unit.files:
            if gone not in files:
                tally.name("file that is gone", gone.name, 0)
        if unit.made:
            # Few harvests make any up.
            from gtft.corpus.scenarios import make_scenarios

            talks = make_scenarios(unit.made.count, unit.made.seed, unit.made.names)
        else:
            talks = FORMATS[unit.type].read(files, tally, claims)
        for talk in talks:
            rows.take(talk)
        rows.flush()
        if unit.keep:
            table = Table(
                rows.talks,
                rows.pieces,
                rows.pairs,
                rows.prose,
                tally.rename(redactor.redact).as_dict(),
                claims if unit.made is None and FORMATS[unit.type].alone else None,
                [describe_input(f) for f in files],
                redactor.placed > placed,
            )
            writer.finish(
                np.concatenate([np.zeros(0, np.uint64), *rows.words]),
                np.concatenate([np.zeros((0, LANES), np.uint32), *rows.sketches]),
                table,
            )
    finally:
        writer.discard()


class _Rows:
    """The examples of a unit, on their way into the shard."""

    def __init__(self, writer: ShardWriter, setup: Setup, redactor: Redactor, tally: Tally) -> None:
        self.talks: list[Talk] = []
        self.pieces: list[Piece] = []
        self.pairs: list[Pair] = []
        self.prose: list[Prose] = []
        self.words: list[npt.NDArray[np.uint64]] = []
        self.sketches: list[npt.NDArray[np.uint32]] = []
        self._writer = writer
        self._setup = setup
        self._redactor = redactor
        self._tally = tally
        self._waiting: list[tuple[int, Cut, bytes]] = []
        self._texts: list[bytes] = []
        self._size = 0
        self._hashed = 0
        # The last session that was no branch, for the branches that follow it.
        self._trunk: tuple[str, list[Turn]] = ("", [])

    def take(self, talk: Conversation) -> None:
        """One conversation; a session that is noise as a whole is counted and left out."""
        said = talk.entries
        self._tally.add("conversations", "read")
        if talk.source in SESSIONS:
            talk = complete(talk)
            if reason := noise_of(said):
                self._tally.add("noise", reason)
                return
            said = sift(said, self._tally)
        elif talk.provenance == "synthetic" and _is_clipped(said, self._setup.limits):
            # Its answer follows from what would be cut off.
            self._tally.add("noise", "made-up case that does not fit the limits")
            return
        setup, redactor, tally = self._setup, self._redactor, self._tally
        number = len(self.talks)
        who = hash_contributor(setup.key, talk.contributor) if talk.contributor else ""
        self.talks.append(
            Talk(talk.source, talk.file, talk.links, talk.evidence, talk.provenance, who)
        )
        if talk.plain:
            self.prose.append(Prose(number, redactor.redact(talk.plain)))
        units = list(assemble(said, setup.limits, redactor, tally))
        for made in cut(talk, units, setup.limits, redactor, tally):
            text = write_plain(made.messages)
            self._waiting.append((number, made, encode_body(made.messages, made.tools)))
            self._texts.append(text)
            self._size += len(text)
            if self._size >= _BATCH:
                self.flush()
        if talk.source in SESSIONS:
            self._take_pairs(talk, number, units)

    def _take_pairs(self, talk: Conversation, number: int, units: list[Turn]) -> None:
        window = self._setup.limits.window
        found = list(islice(find_pairs(units, window), _MOST_PAIRS + 1))
        if len(found) > _MOST_PAIRS:
            # One long quarrel would fill the file with itself.
            self._tally.add("pairs", "conversations with more than are taken")
            del found[_MOST_PAIRS:]
        trunk, _, branch = (talk.evidence.session or "").partition("#")
        if not branch:
            self._trunk = (trunk, units)
        elif self._trunk[0] == trunk and any(e.mark == "rewound" for e in talk.entries):
            pair = pair_branch(self._trunk[1], units, window)
            found += [pair] if pair else []
        for p in found:
            self.pairs.append(Pair(number, encode(p.to_row(), order="sorted"), p.why, p.lines))

    def flush(self) -> None:
        """Features of what is waiting, then bodies to the disk."""
        if not self._waiting:
            return
        words = hash_many(self._texts)
        masked = digest_masked(words)
        ends = words.offsets.tolist()
        self.words.append(words.hashes)
        self.sketches.append(sketch(words))
        for i, (talk, made, body) in enumerate(self._waiting):
            self.pieces.append(
                Piece(
                    talk,
                    self._writer.add(body),
                    len(body),
                    name_body(body),
                    masked[i],
                    digest_answers(made.messages),
                    read_taught(made.messages),
                    digest_asked(made.messages),
                    (self._hashed + ends[i], self._hashed + ends[i + 1]),
                    made.lines,
                    made.number,
                    made.by,
                    made.marks,
                )
            )
        self._hashed += len(words.hashes)
        self._waiting.clear()
        self._texts.clear()
        self._size = 0


def _is_clipped(entries: Sequence[Entry], limits: Limits) -> bool:
    room = {"user": limits.window // 2, "result": limits.result}
    return any(len(e.text) > room.get(e.kind, limits.window) for e in entries)


def measure_features(messages: Sequence[Message]) -> Features:
    """The features of one text, as the reading gives them for many."""
    words = hash_many([write_plain(messages)])
    return Features(
        words.hashes, sketch(words)[0], digest_masked(words)[0], digest_answers(messages)
    )


def write_plain(messages: Sequence[Message]) -> bytes:
    """All that an example says, call arguments included, as one text."""
    parts: list[bytes] = []
    for m in messages:
        parts.append(m["content"].encode())
        for c in m.get("tool_calls", ()):
            parts.append(encode(c["function"]["arguments"], order="sorted"))
    return b"\n".join(parts)


def digest_asked(messages: Sequence[Message]) -> bytes:
    """What stands before the first answer."""
    asked = list(takewhile(lambda m: m["role"] != "assistant", messages))
    return xxhash.xxh3_128_digest(encode(asked, order="sorted"))


def digest_answers(messages: Sequence[Message]) -> bytes:
    """What an example teaches: two near copies with other answers teach a boundary."""
    answers = [m for m in messages if m["role"] == "assistant"]
    return xxhash.xxh3_128_digest(encode(answers, order="sorted"))
