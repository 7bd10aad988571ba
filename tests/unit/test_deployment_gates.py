"""The gates of a deployment, each where it refuses, warns, or is passed by a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_case import make_agent, make_model, make_town, open_town
from gtft.records.rows import DeploymentRow, ModelRow
from gtft.runner.box import Box
from gtft.runner.deployment import find_run
from gtft.runner.deployment_gates import (
    Facts,
    Gate,
    GatesNotMet,
    check_adapter,
    check_agent,
    check_memory,
    check_model,
    find_since,
    refuse_unmet,
)
from gtft.runner.moves import read_recipe
from gtft.runner.workspace import Workspace
from gtft.service import Mode
from gtft.town.agents import Agent

MODEL = ModelRow("m", "witness-m", "witness", 1, "approved", "r", "c", "a", "e", "k", 0)
GOOD = Facts((("wins", "wins: 9 of 9", True),), (12, 12), "3 days old", since="40 decisions")


def judge(mode: Mode = "live", facts: Facts = GOOD, **model: Any) -> dict[str, Gate]:
    return {g.name: g for g in check_model(replace(MODEL, **model), "witness", mode, facts)}


def test_a_good_model_meets_them_all() -> None:
    assert all(g.met for mode in ("shadow", "advise", "live") for g in judge(mode).values())  # type: ignore[arg-type]
    refuse_unmet(list(judge().values()), "")


@pytest.mark.parametrize("status", ["candidate", "rejected"])
def test_only_what_was_approved(status: str) -> None:
    gate = judge(status=status)["approved"]
    assert (gate.met, gate.kind) == (False, "fact") and status in gate.told
    assert gate.fix == (
        "gtft review list" if status == "candidate" else "gtft model show witness-m"
    )


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("fresh", replace(GOOD, expired="91 days old")),
        ("eval", replace(GOOD, gates=(*GOOD.gates, ("tokens", "tokens: 3 times", False)))),
        ("safety", replace(GOOD, safety=(11, 12))),
        ("safety", replace(GOOD, safety=(0, 0))),
        (
            "incidents and rollbacks",
            replace(GOOD, harm="incident inc-1, which its eval did not ask"),
        ),
        ("incidents and rollbacks", replace(GOOD, taken_back="dep-1 (live) was taken back here")),
    ],
)
def test_a_judgement_stops_live_takes_a_reason_and_warns_in_shadow(name: str, facts: Facts) -> None:
    gates = judge(facts=facts)
    assert [g.name for g in gates.values() if not g.met] == [name]
    with pytest.raises(GatesNotMet):
        refuse_unmet(list(gates.values()), " \t")
    with pytest.raises(GatesNotMet) as e:
        refuse_unmet(list(gates.values()), "")
    assert gates[name].told in e.value.why and "--force" in e.value.fix
    told: Any = e.value.as_dict()["gates"]
    assert [(g["name"], g["met"]) for g in told] == [(g.name, g.met) for g in gates.values()]
    refuse_unmet(list(gates.values()), "read by hand")
    shadow = judge("shadow", facts)
    # Where nobody acts on its answers, no safety item asked is said too.
    assert not shadow[name].met and shadow[name].warning
    refuse_unmet(list(shadow.values()), "")


def test_an_expired_model_is_told_by_its_status_too() -> None:
    gates = judge(status="expired")
    assert gates["approved"].met and not gates["fresh"].met and gates["fresh"].kind == "judgement"


@pytest.mark.parametrize(
    ("figures", "breach", "missing"),
    [
        ({"decisions": 20, "agreement": {"share": 0.9}}, "", ""),
        ({"decisions": 19}, "", "19 decisions in advise, at least 20 wanted"),
        ({}, "", "0 decisions in advise, at least 20 wanted"),
        ({"decisions": 20}, "agreement: 40 %", "in advise: agreement: 40 %"),
    ],
)
def test_the_mode_before_must_have_shown_enough(
    figures: dict[str, Any], breach: str, missing: str
) -> None:
    row = DeploymentRow(
        "d", "m", "witness", "", "advise", "active", None, "", "me", {}, figures, 0, 0
    )
    told, found = find_since(row, "advise", 20, breach)
    assert found == missing and bool(told) == (not missing)
    assert find_since(None, "advise", 20, "")[1]


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_town(make_town(tmp_path), make_agent(tmp_path))


def test_memory_of_this_machine(ws: Workspace) -> None:
    model = make_model(ws, "a")
    recipe = read_recipe(find_run(ws, model))
    _, adapter = check_adapter(ws, model)
    big = Box(2, 0.0, 1 << 40, 1 << 40, None, None, 1 << 40, ())
    assert check_memory(ws, model, recipe, adapter, big).met
    small = replace(big, available=1 << 20)
    gate = check_memory(ws, model, recipe, adapter, small)
    assert (gate.met, gate.warning, gate.kind) == (
        False,
        False,
        "fact",
    ) and "--endpoint" in gate.fix


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_the_adapter_is_hashed_again(ws: Workspace, harm: str) -> None:
    model = make_model(ws, "a")
    assert check_adapter(ws, model)[0].met
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    path = ws.artifact_path(row.path) / "summary.json"
    path.write_text("{}") if harm == "changed" else path.unlink()
    gate, found = check_adapter(ws, model)
    assert (gate.met, gate.kind, found) == (False, "fact", None) and gate.fix


def test_the_agents_program_is_looked_for_where_gt_looks(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    claude = Agent("claude", {"command": "claude"})
    assert not check_agent(claude, environ).met
    local = tmp_path / ".claude" / "local" / "claude"
    local.parent.mkdir(parents=True)
    local.write_text("")
    assert check_agent(claude, environ).met
    assert not check_agent(Agent("x", {"command": "codex"}), environ).met
