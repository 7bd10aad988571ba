"""What the GGUF tests share: tiny models of each architecture, tokenizers of each kind, both runtimes of one model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import hash_file, hash_json, stage_artifact, write_json
from gtft.exports.gguf_tokens import _LLAMA, _QWEN
from gtft.exports.llama_runtime import has_llama
from training_case import TEXT

CONTEXT = 512
# By hand, in the manner of the bases that people use.
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)


def need_llama() -> None:
    """Skip (or, in CI, fail) without llama-cpp-python."""
    if has_llama():
        return
    if os.environ.get("GTFT_NEED_TOWN_TOOLS"):
        pytest.fail("llama-cpp-python is missing (make llama)")
    pytest.skip("llama-cpp-python is missing (make llama installs it)")


def make_tokenizer(kind: str) -> Any:
    """A byte-level BPE learned from a little text, that splits as "nano", "qwen", "llama", "gpt", "spelled" (qwen's
    split in other words) or "whole" (not at all, as llama.cpp never does)."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors, trainers
    from tokenizers import pre_tokenizers as pre
    from transformers import PreTrainedTokenizerFast

    from training_case import make_tokenizer as make_nano

    if kind == "nano":
        return make_nano()
    bpe = Tokenizer(models.BPE(ignore_merges=kind == "llama"))
    split = {
        "qwen": _QWEN,
        "llama": _LLAMA,
        "spelled": _QWEN.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:'(?:s|t|re|ve|m|ll|d))"),
    }
    steps = [pre.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt")]
    if kind in split:
        steps.insert(0, pre.Split(Regex(split[kind]), "isolated"))
    bpe.pre_tokenizer = pre.Sequence(steps)
    bpe.decoder = decoders.ByteLevel()
    if kind == "qwen":
        bpe.normalizer = normalizers.NFC()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|head|>", "<|/head|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, "<|eot_id|>"],
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Numbers over and over: tokenizers that split them differently also learn different tokens.
    words = "user system assistant don't We'LL naïve\n\n  x 1234 12345 123 12 1234567 2024"
    bpe.train_from_iterator([TEXT, *[words] * 40], trainer)
    chatty = kind == "llama"
    if chatty:
        bpe.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", bpe.token_to_id("<|begin|>"))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin|>" if chatty else None,
        eos_token="<|eot_id|>" if chatty else "<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = HEADERS if chatty else CHATML
    return made


def make_model(
    folder: Path, kind: str, tokenizer: Any, *, likely: int | None = None, **config: Any
) -> Path:
    """A random model of ``model_type`` ``kind`` whose answers depend on all its parts, saved with its tokenizer.

    ``likely``: only so many tokens are; among all of them, most answers would be close calls.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        # More rows than tokens, as many published models have.
        "vocab_size": len(tokenizer) + 5,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(shape | config)))
    torch.manual_seed(11)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 or name.endswith("bias"):
                weights.normal_(0, 0.15)
            else:
                weights.uniform_(0.6, 1.4)
        if likely:
            rest = torch.arange(shape["vocab_size"]) % (shape["vocab_size"] // likely) != 0
            model.lm_head.weight[rest] *= 0.1
    # llama.cpp ends at tokens of these names, whatever the file says.
    ends = [tokenizer.vocab.get(t) for t in ("<|endoftext|>", "<|im_end|>", "<|eot_id|>")]
    model.generation_config.eos_token_id = [i for i in ends if i is not None]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_lora(folder: Path, base: Path, *, strength: float = 0.3, **config: Any) -> Path:
    """A PEFT adapter with random weights on the model in ``base``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(settings | config))
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name or "trainable_tokens" in name:
                weights.normal_(0, strength)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def make_source(root: Path, *, nano: bool = False, **lora: Any) -> Any:
    """A model as an export finds it: an adapter artifact, trained on its base in NF4, below the workspace ``root``."""
    from gtft.exports.source import find_source

    tokenizer = make_tokenizer("nano")
    base = make_model(
        root / "bases" / "tiny",
        "llama",
        tokenizer,
        likely=5,
        max_position_embeddings=4096,
    )
    if nano:
        (base / "nano.json").write_text("{}")
    hashes = {p.name: hash_file(p) for p in sorted(base.iterdir())}
    with stage_artifact(root / "artifacts", "adapter") as staging:
        make_lora(staging.path, base, strength=0.1, **(lora or {"use_rslora": True}))
        tokenizer.save_pretrained(staging.path)
        write_json(staging.path / "summary.json", {"steps": 0})
        write_json(
            staging.path / "base.json",
            {
                "name": "tiny",
                "id": hash_json([list(h) for h in hashes.items()]),
                "path": "bases/tiny",
                "revision": None,
                "quantization": "nf4",
                "files": hashes,
            },
        )
    return find_source(
        "tiny",
        staging.result.path,
        workspace=root,
        root=root,
        artifacts=root / "artifacts",
    )


def answer_with_torch(base: Path, adapter: Path | None = None) -> Any:
    """transformers (and PEFT) as the answerer of a model, in float32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gtft.evals.asking.load import Candidates
    from gtft.exports.answering import LocalAnswerer

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    return LocalAnswerer(Candidates(model, tokenizer, 0, 0, plain=model))


def ask(*contents: str, system: str = "") -> Any:
    """A question: user and assistant in turn."""
    from gtft.exports.prompts import Question

    talk = [{"role": "system", "content": system}] if system else []
    talk += [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)
    ]
    return Question(contents[0][:20], tuple(talk))


QUESTIONS = (
    "pump 7 of the harbor leaks",
    "bd update gt-a1b2.3 --status=open",
    "naïve café 日本語 🚀 12345 don't",
    'def f(x):\n    return {"a": x}\n',
)


def compare(reference: Any, exported: Any, base: Path, model: Path) -> Any:
    """The verdict over a few prompts, each side writing its own. Raises GateFailed when they are not the same."""
    from transformers import AutoTokenizer

    from gtft.dialect import learn_dialect
    from gtft.exports.llama_runtime import LlamaWriter
    from gtft.exports.prompts import Prompt, TemplateWriter
    from gtft.exports.verification import require_same_prompts, verify

    tokenizer = AutoTokenizer.from_pretrained(base)
    mine, theirs = TemplateWriter(tokenizer), LlamaWriter(model, learn_dialect(tokenizer))
    asked = [
        *(ask(q) for q in QUESTIONS),
        ask("one", "two", "three", system="Be the witness of 3 rigs."),
    ]
    prompts = [Prompt(q.name, mine.write(q), theirs.write(q)) for q in asked]
    require_same_prompts(prompts, mine)
    return verify(reference, exported, prompts, mine)


def rewrite(path: Path, **changes: Any) -> None:
    """Change a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
