"""The examples of a corpus on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator

from gtft.artifact import Artifact
from gtft.corpus.example import Example
from gtft.errors import EvidenceError

KIND = "corpus"


def read_examples(corpus: Artifact, name: str) -> Iterator[Example]:
    """The examples of ``train.jsonl`` or ``heldout.jsonl``, one by one."""
    path = corpus.file(name)
    try:
        with path.open(encoding="utf-8") as f:
            for line in f:
                yield Example.from_json(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EvidenceError(f"{path} cannot be read", why=repr(e), fix="gtft doctor") from e
