"""The adapter artifact: weights, tokenizer, base, mask proof, losses and the summary for the store.

Nothing in it depends on the clock, the host or the path of the workspace, so that the same training
has the same id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gtft.artifact import write_file, write_json
from gtft.contract import SUMMARY_FILE
from gtft.recipe.schema import Train
from gtft.training.adapters import Ancestors, is_full, save_trained
from gtft.training.base import BaseModel
from gtft.training.fit import Trained

_SERIES_AT_MOST = 200


class Account(Protocol):
    """What a corpus gave to train on: rows, and what was left out; tokens in all."""

    @property
    def supervised(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def examples(self) -> int: ...
    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def empty(self) -> Sequence[Any]: ...

    def as_dict(self) -> dict[str, Any]:
        """What ``mask.json`` holds."""
        ...


def write_adapter(
    folder: Path,
    trained: Trained,
    tokenizer: Any,
    base: BaseModel,
    proof: Account,
    train: Train,
    ancestors: Ancestors,
    mask: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> None:
    """Fill an artifact's folder. The files are named in the docs under "What a training leaves".

    ``mask`` and ``summary``: what these files tell beside the account and the training.
    """
    save_trained(trained.model, folder)
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    if not is_full(trained.model):
        _settle_config(folder / "adapter_config.json", base)
    write_json(folder / "base.json", {**base.as_dict(), **ancestors.below})
    write_json(folder / "mask.json", {**proof.as_dict(), **mask})
    lines = "".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in trained.losses)
    write_file(folder / "loss.jsonl", lines.encode())
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    told = summarise(trained, base, proof, train, ancestors, size)
    write_json(folder / SUMMARY_FILE, {**told, **summary})


def summarise(
    trained: Trained,
    base: BaseModel,
    proof: Account,
    train: Train,
    ancestors: Ancestors,
    files_bytes: int,
) -> dict[str, Any]:
    """The figures of a training; losses in nats per supervised token (of sft; else what the method minimises)."""
    values = [v for _, v in trained.losses]
    shape = {} if is_full(trained.model) else {"r": train.lora.r, "alpha": train.lora.alpha}
    return {
        "base": {k: v for k, v in base.as_dict().items() if k != "files"},
        **ancestors.as_dict(),
        "adapter": {
            **shape,
            "trainable": trained.trainable,
            "files_bytes": files_bytes,
        },
        "tokens": {"supervised": proof.supervised, "context": proof.context},
        "examples": proof.examples,
        "rows": len(proof.rows),
        "empty_rows": len(proof.empty),
        "steps": trained.steps,
        "epochs": round(trained.epochs, 4),
        "loss": {
            "first": values[0] if values else None,
            "last": values[-1] if values else None,
            "series": thin(trained.losses),
        },
        "hyperparameters": train.model_dump(mode="json"),
        "traps": {
            "linear4bit_guarded": trained.guarded,
            "adapter_float32": True,
            "passive_omp_wait": True,
            "telemetry_off": True,
            "checkpoint_manifest": True,
            "no_kbit_upcast": True,
        },
    }


def thin(series: tuple[tuple[int, float], ...], most: int = _SERIES_AT_MOST) -> list[list[float]]:
    """At most ``most`` evenly spaced points of a series, first and last among them."""
    if len(series) <= most:
        return [list(p) for p in series]
    picked = [series[round(i * (len(series) - 1) / (most - 1))] for i in range(most)]
    return [list(p) for p in picked]


def _settle_config(path: Path, base: BaseModel) -> None:
    """PEFT writes a set in any order and the base's absolute path: neither belongs in an artifact."""
    config = json.loads(path.read_text("utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base.name
    write_json(path, config)
