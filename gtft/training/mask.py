"""The mask proof: before the first step, every row shows what it trains or why it trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gtft.errors import TrainingError
from gtft.training.examples import Conversation
from gtft.training.render import Renderer, Row, marks_generations
from gtft.training.watch import StopRequested, Watch

# Examples between two words of progress: some seconds.
_TOLD_EVERY = 2000


@dataclass(frozen=True)
class Proof:
    """All rows to train on, and what is not trained: ``empty`` and ``partial`` are (example id, cause).

    ``escaped``: messages that spelled a special token. ``open_ended``: rows that do not end with one.
    ``silenced``: trained turns whose text the template leaves out because they also call a tool.
    """

    rows: tuple[Row, ...]
    examples: int
    empty: tuple[tuple[str, str], ...]
    partial: tuple[tuple[str, str], ...]
    escaped: int
    marked: bool
    max_length: int
    open_ended: int
    silenced: int = 0

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
            "turns": sum(len(r.spans) for r in self.rows),
            "supervised_tokens": self.supervised,
            "context_tokens": self.context,
            "rows_with_cut_context": sum(r.cut > 0 for r in self.rows),
            "rows_without_end_of_turn": self.open_ended,
            "turns_with_text_left_out": self.silenced,
            "messages_with_escaped_special_tokens": self.escaped,
            "empty_examples": [{"id": i, "cause": c} for i, c in self.empty],
            "untrained_turns": [{"id": i, "cause": c} for i, c in self.partial],
            "per_row": [[r.example, len(r.input_ids), r.supervised] for r in self.rows],
        }


def prove(
    conversations: Iterable[Conversation], tokenizer: Any, max_length: int, watch: Watch
) -> Proof:
    """Render every conversation once, in order, and account for each of them.

    Raises StopRequested between two conversations when asked to stop.
    """
    renderer = Renderer(tokenizer, max_length)
    rows: list[Row] = []
    empty: list[tuple[str, str]] = []
    partial: list[tuple[str, str]] = []
    examples = escaped = silenced = 0
    for conversation in conversations:
        if watch.stop_requested:
            raise StopRequested(0, "stopped before the first step")
        done = renderer.render(conversation)
        examples += 1
        escaped += done.escaped
        silenced += done.silenced
        rows.extend(done.rows)
        if done.rows:
            partial.extend((conversation.id, c) for c in done.causes)
        else:
            empty.append((conversation.id, "; ".join(sorted(set(done.causes)))))
        if examples % _TOLD_EVERY == 0:
            watch.progress(examples, None, "examples", None, f"{len(rows)} rows")
    special = set(tokenizer.convert_tokens_to_ids(list(renderer.dialect.special)))
    return Proof(
        tuple(rows),
        examples,
        tuple(empty),
        tuple(partial),
        escaped,
        marks_generations(tokenizer),
        max_length,
        sum(r.input_ids[-1] not in special for r in rows),
        silenced,
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
        why = Counter(cause.split(":")[0] for _, cause in proof.partial)
        said = ", ".join(f"{n} {cause}" for cause, n in why.most_common())
        fix = "; raise train.max_length" if "-too-long" in said else ""
        watch.warn("untrained-turns", f"{len(proof.partial)} turns are not trained: {said}{fix}")
    if proof.silenced:
        watch.warn(
            "text-left-out",
            f"{proof.silenced} turns say something beside a tool call, and the base's chat template leaves it out",
        )
    if proof.open_ended:
        watch.warn(
            "no-end-of-turn",
            f"{proof.open_ended} rows do not train the end of a turn: the model may not learn to stop",
        )
