"""A server of somebody else: what is sent to it, what is made of its answers, and where the key does not go."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gtft.errors import InputError
from gtft.evals.asking.candidate import Reply
from gtft.evals.asking.endpoint import RETRIES, EndpointCandidate, write_answer
from gtft.evals.item import CheckSpec, Item
from gtft.recipe.schema import Endpoint

KEY = "made-up-key-0123456789"
Reaction = tuple[int, dict[str, str], bytes]


class Server:
    """A loopback server whose reactions a test writes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.react: Callable[[dict[str, Any], int], Reaction] = lambda body, n: ok("fine")
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner._lock:
                    headers = {k.lower(): v for k, v in self.headers.items()}
                    owner.asked.append((self.path, headers, body))
                    number = len(owner.asked)
                code, more, said = owner.react(body, number)
                self.send_response(code)
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for at in range(0, len(said), 1 << 16):
                        self.wfile.write(said[at : at + (1 << 16)])
                except OSError:
                    return

            do_GET = do_POST  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def ok(text: str | None, finish: str = "stop", **more: Any) -> Reaction:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    doc = {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}
    doc["usage"] = {"prompt_tokens": 11, "completion_tokens": 3}
    return 200, {"Content-Type": "application/json"}, json.dumps(doc).encode()


def fail(code: int, said: str = "no", **headers: str) -> Reaction:
    body = json.dumps({"error": {"message": said}}).encode()
    return code, {"Content-Type": "application/json", **headers}, body


def make_item(text: str = "What now?", *more: dict[str, Any], tools: tuple[Any, ...] = ()) -> Item:
    messages = ({"role": "user", "content": text}, *more)
    check = CheckSpec("json_decision", {"required": ["action"]})
    return Item("", "s", "c", None, "t", "s", messages, tools, check, "").identified()


def make(server: Server, environ: dict[str, str] | None = None, **changes: Any) -> Any:
    entry = {"name": "their", "url": f"http://127.0.0.1:{server.port}/v1", "model": "m-1"}
    limits = {"max_new_tokens": 64, "item_seconds": 30.0, "temperature": 0.5}
    limits |= {k: changes.pop(k) for k in list(changes) if k in (*limits, "clock", "sleep")}
    endpoint = Endpoint.model_validate(entry | changes)
    return EndpointCandidate(endpoint, environ=environ or {}, **{"sleep": lambda s: None} | limits)


def ask(candidate: EndpointCandidate, item: Item | None = None, seed: int = 0) -> Reply:
    prompts, too_long = candidate.write([item or make_item()])
    assert not too_long
    (reply,) = candidate.answer(prompts, seed)
    return reply


