"""What a training reads of a corpus, proven before the first step; one function, because GRPO needs eval's checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact
from gtft.recipe.schema import Recipe
from gtft.training.adapter import Account
from gtft.training.material import Material
from gtft.training.retention import Retention
from gtft.training.watch import Watch


@dataclass(frozen=True)
class Lesson:
    """``account``: the corpus's own rows, for the figures; ``material``: what the trainer reads, replay
    included; ``mask`` and ``summary``: what the artifact tells beside the account."""

    account: Account
    material: Material
    retention: Retention
    mask: dict[str, Any]
    summary: dict[str, Any]


def prepare_lesson(
    recipe: Recipe, packing: bool, corpus: Artifact, tokenizer: Any, root: Path, watch: Watch
) -> Lesson:
    """Render, prove, keep rows out, mix replay in. ``root``: where relative paths start. Raises TrainingError
    and CorpusTooSmall before anything is trained."""
    from gtft.training.general import make_rows, read_general

    train = recipe.train
    source = read_general(
        train.retention.general,
        root=root,
        base_text=corpus.file("base.txt") if recipe.base.model == "nano" else None,
        watch=watch,
    )
    if train.method == "sft":
        return _prepare_rows(recipe, packing, corpus, tokenizer, source, watch)
    account, material = _prepare_other(recipe, corpus, tokenizer, watch)
    measured = make_rows(source.measured, tokenizer, train.max_length)
    retention = Retention(train.retention, measured, (), watch, text=source.id)
    return Lesson(account, material, retention, {}, {"general": source.as_dict()})


def _prepare_rows(
    recipe: Recipe, packing: bool, corpus: Artifact, tokenizer: Any, source: Any, watch: Watch
) -> Lesson:
    from gtft.training.examples import read_conversations
    from gtft.training.mask import check_proof, prove
    from gtft.training.material import Rows
    from gtft.training.validation import divide

    train = recipe.train
    examples = corpus.file("train.jsonl")
    proof = prove(read_conversations(examples), tokenizer, train.max_length, watch)
    check_proof(proof, train.max_unsupervised, watch)
    division = divide(proof.rows, examples, source, tokenizer, train, watch)
    account = replace(proof, rows=division.own)
    material = Rows(division.mixed.rows, train.max_length if packing else 0)
    retention = Retention(
        train.retention,
        division.general,
        division.validation,
        watch,
        text=source.id,
        # In a swarm the last round is the result.
        decides=train.engine == "local",
    )
    return Lesson(
        account,
        material,
        retention,
        {"retention": division.as_dict(), "packs": material.pack_sizes},
        {
            "general": source.as_dict(),
            "replayed_rows": division.mixed.replayed,
            "kept_out_clusters": len(division.kept_out),
        },
    )


def _prepare_other(
    recipe: Recipe, corpus: Artifact, tokenizer: Any, watch: Watch
) -> tuple[Account, Material]:
    from gtft.training.preferences import (
        FILE,
        Judgements,
        Pairs,
        check_pairs,
        prove_pairs,
        read_preferences,
        split_pairs,
    )
    from gtft.training.questions import Questions, check_questions

    train = recipe.train
    if train.method == "grpo":
        from gtft.workers.questions import read_questions

        room = train.max_length - train.reward.max_new_tokens
        asked, judge = read_questions(corpus.file("train.jsonl"), tokenizer, room)
        check_questions(asked)
        return asked, Questions(asked.rows, judge)
    pairs = prove_pairs(read_preferences(corpus.file(FILE)), tokenizer, train.max_length, watch)
    check_pairs(pairs, train.preference.min_pairs, train.max_unsupervised, watch)
    if train.method == "kto":
        return pairs, Judgements(split_pairs(pairs.rows))
    return pairs, Pairs(pairs.rows)
