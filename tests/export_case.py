"""What the export tests share: a tiny Llama that is sure of its answers, and adapters of every kind on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evals_case import TEXT
from gtft.artifact import (
    Artifact,
    hash_file,
    hash_json,
    read_artifact,
    short_id,
    stage_artifact,
    write_json,
)
from gtft.exports.source import Source, find_source
from gtft.records.rows import ArtifactRow, ModelRow
from gtft.records.unit import Unit
from gtft.runner.workspace import Workspace
from gtft.shelf import read_document
from models_case import add_run

CONTEXT = 1024


def make_base(workspace: Path) -> Path:
    """A random two-layer Llama with the nano tokenizer; its head is scaled up, so that near ties are rare."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gtft.training.nano_tokenizer import train_tokenizer

    tokenizer = train_tokenizer(TEXT, 512, CONTEXT)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    folder = workspace / "bases" / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(
    workspace: Path,
    base: Path,
    *,
    on: Artifact | None = None,
    seed: int = 5,
    stored: str = "nf4",
    **lora: Any,
) -> Artifact:
    """An adapter artifact as the train worker writes it, its weights random; ``on``: the role below it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(**{**shape, **lora}))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.2)
            if "magnitude" in name:
                weights.mul_(1.2)
    return _stage(workspace, base, model, AutoTokenizer.from_pretrained(base), stored, on)


def make_whole(workspace: Path, base: Path) -> Artifact:
    """A full training: every weight a little moved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(9)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.02)
    return _stage(workspace, base, model, AutoTokenizer.from_pretrained(base), "none", None)


def _stage(
    workspace: Path, base: Path, model: Any, tokenizer: Any, stored: str, on: Artifact | None
) -> Artifact:
    hashes = {p.name: hash_file(p) for p in sorted(base.iterdir())}
    settings = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    with stage_artifact(workspace / "artifacts", "adapter") as staging:
        model.save_pretrained(staging.path, **settings)
        (staging.path / "README.md").unlink(missing_ok=True)
        tokenizer.save_pretrained(staging.path)
        write_json(staging.path / "summary.json", {"steps": 0})
        described = {
            "name": "tiny",
            "id": hash_json([list(h) for h in hashes.items()]),
            "path": str(base.relative_to(workspace)),
            "revision": None,
            "quantization": stored,
            "files": hashes,
        }
        if on is not None:
            described["stacks_on"] = on.id
        write_json(staging.path / "base.json", described)
    return staging.result


def make_source(workspace: Path, adapter: Artifact, card: Path | None = None) -> Source:
    return find_source(
        "witness-1",
        adapter.path,
        workspace=workspace,
        root=workspace,
        artifacts=workspace / "artifacts",
        card=card,
    )


def make_card(workspace: Path) -> Path:
    """A card artifact with a plot."""
    with stage_artifact(workspace / "artifacts", "card") as staging:
        text = "---\nlanguage: en\nlibrary_name: peft\nlicense: mit\n---\n\n# Witness\n\n![loss](plots/loss.png)\n"
        (staging.path / "README.md").write_text(text)
        (staging.path / "plots").mkdir()
        (staging.path / "plots" / "loss.png").write_bytes(b"\x89PNG")
        write_json(staging.path / "summary.json", {"licence": "mit"})
    return read_artifact(staging.result.path).path


def register(ws: Workspace, adapter: Artifact, card: Path) -> ModelRow:
    """The adapter as an approved model of the witness, in the store."""
    add_run(ws, "run-1")
    made = {"adapter": adapter, "card": read_artifact(card)}
    for kind in ("corpus", "eval"):
        with stage_artifact(ws.artifacts, kind) as staging:
            write_json(staging.path / "summary.json", {"kind": kind})
        made[kind] = staging.result
    name = f"witness-{short_id(adapter.id)}"
    ids = {f"{kind}_id": a.id for kind, a in made.items()}
    row = ModelRow(
        id=adapter.id,
        name=name,
        role="witness",
        version=0,
        status="approved",
        run_id="run-1",
        created_us=ws.store.now_us(),
        **ids,
    )

    def add(u: Unit) -> None:
        for a in made.values():
            summary = read_document(a, "summary.json")
            stored = ArtifactRow(
                a.id, a.kind, str(a.path.relative_to(ws.path)), summary, row.created_us
            )
            ws.store._add_artifact(u, stored, a.parents)
        ws.store._add_model(u, row)

    ws.store.units.run(add)
    return row
