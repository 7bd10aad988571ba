"""The way from sources to a snapshot, in the order of design section 6.

Pass 1 reads, links, redacts by rule and segments, to a spool. Pass 2 propagates values, has the second
reader look, and drops exact copies. Then clusters, split, leak check, and the files; last the scan of what is on disk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtft.artifact import canonical_json
from gtft.corpus.example import Example
from gtft.corpus.files import (
    InputFile,
    describe_input,
    list_files,
    list_optional,
    name_source,
    read_input_text,
)
from gtft.corpus.link import apply_record, read_recorded
from gtft.corpus.redact import Redactor, check_rules
from gtft.corpus.second_reader import SecondReader
from gtft.corpus.segment import CHARACTERS_PER_TOKEN, Limits, cut
from gtft.corpus.similar import Groups, Words, find_near_duplicates, find_rare_phrases, write_plain
from gtft.corpus.sources import FORMATS
from gtft.corpus.split import choose_held_out
from gtft.corpus.tally import Tally
from gtft.corpus.verify import Verifier
from gtft.errors import CorpusTooSmall, InputError

Report = Callable[[int, int | None, str, str], None]

# Sources whose prose the base model may be pretrained on. Transcripts never.
_PROSE = frozenset({"beads", "formulas"})


@dataclass(frozen=True)
class Source:
    type: str
    path: str
    licence: str = "own"


@dataclass(frozen=True)
class Settings:
    """A recipe's harvest table, and the seed of the split."""

    sources: tuple[Source, ...]
    min_examples: int
    heldout: float
    window_tokens: int
    tool_result_chars: int
    near_duplicate: float
    seed: int
    role: str
    # Rigs whose data may be used; empty = every rig. What names no rig is the town's own.
    rigs: frozenset[str] = frozenset()
    # What the session-start hook wrote, where it is installed.
    recorded: Path | None = None

    def admits(self, rig: str | None) -> bool:
        return not self.rigs or rig is None or rig in self.rigs


@dataclass(frozen=True)
class Prose:
    """A block of plain text for ``base.txt``, with the cluster it belongs to."""

    cluster: str
    text: str


@dataclass
class Harvested:
    """What a harvest made, before it is written: both sides sorted by id, and every figure."""

    train: list[Example] = field(default_factory=list)
    heldout: list[Example] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    inputs: list[dict[str, object]] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    staged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Staged:
    examples: list[Example] = field(default_factory=list)
    prose: list[Prose] = field(default_factory=list)
    groups: Groups = field(default_factory=Groups)


def harvest(
    settings: Settings,
    root: Path,
    spool: Path,
    suites: Sequence[Path],
    report: Report,
) -> tuple[Harvested, Verifier]:
    """Read everything and decide everything; writes nothing but the spool.

    ``root`` is where relative source paths start; ``suites`` are eval items (JSONL) that training must
    not hold. Raises InputError (a source is missing, empty or unreadable), CorpusTooSmall, RedactionError.
    """
    if not settings.sources:
        raise InputError(
            "the recipe names no source",
            why="[gtft.harvest] sources is empty",
            fix="add a source to the formula, or: gtft recipe show NAME",
        )
    check_rules()
    verifier = Verifier(Redactor(), SecondReader())
    out = Harvested()
    groups = Groups()
    spool.parent.mkdir(parents=True, exist_ok=True)
    prose = _read_sources(settings, root, spool, verifier.redactor, groups, out, report)
    staged = _clean(spool, verifier, prose, groups, out, report)
    spool.unlink(missing_ok=True)
    examples = _drop_near_duplicates(staged, settings.near_duplicate, out, report)
    _split(examples, staged, settings, suites, out)
    _require_enough(settings, out)
    out.figures["secret values"] = dict(
        sorted(Counter(kind for kind, _ in verifier.redactor.ordinals).items())
    )
    return out, verifier


