"""Preference pairs: only where both answers are to the very same prompt."""

from __future__ import annotations

from typing import Any

from gtft.corpus.example import Mark
from gtft.corpus.linking.preference import (
    Attempt,
    find_pairs,
    pair_attempts,
    pair_branch,
    pair_examples,
)
from gtft.corpus.segment import Unit

WINDOW = 4000


def user(line: int, text: str) -> Unit:
    return Unit("user", ({"role": "user", "content": text},), ("human",), (line, line), len(text))


def answer(
    line: int, text: str = "", command: str = "", result: str = "ok", mark: Mark = ""
) -> Unit:
    said: dict[str, Any] = {"role": "assistant", "content": text}
    messages = [said]
    if command:
        function = {"name": "Bash", "arguments": {"command": command}}
        said["tool_calls"] = [{"id": f"toolu_{line}", "type": "function", "function": function}]
        messages.append(
            {"role": "tool", "name": "Bash", "content": result, "tool_call_id": f"toolu_{line}"}
        )
    by = ("agent", "tool")[: len(messages)]
    marks = (mark,) if mark else ()
    return Unit("assistant", tuple(messages), by, (line, line), len(text) + 40, marks)


def test_a_refused_call_and_what_was_done_instead() -> None:
    units = [
        user(1, "Free some space"),
        answer(2, "Looking.", "du -sh ."),
        answer(3, "", "rm -rf build", "The user doesn't want to proceed", "denied"),
        answer(4, "", "make clean"),
        answer(5, "Done."),
    ]
    (pair,) = find_pairs(units, WINDOW)
    assert (pair.why, pair.lines) == ("denied", (3, 4))
    row = pair.to_row()
    assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "tool"]
    (chosen,), (rejected,) = row["chosen"], row["rejected"]
    assert chosen["tool_calls"][0]["function"]["arguments"] == {"command": "make clean"}
    assert rejected["tool_calls"][0]["function"]["arguments"] == {"command": "rm -rf build"}
    # Ids by order, so that equal rows are equal; the refusal itself is in neither.
    assert [m["tool_calls"][0]["id"] for m in (row["prompt"][1], chosen, rejected)] == [
        "call-1", "call-2", "call-2",
    ]  # fmt: skip
    assert row["prompt"][2]["tool_call_id"] == "call-1"
    assert [t["function"]["name"] for t in row["tools"]] == ["Bash"]


def test_a_refusal_with_new_words_gives_no_pair() -> None:
    refusal = "To tell you how to proceed, the user said:\nuse make"
    units = [user(1, "go"), answer(2, "", "rm x", refusal, "denied"), answer(3, "", "make clean")]
    assert not list(find_pairs(units, WINDOW))


def test_a_stopped_answer_is_paired_only_when_the_same_is_asked_again() -> None:
    stopped, better = answer(2, "", "sleep 900", mark="interrupted"), answer(4, "", "make test")
    (pair,) = find_pairs([user(1, "Run them"), stopped, user(3, "Run them"), better], WINDOW)
    assert pair.prompt == user(1, "Run them").messages
    assert not list(find_pairs([user(1, "Run them"), stopped, user(3, "Only one"), better], WINDOW))
    again = answer(4, "", "sleep 900")
    assert not list(find_pairs([user(1, "Run them"), stopped, again], WINDOW))
    assert not list(
        find_pairs([user(1, "Run them"), stopped, answer(3, "", "x", mark="denied")], WINDOW)
    )
    assert not list(find_pairs([stopped, better], WINDOW))


def test_a_prompt_keeps_what_fits_from_a_user_turn_on() -> None:
    old = [user(1, "a" * 3000), answer(2, "b" * 1200)]
    units = [*old, user(3, "now"), answer(4, "", "x", mark="denied"), answer(5, "", "y")]
    (pair,) = find_pairs(units, WINDOW)
    assert [m["content"] for m in pair.prompt] == ["now"]
    assert not list(find_pairs(units, 30))


def test_a_branch_that_was_taken_back_and_what_went_on_from_the_same_place() -> None:
    before = [user(1, "hello"), answer(2, "hi")]
    branch = [user(3, "Write it"), answer(4, "", "touch a"), answer(5, "bad")]
    trunk = [
        *before,
        user(6, "Write it"),
        answer(7, "", "touch b"),
        answer(8, "good"),
        user(9, "ok"),
    ]
    pair = pair_branch(trunk, branch, WINDOW)
    assert pair is not None and pair.why == "rewound"
    assert [m["content"] for m in pair.prompt] == ["hello", "hi", "Write it"]
    assert [m["content"] for m in pair.chosen] == ["", "ok", "good"]
    assert [m["content"] for m in pair.rejected] == ["", "ok", "bad"]
    # Answered anew without being asked again.
    again = pair_branch([user(1, "Write it"), answer(3, "good")], [answer(2, "bad")], WINDOW)
    assert again is not None and again.chosen[0]["content"] == "good"


def test_a_branch_from_another_prompt_or_place_gives_no_pair() -> None:
    before = [user(1, "hello"), answer(2, "hi")]
    branch = [user(3, "Write it"), answer(4, "bad")]
    good = [user(5, "Write it"), answer(6, "good")]
    for trunk in (
        [*before, user(5, "Write it better"), answer(6, "good")],
        [*before, user(5, "Look first"), answer(6, "done"), user(7, "Write it"), answer(8, "good")],
        [*before, user(5, "Write it")],
        [*before, user(5, "Write it"), answer(6, "bad")],
        before,
        [],
    ):
        assert pair_branch(trunk, branch, WINDOW) is None, trunk
    assert pair_branch([*before, *good], [], WINDOW) is None
    assert pair_branch([*before, *good], [user(3, "Write it")], WINDOW) is None


def test_a_failed_attempt_and_the_merged_one_from_the_same_prompt() -> None:
    attempts = [
        Attempt(1, "gz-1", b"p", "burned"),
        Attempt(2, "gz-1", b"p", "closed"),
        Attempt(3, "gz-1", b"p", "merged"),
        Attempt(4, "gz-1", b"q", "rejected"),
        Attempt(5, "gz-2", b"p", "rejected"),
        Attempt(6, "", b"p", "rejected"),
        Attempt(7, "gz-1", b"p", "unknown"),
    ]
    assert [(a.number, b.number) for a, b in pair_attempts(attempts)] == [(3, 1)]
    assert pair_attempts(reversed(attempts)) == pair_attempts(attempts)


def test_examples_are_paired_only_when_their_prompts_are_the_same() -> None:
    ask = {"role": "user", "content": "go"}
    good, bad = ({"role": "assistant", "content": x} for x in ("good", "bad"))
    pair = pair_examples([ask, good], [ask, bad], "burned")
    assert pair is not None
    assert pair.to_row() == {"prompt": [ask], "chosen": [good], "rejected": [bad], "tools": []}
    other = {"role": "user", "content": "stop"}
    for kept, failed in (
        ([ask, good], [other, bad]),
        ([good], [bad]),
        ([ask], [ask, bad]),
        ([ask, good],) * 2,
    ):
        assert pair_examples(kept, failed, "burned") is None
