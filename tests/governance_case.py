"""Small corpora made by hand, for tests of what looks at a finished corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, canonical_json, stage_artifact
from gtft.corpus.example import Example, Origin

KEY = b"k" * 32


def make_example(n: int, **labels: Any) -> Example:
    """Example ``n``; its session is ``s<n>`` unless ``labels`` say otherwise."""
    origin = Origin(
        labels.pop("file", f"t/s{n}.jsonl"),
        (1, 4),
        labels.pop("session", f"s{n}"),
        labels.pop("segment", 0),
    )
    text = labels.pop("text", f"the answer {n}")
    given: dict[str, Any] = {
        "source": "claude-code",
        "cluster": f"session:{origin.session}",
        "role": "witness",
        "rig": "gizmo",
        "actor": "gizmo/witness",
        "bead": None,
        "weight": 1.0,
        "provenance": "agent",
        "started": "2026-03-01",
        **labels,
    }
    messages = ({"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": text})
    return Example(id="", messages=messages, tools=(), origin=origin, **given).identified()


def make_corpus(
    artifacts: Path,
    train: Sequence[Example],
    heldout: Sequence[Example] = (),
    *,
    harvest: dict[str, Any] | None = None,
    inputs: dict[str, str] | None = None,
    dropped: dict[str, int] | None = None,
) -> Artifact:
    """A corpus artifact on the shelf ``artifacts``. ``inputs``: file → sha256."""
    files = inputs or {e.origin.file: "sha-1" for e in (*train, *heldout)}
    manifest = {
        "format": 1,
        "gtft": "0",
        "harvest": harvest or {"min_examples": 1},
        "flow": [{"stage": "examples", "in": 9, "kept": 9, "dropped": dropped or {}}],
        "inputs": [
            {"source": "claude-code t", "file": f, "size": 1, "sha256": sha}
            for f, sha in sorted(files.items())
        ],
    }
    with stage_artifact(artifacts, "corpus") as staging:
        for name, side in (("train.jsonl", train), ("heldout.jsonl", heldout)):
            lines = sorted((e.id, canonical_json(e.to_json())) for e in side)
            (staging.path / name).write_text("".join(line + "\n" for _, line in lines), "utf-8")
        (staging.path / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
        (staging.path / "summary.json").write_text("{}")
    return staging.result
