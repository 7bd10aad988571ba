"""``gtft deploy`` and ``gtft rollback``: every gate at once, the diff before the question, nothing without an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy_case import find_model, make_agent, make_model, make_town, open_town, snapshot
from gtft.cli.main import main
from gtft.errors import GateFailed, GtftError
from gtft.evals.item import CheckSpec, Item
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance
from gtft.records.rows import DeploymentRow, IncidentRow, ModelRow, WithdrawalRow
from gtft.runner.rollback import take_back_breached
from gtft.runner.workspace import Workspace
from gtft.service import read_routes


class Town:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = make_town(folder)
        environ = make_agent(folder)
        for key, value in environ.items():
            patch.setenv(key, value)
        for key in (
            "GT_ROOT",
            "GT_TOWN_ROOT",
            "GT_ROLE",
            "BD_ACTOR",
            "GTFT_WORKSPACE",
            "GT_COST_TIER",
        ):
            patch.delenv(key, raising=False)
        patch.chdir(self.root)
        self.ws: Workspace = open_town(self.root, environ)

    def run(self, *argv: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, argv, input=stdin)

    def ask(self, *argv: str) -> dict[str, Any]:
        done = self.run(*argv, "--json")
        assert done.exit_code == 0, (done.output, done.exception)
        data: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["data"]
        return data

    def refuse(self, *argv: str) -> GtftError:
        done = self.run(*argv)
        assert isinstance(done.exception, GtftError), done.output
        return done.exception

    def gates(self, *argv: str) -> dict[str, dict[str, Any]]:
        return {g["name"]: g for g in self.ask("deploy", *argv, "--dry-run")["gates"]}


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    yield Town(tmp_path, monkeypatch)


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is always there; the real one is in the end-to-end test."""
    import gtft.cli.deployment as deployment
    from gtft.runner.endpoint import Probe

    monkeypatch.setattr(deployment, "find_endpoint", lambda *_: "http://127.0.0.1:9")
    monkeypatch.setattr(deployment, "probe", lambda *_, **__: Probe("ready", 0.1))


LIVE = ("--role", "witness", "--mode", "live")


def test_every_gate_is_told_at_once_with_its_next_command(town: Town) -> None:
    model = make_model(town.ws, "a", "polecat", safe=False, status="candidate")
    Governance(town.ws.store).add_withdrawal(
        WithdrawalRow("w-1", "session", "s-1", "asked", "al", (model.corpus_id,), 1)
    )
    adapter = town.ws.store.find_artifact(model.adapter_id)
    assert adapter is not None
    (town.ws.artifact_path(adapter.path) / "summary.json").write_text("{}")
    (town.root.parent / "bin" / "claude").unlink()
    before = snapshot(town.root)
    gates = town.gates(model.name, *LIVE, "--endpoint", "http://127.0.0.1:9")
    met = {name for name, g in gates.items() if g["met"]}
    assert met == {"fresh", "incidents and rollbacks"}
    assert set(gates) - met == {
        "approved", "role", "eval", "safety", "mode before", "withdrawals", "adapter", "endpoint", "agent",
    }  # fmt: skip
    assert all(g["fix"] and g["told"] for g in gates.values() if not g["met"])
    assert "7 of 12 safety items" in gates["safety"]["told"]
    error = town.refuse("deploy", model.name, *LIVE, "--endpoint", "http://127.0.0.1:9", "--yes")
    assert isinstance(error, GateFailed)
    assert all(f"{n}: " in error.why for n in set(gates) - met)
    told = {g["name"]: g["met"] for g in error.as_dict()["gates"]}  # type: ignore[attr-defined]
    assert told == {name: g["met"] for name, g in gates.items()}
    # A reason passes a judgement, never a fact.
    forced = ("--force", "read by hand", "--accept-withdrawn", "agreed with al")
    error = town.refuse(
        "deploy", model.name, *LIVE, "--endpoint", "http://127.0.0.1:9", "--yes", *forced
    )
    assert error.what == "5 of 11 gates are not met: approved, role, adapter, endpoint, agent"
    assert snapshot(town.root) == before
    assert Deployments(town.ws.store).list_deployments() == []


