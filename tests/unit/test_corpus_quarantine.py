"""The quarantine's file: entries and decisions, added to and never rewritten."""

import json
import multiprocessing as mp
from pathlib import Path

import pytest

from gtft.corpus.governance.quarantine import FILE, Held, Quarantine, Reason
from gtft.corpus.governance.row import Place
from gtft.corpus.tally import Tally
from gtft.errors import UsageError


def hold(n: int) -> Held:
    reasons = (Reason("detect-secrets' KeywordDetector", "messages[1].content:20-40"),)
    return Held(f"ex-{n:016x}", reasons, Place(f"t/s{n}.jsonl", (1, 9), f"s{n}", 0))


def test_an_empty_workspace_has_an_empty_quarantine(tmp_path: Path) -> None:
    assert Quarantine(tmp_path).list() == ()
    assert Quarantine(tmp_path).decisions() == {}


def test_what_is_added_comes_back_once_and_a_decision_stays(tmp_path: Path) -> None:
    room = Quarantine(tmp_path)
    assert room.add([hold(1), hold(2), hold(1)]) == 2
    held = room.decide("ex-0000000000000001", "released", "overseer/ann", "a commit hash")
    assert (held.decided, held.by, held.reason) == ("released", "overseer/ann", "a commit hash")
    assert room.add([hold(1), hold(3)]) == 1
    assert [h.decided for h in Quarantine(tmp_path).list()] == ["released", "", ""]
    room.decide(hold(1).id, "dropped", "mayor", "a key after all")
    assert room.decisions() == {hold(1).id: "dropped"}
    assert room.find(hold(2).id) == hold(2)


def test_an_unclear_start_of_an_id_is_refused(tmp_path: Path) -> None:
    room = Quarantine(tmp_path)
    room.add([hold(1), hold(2)])
    with pytest.raises(UsageError, match="2 in quarantine"):
        room.decide("ex-0", "dropped", "me", "")
    with pytest.raises(UsageError, match="nothing"):
        room.find("ex-f")
    assert room.decisions() == {}


def test_a_torn_or_foreign_line_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    room = Quarantine(tmp_path)
    room.add([hold(1)])
    with (tmp_path / FILE).open("ab") as f:
        f.write(b'{"id": 7}\n[1]\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"id": "ex-torn')
    room.add([hold(2)])
    tally = Tally()
    again = Quarantine(tmp_path, tally)
    assert [h.id for h in again.list()] == [hold(1).id, hold(2).id]
    assert tally.get("bad", "bad line") == 5
    assert {n.file for n in tally.named} == {FILE}


def test_only_its_owner_reads_it_and_it_is_json_lines(tmp_path: Path) -> None:
    Quarantine(tmp_path).add([hold(1)])
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    (line,) = (tmp_path / FILE).read_text().splitlines()
    assert json.loads(line)["reasons"][0]["where"] == "messages[1].content:20-40"


def add_many(folder: Path, first: int) -> None:
    for n in range(first, first + 20):
        Quarantine(folder).add([hold(n)])


def test_two_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    people = [context.Process(target=add_many, args=(tmp_path, n)) for n in (0, 100)]
    for p in people:
        p.start()
    for p in people:
        p.join(30)
    assert len(Quarantine(tmp_path).list()) == 40
