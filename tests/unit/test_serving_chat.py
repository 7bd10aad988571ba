"""OpenAI's protocol: what is read from a request, and what an answer looks like, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gtft.serving.chat import Chat
from gtft.serving.engine import Ask
from gtft.serving.question import Bounds, Refused
from gtft.serving.speech import Called, Parter, Piece, Said, part
from serving_case import CALL, MODEL, Running, Script, serve

USER = [{"role": "user", "content": "which pump leaks?"}]
TOOL = {"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}}
BOUNDS = Bounds(64, 100, 30.0)


def read(**body: Any) -> Ask:
    return Chat().read({"model": MODEL, "messages": USER, **body}, BOUNDS).ask


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def server(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(script, tmp_path_factory.mktemp("chat")) as running:
        yield running


def read_stream(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_request_becomes_an_ask() -> None:
    ask = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "Bash", "arguments": '{"command": "ls"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "x.txt"},
        ],
        tools=[TOOL],
        max_completion_tokens=70,
        seed=3,
        temperature=0.5,
        stop="END",
        logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    assert [m["role"] for m in ask.messages] == ["system", "user", "assistant", "tool"]
    assert ask.messages[1]["content"] == "ab"
    assert ask.messages[2]["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}
    assert ask.messages[3]["name"] == "Bash"
    assert (ask.max_tokens, ask.seed, ask.temperature, ask.stop) == (70, 3, 0.5, ("END",))
    assert ask.top_logprobs == 2
    assert ask.tools[0]["function"]["name"] == "Bash"


def test_what_is_not_said_is_greedy_and_bounded() -> None:
    ask = read()
    assert (ask.max_tokens, ask.temperature, ask.top_p, ask.top_logprobs) == (64, 0.0, 1.0, None)
    assert read(max_tokens=5000).max_tokens == 100
    assert len(read(stop=[f"end {n}" for n in range(16)]).stop) == 16


def test_a_choice_narrows_the_tools() -> None:
    other = {"type": "function", "function": {"name": "Read"}}
    assert read(tools=[TOOL], tool_choice="none").tools == ()
    chosen = {"type": "function", "function": {"name": "Read"}}
    ask = read(tools=[TOOL, other], tool_choice=chosen)
    assert [t["function"]["name"] for t in ask.tools] == ["Read"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"n": 2}, "n: one answer"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"stop": [f"end {n}" for n in range(17)]}, "stop: at most 16"),
        ({"stop": "x" * 257}, "256 characters"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"top_logprobs": 99}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "No"}}}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_name(body: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as e:
        read(**body)
    assert e.value.status == 400
    assert told in e.value.why


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Refused) as e:
        read(messages=[{"role": "user", "content": {"my": "made-up secret"}}])
    assert "secret" not in e.value.why


def join(pieces: list[Piece]) -> tuple[str, list[Called]]:
    return "".join(p.text for p in pieces if isinstance(p, Said)), [
        p for p in pieces if isinstance(p, Called)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "plain words < and <tool> too",
        f"I look.\n{CALL}",
        f"{CALL}\n{CALL} then I go on",
        "  space around  ",
        "<tool_call>{",
        "<tool_call>{}</tool_call> after",
        '<tool_call>{"name": "a", "arguments": []}</tool_call>',
        f"a <tool_call>no</tool_call> {CALL}",
        "ends with <tool_c",
        "",
    ],
)
def test_an_answer_is_parted_alike_however_it_is_cut(text: str) -> None:
    said, calls, damaged = part(text)
    for size in (1, 2, 5, 11):
        parter = Parter()
        pieces = [p for i in range(0, len(text), size) for p in parter.feed(text[i : i + size])]
        assert join([*pieces, *parter.end()]) == (said, list(calls))
        assert parter.damaged == damaged


def test_calls_are_taken_out_and_damaged_ones_stay_text() -> None:
    assert part(f"I look.\n{CALL}\nDone.") == (
        "I look.\nDone.",
        (Called("Bash", {"command": "bd show gt-abc12"}),),
        False,
    )
    assert part("<tool_call>{") == ("<tool_call>{", (), True)
    assert part("") == ("", (), False)


def test_a_whole_answer(server: Running, script: Script) -> None:
    script.say = lambda ask: f"I look.\n{CALL}"
    status, _, doc = server.chat(tools=[TOOL], logprobs=True, top_logprobs=1)
    assert status == 200
    (choice,) = doc["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("I look.", "tool_calls")
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"command": "bd show gt-abc12"}
    content = choice["logprobs"]["content"]
    assert "".join(c["token"] for c in content) == f"I look.\n{CALL}"
    assert content[0]["top_logprobs"][0]["logprob"] == -0.5
    assert doc["usage"]["total_tokens"] == 7 + len(content)
    script.say = lambda ask: "a long answer"
    cut = server.chat(max_tokens=2)[2]["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("a long", "length")
    stopped = server.chat(stop=["long"])[2]["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("a", "stop")


def test_a_streamed_answer_adds_up_to_the_whole_one(server: Running, script: Script) -> None:
    script.say = lambda ask: f"I look.\n{CALL}\n{CALL}"
    whole = server.chat()[2]["choices"][0]["message"]
    status, headers, text = server.chat(
        stream=True, stream_options={"include_usage": True}, logprobs=True
    )
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    chunks = read_stream(text)
    last = chunks.pop()
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 7)
    choices = [c["choices"][0] for c in chunks]
    assert "".join(c["delta"].get("content") or "" for c in choices) == whole["content"]
    calls = [t for c in choices for t in c["delta"].get("tool_calls", ())]
    assert [c["index"] for c in calls] == [0, 1]
    assert len({c["id"] for c in calls}) == 2
    assert [c["function"] for c in calls] == [c["function"] for c in whole["tool_calls"]]
    told = [t["token"] for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
    assert "".join(told) == f"I look.\n{CALL}\n{CALL}"
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["tool_calls"]


@pytest.mark.parametrize(
    ("finish", "status"), [("error", 500), ("timeout", 504), ("cancelled", 503)]
)
def test_an_answer_that_fails_is_an_error(finish: str, status: int, tmp_path: Path) -> None:
    with serve(Script(finish=finish, say=lambda ask: ""), tmp_path) as server:
        assert server.chat()[0] == status
        assert server.chat(stream=True)[0] == status
    with serve(Script(finish=finish), tmp_path) as server:
        status, _, text = server.chat(stream=True)
        assert status == 200
        assert '"error"' in text
        assert "[DONE]" not in text


def test_what_utf8_has_no_place_for_travels(server: Running, script: Script) -> None:
    script.say = lambda ask: (
        '<tool_call>{"name": "Bash", "arguments": {"command": "\\ud800"}}</tool_call>'
    )
    for more in ({}, {"stream": True}):
        assert server.chat(**more)[0] == 200
    status, _, doc = server.send(
        "POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    )
    assert status == 400
    assert doc["error"]["type"] == "invalid_request_error"
