"""How much there is to train on: rows and tokens of one pass, from a corpus, an earlier run or the sources."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact
from gtft.errors import EvidenceError, translate_os_error
from gtft.recipe.methods import PAIRED
from gtft.recipe.schema import Recipe
from gtft.runner.past import Past

# Measured on the shipped sample town and on real towns, over what corpora render to.
CHARS_PER_TOKEN = 3.5
# Of nano by its vocabulary: 1.65 with 600 tokens, 2.45 with 1536.
_NANO_CHARS, _NANO_CHARS_PER_DOUBLING = 1.65, 0.58
_TOKENS_PER_MESSAGE = 5
# 4 % of real transcripts' bytes became training text, 14 % of the sample town's.
_SHARE_OF_SOURCES = 0.1
_TOKENS_PER_EXAMPLE = 350
_TRAIN_FILE, _PAIRS_FILE = "train.jsonl", "preferences.jsonl"


@dataclass(frozen=True)
class Volume:
    """One pass. ``rows``: what an update counts (pairs and judgements for those methods); ``tokens`` of all;
    ``longest``: tokens of the longest row; ``rough``: counted from bytes alone."""

    rows: int
    tokens: int
    longest: int
    source: str
    rough: bool = False
    # As it was trained, with general text and without what is kept out.
    exact: bool = False


def measure_volume(
    recipe: Recipe, corpus: Artifact | None, pasts: Sequence[Past], source_bytes: int
) -> Volume:
    """Raises EvidenceError for a corpus that cannot be read."""
    if corpus is not None:
        return _count_corpus(recipe, corpus, _calibrate(recipe))
    again = next((p for p in pasts if p.rows and p.tokens), None)
    if again is not None and again.rows and again.tokens:
        text = f"as {again.run.id}: {again.rows} rows, {again.tokens} tokens"
        return Volume(again.rows, again.tokens, recipe.train.max_length, text, exact=True)
    tokens = int(source_bytes * _SHARE_OF_SOURCES / _calibrate(recipe))
    rows = max(recipe.harvest.min_examples, tokens // _TOKENS_PER_EXAMPLE)
    text = (
        f"{_SHARE_OF_SOURCES:.0%} of the sources' {source_bytes} bytes; known after the harvest, or "
        "with --corpus"
    )
    return Volume(rows, max(tokens, rows), recipe.train.max_length, text, rough=True)


def add_replay(recipe: Recipe, volume: Volume) -> Volume:
    """With what is kept out to measure on taken away, and general text mixed in."""
    keep = recipe.train.retention
    if recipe.train.method != "sft":
        return volume
    factor = (1 - keep.validation) / (1 - keep.replay)
    rows = max(1, round(volume.rows * factor))
    return Volume(rows, round(volume.tokens * factor), volume.longest, volume.source, volume.rough)


def _calibrate(recipe: Recipe) -> float:
    if recipe.base.model != "nano":
        return CHARS_PER_TOKEN
    doublings = math.log2(recipe.base.nano.vocab / 600)
    return min(CHARS_PER_TOKEN, max(1.5, _NANO_CHARS + _NANO_CHARS_PER_DOUBLING * doublings))


def _count_corpus(recipe: Recipe, corpus: Artifact, chars: float) -> Volume:
    train = recipe.train
    paired = train.method in PAIRED
    path = corpus.file(_PAIRS_FILE if paired else _TRAIN_FILE)
    rows = tokens = longest = 0
    for row in _read_lines(path):
        for size, messages in _list_answers(row) if paired else [_weigh(row, "messages")]:
            length = math.ceil(size / chars) + messages * _TOKENS_PER_MESSAGE
            # A longer conversation goes on in rows that repeat half of what was before.
            half = max(1, train.max_length // 2)
            more = math.ceil(max(0, length - train.max_length) / half)
            rows += 1 + more
            tokens += min(length, train.max_length) + more * train.max_length
            longest = max(longest, min(length, train.max_length))
    if paired and train.method != "kto":
        rows = math.ceil(rows / 2)
    source = f"corpus {corpus.path.name}: {chars:.2g} characters a token"
    return Volume(max(1, rows), max(1, tokens), max(1, longest), source)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as f:
            found = [json.loads(line) for line in f if line.strip()]
    except OSError as e:
        raise translate_os_error(e, "reading the corpus") from e
    except ValueError as e:
        raise EvidenceError(f"{path} is not JSON lines", why=str(e), fix="gtft corpus list") from e
    return [row for row in found if isinstance(row, dict)]


def _list_answers(row: dict[str, Any]) -> list[tuple[int, int]]:
    """Both answers of a pair, each with its question."""
    prompt, count = _weigh(row, "prompt")
    return [
        (prompt + size, count + n)
        for size, n in (_weigh(row, "chosen"), _weigh(row, "rejected"))
        if n
    ]


def _weigh(row: dict[str, Any], key: str) -> tuple[int, int]:
    """(characters, messages) of a list of messages, tools included."""
    messages = row.get(key)
    if isinstance(messages, str):
        return len(messages), 1
    if not isinstance(messages, list):
        return 0, 0
    size = len(json.dumps(row["tools"])) if key == "messages" and row.get("tools") else 0
    for m in messages:
        if isinstance(m, dict):
            content = m.get("content")
            size += len(content) if isinstance(content, str) else len(json.dumps(content or ""))
            size += len(json.dumps(m["tool_calls"])) if m.get("tool_calls") else 0
    return size, len(messages)
