"""Who may speak in a swarm's DHT, by Hivemind's own rules, and what its peers tell each other."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2
from hivemind.proto.auth_pb2 import AccessToken
from hivemind.utils.auth import AuthRole, AuthRPCWrapper

from gtft.swarm.document import read_members, token_text
from gtft.swarm.founding import admit, expel
from gtft.swarm.keys import IDENTITY, read_operator
from gtft.swarm.place import (
    MEMBERS,
    PROGRESS,
    Seat,
    SeatFile,
    ask_to_leave,
    leave_requested,
    sit_down,
)
from gtft.swarm.report import check_table
from gtft.training.swarm.authorizer import OperatorTokens, make_authorizer
from gtft.training.swarm.progress import Progress, RoundNote
from gtft.training.swarm.roster import Roster
from swarm_case import NOW, hand_over, make_peer, make_swarm


def seat_of(workspace: Path, folder: Path, run: str = "run-1") -> Seat:
    identity = make_peer(workspace, "x")[1]
    file = SeatFile(run=run, listen=("/ip4/127.0.0.1/tcp/0",))
    return sit_down(workspace, folder, file, read_members(folder / MEMBERS), identity.peer_id)


class Town:
    """Ada founds, bob and cyd are invited; each has its own copy of the member file."""

    def __init__(self, root: Path, now: Callable[[], float]) -> None:
        self.root, self.now = root, now
        cards = [make_peer(root / name, name)[0] for name in ("bob", "cyd")]
        self.operated = make_swarm(root / "ada", *cards)
        self.folders = {"ada": self.operated}
        for name in ("bob", "cyd"):
            self.folders[name] = hand_over(self.operated, root / name)

    def roster(self, name: str) -> Roster:
        return Roster(self.folders[name], self.now)

    def seat(self, name: str) -> Seat:
        return seat_of(self.root / name, self.folders[name])

    def authorizer(self, name: str) -> OperatorTokens:
        return make_authorizer(self.seat(name), self.roster(name), self.now)

    def progress(self, name: str) -> Progress:
        return Progress(self.seat(name), "run-1", self.roster(name), self.now)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path, lambda: NOW + 60)


def call(client: OperatorTokens, server: OperatorTokens) -> bool:
    """A ping from one to the other through Hivemind's own wrapper; whether it was answered."""

    class Servicer:
        async def rpc_ping(self, request: Any, _context: Any) -> Any:
            return dht_pb2.PingResponse()

    async def ask() -> bool:
        served = AuthRPCWrapper(Servicer(), AuthRole.SERVICER, server)

        class Stub:
            async def rpc_ping(self, request: Any) -> Any:
                return await served.rpc_ping(request, None)

        return (
            await AuthRPCWrapper(Stub(), AuthRole.CLIENT, client).rpc_ping(dht_pb2.PingRequest())
            is not None
        )

    try:
        return asyncio.run(ask())
    except AttributeError:  # a refusal is None, which the client then reads as an answer
        return False


def test_the_peer_id_is_the_one_that_libp2p_makes_of_the_key_file(tmp_path: Path) -> None:
    _, identity = make_peer(tmp_path, "bob")
    data = (tmp_path / "swarm" / IDENTITY).read_bytes()
    assert PeerID.from_identity(data).to_base58() == identity.peer_id


def test_members_answer_each_other(town: Town) -> None:
    assert call(town.authorizer("bob"), town.authorizer("ada"))
    assert call(town.authorizer("ada"), town.authorizer("bob"))


def test_a_stranger_with_the_member_file_gets_no_answer(town: Town, tmp_path: Path) -> None:
    make_peer(tmp_path / "eve", "eve")
    there = hand_over(town.operated, tmp_path / "eve")
    eve = make_authorizer(seat_of(tmp_path / "eve", there), town.roster("bob"), town.now)
    with pytest.raises(AssertionError):
        call(eve, town.authorizer("ada"))
    # With bob's token, but not bob's key.
    token = asyncio.run(town.authorizer("bob").get_token())
    eve._local_access_token = token
    eve.does_token_need_refreshing = lambda _: False  # type: ignore[method-assign]
    assert town.authorizer("ada").is_token_valid(token)
    assert not call(eve, town.authorizer("ada"))


def test_a_request_cannot_be_said_twice(town: Town) -> None:
    bob, ada = town.authorizer("bob"), town.authorizer("ada")

    async def twice() -> tuple[bool, bool]:
        request = dht_pb2.PingRequest()
        await bob.sign_request(request, None)
        copy = dht_pb2.PingRequest.FromString(request.SerializeToString())
        return await ada.validate_request(request), await ada.validate_request(copy)

    assert asyncio.run(twice()) == (True, False)


