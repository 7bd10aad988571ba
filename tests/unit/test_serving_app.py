"""Around the answers: who may ask, what a request may be, health, figures, a full queue, clients that go away, the end."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import InputError, UsageError
from gtft.serving.access import read_token
from gtft.serving.engine import Served
from gtft.serving.metrics import Metrics
from serving_case import MODEL, Running, Script, serve, wait_until

PATH = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "which pump leaks?"}]}
TOKEN = "made-up-token-made-up-token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(Script(), tmp_path_factory.mktemp("app")) as running:
        yield running


def test_models_are_listed_for_both_kinds_of_client(server: Running) -> None:
    status, _, doc = server.send("GET", "/v1/models")
    assert (status, [m["id"] for m in doc["data"]]) == (200, [MODEL])
    assert (doc["data"][0]["object"], doc["data"][0]["type"]) == ("model", "model")
    assert server.send("GET", f"/v1/models/{MODEL}")[2]["id"] == MODEL
    assert server.send("GET", "/v1/models/none")[0] == 404


def test_a_model_answers_to_its_name_its_aliases_and_a_role_of_its_own(tmp_path: Path) -> None:
    def make(name: str, role: str, *aliases: str) -> Served:
        return Served(name, f"id-{name}", role, "role", 4096, aliases)

    models = (make("w-1", "witness", "stable"), make("m-1", "mayor"), make("m-2", "mayor"))
    script = Script(models=models, say=lambda ask: ask.model)
    with serve(script, tmp_path) as server:
        for asked in ("w-1", "witness"):
            status, _, doc = server.chat(model=asked)
            assert (status, doc["choices"][0]["message"]["content"]) == (200, "w-1")
        for asked in ("w-1", "stable", "witness"):
            assert server.send("GET", f"/v1/models/{asked}")[2]["id"] == "w-1"
        assert [server.chat(model=m)[0] for m in ("mayor", "refinery")] == [404, 404]


def test_an_answer_without_a_seed_is_drawn_anew(tmp_path: Path) -> None:
    script = Script()
    with serve(script, tmp_path) as server:
        for seed in ({}, {}, {"seed": 7}, {"seed": 7}, {"seed": 0}):
            assert server.chat(temperature=1, **seed)[0] == 200
        for path, said in (("/v1/messages", "messages"), ("/v1/responses", "input")):
            body = {"model": MODEL, "max_tokens": 9, "temperature": 1, said: BODY["messages"]}
            assert server.send("POST", path, body)[0] == 200
    first, second, *given, fifth, sixth = [ask.seed for ask in script.asked]
    assert given == [7, 7, 0]
    assert len({first, second, fifth, sixth}) == 4


def test_without_a_name_the_first_model_answers(server: Running) -> None:
    status, _, doc = server.send("POST", PATH, {"messages": BODY["messages"]})
    assert (status, doc["model"]) == (200, MODEL)


def test_a_page_in_a_browser_cannot_ask(server: Running) -> None:
    for method, path, body in (
        ("POST", PATH, BODY),
        ("GET", "/metrics", None),
        ("GET", "/v1/models", None),
    ):
        assert server.send(method, path, body, Host="evil.example:80")[0] == 403
    assert server.send("POST", PATH, BODY, **{"Content-Type": "text/plain"})[0] == 403
    status, headers, _ = server.send("OPTIONS", PATH, Origin="https://evil.example")
    assert status == 405
    assert not [h for h in headers if h.startswith("access-control")]
    assert server.send("GET", "/v1/models", Host="localhost:1")[0] == 200
    assert server.read_metric('gtft_denied_total{status="403"}') >= 4


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b"", 400), (b"\xff", 400), (b"NaN", 400)],
)
def test_garbage_is_refused_and_the_next_is_answered(
    server: Running, body: bytes, status: int
) -> None:
    assert server.send("POST", PATH, body)[0] == status
    assert server.send("POST", PATH, BODY)[0] == 200


def test_sizes_are_bounded(server: Running) -> None:
    assert server.send("POST", PATH, BODY, **{"Content-Length": str(1 << 30)})[0] == 413
    status, _, doc = server.send("POST", PATH, {"x": "y" * (5 << 20)})
    assert (status, doc["error"]["type"]) == (413, "invalid_request_error")
    assert server.send("GET", "/nothing/here")[0] == 404
    wait_until(lambda: server.desk.held == 0)


def test_a_token_is_asked_for_everywhere(tmp_path: Path) -> None:
    with serve(Script(), tmp_path, token=TOKEN) as server:
        for method, path, body in (
            ("GET", "/health", None),
            ("GET", "/metrics", None),
            ("POST", PATH, BODY),
        ):
            assert server.send(method, path, body)[0] == 401
            wrong = server.send(method, path, body, Authorization=f"Bearer {TOKEN[:-1]}")
            assert wrong[0] == 401
            assert TOKEN[:-1] not in json.dumps(wrong[2])
            # With the right token any name of this machine will do.
            given = {"Authorization": f"Bearer {TOKEN}", "Host": "town.example"}
            assert server.send(method, path, body, **given)[0] == 200
            assert server.send(method, path, body, **{"x-api-key": TOKEN})[0] == 200


def test_a_token_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="others may read"):
        read_token(file, {})
    file.chmod(0o600)
    assert read_token(file, {"GTFT_SERVE_TOKEN": "another-made-up-token"}) == TOKEN
    assert read_token(None, {"GTFT_SERVE_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) == ""
    file.write_text("short")
    with pytest.raises(InputError, match="no token that can be used"):
        read_token(file, {})
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(InputError):
        read_token(link, {})


def test_while_models_are_loaded_it_says_so(tmp_path: Path) -> None:
    script = Script()
    with serve(script, tmp_path) as server:
        server.desk.engine = None
        assert server.send("GET", "/health")[:1] == (503,)
        status, headers, doc = server.chat()
        assert (status, doc["error"]["message"]) == (503, "the models are being loaded")
        assert int(headers["retry-after"]) >= 1
        server.desk.engine = script
        assert server.send("GET", "/health")[2] == {"ready": True, "models": [MODEL], "roles": []}
        assert server.chat()[0] == 200


def test_a_full_queue_is_told_and_nobody_is_lost(tmp_path: Path) -> None:
    script = Script(pause=0.02, queue=2)
    found: list[tuple[int, dict[str, str], Any]] = []
    with serve(script, tmp_path) as server:
        threads = [threading.Thread(target=lambda: found.append(server.chat())) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        statuses = sorted(s for s, _, _ in found)
        assert set(statuses) == {200, 429}
        assert len(statuses) == 12
        assert all(h["retry-after"] == "3" for s, h, _ in found if s == 429)
        assert server.read_metric('gtft_requests_total{outcome="busy"') == statuses.count(429)
        assert server.read_metric('gtft_requests_total{outcome="answered"') == statuses.count(200)
        assert server.read_metric("gtft_in_flight") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_is_not_answered_any_more(tmp_path: Path, stream: bool) -> None:
    script = Script(say=lambda ask: "word " * 4000, pause=0.01)
    with serve(script, tmp_path) as server:
        line = open_line(server, {**BODY, "stream": stream, "max_tokens": 5000})
        if stream:
            line.recv(200)
        wait_until(lambda: script.running == 1)
        line.close()
        wait_until(lambda: (script.running, script.cancelled) == (0, 1))
        assert server.desk.in_flight == 0
        assert server.read_metric('gtft_requests_total{outcome="gone"') == 1


def open_line(server: Running, body: Any) -> socket.socket:
    data = json.dumps(body).encode()
    line = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    line.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return line


def test_a_half_closed_line_and_raw_garbage_do_no_harm(tmp_path: Path) -> None:
    script = Script(say=lambda ask: "word " * 4000, pause=0.01)
    with serve(script, tmp_path) as server:
        line = open_line(server, {**BODY, "stream": True, "max_tokens": 5000})
        line.recv(100)
        line.shutdown(socket.SHUT_WR)
        wait_until(lambda: script.running == 0)
        for garbage in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST " + b"a" * 40_000,
            b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", server.port)) as other:
                other.sendall(garbage)
                other.settimeout(10)
                other.shutdown(socket.SHUT_WR)
                while other.recv(4096):
                    pass
        line.close()
        script.say, script.pause = lambda ask: "well", 0.0
        assert server.chat()[0] == 200


def test_who_sends_nothing_or_reads_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gtft.serving.listen._LOOK_S", 0.05)
    monkeypatch.setattr("gtft.serving.listen._HEADERS_S", 0.3)
    monkeypatch.setattr("gtft.serving.listen._WRITE_S", 0.3)
    monkeypatch.setattr("gtft.serving.desk._BODY_SECONDS", 0.3)
    script = Script(say=lambda ask: "a rather long word " * 8000)
    with serve(script, tmp_path) as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(b"POST / HTTP/1.1\r\nHost: 127.0")
        slow.settimeout(10)
        assert read_end(slow) == b""
        half = socket.create_connection(("127.0.0.1", server.port))
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        half.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        half.settimeout(10)
        assert b" 408 " in read_end(half)
        unread = open_line(server, {**BODY, "max_tokens": 1 << 20, "stream": True})
        wait_until(lambda: script.running == 1)
        wait_until(lambda: not server.listener.server_state.connections)
        wait_until(lambda: (script.running, server.desk.in_flight) == (0, 0))
        unread.close()


def read_end(line: socket.socket) -> bytes:
    said = b""
    try:
        while data := line.recv(4096):
            said += data
    except ConnectionResetError:
        pass
    return said


def test_answers_in_flight_are_given_when_the_server_ends(tmp_path: Path) -> None:
    script = Script(say=lambda ask: "word " * 60, pause=0.01)
    found: list[tuple[int, dict[str, str], Any]] = []
    with serve(script, tmp_path) as server:
        thread = threading.Thread(target=lambda: found.append(server.chat(max_tokens=500)))
        thread.start()
        wait_until(lambda: script.running == 1)
        server.listener.stop()
        thread.join(30)
    ((status, _, doc),) = found
    assert status == 200
    assert doc["choices"][0]["finish_reason"] == "stop"


def test_figures_are_what_prometheus_reads(server: Running) -> None:
    server.chat()
    status, headers, text = server.send("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    label = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
    for line in text.splitlines():
        assert re.fullmatch(
            rf"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))|[a-z_]+(\{{{label}(,{label})*\}})? [\d.e+-]+",
            line,
        ), line
    assert "which pump leaks" not in text
    buckets = [
        int(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("gtft_request_seconds_bucket")
    ]
    assert buckets == sorted(buckets)
    assert server.read_metric("gtft_request_seconds_count") == buckets[-1]
    assert server.read_metric('gtft_tokens_total{kind="prompt"}') > 0


def test_labels_are_escaped_and_histograms_add_up() -> None:
    figures = Metrics()
    figures.count("gtft_fallbacks_total", role='a"\\\nb', cause="error")
    figures.observe("openai", 0.3)
    figures.observe("openai", 1000.0)
    text = figures.write({"gtft_up": 1})
    assert 'gtft_fallbacks_total{cause="error",role="a\\"\\\\\\nb"} 1' in text
    assert 'gtft_request_seconds_bucket{protocol="openai",le="0.25"} 0' in text
    assert 'gtft_request_seconds_bucket{protocol="openai",le="0.5"} 1' in text
    assert 'gtft_request_seconds_bucket{protocol="openai",le="+Inf"} 2' in text


def test_a_bug_is_told_without_what_was_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(ask: Any) -> str:
        raise RuntimeError(f"cannot do {ask.messages[-1]['content']}")

    with serve(Script(say=fail), tmp_path) as server:
        status, _, doc = server.chat("made-up secret")
        assert (status, doc["error"]["message"]) == (500, "a bug in gtft (RuntimeError)")
        assert server.desk.in_flight == 0
    assert "made-up secret" not in "".join(capfd.readouterr())


def test_what_codex_may_ask_for_besides_is_refused_in_words(tmp_path: Path) -> None:
    with serve(Script(), tmp_path) as server:
        for below in ("", "/roles/witness"):
            status, _, doc = server.send("GET", f"{below}/v1/responses/resp_1")
            assert status == 404 and "no response is stored here" in doc["error"]["message"]
            given = {"Connection": "Upgrade", "Upgrade": "websocket"}
            assert server.send("GET", f"{below}/v1/responses", **given)[0] == 426


def test_half_a_character_in_a_calls_arguments_is_refused(tmp_path: Path) -> None:
    call = {"id": "c", "function": {"name": "Bash", "arguments": '{"command": "\\ud800"}'}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
    with serve(Script(), tmp_path) as server:
        assert server.send("POST", "/v1/chat/completions", {"messages": messages})[0] == 400
