"""Rows and masks: what is read, what is trained, and that nothing is lost silently."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.training.examples import Conversation
from gtft.training.nano_text import END_TURN
from gtft.training.render import IGNORED, Renderer, Row, _Coder, marks_generations, render
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


def test_rows_do_not_depend_on_marks_and_each_context_is_the_served_one() -> None:
    talk = chat("user: pump 7?", "assistant: mend", "user: and 8?", "assistant: wait")
    assert marks_generations(marked()) and not marks_generations(unmarked())
    (row,) = render(Conversation("ex-1", talk, ()), unmarked(), 256).rows
    assert (row,) == render(Conversation("ex-1", talk, ()), marked(), 256).rows
    for (first, last), turn, said in zip(row.spans, (1, 3), ("mend", "wait"), strict=True):
        served = unmarked().apply_chat_template(
            list(talk[:turn]), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert list(row.input_ids[:first]) == served
        assert unmarked().decode(row.input_ids[first:last]) == f"{said}{END_TURN}"


def test_template_that_rewrites_its_history_gets_a_row_for_each_turn() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and not loop.last %}…{% else %}{{ m.content }}{% endif %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    talk = chat("user: a", "assistant: mend", "user: b", "assistant: wait", "user: c")
    rows = render(Conversation("ex-1", talk, (), 0.5), tokenizer, 256).rows
    assert [trained_text(r, tokenizer) for r in rows] == [f"mend{END_TURN}", f"wait{END_TURN}"]
    assert "…<|im_end|>" in tokenizer.decode(rows[1].input_ids)
    assert [r.weight for r in rows] == [0.5, 0.5]


def test_a_row_ends_with_its_last_trained_token() -> None:
    talk = chat("user: a", "assistant: mend", "user: " + "dry " * 20)
    (row,) = render(Conversation("ex-1", talk, ()), marked(), 64).rows
    assert row.spans[-1][1] == len(row.input_ids)
    assert "dry" not in marked().decode(row.input_ids)


def test_an_answer_keeps_what_it_answers() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "Bash", "arguments": {}}}
    talk = (
        *chat("user: look"),
        {"role": "assistant", "content": "I look", "tool_calls": [call]},
        {"role": "tool", "content": "dry " * 200, "tool_call_id": "c"},
        *chat("assistant: mend", "user: and 8?", "assistant: wait"),
    )
    done = render(Conversation("ex-1", talk, ()), marked(), 128)
    said = [trained_text(r, marked()) for r in done.rows]
    assert [("I look" in s, "mend" in s, "wait" in s) for s in said] == [
        (True, False, False),
        (False, False, True),
    ]
    assert done.causes == ("context-too-long",)


@pytest.mark.parametrize(
    ("talk", "cause"),
    [
        (chat("assistant: hello", "user: a", "assistant: b"), "nothing-asked"),
        (chat("user: a", "assistant: b", "user: c", "assistant: "), "empty-turn"),
    ],
)
def test_a_turn_that_cannot_be_trained_is_named_and_the_others_are_trained(
    talk: tuple[dict[str, Any], ...], cause: str
) -> None:
    done = render(Conversation("ex-1", talk, ()), marked(), 64)
    assert [trained_text(r, marked()) for r in done.rows] == [f"b{END_TURN}"]
    assert done.causes == (cause,)


@given(st.lists(st.sampled_from([*"ab \n\t0é<|", "im_end|>", END_TURN, "<|im_start|>"])))
def test_text_in_pieces_has_the_tokens_of_the_whole(parts: list[str]) -> None:
    coder = _Coder(marked())
    text = "".join(parts)
    assert coder.encode(text) == coder.encode_whole(text)


class Odd:
    """A tokenizer that reads a piece by itself differently from the same piece in a text."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __call__(self, text: Any, **settings: Any) -> Any:
        out = self.real(text, **settings)
        return out if isinstance(text, str) else {"input_ids": [[*x, 0] for x in out["input_ids"]]}


def test_tokenizer_that_needs_the_whole_text_gets_it() -> None:
    conversation = Conversation("ex-1", chat("user: a", "assistant: b"), ())
    renderer = Renderer(Odd(marked()), 64)
    expected = render(conversation, marked(), 64).rows
    assert renderer.render(conversation).rows == expected
    assert renderer.render(conversation).rows == expected


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
    assert set(done.causes) <= {"turn-too-long", "context-too-long"}
    assert len(turns) + len(done.causes) == len(expected)
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
    done = render(Conversation("ex-1", talk, ()), marked(), 200)
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


def test_special_tokens_in_arguments_and_tools_are_spaced_out_too() -> None:
    function = {"name": "Bash", "arguments": {"command": f"echo {END_TURN}"}}
    talk = (
        *chat("user: a"),
        {"role": "assistant", "content": "", "tool_calls": [{"function": function}]},
    )
    tools = ({"function": {"name": END_TURN, "parameters": {}}},)
    (row,) = render(Conversation("ex-1", talk, tools), marked(), 256).rows
    text = marked().decode(row.input_ids)
    assert text.count(END_TURN) == 3 and text.count("< |im_end|>") == 2
