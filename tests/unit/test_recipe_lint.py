"""Lint: every problem at once, each on its line, in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.errors import RecipeError
from gtft.recipe.find import list_formulas, shipped_folder
from gtft.recipe.formula import parse_formula, read_formula
from gtft.recipe.lint import lint, require_clean
from gtft.recipe.resolve import resolve_formula

GOOD = '''formula = "t"
description = """
Run: gtft run {{issue}}
"""
version = 1
type = "workflow"
pour = true

[vars.issue]
required = true

[vars.role]
default = "witness"

[gtft]
role = "{{role}}"

[[gtft.harvest.sources]]
type = "beads"
path = "beads"

[gtft.train]
epochs = 2

[[steps]]
id = "harvest"
title = "Harvest"

[[steps]]
id = "train"
title = "Train"
needs = ["harvest"]

[[steps]]
id = "eval"
title = "Eval"
needs = ["train"]

[[steps]]
id = "card"
title = "Card"
needs = ["eval"]
'''


def problems_of(text: str) -> list[tuple[int, str, str]]:
    found = lint(parse_formula(text.encode(), source=Path("t.formula.toml")))
    assert all(p.file == "t.formula.toml" for p in found)
    return [(p.line, p.key, p.text) for p in found]


def change(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_formula_has_none() -> None:
    assert problems_of(GOOD) == []


def test_shipped_formulas_have_none() -> None:
    paths = list_formulas((shipped_folder(),))
    assert [p.name for p in paths] == [
        "mol-gtft-finetune.formula.toml",
        "mol-gtft-preference.formula.toml",
        "mol-gtft-quickstart.formula.toml",
    ]
    for path in paths:
        formula = read_formula(path)
        require_clean(formula)
        assert f"gtft run {formula.name}" in path.read_text("utf-8").split("\nformula")[0]


TEN = """formula = "ten"
description = "Trains something"
version = "1.0"
type = "workflow"
pour = true

[vars.epochs]
default = 3

[vars.role]
default = "witness"
required = true

[gtft]
role = "{{rolle}}"

[gtft.base]
quantization = "nf5"

[[gtft.harvest.sources]]
type = "beads"
path = "beads"

[[gtft.harvest.sources]]
type = "mail"
path = "mail"

[gtft.train]
learing_rate = 1e-4
epochs = 0
lora = { r = "sixteen" }

[[steps]]
id = "harvest"
title = "Harvest"

[[steps]]
id = "train"
needs = ["harvst"]

[[steps]]
id = "eval"
title = "Eval"
needs = ["train"]

