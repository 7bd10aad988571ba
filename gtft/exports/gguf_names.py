"""Architectures as llama.cpp knows them: names, shapes, rope, and the order of the rows of q and k."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError, UsageError, translate_os_error


@dataclass(frozen=True)
class Architecture:
    """One ``model_type``. ``name``: in GGUF. ``permuted``: llama.cpp rotates neighbouring pairs of q and k where
    transformers rotates halves, so their rows are reordered."""

    name: str
    permuted: bool


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", permuted=True),
    "qwen2": Architecture("qwen2", permuted=False),
    "qwen3": Architecture("qwen3", permuted=False),
}
_CONVERTER = (
    "gtft model export MODEL --format merged, then llama.cpp's own convert_hf_to_gguf.py on it"
)
# What a model may say about itself and still be what llama.cpp computes; absent counts as the first.
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, 1, None),
}


@dataclass(frozen=True)
class Shape:
    """A model's sizes and rope, from ``config.json``. ``rope_factors``: one divisor per pair of a head, () = none."""

    architecture: Architecture
    context: int
    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    epsilon: float
    rope_base: float
    rope_linear: float
    rope_factors: tuple[float, ...]
    tied: bool


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises EvidenceError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name} of the model") from e
    except ValueError as e:
        raise EvidenceError(f"{path.name} of the model is not JSON", why=str(e)) from e
    if not isinstance(found, dict):
        raise EvidenceError(f"{path.name} of the model is no JSON object")
    return found


def read_shape(folder: Path) -> Shape:
    """The shape of the model in ``folder``.

    Raises UsageError for what llama.cpp would compute differently, naming its own converter; EvidenceError for a
    config that cannot be read.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    architecture = ARCHITECTURES.get(str(kind))
    if architecture is None:
        known = ", ".join(ARCHITECTURES)
        raise refuse(f"the architecture {kind!r}", f"gtft writes {known}")
    for key, allowed in _ONLY.items():
        if config.get(key, allowed[0]) not in allowed:
            raise refuse(f"{key} = {config[key]!r}", f"it is written for {allowed[0]!r} only")
    try:
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        head_size = int(config.get("head_dim") or hidden // heads)
        base, linear, factors = _read_rope(config, head_size)
        return Shape(
            architecture=architecture,
            context=int(config["max_position_embeddings"]),
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            inner=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=head_size,
            vocab=int(config["vocab_size"]),
            epsilon=float(config["rms_norm_eps"]),
            rope_base=base,
            rope_linear=linear,
            rope_factors=factors,
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as e:
        raise EvidenceError(
            "config.json of the model does not tell its shape", why=f"{type(e).__name__}: {e}"
        ) from e


def refuse(what: str, why: str) -> UsageError:
    """The error for a model that this writer does not put into GGUF."""
    return UsageError(f"gtft does not write GGUF for {what}", why=why, fix=_CONVERTER)


def name_tensor(shape: Shape, name: str) -> str | None:
    """The GGUF name of a transformers tensor; None for what GGUF does not hold. Raises UsageError for an unknown one."""
    import gguf

    if name.endswith("rotary_emb.inv_freq") or (shape.tied and name == "lm_head.weight"):
        return None
    arch = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == shape.architecture.name)
    names = gguf.get_tensor_name_map(arch, shape.layers)
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise refuse(f"the tensor {name}", f"{shape.architecture.name} has none of that name")
    return str(found)


def count_heads(shape: Shape, name: str) -> int:
    """By how many heads the rows of this tensor are reordered; 0: they stay as they are."""
    if not shape.architecture.permuted:
        return 0
    if ".self_attn.q_proj." in name:
        return shape.heads
    return shape.kv_heads if ".self_attn.k_proj." in name else 0


def reorder_rows(rows: Any, heads: int) -> Any:
    """Rows (numpy, first axis: heads × head size) from transformers' halves to llama.cpp's pairs; 0 heads: as they are."""
    if not heads:
        return rows
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _read_rope(config: Mapping[str, Any], head_size: int) -> tuple[float, float, tuple[float, ...]]:
    """Base, linear factor (1: none) and the divisors of llama3's scaling."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = float(told.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = told.get("rope_type") or told.get("type") or "default"
    if kind == "default":
        return base, 1.0, ()
    if kind == "linear":
        return base, float(told["factor"]), ()
    if kind == "llama3":
        return base, 1.0, _scale_llama3(told, base, head_size)
    raise refuse(f"rope scaling {kind!r}", "it is written for default, linear and llama3 only")


def _scale_llama3(told: Mapping[str, Any], base: float, head_size: int) -> tuple[float, ...]:
    """Llama 3.1's divisor of each frequency: 1 for short waves, ``factor`` for long ones, smooth between."""
    factor, low, high = (float(told[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = float(told["original_max_position_embeddings"])
    divisors = []
    for i in range(0, head_size, 2):
        turns = trained / (2 * math.pi * base ** (i / head_size))
        smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(divisors)
