"""What a maker yields: an item, and answers to it that are nearly right."""

from __future__ import annotations

from dataclasses import dataclass

from gtft.evals.item import CheckSpec, Item, Message

SUITE = "generated"


@dataclass(frozen=True)
class Made:
    """An item with answers that are nearly right: each must fail its check, for a reason of its own."""

    item: Item
    near_misses: tuple[str, ...]


def draft(
    capability: str,
    role: str | None,
    template: str,
    difficulty: str,
    prompt: str | tuple[Message, ...],
    check: CheckSpec,
    reference: str,
    near_misses: tuple[str, ...],
    tools: tuple[Message, ...] = (),
) -> Made:
    """One generated item; ``prompt``: the user's message, or the whole chat."""
    messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    item = Item(
        id="",
        suite=SUITE,
        capability=capability,
        role=role,
        template=template,
        cluster=SUITE,
        messages=messages,
        tools=tools,
        check=check,
        reference=reference,
        difficulty=difficulty,
    )
    return Made(item.identified(), near_misses)
