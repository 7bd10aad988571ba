"""Adapter and base as one model: a folder that transformers, vLLM and converters load by itself.

The weights that the adapter was trained on are the dequantised 4-bit ones, so these are what it is added to, in float32.
A merge into the 4-bit weights would lose a third of what was learnt, one into the unquantised base a tenth
(docs/decisions.md).
"""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact
from gtft.errors import DiskFull, EvidenceError, InputError
from gtft.evals.asking.load import WHOLE, Candidates, load_tokenizer
from gtft.evals.asking.local import find_ends, free_memory
from gtft.exports.answering import LocalAnswerer
from gtft.exports.prompts import TemplateWriter, Writer
from gtft.exports.source import Asked, Say, Source, Written
from gtft.exports.verification import Answerer
from gtft.footprint import FLOOR
from gtft.markdown import command
from gtft.memory import measure_free
from gtft.weights import TOKENIZER_FILES, count_parameters, read_safetensors

# Bytes of a parameter while it is merged.
_BYTES = {"f32": 4, "bf16": 2}
# What allocators and the widest layer's sum take above that.
_SLACK = 1.15
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_LORA = "adapter_model.safetensors"


def write_merged(folder: Path, source: Source, asked: Asked, say: Say) -> Written:
    """Write weights, config, tokenizer and template. Raises InputError when memory does not allow it."""
    require_room(folder, source, _BYTES[asked.dtype])
    model, note = load_merged(source, asked.dtype, say)
    say("writing the weights", 0, 0)
    save_weights(model, folder)
    model = None
    free_memory()
    copy_tokenizer(source.adapter, folder)
    return Written(
        runtime=_tell_runtime(),
        notes=(note,),
        usage=_tell_usage(source),
        writer=lambda: read_writer(folder),
        open=lambda: open_merged(folder),
    )


def load_merged(source: Source, dtype: str, say: Say) -> tuple[Any, str]:
    """The merged model on the CPU, and how it was made: to be written as ``dtype``, the numbers are the same however much
    memory there is. Raises InputError with the figures when it does not suffice.
    """
    import torch

    whole = _is_whole(source)
    width = choose_width(source, dtype)
    say("loading the base", 0, 0)
    wide = torch.float32 if width == "f32" else None
    model = _load_wide(_find_weights(source), source, wide)
    if not whole:
        say("merging", 0, 0)
        model = _merge(model, source, width)
    _settle_config(model, source)
    told = "dequantised from NF4" if source.record.quantization == "nf4" else "as stored"
    rounded = "" if dtype == "f32" else ", rounded to bfloat16"
    return (
        model.to(torch.float32 if dtype == "f32" else torch.bfloat16).eval(),
        f"merged into the base {told}, in float32{rounded}",
    )


def _is_whole(source: Source) -> bool:
    return any(f.name == WHOLE for f in source.adapter.files)


def _find_weights(source: Source) -> Path:
    """The folder that is loaded: a full training's own weights, else the base's."""
    return source.adapter.path if _is_whole(source) else source.base


def choose_width(source: Source, dtype: str) -> str:
    """What to hold the model in while each layer is merged in float32: all of it so, or as stored (bf16) where
    bfloat16 is written and only that fits into memory.

    Raises InputError with the figures.
    """
    parameters = count_parameters(source.base)
    lora = sum(f.size for f in source.adapter.files if f.name == _LORA)
    free = measure_free()
    stored = {"f32": 0.0, "bf16": measure_stored(_find_weights(source))}
    needs = {
        width: FLOOR + int((parameters * max(size, stored[width]) + 2 * lora) * _SLACK)
        for width, size in _BYTES.items()
        if width == "f32" or dtype == "bf16"
    }
    for width, need in needs.items():
        if need <= free:
            return width
    least = min(needs.values())
    raise InputError(
        f"merging needs about {least / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free",
        why=f"the base has {parameters / 1e6:.0f} M parameters, and a merge needs them all in "
        f"{'float32' if dtype == 'f32' else 'bfloat16'}",
        fix=f"gtft model export {source.name or 'MODEL'} --format adapter (or lora-gguf), which are not merged",
    )


def measure_stored(folder: Path) -> float:
    """Bytes of a parameter in a model's safetensors files, on average."""
    held = [t for path in sorted(folder.glob("*.safetensors")) for t in read_safetensors(path)]
    return sum(t.bytes for t in held) / max(1, sum(t.numbers for t in held))


def save_weights(model: Any, folder: Path) -> None:
    """Raises DiskFull."""
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
    except SafetensorError as e:
        # It tells a full disk in words only.
        if "No space left" not in str(e):
            raise
        raise DiskFull(
            "the disk is full while writing the merged weights", fix="free some space"
        ) from e


def require_room(folder: Path, source: Source, width: float) -> None:
    """Raises DiskFull unless ``width`` bytes of each parameter fit on the disk."""
    needs = int(count_parameters(source.base) * width)
    free = shutil.disk_usage(folder).free
    if free < needs:
        raise DiskFull(
            f"the merged weights take {needs / 1e6:.0f} MB; {free / 1e6:.0f} MB are free",
            why="they are written to the shelf of the workspace",
            fix=f"free some space, or: gtft model export {source.name or 'MODEL'} --format adapter",
        )


def copy_tokenizer(adapter: Artifact, folder: Path) -> None:
    """The tokenizer's files and the chat template, byte for byte as the adapter was trained with them."""
    for name in TOKENIZER_FILES:
        if any(f.name == name for f in adapter.files):
            (folder / name).write_bytes(adapter.file(name).read_bytes())


def read_writer(folder: Path) -> Writer:
    """The tokenizer and template of an export, read from it. Raises EvidenceError without a template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise EvidenceError("the export holds no chat template", fix="gtft doctor")
    return TemplateWriter(tokenizer)


def open_merged(folder: Path) -> Answerer:
    """The export as transformers loads it, by nothing but its folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        dtype="auto",
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    # Answers end where transformers ends them: not where gtft would know better.
    ends = model.generation_config.eos_token_id
    return LocalAnswerer(
        Candidates(model, tokenizer, 0, 0, plain=model),
        ends=frozenset(ends if isinstance(ends, list) else [ends]),
    )


def _load_wide(folder: Path, source: Source, wide: Any) -> Any:
    """The base on the CPU, all weights in ``wide`` (None: as stored): through the 4-bit storage where it was trained on
    that."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings: dict[str, Any] = {
        "trust_remote_code": False,
        "use_safetensors": True,
        "local_files_only": True,
        "dtype": "auto",
        "device_map": {"": "cpu"},
    }
    if source.record.quantization != "nf4":
        return AutoModelForCausalLM.from_pretrained(
            folder, **(settings | {"dtype": wide or "auto"})
        )
    settings["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, **settings)
    # No forward pass runs on it, so bitsandbytes repacks nothing.
    model = model.dequantize(dtype=wide)
    gc.collect()
    return model if wide is None else model.to(wide)


def _settle_config(model: Any, source: Source) -> None:
    """What programs read beside the weights: every token that ends an answer, and no code that is not shipped."""
    ends = find_ends(Candidates(model, load_tokenizer(source.adapter), 0, 0))
    model.generation_config.eos_token_id = sorted(ends)
    # Of a base that does not sample by default they mean nothing, and saving them is an error.
    if not model.generation_config.do_sample:
        model.generation_config.update(**dict.fromkeys(_SAMPLING))
    if hasattr(model.config, "auto_map"):
        del model.config.auto_map


def _merge(model: Any, source: Source, width: str) -> Any:
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    names, below = ["task"], source.role
    if below is None:
        merged = PeftModel.from_pretrained(model, source.adapter.path, "task", is_trainable=False)
    else:
        names = ["role", "task"]
        merged = PeftModel.from_pretrained(model, below.path, "role", is_trainable=False)
        merged.load_adapter(source.adapter.path, "task", is_trainable=False)
    if width == "bf16":
        # Otherwise the sum would be rounded on the way, and the export depend on free memory.
        for layer in [m for m in merged.modules() if isinstance(m, BaseTunerLayer)]:
            base = layer.get_base_layer()
            base.to(torch.float32)
            layer.merge(safe_merge=True, adapter_names=names)
            base.to(torch.bfloat16)
    # What is merged already is only unwrapped.
    return merged.merge_and_unload(safe_merge=True, adapter_names=names)


def _tell_runtime() -> str:
    import transformers

    return f"transformers {transformers.__version__}"


def _tell_usage(source: Source) -> dict[str, str]:
    name = source.name or "gtft"
    return {
        "vLLM": command("vllm", "serve", ".", "--served-model-name", name),
        "transformers": 'python -c "from transformers import pipeline; '
        "print(pipeline('text-generation', '.')([{'role': 'user', 'content': 'Which rig?'}]))\"",
        "llama.cpp": command("gtft", "model", "export", name, "--format", "gguf", "--out", "gguf")
        + "\nllama-server -m gguf/model-f16.gguf",
    }
