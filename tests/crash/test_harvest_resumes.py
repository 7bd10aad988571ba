"""A harvest that is killed leaves no corpus, and the next one goes on from what was read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {unit!r})
from dataclasses import replace
from gtft.corpus import harvest as room
from gtft.corpus.intake import Source
from gtft.corpus.snapshot import make_corpus
from test_corpus_snapshot import SETTINGS
room._WORTH_A_PROCESS = 0
if __name__ == "__main__":
    settings = replace(SETTINGS, workers=2, sources=(Source("claude-code", "transcripts"),))
    out = Path(sys.argv[2])
    def report(done, total, unit, note):
        print(note, done, flush=True)
    made = make_corpus(settings, Path(sys.argv[1]), out / "artifacts", out / "work", [], report,
                       cache=out / "cache")
    print("made", made.id, flush=True)
"""
UNIT = Path(__file__).resolve().parents[1] / "unit"


def start(script: Path, town: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(town), str(out)], stdout=subprocess.PIPE, text=True
    )


def finish(script: Path, town: Path, out: Path) -> tuple[str, list[str]]:
    """The corpus's id, and what was told on the way."""
    told, _ = start(script, town, out).communicate(timeout=180)
    lines = told.splitlines()
    assert lines[-1].startswith("made ")
    return lines[-1].removeprefix("made "), lines


def read_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(line):
            return
    raise AssertionError("it ended before that")


@pytest.fixture
def town(tmp_path: Path) -> Path:
    sys.path.insert(0, str(UNIT))
    from test_corpus_snapshot import make_town

    return make_town(tmp_path / "town", sessions=30)


@pytest.mark.parametrize(
    "moment", ["reading claude-code transcripts 3", "second scan", "near copies", "writing"]
)
def test_a_kill_at_any_moment_costs_only_what_was_not_kept(
    tmp_path: Path, town: Path, moment: str
) -> None:
    script = tmp_path / "harvest.py"
    script.write_text(SCRIPT.format(unit=str(UNIT)))
    undisturbed, told = finish(script, town, tmp_path / "other")
    assert sum(line.startswith("reading") for line in told) == 30

    out = tmp_path / "ws"
    process = start(script, town, out)
    read_until(process, lambda line: line.startswith(moment))
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    shelf = out / "artifacts"
    assert not [
        p for p in (shelf.iterdir() if shelf.exists() else ()) if p.name.startswith("corpus-")
    ]

    again, told = finish(script, town, out)
    assert again == undisturbed
    assert sum(line.startswith("reading") for line in told) <= 30 - 3
    assert not list((out / "cache").glob("*.aside"))


def test_a_file_that_grew_is_the_only_one_that_is_read_again(tmp_path: Path, town: Path) -> None:
    script = tmp_path / "harvest.py"
    script.write_text(SCRIPT.format(unit=str(UNIT)))
    first, _ = finish(script, town, tmp_path / "ws")
    same, told = finish(script, town, tmp_path / "ws")
    assert same == first
    assert told == [f"made {first}"]
    from test_corpus_snapshot import session

    with (town / "transcripts" / "s05.jsonl").open("a") as f:
        f.write(session(700) + "\n")
    started = time.time()
    grown, told = finish(script, town, tmp_path / "ws")
    assert grown != first
    assert sum(line.startswith("reading") for line in told) == 1
    fresh = [p for p in (tmp_path / "ws" / "cache").glob("*.shard") if p.stat().st_mtime >= started]
    assert len(fresh) == 1