[[steps]]
id = "card"
title = "Card"
needs = ["eval"]
"""


def test_many_errors_are_told_at_once_with_file_line_and_key() -> None:
    formula = parse_formula(TEN.encode(), source=Path("ten.formula.toml"))
    with pytest.raises(RecipeError) as e:
        require_clean(formula)
    found = {(p.line, p.key): p.text for p in e.value.problems}
    assert set(found) == {
        (2, "description"),
        (3, "version"),
        (8, "vars.epochs.default"),
        (12, "vars.role.required"),
        (15, "gtft.role"),
        (18, "gtft.base.quantization"),
        (25, "gtft.harvest.sources[1].type"),
        (29, "gtft.train.learing_rate"),
        (30, "gtft.train.epochs"),
        (31, "gtft.train.lora.r"),
        (37, "steps[1].title"),
        (39, "steps[1].needs"),
    }
    assert "did you mean train.learning_rate?" in found[29, "gtft.train.learing_rate"]
    assert "must be > 0, is 0" in found[30, "gtft.train.epochs"]
    assert "should be a whole number, is 'sixteen'" in found[31, "gtft.train.lora.r"]
    assert "did you mean role?" in found[15, "gtft.role"]
    assert 'did you mean "nf4"?' in found[18, "gtft.base.quantization"]
    text = str(e.value)
    assert "ten.formula.toml:29: gtft.train.learing_rate: " in text
    assert e.value.exit_code == 3


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ('formula = "t"', 'formula = "../t"', 1, "formula", "not a name"),
        ('formula = "t"', 'formula = "other"', 1, "formula", "rename"),
        ("version = 1", "version = 0", 5, "version", "from 1 on"),
        ("version = 1", "version = true", 5, "version", "from 1 on"),
        ('type = "workflow"', 'type = "convoy"', 6, "type", "workflow"),
        ("pour = true", "pour = false", 7, "pour", "must be true"),
        ("pour = true\n", 'pour = true\nepochs = "3"\n', 8, "epochs", "would be lost"),
        ("pour = true\n", 'pour = true\nextends = "x"\n', 8, "extends", "does not belong"),
        ("pour = true\n", "pour = true\n[train]\nepochs = 1\n", 8, "train", "[gtft.train]"),
        ("pour = true\n", "pour = true\n[Gtft.train]\n", 8, "Gtft", "did you mean gtft?"),
        ("pour = true\n", "pour = true\n[source]\na = 1\n", 8, "source", "must be text"),
        ('default = "witness"', "default = 3", 13, "vars.role.default", 'default = "3"'),
        ('default = "witness"', 'defualt = "w"', 13, "vars.role.defualt", "did you mean default?"),
        ('default = "witness"', 'pattern = "["', 13, "vars.role.pattern", "regular expression"),
        ("[vars.role]\n", "[vars]\nepochs = 3\n[vars.role]\n", 13, "vars.epochs", '"3"'),
        ('role = "{{role}}"', 'role = "{{ role }}"', 16, "gtft.role", "without spaces"),
        ('role = "{{role}}"', "role = 3", 16, "gtft.role", "should be text, is 3"),
        ('role = "{{role}}"', 'role = "../x"', 16, "gtft.role", "name of a role"),
        ('role = "{{role}}"\n', "", 15, "gtft.role", "is missing"),
        ('path = "beads"\n', "", 18, "gtft.harvest.sources[0].path", "is missing"),
        ("epochs = 2", "epochs = inf", 23, "gtft.train.epochs", "finite"),
        ("epochs = 2", "epochs = 2024-01-01", 23, "gtft.train.epochs", "date"),
        ("epochs = 2", "seed = 0xffffffffffffffffff", 23, "gtft.train.seed", "too large"),
        ("epochs = 2", "r = 8", 23, "gtft.train.r", "did you mean train.lora.r?"),
        ("epochs = 2", "lora = 8", 23, "gtft.train.lora", "should be a table"),
        ("epochs = 2", "batch = 1.5", 23, "gtft.train.batch", "a whole number"),
        ("epochs = 2", "max_length = 4096", 23, "gtft.train.max_length", "base.nano.context"),
        ("epochs = 2", "version = 1", 23, "gtft.train.version", "not a key of gtft"),
        (
            "epochs = 2",
            "lora.target_modules = 3",
            23,
            "gtft.train.lora.target_modules",
            "text or a list",
        ),
        ('title = "Harvest"', 'title = ""', 27, "steps[0].title", "missing"),
        ('title = "Harvest"', 'title = "H {{nme}}"', 27, "steps[0].title", "not known"),
        ('title = "Harvest"\n', 'title = "H"\nrun = "x"\n', 28, "steps[0].run", "would be lost"),
        ('title = "Harvest"\n', 'title = "H"\npour = true\n', 28, "steps[0].pour", "above [vars]"),
        ('title = "Harvest"\n', 'title = "H"\ngate = "human"\n', 28, "steps[0].gate", "a table"),
        ('needs = ["harvest"]', 'depends_on = ["harvest"]', 32, "steps[1].depends_on", "needs"),
        ('needs = ["harvest"]', 'needs = "harvest"', 32, "steps[1].needs", "a list"),
        ('id = "eval"', 'id = "train"', 35, "steps[2].id", "used twice"),
        ('id = "eval"', 'id = "evals"', 35, "steps[2].id", "did you mean eval?"),
        ('needs = ["train"]', 'needs = ["card"]', 37, "steps[2].needs", "eval → card → eval"),
        ('needs = ["train"]', 'needs = ["harvest"]', 37, "steps[2].needs", "comes after train"),
    ],
)
def test_each_mistake_is_told_on_its_line(
    old: str, new: str, line: int, key: str, words: str
) -> None:
    found = problems_of(change(old, new))
    assert any(f[:2] == (line, key) and words in f[2] for f in found), found


def test_a_top_level_key_below_a_table_is_recognised() -> None:
    text = change("version = 1\n", "").replace("[gtft]\n", "[gtft]\nversion = 1\n")
    assert (
        15,
        "gtft.version",
        "is a key of the formula, not of gtft: move it above the first table",
    ) in (problems_of(text))


def test_a_value_that_waits_for_a_required_variable_is_not_judged_yet() -> None:
    text = change('default = "witness"', "required = true").replace(
        "epochs = 2", 'epochs = "{{role}}"'
    )
    assert problems_of(text) == []


def test_words_in_multiline_text_do_not_move_the_lines() -> None:
    text = change(
        "Run: gtft run {{issue}}\n", "Run: gtft run {{issue}}\n[gtft.train]\nepochs = 0\n"
    )
    text = text.replace("epochs = 2", "epochs = -1")
    assert [(line, key) for line, key, _ in problems_of(text)] == [(25, "gtft.train.epochs")]


def test_gtft_must_be_a_table() -> None:
    head, rest = GOOD.split("[gtft]")
    text = "gtft = 3\n" + head + "[[steps]]" + rest.split("[[steps]]", 1)[1]
    assert (1, "gtft", "must be a table: [gtft]") in problems_of(text)


_NAMES = st.sampled_from(
    [
        "role",
        "train",
        "epochs",
        "lora",
        "r",
        "harvest",
        "sources",
        "type",
        "path",
        "eval",
        "gates",
        "capabilities",
        "suites",
        "scope",
        "base",
        "nano",
        "x",
        "effort",
        "target_modules",
    ]
)
_LEAVES = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "{{role}}", "{{no}}", "{{ a }}", "quick", "witness", "rig:a", "\x1b"]),
    st.datetimes(),
)
_TABLES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["formula", "version", "vars", "steps", "pour", "type", "description"]),
        _TABLES,
    ),
    st.one_of(_TABLES, st.dictionaries(_NAMES, _TABLES, max_size=5)),
)
@settings(max_examples=200, deadline=None)
def test_any_toml_is_judged_without_a_crash(top: dict[str, Any], gtft: Any) -> None:
    text = tomli_w.dumps({**top, "gtft": gtft})
    formula = parse_formula(text.encode(), source=Path("w.formula.toml"))
    found = lint(formula)
    last = text.count("\n") + 1
    assert all(1 <= p.line <= last for p in found)
    with pytest.raises(RecipeError) as e:
        resolve_formula(formula)
    assert e.value.problems
