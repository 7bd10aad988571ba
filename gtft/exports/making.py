"""An export, from the model on the shelf to the artifact beside it: written, read back, compared, then published whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, stage_artifact, write_json
from gtft.contract import SUMMARY_FILE
from gtft.evals.asking.load import load_candidates
from gtft.evals.asking.local import free_memory
from gtft.exports.answering import LocalAnswerer
from gtft.exports.format import find_features, find_limit, refuse_uncarried
from gtft.exports.prompts import (
    Prompt,
    TemplateWriter,
    choose_questions,
    write_prompts,
)
from gtft.exports.readme import write_readme
from gtft.exports.source import Asked, Say, Source, Write, Written
from gtft.exports.verification import (
    Recorded,
    Verdict,
    require_equal,
    require_same_ends,
    require_same_prompts,
    require_same_template,
    verify,
)
from gtft.weights import inspect_weights

KIND = "export"
# Keys of summary.json that are null in an export that was not verified.
MEASURED = (
    "kl_mean",
    "kl_max",
    "kl_base",
    "top1_agreement",
    "top1_decided",
    "greedy_equal",
    "greedy_prompts",
    "compared_tokens",
    "differences",
    "limit",
)


def make_export(source: Source, asked: Asked, artifacts: Path, say: Say) -> Artifact:
    """Make the export artifact; the same model and question give the same bytes, on any day.

    Raises EvidenceError for an adapter that is no adapter, UsageError for what the format cannot carry, GateFailed when it does not answer as the adapter did, InputError
    or DiskFull when the box has no room. Nothing is left then.
    """
    for part in (source.adapter, source.role):
        if part is not None:
            inspect_weights(part.path, strict=True)
    refuse_uncarried(asked.form, find_features(source.adapter, source.role), source.name or "MODEL")
    write = _find_writer(asked.form)
    with stage_artifact(artifacts, KIND, parents=(source.adapter.id,)) as staging:
        written = write(staging.path, source, asked, say)
        if asked.form in ("adapter", "merged"):
            inspect_weights(staging.path, strict=True)
        figures = _measure(source, asked, written, say)
        files = _list_files(staging.path)
        figures |= {
            "model": source.name,
            "adapter": source.adapter.id,
            "base": source.record.name,
            "format": asked.form,
            "dtype": asked.kind,
            "bytes": sum(f["size"] for f in files),
            "files": [f["name"] for f in files],
            "runtime": written.runtime,
            "notes": list(written.notes),
            "usage": dict(written.usage),
            **written.figures,
        }
        write_json(staging.path / SUMMARY_FILE, figures)
        write_readme(staging.path, source, asked, written, figures)
        say("hashing", 0, 0)
    return staging.result


def compare(source: Source, written: Written, say: Say) -> Verdict:
    """Ask the adapter, then the export: one after the other, so that only one of them is in memory."""
    loaded = load_candidates(source.adapter, source.record, source.base, source.role)
    writer = TemplateWriter(loaded.tokenizer)
    shipped, model = written.writer(), source.name or "MODEL"
    prompts = write_prompts(choose_questions(), writer, shipped, loaded.context)
    require_same_prompts(prompts, writer, model)
    require_same_template(writer, shipped, model)
    asked, base = LocalAnswerer(loaded), LocalAnswerer(loaded, as_base=True)
    ends = asked.ends
    reference = Recorded(asked, _tell(prompts, "asking the adapter", say), base)
    del loaded, asked, base
    free_memory()
    exported = written.open()
    require_same_ends(ends, exported, writer, model)
    return verify(reference, exported, _tell(prompts, "asking the export", say), writer)


def _measure(source: Source, asked: Asked, written: Written, say: Say) -> dict[str, Any]:
    if not asked.verify:
        return {"verified": False, **dict.fromkeys(MEASURED)}
    verdict = compare(source, written, say)
    limit = find_limit(asked.form, asked.kind)
    require_equal(verdict, limit, f"the {asked.form} export", source.name or "MODEL")
    return {"verified": True, **verdict.as_dict(), "limit": vars(limit)}


def _tell(prompts: Sequence[Prompt], doing: str, say: Say) -> Iterator[Prompt]:
    for n, prompt in enumerate(prompts):
        say(doing, n, len(prompts))
        yield prompt


def _find_writer(form: str) -> Write:
    if form == "adapter":
        from gtft.exports.peft_folder import write_peft

        return write_peft
    if form == "merged":
        from gtft.exports.merged import write_merged

        return write_merged
    from gtft.exports.gguf_export import write_lora, write_ollama, write_whole

    return {"gguf": write_whole, "lora-gguf": write_lora, "ollama": write_ollama}[form]


def _list_files(folder: Path) -> list[dict[str, Any]]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return [{"name": str(p.relative_to(folder)), "size": p.stat().st_size} for p in found]
