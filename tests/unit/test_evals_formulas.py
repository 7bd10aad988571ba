"""Formulas: what gt and bd refuse, what an item compares, and what a repair may not touch."""

import tomllib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.evals.answer import BadAnswer
from gtft.evals.checks import run_check
from gtft.evals.checks.formula import find_beyond, parse_formula
from gtft.evals.item import CheckSpec
from gtft.evals.making import make_suite
from gtft.evals.making.formula import fence, read_work, write_formula

TEXT = """formula = "mol-probe"
version = 2
[vars.place]
description = "where"
required = true
[vars.copies]
default = "40"
[[steps]]
id = "draw"
title = "Draw"
[[steps]]
id = "weigh"
title = "Weigh"
needs = ["draw"]
[[steps]]
id = "bottle"
title = "Bottle"
needs = ["draw", "weigh"]
"""
ARGS = {
    "name": "mol-probe",
    "version": 2,
    "steps": ["draw", "weigh", "bottle"],
    "titles": {"draw": "Draw", "weigh": "Weigh", "bottle": "Bottle"},
    "needs": [["weigh", "draw"], ["bottle", "draw"], ["bottle", "weigh"]],
    "vars": {"place": None, "copies": "40"},
}


def judge(text: str, **more: object) -> str:
    return run_check(CheckSpec("formula_parses", {**ARGS, **more}), fence(text)).reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", ""),
        ('needs = ["draw", "weigh"]', 'needs = ["weigh", "draw"]', ""),
        ('[vars.copies]\ndefault = "40"', '[vars.copies]\ndefault = "40"\nrequired = false', ""),
        ("mol-probe", "mol-probes", "formula is mol-probes"),
        ("version = 2", "version = 1", "version is 1"),
        ("version = 2\n", "", "version is None"),
        ('title = "Draw"', 'title = "Draw it"', "titled"),
        ('["draw", "weigh"]', '["weigh"]', "do not need each other"),
        ('["draw", "weigh"]', '["draw", "weigh", "weigh"]', "do not need each other"),
        ('needs = ["draw"]', 'depends_on = ["draw"]', "gt ignores depends_on"),
        ('default = "40"', "default = 40", "lose a default"),
        ('default = "40"', 'default = "41"', "has the default 41"),
        ("required = true", "required = false", "is not required"),
        ("required = true\n", "", "is not required"),
        ('[vars.copies]\ndefault = "40"\n', "", "variables place"),
        ('default = "40"', 'default = "40"\nrequired = true', "required and has a default"),
        ('id = "weigh"', 'id = "weight"', "which is no step"),
    ],
)
def test_a_formula_is_held_against_all_that_was_asked(old: str, new: str, reason: str) -> None:
    found = judge(TEXT.replace(old, new) if old else TEXT)
    assert reason in found
    assert bool(reason) == bool(found)


def test_pour_is_compared_when_it_was_asked_for() -> None:
    assert "pour is None" in judge(TEXT, pour=True)
    assert not judge("pour = true\n" + TEXT, pour=True)


def test_what_was_not_asked_for_is_not_compared() -> None:
    loose = CheckSpec("formula_parses", {"name": "mol-probe"})
    assert run_check(loose, TEXT).passed
    assert run_check(loose, f"Here it is:\n{fence(TEXT)}").passed
    assert not run_check(loose, f"{fence(TEXT)}\n{fence(TEXT)}").passed


def test_keys_are_read_as_both_parsers_read_them() -> None:
    doc = parse_formula(
        TEXT.replace("formula", "FORMULA").replace("[[steps]]", "[[Steps]]").replace("id =", "Id =")
    )
    assert doc == parse_formula(TEXT)
    with pytest.raises(BadAnswer, match="twice"):
        parse_formula('Formula = "x"\n' + TEXT)


def test_what_needs_more_than_the_file_is_named() -> None:
    assert find_beyond(parse_formula(TEXT)) is None
    assert find_beyond(parse_formula('extends = ["mol-other"]\n' + TEXT)) == "extends"
    assert find_beyond(parse_formula(TEXT + "[steps.loop]\ncount = 3\n")) == "loop"


