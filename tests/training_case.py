"""What the training tests share: a watcher that remembers, a tiny nano base and a tiny corpus."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_json, stage_artifact
from gtft.recipe.schema import Base, Nano, Recipe, Train
from gtft.training.environment import prepare_environment

# Before torch is imported by any of these tests: one thread, passive, offline, silent.
os.environ.setdefault("OMP_NUM_THREADS", "1")
prepare_environment(os.environ, offline=True)

TEXT = "\n\n\n".join(
    f"Gauge {n}\nThe gauge of pump {n} sticks at {n * 7} when the pump starts.\n"
    f'Mend it with `bd create --title="pump {n}" -t bug` and look again in {n} minutes.'
    for n in range(24)
)
NANO = {"vocab": 600, "hidden": 32, "layers": 2, "heads": 2, "context": 256, "steps": 3}


class Recorder:
    """A watch that keeps what it is told; ``stop_at``: ask to stop after so many progress calls."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.warnings: list[tuple[str, str]] = []
        self.metrics: list[tuple[int, str, float]] = []
        self.checkpoints: list[int] = []
        self.notes: list[str] = []
        self.stop_at = stop_at

    @property
    def stop_requested(self) -> bool:
        return self.stop_at is not None and len(self.notes) >= self.stop_at

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None:
        self.notes.append(note)

    def metric(self, step: int, name: str, value: float) -> None:
        self.metrics.append((step, name, value))

    def checkpoint(self, path: str, step: int) -> None:
        self.checkpoints.append(step)

    def warn(self, code: str, text: str) -> None:
        self.warnings.append((code, text))


def make_tokenizer() -> Any:
    """The nano tokenizer, learned from the text above."""
    from gtft.training.nano_tokenizer import train_tokenizer

    return train_tokenizer([TEXT, 'user assistant {"action": "nudge"} tool_call Bash'], 600, 256)


def chat(*turns: str) -> tuple[dict[str, Any], ...]:
    """Messages from "role: text" lines."""
    return tuple(
        {"role": role, "content": text} for role, _, text in (t.partition(": ") for t in turns)
    )


def make_corpus(artifacts: Path, examples: int = 12) -> Artifact:
    """A corpus artifact with so many short examples of two kinds."""
    rows = [
        {
            "id": f"ex-{n:016x}",
            "messages": list(
                chat(
                    f"user: pump {n} is {('dry', 'wet')[n % 2]}",
                    f"assistant: {('mend', 'wait')[n % 2]} {n}",
                )
            ),
            "tools": [],
        }
        for n in range(examples)
    ]
    with stage_artifact(artifacts, "corpus") as staging:
        lines = "".join(json.dumps(r) + "\n" for r in rows)
        (staging.path / "train.jsonl").write_text(lines)
        (staging.path / "base.txt").write_text(TEXT)
    return staging.result


def make_job(
    root: Path, corpus: Artifact, name: str = "job", *, recipe_hash: str | None = None, **train: Any
) -> Path:
    """A job directory for the train worker; returns it."""
    settings = {
        "learning_rate": 1e-2,
        "max_steps": 8,
        "accumulation": 2,
        "max_length": 128,
        "checkpoint_steps": 2,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        **train,
    }
    base = settings.pop("base", {"model": "nano", "nano": NANO})
    doc = {"role": "witness", "base": base, "train": settings}
    recipe = Recipe.model_validate_json(json.dumps(doc)).model_dump(mode="json")
    folder = root / name
    folder.mkdir(parents=True)
    job = {
        "run_id": "run-1",
        "stage": "train",
        "bead_id": "ft-1",
        "actor": "gizmo/polecats/nux",
        "recipe": recipe,
        "recipe_hash": recipe_hash or hash_json(recipe),
        "inputs": [{"stage": "harvest", "id": corpus.id, "path": str(corpus.path)}],
        "workspace": str(root),
        "workdir": str(folder / "work"),
        "artifacts": str(root / "artifacts"),
        "seed": 7,
        "root": str(root),
        "store_url": "sqlite://",
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder


def make_base(root: Path) -> Any:
    """The tiny nano base, built in ``root`` from the text above."""
    from gtft.training.base import locate_base

    (root / "base.txt").write_text(TEXT)
    return locate_base(
        Base(nano=Nano(**NANO)),
        text_file=root / "base.txt",
        root=root,
        workspace=root,
        watch=Recorder(),
        clock=time.monotonic,
    )


def make_task(base: Any, tokenizer: Any, train: Train, workdir: Path, watch: Any) -> Any:
    """A task on the CPU with a fresh adapter."""
    from gtft.training.adapters import Ancestors, attach
    from gtft.training.device import settle
    from gtft.training.fit import Task

    return Task(
        base=base,
        tokenizer=tokenizer,
        train=train,
        settings=settle(train, cuda=False, bf16=False, fits=True),
        corpus="corpus-1",
        recipe_hash="recipe-1",
        workdir=workdir,
        watch=watch,
        clock=time.monotonic,
        equip=lambda model: attach(model, train, Ancestors()),
        measure_memory=lambda: 0,
    )


def read_events(job: Path) -> list[dict[str, Any]]:
    path = job / "events.jsonl"
    if not path.exists():
        return []
    # The last line may be half written while the worker lives.
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.endswith("}")]
