"""The member file: what its operator wrote is read, everything else is refused."""

import json
import stat
from pathlib import Path

import pytest

from gtft.artifact import canonical_json
from gtft.errors import ConflictError, InputError, UsageError
from gtft.swarm.document import (
    MOST_BYTES,
    make_member,
    name_swarm,
    parse_members,
    read_members,
    sign_members,
)
from gtft.swarm.founding import admit, check_name_free, expel, read_card
from gtft.swarm.keys import (
    IDENTITY,
    OPERATOR,
    ensure_identity,
    find_peer_id,
    is_signed_by_operator,
    is_signed_by_peer,
    make_operator,
    read_identity,
    read_operator,
)
from gtft.swarm.place import MEMBERS, find_newest, keep_members
from gtft.swarm.report import Record, check_evidence_block, make_table, read_record, sign_record
from swarm_case import BASE, NOW, change, hand_over, make_peer, make_swarm, refused, sign_again


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("town")


@pytest.fixture(scope="module")
def folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    card, _ = make_peer(tmp_path_factory.mktemp("berlin"), "berlin", 31398)
    return make_swarm(home, card)


def test_what_the_operator_wrote_is_read(folder: Path) -> None:
    members = read_members(folder / MEMBERS, swarm=folder.name)
    assert [m.name for m in members.members] == ["ada", "berlin"]
    assert members.creator == members.members[0].peer_id
    assert members.base == BASE
    assert members.bootstrap[1].startswith("/ip4/127.0.0.1/tcp/31398/p2p/Qm")
    assert members.swarm == name_swarm("crew", members.operator)
    assert (
        sign_members(members, read_operator(folder / OPERATOR)) == (folder / MEMBERS).read_bytes()
    )


def test_every_changed_byte_is_refused(folder: Path) -> None:
    good = (folder / MEMBERS).read_bytes()
    for at in range(len(good)):
        for bit in (1, 32):  # 32 turns the case of a letter, and a space into nothing printable
            bad = good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
            with pytest.raises(InputError):
                parse_members(bad)
    for bad in (good[:-1], good + b"\n", good + b" ", b" " + good, b"\xef\xbb\xbf" + good):
        with pytest.raises(InputError):
            parse_members(bad)


def test_only_its_own_operator_can_sign_for_a_swarm(folder: Path, tmp_path: Path) -> None:
    members = read_members(folder / MEMBERS)
    other = make_operator(tmp_path / OPERATOR)
    with refused(InputError, "refused"):
        parse_members(sign_members(members, other))
    # A whole file of another operator under this swarm's name.
    forged = sign_members(change(members, operator=other.public_key), other)
    with refused(InputError, "not that of crew"):
        parse_members(forged)


def test_an_invitation_of_another_swarm_is_refused(folder: Path, tmp_path: Path) -> None:
    other = make_swarm(tmp_path)
    data = (other / MEMBERS).read_bytes()
    with refused(InputError, "another swarm"):
        parse_members(data, swarm=folder.name)
    with pytest.raises(InputError):
        keep_members(folder, data)


