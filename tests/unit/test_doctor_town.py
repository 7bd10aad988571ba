"""Doctor in a town: what it sees, what would fail, and that it never crashes on what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.runner.doctor import examine
from gtft.runner.doctor_town import check_programs, check_server, check_town
from gtft.runner.finding import Finding
from gtft.runner.workspace import Config, TownLink, write_config
from gtft.town.locate import Server, Town
from town_case import DoltServer, find_port, make_beads, make_environ, need_tools


def make_town(root: Path, port: int, beads: Callable[[Path], object] | None = None) -> Path:
    """The files of a town with the rig ``finetune`` (``ft``); ``beads`` makes its database."""
    rig = root / "finetune"
    (root / "mayor").mkdir(parents=True)
    (root / "mayor" / "town.json").write_text('{"type": "town", "version": 2, "name": "tt"}')
    rigs = {"version": 1, "rigs": {"finetune": {"beads": {"prefix": "ft"}}}}
    (root / "mayor" / "rigs.json").write_text(json.dumps(rigs))
    (root / ".dolt-data").mkdir()
    (root / ".dolt-data" / "config.yaml").write_text(
        f"listener: {{host: 127.0.0.1, port: {port}}}\n"
    )
    (root / ".beads").mkdir()
    (root / ".beads" / "routes.jsonl").write_text('{"prefix":"ft-","path":"finetune"}\n')
    if beads is not None:
        beads(rig)
    else:
        (rig / ".beads").mkdir(parents=True)
        metadata = {"dolt_database": "finetune", "project_id": "made-up"}
        (rig / ".beads" / "metadata.json").write_text(json.dumps(metadata))
    return root


def link(root: Path) -> Path:
    """What ``gtft town install`` leaves in the workspace."""
    home = root / ".gtft"
    home.mkdir()
    write_config(home, Config(town=TownLink(rig="finetune")))
    return home


def pick(findings: list[Finding], about: str) -> Finding:
    found = [f for f in findings if f.about == about]
    assert len(found) == 1, [(f.about, f.text) for f in findings]
    return found[0]


def check(root: Path, environ: dict[str, str], path: Path | None = None) -> list[Finding]:
    return list(check_town(path or root / ".gtft", root, environ))


# -- programs


def write_program(folder: Path, name: str, says: str) -> None:
    """A stand-in for a version that cannot be installed here."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "level"),
    [
        ("bd version 1.0.5 (abc)", "ok"),
        ("bd version 1.9.0 (abc)", "ok"),
        ("bd version 1.0.4 (abc)", "wrong"),
        ("bd version 2.0.0 (abc)", "wrong"),
        ("beads", "wrong"),
    ],
)
def test_versions_are_held_against_what_works(tmp_path: Path, says: str, level: str) -> None:
    write_program(tmp_path, "bd", says)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    found = pick(list(check_programs(tmp_path, environ, needed=True)), "bd")
    assert found.level == level
    assert (found.fix == "") == (level == "ok")


