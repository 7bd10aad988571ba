"""How a session ended, whose work it is, and what of it is noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gtft.corpus.example import Call, Entry, Evidence, Labels, Mark
from gtft.corpus.linking.noise import is_own, name_notice, noise_of, sift
from gtft.corpus.linking.outcome import WEIGHTS, contributor_of, judge
from gtft.corpus.linking.town_record import RecordPaths, TownRecords, read_records
from gtft.corpus.tally import Tally

NUX, TOAST = "gizmo/polecats/nux", "gizmo/polecats/toast"


def at(minute: int) -> str:
    return f"2026-03-01T{minute // 60:02}:{minute % 60:02}:00Z"


def event(kind: str, actor: str, minute: int, **payload: Any) -> dict[str, Any]:
    return {"ts": at(minute), "source": "gt", "type": kind, "actor": actor, "payload": payload}


def sling(minute: int, target: str) -> dict[str, Any]:
    return event("sling", "mayor", minute, bead="gz-1", target=target)


def merge(kind: str, minute: int, **payload: Any) -> dict[str, Any]:
    return event(kind, "gizmo/refinery", minute, rig="gizmo", **payload)


def bead(**more: Any) -> dict[str, Any]:
    return {"id": "gz-1", "title": "t", "status": "open", "updated_at": at(0), **more}


def closed(minute: int, reason: str = "Done", **more: Any) -> dict[str, Any]:
    return bead(status="closed", closed_at=at(minute), close_reason=reason, **more)


def read(folder: Path, *rows: dict[str, Any], commits: str = "") -> TownRecords:
    folder.mkdir(exist_ok=True)
    events, beads, log = folder / "e.jsonl", folder / "b.jsonl", folder / "log"
    events.write_text("".join(json.dumps(r) + "\n" for r in rows if "ts" in r))
    beads.write_text("".join(json.dumps(r) + "\n" for r in rows if "ts" not in r))
    log.write_text(commits)
    return read_records(RecordPaths(events=(events,), beads=(beads,), commits=(log,)))


def ended(
    records: TownRecords, *marks: Mark, start: int = 60, end: int = 90, who: str = NUX
) -> str:
    labels = Labels("polecat", "gizmo", who, "gz-1")
    evidence = Evidence("s", started=at(start), ended=at(end))
    found = judge(labels, evidence, marks, records)
    assert found.weight == WEIGHTS[found.name]
    return found.name


def test_what_became_of_the_bead_is_the_outcome(tmp_path: Path) -> None:
    change = {"issue_id": "gz-1", "event_type": "reopened", "created_at": at(200)}
    merged, failed = merge("merged", 120, worker="nux"), merge("merge_failed", 110, worker="nux")
    by_branch = merge("merged", 120, branch="polecat/nux/gz-1@mk1")
    request = {
        "id": "gz-mr", "title": "Merge", "status": "closed", "updated_at": at(0), "closed_at": at(130),
        "labels": ["gt:merge-request"], "description": "branch: x\nsource_issue: gz-1\nclose_reason: merged\n",
    }  # fmt: skip
    escalation = {
        "id": "hq-e", "title": "Help", "status": "open", "updated_at": at(0), "created_at": at(80),
        "labels": ["gt:escalation"], "description": "Help\n\nrelated_bead: gz-1",
    }  # fmt: skip
    cases: list[tuple[str, list[dict[str, Any]]]] = [
        ("unknown", []),
        ("closed", [closed(100)]),
        ("unknown", [closed(100, "Stale backlog")]),
        ("unknown", [closed(30)]),
        ("burned", [closed(100, "burned: polecat nuked")]),
        ("rejected", [closed(100, "rejected: wrong idea")]),
        ("merged", [closed(100, "Merged to main (0cb7936f)")]),
        ("merged", [sling(59, NUX), merged, closed(140)]),
        ("merged", [by_branch]),
        ("merged", [request]),
        (
            "rejected",
            [{**request, "description": request["description"].replace("merged", "rejected")}],
        ),
        ("merge_failed", [sling(59, NUX), failed]),
        ("merged", [sling(59, NUX), failed, merged]),
        ("reopened", [closed(100), change]),
        ("escalated", [escalation]),
        ("closed", [escalation, closed(100)]),
        ("burned", [sling(59, NUX), event("unhook", NUX, 89, bead="gz-1"), sling(95, TOAST)]),
    ]
    for n, (expected, rows) in enumerate(cases):
        assert ended(read(tmp_path / str(n), *rows)) == expected, rows


def test_two_attempts_at_one_bead_end_each_in_its_own_way(tmp_path: Path) -> None:
    records = read(
        tmp_path,
        sling(59, NUX),
        event("unhook", NUX, 89, bead="gz-1"),
        sling(95, TOAST),
        event("done", TOAST, 140, bead="gz-1"),
        merge("merged", 150, branch="polecat/toast/gz-1@mk2"),
        closed(151, assignee=TOAST),
    )
    assert ended(records) == "burned"
    assert ended(records, start=96, end=139, who=TOAST) == "merged"


def test_a_persons_audit_is_the_last_word(tmp_path: Path) -> None:
    def audit(name: str, minute: int, **more: Any) -> dict[str, Any]:
        return {
            "id": f"int-{minute}",
            "kind": "label",
            "created_at": at(minute),
            "label": name,
            **more,
        }

    call = {"id": "int-1", "kind": "llm_call", "issue_id": "gz-1"}
    good, bad = audit("good", 50, parent_id="int-1"), audit("bad", 60, issue_id="gz-1")
    assert ended(read(tmp_path / "a", call, good, closed(100, "burned: x"))) == "audit good"
    assert ended(read(tmp_path / "b", call, bad, good)) == "audit bad"
    assert WEIGHTS["audit bad"] == 0
    assert ended(read(tmp_path / "c", closed(100, labels=["audit:bad"]))) == "audit bad"
    assert (
        ended(read(tmp_path / "d", closed(100), audit("whatever", 9, issue_id="gz-1"))) == "closed"
    )


def test_marks_of_the_turns_make_lighter_never_heavier(tmp_path: Path) -> None:
    merged = read(tmp_path / "a", closed(100, "merged"))
    assert ended(merged, "denied", "interrupted") == "denied"
    assert ended(merged, "interrupted") == "interrupted"
    burned = read(tmp_path / "b", closed(100, "burned: x"))
    assert ended(burned, "interrupted") == "burned"
    alone = judge(Labels(), Evidence(), ("denied",), TownRecords())
    assert (alone.name, alone.weight) == ("denied", WEIGHTS["denied"])
    assert judge(Labels(), Evidence(), (), TownRecords()).name == "unknown"


def test_whose_work_it_is(tmp_path: Path) -> None:
    def commit(email: str, name: str, minute: int, body: str) -> str:
        return f"\x1e{email}\x1f{name}\x1f{at(minute)}\x1f{body}\n"

    labels = Labels("polecat", "gizmo", NUX, "gz-1")
    evidence = Evidence("s", started=at(60), ended=at(90))
    owned = read(tmp_path / "a", bead(owner="ann@example.org"))
    assert contributor_of(labels, evidence, owned) == "ann@example.org"
    by_bead = read(tmp_path / "b", bead(), commits=commit("bo@example.org", "Bo", 1, "Fix (gz-1)"))
    assert contributor_of(labels, evidence, by_bead) == "bo@example.org"
    trailer = commit("bo@example.org", "Bo", 70, f"Fix\n\nExecuted-By: {NUX}")
    named = commit("bo@example.org", NUX, 80, "more")
    assert (
        contributor_of(labels, evidence, read(tmp_path / "c", commits=trailer + named))
        == "bo@example.org"
    )
    other = commit("cy@example.org", NUX, 75, "x")
    for log in ("", trailer + other, commit("bo@example.org", NUX, 200, "later"), "torn\x1e\x1f"):
        assert contributor_of(labels, evidence, read(tmp_path / "d", commits=log)) == ""


def user(text: str) -> Entry:
    return Entry("user", 1, text)


def answer(text: str = "", *commands: str, mark: Mark = "", name: str = "") -> Entry:
    calls = tuple(Call(f"{name}{n}", "Bash", {"command": c}) for n, c in enumerate(commands))
    return Entry("assistant", 2, text, name or text or str(commands), calls, mark=mark)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "📬 You have new mail from mayor. Subject: x. Run 'gt mail inbox' to read.",
            "mail notice",
        ),
        ("HEALTH_CHECK: heartbeat stale, respond to confirm responsiveness", "heartbeat"),
        ("[from gizmo/witness] still working?", "nudge"),
        ("Are you stuck?", "nudge"),
        ("POLECAT_DONE nux exit=COMPLETED", "lifecycle notice"),
        ("[from mayor] Please rebase the branch and run the tests again", ""),
        (
            "continue with the second half: move the parser into its own file and add tests for each case",
            "",
        ),
        ("Fix the heartbeat", ""),
        ("nudge" + " x" * 400, ""),
        ("", ""),
    ],
)
def test_what_a_notice_is(text: str, kind: str) -> None:
    assert name_notice(text) == kind


def test_a_notice_that_is_answered_with_nothing_goes_and_one_that_sets_work_going_stays() -> None:
    entries = [
        user("Add a flag"),
        answer("Done.", "sed -i s/a/b/ x"),
        user("[from witness] still working?"),
        answer("Yes, still working."),
        user("HEALTH_CHECK: respond"),
        answer("I push first.", "git push"),
        user("continue"),
        answer("Next.", "make test"),
    ]
    tally = Tally()
    kept = sift(entries, tally)
    assert [e.text for e in kept if e.kind == "user"] == [
        "Add a flag",
        "HEALTH_CHECK: respond",
        "continue",
    ]
    assert [e.by for e in kept if e.kind == "user"] == ["", "harness", ""]
    assert dict(tally.tables["turns dropped"]) == {"noise: nudge": 2}
    assert sift(entries[:2], tally) == tuple(entries[:2])


def test_an_answer_that_was_taken_back_goes_with_its_results() -> None:
    back = answer("no", "rm x", mark="rewound", name="r1")
    entries = [
        user("go"),
        back,
        Entry("result", 3, "ok", call_id="r10"),
        answer("yes", "ls", name="r2"),
    ]
    tally = Tally()
    assert [e.text for e in sift(entries, tally)] == ["go", "yes"]
    assert dict(tally.tables["turns dropped"]) == {"taken back": 2}
    # A branch that was taken back as a whole is judged by its outcome.
    assert len(sift([user("go"), back], tally)) == 2


def test_a_session_of_nothing_but_notices_is_noise() -> None:
    beacon = user("[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T01:00 • patrol")
    patrol = answer("All quiet.", "gt patrol scan && bd ready --json", "sleep 60")
    assert noise_of([beacon, patrol]) == "patrol that found nothing"
    assert noise_of([beacon, patrol, user("still working?"), answer("Yes.")]) != ""
    assert noise_of([user("still working?"), answer("Yes.")]) == "only nudge"
    assert (
        noise_of([user("ping"), answer("Pong."), user("HEALTH_CHECK"), answer("Fine.")])
        == "only notices"
    )
    assert noise_of([user("ping")]) == "no answer"
    for work in (
        "gt nudge gizmo/nux 'wake up'",
        "bd close gz-1",
        "bd show x > y",
        "echo $(rm x)",
        "git branch -D x",
    ):
        assert noise_of([beacon, answer("", work)]) == "", work
    assert noise_of([beacon, answer("x" * 500)]) == ""
    assert noise_of([user("Why is it slow?"), answer("Look.", "ls")]) == ""
    assert noise_of([answer("Done.", "ls")]) == ""


def test_our_own_model_is_known_by_its_name() -> None:
    ours = {"gizmo-witness": 2, "hub/town-7b": 1}
    assert is_own("gizmo-witness", ours) == 2
    assert is_own("ollama/Gizmo-Witness:latest", ours) == 2
    assert is_own("town-7b", ours) == 1
    assert is_own("gizmo-witness-base", ours) is None
    assert is_own("", {"": 3}) is None
