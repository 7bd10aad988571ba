"""Swarms on loopback: real peer processes, killed at bad moments. Equal where they must be, or refused."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from swarm_peers import (
    RULES,
    Process,
    Town,
    are_gone,
    call_as_stranger,
    train_alone,
)

NAMES = ("ada", "bob", "cyd", "dan")
EQUAL = 1e-6


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path, NAMES)
    yield town
    town.close()


def compare_rounds(*peers: Process) -> dict[int, int]:
    """How many peers have each round; fails where two of them differ."""
    counts = {}
    for number in range(1, 40):
        kept = [p.folder / f"round-{number}.npy" for p in peers]
        vectors = [numpy.load(path) for path in kept if path.exists()]
        if len(vectors) > 1:
            worst = max(float(abs(v - vectors[0]).max()) for v in vectors)
            assert worst <= EQUAL, f"round {number} differs by {worst}"
        if vectors:
            counts[number] = len(vectors)
    return counts


def find_finals(*peers: Process) -> set[str]:
    return {p.of("done")[0]["final"] for p in peers}


def test_one_comes_late_one_is_killed_and_comes_back_and_all_end_with_one_adapter(
    town: Town,
) -> None:
    town.rules |= {"rounds": 6}
    ada = town.start("ada", pace=0.25)
    at = ada.addresses()
    bob, cyd = town.start("bob", at, pace=0.25), town.start("cyd", at, pace=0.25)
    town.let_go(ada, bob, cyd)
    cyd.reach_round(1)
    dan = town.start("dan", at, pace=0.25)
    entered = dan.wait_for(lambda p: p.of("in"), "the swarm")[0]
    assert entered["round"] >= 1
    assert entered["step"] == 0
    below = cyd.kill()
    assert len(below) >= 3
    assert are_gone(below)
    again = town.start("cyd", at, pace=0.25)
    assert [p.wait() for p in (ada, bob, dan, again)] == [0, 0, 0, 0], again.story()
    assert compare_rounds(ada, bob, dan)[6] == 3
    assert len(find_finals(ada, bob, dan, again)) == 1
    ends = [p.of("done")[0] for p in (ada, bob, dan)]
    # A peer that is waited for meets after fewer steps: as many as any of them did.
    steps = max(e["steps"] for e in ends)
    assert max(e["loss"] for e in ends) < min(train_alone(n, NAMES, steps) for n in NAMES)
    assert max(e["loss"] for e in ends) < min(train_alone(n, NAMES, 0) for n in NAMES)
    for p in (ada, bob, dan):
        assert p.of("closed")[0]["sockets"] == []


def test_bootstrap_is_killed_and_a_newcomer_joins_through_another(town: Town) -> None:
    town.rules |= {"rounds": 6}
    ada = town.start("ada", pace=0.3)
    bob = town.start("bob", ada.addresses(), pace=0.3)
    cyd = town.start("cyd", ada.addresses(), pace=0.3)
    town.let_go(ada, bob, cyd)
    bob.reach_round(1)
    assert are_gone(ada.kill())
    dan = town.start("dan", (*ada.addresses(), *bob.addresses()), pace=0.3)
    assert [p.wait() for p in (bob, cyd, dan)] == [0, 0, 0], dan.story()
    assert max(compare_rounds(ada, bob, cyd, dan)) == 6
    assert len(find_finals(bob, cyd, dan)) == 1


def test_killed_in_the_middle_of_an_exchange_leaves_no_partial_average(town: Town) -> None:
    """The victim dies after it has sent a part: of 20 MB, most was not exchanged yet."""
    size = 5_000_000
    ada = town.start("ada", size=size)
    bob = town.start("bob", ada.addresses(), size=size)
    cyd = town.start("cyd", ada.addresses(), size=size, die_in=2)
    town.let_go(ada, bob, cyd)
    assert cyd.wait() == -signal.SIGKILL
    assert [p.wait() for p in (ada, bob)] == [0, 0], ada.story()
    told = [e["text"] for p in (ada, bob) for e in p.of("warning")]
    assert any("partial exchange" in t for t in told), told
    for p in (ada, bob):
        members = [e["value"] for e in p.of("metric") if e["name"] == "swarm_members"]
        assert members[0] == 3
        assert set(members[1:]) == {2}
    counts = compare_rounds(ada, bob)
    assert counts[2] == 2
    assert max(counts) == RULES["rounds"]
    assert len(find_finals(ada, bob)) == 1


def test_a_fork_is_found_and_healed(town: Town) -> None:
    town.rules |= {"rounds": 5}
    ada = town.start("ada", pace=0.1)
    bob = town.start("bob", ada.addresses(), pace=0.1)
    cyd = town.start("cyd", ada.addresses(), pace=0.1, solo_after=2)
    town.let_go(ada, bob, cyd)
    assert [p.wait() for p in (ada, bob, cyd)] == [0, 0, 0], cyd.story()
    assert any("a fork" in e["text"] for e in cyd.of("warning")), cyd.story()
    assert any(e["code"] == "swarm-pull" for e in cyd.of("warning"))
    (
        cyd.folder / "round-2.npy"
    ).unlink()  # kept before the fork or after: both are told apart below
    assert compare_rounds(ada, bob, cyd)[5] == 3
    assert len(find_finals(ada, bob, cyd)) == 1


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Town, Process]]:
    """A creator that waits for peers; "eve" has an identity but is not on the member list."""
    town = Town(tmp_path_factory.mktemp("waiting"), (*NAMES, "eve"), listed=NAMES)
    ada = town.start("ada")
    town.let_go(ada)
    yield town, ada
    town.close()


def test_a_stranger_gets_no_dht_no_state_and_no_group(waiting: tuple[Town, Process]) -> None:
    town, ada = waiting
    eve = town.start("eve", ada.addresses())
    assert eve.wait() == 4
    assert "lets this one in" in eve.of("failed")[0]["what"]
    entered = ada.wait_for(lambda p: p.of("in"), "its first state")[0]
    at = ada.addresses()[0]
    caller = town.fork("mallory", lambda f: call_as_stranger(at, entered["prefix"], f))
    assert caller.wait() == 0, caller.story()
    answer = json.loads((caller.folder / "stranger.json").read_text())
    assert answer == {"received": 0, "codes": ["PROTOCOL_VIOLATION"]}


def test_a_peer_with_another_recipe_or_base_is_refused(waiting: tuple[Town, Process]) -> None:
    town, ada = waiting
    bob = town.start("bob", ada.addresses(), fingerprint="sha256:" + "0" * 64)
    assert bob.wait() == 4, bob.story()
    assert bob.of("failed")[0]["what"] == "the swarm trains another recipe or base"


def test_a_peer_that_knows_no_address_is_refused(waiting: tuple[Town, Process]) -> None:
    town, _ = waiting
    cyd = town.start("cyd", ())
    assert cyd.wait() == 4
    assert "no address" in cyd.of("failed")[0]["what"]


def test_a_clock_that_is_five_seconds_off_is_named(waiting: tuple[Town, Process]) -> None:
    town, ada = waiting
    dan = town.start("dan", ada.addresses(), clock_off=5.0)
    assert dan.wait() == 4, dan.story()
    what = dan.of("failed")[0]["what"]
    assert re.search(r"clock is (4\.[5-9]|5\.\d) s ahead", what), what


def test_ctrl_c_ends_a_waiting_peer_and_leaves_nothing(waiting: tuple[Town, Process]) -> None:
    _, ada = waiting
    ada.wait_for(lambda p: p.of("in"), "its first state")
    below = ada.wait_for(lambda p: p.of("up"), "its start")[0]["below"]
    time.sleep(1)
    os.kill(ada.pid, signal.SIGINT)
    assert ada.wait() == 130, ada.story()
    assert ada.of("closed")[0]["sockets"] == []
    assert are_gone(below)
