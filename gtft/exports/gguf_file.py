"""Writing a merged model as a GGUF file that llama.cpp and Ollama load: the same numbers under other names.

Nothing in the file depends on the clock, the host or a path: the same model gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gtft.errors import EvidenceError, MissingExtra, UsageError, translate_os_error
from gtft.exports.gguf_names import (
    Shape,
    count_heads,
    name_tensor,
    read_shape,
    refuse,
    reorder_rows,
)
from gtft.exports.gguf_tokens import (
    CANDIDATES,
    Tokens,
    load_tokenizer,
    read_tokens,
)

Kind = Literal["f32", "f16", "q8_0", "q4_k_m"]
KINDS: tuple[Kind, ...] = ("f32", "f16", "q8_0", "q4_k_m")
Change = Callable[[str, Any], Any]
# Rows of a q8_0 tensor come in blocks of so many numbers.
_BLOCK = 32


@dataclass(frozen=True)
class About:
    """What the file says of itself. ``ids``: gtft's, by what they are of ("model", "adapter", …)."""

    name: str = ""
    licence: str = ""
    base: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


def write_gguf(
    merged: Path,
    out: Path,
    *,
    kind: Kind,
    about: About | None = None,
    change: Change | None = None,
) -> None:
    """Write the model in ``merged`` (safetensors, config, tokenizer) to ``out``, whole or not at all.

    ``change``: what becomes of each weight first (its transformers name and the torch tensor as it is stored).
    Raises UsageError for what GGUF or this writer does not carry, with the way that works; EvidenceError for weights
    that do not fit the config, and for a tokenizer that llama.cpp reads differently (the first text that differs is
    named); MissingExtra where llama-cpp-python is needed and not installed.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no GGUF kind {kind!r}", why=f"there are {', '.join(KINDS)}")
    shape = read_shape(merged)
    tokenizer = load_tokenizer(merged)
    tokens = _settle_split(read_tokens(merged, tokenizer, shape.vocab), tokenizer)
    about = about or About()
    if kind != "q4_k_m":
        with write_aside(out) as path:
            _write(merged, path, kind, shape, tokens, about, change)
            _require_same_ids(path, tokens, tokenizer)
        return
    # Before an hour of writing: it needs llama.cpp.
    from gtft.exports.llama_runtime import require_llama
    from gtft.exports.quantising import quantise

    require_llama("a k-quant is made by llama.cpp")
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=out.parent) as folder:
        whole = Path(folder) / "whole.gguf"
        _write(merged, whole, "f32", shape, tokens, about, change)
        _require_same_ids(whole, tokens, tokenizer)
        with write_aside(out) as path:
            quantise(whole, path, kind)


@contextmanager
def write_aside(out: Path) -> Iterator[Path]:
    """A path beside ``out`` that becomes ``out`` when the block ends well, and is removed when it does not."""
    path = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield path
        with path.open("rb") as f:
            os.fsync(f.fileno())
        path.replace(out)
    except OSError as e:
        raise translate_os_error(e, f"writing {out.name}") from e
    finally:
        path.unlink(missing_ok=True)


def _write(
    merged: Path,
    path: Path,
    kind: Kind,
    shape: Shape,
    tokens: Tokens,
    about: About,
    change: Change | None,
) -> None:
    """Header first, then one tensor at a time: memory stays at the largest tensor."""
    writer = open_writer(path, shape.architecture.name)
    describe(writer, about)
    _write_shape(writer, shape, kind)
    _write_tokens(writer, tokens)
    plan = _plan_tensors(merged, shape)
    sizes = dict(read_sizes(merged))
    for name, source in plan:
        size = _list_factors(shape).shape if source is None else sizes[source]
        stored = _choose_type(kind, size)
        writer.add_tensor_info(name, *_measure(size, stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, source, numbers in _read_planned(merged, shape, plan, change):
        heads = count_heads(shape, source or "")
        writer.write_tensor_data(_store(name, reorder_rows(numbers, heads), kind))
    writer.close()


def open_writer(path: Path, architecture: str) -> Any:
    """A GGUF writer on a file. Raises MissingExtra without the gguf package."""
    try:
        import gguf
    except ImportError as e:
        raise MissingExtra(
            "the gguf package is not installed",
            why="it writes the format",
            fix="pip install 'gtft[serve]' -c constraints.txt",
        ) from e
    return gguf.GGUFWriter(path, architecture)


def describe(writer: Any, about: About) -> None:
    """Who made what, from what: no path, no clock."""
    writer.add_name(about.name)
    writer.add_license(about.licence)
    if about.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, about.base)
    for name, value in sorted(about.ids.items()):
        writer.add_string(f"gtft.{name}", value)


def _write_shape(writer: Any, shape: Shape, kind: Kind) -> None:
    import gguf

    writer.add_file_type(
        {
            "f32": gguf.LlamaFileType.ALL_F32,
            "f16": gguf.LlamaFileType.MOSTLY_F16,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        }[kind]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocab)
    if shape.rope_linear != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_linear)


def _write_tokens(writer: Any, tokens: Tokens) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(list(tokens.texts))
    writer.add_token_types(list(tokens.types))
    writer.add_token_merges(list(tokens.merges))
    # Without the key llama.cpp takes token 11 for it; it is only added where add_bos_token says so.
    bos = tokens.bos if tokens.bos is not None else tokens.pad
    writer.add_bos_token_id(tokens.eos if bos is None else bos)
    writer.add_eos_token_id(tokens.eos)
    if tokens.eot is not None:
        writer.add_eot_token_id(tokens.eot)
    if tokens.pad is not None:
        writer.add_pad_token_id(tokens.pad)
    writer.add_add_bos_token(tokens.add_bos)
    writer.add_add_eos_token(False)
    writer.add_chat_template(tokens.template)


def _plan_tensors(merged: Path, shape: Shape) -> list[tuple[str, str | None]]:
    """(GGUF name, transformers name) in the order of writing; None: made here, the rope divisors."""
    plan: list[tuple[str, str | None]] = []
    if shape.rope_factors:
        plan.append(("rope_freqs.weight", None))
    for source, _ in read_sizes(merged):
        name = name_tensor(shape, source)
        if name is not None:
            plan.append((name, source))
    missing = {"token_embd.weight", "output_norm.weight"} - {name for name, _ in plan}
    if not shape.tied:
        missing |= {"output.weight"} - {name for name, _ in plan}
    if missing:
        raise EvidenceError(
            f"the model's weights lack {sorted(missing)[0]}",
            why="its safetensors files do not hold what config.json describes",
            fix="gtft model export MODEL --format merged",
        )
    return plan


def read_sizes(weights: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of the tensors in a safetensors file or a folder of them, in the order of files and names."""
    from safetensors import SafetensorError, safe_open

    for file in _list_files(weights):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    yield name, tuple(tensors.get_slice(name).get_shape())
        except SafetensorError as e:
            raise EvidenceError(f"{file.name} cannot be read", why=str(e)) from e


