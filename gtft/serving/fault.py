"""Why an agent could do nothing with an answer: in live the one who answered before is asked then."""

from __future__ import annotations

from collections.abc import Collection

from gtft.serving.speech import part


def find_fault(
    text: str,
    finish: str,
    tokens: int,
    *,
    offered: Collection[str],
    wanted: int,
    must_call: bool = False,
) -> str:
    """Why; "" when it can act on it.

    ``text`` is the answer as the model writes it, calls included, ``tokens`` its length; ``offered``: names of the tools
    that it may call; ``wanted``: the tokens that the agent would take, so that an answer cut there is as it asked.
    """
    said, calls, damaged = part(text)
    if damaged:
        return "the model's call of a tool is damaged"
    if any(c.name not in offered for c in calls):
        return "the model calls a tool that was not offered"
    if must_call and not calls:
        return "the model calls no tool, where one was asked for"
    if finish == "length" and tokens < wanted:
        return "the model's answer does not come to an end"
    return "" if said or calls else "the model's answer is empty"
