"""Who a session was: the cascade, its refusals and explanations, and the goal on a made town."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gtft.corpus.example import Evidence, Labels
from gtft.corpus.linking.chronicle import judge_reason, read_time
from gtft.corpus.linking.link import gather
from gtft.corpus.linking.linker import Linker
from gtft.corpus.linking.town_record import RecordPaths, TownRecords, find_records, read_records
from gtft.corpus.tally import Tally
from linked_town import make_linked_town, measure

NUX = "gizmo/polecats/nux"
_KEYS = [
    "id",
    "title",
    "status",
    "labels",
    "issue_type",
    "description",
    "assignee",
    "owner",
    "closed_at",
    "closed_by_session",
    "close_reason",
    "updated_at",
    "issue_id",
    "event_type",
    "new_value",
    "created_at",
    "kind",
    "label",
    "parent_id",
    "extra",
    "bead",
    "target",
    "branch",
    "mr",
    "worker",
    "session_id",
    "role",
    "topic",
    "rig",
    "cost_usd",
    "ended_at",
    "session",
    "actor",
    "rigs",
    "beads",
    "prefix",
]
UUID = "11111111-2222-4333-8444-555555555555"


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def event(kind: str, actor: str, minute: int, **payload: Any) -> dict[str, Any]:
    return {"ts": at(minute), "source": "gt", "type": kind, "actor": actor, "payload": payload}


def at(minute: int) -> str:
    return f"2026-03-01T{minute // 60:02}:{minute % 60:02}:00Z"


def session(
    name: str = UUID,
    *texts: str,
    cwd: str | None = None,
    start: int = 60,
    end: int = 90,
    **more: Any,
) -> Evidence:
    found = gather(texts, cwd, None, name, at(start))
    return Evidence(name, candidates=found, started=at(start), ended=at(end), **more)


def read(folder: Path, **files: list[dict[str, Any] | str]) -> TownRecords:
    paths = {k: write(folder / f"{k}.jsonl", *rows) for k, rows in files.items()}
    many = {k: (p,) for k, p in paths.items() if k not in ("hook", "rigs")}
    one = {k: p for k, p in paths.items() if k in ("hook", "rigs")}
    return read_records(RecordPaths(**one, **many))


def test_a_made_town_is_linked_as_well_as_promised(tmp_path: Path) -> None:
    result = measure(make_linked_town(tmp_path, seed=1, sessions=200))
    for name, score in result.fields.items():
        assert score.precision >= 0.99, (name, result.wrong)
        assert score.recall >= 0.95, (name, result.wrong)
    assert set(result.rungs) >= {"hook", "events", "prime", "beacon", "cwd", "parent session"}
    assert sum(result.tally.tables["unlinked"].values()) > 0


def test_the_towns_records_go_before_what_the_file_says(tmp_path: Path) -> None:
    beacon = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T01:00 • patrol"
    evidence = session(UUID, beacon, cwd="/srv/gt/gizmo/witness")
    assert Linker(TownRecords(), [evidence]).decide(evidence).rung == "beacon"
    started = event("session_start", NUX, 60, session_id=UUID, role=NUX)
    hook = {"session": UUID, "actor": "mayor", "bead": "hq-1"}
    records = read(tmp_path, events=[started], hook=[hook])
    tally = Tally()
    labels = Linker(records, [evidence], tally).decide(evidence)
    assert (labels.actor, labels.rung, labels.bead) == ("mayor", "hook", "hq-1")
    assert dict(tally.tables["link conflicts"]) == {
        "hook/events": 1,
        "hook/beacon": 1,
        "hook/cwd": 1,
    }
    assert labels.confidence < 0.5


def test_voices_that_agree_are_surer_than_one(tmp_path: Path) -> None:
    prime = f"[GAS TOWN] role:{NUX} pid:1 session:{UUID}"
    alone = session(UUID, prime)
    both = session(UUID, prime, cwd=f"/srv/gt/{NUX}/gizmo")
    against = session(UUID, prime, cwd="/srv/gt/mayor")
    sure = [Linker(TownRecords()).decide(e).confidence for e in (against, alone, both)]
    assert sure == sorted(sure) and len(set(sure)) == 3


def test_one_voice_gives_way_to_two_that_agree(tmp_path: Path) -> None:
    # gt can write a start event under the session id that another agent left in the folder.
    started = event("session_start", "deacon", 60, session_id=UUID, role="deacon")
    evidence = session(
        UUID, f"[GAS TOWN] role:{NUX} pid:1 session:{UUID}", cwd=f"/srv/gt/{NUX}/gizmo"
    )
    assert Linker(read(tmp_path, events=[started])).decide(evidence).actor == NUX


def test_a_start_event_that_names_two_agents_decides_only_with_help(tmp_path: Path) -> None:
    starts = [event("session_start", a, 60, session_id=UUID, role=a) for a in ("deacon", NUX)]
    linker = Linker(read(tmp_path, events=starts))
    assert linker.decide(session(UUID, cwd=f"/srv/gt/{NUX}/gizmo")).rung == "events"
    alone = session(UUID)
    assert linker.decide(alone).role is None
    assert linker.explain(alone) == "several agents claim the session"


def test_a_process_id_names_no_transcript(tmp_path: Path) -> None:
    started = event("session_start", NUX, 60, session_id=f"{NUX}-4711", role=NUX)
    records = read(tmp_path, events=[started])
    assert records.tally.get("session starts", "by process id") == 1
    assert Linker(records).decide(session(UUID)).role is None


def test_a_fork_is_not_taken_for_its_original() -> None:
    other = UUID.replace("1", "9")
    beacon = f"[GAS TOWN] {NUX} <- mayor • 2026-02-01T09:00 • assigned:gz-1"
    prime = f"[GAS TOWN] role:{NUX} pid:5 session:{other}"
    cwd = "/srv/gt/gizmo/crew/ann"
    for texts in ((beacon,), (prime,), (beacon, prime)):
        labels = Linker(TownRecords()).decide(session(UUID, *texts, cwd=cwd))
        assert (labels.actor, labels.bead) == ("gizmo/crew/ann", None), texts


def test_a_sub_agent_is_who_started_it_whatever_comes_first() -> None:
    beacon = f"[GAS TOWN] {NUX} <- mayor • 2026-03-01T01:00 • assigned:gz-1"
    parent = session(UUID, beacon)
    child = session(f"{UUID}#a1", cwd="/srv/gt/gizmo/crew/ann", parent=UUID)
    labels = Linker(TownRecords(), [child, parent]).decide(child)
    assert (labels.actor, labels.bead, labels.rung) == (NUX, "gz-1", "parent session")
    orphan = replace(session(f"{UUID}#a1"), parent="gone")
    assert Linker(TownRecords(), [orphan]).explain(orphan) == "parent session not linked"


def test_sessions_that_name_each_other_as_parent_end() -> None:
    a, b = (replace(session(x), parent=y) for x, y in (("a", "b"), ("b", "a")))
    assert Linker(TownRecords(), [a, b]).decide(a).role is None


def test_a_folder_of_a_rig_that_the_town_does_not_have_is_refused(tmp_path: Path) -> None:
    rigs = tmp_path / "rigs.json"
    rigs.write_text(json.dumps({"rigs": {"gizmo": {"beads": {"prefix": "gz"}}}}, indent=1))
    linker = Linker(read_records(RecordPaths(rigs=rigs)))
    outside = session(UUID, "hi", cwd="/home/ann/film/crew/list")
    assert linker.decide(outside).role is None
    assert linker.explain(outside) == "rig that the town does not have"
    assert linker.decide(session(UUID, "hi", cwd="/srv/gt/gizmo/crew/list")).role == "crew"
    by_branch = session(UUID, branch="polecat/nux/gz-1a@mk1")
    assert (labels := linker.decide(by_branch)).rung == "branch"
    assert (labels.actor, labels.bead) == (NUX, "gz-1a")


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (session(UUID, "hi", cwd="/home/ann/site"), "outside the town"),
        (session(UUID), "no prompt and no cwd"),
        (session(UUID, "hi"), "no cwd, and the prompt names no agent"),
        (session(UUID, "[GAS TOWN] nobody <- x • y • z"), "address not understood"),
        (Evidence(), "nothing names an agent"),
    ],
)
def test_why_a_session_is_not_linked(evidence: Evidence, reason: str) -> None:
    tally = Tally()
    linker = Linker(TownRecords(), [evidence], tally)
    assert linker.decide(evidence) == Labels()
    assert dict(tally.tables["unlinked"]) == {reason: 1}


def test_a_cost_row_decides_only_where_nobody_else_accounts_for_it(tmp_path: Path) -> None:
    def cost(worker: str, minute: int) -> dict[str, Any]:
        return {"session_id": f"gz-{worker}", "role": "polecat", "rig": "gizmo", "worker": worker,
                "cost_usd": 1.0, "ended_at": at(minute)}  # fmt: skip

    silent = session("quiet", start=60, end=90)
    records = read(tmp_path / "a", costs=[cost("nux", 90), cost("toast", 300)])
    assert Linker(records, [silent]).decide(silent).actor == NUX
    known = session(UUID, cwd=f"/srv/gt/{NUX}/gizmo", start=80, end=100)
    assert Linker(records, [silent, known]).decide(silent).role is None
    two = read(tmp_path / "b", costs=[cost("nux", 90), cost("toast", 90)])
    assert Linker(two, [silent]).decide(silent).role is None
    # A person's own session says where it was: no row of the town is put to it.
    person = session("mine", "hi", cwd="/home/ann/site", start=60, end=90)
    assert Linker(records, [person]).decide(person).role is None


def bead(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "title": name, "status": "open", "updated_at": at(0), **more}


def test_closed_beads_tell_whose_session_it_was(tmp_path: Path) -> None:
    rows = [bead("gz-1", status="closed", closed_by_session=UUID, assignee=NUX, closed_at=at(90))]
    labels = Linker(read(tmp_path, beads=rows)).decide(session(UUID))
    assert (labels.actor, labels.bead, labels.rung) == (NUX, "gz-1", "bead")


def test_the_close_hook_tells_whose_session_closed_a_bead(tmp_path: Path) -> None:
    write(tmp_path / ".gtft" / "queue" / "gz-1.json", {"bead": "gz-1", "session": UUID})
    write(tmp_path / ".gtft" / "queue" / "gz-9.json", {"bead": "gz-9", "session": UUID}, "torn")
    write(tmp_path / ".beads" / "issues.jsonl", bead("gz-1", assignee=NUX))
    records = read_records(find_records(tmp_path, tmp_path))
    assert Linker(records).decide(session(UUID)).bead == "gz-1"


def test_the_bead_on_the_hook_while_the_session_ran(tmp_path: Path) -> None:
    events = [
        event("sling", "mayor", 59, bead="gz-1", target=NUX),
        event("done", NUX, 91, bead="gz-1"),
        event("sling", "mayor", 120, bead="gz-2", target=NUX),
        event("unhook", NUX, 130, bead="gz-2"),
        event("sling", "mayor", 131, bead="gz-2", target="gizmo/polecats/toast"),
    ]
    records = read(tmp_path, events=events)
    cwd = f"/srv/gt/{NUX}/gizmo"
    first, second, third = (
        session(str(n), "hi", cwd=cwd, start=s, end=e)
        for n, (s, e) in enumerate([(60, 90), (121, 129), (140, 150)])
    )
    linker = Linker(records, [first, second, third])
    assert [linker.decide(e).bead for e in (first, second, third)] == ["gz-1", "gz-2", None]
    # Two sessions of one agent at one time: which of them it was is not known.
    beside = replace(first, session="beside")
    assert Linker(records, [first, beside]).decide(first).bead is None
    assert [v.name for v in records.verdicts["gz-2"]] == ["taken away"]
    branch = replace(first, session="0#rewound-1")
    linker = Linker(records, [first, branch])
    assert linker.decide(branch).bead == linker.decide(first).bead == "gz-1"


def test_a_bead_that_was_done_before_is_not_what_a_session_is_about(tmp_path: Path) -> None:
    events = [
        event("sling", "mayor", 1, bead="gz-1", target=NUX),
        event("done", NUX, 30, bead="gz-1"),
    ]
    beacon = f"[GAS TOWN] {NUX} <- mayor • 2026-03-01T01:00 • assigned:gz-1"
    linker = Linker(read(tmp_path, events=events))
    assert linker.decide(session(UUID, beacon, start=10, end=20)).bead == "gz-1"
    assert linker.decide(session(UUID, beacon, start=60, end=90)).bead is None


def test_who_only_looks_at_a_bead_does_not_work_on_it(tmp_path: Path) -> None:
    records = read(
        tmp_path, beads=[bead("gz-1", assignee=NUX), bead("gz-2", assignee="gizmo/crew/ann")]
    )
    looks = Labels(bead="gz-1", rung="commands", confidence=0.7)
    for cwd, expected in (("/srv/gt/gizmo/crew/ann", None), (f"/srv/gt/{NUX}/gizmo", "gz-1")):
        found = session(UUID, "hi", cwd=cwd)
        found = replace(found, candidates=(*found.candidates, looks))
        assert Linker(records).decide(found).bead == expected


def test_records_of_any_shape_are_read_or_named(tmp_path: Path) -> None:
    town = tmp_path / "town"
    write(
        town / ".events.jsonl",
        event("sling", "mayor", 1, bead="gz-1", target=NUX),
        event("teleported", NUX, 2),
        {"ts": 5, "type": None},
        "not json",
        event("session_start", NUX, 3, session_id=None, role=7),
    )
    write(
        town / "gizmo" / ".beads" / "issues.jsonl", bead("gz-1", labels="x", closed_at=4), {"a": 1}
    )
    write(
        tmp_path / ".gt" / "costs.jsonl",
        {"session_id": "x", "role": "unknown", "cost_usd": 1, "ended_at": ""},
    )
    records = read_records(find_records(town, tmp_path))
    assert set(records.beads) == {"gz-1"}
    assert records.tally.get("drift", "event teleported") == 1
    assert records.tally.get("bad", "row that is no event") == 1
    assert records.tally.get("bad", "bad line") == 1
    assert records.tally.get("costs", "no agent named") == 1
    assert read_records(find_records(tmp_path / "nowhere", tmp_path / "nobody")) is not None


_leaf = st.none() | st.integers() | st.text(max_size=4) | st.sampled_from([NUX, "gz-1", at(5)])
_wild = (
    _leaf | st.lists(_leaf, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), _leaf, max_size=3)
)
_rows = st.dictionaries(st.sampled_from(_KEYS), _wild, max_size=8)
_events = st.fixed_dictionaries(
    {
        "ts": st.sampled_from([at(5), at(9), ""]),
        "source": st.just("gt"),
        "type": st.sampled_from(
            ["sling", "done", "merged", "session_start", "escalation_sent", "x"]
        ),
        "payload": _rows,
        "actor": _wild,
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_rows | _events, max_size=6), st.lists(_rows, max_size=6))
def test_wild_records_are_counted_and_never_an_error(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], beads: list[Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "wild"
    rows = [{**b, "id": "gz-1", "title": "t"} for b in beads[:2]] + beads
    records = read(folder, events=events, costs=rows, beads=rows, hook=rows, rigs=rows[:1])
    evidence = session(UUID, "hi")
    Linker(records, [evidence]).decide(evidence)


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("burned: force re-sling", "burned"),
        ("Merged to main (commit 0cb7936f)", "merged"),
        ("Fix merged to main as 852bfe65", "merged"),
        ("rejected: not what was asked", "rejected"),
        ("Fixed: root cause was a race", "closed"),
        ("", "closed"),
        ("Stale backlog", None),
        ("Squashed from 7 wisps", None),
        ("Duplicate of bd-7z5", None),
    ],
)
def test_what_a_close_reason_says_of_the_work(reason: str, verdict: str | None) -> None:
    assert judge_reason(reason) == verdict


@pytest.mark.parametrize("text", ["", "yesterday", "0001-01-01T00:00:00Z", None, 5, "2026-13-01"])
def test_what_is_no_time(text: object) -> None:
    assert read_time(text) != read_time(text)


def test_times_with_zones_and_nine_digits() -> None:
    assert read_time("2026-03-01T02:00:00.123456789+02:00") == pytest.approx(1772323200.123456)
