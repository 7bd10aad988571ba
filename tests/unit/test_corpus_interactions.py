"""What bd audit recorded of model calls: an answer, who judged it, and rows that are something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gtft.corpus.sources.interactions import read
from gtft.corpus.tally import MOST_KEYS, NAMED_PER_REASON
from source_case import harvest, said


def call(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"int-{number}",
        "kind": "llm_call",
        "created_at": f"2026-01-0{number}T00:00:00Z",
        "actor": "gizmo/polecats/nux",
        "issue_id": "gz-1",
        "model": "m-1",
        "prompt": f"What is {number}?",
        "response": f"It is {number}.",
        **more,
    }


def label(parent: int, value: str, day: int) -> dict[str, Any]:
    when = f"2026-02-{day:02d}T00:00:00Z"
    row = {"id": f"int-9{day}", "kind": "label", "created_at": when}
    return {**row, "parent_id": f"int-{parent}", "label": value}


def test_a_call_is_a_talk_and_the_last_judgement_counts(tmp_path: Path) -> None:
    talks, tally = harvest(
        read,
        tmp_path,
        a=[
            label(1, "bad", 2),
            call(1),
            call(2),
            label(2, "bad", 3),
            label(2, "good", 4),
            call(3, error="overloaded"),
            call(4, response=""),
            call(5, prompt=7),
            {"id": "int-6", "kind": "tool_call", "tool_name": "bash"},
            {"id": "int-7", "kind": "field_change", "extra": {}},
        ],
    )
    assert [said(t) for t in talks] == [
        [("user", "What is 1?"), ("assistant", "It is 1.")],
        [("user", "What is 2?"), ("assistant", "It is 2.")],
    ]
    assert [t.entries[1].mark for t in talks] == ["denied", ""]
    assert talks[0].entries[1].model == "m-1"
    assert talks[0].links == ("interaction:int-1", "bead:gz-1")
    (who,) = talks[0].evidence.candidates
    assert (who.role, who.rig, who.bead, who.rung) == ("polecat", "gizmo", "gz-1", "interaction")
    assert dict(tally.tables["dropped"]) == {
        "label": 3,
        "failed call": 1,
        "no prompt or no response": 2,
        "tool_call": 1,
        "field_change": 1,
    }
    assert dict(tally.tables["labels"]) == {"bad": 2, "good": 1}


def test_rows_that_are_something_else_are_counted_and_copies_kept_once(tmp_path: Path) -> None:
    bead = {"id": "gz-1", "title": "t", "status": "open"}
    talks, tally = harvest(read, tmp_path, a=[bead, call(1)], b=[call(1), {"id": 7, "kind": "x"}])
    assert [t.file for t in talks] == ["a.jsonl"]
    assert dict(tally.tables["drift"]) == {
        "row no type {id, status, title}": 1,
        "row x {id, kind}": 1,
    }
    assert dict(tally.tables["dropped"]) == {"no interaction": 2, "copy of another call": 1}


def test_a_file_that_names_thousands_of_types_does_not_fill_the_report(tmp_path: Path) -> None:
    rows = [{"id": "x", "kind": f"k{n}", f"key{n}": 1} for n in range(3000)]
    odd = [{"id": "x", "kind": "a secret of its own!" * 9, "\n": 1}]
    _, tally = harvest(read, tmp_path, a=[*odd, *rows])
    assert max(len(t) for t in tally.tables.values()) == MOST_KEYS + 1
    assert tally.get("records", "others") > 1000
    assert next(iter(tally.tables["drift"])) == "row odd {id, kind, odd}"
    assert len(tally.named) == NAMED_PER_REASON


def test_what_is_no_time_is_not_taken_for_one(tmp_path: Path) -> None:
    talks, _ = harvest(read, tmp_path, a=[call(1, created_at="Ada of the mill"), call(2)])
    assert [t.evidence.started for t in talks] == ["", "2026-01-02T00:00:00Z"]
