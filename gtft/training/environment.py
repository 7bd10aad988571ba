"""What must stand in the environment before torch and the hub client are imported."""

from __future__ import annotations

import importlib.util
from collections.abc import MutableMapping

from gtft.errors import MissingExtra

# Waiting threads that spin make a busy box 8-25 times slower; both runtimes read this once, at load.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# oneDNN compiles kernels for every new length of a row and keeps 1024: with 120 lengths nano held 1066 MiB
# instead of 627, at no gain. One length needs about 40 of them.
_LEAN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
_NEEDED = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")


def prepare_environment(environ: MutableMapping[str, str], *, offline: bool) -> None:
    """Set what the training libraries read when they are imported; call it before importing them.

    ``offline`` keeps the hub client off the network. What the user has set about threads stays.
    """
    for key, value in (*_PASSIVE.items(), *_LEAN.items()):
        environ.setdefault(key, value)
    environ.update(_QUIET)
    if offline:
        environ["HF_HUB_OFFLINE"] = "1"


def require_training_extra() -> None:
    """Raises MissingExtra that names every package of the extra ``train`` that is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"training needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            why="the core install leaves the training libraries out",
            fix="pip install 'gtft[train]' -c constraints.txt",
        )