def test_programs_that_are_absent_fail_a_linked_town_only(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    for needed, level in ((True, "wrong"), (False, "note")):
        found = list(check_programs(tmp_path, environ, needed=needed))
        assert [(f.about, f.level) for f in found] == [
            ("bd", level),
            ("gt", level),
            # gt calls it, gtft does not.
            ("dolt", "note"),
        ]


def test_the_pinned_programs_are_fine(tmp_path: Path) -> None:
    need_tools("bd", "gt", "dolt")
    found = list(check_programs(tmp_path, make_environ(tmp_path), needed=True))
    assert [(f.about, f.level) for f in found] == [("bd", "ok"), ("gt", "ok"), ("dolt", "ok")]


# -- the server


def test_a_server_that_is_away(tmp_path: Path) -> None:
    found = check_server(Server("127.0.0.1", find_port(), "root", ""))
    assert found.level == "wrong"
    assert found.fix.startswith("gt dolt status")


def test_a_server_that_is_there(dolt_server: DoltServer) -> None:
    assert check_server(Server("127.0.0.1", dolt_server.port, "root", "")).level == "ok"


# -- the town


def test_no_town_at_all(tmp_path: Path) -> None:
    found = check(tmp_path, {"PATH": str(tmp_path)})
    assert [(f.about, f.level) for f in found] == [(n, "note") for n in ("bd", "gt", "dolt")]


def test_doctor_makes_nothing(tmp_path: Path) -> None:
    findings = examine(tmp_path / ".gtft", tmp_path, {"PATH": ""})
    assert pick(findings, "workspace").level == "note"
    assert list(tmp_path.iterdir()) == []


def test_a_town_that_gtft_is_not_installed_in(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    found = check(root, {"PATH": str(tmp_path)})
    assert pick(found, "town").fix == "gtft town install"
    assert {f.level for f in found} == {"note"}


def test_a_linked_town_without_its_server(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    found = check(root, {"PATH": str(tmp_path)}, link(root))
    assert pick(found, "town").level == "ok"
    assert pick(found, "routes").level == "ok"
    assert pick(found, "Dolt server").level == "wrong"


def test_the_rig_is_gone_or_has_no_route(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    home = link(root)
    (root / ".beads" / "routes.jsonl").write_text('{"prefix":"hq-","path":"."}\n')
    assert pick(check(root, {"PATH": ""}, home), "routes").level == "wrong"
    (root / "mayor" / "rigs.json").write_text('{"version": 1, "rigs": {}}')
    found = pick(check(root, {"PATH": ""}, home), "town")
    assert (found.level, "not a rig" in found.text) == ("wrong", True)


def test_a_workspace_in_a_worktree_is_wrong(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    inside = root / "finetune" / "polecats" / "nux" / "finetune" / ".gtft"
    inside.mkdir(parents=True)
    write_config(inside, Config(town=TownLink(rig="finetune", root=str(root))))
    found = pick(check(root, {"PATH": ""}, inside), "workspace")
    assert found.level == "wrong"
    assert str(root / ".gtft") in found.text
    plain = root / "finetune" / "crew" / "max" / ".gtft"
    plain.mkdir(parents=True)
    write_config(plain, Config())
    assert pick(check(root, {"PATH": ""}, plain), "workspace").level == "wrong"


def test_a_damaged_config_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / ".gtft").mkdir()
    (tmp_path / ".gtft" / "config.toml").write_text("town = ")
    findings = examine(tmp_path / ".gtft", tmp_path, {"PATH": ""})
    assert pick(findings, "config").level == "wrong"


def test_parts_that_are_off_are_named(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    home = link(root)

    def list_parts(town: Town, rig: str) -> list[tuple[str, str]]:
        assert (town.root, rig) == (root, "finetune")
        return [("formula mol-a", "installed"), ("plugin", "absent")]

    found = pick(list(check_town(home, root, {"PATH": ""}, list_parts)), "installed")
    assert found.level == "note"
    assert "gtft town install" in found.fix
    assert "plugin (absent)" in found.text
    assert "mol-a" not in found.text


def test_the_wrong_database_is_told(tmp_path: Path, dolt_server: DoltServer) -> None:
    root = make_town(tmp_path / "town", dolt_server.port)
    found = check(root, {"PATH": ""}, link(root))
    assert pick(found, "Dolt server").level == "ok"
    assert pick(found, "database").level == "wrong"


def test_a_linked_town_that_works_is_opened(tmp_path: Path, dolt_server: DoltServer) -> None:
    need_tools("bd", "gt", "dolt")
    root = make_town(
        tmp_path / "town", dolt_server.port, lambda rig: make_beads(rig, dolt_server, "ft")
    )
    findings = examine(link(root), root, dolt_server.environ)
    assert [f for f in findings if f.level == "wrong"] == []
    assert pick(findings, "database").text.startswith("ft, the beads of finetune")
    assert "0 runs" in pick(findings, "store").text


def test_the_command_reports_and_does_not_crash(tmp_path: Path) -> None:
    root = make_town(tmp_path / "town", find_port())
    link(root)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("GT_", "GTFT_"))}
    done = subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", "doctor", "--json"],
        cwd=root, env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    data = json.loads(done.stdout)["data"]
    wrong = {f["about"] for f in data if f["level"] == "wrong"}
    assert "Dolt server" in wrong
    assert all(f["fix"] for f in data if f["level"] == "wrong")
    # Linked by hand, so that nothing else is there.
    installed = next(f for f in data if f["about"] == "installed")
    assert "plugin.md (absent)" in installed["text"]
