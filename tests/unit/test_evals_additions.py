"""What stands in front of a prompt: the prime text, and passages of the town's documents."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gtft.errors import InputError
from gtft.evals.asking.candidate import Unavailable
from gtft.evals.asking.passages import read_library
from gtft.evals.asking.prime import name_actor, put_first, read_prime
from gtft.evals.item import CheckSpec, Item


def item(*messages: tuple[str, str]) -> Item:
    chat = tuple({"role": r, "content": c} for r, c in messages)
    check = CheckSpec("json_decision", {})
    return Item("i", "authored", "x", None, "t", "authored", chat, (), check, "{}")


def ask(path: str, root: Path, **environ: str) -> str:
    found = read_prime(path, root=root, role="witness", scope=["rig:pier"], environ=environ)
    return f"{found.source}: {found.text}"


def test_the_prime_text_is_the_file_that_the_recipe_names(tmp_path: Path) -> None:
    (tmp_path / "prime.md").write_text("\nYou watch the pier.\n")
    assert ask("prime.md", tmp_path) == "prime.md: You watch the pier."


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "does not exist"), (b"  \n", "is empty"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_prime_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "p.md").write_bytes(content)
    with pytest.raises(InputError, match=why):
        ask("p.md", tmp_path)


def test_without_a_file_a_town_or_gt_there_is_none_and_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="this is no town"):
        ask("", tmp_path)
    (tmp_path / "mayor").mkdir()
    (tmp_path / "mayor" / "town.json").write_text("{}")
    with pytest.raises(Unavailable, match="gt is not installed"):
        ask("", tmp_path, PATH=str(tmp_path))


def test_what_gt_says_is_taken_without_the_line_that_names_the_session(tmp_path: Path) -> None:
    (tmp_path / "mayor").mkdir()
    (tmp_path / "mayor" / "town.json").write_text("{}")
    gt = tmp_path / "gt"
    gt.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print(f'[GAS TOWN] role:{os.environ[\"GT_ROLE\"]} pid:{os.getpid()} session:x')\n"
        "print('# Context of', os.environ['GT_ROLE'], *sys.argv[1:])\n"
    )
    gt.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert ask("", tmp_path, PATH=path) == (
        "gt prime as pier/witness: # Context of pier/witness prime --dry-run"
    )
    gt.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such agent')\n")
    with pytest.raises(Unavailable, match=r"ended with 1: no such agent"):
        ask("", tmp_path, PATH=path)


def test_agents_are_named_as_the_town_names_them() -> None:
    assert name_actor("mayor", ["rig:pier"]) == "mayor"
    assert name_actor("witness", []) == "witness"
    assert name_actor("polecat", ["rig:pier", "rig:dune"]) == "pier/polecats/gtft"


def test_the_text_stands_before_the_system_message_or_becomes_it() -> None:
    assert put_first("P", item(("user", "q"))) == (
        {"role": "system", "content": "P"},
        {"role": "user", "content": "q"},
    )
    assert put_first("P", item(("system", "s"), ("user", "q")))[0]["content"] == "P\n\ns"


def test_the_best_passages_are_found_and_put_first(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "# Tides\n\nThe sluice opens at low water.\n\n# Cranes\n\nA crane needs two keepers."
    )
    (tmp_path / "docs" / "b.toml").write_text('formula = "bollard"\n')
    (tmp_path / "docs" / "c.md").write_bytes(b"\xff\xfe")
    (tmp_path / "docs" / "d.bin").write_bytes(b"crane")
    library = read_library(["docs"], tmp_path)
    assert (library.files, library.skipped) == (2, {"not UTF-8": 1})
    assert [p.text for p in library.find("who keeps a CRANE?", 3)] == [
        "# Cranes\nA crane needs two keepers."
    ]
    chat = library.extend(item(("user", "when does the sluice open?")), 1)
    assert "The sluice opens" in chat[0]["content"]
    assert chat[1]["content"] == "when does the sluice open?"
    asked = item(("user", "zzz"))
    assert library.extend(asked, 3) == asked.messages


def test_a_long_document_is_cut_and_equal_scores_keep_their_order(tmp_path: Path) -> None:
    text = "\n\n".join(f"lamp {'x ' * 60}" for _ in range(6))
    (tmp_path / "long.md").write_text(text)
    library = read_library(["long.md"], tmp_path)
    assert len(library.passages) == 6
    assert library.find("lamp", 2) == list(library.passages[:2])


def test_documents_that_are_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        read_library(["nowhere"], tmp_path)
    with pytest.raises(Unavailable, match="names none"):
        read_library([], tmp_path)
    (tmp_path / "e").mkdir()
    with pytest.raises(Unavailable, match="no readable text"):
        read_library(["e"], tmp_path)
