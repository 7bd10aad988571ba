"""Who acts, and which role a name fills."""

import pytest

from gtft.cli.context import get_actor
from gtft.errors import UsageError
from gtft.runner.detached import MARK
from gtft.runner.identity import fills_role, find_actor, make_token, owner_is_gone


def test_the_command_line_wins_over_the_town() -> None:
    town = {"BEADS_ACTOR": "a", "BD_ACTOR": "b", "GT_ROLE": "gizmo/polecats/nux"}
    assert find_actor("me", town) == "me"
    assert find_actor(None, town) == "a"
    assert find_actor(None, {"GT_ROLE": "gizmo/polecats/nux"}) == "gizmo/polecats/nux"
    assert find_actor(None, {}).startswith("overseer/")


@pytest.mark.parametrize(
    ("actor", "role", "fills"),
    [
        ("witness", "witness", True),
        ("gizmo/witness", "witness", True),
        ("gizmo/polecats/nux", "polecat", True),
        ("gizmo/polecats/nux", "witness", False),
        ("gizmo/crew/witnesses", "witness", False),
        ("eyewitness", "witness", False),
        ("overseer/ann", "overseer", True),
    ],
)
def test_a_role_is_a_whole_part_of_the_name(actor: str, role: str, fills: bool) -> None:
    assert fills_role(actor, role) is fills


def test_tokens_are_unique_and_know_their_process() -> None:
    one, two = make_token(), make_token()
    assert one != two
    assert not owner_is_gone(one)
    host, _pid, start, rest = one.split("|")
    assert owner_is_gone(f"{host}|999999999|{start}|{rest}")
    assert not owner_is_gone(f"other-host|999999999|{start}|{rest}")
    assert not owner_is_gone("garbage")


def test_an_agent_acts_under_its_own_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GT_ROLE", "gizmo/polecats/nux")
    monkeypatch.setenv("BD_ACTOR", "gizmo/polecats/nux")
    monkeypatch.delenv(MARK, raising=False)
    assert get_actor(None) == get_actor("gizmo/polecats/nux") == "gizmo/polecats/nux"
    with pytest.raises(UsageError, match="cannot act as gizmo/witness"):
        get_actor("gizmo/witness")
    # A runner that was started for somebody carries that name on.
    monkeypatch.setenv(MARK, "1")
    assert get_actor("gtft/sweep") == "gtft/sweep"
    monkeypatch.delenv("GT_ROLE")
    monkeypatch.delenv(MARK)
    assert get_actor("gizmo/witness") == "gizmo/witness"