def read_numbers(weights: Path, change: Change | None = None) -> Iterator[tuple[str, Any]]:
    """The same tensors as float32 numpy arrays, one at a time; ``change``: as in `write_gguf`."""
    import torch
    from safetensors import SafetensorError, safe_open

    for file in _list_files(weights):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    tensor = tensors.get_tensor(name)
                    tensor = tensor if change is None else change(name, tensor)
                    yield name, tensor.to(torch.float32).numpy()
        except SafetensorError as e:
            raise EvidenceError(f"{file.name} cannot be read", why=str(e)) from e


def _list_files(weights: Path) -> list[Path]:
    return [weights] if weights.is_file() else sorted(weights.glob("*.safetensors"))


def _read_planned(
    merged: Path,
    shape: Shape,
    plan: list[tuple[str, str | None]],
    change: Change | None,
) -> Iterator[tuple[str, str | None, Any]]:
    names = {source: name for name, source in plan if source is not None}
    if shape.rope_factors:
        yield "rope_freqs.weight", None, _list_factors(shape)
    for source, numbers in read_numbers(merged, change):
        if source in names:
            yield names[source], source, numbers


def _list_factors(shape: Shape) -> Any:
    import numpy

    return numpy.asarray(shape.rope_factors, numpy.float32)


def _choose_type(kind: Kind, size: tuple[int, ...]) -> Any:
    """Vectors stay in float32; a row that is no whole number of blocks stays in float16."""
    import gguf

    if kind == "f32" or len(size) < 2:
        return gguf.GGMLQuantizationType.F32
    if kind == "q8_0" and size[-1] % _BLOCK == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def _measure(size: tuple[int, ...], stored: Any) -> tuple[Any, Any, int, Any]:
    """What the header says of a tensor: shape, numpy type, bytes, GGUF type."""
    import gguf
    import numpy

    if stored == gguf.GGMLQuantizationType.Q8_0:
        packed = gguf.quant_shape_to_byte_shape(size, stored)
        return packed, numpy.dtype(numpy.uint8), int(numpy.prod(packed)), stored
    kind = numpy.dtype(numpy.float32 if stored == gguf.GGMLQuantizationType.F32 else numpy.float16)
    return size, kind, int(numpy.prod(size)) * kind.itemsize, stored


