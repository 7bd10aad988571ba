"""The GGUF formats as exports: what is put into the folder, and llama.cpp as the runtime that it is verified on."""

from __future__ import annotations

import os
import shutil
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from gtft.dialect import learn_dialect
from gtft.errors import InputError, UsageError
from gtft.evals.asking.local import free_memory
from gtft.exports.gguf_file import About, Kind, write_gguf
from gtft.exports.gguf_names import read_shape
from gtft.exports.gguf_tokens import load_tokenizer, read_tokens
from gtft.exports.llama_runtime import LlamaAnswerer, LlamaWriter, has_llama, require_llama
from gtft.exports.lora_gguf import write_adapter_gguf
from gtft.exports.merged import copy_tokenizer, load_merged, require_room, save_weights
from gtft.exports.modelfile import write_modelfile
from gtft.exports.source import Asked, Say, Source, Written
from gtft.memory import measure_free
from gtft.weights import count_parameters

ADAPTER, BASE = "adapter.gguf", "base.gguf"
# Only bases that gtft built have this file.
_NANO = "nano.json"
# The longest chats that are compared, and what a Modelfile asks memory for, tokens.
_CONTEXT = 4096
_SERVED = 8192
# Bytes of a parameter that are on the disk at once for a file; q4_k_m is made from one in float32.
_WIDTH = {"f16": 2.0, "q8_0": 1.1, "q4_k_m": 4.8}


def write_whole(folder: Path, source: Source, asked: Asked, say: Say) -> Written:
    """The merged model as one GGUF file."""
    _require_runtime(asked)
    file, note = _write_model(folder, source, asked, say)
    return _describe(None, file, None, source, asked, (note,))


def write_ollama(folder: Path, source: Source, asked: Asked, say: Say) -> Written:
    """The merged model as a GGUF file and the Modelfile for it."""
    _require_runtime(asked)
    tokenizer = load_tokenizer(source.adapter.path)
    # Refused before anything large is made.
    notes = _write_modelfile(folder, source, f"model-{asked.quant}.gguf", "", tokenizer)
    file, note = _write_model(folder, source, asked, say)
    return _describe(None, file, None, source, asked, (note, *notes))


def write_lora(folder: Path, source: Source, asked: Asked, say: Say) -> Written:
    """The adapter alone as a GGUF file, verified on the base as the adapter was trained on it; a nano base, which is
    nowhere else, is put beside it."""
    _require_runtime(asked)
    say("writing the adapter", 0, 0)
    write_adapter_gguf(source.adapter.path, source.base, folder / ADAPTER, about=_tell(source))
    beside = (source.base / _NANO).is_file()
    notes = [_explain_base(source, beside, asked)]
    try:
        tokenizer = load_tokenizer(source.adapter.path)
        notes += _write_modelfile(folder, source, BASE, ADAPTER, tokenizer)
    except UsageError as e:
        notes.append(f"no Modelfile: {e.what}")
    place = folder if beside else folder.parent / f".tmp-base-{os.getpid()}"
    if beside or asked.verify:
        say("writing the base", 0, 0)
        _require_memory(source)
        if not beside:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        write_gguf(
            source.base,
            place / BASE,
            kind="f16",
            about=About(source.record.name, ids={"base": source.record.id}),
            change=_through_nf4 if _was_nf4(source) else None,
        )
    return _describe(
        None if beside else place, place / BASE, folder / ADAPTER, source, asked, notes
    )


def _explain_base(source: Source, beside: bool, asked: Asked) -> str:
    layers = ", its layers through NF4 as in training" if _was_nf4(source) else ""
    if beside:
        return f"{BASE} is its base {source.record.name} in float16{layers}"
    told = f"it belongs on a GGUF file of {source.record.name}, named {BASE}"
    if asked.verify:
        told += f"; it was verified on float16{layers}"
    # Measured on a nano model: docs/decisions.md.
    apart = "; on the base as it is published answers part a little (KL about 0.003)"
    return told + (apart if _was_nf4(source) else "")


def _was_nf4(source: Source) -> bool:
    return source.record.quantization == "nf4"


