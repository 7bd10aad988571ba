"""Role, rig, actor and bead by what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtft.corpus.example import Call, Entry, Evidence, Labels
from gtft.corpus.linking.link import (
    find_claim,
    gather,
    parse_actor,
    parse_beacon,
    parse_branch,
    parse_cwd,
    parse_prime,
)
from gtft.corpus.linking.linker import Linker
from gtft.corpus.linking.town_record import TownRecords, read_recorded


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
        ("/srv/town/deacon/dogs/boot/x", "boot"),
        ("/srv/town/gizmo/mayor/rig", "mayor"),
        ("C:\\gt\\gizmo\\crew\\ann", "gizmo/crew/ann"),
        ("/home/mayor", None),
        ("/Users/ann/Code/cli", None),
        ("", None),
    ],
)
def test_a_folder_below_a_town(cwd: str, actor: str | None) -> None:
    labels = parse_cwd(cwd)
    assert (labels.actor if labels else None) == actor


def test_a_file_gives_its_rungs_in_the_order_of_the_cascade() -> None:
    beacon = "[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:12 • assigned:gz-1a"
    prime = "[GAS TOWN] role:gizmo/polecats/nux pid:1 session:s"
    found = gather([beacon, prime], "/t/gizmo/witness", "mayor")
    assert [(c.rung, c.role, c.bead) for c in found] == [
        ("prime", "polecat", None),
        ("beacon", "witness", "gz-1a"),
        ("cwd", "witness", None),
        ("agent name", "mayor", None),
    ]
    assert [c.confidence for c in found] == sorted((c.confidence for c in found), reverse=True)


def test_what_a_file_does_not_say_is_noted_after_what_it_says() -> None:
    assert [c.rung for c in gather([], None, None)] == ["no prompt", "no cwd"]
    assert [c.rung for c in gather(["hi"], "/x", "Skill Sync")] == ["cwd outside a town"]
    odd = gather(["[GAS TOWN] someone <- x • y • z"], "/t/gizmo/witness", None)
    assert [c.rung for c in odd] == ["cwd", "address not understood"]
    assert odd[-1].role is None and odd[-1].confidence == 0


def test_a_copied_prompt_comes_after_the_folder() -> None:
    beacon = "[GAS TOWN] mayor <- deacon • 2026-03-01T09:12 • assigned:gz-1a"
    cwd = "/t/gizmo/crew/ann"

    def order(text: str, started: str, session: str = "s") -> list[str]:
        return [c.rung for c in gather([text], cwd, None, session, started)]

    # A beacon is local, without a zone: what is within a day's zones may be its own session.
    assert order(beacon, "2026-03-01T17:12:30Z") == ["beacon", "cwd"]
    assert order(beacon, "2026-03-03T09:12:00Z") == ["cwd", "beacon"]
    assert order(beacon, "") == order(beacon, "no time") == ["beacon", "cwd"]
    other = "11111111-2222-4333-8444-555555555555"
    prime = f"[GAS TOWN] role:mayor pid:1 session:{other}"
    assert order(prime, "", "s") == ["cwd"]
    assert order(prime, "", other) == ["prime", "cwd"]


def test_a_quoted_line_of_the_town_is_no_beacon() -> None:
    quoted = "why? [GAS TOWN] mayor <- deacon • 2026-03-01T09:12 • patrol"
    assert parse_beacon(quoted) is None
    assert parse_prime("> [GAS TOWN] role:mayor pid:1 session:x") is None


@pytest.mark.parametrize(
    ("branch", "found"),
    [
        ("polecat/nux/gz-1a.2@mk1", ("nux", "gz-1a.2")),
        ("polecat/nux-mk1", ("nux", None)),
        ("polecat/nux", ("nux", None)),
        ("main", None),
        ("polecat/../x@y z", None),
    ],
)
def test_a_polecats_branch_names_it_and_often_the_bead(branch: str, found: object) -> None:
    assert parse_branch(branch) == found


def run(*commands: object) -> Labels | None:
    return find_claim(
        [
            Entry("assistant", 1, calls=(Call("c", "Bash", {"command": command}),))
            for command in commands
        ]
    )


@pytest.mark.parametrize(
    ("commands", "bead", "rung"),
    [
        (["bd show gz-1", "cd x && bd update gz-2 --claim --json"], "gz-2", "claim"),
        ([["bash", "-lc", "bd update gz-2 --status in_progress"]], "gz-2", "claim"),
        (["bd show gz-1; bd show gz-3", "bd close gz-1 -r done"], "gz-1", "commands"),
        (["gt done --issue gz-7"], "gz-7", "commands"),
        (["bd show gz-1"], "gz-1", "commands"),
        (["bd update gz-1 --claim", "bd update gz-2 --claim"], None, ""),
        (["bd update gz-1 --notes x", "bd ready", "bd show --help", 5, []], None, ""),
        (["echo abd show gz-1"], None, ""),
        (["bd show mol-patrol", "bd show gz-wisp-1"], None, ""),
    ],
)
def test_the_bead_that_a_session_works_on(
    commands: list[object], bead: str | None, rung: str
) -> None:
    found = run(*commands)
    assert (found.bead, found.rung) == (bead, rung) if found else bead is None


def test_hostile_text_costs_no_time() -> None:
    long = "[GAS TOWN] " + "a <- " * 50_000
    gather(
        [long, "\n".join(["[GAS TOWN] role:"] * 20_000), "[GAS TOWN]" + " " * 200_000],
        "/" * 99_999,
        "a" * 99_999,
    )
    run("bd update " * 50_000, "(" + " " * 100_000)
    parse_branch("polecat/" + "a-" * 50_000)


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
    guessed = Labels("witness", "other", "other/witness", "ot-9", "cwd", 0.8)
    linker = Linker(TownRecords(hooks=recorded))
    exact = linker.decide(Evidence("s-1#a", candidates=(guessed,)))
    assert (exact.role, exact.rig, exact.actor) == ("polecat", "gizmo", "gizmo/polecats/nux")
    assert (exact.bead, exact.rung) == ("gz-1", "hook")
    assert linker.decide(Evidence("s-2", candidates=(guessed,))).rung == "cwd"


def test_a_workspace_without_a_hook_records_nothing(tmp_path: Path) -> None:
    assert read_recorded(tmp_path / "sessions.jsonl") == {}
