"""Reading formulas: real ones, hostile ones, and where they are found."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.errors import GtftError, InputError, RecipeError, UsageError
from gtft.recipe.find import find_formula, find_named, list_formulas, search_folders, shipped_folder
from gtft.recipe.formula import MAX_BYTES, parse_formula, read_formula
from gtft.recipe.lint import lint
from gtft.recipe.resolve import resolve_formula

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "formulas"
HERE = Path("x.formula.toml")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
def test_every_real_formula_parses_and_is_plain() -> None:
    paths = sorted(REAL.rglob("*.formula.toml"))
    assert len(paths) > 40
    for path in paths:
        formula = read_formula(path)
        assert formula.name == path.name.removesuffix(".formula.toml")
        assert formula.gtft is None
        assert lint(formula) == ()
        with pytest.raises(RecipeError, match="plain formula: gt and bd run it"):
            resolve_formula(formula)


def test_fields_are_read() -> None:
    formula = parse_formula(
        b'formula = "f"\nversion = 4\ndescription = """\nRun: x\nWhat it is.\n"""\n'
        b'[vars]\nshort = "s"\n[vars.long]\nrequired = true\nenum = ["a", "b"]\n'
        b'[gtft]\nrole = "witness"\n'
        b'[[steps]]\nid = "a"\ntitle = "A"\n[[steps]]\nid = "b"\ntitle = "B"\nneeds = ["a"]\n',
        source=HERE,
    )
    assert (formula.name, formula.version, formula.summary) == ("f", 4, "What it is.")
    assert [(v.name, v.default, v.required) for v in formula.vars] == [
        ("short", "s", False),
        ("long", None, True),
    ]
    assert formula.vars[1].enum == ("a", "b")
    assert [(s.id, s.needs) for s in formula.steps] == [("a", ()), ("b", ("a",))]
    assert formula.gtft == {"role": "witness"}


@pytest.mark.parametrize(
    ("data", "line", "text"),
    [
        (b"a = 1\nb = = 2\n", 2, "not TOML"),
        (b'a = 1\n\n\nb = "open\n', 4, "not TOML"),
        (b"a = 1\na = 2\n", 2, "not TOML"),
        (b'a = 1\nb = "\xff"\n', 2, "not UTF-8"),
        (b"\xef\xbb\xbfa = 1\n", 1, "byte order mark"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, 1, "too deeply"),
        (b"a = " + b"9" * 5000, 1, "cannot be read"),
    ],
)
def test_broken_toml_is_named_with_its_line(data: bytes, line: int, text: str) -> None:
    with pytest.raises(RecipeError) as e:
        parse_formula(data, source=HERE)
    (problem,) = e.value.problems
    assert (problem.file, problem.line) == (str(HERE), line)
    assert text in problem.text


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_read_or_are_refused(data: bytes) -> None:
    try:
        formula = parse_formula(data, source=HERE)
    except RecipeError as e:
        assert e.problems
    else:
        assert formula.name
        lint(formula)


def test_unreadable_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_formula(tmp_path / "none.toml")
    with pytest.raises(InputError, match="is not a file"):
        read_formula(tmp_path)
    (tmp_path / "big.toml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="larger than"):
        read_formula(tmp_path / "big.toml")


def write_named(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.formula.toml"
    path.write_text(f'formula = "{name}"\n')
    return path


def test_search_order(tmp_path: Path) -> None:
    root = tmp_path / "town" / "rig" / "work"
    root.mkdir(parents=True)
    own = write_named(root / "formulas", "mine")
    town = write_named(tmp_path / "town" / ".beads" / "formulas", "mine")
    far = write_named(tmp_path / "town" / ".beads" / "formulas", "far")
    folders = search_folders(root)
    assert find_formula("mine", folders) == own
    assert find_formula("far", folders).resolve() == far.resolve()
    assert find_formula(town, folders) == town
    assert find_formula("mol-gtft-quickstart", folders).parent == shipped_folder()
    own.unlink()
    assert find_formula("mine", folders).resolve() == town.resolve()
    names = [p.name for p in list_formulas(folders)]
    assert names == sorted(names)
    assert {"mine.formula.toml", "mol-gtft-finetune.formula.toml"} <= set(names)


@pytest.mark.parametrize(
    "name", ["../secret", "..", "a/../../b", "a\0b", "", "-x", "a b", "x" * 200, "a\\b", "a\n"]
)
def test_a_name_never_leads_out_of_the_folders(tmp_path: Path, name: str) -> None:
    write_named(tmp_path, "secret")
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError):
        find_named(name, (tmp_path / "in",))


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_asked_for_is_answered(text: str) -> None:
    try:
        assert find_formula(text, (shipped_folder(),)).is_file()
    except GtftError as e:
        assert e.fix


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean mol-gtft-quickstart"):
        find_formula("mol-gtft-quikstart", (shipped_folder(),))


class Installed:
    """What importlib.metadata says of one installed file."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.name, path

    def locate(self) -> Path:
        return self.path


def test_a_wheel_finds_its_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = write_named(tmp_path / "share" / "gtft" / "formulas", "mol-gtft-quickstart")
    files = [Installed(tmp_path / "site" / "gtft" / "__init__.py"), Installed(where)]
    monkeypatch.setattr("importlib.metadata.files", lambda name: files)
    module = tmp_path / "site" / "gtft" / "recipe" / "find.py"
    assert shipped_folder(module) == where.parent


def test_a_wheel_is_told_to_carry_the_formulas() -> None:
    project = tomli.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    data_files = project["tool"]["setuptools"]["data-files"]
    assert data_files["share/gtft/formulas"] == ["formulas/*.formula.toml"]