REPAIR = CheckSpec("formula_repaired", {"accept": [tomllib.loads(TEXT)]})


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("", "", ""),
        ('needs = ["draw", "weigh"]', "needs = ['weigh', 'draw']", ""),
        ('title = "Draw"', 'title = """Draw\n"""', ""),
        ("version = 2", "version = 0x2 # as it was", ""),
        ("version = 2", "version = 3", "version"),
        ("version = 2\n", 'version = 2\ndescription = ""\n', "description"),
        ('title = "Draw"', 'title = "draw"', "step draw"),
        ('description = "where"\n', "", "vars"),
        ('default = "40"', "default = 40", "vars"),
        ('id = "bottle"\ntitle = "Bottle"\nneeds = ["draw", "weigh"]', 'id = "bottle"\ntitle = "Bottle"', "step bottle"),
        ('[[steps]]\nid = "bottle"\ntitle = "Bottle"\nneeds = ["draw", "weigh"]\n', "", "step bottle"),
        ('title = "Draw"', 'title = "Draw"\nneeds = ["bottle"]', "circle"),
    ],
)  # fmt: skip
def test_a_repair_changes_nothing_else(old: str, new: str, reason: str) -> None:
    outcome = run_check(REPAIR, fence(TEXT.replace(old, new) if old else TEXT))
    assert outcome.passed == (not reason)
    assert reason in outcome.reason


def test_the_order_of_steps_is_kept_in_a_repair() -> None:
    doc = tomllib.loads(TEXT)
    turned = {**doc, "steps": doc["steps"][::-1]}
    assert "order" in run_check(REPAIR, fence(write_formula(turned))).reason


def test_the_broken_file_is_in_the_prompt_and_does_not_pass() -> None:
    for made in make_suite("formula-repair"):
        prompt = made.item.messages[0]["content"]
        broken = fence(prompt.split("```toml\n")[1].split("\n```")[0])
        assert broken in made.near_misses
        assert broken != made.item.reference


def test_every_work_parses_and_needs_only_earlier_steps() -> None:
    for number in range(12):
        doc = read_work(number)
        assert parse_formula(write_formula(doc)) == doc
        ids = [s["id"] for s in doc["steps"]]
        assert all(n in ids[: ids.index(s["id"])] for s in doc["steps"] for n in s.get("needs", []))


KEYS = st.sampled_from(
    [
        "formula",
        "version",
        "type",
        "vars",
        "steps",
        "title",
        "id",
        "needs",
        "extends",
        "legs",
        "gate",
        "pour",
        "loop",
        "children",
        "x",
    ]
)
VALUES = st.recursive(
    st.sampled_from(['"x"', "1", "true", "[]", "1.5", "1979-05-27", '"workflow"', "nan", "9999999999999999999"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
    | st.dictionaries(KEYS, inner, max_size=3).map(
        lambda d: "{" + ", ".join(f"{k} = {v}" for k, v in d.items()) + "}"
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.tuples(KEYS, VALUES), max_size=6, unique_by=lambda r: r[0]), st.booleans())
@settings(max_examples=300)
def test_wild_toml_neither_crashes_nor_passes(rows: list[tuple[str, str]], steps: bool) -> None:
    text = "\n".join(f"{k} = {v}" for k, v in rows) + ("\n[[steps]]\nid = 'a'\n" if steps else "")
    assert judge(text)
    assert not run_check(REPAIR, text).passed


def test_a_long_chain_of_steps_is_read() -> None:
    ids = [f"s{n}" for n in range(250)]
    doc = {"formula": "x", "steps": [{"id": ids[0], "title": "t"}]}
    doc["steps"] += [{"id": b, "title": "t", "needs": [a]} for a, b in pairwise(ids)]
    assert len(parse_formula(write_formula(doc))["steps"]) == 250


@pytest.mark.parametrize(
    "deep",
    ["[" + "a." * 7_000 + "a]", "[[vars." + "a." * 600 + "a]]", "x = " + "[" * 200 + "]" * 200],
)
def test_deep_tables_are_refused(deep: str) -> None:
    text = f"{deep}\n{TEXT}" if deep.startswith("x") else f"{TEXT}\n{deep}\n"
    for spec in (REPAIR, CheckSpec("formula_parses", {"name": "mol-probe"})):
        assert run_check(spec, text).reason == "nested too deeply"