def _write_model(folder: Path, source: Source, asked: Asked, say: Say) -> tuple[Path, str]:
    """The file, and how the weights were merged."""
    file = folder / f"model-{asked.quant}.gguf"
    # The merged weights in bfloat16 until the file beside them is whole.
    require_room(folder, source, 2 + _WIDTH[asked.quant])
    with _scratch(folder.parent / f".tmp-merged-{os.getpid()}") as merged:
        model, note = load_merged(source, "bf16", say)
        save_weights(model, merged)
        model = None
        free_memory()
        copy_tokenizer(source.adapter, merged)
        say(f"writing {file.name}", 0, 0)
        write_gguf(merged, file, kind=cast(Kind, asked.quant), about=_tell(source))
    return file, note


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; one that a killed process left is removed by the next artifact's writer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _describe(
    temporary: Path | None,
    model: Path,
    adapter: Path | None,
    source: Source,
    asked: Asked,
    notes: Sequence[str],
) -> Written:
    types = count_types(adapter or model)
    stored = ", ".join(f"{n} tensors {kind}" for kind, n in types.items())
    context = min(read_shape(source.base).context, _CONTEXT)

    def open_export() -> LlamaAnswerer:
        opened = LlamaAnswerer(model, adapter=adapter, context=context)
        if temporary is not None:
            # The base is no part of the export.
            weakref.finalize(opened, shutil.rmtree, temporary, ignore_errors=True)
        return opened

    return Written(
        runtime=_tell_runtime(),
        notes=(f"stored as {stored}", *notes),
        usage=_tell_usage(asked, model.name),
        writer=lambda: LlamaWriter(model, learn_dialect(load_tokenizer(source.adapter.path))),
        open=open_export,
        figures={"tensor_types": types},
    )


def count_types(file: Path) -> dict[str, int]:
    """How many tensors of a GGUF file are stored in which type: a quantiser keeps some in another."""
    import gguf

    return dict(sorted(Counter(t.tensor_type.name for t in gguf.GGUFReader(file).tensors).items()))


def _write_modelfile(
    folder: Path, source: Source, model: str, adapter: str, tokenizer: Any
) -> list[str]:
    shape = read_shape(source.base)
    # Added tokens make the tokenizer larger than its base.
    tokens = read_tokens(source.adapter.path, tokenizer, max(shape.vocab, len(tokenizer)))
    return list(
        write_modelfile(
            folder,
            tokenizer,
            model=model,
            adapter=adapter,
            context=min(shape.context, _SERVED),
            stops=[tokens.texts[i] for i in tokens.ends],
        )
    )


def _through_nf4(name: str, tensor: Any) -> Any:
    """A weight as training saw it: what NF4 with double quantisation leaves of a linear layer's weight."""
    if ".layers." not in name or tensor.ndim != 2:
        return tensor
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(
        tensor.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    return dequantize_4bit(packed, state)


def _tell(source: Source) -> About:
    return About(
        name=source.name,
        licence=source.licence,
        base=source.record.name,
        ids={"adapter": source.adapter.id, "base": source.record.id},
    )


def _require_runtime(asked: Asked) -> None:
    """Before anything is made: what it will be verified on."""
    if asked.verify:
        require_llama("the export is verified on it; --no-verify leaves that out")


def _require_memory(source: Source) -> None:
    """llama.cpp reads the whole base into memory where an adapter is laid on it. Raises InputError."""
    need, free = int(count_parameters(source.base) * 2 * 1.15), measure_free()
    if need > free:
        raise InputError(
            f"verifying needs about {need / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free",
            why="llama.cpp lays the adapter on the whole base in float16",
            fix=f"gtft model export {source.name or 'MODEL'} --format lora-gguf --no-verify",
        )


def _tell_runtime() -> str:
    from importlib.metadata import version

    return f"llama-cpp-python {version('llama-cpp-python')}" if has_llama() else "llama.cpp"


def _tell_usage(asked: Asked, model: str) -> dict[str, str]:
    if asked.form == "lora-gguf":
        return {
            "llama.cpp": f"llama-server -m {BASE} --lora {ADAPTER} --jinja",
            "Ollama": "ollama create gtft-model -f Modelfile",
        }
    usage = {"llama.cpp": f"llama-server -m {model} --jinja"}
    if asked.form == "ollama":
        usage["Ollama"] = "ollama create gtft-model -f Modelfile\nollama run gtft-model"
    return usage
