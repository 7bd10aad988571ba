"""What the eval tests share: a tiny Llama in NF4 with a LoRA adapter, a corpus, a job."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_file, hash_json, stage_artifact, write_json
from gtft.recipe.schema import Recipe
from gtft.training.environment import prepare_environment

# Before torch is imported by any of these tests: one thread, passive, offline, silent.
os.environ.setdefault("OMP_NUM_THREADS", "1")
prepare_environment(os.environ, offline=True)

TEXT = [
    'user: which rig? assistant: {"rig": "harbor"} tool_call Bash bd create --title -t bug -p 1',
    *[f"pump {n} of the harbor leaks when the tide is {n * 3} high" for n in range(40)],
]


def example(n: int) -> dict[str, Any]:
    """A held-out or training example of its own wording."""
    words = " ".join(f"{chr(97 + (n * k) % 26)}{n * k}" for k in range(2, 12))
    return {
        "id": f"ex-{n:016x}",
        "source": "claude-code",
        "cluster": f"session:{n}",
        "messages": [
            {"role": "user", "content": f"case {words}"},
            {"role": "assistant", "content": json.dumps({"action": "wait", "reason": f"r{n}"})},
        ],
        "tools": [],
        "role": "witness",
    }


def make_corpus(
    artifacts: Path, heldout: list[dict[str, Any]], train: list[dict[str, Any]]
) -> Artifact:
    with stage_artifact(artifacts, "corpus") as staging:
        for name, rows in (("heldout", heldout), ("train", train)):
            text = "".join(json.dumps(r) + "\n" for r in rows)
            (staging.path / f"{name}.jsonl").write_text(text, "utf-8")
    return staging.result


def make_base(workspace: Path) -> Path:
    """A random two-layer Llama with the nano tokenizer, saved below the workspace."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from gtft.training.nano_tokenizer import train_tokenizer

    tokenizer = train_tokenizer(TEXT, 512, 256)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = workspace / "bases" / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(artifacts: Path, base: Path, workspace: Path, corpus: Artifact) -> Artifact:
    """An adapter artifact as the train worker writes it; its weights are random, not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.5)
    files = sorted(p.name for p in base.iterdir())
    hashes = {name: hash_file(base / name) for name in files}
    with stage_artifact(artifacts, "adapter", parents=(corpus.id,)) as staging:
        model.save_pretrained(staging.path, save_embedding_layers=False)
        AutoTokenizer.from_pretrained(base).save_pretrained(staging.path)
        write_json(staging.path / "summary.json", {"steps": 0})
        write_json(
            staging.path / "base.json",
            {
                "name": "tiny",
                "id": hash_json([list(h) for h in hashes.items()]),
                "path": str(base.relative_to(workspace)),
                "revision": None,
                "quantization": "nf4",
                "files": hashes,
            },
        )
    return staging.result


def make_job(
    root: Path, corpus: Artifact, adapter: Artifact, name: str = "job", **evaluate: Any
) -> Path:
    """A job directory for the eval worker; returns it."""
    settings = {"max_new_tokens": 40, "gates": {"min_items": 2}, **evaluate}
    doc = {"role": "witness", "eval": settings}
    recipe = Recipe.model_validate_json(json.dumps(doc)).model_dump(mode="json")
    folder = root / name
    folder.mkdir(parents=True)
    job = {
        "run_id": "run-1",
        "stage": "eval",
        "bead_id": "ft-1",
        "actor": "gizmo/polecats/nux",
        "recipe": recipe,
        "recipe_hash": hash_json(recipe),
        "inputs": [
            {"stage": "harvest", "id": corpus.id, "path": str(corpus.path)},
            {"stage": "train", "id": adapter.id, "path": str(adapter.path)},
        ],
        "workspace": str(root),
        "workdir": str(folder / "work"),
        "artifacts": str(root / "artifacts"),
        "seed": 7,
        "root": str(root),
        "store_url": "sqlite://",
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder
