"""Putting a model into service and taking it out: the town's bytes, the store and the routes go together."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_case import (
    BACK,
    URL,
    Place,
    find_model,
    make_model,
    open_town,
    rows,
    snapshot,
    write,
)
from gtft.errors import ConflictError, GateFailed, InputError, TownError, UsageError
from gtft.records.deployments import Deployments
from gtft.runner.deployment import carry_out
from gtft.runner.rollback import list_faults, mend
from gtft.runner.switch import list_journals, read_journal, remove
from gtft.runner.switch_lock import lock_deploy
from gtft.service import read_routes


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_live_and_back_to_the_byte(place: Place) -> None:
    model = make_model(place.ws, "a")
    before = snapshot(place.root)
    place.deploy(model)
    settings = place.settings()
    assert settings["role_agents"] == {"witness": "gtft-witness"}
    agent = settings["agents"]["gtft-witness"]
    assert Path(agent["command"]).name == "claude" and os.access(agent["command"], os.X_OK)
    assert agent["args"] == ["--dangerously-skip-permissions"]
    address = {"ANTHROPIC_BASE_URL": f"{URL}/roles/witness"}
    assert agent["env"] == address | {"GT_AGENT": "claude"}
    assert agent["exec_wrapper"] == ["gtft", "deploy", "launch", "J", "--"]
    assert settings["_comment"] == "ours"
    (route,) = read_routes(place.ws.path).routes
    assert (route.model, route.mode, route.deployment) == (model.name, "live", "dep-1")
    assert route.fallback is not None and route.fallback.protocol == "anthropic"
    assert find_model(place.ws.store, model.id).status == "deployed"
    assert rows(place.ws) == [("dep-1", "live", "active", None)]
    assert list(list_faults(place.ws)) == []
    assert place.back() == []
    assert snapshot(place.root) == before
    # Agents that were started while it was live have our address until they are started anew.
    (left,) = read_routes(place.ws.path).routes
    assert (left.model, left.mode, left.fallback) == ("", "shadow", route.fallback)
    assert list(list_faults(place.ws)) == []
    place.deploy(model, "shadow")
    (shadow,) = read_routes(place.ws.path).routes
    assert (shadow.model, shadow.fallback) == (model.name, route.fallback)
    assert list(list_faults(place.ws)) == []
    place.back()
    assert read_routes(place.ws.path).routes == (left.model_copy(update={"deployment": "dep-2"}),)
    assert snapshot(place.root) == before
    assert find_model(place.ws.store, model.id).status == "approved"
    assert [r[1:] for r in rows(place.ws)] == [
        ("live", "ended", "rolled-back"), ("shadow", "ended", "rolled-back"),
    ]  # fmt: skip
    assert list_journals(place.ws.path) == []


def test_shadow_advise_live_and_back(place: Place) -> None:
    model = make_model(place.ws, "a")
    directive = write(place.root / "directives" / "witness.md", "# Ours\nno end of line")
    before = snapshot(place.root)
    place.deploy(model, "shadow")
    assert snapshot(place.root) == before
    place.deploy(model, "advise")
    assert b"gtft advise --role witness" in directive.read_bytes()
    place.deploy(model, "live")
    assert directive.read_bytes() == b"# Ours\nno end of line"
    assert "gtft-witness" in place.settings()["agents"]
    assert [r[1:] for r in rows(place.ws)] == [
        ("shadow", "ended", "promoted"), ("advise", "ended", "promoted"), ("live", "active", None),
    ]  # fmt: skip
    place.back()
    assert snapshot(place.root) == before


def test_mail_and_feed_go_out_with_the_change(place: Place) -> None:
    model = make_model(place.ws, "a")
    place.deploy(model)
    place.back()
    sent = [m.payload for m in place.ws.store.list_messages(pending=True)]
    subjects = [p["subject"] for p in sent if "subject" in p]
    assert subjects[0].startswith("GTFT_DEPLOYED: ")
    assert subjects[1].startswith("GTFT_ROLLBACK: ")
    assert [p["event"] for p in sent if "event" in p] == ["gtft_deployed", "gtft_undeployed"]


def test_a_file_and_folder_that_gtft_made_go_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (place.root / "settings" / "config.json").unlink()
    (place.root / "settings").rmdir()
    before = snapshot(place.root)
    place.deploy(make_model(place.ws, "a"))
    assert place.settings()["type"] == "town-settings"
    place.back()
    assert snapshot(place.root) == before


def test_a_rig_has_its_own_file_and_path(place: Place) -> None:
    model = make_model(place.ws, "a")
    place.deploy(model, rig="gizmo")
    assert place.settings("gizmo")["type"] == "rig-settings"
    agent = place.settings("gizmo")["agents"]["gtft-witness"]
    assert agent["env"]["ANTHROPIC_BASE_URL"] == f"{URL}/rigs/gizmo/roles/witness"
    assert "agents" not in place.settings()
    place.back(rig="gizmo")
    assert not (place.root / "gizmo" / "settings").exists()


def test_what_others_wrote_since_stays_and_ours_goes(tmp_path: Path) -> None:
    text = '{"version": 1, "role_agents": {"witness": "claude", "mayor": "codex"}}'
    place = Place(tmp_path, settings=text)
    place.deploy(make_model(place.ws, "a"))
    path = place.root / "settings" / "config.json"
    doc = place.settings()
    doc["default_agent"] = "gemini"
    path.write_text(json.dumps(doc))
    (note,) = place.back()
    assert "only what is gtft's was taken out" in note
    assert place.settings() == {
        "version": 1, "role_agents": {"witness": "claude", "mayor": "codex"}, "default_agent": "gemini",
    }  # fmt: skip


def test_another_writer_in_between_is_never_overwritten(place: Place) -> None:
    model = make_model(place.ws, "a")
    plan = place.plan(model)
    theirs = '{"type": "town-settings", "version": 1, "default_agent": "codex"}'
    path = place.root / "settings" / "config.json"
    with pytest.raises(ConflictError, match="changed while gtft was at work"):
        carry_out(place.ws, plan, lambda: path.write_text(theirs) and None)
    assert path.read_text() == theirs
    assert rows(place.ws) == [("dep-1", "live", "ended", "failed")]
    assert list_journals(place.ws.path) == [] and read_routes(place.ws.path).routes == ()
    assert find_model(place.ws.store, model.id).status == "approved"


@pytest.mark.parametrize("broken", ["check", "activate", "file"])
def test_nothing_half_done_when_a_step_fails(
    place: Place, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(place.ws, "a")
    place.deploy(model, "advise")
    before, known = snapshot(place.root), list_journals(place.ws.path)

    def fail(*_: object, **__: object) -> None:
        raise GateFailed("no")

    if broken == "activate":
        monkeypatch.setattr(Deployments, "activate", fail)
    if broken == "file":
        monkeypatch.setattr("gtft.runner.switch.swap_file", make_failing("config.json"))
    check: Callable[[], None] = fail if broken == "check" else lambda: None
    with pytest.raises(GateFailed):
        carry_out(place.ws, place.plan(model), check)
    monkeypatch.undo()
    assert snapshot(place.root) == before
    assert list_journals(place.ws.path) == known
    assert [r.mode for r in read_routes(place.ws.path).routes] == ["advise"]
    assert rows(place.ws) == [
        ("dep-1", "advise", "active", None),
        ("dep-2", "live", "ended", "failed"),
    ]
    assert list(list_faults(place.ws)) == []


def make_failing(name: str) -> Callable[..., None]:
    from gtft.town.settings import swap_file

    def swap(path: Path, *rest: Any) -> None:
        if path.name == name:
            raise GateFailed("no room")
        swap_file(path, *rest)

    return swap


def test_another_model_takes_the_place_and_one_rollback_gives_the_town_back(place: Place) -> None:
    first, second = make_model(place.ws, "a"), make_model(place.ws, "b")
    before = snapshot(place.root)
    place.deploy(first)
    with pytest.raises(ConflictError, match="out of service"):
        place.plan(second, "shadow")
    with pytest.raises(ConflictError, match="already"):
        place.plan(first)
    place.deploy(second)
    assert find_model(place.ws.store, first.id).status == "superseded"
    assert find_model(place.ws.store, second.id).status == "deployed"
    place.back()
    assert snapshot(place.root) == before


def test_two_rigs_and_one_of_them_back(tmp_path: Path) -> None:
    place = Place(tmp_path, "gizmo", "harbor")
    model = make_model(place.ws, "a")
    place.deploy(model, rig="gizmo")
    place.deploy(model, rig="harbor")
    place.back(rig="gizmo")
    assert find_model(place.ws.store, model.id).status == "deployed"
    assert [(r.rig, r.mode) for r in read_routes(place.ws.path).routes] == [
        ("gizmo", "shadow"), ("harbor", "live"),
    ]  # fmt: skip


def test_two_roles_in_one_file_and_either_one_back_first(tmp_path: Path) -> None:
    for order in (("witness", "refinery"), ("refinery", "witness")):
        place = Place(tmp_path / order[0])
        before = snapshot(place.root)
        place.deploy(make_model(place.ws, "a"))
        place.deploy(make_model(place.ws, "b", "refinery"))
        place.back(order[0])
        left = place.settings()
        assert left["role_agents"] == {order[1]: f"gtft-{order[1]}"}
        assert list(left["agents"]) == [f"gtft-{order[1]}"]
        assert list(list_faults(place.ws)) == []
        place.back(order[1])
        assert snapshot(place.root) == before


CITY = """\
[workspace]
name = "tt"

