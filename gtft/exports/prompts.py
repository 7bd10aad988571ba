"""What adapter and export are both asked: short items that come with gtft, written by each side's own tokenizer and template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gtft.artifact import canonical_json
from gtft.dialect import Message, TemplateRefuses, learn_dialect, write_chat
from gtft.errors import EvidenceError
from gtft.evals.shipped import read_shipped

# Fewer that fit the model's context tell too little.
FEWEST = 12
# Tokens of each answer that are compared.
ANSWER = 32


@dataclass(frozen=True)
class Question:
    """A chat that ends where the assistant goes on. ``name``: the capability of the item it is."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A question as token ids: as the adapter was trained to read it, and as the export writes it."""

    name: str
    reference: tuple[int, ...]
    exported: tuple[int, ...]


class Writer(Protocol):
    """A tokenizer with a chat template; ``template``: that, as it is written."""

    template: str

    def write(self, question: Question) -> tuple[int, ...]:
        """The question as token ids. Raises TemplateRefuses when the template does not render it."""
        ...

    def tell(self, ids: Sequence[int]) -> str:
        """What the tokens say, for people."""
        ...


class TemplateWriter:
    """A transformers tokenizer, with the chat template that it was loaded with."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template = str(tokenizer.chat_template)
        self._dialect = learn_dialect(tokenizer)

    def render(self, question: Question) -> str:
        """The text of a prompt. Raises TemplateRefuses."""
        shape = self._dialect
        return write_chat(
            self.tokenizer,
            shape.template,
            [shape.shape(shape.escape(m)) for m in question.messages],
            [shape.escape(t) for t in question.tools],
            prompt=True,
        )

    def write(self, question: Question) -> tuple[int, ...]:
        ids = self.tokenizer(self.render(question), add_special_tokens=False)["input_ids"]
        return tuple(int(i) for i in ids)

    def tell(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def choose_questions() -> tuple[Question, ...]:
    """The shortest authored item of each capability, and of those that offer tools: the same ones on any day."""
    shortest: dict[str, Question] = {}
    items = read_shipped("authored")
    for item in sorted(items, key=lambda i: (len(canonical_json(list(i.messages))), i.id)):
        name = "tools" if item.tools else item.capability
        shortest.setdefault(name, Question(name, item.messages, item.tools))
    return tuple(shortest[name] for name in sorted(shortest))


def write_prompts(
    questions: Sequence[Question], reference: Writer, exported: Writer, context: int
) -> list[Prompt]:
    """Both sides' prompts; those that leave no room for an answer in ``context`` tokens are left out.

    A template that refuses tools leaves the question with tools out, if both refuse. Raises EvidenceError when
    fewer than `FEWEST` are left: the export cannot be verified.
    """
    written = []
    for question in questions:
        mine, theirs = _write(reference, question), _write(exported, question)
        if mine is None and theirs is None:
            continue
        prompt = Prompt(question.name, mine or (), theirs or ())
        if max(len(prompt.reference), len(prompt.exported)) + ANSWER <= context:
            written.append(prompt)
    if len(written) < FEWEST:
        raise EvidenceError(
            f"only {len(written)} of {len(questions)} prompts can be put to this model",
            why=f"its context is {context} tokens, or its template refuses them; at least {FEWEST} are compared",
            fix="gtft model export MODEL --format FORMAT --no-verify",
        )
    return written


def _write(writer: Writer, question: Question) -> tuple[int, ...] | None:
    try:
        return writer.write(question)
    except TemplateRefuses:
        return None
