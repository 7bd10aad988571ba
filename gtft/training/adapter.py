"""The adapter artifact: weights, tokenizer, base, mask proof, losses and the summary for the store.

Nothing in it depends on the clock, the host or the path of the workspace, so that the same training
has the same id.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gtft.artifact import write_file, write_json
from gtft.contract import SUMMARY_FILE
from gtft.recipe.schema import Train
from gtft.training.base import BaseModel
from gtft.training.fit import Trained
from gtft.training.mask import Proof

KIND = "adapter"
_SERIES_AT_MOST = 200


def write_adapter(
    folder: Path, trained: Trained, tokenizer: Any, base: BaseModel, proof: Proof, train: Train
) -> None:
    """Fill an artifact's folder. The files are named in the docs under "What a training leaves"."""
    trained.model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    _settle_config(folder / "adapter_config.json", base)
    write_json(folder / "base.json", base.as_dict())
    write_json(folder / "mask.json", proof.as_dict())
    lines = "".join(json.dumps({"step": s, "loss": v}) + "\n" for s, v in trained.losses)
    write_file(folder / "loss.jsonl", lines.encode())
    size = (folder / "adapter_model.safetensors").stat().st_size
    write_json(folder / SUMMARY_FILE, summarise(trained, base, proof, train, size))


def summarise(
    trained: Trained, base: BaseModel, proof: Proof, train: Train, files_bytes: int
) -> dict[str, Any]:
    """The figures of a training; losses in nats per supervised token."""
    values = [v for _, v in trained.losses]
    return {
        "base": {k: v for k, v in base.as_dict().items() if k != "files"},
        "adapter": {
            "r": train.lora.r,
            "alpha": train.lora.alpha,
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
