"""Conversations to token rows: what the model reads, and which of it is trained.

A row has ``input_ids`` and ``labels`` of equal length; a label is -100 on everything but assistant tokens.
With a template that marks generations one row holds a whole conversation. Without marks each assistant turn is a row:
the prompt exactly as serving renders it, then the turn. A conversation that is too long becomes several
rows: context is cut from the left between messages, and every turn is supervised in exactly one row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2.exceptions import TemplateError

from gtft.training.examples import Conversation
from gtft.training.nano_text import escape_special

IGNORED = -100
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Row:
    """One training row of one example. ``cut``: messages of context that were left out."""

    example: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    cut: int

    @property
    def supervised(self) -> int:
        """How many tokens are trained (the first token of a row never is: nothing predicts it)."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Rendered:
    """The rows of one example, and the causes of what it does not train."""

    rows: tuple[Row, ...]
    causes: tuple[str, ...]
    escaped: int


def marks_generations(tokenizer: Any) -> bool:
    """Whether the chat template says which tokens are the assistant's."""
    return bool(_GENERATION.search(tokenizer.chat_template))


def render(conversation: Conversation, tokenizer: Any, max_length: int) -> Rendered:
    """All rows of a conversation, each at most ``max_length`` tokens.

    Causes: ``no-assistant-turn``, ``turn-too-long`` (a turn alone exceeds the limit), ``template-refuses``,
    ``prefix-differs`` (the template renders a prompt unlike the start of the conversation), ``no-tokens``.
    """
    clean, escaped = _escape(conversation, tokenizer)
    if not any(m["role"] == "assistant" for m in clean.messages):
        return Rendered((), ("no-assistant-turn",), escaped)
    writer = (_Marked if marks_generations(tokenizer) else _Turns)(clean, tokenizer, max_length)
    try:
        rows, causes = writer.write()
    except TemplateError as e:
        return Rendered((), (f"template-refuses: {e}",), escaped)
    kept = tuple(r for r in rows if r.supervised)
    if not kept and not causes:
        causes = ["no-tokens"]
    return Rendered(kept, tuple(causes), escaped)


class _Writer:
    """What both ways share: rendering a window of messages, and finding where it may start."""

    def __init__(self, conversation: Conversation, tokenizer: Any, max_length: int) -> None:
        self.id = conversation.id
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.tools = list(conversation.tools) or None
        messages = [dict(m) for m in conversation.messages]
        self.system = messages[:1] if messages and messages[0]["role"] == "system" else []
        self.body = messages[len(self.system) :]
        self.length = cache(self._measure)

    def window(self, start: int, end: int) -> list[dict[str, Any]]:
        """System, then the messages of [start, end); the first request stays where a cut would hide it."""
        head = list(self.system)
        if 0 < start < len(self.body) and self.body[start]["role"] == "assistant":
            head += self.body[:1]
        return head + self.body[start:end]

    def find_start(self, floor: int, turn: int, limit: int) -> int | None:
        """The earliest start in [floor, turn] with the turn's row within ``limit`` tokens, or None."""
        starts = [s for s in range(floor, turn + 1) if s == 0 or self.body[s]["role"] != "tool"]
        for start in starts:
            if self.length(start, turn + 1) <= limit:
                return start
        return None

    def text(self, messages: Sequence[dict[str, Any]], *, prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tools=self.tools, tokenize=False, add_generation_prompt=prompt
            )
        )

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def turns(self, start: int, end: int) -> list[int]:
        return [i for i in range(start, end) if self.body[i]["role"] == "assistant"]

    def _measure(self, start: int, end: int) -> int:
        return len(self.encode(self.text(self.window(start, end))))


class _Marked(_Writer):
    """Templates with generation marks: as many turns in one row as fit."""

    def write(self) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        causes: list[str] = []
        done = 0
        while turns := self.turns(done, len(self.body)):
            # A later row keeps half its length for new turns, the rest for what led to them.
            limits = (self.max_length // 2, self.max_length) if done else (self.max_length,)
            start = next(
                (s for m in limits if (s := self.find_start(0, turns[0], m)) is not None), None
            )
            if start is None:
                causes.append("turn-too-long")
                done = turns[0] + 1
                continue
            end = turns[0] + 1
            for turn in turns[1:]:
                if self.length(start, turn + 1) > self.max_length:
                    break
                end = turn + 1
            rows.append(self._row(start, end, done))
            done = end
        return rows, causes

    def _row(self, start: int, end: int, done: int) -> Row:
        messages = self.window(start, end)
        out = self.tokenizer.apply_chat_template(
            messages, tools=self.tools, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = out["input_ids"], out["assistant_masks"]
        spans = _find_spans(mask)
        turns = [m for m in messages if m["role"] == "assistant"]
        fresh = len(self.turns(max(done, start), end))
        if len(spans) == len(turns):
            spans = spans[len(turns) - fresh :]
        labels = [IGNORED] * len(ids)
        for first, last in spans:
            labels[first:last] = ids[first:last]
        return Row(self.id, tuple(ids), tuple(labels), cut=start)


class _Turns(_Writer):
    """Templates without marks: one row per assistant turn, prompt as served."""

    def write(self) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        causes: list[str] = []
        for turn in self.turns(0, len(self.body)):
            start = self.find_start(0, turn, self.max_length)
            if start is None:
                causes.append("turn-too-long")
                continue
            messages = self.window(start, turn + 1)
            prompt = self.text(messages[:-1], prompt=True)
            full = self.text(messages)
            if not full.startswith(prompt):
                causes.append("prefix-differs")
                continue
            context = self.encode(prompt)
            answer = self.encode(full[len(prompt) :].rstrip("\n"))
            ids = (context + answer)[: self.max_length]
            labels = [IGNORED] * len(context) + answer
            rows.append(Row(self.id, tuple(ids), tuple(labels[: len(ids)]), cut=start))
        return rows, causes


def _find_spans(mask: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for i, bit in enumerate([*mask, 0]):
        if bit and start is None:
            start = i
        elif not bit and start is not None:
            spans.append((start, i))
            start = None
    return spans


def _escape(conversation: Conversation, tokenizer: Any) -> tuple[Conversation, int]:
    """Text that spells a special token would end a turn early and shift the mask."""
    special = tuple(tokenizer.all_special_tokens)
    count = 0
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        content = message.get("content")
        if isinstance(content, str) and (safe := escape_special(content, special)) != content:
            message = {**message, "content": safe}
            count += 1
        messages.append(message)
    return Conversation(conversation.id, tuple(messages), conversation.tools), count
