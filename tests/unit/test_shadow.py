"""A model beside today's agents: what it is asked, what is recorded, and that nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import write_json
from gtft.contract import JOB_FILE
from gtft.corpus.example import Example, Origin
from gtft.corpus.snapshot import make_corpus
from gtft.evals.heldout import derive_item
from gtft.evals.promptfoo import CONFIG
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance
from gtft.records.rows import DeploymentRow, ModelRow, WithdrawalRow
from gtft.runner import lineage, watching
from gtft.runner.box import Box
from gtft.runner.watching import Looked, list_due, lock_watch, look_after
from gtft.runner.workspace import Workspace
from gtft.service import (
    Address,
    AnswerLine,
    add_answer,
    find_answers,
    read_answers,
    settle_answers,
    write_address,
)
from gtft.workers import shadow
from gtft.workers.harvest import make_settings
from gtft.workers.sessions import Told
from tiny_town import SIGNS
from watch_case import (
    NOW,
    SECRET,
    SINCE,
    deploy,
    open_town,
    run_bash,
    stamp,
    stand_in,
    work_here,
    write_patrol,
)

SAID = {sign: json.dumps({"action": action, "reason": why}) for sign, action, why in SIGNS}


def answer_right(asked: str) -> str:
    return next(said for sign, said in SAID.items() if sign in asked)


def answer_wrong(asked: str) -> str:
    return json.dumps({"action": "stampede", "reason": "why not"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The worker's work without its process, but for tests of the process."""
    if "process" not in request.node.name:
        monkeypatch.setattr(watching, "run_worker", work_here)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[tuple[Workspace, ModelRow, Path]]:
    ws, model = open_town(tmp_path)
    yield ws, model, tmp_path


Town = tuple[Workspace, ModelRow, Path]


def read(ws: Workspace, row: DeploymentRow) -> list[AnswerLine]:
    return settle_answers(read_answers(ws.path, row.id))


def look(ws: Workspace, row: DeploymentRow) -> Looked:
    found = look_after(ws, row)
    assert not found.error
    return found


def find_mail(ws: Workspace, word: str) -> list[str]:
    return [
        m.payload["subject"]
        for m in ws.store.list_messages(pending=True, kind="notice")
        if m.payload["subject"].startswith(word)
    ]


def test_each_session_since_is_asked_once_and_compared(town: Town) -> None:
    ws, model, folder = town
    for n in range(6):
        write_patrol(folder, n)
    with stand_in(answer_right) as (url, asked):
        row = deploy(ws, model, "shadow", url=url)
        first = look(ws, row)
        assert first.figures["agreement"]["hits"] == first.figures["agreement"]["n"] == 6
        assert first.figures["sessions"]["look"]["asked"] == len(asked) == 6
        # The town's eight sessions of before were not asked.
        assert {body["model"] for body in asked} == {model.name}
        assert look(ws, row).figures["agreement"]["n"] == 6
        assert len(asked) == 6
        write_patrol(folder, 6)
        assert look(ws, row).figures["agreement"]["n"] == len(asked) == 7
    lines = read(ws, row)
    assert {(a.took, a.mode, a.why) for a in lines} == {("nobody", "shadow", "")}
    assert len({(a.session, a.item) for a in lines}) == 7
    # Only the agent's own decision to escalate was one to escalate.
    assert sum(a.escalated for a in lines) == sum(bool(a.agent_escalated) for a in lines) == 2
    assert all(a.tokens == 7 and a.prompt_tokens == 30 and a.prompt_sha256 for a in lines)
    stored = Deployments(ws.store).find(row.id)
    assert stored is not None and stored.figures["decisions"] == 7


def test_what_it_abstains_from_counts_as_a_fallback_and_to_escalate_does_not(town: Town) -> None:
    ws, model, folder = town
    for n in range(4):
        write_patrol(folder, n)
    said = iter(
        ['{"action": "abstain", "missing": "log"}', '{"action": "escalate", "reason": "r"}'] * 2
    )
    with stand_in(lambda _: next(said)) as (url, _):
        figures = look(ws, deploy(ws, model, "shadow", url=url)).figures
    assert figures["fallbacks"]["causes"] == {"abstained": 2}
    assert (figures["fallbacks"]["all"]["n"], figures["abstained"]["hits"]) == (4, 2)
    assert figures["escalations"]["since"]["hits"] == 2


