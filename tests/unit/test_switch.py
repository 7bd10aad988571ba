"""A switch beside others: who else writes the town's files, who stops it half way, and who rolls back meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy_case import (
    BACK,
    Place,
    find_model,
    make_model,
    rows,
    snapshot,
    write,
)
from gtft.errors import ConflictError, GateFailed, InputError, TownError
from gtft.records.deployments import Deployments
from gtft.runner.deployment import carry_out
from gtft.runner.doctor_deployments import check_deployments
from gtft.runner.rollback import list_faults, mend
from gtft.runner.switch import find_in_service, find_journal, list_journals, read_journal, remove
from gtft.runner.switch_lock import let_others, lock_deploy
from gtft.service import read_routes
from gtft.town.directive import has_block, read_block
from gtft.town.settings import holds_agent

OTHER = "http://127.0.0.1:10"
CITY = '[workspace]\nname = "tt"\n'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def edit_settings(place: Place) -> None:
    path = place.root / "settings" / "config.json"
    path.write_text(json.dumps({**place.settings(), "theirs": [1]}, indent=1))


def edit_directive(place: Place) -> None:
    path = place.root / "directives" / "witness.md"
    path.write_bytes(b"# Of theirs\n" + path.read_bytes())


def read_ours(place: Place) -> tuple[Any, str | None]:
    """What of ours is in force: the agent that the witness runs on, and what it is told."""
    settings = place.settings()
    held = holds_agent(settings, "witness", "gtft-witness")
    path = place.root / "directives" / "witness.md"
    told = read_block(path.read_bytes()) if path.exists() else None
    return settings["agents"]["gtft-witness"] if held else None, told


@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("when", ["before the swap", "after the swap"])
@pytest.mark.parametrize(
    ("before", "after", "edit"),
    [
        ("live", "live", edit_settings),
        ("advise", "live", edit_directive),
        ("advise", "live", edit_settings),
        ("live", "advise", edit_settings),
        ("advise", "advise", edit_directive),
    ],
)
def test_what_is_in_service_stays_so_beside_another_writer(
    place: Place,
    before: Any,
    after: Any,
    edit: Callable[[Place], None],
    when: str,
    cut_off: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A is in service; what was to take its place fails, or is killed, and somebody wrote in the same file."""
    first = make_model(place.ws, "a")
    second = make_model(place.ws, "b") if before == after else first
    write(place.root / "directives" / "witness.md", "# Ours\n")
    place.deploy(first, before)
    ours, known = read_ours(place), list_journals(place.ws.path)
    plan = place.plan(second, after, url=OTHER)

    def write_and_fail(*_: object, **__: object) -> None:
        edit(place)
        raise GateFailed("no")

    if when == "after the swap":
        monkeypatch.setattr(Deployments, "activate", write_and_fail)
    if cut_off:
        monkeypatch.setattr("gtft.runner.switch.take_back", lambda *_: [])
    with pytest.raises((ConflictError, GateFailed)):
        carry_out(place.ws, plan, lambda: edit(place) if when == "before the swap" else None)
    monkeypatch.undo()
    assert len(list(mend(place.ws))) == cut_off
    assert read_ours(place) == ours
    assert list_journals(place.ws.path) == known
    assert list(list_faults(place.ws)) == []
    assert [r[1:] for r in rows(place.ws)] == [
        (before, "active", None), (after, "ended", "failed"),
    ]  # fmt: skip
    # What they wrote stays, then and after the rollback.
    place.back()
    assert read_ours(place) == (None, None)
    assert ("theirs" in place.settings()) == (edit is edit_settings)
    told = (place.root / "directives" / "witness.md").read_text()
    assert told == ("# Of theirs\n# Ours\n" if edit is edit_directive else "# Ours\n")


def test_a_role_that_somebody_pointed_elsewhere_since_stays_theirs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_model(place.ws, "a"), make_model(place.ws, "b")
    place.deploy(first)
    plan = place.plan(second, url=OTHER)

    def point_and_fail(*_: object, **__: object) -> None:
        doc = place.settings() | {"role_agents": {"witness": "gemini"}}
        (place.root / "settings" / "config.json").write_text(json.dumps(doc))
        raise GateFailed("no")

    monkeypatch.setattr(Deployments, "activate", point_and_fail)
    with pytest.raises(GateFailed):
        carry_out(place.ws, plan, lambda: None)
    assert place.settings()["role_agents"] == {"witness": "gemini"}