[[rigs]]
name = "gizmo" # ours
path = "/gizmo"
"""


def test_a_city_has_a_block_in_its_file_and_its_bytes_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    ws = place.ws
    (place.root / "mayor" / "town.json").unlink()
    city = write(place.root / "city.toml", CITY)
    write(place.root / "agents" / "witness" / "agent.toml", "")
    model = make_model(ws, "a")
    place.deploy(model, "shadow")
    with pytest.raises(UsageError, match="no town"):
        place.plan(model, "advise")
    place.deploy(model, "live")
    assert f'base_url = "{URL}/roles/witness"' in city.read_text()
    (route,) = read_routes(ws.path).routes
    assert route.fallback is not None and list(list_faults(ws)) == []
    (note,) = place.plan(model, rig="gizmo", named="codex").notes
    assert f'openai_base_url = "{URL}/rigs/gizmo/roles/witness/v1"' in note
    place.deploy(model, "live", rig="gizmo")
    assert place.back() == [f"{city} was changed since: only what is gtft's was taken out"]
    place.back(rig="gizmo")
    assert city.read_text() == CITY


def test_one_at_a_time(place: Place) -> None:
    path = place.ws.path
    with lock_deploy(path), pytest.raises(ConflictError, match="at work"), lock_deploy(path):
        raise AssertionError("never reached")
    # A rollback does not give up because of a sweep.
    with contextlib.ExitStack() as held:
        held.enter_context(lock_deploy(path))
        timer = threading.Timer(0.2, held.pop_all().close)
        timer.start()
        with lock_deploy(path, seconds=60):
            timer.join()


def test_without_a_town_only_shadow(tmp_path: Path) -> None:
    place = Place(tmp_path)
    ws = place.ws
    (place.root / "mayor" / "town.json").unlink()
    model = make_model(ws, "a")
    with pytest.raises(UsageError, match="no town"):
        place.plan(model)
    place.deploy(model, "shadow")
    assert rows(ws) == [("dep-2", "shadow", "active", None)]


def test_the_store_hears_later_of_a_rollback_while_it_was_away(place: Place) -> None:
    model = make_model(place.ws, "a")
    before = snapshot(place.root)
    place.deploy(model)
    journal = read_journal(place.ws.path, "witness")
    assert journal is not None
    remove(place.ws.path, journal, BACK)
    assert snapshot(place.root) == before
    (fault,) = list_faults(place.ws)
    assert "the store was not told" in fault.text
    list(mend(place.ws))
    assert rows(place.ws) == [("dep-1", "live", "ended", "rolled-back")]
    assert list(list_faults(place.ws)) == []


def test_mending_what_somebody_wrote_over(place: Place) -> None:
    model = make_model(place.ws, "a")
    place.deploy(model)
    # As `gt config cost-tier` does it.
    theirs = '{"type": "town-settings", "version": 1, "role_agents": {"witness": "claude-haiku"}}'
    (place.root / "settings" / "config.json").write_text(theirs)
    (fault,) = list_faults(place.ws)
    assert "wrote over it" in fault.text
    list(mend(place.ws))
    assert (place.root / "settings" / "config.json").read_text() == theirs
    assert rows(place.ws) == [("dep-1", "live", "ended", "undone")]


def test_a_lost_journal_and_damaged_routes_are_mended(place: Place) -> None:
    model = make_model(place.ws, "a")
    place.deploy(model, "shadow")
    (place.ws.path / "service" / "routes.json").write_text("{")
    assert [f.about for f in list_faults(place.ws)] == ["routes"]
    list(mend(place.ws))
    assert len(read_routes(place.ws.path).routes) == 1
    (place.ws.path / "deployments" / "witness.json").unlink()
    list(mend(place.ws))
    assert rows(place.ws) == [("dep-1", "shadow", "ended", "failed")]
    assert read_routes(place.ws.path).routes == ()
    assert find_model(place.ws.store, model.id).status == "approved"


def test_a_dog_a_foreign_agent_and_a_start_command_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, settings='{"version": 1, "default_agent": "gemini"}')
    model, dog = make_model(place.ws, "a"), make_model(place.ws, "d", "dog")
    with pytest.raises(TownError, match="cannot be pointed"):
        place.plan(model)
    with pytest.raises(TownError, match="every dog"):
        place.plan(dog, named="claude")
    with pytest.raises(TownError, match="no agent nobody"):
        place.plan(model, named="nobody")
    write(place.root / "roles" / "witness.toml", '[session]\nstart_command = "exec my-runner"\n')
    with pytest.raises(TownError, match="a command of its own"):
        place.plan(model, named="claude")


def test_another_agent_runs_the_model_and_the_previous_one_stands_by(tmp_path: Path) -> None:
    place = Place(tmp_path, settings='{"version": 1, "default_agent": "gemini"}')
    place.deploy(make_model(place.ws, "a"), named="opencode")
    agent = place.settings()["agents"]["gtft-witness"]
    assert agent["env"]["OPENAI_BASE_URL"] == f"{URL}/roles/witness/v1"
    assert agent["env"]["OPENCODE_PERMISSION"] == '{"*":"allow"}'
    journal = read_journal(place.ws.path, "witness")
    assert (
        journal is not None and journal.launch is not None and journal.launch.previous is not None
    )
    assert journal.launch.previous.argv == ("gemini", "--approval-mode", "yolo")
    assert journal.launch.token == "OPENAI_API_KEY" and journal.launch.words == ()


def test_codex_is_told_the_server_by_its_command_line(place: Place) -> None:
    place.deploy(make_model(place.ws, "a"), named="codex")
    journal = read_journal(place.ws.path, "witness")
    assert journal is not None and journal.launch is not None
    assert journal.launch.words == ("-c", f'openai_base_url="{URL}/roles/witness/v1"')
    assert place.settings()["agents"]["gtft-witness"]["args"] == [
        "--dangerously-bypass-approvals-and-sandbox"
    ]


def test_a_town_wide_entry_is_refused_where_a_rig_differs(tmp_path: Path) -> None:
    place = Place(tmp_path, "gizmo", "harbor")
    write(place.root / "harbor/settings/config.json", '{"version": 1, "agent": "codex"}')
    model = make_model(place.ws, "a")
    with pytest.raises(TownError, match="--rig harbor"):
        place.plan(model)
    place.deploy(model, rig="harbor")
    assert "OPENAI_BASE_URL" in place.settings("harbor")["agents"]["gtft-witness"]["env"]


def test_a_rigs_wrapper_stays_around_its_agent(tmp_path: Path) -> None:
    place = Place(tmp_path)
    wrapper = (
        '{"version": 1, "runtime": {"command": "claude", "exec_wrapper": ["box", "run", "--"]}}'
    )
    write(place.root / "gizmo/settings/config.json", wrapper)
    place.deploy(make_model(place.ws, "a"), rig="gizmo")
    agent = place.settings("gizmo")["agents"]["gtft-witness"]
    assert agent["exec_wrapper"] == ["gtft", "deploy", "launch", "J", "--", "box", "run", "--"]


MINE = '{"version": 1, "agents": {"mine": {"command": "claude", "args": ["--model", "x"]}}, "role_agents": {"witness": "mine"}}'


@pytest.mark.parametrize("rig", ["", "gizmo"])
def test_the_role_s_own_agent_is_copied_also_where_ours_stands_before_it(
    tmp_path: Path, rig: str
) -> None:
    """Another model takes the place, or a rig gets one of its own: the copy is of what the operator chose."""
    place = Place(tmp_path, settings=MINE)
    before = snapshot(place.root)
    place.deploy(make_model(place.ws, "a"))
    place.deploy(make_model(place.ws, "b"), rig=rig)
    assert place.settings(rig)["agents"]["gtft-witness"]["args"] == ["--model", "x"]
    for of in {rig, ""}:
        place.back(rig=of)
    assert snapshot(place.root) == before


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ('{"role_agents": {"witness": 5}}', "role_agents.witness is not a string"),
        ('{"role_agents": {"mayor": ["a"]}}', "role_agents.mayor is not a string"),
        ('{"agents": {"x": 5}}', "agents.x is not an object"),
        ('{"agents": {"x": {"exec_wrapper": "box"}}}', "exec_wrapper is not a list of strings"),
        ('{"agents": {"x": {"env": {"A": 1}}}}', "env is not an object of strings"),
        ('{"agents": {"x": {"Command": "c"}}}', "does not mind the case"),
    ],
)
def test_settings_that_gt_cannot_read_are_refused(tmp_path: Path, settings: str, why: str) -> None:
    place = Place(tmp_path, settings=settings)
    with pytest.raises(TownError) as e:
        place.plan(make_model(place.ws, "a"))
    assert why in e.value.why


def test_an_agent_of_ours_runs_no_model(place: Place) -> None:
    place.deploy(make_model(place.ws, "a"))
    with pytest.raises(TownError, match="an agent that gtft made"):
        place.plan(make_model(place.ws, "b", "refinery"), named="gtft-witness")


def change_journal(place: Place, name: str = "witness", **fields: Any) -> Path:
    path = place.ws.path / "deployments" / "witness.json"
    doc = json.loads(path.read_bytes())
    files = {k: fields.pop(k) for k in ("path", "before") if k in fields}
    doc["files"][0] |= files
    to = path.with_name(f"{name}.json")
    path.unlink()
    return write(to, json.dumps({**doc, **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "../outside.json"},
        {"path": "mayor/town.json"},
        {"path": "gizmo/settings/config.json"},
        {"root": "../.."},
        {"root": "/etc"},
        {"before": "no base64"},
        {"role": "../x"},
        {"role": "mayor"},
        {"name": "other"},
    ],
)
def test_a_journal_that_names_another_file_is_refused(place: Place, fields: dict[str, str]) -> None:
    place.deploy(make_model(place.ws, "a"))
    write(place.root.parent / "outside.json", "theirs")
    before = snapshot(place.root.parent)
    change_journal(place, **fields)
    with pytest.raises(InputError) as e:
        for journal in list_journals(place.ws.path):
            remove(place.ws.path, journal, BACK)
    assert e.value.what
    after = snapshot(place.root.parent)
    assert {p: f for p, f in after.items() if "settings" in p or p == "outside.json"} == {
        p: f for p, f in before.items() if "settings" in p or p == "outside.json"
    }


def test_a_folder_that_became_a_link_is_not_written_through(place: Place) -> None:
    place.deploy(make_model(place.ws, "a"))
    outside = place.root.parent / "elsewhere"
    (place.root / "settings").rename(outside)
    (place.root / "settings").symlink_to(outside)
    held = (outside / "config.json").read_bytes()
    with pytest.raises(InputError, match="symbolic link now"):
        place.back()
    assert (outside / "config.json").read_bytes() == held
    # Once it is put right, the rollback goes on from where it was.
    (place.root / "settings").unlink()
    outside.rename(place.root / "settings")
    list(mend(place.ws))
    assert "agents" not in place.settings()
    assert rows(place.ws) == [("dep-1", "live", "ended", "rolled-back")]


def test_what_cannot_be_mended_keeps_nothing_else_from_it(tmp_path: Path) -> None:
    """The town's settings are broken by hand; the rig's deployment, whose files were written over, is mended."""
    place = Place(tmp_path, "gizmo", "harbor")
    place.deploy(make_model(place.ws, "a"))
    place.deploy(make_model(place.ws, "b"), rig="gizmo")
    path = place.root / "settings" / "config.json"
    ours = path.read_bytes()
    path.write_bytes(ours[:-5])
    write(place.root / "gizmo/settings/config.json", "{}")
    with lock_deploy(place.ws.path), pytest.raises(TownError, match="cannot be edited"):
        list(mend(place.ws))
    assert [r[2] for r in rows(place.ws)] == ["active", "ended"]
    assert path.read_bytes() == ours[:-5]
    path.write_bytes(ours)
    list(mend(place.ws))
    assert [r[2] for r in rows(place.ws)] == ["ended", "ended"] and list(
        list_faults(place.ws)
    ) == []


def test_a_workspace_behind_a_link_edits_the_town_before_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    before = snapshot(place.root)
    place.ws.path.rename(tmp_path / "state")
    place.ws.path.symlink_to(tmp_path / "state")
    place.ws = open_town(place.root, place.environ)
    place.deploy(make_model(place.ws, "a"))
    assert "gtft-witness" in place.settings()["agents"]
    place.back()
    assert snapshot(place.root) == before


def test_the_diff_shows_no_secret_of_a_copied_agent(tmp_path: Path) -> None:
    agent = {
        "provider": "claude",
        "command": "claude",
        "env": {"ANTHROPIC_API_KEY": 'made-up "value" one', "HOST_TOKEN": "made-up-two", "MODE": "x"},
    }  # fmt: skip
    settings = {"version": 1, "default_agent": "own", "agents": {"own": agent}}
    place = Place(tmp_path, settings=json.dumps(settings))
    plan = place.plan(make_model(place.ws, "a"))
    shown = plan.diff(place.root)
    assert "made-up" not in shown and '"MODE": "x"' in shown
    assert '"ANTHROPIC_API_KEY": "…"' in shown and "/roles/witness" in shown
    assert any(b"made-up-two" in (e.new or b"") for e in plan.edits)
