"""The adapter as a folder that PEFT loads: safetensors, its config, tokenizer and template; nothing of this machine in it.

A task adapter that lies on top of a role is two such folders, ``role`` and ``task``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, FileEntry, hash_file, write_json
from gtft.evals.asking.load import ADAPTER, load_candidates
from gtft.exports.answering import LocalAnswerer
from gtft.exports.merged import copy_tokenizer, read_writer
from gtft.exports.source import Asked, Say, Source, Written
from gtft.exports.verification import Answerer
from gtft.markdown import command
from gtft.shelf import read_document

CONFIG = "adapter_config.json"


def write_peft(folder: Path, source: Source, asked: Asked, say: Say) -> Written:
    """Write the adapter's folder, or with a role both folders and the tokenizer above them."""
    import peft

    say("copying the adapter", 0, 0)
    task = folder / ("task" if source.role else "")
    for name, adapter in _list_parts(source):
        place = folder / name
        place.mkdir(exist_ok=True)
        shutil.copyfile(adapter.file(ADAPTER), place / ADAPTER)
        write_json(place / CONFIG, _settle(read_document(adapter, CONFIG), source))
    copy_tokenizer(source.adapter, task)
    write_json(folder / "base.json", _describe_base(source))
    notes = [_explain_base(source)]
    if source.role is not None:
        notes.append("it lies on top of a role's adapter: load role first, then task, both active")
    return Written(
        runtime=f"peft {peft.__version__}",
        notes=tuple(notes),
        usage=_tell_usage(source),
        writer=lambda: read_writer(task),
        open=lambda: _open(folder, source),
    )


def _list_parts(source: Source) -> list[tuple[str, Artifact]]:
    if source.role is None:
        return [("", source.adapter)]
    return [("role", source.role), ("task", source.adapter)]


def _settle(config: dict[str, Any], source: Source) -> dict[str, Any]:
    """Without what belongs to a machine: the base by its name, and no path."""
    base = source.record.name
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    return {**config, "base_model_name_or_path": base, "revision": source.record.revision}


def _describe_base(source: Source) -> dict[str, Any]:
    """``base.json`` of the adapter without the path at which the base lay."""
    r = source.record
    return {
        "name": r.name,
        "id": r.id,
        "revision": r.revision,
        "quantization": r.quantization,
        "files": r.files,
    }


def _explain_base(source: Source) -> str:
    stored = (
        "in NF4 (double quantised, bfloat16 compute)"
        if source.record.quantization == "nf4"
        else "as it is"
    )
    return (
        f"the base is {source.record.name}, loaded {stored}; base.json has the sha256 of each of its files. "
        "Where that name is no id of a hub, give the folder that holds the base"
    )


def _tell_usage(source: Source) -> dict[str, str]:
    name, base = source.name or "gtft", source.record.name
    again = command("gtft", "model", "export", name, "--format")
    serve = command("vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}=.")
    if source.role is not None:
        return {
            "transformers": "python -c \"from peft import PeftModel; m = PeftModel.from_pretrained(BASE, 'role', 'role'); "
            "m.load_adapter('task', 'task'); m.base_model.set_adapter(['role', 'task'])\"",
            "vLLM": f"{again} merged --out merged\nvllm serve merged",
            "llama.cpp": f"{again} gguf --out gguf\nllama-server -m gguf/model-f16.gguf",
        }
    return {
        "transformers": "python -c \"from peft import AutoPeftModelForCausalLM as M; m = M.from_pretrained('.')\"",
        "vLLM": serve,
        "llama.cpp": f"{again} lora-gguf --out lora\nllama-server -m BASE.gguf --lora lora/adapter.gguf",
    }


def _open(folder: Path, source: Source) -> Answerer:
    """What was written, on the base as it was trained."""
    parts = {name: _stand_in(folder / name, adapter) for name, adapter in _list_parts(source)}
    task = parts["task" if source.role else ""]
    return LocalAnswerer(load_candidates(task, source.record, source.base, parts.get("role")))


def _stand_in(folder: Path, adapter: Artifact) -> Artifact:
    """A folder in place of the artifact that it is a copy of."""
    files = [
        FileEntry(str(p.relative_to(folder)), p.stat().st_size, hash_file(p))
        for p in sorted(folder.iterdir())
        if p.is_file()
    ]
    return Artifact(adapter.id, "adapter", adapter.parents, tuple(files), folder)