def test_a_city_s_block_is_kept_beside_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    (place.root / "mayor" / "town.json").unlink()
    city = write(place.root / "city.toml", CITY)
    write(place.root / "agents" / "witness" / "agent.toml", "")
    place.deploy(make_model(place.ws, "a"))
    ours = city.read_text()
    plan = place.plan(make_model(place.ws, "b"), url=OTHER)

    def write_and_fail(*_: object, **__: object) -> None:
        city.write_text("# theirs\n" + city.read_text())
        raise GateFailed("no")

    monkeypatch.setattr(Deployments, "activate", write_and_fail)
    with pytest.raises(GateFailed):
        carry_out(place.ws, plan, lambda: None)
    assert city.read_text() == "# theirs\n" + ours


EDITORS: dict[str, Callable[[bytes], bytes]] = {
    "no last line end": lambda data: data.rstrip(b"\n"),
    "crlf": lambda data: data.replace(b"\n", b"\r\n"),
    "both": lambda data: data.rstrip(b"\n").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("editor", EDITORS.values(), ids=EDITORS)
@pytest.mark.parametrize("text", ["# Ours\n", "# Ours", ""])
def test_what_an_editor_makes_of_our_block_is_still_taken_out(
    place: Place, text: str, editor: Callable[[bytes], bytes]
) -> None:
    path = write(place.root / "directives" / "witness.md", text)
    place.deploy(make_model(place.ws, "a"), "advise")
    path.write_bytes(editor(path.read_bytes()))
    (note,) = place.back()
    assert "only what is gtft's was taken out" in note
    assert path.read_bytes().replace(b"\r\n", b"\n") == text.encode()


@pytest.mark.parametrize("mark", [b"begin -->\n", b"end -->\n"])
def test_a_damaged_block_is_told_and_never_called_taken_out(place: Place, mark: bytes) -> None:
    model = make_model(place.ws, "a")
    path = write(place.root / "directives" / "witness.md", "# Ours\n")
    place.deploy(model, "advise")
    path.write_bytes(path.read_bytes().replace(mark, b"?" + mark))
    assert has_block(path.read_bytes()) and list(list_faults(place.ws)) == []
    with pytest.raises(TownError, match="is damaged") as e:
        place.back()
    assert str(path) in e.value.fix
    assert [j.state for j in list_journals(place.ws.path)] == ["removing"]
    assert rows(place.ws)[0][2] == "active"
    path.write_text("# Ours\n")
    list(mend(place.ws))
    assert rows(place.ws) == [("dep-1", "advise", "ended", "rolled-back")]


def test_a_journal_that_cannot_be_read_is_of_its_own_place_only(place: Place) -> None:
    place.deploy(make_model(place.ws, "a"))
    place.deploy(make_model(place.ws, "r", "refinery"), "shadow")
    path = find_journal(place.ws.path, "refinery", "")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "note": "of a newer gtft"}))
    kept = read_routes(place.ws.path).find("refinery")
    journal = find_in_service(place.ws.path, "", "witness", None)
    remove(place.ws.path, journal, BACK)
    assert "agents" not in place.settings()
    found = read_routes(place.ws.path)
    assert found.find("refinery") == kept and kept is not None and kept.model
    assert (route := found.find("witness")) is not None and not route.model
    with pytest.raises(InputError, match="not what gtft writes"):
        find_in_service(place.ws.path, "", "refinery", None)
    assert [f.level for f in check_deployments(place.ws)] == ["wrong"]