def _store(name: str, numbers: Any, kind: Kind) -> Any:
    import gguf
    import numpy

    if not numpy.isfinite(numbers).all():
        raise EvidenceError(f"the tensor {name} holds numbers that are none", why="NaN or infinity")
    stored = _choose_type(kind, numbers.shape)
    # 65504 is the largest float16; block scales of q8_0 are float16 too.
    if stored != gguf.GGMLQuantizationType.F32 and abs(numbers).max(initial=0.0) > 65504:
        raise EvidenceError(
            f"the tensor {name} does not fit {kind}",
            why=f"its largest number is {abs(numbers).max():.4g}, float16 ends at 65504",
            fix="gtft model export MODEL --format merged",
        )
    return numpy.ascontiguousarray(gguf.quants.quantize(numpy.ascontiguousarray(numbers), stored))


def _settle_split(tokens: Tokens, tokenizer: Any) -> Tokens:
    """The tokenizer with llama.cpp's name of its split: the one that tokenizer.json spells out, else the first
    under which llama.cpp gives the same ids for every probe."""
    from gtft.exports.llama_runtime import find_difference, has_llama

    if tokens.pre:
        return tokens
    if not has_llama():
        raise refuse(
            "this tokenizer without llama.cpp",
            "how it splits text is not one that gtft knows by sight; pip install 'gtft[llama]' tries them all",
        )
    with tempfile.TemporaryDirectory(prefix="gtft-split-") as folder:
        for pre in CANDIDATES:
            tried = tokens.split_as(pre)
            path = Path(folder) / f"{pre}.gguf"
            _write_vocabulary(path, tried)
            if find_difference(path, tried, tokenizer) is None:
                return tried
    raise refuse(
        "this tokenizer",
        f"llama.cpp splits text differently in all {len(CANDIDATES)} ways it was tried",
    )


def _write_vocabulary(path: Path, tokens: Tokens) -> None:
    writer = open_writer(path, "llama")
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_block_count):
        add(1)
    _write_tokens(writer, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _require_same_ids(path: Path, tokens: Tokens, tokenizer: Any) -> None:
    """Where llama.cpp is installed: it must read the file's vocabulary as the tokenizer does."""
    from gtft.exports.llama_runtime import find_difference, has_llama

    if not has_llama():
        return
    found = find_difference(path, tokens, tokenizer)
    if found is not None:
        raise EvidenceError(
            "llama.cpp reads text differently from the model's tokenizer: no GGUF was written",
            why=str(found),
            fix="gtft model export MODEL --format merged",
        )
