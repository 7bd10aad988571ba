"""The example town: made again byte for byte, varied enough to hold sessions out of it, dirty on purpose."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from gtft.evals.checks.formula import parse_formula

EXAMPLES = Path(__file__).parents[2] / "examples"
TOWN = EXAMPLES / "town"
MADE = ("transcripts", "beads", "mayor", ".beads")


@pytest.fixture(scope="module")
def sessions() -> list[str]:
    """The text of every session, one per sessionId, as its messages say it."""
    texts: dict[str, dict[str, str]] = {}
    for path in sorted((TOWN / "transcripts").glob("*/*.jsonl")):
        for record in records(path):
            if "message" not in record:
                continue
            texts.setdefault(record["sessionId"], {})[record["uuid"]] = say(record["message"])
    return ["\n".join(parts.values()) for parts in texts.values()]


def records(path: Path) -> list[dict[str, Any]]:
    """Every whole object of a file; glued lines give two, a torn one none."""
    found = []
    decoder = json.JSONDecoder()
    for line in path.read_text("utf-8").splitlines():
        at = 0
        while at < len(line):
            try:
                value, at = decoder.raw_decode(line, at)
            except ValueError:
                break
            found.append(value)
    return found


def say(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    keys = ("text", "content")
    parts = [str(b[k]) for b in content for k in keys if k in b]
    return "\n".join(parts + [json.dumps(b["input"]) for b in content if "input" in b])


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def test_it_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    run = [sys.executable, str(EXAMPLES / "make_town.py"), "--out", str(tmp_path)]
    subprocess.run(run, check=True, capture_output=True)
    for folder in MADE:
        here = {p.relative_to(TOWN): p.read_bytes() for p in files(TOWN / folder)}
        there = {p.relative_to(tmp_path): p.read_bytes() for p in files(tmp_path / folder)}
        assert here == there, folder


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_no_session_is_close_to_another(sessions: list[str]) -> None:
    assert len(sessions) == 322
    shingles = [grams(s, 5) for s in sessions]
    closest = max(len(a & b) / len(a | b) for a, b in combinations(shingles, 2))
    assert closest < 0.6


def test_no_rare_phrase_is_shared(sessions: list[str]) -> None:
    seen = Counter(g for s in sessions for g in grams(s, 13))
    assert not [g for g, n in seen.items() if 1 < n < 8]


def test_sessions_are_short_and_the_town_is_small(sessions: list[str]) -> None:
    assert max(map(len, sessions)) < 1400
    assert sum(p.stat().st_size for p in files(TOWN)) < 1_500_000


def test_the_dirt_is_there() -> None:
    whole = {p: p.read_text("utf-8") for p in (TOWN / "transcripts").rglob("*.jsonl")}
    lines = [line for text in whole.values() for line in text.splitlines()]
    bad = [line for line in lines if not parses(line)]
    glued = [line for line in bad if line.count('{"parentUuid"') == 2]
    assert len(glued) >= 3
    assert len(bad) > len(glued)
    assert sum('"tide-marker"' in line for line in lines) >= 3
    assert sum('"isSidechain":true' in line for line in lines) == 4
    uuids = Counter(re.findall(r'"uuid":"([^"]+)"', "\n".join(lines)))
    assert [n for n in uuids.values() if n > 1]
    text = "\n".join(lines)
    for planted in ("DEPLOY_TOKEN=", "password=", "@example.org", "/home/quill"):
        assert planted in text
    ids = re.findall(r'"message":\{"id":"(msg_\w+)"', text)
    assert max(Counter(ids).values()) > 1


def parses(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_decisions_follow_the_written_rules() -> None:
    """Every recorded decision names a rule of formulas/patrol.md or safety.md, with its action."""
    table = (TOWN / "formulas/patrol.md").read_text() + (TOWN / "formulas/safety.md").read_text()
    rules = dict(re.findall(r"^\| ([WRDS]\d) \|.*\| `([a-z-]+)` \|$", table, re.M))
    assert len(rules) == 20
    found = Counter()
    for path in sorted((TOWN / "transcripts").rglob("*.jsonl")):
        for record in records(path):
            text = say(record["message"]) if record["type"] == "assistant" else ""
            if text.startswith('{"action"'):
                decision = json.loads(text)
                code = decision["reason"].split(":")[0]
                assert rules[code] == decision["action"]
                found[code] += 1
    assert set(found) == set(rules)


def test_beads_keep_to_the_export_form() -> None:
    rows = [json.loads(x) for p in sorted((TOWN / "beads").glob("*.jsonl")) for x in p.open()]
    assert len(rows) == 60
    ids = {r["id"] for r in rows}
    assert len(ids) == 60
    assert all(d["depends_on_id"] in ids for r in rows for d in r.get("dependencies", []))
    assert {"epic", "bug", "feature", "task"} == {r["issue_type"] for r in rows}


def test_every_formula_parses() -> None:
    paths = sorted((TOWN / "formulas").glob("*.formula.toml"))
    assert len(paths) >= 6
    for path in paths:
        assert parse_formula(path.read_text("utf-8"))["formula"] == path.name.split(".")[0]
