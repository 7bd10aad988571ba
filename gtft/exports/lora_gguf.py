"""A LoRA adapter as a GGUF file that llama.cpp lays on a base: small, and no weight of the base in it.

llama.cpp scales B·A by ``adapter.lora.alpha`` over the rank and knows no other scale, so what training scaled by
(rank-stabilised, or of its own per layer) is folded into B.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError, UsageError
from gtft.exports.gguf_file import About, describe, open_writer, read_numbers, write_aside
from gtft.exports.gguf_names import count_heads, name_tensor, read_json, read_shape, reorder_rows

_WEIGHTS = "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Settings of PEFT that change what the two matrices mean; each must be absent, empty or false.
_VARIANTS = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
)
# Initialisations that also change the base's own weights.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "orthogonal")


def write_adapter_gguf(adapter: Path, base: Path, out: Path, *, about: About | None = None) -> None:
    """Write the PEFT adapter in ``adapter`` to ``out``; ``base``: the folder whose ``config.json`` it belongs to.

    Raises UsageError for what the format does not carry, with the way that works, EvidenceError for a damaged one.
    """
    config = read_json(adapter / "adapter_config.json")
    require_plain(config)
    shape = read_shape(base)
    pairs = _read_pairs(adapter)
    alpha = float(config["lora_alpha"])
    with write_aside(out) as path:
        writer = open_writer(path, shape.architecture.name)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        describe(writer, about or About())
        for module in sorted(pairs, key=_order):
            name = name_tensor(shape, f"{module}.weight")
            if name is None or set(pairs[module]) != {"A", "B"}:
                raise EvidenceError(
                    f"the adapter's {module} cannot be laid on this base",
                    why="one of its two matrices is missing, or the base has no such weight",
                    fix="gtft doctor",
                )
            a, b = pairs[module]["A"], pairs[module]["B"]
            fold = read_scale(config, module) / (alpha / a.shape[0])
            b = reorder_rows(b, count_heads(shape, f"{module}.weight"))
            writer.add_tensor(f"{name}.lora_a", a)
            writer.add_tensor(f"{name}.lora_b", b if fold == 1.0 else b * b.dtype.type(fold))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def require_plain(config: Mapping[str, Any]) -> None:
    """Raises UsageError for an adapter that is more than two matrices beside a weight of the base."""
    variant = next((key for key in _VARIANTS if config.get(key)), None)
    began = str(config.get("init_lora_weights")).lower()
    if config.get("peft_type") != "LORA":
        variant = f"peft_type {config.get('peft_type')}"
    elif config.get("bias", "none") != "none":
        variant = f"bias {config['bias']}"
    elif began.startswith(_CHANGES_BASE):
        variant = f"init_lora_weights {began}"
    if variant:
        raise UsageError(
            f"lora-gguf cannot carry {variant}",
            why="llama.cpp's adapters are two plain matrices beside a weight of the base",
            fix="gtft model export MODEL --format gguf",
        )


def read_scale(config: Mapping[str, Any], module: str) -> float:
    """What PEFT multiplies B·A of this module by: alpha / r, rank-stabilised alpha / sqrt(r); both may be of its own.

    A pattern names a module by the end of its name, as PEFT matches it (get_pattern_key).
    """
    rank = _find(config.get("rank_pattern"), module, config["r"])
    alpha = _find(config.get("alpha_pattern"), module, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else float(rank))


def _find(patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    from peft.utils.other import get_pattern_key

    return (patterns or {}).get(get_pattern_key((patterns or {}).keys(), module), otherwise)


def _read_pairs(adapter: Path) -> dict[str, dict[str, Any]]:
    pairs: dict[str, dict[str, Any]] = {}
    for name, numbers in read_numbers(adapter / _WEIGHTS):
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise UsageError(
                f"lora-gguf cannot carry {name}",
                why="it is no matrix of a LoRA pair",
                fix="gtft model export MODEL --format gguf",
            )
        pairs.setdefault(found[1], {})[found[2]] = numbers
    if not pairs:
        raise EvidenceError(f"{_WEIGHTS} holds no LoRA", fix="gtft doctor")
    return pairs


def _order(module: str) -> tuple[int, str]:
    layer = re.search(r"\.layers\.(\d+)\.", module)
    return (int(layer[1]) if layer else -1, module)
