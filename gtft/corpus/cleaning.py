"""What is looked at again before it may stay: secret values propagated, then the second reader.

A text that is changed goes to a file of its own; the shards stay as they were read. An entry in which a hit
stays after it was replaced is held back with its reasons, or stops the harvest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gtft.corpus.draft import Block, Draft
from gtft.corpus.example import map_tree, name_body
from gtft.corpus.governance.quarantine import Held, Reason
from gtft.corpus.governance.row import Place
from gtft.corpus.pool import Pool
from gtft.corpus.reading import measure_features
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor
from gtft.corpus.redaction.sweeper import Sweeper
from gtft.corpus.redaction.verify import Suspect, Verifier
from gtft.corpus.shard import Bodies
from gtft.errors import RedactionError

# Text that one task of the second reader holds.
_TASK_BYTES = 1 << 20
# Fewer bytes than this are read before a second process has started.
_WORTH_A_PROCESS = 1 << 20


@dataclass(frozen=True)
class Setup:
    """What a process of the second reader needs. ``verdicts``: where it remembers what was clean; ``gate``:
    `Redactor.dump_gate`."""

    key: bytes
    config: RedactionConfig
    verdicts: Path
    gate: bytes = b""


@dataclass(frozen=True)
class Cleaned:
    """One body after both readers. ``body`` None: nothing was changed. ``stays``: why it is held back."""

    number: int
    body: bytes | None
    stays: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Answer:
    """``values``: what was found now, to be looked for everywhere; in memory only."""

    read: int
    cleaned: list[Cleaned]
    suspects: Counter[str]
    values: dict[str, str]


Task = Sequence[tuple[int, bytes]]


@lru_cache(maxsize=1)
def _make_verifier(setup: Setup) -> Verifier:
    """One for a process: making it compiles rules and plugins."""
    return Verifier(Redactor(setup.key, setup.config, gate=setup.gate), setup.verdicts)


def prepare(setup: Setup) -> Callable[[Task], Answer]:
    """A second reader for many tasks."""
    verifier = _make_verifier(setup)

    def answer(task: Task) -> Answer:
        verifier.redactor.values.clear()
        verifier.suspects.clear()
        cleaned = [c for number, body in task if (c := _clean(number, body, verifier))]
        verifier.save()
        return Answer(
            len(task), cleaned, Counter(verifier.suspects), dict(verifier.redactor.values)
        )

    return answer


def _clean(number: int, body: bytes, verifier: Verifier) -> Cleaned | None:
    tree = msgspec.json.decode(body)
    if isinstance(tree, dict) and "messages" in tree:
        cleaned, stays = _clean_messages(tree, verifier)
    else:
        cleaned, stays = verifier.clean_tree(tree)
    if stays:
        return Cleaned(number, None, tuple(Reason(s.reader, s.where) for s in stays))
    return None if cleaned == tree else Cleaned(number, _encode(cleaned))


def _clean_messages(tree: Any, verifier: Verifier) -> tuple[Any, list[Suspect]]:
    """An example: what people, agents and tools said; the rest of a message is words of ours."""
    stays: list[Suspect] = []
    messages = []
    for i, m in enumerate(tree["messages"]):
        content, found = verifier.clean_text(m["content"], f"messages[{i}].content")
        stays += found
        m = {**m, "content": content}
        if calls := m.get("tool_calls"):
            made = []
            for c in calls:
                function, found = verifier.clean_tree(c["function"], f"messages[{i}].call")
                stays += found
                made.append({**c, "function": function})
            m["tool_calls"] = made
        messages.append(m)
    return {**tree, "messages": messages}, stays


def _encode(tree: Any) -> bytes:
    return msgspec.json.encode(tree, order="sorted")


class Cleaner:
    """Both looks, over all drafts of a harvest."""

    def __init__(
        self,
        redactor: Redactor,
        cache: Path,
        workdir: Path,
        released: frozenset[str] = frozenset(),
        sent_away: frozenset[str] = frozenset(),
    ) -> None:
        """``released``: examples that a person let pass though the second reader hits them; ``sent_away``:
        those that a person dropped."""
        self.redactor = redactor
        self.suspects: Counter[str] = Counter()
        self.held: list[Held] = []
        self._setup = Setup(redactor.key, redactor.config, cache / "verdicts", redactor.dump_gate())
        self._released = released
        self._sent_away = sent_away
        # Everything that was looked for: what is written must hold none of it.
        self._values: dict[str, str] = {}
        self._bodies = Bodies()
        self._changed = workdir / "changed.jsonl"
        workdir.mkdir(parents=True, exist_ok=True)
        self._changed.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing of a harvest stays behind."""
        self._bodies.close()
        self._changed.unlink(missing_ok=True)

    def propagate(
        self, drafts: Sequence[Draft], blocks: Sequence[Block], values: Mapping[str, str]
    ) -> None:
        """Every value that was a secret once is hidden wherever it stands."""
        add_values(self._values, values)
        sweeper = Sweeper(values)
        for d in drafts:
            body = self._bodies.read(d.path, d.at, d.size)
            if sweeper.hits(body):
                self._change(d, _sweep(body, sweeper))
        for block in blocks:
            if sweeper.hits(block.body):
                block.body = _sweep(block.body, sweeper)

    def read_again(
        self,
        drafts: Sequence[Draft],
        blocks: Sequence[Block],
        workers: int,
        stop: bool,
        dropped: Counter[str],
        left_out: Counter[str],
        report: Callable[[int, int | None, str, str], None],
    ) -> tuple[list[Draft], list[Block]]:
        """The second reader over everything that is left; what it found is then looked for everywhere.

        ``dropped`` counts examples that stay out, ``left_out`` blocks. Raises RedactionError when ``stop`` is
        set and a hit stays after it was replaced.
        """
        values: dict[str, str] = {}
        held: set[int] = set()
        size = sum([d.size for d in drafts])
        done = 0
        total = len(drafts) + len(blocks)
        with Pool(workers if size > _WORTH_A_PROCESS else 1, prepare, self._setup) as pool:
            for answer in pool.answer(self._list_tasks(drafts, blocks)):
                self.suspects.update(answer.suspects)
                add_values(values, answer.values)
                for c in answer.cleaned:
                    if c.stays and stop:
                        raise _refuse(c.stays)
                    if c.number >= len(drafts):
                        block = blocks[c.number - len(drafts)]
                        block.body = c.body or b""
                        if c.stays:
                            # It has no entry that somebody could look at: it goes.
                            left_out[f"{block.kind}: a hit stays after it was replaced"] += 1
                    elif c.body is not None:
                        self._change(drafts[c.number], c.body)
                    elif drafts[c.number].id not in self._released:
                        held.add(c.number)
                        if drafts[c.number].id in self._sent_away:
                            dropped["dropped from quarantine"] += 1
                        else:
                            dropped["in quarantine"] += 1
                            self.held.append(_hold(drafts[c.number], c.stays))
                done += answer.read
                report(done, total, "examples", "second scan")
        left = [d for i, d in enumerate(drafts) if i not in held]
        kept = [b for b in blocks if b.body]
        self.propagate(left, kept, values)
        return left, kept

    def make_label_cleaner(self) -> Callable[[str], str]:
        """For names, ids and paths: redacted, and without any value that is a secret elsewhere."""
        sweeper = Sweeper(self._values)
        redact = self.redactor.redact

        @lru_cache(maxsize=100_000)
        def clean(text: str) -> str:
            return sweeper.sweep(redact(text))

        return clean

    def scan_files(self, paths: Sequence[Path]) -> int:
        """Both readers over what was written, and every secret value; the number of texts read.

        Raises RedactionError that names the file and line when either finds anything.
        """
        sweeper = Sweeper(self._values)
        for path in paths:
            with path.open("rb") as f:
                for number, line in enumerate(f, start=1):
                    if sweeper.hits(line):
                        raise RedactionError(
                            "the finished corpus still holds what is a secret elsewhere: it is not written",
                            why=f"a propagated value stands in line {number} of {path.name}",
                            fix="please report this with the recipe's source list",
                        )
        return _make_verifier(self._setup).scan_files(paths, self._released)

    def _list_tasks(self, drafts: Sequence[Draft], blocks: Sequence[Block]) -> Iterator[Task]:
        task: list[tuple[int, bytes]] = []
        size = 0
        for number in range(len(drafts) + len(blocks)):
            if number < len(drafts):
                d = drafts[number]
                body = self._bodies.read(d.path, d.at, d.size)
            else:
                body = blocks[number - len(drafts)].body
            task.append((number, body))
            size += len(body)
            if size >= _TASK_BYTES:
                yield task
                task, size = [], 0
        if task:
            yield task

    def _change(self, d: Draft, body: bytes) -> None:
        with self._changed.open("ab") as f:
            d.path, d.at, d.size = self._changed, f.tell(), len(body)
            f.write(body)
        d.id = name_body(body)
        d.changed = measure_features(msgspec.json.decode(body)["messages"])


def add_values(values: dict[str, str], more: Mapping[str, str]) -> None:
    """Of two kinds for one value the lesser counts, whoever met it first."""
    for value, placeholder in more.items():
        values[value] = min(placeholder, values.get(value, placeholder))


def _sweep(body: bytes, sweeper: Sweeper) -> bytes:
    return _encode(map_tree(msgspec.json.decode(body), sweeper.sweep))


def _hold(d: Draft, stays: tuple[Reason, ...]) -> Held:
    return Held(
        d.id, stays, Place(d.talk.file, d.piece.lines, d.talk.evidence.session, d.piece.number)
    )


def _refuse(stays: tuple[Reason, ...]) -> RedactionError:
    return RedactionError(
        "the second scan still finds a secret after it was replaced",
        why=f"{stays[0].reader} hits {stays[0].where} again",
        fix='gtft corpus redact FILE shows the line; or set [gtft.harvest.redaction] on_hit = "quarantine"',
    )
