"""The README of an export: the model's card where there is one, then what this export is, how it was checked and how to run it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.artifact import short_id, write_file
from gtft.exports.source import Asked, Source, Written
from gtft.markdown import prose

# The longest note, characters.
_NOTE = 1500
# What hubs show a folder under; the card names the adapter's.
_LIBRARY = {"merged": "transformers", "gguf": "gguf", "ollama": "gguf", "lora-gguf": "gguf"}


def write_readme(
    folder: Path, source: Source, asked: Asked, written: Written, figures: Mapping[str, Any]
) -> None:
    """Markdown. The card's front matter stays first, for hubs read it there; its plots come along."""
    head = f"# {prose(source.name or 'An export of gtft')}\n\n"
    if source.card is not None:
        head = source.card.file("README.md").read_text("utf-8").rstrip() + "\n\n"
        library = _LIBRARY.get(asked.form, "peft")
        head = head.replace("\nlibrary_name: peft\n", f"\nlibrary_name: {library}\n", 1)
        for entry in source.card.files:
            if entry.name.startswith("plots/"):
                (folder / "plots").mkdir(exist_ok=True)
                shutil.copyfile(source.card.file(entry.name), folder / entry.name)
    lines = [
        "## This export",
        "",
        f"Format {asked.form}{', ' + asked.kind if asked.kind else ''}, of the adapter `{source.adapter.id}`.",
        f"Licence: {prose(source.licence or 'not stated')}. The base {prose(source.record.name)} has its own.",
        "",
        *[f"- {prose(note, _NOTE)}" for note in written.notes],
        "",
        _tell_check(figures),
        "",
        "## How to run it",
        "",
        "In this folder:",
        "",
    ]
    for name, commands in written.usage.items():
        lines += [f"{name}:", "", "```sh", commands, "```", ""]
    lines.append(
        f"gtft made this from adapter {short_id(source.adapter.id)}; `gtft model show` has the rest."
    )
    write_file(folder / "README.md", (head + "\n".join(lines) + "\n").encode())


def _tell_check(figures: Mapping[str, Any]) -> str:
    if not figures["verified"]:
        return "It was not verified: nobody compared its answers with the adapter's."
    return (
        f"Verified on {figures['runtime']}: {figures['greedy_equal']} of {figures['greedy_prompts']} greedy answers are "
        f"the adapter's to the last token, the most likely token is the same at {figures['top1_agreement']:.1%} of "
        f"{figures['compared_tokens']} positions, KL {figures['kl_mean']:.2g} nats per token on average, "
        f"{figures['kl_max']:.2g} at most."
    )
