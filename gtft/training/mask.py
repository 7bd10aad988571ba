"""The mask proof: before the first step, every row shows what it trains or why it trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gtft.errors import TrainingError
from gtft.training.examples import Conversation
from gtft.training.render import IGNORED, Row, marks_generations, render
from gtft.training.watch import StopRequested, Watch


@dataclass(frozen=True)
class Proof:
    """All rows to train on, and what is not trained: ``empty`` and ``partial`` are (example id, cause)."""

    rows: tuple[Row, ...]
    examples: int
    empty: tuple[tuple[str, str], ...]
    partial: tuple[tuple[str, str], ...]
    escaped: int
    marked: bool
    max_length: int
    open_ended: int

    @property
    def supervised(self) -> int:
        return sum(r.supervised for r in self.rows)

    @property
    def context(self) -> int:
        return sum(len(r.input_ids) for r in self.rows) - self.supervised

    def as_dict(self) -> dict[str, Any]:
        """What ``mask.json`` holds; ``per_row`` is [example id, tokens, supervised tokens]."""
        return {
            "template_marks_generations": self.marked,
            "max_length": self.max_length,
            "examples": self.examples,
            "rows": len(self.rows),
            "supervised_tokens": self.supervised,
            "context_tokens": self.context,
            "rows_with_cut_context": sum(r.cut > 0 for r in self.rows),
            "rows_without_end_of_turn": self.open_ended,
            "messages_with_escaped_special_tokens": self.escaped,
            "empty_examples": [{"id": i, "cause": c} for i, c in self.empty],
            "untrained_turns": [{"id": i, "cause": c} for i, c in self.partial],
            "per_row": [[r.example, len(r.input_ids), r.supervised] for r in self.rows],
        }


def prove(
    conversations: Iterable[Conversation], tokenizer: Any, max_length: int, watch: Watch
) -> Proof:
    """Render every conversation and account for each of them."""
    rows: list[Row] = []
    empty: list[tuple[str, str]] = []
    partial: list[tuple[str, str]] = []
    examples = escaped = 0
    for conversation in conversations:
        if watch.stop_requested:
            raise StopRequested(0, "stopped before the first step")
        done = render(conversation, tokenizer, max_length)
        examples += 1
        escaped += done.escaped
        rows.extend(done.rows)
        if done.rows:
            partial.extend((conversation.id, c) for c in done.causes)
        else:
            empty.append((conversation.id, "; ".join(sorted(set(done.causes)))))
    special = set(tokenizer.all_special_ids)
    open_ended = sum(_last_trained(r) not in special for r in rows)
    return Proof(
        tuple(rows),
        examples,
        tuple(empty),
        tuple(partial),
        escaped,
        marks_generations(tokenizer),
        max_length,
        open_ended,
    )


def check_proof(proof: Proof, max_unsupervised: float, watch: Watch) -> None:
    """Warn of what is not trained; raise TrainingError before step one when it is too much."""
    causes = Counter(cause.split(":")[0] for _, cause in proof.empty)
    told = ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
    if not proof.rows:
        raise TrainingError(
            f"none of the {proof.examples} training examples has a token to train on",
            why=told or "the corpus is empty",
            fix="gtft corpus preview CORPUS, then raise train.max_length or mend the sources",
        )
    share = len(proof.empty) / proof.examples
    if share > max_unsupervised:
        some = ", ".join(i for i, _ in proof.empty[:3])
        raise TrainingError(
            f"{len(proof.empty)} of {proof.examples} training examples have no token to train on",
            why=f"{share:.0%} is above train.max_unsupervised = {max_unsupervised:.0%}: {told} (such as {some})",
            fix="gtft run RECIPE --set train.max_length=…, or mend the sources and harvest again",
        )
    if proof.empty:
        watch.warn("empty-rows", f"{len(proof.empty)} examples train nothing: {told}")
    if proof.partial:
        watch.warn("untrained-turns", f"{len(proof.partial)} turns are too long to be trained")
    if proof.open_ended:
        watch.warn(
            "no-end-of-turn",
            f"{proof.open_ended} rows do not train the end of a turn: the model may not learn to stop",
        )


def _last_trained(row: Row) -> int:
    return next((label for label in reversed(row.labels) if label != IGNORED), IGNORED)