@pytest.mark.parametrize("before", [False, True])
def test_stopped_after_the_store_heard_of_it_it_is_in_service(
    place: Place, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_model(place.ws, "a"), make_model(place.ws, "b")
    if before:
        place.deploy(first)
    plan, real = place.plan(second, url=OTHER), Deployments.activate

    def stop(self: Deployments, *given: Any, **more: Any) -> None:
        real(self, *given, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Deployments, "activate", stop)
    with pytest.raises(KeyboardInterrupt):
        carry_out(place.ws, plan, lambda: None)
    journal = read_journal(place.ws.path, "witness")
    assert journal is not None and (journal.state, journal.model) == ("active", second.name)
    assert rows(place.ws)[-1][1:] == ("live", "active", None)
    assert find_model(place.ws.store, second.id).status == "deployed"
    assert place.settings()["agents"]["gtft-witness"]["env"]["ANTHROPIC_BASE_URL"].startswith(OTHER)
    assert list(list_faults(place.ws)) == []


def test_a_model_that_is_deployed_nowhere_is_approved_again(place: Place) -> None:
    model = make_model(place.ws, "a", status="deployed")
    (fault,) = list_faults(place.ws)
    assert fault.about == model.name and "no deployment" in fault.text
    list(mend(place.ws))
    assert find_model(place.ws.store, model.id).status == "approved"


@pytest.mark.parametrize("mode", [0o600, 0o444])
def test_permissions_that_somebody_changed_since_stay(place: Place, mode: int) -> None:
    path = place.root / "settings" / "config.json"
    before = path.read_bytes()
    place.deploy(make_model(place.ws, "a"))
    path.chmod(0o600)
    place.deploy(make_model(place.ws, "b"), url=OTHER)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    notes = place.back()
    assert path.read_bytes() == before and path.stat().st_mode & 0o777 == mode
    assert [("read-only" in n) for n in notes] == ([True] if mode == 0o444 else [])


@contextmanager
def stand_in(ask: Callable[[], None]) -> Iterator[str]:
    """A server that is up, says once that it is busy (503) and calls ``ask``, then that it is broken (500)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200)

        def do_POST(self) -> None:
            asked.append(self.path)
            if len(asked) == 1:
                ask()
            self.answer(503 if len(asked) == 1 else 500)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("role", ["refinery", "witness"])
def test_a_server_that_answers_late_keeps_no_rollback_from_being_made(
    place: Place, role: str
) -> None:
    """The witness is live; it, or another role, is being given another model whose server is busy."""
    model = make_model(place.ws, "n", role)
    before = snapshot(place.root)
    place.deploy(make_model(place.ws, "a"))
    environ = {**place.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done: list[subprocess.CompletedProcess[str]] = []

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "gtft.cli.main", *argv]
        return subprocess.run(command, cwd=place.root, env=environ, capture_output=True, text=True)

    with stand_in(lambda: done.append(run("rollback", "--role", "witness"))) as url:
        put = run(
            "deploy", model.name, "--role", role, "--mode", "live", "--endpoint", url,
            "--force", "trial", "--yes",
        )  # fmt: skip
    assert [d.returncode for d in done] == [0], done
    assert put.returncode not in (0, 2) and "does not answer" in put.stderr, put
    assert snapshot(place.root) == before
    assert list_journals(place.ws.path) == [] and list(list_faults(place.ws)) == []
    assert {r[2] for r in rows(place.ws)} == {"ended"}
    assert not [r for r in read_routes(place.ws.path).routes if r.model]


def test_a_deployment_that_waits_is_left_alone_and_gives_way_to_a_rollback(place: Place) -> None:
    first, second = make_model(place.ws, "a"), make_model(place.ws, "b")
    path = place.ws.path
    place.deploy(first)
    plan = place.plan(second, url=OTHER)

    def answer_late() -> None:
        with let_others(lock, find_journal(path, "witness", "")), lock_deploy(path):
            assert list(list_faults(place.ws)) == []
            place.deploy(make_model(place.ws, "r", "refinery"), "shadow")
            with pytest.raises(ConflictError, match="half done"):
                place.plan(second)
            assert place.back() == []

    with lock_deploy(path) as lock, pytest.raises(ConflictError, match="was taken out of service"):
        carry_out(place.ws, plan, answer_late)
    assert [j.role for j in list_journals(path)] == ["refinery"]
    assert "agents" not in place.settings() and list(list_faults(place.ws)) == []
