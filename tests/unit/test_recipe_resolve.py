"""Resolving: variables, the dial, overlays, --set, the hash, and where each value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.errors import GtftError, InputError, RecipeError, UsageError
from gtft.recipe.effort import EFFORT
from gtft.recipe.find import find_formula, shipped_folder
from gtft.recipe.formula import parse_formula
from gtft.recipe.keys import all_keys, write_value
from gtft.recipe.resolve import Resolved, parse_assignments, resolve, resolve_formula
from gtft.recipe.schema import Recipe

TEXT = """formula = "t"
description = "Run: gtft run {{issue}}"
version = 3
pour = true
[vars.issue]
required = true
[vars.role]
default = "witness"
enum = ["witness", "refinery"]
[vars.epochs]
default = "2"
type = "int"
[vars.check]
default = "false"
[vars.where]
required = true
pattern = "[a-z/]+"
[gtft]
role = "{{role}}"
scope = ["rig:{{role}}"]
[gtft.train]
epochs = "{{epochs}}"
seed = 11
outcome_weights = "{{check}}"
[[gtft.harvest.sources]]
type = "beads"
path = "{{where}}/beads"
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
"""


def run(
    *sets: str, overlays: tuple[Path, ...] = (), text: str = TEXT, **variables: str
) -> Resolved:
    formula = parse_formula(text.encode(), source=Path("t.formula.toml"))
    given_vars = {"where": "town", **variables}
    return resolve_formula(formula, variables=given_vars, overlays=overlays, sets=sets)


def refused(*sets: str, text: str = TEXT, **variables: str) -> str:
    with pytest.raises(RecipeError) as e:
        run(*sets, text=text, **variables)
    return str(e.value)


def test_variables_fill_strings_and_take_the_type_of_their_key() -> None:
    r = run(role="refinery", epochs="4", check="true", where="a/b").recipe
    assert (r.role, r.scope) == ("refinery", ("rig:refinery",))
    assert (r.train.epochs, r.train.outcome_weights) == (4.0, True)
    assert r.harvest.sources[0].path == "a/b/beads"


def test_a_filled_value_is_not_filled_again() -> None:
    text = TEXT.replace('pattern = "[a-z/]+"\n', "")
    assert run(text=text, where="{{role}}").recipe.harvest.sources[0].path == "{{role}}/beads"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"rol": "x"}, "--var rol: 'rol' is not known; did you mean role?"),
        ({"role": "mayor"}, "must be one of witness, refinery, is 'mayor'"),
        ({"where": "A"}, "must match [a-z/]+, is 'A'"),
        ({"epochs": "many"}, "must be of type int, is 'many'"),
        ({"role": "x\udc80"}, "bytes that are not text"),
        ({"check": "perhaps"}, "should be true or false, is 'perhaps' (variable check)"),
        (
            {"epochs": "0"},
            "t.formula.toml:22: gtft.train.epochs: must be > 0, is 0.0 (variable epochs)",
        ),
    ],
)
def test_bad_variables_are_refused(variables: dict[str, str], words: str) -> None:
    assert words in refused(**variables)


def test_a_required_variable_needs_a_value_but_the_bead_may_be_absent() -> None:
    formula = parse_formula(TEXT.encode(), source=Path("t.formula.toml"))
    with pytest.raises(RecipeError) as e:
        resolve_formula(formula)
    (problem,) = e.value.problems
    assert (problem.line, problem.key) == (15, "vars.where")
    assert "issue" not in run().variables
    assert run(issue="ft-1").variables["issue"] == "ft-1"


def test_the_bead_cannot_be_used_in_the_recipe_without_one() -> None:
    text = TEXT.replace("seed = 11", 'seed = 11\n[gtft.card]\ncontact = "{{issue}}"')
    assert "t.formula.toml:25: gtft.card.contact: uses {{issue}}" in refused(
        text=text.replace('outcome_weights = "{{check}}"\n', "")
    )
    good = text.replace('outcome_weights = "{{check}}"\n', "")
    assert run(text=good, issue="ft-1").recipe.card.contact == "ft-1"


def test_layers_win_in_order_and_say_so(tmp_path: Path) -> None:
    first = tmp_path / "first.toml"
    first.write_text("[gtft.train]\nseed = 12\nbatch = 2\naccumulation = 3\n")
    second = tmp_path / "second.toml"
    second.write_text("train.batch = 4\n[train.lora]\nr = 5\n")
    r = run("train.accumulation=6", "effort=quick", overlays=(first, second))
    t = r.recipe.train
    assert (t.seed, t.batch, t.lora.r, t.accumulation) == (12, 4, 5, 6)
    says = {
        k: str(r.origins[f"train.{k}"]) for k in ("seed", "batch", "lora.r", "lora.alpha", "warmup")
    }
    assert says == {
        "seed": f"overlay {first}:2",
        "batch": f"overlay {second}:1",
        "lora.r": f"overlay {second}:3",
        "lora.alpha": "effort quick",
        "warmup": "default",
    }
    assert str(r.origins["train.accumulation"]) == "--set train.accumulation=6"
    assert str(r.origins["train.epochs"]) == (
        'formula t.formula.toml:22; variable epochs = "2", its default'
    )
    assert r.document["overlays"][1]["keys"] == {"train": {"batch": 4, "lora": {"r": 5}}}
    assert r.document["sets"] == ["train.accumulation=6", "effort=quick"]


def test_the_dial_moves_what_is_not_given() -> None:
    quick = run("effort=quick").recipe
    assert quick.train.epochs == 2.0
    assert quick.train.lora.r == EFFORT["quick"]["train.lora.r"]
    assert run("effort=standard").recipe == run().recipe
    assert run("effort=thorough").recipe.eval.max_items == EFFORT["thorough"]["eval.max_items"]


def test_the_dial_names_known_keys_and_legal_values() -> None:
    known = {k.path for k in all_keys()}
    for effort, table in EFFORT.items():
        assert set(table) <= known
        run(f"effort={effort}", *(f"{k}={write_value(v)}" for k, v in table.items()))


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
        ("gtft.train.seed = 5", "train.seed", 5),
        ("role=refinery", "role", "refinery"),
        ('role="refinery"', "role", "refinery"),
        ("base.revision=2024", "base.revision", "2024"),
        ("base.revision=1979-05-27", "base.revision", "1979-05-27"),
        ('scope=["rig:a", "rig:b"]', "scope", ["rig:a", "rig:b"]),
        ("harvest.sources.0.path=other", "harvest.sources.0.path", "other"),
        (
            "eval.gates.capabilities.dependencies=0.5",
            "eval.gates.capabilities",
            {"dependencies": 0.5},
        ),
        ("review.self_approval=true", "review.self_approval", True),
        ("card.contact=", "card.contact", ""),
        ("card.contact=a = b", "card.contact", "a = b"),
        ('train.lora.target_modules=["q_proj"]', "train.lora.target_modules", ["q_proj"]),
        ("train.epochs={{epochs}}", "train.epochs", 2.0),
    ],
)
def test_set_takes_toml_or_bare_text(item: str, key: str, value: object) -> None:
    at: Any = run(item).document["recipe"]
    for part in key.split("."):
        at = at[int(part)] if isinstance(at, list) else at[part]
    assert at == value


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            "train.learing_rate=1",
            "gtft.train.learing_rate: is not a key of gtft; did you mean train.learning_rate?",
        ),
        ("epochs=1", "did you mean train.epochs?"),
        ("nonsense", "write --set KEY=VALUE"),
        ("=1", "write --set KEY=VALUE"),
        ("harvest.sources.7.path=x", "no element 7"),
        ("scope.0.x=1", "not a table"),
        ("train.epochs=0", "--set train.epochs=0: gtft.train.epochs: must be > 0"),
        ("train.epochs=nan", "finite"),
        ("role.x=1", "gtft.role: should be text"),
        ("train=3", "gtft.train: should be a table, is 3"),
        ("harvest.sources=[]", "is empty"),
        ("effort=hard", "should be one of"),
    ],
)
def test_bad_sets_are_refused(item: str, words: str) -> None:
    assert words in refused(item)


def test_all_layers_are_refused_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[train]\n\nepoch = 3\n")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 1\n")
    mixed = tmp_path / "mixed.toml"
    mixed.write_text("[gtft]\nrole = 'x'\n[train]\nseed = 1\n")
    formula = parse_formula(
        TEXT.replace("seed = 11", "sed = 1").encode(), source=Path("t.formula.toml")
    )
    with pytest.raises(RecipeError) as e:
        resolve_formula(formula, overlays=(bad, broken, mixed), sets=("x=1",), variables={"y": "1"})
    found = {(Path(p.file).name, p.line, p.key) for p in e.value.problems}
    assert found == {
        ("t.formula.toml", 15, "vars.where"),
        ("t.formula.toml", 23, "gtft.train.sed"),
        ("bad.toml", 3, "gtft.train.epoch"),
        ("broken.toml", 1, ""),
        ("mixed.toml", 3, "train"),
        ("--set x=1", 0, "gtft.x"),
        ("--var y", 0, ""),
    }


def test_a_missing_overlay_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        run(overlays=(tmp_path / "none.toml",))


def test_the_hash_is_of_the_recipe_alone(tmp_path: Path) -> None:
    overlay = tmp_path / "o.toml"
    overlay.write_text("train.seed = 12\n")
    same = [run("train.seed=12"), run(overlays=(overlay,)), run("train.seed=12", issue="ft-1")]
    assert len({r.hash for r in same}) == 1
    assert run().hash != same[0].hash
    assert run().hash == run("train.epochs=2.0").hash == run("train.epochs=2").hash
    assert Recipe.model_validate_json(json.dumps(same[0].document["recipe"])) == same[0].recipe


CHANGES = {
    "text": '"changed"',
    "a whole number": "1000",
    "a number": "0.125",
    "true or false": "true",
    "a list of text": '["changed"]',
}


def test_the_hash_changes_with_any_key() -> None:
    seen = {run().hash: "nothing"}
    for key in all_keys():
        if "[]" in key.path or key.path.endswith(".NAME") or len(key.choices) == 1:
            continue
        others = [c for c in key.choices if c != key.default]
        value = f'"{others[0]}"' if others else CHANGES.get(key.type, "")
        if key.path == "eval.suites":
            value = '["heldout"]'
        if key.path == "train.report_to":
            value = '["mlflow"]'
        special = {
            "scope": '["rig:x"]',
            "base.nano.hidden": "960",
            "base.nano.heads": "4",
            "base.nano.layers": "7",
            "base.nano.context": "2048",
            "harvest.outcomes": "{ merged = 0.5 }",
            "harvest.sources": '[{ type = "beads", path = "x" }]',
            "train.max_length": "999",
            "train.lora.target_modules": '["q"]',
            "eval.gates.capabilities": "{ x = 0.5 }",
            "harvest.canaries": "12",
            "eval.gates.memorisation": "false",
            "eval.candidates": '["base", "tuned", "tuned+prime"]',
            "eval.endpoints": '[{ name = "x", url = "http://localhost/v1", model = "y" }]',
        }
        # Only a base as stored can be trained whole.
        needed = ('base.quantization="none"',) if key.path == "train.adapter" else ()
        r = run(f"{key.path}={special.get(key.path, value)}", *needed)
        assert r.hash not in seen, (key.path, seen.get(r.hash))
        seen[r.hash] = key.path
    assert len(seen) > 40


def test_the_document_is_pure_json_and_names_every_value() -> None:
    r = run(role="refinery")
    assert json.loads(json.dumps(r.document, allow_nan=False)) == r.document
    assert r.document["hash"] == r.hash
    assert (r.formula, r.version) == ("t", 3)
    assert r.document["variables"]["role"] == "refinery"
    assert r.document["origins"]["role"]["variables"] == ["role"]
    assert set(r.document["origins"]) == set(r.origins)


def test_shipped_formulas_resolve(tmp_path: Path) -> None:
    quick = resolve("mol-gtft-quickstart", root=tmp_path)
    assert quick.recipe.base.model == "nano"
    assert quick.recipe.harvest.sources[0].path == "examples/town/transcripts"
    full = resolve(
        "mol-gtft-finetune",
        variables={"transcripts": "t", "beads": "b", "formulas": "f"},
        sets=("base.model=nano",),
        root=tmp_path,
    )
    assert [s.path for s in full.recipe.harvest.sources] == ["t", "b", "f"]
    assert full.recipe.base.model == "nano"
    again = resolve(find_formula("mol-gtft-quickstart", (shipped_folder(),)), root=tmp_path)
    assert again.hash == quick.hash


def test_assignments() -> None:
    assert parse_assignments(("a=1", "b=", "a=x=y")) == {"a": "x=y", "b": ""}
    with pytest.raises(UsageError, match="there is no value"):
        parse_assignments(("a",))


@given(
    st.lists(st.text(max_size=30), max_size=3),
    st.lists(
        st.builds(
            "{}={}".format,
            st.sampled_from(
                ["train", "train.epochs", "scope.0", "harvest.sources.0.path", "role", "a.b.c"]
            ),
            st.text("0123456789e.-+_[]{}=\"',\n abinf\ud800", max_size=12),
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["role", "epochs", "where", "nope", ""]), st.text(max_size=12)),
)
@settings(max_examples=300, deadline=None)
def test_any_options_resolve_or_are_refused(
    wild: list[str], sets: list[str], variables: dict[str, str]
) -> None:
    formula = parse_formula(TEXT.encode(), source=Path("t.formula.toml"))
    try:
        r = resolve_formula(formula, variables=variables, sets=(*wild, *sets))
    except GtftError as e:
        assert isinstance(e, RecipeError) and e.problems
    else:
        assert r.hash == resolve_formula(formula, variables=variables, sets=(*wild, *sets)).hash
        json.dumps(r.document, allow_nan=False)
