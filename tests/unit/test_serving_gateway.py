"""Roles of a town: the model answers, and where it does not, the request goes on to who answered before, as it came."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import UsageError
from gtft.service import FOLDER, ROUTES_FILE, Route, stays_with_previous
from gtft.serving.engine import Ask, Served
from gtft.serving.previous import make_address
from gtft.serving.question import Refused
from gtft.serving.subject import find_bead, find_session
from serving_case import (
    ADAPTER,
    CALL,
    MODEL,
    Script,
    deploy,
    fall_back,
    make_route,
    serve,
    wait_until,
)

ROLE = "/roles/witness"
TOKEN = "made-up-token-made-up-token"
SESSION = "0f0e0d0c-1111-2222-3333-444455556666"
ABSTAINS = '{"action": "escalate", "reason": "I cannot know", "missing": "the log"}'
TOOL = {"type": "function", "function": {"name": "Bash", "parameters": {"type": "object"}}}


@dataclass
class Before:
    """Who answered before: keeps what it is asked, answers with ``status`` and ``pieces``."""

    status: int = 200
    pieces: tuple[bytes, ...] = (b'{"who": ', b'"the previous agent"}')
    location: str = ""
    broken: bool = False
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def answer_before(before: Before) -> Iterator[Before]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {k.lower(): v for k, v in self.headers.items()}
            before.asked.append((self.path, headers, body))
            self.send_response(before.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("X-Request-Id", "req-1")
            if before.location:
                self.send_header("Location", before.location)
            self.end_headers()
            for piece in before.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if before.broken:
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield before
    server.shutdown()
    server.server_close()


@pytest.fixture
def before() -> Iterator[Before]:
    with answer_before(Before()) as found:
        yield found


def test_the_model_answers_for_its_role(tmp_path: Path, before: Before) -> None:
    script = Script()
    deploy(tmp_path, make_route(fallback=fall_back(before.url)))
    with serve(script, tmp_path) as server:
        status, _, doc = server.chat(
            "Hooked: gt-abc12 — mend the pump", below=ROLE, temperature=1, max_tokens=9000, model="any-name"
        )  # fmt: skip
        assert (status, doc["model"]) == (200, MODEL)
        assert "gt-abc12" in doc["choices"][0]["message"]["content"]
        assert "[DONE]" in server.chat(below=ROLE, stream=True)[2]
        assert server.send("GET", f"{ROLE}/v1/models")[2]["data"][0]["id"] == MODEL
        assert (script.asked[0].temperature, script.asked[0].max_tokens) == (0.0, 64)
        first, second = server.read_lines()
    assert before.asked == []
    assert (first.took, first.why, first.bead, first.mode) == ("model", "", "gt-abc12", "live")
    assert (first.tokens > 0, first.prompt_tokens, len(first.prompt_sha256)) == (True, 7, 64)
    assert first.confidence == pytest.approx(0.6065, abs=1e-4)
    assert (second.bead, second.took) == ("", "model")


@pytest.mark.parametrize(
    ("say", "finish", "why"),
    [
        (lambda ask: ABSTAINS, "stop", "abstained"),
        (lambda ask: "", "stop", "error"),
        (lambda ask: "<tool_call>{", "stop", "error"),
        (lambda ask: CALL.replace("Bash", "Rm"), "stop", "error"),
        (lambda ask: "some", "error", "error"),
        (lambda ask: "some", "timeout", "timeout"),
    ],
)
def test_where_the_model_fails_the_previous_agent_answers(
    tmp_path: Path, before: Before, say: Any, finish: str, why: str
) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url + "/v1")))
    with serve(Script(say=say, finish=finish), tmp_path) as server:
        status, headers, doc = server.chat(
            below=ROLE, tools=[TOOL], model="their-model", stream=True
        )
        assert (status, doc) == (200, {"who": "the previous agent"})
        assert headers["x-request-id"] == "req-1"
        (line,) = server.read_lines()
        assert server.read_metric("gtft_fallbacks_total{cause=") == 1
    ((path, _, body),) = before.asked
    assert path == "/v1/chat/completions"
    assert json.loads(body)["model"] == "their-model"
    assert (line.took, line.why, line.abstained) == ("previous", why, why == "abstained")
    assert line.escalated == (why == "abstained")


def test_a_model_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gtft.serving.gateway._GRACE_S", 0.0)
    script = Script(say=lambda ask: "word " * 1000, pause=0.05)
    deploy(tmp_path, make_route(seconds=0.2, fallback=fall_back(before.url), max_new_tokens=5000))
    with serve(script, tmp_path) as server:
        assert server.chat(below=ROLE)[2] == {"who": "the previous agent"}
        assert server.read_lines()[0].why == "timeout"
        assert (script.running, script.cancelled) == (0, 1)


def test_a_busy_engine_and_what_it_cannot_read_go_on_too(tmp_path: Path, before: Before) -> None:
    script = Script(queue=0)
    deploy(tmp_path, make_route(fallback=fall_back(before.url)))
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    with serve(script, tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 200
        assert server.chat(below=ROLE, messages=image)[0] == 200
        assert [line.why for line in server.read_lines()] == ["error", "error"]
        assert server.read_metric('gtft_fallbacks_total{cause="busy"') == 1
    assert len(before.asked) == 2


def test_the_agents_credentials_go_to_the_one_address_and_are_written_nowhere(
    tmp_path: Path, before: Before, capfd: pytest.CaptureFixture[str]
) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url, "anthropic")))
    body = {"model": "claude", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]}
    body["metadata"] = {"user_id": f"user_1_session_{SESSION}"}  # type: ignore[assignment]
    given = {
        "Authorization": "Bearer made-up-credential",
        "x-gtft-token": TOKEN,
        "x-api-key": TOKEN,
        "anthropic-version": "2023-06-01",
        "Connection": "keep-alive, x-hop",
        "x-hop": "1",
        "x-gtft-bead": "gt-abc12",
    }
    with serve(Script(say=lambda ask: ABSTAINS), tmp_path, token=TOKEN) as server:
        status, _, doc = server.send("POST", f"{ROLE}/v1/messages?beta=true", body, **given)
        (line,) = server.read_lines()
        figures = server.send("GET", "/metrics", **{"x-gtft-token": TOKEN})[2]
    assert (status, doc) == (200, {"who": "the previous agent"})
    ((path, headers, sent),) = before.asked
    assert path == "/v1/messages?beta=true"
    assert json.loads(sent) == body
    assert headers["authorization"] == "Bearer made-up-credential"
    assert headers["anthropic-version"] == "2023-06-01"
    assert not {"x-gtft-token", "x-api-key", "x-hop", "x-gtft-bead"} & set(headers)
    assert headers["host"] == before.url.removeprefix("http://")
    assert (line.session, line.bead) == (SESSION, "gt-abc12")
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    for text in (written, figures, *capfd.readouterr()):
        assert "made-up" not in text


def test_redirects_are_not_followed(tmp_path: Path, before: Before) -> None:
    with answer_before(Before()) as elsewhere:
        before.status, before.location = 307, elsewhere.url + "/v1/chat/completions"
        deploy(tmp_path, make_route(fallback=fall_back(before.url)))
        with serve(Script(say=lambda ask: ABSTAINS), tmp_path) as server:
            status, _, doc = server.chat(below=ROLE)
            assert (status, doc["error"]["type"]) == (502, "server_error")
            assert server.read_lines()[0].took == "nobody"
        assert elsewhere.asked == []


def test_a_previous_server_that_is_away_or_breaks_off(tmp_path: Path, before: Before) -> None:
    deploy(tmp_path, make_route(fallback=fall_back("http://127.0.0.1:9")))
    with serve(Script(say=lambda ask: ABSTAINS), tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 502
        assert server.read_lines()[0].took == "nobody"
        deploy(tmp_path, make_route(fallback=fall_back(server.url)))
        assert server.chat(below=ROLE)[0] == 502
        before.broken = True
        deploy(tmp_path, make_route(fallback=fall_back(before.url)))
        with pytest.raises(http.client.IncompleteRead):
            server.chat(below=ROLE)
        wait_until(lambda: server.desk.in_flight == 0)
        assert server.send("GET", "/health")[0] == 200


def test_without_a_fallback_the_client_hears_why(tmp_path: Path) -> None:
    script = Script(finish="error")
    deploy(tmp_path, make_route())
    with serve(script, tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 500
        assert server.read_lines()[0].took == "nobody"
        script.finish, script.say = "stop", lambda ask: ABSTAINS
        # To abstain is an answer, where nobody else is there to ask.
        assert server.chat(below=ROLE)[2]["choices"][0]["message"]["content"] == ABSTAINS
        last = server.read_lines()[-1]
        assert (last.took, last.abstained, last.escalated) == ("model", True, True)


@pytest.mark.parametrize("mode", ["shadow", "advise"])
def test_in_shadow_and_advise_nobody_acts_on_the_model(
    tmp_path: Path, before: Before, mode: str
) -> None:
    script = Script()
    deploy(tmp_path, make_route(mode=mode, fallback=fall_back(before.url)))
    with serve(script, tmp_path) as server:
        assert server.chat(below=ROLE)[2] == {"who": "the previous agent"}
        assert server.read_lines() == []
        deploy(tmp_path, make_route(mode=mode))
        assert server.chat(below=ROLE)[0] == 503
    assert script.asked == []


def test_a_share_of_beads_stays_with_the_previous_agent(tmp_path: Path, before: Before) -> None:
    beads = [f"gt-a{n:03}" for n in range(12)]
    kept = {b for b in beads if stays_with_previous(b, 0.5)}
    assert 0 < len(kept) < len(beads)
    script = Script()
    deploy(tmp_path, make_route(ab_share=0.5, fallback=fall_back(before.url)))
    with serve(script, tmp_path) as server:
        for bead in beads:
            server.chat(f"[GAS TOWN] witness <- deacon • now • assigned:{bead}", below=ROLE)
        lines = server.read_lines()
    assert {line.bead for line in lines if line.why == "ab"} == kept
    assert {line.took for line in lines if line.why == "ab"} == {"previous"}
    assert len(script.asked) == len(beads) - len(kept)


def test_routes_are_followed_and_rigs_have_their_own(tmp_path: Path, before: Before) -> None:
    other = Served("gizmo-1", "sha256:" + "cd" * 32, "witness", "role", 4096)
    script = Script()
    script.models = (*script.models, other)
    with serve(script, tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 404
        town, rig = make_route(), make_route(rig="gizmo", model=other.name, adapter=other.id)
        deploy(tmp_path, town, rig)
        assert server.chat(below=ROLE)[2]["model"] == MODEL
        assert server.chat(below="/rigs/gizmo/roles/witness")[2]["model"] == "gizmo-1"
        assert server.chat(below="/rigs/other/roles/witness")[2]["model"] == MODEL
        assert server.chat(below="/roles/mayor")[0] == 404
        assert server.chat(below="/roles/..%2f..")[0] == 404
        (tmp_path / FOLDER / ROUTES_FILE).write_text("{")
        # What was read before stays true, and health says that something is wrong.
        assert server.chat(below=ROLE)[0] == 200
        assert "is not what gtft writes" in server.send("GET", "/health")[2]["fault"]
        deploy(tmp_path)
        assert server.chat(below=ROLE)[0] == 404


def test_the_model_of_a_new_deployment_is_loaded_when_it_is_asked(
    tmp_path: Path, before: Before
) -> None:
    script = Script(models=())

    async def admit(route: Route) -> None:
        if route.model == "no-such-model":
            raise UsageError("it is not on the shelf")
        script.models = (*script.models, Served(route.model, ADAPTER, route.role, "role", 4096))

    deploy(tmp_path, make_route())
    with serve(script, tmp_path, admit=admit) as server:
        assert [server.chat(below=ROLE)[0] for _ in range(3)] == [200] * 3
        assert len(server.admitted) == 1
        deploy(tmp_path, make_route(model="no-such-model"))
        assert server.chat(below=ROLE)[0] == 503
        # A name is not enough: it must be the adapter that was deployed.
        deploy(tmp_path, make_route(adapter="sha256:" + "ef" * 32, fallback=fall_back(before.url)))
        assert server.chat(below=ROLE)[2] == {"who": "the previous agent"}


def test_tokens_are_counted_by_who_answers(tmp_path: Path, before: Before) -> None:
    body = {"model": "claude", "messages": [{"role": "user", "content": "one two three"}]}
    path = f"{ROLE}/v1/messages/count_tokens"
    fallback = fall_back(before.url, "anthropic")
    with serve(Script(), tmp_path) as server:
        deploy(tmp_path, make_route(fallback=fallback))
        assert server.send("POST", path, body)[2] == {"input_tokens": 3}
        deploy(tmp_path, make_route(mode="shadow", fallback=fallback))
        assert server.send("POST", path, body)[2] == {"who": "the previous agent"}
    assert before.asked[0][0] == "/v1/messages/count_tokens"


@pytest.mark.parametrize(("fault", "status"), [(RuntimeError, 500), (None, 504)])
def test_where_the_model_cannot_count_the_previous_agent_does(
    tmp_path: Path, before: Before, fault: type[Exception] | None, status: int
) -> None:
    class Broken(Script):
        async def count_tokens(self, ask: Ask) -> int:
            if fault is None:
                await asyncio.sleep(60)
            raise RuntimeError

    body = {"model": "claude", "messages": [{"role": "user", "content": "one two three"}]}
    path = f"{ROLE}/v1/messages/count_tokens"
    with serve(Broken(), tmp_path) as server:
        deploy(tmp_path, make_route(seconds=0.1, fallback=fall_back(before.url, "anthropic")))
        assert server.send("POST", path, body)[2] == {"who": "the previous agent"}
        deploy(tmp_path, make_route(seconds=0.1))
        assert server.send("POST", path, body)[0] == status


def test_the_previous_agent_must_speak_the_same_protocol(tmp_path: Path, before: Before) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url, "anthropic")))
    with serve(Script(say=lambda ask: ABSTAINS), tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 502
    assert before.asked == []


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.example.com", "https://api.example.com/v1/messages"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/messages"),
        ("https://api.example.com/proxy", "https://api.example.com/proxy/v1/messages"),
        ("http://127.0.0.1:99", "http://127.0.0.1:99/v1/messages"),
    ],
)
def test_an_address_below_a_base(url: str, address: str) -> None:
    assert make_address(url, "/v1/messages") == address
    assert make_address(url, "/v1/messages", "beta=true") == address + "?beta=true"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "ftp://x",
        "https://me:secret@x",
        "https://x?y",
        "",
        "https://x:abc",
    ],
)
def test_an_address_that_must_not_be_asked(url: str) -> None:
    with pytest.raises(Refused):
        make_address(url, "/v1/messages")


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("headers", "doc", "bead"),
    [
        ({"x-gtft-bead": "gt-abc12.3"}, say("Hooked: gt-zzz"), "gt-abc12.3"),
        ({"x-gtft-bead": "; rm -rf"}, {}, ""),
        ({}, say("x", metadata={"bead": "hq-cv-1"}), "hq-cv-1"),
        ({}, say("[GAS TOWN] gizmo/polecats/nux <- witness • now • assigned:gt-abc12"), "gt-abc12"),
        ({}, say("  Bead ID: **gt-abc12**\n  Title: pump"), "gt-abc12"),
        ({}, say("On branch polecat/nux/gt-abc12@mk123"), "gt-abc12"),
        ({}, say("then run `bd show gt-wisp-x` and `bd close gt-abc12`"), ""),
        ({}, say("a read-only, well-known note about gas-town"), ""),
        ({}, {"system": [{"type": "text", "text": "Hooked: gt-sys1"}], **say("Hooked: gt-abc12")}, "gt-sys1"),
        ({}, {"messages": "x"}, ""),
        ({}, say("Hooked: mol-polecat-work"), ""),
    ],
)  # fmt: skip
def test_the_bead_of_a_request(headers: dict[str, str], doc: dict[str, Any], bead: str) -> None:
    assert find_bead(headers, doc) == bead


PRIME = """# Witness Context
gt hook                      # what is on your hook
bd show gt-abc               # the steps of a molecule
bd update gt-abc --status=in_progress
`gt close hq-abc --reason "done"`, then: gt done; git branch -d polecat/<worker>
"""
BEACON = "[GAS TOWN] gizmo/polecats/nux <- witness • now • "


@pytest.mark.parametrize("line, bead", [("assigned:gt-real1", "gt-real1"), ("patrol", "")])
@pytest.mark.parametrize("first", ["prime", "beacon"])
def test_examples_of_prime_are_no_bead(first: str, line: str, bead: str) -> None:
    texts = [PRIME, BEACON + line] if first == "prime" else [BEACON + line, PRIME]
    content = [{"type": "text", "text": t} for t in texts]
    assert find_bead({}, {"messages": [{"role": "user", "content": content}]}) == bead
    assert find_bead({}, {"system": PRIME, **say(BEACON + line)}) == bead


def test_what_the_agent_says_does_not_change_the_bead() -> None:
    talk = [
        {"role": "assistant", "content": "Hooked: gt-mine1"},
        *say("assigned:gt-later1")["messages"],
    ]
    for key in ("messages", "input"):
        assert find_bead({}, {key: say("what is on my hook?")["messages"] + talk}) == ""
    call = {"type": "function_call", "call_id": "c", "name": "Bash", "arguments": "{}"}
    assert find_bead({}, {"input": [*say("begin")["messages"], call, *talk[1:]]}) == ""


def test_the_session_of_a_request() -> None:
    assert find_session({"x-claude-code-session-id": SESSION.upper()}, {}) == SESSION
    told = {"metadata": {"user_id": f"user_{'a' * 64}_account__session_{SESSION}"}}
    assert find_session({}, told) == SESSION
    assert find_session({}, {"metadata": {"user_id": "nobody"}}) == ""


def test_two_requests_of_a_role_at_once_are_two_lines(tmp_path: Path) -> None:
    heard: list[Ask] = []
    script = Script(say=lambda ask: heard.append(ask) or "well", pause=0.01)  # type: ignore[func-returns-value]
    deploy(tmp_path, make_route())
    with serve(script, tmp_path) as server:
        threads = [threading.Thread(target=lambda: server.chat(below=ROLE)) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
        assert len(server.read_lines()) == 6


def test_an_answer_that_cannot_be_recorded_is_given_and_counted(tmp_path: Path) -> None:
    deploy(tmp_path, make_route())
    (tmp_path / FOLDER / "answers").write_text("a file where the folder should be")
    with serve(Script(), tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 200
        assert server.read_metric("gtft_answers_not_recorded_total") == 1


def test_a_probe_reaches_the_model_and_nobody_else(tmp_path: Path, before: Before) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url), ab_share=1.0))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hooked: gt-abc12 ready?"}]}
    script = Script(say=lambda ask: ABSTAINS)
    with serve(script, tmp_path) as server:
        path = f"{ROLE}/v1/chat/completions"
        doc = server.send("POST", path, body, **{"X-Gtft-Probe": "1"})[2]
        assert doc["choices"][0]["message"]["content"] == ABSTAINS
        script.finish = "error"
        assert server.send("POST", path, body, **{"X-Gtft-Probe": "1"})[0] == 500
        assert server.read_lines() == []
    assert before.asked == []


def test_a_deployed_model_is_loaded_when_it_is_asked_by_its_name(tmp_path: Path) -> None:
    script = Script(models=())

    async def admit(route: Route) -> None:
        script.models = (Served(route.model, route.adapter, route.role, "role", 4096),)

    deploy(tmp_path, make_route(mode="advise"))
    with serve(script, tmp_path, admit=admit) as server:
        assert server.chat(model="another")[0] == 404
        assert server.admitted == []
        assert server.chat()[0] == 200
        assert len(server.admitted) == 1


@pytest.mark.parametrize(
    "decided",
    [
        '{"action": "escalate", "reason": "unpushed work in the worktree"}',
        CALL.replace("bd show gt-abc12", "gt escalate -s high 'unpushed work'"),
    ],
)
def test_to_escalate_is_a_decision_and_is_acted_on(
    tmp_path: Path, before: Before, decided: str
) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url)))
    with serve(Script(say=lambda ask: decided), tmp_path) as server:
        assert server.chat(below=ROLE, tools=[TOOL])[2]["model"] == MODEL
        (line,) = server.read_lines()
    assert (line.took, line.why, line.abstained, line.escalated) == ("model", "", False, True)
    assert before.asked == []


def test_codex_falls_back_as_it_asked(tmp_path: Path, before: Before) -> None:
    items = [{"type": "message", "role": "user", "content": "x"}]
    body = {"model": "any", "input": items, "tools": [{"type": "local_shell"}], "stream": True}
    given = {"Authorization": "Bearer made-up-credential"}
    fallback = fall_back(before.url + "/backend/codex")
    with serve(Script(say=lambda ask: ABSTAINS), tmp_path) as server:
        for mode in ("live", "shadow"):
            deploy(tmp_path, make_route(mode=mode, fallback=fallback))
            doc = server.send("POST", f"{ROLE}/v1/responses", body, **given)[2]
            assert doc == {"who": "the previous agent"}
        (line,) = server.read_lines()
    assert (line.took, line.why) == ("previous", "abstained")
    for path, headers, sent in before.asked:
        assert path == "/backend/codex/responses"
        assert headers["authorization"] == "Bearer made-up-credential"
        assert json.loads(sent) == body


def test_an_answer_that_the_route_cuts_goes_on_and_one_that_the_client_cuts_does_not(
    tmp_path: Path, before: Before
) -> None:
    deploy(tmp_path, make_route(fallback=fall_back(before.url), max_new_tokens=8))
    with serve(Script(say=lambda ask: "and " * 40), tmp_path) as server:
        assert server.chat(below=ROLE)[2] == {"who": "the previous agent"}
        doc = server.chat(below=ROLE, max_tokens=4)[2]
        assert doc["choices"][0]["finish_reason"] == "length"
        assert [line.took for line in server.read_lines()] == ["previous", "model"]


def test_a_bug_of_ours_stops_no_role(tmp_path: Path, before: Before) -> None:
    def break_down(ask: Ask) -> str:
        raise ZeroDivisionError

    deploy(tmp_path, make_route(fallback=fall_back(before.url)))
    with serve(Script(say=break_down), tmp_path) as server:
        assert server.chat(below=ROLE)[2] == {"who": "the previous agent"}
        assert server.read_metric('gtft_fallbacks_total{cause="bug"') == 1


def test_headers_need_not_be_ascii_and_no_proxy_stands_before_this_machine(
    tmp_path: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    deploy(tmp_path, make_route(mode="shadow", fallback=fall_back(before.url)))
    with serve(Script(), tmp_path) as server:
        body = {"messages": [{"role": "user", "content": "x"}]}
        path = f"{ROLE}/v1/chat/completions"
        assert server.send("POST", path, body, **{"X-Title": "Bürgermeister"})[0] == 200
    assert before.asked[0][1]["x-title"] == "Bürgermeister"


def test_the_models_words_in_live_are_not_kept(tmp_path: Path) -> None:
    deploy(tmp_path, make_route())
    with serve(Script(say=lambda ask: "the password is made-up"), tmp_path) as server:
        assert server.chat(below=ROLE)[0] == 200
        (line,) = server.read_lines()
    assert line.output == "" and line.tokens > 0


def test_a_probe_in_another_mode_reaches_nobody_else_either(tmp_path: Path, before: Before) -> None:
    deploy(tmp_path, make_route(mode="shadow", fallback=fall_back(before.url)))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "ready?"}]}
    with serve(Script(), tmp_path) as server:
        path = f"{ROLE}/v1/chat/completions"
        assert server.send("POST", path, body, **{"X-Gtft-Probe": "1"})[2]["model"] == MODEL
    assert before.asked == []
