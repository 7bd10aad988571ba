"""The base model: where it is, what it is (by content), and how it is loaded."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import hash_file, hash_json
from gtft.errors import BaseMissing, translate_os_error
from gtft.recipe.schema import Base
from gtft.training.watch import Watch
from gtft.weights import CONFIG_FILES, TOKENIZER_FILES, inspect_weights, list_loaded

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What a model's answers follow from; README, licences and other weight formats do not count.
_HUB_PATTERNS = ("*.safetensors", "*.safetensors.index.json", *CONFIG_FILES, *TOKENIZER_FILES)


@dataclass(frozen=True)
class BaseModel:
    """A base on disk. ``id`` is the sha256 over the hashes of ``files`` (name, sha256).

    ``given`` is the path to record: relative to the workspace for a base under it, else as given.
    """

    name: str
    path: Path
    given: str
    revision: str | None
    quantization: str
    files: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        return hash_json([list(f) for f in self.files])

    def as_dict(self) -> dict[str, object]:
        """What ``base.json`` of an adapter holds: enough to find and check the same base again."""
        return {
            "name": self.name,
            "id": self.id,
            "path": self.given,
            "revision": self.revision,
            "quantization": self.quantization,
            "files": dict(self.files),
        }


def locate_base(
    base: Base,
    *,
    text_file: Path,
    root: Path,
    workspace: Path,
    watch: Watch,
    clock: Callable[[], float],
) -> BaseModel:
    """Find (or, for "nano", build) the base of a recipe and hash it.

    ``text_file`` is what nano is built from; ``root`` is where relative paths start. Raises BaseMissing with
    the next command when it is not there, incomplete, or stored in a format that runs code on loading.
    """
    if base.model == "nano":
        # Here: it loads torch, and a base that is there is found without.
        from gtft.training.nano import ensure_nano

        built = ensure_nano(text_file, base.nano, workspace / "bases", watch, clock)
        folder, name = built.path, built.path.name
        given = str(folder.relative_to(workspace))
        return _describe(name, folder, given, None, base.quantization)
    local = _expand_home(base.model)
    folder = local if local.is_absolute() else root / local
    looks_local = local.is_absolute() or base.model.startswith((".", "~")) or folder.is_dir()
    if looks_local or not _HUB_ID.fullmatch(base.model):
        check_folder(folder, base.model)
        return _describe(local.name, folder, base.model, None, base.quantization)
    folder = _fetch(base.model, base.revision)
    check_folder(folder, base.model)
    return _describe(base.model, folder, base.model, base.revision, base.quantization)


def check_folder(folder: Path, given: str) -> None:
    """Raises BaseMissing unless ``folder`` holds a model, EvidenceError unless it loads without running foreign code."""
    if not folder.is_dir():
        raise BaseMissing(
            f"there is no base model at {given}",
            why=f"{folder} is not a folder, and {given!r} is not a hub id (owner/name)",
            fix='set base.model to a folder with config.json, a hub id, or "nano": gtft recipe show RECIPE',
        )
    if not (folder / "config.json").is_file():
        raise BaseMissing(
            f"the base model at {given} has no config.json",
            why="a model folder as save_pretrained writes it holds config.json, weights and a tokenizer",
            fix="point base.model at the folder that holds config.json",
        )
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        raise BaseMissing(
            f"the base model at {given} has no safetensors weights",
            why=f"{pickled[0]} is a pickle, which can run code when it is loaded; it is refused"
            if pickled
            else "no *.safetensors file is in the folder",
            fix="use a revision with safetensors weights, or convert it with save_pretrained",
        )
    if not any((folder / n).is_file() for n in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise BaseMissing(
            f"the base model at {given} has no tokenizer",
            why="neither tokenizer.json, tokenizer.model nor vocab.json is in the folder",
            fix="save the tokenizer beside the model with save_pretrained",
        )
    inspect_weights(folder)


def load_tokenizer(base: BaseModel) -> Any:
    """The base's tokenizer, with a pad token. Raises BaseMissing when it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        base.path, trust_remote_code=False, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise BaseMissing(
            f"the base model {base.name} has no chat template",
            why="its tokenizer does not say how a conversation is written",
            fix="use the model's instruct variant, or add chat_template.jinja to its folder",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(base: BaseModel, place: int | None = None) -> Any:
    """The base's weights: NF4 with double quantization and bfloat16 compute, or as stored.

    ``place``: the GPU of this process; None = the CPU.
    The bitsandbytes guard is on before anything can run a forward pass.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings: dict[str, Any] = {}
    if base.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        base.path,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        dtype="auto",
        device_map={"": "cpu" if place is None else place},
        **settings,
    )
    guard_linear4bit(model)
    trim_memory()
    return model


def guard_linear4bit(model: Any) -> int:
    """Keep bitsandbytes from repacking 4-bit weights on AVX512_BF16 CPUs; how many layers it guards.

    Without it one forward in eval mode swaps in a layout that has no backward: the loss looks right
    and the gradients are wrong.
    """
    import bitsandbytes

    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def trim_memory() -> None:
    """Give back what loading left in glibc's arenas (200-900 MB otherwise); elsewhere a plain collect."""
    import ctypes
    import sys

    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _expand_home(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError:
        # "~name" of a user that does not exist is a path like any other, and is then missing.
        return Path(given)


def _describe(
    name: str, folder: Path, given: str, revision: str | None, quantization: str
) -> BaseModel:
    try:
        hashed = tuple((n, hash_file(folder / n)) for n in list_loaded(folder))
    except OSError as e:
        raise translate_os_error(e, f"reading the base model {given}") from e
    return BaseModel(name, folder, given, revision, quantization, hashed)


def _fetch(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    pinned = f"@{revision}" if revision else ""
    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(_HUB_PATTERNS))
        )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError, ValueError) as e:
        raise BaseMissing(
            f"the base model {hub_id}{pinned} is not in the hub cache and could not be downloaded",
            why=" ".join(f"{type(e).__name__}: {e}".split())[:300],
            fix=f"on a machine with network: hf download {hub_id}"
            + (f" --revision {revision}" if revision else "")
            + ', then run again; or give a local folder, or base.model = "nano"',
        ) from e
