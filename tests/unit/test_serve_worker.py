"""A tiny real model behind the chat endpoint, asked by the endpoint candidate as any other server would be."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import evals_case as case
from gtft.artifact import Artifact
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.endpoint import EndpointCandidate
from gtft.evals.asking.load import Candidates
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.item import CheckSpec, Item
from gtft.recipe.schema import Endpoint
from gtft.workers.serve import Speaker, _write_message, load, make_server

TOKENS = 12


@dataclass(frozen=True)
class World:
    root: Path
    adapter: Artifact
    loaded: Candidates
    port: int


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("serve")
    corpus = case.make_corpus(root / "artifacts", [case.example(1)], [case.example(2)])
    adapter = case.make_adapter(root / "artifacts", case.make_base(root), root, corpus)
    loaded = load(describe(root, adapter))
    server = make_server(Speaker(loaded, TOKENS), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield World(root, adapter, loaded, server.server_address[1])
    server.shutdown()
    server.server_close()


def describe(root: Path, adapter: Artifact) -> dict[str, Any]:
    places = {"workspace": str(root), "root": str(root), "artifacts": str(root / "artifacts")}
    return {"adapter": str(adapter.path), "max_new_tokens": TOKENS, **places}


def make_items() -> list[Item]:
    texts = ("which pump leaks?", "the tide is 12 high", "case of the harbor, again and again")
    return [
        Item("", "s", "c", None, "t", "s", ({"role": "user", "content": t},), (), CheckSpec("", {}), "").identified()
        for t in texts
    ]  # fmt: skip


def send(
    world: World, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    line = http.client.HTTPConnection("127.0.0.1", world.port, timeout=120)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    line.request(method, path, data, {"Content-Type": "application/json", **headers})
    response = line.getresponse()
    said = json.loads(response.read())
    line.close()
    return response.status, said


@pytest.mark.parametrize("model", ["base", "tuned"])
@pytest.mark.parametrize("seed", [0, 5])
def test_over_the_network_a_model_answers_as_it_does_here(
    world: World, model: str, seed: int
) -> None:
    entry = {"name": "own", "url": f"http://127.0.0.1:{world.port}/v1", "model": model}
    there = EndpointCandidate(
        Endpoint.model_validate(entry),
        max_new_tokens=TOKENS,
        item_seconds=120,
        temperature=0.7,
        environ={},
    )
    here = LocalCandidate(
        model,
        world.loaded,
        as_base=model == "base",
        limits=Limits(TOKENS, 120),
        clock=time.monotonic,
        temperature=0.7,
    )
    asked, _ = there.write(make_items())
    replies = there.answer(asked, seed)
    assert [r.error for r in replies] == [""] * 3
    if seed:
        assert replies[0].text == there.answer(asked[:1], seed)[0].text
        return
    for item, reply in zip(make_items(), replies, strict=True):
        prompts, _ = here.write([item])
        (own,) = here.answer(prompts, seed)
        assert (reply.text, reply.tokens, reply.prompt_tokens, reply.finish) == (
            own.text, own.tokens, own.prompt_tokens, own.finish,
        )  # fmt: skip
        assert reply.confidence == pytest.approx(own.confidence, abs=1e-5)


def test_base_and_tuned_are_two_models(world: World) -> None:
    code, listed = send(world, "GET", "/v1/models")
    assert (code, [m["id"] for m in listed["data"]]) == (200, ["tuned", "base"])
    body = {"messages": [{"role": "user", "content": "which pump leaks?"}], "max_tokens": 8}
    said = [
        send(world, "POST", "/v1/chat/completions", {**body, "model": m})[1]
        for m in ("base", "tuned")
    ]
    assert said[0]["choices"] != said[1]["choices"]
    assert said[0]["usage"]["total_tokens"] == sum(
        said[0]["usage"][k] for k in ("prompt_tokens", "completion_tokens")
    )


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"model": "gpt", "messages": []}, 400, "models are"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": True}, 400, "streamed"),
        ({"messages": [{"role": "user", "content": "x " * 4000}]}, 400, "do not fit"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}, 400, "do not fit"),
        ({"messages": "x"}, 400, "not a chat request"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}, 400, "not a chat"),
        ({}, 400, "not a chat request"),
        ([], 400, "not a JSON object"),
        (b"{", 400, "Expecting"),
        (b"[" * 100_000, 400, "recursion"),
    ],
)
def test_a_bad_request_is_refused_and_the_next_is_answered(
    world: World, body: Any, code: int, told: str
) -> None:
    status, said = send(world, "POST", "/v1/chat/completions", body)
    assert status == code
    assert told in said["error"]["message"]
    assert send(world, "GET", "/v1/models")[0] == 200


def test_a_page_in_a_browser_cannot_ask(world: World) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    path = "/v1/chat/completions"
    assert send(world, "POST", path, body, Host="evil.example:80")[0] == 403
    assert send(world, "POST", path, body, **{"Content-Type": "text/plain"})[0] == 403
    assert send(world, "POST", path, body, **{"Content-Length": str(1 << 30)})[0] == 413
    assert send(world, "GET", "/etc/passwd")[0] == 404


def test_tool_calls_travel_as_the_protocol_has_them(world: World) -> None:
    text = 'I look.\n<tool_call>{"name": "Bash", "arguments": {"command": "ls"}}</tool_call>'
    spoken = _write_message(text)
    assert spoken["content"] == "I look."
    (call,) = spoken["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"command": "ls"}
    assert _write_message("<tool_call>{")["content"] == "<tool_call>{"
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "look"}]},
        spoken,
        {"role": "tool", "tool_call_id": "call-0", "name": "Bash", "content": "a"},
    ]
    tools = [{"type": "function", "function": {"name": "Bash", "parameters": {}}}]
    code, said = send(
        world,
        "POST",
        "/v1/chat/completions",
        {"messages": messages, "tools": tools, "max_tokens": 4},
    )
    assert code == 200
    assert said["usage"]["completion_tokens"] <= 4


def test_the_worker_says_where_it_listens_and_ends_with_whoever_started_it(world: World) -> None:
    file = world.root / "serve.json"
    file.write_text(json.dumps(describe(world.root, world.adapter)))
    command = [sys.executable, "-m", "gtft.workers.serve", str(file)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ), text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert said["models"] == ["tuned", "base"]
    assert said["url"].startswith("http://127.0.0.1:")
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    file.write_text(json.dumps({**describe(world.root, world.adapter), "adapter": str(world.root)}))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 7
    assert json.loads(done.stdout)["error"]["kind"] == "evidence"
