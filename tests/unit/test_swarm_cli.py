"""``gtft swarm`` in two workspaces, with a real DHT on loopback where the swarm is asked."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.errors import GtftError, UsageError
from gtft.runner import swarming
from gtft.runner.workspace import open_workspace
from gtft.swarm.document import read_members
from gtft.swarm.place import LEAVE, MEMBERS, list_swarms, read_seat
from run_case import write_formula
from swarm_case import make_peer
from tiny_town import make_town

HERE = Path(__file__).resolve().parents[1]
SWARM = "[gtft.train.swarm]\nevery = 2\nrounds = 3\n"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> "Box":
    return Box(tmp_path_factory.mktemp("box"))


def write_base(folder: Path, words: dict[str, int]) -> Path:
    """A base without a weight, which nothing here loads."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps(words))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


class Box:
    """Two workspaces beside one tiny town's data, and a base that they share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_town(root)
        write_formula(root)
        self.base = write_base(root / "base", {})
        self.port = find_port()

    def call(self, who: str, *args: str) -> Any:
        with chdir(self.root):
            return CliRunner().invoke(main, ["--workspace", str(self.root / who), "swarm", *args])

    def data(self, who: str, *args: str) -> Any:
        result = self.call(who, *args, "--json")
        if isinstance(result.exception, GtftError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.output)["data"]

    def recipe(self, *more: str) -> tuple[str, ...]:
        return ("mol-gtft-tiny", "--set", f'base.model="{self.base}"', *more)

    def files(self, who: str) -> set[str]:
        home = self.root / who
        return {
            str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and ".db" not in p.name
        }


def find_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def peer_up(workspace: Path, skew: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """The DHT of a seated workspace, in a process of its own (tests/swarm_host.py)."""
    command = [sys.executable, str(HERE / "swarm_host.py"), str(workspace), str(skew)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as child:
        assert child.stdin and child.stdout
        try:
            assert child.stdout.readline() == "up\n"
            yield child
            child.stdin.close()
            assert child.wait(60) == 0
        finally:
            child.kill()


def do_round(child: subprocess.Popen[str]) -> list[int]:
    """[number of its member file, records it has heard]."""
    assert child.stdin and child.stdout
    child.stdin.write("round\n")
    child.stdin.flush()
    return [int(n) for n in child.stdout.readline().split()]


@pytest.fixture(scope="module")
def made(box: Box) -> dict[str, Any]:
    """Ada's swarm, to which bob is invited."""
    card = box.data("bob", "id", "--name", "bob")
    (box.root / "bob.json").write_text(json.dumps(card))
    listen = f"/ip4/127.0.0.1/tcp/{box.port}"
    plan = box.data("ada", "create", *box.recipe(), "--name", "crew", "--allow", "bob.json",
                    "--listen", listen, "--dry-run")  # fmt: skip
    assert plan["members"] == ["creator", "bob"]
    assert "swarm" not in plan
    assert not [f for f in box.files("ada") if "swarm" in f], "a dry run leaves no key"
    created: dict[str, Any] = box.data(
        "ada", "create", *box.recipe(), "--name", "crew", "--allow", "bob.json", "--listen", listen
    )
    return created


def join(box: Box, made: dict[str, Any], *more: str) -> Any:
    listen = f"/ip4/127.0.0.1/tcp/{find_port()}"
    return box.data("bob", "join", made["invitation"], *box.recipe(), "--listen", listen, *more)


def test_a_card_is_a_line_of_json(box: Box) -> None:
    shown = box.call("bob", "id", "--name", "bob", "--announce", "/ip4/1.2.3.4/tcp/5").output
    card = json.loads(shown)
    assert card["peer_id"] == make_peer(box.root / "bob", "bob")[1].peer_id
    assert "PRIVATE" not in shown
    for bad in (("--name", "B/b"), ("--announce", "host:5")):
        with pytest.raises(UsageError):
            box.data("bob", "id", *bad)


