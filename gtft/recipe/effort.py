"""The effort dial: what ``quick`` and ``thorough`` change, in one table.

``standard`` is the defaults of the schema. A key that the formula, an overlay or ``--set`` gives wins
over the dial.
"""

from __future__ import annotations

from gtft.recipe.schema import Effort

EFFORT: dict[Effort, dict[str, int | float]] = {
    "quick": {
        "train.epochs": 1.0,
        "train.lora.r": 8,
        "train.lora.alpha": 16,
        "eval.max_items": 60,
        "eval.max_new_tokens": 128,
    },
    "standard": {},
    "thorough": {
        "base.nano.steps": 1200,
        "train.epochs": 3.0,
        "train.lora.r": 32,
        "train.lora.alpha": 64,
        "train.keep_checkpoints": 4,
        "eval.max_items": 400,
        "eval.gates.min_items": 50,
    },
}
