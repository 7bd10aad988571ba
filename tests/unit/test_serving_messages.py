"""Anthropic's protocol: what is read from a request, and what an answer looks like, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gtft.serving.engine import Ask
from gtft.serving.messages import Messages
from gtft.serving.question import Bounds, Refused
from serving_case import CALL, MODEL, Running, Script, serve

USER = [{"role": "user", "content": "which pump leaks?"}]
TOOL = {"name": "Bash", "description": "runs", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def read(**body: Any) -> Ask:
    given = {"model": MODEL, "max_tokens": 50, "messages": USER, **body}
    return Messages().read(given, Bounds(64, 100, 30.0)).ask


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def server(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(script, tmp_path_factory.mktemp("messages")) as running:
        yield running


def ask(server: Running, **more: Any) -> tuple[int, Any]:
    body = {"model": MODEL, "max_tokens": 100, "messages": USER, **more}
    status, _, doc = server.send("POST", "/v1/messages?beta=true", body)
    return status, doc


def read_events(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.strip().split("\n\n"):
        kind, data = block.split("\n")
        doc = json.loads(data.removeprefix("data: "))
        assert doc["type"] == kind.removeprefix("event: ")
        events.append(doc)
    return events


def test_a_request_becomes_an_ask_as_the_harvest_reads_it() -> None:
    found = read(
        system=[
            {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "be kind"},
        ],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x.txt"}]},
                    {"type": "text", "text": "and now?"},
                ],
            },
        ],
        tools=[TOOL],
        thinking={"type": "enabled", "budget_tokens": 1024},
        stop_sequences=["END"],
        temperature=0.5,
    )  # fmt: skip
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "be brief\n\nbe kind"),
        ("user", "a\n\nb"),
        ("assistant", "I look."),
        ("tool", "x.txt"),
        ("user", "and now?"),
    ]
    assert found.messages[2]["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}
    assert (found.messages[3]["tool_call_id"], found.messages[3]["name"]) == ("t1", "Bash")
    assert found.tools[0]["function"]["parameters"] == {"type": "object"}
    assert (found.max_tokens, found.stop, found.temperature) == (50, ("END",), 0.5)


def test_a_choice_narrows_the_tools() -> None:
    tools = [TOOL, {"name": "Read", "input_schema": {"type": "object"}}]
    names = [
        t["function"]["name"]
        for t in read(tools=tools, tool_choice={"type": "tool", "name": "Read"}).tools
    ]
    assert names == ["Read"]
    assert read(tools=tools, tool_choice={"type": "none"}).tools == ()


def test_what_says_nothing_about_the_format_is_ignored_and_any_conversation_is_counted() -> None:
    assert read(output_config={"effort": "high"}).messages
    assert read(max_tokens=None, messages=[*USER, {"role": "assistant", "content": "so"}]).messages


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "image cannot be read"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}]}
                ]
            },
            "image cannot be read",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "document"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop_sequences": ["x"] * 17}, "stop: at most 16"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format"),
        ({"output_format": {"type": "json_schema", "schema": {}}}, "output_config.format"),
        ({"messages": [*USER, {"role": "assistant", "content": '{"action":'}]}, "the last one is the assistant's"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "No"}}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_name(body: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as e:
        read(**body)
    assert e.value.status == 400
    assert told in e.value.why


def test_a_whole_answer(server: Running, script: Script) -> None:
    script.say = lambda a: f"I look.\n{CALL}"
    status, doc = ask(server, tools=[TOOL])
    assert status == 200
    assert doc["content"][0] == {"type": "text", "text": "I look."}
    assert doc["content"][1]["input"] == {"command": "bd show gt-abc12"}
    assert (doc["stop_reason"], doc["stop_sequence"], doc["role"]) == (
        "tool_use",
        None,
        "assistant",
    )
    assert doc["usage"]["input_tokens"] == 7
    script.say = lambda a: "a long answer"
    assert ask(server, max_tokens=2)[1]["stop_reason"] == "max_tokens"
    stopped = ask(server, stop_sequences=["long"])[1]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "long")
    assert stopped["content"] == [{"type": "text", "text": "a"}]
    assert ask(server)[1]["stop_reason"] == "end_turn"


def test_the_whole_sequence_of_events(server: Running, script: Script) -> None:
    script.say = lambda a: f"I look.\n{CALL}\nDone."
    status, text = ask(server, stream=True)
    assert status == 200
    events = read_events(text)
    kinds = [e["type"] for e in events if e["type"] != "content_block_delta"]
    block = ["content_block_start", "content_block_stop"]
    assert kinds == ["message_start", "ping", *block * 3, "message_delta", "message_stop"]
    starts = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
    assert starts == ["text", "tool_use", "text"]
    deltas = [e for e in events if e["type"] == "content_block_delta"]
    said = "".join(e["delta"].get("text", "") for e in deltas)
    assert said == "I look.\nDone."
    written = "".join(e["delta"].get("partial_json", "") for e in deltas if e["index"] == 1)
    assert json.loads(written) == {"command": "bd show gt-abc12"}
    end = next(e for e in events if e["type"] == "message_delta")
    assert end["delta"]["stop_reason"] == "tool_use"
    assert (end["usage"]["input_tokens"], end["usage"]["output_tokens"] > 5) == (7, True)


def test_tokens_are_counted(server: Running) -> None:
    body = {"model": MODEL, "system": "be brief", "messages": USER}
    status, _, doc = server.send("POST", "/v1/messages/count_tokens", body)
    assert (status, doc) == (200, {"input_tokens": 5})


def test_errors_have_the_shape_of_the_protocol(server: Running) -> None:
    status, doc = ask(server, model="no-such-model")
    assert (status, doc["type"], doc["error"]["type"]) == (404, "error", "not_found_error")
    status, doc = ask(server, messages="x")
    assert (status, doc["error"]["type"]) == (400, "invalid_request_error")
    status, _, doc = server.send("POST", "/v1/messages", b"{}", Host="evil.example")
    assert (status, doc["error"]["type"]) == (403, "permission_error")
