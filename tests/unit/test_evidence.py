"""Evidence: a bead leaves ``active`` only with what is really on disk and really of this run."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from gtft.artifact import Artifact, stage_artifact
from gtft.contract import InputArtifact, Job, Produced, Stage
from gtft.errors import EvidenceError
from gtft.runner.evidence import check_evidence

PARENT = "sha256:" + "1" * 64


def make_job(tmp_path: Path, stage: Stage) -> Job:
    inputs = (
        () if stage == "harvest" else (InputArtifact(stage="harvest", id=PARENT, path=tmp_path),)
    )
    return Job(
        run_id="run-1",
        stage=stage,
        bead_id="b",
        actor="a",
        recipe={},
        recipe_hash="sha256:0",
        inputs=inputs,
        workspace=tmp_path,
        workdir=tmp_path / "w",
        artifacts=tmp_path / "artifacts",
        seed=1,
        root=tmp_path,
        store_url="sqlite://",
    )


def make(
    tmp_path: Path, kind: str, files: dict[str, bytes], parents: tuple[str, ...] = ()
) -> Artifact:
    with stage_artifact(tmp_path / "artifacts", kind, parents) as s:
        for name, data in {"summary.json": b"{}", **files}.items():
            (s.path / name).write_bytes(data)
    return s.result


def produced(a: Artifact) -> Produced:
    return Produced(id=a.id, kind=a.kind, path=a.path)


def adapter_bytes(value: float) -> bytes:
    header = {
        "x.lora_A.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "x.lora_B.weight": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack("<4f", 1.0, 1.0, 0.0, value)


def eval_files(pairs: list[tuple[str, str]]) -> dict[str, bytes]:
    rows = [{"candidate": c, "item": i} for c, i in pairs]
    return {
        "items.jsonl": b'{"id": "i1"}\n{"id": "i2"}\n',
        "generations.jsonl": "".join(json.dumps(r) + "\n" for r in rows).encode(),
    }


def test_a_corpus_that_is_there_is_evidence(tmp_path: Path) -> None:
    made = make(tmp_path, "corpus", {"summary.json": b'{"examples": 3}'})
    found = check_evidence(make_job(tmp_path, "harvest"), produced(made))
    assert found.summary == {"examples": 3}
    assert made.id in found.text


@pytest.mark.parametrize("harm", ["gone", "changed", "other-id", "outside", "no-json", "list"])
def test_what_is_not_there_is_no_evidence(tmp_path: Path, harm: str) -> None:
    summary = {"no-json": b"{", "list": b"[]"}.get(harm, b"{}")
    made = make(tmp_path, "corpus", {"summary.json": summary, "train.jsonl": b"x"})
    said = produced(made)
    if harm == "gone":
        (made.path / "train.jsonl").unlink()
    elif harm == "changed":
        (made.path / "train.jsonl").write_bytes(b"y")
    elif harm == "other-id":
        said = Produced(id=PARENT, kind="corpus", path=made.path)
    elif harm == "outside":
        said = Produced(id=made.id, kind="corpus", path=tmp_path)
    with pytest.raises(EvidenceError):
        check_evidence(make_job(tmp_path, "harvest"), said)


def test_an_artifact_of_another_run_is_refused(tmp_path: Path) -> None:
    made = make(
        tmp_path, "adapter", {"adapter_model.safetensors": adapter_bytes(0.5)}, ("sha256:2",)
    )
    with pytest.raises(EvidenceError, match="not made from this run"):
        check_evidence(make_job(tmp_path, "train"), produced(made))


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (adapter_bytes(0.5), True),
        (adapter_bytes(0.0), False),
        (b"\xff" * 8 + b"{}", False),
        (struct.pack("<Q", 2) + b"{}", False),
    ],
    ids=["trained", "untouched", "long header", "no tensors"],
)
def test_an_adapter_that_changes_nothing_is_refused(
    tmp_path: Path, data: bytes, good: bool
) -> None:
    made = make(tmp_path, "adapter", {"adapter_model.safetensors": data}, (PARENT,))
    job = make_job(tmp_path, "train")
    if good:
        check_evidence(job, produced(made))
    else:
        with pytest.raises(EvidenceError):
            check_evidence(job, produced(made))


WHOLE = [(c, i) for c in ("base", "tuned") for i in ("i1", "i2")]


@pytest.mark.parametrize(
    ("spoil", "good"),
    [
        (lambda p: p, True),
        (lambda p: p[:-1], False),
        (lambda p: [*p, p[0]], False),
        (lambda p: [*p[:-1], ("tuned", "other")], False),
        (lambda p: [x for x in p if x[0] == "tuned"], False),
    ],
    ids=["whole", "one short", "one twice", "another item", "no base"],
)
def test_an_eval_holds_one_generation_per_item(
    tmp_path: Path,
    spoil: Callable[[list[tuple[str, str]]], list[tuple[str, str]]],
    good: bool,
) -> None:
    made = make(tmp_path, "eval", eval_files(spoil(WHOLE)), (PARENT,))
    job = make_job(tmp_path, "eval")
    if good:
        check_evidence(job, produced(made))
    else:
        with pytest.raises(EvidenceError, match="one generation per item"):
            check_evidence(job, produced(made))


@pytest.mark.parametrize("key", ["continues", "stacks_on"])
def test_an_adapter_that_the_recipe_builds_on_is_a_parent(tmp_path: Path, key: str) -> None:
    weights = {"adapter_model.safetensors": adapter_bytes(0.5)}
    earlier = make(tmp_path, "adapter", weights, (PARENT,))
    made = make(tmp_path, "adapter", {**weights, "x": b"y"}, (PARENT, earlier.id))
    short = earlier.id.removeprefix("sha256:")[:12]
    job = make_job(tmp_path, "train").model_copy(update={"recipe": {"train": {key: short}}})
    assert check_evidence(job, produced(made)).artifact.id == made.id
    # Neither unasked, nor left out.
    with pytest.raises(EvidenceError, match="was not made from this run's artifacts"):
        check_evidence(make_job(tmp_path, "train"), produced(made))
    alone = make(tmp_path, "adapter", {**weights, "z": b"y"}, (PARENT,))
    with pytest.raises(EvidenceError, match="was not made from this run's artifacts"):
        check_evidence(job, produced(alone))
