"""Cutting conversations: nothing torn, nothing trained twice, nothing lost without a count."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.example import Call, Conversation, Entry
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.segment import Cut, Limits, assemble, clip, cut, shorten
from gtft.corpus.tally import Tally

WIDE = Limits(window=8000, result=400)
REDACTOR = Redactor(b"k" * 32)


def talk(*entries: Entry, header: str = "") -> Conversation:
    return Conversation("claude-code", "a.jsonl", ("session:s",), entries, header=header)


def examples(conversation: Conversation, limits: Limits = WIDE) -> tuple[list[Cut], Tally]:
    tally = Tally()
    units = list(assemble(conversation.entries, limits, REDACTOR, tally))
    return list(cut(conversation, units, limits, REDACTOR, tally)), tally


def say(line: int, words: str) -> Entry:
    return Entry("user", line, text=words)


def reply(line: int, words: str, *calls: str) -> Entry:
    made = tuple(Call(c, "Bash", {"command": c}) for c in calls)
    return Entry("assistant", line, text=words, response=f"m{line}", calls=made)


def result(line: int, call: str, words: str = "ok") -> Entry:
    return Entry("result", line, text=words, call_id=call)


def test_pieces_of_one_answer_are_one_message_and_results_follow_their_calls() -> None:
    a = Entry("assistant", 2, text="look", response="m", calls=(Call("x", "Bash", {"n": 1}),))
    b = Entry("assistant", 4, response="m", calls=(Call("y", "Read", {"n": 2}),))
    (e,), _ = examples(talk(say(1, "go"), a, result(3, "x", "one"), b, result(5, "y", "two")))
    assert [m["role"] for m in e.messages] == ["user", "assistant", "tool", "tool"]
    assert [c["id"] for c in e.messages[1]["tool_calls"]] == ["call-1", "call-2"]
    assert [(m["name"], m["content"], m["tool_call_id"]) for m in e.messages[2:]] == [
        ("Bash", "one", "call-1"),
        ("Read", "two", "call-2"),
    ]
    assert [t["function"]["name"] for t in e.tools] == ["Bash", "Read"]
    assert e.lines == (1, 5)


def test_orphans_stay_out_and_are_counted() -> None:
    made, tally = examples(
        talk(say(1, "go"), reply(2, "", "lost"), result(3, "nobody"), reply(4, "done"))
    )
    assert [m["role"] for m in made[0].messages] == ["user", "assistant"]
    assert dict(tally.tables["turns dropped"]) == {
        "call without a result": 1,
        "result without a call": 1,
    }


def test_a_segment_without_an_answer_is_dropped_and_counted() -> None:
    made, tally = examples(talk(say(1, "go")))
    assert made == []
    assert tally.get("segments dropped", "no assistant turn") == 1


def test_a_tool_result_keeps_head_and_tail_and_says_what_went() -> None:
    long = "start " + "x " * 2000 + "the end"
    (e,), tally = examples(
        talk(say(1, "go"), reply(2, "", "c"), result(3, "c", long), reply(4, "k"))
    )
    kept = e.messages[2]["content"]
    assert kept.startswith("start") and kept.endswith("the end")
    assert "characters left out" in kept and len(kept) <= WIDE.result + 20
    assert tally.get("turns", "tool result clipped") == 1


def test_a_clip_never_cuts_a_token_or_a_placeholder() -> None:
    text = "a " * 30 + "<SECRET:github_pat:1234abcd>" + " b" * 300
    for limit in range(60, 200):
        assert clip(text, limit).count("<SECRET:") == clip(text, limit).count(
            "github_pat:1234abcd>"
        )


def test_cuts_fall_at_compactions_and_a_summary_is_carried_as_context() -> None:
    boundary, summary = Entry("boundary", 3), Entry("summary", 4, text="so far: half")
    made, _ = examples(talk(say(1, "go"), reply(2, "one"), boundary, summary, reply(5, "two")))
    assert [[m["content"] for m in e.messages] for e in made] == [
        ["go", "one"],
        ["so far: half", "two"],
    ]


def test_later_windows_carry_the_first_prompt() -> None:
    entries = [say(1, "TASK " + "t " * 20)]
    for i in range(2, 30, 2):
        entries += [reply(i, f"step {i} " + "w " * 40, f"c{i}"), result(i + 1, f"c{i}")]
    made, _ = examples(talk(*entries, header=entries[0].text), Limits(600, 400))
    assert len(made) > 2
    assert all(e.messages[0]["content"].startswith("TASK") for e in made)
    assert [e.number for e in made] == list(range(len(made)))


def test_a_continued_session_starts_with_the_prompt_of_the_part_it_continues() -> None:
    (e,), _ = examples(talk(say(9, "and now?"), reply(10, "yes"), header="the task"))
    assert e.messages[0]["content"] == "the task\n\nand now?"


def test_an_answer_that_no_window_holds_is_counted() -> None:
    made, tally = examples(
        talk(say(1, "go"), reply(2, "x" * 900), reply(3, "ok")), Limits(600, 400)
    )
    assert [m["content"] for e in made for m in e.messages if m["role"] == "assistant"] == ["ok"]
    assert tally.get("turns dropped", "longer than the window (claude-code)") == 1


steps = st.lists(
    st.tuples(st.sampled_from(["user", "answer", "call", "boundary"]), st.integers(0, 500)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, window=st.integers(600, 3000))
def test_each_answer_is_trained_once_and_no_window_is_too_long(
    steps: list[tuple[str, int]], window: int
) -> None:
    entries: list[Entry] = []
    for i, (kind, size) in enumerate(steps, start=1):
        words = f"n{i} " + "w " * (size // 2)
        if kind == "user":
            entries.append(say(i * 2, words))
        elif kind == "boundary":
            entries.append(Entry("boundary", i * 2))
        elif kind == "answer":
            entries.append(reply(i * 2, words))
        else:
            entries += [reply(i * 2, words, f"c{i}"), result(i * 2 + 1, f"c{i}", words)]
    made, tally = examples(talk(*entries), Limits(window, 400))
    trained = [
        m["content"].split()[0] for e in made for m in e.messages if m["role"] == "assistant"
    ]
    answers = [e for e in entries if e.kind == "assistant"]
    assert len(trained) == len(set(trained))
    lost = tally.get("turns dropped", "longer than the window (claude-code)")
    assert len(trained) + lost >= len(answers)
    for e in made:
        calls = [c["id"] for m in e.messages for c in m.get("tool_calls", ())]
        assert calls == [m["tool_call_id"] for m in e.messages if m["role"] == "tool"]
        assert e.messages[-1]["role"] in ("assistant", "tool")
        assert sum(len(m["content"]) for m in e.messages) <= window + 400
        roles = [m["role"] for m in e.messages]
        assert ("user", "user") not in list(itertools.pairwise(roles))


def test_a_line_is_never_cut_inside_a_word() -> None:
    """Half of a pseudonym looks like a user's name to the second reader."""
    line = "see /Users/user9bfa55/src and /Users/userf84f09/Work"
    for limit in range(1, len(line) + 1):
        short = shorten(line, limit)
        assert len(short) <= max(limit, 1)
        assert short == line or set(short.removesuffix("…").split()) <= set(line.split())
