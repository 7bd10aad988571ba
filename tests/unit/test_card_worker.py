"""The card worker: a job in, a card artifact out, and nothing written when the evidence does not hold."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from card_case import Case

from gtft.artifact import verify_artifact
from gtft.contract import JOB_FILE, InputArtifact, Job, parse_event
from gtft.errors import EvidenceError, InputError, MissingExtra
from gtft.records import tables
from gtft.records.store import open_sqlite
from gtft.workers.card import require_card_extra, work
from gtft.workers.frame import Reporter, Stopped, carry_out


def make_report(folder: Path) -> Reporter:
    folder.mkdir(exist_ok=True)
    return Reporter(folder, (folder / "echo").open("w"))


def list_cards(case: Case) -> list[str]:
    return [p.name for p in (case.home / "artifacts").glob("*card*")]


def carry(case: Case) -> tuple[int, list[object]]:
    """The worker's process, in this one: its exit code and its events."""
    job_dir = case.home / "job"
    job_dir.mkdir(exist_ok=True)
    (job_dir / JOB_FILE).write_text(case.job().model_dump_json(), "utf-8")
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = carry_out(work, job_dir)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    lines = (job_dir / "events.jsonl").read_bytes().splitlines()
    return code, [parse_event(line) for line in lines]


def test_the_worker_writes_a_card_with_its_parents(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.fill()
    code, events = carry(case)
    assert code == 0
    *progress, produced = events
    assert [e.done for e in progress] == [1, 2, 3, 4]  # type: ignore[attr-defined]
    card = verify_artifact(produced.path, kind="card", expect=produced.id)  # type: ignore[attr-defined]
    assert sorted(card.parents) == sorted(a.id for a in case.made.values())
    assert {f.name for f in card.files} == {
        "README.md",
        "summary.json",
        "plots/loss.png",
        "plots/composition.png",
        "plots/eval.png",
    }
    summary = json.loads(card.file("summary.json").read_bytes())
    text = card.file("README.md").read_text("utf-8")
    assert f"# {summary['model']}" in text
    for name in summary["plots"]:
        assert f"({name})" in text


def test_the_same_store_gives_the_same_card_anywhere(tmp_path: Path) -> None:
    made = []
    for name in ("here", "a-rather-different/place"):
        home = tmp_path / name
        home.mkdir(parents=True)
        case = Case(home)
        case.fill()
        made.append(work(case.job(), make_report(home / "job")))
    assert made[0].id == made[1].id
    assert made[0].path != made[1].path
    # A second card of the same run is the first one.
    assert work(case.job(), make_report(home / "job")).path == made[1].path


def change_file(case: Case) -> Job:
    path = case.made["train"].path / "summary.json"
    path.write_bytes(path.read_bytes().replace(b"0.75", b"0.05"))
    return case.job()


def remove_file(case: Case) -> Job:
    (case.made["eval"].path / "summary.json").unlink()
    return case.job()


def swap_artifact(case: Case) -> Job:
    job = case.job()
    first, _, third = job.inputs
    other = InputArtifact(stage="train", id=third.id, path=third.path)
    return job.model_copy(update={"inputs": (first, other, third)})


def change_store(case: Case) -> Job:
    better = json.dumps({"suites": {}, "gates": [], "verdict": "perfect"})
    with open_sqlite(case.home / "gtft.db").connect() as c, c.begin():
        c.execute(
            sa.update(tables.artifacts)
            .where(tables.artifacts.c.kind == "eval")
            .values(summary=better)
        )
    return case.job()


def change_recipe(case: Case) -> Job:
    return case.job().model_copy(update={"recipe_hash": "sha256:" + "0" * 64})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (change_file, "has changed since it was written"),
        (remove_file, "is missing"),
        (swap_artifact, "the run recorded"),
        (change_store, "the figures in the store are not those of the eval"),
        (change_recipe, "the job's recipe is 000000000000"),
    ],
)
def test_evidence_that_does_not_hold_makes_no_card(
    tmp_path: Path, harm: Callable[[Case], Job], told: str
) -> None:
    case = Case(tmp_path)
    case.fill()
    job = harm(case)
    with pytest.raises(EvidenceError, match=told):
        work(job, make_report(tmp_path / "job"))
    assert list_cards(case) == []


def test_a_failed_card_is_told_in_the_events(tmp_path: Path) -> None:
    case = Case(tmp_path, accept=False)
    case.fill()
    code, events = carry(case)
    assert code == EvidenceError.exit_code
    assert events[-1].event == "failed"  # type: ignore[attr-defined]
    assert "nobody has accepted the eval" in events[-1].message  # type: ignore[attr-defined]


def test_a_request_to_stop_is_heard(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.fill()
    report = make_report(tmp_path / "job")
    report.request_stop()
    with pytest.raises(Stopped):
        work(case.job(), report)
    assert list_cards(case) == []


def test_a_missing_store_is_an_input_error(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.fill()
    job = case.job().model_copy(update={"store_url": f"sqlite:///{tmp_path / 'gone.db'}"})
    with pytest.raises(InputError, match=r"no store at .*gone\.db"):
        work(job, make_report(tmp_path / "job"))
    assert not (tmp_path / "gone.db").exists()


def test_missing_packages_are_named_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"huggingface_hub, matplotlib") as caught:
        require_card_extra()
    assert "gtft[train]" in caught.value.fix
