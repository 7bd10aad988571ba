"""Preference pairs: read from the corpus, written as token rows, and proven before the first step.

Both answers of a pair follow the same prompt, rendered exactly as serving renders it; labels are -100 on
all that the model did not write. Context is cut from the left, between messages, to the same place for both.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gtft.dialect import TemplateRefuses
from gtft.errors import CorpusTooSmall, EvidenceError, TrainingError, translate_os_error
from gtft.training.examples import Conversation
from gtft.training.render import Renderer, Row, Writer, says
from gtft.training.watch import StopRequested, Watch

FILE = "preferences.jsonl"
_NAMED = 3


@dataclass(frozen=True)
class Preference:
    """A pair as the corpus holds it: two conversations that part after ``asked`` messages."""

    id: str
    why: str
    asked: int
    chosen: Conversation
    rejected: Conversation


@dataclass(frozen=True)
class Pair:
    """A pair as rows. ``prompt``: tokens that both rows start with."""

    id: str
    why: str
    prompt: int
    chosen: Row
    rejected: Row

    @property
    def tokens(self) -> int:
        return len(self.chosen.input_ids) + len(self.rejected.input_ids)


@dataclass(frozen=True)
class PairProof:
    """All pairs to train on, and (pair id, cause) of those that are not."""

    rows: tuple[Pair, ...]
    empty: tuple[tuple[str, str], ...]
    escaped: int
    max_length: int

    @property
    def examples(self) -> int:
        return len(self.rows) + len(self.empty)

    @property
    def supervised(self) -> int:
        return sum(p.chosen.supervised + p.rejected.supervised for p in self.rows)

    @property
    def context(self) -> int:
        return sum(p.tokens for p in self.rows) - self.supervised

    def as_dict(self) -> dict[str, Any]:
        """What ``mask.json`` holds; ``per_pair`` is [pair id, prompt, chosen, rejected] in tokens."""
        return {
            "max_length": self.max_length,
            "pairs": len(self.rows),
            "supervised_tokens": self.supervised,
            "context_tokens": self.context,
            "pairs_with_cut_context": sum(p.chosen.cut > 0 for p in self.rows),
            "messages_with_escaped_special_tokens": self.escaped,
            "why": dict(sorted(Counter(p.why for p in self.rows).items())),
            "left_out": [{"id": i, "cause": c} for i, c in self.empty],
            "per_pair": [
                [p.id, p.prompt, p.chosen.supervised, p.rejected.supervised] for p in self.rows
            ],
        }


@dataclass(frozen=True)
class Pairs:
    """Pairs for dpo and orpo; a unit is a pair."""

    pairs: tuple[Pair, ...]

    @cached_property
    def lengths(self) -> list[int]:
        return [p.tokens for p in self.pairs]


@dataclass(frozen=True)
class Judgement:
    """One answer and whether it was good. ``pair``: number of the pair it is from; ``tokens``: that pair's."""

    row: Row
    prompt: int
    good: bool
    pair: int
    tokens: int


@dataclass(frozen=True)
class Judgements:
    """Pairs taken apart for kto; a unit is a judgement."""

    judgements: tuple[Judgement, ...]

    @cached_property
    def lengths(self) -> list[int]:
        # Of the pair: by their own, good and bad answers would be sorted apart.
        return [j.tokens for j in self.judgements]


def read_preferences(path: Path) -> Iterator[Preference]:
    """The lines of ``preferences.jsonl``, in order. Raises EvidenceError naming the line that is not a pair."""
    try:
        with path.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield _parse(line, path, number)
    except OSError as e:
        raise translate_os_error(e, "reading the preference pairs") from e


def prove_pairs(
    preferences: Iterable[Preference], tokenizer: Any, max_length: int, watch: Watch
) -> PairProof:
    """Render every pair and account for each of them."""
    pairs: list[Pair] = []
    left_out: list[tuple[str, str]] = []
    escaped = 0
    renderer = PairRenderer(tokenizer, max_length)
    for preference in preferences:
        if watch.stop_requested:
            raise StopRequested(0, "stopped before the first step")
        done, spelled = renderer.render_pair(preference)
        escaped += spelled
        if isinstance(done, Pair):
            pairs.append(done)
        else:
            left_out.append((preference.id, done))
    return PairProof(tuple(pairs), tuple(left_out), escaped, max_length)


def check_pairs(proof: PairProof, min_pairs: int, max_unsupervised: float, watch: Watch) -> None:
    """Warn of pairs that are not trained; raise before step one when too few are left, or too many are not.

    Raises CorpusTooSmall below ``min_pairs``, TrainingError above ``max_unsupervised`` (a share).
    """
    causes = Counter(cause.split(":")[0] for _, cause in proof.empty)
    told = ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
    some = ", ".join(i for i, _ in proof.empty[:_NAMED])
    if proof.examples < min_pairs:
        raise CorpusTooSmall(
            f"{proof.examples} preference pairs, fewer than train.preference.min_pairs = {min_pairs}",
            why="a pair is two answers to one prompt, one kept and one not; most history has none",
            fix="harvest more sessions, or --set train.method=sft, or lower train.preference.min_pairs",
        )
    share = len(proof.empty) / max(1, proof.examples)
    if share > max_unsupervised or len(proof.rows) < min_pairs:
        limit = (
            f"{share:.0%} is above train.max_unsupervised = {max_unsupervised:.0%}"
            if share > max_unsupervised
            else f"{len(proof.rows)} are left, train.preference.min_pairs = {min_pairs}"
        )
        raise TrainingError(
            f"{len(proof.empty)} of {proof.examples} preference pairs can not be trained",
            why=f"{limit}: {told} (such as {some})",
            fix="gtft run RECIPE --set train.max_length=…, or mend the sources and harvest again",
        )
    if proof.empty:
        watch.warn(
            "pairs-left-out",
            f"{len(proof.empty)} pairs are not trained: {told} (such as {some})",
        )


