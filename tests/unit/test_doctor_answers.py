"""Recorded answers: lines that cannot be read are told, moved aside, and nothing that is appended meanwhile is lost."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path

import pytest

from gtft.errors import InputError
from gtft.runner import watching
from gtft.runner.doctor import examine
from gtft.runner.doctor_answers import check_answers, mend_answers
from gtft.runner.workspace import Workspace
from gtft.service import (
    FOLDER,
    AnswerLine,
    add_answer,
    drop_lines,
    find_answers,
    is_answer,
    read_answers,
)


def make_line(n: int) -> AnswerLine:
    return AnswerLine(
        at_us=n, deployment="dep-1", mode="live", took="model", session=f"s-{n}", bead=f"gz-{n}"
    )


def spoil(ws: Workspace) -> Path:
    """Two answers, and between them a line that is none."""
    add_answer(ws.path, make_line(1))
    path = find_answers(ws.path, "dep-1")
    with path.open("ab") as f:
        f.write(b"\x00\x00 no answer\n")
    add_answer(ws.path, make_line(2))
    return path


def test_the_fix_that_the_error_names_works(ws: Workspace) -> None:
    path = spoil(ws)
    with pytest.raises(InputError, match="jsonl:2 is not an answer") as caught:
        list(read_answers(ws.path, "dep-1"))
    assert caught.value.fix == "gtft doctor --fix"
    (found,) = check_answers(ws)
    assert found.level == "wrong" and "1 lines are no answers, the first is line 2" in found.text
    told = [f for f in examine(ws.path, ws.path, ws.environ, fix=True) if f.about == "answers"]
    assert [f.level for f in told] == ["ok"] and "dep-1.jsonl.damaged" in told[0].text
    assert [a.at_us for a in read_answers(ws.path, "dep-1")] == [1, 2]
    assert path.with_name("dep-1.jsonl.damaged").read_bytes() == b"\x00\x00 no answer\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(check_answers(ws)) and not list(mend_answers(ws))


def test_a_last_line_that_a_crash_cut_off_is_named_and_keeps_nobody(ws: Workspace) -> None:
    add_answer(ws.path, make_line(1))
    with find_answers(ws.path, "dep-1").open("ab") as f:
        f.write(b'{"at_us": 7, "depl')
    (found,) = check_answers(ws)
    assert found.level == "note" and "cut off 1 line" in found.text
    assert [a.at_us for a in read_answers(ws.path, "dep-1")] == [1]


def test_what_is_appended_while_lines_are_taken_out_stays(tmp_path: Path) -> None:
    for n in range(4):
        add_answer(tmp_path, make_line(n))
    late = threading.Thread(target=add_answer, args=(tmp_path, make_line(9)))

    def keep(data: bytes) -> bool:
        if late.ident is None:
            late.start()
        return b'"gz-2"' not in data

    (gone,) = drop_lines(find_answers(tmp_path, "dep-1"), keep)
    late.join()
    assert is_answer(gone)
    assert [a.at_us for a in read_answers(tmp_path, "dep-1")] == [0, 1, 3, 9]


def test_many_answers_are_held_in_little_memory(tmp_path: Path) -> None:
    path = find_answers(tmp_path, "dep-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(make_line(n).model_dump_json().encode() + b"\n" for n in range(4000)))
    tracemalloc.start()
    held = list(read_answers(tmp_path, "dep-1"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held[7] == make_line(7) and size / len(held) < 1500
    # What one of them is changed to is no other's.
    assert held[0].model_copy(update={"outcome": "merged"}).outcome == "merged"
    assert not held[1].outcome


def test_the_log_of_looks_is_kept_small(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "start_alone", lambda *_: 1)
    log = ws.path / FOLDER / watching.LOG
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * watching.MOST_LOG)
    watching.start_watch(ws)
    assert log.exists()
    log.write_bytes(b"x" * (watching.MOST_LOG + 1))
    watching.start_watch(ws)
    assert not log.exists() and log.with_name("watch.log.1").stat().st_size > watching.MOST_LOG
