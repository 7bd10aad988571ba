"""Figures of a deployment with their n, limits, the comparison by beads, and the sweep that starts a look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gtft.cli.deploy_figures import word_figures
from gtft.cli.deploy_watch import watch
from gtft.corpus.example import Example, Origin
from gtft.corpus.linking.chronicle import Verdict
from gtft.corpus.linking.town_record import TownRecords
from gtft.models.service_figures import Share, TownFigures, describe_service, find_breach
from gtft.recipe.schema import Limits
from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow
from gtft.runner import watching
from gtft.runner.box import Box
from gtft.runner.sweep import sweep
from gtft.runner.switch import put_routes, read_journal, write_journal
from gtft.runner.switch_lock import lock_deploy
from gtft.runner.watching import EVERY_S, list_due, lock_watch, look_after
from gtft.runner.workspace import Workspace
from gtft.service import AnswerLine, add_answer, read_routes, stays_with_previous
from gtft.workers.sessions import Told
from gtft.workers.shadow import count_escalations
from gtft.workers.town_outcomes import list_arms
from watch_case import NOW, SINCE, deploy, open_town, stamp, work_here

GIB = 1024**3
ROOMY = Box(2, 0.1, 8 * GIB, 6 * GIB, None, None, 50 * GIB, ())
NOTHING = TownFigures()
LIMITS = {k: float(v) for k, v in Limits(min_decisions=4).model_dump().items()}
DAY = 86_400.0


def answers(n: int, **more: Any) -> list[AnswerLine]:
    made = {"at_us": 1, "deployment": "d", "mode": "live", "took": "model", "seconds": 2.0, **more}
    return [AnswerLine.model_validate(made) for _ in range(n)]


def live(*groups: list[AnswerLine], town: TownFigures = NOTHING, **more: Any) -> dict[str, Any]:
    return describe_service("live", [a for g in groups for a in g], town, **more)


def test_what_was_never_seen_is_not_known() -> None:
    found = describe_service("shadow", [], TownFigures())
    unknown = ("agreement", "abstained", "seconds", "tokens", "ab")
    assert {k: found[k] for k in unknown} == dict.fromkeys(unknown)
    assert found["cost"] == {"since": None, "before": None}
    assert find_breach(found, LIMITS) is None
    said = dict(word_figures(found))
    assert said["agreement"] == "not known" and said["rejects"] == "not known, before not known"


def test_each_figure_has_its_n() -> None:
    found = live(
        answers(6, tokens=10, prompt_tokens=100),
        answers(2, seconds=8.0, escalated=True),
        answers(1, took="previous", why="timeout"),
        answers(1, took="previous", why="abstained", abstained=True),
        answers(3, took="previous", why="ab"),
        town=TownFigures(escalated_before=Share(1, 50), cost_before=(4, 2.0), cost_since=(3, 0.3)),
    )
    assert (found["answers"], found["decisions"]) == (13, 10)
    assert found["fallbacks"]["all"]["hits"] == 2 and found["fallbacks"]["all"]["n"] == 10
    assert found["fallbacks"]["causes"] == {"timeout": 1, "abstained": 1}
    assert found["seconds"] == {"n": 8, "median": 2.0, "p95": 8.0}
    assert found["escalations"]["since"]["hits"] == 2 and found["escalations"]["since"]["n"] == 8
    assert found["tokens"] == {"n": 8, "read": 600, "written": 60}
    said = dict(word_figures(found))
    assert said["fallbacks"] == "20% of 10 (6–51 %): 1 timeout, 1 abstained"
    assert said["cost of the role"] == "0.30 USD in 3 sessions, before 2.00 USD in 4 sessions"


@pytest.mark.parametrize(
    ("limit", "value", "found", "text"),
    [
        ("min_agreement", 0.9, describe_service("shadow", answers(3, mode="shadow", took="nobody", agreed=True)
         + answers(2, mode="shadow", took="nobody", agreed=False), TownFigures()), "3 of 5 (60%) agree"),
        ("max_fallback", 0.3, live(answers(3), answers(2, took="previous", why="error")), "(2 error), at most 30%"),
        ("max_escalations", 2.0, live(answers(2), answers(4, escalated=True), town=TownFigures(escalated_before=Share(5, 50))),
         "4 of 6 (67%) since, 5 of 50 (10%) before"),
        ("max_rejects", 2.0, live(answers(5), town=TownFigures(rejected_before=Share(0, 20), rejected_since=Share(3, 5))),
         "3 of 5 (60%) since, 0 of 20 (0%) before"),
        ("max_seconds", 1.5, live(answers(5)), "median of 5 answers took 2 s, at most 1.5 s"),
    ],
)  # fmt: skip
def test_each_limit_names_itself_the_figure_and_the_n(
    limit: str, value: float, found: dict[str, Any], text: str
) -> None:
    quiet = {**LIMITS, "max_fallback": 1.0, "max_escalations": 0.0, "max_rejects": 0.0}
    breach = find_breach(found, {**quiet, limit: value})
    assert breach is not None and breach[0] == limit and text in breach[1]
    assert find_breach(found, {**quiet, limit: value, "min_decisions": 7.0}) is None
    assert find_breach(found, quiet) is None


def test_nothing_is_a_multiple_of_nothing() -> None:
    town = TownFigures(escalated_before=Share(0, 100))
    one = live(answers(99), answers(1, escalated=True), town=town)
    assert find_breach(one, LIMITS) is None
    assert (
        find_breach(live(answers(90), answers(10, escalated=True), town=town), LIMITS) is not None
    )


def test_a_multiple_that_may_be_chance_takes_nothing_back() -> None:
    few = TownFigures(escalated_before=Share(2, 40))
    assert find_breach(live(answers(17), answers(3, escalated=True), town=few), LIMITS) is None
    found = find_breach(live(answers(10), answers(10, escalated=True), town=few), LIMITS)
    assert found is not None and found[0] == "max_escalations"


def patrol(n: int, turns: Sequence[str]) -> Told:
    """A session that runs these commands one after the other."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "[GAS TOWN] witness patrol"}]
    for k, command in enumerate(turns):
        call = {"id": f"c{k}", "function": {"name": "Bash", "arguments": {"command": command}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": "ok"})
    origin = Origin("t.jsonl", (1, 2), f"s-{n}", 0)
    example = Example(
        f"ex-{n}", "claude-code", "c", tuple(messages), (), "witness", "gizmo", None, 1.0, "town", origin
    )  # fmt: skip
    return Told(example, f"s-{n}", SINCE - DAY, SINCE - DAY)


def answer_patrols(count: int, turns: Sequence[str]) -> list[AnswerLine]:
    """The same, answered live: one request for each turn."""
    return [
        line
        for n in range(count)
        for turn in turns
        for line in answers(1, session=f"live-{n}", escalated=turn.startswith("gt escalate"))
    ]


QUIET = ["gt peek nux"] * 19 + ["gt handoff"]
LOUD = ["gt peek nux"] * 9 + ['gt escalate "nux is stuck"'] + ["gt peek nux"] * 9 + ["gt handoff"]


def test_a_role_that_does_as_before_is_not_taken_back_for_its_escalations() -> None:
    town = TownFigures(escalated_before=count_escalations([patrol(n, LOUD) for n in range(300)]))
    found = live(answer_patrols(40, LOUD), town=town)
    assert [found["escalations"][k]["n"] for k in ("since", "before")] == [40, 300]
    assert [found["escalations"][k]["share"] for k in ("since", "before")] == [1.0, 1.0]
    assert find_breach(found, LIMITS, repeatedly=True) is None


def test_ten_times_as_many_escalations_are_found_however_long_a_session_is() -> None:
    told = [patrol(n, LOUD if n % 10 == 0 else QUIET) for n in range(300)]
    town = TownFigures(escalated_before=count_escalations(told))
    breach = find_breach(live(answer_patrols(200, LOUD), town=town), LIMITS, repeatedly=True)
    assert breach is not None and breach[0] == "max_escalations"
    assert "200 of 200 (100%) since, 30 of 300 (10%) before" in breach[1]


def test_a_question_that_is_sent_again_is_no_further_decision() -> None:
    again = answers(9, session="s", prompt_sha256="ab", took="previous", why="error")
    found = live(again, answers(1, session="s", prompt_sha256="ab"), answers(2, session="s"))
    assert (found["answers"], found["decisions"]) == (12, 3)
    assert found["fallbacks"]["all"]["hits"] == 0


def test_a_share_that_may_be_chance_takes_nothing_back_and_keeps_from_a_promotion() -> None:
    def judge(good: int, bad: int, repeatedly: bool) -> tuple[str, str] | None:
        figures = live(answers(good), answers(bad, took="previous", why="error"))
        return find_breach(figures, LIMITS, repeatedly=repeatedly)

    assert judge(8, 12, repeatedly=True) is None and judge(8, 12, repeatedly=False) is not None
    assert judge(2, 18, repeatedly=True) == judge(2, 18, repeatedly=False) is not None
    beside = [
        *answers(14, mode="shadow", took="nobody", agreed=True),
        *answers(6, mode="shadow", took="nobody", agreed=False),
    ]
    figures = describe_service("shadow", beside, NOTHING)
    limits = {**LIMITS, "min_agreement": 0.8}
    assert find_breach(figures, limits, repeatedly=True) is None
    assert find_breach(figures, limits) is not None


def test_an_abstention_beside_the_agent_counts_as_one_that_it_would_have_to_answer() -> None:
    lines = answers(2, mode="shadow", took="nobody", agreed=True) + answers(
        3, mode="shadow", took="nobody", agreed=False, why="abstained", abstained=True
    )
    breach = find_breach(describe_service("shadow", lines, TownFigures()), LIMITS)
    assert breach is not None and breach[0] == "max_fallback" and "3 abstained" in breach[1]


def test_a_comparison_by_beads_says_better_worse_or_no_difference() -> None:
    def judge(model: tuple[int, int], previous: tuple[int, int]) -> dict[str, Any]:
        arms = [(False, True)] * model[0] + [(False, False)] * model[1]
        arms += [(True, True)] * previous[0] + [(True, False)] * previous[1]
        return live(answers(9), town=TownFigures(arms=tuple(arms)), ab_share=0.5)

    assert judge((5, 5), (5, 5))["ab"]["verdict"] == "undecided"
    assert judge((38, 2), (20, 20))["ab"]["verdict"] == "better"
    assert judge((180, 20), (180, 20))["ab"]["verdict"] == "no difference"
    worse = judge((20, 20), (38, 2))
    assert find_breach(worse, LIMITS) == (
        "ab_share",
        "beads done well: 20 of 40 (50%) by the model, 38 of 40 (95%) by the previous agent",
    )
    assert live(answers(9))["ab"] is None


def test_a_bead_counts_for_the_side_it_was_drawn_for_whoever_answered() -> None:
    records = TownRecords(
        verdicts={
            b: [Verdict(name="closed", at=SINCE + 1)] for b in ("gz-1", "gz-2", "gz-3", "gz-4")
        }
    )
    lines = [
        *answers(1, bead="gz-1"),
        *answers(1, bead="gz-2", took="previous", why="abstained", abstained=True),
        *answers(1, bead="gz-3", took="previous", why="ab"),
        *answers(1, session="s-4"),
    ]
    arms = list(list_arms(records, lines, SINCE, SINCE + 3 * DAY))
    assert arms == [(False, True), (False, True), (True, True)]


# -- over the town's records


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The worker's work without its process, but for tests of the process."""
    if "process" not in request.node.name:
        monkeypatch.setattr(watching, "run_worker", work_here)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    """A model live for the witness: 60 beads answered for, the model's own end badly, and costs before and since."""
    folder = tmp_path_factory.mktemp("town")
    # The ledger's own words for what becomes of a bead, and what gt writes of money.
    costs = folder / "costs.jsonl"
    source = f'[[gtft.harvest.sources]]\ntype = "costs"\npath = "{costs.name}"\n'
    rows = [
        {"session_id": f"gt-gizmo-witness-{n}", "role": "witness", "rig": "gizmo", "worker": "",
         "cost_usd": usd, "ended_at": stamp(at)}
        for n, (usd, at) in enumerate([(0.5, SINCE - DAY), (0.25, SINCE + DAY), (0.25, SINCE + 2 * DAY)])
    ]  # fmt: skip
    costs.write_text("".join(json.dumps(r) + "\n" for r in rows))
    ws, model = open_town(folder, source, "[gtft.deploy]\nab_share = 0.5")
    row = deploy(ws, model, "live", limits={"min_decisions": 20})
    put_beads(ws, folder, row, well=False)
    return ws, folder


def put_beads(ws: Workspace, folder: Path, row: DeploymentRow, *, well: bool) -> None:
    """60 beads of a comparison; one side's end well: ``well``, the model's."""
    changes = []
    for n in range(60):
        bead = f"gz-x{n}"
        kept = stays_with_previous(bead, 0.5)
        line = AnswerLine(
            at_us=int((SINCE + n) * 1e6), deployment=row.id, mode="live", seconds=1.0, tokens=5, bead=bead,
            took="previous" if kept else "model", why="ab" if kept else "",
        )  # fmt: skip
        add_answer(ws.path, line)
        rows2 = {"id": bead, "title": f"Mend pump {n}", "status": "closed", "issue_type": "task",
                 "created_at": stamp(SINCE), "closed_at": stamp(SINCE + DAY + n), "updated_at": stamp(SINCE + DAY + n),
                 "close_reason": f"mended pump number {n}"}  # fmt: skip
        changes.append(rows2)
        if kept == well:
            changes.append(
                {
                    "id": n,
                    "issue_id": bead,
                    "event_type": "reopened",
                    "created_at": stamp(SINCE + 2 * DAY + n),
                }
            )
    with (folder / "beads" / "issues.jsonl").open("a") as f:
        f.write("".join(json.dumps(c) + "\n" for c in changes))


def test_a_comparison_ends_once_and_every_bead_goes_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, model = open_town(tmp_path, "[gtft.deploy]\nab_share = 0.5")
    row = deploy(ws, model, "live", limits={"min_decisions": 20})
    journal = read_journal(ws.path, "witness")
    assert journal is not None
    route = journal.route.model_copy(update={"ab_share": 0.5})
    write_journal(ws.path, journal.model_copy(update={"route": route}))
    put_routes(ws.path)
    put_beads(ws, tmp_path, row, well=True)
    rows = Deployments(ws.store)

    def list_mail() -> list[dict[str, Any]]:
        found = [m.payload for m in ws.store.list_messages(pending=True, kind="notice")]
        return [m for m in found if m["subject"].startswith("GTFT_AB")]

    # Killed when the verdict is in the row, and nothing else.
    def die(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(watching, "end_comparison", die)
        with pytest.raises(KeyboardInterrupt):
            look_after(ws, row)
    (now,) = rows.list_deployments()
    assert now.figures["ab_end"]["verdict"] == "better" and list_mail() == []
    # While another switch is at work it waits for the next look.
    with lock_deploy(ws.path):
        assert "another deploy" in look_after(ws, now).error
    assert list_mail() == [] and read_routes(ws.path).routes[0].ab_share == 0.5
    assert not look_after(ws, now).error
    (mail,) = list_mail()
    assert mail["subject"].endswith("previous witness: better")
    assert f"gtft deploy status {row.id}" in mail["body"]
    assert "gtft rollback --role witness" in mail["body"]
    assert read_routes(ws.path).routes[0].ab_share == 0
    # What comes after is told of no more, and takes nothing back.
    (now,) = rows.list_deployments()
    again = look_after(ws, now)
    assert (again.error, again.breach, len(list_mail())) == ("", None, 1)
    assert again.figures["ab_end"] == now.figures["ab_end"]
    assert dict(word_figures(again.figures))["A/B by bead"].startswith("ended, better: beads done")


def test_beads_that_end_badly_on_the_models_side_bring_the_previous_agent_back(
    town: tuple[Workspace, Path],
) -> None:
    ws, _ = town
    (row,) = list_due(ws)
    found = look_after(ws, row)
    assert not found.error
    figures = found.figures
    model, previous = figures["ab"]["model"], figures["ab"]["previous"]
    assert model["n"] + previous["n"] == 60
    assert model["hits"] == 0 and previous["hits"] == previous["n"] > 15
    assert figures["ab"]["verdict"] == "worse"
    assert figures["cost"]["before"] == {"n": 1, "usd": 0.5}
    assert figures["cost"]["since"] == {"n": 2, "usd": 0.5}
    assert figures["rejects"]["since"]["hits"] == model["n"]
    assert found.breach is not None and found.breach[0] == "ab_share" and found.rolled_back
    ended = Deployments(ws.store).find(row.id)
    assert ended is not None and ended.reason == "rolled-back"
    assert "by the previous agent" in ended.reason_text


def test_while_another_switch_is_at_work_nothing_is_taken_back(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path)
    row = deploy(ws, model, "live", limits={"min_decisions": 2})
    for line in answers(12, deployment=row.id, took="previous", why="error"):
        add_answer(ws.path, line)
    with lock_deploy(ws.path):
        found = look_after(ws, row)
    assert found.breach is not None and not found.rolled_back and "another deploy" in found.error
    assert look_after(ws, row).rolled_back
    # Somebody was faster.
    again = look_after(ws, row)
    assert again.breach is not None and not again.rolled_back and not again.error


def test_a_deployment_whose_model_is_gone_is_told_and_ends_nobody_elses_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, model = open_town(tmp_path)
    row = deploy(ws, model, "live")
    monkeypatch.setattr(type(ws.store), "list_models", lambda _: [])
    found = look_after(ws, row)
    assert "does not know the model" in found.error and not found.rolled_back


# -- who starts it


def test_the_sweep_starts_one_look_in_a_process_of_its_own(tmp_path: Path) -> None:
    ws, model = open_town(tmp_path)
    started: list[Workspace] = []

    def start(where: Workspace) -> int:
        started.append(where)
        return 4711

    def run(dry: bool = False) -> list[str]:
        done = sweep(ws, ROOMY, lambda *_: 0, watch=start, dry_run=dry)
        return [a.text for a in done if a.what == "watched"]

    assert run() == [] and started == []
    row = deploy(ws, model, "shadow")
    assert run(dry=True) == ["shadow for witness"] and started == []
    assert run() == ["shadow for witness; started a look, process 4711"]
    with lock_watch(ws):
        assert run() == []
    figures = {"at_us": int((NOW - EVERY_S + 1) * 1e6)}
    Deployments(ws.store).note_figures(row.id, figures)
    assert run() == [] and len(started) == 1


def test_the_command_looks_once_in_a_process_and_tells_of_what_it_could_not_read(
    tmp_path: Path,
) -> None:
    ws, model = open_town(tmp_path)
    row = deploy(ws, model, "live")
    add_answer(ws.path, *answers(1, deployment=row.id))
    for path in (tmp_path / "transcripts").iterdir():
        path.unlink()
    done = CliRunner().invoke(watch, ["--once", "--json"], obj=str(ws.path))
    assert done.exit_code == 0, done.output
    (looked,) = json.loads(done.output)["data"]["looked"]
    assert looked["deployment"] == row.id and looked["figures"]["decisions"] == 1
    assert "could not be read" in looked["figures"]["sessions"]["look"]["why"]
    shown = CliRunner().invoke(watch, ["--once", "--role", "mayor"], obj=str(ws.path))
    assert "nothing is deployed" in shown.output