def test_disagreement_is_a_figure_and_nothing_of_the_town_is_touched(town: Town) -> None:
    ws, model, folder = town
    for n in range(4):
        write_patrol(folder, n)
    before = {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ws.path not in p.parents
    }
    with stand_in(answer_wrong) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        found = look(ws, row)
    assert (found.figures["agreement"]["hits"], found.figures["agreement"]["n"]) == (0, 4)
    after = {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ws.path not in p.parents
    }
    assert after == before


def test_what_it_is_asked_and_what_is_kept_of_it_is_redacted(town: Town) -> None:
    ws, model, folder = town
    write_patrol(folder, 0, seen=f"Its token is {SECRET}. ")
    with stand_in(lambda asked: f"I saw {SECRET}") as (url, asked):
        row = deploy(ws, model, "shadow", url=url)
        look(ws, row)
    assert len(asked) == 1 and SECRET not in json.dumps(asked)
    assert SECRET not in find_answers(ws.path, row.id).read_text()


def test_withdrawn_sessions_and_gas_towns_own_cases_are_not_asked(town: Town) -> None:
    ws, model, folder = town
    gone = write_patrol(folder, 0)
    write_patrol(folder, 1)
    case = "Which of the seventeen crimson turnstiles in hall nineteen must the deputy janitor oil before noon"
    write_patrol(folder, 2, seen=f"{case}? ")
    cases = folder / "gt-model-eval" / "tests"
    cases.mkdir(parents=True)
    (cases.parent / CONFIG).write_text("description: cases")
    (cases / "one.yaml").write_text(json.dumps([{"vars": {"prompt": case}}]))
    who = WithdrawalRow("w-1", "session", gone, "asked for", "mayor", (), 1)
    Governance(ws.store).add_withdrawal(who)
    with stand_in(answer_right) as (url, asked):
        look(ws, deploy(ws, model, "shadow", url=url))
    said = json.dumps(asked)
    assert len(asked) == 1 and case not in said


def test_a_server_that_is_down_is_told_and_asked_again_later(town: Town) -> None:
    ws, model, folder = town
    write_patrol(folder, 0)
    with stand_in(lambda asked: 503) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        found = look(ws, row)
    assert "gave no answer" in found.figures["sessions"]["look"]["why"]
    assert found.figures["agreement"] is None and read(ws, row) == []
    with stand_in(answer_right) as (url, asked):
        write_address(ws.path, Address(url=url, pid=os.getpid(), models=(model.name,)))
        assert look(ws, row).figures["agreement"]["n"] == len(asked) == 1


def test_one_prompt_that_the_server_refuses_keeps_nothing_else_from_being_asked(town: Town) -> None:
    ws, model, folder = town
    first, *_ = [write_patrol(folder, n, seen="Too long. " * (n == 0)) for n in range(6)]
    with stand_in(lambda said: 400 if "Too long" in said else answer_right(said)) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        found = look(ws, row).figures
        assert (found["agreement"]["hits"], found["fallbacks"]["causes"]) == (5, {"error": 1})
        assert found["sessions"]["look"]["why"] == ""
        assert look(ws, row).figures["sessions"]["look"]["left"] == 0
    assert {a.session for a in read(ws, row) if a.why} == {first}


def test_what_was_answered_before_the_server_went_down_is_kept(town: Town) -> None:
    ws, model, folder = town
    for n in range(4):
        write_patrol(folder, n, seen="Down. " * (n == 0))
    with stand_in(lambda said: 503 if "Down" in said else answer_right(said)) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        found = look(ws, row).figures
    assert found["agreement"]["hits"] == 3 and found["fallbacks"]["causes"] == {}
    assert "gave no answer" in found["sessions"]["look"]["why"]
    assert found["sessions"]["look"]["left"] == 1


def test_a_worker_process_killed_in_the_middle_goes_on_and_asks_nothing_twice(town: Town) -> None:
    ws, model, folder = town
    for n in range(10):
        write_patrol(folder, n)

    def slowly(asked: str) -> str:
        time.sleep(0.15)
        return answer_right(asked)

    with stand_in(slowly) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        look_folder = ws.path / "service" / "watch" / row.id
        # What `look_after` writes, without following the worker.
        found, run = lineage.find_origin(ws, row)
        look_folder.mkdir(parents=True)
        job = lineage.make_job(ws, run, look_folder / "work")
        write_json(look_folder / JOB_FILE, json.loads(job.model_dump_json()))
        recipe = watching.read_recipe(run)
        write_json(look_folder / "watch.json", watching._word_watch(ws, row, found, recipe, 60.0))
        worker = subprocess.Popen([sys.executable, "-m", "gtft.workers.shadow", str(look_folder)])
        end = time.monotonic() + 60
        path = find_answers(ws.path, row.id)
        while (
            not (path.exists() and path.read_bytes().count(b"\n") >= 2) and time.monotonic() < end
        ):
            time.sleep(0.02)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        recorded = len(read(ws, row))
        assert 2 <= recorded < 10
        assert look(ws, row).figures["agreement"]["n"] == 10
    assert len({(a.session, a.item) for a in read_answers(ws.path, row.id)}) == 10
    assert len(list(read_answers(ws.path, row.id))) == 10


