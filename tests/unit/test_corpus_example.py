"""The training item: what is said about it, and what it says."""

from __future__ import annotations

from gtft.corpus.example import Example, Origin


def test_every_label_is_changed_and_no_message() -> None:
    e = Example(
        id="ex-1", source="codex", cluster="session:ada", messages=({"role": "user", "content": "ada"},),
        tools=(), role="ada", rig="ada", bead="ada", weight=1.0, provenance="agent",
        origin=Origin("ada.jsonl", (1, 2), "ada", 0), actor="ada", by=("human", "agent:ada", "agent:ada"),
    )  # fmt: skip
    changed = e.map_labels(lambda text: text.replace("ada", "user1")).to_json()
    assert changed.pop("messages") == [{"role": "user", "content": "ada"}]
    assert "ada" not in str(changed)
    assert changed["by"] == ["human", "agent:user1", "agent:user1"]
