"""Checks on beads, routes and old bead lines: each rule by itself, and wild input."""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.evals.answer import BadAnswer
from gtft.evals.checks import run_check
from gtft.evals.checks.bead import NEW, apply_command
from gtft.evals.checks.bead_command import parse_create, parse_update
from gtft.evals.checks.flags import Unjudged, split_list
from gtft.evals.checks.migration import migrate_bead
from gtft.evals.checks.route import find_owner, find_prefix
from gtft.evals.item import CheckSpec
from gtft.evals.making import names
from gtft.evals.making.bead_creation import write_line

REPO = Path(__file__).resolve().parents[2]
EPIC = {"title": "All", "type": "epic", "priority": 1, "status": "open", "labels": ["x"]}
TASK = {"title": "One", "type": "task", "priority": 2, "status": "open", "notes": "n"}
BEADS = {"lo-1": TASK, "lo-2": EPIC}


def make(line: str) -> dict[str, Any]:
    return apply_command(shlex.split(line), BEADS)[NEW]


def change(line: str, bead: str = "lo-1") -> dict[str, Any]:
    return apply_command(shlex.split(line), BEADS)[bead]


# What bd takes and what it makes of it (tests/contract/test_evals_real_bd.py asks the real one).


def test_a_bead_has_bds_defaults() -> None:
    assert make("bd create X") == {"title": "X", "type": "task", "priority": 2, "status": "open"}


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("bd create X -pP0", "priority", 0),
        ("bd create X -p=3 -qtbug", "priority", 3),
        ("bd create X -p 1 --priority 4", "priority", 4),
        ("bd create X -t enhancement", "type", "feature"),
        ("bd create X -t ADR", "type", "decision"),
        ("bd create X -l b,a -l a --label c", "labels", ["a", "b", "c"]),
        ("bd create X -l '\"a,b\",c'", "labels", ["a,b", "c"]),
        ("bd create X --body D", "description", "D"),
        ("bd create X -e 0x10", "estimate", 16),
        ("bd create --title=-x", "title", "-x"),
        ("bd create X --title=X", "title", "X"),
        ("bd create X --parent lo-2", "labels", ["x"]),
        ("bd create X --parent lo-2", "parent", "lo-2"),
        ("bd create X --deps lo-1", "links", [["blocks", "lo-1"]]),
        ("bd create X --deps depends-on:lo-1", "links", [["blocks", "lo-1"]]),
        ("bd create X --deps discovered-from:lo-2", "links", [["discovered-from", "lo-2"]]),
        ("bd create X --metadata '{\"a\": [1]}'", "metadata", {"a": [1]}),
        ("bd create X -t message", "ephemeral", True),
    ],
)
def test_what_bd_makes(line: str, field: str, value: Any) -> None:
    assert make(line)[field] == value


def test_labels_are_handed_down_unless_told_not_to() -> None:
    assert "labels" not in make("bd create X --parent lo-2 --no-inherit-labels")
    assert make("bd create X --parent lo-2 -l y")["labels"] == ["x", "y"]


def test_blocks_in_deps_is_the_other_way_round() -> None:
    after = apply_command(shlex.split("bd create X --deps blocks:lo-1"), BEADS)
    assert "links" not in after[NEW]
    assert after["lo-1"]["links"] == [["blocks", NEW]]


def test_a_link_that_bd_only_warns_of_is_not_made() -> None:
    # A task does not block an epic, and a missing bead blocks nothing.
    assert "links" not in make("bd create X --deps lo-2")
    assert "links" not in make("bd create X --deps lo-9")


