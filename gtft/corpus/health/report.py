"""The health of a corpus on disk: its report, its flagged examples, and what is asked of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gtft.artifact import Artifact, write_file
from gtft.corpus.example import Example
from gtft.corpus.health.costs import measure_costs
from gtft.corpus.health.measure import SIDES, Meter
from gtft.corpus.health.page import draw_page
from gtft.corpus.health.program_help import read_installed
from gtft.corpus.health.render import clean, render_health
from gtft.corpus.health.sufficiency import judge
from gtft.corpus.health.tokens import load_tokenizer, measure_tokens, render_tokens
from gtft.corpus.health.words import write_words
from gtft.corpus.library import read_examples
from gtft.errors import EvidenceError
from gtft.shelf import read_document

FLAGS = "flags.jsonl"


class Entry(msgspec.Struct, frozen=True):
    """One line of ``flags.jsonl``: an example that is worth a look, and why."""

    id: str
    flags: tuple[str, ...] = ()


def read_report(corpus: Artifact) -> dict[str, Any]:
    """``health.json``. Raises EvidenceError for one that an older gtft wrote."""
    doc = read_document(corpus, "health.json")
    if "verdict" not in doc:
        raise EvidenceError(
            f"{corpus.path.name} has a health report of an older gtft",
            why="it holds no verdict",
            fix="harvest again: gtft run RECIPE    (an unchanged source is not read again)",
        )
    return dict(doc)


def list_flagged(corpus: Artifact, what: str) -> list[dict[str, Any]]:
    """The examples with a flag that begins with ``what``; "" means any. Raises EvidenceError."""
    path = corpus.file(FLAGS)
    decoder = msgspec.json.Decoder(Entry)
    found = []
    try:
        with path.open("rb") as f:
            for line in f:
                entry = decoder.decode(line)
                if any(flag.startswith(what) for flag in entry.flags):
                    found.append({"id": entry.id, "flags": list(entry.flags)})
    except (OSError, msgspec.MsgspecError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
    return found


def render_flagged(entries: list[dict[str, Any]]) -> str:
    """One line each; the command that shows one stands last."""
    if not entries:
        return "no example is flagged so: gtft corpus health lists the flags\n"
    lines = [f"{e['id']}  {', '.join(clean(f) for f in e['flags'])}" for e in entries]
    return "\n".join([*lines, f"next: gtft corpus preview --example {entries[0]['id']}"]) + "\n"


def ask_installed(
    corpus: Artifact, health: dict[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """``staleness`` against the programs on PATH. ``health`` gets verdict and words to match."""
    meter = Meter(health["role"], 1, read_installed(environ))
    for side, example in _read_all(corpus):
        meter.add(example, side)
    stale = meter.describe_staleness()
    health["staleness"] = stale
    health["verdict"] = judge(health)
    health["words"] = write_words(health)
    return stale


def count_tokens(corpus: Artifact, tokenizer: Path) -> dict[str, Any]:
    encode = load_tokenizer(tokenizer)
    return measure_tokens((example for _, example in _read_all(corpus)), encode)


def count_costs(corpus: Artifact, tokenizer: Path) -> dict[str, Any]:
    """The tokens of a corpus by what they spell. Raises MissingExtra and InputError."""
    encode = load_tokenizer(tokenizer)
    return measure_costs((example for _, example in _read_all(corpus)), encode)


def _read_all(corpus: Artifact) -> Iterator[tuple[str, Example]]:
    for side in SIDES:
        for example in read_examples(corpus, f"{side}.jsonl"):
            yield side, example


def render_report(health: dict[str, Any]) -> str:
    """The page of `render_health`, and what was asked besides."""
    page = render_health(health)
    if tokens := health.get("tokens per bead id"):
        page += "\n" + render_tokens(tokens)
    return page


def write_page(path: Path, health: dict[str, Any], name: str) -> None:
    """The HTML page at ``path``, whole or not at all. Raises a GtftError when the disk refuses."""
    write_file(path, draw_page(health, name).encode("utf-8", "replace"))
