"""GGUF files on the real llama.cpp: the same tokens, the same numbers, and every way to get them wrong is caught."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gguf_case import (
    answer_with_torch,
    compare,
    make_lora,
    make_model,
    make_tokenizer,
    need_llama,
    rewrite,
)
from gtft.errors import EvidenceError, GateFailed, UsageError
from gtft.exports import gguf_file, gguf_tokens, lora_gguf
from gtft.exports.format import find_limit
from gtft.exports.gguf_file import About, write_gguf
from gtft.exports.llama_runtime import LlamaAnswerer, open_vocabulary
from gtft.exports.lora_gguf import write_adapter_gguf
from gtft.exports.verification import Limit, Verdict, require_equal

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# name → model type, tokenizer, what its config has of its own.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "nano", {"tie_word_embeddings": True}),
    "llama3": ("llama", "llama", {"rope_parameters": LLAMA3, "attention_bias": True}),
    "linear": ("llama", "gpt", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}}),
    "qwen2": ("qwen2", "qwen", {}),
    "qwen3": ("qwen3", "qwen", {"head_dim": 32, "tie_word_embeddings": True}),
}  # fmt: skip
EXACT = Limit(1e-6, 1e-4, 0.99, 1e-3, "the same numbers in float32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    need_llama()
    root = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            kind, tokenizer, config = MODELS[name]
            make_model(folder, kind, make_tokenizer(tokenizer), **config)
        return folder

    return find


def judge(
    base: Path, model: Path, *, lora: Path | None = None, adapter: Path | None = None
) -> Verdict:
    """transformers with the PEFT adapter ``lora`` against llama.cpp with the file ``adapter``."""
    with closing(LlamaAnswerer(model, adapter=adapter, context=512)) as exported:
        return compare(answer_with_torch(base, lora), exported, base, model)


@pytest.mark.parametrize("name", MODELS)
def test_float32_is_the_same_model(
    models: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    write_gguf(models(name), model, kind="f32")
    verdict = judge(models(name), model)
    require_equal(verdict, EXACT, name, "m")
    assert verdict.tokens > 60


def test_float16_and_q8_keep_their_limits_and_all_kinds_give_the_same_bytes_again(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    far = []
    for kind in ("f16", "q8_0", "q4_k_m"):
        for name in ("one", "two"):
            write_gguf(models("llama"), tmp_path / name, kind=kind, about=About("m", "mit", "b"))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        verdict = judge(models("llama"), tmp_path / "one")
        if kind != "q4_k_m":
            # Random weights are harder to quantise than trained ones.
            require_equal(verdict, find_limit("gguf", kind), kind, "m")
        far.append(verdict.kl_mean)
    assert far == sorted(far)
    assert far[0] < 1e-4 < far[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_rows_of_q_and_k_in_the_old_order_are_caught(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "count_heads", lambda shape, name: 0)
    model = tmp_path / "model.gguf"
    write_gguf(models("llama"), model, kind="f32")
    with pytest.raises(GateFailed, match="mean KL") as e:
        require_equal(judge(models("llama"), model), find_limit("gguf", "f16"), "it", "m")
    assert "it starts at answer" in e.value.why


def test_a_wrong_start_token_is_caught_in_the_prompt(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(tokens: gguf_tokens.Tokens, tokenizer: Any) -> gguf_tokens.Tokens:
        return dataclasses.replace(tokens, bos=None, add_bos=False)

    monkeypatch.setattr(gguf_file, "_settle_split", forget)
    model = tmp_path / "model.gguf"
    write_gguf(models("llama3"), model, kind="f32")
    with pytest.raises(GateFailed) as e:
        judge(models("llama3"), model)
    assert "prompts are written differently" in e.value.why
    assert "token 0: the adapter has '<|begin|>" in e.value.why


def test_a_start_token_that_the_template_does_not_write_is_caught(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(tokens: gguf_tokens.Tokens, tokenizer: Any) -> gguf_tokens.Tokens:
        return dataclasses.replace(tokens, add_bos=True)

    monkeypatch.setattr(gguf_file, "_settle_split", add)
    model = tmp_path / "model.gguf"
    write_gguf(models("qwen2"), model, kind="f32")
    with pytest.raises(GateFailed, match="prompts are written differently"):
        judge(models("qwen2"), model)


LORAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 8, "layers.1.mlp.up_proj": 2},
        "alpha_pattern": {"k_proj": 24, "down_proj": 3},
    },
}


@pytest.mark.parametrize("lora", LORAS)
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_an_adapter_file_has_exactly_the_trained_effect(
    models: Callable[[str], Path], name: str, lora: str, tmp_path: Path
) -> None:
    base, model, adapter = models(name), tmp_path / "model.gguf", tmp_path / "adapter.gguf"
    write_gguf(base, model, kind="f32")
    trained = make_lora(tmp_path / "lora", base, **LORAS[lora])
    write_adapter_gguf(trained, base, adapter)
    require_equal(judge(base, model, lora=trained, adapter=adapter), EXACT, lora, "m")
    again = tmp_path / "again.gguf"
    write_adapter_gguf(trained, base, again)
    assert again.read_bytes() == adapter.read_bytes()


@pytest.mark.parametrize(
    ("lora", "wrong"),
    [("rslora", "scale"), ("patterns", "scale"), ("plain", "rows")],
)
def test_an_adapter_file_without_its_scale_or_order_is_caught(
    models: Callable[[str], Path],
    lora: str,
    wrong: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, model, adapter = models("llama"), tmp_path / "model.gguf", tmp_path / "adapter.gguf"
    write_gguf(base, model, kind="f32")
    trained = make_lora(tmp_path / "lora", base, **LORAS[lora])
    if wrong == "scale":
        monkeypatch.setattr(
            lora_gguf, "read_scale", lambda config, module: config["lora_alpha"] / 4
        )
    else:
        monkeypatch.setattr(lora_gguf, "count_heads", lambda shape, name: 0)
    write_adapter_gguf(trained, base, adapter)
    with pytest.raises(GateFailed):
        require_equal(
            judge(base, model, lora=trained, adapter=adapter),
            find_limit("lora-gguf", ""),
            "it",
            "m",
        )


@pytest.mark.parametrize(
    ("kind", "split"),
    [("nano", "smollm"), ("qwen", "qwen2"), ("llama", "llama-bpe"), ("gpt", "gpt-2"), ("spelled", "qwen2")],
)  # fmt: skip
def test_the_split_is_found_by_what_it_does(kind: str, split: str, tmp_path: Path) -> None:
    need_llama()
    tokenizer = make_tokenizer(kind)
    tokenizer.save_pretrained(tmp_path)
    tokens = gguf_tokens.read_tokens(tmp_path, tokenizer, len(tokenizer))
    assert (tokens.pre == "") == (kind == "spelled")
    assert gguf_file._settle_split(tokens, tokenizer).pre == split


def test_a_split_that_llama_cpp_does_not_have_is_refused(tmp_path: Path) -> None:
    need_llama()
    tokenizer = make_tokenizer("whole")
    make_model(tmp_path / "m", "llama", tokenizer)
    with pytest.raises(UsageError, match="this tokenizer") as e:
        write_gguf(tmp_path / "m", tmp_path / "model.gguf", kind="f16")
    assert "convert_hf_to_gguf.py" in e.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_split_taken_for_another_is_refused_with_the_first_text_that_differs(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_tokens, "SPLITS", {("digits+gpt2", False): "llama-bpe"})
    with pytest.raises(EvidenceError, match="reads text differently") as e:
        write_gguf(models("llama"), tmp_path / "model.gguf", kind="f32")
    assert "the tokenizer gives [" in e.value.why
    assert list(tmp_path.iterdir()) == []


def test_an_end_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    need_llama()
    tokenizer = make_tokenizer("qwen")
    folder = make_model(tmp_path / "m", "qwen2", tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|head|>")
    rewrite(folder / "generation_config.json", eos_token_id=[tokenizer.eos_token_id, end])
    with pytest.raises(EvidenceError) as e:
        write_gguf(folder, tmp_path / "model.gguf", kind="f32")
    assert "end of an answer <|head|>" in e.value.why


def test_the_file_says_who_it_is_and_nothing_of_this_machine(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    about = About("witness-3", "mit", "qwen-base", {"adapter": "sha256:ab"})
    write_gguf(models("qwen2"), model, kind="f16", about=about)
    with closing(open_vocabulary(model)) as llama:
        told = llama.metadata
    assert told["general.name"] == "witness-3"
    assert told["general.license"] == "mit"
    assert told["general.base_model.0.name"] == "qwen-base"
    assert told["gtft.adapter"] == "sha256:ab"
    assert told["tokenizer.ggml.add_bos_token"] == "false"
    assert told["tokenizer.chat_template"].startswith("{% if messages[0]")
    assert str(tmp_path).encode() not in model.read_bytes()


def test_llama_cpp_says_nothing_on_stdout_or_stderr(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    write_gguf(models("llama"), model, kind="f16")
    code = (
        "import sys; from pathlib import Path\n"
        "from gtft.exports.llama_runtime import LlamaAnswerer, open_vocabulary\n"
        "from gtft.exports.quantising import quantise\n"
        "m = Path(sys.argv[1]); open_vocabulary(m).close(); a = LlamaAnswerer(m, context=64)\n"
        "print(len(a.answer([5, 6, 7], 4))); quantise(m, m.with_name('q'), 'q4_k_m')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip() in set("1234"), done.stderr) == (True, "")


def test_a_damaged_file_is_refused_with_llama_cpps_reason(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    write_gguf(models("llama"), model, kind="f16")
    model.write_bytes(model.read_bytes()[:-4000])
    with pytest.raises(EvidenceError, match="does not load model") as e:
        LlamaAnswerer(model, context=64)
    assert "model.gguf" in e.value.what and e.value.why
