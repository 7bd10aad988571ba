"""Harvest of real transcripts, bead exports and formulas: the exact counts, and the worker from end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import Artifact, verify_artifact
from gtft.contract import Job, parse_event
from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation
from gtft.corpus.files import list_files
from gtft.corpus.library import read_examples
from gtft.corpus.sources import FORMATS
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import Tally
from gtft.recipe.schema import Harvest, Recipe, Source
from gtft.shelf import read_document
from source_case import read_settled

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the sample data ../shared/data is absent"
)

SOURCES = (
    Source(type="claude-code", path="transcripts/claude-code-real"),
    Source(type="beads", path="beads"),
    Source(type="formulas", path="formulas"),
)


def read(kind: str, path: str) -> tuple[list[Conversation], Tally]:
    tally = Tally()
    files = [f for f in list_files(DATA, path) if sniff(f) == kind]
    source = FORMATS[kind]
    if source.alone:
        return list(read_settled(source.read, files, tally)), tally
    return list(source.read(files, tally, Claims())), tally


def test_claude_code_counts_are_exact() -> None:
    talks, tally = read("claude-code", "transcripts/claude-code-real")
    table = {name: dict(counts) for name, counts in tally.tables.items()}
    assert table["lines"] == {"read": 7839, "recovered": 8}
    assert table["bad"] == {"bad line": 4}
    assert sorted(n.file.split("/")[-1].split("_")[0] for n in tally.named) == [
        "session", "torn", "torn", "torn"
    ]  # fmt: skip
    assert table["records"] == {
        "assistant": 3417,
        "progress": 2149,
        "user": 1765,
        "file-history-snapshot": 243,
        "system": 202,
        "queue-operation": 51,
        "summary": 16,
    }
    assert table["dropped"]["repeated uuid"] == 421
    assert (table["unique"]["user"], table["unique"]["assistant"]) == (1682, 3252)
    assert table["dropped"]["synthetic"] == 5
    assert table["responses"]["unique"] == 1385
    assert table["blocks"]["assistant tool_use"] == 1497
    assert table["blocks"]["user tool_result"] == 1495
    assert table["system"]["compact_boundary"] == 6
    assert table["links"]["phantom parents"] == 0
    assert "drift" not in table
    assert tally.total("records") == 7843 == tally.total("kept") + tally.total("dropped")
    # snapshot__0b lies wholly inside snapshot__04_e5: nothing of it is left.
    assert len(talks) == 22
    assert not any("snapshot__0b" in t.file for t in talks)


def test_the_small_edge_cases_end_nothing_and_are_named() -> None:
    talks, tally = read("claude-code", "transcripts/claude-code")
    assert len(talks) == 29
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")
    assert (
        sum(n for k, n in tally.tables["drift"].items() if k.startswith("record without type")) == 6
    )
    assert {n.reason for n in tally.named} == {
        "content is neither text nor blocks",
        "message is not an object",
        "not an object",
        "unknown type",
    }


def test_every_generation_of_beads_is_read() -> None:
    talks, tally = read("beads", "beads")
    assert dict(tally.tables["records"]) == {
        "bead": 3038, "event": 3667, "dependency": 315, "label": 169, "config": 17, "comment": 14
    }  # fmt: skip
    assert "bad" not in tally.tables
    assert len({t.links[0] for t in talks}) == len(talks) == 1079
    assert tally.get("dropped", "wisp") == 986
    told = [t for t in talks if t.entries]
    # Four memories are prose alone.
    assert len(told) == 1075
    assert not any(re.match(r"attached_\w+:", t.entries[0].text.split("\n")[2]) for t in told)


def test_every_formula_becomes_one_conversation() -> None:
    talks, tally = read("formulas", "formulas")
    assert len(talks) == tally.get("records", "formula") == 52


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[Any]]:
    tmp = tmp_path_factory.mktemp("real")
    job_dir = tmp / "job"
    job_dir.mkdir()
    job = Job(
        run_id="run-real",
        stage="harvest",
        bead_id="gt-1",
        actor="gtft/test",
        recipe=Recipe(role="polecat", harvest=Harvest(sources=SOURCES)).model_dump(mode="json"),
        recipe_hash="sha256:0",
        workspace=tmp,
        workdir=job_dir / "work",
        artifacts=tmp / "artifacts",
        seed=7,
        root=DATA,
        store_url="",
    )
    (job_dir / "job.json").write_text(job.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "gtft.workers.harvest", str(job_dir)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    events = [parse_event(line) for line in (job_dir / "events.jsonl").read_text().splitlines()]
    assert events[-1].event == "artifact"
    return verify_artifact(Path(events[-1].path), kind="corpus", expect=events[-1].id), events


def test_the_worker_harvests_it_all_and_every_table_adds_up(
    harvested: tuple[Artifact, list[Any]],
) -> None:
    corpus, events = harvested
    health = read_document(corpus, "health.json")
    for row in health["flow"]:
        assert row["in"] == row["kept"] + sum(row["dropped"].values())
    assert health["leakage"]["shared clusters"] == 0
    assert health["leakage"]["training examples with a rare held-out phrase"] == 0
    assert health["examples"]["train"] > 800
    assert health["examples"]["heldout"] > 150
    assert set(health["by"]["train"]["source"]) == {"claude-code", "beads", "formulas"}
    notes = {e.note for e in events if e.event == "progress"}
    assert "second scan" in notes
    assert any(e.eta_s is not None for e in events if e.event == "progress")
    assert len((corpus.path / "summary.json").read_bytes()) < 64 * 1024


def test_nobody_is_named_in_it(harvested: tuple[Artifact, list[Any]]) -> None:
    corpus, _ = harvested
    homes, mails = set(), set()
    for f in corpus.files:
        text = (corpus.path / f.name).read_text()
        assert str(DATA) not in text
        homes |= set(re.findall(r"/Users/(\w+)", text))
        mails |= set(re.findall(r"[\w.]+@(?:gmail|googlemail|outlook)\.com", text))
    assert homes and all(
        re.fullmatch(r"user[0-9a-f]{6}|username|you|test|name|Shared|me", h) for h in homes
    )
    assert not mails


def test_examples_are_whole(harvested: tuple[Artifact, list[Any]]) -> None:
    corpus, _ = harvested
    seen = 0
    for side in ("train.jsonl", "heldout.jsonl"):
        for e in read_examples(corpus, side):
            seen += 1
            calls = [c["id"] for m in e.messages for c in m.get("tool_calls", ())]
            assert calls == [m["tool_call_id"] for m in e.messages if m["role"] == "tool"]
            assert any(m["role"] == "assistant" for m in e.messages)
            assert len(json.dumps(e.to_json())) < 40_000
    assert seen > 1000