@pytest.mark.parametrize(
    "line",
    [
        "bd create",
        "bd create ''",
        "bd create -- -x",
        "bd create X --title=Y",
        "bd create X -p high",
        "bd create X -p 5",
        "bd create X -p -1",
        "bd create X -p",
        "bd create X -t Bug",
        "bd create X -t story-bug",
        "bd create X -e 2h",
        "bd create X -e -5",
        "bd create X -e 09",
        "bd create X -d a --body b",
        "bd create X -l 'a\"b'",
        "bd create X --deps child-of:lo-1",
        "bd create X --parent lo-9",
        "bd create X --metadata {a}",
        "bd create X --json=maybe",
        f"bd create {'x' * 501}",
        f"bd create {'ä' * 251}",
        "bd update lo-1",
        "bd update lo-9 -p 1",
        "bd update lo-1 -s done",
        "bd update lo-1 --title ' '",
        "bd update lo-1 --parent lo-1",
        "bd close lo-1",
        "gt create X",
    ],
)
def test_what_bd_refuses(line: str) -> None:
    with pytest.raises(BadAnswer):
        apply_command(shlex.split(line), BEADS)


@pytest.mark.parametrize(
    "line",
    [
        "bd create X --file /etc/passwd",
        "bd create X -p high --body-file=/etc/passwd",
        "bd create X -l 'a\"b' -f plan.md",
        "bd create X --metadata @secret.json",
        "bd create X --db other.db",
        "bd create X --severity high",
        "bd update lo-1 -l a",
        "bd update -p 1",
    ],
)
def test_what_reads_files_or_leaves_the_database_is_never_judged(line: str) -> None:
    # Unjudged even where something else is wrong as well: it must not reach the real bd.
    with pytest.raises(Unjudged):
        apply_command(shlex.split(line), BEADS)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("bd update lo-1 -p 0", "priority", 0),
        ("bd update lo-1 -s in_progress", "status", "in_progress"),
        ("bd update lo-1 --add-label b,a", "labels", ["a", "b"]),
        ("bd update lo-1 --set-labels a,b --add-label c --remove-label a", "labels", ["b", "c"]),
        ("bd update lo-1 --notes ''", "notes", None),
        ("bd update lo-1 --parent lo-2", "parent", "lo-2"),
        ("bd update lo-1 --set-labels ''", "labels", None),
    ],
)
def test_what_an_update_does(line: str, field: str, value: Any) -> None:
    assert change(line).get(field) == value


def test_an_update_of_several_beads_touches_each() -> None:
    after = apply_command(shlex.split("bd update lo-1 lo-2 -p 4"), BEADS)
    assert [after[k]["priority"] for k in ("lo-1", "lo-2")] == [4, 4]
    assert BEADS["lo-1"]["priority"] == 2


def test_an_update_goes_on_without_a_bead_that_is_missing() -> None:
    after = apply_command(shlex.split("bd update lo-9 lo-1 -p 4"), BEADS)
    assert after["lo-1"]["priority"] == 4


# The checks.

STATE = CheckSpec(
    "bead_state",
    {"before": {"lo-2": EPIC}, "after": {"lo-2": EPIC, NEW: {**TASK, "labels": ["rig:loom"]}}},
)
RIGHT = "bd create One --notes n -l rig:loom"


def test_a_state_is_compared_whole() -> None:
    assert run_check(STATE, RIGHT).passed
    assert run_check(STATE, f"```bash\n{RIGHT} --json\n```").passed


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT + " -a somebody",
        RIGHT + " -d more",
        RIGHT + " word",
        RIGHT + " --parent lo-2",
        RIGHT + " --deps blocks:lo-2 -t epic",
        RIGHT + "\nbd ready",
        RIGHT + " && bd close lo-2",
        "bd create One -l rig:loom",
        "bd create One --notes n -l rig:loom,more",
        "bd update lo-2 --title One",
        "bd create `whoami` --notes n -l rig:loom",
        "",
        "One",
    ],
)
def test_what_is_too_much_or_too_little_fails(answer: str) -> None:
    outcome = run_check(STATE, answer)
    assert not outcome.passed
    assert outcome.reason


def test_a_title_that_a_shell_would_run_fails() -> None:
    spec = CheckSpec("bead_valid", {"type": "task"})
    assert run_check(spec, "bd create 'all well'").passed
    assert not run_check(spec, 'bd create "$(rm -rf .dolt-data)"').passed


