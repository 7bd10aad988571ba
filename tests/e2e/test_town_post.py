"""Mail and feed of a real town: once each also after a crash; what gt refuses holds nothing up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gtft.runner.identity import make_token
from gtft.runner.outbox import (
    NOTICE_TRIES,
    deliver,
    deliver_one,
    nudge_people,
    tell_feed,
    tell_ledger,
    tell_people,
)
from gtft.runner.workspace import Workspace, open_workspace
from run_case import add_run
from town_case import TestTown, make_real_town, wait_for

# On a busy box gt was seen to take a town's server for a stray one.
pytestmark = pytest.mark.alone

# Short leases: a message whose delivery broke is taken up again at once.
CONFIG = 'lease_seconds = 0.3\n[town]\nrig = "finetune"\n'


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestTown]:
    made = make_real_town(tmp_path_factory.mktemp("post"), {"finetune": "ft"})
    (made.root / ".gtft").mkdir()
    (made.root / ".gtft" / "config.toml").write_text(CONFIG)
    yield made
    made.end()


def open_town(town: TestTown) -> Workspace:
    return open_workspace(town.root / ".gtft", environ=town.environ)


def inbox(town: TestTown, address: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(town.gt("mail", "inbox", address, "--json"))
    return found


def test_what_a_dead_runner_had_sent_is_not_sent_again(town: TestTown) -> None:
    ws = open_town(town)
    run = add_run(ws, "run-crash")
    messages = (
        tell_people(("mayor/", "finetune/witness"), "GTFT_DONE: a model of run-crash", "Next: x"),
        tell_feed("gtft_done", run.epic_bead or "", "gtft", "a model"),
        tell_ledger("note", ws.store.find_stage(run.id, "train").bead_id or "", "me", text="hello"),
    )
    for message in messages:
        ws.store.add_event(run.id, None, "test", "me", "", messages=(message,))
        token = make_token()
        row = ws.store.take_message(token, ws.store.now_us() + 300_000)
        assert row is not None
        # The crash: it went out, and nobody notes that it did. The next runner tries again.
        deliver_one(ws, row)
        wait_for(lambda: not deliver(ws) and not has_pending(ws, row.seq), 20, 0.2)  # noqa: B023
    for address in ("mayor/", "finetune/witness"):
        mails = [m for m in inbox(town, address) if "run-crash" in m["subject"]]
        assert len(mails) == 1, mails
        assert mails[0]["from"] == "gtft"
    assert (town.root / ".events.jsonl").read_text().count('"gtft_done"') == 1
    assert ws.ledger.show(messages[2].payload["bead"]).notes == ("hello",)


def has_pending(ws: Workspace, seq: int) -> bool:
    return any(m.seq <= seq for m in ws.store.list_messages(pending=True))


def test_an_address_that_gt_does_not_know_holds_nothing_up(town: TestTown) -> None:
    ws = open_town(town)
    run = add_run(ws, "run-lost")
    bead = ws.store.find_stage(run.id, "train").bead_id or ""
    messages = (
        tell_people(("nowhere/nobody", "mayor/"), "GTFT_FAILED: train of run-lost", "no room left"),
        nudge_people(("finetune/witness",), "nobody is awake there"),
        tell_ledger("note", bead, "me", text="after the mail"),
    )
    ws.store.add_event(run.id, None, "test", "me", "", messages=messages)
    wait_for(lambda: not deliver(ws) and not ws.store.list_messages(pending=True), 30, 0.2)
    assert ws.ledger.show(bead).notes == ("after the mail",)
    logged = [json.loads(x)["subject"] for x in ws.mail_log.read_text().splitlines()]
    assert logged == ["GTFT_FAILED: train of run-lost", "nobody is awake there"]
    sent = [m for m in ws.store.list_messages(pending=False) if m.run_id == run.id]
    assert [m.kind for m in sorted(sent, key=lambda m: m.done_us or 0)] == [
        "notice",
        "nudge",
        "ledger",
    ]
    assert sent[0].tries == NOTICE_TRIES + 1
    assert "not mailed" in [e.kind for e in ws.store.list_events(run.id)]
    # The others on the list have it, once.
    assert len([m for m in inbox(town, "mayor/") if "run-lost" in m["subject"]]) == 1
