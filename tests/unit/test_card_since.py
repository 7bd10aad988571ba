"""The second part of a card: what the store says of a model since, and the card written out of the workspace."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from card_case import WORKER, Case
from click.testing import CliRunner
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from gtft.artifact import Artifact, hash_json, verify_artifact
from gtft.cli.main import main
from gtft.errors import ConflictError, EvidenceError
from gtft.models.card_folder import check_folder, write_card_folder
from gtft.models.card_since import Since, describe_since, read_export, write_since
from gtft.models.freshness import judge_freshness
from gtft.models.lineage import trace_model
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance
from gtft.records.rows import (
    AliasRow,
    ArtifactRow,
    DeploymentRow,
    IncidentRow,
    ModelRow,
    WithdrawalRow,
)
from gtft.workers.card import work
from gtft.workers.frame import Reporter

DAY_US = 86_400 * 1_000_000
EXPORT: dict[str, Any] = {
    "format": "gguf",
    "dtype": "q8_0",
    "bytes": 3_670_016,
    "kl_mean": 0.00123,
    "kl_max": 0.0456,
    "top1_agreement": 0.9875,
    "greedy_equal": 11,
    "greedy_prompts": 12,
    "verified": True,
    "runtime": "llama-cpp-python 0.3.36",
    "notes": [],
}
FIGURES = {
    "answers": 40,
    "agreement": {"hits": 31, "n": 38, "share": 0.815789, "low": 0.665, "high": 0.908},
    "rejects": {"since": None, "before": {"hits": 1, "n": 9, "share": 0.1111}},
    "seconds": {"n": 40, "median": 0.8123, "p95": 2.5},
    "ab": None,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ModelRow]:
    """A workspace with a registered model and its real card."""
    case = Case(tmp_path_factory.mktemp("ws"))
    case.fill()
    folder = case.home / "job"
    folder.mkdir()
    card = work(case.job(), Reporter(folder, (folder / "echo").open("w")))
    return case, case.register(card)


@pytest.fixture
def case(made: tuple[Case, ModelRow], tmp_path: Path) -> Case:
    """The same, in a folder of its own."""
    home = tmp_path / "ws"
    shutil.copytree(made[0].home, home)
    return replace(made[0], home=home)


@pytest.fixture
def model(case: Case) -> ModelRow:
    return case.store.list_models()[0]


def ask(case: Case, model: ModelRow, days: float = 3.0) -> Since:
    at_us = model.created_us + round(days * DAY_US)
    store = case.store
    fresh = judge_freshness(store, model, now_us=at_us, conventions=None)
    newer = tuple(m for m in store.list_models() if m.version > model.version)
    return Since(trace_model(store, model, case.home), fresh, newer, at_us)


def live_through(case: Case, model: ModelRow) -> None:
    """Everything that may happen to a model."""
    store, rows = case.store, Deployments(case.store)
    now = store.now_us()
    rows.set_alias("stable", model, actor="mayor", pin="serves the gizmo rig")
    export = ArtifactRow("sha256:" + "ee" * 32, "export", "artifacts/export-x", EXPORT, now)
    rows.add_artifact(export, (model.adapter_id,), model=model, actor="mayor", text="gguf-q8_0")
    Governance(store).add_withdrawal(
        WithdrawalRow("wd-1", "person", "Ada Made-Up", "asked to", "mayor", (model.corpus_id,), now)
    )
    row = DeploymentRow(
        "dep-1",
        model.id,
        "witness",
        "gizmo",
        "shadow",
        "preparing",
        None,
        "",
        "mayor",
        {},
        {},
        now,
        now,
    )
    rows.start(row, model)
    rows.activate(
        "dep-1", detail={}, ended={}, statuses={model.id: "deployed"}, actor="mayor", text=""
    )
    rows.note_figures("dep-1", FIGURES)
    rows.add_incident(
        IncidentRow(
            "inc-1", model.id, "dep-1", "ft-9", "closed a live | bead", {"id": "x"}, "mayor", now
        ),
        replace(model, status="deployed"),
    )


def test_nothing_has_happened_yet(case: Case, model: ModelRow) -> None:
    text = write_since(ask(case, model))
    for told in (
        "status: **approved**, version 1",
        "Nothing that it was trained on has been withdrawn.",
        "Not expired.",
        "age: 3 days, allowed 90",
        "Never deployed.",
        "None was opened.",
        model.card_id,
    ):
        assert told in text.replace("version 0", "version 1"), told


def test_everything_that_happened_is_told(case: Case, model: ModelRow) -> None:
    live_through(case, model)
    found = case.store.list_models()[0]
    since = ask(case, found, days=100)
    text = write_since(since).replace("\\", "")
    for told in (
        "status: **deployed**",
        "alias `stable`, pinned: serves the gizmo rig",
        "| `wd-1` | person |",
        "is not unlearned",
        "**Expired**: 100 days old, and its recipe allows 90.",
        "| gguf q8_0 | `eeeeeeeeeeee` | 3.5 MiB | 0.0012 | 0.046 | 98.8 % | 11 of 12 | yes | llama-cpp-python 0.3.36 |",
        "| `dep-1` | witness of gizmo | shadow | active |",
        "| agreement | 82 % (31 of 38), 66–91 % |",
        "| rejects: since | not known |",
        "| rejects: before | 11 % (1 of 9) |",
        "| seconds: median | 0.8123 |",
        "| `inc-1` |",
        "closed a live | bead",
        "added to the suite",
    ):
        assert told in text, told
    data = json.loads(json.dumps(describe_since(since)))
    assert data["freshness"]["expired"] is True and data["status"] == "deployed"
    assert data["exports"][0]["kl_mean"] == 0.00123
    assert data["deployments"][0]["figures"]["answers"] == 40
    assert [w["id"] for w in data["withdrawals"]] == ["wd-1"]


def test_who_withdrew_is_not_told(case: Case, model: ModelRow) -> None:
    live_through(case, model)
    since = ask(case, case.store.list_models()[0])
    assert "Ada" not in write_since(since) + json.dumps(describe_since(since))


def test_the_same_store_and_time_give_the_same_text(case: Case, model: ModelRow) -> None:
    live_through(case, model)
    found = case.store.list_models()[0]
    assert write_since(ask(case, found)) == write_since(ask(case, found))


def test_an_export_that_says_little_or_nonsense() -> None:
    row = ArtifactRow("sha256:" + "ee" * 32, "export", "x", {"format": "peft"}, 0)
    little = read_export(row)
    assert little.kl_mean is None and little.verified is False and little.greedy == "not recorded"
    with pytest.raises(EvidenceError, match="kl_mean"):
        read_export(replace(row, summary={"kl_mean": "small"}))


HOSTILE = "| a |\n# x\n<script>![x](http://evil.example/x.png)`"


def test_hostile_texts_cannot_break_it(case: Case, model: ModelRow) -> None:
    live_through(case, model)
    since = ask(case, case.store.list_models()[0])
    parser = MarkdownIt("commonmark").enable("table")

    def outline(text: str) -> list[str]:
        tokens = parser.parse(text)
        inner = [c.type for t in tokens for c in t.children or ()]
        assert not {"html_inline", "link_open", "image"} & set(inner)
        return [t.type for t in tokens if t.type in ("heading_open", "tr_open", "td_open", "fence")]

    honest = outline(write_since(since))
    story = since.story
    bad = replace(
        since,
        story=replace(
            story,
            aliases=(AliasRow(HOSTILE, model.id, HOSTILE, HOSTILE, 0),),
            exports=(
                replace(
                    story.exports[0], summary={**EXPORT, "format": HOSTILE, "runtime": HOSTILE}
                ),
            ),
            withdrawals=(replace(story.withdrawals[0], id=HOSTILE, kind=HOSTILE),),
            deployments=(
                replace(
                    story.deployments[0], id=HOSTILE, role=HOSTILE, rig=HOSTILE, reason=HOSTILE
                ),
            ),
            incidents=(replace(story.incidents[0], id=HOSTILE, title=HOSTILE, bead_id=HOSTILE),),
        ),
    )
    assert outline(write_since(bad)) == honest


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def open_card(case: Case, model: ModelRow) -> Artifact:
    row = case.store.find_artifact(model.card_id)
    assert row is not None
    return verify_artifact(case.home / row.path, kind="card", expect=row.id)


def test_the_folder_is_the_card_and_what_came_since(
    case: Case, model: ModelRow, tmp_path: Path
) -> None:
    card, out = open_card(case, model), tmp_path / "deep" / "card"
    write_card_folder(card, "# first\n", {"n": 1}, out)
    found = read_folder(out)
    assert found["SINCE.md"] == b"# first\n" and json.loads(found["since.json"]) == {"n": 1}
    for f in card.files:
        assert found[f.name] == (card.path / f.name).read_bytes()
    assert ModelCard.load(out / "README.md").data.eval_results
    # The id can be computed from what is there.
    doc = json.loads(found["artifact.json"])
    assert hash_json({k: v for k, v in doc.items() if k != "id"}) == model.card_id
    write_card_folder(card, "# second\n", {"n": 2}, out)
    assert read_folder(out)["SINCE.md"] == b"# second\n"
    assert [p.name for p in out.parent.iterdir()] == ["card"]


def test_what_is_no_card_is_not_written_over(case: Case, model: ModelRow, tmp_path: Path) -> None:
    card = open_card(case, model)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.md").write_text("years of work")
    with pytest.raises(ConflictError, match="is no card"):
        write_card_folder(card, "", {}, mine)
    assert read_folder(mine) == {"thesis.md": b"years of work"}
    # A card with something of somebody else's in it, at any depth.
    out = tmp_path / "card"
    write_card_folder(card, "", {}, out)
    (out / "plots" / "mine.png").write_bytes(b"x")
    with pytest.raises(ConflictError):
        check_folder(out)
    (out / "plots" / "mine.png").unlink()
    check_folder(out)
    link = tmp_path / "link"
    link.symlink_to(out, target_is_directory=True)
    (tmp_path / "file").write_text("x")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (link, tmp_path / "file", dangling):
        with pytest.raises(ConflictError):
            check_folder(path)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_card_folder(card, "", {}, empty)
    assert (empty / "README.md").is_file()


def test_a_crash_leaves_the_old_card_or_the_new_one(
    case: Case, model: ModelRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, out = open_card(case, model), tmp_path / "card"
    write_card_folder(card, "# old\n", {}, out)
    before = read_folder(out)
    real = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if Path(target) == out and self.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(Exception, match="writing card"):
        write_card_folder(card, "# new\n", {}, out)
    monkeypatch.undo()
    assert read_folder(out) == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    # What a killed writer left is swept by the next one.
    left = tmp_path / f".card.{2**22 + 1}.tmp"
    left.mkdir()
    write_card_folder(card, "# new\n", {}, out)
    assert not left.exists() and read_folder(out)["SINCE.md"] == b"# new\n"


def test_the_command_writes_prints_and_refuses(
    case: Case, model: ModelRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    live_through(case, model)

    def call(*words: str) -> Any:
        return CliRunner().invoke(
            main, ["--workspace", str(case.home), "model", "card", *words], catch_exceptions=True
        )

    printed = call("witness")
    assert printed.exit_code == 0, printed.output
    assert printed.output.startswith("---\nlanguage: en") and "since its card" in printed.output
    written = call("witness", "--out", "out", "--json")
    data = json.loads(written.output)["data"]
    assert data["out"] == "out" and data["since"]["status"] == "deployed"
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names >= {"README.md", "SINCE.md", "since.json", "plots", "artifact.json"}
    assert isinstance(call("witness", "--out", str(case.home)).exception, ConflictError)
    # A card whose bytes changed is not shown as the card.
    (open_card(case, model).path / "README.md").write_text("better figures")
    assert isinstance(call("witness").exception, EvidenceError)
    assert WORKER in printed.output
