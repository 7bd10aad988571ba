"""The probe worker: ``python -m gtft.workers.probe FILE``. A recipe in, one JSON line of measured figures out.

``FILE`` is JSON: ``recipe``, ``root``, ``workdir`` (an empty folder, written to), ``seconds``, ``lengths``,
``nano`` (true = a stand-in of nano's shape with random weights). Exit codes are those of the errors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtft.errors import GtftError, translate_os_error
from gtft.memory import PeakSampler
from gtft.recipe.schema import Nano, Recipe
from gtft.training.environment import prepare_environment, require_training_extra

if TYPE_CHECKING:
    from gtft.training.base import BaseModel

_WORDS = "a probe reads no text of the town: its rows are numbers"


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """The figures, as `gtft.training.probe.Probed` has them, and the base's id."""
    recipe = Recipe.model_validate_json(json.dumps(asked["recipe"]))
    require_training_extra()
    # A plan downloads nothing.
    prepare_environment(os.environ, offline=True)
    sampler = PeakSampler()
    import torch

    from gtft.footprint import fits_without_checkpointing, read_shape_of
    from gtft.memory import measure_free
    from gtft.recipe.load import plan_load
    from gtft.training.adapters import Ancestors, attach, require_trainable
    from gtft.training.base import load_tokenizer
    from gtft.training.device import settle
    from gtft.training.probe import probe

    train = recipe.train
    require_trainable(recipe.base, train)
    workdir = Path(asked["workdir"])
    base = _find_base(recipe, Path(asked["root"]), workdir)
    cuda = torch.cuda.is_available()
    shape = read_shape_of(base.path)
    load = plan_load(recipe.base, train, gpu=cuda, checkpointing=False)
    settings = settle(
        train,
        cuda=cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        fits=fits_without_checkpointing(shape, load, measure_free()),
    )
    found = probe(
        base,
        load_tokenizer(base),
        train,
        settings,
        equip=lambda model: attach(model, train, Ancestors()),
        vocab=shape.vocab,
        lengths=[min(int(n), train.max_length) for n in asked["lengths"]],
        workdir=workdir / "train",
        seconds=float(asked["seconds"]),
        clock=time.monotonic,
        sampler=sampler,
    )
    return {**found.as_dict(), "checkpointing": settings.gradient_checkpointing}


def _find_base(recipe: Recipe, root: Path, workdir: Path) -> BaseModel:
    from gtft.training.base import locate_base
    from gtft.training.probe import _Deadline

    if recipe.base.model == "nano":
        return _stand_in(recipe.base.nano, workdir / "base", recipe.base.quantization)
    return locate_base(
        recipe.base,
        text_file=workdir / "none",
        root=root,
        workspace=workdir,
        watch=_Deadline(time.monotonic, float("inf")),
        clock=time.monotonic,
    )


def _stand_in(nano: Nano, folder: Path, quantization: str) -> BaseModel:
    """Nano's shape with random weights: neither speed nor memory follows from what it learned."""
    from gtft.training.base import BaseModel
    from gtft.training.nano_tokenizer import train_tokenizer
    from gtft.training.pretrain import build_model

    tokenizer = train_tokenizer([_WORDS], 512, nano.context)
    eos = tokenizer.eos_token_id
    build_model(nano, nano.vocab, eos=eos, pad=eos, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModel("nano", folder, "nano", None, quantization, ())


def main() -> None:
    try:
        asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
        found = measure(asked)
    except GtftError as e:
        sys.stdout.write(json.dumps({"error": e.as_dict()}) + "\n")
        sys.exit(e.exit_code)
    except OSError as e:
        error = translate_os_error(e, "probing")
        sys.stdout.write(json.dumps({"error": error.as_dict()}) + "\n")
        sys.exit(error.exit_code)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
