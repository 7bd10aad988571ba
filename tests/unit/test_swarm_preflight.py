"""Before a peer starts: every check has its own error and its next command."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from gtft.contract import Job
from gtft.errors import ConflictError, GtftError, InputError, MissingExtra, RecipeError
from gtft.recipe.schema import Recipe
from gtft.swarm.document import Members, read_members
from gtft.swarm.keys import require_swarm_extra
from gtft.swarm.place import (
    MEMBERS,
    PEERS,
    SEAT,
    SeatFile,
    find_seat,
    leave_requested,
    read_known_peers,
    read_seat,
    remember_peers,
    sit_down,
    write_seat,
)
from gtft.swarm.preflight import (
    Answer,
    check_answers,
    check_base,
    check_bootstrap,
    check_dates,
    check_listen,
    check_member,
    check_open,
    check_terms,
    find_open,
)
from gtft.swarm.terms import OWN_KEYS, compare_terms, find_terms
from gtft.training.base import BaseModel
from gtft.training.swarm.opening import open_swarm
from gtft.training.watch import StopRequested
from swarm_case import BASE, NOW, hand_over, make_peer, make_recipe, make_swarm, refused

ADDRESS = "/ip4/127.0.0.1/tcp/31399/p2p/Q"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("town")


@pytest.fixture(scope="module")
def folder(town: Path) -> Path:
    return make_swarm(town)


@pytest.fixture(scope="module")
def members(folder: Path) -> Members:
    return read_members(folder / MEMBERS)


def test_the_missing_extra_says_how_to_get_it() -> None:
    with refused(MissingExtra, "Hivemind") as _:
        require_swarm_extra("linux", lambda _: None)
    with pytest.raises(MissingExtra) as caught:
        require_swarm_extra("linux", lambda _: None)
    assert "--only-binary hivemind" in caught.value.fix
    with refused(MissingExtra, "Windows"):
        require_swarm_extra("win32", lambda _: object())
    require_swarm_extra("linux", lambda _: object())


def test_an_invitation_holds_between_two_dates(members: Members) -> None:
    check_dates(members, NOW)
    check_dates(members, NOW + 29 * 86400)
    with refused(InputError, "ended on"):
        check_dates(members, members.expires)
    with refused(InputError, "begins on"):
        check_dates(members, NOW - 3600)


def test_who_is_not_on_the_list_is_told_how_to_get_there(members: Members, tmp_path: Path) -> None:
    assert check_member(members, members.creator).name == "ada"
    with refused(InputError, "not a member"):
        check_member(members, make_peer(tmp_path, "cyd")[1].peer_id)


def test_a_recipe_that_differs_is_named_key_by_key(members: Members) -> None:
    check_terms(members, find_terms(make_recipe()), "mol-x")
    other = find_terms(make_recipe(learning_rate=0.5, method="dpo"))
    with pytest.raises(RecipeError) as caught:
        check_terms(members, other, "mol-x")
    shown = str(caught.value)
    assert "train.learning_rate: 0.0002 in the swarm, 0.5 here" in shown
    assert 'train.method: "sft" in the swarm, "dpo" here' in shown
    assert len(caught.value.problems) == 2


def test_how_a_peer_trains_on_its_box_is_its_own_matter() -> None:
    free = {"checkpoint_steps": 3, "keep_checkpoints": 7, "packing": "on", "processes": 2,
            "gradient_checkpointing": "on", "report_to": ("tensorboard",)}  # fmt: skip
    assert set(free) == set(OWN_KEYS)
    assert compare_terms(find_terms(make_recipe()), find_terms(make_recipe(**free))) == ()
    harvests = make_recipe().model_copy(update={"scope": ("rig:mine",)})
    assert compare_terms(find_terms(make_recipe()), find_terms(harvests)) == ()


def test_long_values_that_differ_late_are_seen_and_cut() -> None:
    (line,) = compare_terms({"a": "x" * 500 + "1"}, {"a": "x" * 500 + "2"})
    assert len(line) < 200
    (line,) = compare_terms({"\x1b[2Jb": 1, "c": 1}, {"c": 1})
    assert "\x1b" not in line


def test_another_base_is_refused_by_its_content(members: Members) -> None:
    check_base(members, BASE, "tiny")
    with refused(InputError, "trains on tiny"):
        check_base(members, "sha256:" + "c" * 64, "tiny")


def test_an_empty_peer_list_is_refused(members: Members) -> None:
    check_bootstrap(members, members.creator, ())
    check_bootstrap(members, "Qx", (ADDRESS,))
    with refused(InputError, "names no address"):
        check_bootstrap(members, "Qx", ())


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with refused(ConflictError, "cannot listen"):
            check_listen([f"/ip4/127.0.0.1/tcp/{port}"])
        assert find_open([f"/ip4/127.0.0.1/tcp/{port}/p2p/" + "Q" * 46])
    check_listen([f"/ip4/127.0.0.1/tcp/{port}"])
    assert find_open([f"/ip4/127.0.0.1/tcp/{port}/p2p/" + "Q" * 46]) == ()
    check_listen(["/ip4/127.0.0.1/tcp/0"])
    for bad in (
        "127.0.0.1:80",
        "/dns/host/tcp/1",
        "/ip4/1.2.3.4/tcp/99999",
        "",
        "/ip4/256.1.1.1/tcp/1",
    ):
        with pytest.raises(GtftError):
            check_listen([bad])


def test_addresses_that_are_down_are_left_out() -> None:
    up = "/ip4/10.0.0.1/tcp/1/p2p/" + "Q" * 46
    down = "/dns4/away.example/tcp/2/p2p/" + "Q" * 46
    asked: list[tuple[str, int]] = []

    def dial(host: str, port: int) -> bool:
        asked.append((host, port))
        return host == "10.0.0.1"

    assert find_open([down, up, "nonsense"], dial) == (up,)
    assert sorted(asked) == [("10.0.0.1", 1), ("away.example", 2)]
    assert find_open([]) == ()


def test_only_the_creator_may_start_alone(members: Members) -> None:
    check_open(members, True, (ADDRESS,), ())
    check_open(members, False, (ADDRESS,), (ADDRESS,))
    with refused(InputError, "no peer of crew can be reached"):
        check_open(members, False, (ADDRESS,), ())


@pytest.mark.parametrize("skew", [5.0, -5.0, 3.1])
def test_a_clock_that_is_off_is_named(members: Members, skew: float) -> None:
    with refused(InputError, f"clock is {abs(skew):.1f} s {'behind' if skew > 0 else 'ahead'}"):
        check_answers(members, [Answer(ADDRESS, True, True, skew)])


def test_nobody_there_and_nobody_who_accepts_us_are_two_errors(members: Members) -> None:
    down, deaf = Answer(ADDRESS, False, False), Answer(ADDRESS, True, False)
    up = Answer(ADDRESS, True, True, 2.0)
    check_answers(members, [down, deaf, up])
    with refused(InputError, "do not accept this peer"):
        check_answers(members, [down, deaf])
    with refused(InputError, "can be reached"):
        check_answers(members, [down])
    with refused(InputError, "can be reached"):
        check_answers(members, [])


def test_a_seat_leaves_itself_out_and_remembers_others(tmp_path: Path) -> None:
    bob, _ = make_peer(tmp_path / "bob", "bob", 31401)
    folder = make_swarm(tmp_path / "ada", bob, port=31400)
    document = read_members(folder / MEMBERS)
    ada, bob_member = document.members
    file = SeatFile(run="run-1", listen=("/ip4/127.0.0.1/tcp/0",))
    seat = sit_down(tmp_path / "ada", folder, file, document, ada.peer_id)
    assert seat.creator
    assert seat.initial_peers == (f"/ip4/127.0.0.1/tcp/31401/p2p/{bob_member.peer_id}",)
    met = f"/ip4/10.0.0.9/tcp/5/p2p/{bob_member.peer_id}"
    own = f"/ip4/10.0.0.8/tcp/5/p2p/{ada.peer_id}"
    remember_peers(folder, [met, own, "/unix/etc/passwd", "../x"])
    assert sit_down(tmp_path / "ada", folder, file, document, ada.peer_id).initial_peers[1:] == (
        met,
    )
    assert read_known_peers(folder) == (met, own)
    (folder / PEERS).write_text("[[[")
    assert read_known_peers(folder) == ()
    assert not leave_requested(seat)
    assert seat.dht_options()["use_relay"] is False
    assert replace(seat, host_maddrs=("/ip4/0.0.0.0/tcp/1",)).dht_options()["use_relay"] is True


def test_a_damaged_seat_is_an_error_not_another_swarm(tmp_path: Path) -> None:
    folder = make_swarm(tmp_path)
    assert find_seat(tmp_path, "run-1") is None
    write_seat(folder, SeatFile(run="run-1", listen=("/ip4/127.0.0.1/tcp/0",)))
    found = find_seat(tmp_path, "run-1")
    assert found is not None and found[0] == folder
    (folder / SEAT).write_text('{"run": "run-1"}')
    with refused(InputError, "cannot be used"):
        read_seat(folder)


class Quiet:
    stop_requested = False

    def progress(self, *_: object) -> None: ...
    def metric(self, *_: object) -> None: ...
    def checkpoint(self, *_: object) -> None: ...
    def warn(self, *_: object) -> None: ...


def make_job(workspace: Path, run: str) -> Job:
    return Job(
        run_id=run, stage="train", bead_id="b", actor="me", recipe={}, recipe_hash="sha256:r",
        workspace=workspace, workdir=workspace / "work", artifacts=workspace / "artifacts", seed=1,
        root=workspace, store_url="",
    )  # fmt: skip


def make_base(folder: Path) -> BaseModel:
    return BaseModel("tiny", folder, "tiny", None, "none", (("config.json", "b"),))


def try_open(workspace: Path, recipe: Recipe, now: float = NOW) -> None:
    job, base = make_job(workspace, "run-1"), make_base(workspace)
    open_swarm(job, recipe, base, Quiet(), lambda: 0.0, lambda: now, patience_s=0.0)


def test_a_run_does_not_start_in_a_swarm_that_it_does_not_fit(tmp_path: Path) -> None:
    with refused(InputError, "belongs to no swarm"):
        try_open(tmp_path / "none", make_recipe())
    bob, _ = make_peer(tmp_path / "bob", "bob")
    cyd = tmp_path / "cyd"
    make_peer(cyd, "cyd")
    folder = make_swarm(tmp_path / "ada", bob)
    hand_over(folder, tmp_path / "bob", "run-1")
    hand_over(folder, cyd, "run-1")
    with refused(InputError, "not a member"):
        try_open(cyd, make_recipe())
    with refused(InputError, "ended on"):
        try_open(tmp_path / "bob", make_recipe(), now=NOW + 365 * 86400)
    with refused(RecipeError, "learning_rate"):
        try_open(tmp_path / "bob", make_recipe(learning_rate=0.5))
    with refused(InputError, "is not the one of crew"):
        try_open(tmp_path / "bob", make_recipe())
    key = cyd / "swarm" / "identity.key"
    key.chmod(0o644)
    with refused(InputError, "can be read by others"):
        try_open(cyd, make_recipe())


def test_a_peer_that_reaches_nobody_does_not_train_alone(tmp_path: Path) -> None:
    bob, _ = make_peer(tmp_path / "bob", "bob")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    folder = make_swarm(tmp_path / "ada", bob, port=free, base=make_base(tmp_path).id)
    hand_over(folder, tmp_path / "bob", "run-1")
    with refused(InputError, "no peer of crew can be reached"):
        try_open(tmp_path / "bob", make_recipe())
    job, base = make_job(tmp_path / "bob", "run-1"), make_base(tmp_path)
    ticks = iter(range(100))
    told: list[str] = []

    class Asked(Quiet):
        stop_requested = False

        def progress(self, *args: object) -> None:
            told.append(str(args[-1]))
            self.stop_requested = True

    with pytest.raises(StopRequested, match="before it met crew"):
        open_swarm(
            job,
            make_recipe(),
            base,
            Asked(),
            lambda: float(next(ticks)),
            lambda: NOW,
            patience_s=9.0,
        )
    assert told == ["waiting for a peer of crew"]
