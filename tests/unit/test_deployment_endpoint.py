"""The server behind a deployment: found, started, asked a real question, and never asked through somebody else."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import GateFailed, UsageError, WorkerFailed
from gtft.runner.endpoint import (
    USUAL_PORT,
    check_address,
    find_endpoint,
    find_port,
    probe,
    start_server,
    wait_for_server,
)
from gtft.service import Address, Fallback, Route, write_address

CHAT = {"model": "m", "choices": [{"message": {"content": "ready"}}]}
MESSAGE = {"model": "m", "content": [{"type": "text", "text": "ready"}]}


class Server:
    """Answers as it was told, in order, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, Any, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/health" else 404)
                self.end_headers()

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, body, self.headers.get("x-gtft-token", "")))
                code, answer = outer.answers.pop(0)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()


def make_route(**given: Any) -> Route:
    fields = {
        "role": "witness",
        "rig": "gizmo",
        "deployment": "dep-1",
        "model": "m",
        "adapter": "a",
    }
    return Route(**{**fields, "mode": "live", "seconds": 1.0, "max_new_tokens": 8, **given})


def ask(server: Server, route: Route, **environ: str) -> str:
    return probe(server.url, route, environ=environ, seconds=20).text


@pytest.mark.parametrize(
    ("protocol", "path", "answer"),
    [
        ("anthropic", "/v1/chat/completions", CHAT),
        ("openai", "/v1/messages", MESSAGE),
        (None, "/v1/chat/completions", CHAT),
    ],
)
def test_a_live_role_is_asked_where_nobody_else_can_answer(
    server: Server, protocol: Any, path: str, answer: Any
) -> None:
    fallback = Fallback(protocol=protocol, url="https://example.com") if protocol else None
    # It follows its routes within a second, and loads what is new.
    server.answers = [(404, {}), (503, {}), (200, answer)]
    assert ask(server, make_route(fallback=fallback), GTFT_SERVE_TOKEN="made-up") == "ready"
    assert [a[0] for a in server.asked] == [f"/rigs/gizmo/roles/witness{path}"] * 3
    assert server.asked[0][1]["model"] == "m" and server.asked[0][2] == "made-up"


def test_advice_is_asked_by_the_models_name(server: Server) -> None:
    server.answers = [(200, CHAT)]
    assert ask(server, make_route(mode="advise")) == "ready"
    assert server.asked[0][0] == "/v1/chat/completions"


def test_a_model_that_left_it_to_the_previous_one_is_asked_itself(server: Server) -> None:
    route = make_route(fallback=Fallback(protocol="anthropic", url="https://example.com"))
    server.answers = [(502, {}), (200, CHAT)]
    assert ask(server, route) == "ready"
    server.answers = [(502, {}), (400, {"error": "the model cannot be loaded"})]
    with pytest.raises(GateFailed) as e:
        ask(server, route)
    assert "status 400" in e.value.why and "cannot be loaded" in e.value.why


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"model": "m", "choices": []}, [], "x", {"choices": CHAT["choices"]}, {**CHAT, "model": "other"},
        {**MESSAGE, "model": "other"}, {**CHAT, "choices": [{"message": {"content": None}}]},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_in_the_end(server: Server, answer: Any) -> None:
    server.answers = [(200, answer)] * 20
    with pytest.raises(GateFailed, match="does not answer for m"):
        probe(server.url, make_route(), environ={}, seconds=0.2)


def test_a_server_is_found_by_its_address_and_its_health(server: Server, tmp_path: Path) -> None:
    assert find_endpoint(tmp_path, {}) is None
    write_address(tmp_path, Address(url=server.url, pid=os.getpid(), models=()))
    assert find_endpoint(tmp_path, {}) == server.url
    assert find_endpoint(tmp_path, {}, f"{server.url}/") == server.url
    assert find_endpoint(tmp_path, {}, "http://127.0.0.1:1") is None


def test_a_port_that_is_taken_is_left_to_its_owner() -> None:
    with socket.socket() as s:
        # As a server does: a connection of before that is not forgotten yet is nobody.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", USUAL_PORT))
            s.listen()
        except OSError:
            # Somebody has it already: the same case.
            pass
        assert find_port() not in (0, USUAL_PORT)


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("nonsense = true\n")
    pid = start_server(tmp_path, find_port(), "m", dict(os.environ))
    with pytest.raises(WorkerFailed, match="did not start") as e:
        wait_for_server(tmp_path, pid, dict(os.environ), lambda text: None, seconds=120)
    assert "config.toml" in e.value.why or "error" in e.value.why


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8750", "ftp://h/", "http://", "http://:1", "http://me:secret@h", "http://h/?a=b", "http://h:0",
        "http://h:99999", "http://h/ x", "http://h/\nA=b", 'http://h/"', "http://h/$(x)", "http://h/é", "file:///x",
    ],
)  # fmt: skip
def test_what_is_no_address_does_not_get_into_settings(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        check_address(url)


def test_addresses_of_servers() -> None:
    for url in ("http://127.0.0.1:8750", "https://gpu-1.local/gtft/", "http://[::1]:8750"):
        check_address(url)
