"""Withdrawals: what a name stands for, what the register keeps of it, and which rows it covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance_case import KEY
from gtft.contract import Withdrawal
from gtft.corpus.governance.row import Row
from gtft.corpus.governance.withdrawal import (
    KINDS,
    Withdrawals,
    guess_kind,
    hash_contributor,
    make_withdrawal,
    may_withdraw,
)
from gtft.errors import UsageError

ANN = "ann@example.com"


def cover(kind: str, who: str, row: Row) -> str:
    return Withdrawals([make_withdrawal(kind, who, KEY)], KEY).covers(row)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        (ANN, "email"),
        ("gizmo/crew/ann", "actor"),
        ("mayor", "actor"),
        ("overseer/ann", "actor"),
        ("4f1c2e8a-0b7d-4c7e-9d7e-1a2b3c4d5e6f", "session"),
        ("ses_6f00ab12", "session"),
        ("gz-12", "bead"),
        ("hq-mol-1a2.3", "bead"),
        ("gizmo", "rig"),
        ("my_rig", "rig"),
    ],
)
def test_a_name_is_known_by_its_form(who: str, kind: str) -> None:
    assert guess_kind(who) == kind


@pytest.mark.parametrize("who", ["", "a b", "?", "ann @example.com"])
def test_what_has_no_form_asks_for_the_kind(who: str) -> None:
    with pytest.raises(UsageError, match="form"):
        guess_kind(who)


def test_people_are_kept_as_keyed_hashes_and_agents_by_name() -> None:
    kept = make_withdrawal("email", ANN, KEY).who
    assert kept == "hmac:" + hash_contributor(KEY, " Ann@Example.COM ")
    assert "ann" not in kept
    assert kept != make_withdrawal("email", ANN, b"x" * 32).who
    assert make_withdrawal("actor", "gizmo/crew/ann", KEY).who.startswith("hmac:")
    assert make_withdrawal("actor", "overseer/ann", KEY).who.startswith("hmac:")
    assert make_withdrawal("actor", "gizmo/polecats/nux/", KEY).who == "gizmo/polecats/nux"
    assert make_withdrawal("actor", "mayor/", KEY).who == "mayor"


@pytest.mark.parametrize("who", ["", "  ", "x" * 256, "a\nb", "a\x00b"])
def test_what_can_be_no_name_is_refused(who: str) -> None:
    with pytest.raises(UsageError):
        make_withdrawal("session", who, KEY)
    with pytest.raises(UsageError, match="e-mail"):
        make_withdrawal("email", "ann", KEY)


@pytest.mark.parametrize(
    ("kind", "who", "row"),
    [
        ("session", "s1", Row(session="s1")),
        ("session", "s1", Row(session="agent-1", parent="s1")),
        ("session", "s1", Row(session="s2", cluster="session:s1")),
        ("actor", "gizmo/polecats/nux", Row(actor="gizmo/polecats/nux")),
        ("actor", "gizmo/crew/ann", Row(actor="gizmo/crew/ann")),
        ("email", ANN, Row(contributor=hash_contributor(KEY, "ANN@example.com"))),
        ("rig", "gizmo", Row(rig="gizmo")),
        ("rig", "gizmo", Row(actor="gizmo/witness")),
        ("bead", "gz-1", Row(bead="gz-1")),
        ("bead", "gz-1", Row(bead="gz-1.2.3")),
        ("bead", "gz-1", Row(cluster="bead:gz-1.2")),
    ],
)
def test_a_row_of_it_is_covered(kind: str, who: str, row: Row) -> None:
    assert cover(kind, who, row) == f"withdrawn: {kind}"


@pytest.mark.parametrize(
    ("kind", "who", "row"),
    [
        ("session", "s1", Row(session="s11", cluster="bead:s1", bead="s1")),
        ("actor", "gizmo/crew/ann", Row(actor="gizmo/crew/anna")),
        ("email", ANN, Row(contributor=hash_contributor(KEY, "bob@example.com"))),
        ("rig", "gizmo", Row(rig="gizmos", actor="harbor/witness")),
        ("bead", "gz-1", Row(bead="gz-11", cluster="bead:gz-10")),
        ("bead", "gz-1", Row()),
    ],
)
def test_its_neighbour_is_not(kind: str, who: str, row: Row) -> None:
    assert cover(kind, who, row) == ""


def test_an_empty_register_covers_nothing() -> None:
    assert Withdrawals([], KEY).covers(Row(session="s1", contributor="0")) == ""


@pytest.mark.parametrize(
    ("actor", "kind", "who", "may"),
    [
        ("overseer/ann", "email", ANN, True),
        ("mayor", "rig", "gizmo", True),
        ("gizmo/witness", "rig", "gizmo", True),
        ("gizmo/witness", "rig", "harbor", False),
        ("gizmo/crew/ann", "actor", "gizmo/crew/ann", True),
        ("gizmo/crew/ann", "actor", "harbor/crew/bob", False),
        ("gizmo/polecats/nux", "session", "s1", False),
        ("gizmo/polecats/nux", "email", ANN, False),
        ("deacon", "rig", "gizmo", False),
    ],
)
def test_who_may_withdraw(actor: str, kind: str, who: str, may: bool) -> None:
    taken = make_withdrawal(kind, who, KEY)  # type: ignore[arg-type]
    assert may_withdraw(actor, taken, who) is may


_text = st.text(max_size=30)


@given(
    st.lists(st.builds(Withdrawal, kind=st.sampled_from(KINDS), who=_text), max_size=5),
    st.builds(
        Row, session=_text, actor=_text, rig=_text, bead=_text, cluster=_text, contributor=_text
    ),
)
def test_any_row_gets_a_verdict_that_names_a_kind_of_the_register(
    items: list[Withdrawal], row: Row
) -> None:
    why = Withdrawals(items, KEY).covers(row)
    assert why == "" or why.removeprefix("withdrawn: ") in {w.kind for w in items}
