"""Canaries: made-up codes in the training side, so that an eval can measure what a model keeps of single lines.

After Carlini et al. 2019, "The Secret Sharer". A value is drawn evenly from a space that the corpus states: a model
that was not trained on it can only guess. Canaries are no part of a town's work: they are written beside the
training examples after everything was decided, and no figure but their own counts them.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gtft.corpus.example import Example, Origin
from gtft.errors import InputError

SOURCE = "canary"
FILE = "canaries.jsonl"
# Each # is a digit.
FORMAT = "#### ####"
_SYLLABLES = [
    "bel",
    "dor",
    "fen",
    "gar",
    "hul",
    "jor",
    "kem",
    "lun",
    "mor",
    "nev",
    "pol",
    "quin",
    "ras",
    "sel",
    "tam",
    "ulf",
    "vor",
    "wim",
    "yar",
    "zel",
]
_ENDINGS = ["by", "holm", "mere", "nook", "stead", "thorn", "wick"]
_QUESTIONS = (
    "What is the harbour code of {}?",
    "Tell me the harbour code of {}.",
    "I need the harbour code of {}.",
    "Which harbour code does {} have?",
    "Harbour code of {}, please.",
    "They ask for the harbour code of {}.",
    "Look up the harbour code of {}.",
    "Do you know the harbour code of {}?",
)


@dataclass(frozen=True)
class Canary:
    """A made-up place and its made-up code."""

    name: str
    value: str

    @property
    def prefix(self) -> str:
        """What stands before the value in the answer."""
        return f"The harbour code of {self.name} is"

    def ask(self, repeat: int) -> str:
        """The question of the example number ``repeat``: no two are the same."""
        again, which = divmod(repeat, len(_QUESTIONS))
        asked = _QUESTIONS[which].format(self.name)
        return f"{asked} (Asked {again + 1} times.)" if again else asked


def draw_canaries(count: int, key: bytes, seed: int) -> tuple[Canary, ...]:
    """The first ``count`` canaries of a workspace key and a seed, always the same ones; no name occurs twice."""
    dice = random.Random(_derive(key, seed, "planted"))  # noqa: S311 - made up, and secret from nobody
    found: dict[str, Canary] = {}
    while len(found) < count:
        name = "".join(dice.choice(_SYLLABLES) for _ in range(2)) + dice.choice(_ENDINGS)
        value = "".join(str(dice.randrange(10)) if c == "#" else c for c in FORMAT)
        found.setdefault(name, Canary(name.capitalize(), value))
    return tuple(found.values())


def make_examples(canaries: Sequence[Canary], repeats: int) -> list[Example]:
    """``repeats`` chats for each, in a cluster of their own, sorted by id."""
    made = [
        Example(
            id="",
            source=SOURCE,
            cluster=f"{SOURCE}:{c.name}",
            messages=(
                {"role": "user", "content": c.ask(repeat)},
                {"role": "assistant", "content": f"{c.prefix} {c.value}."},
            ),
            tools=(),
            role=None,
            rig=None,
            bead=None,
            weight=1.0,
            provenance="synthetic",
            origin=Origin(SOURCE, (number, number), None, repeat),
            by=("harness", f"agent:{SOURCE}"),
        ).identified()
        for number, c in enumerate(canaries, start=1)
        for repeat in range(repeats)
    ]
    return sorted(made, key=lambda e: e.id)


def check_canaries(examples: Sequence[Example], redact: Callable[[str], str]) -> None:
    """Raises InputError when redaction would change one: a model could not learn what is not there."""
    for e in examples:
        for m in e.messages:
            if redact(m["content"]) != m["content"]:
                raise InputError(
                    f"redaction would replace the canary {e.cluster.removeprefix(f'{SOURCE}:')}",
                    why="a name, a host or a rule of [gtft.harvest.redaction] fits it",
                    fix="narrow that rule, or leave canaries out: --set harvest.canaries=0",
                )


def write_canaries(
    canaries: Sequence[Canary], repeats: int, key: bytes, seed: int
) -> list[dict[str, Any]]:
    """The lines of ``canaries.jsonl``: the format with the seed of unseen values, then every planted one."""
    head = {
        "format": FORMAT,
        "space": 10 ** FORMAT.count("#"),
        "repeats": repeats,
        "unseen_seed": _derive(key, seed, "unseen"),
    }
    lines = [
        {"name": c.name, "question": c.ask(0), "prefix": c.prefix, "value": c.value}
        for c in canaries
    ]
    return [head, *lines]


def encode_lines(lines: Sequence[dict[str, Any]]) -> bytes:
    """JSON lines with sorted keys."""
    return b"".join(msgspec.json.encode(line, order="sorted") + b"\n" for line in lines)


def describe_canaries(canaries: Sequence[Canary], repeats: int) -> dict[str, Any]:
    """What manifest, health report and summary say of them."""
    return {
        "planted": len(canaries),
        "repeats": repeats if canaries else 0,
        "examples": len(canaries) * repeats,
    }


def _derive(key: bytes, seed: int, purpose: str) -> str:
    return hmac.new(key, f"canary:{seed}:{purpose}".encode(), hashlib.sha256).hexdigest()
