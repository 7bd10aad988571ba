"""What docs/models.md says of statuses and formats is what the code does."""

from __future__ import annotations

from pathlib import Path

from gtft.records.deployments import STATUSES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text("utf-8")


def test_the_docs_show_every_status_and_what_may_follow() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    told = {r[0].strip("| `"): r[-1].strip(" |") for r in rows}
    assert told == {status: ", ".join(then) for status, then in STATUSES.items()}