@pytest.mark.parametrize(
    ("bead", "prefix"),
    [
        ("ki-1", "ki"),
        ("ki-t-1", "ki-t"),
        ("ki-tools-1", "ki"),
        ("ki-t", "ki"),
        ("ki-", None),
        ("ki", None),
        ("kiln-1", None),
        ("KI-1", None),
        ("hq-cv-1", "hq"),
        ("", None),
    ],
)
def test_the_longest_prefix_counts(bead: str, prefix: str | None) -> None:
    assert find_prefix(bead, ["ki", "ki-t", "hq"]) == prefix


def test_work_on_more_than_one_rig_is_headquarters() -> None:
    assert find_owner(["kiln", "kiln"]) == "kiln"
    assert find_owner(["kiln", "loom"]) == "hq"


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ('{"prefix": "ki-t-", "path": "kiln-tools/mayor/rig"}', True),
        ('```json\n{"path": "kiln-tools/mayor/rig/", "prefix": "ki-t"}\n```', True),
        ('{"prefix": "ki-", "path": "kiln-tools/mayor/rig"}', False),
        ('{"prefix": "ki-t-"}', False),
        ('{"prefix": "ki-t-", "path": "kiln-tools/mayor/rig", "x": 1}', False),
        ('{"prefix": ["ki-t-"], "path": "kiln-tools/mayor/rig"}', False),
        ('It is {"prefix": "ki-t-", "path": "kiln-tools/mayor/rig"}', False),
        ('{"prefix": "ki-t-", "path": "../kiln-tools/mayor/rig"}', False),
    ],
)
def test_routes(answer: str, passes: bool) -> None:
    spec = CheckSpec("route", {"expect": {"prefix": "ki-t-", "path": "kiln-tools/mayor/rig"}})
    assert run_check(spec, answer).passed is passes


OLD = {
    "id": "lo-1",
    "content_hash": "0" * 40,
    "title": "T",
    "description": "",
    "status": "completed",
    "priority": 0,
    "issue_type": "task",
    "wisp": True,
    "pinned": 0,
    "metadata": '{"n": 1}',
    "created_at": "2025-10-12T17:09:22.9-07:00",
    "updated_at": "2025-10-13T00:09:23Z",
    "source_repo": ".",
}
TODAY = {
    "_type": "issue",
    "id": "lo-1",
    "title": "T",
    "status": "closed",
    "priority": 0,
    "issue_type": "task",
    "ephemeral": True,
    "metadata": {"n": 1},
    "created_at": "2025-10-13T00:09:22Z",
    "updated_at": "2025-10-13T00:09:23Z",
}


def test_an_old_bead_in_todays_shape() -> None:
    assert migrate_bead(OLD) == TODAY
    assert migrate_bead(TODAY) == TODAY


def test_rows_of_other_beads_stay_out() -> None:
    found = migrate_bead(
        TODAY,
        [{"issue_id": "lo-1", "label": "b"}, {"issue_id": "lo-2", "label": "a"}],
        [
            {
                "issue_id": i,
                "depends_on_id": "lo-3",
                "type": "blocks",
                "created_at": "2025-10-13T00:09:22Z",
                "created_by": "ludo",
            }
            for i in ("lo-1", "lo-2")
        ],
    )
    assert found["labels"] == ["b"]
    assert [d["issue_id"] for d in found["dependencies"]] == ["lo-1"]


@pytest.mark.parametrize(
    ("edit", "passes"),
    [
        ({}, True),
        ({"labels": ["b", "a"]}, True),
        ({"labels": ["a", "b", "b"]}, False),
        ({"labels": ["a"]}, False),
        ({"priority": False}, False),
        ({"priority": 0.0}, False),
        ({"ephemeral": 1}, False),
        ({"metadata": '{"n": 1}'}, False),
        ({"extra": None}, False),
    ],
)
def test_a_migration_loses_and_adds_nothing(edit: dict[str, Any], passes: bool) -> None:
    expect = {**TODAY, "labels": ["a", "b"]}
    spec = CheckSpec("bead_migration", {"expect": expect})
    assert run_check(spec, json.dumps({**expect, **edit})).passed is passes


