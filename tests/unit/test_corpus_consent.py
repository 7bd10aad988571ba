"""Consent per rig: own rig only, unless a rig has agreed; a refusal says why and what to do."""

from pathlib import Path

import pytest

from governance_case import KEY
from gtft.contract import EVERY_RIG, Consent, Governance, Withdrawal
from gtft.corpus.governance.admission import Admission
from gtft.corpus.governance.consent import (
    Allowed,
    Refusal,
    check_scope,
    decide,
    find_own_rig,
    find_rig,
    may_speak_for,
)
from gtft.corpus.governance.row import Row
from gtft.corpus.governance.select import parse_select
from gtft.errors import InputError

TODAY = "2026-06-15"


def ask(rig: str | None, *given: Consent, own: str = "gizmo", scope: tuple[str, ...] = ()) -> str:
    verdict = decide(rig, own, scope, given, TODAY, "witness")
    return verdict.reason if isinstance(verdict, Refusal) else ""


def test_a_run_uses_its_own_rig_and_what_names_none() -> None:
    assert ask("gizmo") == ask(None) == ask("") == ""
    assert ask("harbor") == "no consent of rig harbor"
    assert ask("Gizmo") == "no consent of rig Gizmo"


def test_another_rig_needs_a_standing_consent() -> None:
    assert ask("harbor", Consent(rig="harbor")) == ""
    assert ask("harbor", Consent(rig="lantern")) == "no consent of rig harbor"
    assert ask("harbor", Consent(rig="harbor", until=TODAY)) == ""
    ended = Consent(rig="harbor", until="2026-06-14")
    assert ask("harbor", ended) == "the consent of rig harbor ended on 2026-06-14"
    assert ask("harbor", ended, Consent(rig="harbor", until="2026-07-01")) == ""


def test_a_consent_for_other_models_is_none_for_these() -> None:
    assert ask("harbor", Consent(rig="harbor", purpose="witness")) == ""
    verdict = decide(
        "harbor", "gizmo", (), [Consent(rig="harbor", purpose="mayor")], TODAY, "witness"
    )
    assert isinstance(verdict, Refusal)
    assert verdict.reason == "the consent of rig harbor is for other models (mayor)"
    assert verdict.fix == "gtft corpus consent grant harbor --purpose witness"


def test_the_scope_narrows_what_consent_allows() -> None:
    scope = ("rig:gizmo",)
    assert ask("harbor", Consent(rig="harbor"), scope=scope) == "outside the recipe's scope"
    assert ask("lantern", own=EVERY_RIG, scope=scope) == "outside the recipe's scope"
    assert ask("lantern", own=EVERY_RIG) == ""
    assert isinstance(decide(None, "", scope, (), TODAY), Allowed)


def test_a_scope_that_may_not_be_used_names_every_rig() -> None:
    check_scope("gizmo", ("rig:gizmo",), (), TODAY)
    with pytest.raises(InputError) as e:
        check_scope("gizmo", ("rig:gizmo", "rig:harbor", "rig:lantern"), (), TODAY)
    assert "harbor, lantern" in e.value.what
    assert "own rig is gizmo" in e.value.why
    assert "gtft corpus consent grant harbor" in e.value.fix


def test_a_path_in_a_rigs_folder_tells_the_rig(tmp_path: Path) -> None:
    rigs = ("gizmo", "harbor")
    assert find_rig(tmp_path / "gizmo" / "polecats" / "a.jsonl", tmp_path, rigs) == "gizmo"
    assert find_rig(tmp_path / "mayor" / "a.jsonl", tmp_path, rigs) is None
    assert find_rig(tmp_path / "gizmo", tmp_path, rigs) is None
    assert find_rig(tmp_path.parent / "gizmo" / "a.jsonl", tmp_path, rigs) is None


@pytest.mark.parametrize(
    ("actor", "own", "may"),
    [
        ("gizmo/polecats/nux", "gizmo", True),
        ("gizmo/witness", "gizmo", True),
        ("harbor/crew/ann", "harbor", False),
        ("mayor", "", True),
        ("overseer/ann", "", True),
        ("ann", "", True),
        ("deacon", "", False),
        ("deacon/dogs/rex", "", False),
    ],
)
def test_who_speaks_for_a_rig(actor: str, own: str, may: bool) -> None:
    assert find_own_rig(actor) == own
    assert may_speak_for(actor, "gizmo") is may


def admit(
    governance: Governance, scope: tuple[str, ...] = (), select: tuple[str, ...] = ()
) -> Admission:
    return Admission(governance, scope, "witness", parse_select(select), KEY)


def test_an_admission_asks_consent_then_the_register_then_the_selection() -> None:
    rules = admit(
        Governance(
            own="gizmo",
            today=TODAY,
            consents=(Consent(rig="harbor"),),
            withdrawals=(Withdrawal(kind="session", who="s1"),),
        ),
        select=("role:witness",),
    )
    assert rules.refuse(Row(rig="gizmo", role="witness", session="s2")) == ""
    assert rules.refuse(Row(rig="harbor", role="witness")) == ""
    assert (
        rules.refuse(Row(rig="lantern", role="mayor", session="s1")) == "no consent of rig lantern"
    )
    assert rules.refuse(Row(rig="gizmo", role="mayor", session="s1")) == "withdrawn: session"
    assert rules.refuse(Row(rig="gizmo", role="mayor")) == "not selected: role"
    assert rules.refuse_rig("lantern") == "no consent of rig lantern"
    assert rules.describe() == [
        {"rig": "gizmo", "used": True, "why": "the run's own rig"},
        {"rig": "harbor", "used": True, "why": "a standing consent"},
        {"rig": "lantern", "used": False, "why": "no consent of rig lantern"},
    ]


def test_an_admission_stops_a_harvest_whose_scope_has_no_consent() -> None:
    with pytest.raises(InputError, match="rig harbor"):
        admit(Governance(own="gizmo", today=TODAY), scope=("rig:gizmo", "rig:harbor"))
