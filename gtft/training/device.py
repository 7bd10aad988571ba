"""What the recipe's "auto" becomes on a device: one place, read by the training and told to people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from gtft.recipe.schema import Train

# Below this many parameters the steps are too short to share out: one thread did 1.4 times the tokens
# of two at 1 M parameters; at 8 M two are faster.
ONE_THREAD_BELOW = 3_000_000


@dataclass(frozen=True)
class Settings:
    """How a training runs here. ``bf16``: autocast, on GPUs that have it; NF4 computes in bfloat16 anyway."""

    device: Literal["cpu", "cuda"]
    optimizer: str
    packing: bool
    gradient_checkpointing: bool
    bf16: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def settle(train: Train, *, cuda: bool, bf16: bool, fits: bool) -> Settings:
    """``fits``: whether it fits into memory without gradient checkpointing, as far as one can tell."""
    auto = {"on": True, "off": False}
    optimizer = train.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if cuda else "adamw_torch"
    return Settings(
        device="cuda" if cuda else "cpu",
        optimizer=optimizer,
        # On a CPU a row by itself wastes nothing, and rows in one do not share their work.
        packing=auto.get(train.packing, cuda and train.method == "sft"),
        gradient_checkpointing=auto.get(train.gradient_checkpointing, cuda or not fits),
        bf16=cuda and bf16,
    )
