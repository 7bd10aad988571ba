"""Budgets: what follows from a shape, from the corpus, from what was measured; and what helps where it is too much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import Artifact, stage_artifact
from gtft.errors import EvidenceError, InputError
from gtft.footprint import (
    MARGIN,
    MIB,
    Load,
    Shape,
    estimate_memory,
    fits_without_checkpointing,
    read_shape,
    read_shape_of,
    shape_nano,
)
from gtft.recipe.schema import Recipe
from gtft.runner.box import Box, Group
from gtft.runner.budget import Given, Plan, judge, plan_training, read_probe
from gtft.runner.past import find_rate, read_figures
from gtft.runner.volume import Volume, add_replay, measure_volume
from training_case import make_corpus

GIB = 1024**3
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 6144,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
BASE = read_shape(CONFIG)
VOLUME = Volume(rows=100, tokens=40_000, longest=1024, source="a test")
BOX = Box(2, 0.0, 16 * GIB, 8 * GIB, None, None, 50 * GIB, ())


def make_recipe(**train: Any) -> Recipe:
    base = train.pop("base", {"model": "./base"})
    return Recipe.model_validate_json(json.dumps({"role": "witness", "base": base, "train": train}))


def give(recipe: Recipe | None = None, **changed: Any) -> Given:
    given = Given(recipe or make_recipe(), BASE, VOLUME, (), (), BOX, free=8 * GIB)
    return replace(given, **changed)


def plan(**changed: Any) -> Plan:
    return plan_training(give(**changed))


# -- the shape


def test_the_shape_counts_as_the_model_does(tmp_path: Path) -> None:
    """The parameters in the file that transformers saves for the same config, counted once."""
    assert BASE.linear_parameters == 12 * (2 * 768 * 768 + 2 * 768 * 256 + 3 * 768 * 2048)
    assert BASE.parameters == 84_953_856
    assert BASE.lora_parameters(16, "all-linear") == 12 * 16 * 13_568
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read_shape_of(tmp_path) == BASE


def test_targets_are_chosen_as_peft_chooses_them() -> None:
    both = BASE.lora_parameters(8, ("q_proj", "v_proj"))
    assert both == 12 * 8 * (768 + 768 + 768 + 256)
    assert BASE.lora_parameters(8, r".*\.self_attn\.(q|v)_proj") == both
    # Names of another family are not known to be fewer.
    assert BASE.lora_parameters(8, ("c_attn",)) == BASE.lora_parameters(8, "all-linear")


@pytest.mark.parametrize(
    "config",
    [{}, {**CONFIG, "hidden_size": "wide"}, {**CONFIG, "num_experts": 8}, {**CONFIG, "num_hidden_layers": 0}],
)  # fmt: skip
def test_a_shape_that_is_not_known_is_refused_and_not_guessed(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be estimated"):
        read_shape(config)


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError):
            read_shape_of(tmp_path)


# -- memory: within 15 % of real trainings (benchmarks/budget.py measures them; a few are kept here)


@pytest.mark.parametrize(
    ("shape", "load", "measured"),
    [
        (shape_nano(2048, 192, 4, 6), Load(length=256), 577),
        (shape_nano(2048, 192, 4, 6), Load(length=1024), 685),
        (BASE, Load(length=256), 868),
        (BASE, Load(length=512), 1053),
        (BASE, Load(length=1024), 1521),
        (BASE, Load(length=512, rank=64), 1192),
        (BASE, Load(length=512, quantization="none"), 1021),
        (BASE, Load(length=1024, checkpointing=True), 735),
        (Shape(512, 1536, 8, 8, 4, 64, 128256, False), Load(length=512), 974),
        (Shape(768, 2304, 12, 12, 4, 128, 32000, True, head_norms=True), Load(length=512), 1339),
        (Shape(1280, 3584, 16, 20, 4, 64, 6144, False), Load(length=512), 1789),
    ],
)
def test_the_estimate_is_within_15_percent_of_what_was_measured(
    shape: Shape, load: Load, measured: int
) -> None:
    load = replace(load, supervised=0.3, lengths=1)
    assert estimate_memory(shape, load).total / (measured * MIB) == pytest.approx(1, abs=0.15)


def test_what_needs_more_is_estimated_as_more() -> None:
    usual = Load()
    most = estimate_memory(BASE, usual).total
    for less in (
        replace(usual, length=512),
        replace(usual, checkpointing=True),
        replace(usual, rank=8),
        replace(usual, lengths=1),
        replace(usual, targets=("q_proj",)),
        replace(usual, optimizer="adamw_8bit"),
    ):
        assert estimate_memory(BASE, less).total < most
    for more in (
        replace(usual, rows=2),
        replace(usual, second_forward=True),
        replace(usual, dora=True),
        replace(usual, full=True, quantization="none"),
    ):
        assert estimate_memory(BASE, more).total > most


def test_auto_checkpointing_asks_whether_it_fits_without() -> None:
    # The head is read from its file in every step.
    head = 6144 * 768 * 2
    need = int(estimate_memory(BASE, Load()).total * MARGIN) + head
    assert fits_without_checkpointing(BASE, Load(checkpointing=True), need + 1)
    assert not fits_without_checkpointing(BASE, Load(), need - 1)


# -- how much there is


def test_a_corpus_is_counted(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, examples=12)
    found = measure_volume(make_recipe(), corpus, (), 0)
    assert found.rows == 12
    characters = sum(
        len(m["content"])
        for line in corpus.file("train.jsonl").read_text().splitlines()
        for m in json.loads(line)["messages"]
    )
    assert found.tokens == pytest.approx(characters / 3.5 + 12 * 10, rel=0.1)
    assert not found.rough
    assert measure_volume(make_recipe(), None, (), 1_000_000).rough


def test_a_long_conversation_goes_on_in_more_rows(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path, "train.jsonl", {"messages": [{"role": "user", "content": "x" * 7000}]}
    )
    found = measure_volume(make_recipe(max_length=1024), corpus, (), 0)
    assert found.rows == 3
    assert found.longest == 1024


def test_pairs_count_both_answers(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "q" * 350}],
        "chosen": [{"role": "assistant", "content": "a" * 35}],
        "rejected": [{"role": "assistant", "content": "b" * 35}],
    }
    corpus = write_corpus(tmp_path, "preferences.jsonl", row)
    pairs = measure_volume(make_recipe(method="dpo"), corpus, (), 0)
    assert (pairs.rows, pairs.tokens) == (1, 2 * 120)
    judged = measure_volume(make_recipe(method="kto", batch=2), corpus, (), 0)
    assert judged.rows == 2


def test_a_corpus_that_is_no_json_is_evidence_that_fails(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, "train.jsonl", {})
    corpus.file("train.jsonl").write_text("{")
    with pytest.raises(EvidenceError, match="not JSON lines"):
        measure_volume(make_recipe(), corpus, (), 0)


def test_replay_is_added_and_what_is_kept_out_is_taken_away() -> None:
    recipe = make_recipe(retention={"replay": 0.5, "validation": 0.1})
    assert add_replay(recipe, VOLUME).rows == 180
    assert add_replay(make_recipe(method="dpo"), VOLUME) == VOLUME


# -- the plan


def test_updates_and_tokens_follow_from_rows() -> None:
    found = plan(recipe=make_recipe(epochs=2.0, accumulation=8))
    assert (found.updates, found.tokens) == (25, 80_000)
    assert plan(recipe=make_recipe(max_steps=4, accumulation=8)).tokens == 4 * 8 * 400


def test_a_probe_is_a_line_through_its_timings() -> None:
    body = {"peak": GIB, "checkpoint": 1, "longest": 400, "checkpointing": False}
    line = read_probe({"timings": [[100, 1.1], [200, 2.1], [400, 4.1]], **body})
    assert (line.start, line.per_token) == (pytest.approx(0.1), pytest.approx(0.01))
    assert read_probe({"timings": [[100, 2.0]], **body}).per_token == pytest.approx(0.02)
    recipe = make_recipe(max_steps=10, accumulation=8, retention={"rows": 1})
    found = plan(recipe=recipe, probe=line)
    assert found.pace == pytest.approx(8 * (0.1 + 400 * 0.01), rel=0.1)
    assert found.memory == GIB
    assert "probe" in found.sources["time"]
    assert "time" not in found.rough


def test_without_a_measurement_time_is_rough_and_on_a_gpu_not_known() -> None:
    assert "time" in plan().rough
    assert plan(gpu=80 * GIB).seconds is None
    assert plan(shape=None).memory is None


def test_a_busy_box_is_slower() -> None:
    idle, busy = plan(), plan(box=replace(BOX, load=8.0))
    assert idle.seconds is not None
    assert busy.seconds is not None
    assert busy.seconds > 2 * idle.seconds


def test_checkpointing_that_is_auto_is_on_where_it_would_not_fit() -> None:
    assert not plan(free=8 * GIB).checkpointing
    tight = plan(free=1500 * MIB)
    assert tight.checkpointing
    assert "gradient checkpointing" in tight.sources["memory"]


# -- the verdict


def test_it_fits_or_says_what_would_help_with_figures() -> None:
    assert judge(give(), plan(), 50 * GIB).word == "fits"
    recipe = make_recipe(gradient_checkpointing="off")
    given = give(recipe, free=1200 * MIB)
    verdict = judge(given, plan_training(given), 50 * GIB)
    assert verdict.word == "fits if"
    first = verdict.remedies[0]
    assert first.how == "--set train.gradient_checkpointing=on"
    # What it says is what the plan then gives.
    again = give(make_recipe(gradient_checkpointing="on"), free=1200 * MIB)
    assert judge(again, plan_training(again), 50 * GIB).word == "fits"


def test_what_fits_with_nothing_is_said_not_to_fit() -> None:
    given = give(free=400 * MIB)
    verdict = judge(given, plan_training(given), 50 * GIB)
    assert verdict.word == "does not fit"
    assert "memory" in verdict.lacks[0]


def test_several_changes_together_are_offered_as_one_line() -> None:
    recipe = make_recipe(batch=4, gradient_checkpointing="off", lora={"r": 64})
    given = give(recipe, free=830 * MIB)
    verdict = judge(given, plan_training(given), 50 * GIB)
    assert verdict.word == "fits if"
    [together] = verdict.remedies
    assert "--set train.batch=1 --set train.accumulation=32" in together.how
    assert "--set train.gradient_checkpointing=on" in together.how
    sets = dict(s.split("=") for s in together.how.replace("--set ", "").split())
    changed = make_recipe(
        batch=1,
        gradient_checkpointing="on",
        max_length=int(sets["train.max_length"]),
        lora={"r": int(sets.get("train.lora.r", 64))},
    )
    volume = replace(VOLUME, longest=int(sets["train.max_length"]))
    again = give(changed, free=830 * MIB, volume=volume)
    assert judge(again, plan_training(again), 50 * GIB).word == "fits"


def test_each_remedy_alone_is_what_it_says() -> None:
    given = give(make_recipe(gradient_checkpointing="off"), free=1500 * MIB)
    verdict = judge(given, plan_training(given), 50 * GIB)
    assert [r.how for r in verdict.remedies] == [
        "--set train.gradient_checkpointing=on",
        "--set train.max_length=512",
    ]
    shorter = give(make_recipe(gradient_checkpointing="off", max_length=512), free=1500 * MIB,
                   volume=replace(VOLUME, longest=512))  # fmt: skip
    assert judge(shorter, plan_training(shorter), 50 * GIB).word == "fits"


def test_a_training_that_could_pause_is_a_remedy() -> None:
    group = Group("gtft worker", (7,), 3 * GIB)
    given = give(free=800 * MIB, box=replace(BOX, groups=(group,)))
    verdict = judge(given, plan_training(given), 50 * GIB)
    assert verdict.word == "fits if"
    assert verdict.remedies[0].how == "gtft runs pause RUN"
    assert "3.0 GiB" in verdict.remedies[0].text


def test_a_full_disk_asks_for_fewer_checkpoints() -> None:
    recipe = make_recipe(keep_checkpoints=20)
    given = give(recipe)
    found = plan_training(given)
    assert found.disk is not None
    verdict = judge(given, found, found.disk // 2)
    assert verdict.word == "fits if"
    assert verdict.remedies[0].how == "--set train.keep_checkpoints=1"
    assert judge(given, found, MIB).word == "does not fit"


# -- what was measured before


def test_a_torn_or_foreign_line_of_the_figures_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"name":"tokens_per_s","step":1,"value":100.0}',
        '{"name":"tokens_per_s","step":2,"value":300.0}',
        '{"name":"tokens_per_s"}',
        '{"name":"tokens_per_s","step":3,"value":NaN}',
        '{"name":"loss","step":3,"value":1.0}',
        '{"name":"tokens_per_s","st',
    ]
    path.write_text("\n".join(lines))
    # Equal steps at 100 and 300 tokens a second are 150 on the way.
    assert find_rate(read_figures(path)) == pytest.approx(150)
    assert read_figures(tmp_path / "none") == {}


def write_corpus(folder: Path, name: str, row: dict[str, Any]) -> Artifact:
    with stage_artifact(folder, "corpus") as staging:
        (staging.path / name).write_text(json.dumps(row) + "\n")
    return staging.result


def test_a_pass_of_an_earlier_run_counts_what_was_replayed() -> None:
    from gtft.runner.past import count_read

    summary = {"rows": 100, "tokens": {"context": 1000, "supervised": 500}}
    assert count_read(summary) == (100, 1500)
    assert count_read({**summary, "retention": {"replayed_rows": 20}}) == (120, 1800)
    assert count_read({"rows": 100}) is None


def test_every_process_on_a_cpu_holds_all_of_the_training() -> None:
    from gtft.footprint import Load, estimate_memory, shape_nano

    shape = shape_nano(2048, 192, 4, 6)
    one = estimate_memory(shape, Load()).total
    assert estimate_memory(shape, Load(processes=3)).total == 3 * one
    on_cards = [estimate_memory(shape, Load(gpu=True, processes=n)).total for n in (1, 3)]
    assert on_cards[0] == on_cards[1]