def split_pairs(pairs: tuple[Pair, ...]) -> tuple[Judgement, ...]:
    """Every pair as two judgements. Which stand side by side is the order's matter (`plan_order`)."""
    return tuple(
        Judgement(row, pair.prompt, good, number, pair.tokens)
        for number, pair in enumerate(pairs)
        for row, good in ((pair.chosen, True), (pair.rejected, False))
    )


class PairRenderer(Renderer):
    """Renders pairs as `Renderer` renders conversations, both answers after the same prompt."""

    def render_pair(self, preference: Preference) -> tuple[Pair | str, int]:
        """The pair, or the cause why there is none; and how many messages spelled a special token.

        Causes: ``too-long`` (an answer with its request alone exceeds the limit), ``no-answer``,
        ``same-answer``, ``template-refuses``, ``template-drops-tools``, ``prefix-differs`` (the template writes an
        answer unlike the prompt for it, or rewrites what came before).
        """
        chosen, escaped = self._clean(preference.chosen)
        rejected, more = self._clean(preference.rejected)
        escaped = max(escaped, more)
        both = (*chosen.messages, *rejected.messages)
        if self.dialect.drops_tools and any(
            m["role"] == "tool" or m.get("tool_calls") for m in both
        ):
            return "template-drops-tools", escaped
        try:
            for separately in (True, False):
                self.coder.begin(separately)
                sides = (_Answer(chosen, self), _Answer(rejected, self))
                done = self._write_pair(preference, *sides)
                if all(side.confirmed for side in sides):
                    break
        except TemplateRefuses as e:
            return f"template-refuses: {e}", escaped
        return done, escaped

    def _clean(self, conversation: Conversation) -> tuple[Conversation, int]:
        messages, escaped = self.escape(conversation.messages)
        tools, _ = self.escape(conversation.tools)
        return replace(conversation, messages=messages, tools=tools), escaped

    def _write_pair(self, preference: Preference, chosen: _Answer, rejected: _Answer) -> Pair | str:
        first = preference.asked - len(chosen.system)
        starts = (s for s in range(first + 1) if s == 0 or chosen.body[s]["role"] != "tool")
        for start in starts:
            rows = [side.write_answer(start, first) for side in (chosen, rejected)]
            if any(isinstance(r, str) and r != "too-long" for r in rows):
                return next(r for r in rows if isinstance(r, str) and r != "too-long")
            good, bad = rows
            if isinstance(good, str) or isinstance(bad, str):
                continue
            if good.input_ids == bad.input_ids:
                return "same-answer"
            return Pair(preference.id, preference.why, good.spans[0][0], good, bad)
        return "too-long"


class _Answer(Writer):
    """Writes what follows a prompt as one row, trained where the model wrote it."""

    def write_answer(self, start: int, first: int) -> Row | str:
        """The row of all turns from message ``first`` on, with the context from ``start``; or the cause."""
        turns = [
            i
            for i, m in enumerate(self.body)
            if i >= first and m["role"] == "assistant" and says(m)
        ]
        if not turns:
            return "no-answer"
        # The longest row first: it tells whether any of this fits.
        last = self._turn(start, turns[-1])
        if last is None:
            return "prefix-differs"
        if last.length > self.max_length:
            return "too-long"
        ids, spans = None, []
        for number in turns:
            turn = self._turn(start, number)
            if turn is None or (ids is not None and turn.context[: len(ids)] != ids):
                return "prefix-differs"
            ids = turn.context + turn.answer
            spans.append((len(turn.context), len(ids)))
        self.confirmed &= self.coder.confirms(last.prompt, last.context)
        return Row(self.conversation.id, last.context + last.answer, tuple(spans), start)


def _parse(line: bytes, path: Path, number: int) -> Preference:
    try:
        doc = json.loads(line)
        prompt = tuple({**m, "role": str(m["role"])} for m in doc["prompt"])
        answers = [
            tuple({**m, "role": str(m["role"])} for m in doc[side])
            for side in ("chosen", "rejected")
        ]
        tools = tuple(doc.get("tools") or ())
        name = f"pair-{number}"
        chosen, rejected = (Conversation(name, prompt + a, tools) for a in answers)
        if not prompt or not all(answers):
            raise ValueError("prompt, chosen and rejected must hold messages")
        return Preference(name, str(doc.get("why") or "unknown"), len(prompt), chosen, rejected)
    except (ValueError, KeyError, TypeError) as e:
        raise EvidenceError(
            f"{path.name}:{number} is not a preference pair",
            why=f"{type(e).__name__}: {e}",
            fix="gtft run RECIPE (a new run harvests again)",
        ) from e
