"""What GGUF can hold of a model: names, shapes, rope, the order of rows, scales; and what is refused with the way out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from gtft.errors import EvidenceError, MissingExtra, UsageError
from gtft.exports import llama_runtime
from gtft.exports.gguf_file import write_gguf
from gtft.exports.gguf_names import count_heads, name_tensor, read_shape, reorder_rows
from gtft.exports.lora_gguf import read_scale, require_plain, write_adapter_gguf

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
LORA: dict[str, Any] = {"peft_type": "LORA", "bias": "none", "r": 16, "lora_alpha": 32}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    return folder


def test_a_shape_is_read_from_both_spellings_of_rope(tmp_path: Path) -> None:
    old = read_shape(write(tmp_path, rope_theta=5e5))
    new = read_shape(write(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 5e5}))
    assert old == new
    assert (old.head_size, old.kv_heads, old.rope_base, old.rope_factors) == (16, 2, 5e5, ())
    linear = read_shape(write(tmp_path, rope_scaling={"type": "linear", "factor": 4.0}))
    assert (linear.rope_base, linear.rope_linear) == (10000.0, 4.0)


def test_llama3_divides_long_waves_by_the_factor_and_leaves_short_ones(tmp_path: Path) -> None:
    told = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    factors = read_shape(write(tmp_path, head_dim=128, rope_parameters=told)).rope_factors
    assert len(factors) == 64
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    waves = [2 * math.pi * 500000.0 ** (2 * i / 128) for i in range(64)]
    between = [f for f, w in zip(factors, waves, strict=True) if 8192 / 4 < w < 8192]
    assert between == sorted(between)
    assert all(1 < f < 8 for f in between)
    assert list(factors) == sorted(factors)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    ],
)
def test_what_llama_cpp_would_compute_differently_is_refused_with_its_own_converter(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match="does not write GGUF") as e:
        read_shape(write(tmp_path, **changes))
    assert named in e.value.what
    assert "convert_hf_to_gguf.py" in e.value.fix


@pytest.mark.parametrize("text", ["[]", "{", '{"model_type": "llama"}'])
def test_a_config_that_tells_no_shape_is_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EvidenceError, match=r"config\.json"):
        read_shape(tmp_path)


def test_tensors_have_llama_cpps_names_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path))
    assert name_tensor(shape, "model.layers.1.mlp.down_proj.weight") == "blk.1.ffn_down.weight"
    assert name_tensor(shape, "model.layers.0.self_attn.q_proj.bias") == "blk.0.attn_q.bias"
    assert name_tensor(shape, "lm_head.weight") is None
    with pytest.raises(UsageError, match=r"model\.layers\.0\.surprise"):
        name_tensor(shape, "model.layers.0.surprise.weight")


def test_rows_of_q_and_k_are_reordered_from_halves_to_pairs_for_llama_only(tmp_path: Path) -> None:
    shape = read_shape(write(tmp_path))
    q, k = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"
    assert (count_heads(shape, q), count_heads(shape, k)) == (4, 2)
    assert count_heads(shape, "model.layers.0.self_attn.v_proj.weight") == 0
    qwen = read_shape(write(tmp_path, model_type="qwen2"))
    assert count_heads(qwen, q) == 0
    rows = numpy.arange(16).reshape(16, 1)
    # Two heads of 8: each row and the one half a head further become neighbours.
    assert reorder_rows(rows, 2)[:, 0].tolist() == [
        *(0, 4, 1, 5, 2, 6, 3, 7),
        *(8, 12, 9, 13, 10, 14, 11, 15),
    ]
    assert reorder_rows(rows, 0) is rows


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 8.0),
        ({"alpha_pattern": {"q_proj": 8}}, 0.5),
        ({"rank_pattern": {"q_proj": 4}}, 8.0),
        ({"rank_pattern": {"q_proj": 4}, "use_rslora": True}, 16.0),
        ({"alpha_pattern": {"k_proj": 8, "layers.1.self_attn.q_proj": 1}}, 2.0),
        ({"alpha_pattern": {r"layers\.0\..*q_proj": 64}}, 4.0),
    ],
)
def test_the_true_scale_of_a_module(changes: dict[str, Any], scale: float) -> None:
    assert read_scale(LORA | changes, "model.layers.0.self_attn.q_proj") == scale


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [1]}},
        {"bias": "all"},
        {"lora_bias": True},
        {"init_lora_weights": "pissa_niter_4"},
        {"layer_replication": [[0, 2]]},
        {"target_parameters": ["mlp.experts"]},
        {"peft_type": "IA3"},
    ],
)
def test_an_adapter_that_is_more_than_two_matrices_is_refused_with_the_merged_way(
    changes: dict[str, Any],
) -> None:
    require_plain(LORA)
    with pytest.raises(UsageError, match="lora-gguf cannot carry") as e:
        require_plain(LORA | changes)
    assert e.value.fix == "gtft model export MODEL --format gguf"


def test_a_tensor_that_is_no_lora_matrix_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps(LORA))
    prefix = "base_model.model.model"
    save_file(
        {f"{prefix}.embed_tokens.weight": torch.zeros(4, 4)}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(UsageError, match="embed_tokens"):
        write_adapter_gguf(adapter, write(tmp_path), tmp_path / "a.gguf")
    lone = {f"{prefix}.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(16, 64)}
    save_file(lone, adapter / "adapter_model.safetensors")
    with pytest.raises(EvidenceError, match="cannot be laid on this base"):
        write_adapter_gguf(adapter, tmp_path, tmp_path / "a.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter", "config.json"]


def test_without_llama_cpp_the_next_command_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_runtime, "has_llama", lambda: False)
    with pytest.raises(MissingExtra) as e:
        llama_runtime.require_llama("it runs the file")
    assert "pip install 'gtft[llama]'" in e.value.fix


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="q2_k"):
        write_gguf(tmp_path, tmp_path / "x.gguf", kind="q2_k")  # type: ignore[arg-type]
