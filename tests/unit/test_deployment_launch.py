"""What stands before an agent in its start command: the model's agent where the server answers, else the one before."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy_case import Place, make_model, write
from gtft.errors import UsageError
from gtft.runner.deployment import carry_out, find_town, plan_deployment
from gtft.runner.deployment_files import Wanted, with_launcher
from gtft.runner.deployment_gates import check_agent
from gtft.runner.switch import read_journal
from gtft.town.launch import PROGRAMS, is_healthy, plan_start, serves_role, word_wrapper

CLAUDE = ("claude", "--dangerously-skip-permissions", "--settings", "s.json", "[GAS TOWN] witness")
LAUNCH: dict[str, Any] = {
    "health": "http://127.0.0.1:9/health",
    "protocol": "anthropic",
    "keys": ["ANTHROPIC_BASE_URL"],
    "given": ["claude", "--dangerously-skip-permissions"],
    "env": {},
    "words": [],
    "token": "",
    "previous": None,
}


def make_journal(folder: Path, state: str = "active", **launch: Any) -> Path:
    doc = {"state": state, "role": "witness", "rig": "", "launch": {**LAUNCH, **launch}}
    return write(folder / "witness.json", json.dumps(doc))


@pytest.fixture
def body() -> list[bytes]:
    return [b'{"roles": [{"role": "witness", "rig": "", "mode": "live"}]}']


@pytest.fixture
def server(body: list[bytes]) -> Iterator[str]:
    """A server whose health is well, for those who know its token; it drips where ``body`` is empty."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("x-gtft-token", "")
            self.send_response(200 if token in ("", "secret-made-up") else 401)
            self.end_headers()
            if body:
                self.wfile.write(body[0])
                return
            with contextlib.suppress(OSError):
                for _ in range(120):
                    time.sleep(0.5)
                    self.wfile.write(b"x")
                    self.wfile.flush()
            body.append(b"done")

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def test_the_agent_as_given_where_the_server_answers(tmp_path: Path, server: str) -> None:
    journal = make_journal(tmp_path, health=f"{server}/health")
    environ = {"ANTHROPIC_BASE_URL": "u", "X": "1"}
    plan = plan_start(journal, CLAUDE, environ)
    assert (plan.argv, plan.environ, plan.why) == (CLAUDE, environ, "")


@pytest.mark.parametrize("wrapper", [(), ("nice", "-n", "5")])
def test_an_agent_that_reads_no_variable_is_told_by_its_command_line(
    tmp_path: Path, server: str, wrapper: tuple[str, ...]
) -> None:
    codex, words = ("codex", "--dangerously-bypass-approvals-and-sandbox"), ("-c", "a=1")
    journal = make_journal(
        tmp_path, health=f"{server}/health", given=list(codex), words=list(words)
    )
    rest = ("resume", "7")
    assert plan_start(journal, (*wrapper, *codex, *rest), {}).argv == (
        *wrapper,
        *codex,
        *words,
        *rest,
    )
    assert plan_start(journal, ("other", "x"), {}).argv == ("other", "x", *words)
    away = plan_start(journal, (*wrapper, *codex, *rest), {}, lambda _: False)
    assert away.argv == (*wrapper, *codex, *rest)


@pytest.mark.parametrize(
    ("role", "rig", "mode", "there"),
    [
        ("witness", "gizmo", "live", True),
        ("witness", "", "live", True),
        ("witness", "harbor", "live", False),
        ("witness", "", "shadow", False),
        ("mayor", "", "live", False),
    ],
)
def test_another_towns_server_on_the_port_is_not_ours(
    tmp_path: Path, body: list[bytes], server: str, role: str, rig: str, mode: str, there: bool
) -> None:
    body[0] = json.dumps({"roles": [{"role": role, "rig": rig, "mode": mode}]}).encode()
    assert serves_role(f"{server}/health", "witness", "gizmo") is there
    body[0] = b"[" * 100_000
    assert not serves_role(f"{server}/health", "witness", "gizmo")


def test_an_answer_that_drips_is_not_waited_for(body: list[bytes], server: str) -> None:
    body.clear()
    assert not is_healthy(f"{server}/health")
    # The server is still at it.
    assert body == []


