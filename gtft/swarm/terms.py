"""Terms: the part of a recipe that every peer of a swarm must share, and what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from gtft.recipe.schema import Recipe

# How a peer trains, not what: these may differ from box to box.
OWN_KEYS = (
    "checkpoint_steps",
    "gradient_checkpointing",
    "keep_checkpoints",
    "packing",
    "processes",
    "report_to",
)
_DEPTH = 5
_SHOWN = 60


def find_terms(recipe: Recipe) -> dict[str, Any]:
    """Role, storage of the base, and all of ``train`` but OWN_KEYS. The base itself is told by its hash;
    what is harvested stays each peer's own matter."""
    train = recipe.train.model_dump(mode="json")
    return {
        "role": recipe.role,
        "base": {"quantization": recipe.base.quantization},
        "train": {k: v for k, v in train.items() if k not in OWN_KEYS},
    }


def compare_terms(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[str, ...]:
    """One line per key that differs: "train.learning_rate: 0.0002 in the swarm, 0.001 here"."""
    there, here = dict(_flatten(theirs, "", _DEPTH)), dict(_flatten(ours, "", _DEPTH))
    return tuple(
        f"{key}: {_cut(there.get(key))} in the swarm, {_cut(here.get(key))} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    )


def _flatten(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value and depth:
        for key, below in value.items():
            # As JSON: what a foreign file holds is printed, and must not steer a terminal.
            shown = json.dumps(str(key))[1:-1][:_SHOWN]
            yield from _flatten(below, f"{name}.{shown}" if name else shown, depth - 1)
    else:
        yield name, json.dumps(value, sort_keys=True)


def _cut(text: str | None) -> str:
    if text is None:
        return "nothing"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
