"""What a training holds in memory, from the shape of its base and how it is trained. No torch here.

The figure is the peak of the worker's anonymous resident memory (RssAnon) on a CPU. What autograd keeps of
a layer was counted tensor by tensor; what the allocator and the libraries add was measured on real
trainings. The measured constants stand below; ``python benchmarks/budget.py`` makes and checks them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.errors import InputError, translate_os_error

MIB = 1024**2

# -- measured (benchmarks/budget.py, torch 2.13 on CPU): bytes and factors
# A worker with the training libraries imported, before a base is loaded.
FLOOR = 550 * MIB
# oneDNN keeps compiled kernels of the last lengths of rows (gtft.training.environment), and rows of many
# lengths leave more pieces behind.
KERNELS = 50 * MIB
_LENGTHS_THAT_FILL = 20
# What freed blocks leave in the allocator's arenas, over what autograd keeps; with gradient checkpointing
# freed blocks go back at once (gtft.memory.give_back_large_blocks).
SLACK, SLACK_CHECKPOINTING = 1.48, 1.2
# A verdict leaves this much above the estimate.
MARGIN = 1.15

# NF4 with double quantization: half a byte, one byte of scale per 64, four bytes per 64 · 256.
_NF4 = 0.5 + 1 / 64 + 4 / 16384
# Weight, gradient and two Adam moments in float32; with 8-bit moments weight, gradient and two bytes.
_TRAINED = {"adamw_8bit": 10.25, "paged_adamw_8bit": 10.25}
_TRAINED_FLOAT32 = 16.0
# Logits that gtft's answer loss holds at once (numbers), and bytes for each: float32, a copy, bfloat16.
_LOGITS_AT_ONCE = 1 << 24
_BYTES_PER_LOGIT = 10
_FLOAT32, _BFLOAT16 = 4, 2


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block: its name as in the model's modules, and its sizes."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family. ``stored``: bytes of a number as stored; ``head_norms``: queries and
    keys are normalised (Qwen3); ``bias``: those of queries, keys and values."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    stored: int = _BFLOAT16
    head_norms: bool = False
    bias: bool = False

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one block."""
        h, i, q, k = self.hidden, self.intermediate, self.queries, self.keys
        return (
            Linear("self_attn.q_proj", h, q),
            Linear("self_attn.k_proj", h, k),
            Linear("self_attn.v_proj", h, k),
            Linear("self_attn.o_proj", q, h),
            Linear("mlp.gate_proj", h, i),
            Linear("mlp.up_proj", h, i),
            Linear("mlp.down_proj", i, h),
        )

    @property
    def linear_parameters(self) -> int:
        """Those that NF4 quantises."""
        return self.layers * sum(m.inputs * m.outputs for m in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embeddings, head and norms: kept as stored."""
        norms = (2 * self.layers + 1) * self.hidden
        if self.head_norms:
            norms += 2 * self.layers * self.head_dim
        if self.bias:
            norms += self.layers * (self.queries + 2 * self.keys)
        return norms + self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def choose(self, targets: str | tuple[str, ...]) -> tuple[Linear, ...]:
        """The layers of a block that PEFT's ``target_modules`` names; all of them for names of another family."""
        if targets == "all-linear":
            return self.linears
        if isinstance(targets, str):
            try:
                wanted = re.compile(targets)
            except re.error:
                return self.linears
            found = [m for m in self.linears if wanted.fullmatch(f"model.layers.0.{m.name}")]
        else:
            found = [m for m in self.linears if any(_ends_with(m.name, t) for t in targets)]
        return tuple(found) or self.linears

    def lora_parameters(self, rank: int, targets: str | tuple[str, ...]) -> int:
        return self.layers * rank * sum(m.inputs + m.outputs for m in self.choose(targets))


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def shape_nano(vocab: int, hidden: int, layers: int, heads: int) -> Shape:
    """The base that gtft builds itself (gtft.training.pretrain): tied, as wide as 8/3, stored in float32."""
    intermediate = -(-(hidden * 8 // 3) // 64) * 64
    return Shape(hidden, intermediate, layers, heads, heads, hidden // heads, vocab, True, _FLOAT32)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """From what a ``config.json`` holds. Raises InputError when it is not a plain decoder."""
    text = config.get("text_config")
    c: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    if any(c.get(k) for k in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise _unknown("it is a mixture of experts")
    try:
        heads = int(c["num_attention_heads"])
        hidden = int(c["hidden_size"])
        dtype = str(c.get("dtype") or c.get("torch_dtype") or "float32")
        shape = Shape(
            hidden=hidden,
            intermediate=int(c["intermediate_size"]),
            layers=int(c["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(c.get("num_key_value_heads") or heads),
            head_dim=int(c.get("head_dim") or hidden // heads),
            vocab=int(c["vocab_size"]),
            tied=bool(c.get("tie_word_embeddings", _TIED.get(str(c.get("model_type")), False))),
            stored=_FLOAT32 if "32" in dtype else _BFLOAT16,
            head_norms=str(c.get("model_type", "")).startswith("qwen3"),
            bias=bool(c.get("attention_bias") or c.get("model_type") == "qwen2"),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as e:
        raise _unknown(f"{type(e).__name__}: {e}") from e
    if min(shape.hidden, shape.intermediate, shape.layers, shape.heads, shape.head_dim) < 1:
        raise _unknown("one of its sizes is below 1")
    return shape


# Families whose class ties the head when the file does not say.
_TIED = {"gemma": True, "gemma2": True, "gemma3_text": True, "gemma3": True}


def read_shape_of(folder: Path) -> Shape:
    """The shape of a base in a folder. Raises InputError when its ``config.json`` cannot be used."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except OSError as e:
        raise translate_os_error(e, "reading the base's shape") from e
    except ValueError as e:
        raise _unknown(f"{folder / 'config.json'} is not JSON: {e}") from e
    if not isinstance(config, dict):
        raise _unknown(f"{folder / 'config.json'} is no object")
    return read_shape(config)


def _unknown(why: str) -> InputError:
    return InputError(
        "the memory of this base cannot be estimated from its config.json",
        why=why,
        fix="measure it instead: gtft plan RECIPE --probe",
    )


@dataclass(frozen=True)
class Load:
    """How a base is trained, as far as memory goes. ``rows``: those of one step (batch, times two for pairs), of
    ``length`` tokens at most; ``lengths``: how many different ones there are;
    ``second_forward``: a reference pass beside the trained one (KL, preferences); ``dora``: magnitudes too;
    ``processes``: that share the training, each with all of it.
    """

    quantization: str = "nf4"
    full: bool = False
    rank: int = 16
    targets: str | tuple[str, ...] = "all-linear"
    dora: bool = False
    rows: int = 1
    length: int = 1024
    lengths: int = 100
    supervised: float = 0.5
    checkpointing: bool = False
    optimizer: str = "adamw_torch"
    second_forward: bool = False
    gpu: bool = False
    processes: int = 1


@dataclass(frozen=True)
class Footprint:
    """Bytes by what holds them. ``activations``: what autograd keeps for the backward pass; ``passing``: what
    lives within a step; ``head``: the logits. The last two are not there at the same time."""

    floor: int
    base: int
    trained: int
    activations: int
    passing: int
    head: int
    processes: int = 1

    @property
    def total(self) -> int:
        held = self.floor + self.base + self.trained + self.activations
        return (held + max(self.passing, self.head)) * self.processes


def estimate_memory(shape: Shape, load: Load) -> Footprint:
    """The peak of a training, by what holds it."""
    tokens = load.rows * load.length
    trained = shape.lora_parameters(load.rank, load.targets)
    # On a CPU what is used as stored is mapped from its file: pages that the kernel can drop.
    base = shape.other_parameters * shape.stored * load.gpu
    if load.full:
        trained, base = shape.parameters, 0
    elif load.quantization == "nf4":
        base += int(shape.linear_parameters * _NF4)
    else:
        base += shape.linear_parameters * shape.stored * load.gpu
    layer: float = tokens * _count_kept(shape, load)
    supervised = max(1, int(tokens * load.supervised))
    logits = min(supervised * shape.vocab, max(_LOGITS_AT_ONCE, shape.vocab))
    widest = max(m.inputs * m.outputs for m in shape.linears)
    # Backward through a block: its weights dequantised, and gradients of its widest tensors.
    passing: float = widest * _FLOAT32 + tokens * 3 * shape.intermediate * _FLOAT32
    if load.second_forward:
        passing += tokens * 2 * shape.intermediate * _FLOAT32
    if load.checkpointing:
        kept: float = shape.layers * tokens * shape.hidden * _width(shape)
        passing = (layer + passing) * SLACK_CHECKPOINTING
    else:
        kept = shape.layers * layer * SLACK
        passing *= SLACK
    kernels = (
        0 if load.gpu else KERNELS * min(load.lengths, _LENGTHS_THAT_FILL) // _LENGTHS_THAT_FILL
    )
    return Footprint(
        floor=FLOOR + kernels,
        base=int(base),
        trained=int(trained * _TRAINED.get(load.optimizer, _TRAINED_FLOAT32)),
        activations=int(kept),
        passing=int(passing),
        head=int(logits * _BYTES_PER_LOGIT),
        # On GPUs each process has a card of its own.
        processes=1 if load.gpu else load.processes,
    )


def _width(shape: Shape) -> int:
    """Bytes of a number of the residual stream: it runs as the base is stored."""
    return shape.stored


def _count_kept(shape: Shape, load: Load) -> float:
    """Bytes that autograd keeps of one token in one block."""
    h, i, q, k = shape.hidden, shape.intermediate, shape.queries, shape.keys
    w = _width(shape)
    # Two norms keep their input in float32, attention its queries, keys, values and answer, the MLP three.
    kept = 2 * 4 * h + 8 + w * (2 * q + 2 * k + 3 * i) + 4 * shape.heads
    if shape.head_norms:
        kept += 4 * (q + k + shape.heads + shape.kv_heads)
    if load.full:
        return kept + w * (2 * h + i)
    for m in shape.choose(load.targets):
        # The adapter reads in float32: a copy for each layer where the stream is bfloat16.
        kept += 4 * load.rank + (_FLOAT32 * m.inputs if w == _BFLOAT16 else 0)
        if load.dora:
            kept += 2 * _FLOAT32 * m.outputs
    if w == _FLOAT32:
        # Nothing to copy, but the norms' outputs and the MLP's product stand by themselves.
        kept += 4 * (2 * h + i)
    return kept


def count_mapped(shape: Shape, load: Load) -> int:
    """Bytes of weights that every step reads from their file on a CPU: the head, and linear layers that are
    not quantised. They are no part of `Footprint`, but a box without room for them reads its disk all day."""
    if load.gpu or load.full:
        return 0
    linear = 0 if load.quantization == "nf4" else shape.linear_parameters
    return (shape.vocab * shape.hidden + linear) * shape.stored


def fits_without_checkpointing(shape: Shape, load: Load, free: int) -> bool:
    """Whether a training keeps within ``free`` bytes with every activation held: what "auto" asks."""
    total = estimate_memory(shape, replace(load, checkpointing=False)).total
    return total * MARGIN + count_mapped(shape, load) <= free
