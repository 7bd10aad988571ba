"""What an export is made from, what is asked for, and what a format's writer hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, verify_artifact
from gtft.contract import SUMMARY_FILE
from gtft.evals.asking.load import BaseRecord, find_base, find_role, read_base
from gtft.exports.prompts import Writer
from gtft.exports.verification import Answerer
from gtft.shelf import read_document

# What is under way: a step in words, how much of it is done, of how much (0: not known).
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """``form``: a name of `gtft.exports.format.FORMATS`; ``dtype`` of merged weights (bf16, f32); ``quant`` of GGUF files
    (f16, q8_0, q4_k_m)."""

    form: str
    dtype: str = "bf16"
    quant: str = "f16"
    verify: bool = True

    @property
    def kind(self) -> str:
        """What limits are looked up by: dtype or quantisation, "" for a format that has neither."""
        if self.form == "merged":
            return self.dtype
        return "" if self.form in ("adapter", "lora-gguf") else self.quant


@dataclass(frozen=True)
class Source:
    """A model's parts, their files hashed again. ``base``: folder of its base; ``role``: the adapter below a task adapter;
    ``card``: its card, None for none; ``licence``: as the card states it; ``name``: of the model."""

    name: str
    adapter: Artifact
    record: BaseRecord
    base: Path
    role: Artifact | None = None
    card: Artifact | None = None
    licence: str = ""


@dataclass(frozen=True)
class Written:
    """What a writer put into the export's folder. ``runtime``: what `open` runs it on, with its version; ``notes``:
    what a user of the export must know; ``usage``: how to run it, name of the program → commands, "" where it cannot.

    ``writer``: the tokenizer and template that are shipped, read again from the folder. ``open``: the export, loaded fresh
    from the folder; the reference is freed before it is called.
    """

    runtime: str
    notes: tuple[str, ...]
    usage: Mapping[str, str]
    writer: Callable[[], Writer]
    open: Callable[[], Answerer]
    # Beside the common keys of summary.json: what the format has of its own.
    figures: Mapping[str, Any] = field(default_factory=dict)


# A format's writer: fills the folder; raises when memory or disk do not allow it.
Write = Callable[[Path, Source, Asked, Say], Written]


def find_source(
    name: str,
    adapter: Path,
    *,
    workspace: Path,
    root: Path,
    artifacts: Path,
    card: Path | None = None,
    adapter_id: str | None = None,
    card_id: str | None = None,
) -> Source:
    """Find and hash again what an export needs; ``adapter_id``, ``card_id``: what they must be. Raises EvidenceError or
    BaseMissing."""
    found = verify_artifact(adapter, kind="adapter", expect=adapter_id)
    record = read_base(found)
    base = find_base(record, workspace, root)
    role = find_role(record, artifacts)
    if card is None:
        return Source(name, found, record, base, role)
    told = verify_artifact(card, kind="card", expect=card_id)
    licence = str(read_document(told, SUMMARY_FILE).get("licence") or "")
    return Source(name, found, record, base, role, told, licence)
