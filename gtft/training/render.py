"""Conversations to token rows: what the model reads, and which of it is trained.

The context of a turn is exactly what serving renders for it: the messages before it, with the generation
prompt. What the template then writes for the turn is trained, with its end of turn. Turns share a row where
the tokens of one are a prefix of the context of the next; a template that rewrites its history (most that
strip thinking) gets a row for each turn. A conversation that is too long becomes several rows: context is cut
from the left between messages, and every turn is supervised in exactly one row.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gtft.dialect import Dialect, TemplateRefuses, learn_dialect, write_chat
from gtft.training.examples import Conversation

IGNORED = -100
# How a tokenizer splits is a property of the tokenizer: it shows in the first rows or never.
_CHECKED_ROWS = 256
_THOUGHT = "gtftthought"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Row:
    """One training row of one example.

    ``spans``: [first, last) of the trained tokens, in order; the row ends with the last of them. ``cut``:
    messages of context that were left out. ``weight`` multiplies its loss.
    """

    example: str
    input_ids: array[int]
    spans: tuple[tuple[int, int], ...]
    cut: int
    weight: float = 1.0

    @property
    def labels(self) -> array[int]:
        """``input_ids``, with IGNORED for what is not trained."""
        out = array("i", [IGNORED]) * len(self.input_ids)
        for first, last in self.spans:
            out[first:last] = self.input_ids[first:last]
        return out

    @property
    def supervised(self) -> int:
        """How many tokens are trained (the first token of a row never is: nothing predicts it)."""
        return sum(last - max(first, 1) for first, last in self.spans)


@dataclass(frozen=True)
class Rendered:
    """The rows of one example, and the causes of what it does not train.

    ``escaped``: messages that spelled a special token. ``silenced``: trained turns whose text the template
    leaves out because they also call a tool.
    """

    rows: tuple[Row, ...]
    causes: tuple[str, ...]
    escaped: int = 0
    silenced: int = 0


def marks_generations(tokenizer: Any) -> bool:
    """Whether the chat template says which tokens are the assistant's. Rows do not depend on it."""
    return bool(_GENERATION.search(tokenizer.chat_template))


def render(conversation: Conversation, tokenizer: Any, max_length: int) -> Rendered:
    """All rows of one conversation; for many, keep a ``Renderer``."""
    return Renderer(tokenizer, max_length).render(conversation)


