"""A harvest that obeys: consent, licence, withdrawals and selection, each drop counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gtft.artifact import Artifact
from gtft.cli.main import main
from gtft.contract import EVERY_RIG
from gtft.corpus.governance.row import SIDES, Listed, read_listed
from gtft.errors import InputError, RecipeError
from gtft.recipe.resolve import resolve
from gtft.runner.dispatch import dispatch
from gtft.runner.execution import prepare_job
from gtft.runner.workspace import Workspace
from gtft.workers.frame import Reporter
from gtft.workers.harvest import work
from run_case import find_run
from tiny_town import make_town

SMALL = ("harvest.min_examples=1", "harvest.heldout=0.25")


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """32 sessions of gizmo's witness, of which the last 12 become harbor's."""
    town = make_town(tmp_path / "town")
    for path in sorted((town / "transcripts").iterdir())[20:]:
        path.write_text(path.read_text().replace("gizmo", "harbor"))
    return town


def harvest(ws: Workspace, town: Path, *sets: str, own: str = "gizmo") -> Artifact:
    """The harvest stage of a run of the tiny formula, in this process, as in a town whose rigs are many:
    the run's own rig is ``own``, and every rig is in its scope."""
    path = town / "formulas" / "mol-gtft-tiny.formula.toml"
    resolved = resolve(path, root=town, sets=(*SMALL, "scope=[]", *sets))
    run = find_run(ws, dispatch(ws, resolved, "mayor", town))
    job = prepare_job(ws, run, ws.store.find_stage(run.id, "harvest"), "mayor")
    job = job.model_copy(update={"governance": job.governance.model_copy(update={"own": own})})
    job.workdir.mkdir(parents=True, exist_ok=True)
    return work(job, Reporter(job.workdir, io.StringIO()))


def read(corpus: Artifact) -> list[Listed]:
    return [e for side in SIDES for e in read_listed(corpus, side)]


def list_rigs(corpus: Artifact) -> set[str | None]:
    return {e.rig for e in read(corpus) if e.source == "claude-code"}


def read_drops(corpus: Artifact) -> dict[str, int]:
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    last: dict[str, int] = manifest["flow"][-1]["dropped"]
    return last


def corpus_command(ws: Workspace, *argv: str) -> None:
    done = CliRunner().invoke(
        main, ["--workspace", str(ws.path), "corpus", *argv, "--as", "overseer/ann"],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_another_rig_is_left_out_until_it_agrees_and_again_when_it_revokes(
    ws: Workspace, town: Path
) -> None:
    first = harvest(ws, town)
    assert list_rigs(first) == {"gizmo"}
    assert read_drops(first)["no consent of rig harbor"] == 12
    corpus_command(ws, "consent", "grant", "harbor", "--purpose", "refinery")
    assert list_rigs(harvest(ws, town)) == {"gizmo"}
    corpus_command(ws, "consent", "grant", "harbor", "--purpose", "witness")
    assert list_rigs(harvest(ws, town)) == {"gizmo", "harbor"}
    corpus_command(ws, "consent", "revoke", "harbor")
    assert harvest(ws, town).id == first.id


def test_a_scope_without_consent_stops_the_harvest(ws: Workspace, town: Path) -> None:
    with pytest.raises(InputError, match="data of rig harbor"):
        harvest(ws, town, 'scope=["rig:gizmo", "rig:harbor"]')
    assert not list(ws.artifacts.iterdir())


def test_a_source_of_another_rig_is_not_even_opened(ws: Workspace, town: Path) -> None:
    for path in (town / "transcripts").iterdir():
        path.chmod(0)
    sources = (
        'harvest.sources=[{type = "claude-code", path = "transcripts", rig = "harbor"},'
        ' {type = "beads", path = "beads"}]'
    )
    corpus = harvest(ws, town, sources)
    assert {e.source for e in read(corpus)} == {"beads"}
    manifest = json.loads((corpus.path / "manifest.json").read_text())
    assert {i["source"] for i in manifest["inputs"]} == {"beads beads"}


def test_what_is_withdrawn_is_in_no_later_corpus(ws: Workspace, town: Path) -> None:
    first = harvest(ws, town)
    session = next(e.origin.session for e in read(first) if e.origin.session)
    bead = next(e.bead for e in read(first) if e.bead)
    corpus_command(ws, "forget", session)
    corpus_command(ws, "forget", bead)
    second = harvest(ws, town)
    assert session not in {e.origin.session for e in read(second)}
    assert bead not in {e.bead for e in read(second)}
    drops = read_drops(second)
    assert (drops["withdrawn: session"], drops["withdrawn: bead"]) == (1, 1)
    corpus_command(ws, "forget", "gizmo")
    assert "gizmo" not in {e.rig for e in read(harvest(ws, town))}


def test_a_contributor_is_in_no_later_corpus(ws: Workspace, town: Path) -> None:
    path = town / "beads" / "issues.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for n, row in enumerate(rows):
        row["owner"] = ("ann@example.com", "bob@example.com")[n % 2]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    before = [e for e in read(harvest(ws, town)) if e.source == "beads"]
    assert len({e.contributor for e in before}) == 2
    corpus_command(ws, "forget", "Ann@example.com")
    after = [e for e in read(harvest(ws, town)) if e.source == "beads"]
    assert len({e.contributor for e in after}) == 1
    assert 0 < len(after) < len(before)


def test_only_what_is_selected_goes_in(ws: Workspace, town: Path) -> None:
    corpus = harvest(ws, town, 'harvest.select=["type:claude-code", "rig:harbor"]', own=EVERY_RIG)
    assert {(e.source, e.rig) for e in read(corpus)} == {("claude-code", "harbor")}
    drops = read_drops(corpus)
    assert drops["not selected: rig"] == 20
    assert drops["not selected: type"] == 12


def test_a_licence_that_forbids_it_stops_the_harvest(ws: Workspace, town: Path) -> None:
    sources = 'harvest.sources=[{type = "beads", path = "beads", licence = "CC-BY-ND-4.0"}]'
    with pytest.raises(RecipeError, match="no derivatives"):
        harvest(ws, town, sources)
    taken = harvest(ws, town, sources, 'harvest.licences=["CC-BY-ND-4.0"]')
    manifest = json.loads((taken.path / "manifest.json").read_text())
    assert [s["licence"] for s in manifest["harvest"]["sources"]] == ["CC-BY-ND-4.0"]
