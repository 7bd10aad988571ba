"""OpenAI's responses: what is read from a request, and what the real client makes of an answer, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gtft.serving.engine import Ask
from gtft.serving.previous import make_address
from gtft.serving.question import Bounds, Question, Refused
from gtft.serving.responses import Responses
from gtft.serving.subject import find_bead, find_session
from serving_case import CALL, MODEL, Running, Script, deploy, make_route, serve

PATH = "/v1/responses"
TOOL: Any = {
    "type": "function",
    "name": "Bash",
    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    "strict": False,
}
CALLED = {"type": "function_call", "call_id": "c1", "name": "Bash", "arguments": '{"command": "ls"}'}  # fmt: skip
SESSION = "0f0e0d0c-1111-2222-3333-444455556666"


def ask_for(**body: Any) -> Question:
    return Responses().read(
        {"model": MODEL, "input": "which pump leaks?", **body}, Bounds(64, 100, 30.0)
    )


def read(**body: Any) -> Ask:
    return ask_for(**body).ask


def said(role: str, *texts: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": t} for t in texts]
    return {"type": "message", "role": role, "content": content}


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def server(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(script, tmp_path_factory.mktemp("responses")) as running:
        yield running


@pytest.fixture
def client(server: Running, script: Script) -> openai.OpenAI:
    script.say, script.finish = Script().say, "stop"
    return connect(server)


def connect(server: Running, below: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}{below}/v1", api_key="none", max_retries=0)


def test_a_request_becomes_an_ask_as_the_harvest_reads_it() -> None:
    ask = read(
        instructions="be brief",
        input=[
            said("developer", "be kind"),
            said("user", "a", "b"),
            {"type": "reasoning", "summary": [], "encrypted_content": "x", "content": None},
            said("assistant", "I look."),
            CALLED,
            {**CALLED, "call_id": "c2"},
            {"type": "web_search_call", "status": "completed", "action": {"query": "x"}},
            {"type": "function_call_output", "call_id": "c1", "output": "x.txt"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": t} for t in ("y", "z")],
            },
            {"type": "custom_tool_call", "call_id": "c3", "name": "apply_patch", "input": "{}"},
            {"type": "custom_tool_call_output", "call_id": "c3", "output": "done"},
            {"role": "user", "content": "go on"},
        ],
        tools=[TOOL],
        max_output_tokens=70,
        temperature=0.5,
        top_p=0.9,
    )
    assert [m["role"] for m in ask.messages] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "tool", "user",
    ]  # fmt: skip
    system, user, called, first, second, patched, _, last = ask.messages
    assert (system["content"], user["content"]) == ("be brief\n\nbe kind", "a\n\nb")
    assert called["content"] == "I look."
    assert [c["id"] for c in called["tool_calls"]] == ["c1", "c2"]
    assert called["tool_calls"][0]["function"]["arguments"] == {"command": "ls"}
    assert (first["name"], first["content"], second["content"]) == ("Bash", "x.txt", "y\nz")
    assert patched["tool_calls"][0]["function"]["arguments"] == {"input": "{}"}
    assert last["content"] == "go on"
    assert (ask.max_tokens, ask.temperature, ask.top_p) == (70, 0.5, 0.9)
    assert ask.tools[0]["function"] == {"name": "Bash", "parameters": TOOL["parameters"]}


def test_what_is_not_said_is_greedy_and_bounded() -> None:
    ask = read()
    assert (ask.max_tokens, ask.temperature, ask.top_p, ask.tools) == (64, 0.0, 1.0, ())
    assert ask.messages == ({"role": "user", "content": "which pump leaks?"},)
    assert read(max_output_tokens=5000).max_tokens == 100


def test_a_choice_narrows_the_tools_and_what_is_no_function_is_not_offered() -> None:
    other = {"type": "function", "name": "Read"}
    builtin = [{"type": k} for k in ("local_shell", "web_search", "custom", "namespace")]
    found = ask_for(tools=[TOOL, *builtin, other])
    assert [t["function"]["name"] for t in found.ask.tools] == ["Bash", "Read"]
    assert [t["name"] for t in found.echo["tools"]] == ["Bash", "Read"]
    assert found.must_call is False
    assert read(tools=[TOOL], tool_choice="none").tools == ()
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [other]}
    for choice in ({"type": "function", "name": "Read"}, allowed):
        found = ask_for(tools=[TOOL, other], tool_choice=choice)
        assert [t["function"]["name"] for t in found.ask.tools] == ["Read"]
        assert found.must_call is True


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id: nothing is stored"),
        ({"conversation": "conv_1"}, "conversation: nothing is stored"),
        ({"prompt": {"id": "p"}}, "prompt: "),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
        ({"include": ["message.output_text.logprobs"]}, "logprobs"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [7]}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": [said("king", "x")]}, "input.0.role"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [{"type": ["message"]}]}, "input.0"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0: item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input_file"),
        ({"input": [{**CALLED, "arguments": "{"}]}, "input.0: the arguments"),
        ({"input": [{**CALLED, "arguments": "[]"}]}, "input.0: the arguments"),
        ({"input": [{**CALLED, "arguments": '{"a": "\\ud800"}'}]}, "input.0: the arguments"),
        ({"input": [{**CALLED, "arguments": '{"a":' * 500 + "1" + "}" * 500}]}, "input.0: the arg"),
        ({"input": [{"type": "function_call_output", "output": {"a": 1}}]}, "input.0.output"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"metadata": {"a": {}}}, "metadata"),
        ({"tools": [{"type": "mcp"}]}, "mcp"),
        ({"tools": [{"type": 3}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "name": "x", "parameters": []}]}, "tools.0.parameters"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "No"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_its_name(body: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused) as e:
        read(**body)
    assert e.value.status == 400
    assert told in e.value.why


def test_hostile_bodies_are_refused_and_long_ones_read(server: Running) -> None:
    deep = b'{"input": "x", "tools": [{"type": "function", "name": "x", "parameters": %s1%s}]}'
    for levels in (100, 400, 900, 5000):
        body = deep % (b'{"a":' * levels, b"}" * levels)
        assert server.send("POST", PATH, body)[0] == 400
    for body in (b"[]", b"{", b"{}", b'{"input": "\\ud800"}', b'{"input": [[[]]]}'):
        status, _, doc = server.send("POST", PATH, body)
        assert (status, doc["error"]["type"]) == (400, "invalid_request_error")
    # Each of many items is taken once: what is said in a row does not cost its square.
    many = read(input=[said("user", "x"), *[CALLED, said("assistant", "y")] * 20_000])
    assert len(many.messages[1]["tool_calls"]) == 20_000


def test_a_whole_answer(client: openai.OpenAI, script: Script) -> None:
    script.say = lambda a: f"I look.\n{CALL}\nDone."
    found = client.responses.create(
        model=MODEL,
        input="which pump leaks?",
        instructions="be brief",
        tools=[TOOL],
        metadata={"bead": "gt-abc12"},
    )
    assert (found.object, found.status, found.model) == ("response", "completed", MODEL)
    assert found.id.startswith("resp_")
    assert [o.type for o in found.output] == ["message", "function_call", "message"]
    assert found.output_text == "I look.Done."
    call = found.output[1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"command": "bd show gt-abc12"}
    assert call.call_id.startswith("call_")
    assert len({o.id for o in found.output}) == 3
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.input_tokens_details.cached_tokens) == (7, 0)
    assert found.usage.total_tokens == 7 + found.usage.output_tokens
    assert (found.instructions, found.metadata) == ("be brief", {"bead": "gt-abc12"})
    assert (found.tools[0].type, found.tool_choice) == ("function", "auto")
    assert found.parallel_tool_calls is True
    strict = type(found).model_validate(found.model_dump(), strict=True)
    assert strict.output_text == found.output_text


def test_an_answer_that_is_cut_and_one_that_is_empty(client: openai.OpenAI, script: Script) -> None:
    script.say = lambda a: "a long answer"
    cut = client.responses.create(model=MODEL, input="x", max_output_tokens=2)
    assert (cut.status, cut.output_text) == ("incomplete", "a long")
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    last = list(client.responses.create(model=MODEL, input="x", max_output_tokens=2, stream=True))
    assert last[-1].type == "response.incomplete"
    script.say = lambda a: ""
    empty = client.responses.create(model=MODEL, input="x")
    assert [o.type for o in empty.output] == ["message"]
    assert empty.output_text == ""


def test_the_whole_sequence_of_events(client: openai.OpenAI, script: Script) -> None:
    script.say = lambda a: f"I look.\n{CALL}\nDone."
    whole = client.responses.create(model=MODEL, input="x", tools=[TOOL])
    events = list(client.responses.create(model=MODEL, input="x", tools=[TOOL], stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type.removeprefix("response.") for e in events]
    delta = "output_text.delta"
    message = [
        "output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done",
    ]  # fmt: skip
    arguments = ["function_call_arguments.delta", "function_call_arguments.done"]
    call = ["output_item.added", *arguments, "output_item.done"]
    assert [k for k in kinds if k != delta] == [
        "created", "in_progress", *message, *call, *message, "completed",
    ]  # fmt: skip
    assert kinds[4] == delta
    texts = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    done = [e.item for e in events if e.type == "response.output_item.done"]
    last = events[-1]
    assert last.type == "response.completed"
    assert texts == last.response.output_text == whole.output_text
    assert [o.to_dict() for o in last.response.output] == [o.to_dict() for o in done]
    assert last.response.usage == whole.usage
    for one, other in zip(last.response.output, whole.output, strict=True):
        hidden = {"id", "call_id"}
        assert one.model_dump(exclude=hidden) == other.model_dump(exclude=hidden)


def test_a_round_of_tools_through_the_clients_own_stream(
    client: openai.OpenAI, script: Script
) -> None:
    def say(ask: Ask) -> str:
        last = ask.messages[-1]
        return f"It is {last['content']}." if last["role"] == "tool" else f"I look.\n{CALL}"

    script.say = say
    items: list[Any] = [{"role": "user", "content": "which pump leaks?"}]
    asked: dict[str, Any] = {"model": MODEL, "tools": [TOOL], "store": False}
    with client.responses.stream(input=items, **asked) as stream:
        first = stream.get_final_response()
    call = next(o for o in first.output if o.type == "function_call")
    assert (call.name, call.parsed_arguments) == ("Bash", None)
    assert json.loads(call.arguments) == {"command": "bd show gt-abc12"}
    items += [o.model_dump(exclude={"parsed_arguments"}, exclude_none=True) for o in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "pump 3"})
    second = client.responses.create(input=items, **asked)
    assert (second.status, second.output_text) == ("completed", "It is pump 3.")
    told = script.asked[-1].messages
    assert [m["role"] for m in told] == ["user", "assistant", "tool"]
    assert (told[1]["content"], told[2]["name"]) == ("I look.", "Bash")


def test_errors_are_the_clients_own(client: openai.OpenAI, script: Script) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.responses.create(model="no-such-model", input="x")
    with pytest.raises(openai.BadRequestError, match="nothing is stored"):
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError, match="no response is stored"):
        client.responses.retrieve("resp_1")
    script.finish = "error"
    events = list(client.responses.create(model=MODEL, input="x", stream=True))
    failed = events[-1]
    assert failed.type == "response.failed"
    assert (failed.response.status, failed.sequence_number) == ("failed", len(events) - 1)
    assert failed.response.error is not None
    assert failed.response.error.code == "server_error"
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model=MODEL, input="x")


def test_a_role_is_asked_through_its_own_address(tmp_path: Path) -> None:
    deploy(tmp_path, make_route())
    with serve(Script(), tmp_path) as server:
        for below in ("/roles/witness", "/rigs/gizmo/roles/witness"):
            there = connect(server, below)
            events = there.responses.create(
                model="whatever",
                input=[{"role": "user", "content": "Hooked: gt-abc12"}],
                stream=True,
                extra_headers={"session_id": SESSION},
            )
            last = list(events)[-1]
            assert last.type == "response.completed"
            assert (last.response.model, last.response.temperature) == (MODEL, 0.0)
        lines = server.read_lines()
    assert [(n.took, n.bead, n.session) for n in lines] == [("model", "gt-abc12", SESSION)] * 2


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.example.com", "https://api.example.com/v1/responses"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/responses"),
        ("https://api.example.com/backend/codex", "https://api.example.com/backend/codex/responses"),
    ],
)  # fmt: skip
def test_who_answered_before_is_asked_where_its_clients_ask(url: str, address: str) -> None:
    assert make_address(url, PATH) == address


def test_the_bead_and_session_of_a_request() -> None:
    assert find_bead({}, {"instructions": "Hooked: gt-sys1", "input": "Hooked: gt-abc12"}) == (
        "gt-sys1"
    )
    assert find_bead({}, {"input": "Hooked: gt-abc12"}) == "gt-abc12"
    assert find_bead({}, {"input": [said("user", "x", "Hooked: gt-abc12")]}) == "gt-abc12"
    assert find_session({"session-id": SESSION}, {}) == SESSION
