"""What the eval worker takes from corpora and the adapter for its probes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals_case import example, make_corpus
from gtft.artifact import Artifact, stage_artifact
from gtft.corpus.canary import draw_canaries, encode_lines, make_examples, write_canaries
from gtft.errors import EvidenceError
from gtft.evals.item import CheckSpec, Item
from gtft.recipe.schema import Recipe
from gtft.workers import soundness
from gtft.workers.frame import Stopped
from gtft.workers.soundness import learn_known, probe_memory


def make_item(cluster: str) -> Item:
    check = CheckSpec("json_decision", {})
    return Item(
        f"of-{cluster}", "heldout", "x", None, "claude-code", cluster, (), (), check, "wait"
    )


def row(number: int, rig: str | None, bead: str | None, cluster: str) -> dict[str, Any]:
    return {**example(number), "rig": rig, "bead": bead, "cluster": cluster}


def test_rigs_prefixes_and_items_are_told_only_where_they_are_certain(tmp_path: Path) -> None:
    canary = make_examples(draw_canaries(1, b"k" * 32, 7), 1)[0].to_json()
    corpus = make_corpus(
        tmp_path,
        [
            row(1, "gizmo", "gz-dock-1.2", "a"),
            row(2, None, None, "a"),
            row(3, "gizmo", None, "b"),
            row(4, "harbor", None, "b"),
            row(5, "lantern", "ln-1", "c"),
        ],
        [
            row(6, "gizmo", "gz-1", "t1"),
            row(7, "gizmo", "hq-1", "t2"),
            row(8, "harbor", "hq-2", "t3"),
            canary,
        ],
    )
    known = learn_known([corpus], [make_item(c) for c in ("a", "b", "c", "elsewhere")])
    assert known.rigs == {"gizmo", "harbor"}
    assert known.templates == {"claude-code"}
    assert known.prefixes == {"gz": "gizmo", "gz-dock": "gizmo", "ln": "lantern"}
    assert known.rig_of == {"of-a": "gizmo", "of-c": "lantern"}


def test_no_canary_and_nothing_that_training_kept_out_is_taken_for_trained(tmp_path: Path) -> None:
    planted = [e.to_json() for e in make_examples(draw_canaries(9, b"k" * 32, 7), 1)]
    corpus = make_corpus(tmp_path, [], [*map(example, range(10)), *planted])
    path = corpus.file("train.jsonl")
    chosen = soundness._choose(path, {"session:3"}, 30)
    assert {c.id for c in chosen} == {example(n)["id"] for n in range(10) if n != 3}
    assert soundness._choose(path, {"session:3"}, 4) == chosen[:4]


def make_adapter(artifacts: Path, mask: str) -> Artifact:
    with stage_artifact(artifacts, "adapter") as staging:
        (staging.path / "mask.json").write_text(mask)
    return staging.result


def test_what_training_kept_out_is_read_from_the_adapter(tmp_path: Path) -> None:
    mask = {"retention": {"validation": {"kept_out": ["session:3"]}}}
    assert soundness._read_kept_out(make_adapter(tmp_path, json.dumps(mask))) == {"session:3"}
    assert soundness._read_kept_out(make_adapter(tmp_path, "{}")) == frozenset()
    with pytest.raises(EvidenceError):
        soundness._read_kept_out(make_adapter(tmp_path, "[1"))


def test_the_probe_gets_every_corpus_and_the_workspaces_own_redaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_corpus(tmp_path, [], [example(1)])
    with stage_artifact(tmp_path, "corpus") as staging:
        (staging.path / "train.jsonl").write_text(json.dumps(example(2)) + "\n")
        lines = write_canaries(draw_canaries(2, b"k" * 32, 7), 3, b"k" * 32, 7)
        (staging.path / "canaries.jsonl").write_bytes(encode_lines(lines))
    given: dict[str, Any] = {}

    def measure(candidates: Any, canaries: Any, examples: Any, secrets: Any, **more: Any) -> Any:
        given.update(canaries=canaries, examples=list(examples), secrets=secrets, **more)
        more["tell"](1, 2, "x")

    monkeypatch.setattr(soundness, "measure_memorisation", measure)
    job: Any = SimpleNamespace(root=tmp_path, workspace=tmp_path, seed=5)
    report: Any = SimpleNamespace(stop_requested=True)
    with pytest.raises(Stopped):
        probe_memory(job, Recipe(role="witness"), None, [first, staging.result], report)  # type: ignore[arg-type]
    assert [e["id"] for e in given["examples"]] == [example(1)["id"], example(2)["id"]]
    assert len(given["canaries"]) == 2
    value = "Zx81q" + "Lm42vB"
    found = list(given["secrets"].find(f'db_password = "{value}", mail ann@corp.org'))
    assert [v for _, _, v in found] == [value]
    assert len(given["secrets"].digest(value)) == 8
    assert (given["samples"], given["seed"]) == (8, 5)