def test_create_signs_a_member_file_and_seats_a_run(box: Box, made: dict[str, Any]) -> None:
    (folder,) = list_swarms(box.root / "ada")
    assert folder.name == made["swarm"]
    members = read_members(Path(made["invitation"]), swarm=made["swarm"])
    assert [m.name for m in members.members] == ["creator", "bob"]
    assert members.terms["train"]["engine"] == "swarm"
    assert members.bootstrap[0] == f"/ip4/127.0.0.1/tcp/{box.port}/p2p/{members.creator}"
    seat = read_seat(folder)
    assert seat is not None and seat.run == made["run"]
    run = open_workspace(box.root / "ada").store.find_run(made["run"])
    assert run is not None and run.recipe["recipe"]["train"]["engine"] == "swarm"
    assert b"PRIVATE" not in Path(made["invitation"]).read_bytes()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--name", "crew"), "here already"),
        (("--name", "../x"), "cannot be the name"),
        (("--name", "two", "--listen", "/ip4/0.0.0.0/tcp/0"), "reach this machine"),
        (("--name", "two", "--allow", "bob.json", "--allow", "bob.json"), "twice"),
        (("--name", "two", "--allow", "away.json"), "away.json"),
        (("--name", "two", "--bootstrap", "1.2.3.4:5"), "is no address"),
        (("--name", "two", "--set", 'base.model="nano"'), "nano"),
        (("--name", "two", "--run", "run-none"), "no run"),
    ],
)
def test_create_says_what_is_wrong_and_leaves_nothing(
    box: Box, made: dict[str, Any], args: tuple[str, ...], text: str
) -> None:
    before = box.files("ada")
    listen = (
        ()
        if "--listen" in args
        else ("--listen", "/ip4/127.0.0.1/tcp/0", "--announce", "/ip4/127.0.0.1/tcp/9")
    )
    with pytest.raises(GtftError, match=text):
        box.data("ada", "create", *box.recipe(), *listen, *args)
    assert box.files("ada") == before


def test_a_swarm_that_does_not_answer_is_not_joined(box: Box, made: dict[str, Any]) -> None:
    before = box.files("bob")
    with pytest.raises(GtftError, match="no peer of crew can be reached"):
        join(box, made)
    assert box.files("bob") == before


def test_a_recipe_that_differs_is_refused_before_anything_starts(
    box: Box, made: dict[str, Any]
) -> None:
    with pytest.raises(GtftError) as caught:
        join(box, made, "--set", "train.learning_rate=0.5", "--offline")
    assert "train.learning_rate: 0.01 in the swarm, 0.5 here" in str(caught.value)
    other = write_base(box.root / "other", {"a": 1})
    with pytest.raises(GtftError, match="is not the one of crew"):
        join(box, made, "--set", f'base.model="{other}"', "--offline")


def test_who_was_not_invited_cannot_join(box: Box, made: dict[str, Any]) -> None:
    with pytest.raises(GtftError, match="no key"):
        box.data("eve", "join", made["invitation"], *box.recipe(), "--offline")
    box.data("eve", "id")
    with pytest.raises(GtftError, match="not a member"):
        box.data("eve", "join", made["invitation"], *box.recipe(), "--offline")
    assert list_swarms(box.root / "eve") == []


def test_a_clock_that_is_off_is_named_before_anything_starts(
    box: Box, made: dict[str, Any]
) -> None:
    with (
        peer_up(box.root / "ada", skew=5.0),
        pytest.raises(GtftError, match=r"clock is [45]\.\d s behind"),
    ):
        join(box, made)
    assert list_swarms(box.root / "bob") == []


