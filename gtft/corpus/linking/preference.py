"""Preference pairs: two answers to the very same prompt, one kept and one not.

Natural pairs are scarce, and a pair of answers to different prompts teaches the wrong thing. So: a branch
that was taken back against the one that was kept from the same place; a call that was refused or stopped
against what was done instead in the same turn; a failed attempt against the merged one, prompts equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from gtft.corpus.example import Mark, Message, count_characters
from gtft.corpus.segment import Unit

_BAD: tuple[Mark, ...] = ("denied", "rewound", "interrupted")
GOOD_OUTCOMES = frozenset({"merged", "audit good", "closed"})
BAD_OUTCOMES = frozenset({"rejected", "reopened", "burned", "merge_failed", "audit bad", "denied"})
# A refusal that comes with words of the human: what follows answers those.
_NEW_WORDS = "the user said"


class Preference(msgspec.Struct, frozen=True):
    """One pair. ``why``: denied, interrupted, rewound, or the outcome of the attempt that failed.
    ``lines``: first and last line of both answers."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    why: str
    lines: tuple[int, int] = (0, 0)

    def to_row(self) -> dict[str, Any]:
        """A row for TRL: prompt, chosen, rejected, tools."""
        prompt, chosen = _number_calls(self.prompt, self.chosen)
        _, rejected = _number_calls(self.prompt, self.rejected)
        names = {
            c["function"]["name"]
            for m in (*prompt, *chosen, *rejected)
            for c in m.get("tool_calls") or ()
        }
        tools = [
            {"type": "function", "function": {"name": n, "parameters": {}}} for n in sorted(names)
        ]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}


class Judged(msgspec.Struct, frozen=True):
    """Two answers to the prompt of a training ``example`` (id), and which of them people preferred; ``why``
    "shadow": which of them was followed, and ended well."""

    example: str
    prompt: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    chosen: dict[str, Any]
    rejected: dict[str, Any]
    why: str = "judged"

    def to_row(self) -> dict[str, Any]:
        """A row for TRL: prompt, chosen, rejected, tools."""
        return {
            "prompt": list(self.prompt),
            "chosen": [self.chosen],
            "rejected": [self.rejected],
            "tools": list(self.tools),
        }


class Attempt(msgspec.Struct, frozen=True):
    """An example that may be one side of a pair. ``key``: what both are about (a bead); ``asked``: a digest
    of the messages before its first answer."""

    number: int
    key: str
    asked: bytes
    outcome: str


def find_pairs(units: Sequence[Unit], window: int) -> Iterator[Preference]:
    """The pairs inside one conversation. ``window``: the most characters of prompt and longer answer.

    A refused or stopped answer is paired with the next one of the same turn, which goes a way that was not
    refused; a stopped one also with the answer to the same words, asked again.
    """
    for i, unit in enumerate(units):
        if unit.kind != "assistant" or i + 1 >= len(units):
            continue
        why = next((m for m in _BAD if m in unit.marks), "")
        after = units[i + 1]
        if not why:
            continue
        if after.kind == "user" and after.messages == _find_turn(units, i) and i + 2 < len(units):
            after = units[i + 2]
        if after.kind != "assistant" or after.marks or _holds_new_words(unit):
            continue
        pair = _build(units[:i], after.messages[:1], unit.messages[:1], why, window)
        if pair and _acts(after) != _acts(unit):
            yield msgspec.structs.replace(pair, lines=(unit.lines[0], after.lines[1]))


def pair_branch(trunk: Sequence[Unit], branch: Sequence[Unit], window: int) -> Preference | None:
    """A branch that was taken back, and what the session went on with from the same place.

    Both must answer the same words: the branch starts with an answer, or with a user turn that stands in
    the trunk again, right after what came before the branch. ``window`` as for `find_pairs`.
    """
    if not branch:
        return None
    first, last = branch[0].lines[0], max(u.lines[1] for u in branch)
    at = sum(1 for u in trunk if u.lines[1] < first)
    if any(u.lines[0] <= last for u in trunk[at:]):
        return None
    rejected = branch
    if branch[0].kind == "user":
        if at >= len(trunk) or trunk[at].messages != branch[0].messages:
            return None
        at, rejected = at + 1, branch[1:]
    if at == 0 or trunk[at - 1].kind != "user":
        return None
    good, bad = _take_answer(trunk[at:]), _take_answer(rejected)
    if not good or not bad or good == bad:
        return None
    pair = _build(trunk[:at], good, bad, "rewound", window)
    return msgspec.structs.replace(pair, lines=(first, last)) if pair else None