class Renderer:
    """Renders conversations to rows of at most ``max_length`` tokens, each piece of text tokenized once."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.dialect = learn_dialect(tokenizer)
        self.coder = _Coder(tokenizer)

    def render(self, conversation: Conversation) -> Rendered:
        """The rows of a conversation, and why it trains less than it says.

        Causes: ``no-assistant-turn``; ``nothing-asked`` (no message before the turn); ``empty-turn``;
        ``turn-too-long``; ``context-too-long`` (with what it answers the turn exceeds the limit);
        ``template-refuses``; ``template-drops-tools`` (calls or results would vanish); ``prefix-differs``
        (the template writes a turn unlike the prompt for it); ``no-tokens``.
        """
        messages, escaped = self.escape(conversation.messages)
        tools, _ = self.escape(conversation.tools)
        clean = replace(conversation, messages=messages, tools=tools)
        if not any(m["role"] == "assistant" for m in messages):
            return Rendered((), ("no-assistant-turn",), escaped)
        if self.dialect.drops_tools and any(
            m["role"] == "tool" or m.get("tool_calls") for m in messages
        ):
            return Rendered((), ("template-drops-tools",), escaped)
        try:
            rows, causes, silenced = self._write(clean)
        except TemplateRefuses as e:
            return Rendered((), (f"template-refuses: {e}",), escaped)
        kept = tuple(r for r in rows if r.supervised)
        return Rendered(kept, tuple(causes if kept or causes else ["no-tokens"]), escaped, silenced)

    def _write(self, conversation: Conversation) -> tuple[list[Row], list[str], int]:
        for separately in (True, False):
            self.coder.begin(separately)
            writer = Writer(conversation, self)
            rows, causes = writer.write()
            if writer.confirmed:
                break
        return rows, causes, writer.silenced

    def escape(self, messages: Sequence[dict[str, Any]]) -> tuple[tuple[dict[str, Any], ...], int]:
        """Text that spells a special token would end a turn early and shift the mask."""
        clean = tuple(self.dialect.escape(m) for m in messages)
        return clean, sum(a != b for a, b in zip(messages, clean, strict=True))


@dataclass(frozen=True)
class _Turn:
    """The tokens of one assistant turn. ``prompt``: the text that ``context`` was made of."""

    prompt: str
    context: array[int]
    answer: array[int]

    @property
    def length(self) -> int:
        return len(self.context) + len(self.answer)


class Writer:
    """Writes the rows of one conversation. ``confirmed``: tokenizing in pieces gave what the whole gives."""

    def __init__(self, conversation: Conversation, renderer: Renderer) -> None:
        self.conversation = conversation
        self.dialect: Dialect = renderer.dialect
        self.tokenizer = renderer.tokenizer
        self.coder = renderer.coder
        self.max_length = renderer.max_length
        self.confirmed = True
        self.silenced = 0
        messages = [self.dialect.shape(m) for m in conversation.messages]
        self.system = messages[:1] if messages[0]["role"] == "system" else []
        self.body = messages[len(self.system) :]
        self._turns: dict[tuple[int, int], _Turn | None] = {}

    def write(self) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        causes: list[str] = []
        turns = [i for i, m in enumerate(self.body) if m["role"] == "assistant"]
        if not self.system and turns[:1] == [0]:
            causes.append("nothing-asked")
            del turns[0]
        causes += ["empty-turn" for i in turns if not says(self.body[i])]
        turns = [i for i in turns if says(self.body[i])]
        position = floor = 0
        # A row after a full one keeps half its length for new turns, the rest for what led to them.
        full = self.max_length
        limits: tuple[int, ...] = (full,)
        while position < len(turns):
            start = self._find_start(floor, turns[position], limits)
            turn = None if start is None else self._turn(start, turns[position])
            if start is None or turn is None:
                causes.append(self._find_cause(start, turns[position]))
                position += 1
                continue
            floor, limits = start, (full,)
            ids = turn.context + turn.answer
            spans = [(len(turn.context), len(ids))]
            self._count_silenced(turns[position])
            position += 1
            while position < len(turns):
                later = self._turn(start, turns[position])
                if later is None or later.context[: len(ids)] != ids:
                    break
                if later.length > full:
                    limits = (full // 2, full)
                    break
                turn = later
                ids = turn.context + turn.answer
                spans.append((len(turn.context), len(ids)))
                self._count_silenced(turns[position])
                position += 1
            self.confirmed &= self.coder.confirms(turn.prompt, turn.context)
            conversation = self.conversation
            rows.append(Row(conversation.id, ids, tuple(spans), start, conversation.weight))
        return rows, causes

    def _find_cause(self, start: int | None, turn: int) -> str:
        if start is not None:
            return "prefix-differs"
        alone = self._turn(turn, turn)
        fits = alone is not None and alone.length <= self.max_length
        return "context-too-long" if fits else "turn-too-long"

    def _find_start(self, floor: int, turn: int, limits: tuple[int, ...]) -> int | None:
        """The earliest start from ``floor`` with the turn's row within the first limit that can be met.

        What the turn answers stays: the message before it, and the call when that is a result.
        """
        starts = [s for s in range(floor, turn) if s == 0 or self.body[s]["role"] != "tool"] or [0]
        for limit in limits:
            for start in starts:
                found = self._turn(start, turn)
                if found is None or found.length <= limit:
                    return start
        return None

    def _window(self, start: int, end: int) -> list[dict[str, Any]]:
        """System, then the messages of [start, end); the first request stays where a cut would hide it."""
        head = list(self.system)
        if 0 < start < len(self.body) and self.body[start]["role"] == "assistant":
            head += self.body[:1]
        return head + self.body[start:end]

    def _turn(self, start: int, turn: int) -> _Turn | None:
        """The turn with the context from ``start``; None when its prompt is not how it begins."""
        if (start, turn) not in self._turns:
            self._turns[start, turn] = self._read_turn(self._window(start, turn + 1))
        return self._turns[start, turn]

    def _read_turn(self, messages: list[dict[str, Any]]) -> _Turn | None:
        before, last = messages[:-1], messages[-1]
        prompt, whole = self._text(before, prompt=True), self._text(messages)
        if not whole.startswith(prompt) and not _thinks(last):
            # The prompt opens a thought and the turn has none: an empty one, as the template writes it.
            whole = self._text([*before, {**last, "reasoning_content": _THOUGHT}])
        if not whole.startswith(prompt):
            return None
        answer = whole[len(prompt) :].removeprefix(_THOUGHT)
        answer = answer.removesuffix(self.dialect.closing).rstrip()
        if not answer.endswith(self.dialect.special):
            answer += (
                self.dialect.end_of_calls if last.get("tool_calls") else self.dialect.end_of_text
            )
        context, both = self.coder.encode(prompt), self.coder.encode(prompt + answer)
        if both[: len(context)] == context:
            return _Turn(prompt, context, both[len(context) :])
        # A token would reach over the seam; the model is never asked to go on from the middle of one.
        return _Turn(prompt, context, self.coder.encode_whole(answer))

    def _text(self, messages: list[dict[str, Any]], *, prompt: bool = False) -> str:
        tools, template = self.conversation.tools, self.dialect.template
        return write_chat(self.tokenizer, template, messages, tools, prompt=prompt)

    def _count_silenced(self, turn: int) -> None:
        message = self.body[turn]
        if self.dialect.drops_text and message.get("tool_calls") and message.get("content"):
            self.silenced += 1


class _Coder:
    """Text to token ids, each piece between special tokens once for a conversation.

    A tokenizer splits at its special tokens before anything else, so pieces can be tokenized by themselves;
    ``confirms`` holds the first rows against the whole text, and ``begin(False)`` turns it off where that
    fails.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.seams = {
            t.content: i
            for i, t in tokenizer.added_tokens_decoder.items()
            if t.special and not (t.lstrip or t.rstrip or t.single_word or t.normalized)
        }
        longest_first = sorted(self.seams, key=lambda s: (-len(s), s))
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._anchor = longest_first[0] if longest_first else ""
        self._separately = bool(longest_first)
        self._known: dict[str, array[int]] = {}
        self._unchecked = _CHECKED_ROWS

    def begin(self, separately: bool) -> None:
        """Forget the last conversation. Once a whole text was needed, all later ones are read whole."""
        self._separately = self._separately and separately
        self._known = {}

    def confirms(self, text: str, ids: array[int]) -> bool:
        if not self._separately or not self._unchecked:
            return True
        self._unchecked -= 1
        return self.encode_whole(text) == ids

    def encode_whole(self, text: str) -> array[int]:
        return array("i", self._ids(text))

    def encode(self, text: str) -> array[int]:
        if not self._separately:
            return self.encode_whole(text)
        first, *rest = self._split.split(text)
        later = rest[1::2]
        self._learn([p for p in dict.fromkeys(later) if p and p not in self._known])
        ids = self.encode_whole(first) if first else array("i")
        for token, piece in zip(rest[::2], later, strict=True):
            ids.append(self.seams[token])
            if piece:
                ids.extend(self._known[piece])
        return ids

    def _ids(self, text: str | list[str]) -> Any:
        # Not verbose: a text beyond the model's context is expected here, and cut later.
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _learn(self, pieces: list[str]) -> None:
        """Tokenize pieces that stand after a special token."""
        if not pieces:
            return
        texts = [self._anchor + p for p in pieces]
        for piece, ids in zip(pieces, self._ids(texts), strict=True):
            self._known[piece] = array("i", ids[1:])


def _thinks(message: dict[str, Any]) -> bool:
    return any(message.get(k) for k in ("reasoning_content", "reasoning", "thinking"))


def says(message: dict[str, Any]) -> bool:
    """Whether a turn has anything to train: text, a call or reasoning."""
    return bool(message.get("content") or message.get("tool_calls")) or _thinks(message)
