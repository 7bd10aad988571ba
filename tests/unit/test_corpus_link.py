"""Role, rig, actor and bead by what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtft.corpus.example import Conversation, Labels
from gtft.corpus.link import (
    apply_record,
    link_session,
    parse_actor,
    parse_beacon,
    parse_cwd,
    parse_prime,
    read_recorded,
)


@pytest.mark.parametrize(
    ("written", "role", "rig", "actor"),
    [
        ("gizmo/polecats/nux", "polecat", "gizmo", "gizmo/polecats/nux"),
        ("polecat nux (rig: gizmo)", "polecat", "gizmo", "gizmo/polecats/nux"),
        ("crew ann (rig: my-rig)", "crew", "my-rig", "my-rig/crew/ann"),
        ("my_rig/crew/ann", "crew", "my_rig", "my_rig/crew/ann"),
        ("witness (rig: gizmo)", "witness", "gizmo", "gizmo/witness"),
        ("gizmo/refinery", "refinery", "gizmo", "gizmo/refinery"),
        ("dog rex", "dog", None, "deacon/dogs/rex"),
        ("mayor", "mayor", None, "mayor"),
        ("mayor/", "mayor", None, "mayor"),
    ],
)
def test_both_spellings_of_an_address(written: str, role: str, rig: str | None, actor: str) -> None:
    labels = parse_actor(written)
    assert labels is not None
    assert (labels.role, labels.rig, labels.actor) == (role, rig, actor)


@pytest.mark.parametrize("written", ["", "witness", "somebody", "a/b/c/d", "src/main", "Ann Lee"])
def test_what_is_no_address_stays_unknown(written: str) -> None:
    assert parse_actor(written) is None


def test_a_beacon_names_the_bead_but_not_a_molecule() -> None:
    head = "[GAS TOWN] gizmo/witness <- deacon • 2026-03-01T09:12 • "
    assert (labels := parse_beacon(f"{head}assigned:gz-4k2.1\nmore")) is not None
    assert (labels.role, labels.rig, labels.bead) == ("witness", "gizmo", "gz-4k2.1")
    assert (labels := parse_beacon(f"{head}patrol:mol-witness-patrol")) is not None
    assert labels.bead is None


def test_the_prime_line() -> None:
    labels = parse_prime("x\n[GAS TOWN] role:gizmo/polecats/nux pid:12 session:abc\n")
    assert labels is not None
    assert (labels.role, labels.actor) == ("polecat", "gizmo/polecats/nux")


@pytest.mark.parametrize(
    ("cwd", "actor"),
    [
        ("/srv/town/gizmo/polecats/nux/src", "gizmo/polecats/nux"),
        ("/srv/town/gizmo/refinery/rig", "gizmo/refinery"),
        ("/srv/town/gizmo/witness", "gizmo/witness"),
        ("/srv/town/mayor", "mayor"),
        ("/srv/town/deacon/dogs/rex", "deacon/dogs/rex"),
        ("/home/mayor", None),
        ("/Users/ann/Code/cli", None),
        ("", None),
    ],
)
def test_a_folder_below_a_town(cwd: str, actor: str | None) -> None:
    labels = parse_cwd(cwd)
    assert (labels.actor if labels else None) == actor


def test_the_first_rung_decides_and_is_named() -> None:
    beacon = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:12 • assigned:gz-1a"
    prime = "[GAS TOWN] role:gizmo/polecats/nux pid:1 session:s"
    both = link_session([beacon, prime], "/t/gizmo/witness", None, None)
    assert (both.rung, both.role, both.bead) == ("prime", "polecat", "gz-1a")
    assert link_session([beacon], "/t/town/mayor", None, None).rung == "beacon"
    assert link_session(["hi"], "/t/gizmo/witness", "mayor", None).rung == "cwd"
    assert link_session(["hi"], "/x", "mayor", None).rung == "agent name"
    assert link_session(["hi"], "/x", None, both).rung == "parent session"
    assert link_session(["hi"], None, "Skill Sync", None).rung == "none"


def record(session: str, actor: str, bead: str | None = None) -> str:
    return json.dumps({"session": session, "actor": actor, "role": actor, "bead": bead})


def test_what_the_hook_recorded_comes_before_every_other_rung(tmp_path: Path) -> None:
    path = tmp_path / "sessions.jsonl"
    lines = (
        record("s-1", "gizmo/polecats/nux", "gz-1"),
        "not json",
        "[1]",
        record("s-1", "gizmo/polecats/nux"),
        record("s-2", "nobody we know"),
        record("s-3", "mayor", "../../etc"),
    )
    path.write_text("\n".join(lines) + "\n")
    recorded = read_recorded(path)
    assert sorted(recorded) == ["s-1", "s-3"]
    assert recorded["s-3"].bead is None
    guessed = Labels(role="witness", rig="other", actor="other/witness", bead="ot-9", rung="cwd")
    talk = Conversation("claude-code", "a.jsonl", ("session:s-1",), labels=guessed, session="s-1#a")
    exact = apply_record(talk, recorded)
    assert exact.labels == Labels("polecat", "gizmo", "gizmo/polecats/nux", "gz-1", "hook")
    assert exact.links == ("session:s-1", "bead:gz-1")
    other = Conversation("claude-code", "a.jsonl", ("session:s-2",), labels=guessed, session="s-2")
    assert apply_record(other, recorded) == other


def test_a_workspace_without_a_hook_records_nothing(tmp_path: Path) -> None:
    assert read_recorded(tmp_path / "sessions.jsonl") == {}
