"""Selection: items of one key widen, different keys narrow; what is not understood is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.governance.row import Row
from gtft.corpus.governance.select import KEYS, parse_select
from gtft.errors import UsageError

ROW = Row(
    source="claude-code",
    role="witness",
    rig="gizmo",
    bead="gz-1.2",
    outcome="merged",
    started="2026-03-15",
    labels=("urgent", "bug"),
)


def test_nothing_selected_is_everything() -> None:
    assert parse_select([]).admits(ROW) == ""
    assert parse_select([]).admits(Row()) == ""


@pytest.mark.parametrize(
    "items",
    [
        ["type:claude-code"],
        ["rig:gizmo", "rig:harbor"],
        ["role:witness", "outcome:merged", "label:bug"],
        ["since:2026-03-15", "until:2026-03-15"],
        ["bead:gz-1.2"],
        ["bead:gz-1"],
    ],
)
def test_what_fits_is_admitted(items: list[str]) -> None:
    assert parse_select(items).admits(ROW) == ""


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (["type:beads"], "not selected: type"),
        (["rig:gizmo", "role:mayor"], "not selected: role"),
        (["label:chore"], "not selected: label"),
        (["outcome:rejected"], "not selected: outcome"),
        (["since:2026-03-16"], "not selected: since"),
        (["until:2026-03-14"], "not selected: until"),
        (["bead:gz-11"], "not selected: bead"),
        (["bead:gz"], "not selected: bead"),
    ],
)
def test_what_does_not_fit_says_by_which_key(items: list[str], reason: str) -> None:
    assert parse_select(items).admits(ROW) == reason


def test_what_has_no_date_is_in_no_time() -> None:
    assert parse_select(["since:2026-01-01"]).admits(Row()) == "not selected: no date"
    assert parse_select(["rig:gizmo"]).admits(Row()) == "not selected: rig"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("rigs:gizmo", "did you mean rig:"),
        ("rolle:witness", "did you mean role:"),
        ("colour:red", "known: type, rig"),
        ("witness", "known: type, rig"),
        ("type:claude", "did you mean claude-code"),
        ("type:auto", "auto"),
        ("since:yesterday", "YYYY-MM-DD"),
        ("since:2026-02-30", "since:2026-01-31"),
        ("role:", "empty"),
        ("role:a b", "character"),
    ],
)
def test_what_is_not_understood_is_named_with_the_nearest_word(item: str, words: str) -> None:
    with pytest.raises(UsageError) as e:
        parse_select(["rig:gizmo", item])
    assert item in e.value.what
    assert words in str(e.value)


def test_times_that_contradict_are_refused() -> None:
    with pytest.raises(UsageError, match="until"):
        parse_select(["since:2026-03-02", "until:2026-03-01"])
    with pytest.raises(UsageError, match="since"):
        parse_select(["since:2026-03-02", "since:2026-03-03"])


@given(st.lists(st.text(max_size=40), max_size=3), st.sampled_from(KEYS), st.text(max_size=30))
def test_any_text_is_parsed_or_refused(items: list[str], key: str, value: str) -> None:
    try:
        assert isinstance(parse_select([*items, f"{key}:{value}"]).admits(ROW), str)
    except UsageError as e:
        assert e.fix
