"""From a recipe to what a training holds in memory (gtft.footprint): one mapping for plan and training."""

from __future__ import annotations

from gtft.footprint import Load
from gtft.recipe.methods import PAIRED
from gtft.recipe.schema import Base, Train


def plan_load(
    base: Base, train: Train, *, gpu: bool, checkpointing: bool, length: int | None = None
) -> Load:
    """``length``: tokens of the longest row, when it is known to be shorter than the recipe's limit."""
    paired = train.method in PAIRED
    optimizer = train.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if gpu else "adamw_torch"
    return Load(
        quantization=base.quantization,
        full=train.adapter == "full",
        rank=train.lora.r,
        targets=train.lora.target_modules,
        dora=train.lora.use_dora,
        rows=train.batch * (2 if paired and train.method != "kto" else 1),
        length=min(train.max_length, length or train.max_length),
        checkpointing=checkpointing,
        optimizer=optimizer,
        second_forward=train.retention.kl > 0 or (paired and train.method != "orpo"),
        gpu=gpu,
        processes=train.processes,
    )
