"""What an operator asks of a run, at the wrong moment too."""

from pathlib import Path

import pytest

from gtft.errors import ConflictError, TownError
from gtft.runner.control import cancel, get_run, pause, resume
from gtft.runner.dispatch import dispatch
from gtft.runner.workspace import Workspace, open_workspace
from run_case import add_run, claim_of, resolve_tiny


def test_a_run_that_still_stops_cannot_be_resumed(ws: Workspace) -> None:
    """Its worker was told to stop: it would pause all the same, and the resume would be lost."""
    run = add_run(ws)
    claim_of(ws, run.id)
    assert resume(ws, run, "me") == []
    pause(ws, run, "me")
    with pytest.raises(ConflictError, match="still stopping"):
        resume(ws, get_run(ws, run.id), "me")
    assert get_run(ws, run.id).desired == "pause"


def test_a_run_without_beads_can_be_cancelled(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dispatch was cut off before the ledger had them."""
    with monkeypatch.context() as m:
        m.setattr("run_case.finish_dispatch", lambda *_: None)
        run = add_run(ws)
    assert {s.reason for s in cancel(ws, run, "me", "a mistake")} == {"cancelled"}
    epic = get_run(ws, run.id).epic_bead or ""
    assert ws.ledger.show(epic).status == "closed"


def test_a_ledger_that_is_away_leaves_no_run_behind(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def is_away(**_: object) -> None:
        raise TownError("bd is not on PATH")

    monkeypatch.setattr(ws.ledger, "find", is_away)
    with pytest.raises(TownError):
        dispatch(ws, resolve_tiny(tmp_path), "me", ws.path)
    assert ws.store.list_runs() == []


def test_a_town_workspace_that_lost_its_link_does_not_start_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "install.json").write_text("{}")
    with pytest.raises(TownError, match="lost its link") as e:
        open_workspace(tmp_path)
    assert e.value.fix == "gtft town install"
    assert not (tmp_path / "gtft.db").exists()