def test_what_does_not_fit_into_memory_is_not_loaded_and_that_is_said(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, model, folder = town
    write_patrol(folder, 0)
    full = Box(2, 0.1, 8 << 30, 1 << 20, None, None, 50 << 30, ())
    monkeypatch.setattr(watching, "survey_box", lambda path: full)
    row = deploy(ws, model, "shadow")
    found = look(ws, row).figures["sessions"]["look"]
    assert "not served, and not loaded" in found["why"]
    assert (found["asked"], found["left"]) == (0, 1) and read(ws, row) == []


def test_two_looks_at_once_are_one(town: Town) -> None:
    ws, model, _ = town
    row = deploy(ws, model, "shadow")
    with lock_watch(ws) as first, lock_watch(ws) as second:
        assert (first, second) == (True, False)
    assert [d.id for d in list_due(ws)] == [row.id]


def test_the_outcome_of_a_session_follows_its_bead(town: Town) -> None:
    ws, model, folder = town
    at = SINCE + 86_400
    write_patrol(folder, 0, at=at, before=run_bash(1, "bd close gz-77", "closed gz-77"))
    (folder / ".gtft").mkdir(exist_ok=True)
    hook = {
        "at": stamp(at), "session": "11111111-0000-4000-8000-000000000000", "role": "gizmo/witness",
        "rig": "gizmo", "actor": "gizmo/witness", "bead": "gz-77",
    }  # fmt: skip
    (ws.path / "sessions.jsonl").write_text(json.dumps(hook) + "\n")
    with stand_in(answer_right) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        look(ws, row)
        (line,) = read(ws, row)
        assert line.bead == "gz-77" and line.outcome == "unknown"
        event = {
            "id": 1, "issue_id": "gz-77", "event_type": "reopened", "actor": "mayor",
            "created_at": stamp(at + 3600),
        }  # fmt: skip
        with (folder / "beads" / "issues.jsonl").open("a") as f:
            f.write(json.dumps(event) + "\n")
        found = look(ws, row)
        (line,) = read(ws, row)
    assert line.outcome == "reopened" and line.agreed
    assert found.figures["agreement_by_outcome"]["reopened"]["n"] == 1
    assert found.figures["rejects"]["since"]["hits"] == 1


def test_an_outcome_reaches_what_was_asked_before_its_session_went_on(town: Town) -> None:
    ws, model, folder = town
    row = deploy(ws, model, "shadow")
    _, run = lineage.find_origin(ws, row)
    job = lineage.make_job(ws, run, folder / "work")
    turns: list[dict[str, Any]] = []
    for n in range(2):
        said = json.dumps({"action": "wait", "reason": f"valve {n}"})
        turns += [
            {"role": "user", "content": f"polecat {n} is idle: nudge or wait?"},
            {"role": "assistant", "content": said},
        ]
    for messages, outcome in ((turns[:2], "unknown"), (turns, "merged")):
        example = Example(
            "ex-1", "claude-code", "c", tuple(messages), (), "witness", "gizmo", "gz-1", 1.0, "town",
            Origin("t.jsonl", (1, 2), "s-1", 0), outcome=outcome,
        )  # fmt: skip
        if outcome == "unknown":
            item = derive_item(example.to_json())
            assert item is not None
            line = AnswerLine(
                at_us=1, deployment=row.id, mode="shadow", took="nobody", bead="gz-1", session="s-1",
                item=item.id, output="{}", agreed=False, outcome=outcome,
            )  # fmt: skip
            add_answer(ws.path, line)
        shadow._note_outcomes(job, [Told(example, "s-1", SINCE + 1, SINCE + 2)], row.id)
        assert [a.outcome for a in read(ws, row)] == [outcome]


def test_what_the_agent_did_better_is_kept_for_the_next_harvest(town: Town) -> None:
    ws, model, folder = town
    at = SINCE + 86_400
    rows, hooks = [], []
    for n, bead in enumerate(("gz-81", "gz-82")):
        session = write_patrol(folder, n, at=at)
        hooks.append(
            {"session": session, "role": "gizmo/witness", "actor": "gizmo/witness", "bead": bead}
        )
        end = {"status": "closed", "closed_at": stamp(at + 900), "updated_at": stamp(at + 900)}
        rows.append(
            {"id": bead, "title": f"Look {n}", "close_reason": f"looked at pump {n}", **end}
        )
    rows.append(
        {"id": 9, "issue_id": "gz-82", "event_type": "reopened", "created_at": stamp(at + 999)}
    )
    (ws.path / "sessions.jsonl").write_text("".join(json.dumps(h) + "\n" for h in hooks))
    with (folder / "beads" / "issues.jsonl").open("a") as f:
        f.write("".join(json.dumps(r) + "\n" for r in rows))
    with stand_in(answer_wrong) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        look(ws, row)
    assert {a.bead: a.outcome for a in read(ws, row)} == {"gz-81": "closed", "gz-82": "reopened"}
    kept = ws.path / "service" / "preferences" / f"{row.id}.jsonl"
    (pair,) = [json.loads(line) for line in kept.read_text().splitlines()]
    assert "stampede" in pair["rejected"] and "no-op" in pair["chosen"]


def test_a_limit_ends_the_shadow_with_a_mail_that_names_limit_figure_and_n(town: Town) -> None:
    ws, model, folder = town
    for n in range(5):
        write_patrol(folder, n)
    limits = {"min_decisions": 5, "min_agreement": 0.9}
    with stand_in(answer_wrong) as (url, _):
        row = deploy(ws, model, "shadow", url=url, limits=limits)
        found = look(ws, row)
    assert found.breach is not None and found.breach[0] == "min_agreement"
    assert found.rolled_back
    after = Deployments(ws.store).find(row.id)
    assert after is not None and (after.state, after.reason) == ("ended", "rolled-back")
    (subject,) = find_mail(ws, "GTFT_ROLLBACK:")
    assert model.name in subject and "min_agreement: 0 of 5 (0%) agree" in subject


def test_no_limit_counts_before_its_decisions(town: Town) -> None:
    ws, model, folder = town
    for n in range(4):
        write_patrol(folder, n)
    with stand_in(answer_wrong) as (url, _):
        row = deploy(
            ws, model, "shadow", url=url, limits={"min_decisions": 5, "min_agreement": 0.9}
        )
        found = look(ws, row)
    assert found.breach is None and not found.rolled_back


def test_advice_is_compared_with_what_the_agent_did_then(town: Town) -> None:
    ws, model, folder = town
    row = deploy(ws, model, "advise")
    for n, (advised, mark) in enumerate((("no-op", "1a2b3c4d"), ("nuke", "5e6f7a8b"))):
        line = AnswerLine(
            at_us=int(NOW * 1e6), deployment=row.id, mode="advise", took="nobody",
            item=f"advice-{mark}", output=json.dumps({"action": advised, "reason": "as before"}),
        )  # fmt: skip
        add_answer(ws.path, line)
        shown = f"advice-{mark} from {model.name}, agrees in 57%:\n{line.output}"
        answer = json.dumps({"action": "no-op", "reason": f"it works, look {n}"})
        write_patrol(
            folder, 4 * n, before=run_bash(n, "gtft advise --role witness", shown), answer=answer
        )
    found = look(ws, row)
    assert found.figures["sessions"]["look"]["compared"] == 2
    assert {a.item: a.agreed for a in read(ws, row)} == {
        "advice-1a2b3c4d": True,
        "advice-5e6f7a8b": False,
    }
    # Again: nothing is compared twice.
    assert look(ws, row).figures["sessions"]["look"]["compared"] == 0


def test_every_piece_of_advice_is_compared_with_what_was_done_next(town: Town) -> None:
    ws, model, folder = town
    row = deploy(ws, model, "advise")
    nudge = 'gt nudge gizmo/nux "go on"'
    told = json.dumps({"name": "Bash", "arguments": {"command": nudge}})
    turns = []
    for n, mark in enumerate(("1a2b3c4d", "5e6f7a8b")):
        line = AnswerLine(
            at_us=int(NOW * 1e6), deployment=row.id, mode="advise", took="nobody",
            item=f"advice-{mark}", output=f"<tool_call>{told}</tool_call>",
        )  # fmt: skip
        add_answer(ws.path, line)
        shown = f"{line.item} from {model.name}, agrees in 57%:\n{line.output}"
        turns += run_bash(3 * n, "gtft advise --role witness", shown)
        turns += run_bash(3 * n + 1, nudge, "nudged")
    turns += run_bash(9, "gt handoff", "handed off")
    write_patrol(folder, 0, before=turns, answer="All is quiet.")
    found = look(ws, row).figures
    assert found["sessions"]["look"]["compared"] == 2
    assert (found["agreement"]["hits"], found["agreement"]["n"]) == (2, 2)


def test_an_outcome_belongs_to_what_was_asked_and_not_to_the_whole_session(town: Town) -> None:
    ws, model, folder = town
    row = deploy(ws, model, "shadow")
    _, run = lineage.find_origin(ws, row)
    job = lineage.make_job(ws, run, folder / "work")
    decided = (("nuke", "denied", "idle"), ("merge", "merged", "green"))
    since = []
    for n, (action, outcome, reason) in enumerate(decided):
        said = json.dumps({"action": action, "reason": reason})
        messages = (
            {"role": "user", "content": f"polecat {n}: nudge, merge or nuke?"},
            {"role": "assistant", "content": said},
        )
        example = Example(
            f"ex-{n}", "claude-code", "c", messages, (), "witness", "gizmo", "gz-1", 1.0, "town",
            Origin("t.jsonl", (1, 2), "s-1", n), outcome=outcome,
        )  # fmt: skip
        since.append(Told(example, "s-1", SINCE + 1, SINCE + 2))
        item = derive_item(example.to_json())
        assert item is not None
        line = AnswerLine(
            at_us=1, deployment=row.id, mode="shadow", took="nobody", bead="gz-1", session="s-1",
            item=item.id, output=json.dumps({"action": "wait", "reason": "look"}), agreed=False,
        )  # fmt: skip
        add_answer(ws.path, line)
    shadow._note_outcomes(job, since, row.id)
    assert [a.outcome for a in read(ws, row)] == ["denied", "merged"]
    shadow._write_preferences(job, since, row.id, read(ws, row))
    kept = ws.path / "service" / "preferences" / f"{row.id}.jsonl"
    (pair,) = [json.loads(line) for line in kept.read_text().splitlines()]
    assert "merge" in pair["chosen"]


def test_a_pair_is_not_trained_on_when_its_bead_was_reopened_later(town: Town) -> None:
    ws, model, folder = town
    at = SINCE + 86_400
    hook = {
        "session": write_patrol(folder, 0, at=at), "role": "gizmo/witness", "actor": "gizmo/witness", "bead": "gz-81",
    }  # fmt: skip
    (ws.path / "sessions.jsonl").write_text(json.dumps(hook) + "\n")
    closed = {
        "id": "gz-81", "title": "Look", "status": "closed", "close_reason": "looked at pump 1",
        "closed_at": stamp(at + 900), "updated_at": stamp(at + 900),
    }  # fmt: skip
    reopened = {
        "id": 9,
        "issue_id": "gz-81",
        "event_type": "reopened",
        "created_at": stamp(at + 999),
    }
    with stand_in(answer_wrong) as (url, _):
        row = deploy(ws, model, "shadow", url=url)
        add_line(folder / "beads" / "issues.jsonl", closed)
        look(ws, row)
    assert list_shadow_pairs(ws, row, folder / "first") == ["shadow"]
    add_line(folder / "beads" / "issues.jsonl", reopened)
    assert list_shadow_pairs(ws, row, folder / "second") == []


def add_line(path: Path, doc: object) -> None:
    with path.open("a") as f:
        f.write(json.dumps(doc) + "\n")


def list_shadow_pairs(ws: Workspace, row: DeploymentRow, workdir: Path) -> list[str]:
    """Those that the next harvest of the model's own recipe takes."""
    _, run = lineage.find_origin(ws, row)
    job = lineage.make_job(ws, run, workdir)
    settings = replace(make_settings(job, watching.read_recipe(run)), heldout=0.0, min_examples=0)
    corpus = make_corpus(settings, job.root, workdir / "artifacts", workdir, (), lambda *_: None)
    rows = corpus.file("preferences.jsonl").read_text().splitlines()
    return [why for line in rows if (why := json.loads(line)["why"]) == "shadow"]