def test_a_member_taken_from_another_swarm_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its token was made for that swarm: the same peer, key and date do not make it good here."""
    ours = read_members(folder / MEMBERS)
    other = make_swarm(tmp_path)
    stolen = make_member(
        read_operator(other / OPERATOR),
        other.name,
        "cyd",
        make_peer(tmp_path / "cyd", "cyd")[1].public_key,
        1,
        ours.expires,
    )
    members = [*ours.model_dump(mode="json")["members"], stolen.model_dump(mode="json")]
    with refused(InputError, "the token of cyd"):
        parse_members(sign_again(folder, members=members))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2"),
        ({"swarm": "../../etc-0123456789ab"}, "swarm"),
        ({"swarm": "crew/../x-0123456789ab"}, "swarm"),
        ({"not_before": 2**39, "expires": 5}, "ends before"),
        ({"expires": 10**30}, "expires"),
        ({"expires": "never"}, "expires"),
        ({"recipe": "sha256:" + "0" * 64}, "does not have the hash"),
        ({"terms": {}}, "does not have the hash"),
        ({"members": []}, "members"),
        ({"bootstrap": ["/ip4/127.0.0.1/tcp/31398"]}, "whose it is"),
        ({"bootstrap": ["/unix/tmp/x"]}, "is no address"),
        ({"bootstrap": ["/ip4/127.0.0.1/tcp/99999/p2p/" + "Q" * 46]}, "no such port"),
        ({"creator": "Q" * 46}, "creator"),
        ({"more": 1}, "more"),
        ({"formula": "x" * 300}, "formula"),
    ],
)
def test_even_an_operator_cannot_sign_nonsense(
    folder: Path, changes: dict[str, object], text: str
) -> None:
    with refused(InputError, text):
        parse_members(sign_again(folder, **changes))


def test_a_peer_twice_or_with_anothers_key_is_refused(folder: Path) -> None:
    document = json.loads((folder / MEMBERS).read_bytes())["document"]
    ada, berlin = document["members"]
    with refused(InputError, "twice"):
        parse_members(sign_again(folder, members=[ada, berlin, {**berlin, "name": "cyd"}]))
    with refused(InputError, "is not that of its peer id"):
        parse_members(
            sign_again(folder, members=[ada, {**berlin, "public_key": ada["public_key"]}])
        )
    with refused(InputError, "name"):
        parse_members(sign_again(folder, members=[{**ada, "name": "../x"}, berlin]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        b"null",
        b"[]",
        b'{"document": 1, "signature": 2}',
        b'{"document":{"operator":"zz"},"signature":"00"}\n',
        b'{"document":{"operator":5},"signature":"00"}\n',
        b'{"document":{},"signature":"' + b"0" * 128 + b'"}\n',
        b"[" * 100_000,
        b'{"document":' * 20_000,
        b'{"document":' + b"[" * 900 + b"]" * 900 + b',"signature":"00"}\n',
        b'{"document":{"serial":' + b"9" * 5000 + b'},"signature":"00"}\n',
        b'{"document":{"a":NaN},"signature":"00"}\n',
        b'{"document":{"a":"\\ud800"},"signature":"00"}\n',
        b"{" + b" " * (MOST_BYTES + 1),
    ],
    ids=range(15),
)
def test_hostile_files_end_in_one_clear_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with refused(InputError, "refused"):
        read_members(path)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    with refused(InputError, "more than"):
        read_members(path)


def test_an_older_member_file_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    card, _ = make_peer(tmp_path / "berlin", "berlin")
    folder = make_swarm(tmp_path / "town", card)
    first = (folder / MEMBERS).read_bytes()
    there = hand_over(folder, tmp_path / "berlin")
    expel(folder, "berlin")
    second = (folder / MEMBERS).read_bytes()
    assert keep_members(there, second).serial == 2
    assert [m.name for m in keep_members(there, first).members] == ["ada"]
    assert (there / MEMBERS).read_bytes() == second
    twin = parse_members(sign_again(folder, formula="mol-other"))
    with refused(ConflictError, "two member files"):
        find_newest(there, twin)


def test_members_come_and_go_and_keep_their_tokens(tmp_path: Path) -> None:
    berlin, _ = make_peer(tmp_path / "berlin", "berlin", 31001)
    oslo, _ = make_peer(tmp_path / "oslo", "oslo", 31002)
    folder = make_swarm(tmp_path / "town", berlin)
    before = read_members(folder / MEMBERS)
    after = admit(folder, [oslo], [], None, NOW)
    assert read_members(folder / MEMBERS) == after
    assert [(m.name, m.since) for m in after.members] == [("ada", 1), ("berlin", 1), ("oslo", 2)]
    assert after.members[:2] == before.members
    longer = admit(folder, [], [], 90, NOW)
    assert longer.expires > before.expires
    assert longer.members[0].token != before.members[0].token
    left = expel(folder, "berlin")
    assert [m.name for m in left.members] == ["ada", "oslo"]
    assert not any("31001" in a for a in left.bootstrap)
    with refused(UsageError, "cannot be taken off"):
        expel(folder, "ada")
    with refused(UsageError, "has ended"):
        admit(folder, [berlin], [], None, NOW + 91 * 24 * 3600)
    with refused(InputError, "not the operator"):
        admit(hand_over(folder, tmp_path / "oslo"), [berlin], [], None, NOW)


def test_two_members_cannot_have_one_name(tmp_path: Path) -> None:
    ada, _ = make_peer(tmp_path / "other", "ada")
    with refused(ConflictError, "twice"):
        make_swarm(tmp_path / "town", ada)
    assert not list((tmp_path / "town" / "swarms").iterdir())
    make_swarm(tmp_path / "town")
    with refused(ConflictError, "here already"):
        check_name_free(tmp_path / "town", "crew")


@pytest.mark.parametrize("name", ["", "Crew", "a.b", "../x", "-a", "a-", "a" * 33, "a\n", "é"])
def test_names_that_could_be_paths_are_refused(name: str) -> None:
    with refused(InputError, "cannot be the name"):
        name_swarm(name, "00")


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    first = ensure_identity(tmp_path)
    path = tmp_path / IDENTITY
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert ensure_identity(tmp_path) == first
    assert first.public_key.startswith("ssh-rsa ")
    assert find_peer_id(first.public_key) == first.peer_id
    assert is_signed_by_peer(first.public_key, b"x", first.sign(b"x"))
    assert not is_signed_by_peer(first.public_key, b"y", first.sign(b"x"))
    assert "PRIVATE" not in repr(first)
    path.chmod(0o444)
    with refused(InputError, "can be read by others"):
        read_identity(path)


def test_the_operators_key_stays_where_it_is(tmp_path: Path) -> None:
    operator = make_operator(tmp_path / OPERATOR)
    assert stat.S_IMODE((tmp_path / OPERATOR).stat().st_mode) == 0o600
    assert is_signed_by_operator(operator.public_key, b"x", operator.sign(b"x"))
    assert not is_signed_by_operator(operator.public_key, b"x", operator.sign(b"x").upper())
    with refused(InputError, "already"):
        make_operator(tmp_path / OPERATOR)


@pytest.mark.parametrize("data", [b"", b"x" * 2000, b"\x08\x00\x12\x05hello", b"\x08\x01\x12\x00"])
def test_a_damaged_key_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / IDENTITY
    path.write_bytes(data)
    path.chmod(0o400)
    with refused(InputError, "cannot be used"):
        read_identity(path)


def test_a_card_is_what_swarm_id_prints(tmp_path: Path) -> None:
    card, identity = make_peer(tmp_path, "berlin", 31001)
    data = {**card.model_dump(mode="json"), "peer_id": identity.peer_id}
    for text in (json.dumps(data), json.dumps({"ok": True, "data": data})):
        (tmp_path / "card.json").write_text(text)
        assert read_card(tmp_path / "card.json") == card


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../x"},
        {"name": "x\u001b[2J"},
        {"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"},
        {"public_key": "ssh-rsa AAAA"},
        {"announce": ["/ip4/1.2.3.4/tcp/5; rm -rf /"]},
        {"announce": ["/ip4/1.2.3.4/tcp/70000"]},
        {"more": 1},
        {"name": None},
    ],
    ids=range(8),
)
def test_a_card_with_anything_else_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    card, _ = make_peer(tmp_path, "berlin")
    (tmp_path / "card.json").write_text(json.dumps({**card.model_dump(mode="json"), **change}))
    with refused(InputError, "not the card"):
        read_card(tmp_path / "card.json")
    (tmp_path / "card.json").write_text("[" * 5000)
    with refused(InputError, "not the card"):
        read_card(tmp_path / "card.json")


FINAL = "sha256:" + "f" * 64


def make_record(swarm: str, peer_id: str, **fields: object) -> Record:
    return Record.model_validate(
        {
            "swarm": swarm, "peer_id": peer_id, "seq": 3, "round": 2, "rounds": 2, "samples": 64,
            "bytes_sent": 9, "failures": 0, "retries": 0, "pulls": 1, "lineage": "ab", "adapter": FINAL,
            "final": FINAL, **fields,
        }
    )  # fmt: skip


def test_a_record_counts_only_with_its_peers_signature(tmp_path: Path) -> None:
    _, ada = make_peer(tmp_path / "a", "ada")
    _, bob = make_peer(tmp_path / "b", "bob")
    signed = sign_record(make_record("crew-1", ada.peer_id), ada)
    assert read_record(signed.payload, signed.signature, "crew-1", ada.public_key) == signed
    for payload, mark, swarm, key in (
        (signed.payload.replace('"samples":64', '"samples":99'), signed.signature, "crew-1", ada.public_key),
        (signed.payload, signed.signature, "crew-2", ada.public_key),
        (signed.payload, signed.signature, "crew-1", bob.public_key),
        (5, signed.signature, "crew-1", ada.public_key),
        (signed.payload, "", "crew-1", ada.public_key),
        ("x" * 100_000, signed.signature, "crew-1", ada.public_key),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            read_record(payload, mark, swarm, key)
    # A peer that speaks in another's name, or names another's address as its own.
    for lie in (
        make_record("crew-1", ada.peer_id),
        make_record("crew-1", bob.peer_id, addresses=(f"/ip4/1.2.3.4/tcp/5/p2p/{ada.peer_id}",)),
    ):
        said = sign_record(lie, bob)
        with pytest.raises(ValueError):
            read_record(said.payload, said.signature, "crew-1", bob.public_key)


def test_the_bead_hears_of_every_peer_and_only_of_one_final_adapter(tmp_path: Path) -> None:
    from gtft.errors import EvidenceError

    card, bob = make_peer(tmp_path / "b", "bob")
    folder = make_swarm(tmp_path / "a", card)
    members = read_members(folder / MEMBERS)
    ada = read_identity(tmp_path / "a" / "swarm" / IDENTITY)
    own = sign_record(make_record(folder.name, ada.peer_id), ada)
    other = sign_record(make_record(folder.name, bob.peer_id, samples=32), bob)
    block = {"swarm": folder.name, "peer_id": ada.peer_id, "final": FINAL,
             "members": make_table([other, own], members)}  # fmt: skip
    line = check_evidence_block(block, FINAL)
    assert "2 rounds, 64 samples" in line
    assert "bob 2 rounds, 32 samples" in line
    assert json.loads(canonical_json(block)) == block
    with refused(EvidenceError, "not the one that the swarm ended with"):
        check_evidence_block(block, "sha256:" + "0" * 64)
    strayed = sign_record(make_record(folder.name, bob.peer_id, final="sha256:" + "1" * 64), bob)
    with refused(EvidenceError, "bob ended with another"):
        check_evidence_block({**block, "members": make_table([own, strayed], members)}, FINAL)
    rows = make_table([own, other], members)
    rows[1]["payload"] = rows[1]["payload"].replace('"samples":32', '"samples":64')
    with refused(EvidenceError, "does not hold"):
        check_evidence_block({**block, "members": rows}, FINAL)
    with pytest.raises(EvidenceError, match="own peer"):
        check_evidence_block({**block, "members": make_table([other], members)}, FINAL)
