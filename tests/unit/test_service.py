"""The files between runner and server: answers are whole lines, whoever is killed while writing one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gtft.errors import InputError
from gtft.service import (
    MOST_LINE,
    AnswerLine,
    Route,
    Routes,
    add_answer,
    find_answers,
    read_answers,
    read_routes,
    settle_answers,
    stays_with_previous,
    write_routes,
)


def make_line(n: int = 0, **more: object) -> AnswerLine:
    return AnswerLine.model_validate(
        {
            "at_us": n,
            "deployment": "dep-1",
            "mode": "live",
            "took": "model",
            "output": f"answer {n}",
            **more,
        }
    )


@pytest.mark.parametrize("torn", [b'{"at_us": 7, "depl', b"{", b'{"a": "' + b"x" * 200_000])
def test_a_torn_line_does_not_spoil_what_is_appended_after_it(tmp_path: Path, torn: bytes) -> None:
    add_answer(tmp_path, make_line(1))
    with find_answers(tmp_path, "dep-1").open("ab") as f:
        f.write(torn)
    assert [a.at_us for a in read_answers(tmp_path, "dep-1")] == [1]
    add_answer(tmp_path, make_line(2))
    add_answer(tmp_path, make_line(3))
    assert [a.at_us for a in read_answers(tmp_path, "dep-1")] == [1, 2, 3]


def test_a_file_that_begins_torn_is_begun_anew(tmp_path: Path) -> None:
    path = find_answers(tmp_path, "dep-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"at_us"')
    add_answer(tmp_path, make_line(4))
    assert [a.at_us for a in read_answers(tmp_path, "dep-1")] == [4]


def test_a_whole_line_that_is_no_answer_is_told(tmp_path: Path) -> None:
    add_answer(tmp_path, make_line(1))
    with find_answers(tmp_path, "dep-1").open("ab") as f:
        f.write(b'{"at_us": 2}\n')
    with pytest.raises(InputError, match="jsonl:2 is not an answer"):
        list(read_answers(tmp_path, "dep-1"))


def test_an_output_too_long_for_a_line_is_cut(tmp_path: Path) -> None:
    add_answer(tmp_path, make_line(1, output="ä" * MOST_LINE))
    (line,) = read_answers(tmp_path, "dep-1")
    assert 0 < len(line.output) < MOST_LINE
    assert find_answers(tmp_path, "dep-1").stat().st_size <= MOST_LINE


def test_only_the_owner_reads_answers(tmp_path: Path) -> None:
    add_answer(tmp_path, make_line(1))
    assert find_answers(tmp_path, "dep-1").stat().st_mode & 0o077 == 0


WRITER = """
import sys
from pathlib import Path
from gtft.service import AnswerLine, add_answer
who, most = sys.argv[2], int(sys.argv[3])
n = 0
while n < most:
    add_answer(Path(sys.argv[1]), AnswerLine(at_us=n, deployment="dep-1", mode="live", took="model", item=who,
               session=str(n), output=who * (1 + 997 * (n % 50))))
    n += 1
"""


def start_writer(folder: Path, who: str, most: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), who, str(most)])


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b'"item":"z"') if path.exists() else 0


def test_writers_at_once_lose_and_mix_nothing_and_a_killed_one_leaves_whole_lines(
    tmp_path: Path,
) -> None:
    steady = [start_writer(tmp_path, who, 150) for who in "ab"]
    path = find_answers(tmp_path, "dep-1")
    for _ in range(4):
        doomed = start_writer(tmp_path, "z", 1_000_000)
        before, end = count_lines(path), time.monotonic() + 60
        while count_lines(path) < before + 30 and time.monotonic() < end:
            time.sleep(0.01)
        doomed.kill()
        doomed.wait()
    assert [w.wait(120) for w in steady] == [0, 0]
    found = list(read_answers(tmp_path, "dep-1"))
    for who in "ab":
        mine = [a for a in found if a.item == who]
        assert [a.at_us for a in mine] == list(range(150))
    assert any(a.item == "z" for a in found)
    assert all(set(a.output) == {a.item} for a in found)


def test_the_newest_word_about_a_question_counts(tmp_path: Path) -> None:
    one = make_line(1, session="s", item="i", outcome="unknown")
    lines = [one, make_line(2), one.model_copy(update={"outcome": "merged"}), make_line(3)]
    assert [(a.at_us, a.outcome) for a in settle_answers(lines)] == [
        (1, "merged"),
        (2, ""),
        (3, ""),
    ]


def test_a_share_of_beads_stays_with_the_previous_agent() -> None:
    beads = [f"gz-{n}" for n in range(4000)]
    kept = [b for b in beads if stays_with_previous(b, 0.25)]
    assert 0.22 < len(kept) / len(beads) < 0.28
    # The same bead, the same agent; a larger share keeps who was kept.
    assert all(stays_with_previous(b, 0.4) for b in kept)
    assert not any(stays_with_previous(b, 0.0) for b in beads)
    assert all(stays_with_previous(b, 1.0) for b in beads)
    assert not stays_with_previous("", 1.0)


def test_a_rig_has_its_own_route_or_the_towns(tmp_path: Path) -> None:
    town = Route(
        role="witness",
        deployment="d1",
        model="m1",
        adapter="a",
        mode="live",
        seconds=1,
        max_new_tokens=8,
    )
    rig = town.model_copy(update={"rig": "gizmo", "deployment": "d2"})
    write_routes(tmp_path, Routes(routes=(town, rig)))
    routes = read_routes(tmp_path)
    found = [routes.find(*who) for who in (("witness", "gizmo"), ("witness", "x"), ("mayor", ""))]
    assert [r and r.deployment for r in found] == ["d2", "d1", None]
    assert json.loads((tmp_path / "service" / "routes.json").read_bytes())["routes"]
    assert [p.name for p in (tmp_path / "service").iterdir()] == ["routes.json"]
