"""Another server's answers: streamed, cut, with logprobs and calls; refusals, silence and nonsense are told, not repeated."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gtft.artifact import read_artifact, stage_artifact, write_json
from gtft.errors import MissingExtra, UsageError, WorkerFailed
from gtft.evals.answer import parse_answer
from gtft.serving.engine import Ask, Busy, End, Served, Token, Unanswerable
from gtft.serving.launching import PROGRAMS, Program, find_program, launch, stage_complete
from gtft.serving.upstream import Upstream, UpstreamEngine

HELLO = ({"role": "user", "content": "hello"},)


class Script:
    """A server that answers as it is told, and remembers what it was asked. ``pause``: seconds before each event."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.events: list[Any] = []
        self.refusals: list[Response] = []
        self.pause = 0.0
        self.running = self.most = 0

    async def complete(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        if self.refusals:
            return self.refusals.pop(0)
        return StreamingResponse(self.tell(), media_type="text/event-stream")

    async def tell(self) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for event in self.events:
                await asyncio.sleep(self.pause)
                line = event if isinstance(event, str) else json.dumps(event)
                yield f": a comment\r\ndata: {line}\r\n\r\n"
        finally:
            self.running -= 1


@contextmanager
def serving(script: Script) -> Iterator[str]:
    app = Starlette(routes=[Route("/v1/chat/completions", script.complete, methods=["POST"])])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        # From now on a connection waits instead of being refused.
        s.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [s]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{s.getsockname()[1]}/v1"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def url(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def make_engine(url: str, **settings: Any) -> UpstreamEngine:
    served = Served("m", "sha256:0", "witness", "role", 1024, ("alias",))
    return UpstreamEngine([Upstream(served, url, "their-name")], **settings)


def make_ask(model: str = "m", **settings: Any) -> Ask:
    given: dict[str, Any] = {"messages": HELLO, "tools": (), "max_tokens": 20, "seconds": 30.0}
    return Ask(model, **{**given, **settings})


def piece(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}]}


def logs(*tokens: tuple[str, float]) -> dict[str, Any]:
    content = [
        {"token": t, "logprob": p, "top_logprobs": [{"token": t, "logprob": p}]} for t, p in tokens
    ]
    return {"logprobs": {"content": content}}


async def read(engine: UpstreamEngine, ask: Ask) -> tuple[list[Token], End]:
    tokens: list[Token] = []
    async for what in engine.answer(ask):
        if isinstance(what, End):
            assert "".join(t.text for t in tokens) == what.text
            return tokens, what
        tokens.append(what)
    raise AssertionError("an answer without an end")


def ask_once(url: str, ask: Ask, **settings: Any) -> tuple[list[Token], End]:
    async def run() -> tuple[list[Token], End]:
        engine = make_engine(url, **settings)
        try:
            return await read(engine, ask)
        finally:
            assert engine.count_waiting() == 0
            await engine.aclose()

    return asyncio.run(run())


def test_an_answer_comes_as_it_is_streamed(script: Script, url: str) -> None:
    script.events = [
        piece(" One", **logs((" One", -0.5))),
        piece(" two", **logs((" t", -0.25), ("wo", -0.25))),
        piece("", finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}},
        "[DONE]",
    ]
    call = {"id": "c", "type": "function", "function": {"name": "Bash", "arguments": {"a": 1}}}
    ask = make_ask(
        "alias", messages=(*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}), top_logprobs=1
    )  # fmt: skip
    tokens, end = ask_once(url, ask, key="their-key")
    assert [(t.text, t.logprob) for t in tokens] == [("One", -0.5), (" two", -0.25), ("", -0.25)]
    assert tokens[0].top == ((" One", -0.5),)
    assert (end.finish, end.text, end.prompt_tokens, end.tokens) == ("stop", "One two", 7, 4)
    assert end.confidence == pytest.approx(0.716531)
    (body,) = script.bodies
    assert body["model"] == "their-name" and body["stream"] and body["max_tokens"] == 20
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert script.headers[0]["authorization"] == "Bearer their-key"


