"""Who keeps what several files hold."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.claims import MARK, RECORD, RESPONSE, Claims, parse_version, settle


def claim(records: Iterable[str], version: str = "2.1.7", *parents: str) -> Claims:
    made = Claims()
    made.note_records(records, [(0, version)], parents)
    return made


def give_up(files: list[Claims], kind: int, names: Iterable[str]) -> list[str]:
    """For each file the names that it loses."""
    lost = settle(files).lost
    return ["".join(n for n in names if Claims(mine).lose(kind, n)) for mine in lost]


def test_the_lowest_version_keeps_a_record_then_the_first_file() -> None:
    files = [claim("ab", "2.1.90"), claim("bc", "2.1.9"), claim("c", "2.1.9"), claim("a", "")]
    assert give_up(files, RECORD, "abc") == ["b", "", "c", "a"]
    assert settle(files).pairs == ((0, 1), (0, 3), (1, 2))


def test_versions_hold_from_where_they_begin() -> None:
    first, second = Claims(), claim("abc", "2.1.8")
    first.note_records("abc", [(0, "2.1.9"), (1, "2.1.7"), (1, "2.1.2"), (2, "2.1.9")], ())
    assert give_up([first, second], RECORD, "abc") == ["ac", "b"]


def test_an_answer_goes_to_the_first_file_that_keeps_a_record_of_it() -> None:
    first, second, third = claim("ab", "2.1.9"), claim("a", "2.1.7"), claim("z")
    first.note_responses(["m", "n"], [0, 1])
    second.note_responses(["m"], [0])
    third.note_responses(["m", "n"], [-1, -1])
    assert give_up([first, second, third], RESPONSE, "mn") == ["", "", "mn"]


def test_marks_stay_with_the_first_file_and_join_nothing() -> None:
    first, second = Claims(), Claims()
    first.note_marks(["q"])
    second.note_marks(["q", "q"])
    assert give_up([first, second], MARK, "q") == ["", "q"]
    assert settle([first, second]).pairs == ()


def test_parents_that_no_file_holds_are_counted_once() -> None:
    files = [claim("a", "1", "b", "gone"), claim("b", "1", "gone")]
    assert settle(files).phantoms == 1


def test_nothing_shared_and_nothing_at_all() -> None:
    assert settle([]).lost == ()
    assert settle([claim("a"), claim("b"), Claims()]).lost == (frozenset(),) * 3


def test_claims_survive_being_written() -> None:
    files = [claim("ab", "2.1.90"), claim("b")]
    packed = msgspec.msgpack.encode(files)
    again = msgspec.msgpack.decode(packed, type=list[Claims])
    assert settle(again) == settle(files)


@given(
    files=st.lists(
        st.lists(
            st.tuples(st.integers(0, 12), st.sampled_from(["1.0", "2.1.9", "2.1.10", "?"])),
            unique_by=lambda r: r[0],
            max_size=8,
        ),
        max_size=6,
    )
)
def test_every_record_stays_in_exactly_the_best_file(files: list[list[tuple[int, str]]]) -> None:
    best: dict[int, tuple[tuple[int, ...], int]] = {}
    made = []
    for number, rows in enumerate(files):
        one = Claims()
        one.note_records([str(k) for k, _ in rows], [(n, v) for n, (_, v) in enumerate(rows)], ())
        made.append(one)
        for key, version in rows:
            rank = (parse_version(version), number)
            best[key] = min(best.get(key, rank), rank)
    settled = settle(made)
    for number, (rows, lost) in enumerate(zip(files, settled.lost, strict=True)):
        for key, _ in rows:
            assert Claims(lost).lose(RECORD, str(key)) == (best[key][1] != number)
        mine = set(array("Q", made[number].records))
        assert lost <= mine
    joined = {n for pair in settled.pairs for n in pair}
    assert joined == {
        n for n, rows in enumerate(files) for k, _ in rows
        if sum(k == other for f in files for other, _ in f) > 1
    }  # fmt: skip
