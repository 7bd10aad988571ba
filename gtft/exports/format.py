"""What an export is made in: the formats, what each can carry, and what each may differ by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gtft.artifact import Artifact
from gtft.errors import EvidenceError, UsageError
from gtft.exports.verification import Limit

FORMATS = ("adapter", "merged", "gguf", "lora-gguf", "ollama")
DTYPES = ("bf16", "f32")
QUANTS = ("f16", "q8_0", "q4_k_m")
WHOLE = "model.safetensors"

# What a training may have made.
FEATURES: Mapping[str, str] = {
    "lora": "plain LoRA",
    "rslora": "rank-stabilised scale (use_rslora)",
    "patterns": "ranks or scales of their own per layer (rank_pattern, alpha_pattern)",
    "dora": "DoRA (magnitudes apart)",
    "tokens": "added or trained tokens, or whole modules beside the adapter",
    "stack": "a task adapter on top of a role's",
    "full": "a full training (no adapter)",
}


@dataclass(frozen=True)
class Carried:
    """How a format carries a feature; with ``instead`` it cannot, and that format can."""

    how: str
    instead: str = ""


_MERGED = {
    "lora": Carried("added to the weights"),
    "rslora": Carried("added to the weights, scale included"),
    "patterns": Carried("added to the weights, each layer with its own scale"),
    "dora": Carried("added to the weights, magnitudes included"),
    "tokens": Carried("part of the weights"),
    "stack": Carried("both added to the weights"),
    "full": Carried("the weights themselves"),
}
_GGUF = dict(_MERGED)
# format -> feature -> how. Docs, refusals and tests read this table.
CARRIES: Mapping[str, Mapping[str, Carried]] = {
    "adapter": {
        "lora": Carried("as it is"),
        "rslora": Carried("as it is, in adapter_config.json"),
        "patterns": Carried("as it is, in adapter_config.json"),
        "dora": Carried("as it is"),
        "tokens": Carried("as it is"),
        "stack": Carried("two folders, role and task, both to be loaded"),
        "full": Carried("there is no adapter", "merged"),
    },
    "merged": _MERGED,
    "gguf": _GGUF,
    "lora-gguf": {
        "lora": Carried("as it is"),
        "rslora": Carried("the true scale folded into lora_B"),
        "patterns": Carried("the true scale folded into lora_B of each layer"),
        "dora": Carried("llama.cpp's adapters have no magnitudes", "gguf"),
        "tokens": Carried("llama.cpp's adapters hold no tokens or whole modules", "gguf"),
        "stack": Carried("one adapter file would leave the role out", "gguf"),
        "full": Carried("there is no adapter", "gguf"),
    },
    "ollama": _GGUF,
}

# A GGUF file runs on llama.cpp. Measured on a nano model (docs/models.md): mean KL 1.4e-5, 1e-4 and 8e-4.
_GGUF_LIMITS: Mapping[str, Limit] = {
    "f16": Limit(0.001, 0.05, 0.99, 0.1, "as merged bf16, and each weight rounded to float16"),
    "q8_0": Limit(0.005, 0.25, 0.97, None, "weights in 8 bits: close calls go either way"),
    "q4_k_m": Limit(0.1, 3.0, 0.9, None, "weights in about 5 bits: look at the figures"),
}

# (format, dtype or kind of quantisation) -> what it may differ by.
LIMITS: Mapping[tuple[str, str], Limit] = {
    ("adapter", ""): Limit(1e-6, 1e-4, 1.0, 0.0, "the same tensors on the same base"),
    # Measured on nano models: f32 1e-5, bf16 8e-5. A scale that is wrong by 10 % shows 6e-3, a merge into the 4-bit
    # weights or into the unquantised base 2e-3 to 3e-3; a deeper model's bfloat16 arithmetic alone may come near 1e-3.
    ("merged", "f32"): Limit(
        1e-3,
        0.05,
        0.99,
        0.1,
        "the adapter ran over 4-bit weights in bfloat16, the export runs in float32",
    ),
    # Its logits too: from 8 to 16 they go in steps of 0.0625, from 16 to 32 of 0.125. Two may swap at two steps (measured:
    # a gap of 0.105 at logits of 9; the same weights in float32 arithmetic answer all 17 prompts as the adapter does).
    ("merged", "bf16"): Limit(
        1e-3,
        0.05,
        0.99,
        0.25,
        "as f32, and each merged weight and each figure on the way is rounded to 8 bits of mantissa",
    ),
    ("lora-gguf", ""): Limit(0.001, 0.05, 0.99, 0.1, "as merged f32, on the base in float16"),
    **{(form, kind): limit for form in ("gguf", "ollama") for kind, limit in _GGUF_LIMITS.items()},
}


def find_limit(form: str, kind: str) -> Limit:
    """The limit of a format; ``kind``: dtype or quantisation."""
    return LIMITS[form, "" if form in ("adapter", "lora-gguf") else kind]


def find_features(adapter: Artifact, role: Artifact | None) -> frozenset[str]:
    """What a trained artifact holds, from its ``adapter_config.json`` and tensor names. Raises EvidenceError."""
    if any(f.name == WHOLE for f in adapter.files):
        return frozenset({"full"})
    found = {"stack"} if role is not None else set()
    for one in (adapter, role):
        if one is not None:
            found |= _read_features(one.file("adapter_config.json"))
    return frozenset(found)


def _read_features(path: Path) -> set[str]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise EvidenceError(f"{path} cannot be read", why=str(e), fix="gtft doctor") from e
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise EvidenceError(
            f"{path} describes no LoRA adapter",
            why="gtft trains and exports LoRA",
            fix="gtft doctor",
        )
    found = {"lora"}
    if config.get("use_rslora"):
        found.add("rslora")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        found.add("patterns")
    if config.get("use_dora"):
        found.add("dora")
    if config.get("modules_to_save") or config.get("trainable_token_indices"):
        found.add("tokens")
    return found


def refuse_uncarried(form: str, features: frozenset[str], model: str) -> None:
    """Raises UsageError for the first feature that the format cannot carry, with the format that can."""
    for feature in FEATURES:
        carried = CARRIES[form][feature]
        if feature in features and carried.instead:
            raise UsageError(
                f"{form} cannot carry {FEATURES[feature]}",
                why=carried.how,
                fix=f"gtft model export {model} --format {carried.instead}",
            )