def test_the_role_starts_without_gtft_too(tmp_path: Path) -> None:
    """As tmux's shell runs it, with what ``gtft`` needs gone."""
    agent = write(
        tmp_path / "an agent",
        '#!/bin/sh\nprintf "%s|" "${ANTHROPIC_BASE_URL-unset}" "${GT_AGENT-unset}" "$@"\n',
    )
    tmux = write(tmp_path / "a bin" / "tmux", f'#!/bin/sh\necho "$@" >> {tmp_path}/tmux.log\n')
    tmux.chmod(0o755)
    gtft = write(tmp_path / "a bin" / "gtft", f'#!/bin/sh\n[ "$1" = --version ] || echo "{"$*"}"\n')
    agent.chmod(0o755)
    gtft.chmod(0o755)
    words = [shlex.quote(w) for w in word_wrapper((str(gtft),), tmp_path / "a journal.json")]
    command = " ".join([*words, shlex.quote(str(agent)), "--settings", "s", "'a prompt; $(x)'"])

    def run() -> str:
        environ = {"ANTHROPIC_BASE_URL": "u", "GT_AGENT": "claude", "TMUX": "x"}
        environ["PATH"] = f"{tmux.parent}:/usr/bin:/bin"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environ)
        return done.stdout

    assert (
        run() == f"deploy launch {tmp_path}/a journal.json -- {agent} --settings s a prompt; $(x)\n"
    )
    without = "unset||--settings|s|a prompt; $(x)|"
    gtft.write_text("#!/nowhere/python\n")
    assert run() == without
    gtft.unlink()
    assert run() == without
    # What runs in the session later, without us, has the name that it had before us.
    said = (tmp_path / "tmux.log").read_text().splitlines()
    assert said == ["set-environment GT_AGENT claude"] * 3


def test_the_same_command_without_the_server_where_it_does_not(tmp_path: Path) -> None:
    plan = plan_start(make_journal(tmp_path), CLAUDE, {"ANTHROPIC_BASE_URL": "u", "X": "1"})
    assert (plan.argv, plan.environ) == (CLAUDE, {"X": "1"})
    assert "does not answer" in plan.why
    # An address of the agent's own comes back with it.
    journal = make_journal(tmp_path, env={"ANTHROPIC_BASE_URL": "https://proxy"})
    plan = plan_start(journal, CLAUDE, {"ANTHROPIC_BASE_URL": "u"})
    assert plan.environ == {"ANTHROPIC_BASE_URL": "https://proxy"}


@pytest.mark.parametrize("damage", ["gone", "not JSON", "another shape", "rolled back"])
def test_without_a_journal_the_previous_agent_starts(tmp_path: Path, damage: str) -> None:
    journal = make_journal(tmp_path, "off" if damage == "rolled back" else "active")
    if damage == "gone":
        journal.unlink()
    if damage == "not JSON":
        journal.write_bytes(b"\xff{")
    if damage == "another shape":
        journal.write_text('{"state": "active", "launch": []}')
    pointers = {"ANTHROPIC_BASE_URL": "u", "OPENAI_BASE_URL": "u"}
    plan = plan_start(journal, CLAUDE, {**pointers, "X": "1"})
    # Where it can be read, it says which of them is ours.
    kept = {"OPENAI_BASE_URL": "u"} if damage == "rolled back" else {}
    assert (plan.argv, plan.environ) == (CLAUDE, {**kept, "X": "1"})


def deploy(place: Place, url: str, *, named: str = "") -> dict[str, Any]:
    """Live for the witness, with the real launcher; returns the agent that gt reads."""
    program = (sys.executable, "-P", "-m", "gtft.cli.main")
    wanted = Wanted(make_model(place.ws, "a"), "live", "witness", "", url, "me", named)
    wanted = with_launcher(place.ws, wanted, program)
    plan = plan_deployment(place.ws, find_town(place.ws), wanted, "dep-1", place.environ)
    assert plan.agent is not None and check_agent(plan.agent.model_agent, place.environ).met
    carry_out(place.ws, plan, lambda: None)
    found: dict[str, Any] = place.settings()["agents"]["gtft-witness"]
    return found


