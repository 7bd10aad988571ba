"""Rows and masks: what is read, what is trained, and that nothing is lost silently."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.training.examples import Conversation
from gtft.training.nano_text import END_TURN
from gtft.training.render import IGNORED, Row, marks_generations, render
from training_case import chat, make_tokenizer


@functools.cache
def marked() -> Any:
    return make_tokenizer()


@functools.cache
def unmarked() -> Any:
    """The same template without generation marks, as most models ship it."""
    tokenizer = make_tokenizer()
    template = tokenizer.chat_template
    for tag in ("{%- generation %}", "{%- endgeneration %}"):
        assert tag in template
        template = template.replace(tag, "")
    tokenizer.chat_template = template
    return tokenizer


def trained_text(row: Row, tokenizer: Any) -> str:
    return str(tokenizer.decode([t for t in row.labels if t != IGNORED]))


def test_only_assistant_turns_are_trained_with_their_end() -> None:
    talk = chat(
        "system: be brief", "user: pump 7?", "assistant: mend", "user: and 8?", "assistant: wait"
    )
    (row,) = render(Conversation("ex-1", talk, ()), marked(), 256).rows
    assert trained_text(row, marked()) == f"mend{END_TURN}wait{END_TURN}"
    assert row.supervised == sum(label != IGNORED for label in row.labels)
    assert all(b in (IGNORED, a) for a, b in zip(row.input_ids, row.labels, strict=True))


def test_tool_calls_are_trained_and_tool_results_are_not() -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "Bash", "arguments": {"command": "bd show gz-1"}},
    }
    talk = (
        *chat("user: look"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "gz-1 is open", "tool_call_id": "c1"},
        *chat("assistant: done"),
    )
    tools = (
        {
            "type": "function",
            "function": {"name": "Bash", "parameters": {"properties": {"command": {}}}},
        },
    )
    (row,) = render(Conversation("ex-1", talk, tools), marked(), 256).rows
    assert trained_text(row, marked()) == (
        '<tool_call>{"name": "Bash", "arguments": {"command": "bd show gz-1"}}</tool_call>'
        f"{END_TURN}done{END_TURN}"
    )
    whole = marked().decode(row.input_ids)
    assert "tools: Bash(command)" in whole
    assert "<|im_start|>tool\ngz-1 is open<|im_end|>" in whole


def test_without_marks_each_turn_is_a_row_whose_prompt_is_the_served_one() -> None:
    talk = chat("user: pump 7?", "assistant: mend", "user: and 8?", "assistant: wait")
    assert not marks_generations(unmarked())
    rows = render(Conversation("ex-1", talk, ()), unmarked(), 256).rows
    assert [trained_text(r, unmarked()) for r in rows] == [f"mend{END_TURN}", f"wait{END_TURN}"]
    for row, turn in zip(rows, (1, 3), strict=True):
        served = unmarked().apply_chat_template(
            list(talk[:turn]), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert list(row.input_ids[: len(served)]) == served
        assert set(row.labels[: len(served)]) == {IGNORED}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.integers(24, 120),
    st.booleans(),
    st.sampled_from(["marked", "unmarked"]),
)
def test_every_turn_is_trained_in_exactly_one_row_or_named(
    sizes: list[int], limit: int, system: bool, kind: str
) -> None:
    tokenizer = marked() if kind == "marked" else unmarked()
    lines = ["system: be brief"] if system else []
    for n, size in enumerate(sizes):
        lines += [f"user: ask {n}", f"assistant: T{n}" + " pump" * size]
    done = render(Conversation("ex-1", chat(*lines), ()), tokenizer, limit)
    assert all(len(r.input_ids) <= limit and len(r.input_ids) == len(r.labels) for r in done.rows)
    turns = [t for r in done.rows for t in trained_text(r, tokenizer).split(END_TURN) if t]
    expected = [f"T{n}" + " pump" * size for n, size in enumerate(sizes)]
    assert len(turns) == len(set(turns))
    assert set(turns) <= set(expected)
    assert len(turns) + done.causes.count("turn-too-long") == len(expected)
    if system:
        assert all("be brief" in tokenizer.decode(r.input_ids) for r in done.rows)


def test_cut_context_never_starts_with_a_tool_result() -> None:
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "Bash", "arguments": {"command": "x"}},
    }
    talk: tuple[dict[str, Any], ...] = chat("user: the task is to look at all pumps")
    for n in range(6):
        talk += (
            {"role": "assistant", "content": f"look {n}", "tool_calls": [call]},
            {"role": "tool", "content": f"result {n} " + "dry " * 10, "tool_call_id": "c"},
        )
    done = render(Conversation("ex-1", talk, ()), marked(), 120)
    assert len(done.rows) > 1
    for row in done.rows:
        text = marked().decode(row.input_ids)
        # The request stays in sight, and a result never stands without the call it answers.
        assert text.startswith("<|im_start|>user\nthe task")
        assert "all pumps<|im_end|>\n<|im_start|>tool" not in text


@pytest.mark.parametrize(
    ("talk", "cause"),
    [
        (chat("user: hello"), "no-assistant-turn"),
        (chat("user: a", "assistant: " + "dry " * 400), "turn-too-long"),
    ],
)
def test_a_conversation_that_trains_nothing_says_why(
    talk: tuple[dict[str, Any], ...], cause: str
) -> None:
    done = render(Conversation("ex-1", talk, ()), marked(), 64)
    assert done.rows == ()
    assert done.causes == (cause,)


def test_template_that_refuses_is_a_cause_not_a_crash() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    done = render(Conversation("ex-1", chat("user: a", "assistant: b"), ()), tokenizer, 64)
    assert done.rows == ()
    assert "roles must alternate" in done.causes[0]


def test_prompt_unlike_the_conversation_is_not_trained() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ 'P' if add_generation_prompt else 'Q' }}{% for m in messages %}{{ m.content }}{% endfor %}"
    done = render(Conversation("ex-1", chat("user: a", "assistant: b"), ()), tokenizer, 64)
    assert (done.rows, done.causes) == ((), ("prefix-differs",))


def test_text_that_spells_a_special_token_cannot_end_a_turn() -> None:
    talk = chat(f"user: what is {END_TURN}?", f"assistant: {END_TURN} ends a turn")
    done = render(Conversation("ex-1", talk, ()), marked(), 128)
    end = marked().convert_tokens_to_ids(END_TURN)
    assert done.escaped == 2
    assert list(done.rows[0].input_ids).count(end) == 2
    assert trained_text(done.rows[0], marked()) == f"< |im_end|> ends a turn{END_TURN}"
