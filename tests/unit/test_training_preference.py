"""Pairs as rows, and training from them: what is compared, what is learned, and that a resume is a resume."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import CorpusTooSmall, EvidenceError, TrainingError
from gtft.recipe.schema import Lora, Preference, Train
from training_case import Recorder, make_base, make_task, make_tokenizer

SYSTEM = {"role": "system", "content": "You mend pumps."}
CALL = {"id": "call-1", "type": "function", "function": {"name": "Bash", "arguments": {"a": "b"}}}


def pair(n: int, **more: Any) -> dict[str, Any]:
    """A pair whose good answer follows from its prompt."""
    dry = n % 2 == 0
    return {
        "prompt": [SYSTEM, {"role": "user", "content": f"pump {n} is {'dry' if dry else 'wet'}"}],
        "chosen": [{"role": "assistant", "content": f"{'mend' if dry else 'wait'} {n}"}],
        "rejected": [{"role": "assistant", "content": f"{'wait' if dry else 'mend'} {n} now"}],
        "tools": [],
        "why": "denied",
        "role": "witness",
        "rig": None,
        "origin": None,
        **more,
    }


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def prove(folder: Path, rows: list[dict[str, Any]], tokenizer: Any, max_length: int = 128) -> Any:
    from gtft.training.preferences import prove_pairs, read_preferences

    path = write(folder, rows)
    return prove_pairs(read_preferences(path), tokenizer, max_length, Recorder())


def test_both_answers_follow_the_prompt_that_serving_sends(tmp_path: Path, tokenizer: Any) -> None:
    row = pair(4)
    (found,) = prove(tmp_path, [row], tokenizer).rows
    served = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
    for side, answer in ((found.chosen, "mend 4"), (found.rejected, "wait 4 now")):
        assert list(side.input_ids[: found.prompt]) == served
        assert [tokenizer.decode(side.input_ids[a:b]) for a, b in side.spans] == [
            f"{answer}<|im_end|>"
        ]
        assert side.spans[-1][1] == len(side.input_ids)


def test_rows_are_the_tokens_that_trl_would_make(tmp_path: Path, tokenizer: Any) -> None:
    """TRL trains the line break after the last end of turn as well, which no model writes."""
    row = pair(4)
    (found,) = prove(tmp_path, [row], tokenizer).rows
    for side in ("chosen", "rejected"):
        whole = tokenizer.apply_chat_template(row["prompt"] + row[side])["input_ids"]
        ids = list(getattr(found, side).input_ids)
        assert whole[: len(ids)] == ids
        assert tokenizer.decode(whole[len(ids) :]) == "\n"


def test_only_what_the_model_wrote_is_trained(tmp_path: Path, tokenizer: Any) -> None:
    """A longer answer holds tool results; earlier answers of the prompt are context."""
    row = pair(
        1,
        prompt=[
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "earlier"},
            {"role": "user", "content": "second"},
        ],
        chosen=[
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call-1", "content": "the result"},
            {"role": "assistant", "content": "done"},
        ],
    )
    (found,) = prove(tmp_path, [row], tokenizer, 256).rows
    trained = [tokenizer.decode(found.chosen.input_ids[a:b]) for a, b in found.chosen.spans]
    assert trained == [
        '<tool_call>{"name": "Bash", "arguments": {"a": "b"}}</tool_call><|im_end|>',
        "done<|im_end|>",
    ]
    assert "the result" in tokenizer.decode(found.chosen.input_ids)


def test_context_is_cut_at_one_place_for_both(tmp_path: Path, tokenizer: Any) -> None:
    talk = [
        {"role": ("user", "assistant")[n % 2], "content": f"turn {n} of a long talk about pumps"}
        for n in range(9)
    ]
    rejected = [{"role": "assistant", "content": "a much longer answer than the other one " * 2}]
    row = pair(1, prompt=talk, rejected=rejected)
    (found,) = prove(tmp_path, [row], tokenizer, 96).rows
    assert 0 < found.chosen.cut == found.rejected.cut
    at = found.prompt
    assert found.chosen.input_ids[:at] == found.rejected.input_ids[:at]
    assert max(len(found.chosen.input_ids), len(found.rejected.input_ids)) <= 96


def test_pairs_that_cannot_be_trained_are_named_with_their_cause(
    tmp_path: Path, tokenizer: Any
) -> None:
    same = [{"role": "assistant", "content": "the same"}]
    long = [{"role": "assistant", "content": "word " * 300}]
    empty = [{"role": "assistant", "content": ""}]
    rows = [
        pair(0),
        pair(1, rejected=long),
        pair(2, chosen=same, rejected=same),
        pair(3, chosen=empty),
    ]
    proof = prove(tmp_path, rows, tokenizer)
    assert proof.empty == (
        ("pair-2", "too-long"),
        ("pair-3", "same-answer"),
        ("pair-4", "no-answer"),
    )
    doc = proof.as_dict()
    ((name, prompt, chosen, rejected),) = doc["per_pair"]
    assert (doc["pairs"], name) == (1, "pair-1")
    assert prompt + chosen == len(proof.rows[0].chosen.input_ids)
    assert prompt + rejected == len(proof.rows[0].rejected.input_ids)


def test_too_few_pairs_stop_before_the_first_step(tmp_path: Path, tokenizer: Any) -> None:
    from gtft.training.preferences import check_pairs

    watch = Recorder()
    long = [{"role": "assistant", "content": "word " * 300}]
    rows = [pair(0), pair(1), pair(2, rejected=long)]
    proof = prove(tmp_path, rows, tokenizer)
    with pytest.raises(CorpusTooSmall, match=r"3 preference pairs, fewer than .*min_pairs = 4"):
        check_pairs(proof, 4, 1.0, watch)
    with pytest.raises(TrainingError, match="1 of 3 preference pairs can not be trained") as e:
        check_pairs(proof, 3, 1.0, watch)
    assert "2 are left" in e.value.why
    assert "pair-3" in e.value.why
    with pytest.raises(TrainingError) as e:
        check_pairs(proof, 2, 0.1, watch)
    assert "33% is above train.max_unsupervised = 10%" in e.value.why
    check_pairs(proof, 2, 0.5, watch)
    assert [code for code, _ in watch.warnings] == ["pairs-left-out"]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    from gtft.training.preferences import read_preferences

    for broken in ('{"prompt": []}', "[1]", json.dumps(pair(1, chosen=[])), "{"):
        path = tmp_path / "preferences.jsonl"
        path.write_text(json.dumps(pair(0)) + "\n" + broken + "\n")
        with pytest.raises(EvidenceError, match=r"preferences\.jsonl:2 is not a preference pair"):
            list(read_preferences(path))


def test_judgements_are_weighed_so_that_both_kinds_count_the_same() -> None:
    from gtft.training.methods.preference import weigh_judgements

    assert weigh_judgements(5, 5) == (1.0, 1.0)
    assert weigh_judgements(10, 5) == (1.0, 2.0)
    assert weigh_judgements(2, 5) == (2.5, 1.0)
    assert weigh_judgements(0, 5) == (1.0, 1.0)


class Case:
    """A tiny base and 22 pairs."""

    def __init__(self, root: Path) -> None:
        from gtft.training.base import load_tokenizer
        from gtft.training.preferences import prove_pairs, read_preferences

        self.base = make_base(root)
        self.tokenizer = load_tokenizer(self.base)
        path = write(root, [pair(n) for n in range(22)])
        self.proof = prove_pairs(read_preferences(path), self.tokenizer, 128, Recorder())

    def material(self, method: str) -> Any:
        from gtft.training.preferences import Judgements, Pairs, split_pairs

        rows = self.proof.rows
        return Judgements(split_pairs(rows)) if method == "kto" else Pairs(rows)

    def train(self, workdir: Path, train: Train, watch: Any = None, ancestors: Any = None) -> Any:
        from gtft.training.adapters import Ancestors, attach
        from gtft.training.fit import fit

        workdir.mkdir(exist_ok=True)
        task = make_task(self.base, self.tokenizer, train, workdir, watch or Recorder())
        given = ancestors or Ancestors()
        task = replace(task, equip=lambda model: attach(model, train, given))
        return fit(task, self.material(train.method))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("pairs"))


def settings(method: Any, **more: Any) -> Train:
    given: dict[str, Any] = {
        "method": method,
        "learning_rate": 1e-2,
        "scheduler": "constant",
        "warmup": 0.0,
        "max_steps": 8,
        "batch": 2,
        "accumulation": 2,
        "max_length": 128,
        "checkpoint_steps": 4,
        "keep_checkpoints": 9,
        "lora": Lora(r=4, alpha=8),
        **more,
    }
    return Train(**given)


def weights(model: Any) -> dict[str, Any]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_margins_grow_and_a_resumed_run_ends_the_same(
    method: str, case: Case, tmp_path: Path
) -> None:
    import torch

    watch = Recorder()
    whole = case.train(tmp_path / "whole", settings(method), watch)
    margins = [v for _, name, v in watch.metrics if name == "rewards/margins"]
    assert margins[-1] > margins[0]
    assert whole.losses[-1][1] < whole.losses[0][1]
    assert {p.dtype for p in weights(whole.model).values()} == {torch.float32}
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "again" / "checkpoint-4")
    again = case.train(tmp_path / "again", settings(method))
    assert again.losses == whole.losses
    for name, value in weights(whole.model).items():
        assert torch.equal(value, weights(again.model)[name]), name


def test_the_first_loss_of_dpo_is_that_of_an_adapter_that_is_nothing_yet(
    case: Case, tmp_path: Path
) -> None:
    """Both answers are as likely as with the adapter off: -log sigmoid(0), and the plain loss on top."""
    import torch

    from gtft.training.base import load_model

    weight = 0.5
    train = settings(
        "dpo", max_steps=1, batch=1, accumulation=22, preference=Preference(sft_weight=weight)
    )
    (first,) = case.train(tmp_path / "w", train).losses
    model = load_model(case.base)
    nll = []
    with torch.no_grad():
        for found in case.proof.rows:
            row = found.chosen
            logits = model(input_ids=torch.tensor([list(row.input_ids)])).logits[0, :-1].float()
            nll.append(
                float(torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:])))
            )
    assert first[1] == pytest.approx(math.log(2) + weight * sum(nll) / len(nll), rel=2e-3)


def test_judgements_are_set_against_answers_of_other_pairs(case: Case) -> None:
    from gtft.training.methods.preference import JudgementCollator

    judgements = case.material("kto").judgements
    collate = JudgementCollator(judgements, case.tokenizer.pad_token_id)
    for units in ([0, 1], [0, 5, 9], [43, 42]):
        batch = collate([{"unit": u} for u in units])
        assert batch["label"].tolist() == [judgements[u].good for u in units]
        for at, unit in enumerate(units):
            own = judgements[unit]
            ids = batch["KL_input_ids"][at][batch["KL_attention_mask"][at].bool()].tolist()
            assert ids[: own.prompt] == list(own.row.input_ids[: own.prompt])
            assert ids != list(own.row.input_ids)
            others = [list(j.row.input_ids[j.prompt :]) for j in judgements if j.pair != own.pair]
            assert ids[own.prompt :] in others


def test_going_on_from_an_adapter_holds_it_to_that_adapter(case: Case, tmp_path: Path) -> None:
    import torch

    from gtft.artifact import stage_artifact, write_json
    from gtft.training.adapters import find_ancestors, save_trained

    first = case.train(tmp_path / "first", settings("orpo", max_steps=3))
    with stage_artifact(tmp_path / "artifacts", "adapter") as staging:
        save_trained(first.model, staging.path)
        write_json(staging.path / "base.json", case.base.as_dict())
    train = settings("dpo", max_steps=4, checkpoint_steps=2, continues=staging.result.id)
    ancestors = find_ancestors(train, tmp_path / "artifacts", case.base, Recorder())
    watch = Recorder()
    whole = case.train(tmp_path / "whole", train, watch, ancestors)
    margins = [v for _, name, v in watch.metrics if name == "rewards/margins"]
    assert margins[0] == 0.0
    assert margins[-1] > 0
    (tmp_path / "again").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    again = case.train(tmp_path / "again", train, None, ancestors)
    for name, value in weights(whole.model).items():
        assert torch.equal(value, weights(again.model)[name]), name
    save_trained(whole.model, tmp_path / "saved")
    assert not [p for p in (tmp_path / "saved").iterdir() if p.is_dir()]