def test_calls_that_come_apart_are_written_as_our_models_write_them(
    script: Script, url: str
) -> None:
    def delta(**function: str) -> dict[str, Any]:
        return {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": function}]}}]}

    script.events = [
        piece("I look."),
        delta(name="Bash", arguments='{"command"'),
        delta(arguments=': "bd list"}'),
        piece("", finish_reason="tool_calls"),
    ]
    _, end = ask_once(url, make_ask())
    answer = parse_answer(end.text)
    assert end.finish == "stop" and answer.text == "I look."
    assert [(c.name, c.arguments) for c in answer.calls] == [("Bash", {"command": "bd list"})]


def test_a_stop_string_is_cut_also_where_the_server_tells_it(script: Script, url: str) -> None:
    script.events = [piece("one ST"), piece("OP two"), piece("", finish_reason="stop")]
    _, end = ask_once(url, make_ask(stop=("STOP",)))
    assert (end.text, end.stopped_by, end.finish) == ("one", "STOP", "stop")


def test_a_server_that_does_not_know_the_stop_string_is_read_no_further(
    script: Script, url: str
) -> None:
    script.events = [piece("one STOP two"), piece(" three"), piece("", finish_reason="length")] * 50
    script.pause = 0.1
    _, end = ask_once(url, make_ask(stop=("STOP",), seconds=2.0))
    assert (end.text, end.stopped_by, end.finish) == ("one", "STOP", "stop")
    script.events, script.pause = [piece("one STOP two", finish_reason="length")], 0.0
    assert ask_once(url, make_ask(stop=("STOP",)))[1].finish == "stop"


@pytest.mark.parametrize(
    ("told", "stopped"),
    [("STOP", "STOP"), ("</s>", ""), (13, ""), (None, ""), ({"a": []}, "")],
)
def test_which_stop_string_a_server_cut_off_itself(
    script: Script, url: str, told: Any, stopped: str
) -> None:
    script.events = [piece("one ST"), piece("", finish_reason="stop", stop_reason=told)]
    _, end = ask_once(url, make_ask(stop=("STOP",)))
    assert (end.text, end.stopped_by, end.finish) == ("one ST", stopped, "stop")


def test_a_field_that_is_refused_is_left_out_from_then_on(script: Script, url: str) -> None:
    script.events = [piece("yes", finish_reason="length")]
    script.refusals = [JSONResponse({"error": {"message": "unsupported: logprobs"}}, 400)]

    async def run() -> None:
        engine = make_engine(url)
        for _ in range(2):
            assert (await read(engine, make_ask()))[1].finish == "length"
        script.refusals = [JSONResponse({"detail": "no such tool"}, 400) for _ in range(2)]
        with pytest.raises(Unanswerable, match="no such tool"):
            await read(engine, make_ask())
        await engine.aclose()

    asyncio.run(run())
    assert ["logprobs" in b for b in script.bodies] == [True, False, False, False]


def test_refusals_mean_what_they_mean_and_are_not_repeated(script: Script, url: str) -> None:
    for status, headers, wanted in (
        (429, {"retry-after": "7"}, Busy),
        (503, {}, Busy),
        (404, {}, Unanswerable),
        (422, {}, Unanswerable),
    ):
        script.refusals = [JSONResponse({"error": "no"}, status, headers)]
        with pytest.raises(wanted) as refused:
            ask_once(url, make_ask())
        if status == 429:
            assert refused.value.after == 7
        assert getattr(refused.value, "missing", False) == (status == 404)
    for status in (401, 500, 302):
        headers = {"location": "http://127.0.0.1:9/"}
        script.refusals = [JSONResponse({"error": {"message": "broken"}}, status, headers)]
        _, end = ask_once(url, make_ask())
        assert end.finish == "error" and f"{status}: broken" in end.error
    assert len(script.bodies) == 7
    with pytest.raises(Unanswerable) as missing:
        ask_once(url, make_ask("nobody"))
    assert missing.value.missing


@pytest.mark.parametrize(
    "events",
    [
        [],
        [piece("half")],
        ["not json"],
        ["[1]"],
        [{"choices": [{"delta": 5}]}],
        [{"choices": [{"delta": {"content": {"a": 1}}}]}],
        [{"error": {"message": "out of memory"}}],
        [piece("x", logprobs={"content": [{"logprob": "many"}]})],
        ["[" * 100_000],
        ["x" * (5 << 20)],
        [
            {"choices": [{"delta": {"tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}}]},
            piece("", finish_reason="stop"),
        ],
    ],
)  # fmt: skip
def test_nonsense_is_an_error_and_no_exception(script: Script, url: str, events: list[Any]) -> None:
    script.events = events
    _, end = ask_once(url, make_ask())
    assert end.finish == "error" and end.error


def test_time_is_up_and_nobody_there(script: Script, url: str) -> None:
    script.events, script.pause = [piece("never")] * 50, 0.05
    began = time.monotonic()
    tokens, end = ask_once(url, make_ask(seconds=0.3))
    assert end.finish == "timeout" and end.text.startswith("never") and tokens
    assert time.monotonic() - began < 10
    _, end = ask_once("http://127.0.0.1:9/v1", make_ask())
    assert end.finish == "error" and "ConnectError" in end.error


def test_only_so_many_are_sent_on_and_so_many_wait(script: Script, url: str) -> None:
    script.events, script.pause = [piece("a"), piece("b", finish_reason="stop")], 0.02

    async def run() -> list[str]:
        engine = make_engine(url, parallel=2, queue=3)

        async def ask() -> str:
            try:
                return (await read(engine, make_ask()))[1].finish
            except Busy:
                return "busy"

        found = await asyncio.gather(*(ask() for _ in range(9)))
        # Whoever leaves early gives the place back.
        for _ in range(4):
            answers = engine.answer(make_ask())
            await anext(answers)
            await answers.aclose()  # type: ignore[attr-defined]
        found.append(await ask())
        await engine.aclose()
        return found

    found = asyncio.run(run())
    assert sorted(found) == ["busy"] * 4 + ["stop"] * 6 and script.most == 2


def test_tokens_are_counted_by_whoever_can(url: str) -> None:
    async def run() -> int:
        with pytest.raises(Unanswerable, match="does not count"):
            await make_engine(url).count_tokens(make_ask())
        return await make_engine(url, count=lambda _: 9).count_tokens(make_ask())

    assert asyncio.run(run()) == 9


def make_program(code: str) -> Program:
    return Program("ours", ("python", "-c", code, "{port}", "{model}"), "folder", "/health")


HTTP = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers(); self.wfile.write(b'ok')\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def test_a_server_is_started_awaited_and_ended(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "m", "log": tmp_path / "log", "environ": os.environ}
    with launch(make_program(HTTP), tmp_path, **given) as launched:
        assert launched.asked == "m" and launched.url.endswith("/v1")
        os.kill(launched.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(launched.pid, 0)
    assert "GET /health" in (tmp_path / "log").read_text()
    with pytest.raises(WorkerFailed) as failed, launch(make_program("x"), tmp_path, **given):
        pass
    assert "NameError" in failed.value.why
    with pytest.raises(WorkerFailed, match="did not come up"):
        program = make_program("import time; time.sleep(60)")
        with launch(program, tmp_path, **given, seconds=0.5):
            pass


def test_what_is_not_known_or_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not know"):
        find_program("nobody")
    absent = Program("absent", ("no-such-program",), "gguf", "/", modules=("no_such_module",))
    given: dict[str, Any] = {"name": "m", "log": tmp_path / "log", "environ": {}}
    with pytest.raises(MissingExtra) as missing, launch(absent, tmp_path, **given):
        pass
    assert "no_such_module" in missing.value.why
    # Nothing listens on another address than this machine's.
    for program in PROGRAMS:
        assert program.argv[program.argv.index("--host") + 1] == "127.0.0.1"


def test_a_complete_folder_holds_base_and_adapter_and_no_links(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.txt"):
        (base / name).write_text(f"base {name}")
    write_adapter(tmp_path, "")
    adapter = read_artifact(next((tmp_path / "artifacts").iterdir()))
    folder = stage_complete(adapter, base, tmp_path / "complete")
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "tokenizer.json").read_text() == "adapter's own"
    assert not any(p.is_symlink() for p in folder.iterdir())
    # Again: what is there is replaced.
    assert stage_complete(adapter, base, folder) == folder
    with pytest.raises(UsageError, match="task adapter"):
        stage_complete(write_adapter(tmp_path, adapter.id), base, tmp_path / "other")


def write_adapter(root: Path, below: str) -> Any:
    with stage_artifact(root / "artifacts", "adapter") as staging:
        write_json(staging.path / "adapter_config.json", {})
        write_json(staging.path / "summary.json", {})
        (staging.path / "adapter_model.safetensors").write_bytes(b"weights")
        (staging.path / "tokenizer.json").write_text("adapter's own")
        record = {"name": "b", "id": "sha256:1", "path": "b", "revision": None}
        record |= {"quantization": "nf4", "files": {}, "stacks_on": below}
        write_json(staging.path / "base.json", record)
    return staging.result


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also by kill -9: nothing is left that holds the model."""
    import subprocess

    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_serving_upstream import HTTP, make_program\n"
        "from gtft.serving.launching import launch\n"
        "root = Path(sys.argv[1])\n"
        "with launch(make_program(HTTP), root, name='m', log=root / 'log', environ=os.environ) as l:\n"
        "    print(l.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.kill(pid, 0)
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
