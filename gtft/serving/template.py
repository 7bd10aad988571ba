"""Prompts of a served model: written and cut exactly as training and the eval do it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gtft.dialect import TemplateRefuses, learn_dialect
from gtft.evals.asking.generate import list_windows, write_prompt
from gtft.serving.engine import Unanswerable

# More messages than any session has; cutting takes a look at each.
MOST_MESSAGES = 4000
# Of a message's tokens alone, so many can melt into their neighbours.
_MELTED = 8

Message = dict[str, Any]


@dataclass(frozen=True)
class Written:
    """A prompt's tokens, and how many messages were left out of it. ``whole``: tokens of all of it."""

    ids: tuple[int, ...]
    left_out: int
    whole: int


class PromptWriter:
    """Writes prompts for one tokenizer and its chat template; used by one thread at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._dialect = learn_dialect(tokenizer)
        # The first call settles padding; from then on nothing in it changes, and others may decode with it meanwhile.
        tokenizer("", add_special_tokens=False)

    def write(self, messages: Sequence[Message], tools: Sequence[Message], room: int) -> Written:
        """A prompt of at most ``room`` tokens; older messages are left out first. Raises Unanswerable."""
        ids = self.render(messages, tools)
        if len(ids) <= room:
            return Written(ids, 0, len(ids))
        weights = {id(m): n for m, n in zip(messages, self._weigh(messages), strict=True)}
        shortest = whole = len(ids)
        for window, kept in self._list_windows(messages):
            if sum(weights[id(m)] - _MELTED for m in kept) > room:
                continue
            try:
                _, ids = write_prompt(self._tokenizer, self._dialect, window, tools)
            except TemplateRefuses:
                continue
            if len(ids) <= room:
                return Written(ids, len(messages) - len(window), whole)
            shortest = min(shortest, len(ids))
        raise Unanswerable(
            f"the prompt has {shortest} tokens even without its older messages, and the model has room for {room}"
        )

    def render(self, messages: Sequence[Message], tools: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of the whole prompt. Raises Unanswerable when the template does not render it."""
        if not messages:
            raise Unanswerable("there are no messages")
        if len(messages) > MOST_MESSAGES:
            raise Unanswerable(f"{len(messages)} messages, more than {MOST_MESSAGES}")
        try:
            return write_prompt(self._tokenizer, self._dialect, messages, tools)[1]
        except TemplateRefuses as e:
            raise Unanswerable(f"the model's chat template refuses these messages: {e}") from e
        except (ValueError, TypeError, LookupError, RecursionError) as e:
            # What a client sends is not trusted to have any shape; half characters cannot be tokenised.
            raise Unanswerable(
                f"these messages cannot be written: {type(e).__name__} {e}"[:300]
            ) from e

    def _weigh(self, messages: Sequence[Message]) -> list[int]:
        """About how many tokens each message has, never many too many."""
        texts = [
            str(m.get("content") or "")
            + "".join(json.dumps(c["function"]["arguments"]) for c in m.get("tool_calls") or ())
            for m in messages
        ]
        return [len(i) for i in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _list_windows(self, messages: Sequence[Message]) -> Any:
        """The windows of the eval, each with the messages that it was made of."""
        numbered = [{"role": m.get("role"), "at": n} for n, m in enumerate(messages)]
        for window in list_windows(numbered):
            kept = [messages[m["at"]] for m in window]
            yield [dict(m) for m in kept], kept