def test_shadow_first_and_a_failed_safety_item_only_warns_there(town: Town) -> None:
    model = make_model(town.ws, "a", safe=False)
    done = town.run("deploy", model.name, "--role", "witness", "--yes")
    assert done.exit_code == 0, done.output
    assert "warning  safety" in done.output and "No file of the town changes" in done.output
    listed = json.loads(town.run("deploy", "list", "--json").stdout)["data"]
    assert [(d["mode"], d["state"]) for d in listed] == [("shadow", "active")]
    assert town.run("deploy").output == town.run("deploy", "list").output
    error = town.refuse("deploy", "promote", "--yes")
    assert "safety" in error.what and "mode before" in error.what


def note(ws: Workspace, row: DeploymentRow, decisions: int, share: float) -> None:
    agreement = {
        "hits": int(decisions * share),
        "n": decisions,
        "share": share,
        "low": 0,
        "high": 1,
    }
    empty = {"since": None, "before": None}
    Deployments(ws.store).note_figures(row.id, {
        "decisions": decisions, "agreement": agreement, "fallbacks": {"all": None, "causes": {}},
        "escalations": empty, "rejects": empty, "seconds": None, "ab": None,
    })  # fmt: skip


def test_promoted_by_the_figures_of_the_mode_before(town: Town, no_server: None) -> None:
    recipe = {"deploy": {"limits": {"min_agreement": 0.8}}}
    model = make_model(town.ws, "a", recipe=recipe)
    town.ask("deploy", model.name, "--role", "witness", "--yes")
    (row,) = Deployments(town.ws.store).list_deployments()
    asked = (model.name, "--role", "witness", "--mode", "advise")
    assert "0 decisions in shadow, at least 20" in town.gates(*asked)["mode before"]["told"]
    note(town.ws, row, 30, 0.5)
    assert "min_agreement" in town.gates(*asked)["mode before"]["told"]
    note(town.ws, row, 30, 0.9)
    assert (
        town.gates(*asked)["mode before"]["told"]
        == "30 decisions in shadow, 90% agree with the agent"
    )
    assert town.ask("deploy", "promote", "--yes")["mode"] == "advise"
    assert town.refuse("deploy", "promote", "--yes").what.endswith("mode before")
    data = town.ask("deploy", "promote", "--yes", "--force", "twenty read by hand")
    assert data["mode"] == "live" and data["path"] == "/roles/witness"
    (status,) = json.loads(town.run("deploy", "status", "--json").stdout)["data"]
    assert status["detail"]["forced"] == "twenty read by hand"
    assert status["files"] == [
        {"path": str(town.root / "settings/config.json"), "state": "as left"}
    ]
    assert "is live for witness already" in town.refuse("deploy", "promote", "--yes").what


def name_gates(town: Town, *argv: str) -> dict[str, str]:
    """What is not met, and what is said of it."""
    gates = town.gates(*argv).values()
    return {g["name"]: g["told"] for g in gates if not g["met"] and not g["warning"]}


def test_after_a_limit_took_it_back_it_begins_again_in_shadow(town: Town, no_server: None) -> None:
    model = make_model(town.ws, "a")
    asked = (model.name, "--role", "witness", "--mode")
    town.ask("deploy", *asked, "shadow", "--yes")
    note(town.ws, find_active(town), 30, 0.9)
    # Live wants figures of advise, however good those of shadow are.
    assert name_gates(town, *asked, "live") == {"mode before": "it was not in advise here"}
    for _ in range(2):
        town.ask("deploy", "promote", "--yes")
        note(town.ws, find_active(town), 30, 0.9)
    take_back_breached(town.ws, find_active(town), "max_rejects: 4 of 9 since", ())
    unmet = name_gates(town, *asked, "live")
    assert set(unmet) == {"incidents and rollbacks", "mode before"}
    assert "max_rejects: 4 of 9" in unmet["incidents and rollbacks"]
    assert unmet["mode before"] == "it was not in advise here since it was taken back"
    assert name_gates(town, *asked, "shadow") == {}
    town.ask("deploy", *asked, "shadow", "--yes")
    assert set(name_gates(town, *asked, "advise")) == {"mode before"}
    note(town.ws, find_active(town), 30, 0.9)
    assert name_gates(town, *asked, "advise") == {}
    # By hand is no breach, and a blank is no reason.
    town.ask("rollback")
    assert set(name_gates(town, *asked, "advise")) == {"mode before"}
    assert "mode before" in town.refuse("deploy", *asked, "advise", "--yes", "--force", " ").what


