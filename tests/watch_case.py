"""A tiny town with a model in service, and a server that answers as a test says: what the watch tests share."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gtft.artifact import write_json
from gtft.contract import JOB_FILE, Job
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, ModelRow
from gtft.runner.switch import Journal, put_routes, write_journal
from gtft.runner.workspace import Workspace, open_workspace
from gtft.service import Address, Mode, Route, write_address
from gtft.workers import incident, shadow
from run_case import carry_on, make_run
from tiny_town import NAMES, SIGNS, make_town

# When the deployment of these tests began: the tiny town's own sessions are from before.
SINCE = datetime(2026, 4, 1, tzinfo=UTC).timestamp()
NOW = SINCE + 10 * 86_400
SECRET = "ghp_" + "MadeUpMadeUpMadeUpMadeUpMadeUpMade01"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def open_town(folder: Path, *tables: str, sessions: int = 8) -> tuple[Workspace, ModelRow]:
    """A workspace at `NOW` whose run of the tiny formula made a model; ``tables``: more of its recipe."""
    make_town(folder, sessions)
    ws = open_workspace(folder / ".gtft", now=lambda: NOW)
    run = make_run(ws, folder, *tables)
    carry_on(ws, run, "harvest", "train", "eval", "card")
    (model,) = ws.store.list_models()
    return ws, model


def deploy(
    ws: Workspace,
    model: ModelRow,
    mode: Mode,
    *,
    url: str = "",
    limits: dict[str, Any] | None = None,
) -> DeploymentRow:
    """A deployment since `SINCE`, as the store and the server's files know it."""
    row = DeploymentRow(
        id=f"dep-{mode}", model_id=model.id, role="witness", rig="", mode=mode, state="preparing",
        reason=None, reason_text="", actor="mayor", detail={"limits": limits or {}}, figures={},
        created_us=int(SINCE * 1e6), updated_us=int(SINCE * 1e6),
    )  # fmt: skip
    rows = Deployments(ws.store)
    rows.start(row, model)
    active = rows.activate(
        row.id, detail=row.detail, ended={}, statuses={}, actor="mayor", text="on"
    )
    route = Route(
        role="witness", deployment=row.id, model=model.name, adapter=model.adapter_id, mode=mode,
        seconds=5.0, max_new_tokens=64,
    )  # fmt: skip
    journal = Journal(
        state="active", role="witness", deployment=row.id, model=model.name, model_id=model.id, mode=mode, route=route
    )  # fmt: skip
    write_journal(ws.path, journal)
    put_routes(ws.path)
    if url:
        write_address(ws.path, Address(url=url, pid=os.getpid(), models=(model.name,)))
    return active


def write_patrol(
    town: Path,
    n: int,
    *,
    at: float = SINCE + 86_400,
    answer: str = "",
    seen: str = "",
    before: list[dict[str, Any]] | None = None,
    model: str = "made-up",
) -> str:
    """One session of gizmo's witness; returns its id. ``seen``: more that the prompt says; ``before``: records of it
    before the last answer."""
    sign, action, why = SIGNS[n % len(SIGNS)]
    first, second, third = (NAMES[(n * k + k) % len(NAMES)] for k in (3, 7, 13))
    session = f"11111111-0000-4000-8000-{n:012}"
    prompt = (
        f"[GAS TOWN] witness (rig: gizmo) <- deacon • {stamp(at)} • patrol\n"
        f"Polecat {first} looks after the {second} {third} valve number {n * 41 % 97}: {sign}. {seen}"
        "Answer with one JSON object: action and reason."
    )
    said = answer or json.dumps({"action": action, "reason": f"{first}: {why}"})
    content = [{"type": "text", "text": said}]
    turns: list[dict[str, Any]] = [
        {"type": "user", "message": {"role": "user", "content": prompt}},
        *(before or []),
        {"type": "assistant", "message": say(f"msg_w{n}", content, model)},
    ]
    common = {"sessionId": session, "cwd": "/town/gizmo/witness", "version": "2.1.40"}
    common |= {"isSidechain": False, "userType": "external"}  # type: ignore[dict-item]
    records, parent = [], None
    for k, turn in enumerate(turns):
        uuid = f"w-{n}-{k}"
        records.append(
            {**common, "uuid": uuid, "parentUuid": parent, "timestamp": stamp(at + 5 * k), **turn}
        )
        parent = uuid
    path = town / "transcripts" / f"w{n:03}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return session


def say(number: str, content: list[dict[str, Any]], model: str = "made-up") -> dict[str, Any]:
    return {"id": number, "role": "assistant", "model": model, "content": content}


def run_bash(n: int, command: str, output: str) -> list[dict[str, Any]]:
    """Two records: a call and its result."""
    call = {"type": "tool_use", "id": f"toolu_{n}", "name": "Bash", "input": {"command": command}}
    result = {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": output}
    return [
        {"type": "assistant", "message": say(f"msg_b{n}", [call])},
        {"type": "user", "message": {"role": "user", "content": [result]}},
    ]


def work_here(module: str, folder: Path, ws: Workspace, seconds: float) -> None:
    """In place of `gtft.runner.lineage.run_worker`: the same work without a process, whose imports take seconds."""
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    if module == "gtft.workers.shadow":
        watch = shadow.Watch.model_validate_json((folder / shadow.WATCH_FILE).read_bytes())
        found = shadow.look(job, watch, ws.now, lambda: False)
        write_json(folder / shadow.FIGURES_FILE, found)
    else:
        asked = incident.Asked.model_validate_json((folder / incident.ASKED_FILE).read_bytes())
        write_json(folder / incident.FOUND_FILE, incident.find_item(job, asked))


class Asked(list[dict[str, Any]]):
    """The bodies that a stand-in was asked with."""


@contextmanager
def stand_in(reply: Callable[[str], str | int | dict[str, Any]]) -> Iterator[tuple[str, Asked]]:
    """An OpenAI-compatible server on this machine: ``reply`` gives the answer to all that is said, or a status."""
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            found = reply("\n".join(m.get("content") or "" for m in body["messages"]))
            if isinstance(found, int):
                self.send_error(found)
                return
            message = found if isinstance(found, dict) else {"role": "assistant", "content": found}
            doc = {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 30, "completion_tokens": 7},
            }
            data = json.dumps(doc).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
