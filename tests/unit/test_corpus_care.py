"""``gtft corpus`` consent, forget, withdrawals, quarantine, diff, trace, pack, unpack, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from governance_case import make_corpus, make_example
from gtft.artifact import Artifact, short_id
from gtft.cli.main import main
from gtft.corpus.governance.quarantine import Held, Quarantine, Reason
from gtft.corpus.governance.row import Place, hash_contributor
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.corpus.redaction.redactor import load_key
from gtft.errors import ConflictError, GtftError, UsageError
from gtft.records.rows import ArtifactRow, Change, ModelRow
from gtft.runner.workspace import Workspace, open_workspace
from store_case import add_run, claim

ANN = "ann@example.com"


@pytest.fixture(autouse=True)
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who types is a person, whatever runs the tests."""
    for name in ("BEADS_ACTOR", "BD_ACTOR", "GT_ROLE"):
        monkeypatch.delenv(name, raising=False)


def run(folder: Path, *argv: str) -> str:
    done = CliRunner().invoke(
        main, ["--workspace", str(folder), "corpus", *argv], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def data(folder: Path, *argv: str) -> Any:
    body = json.loads(run(folder, *argv, "--json"))
    assert body["ok"] is True
    return body["data"]


def refuse(folder: Path, *argv: str) -> GtftError:
    with pytest.raises(GtftError) as caught:
        run(folder, *argv)
    assert caught.value.fix
    return caught.value


@pytest.fixture
def shelf(ws: Workspace) -> tuple[Path, Artifact, Artifact]:
    """Two corpora; a model was trained on the first. Example 1 is Ann's, in both."""
    hers = make_example(1, contributor=hash_contributor(load_key(ws.path / KEY_FILE), ANN))
    first = make_corpus(ws.artifacts, [hers, make_example(2), make_example(3)])
    second = make_corpus(ws.artifacts, [make_example(2)], [hers])
    add_run(ws.store)
    claim(ws.store, "run-1", "harvest")
    adapter = ArtifactRow("sha256:ad", "adapter", "artifacts/ad", {}, 1)
    model = ModelRow(
        "sha256:ad", "witness-1", "witness", 0, "approved", "run-1", first.id, "sha256:ad", "e", "c", 1
    )  # fmt: skip
    ws.store.change(
        "run-1",
        "harvest",
        Change("active", "review", None, "w", ""),
        token="t1",
        artifact=adapter,
        parents=(first.id,),
        model=model,
    )
    return ws.path, first, second


def test_a_consent_is_granted_listed_and_revoked(tmp_path: Path) -> None:
    assert "no rig has given consent" in run(tmp_path, "consent")
    tried = data(tmp_path, "consent", "grant", "harbor", "--dry-run")
    assert tried["dry_run"] is True
    assert data(tmp_path, "consent")["consents"] == []
    text = run(
        tmp_path, "consent", "grant", "harbor", "--by", "harbor/crew/ann", "--until", "2999-01-31"
    )
    assert "until 2999-01-31" in text
    run(tmp_path, "consent", "grant", "lantern", "--purpose", "witness")
    rows = data(tmp_path, "consent", "list")["consents"]
    assert [(r["rig"], r["state"], r["until"], r["purpose"]) for r in rows] == [
        ("harbor", "stands", "2999-01-31", ""),
        ("lantern", "stands", "", "witness"),
    ]
    assert rows[0]["given_by"] == "harbor/crew/ann"
    assert len(data(tmp_path, "consent", "revoke", "harbor", "--dry-run")["revoked"]) == 1
    run(tmp_path, "consent", "revoke", "harbor")
    assert "revoked" in run(tmp_path, "consent").splitlines()[1]
    assert isinstance(refuse(tmp_path, "consent", "revoke", "harbor"), ConflictError)


@pytest.mark.parametrize(
    "argv",
    [
        ["grant", "harbor", "--until", "2020-01-01"],
        ["grant", "harbor", "--until", "soon"],
        ["grant", "harbor", "--until", "20990131"],
        ["grant", "a/b"],
        ["grant", "harbor", "--as", "gizmo/polecats/nux"],
        ["grant", "harbor", "--as", "deacon"],
        ["revoke", "harbor", "--as", "gizmo/witness"],
    ],
)
def test_a_consent_that_may_not_be_is_refused(tmp_path: Path, argv: list[str]) -> None:
    assert isinstance(refuse(tmp_path, "consent", *argv), UsageError)
    assert data(tmp_path, "consent")["consents"] == []


def test_an_agent_speaks_for_its_own_rig(tmp_path: Path) -> None:
    run(tmp_path, "consent", "grant", "harbor", "--as", "harbor/crew/ann")
    assert data(tmp_path, "consent")["consents"][0]["given_by"] == "harbor/crew/ann"


def test_forget_names_corpora_and_models_and_keeps_no_name(
    shelf: tuple[Path, Artifact, Artifact],
) -> None:
    folder, first, second = shelf
    tried = data(folder, "forget", ANN, "--dry-run")
    assert data(folder, "withdrawals")["withdrawals"] == []
    done = data(folder, "forget", ANN, "--reason", "asked to")
    assert tried["corpora"] == done["corpora"]
    assert {c["id"]: (c["train"], c["heldout"]) for c in done["corpora"]} == {
        first.id: (1, 0),
        second.id: (0, 1),
    }
    assert [m["name"] for m in done["models"]] == ["witness-1"]
    assert (done["kind"], done["guessed"], done["new"], done["unlearned"]) == (
        "email",
        True,
        True,
        False,
    )
    again = run(folder, "forget", ANN)
    assert "in the register already" in again
    assert "not unlearned" in again
    assert "gtft run mol-x" in again
    listed = CliRunner().invoke(main, ["--workspace", str(folder), "model", "list", "--json"])
    assert [m["withdrawn"] for m in json.loads(listed.stdout)["data"]] == [True]
    (row,) = data(folder, "withdrawals")["withdrawals"]
    assert (row["kind"], row["reason"], row["models"]) == ("email", "asked to", ["witness-1"])
    assert sorted(row["touched"]) == sorted([first.id, second.id])
    assert ANN not in json.dumps(row)
    for path in folder.rglob("*"):
        assert not path.is_file() or b"ann@example" not in path.read_bytes()


def test_forget_says_when_nothing_is_touched_and_what_it_took_the_name_for(
    shelf: tuple[Path, Artifact, Artifact],
) -> None:
    folder, _, _ = shelf
    text = run(folder, "forget", "gz-77")
    assert "bead, by its form" in text
    assert "no corpus on the shelf holds" in text
    assert data(folder, "forget", "gz-77", "--kind", "rig")["kind"] == "rig"


def test_a_damaged_corpus_is_named_by_forget(shelf: tuple[Path, Artifact, Artifact]) -> None:
    folder, first, _ = shelf
    (first.path / "train.jsonl").write_text("{\n")
    done = data(folder, "forget", "gizmo")
    assert [d["corpus"] for d in done["damaged"]] == [first.path.name]
    assert len(done["corpora"]) == 1


def test_an_agent_may_not_withdraw_for_others(shelf: tuple[Path, Artifact, Artifact]) -> None:
    folder, _, _ = shelf
    assert "may not withdraw" in refuse(folder, "forget", ANN, "--as", "gizmo/polecats/nux").what
    assert "may not withdraw" in refuse(folder, "forget", "harbor", "--as", "gizmo/witness").what
    assert data(folder, "forget", "gizmo", "--as", "gizmo/witness")["new"] is True


def test_trace_goes_from_an_example_to_its_models(shelf: tuple[Path, Artifact, Artifact]) -> None:
    folder, first, second = shelf
    wanted = next(json.loads(x) for x in (second.path / "heldout.jsonl").read_text().splitlines())
    found = data(folder, "trace", wanted["id"][:12])
    assert (found["file"], found["session"], found["actor"]) == (
        "t/s1.jsonl",
        "s1",
        "gizmo/witness",
    )
    assert {c["id"]: c["side"] for c in found["corpora"]} == {
        first.id: "train",
        second.id: "heldout",
    }
    assert [m["name"] for m in found["models"]] == ["witness-1"]
    assert "model       witness-1" in run(folder, "trace", wanted["id"])


def test_diff_counts_and_names(shelf: tuple[Path, Artifact, Artifact]) -> None:
    folder, first, second = shelf
    found = data(folder, "diff", short_id(first.id), short_id(second.id))
    assert (found["same"], found["removed"]["count"], found["moved"]["count"]) == (1, 1, 1)
    text = run(folder, "diff", short_id(first.id), short_id(second.id))
    assert "removed: 1" in text
    assert "not read any more" in text


def test_preview_takes_a_selection(shelf: tuple[Path, Artifact, Artifact]) -> None:
    folder, first, _ = shelf
    name = short_id(first.id)
    assert len(data(folder, "preview", name, "--select", "rig:gizmo")["examples"]) == 3
    assert "no such example" in refuse(folder, "preview", name, "--select", "rig:harbor").what
    assert "did you mean" in refuse(folder, "preview", name, "--select", "rg:harbor").fix


def test_a_bundle_goes_from_one_workspace_to_another(
    shelf: tuple[Path, Artifact, Artifact], tmp_path: Path
) -> None:
    folder, first, _ = shelf
    there = tmp_path / "there"
    bundle = tmp_path / "a.tar.gz"
    packed = data(folder, "pack", short_id(first.id), "-o", str(bundle))
    assert packed["size"] == bundle.stat().st_size
    assert data(there, "unpack", str(bundle), "--dry-run")["dry_run"] is True
    assert data(there, "list")["corpora"] == []
    assert data(there, "unpack", str(bundle))["corpus"] == first.id
    assert data(there, "show", short_id(first.id))["id"] == first.id
    assert isinstance(refuse(folder, "pack", short_id(first.id), "-o", str(bundle)), UsageError)


def test_a_bundle_with_what_was_withdrawn_here_is_refused(
    shelf: tuple[Path, Artifact, Artifact], tmp_path: Path
) -> None:
    folder, first, _ = shelf
    bundle = tmp_path / "a.tar.gz"
    run(folder, "pack", short_id(first.id), "-o", str(bundle))
    there = open_workspace(tmp_path / "there")
    run(there.path, "forget", "s2", "--kind", "session")
    assert "1 examples that were withdrawn" in refuse(there.path, "unpack", str(bundle)).what
    assert list(there.artifacts.iterdir()) == []


def test_a_bundle_with_a_secret_is_refused(ws: Workspace, tmp_path: Path) -> None:
    secret = "gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    corpus = make_corpus(ws.artifacts, [make_example(1, text=f"export GITHUB_TOKEN={secret}")])
    bundle = tmp_path / "a.tar.gz"
    run(ws.path, "pack", short_id(corpus.id), "-o", str(bundle))
    there = tmp_path / "there"
    assert refuse(there, "unpack", str(bundle)).kind == "redaction"
    assert list((there / "artifacts").iterdir()) == []


def test_the_quarantine_is_shown_and_decided_by_people(ws: Workspace) -> None:
    reasons = (Reason("detect-secrets' KeywordDetector", "messages[1].content:20-40"),)
    held = [Held(f"ex-{n:016x}", reasons, Place("t/s.jsonl", (1, 9), "s", 0)) for n in (1, 2, 3)]
    assert "is empty" in run(ws.path, "quarantine")
    Quarantine(ws.path).add(held)
    assert len(data(ws.path, "quarantine")["held"]) == 3
    page = run(ws.path, "quarantine", "show", held[0].id)
    assert "KeywordDetector" in page and "t/s.jsonl:1-9" in page
    decide = ("--reason", "a hash")
    assert data(ws.path, "quarantine", "release", held[0].id, *decide, "--dry-run")["dry_run"]
    assert Quarantine(ws.path).decisions() == {}
    run(ws.path, "quarantine", "release", held[0].id, *decide)
    run(ws.path, "quarantine", "drop", held[1].id, *decide, "--as", "gizmo/polecats/nux")
    assert Quarantine(ws.path).decisions() == {held[0].id: "released", held[1].id: "dropped"}
    error = refuse(
        ws.path, "quarantine", "release", held[1].id, *decide, "--as", "gizmo/polecats/nux"
    )
    assert "may not release" in error.what
    assert run(ws.path, "quarantine", "list") == run(ws.path, "quarantine")
    waiting = data(ws.path, "quarantine", "list", "--waiting")["held"]
    assert waiting == data(ws.path, "quarantine", "--waiting")["held"]
    assert [h["id"] for h in waiting] == [held[2].id]