def pair_attempts(attempts: Iterable[Attempt]) -> list[tuple[Attempt, Attempt]]:
    """(kept, failed) attempts at the same thing from the same prompt, in order; each failed one once."""
    groups: dict[tuple[str, bytes], list[Attempt]] = defaultdict(list)
    for a in attempts:
        if a.key and a.outcome in GOOD_OUTCOMES | BAD_OUTCOMES:
            groups[a.key, a.asked].append(a)
    pairs = []
    for _, group in sorted(groups.items()):
        good = [a for a in group if a.outcome in GOOD_OUTCOMES]
        # What passed the gates goes before what its own agent called done.
        good.sort(key=lambda a: (a.outcome == "closed", a.number))
        if good:
            pairs += [(good[0], a) for a in group if a.outcome in BAD_OUTCOMES]
    return pairs


def pair_examples(
    kept: Sequence[Message], failed: Sequence[Message], why: str
) -> Preference | None:
    """Two whole examples as a pair; None when their prompts are not the same, or their answers are."""
    prompt, good = _split_prompt(kept)
    other, bad = _split_prompt(failed)
    if prompt != other or not prompt or not good or not bad or good == bad:
        return None
    return Preference(prompt, good, bad, why)


def _split_prompt(
    messages: Sequence[Message],
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    at = next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))
    return tuple(messages[:at]), tuple(messages[at:])


def _build(
    before: Sequence[Unit],
    chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
    why: str,
    window: int,
) -> Preference | None:
    """With as much of what came before as fits, from a user turn on."""
    room = window - max(sum(map(count_characters, x)) for x in (chosen, rejected))
    start = None
    for i in range(len(before) - 1, -1, -1):
        if before[i].kind == "boundary":
            break
        room -= before[i].size
        if room < 0:
            break
        if before[i].kind in ("user", "summary"):
            start = i
    if start is None:
        return None
    prompt = tuple(m for u in before[start:] for m in u.messages)
    return Preference(prompt, chosen, rejected, why)


def _take_answer(units: Sequence[Unit]) -> tuple[Message, ...]:
    """All answers up to the next user turn; nothing when one of them was refused."""
    found: list[Message] = []
    for u in units:
        if u.kind != "assistant":
            break
        if "denied" in u.marks:
            return ()
        found += u.messages
    while found and found[-1]["role"] == "tool":
        found.pop()
    return tuple(found)


def _find_turn(units: Sequence[Unit], i: int) -> tuple[Message, ...]:
    """The user turn that unit ``i`` answers."""
    return next((u.messages for u in reversed(units[:i]) if u.kind == "user"), ())


def _holds_new_words(unit: Unit) -> bool:
    return any(_NEW_WORDS in m["content"] for m in unit.messages if m["role"] == "tool")


def _acts(unit: Unit) -> list[Any]:
    """What an answer does: its calls, or else its words."""
    answer = unit.messages[0]
    calls = [c["function"] for c in answer.get("tool_calls") or ()]
    return calls or [answer["content"]]


def _number_calls(
    prompt: Sequence[Message], answer: Sequence[Message]
) -> tuple[list[Message], list[Message]]:
    """Call ids by order, as examples have them: a vendor's random id teaches nothing."""
    names: dict[str, str] = {}
    both: list[Message] = []
    for m in (*prompt, *answer):
        made: dict[str, Any] = dict(m)
        if calls := m.get("tool_calls"):
            for c in calls:
                names.setdefault(c["id"], f"call-{len(names) + 1}")
            made["tool_calls"] = [{**c, "id": names[c["id"]]} for c in calls]
        elif m["role"] == "tool":
            made["tool_call_id"] = names.get(str(m.get("tool_call_id")), "call-0")
        both.append(made)
    return both[: len(prompt)], both[len(prompt) :]