def test_an_update_that_names_a_stranger_as_well_fails() -> None:
    after = {"lo-2": {**EPIC, "priority": 0}}
    spec = CheckSpec("bead_state", {"before": {"lo-2": EPIC}, "after": after})
    assert run_check(spec, "bd update lo-2 -p 0").passed
    assert not run_check(spec, "bd update lo-2 lo-9 -p 0").passed
    assert not run_check(spec, "bd update lo-2 -p 0 --add-label more").passed


# Wild input.

_CHECKS = (
    STATE,
    CheckSpec("bead_valid", {"type": "bug", "priority": 1, "rig": "loom"}),
    CheckSpec("route", {"expect": {"path": "x"}}),
    CheckSpec("bead_migration", {"expect": TODAY}),
)
_WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "create",
            "update",
            "-p",
            "-t",
            "-l",
            "-e",
            "--title=",
            "--deps",
            "--metadata",
            "--parent",
            "--json",
            "--",
            "-",
            "=",
            "1",
            "lo-1",
            "lo-2",
            "NaN",
            "{",
        ]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_WORDS, max_size=8), st.sampled_from(["create", "update"]))
def test_any_words_are_read_or_refused(words: list[str], verb: str) -> None:
    command = ["bd", verb, *words]
    try:
        after = apply_command(command, BEADS)
    except BadAnswer:
        return
    assert set(after) == set(BEADS) | ({NEW} if verb == "create" else set())
    json.dumps(after)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_an_outcome(text: str) -> None:
    for spec in _CHECKS:
        for answer in (text, f"bd create {text}", f"bd update lo-2 {text}", f'{{"path": {text}}}'):
            outcome = run_check(spec, answer)
            assert outcome.passed or outcome.reason


@given(st.lists(st.text(st.characters(exclude_characters='"\r\n,'), max_size=5), min_size=1))
def test_a_list_of_plain_fields_comes_back(fields: list[str]) -> None:
    text = ",".join(fields)
    assert split_list(text) == (tuple(fields) if text else ())


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=40))
def test_a_command_line_of_ours_is_read_as_it_was_meant(title: str) -> None:
    words = ["bd", "create", f"--title={title}", "-p", "1"]
    assert shlex.split(write_line(words)) == words
    assert parse_create(words).title == title


def test_update_and_create_are_told_apart() -> None:
    with pytest.raises(BadAnswer):
        parse_create(["bd", "update", "lo-1"])
    with pytest.raises(BadAnswer):
        parse_update(["bd", "create", "x"])


# The names that items are made of.


def test_names_are_of_no_corpus() -> None:
    text = "\n".join(
        p.read_text("utf-8", "replace").lower()
        for folder in ("examples", "gtft/corpus")
        for p in sorted((REPO / folder).rglob("*"))
        if p.suffix in (".py", ".toml", ".jsonl", ".json", ".md")
    )
    text += (REPO / "gtft/training/general.jsonl").read_text("utf-8").lower()
    known = set(re.findall(r"[a-z]+", text))
    assert not {r.name for r in names.RIGS} & known
    assert not set(names.POLECATS) & known
    phrases = (*names.THINGS, *names.FAULTS, *names.WISHES)
    assert not [p for p in phrases if p.lower() in text]


def test_prefixes_are_unlike_and_ids_have_a_digit() -> None:
    rigs = (*names.RIGS, *names.DASHED)
    assert len({r.prefix for r in rigs}) == len({r.name for r in rigs}) == len(rigs)
    dice = random.Random(3)
    for rig in rigs:
        (bead,) = names.draw_ids(dice, rig.prefix, 1)
        assert find_prefix(bead, [r.prefix for r in rigs]) == rig.prefix
