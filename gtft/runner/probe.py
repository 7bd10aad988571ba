"""A probe: a short real training in a worker's process, and what it measured kept for the next plan."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_json, write_json
from gtft.errors import TrainingError, find_kind
from gtft.recipe.schema import Recipe
from gtft.runner.box import survey_box
from gtft.runner.budget import Probe, read_probe
from gtft.runner.process import WORKER_ENV
from gtft.runner.volume import measure_volume
from gtft.runner.workspace import Workspace

# How long its steps may take, and how long it may take to get there.
STEP_SECONDS = 60.0
START_SECONDS = 240.0
FOLDER = "probes"
# Raise it when what is measured changes.
FORMAT = 1
# Of the longest row. The first step pays for warming up and does not count.
_SHARES = (0.25, 0.25, 0.5, 1.0, 1.0)


def run_probe(
    ws: Workspace,
    recipe: Recipe,
    root: Path,
    corpus: Artifact | None,
    environ: Mapping[str, str],
    *,
    checkpointing: bool,
) -> Probe:
    """What was measured before for the same base, settings and processor, else a new measurement.

    The rows are as long as those of ``corpus``, else as long as the recipe allows. ``checkpointing``: what
    "auto" becomes here. Raises the worker's own error, and TrainingError when it says
    nothing or takes too long.
    """
    longest = recipe.train.max_length
    if corpus is not None:
        longest = measure_volume(recipe, corpus, (), 0).longest
    settled = {"gradient_checkpointing": "on" if checkpointing else "off"}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=settled)})
    train = recipe.train.model_dump(mode="json")
    settings = {
        k: train[k]
        for k in ("adapter", "batch", "gradient_checkpointing", "lora", "optimizer", "packing")
    }
    key = {
        "format": FORMAT,
        "base": _identify_base(recipe, root),
        "settings": settings,
        "longest": longest,
        "box": [platform.machine(), _name_processor(), survey_box(ws.path).cores],
    }
    path = ws.path / FOLDER / f"{hash_json(key).removeprefix('sha256:')[:16]}.json"
    known = _read_known(path, key)
    if known is None:
        known = _measure(recipe, root, longest, environ)
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"key": key, "found": known})
    return read_probe(known)


def _identify_base(recipe: Recipe, root: Path) -> dict[str, Any]:
    """What speed and memory follow from: the shape, not the weights."""
    base = recipe.base
    if base.model == "nano":
        return {"nano": base.nano.model_dump(), "quantization": base.quantization}
    config = root / Path(base.model).expanduser() / "config.json"
    text = config.read_text("utf-8", "replace") if config.is_file() else ""
    return {
        "model": base.model,
        "revision": base.revision,
        "quantization": base.quantization,
        "config": text,
    }


def _name_processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _read_known(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """A measurement that was kept; a file that cannot be used is measured again."""
    try:
        doc = json.loads(path.read_text("utf-8"))
        if doc["key"] != json.loads(json.dumps(key)):
            return None
        found: dict[str, Any] = doc["found"]
        read_probe(found)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None
    return found


def _measure(
    recipe: Recipe, root: Path, longest: int, environ: Mapping[str, str]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gtft-probe-") as folder:
        ask = Path(folder) / "ask.json"
        write_json(
            ask,
            {
                "recipe": recipe.model_dump(mode="json"),
                "root": str(root.absolute()),
                "workdir": folder,
                "seconds": STEP_SECONDS,
                "lengths": [max(8, int(longest * share)) for share in _SHARES],
            },
        )
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "gtft.workers.probe", str(ask)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=START_SECONDS + STEP_SECONDS,
                env={**environ, **WORKER_ENV},
            )
        except subprocess.TimeoutExpired as e:
            raise TrainingError(
                f"the probe did not end within {e.timeout:.0f} s",
                why="the base is large for this box, or others use all of it",
                fix="gtft plan RECIPE without --probe estimates from the base's shape",
            ) from e
    lines = done.stdout.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError) as e:
        raise TrainingError(
            f"the probe ended with {done.returncode} and no figures",
            why=" ".join(done.stderr.split())[-300:] or "it said nothing",
            fix="gtft plan RECIPE without --probe estimates from the base's shape",
        ) from e
    if error := found.get("error"):
        raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
    if not found["timings"]:
        raise TrainingError(
            f"no step of the probe was done within {STEP_SECONDS:.0f} s",
            why="the base is large for this box, or others use all of it",
            fix="gtft plan RECIPE --probe --set train.max_length=256",
        )
    return found
