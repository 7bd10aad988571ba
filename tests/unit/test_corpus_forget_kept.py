"""``gtft corpus forget``: what is kept of a session beside the corpora goes too, and its incident is not asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.contract import Withdrawal
from gtft.corpus.example import Labels
from gtft.corpus.governance.kept import Taken
from gtft.corpus.governance.row import hash_contributor
from gtft.corpus.governance.withdrawal import Withdrawals, make_withdrawal
from gtft.runner import incidents, watching
from gtft.runner.incidents import report_incident
from gtft.runner.lineage import list_incident_items
from gtft.runner.watching import look_after
from gtft.runner.workspace import Workspace
from gtft.service import FOLDER, PREFERENCES_FOLDER, AnswerLine, add_answer, read_answers
from watch_case import deploy, open_town, run_bash, stand_in, work_here, write_patrol

KEY = b"k" * 32


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person types, and workers work without a process."""
    for name in ("BEADS_ACTOR", "BD_ACTOR", "GT_ROLE"):
        monkeypatch.delenv(name, raising=False)
    for module in (incidents, watching):
        monkeypatch.setattr(module, "run_worker", work_here)


def forget(ws: Workspace, *argv: str) -> Any:
    args = ["--workspace", str(ws.path), "corpus", "forget", *argv, "--json"]
    done = CliRunner().invoke(main, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["data"]


def note(ws: Workspace, session: str, bead: str, output: str) -> None:
    line = {"at_us": 1, "deployment": "dep-old", "mode": "shadow", "took": "nobody"}
    line |= {"session": session, "bead": bead, "output": output}
    add_answer(ws.path, AnswerLine.model_validate(line))


def test_what_is_kept_of_a_session_goes_with_it(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path)
    row = deploy(ws, model, "live")
    gone = write_patrol(tmp_path, 0, before=run_bash(1, "gt polecat nuke gizmo/nux --force", "ok"))
    stays = write_patrol(tmp_path, 1)
    report = report_incident(ws, row, title="nuked", session=gone, actor="mayor")
    assert report.row.item and len(list(list_incident_items(ws))) == 1
    note(ws, gone, "gz-1", "stampede")
    note(ws, stays, "gz-2", "no-op")
    pairs = ws.path / FOLDER / PREFERENCES_FOLDER / "dep-old.jsonl"
    pairs.parent.mkdir(parents=True)
    said = {"prompt": [], "tools": [], "chosen": "no-op", "rejected": "stampede"}
    rows = [{"example": f"ex-{s[-2:]}", "origin": {"session": s}, **said} for s in (gone, stays)]
    pairs.write_text("".join(json.dumps(r) + "\n" for r in rows))
    tried = forget(ws, gone, "--dry-run")
    assert {(k["file"], k["lines"]) for k in tried["kept"]} == {
        ("service/answers/dep-old.jsonl", 1),
        ("service/preferences/dep-old.jsonl", 1),
    }
    assert [i["bead"] for i in tried["incidents"]] == [report.row.bead_id]
    assert len(list(read_answers(ws.path, "dep-old"))) == 2 and list(list_incident_items(ws))
    assert forget(ws, gone)["kept"] == tried["kept"]
    assert [a.session for a in read_answers(ws.path, "dep-old")] == [stays]
    assert [json.loads(x)["origin"]["session"] for x in pairs.read_text().splitlines()] == [stays]
    assert not list(list_incident_items(ws))
    assert "nuked" not in "".join(
        p.read_text() for p in (ws.path / FOLDER / "incidents").rglob("*") if p.is_file()
    )
    # What comes in afterwards goes when it is said again; a withdrawn session makes no item.
    note(ws, gone, "gz-1", "stampede")
    again = forget(ws, gone)
    assert not again["new"] and len(again["kept"]) == 1 and not again["incidents"]
    retried = report_incident(ws, row, title="nuked", session=gone, actor="mayor")
    assert retried.row.item is None and "may be read here" in retried.why


def test_a_preference_says_whose_session_it_is_of(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path)
    session = write_patrol(tmp_path, 1)
    merged = {"session": session, "role": "gizmo/witness", "actor": "gizmo/witness"}
    merged["bead"] = "gz-77"
    (ws.path / "sessions.jsonl").write_text(json.dumps(merged) + "\n")
    call = {"id": "int-1", "kind": "llm_call", "created_at": "2026-04-02T00:00:00Z"}
    good = {"id": "int-2", "kind": "label", "parent_id": "int-1", "label": "good"}
    good["created_at"] = "2026-04-02T01:00:00Z"
    rows = [r | {"issue_id": "gz-77"} for r in (call, good)]
    (tmp_path / "beads" / "interactions.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows)
    )
    with stand_in(lambda _: '{"action": "cleanup", "reason": "why not"}') as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        look_after(ws, row)
    (pair,) = (ws.path / FOLDER / PREFERENCES_FOLDER / f"{row.id}.jsonl").read_text().splitlines()
    origin = json.loads(pair)["origin"]
    assert (origin["session"], origin["actor"], origin["bead"]) == (
        session,
        "gizmo/witness",
        "gz-77",
    )
    assert [k["lines"] for k in forget(ws, "gizmo/witness")["kept"]] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "who", "doc", "covered"),
    [
        ("session", "s-1", {"session": "s-1"}, True),
        ("session", "s-2", {"session": "s-1"}, False),
        ("bead", "gz-1", {"bead": "gz-1.2"}, True),
        ("rig", "gizmo", {"session": "s-1"}, True),
        ("actor", "gizmo/witness", {"session": "s-1"}, True),
        ("actor", "gizmo/witness", {"session": "s-9"}, False),
        ("email", "ann@example.com", {"origin": {"contributor": "ANN"}}, True),
        ("email", "ann@example.com", {"session": "s-1"}, False),
    ],
)
def test_whose_a_line_is(kind: Any, who: str, doc: dict[str, Any], covered: bool) -> None:
    made: Withdrawal = make_withdrawal(kind, who, KEY)
    recorded = {"s-1": Labels(role="witness", rig="gizmo", actor="gizmo/witness")}
    taken = Taken(Withdrawals((made,), KEY), recorded)
    text = json.dumps(doc).replace("ANN", hash_contributor(KEY, "ann@example.com"))
    assert taken.keeps(text.encode()) is not covered
    assert taken.keeps(b"\x00 no JSON")
