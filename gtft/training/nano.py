"""``base = "nano"``: a small Llama built from scratch on the town's own text, cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import hash_json, stage_artifact, verify_artifact, write_json
from gtft.errors import EvidenceError, InputError, translate_os_error
from gtft.recipe.schema import Nano
from gtft.training.nano_exercises import compose_exercises
from gtft.training.nano_text import END, render_passages, split_documents
from gtft.training.nano_tokenizer import train_tokenizer
from gtft.training.pretrain import ROW_TOKENS, ROWS_PER_STEP, Passage, build_model, pretrain
from gtft.training.render import IGNORED
from gtft.training.watch import Watch

KIND = "nano"
CARD = "nano.json"
# Part of the cache key: raise it whenever the code gives other weights for the same text.
FORMAT = 1
_SEED = 20
# The rest of what is read are exercises.
_TEXT_SHARE = 0.3


@dataclass(frozen=True)
class BuiltNano:
    """A finished nano base on disk. ``reused``: it was there, whole."""

    path: Path
    key: str
    reused: bool


def compute_key(text: bytes, nano: Nano) -> str:
    """``sha256:…`` of everything the weights follow from: text, shape and code format."""
    return hash_json(
        {"text": hashlib.sha256(text).hexdigest(), "nano": nano.model_dump(), "format": FORMAT}
    )


def find_nano(bases: Path, key: str, watch: Watch) -> Path | None:
    """The folder of an intact nano base with this key, or None. A damaged one is named and passed over."""
    for folder in sorted(bases.glob(f"{KIND}-*")):
        try:
            if key not in (folder / CARD).read_text("utf-8"):
                continue
            verify_artifact(folder, kind=KIND)
            return folder
        except EvidenceError as e:
            watch.warn("base-damaged", f"{folder.name} is not used: {e.what}")
        except (OSError, UnicodeDecodeError) as e:
            watch.warn("base-damaged", f"{folder.name} is not used: {e}")
    return None


def ensure_nano(
    text_file: Path, nano: Nano, bases: Path, watch: Watch, clock: Callable[[], float]
) -> BuiltNano:
    """The nano base of a text: found in ``bases`` or built there, published whole or not at all.

    Raises InputError when the text holds nothing to learn from, StopRequested when asked to stop.
    """
    try:
        text = text_file.read_bytes()
    except OSError as e:
        raise translate_os_error(e, "reading the base text") from e
    key = compute_key(text, nano)
    found = find_nano(bases, key, watch)
    if found is not None:
        watch.progress(nano.steps, nano.steps, "base steps", 0.0, f"nano base {found.name} reused")
        return BuiltNano(found, key, reused=True)
    return BuiltNano(
        _build(text.decode("utf-8", "replace"), key, nano, bases, watch, clock), key, False
    )


def _build(
    text: str, key: str, nano: Nano, bases: Path, watch: Watch, clock: Callable[[], float]
) -> Path:
    documents = split_documents(text)
    texts = [p for d in documents for p in render_passages(d)]
    if not texts:
        raise InputError(
            "the corpus has no text to build the nano base from",
            why="its base.txt is empty: no document, formula or bead was harvested",
            fix="add a source of type formulas or beads to the recipe, or name a base model",
        )
    watch.progress(0, nano.steps, "base steps", None, "nano base: tokenizer")
    tokenizer = train_tokenizer(texts, nano.vocab, nano.context)
    passages = _mix(texts, documents, tokenizer, nano.steps * ROW_TOKENS * ROWS_PER_STEP)
    model = build_model(
        nano,
        len(tokenizer),
        eos=tokenizer.eos_token_id,
        pad=tokenizer.convert_tokens_to_ids(END),
        seed=_SEED,
    )
    made = pretrain(model, passages, nano.steps, seed=_SEED, watch=watch, clock=clock)
    with stage_artifact(bases, KIND) as staging:
        made.model.save_pretrained(staging.path)
        tokenizer.save_pretrained(staging.path)
        write_json(
            staging.path / CARD,
            {
                "key": key,
                "nano": nano.model_dump(),
                "documents": len(documents),
                "passages": len(passages),
                "tokens_read": made.tokens,
                "parameters": sum(p.numel() for p in made.model.parameters()),
                "loss": {
                    "first": made.losses[0] if made.losses else None,
                    "last": made.losses[-1] if made.losses else None,
                },
            },
        )
    return staging.result.path


def _mix(texts: list[str], documents: list[str], tokenizer: Any, budget: int) -> list[Passage]:
    """About ``budget`` tokens: the text over and over for its share, exercises for the rest."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    read = [Passage(ids, ids) for ids in (tuple(encode(t)) for t in texts)]
    size = sum(len(p.ids) for p in read)
    mixed = read * max(1, round(budget * _TEXT_SHARE / size))
    left = budget - size * (len(mixed) // len(read))
    for exercise in compose_exercises(documents, _SEED):
        if left <= 0:
            break
        ids: list[int] = []
        targets: list[int] = []
        for piece in exercise:
            tokens = encode(piece.text)
            ids += tokens
            targets += tokens if piece.trained else [IGNORED] * len(tokens)
        mixed.append(Passage(tuple(ids), tuple(targets)))
        left -= len(ids)
    return mixed
