"""The real clients of both protocols against the worker's server: answers, streams, tools, logprobs, errors as their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import evals_case as case
from gtft.service import read_address
from gtft.serving.engine import Ask
from serving_case import CALL, MODEL, Running, Script, deploy, make_route, serve

USER: list[Any] = [{"role": "user", "content": "which pump leaks?"}]
PARAMETERS = {"type": "object", "properties": {"command": {"type": "string"}}}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "Bash", "parameters": PARAMETERS}}
TOOL: Any = {"name": "Bash", "description": "runs a command", "input_schema": PARAMETERS}


@dataclass(frozen=True)
class Clients:
    chat: openai.OpenAI
    messages: anthropic.Anthropic


def connect(url: str, token: str = "none") -> Clients:
    return Clients(
        openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0, timeout=120),
        anthropic.Anthropic(base_url=url, api_key=token, max_retries=0, timeout=120),
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """``gtft model serve --deployed`` with a tiny model, ended as a person ends it."""
    root = tmp_path_factory.mktemp("clients")
    workspace = root / ".gtft"
    artifacts = workspace / "artifacts"
    corpus = case.make_corpus(artifacts, [case.example(1)], [case.example(2)])
    adapter = case.make_adapter(artifacts, case.make_base(root), root, corpus)
    deploy(workspace, make_route(model="tuned", adapter=adapter.id, mode="shadow"))
    command = ["-m", "gtft.cli.main", "model", "serve", "--deployed", "--port", "0", "--json"]
    program = subprocess.Popen(
        [sys.executable, *command],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("GTFT_WORKSPACE")},
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    said = json.loads(program.stdout.readline())
    assert said["ok"] is True
    address = read_address(workspace)
    assert address is not None
    assert f"{address.url}/v1" == said["data"]["url"]
    assert address.models == ("tuned", "base")
    yield connect(address.url)
    os.killpg(program.pid, signal.SIGINT)
    assert program.wait(60) == 0
    program.stdout.close()
    assert read_address(workspace) is None


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def server(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(script, tmp_path_factory.mktemp("scripted")) as running:
        yield running


@pytest.fixture
def clients(server: Running, script: Script) -> Clients:
    script.say, script.finish, script.queue = Script().say, "stop", 8
    return connect(server.url)


def test_a_real_model_answers_alike_whole_and_streamed_in_every_protocol(real: Clients) -> None:
    asked: dict[str, Any] = {"model": "tuned", "messages": USER, "max_tokens": 16}
    whole = real.chat.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    (choice,) = whole.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert whole.usage is not None
    assert len(choice.logprobs.content) >= whole.usage.completion_tokens > 0
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert max(t.logprob for t in token.top_logprobs) >= token.logprob - 1e-6
    chunks = list(
        real.chat.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == choice.message.content
    assert chunks[-1].usage == whole.usage
    told: dict[str, Any] = {"model": "tuned", "input": USER, "max_output_tokens": 16}
    response = real.chat.responses.create(**told)
    events = list(real.chat.responses.create(**told, stream=True))
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    for answered in (response, last.response):
        assert answered.output_text == said
        assert answered.usage is not None
        assert answered.usage.output_tokens == whole.usage.completion_tokens
        assert answered.usage.input_tokens == whole.usage.prompt_tokens
    message = real.messages.messages.create(**asked)
    with real.messages.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == said
        final = stream.get_final_message()
    for found in (message, final):
        assert "".join(b.text for b in found.content if b.type == "text") == said
        assert found.usage.output_tokens == whole.usage.completion_tokens
        assert found.usage.input_tokens == whole.usage.prompt_tokens
    counted = real.messages.messages.count_tokens(model="tuned", messages=USER)
    assert counted.input_tokens == whole.usage.prompt_tokens


def test_the_models_are_listed_by_both_clients(real: Clients) -> None:
    assert [m.id for m in real.chat.models.list()] == ["tuned", "base"]
    assert [m.id for m in real.messages.models.list()] == ["tuned", "base"]


def test_a_round_of_tools_with_openai(clients: Clients, script: Script) -> None:
    script.say = say_by_results
    messages = list(USER)
    asked: dict[str, Any] = {"model": MODEL, "tools": [CHAT_TOOL], "messages": messages}
    first = clients.chat.chat.completions.create(**asked).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls or ()
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"command": "bd show gt-abc12"}
    messages += [
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "pump 3"},
    ]
    second = clients.chat.chat.completions.create(**asked).choices[0]
    assert (second.finish_reason, second.message.content) == ("stop", "It is pump 3.")
    streamed = clients.chat.chat.completions.create(**{**asked, "messages": USER}, stream=True)
    parts = [d for c in streamed for d in c.choices[0].delta.tool_calls or ()]
    assert [p.function.name for p in parts if p.function] == ["Bash"]


def test_a_round_of_tools_with_anthropic(clients: Clients, script: Script) -> None:
    script.say = say_by_results
    messages = list(USER)
    asked: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "tools": [TOOL],
        "messages": messages,
    }
    with clients.messages.messages.stream(**asked) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    call = next(b for b in first.content if b.type == "tool_use")
    assert (call.name, call.input) == ("Bash", {"command": "bd show gt-abc12"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "pump 3"}
    messages += [
        {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
        {"role": "user", "content": [result]},
    ]
    second = clients.messages.messages.create(**asked)
    assert second.stop_reason == "end_turn"
    assert [b.text for b in second.content if b.type == "text"] == ["It is pump 3."]


def say_by_results(ask: Ask) -> str:
    last = ask.messages[-1]
    return f"It is {last['content']}." if last["role"] == "tool" else f"I look.\n{CALL}"


def test_stop_sequences_reach_both_clients(clients: Clients, script: Script) -> None:
    script.say = lambda ask: "one END two"
    chosen = clients.chat.chat.completions.create(model=MODEL, messages=USER, stop="END")
    assert (chosen.choices[0].message.content, chosen.choices[0].finish_reason) == ("one", "stop")
    message = clients.messages.messages.create(
        model=MODEL, messages=USER, max_tokens=50, stop_sequences=["END"]
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


def test_errors_are_the_clients_own(clients: Clients, script: Script, tmp_path: Path) -> None:
    def chat(to: Clients = clients, **more: Any) -> Any:
        return to.chat.chat.completions.create(**{"model": MODEL, "messages": USER, **more})

    def message(to: Clients = clients, **more: Any) -> Any:
        given = {"model": MODEL, "messages": USER, "max_tokens": 20, **more}
        return to.messages.messages.create(**given)

    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        chat(model="no-such-model")
    with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
        message(model="no-such-model")
    with pytest.raises(openai.BadRequestError, match="response_format"):
        chat(response_format={"type": "json_object"})
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
    }
    with pytest.raises(anthropic.BadRequestError, match="image"):
        message(messages=[{"role": "user", "content": [image]}])
    with pytest.raises(openai.NotFoundError, match="no model is deployed"):
        other = openai.OpenAI(
            base_url=f"{str(clients.messages.base_url).rstrip('/')}/roles/witness/v1", api_key="x", max_retries=0
        )  # fmt: skip
        other.chat.completions.create(model=MODEL, messages=USER)
    script.queue = 0
    with pytest.raises(openai.RateLimitError) as busy:
        chat()
    assert busy.value.response.headers["retry-after"] == "3"
    with pytest.raises(anthropic.RateLimitError):
        message()
    script.queue, script.finish = 8, "error"
    with pytest.raises(openai.APIError):
        list(chat(stream=True))
    with pytest.raises(anthropic.APIStatusError):
        list(message(stream=True))
    token = "made-up-token-made-up-token"
    with serve(Script(), tmp_path, token=token) as guarded:
        wrong, right = connect(guarded.url), connect(guarded.url, token)
        with pytest.raises(openai.AuthenticationError):
            chat(wrong)
        with pytest.raises(anthropic.AuthenticationError):
            message(wrong)
        assert chat(right).choices[0].message.content
        assert message(right).content


def test_a_role_is_asked_through_its_own_address(
    server: Running, clients: Clients, script: Script
) -> None:
    deploy(server.workspace, make_route(seconds=30.0))
    url = f"{server.url}/roles/witness"
    there = connect(url)
    said = there.chat.chat.completions.create(model="whatever", messages=USER)
    assert said.model == MODEL
    with there.messages.messages.stream(model="whatever", max_tokens=500, messages=USER) as stream:
        assert stream.get_final_text() == said.choices[0].message.content