def _read_sources(
    settings: Settings,
    root: Path,
    spool: Path,
    redactor: Redactor,
    groups: Groups,
    out: Harvested,
    report: Report,
) -> list[Prose]:
    limits = Limits(settings.window_tokens * CHARACTERS_PER_TOKEN, settings.tool_result_chars)
    prose: list[Prose] = []
    recorded = read_recorded(settings.recorded) if settings.recorded else {}
    listed = [(s, list_files(root, s.path, FORMATS[s.type].suffixes)) for s in settings.sources]
    total = sum(len(files) for _, files in listed)
    done = 0
    with spool.open("w", encoding="utf-8") as f:
        for source, files in listed:
            name = f"{source.type} {name_source(source.path)}"
            tally = out.tallies.setdefault(name, Tally())
            out.inputs += [{"source": name, **describe_input(x)} for x in files]
            order = {x.name: i + 1 for i, x in enumerate(files)}
            for said in FORMATS[source.type].read(files, tally):
                talk = apply_record(said, recorded)
                links = [redactor.redact(link) for link in talk.links]
                for link in links[1:]:
                    groups.join(links[0], link)
                tally.add("linked by", talk.labels.rung)
                inside = settings.admits(talk.labels.rig)
                if talk.plain and source.type in _PROSE and inside:
                    prose.append(Prose(links[0], redactor.redact(talk.plain)))
                for example in cut(talk, limits, redactor, tally):
                    out.staged += 1
                    if not settings.admits(example.rig):
                        out.dropped["outside the recipe's scope"] += 1
                        continue
                    example = replace(example, cluster=links[0])
                    f.write(canonical_json(example.to_json()) + "\n")
                report(done + order.get(talk.file, 0), total, "files", f"reading {name}")
            done += len(files)
            if source.type in _PROSE:
                prose += _read_docs(source, root, redactor, name, out)
    return prose


def _read_docs(
    source: Source, root: Path, redactor: Redactor, name: str, out: Harvested
) -> Iterator[Prose]:
    """Markdown beside beads and formulas: prose for the base model, no examples."""
    for file in list_optional(root, source.path, (".md",)):
        out.inputs.append({"source": name, **describe_input(file)})
        out.tallies[name].add("docs", "markdown")
        yield Prose(f"doc:{redactor.redact(file.name)}", redactor.redact(_strip(file)))


def _strip(file: InputFile) -> str:
    return read_input_text(file).replace("\x00", "").strip()


def _clean(
    spool: Path,
    verifier: Verifier,
    prose: list[Prose],
    groups: Groups,
    out: Harvested,
    report: Report,
) -> _Staged:
    """Pass 2: values propagated, second reader, exact copies dropped (the first stays)."""
    staged = _Staged(groups=groups)
    verifier.sweep = verifier.redactor.sweep()
    first: dict[str, str] = {}
    with spool.open(encoding="utf-8") as f:
        for number, line in enumerate(f, start=1):
            example = Example.from_json(json.loads(line))
            if example.id in first:
                groups.join(first[example.id], example.cluster)
                out.dropped["exact duplicate"] += 1
            else:
                first[example.id] = example.cluster
                staged.examples.append(verifier.clean_example(example))
            if number % 50 == 0 or number == out.staged:
                report(number, out.staged, "examples", "second scan")
    staged.examples = list(_unique(staged.examples, groups, out))
    for block in prose:
        staged.prose.append(Prose(block.cluster, verifier.clean_text(block.text)))
    return staged


def _unique(examples: list[Example], groups: Groups, out: Harvested) -> Iterator[Example]:
    kept: dict[str, Example] = {}
    for e in examples:
        if e.id in kept:
            groups.join(kept[e.id].cluster, e.cluster)
            out.dropped["exact duplicate"] += 1
        else:
            kept[e.id] = e
            yield e


