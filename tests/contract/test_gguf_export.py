"""GGUF, LoRA-GGUF and Ollama as finished exports: verified on llama.cpp against the adapter as it was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gguf_case import make_source, need_llama
from gtft.artifact import read_artifact
from gtft.errors import DiskFull, GateFailed, MissingExtra, UsageError
from gtft.exports import gguf_export, llama_runtime, lora_gguf, merged
from gtft.exports.making import make_export
from gtft.exports.source import Asked, Source
from gtft.weights import count_parameters


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    need_llama()
    found: Source = make_source(tmp_path_factory.mktemp("workspace"))
    return found


def say(doing: str, done: int, total: int) -> None:
    pass


FILES = {
    "gguf": ["README.md", "model-f16.gguf", "summary.json"],
    "lora-gguf": ["Modelfile", "README.md", "adapter.gguf", "summary.json"],
    "ollama": ["Modelfile", "README.md", "model-f16.gguf", "summary.json"],
}


@pytest.mark.parametrize("form", FILES)
def test_an_export_answers_as_the_adapter_did(source: Source, form: str, tmp_path: Path) -> None:
    made = make_export(source, Asked(form), tmp_path, say)
    assert sorted(f.name for f in made.files) == FILES[form]
    summary = json.loads((made.path / "summary.json").read_text())
    assert summary["verified"] is True
    assert summary["runtime"].startswith("llama-cpp-python ")
    assert summary["kl_mean"] < 3e-4
    assert summary["top1_agreement"] > 0.97
    assert summary["compared_tokens"] > 200
    assert summary["tensor_types"]["F32"] > 0
    # Neither scratch folders nor paths of this machine stay.
    assert [p.name for p in tmp_path.iterdir()] == [made.path.name]
    for file in made.files:
        assert str(source.base.parent).encode() not in made.file(file.name).read_bytes()
    assert make_export(source, Asked(form), tmp_path, say).id == made.id


def test_a_nano_base_which_is_nowhere_else_is_put_beside_its_adapter(tmp_path: Path) -> None:
    need_llama()
    source = make_source(tmp_path / "workspace", nano=True)
    made = make_export(source, Asked("lora-gguf"), tmp_path / "artifacts", say)
    assert sorted(f.name for f in made.files) == sorted([*FILES["lora-gguf"], "base.gguf"])
    assert json.loads((made.path / "summary.json").read_text())["kl_mean"] < 3e-4
    assert (made.path / "Modelfile").read_text().startswith("FROM ./base.gguf\nADAPTER ./adapter.")


@pytest.mark.parametrize(
    "lora", [{"use_dora": True}, {"trainable_token_indices": {"embed_tokens": [70, 71]}}]
)
def test_the_way_that_a_refused_adapter_file_names_works(
    tmp_path: Path, lora: dict[str, Any]
) -> None:
    need_llama()
    source = make_source(tmp_path / "workspace", **lora)
    with pytest.raises(UsageError, match="lora-gguf cannot carry") as e:
        make_export(source, Asked("lora-gguf"), tmp_path / "artifacts", say)
    assert e.value.fix == "gtft model export tiny --format gguf"
    made = make_export(source, Asked("gguf"), tmp_path / "artifacts", say)
    assert json.loads((made.path / "summary.json").read_text())["verified"] is True


def test_a_quantised_export_is_smaller_and_its_figures_are_measured(
    source: Source, tmp_path: Path
) -> None:
    made = make_export(source, Asked("gguf", quant="q8_0"), tmp_path, say)
    summary = json.loads((made.path / "summary.json").read_text())
    assert summary["files"].count("model-q8_0.gguf") == 1
    assert summary["tensor_types"]["Q8_0"] == 16
    assert 0 < summary["kl_mean"] < 0.01


def test_a_full_disk_is_told_before_anything_is_written(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged weights and the file are there at once."""
    needs = int(count_parameters(source.base) * 3.1)
    for free, quant in ((needs - 1, "q8_0"), (needs, "q4_k_m")):
        usage = shutil._ntuple_diskusage(10**12, 0, free)
        monkeypatch.setattr(merged.shutil, "disk_usage", lambda path, usage=usage: usage)
        with pytest.raises(DiskFull, match="MB are free"):
            make_export(source, Asked("gguf", quant=quant), tmp_path, say)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_scale_fails_the_export_and_keeps_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_gguf, "read_scale", lambda config, module: 1.5)
    with pytest.raises(GateFailed, match="lora-gguf") as e:
        make_export(source, Asked("lora-gguf"), tmp_path, say)
    assert "it starts at" in e.value.why
    assert list(tmp_path.iterdir()) == []


def test_nf4_one_weight_at_a_time_is_the_base_of_the_training(source: Source) -> None:
    import torch
    from safetensors import safe_open

    from gtft.exports.merged import _load_wide

    trained = _load_wide(source.base, source, torch.float32).state_dict()
    with safe_open(source.base / "model.safetensors", framework="pt") as stored:
        changed = 0
        for name in stored.keys():  # noqa: SIM118
            tensor = stored.get_tensor(name)
            mine = gguf_export._through_nf4(name, tensor).float()
            assert torch.equal(mine, trained[name]), name
            changed += not torch.equal(mine, tensor.float())
    assert changed == 14


def test_without_llama_cpp_nothing_is_made_unless_it_is_not_verified(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_runtime, "has_llama", lambda: False)
    monkeypatch.setattr(gguf_export, "has_llama", lambda: False)
    with pytest.raises(MissingExtra, match="llama-cpp-python"):
        make_export(source, Asked("gguf"), tmp_path, say)
    assert list(tmp_path.iterdir()) == []
    made = make_export(source, Asked("gguf", verify=False), tmp_path, say)
    summary: dict[str, Any] = json.loads((made.path / "summary.json").read_text())
    assert (summary["verified"], summary["kl_mean"]) == (False, None)
    assert read_artifact(made.path, kind="export").id == made.id