def test_a_token_holds_only_as_it_was_signed(town: Town, tmp_path: Path) -> None:
    ada = town.authorizer("ada")
    good = asyncio.run(town.authorizer("bob").get_token())
    assert ada.is_token_valid(good)

    def alter(**fields: Any) -> AccessToken:
        token = AccessToken.FromString(good.SerializeToString())
        for name, value in fields.items():
            setattr(token, name, value)
        return token

    other = asyncio.run(town.authorizer("cyd").get_token())
    peer, _, since = good.username.partition(" ")
    for bad in (
        alter(username=other.username),
        alter(username=peer),
        alter(username=f"{peer} {int(since) + 1}"),
        alter(username=f"{peer} -1"),
        alter(public_key=other.public_key),
        alter(public_key=b"\xff"),
        alter(expiration_time="99999999999"),
        alter(expiration_time="x"),
        alter(expiration_time=""),
        alter(signature=other.signature),
        alter(signature=b""),
        AccessToken(),
    ):
        assert not ada.is_token_valid(bad)
    late = make_authorizer(town.seat("ada"), town.roster("ada"), lambda: NOW + 40 * 86400)
    assert not late.is_token_valid(good)
    # The same operator key for another swarm's name.
    operator = read_operator(town.operated / "operator.key")
    text = token_text(
        "crew-000000000000", good.username, good.public_key.decode(), good.expiration_time
    )
    assert not ada.is_token_valid(alter(signature=bytes.fromhex(operator.sign(text))))


def test_who_is_taken_off_is_out_and_who_is_new_is_let_in(town: Town, tmp_path: Path) -> None:
    bob_key, cyd = town.authorizer("bob"), town.authorizer("cyd")
    ada = town.authorizer("ada")
    assert call(bob_key, ada)
    expel(town.operated, "bob")
    assert not call(bob_key, ada)
    assert not town.roster("ada").is_allowed(town.seat("bob").peer_id)
    assert call(bob_key, cyd), "cyd has not heard yet"
    dan, _ = make_peer(tmp_path / "dan", "dan")
    admit(town.operated, [dan], [], None, NOW)
    there = hand_over(town.operated, tmp_path / "dan")
    newcomer = make_authorizer(seat_of(tmp_path / "dan", there), Roster(there, town.now), town.now)
    assert call(newcomer, ada)
    assert call(newcomer, cyd), "its list is newer than cyd's, so it can bring it"


def test_a_longer_stay_renews_everybodys_token(town: Town) -> None:
    ada = town.authorizer("ada")
    before = asyncio.run(ada.get_token())
    admit(town.operated, [], [], 90, NOW)
    assert ada.does_token_need_refreshing(before)
    assert ada.is_token_valid(asyncio.run(ada.get_token()))


