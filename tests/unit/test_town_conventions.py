"""What a town works by, as hashes: the same town gives the same, and gtft's own parts do not count."""

import stat
from pathlib import Path

import pytest

from gtft.town.conventions import MOST_BYTES, read_conventions
from gtft.town.locate import Rig, Town

HELP = "Usage:\n  gt [command]\n\nWork:\n  bead    Beads\n  sling   Assign\n"


@pytest.fixture
def town(tmp_path: Path) -> Town:
    root = tmp_path / "town"
    rig = root / "gizmo"
    for folder in (root, rig):
        for name in (".beads/formulas", "directives", "formula-overlays"):
            (folder / name).mkdir(parents=True)
    (root / ".beads/formulas/mol-witness-patrol.formula.toml").write_text("a = 1\n")
    (root / "directives/witness.md").write_text("Be kind.\n")
    rigs = (Rig("gizmo", "gz", rig, rig / ".beads", "gizmo", "p"),)
    return Town(root, "t", rigs)


def put_program(folder: Path, name: str, version: str, page: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{name} version {version}' || cat <<'X'\n{page}X\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_formulas_directives_and_programs_are_hashed_by_name(town: Town, tmp_path: Path) -> None:
    environ = put_program(tmp_path / "bin", "gt", "1.1.0", HELP)
    found = read_conventions(town, environ)
    assert list(found) == ["commands gt", "directive witness", "formula mol-witness-patrol"]
    assert found["commands gt"].startswith("1.1.0 ")
    assert all(len(v.rpartition(" ")[2]) == 16 for v in found.values())
    assert read_conventions(town, environ) == found


def test_another_version_or_command_is_another_entry(town: Town, tmp_path: Path) -> None:
    seen = {
        read_conventions(town, put_program(tmp_path / f"bin{n}", "gt", version, page))[
            "commands gt"
        ]
        for n, (version, page) in enumerate(
            [("1.1.0", HELP), ("1.2.0", HELP), ("1.1.0", HELP + "  trail  New\n")]
        )
    }
    assert len(seen) == 3


@pytest.mark.parametrize("page", ["", "no commands at all\n"])
def test_a_program_that_is_not_there_or_talks_otherwise_has_no_entry(
    town: Town, tmp_path: Path, page: str
) -> None:
    environ = put_program(tmp_path / "bin", "gt", "1.1.0", page)
    assert "commands gt" not in read_conventions(town, environ)
    assert "commands bd" not in read_conventions(town, {"PATH": str(tmp_path / "none")})


def test_an_overlay_and_a_rigs_own_text_change_the_entry_of_that_name(town: Town) -> None:
    seen = [read_conventions(town, {})]
    (town.root / "gizmo/formula-overlays/mol-witness-patrol.toml").write_text("x = 1\n")
    seen.append(read_conventions(town, {}))
    (town.root / "gizmo/directives/witness.md").write_text("Be quick.\n")
    seen.append(read_conventions(town, {}))
    assert [set(s) for s in seen] == [set(seen[0])] * 3
    assert len({s["formula mol-witness-patrol"] for s in seen}) == 2
    assert len({s["directive witness"] for s in seen}) == 2


@pytest.mark.parametrize(
    "mark", ["gtft: begin", "gtft: begin here", "gtft deploy: begin", "gtft deploy: begin here"]
)
def test_what_gtft_puts_there_does_not_count(town: Town, mark: str) -> None:
    before = read_conventions(town, {})
    (town.root / ".beads/formulas/mol-gtft-finetune.formula.toml").write_text("a = 1\n")
    end = mark.replace("begin", "end").replace(" here", "")
    block = f"<!-- {mark} -->\nAsk gtft advise first.\n<!-- {end} -->\n"
    for role in ("witness", "polecat"):
        path = town.root / "directives" / f"{role}.md"
        path.write_text((path.read_text() if path.exists() else "") + block)
    assert read_conventions(town, {}) == before


def test_a_name_that_may_be_somebodys_is_stated_as_a_hash(town: Town) -> None:
    (town.root / ".beads/formulas/Ann O'Nym@example.formula.toml").write_text("a = 1\n")
    (extra,) = set(read_conventions(town, {})) - {"directive witness", "formula mol-witness-patrol"}
    assert extra.startswith("formula name-") and "Nym" not in extra


def test_a_long_file_differs_by_its_size_at_least(town: Town) -> None:
    path = town.root / "directives/witness.md"
    path.write_bytes(b"x" * (MOST_BYTES + 10))
    first = read_conventions(town, {})
    path.write_bytes(b"x" * (MOST_BYTES + 20))
    assert read_conventions(town, {}) != first
