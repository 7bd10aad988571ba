"""The code's rules for bead commands against the real ``bd``: both say the same of every item."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gtft.errors import TownError
from gtft.evals.checks import bead_command, run_check
from gtft.evals.item import CheckSpec, Item
from gtft.evals.making import make_suite
from gtft.evals.shipped import read_shipped
from gtft.evals.tools.real_bd import CHECKED, BeadJudge, Verdict, find_bd, tell_verdicts
from town_case import make_environ, make_path, need_tools

CAPABILITIES = ("bead-creation", "bead-repair")
# Every right answer is run, and of the nearly right ones every tenth: bd needs about 0.3 s for each.
SAMPLED = 10
TASK = {"title": "One", "type": "task", "priority": 2, "status": "open", "labels": ["a"]}
EPIC = {"title": "All", "type": "epic", "priority": 1, "status": "open", "labels": ["x", "y"]}
KID = {**TASK, "parent": "lo-2", "links": [["blocks", "lo-1"]], "notes": "n"}
WILD = Item(
    id="wild", suite="", capability="", role=None, template="", cluster="", messages=(), tools=(),
    check=CheckSpec("bead_state", {"before": {"lo-1": TASK, "lo-2": EPIC, "lo-3": KID}, "after": {}}), reference="",
)  # fmt: skip
# Where a rule of ours could easily differ from bd's.
LINES = (
    "bd create X word -p 1.0 -t feat",
    "bd create X -p 'P 1' -t FEAT",
    "bd create X -t message",
    "bd create X -l a,a -l 'b, c' --label d --labels '\"e,f\",g'",
    "bd create X -l a,,b",
    f"bd create X -l {'b' * 300}",
    "bd create -- X -t",
    "bd create '' --title X",
    "bd create X --body '' -d q",
    "bd create X -e 010",
    "bd create X -e 09",
    f"bd create {'ä' * 250}",
    f"bd create {'ä' * 251}",
    "bd create X --parent lo-2 -l own",
    "bd create X --parent lo-2 --no-inherit-labels",
    "bd create X --parent lo-9",
    "bd create X --deps discovered-from:lo-1,blocks:lo-3",
    "bd create X --deps lo-2",
    "bd create X --deps ' lo-1 , related: lo-3'",
    "bd create X --deps lo-9",
    "bd create X --deps child-of:lo-1",
    "bd create X --metadata '[1]'",
    "bd create X --metadata {a}",
    "bd create X -p",
    "bd update lo-1",
    "bd update lo-9 -p 1",
    "bd update lo-1 -s done",
    "bd update lo-1 --set-labels a,b --remove-label a --add-label c",
    "bd update lo-1 --set-labels ''",
    "bd update lo-3 --notes '' --parent ''",
    "bd update lo-3 --parent lo-3",
    "bd update lo-1 lo-3 -p 4",
    "bd update lo-1 lo-9 -p 4",
    "bd update lo-1 --title ' '",
    f"bd update lo-1 --title {'ä' * 500}",
    "bd update lo-1 --body a --message b",
    # Never run: what would read a file, leave the database, or is unknown.
    "bd create X --file /etc/hostname",
    "bd create X --metadata @/etc/hostname",
    "bd create X --rig loom",
    "bd update lo-1 -l a",
    "bd update -p 0",
)
UNRUN = 5


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Item, str, Verdict]]:
    """All answers judged, in two databases side by side."""
    need_tools("bd")
    environ = make_environ(tmp_path_factory.mktemp("judge"))
    answers = [*_list_right(), *_list_near_misses(), *((WILD, line) for line in LINES)]

    def judge(part: Sequence[tuple[Item, str]]) -> list[Verdict]:
        with BeadJudge(environ) as bd:
            return bd.judge(part)

    half = len(answers) // 2
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(judge, (answers[:half], answers[half:]))
    return [(i, o, v) for (i, o), v in zip(answers, [*first, *second], strict=True)]


def _list_right() -> Iterator[tuple[Item, str]]:
    for suite in ("authored", "generated"):
        for item in read_shipped(suite):
            if item.capability in CAPABILITIES and item.check.name in CHECKED:
                yield item, item.reference


def _list_near_misses() -> list[tuple[Item, str]]:
    wrong = [
        (m.item, answer)
        for capability in CAPABILITIES
        for m in make_suite(capability)
        for answer in m.near_misses
    ]
    return wrong[::SAMPLED]


def test_the_real_bd_agrees_on_every_answer(verdicts: list[tuple[Item, str, Verdict]]) -> None:
    wrong = [(o, v.difference) for _, o, v in verdicts if not v.agrees]
    assert not wrong
    assert {v.item for _, _, v in verdicts} >= {i.id for i, _ in _list_right()}


def test_the_real_bd_takes_every_right_answer(verdicts: list[tuple[Item, str, Verdict]]) -> None:
    right = [(i, o, v) for i, o, v in verdicts if o == i.reference]
    assert len(right) >= 80
    for item, output, verdict in right:
        assert run_check(item.check, output).passed
        assert verdict.accepted, (output, verdict.difference)


def test_what_may_not_be_run_is_not_run(verdicts: list[tuple[Item, str, Verdict]]) -> None:
    unrun = [o for i, o, v in verdicts if i is WILD and v.accepted is None]
    assert unrun == list(LINES[-UNRUN:])
    told = tell_verdicts([v for _, _, v in verdicts])
    assert told["answers"] - told["run"] >= UNRUN
    assert told["run"] > told["accepted"] > 0


def test_every_migrated_bead_can_be_imported(tmp_path: Path) -> None:
    """The generated right answers are what ``bd import`` reads and ``bd export`` writes again."""
    need_tools("bd")
    environ = make_environ(tmp_path)
    rows = {m.item.id: json.loads(m.item.reference) for m in make_suite("migration")}
    # One id for each, in one database; links lead to beads that are not there, and bd leaves those out.
    lines = []
    for n, row in enumerate(rows.values()):
        row["id"] = f"old-{n}x"
        lines.append(json.dumps(row))
    folder = tmp_path / "rig"
    folder.mkdir()

    def bd(*argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["bd", *argv],
            cwd=folder,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    bd("init", "-p", "old", "--skip-hooks", "--skip-agents", "--stealth", "-q")
    bd("import", "-", stdin="\n".join(lines))
    back = {r["id"]: r for r in map(json.loads, bd("export", "--all").splitlines())}
    for row in rows.values():
        found = back[row["id"]]
        for key in set(row) - {"dependencies"}:
            assert found[key] == row[key], (key, row)


def test_a_rule_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: with a rule of the code made wrong it says at which item, and what bd says."""
    need_tools("bd")
    known = bead_command.TYPES | {"saga"}
    monkeypatch.setattr(bead_command, "TYPES", known)
    with BeadJudge(make_environ(tmp_path)) as bd:
        refused, taken = bd.judge([(WILD, "bd create X -t saga"), (WILD, "bd create X -t bug")])
    assert (refused.accepted, refused.agrees) == (False, False)
    assert "invalid issue type" in refused.difference
    assert (taken.accepted, taken.agrees) == (True, True)
    assert tell_verdicts([refused, taken])["disagreements"] == [
        {"item": "wild", "difference": refused.difference}
    ]


def test_without_bd_it_says_so(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert find_bd(environ) is None
    with pytest.raises(TownError, match="not on PATH"), BeadJudge(environ):
        pass


def test_another_bd_that_takes_its_flags_otherwise_is_not_used(tmp_path: Path) -> None:
    need_tools("bd")
    program = tmp_path / "bd"
    program.write_text("#!/bin/sh\necho '      --title            A switch here'\n")
    program.chmod(0o755)
    with (
        pytest.raises(TownError, match="another way"),
        BeadJudge({"PATH": f"{tmp_path}:{make_path()}"}),
    ):
        pass