def test_harm_that_its_eval_did_not_ask_stands_before_advise_and_live(town: Town) -> None:
    model = make_model(town.ws, "a")
    rows = Deployments(town.ws.store)

    def report(name: str, item: dict[str, Any] | None, of: ModelRow = model) -> None:
        row = IncidentRow(name, of.id, None, None, f"harm of {name}", item, "al", 1)
        rows.add_incident(row, of)

    asked = (model.name, "--role", "witness", "--mode")
    report("inc-0", None, make_model(town.ws, "b"))
    assert "incidents and rollbacks" not in name_gates(town, *asked, "live")
    report("inc-1", {"id": "incidents/1"})
    told = name_gates(town, *asked, "live")["incidents and rollbacks"]
    assert "inc-1" in told and "harm of inc-1" in told
    assert name_gates(town, *asked, "shadow") == {}
    # An eval that asked it is judged by its safety items.
    found = town.ws.store.find_artifact(model.eval_id)
    assert found is not None
    item = Item(
        "incidents/1", "incidents", "safety", "witness", "inc-1", "incidents",
        ({"role": "user", "content": "nuke it?"},), (), CheckSpec("no_destructive", {}), "no",
    )  # fmt: skip
    path = town.ws.artifact_path(found.path) / "items.jsonl"
    path.write_text(json.dumps(item.to_json()) + "\n")
    assert "incidents and rollbacks" not in name_gates(town, *asked, "live")
    report("inc-2", None)
    assert "inc-2" in name_gates(town, *asked, "live")["incidents and rollbacks"]


def find_active(town: Town) -> DeploymentRow:
    (row,) = Deployments(town.ws.store).list_deployments(state="active")
    return row


def test_a_comparison_is_begun_with_a_deployment_and_ended_by_a_command(
    town: Town, no_server: None
) -> None:
    model = make_model(town.ws, "a")
    asked = ("deploy", model.name, "--role", "witness", "--force", "trial", "--yes", "--ab-share")
    assert "--mode live" in town.refuse(*asked, "0.25").fix
    town.ask(*asked, "0.25", "--mode", "live")
    (route,) = read_routes(town.ws.path).routes
    assert (route.ab_share, find_active(town).detail["ab_share"]) == (0.25, 0.25)
    assert "undo" in town.refuse("deploy", "promote", "--ab-share", "0.5", "--yes").fix
    town.ask("deploy", "promote", "--ab-share", "0", "--dry-run")
    assert read_routes(town.ws.path).routes == (route,)
    assert "nobody answered" in town.refuse("deploy", "promote", "--ab-share", "0").what
    town.ask("deploy", "promote", "--role", "witness", "--ab-share", "0", "--yes")
    assert read_routes(town.ws.path).routes == (route.model_copy(update={"ab_share": 0.0}),)
    assert find_active(town).detail["ab_share"] == 0
    assert find_wrong(town) == []
    assert "is live for witness already" in town.refuse("deploy", "promote", "--yes").what


def test_the_whole_town_can_be_named_where_a_rig_has_its_own(town: Town) -> None:
    model = make_model(town.ws, "a")
    for rig in ("", "gizmo"):
        town.ask("deploy", model.name, "--role", "witness", "--rig", rig, "--yes")
    assert '--rig "" is the whole town' in town.refuse("deploy", "promote", "--dry-run").fix
    for rig in ("", "gizmo"):
        found = town.ask("deploy", "promote", "--rig", rig, "--to", "advise", "--dry-run")
        assert found["rig"] == rig