def _drop_near_duplicates(
    staged: _Staged, threshold: float, out: Harvested, report: Report
) -> list[Example]:
    """Near copies share a cluster; one whose answers are the same too is dropped.

    Two cases that differ little and are answered differently teach a boundary: both stay.
    """
    examples = staged.examples
    report(0, None, "examples", "near-duplicates and clusters")
    dropped: set[int] = set()
    joined = 0
    texts = [write_plain(e) for e in examples]
    for a, b, _ in find_near_duplicates(texts, threshold, Words()):
        staged.groups.join(examples[a].cluster, examples[b].cluster)
        joined += 1
        if a not in dropped and _answers(examples[a]) == _answers(examples[b]):
            dropped.add(b)
    if dropped:
        out.dropped["near-duplicate"] = len(dropped)
    out.figures["near-duplicate pairs"] = joined
    return [
        replace(e, cluster=staged.groups.find(e.cluster))
        for i, e in enumerate(examples)
        if i not in dropped
    ]


def _answers(example: Example) -> str:
    return canonical_json([m for m in example.messages if m["role"] == "assistant"])


def _split(
    examples: list[Example],
    staged: _Staged,
    settings: Settings,
    suites: Sequence[Path],
    out: Harvested,
) -> None:
    """Sides, then the leak check: what training shares with held-out or a suite is dropped."""
    held = choose_held_out(examples, settings.heldout, settings.seed)
    words = Words()
    texts = [(e.cluster, write_plain(e)) for e in examples]
    held_texts = [t for c, t in texts if c in held]
    leaks = find_rare_phrases(held_texts, texts, words)
    suite_texts = [t for path in suites for t in _read_suite(path)]
    tests = find_rare_phrases(suite_texts, texts, words)
    for e, (_, text) in zip(examples, texts, strict=True):
        if e.cluster in held:
            out.heldout.append(e)
        elif leaks.shares(text):
            out.dropped["shares a rare phrase with held-out"] += 1
        elif tests.shares(text):
            out.dropped["shares a rare phrase with an eval suite"] += 1
        else:
            out.train.append(e)
    out.train.sort(key=lambda e: e.id)
    out.heldout.sort(key=lambda e: e.id)
    blocks: dict[str, None] = {}
    for block in staged.prose:
        if staged.groups.find(block.cluster) in held:
            out.figures["prose held out"] = out.figures.get("prose held out", 0) + 1
        elif leaks.shares(block.text) or tests.shares(block.text):
            out.figures["prose left out as leak"] = out.figures.get("prose left out as leak", 0) + 1
        elif block.text:
            blocks.setdefault(block.text)
    out.prose = list(blocks)
    train_clusters = {e.cluster for e in out.train}
    out.figures["leakage"] = {
        "shared clusters": len(train_clusters & {e.cluster for e in out.heldout}),
        "training examples with a rare held-out phrase": sum(
            leaks.shares(write_plain(e)) for e in out.train
        ),
        "training examples with an eval suite's phrase": sum(
            tests.shares(write_plain(e)) for e in out.train
        ),
        "suites": [p.name for p in suites],
    }


def _read_suite(path: Path) -> Iterator[str]:
    """The texts of eval items: what is asked and what is expected."""
    with path.open(encoding="utf-8") as f:
        for number, line in enumerate(f, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                yield "\n".join(
                    [*(m["content"] for m in item["messages"]), str(item.get("reference", ""))]
                )
            except (ValueError, KeyError, TypeError) as e:
                raise InputError(
                    f"{path.name}:{number} is not an eval item",
                    why=f"{type(e).__name__}: training could not be kept apart from it",
                    fix="gtft doctor",
                ) from e


def _require_enough(settings: Settings, out: Harvested) -> None:
    if len(out.train) >= settings.min_examples:
        return
    drops = ", ".join(f"{n} {why}" for why, n in out.dropped.most_common(3)) or "none"
    raise CorpusTooSmall(
        f"{len(out.train)} training examples, and the recipe wants {settings.min_examples}",
        why=f"{out.staged} were read, {len(out.heldout)} are held out, dropped: {drops}",
        fix="add sessions and go on with this run, or start another with more sources or "
        "--set harvest.min_examples=N",
    )
