"""What a harvest's job says of consent and withdrawals, and which rig is a run's own."""

import dataclasses
from pathlib import Path

import pytest

from gtft.contract import EVERY_RIG, Consent, Governance, Job, Withdrawal
from gtft.records import governance as records
from gtft.records.migrations import MIGRATIONS
from gtft.records.rows import ConsentRow, WithdrawalRow
from gtft.records.tables import metadata
from gtft.runner.execution import prepare_job
from gtft.runner.governance import find_own_rig, gather_governance
from gtft.runner.workspace import Home, Workspace, open_workspace
from gtft.town.locate import Rig, Town
from run_case import carry_on, make_run


def put_in_town(ws: Workspace, folder: Path) -> Workspace:
    rigs = tuple(Rig(n, n[:2], folder, folder, n, "") for n in ("finetune", "gizmo", "harbor"))
    return dataclasses.replace(ws, home=Home(Town(folder, "tt", rigs), rigs[0]))


@pytest.mark.parametrize(
    ("actor", "scope", "alone", "in_town"),
    [
        ("gizmo/polecats/nux", ("rig:harbor",), "gizmo", "gizmo"),
        ("gizmo/witness", (), EVERY_RIG, "gizmo"),
        ("overseer/ann", ("rig:harbor", "rig:gizmo"), "harbor", "harbor"),
        ("mayor", ("rig:harbor",), "harbor", "harbor"),
        ("overseer/ann", (), EVERY_RIG, ""),
        # gtft's own rig works for the others.
        ("finetune/polecats/nux", ("rig:harbor",), "finetune", "harbor"),
    ],
)
def test_the_own_rig_of_a_run(
    ws: Workspace, tmp_path: Path, actor: str, scope: tuple[str, ...], alone: str, in_town: str
) -> None:
    assert find_own_rig(ws, actor, scope) == alone
    assert find_own_rig(put_in_town(ws, tmp_path), actor, scope) == in_town


def test_a_harvest_is_told_and_no_other_stage(tmp_path: Path, clock: list[float]) -> None:
    ws = open_workspace(tmp_path / "ws", now=lambda: clock[0])
    room = records.Governance(ws.store)
    for rig in ("harbor", "lantern"):
        room.add_consent(ConsentRow(rig, rig, "2027-02-01", "", "ann", "ann", 1))
    room.revoke_consents("lantern", "ann")
    room.add_withdrawal(WithdrawalRow("w", "session", "s1", "", "ann", (), 1))
    run = make_run(ws, tmp_path, actor="gizmo/crew/ann")
    job = prepare_job(ws, run, ws.store.find_stage(run.id, "harvest"), "w")
    assert job.governance == Governance(
        own="gizmo",
        today="2027-01-15",
        consents=(Consent(rig="harbor", until="2027-02-01"),),
        withdrawals=(Withdrawal(kind="session", who="s1"),),
    )
    written = (ws.job_dir(run.id, "harvest") / "job.json").read_text()
    assert Job.model_validate_json(written) == job
    carry_on(ws, run, "harvest")
    train = prepare_job(ws, run, ws.store.find_stage(run.id, "train"), "w")
    assert train.governance == Governance()


def test_the_rigs_of_a_town_are_named(ws: Workspace, tmp_path: Path) -> None:
    assert gather_governance(ws, "mayor", ()).rigs == ()
    assert gather_governance(put_in_town(ws, tmp_path), "mayor", ()).rigs == (
        "finetune",
        "gizmo",
        "harbor",
    )


def test_the_docs_name_every_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text("utf-8")
    for name in metadata.tables:
        assert f"`{name}`" in page
    assert f"these tables: {len(MIGRATIONS)} |" in page