SAY = '#!/bin/sh\nprintf "%s|" "${ANTHROPIC_BASE_URL-unset}" "${GT_AGENT-unset}" "$@"\n'


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_start_and_a_handoff_go_through_us_and_after_a_rollback_do_no_harm(
    tmp_path: Path, server: str, wrapped: bool
) -> None:
    """In a handoff gt knows the command and its arguments alone."""
    place = Place(tmp_path / "a place")
    write(tmp_path / "a place/bin/claude", SAY)
    agent = deploy(place, server)

    def start() -> list[str]:
        words = [*(agent["exec_wrapper"] if wrapped else ()), agent["command"], *agent["args"]]
        environ = {**os.environ, **place.environ, "GT_AGENT": "claude"}
        done = subprocess.run(
            ["sh", "-c", f"exec {' '.join(words)} 'a prompt; $(x)'"],
            env={**environ, **(agent["env"] if wrapped else {}), "TMUX": ""},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split("|")[:-1]

    rest = ["", "--dangerously-skip-permissions", "a prompt; $(x)"]
    assert start() == [f"{server}/roles/witness", *rest]
    place.back()
    assert start() == ["unset", *rest]


def test_claude_code_where_only_gt_finds_it(tmp_path: Path, server: str) -> None:
    place = Place(tmp_path)
    (tmp_path / "bin/claude").unlink()
    local = write(tmp_path / ".claude/local/claude", SAY)
    local.chmod(0o755)
    agent = deploy(place, server)
    journal = read_journal(place.ws.path, "witness")
    assert journal is not None and journal.launch is not None
    assert journal.launch.given[0] == str(local)
    environ = {**os.environ, **place.environ, **agent["env"], "TMUX": ""}
    words = [*agent["exec_wrapper"], agent["command"], *agent["args"]]

    def start() -> str:
        return subprocess.check_output(["sh", "-c", " ".join(words)], env=environ, text=True)

    assert start() == f"{server}/roles/witness||--dangerously-skip-permissions|"
    place.back()
    assert start() == "unset||--dangerously-skip-permissions|"


def test_our_program_is_never_what_the_launcher_starts(tmp_path: Path, server: str) -> None:
    journal = make_journal(tmp_path, health=f"{server}/health", env={"A": "1"})
    ours = str(tmp_path / PROGRAMS / "0123" / "claude")
    plan = plan_start(journal, ("box", ours, *CLAUDE[1:]), {"X": "1"})
    assert plan.argv == ("box", *CLAUDE)
    # What a handoff leaves out of the agent's own.
    assert plan.environ == {"A": "1", "X": "1"}
    journal.unlink()
    assert plan_start(journal, ("box", ours, *CLAUDE[1:]), {}).argv == ("box", *CLAUDE)


@pytest.mark.parametrize("wrapper", [(), ("exitbox", "run", "--profile=p", "--")])
@pytest.mark.parametrize(
    ("prompt", "is_claude", "argv"),
    [
        ("-i", False, ("gemini", "-y", "-i", "[GAS TOWN] witness")),
        ("", True, ("gemini", "-y", "--settings", "s.json", "[GAS TOWN] witness")),
        (None, False, ("gemini", "-y")),
    ],
)
def test_another_program_gets_the_prompt_its_own_way(
    tmp_path: Path,
    prompt: str | None,
    is_claude: bool,
    argv: tuple[str, ...],
    wrapper: tuple[str, ...],
) -> None:
    previous = {
        "argv": ["gemini", "-y"],
        "env": {"A": "1"},
        "prompt": prompt,
        "is_claude": is_claude,
    }
    journal = make_journal(tmp_path, env={"B": "2"}, previous=previous)
    environ = {"ANTHROPIC_BASE_URL": "u", "B": "2", "X": "1"}
    plan = plan_start(journal, (*wrapper, *CLAUDE), environ)
    assert (plan.argv, plan.environ) == ((*wrapper, *argv), {"A": "1", "X": "1"})


def test_a_word_in_place_of_a_key_and_the_servers_token(tmp_path: Path) -> None:
    openai = make_journal(tmp_path, protocol="openai", token="OPENAI_API_KEY")

    def started(environ: dict[str, str], journal: Path = openai) -> dict[str, str]:
        return plan_start(journal, CLAUDE, environ, lambda url: True).environ

    assert started({})["OPENAI_API_KEY"] == "gtft-local"
    assert started({"OPENAI_API_KEY": "mine"})["OPENAI_API_KEY"] == "mine"
    token = {"GTFT_SERVE_TOKEN": "secret-made-up"}
    assert started(token)["OPENAI_API_KEY"] == "secret-made-up"
    journal = make_journal(tmp_path)
    headers = started({**token, "ANTHROPIC_CUSTOM_HEADERS": "a: b"}, journal)
    assert headers["ANTHROPIC_CUSTOM_HEADERS"] == "a: b\nx-gtft-token: secret-made-up"


def test_health_is_asked_with_the_token_and_never_for_long(server: str) -> None:
    assert is_healthy(f"{server}/health") and is_healthy(f"{server}/health", "secret-made-up")
    assert not is_healthy(f"{server}/health", "wrong")
    for url in ("", "http://", "http://127.0.0.1:99999/", "http://127.0.0.1:1/health", "file:///x"):
        assert not is_healthy(url)


def test_there_must_be_a_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        plan_start(make_journal(tmp_path), (), {})


def test_the_command_becomes_the_agent_and_imports_nothing_heavy(tmp_path: Path) -> None:
    agent = write(
        tmp_path / "claude", '#!/bin/sh\nprintf "%s|" "$$" "${ANTHROPIC_BASE_URL-unset}" "$@"\n'
    )
    agent.chmod(0o755)
    journal = make_journal(tmp_path)
    environ = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "ANTHROPIC_BASE_URL": "u"}
    argv = [sys.executable, "-m", "gtft.cli.main", "deploy", "launch", str(journal), "--", "claude"]
    with subprocess.Popen(
        [*argv, "--continue", "a prompt; $(x)"], env=environ, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = child.stdout.read().split("|")
    # The same process: gt sees the agent itself, not something around it.
    assert said[:-1] == [str(child.pid), "unset", "--continue", "a prompt; $(x)"]
    code = (
        "import sys\nfrom gtft.cli.main import run\n"
        f"try:\n    run(['deploy', 'launch', {str(journal)!r}, '--', '/nowhere'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('sqlalchemy', 'pydantic', 'torch', 'gtft.r'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