def test_what_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of another account that the environment holds is sent along."""
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "ADMIN_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}")
    call = {"function": {"name": "Bash", "arguments": {"command": "ls"}}}
    tools = ({"type": "function", "function": {"name": "Bash", "parameters": {}}},)
    item = make_item(
        "look",
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "Bash", "content": "a b", "tool_call_id": "call-0"},
        tools=tools,
    )
    ask(make(server), item)
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert body["model"] == "m-1"
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 64, True)
    assert "seed" not in body
    assert not body.get("stream")
    function = body["messages"][1]["tool_calls"][0]
    assert (function["id"], function["type"]) == ("call-0", "function")
    assert json.loads(function["function"]["arguments"]) == {"command": "ls"}
    assert body["tools"][0]["function"]["parameters"]["type"] == "object"
    assert "authorization" not in headers
    assert KEY not in json.dumps(headers)
    ask(make(server), seed=3)
    assert (server.asked[1][2]["temperature"], server.asked[1][2]["seed"]) == (0.5, 3)


def test_what_is_made_of_an_answer(server: Server) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -3.0}]}
    server.react = lambda body, n: ok(' {"action": "hold"}\n', logprobs=logprobs)
    reply = ask(make(server))
    assert reply.text == '{"action": "hold"}'
    assert (reply.tokens, reply.prompt_tokens, reply.finish, reply.error) == (3, 11, "stop", "")
    assert reply.confidence == pytest.approx(math.exp(-2.0), abs=1e-6)
    server.react = lambda body, n: ok("cut of", "length")
    assert ask(make(server)).finish == "length"
    server.react = lambda body, n: ok("", "content_filter")
    assert ask(make(server)).finish == "error"
    server.react = lambda body, n: ok(None, message={"refusal": "I will not delete it."})
    assert ask(make(server)).text == "I will not delete it."


def test_tool_calls_are_written_as_our_answers_have_them() -> None:
    call = {"function": {"name": "Bash", "arguments": '{"command": "bd show gz-1"}'}}
    written = write_answer({"content": "I look.", "tool_calls": [call]})
    assert written == (
        'I look.\n<tool_call>{"name": "Bash", "arguments": {"command": "bd show gz-1"}}</tool_call>'
    )
    for damaged in ({"tool_calls": [{}]}, {"tool_calls": [{"function": {"arguments": "{"}}]}):
        with pytest.raises((ValueError, LookupError)):
            write_answer(damaged)


def test_a_busy_server_is_asked_again_and_then_given_up(server: Server) -> None:
    waits: list[float] = []
    server.react = lambda body, n: fail(429, **{"Retry-After": "2"}) if n < 3 else ok("at last")
    assert ask(make(server, sleep=waits.append)).text == "at last"
    assert waits == [2.0, 2.0]
    server.asked.clear()
    waits.clear()
    server.react = lambda body, n: fail(503)
    reply = ask(make(server, sleep=waits.append))
    assert (reply.finish, reply.text) == ("error", "")
    assert len(server.asked) == RETRIES + 1
    assert waits == [0.5, 1.0, 2.0]


def test_a_server_that_is_not_there_is_an_error_of_the_item(server: Server) -> None:
    server.stop()
    assert ask(make(server)).finish == "error"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"not json", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"[" * 100_000,
        b'{"choices": [{"message": {"content": 7}}]}', b'{"choices": {"0": 1}}', b'{"choices": [{"message": {"content": "x"}}], "usage": 3}',
        b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"logprob": "low"}]}}]}', b"x" * (5 << 20),
    ],
)  # fmt: skip
def test_a_reply_of_any_shape_is_an_error_of_the_item(server: Server, body: bytes) -> None:
    server.react = lambda asked, n: (200, {"Content-Type": "application/json"}, body)
    reply = ask(make(server))
    assert (reply.finish, reply.text) == ("error", "")
    assert reply.error
    assert len(reply.error) <= 200


def test_an_answer_that_takes_too_long_is_a_timeout(server: Server) -> None:
    release = threading.Event()

    def hang(body: dict[str, Any], n: int) -> Reaction:
        release.wait(60)
        return ok("late")

    server.react = hang
    reply = ask(make(server, item_seconds=0.3))
    release.set()
    assert (reply.finish, reply.text) == ("timeout", "")


def test_what_a_server_does_not_know_is_left_out(server: Server) -> None:
    def react(body: dict[str, Any], n: int) -> Reaction:
        if "max_tokens" in body:
            return fail(400, "use max_completion_tokens instead")
        return fail(400, "logprobs are not known here") if "logprobs" in body else ok("fine")

    server.react = react
    candidate = make(server)
    assert ask(candidate).text == "fine"
    assert ask(candidate).text == "fine"
    assert len(server.asked) == 4
    server.react = lambda body, n: fail(400, "no such model")
    assert "no such model" in ask(make(server)).error


@pytest.mark.parametrize(
    ("reaction", "refused"),
    [
        (fail(400, "too long"), True),
        (fail(413, "too large"), True),
        (fail(422, "no such role"), True),
        ((200, {}, b"[]"), False),
        (fail(401, "who are you?"), False),
        (fail(404, "no such model"), False),
        (fail(503, "later"), False),
    ],
)
def test_a_prompt_that_is_refused_is_told_from_a_server_that_is_down(
    server: Server, reaction: Reaction, refused: bool
) -> None:
    server.react = lambda body, n: reaction
    reply = ask(make(server))
    assert (reply.finish, reply.refused) == ("error", refused)


def test_the_key_goes_to_its_server_only(server: Server) -> None:
    other = Server()
    candidate = make(server, {"THEIR_KEY": KEY}, key_env="THEIR_KEY")
    to = f"http://127.0.0.1:{other.port}/v1/chat/completions"
    server.react = lambda body, n: (307, {"Location": to}, b"")
    reply = ask(candidate)
    other.stop()
    assert reply.finish == "error"
    assert not other.asked
    assert server.asked[0][1]["authorization"] == f"Bearer {KEY}"


def test_the_key_stands_nowhere(server: Server) -> None:
    candidate = make(server, {"THEIR_KEY": KEY}, key_env="THEIR_KEY")
    server.react = lambda body, n: fail(401, f"wrong key {KEY}")
    reply = ask(candidate)
    assert "wrong key (key)" in reply.error
    assert KEY not in repr(reply) + repr(candidate) + candidate.key + candidate.name
    other = make(server, {"THEIR_KEY": KEY + "x"}, key_env="THEIR_KEY")
    assert other.key == candidate.key


def test_without_a_key_or_over_an_open_line_nothing_is_asked(server: Server) -> None:
    with pytest.raises(InputError, match="there is no key"):
        make(server, key_env="THEIR_KEY")
    environ = {"THEIR_KEY": KEY}
    for url, told in (
        ("http://agents.example/v1", "in the clear"),
        ("ftp://127.0.0.1/v1", "no address"),
        ("file:///etc/passwd", "no address"),
        ("https://user:word@agents.example/v1", "no address"),
    ):
        with pytest.raises(InputError, match=told):
            make(server, environ, url=url, key_env="THEIR_KEY")
    assert not server.asked


def test_a_few_are_asked_at_the_same_time_and_answers_keep_their_order(server: Server) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def react(body: dict[str, Any], n: int) -> Reaction:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02)
        with lock:
            busy -= 1
        return ok(body["messages"][0]["content"].upper())

    server.react = react
    candidate = make(server)
    prompts, _ = candidate.write([make_item(f"q{n}") for n in range(12)])
    assert len({p.sha256 for p in prompts}) == 12
    assert [r.text for r in candidate.answer(prompts, 0)] == [f"Q{n}" for n in range(12)]
    assert 1 < most <= 4


def test_stored_answers_belong_to_one_server_and_its_limits(server: Server) -> None:
    first = make(server)
    assert first.name == "endpoint:their"
    assert first.key == make(server).key
    for change in ({"model": "m-2"}, {"max_new_tokens": 65}, {"item_seconds": 31.0}):
        assert make(server, **change).key != first.key