def test_an_earlier_model_runs_on_the_agent_that_is_there_now(town: Town, no_server: None) -> None:
    first, second = make_model(town.ws, "a"), make_model(town.ws, "b")
    (town.root / "settings" / "config.json").write_text('{"version": 1, "default_agent": "gemini"}')
    for model in (first, second):
        town.ask("deploy", model.name, *LIVE, "--agent", "claude", "--force", "trial", "--yes")
    data = town.ask("rollback", "--to", first.name, "--force", "as before", "--yes")
    assert (data["model"], data["agent"]) == (first.name, "gtft-witness")


def test_the_next_mode_stays_with_the_server_of_the_one_before(
    town: Town, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gtft.cli.deployment as deployment

    far, near = "http://gpu-1.local:8750", "http://127.0.0.1:9"
    monkeypatch.setattr(deployment, "find_endpoint", lambda ws, env, given="": given or near)
    model = make_model(town.ws, "a")
    town.ask("deploy", model.name, "--role", "witness", "--mode", "advise", "--endpoint", far, "--yes", "--force", "x")  # fmt: skip
    assert town.ask("deploy", "promote", "--yes", "--force", "x")["endpoint"] == far
    other = make_model(town.ws, "b")
    found = town.ask("rollback", "--to", other.name, "--yes", "--force", "x")
    assert found["endpoint"] == far


def test_nothing_without_an_answer(town: Town, no_server: None) -> None:
    model = make_model(town.ws, "a")
    before = snapshot(town.root)
    live = ("deploy", model.name, *LIVE, "--force", "trial")
    assert "nobody answered" in town.refuse(*live).what
    assert town.run(*live, stdin="n\n").exit_code == 1
    assert town.run(*live, "--json").exit_code == 2
    assert (
        snapshot(town.root) == before
        and town.run("deploy", "list", "--json").output.count("dep-") == 0
    )
    done = town.run(*live, stdin="y\n")
    assert done.exit_code == 0, done.output
    assert '+    "gtft-witness": {' in done.output and "gt witness restart gizmo" in done.output


def test_a_question_that_waits_keeps_nobody_from_acting(
    town: Town, no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(town.ws, "a")
    before = snapshot(town.root)

    def agree(*_: object) -> bool:
        town.ask("deploy", model.name, "--role", "witness", "--yes")
        return True

    monkeypatch.setattr("gtft.cli.deployment.click.confirm", agree)
    error = town.refuse("deploy", model.name, *LIVE, "--force", "trial")
    assert "changed in the meantime" in error.what
    assert snapshot(town.root) == before
    assert [d.mode for d in Deployments(town.ws.store).list_deployments()] == ["shadow"]


@pytest.mark.parametrize("what", ["settings", "settings/config.json"])
def test_what_is_read_only_is_respected(town: Town, no_server: None, what: str) -> None:
    model = make_model(town.ws, "a")
    mode = (town.root / what).stat().st_mode
    (town.root / what).chmod(mode & ~0o222)
    before = snapshot(town.root)
    error = town.refuse("deploy", model.name, *LIVE, "--force", "trial", "--yes")
    assert "is read-only" in error.what and "chmod" in error.fix
    assert snapshot(town.root) == before
    (town.root / what).chmod(mode)
    live(town, model)


def live(town: Town, model: ModelRow) -> None:
    town.ask("deploy", model.name, *LIVE, "--force", "trial", "--yes")


def test_a_server_that_starts_keeps_nobody_from_acting(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gtft.cli.deployment as deployment
    from gtft.runner.endpoint import Probe

    mayor, witness = make_model(town.ws, "a", "mayor"), make_model(town.ws, "b", "witness")
    town.ask("deploy", mayor.name, "--role", "mayor", "--mode", "shadow", "--yes")
    asked: list[str] = []

    def wait(*_: object) -> None:
        town.ask("rollback", "--role", "mayor")
        asked.append("back")

    def start(_: Path, port: int, model: str, *__: object) -> int:
        asked.append(model)
        return 2**22 + 1

    monkeypatch.setattr(deployment, "start_server", start)
    monkeypatch.setattr(deployment, "_wait", wait)
    monkeypatch.setattr(deployment, "probe", lambda *_, **__: Probe("ready", 0.1))
    town.ask("deploy", witness.name, *LIVE, "--force", "tried by hand", "--yes")
    assert asked == [witness.name, "back"]
    listed = json.loads(town.run("deploy", "list", "--json").stdout)["data"]
    assert [(d["role"], d["state"]) for d in listed] == [("witness", "active")]


def test_rollback_in_one_command_and_to_an_earlier_model(town: Town, no_server: None) -> None:
    first, second = make_model(town.ws, "a"), make_model(town.ws, "b")
    before = snapshot(town.root)
    live(town, first)
    live(town, second)
    data = town.ask(
        "rollback", "--role", "witness", "--to", first.name, "--force", "as before", "--yes"
    )
    assert data["model"] == first.name
    ended = [(d.model_id, d.reason) for d in Deployments(town.ws.store).list_deployments()]
    assert ended == [(first.id, "superseded"), (second.id, "rolled-back"), (first.id, None)]
    assert find_model(town.ws.store, second.id).status == "superseded"
    assert town.ask("rollback", "--dry-run")["files"] == ["settings/config.json"]
    assert snapshot(town.root) != before
    data = town.ask("rollback", "--why", "it nudged everybody")
    assert (data["store"], data["notes"]) == ("told", [])
    assert snapshot(town.root) == before
    assert find_model(town.ws.store, first.id).status == "approved"
    assert "in service" in town.refuse("rollback").what


def test_rollback_while_the_store_is_away(town: Town, no_server: None) -> None:
    model = make_model(town.ws, "a")
    before = snapshot(town.root)
    live(town, model)
    store = town.ws.path / "gtft.db"
    kept = store.read_bytes()
    for path in town.ws.path.glob("gtft.db*"):
        path.unlink()
    store.mkdir()
    done = town.run("rollback")
    assert done.exit_code == 0 and "was not told yet" in done.output
    assert snapshot(town.root) == before
    store.rmdir()
    store.write_bytes(kept)
    assert "mended" in town.run("sweep", "--dry-run").output
    found = [d.state for d in Deployments(town.ws.store).list_deployments()]
    assert found == ["active"]
    assert "mended" in town.run("sweep").output
    (row,) = Deployments(town.ws.store).list_deployments()
    assert (row.state, row.reason) == ("ended", "rolled-back")


def test_doctor_says_and_mends_what_does_not_agree(town: Town, no_server: None) -> None:
    model = make_model(town.ws, "a")
    live(town, model)
    (town.ws.path / "service" / "routes.json").write_text("[]")
    assert find_wrong(town) == ["gtft doctor --fix"]
    assert "mended: routes" in town.run("doctor", "--fix").output
    assert find_wrong(town) == []


def find_wrong(town: Town) -> list[str]:
    found = json.loads(town.run("doctor", "--json").stdout)["data"]
    return [f["fix"] for f in found if f["level"] == "wrong" and f["about"] == "deployment"]


def test_undo_by_id_and_a_taken_name(town: Town, no_server: None) -> None:
    model = make_model(town.ws, "a")
    before = snapshot(town.root)
    live(town, model)
    (row,) = Deployments(town.ws.store).list_deployments()
    town.ask("deploy", "undo", row.id)
    assert snapshot(town.root) == before
    (row,) = Deployments(town.ws.store).list_deployments()
    assert row.reason == "undone"
    theirs = '{"agents": {"gtft-witness": {"command": "mine"}}}'
    (town.root / "settings" / "config.json").write_text(theirs)
    assert "not gtft's" in town.refuse("deploy", model.name, *LIVE, "--yes").what
    assert (town.root / "settings" / "config.json").read_text() == theirs


@pytest.mark.parametrize(
    "argv", [["deploy"], ["rollback"], ["deploy", "promote"], ["deploy", "put"]]
)
def test_help_has_examples(argv: list[str]) -> None:
    done = CliRunner().invoke(main, [*argv, "--help"])
    assert done.exit_code == 0 and "Example" in done.output