class Board:
    """The DHT as peers use it, in one place: a dictionary that answers in futures."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.silent = False

    def store(
        self, key: str, value: Any, expires: float, *, subkey: str, return_future: bool
    ) -> Any:
        entry = SimpleNamespace(value=value, expiration_time=expires)
        if not self.silent:
            self.held.setdefault(key, {})[subkey] = entry
        return self._answer(not self.silent)

    def get(self, key: str, *, latest: bool, return_future: bool) -> Any:
        found = self.held.get(key)
        return self._answer(None if found is None else SimpleNamespace(value=dict(found)))

    def get_visible_maddrs(self) -> list[str]:
        return ["/ip4/127.0.0.1/tcp/5/p2p/QmSomebodyElse"]

    def _answer(self, value: Any) -> Any:
        future: Future[Any] = Future()
        if self.silent:
            future.set_exception(RuntimeError("the DHT process is gone"))
        else:
            future.set_result(value)
        return future


def make_note(round_: int, ok: bool = True, **fields: Any) -> RoundNote:
    given = {
        "members": ("a",), "samples": 32 * round_, "lineage": "ab", "adapter_hash": "sha256:" + "a" * 64,
        "seconds": 1.0, "bytes_sent": 100, "failed_size": 0, "retries": 0, "pulls": 0,
    }  # fmt: skip
    return RoundNote(round_, ok, **{**given, **fields})


def test_the_newest_member_file_reaches_every_peer(town: Town) -> None:
    board = Board()
    bob = town.roster("bob")
    assert not bob.refresh(board)
    expel(town.operated, "cyd")
    assert not town.roster("ada").refresh(board), "ada has it already, and tells"
    assert bob.refresh(board)
    assert [m.name for m in bob.members()] == ["ada", "bob"]
    assert read_members(town.folders["bob"] / MEMBERS).serial == 2
    # What somebody else wrote there changes nothing.
    for name, value in enumerate((b"{}", "text", 5, b"x" * 500_000, board)):
        board.store(
            f"{town.operated.name}_members", value, NOW, subkey=f"n{name}", return_future=True
        )
    assert not bob.refresh(board)
    board.silent = True
    assert not bob.refresh(board)


def test_a_damaged_member_file_does_not_let_anybody_in_or_out(town: Town) -> None:
    roster = town.roster("bob")
    cyd = town.seat("cyd").peer_id
    assert roster.is_allowed(cyd)
    (town.folders["bob"] / MEMBERS).write_bytes(b"{}")
    assert roster.is_allowed(cyd)
    assert not roster.is_allowed("QmStranger")
    (town.folders["bob"] / MEMBERS).unlink()
    assert roster.is_allowed(cyd)
    assert not Roster(town.folders["cyd"], lambda: NOW + 40 * 86400).is_allowed(cyd)


def test_peers_hear_each_others_figures_and_nothing_forged(town: Town) -> None:
    board = Board()
    ada, bob = town.progress("ada"), town.progress("bob")
    bob.note(make_note(1), board)
    bob.note(make_note(2, ok=False, reason="no group"), board)
    old = dict(board.held[f"{town.operated.name}_rounds"])
    bob.note(make_note(2, pulls=1), board)
    ada.note(make_note(1), board)
    peer = town.seat("bob").peer_id
    (heard,) = ada.others(board).values()
    assert (heard["round"], heard["rounds"], heard["samples"]) == (2, 2, 64)
    assert (heard["failures"], heard["pulls"], heard["bytes_sent"]) == (1, 1, 300)
    assert heard["addresses"] == []
    # An older word of bob's, put there again; a lie in bob's name; noise.
    rounds = board.held[f"{town.operated.name}_rounds"]
    rounds[peer] = old[peer]
    assert ada.others(board)[peer]["seq"] == heard["seq"]
    payload, mark = old[peer].value
    for lie in (
        [payload.replace('"samples":64', '"samples":9'), mark],
        [1, 2],
        "x",
        None,
        [payload],
    ):
        rounds[peer] = SimpleNamespace(value=lie, expiration_time=NOW)
        assert ada.others(board)[peer]["seq"] == heard["seq"]
    rounds["QmStranger"] = old[peer]
    assert list(ada.others(board)) == [peer]
    board.silent = True
    assert list(ada.others(board)) == [peer]


def test_the_evidence_holds_every_word_and_no_clock(town: Town) -> None:
    board = Board()
    ada, bob = town.progress("ada"), town.progress("bob")
    final = "sha256:" + "f" * 64
    for peer in (ada, bob):
        peer.note(make_note(1), board)
    bob.leave(board)
    ada.finish(final, board)
    block = ada.evidence()
    rows = dict(check_table(block))
    assert rows["ada"].final == block["final"] == final
    assert rows["bob"].left
    assert "cyd" not in rows
    assert str(int(town.now())) not in json.dumps(block)
    held = json.loads((town.folders["ada"] / PROGRESS).read_bytes())
    assert [r["round"] for r in held["rounds"]] == [1]
    assert set(held["others"]) == {town.seat("bob").peer_id}


def test_a_peer_that_was_killed_goes_on_counting(town: Town) -> None:
    board = Board()
    first = town.progress("ada")
    first.note(make_note(1), board)
    ask_to_leave(town.folders["ada"])
    assert leave_requested(town.seat("ada"))
    first.leave(board)
    assert not leave_requested(town.seat("ada")), "asked once, left once"
    again = town.progress("ada")
    again.note(make_note(2), board)
    bob = town.progress("bob")
    (heard,) = bob.others(board).values()
    assert (heard["rounds"], heard["round"], heard["left"], heard["bytes_sent"]) == (
        2,
        2,
        False,
        200,
    )
    # Its file is lost: the figures begin anew, and the others still believe what it says now.
    (town.folders["ada"] / PROGRESS).write_text("{")
    lost = town.progress("ada")
    assert lost.evidence()["rounds"] == 0
    lost.note(make_note(3), board)
    assert [r["round"] for r in bob.others(board).values()] == [3]