def test_two_workspaces_and_a_swarm_between_them(box: Box, made: dict[str, Any]) -> None:
    with peer_up(box.root / "ada") as ada:
        tried = join(box, made, "--dry-run")
        assert tried["dry_run"] and list_swarms(box.root / "bob") == []
        joined = join(box, made)
        assert (joined["swarm"], joined["member"]) == (made["swarm"], "bob")
        (folder,) = list_swarms(box.root / "bob")
        seat = read_seat(folder)
        assert seat is not None and seat.run == joined["run"]
        with pytest.raises(GtftError, match="takes part in"):
            join(box, made)
        assert do_round(ada) == [1, 0]
        view = box.data("bob", "status", "crew")
        assert view["source"] == "swarm"
        rows = {m["name"]: m for m in view["members"]}
        assert (rows["creator"]["state"], rows["creator"]["samples"]) == ("training", 128)
        assert rows["bob"]["us"] and rows["bob"]["state"] == "away"
        with peer_up(box.root / "bob") as bob:
            assert do_round(bob) == [1, 1]
            # Another is invited while they run: the new list gets around by itself.
            (box.root / "cyd.json").write_text(json.dumps(box.data("cyd", "id", "--name", "cyd")))
            assert box.data("ada", "invite", "crew", "cyd.json", "--dry-run")["dry_run"]
            assert read_members(folder / MEMBERS).serial == 1
            assert box.data("ada", "invite", "crew", "cyd.json")["members"][-1] == "cyd"
            assert do_round(ada) == [2, 1]
            assert do_round(bob) == [2, 1]
            assert read_members(folder / MEMBERS).find(rows["bob"]["peer_id"]) is not None
            # And one is taken off: it gets no answer any more.
            assert "bob" not in box.data("ada", "remove", "crew", "bob")["members"]
            assert do_round(ada)[0] == 3
            away = box.data("bob", "status", "crew")
            assert away["source"] == "file" and "do not accept" in away["away"]
    text = box.call("ada", "status", "--offline").output
    assert "creator (us) (creator)" in text and "not asked" in text


def test_only_the_operator_invites_and_removes(box: Box, made: dict[str, Any]) -> None:
    with pytest.raises(GtftError, match="not the operator"):
        box.data("bob", "invite", "crew", "bob.json")
    with pytest.raises(GtftError, match="not the operator"):
        box.data("bob", "remove", "crew", "creator", "--dry-run")
    with pytest.raises(GtftError, match="creator stays"):
        box.data("ada", "remove", "crew", "creator")


def test_leaving_needs_a_training(
    box: Box, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GtftError, match="nothing of ours trains"):
        box.data("ada", "leave", "crew")
    monkeypatch.setattr(swarming, "is_training", lambda *_: True)
    (folder,) = list_swarms(box.root / "ada")
    assert box.data("ada", "leave", "--dry-run")["dry_run"]
    assert not (folder / LEAVE).exists()
    assert box.data("ada", "leave")["run"] == made["run"]
    assert (folder / LEAVE).exists()
    with pytest.raises(GtftError, match="no swarm"):
        box.data("ada", "leave", "../crew")


def test_a_worker_that_does_not_answer_ends_with_its_group(tmp_path: Path) -> None:
    with pytest.raises(GtftError, match="could not"):
        swarming.ask_worker(
            {"do": "look", "workspace": str(tmp_path), "folder": "x"}, os.environ, 0.05
        )
    with pytest.raises(GtftError, match="no such request"):
        swarming.ask_worker({"do": "else"}, os.environ, 60)


def test_a_run_that_is_there_takes_the_seat(box: Box) -> None:
    sets = box.recipe("--set", 'train.engine="swarm"')
    with chdir(box.root):
        home = ["--workspace", str(box.root / "eva")]
        said = CliRunner().invoke(main, [*home, "dispatch", *sets, "--yes", "--json"])
        alone = CliRunner().invoke(main, [*home, "dispatch", *box.recipe(), "--yes", "--json"])
    runs = [json.loads(r.output)["data"]["id"] for r in (said, alone)]
    listen = ("--listen", f"/ip4/127.0.0.1/tcp/{find_port()}")
    create = ("create", *sets, "--name", "solo", *listen)
    with pytest.raises(GtftError, match="does not train with peers"):
        box.data("eva", *create, "--run", runs[1])
    with pytest.raises(GtftError, match="trains in another way"):
        box.data("eva", *create, "--run", runs[0], "--set", "train.seed=99")
    assert list_swarms(box.root / "eva") == []
    made = box.data("eva", *create, "--run", runs[0])
    assert made["run"] == runs[0]
    with pytest.raises(GtftError, match="takes part in solo"):
        box.data("eva", "create", *sets, "--name", "other", *listen, "--run", runs[0])
    again = box.data("eva", "join", made["invitation"], "--run", runs[0], *listen)
    assert (again["run"], again["member"]) == (runs[0], "creator")
    assert len(open_workspace(box.root / "eva").store.list_runs()) == 2


def test_help_has_an_example_for_every_command() -> None:
    for name in ("id", "create", "invite", "remove", "join", "status", "leave"):
        shown = CliRunner().invoke(main, ["swarm", name, "--help"]).output
        assert f"gtft swarm {name}" in shown and "Example" in shown
