"""QLoRA itself: the loss that is minimised, the traps that stay closed, the artifact that comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import verify_artifact
from gtft.errors import TrainingError
from gtft.recipe.schema import Lora, Train
from gtft.training.environment import prepare_environment
from training_case import (
    Recorder,
    chat,
    make_base,
    make_corpus,
    make_job,
    make_task,
    read_events,
)

TRAIN = Train(
    learning_rate=1e-2,
    max_steps=4,
    accumulation=2,
    max_length=128,
    checkpoint_steps=2,
    lora=Lora(r=4, alpha=8),
)


class Case:
    """A tiny base, its tokenizer and a mask proof of ten examples."""

    def __init__(self, root: Path) -> None:
        from gtft.training.base import load_tokenizer
        from gtft.training.examples import Conversation
        from gtft.training.mask import prove

        self.base = make_base(root)
        self.tokenizer = load_tokenizer(self.base)
        talks = [
            Conversation(f"ex-{n}", chat(f"user: pump {n}", f"assistant: mend pump {n} now"), ())
            for n in range(10)
        ]
        self.proof = prove(talks, self.tokenizer, 128, Recorder())

    def train(self, workdir: Path, train: Train = TRAIN, watch: Recorder | None = None) -> Any:
        from gtft.training.fit import fit
        from gtft.training.material import Rows

        workdir.mkdir(exist_ok=True)
        task = make_task(self.base, self.tokenizer, train, workdir, watch or Recorder())
        capacity = train.max_length if task.settings.packing else 0
        return fit(task, Rows(self.proof.rows, capacity))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


def test_reported_loss_is_the_cross_entropy_of_the_supervised_tokens(
    case: Case, tmp_path: Path
) -> None:
    """The first step's loss, before any update, against a plain forward over every row it read."""
    import torch

    from gtft.training.base import load_model

    every = TRAIN.model_copy(update={"max_steps": 1, "accumulation": 10})
    (first,) = case.train(tmp_path / "w", every).losses
    model = load_model(case.base)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in case.proof.rows:
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].float()
            labels = torch.tensor(row.labels[1:])
            total += float(
                torch.nn.functional.cross_entropy(
                    logits, labels, ignore_index=-100, reduction="sum"
                )
            )
            count += int((labels != -100).sum())
    assert count == case.proof.supervised
    assert first[1] == pytest.approx(total / count, rel=2e-3)


def test_base_is_nf4_and_the_adapter_is_float32(case: Case, tmp_path: Path) -> None:
    import bitsandbytes
    import torch

    out = case.train(tmp_path / "w")
    linear = [m for m in out.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(linear) == out.guarded == 2 * 7
    assert all(m.weight.dtype == torch.uint8 and m.weight.quant_state.nested for m in linear)
    assert {p.dtype for p in out.model.parameters() if p.requires_grad} == {torch.float32}
    assert out.losses[-1][1] < out.losses[0][1]


def test_evaluation_in_mid_training_leaves_the_gradients_alone(case: Case) -> None:
    """The trap: an eval forward on an AVX512_BF16 CPU repacks 4-bit weights and bends the gradients."""
    import torch
    from peft import LoraConfig, get_peft_model

    from gtft.training.base import load_model

    torch.manual_seed(0)
    model = get_peft_model(
        load_model(case.base),
        LoraConfig(
            task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False
        ),
    )
    row = torch.tensor([case.proof.rows[0].input_ids])

    def gradients() -> torch.Tensor:
        model.zero_grad()
        model.train()
        model(input_ids=row, labels=row).loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=row)
    assert torch.equal(gradients(), before)


def test_loss_that_is_not_finite_stops_hard_and_names_the_last_good_checkpoint(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.training.methods import sft

    whole: Callable[..., Any] = sft.SftTrainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = whole(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step >= 3 else loss

    monkeypatch.setattr(sft.SftTrainer, "compute_loss", poisoned)
    with pytest.raises(TrainingError, match="the loss became nan at step 4") as e:
        case.train(tmp_path / "w")
    assert "checkpoint-2" in e.value.why
    assert [p.name for p in (tmp_path / "w").glob("checkpoint-*")] == ["checkpoint-2"]


def test_gradients_that_are_not_finite_never_reach_the_weights(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.training.methods import sft

    whole: Callable[..., Any] = sft.SftTrainer.training_step

    def poisoned(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = whole(self, model, *args, **kwargs)
        next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("inf"))
        return loss

    monkeypatch.setattr(sft.SftTrainer, "training_step", poisoned)
    with pytest.raises(TrainingError, match=r"the gradients became (inf|nan) at step 1"):
        case.train(tmp_path / "w")
    assert list((tmp_path / "w").glob("checkpoint-*")) == []


def test_memory_that_the_system_refuses_is_told_and_leaves_the_good_checkpoint(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from gtft.training.methods import sft

    whole: Callable[..., Any] = sft.SftTrainer.compute_loss

    def greedy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step >= 3:
            torch.empty(1 << 52, dtype=torch.uint8)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(sft.SftTrainer, "compute_loss", greedy)
    with pytest.raises(TrainingError, match="not enough memory") as e:
        case.train(tmp_path / "w")
    assert "checkpoint-2" in e.value.why
    assert "gtft plan" in e.value.fix
    assert [p.name for p in (tmp_path / "w").glob("checkpoint-*")] == ["checkpoint-2"]


def test_full_disk_at_a_checkpoint_is_told_and_leaves_the_good_one(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from gtft.errors import DiskFull
    from gtft.training.methods import sft

    whole: Callable[..., Any] = sft.SftTrainer._save_checkpoint

    def full(self: Any, *args: Any) -> Any:
        if self.state.global_step >= 4:
            (Path(self.args.output_dir) / "checkpoint-4").mkdir()
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        return whole(self, *args)

    monkeypatch.setattr(sft.SftTrainer, "_save_checkpoint", full)
    with pytest.raises(DiskFull):
        case.train(tmp_path / "w")
    assert [p.name for p in (tmp_path / "w").glob("*checkpoint-*")] == ["checkpoint-2"]


def test_checkpoint_of_another_recipe_is_refused_by_the_training(
    case: Case, tmp_path: Path
) -> None:
    from gtft.training.checkpoint import Fingerprint, seal

    case.train(tmp_path / "w")
    for folder in (tmp_path / "w").glob("checkpoint-*"):
        seal(folder, Fingerprint("recipe-2", "corpus-1", case.base.id), {})
    with pytest.raises(TrainingError, match="another recipe"):
        case.train(tmp_path / "w")


def test_checkpoints_and_figures_are_reported_and_rotated(case: Case, tmp_path: Path) -> None:
    watch = Recorder()
    long = TRAIN.model_copy(update={"max_steps": 7, "keep_checkpoints": 2})
    case.train(tmp_path / "w", long, watch)
    assert watch.checkpoints == [2, 4, 6, 7]
    assert sorted(p.name for p in (tmp_path / "w").glob("checkpoint-*")) == [
        "checkpoint-6",
        "checkpoint-7",
    ]
    losses = [step for step, name, _ in watch.metrics if name == "loss"]
    assert losses == [1, 2, 3, 4, 5, 6, 7]
    assert {"learning_rate", "tokens_per_s", "grad_norm"} <= {name for _, name, _ in watch.metrics}


def test_worker_makes_the_same_artifact_twice_and_nothing_of_this_machine_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from gtft.contract import Job
    from gtft.workers.frame import Reporter
    from gtft.workers.train import work

    ids = []
    for name in ("a", "b"):
        root = tmp_path / name
        folder = make_job(root, make_corpus(root / "artifacts"), max_steps=3)
        job = Job.model_validate_json((folder / "job.json").read_bytes())
        made = work(job, Reporter(folder, io.StringIO()))
        ids.append(made.id)
    assert ids[0] == ids[1]
    found = verify_artifact(made.path, kind="adapter")
    assert found.parents == (job.inputs[0].id,)
    for entry in found.files:
        assert str(tmp_path).encode() not in found.file(entry.name).read_bytes()
    summary = json.loads(found.file("summary.json").read_text())
    assert summary["rows"] == 12
    assert summary["steps"] == 3
    assert [step for step, _ in summary["loss"]["series"]] == [1, 2, 3]
    assert summary["tokens"]["supervised"] > 0
    base = json.loads(found.file("base.json").read_text())
    assert verify_artifact(tmp_path / "b" / base["path"], kind="nano")
    names = {e["name"] for e in read_events(folder) if e["event"] == "metric"}
    assert {"train_seconds", "peak_memory_bytes", "base_seconds"} <= names
    assert "README.md" not in {e.name for e in found.files}


def test_environment_is_passive_silent_and_keeps_the_users_threads() -> None:
    environ = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    prepare_environment(environ, offline=True)
    assert environ["OMP_NUM_THREADS"] == "3"
    assert environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert environ["HF_HUB_OFFLINE"] == environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    fresh: dict[str, str] = {}
    prepare_environment(fresh, offline=False)
    assert fresh["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "HF_HUB_OFFLINE" not in fresh


class Impatient(Recorder):
    """Asks to stop after so many looks: in the middle of some layer of some step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    @property
    def stop_requested(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_a_stop_in_the_middle_of_a_step_saves_the_state_of_before_it(
    case: Case, tmp_path: Path, checkpointing: str
) -> None:
    """Stopped again and again within forward and backward passes: nothing of the result changes."""
    import torch

    from gtft.training.watch import StopRequested

    train = TRAIN.model_copy(
        update={
            "gradient_checkpointing": checkpointing,
            "checkpoint_steps": 100,
            "lora": Lora(r=4, alpha=8, dropout=0.2),
        }
    )
    whole = case.train(tmp_path / "whole", train)
    stops: list[int | None] = []
    trained = None
    for looks in (3, 9, 17, 22, 13, 31, 1000):
        try:
            trained = case.train(tmp_path / "stopped", train, Impatient(looks))
        except StopRequested as stop:
            stops.append(stop.step)
    assert trained is not None
    # The first came before any step was done; every later one kept what was done.
    assert stops[0] == 0
    assert stops == sorted(s for s in stops if s is not None)
    assert max(s for s in stops if s is not None) >= 2
    want = dict(whole.model.named_parameters())
    for name, got in trained.model.named_parameters():
        assert torch.equal(got, want[name]), name
    assert trained.losses == whole.losses


def test_checkpointed_activations_change_no_bit_of_the_adapter(case: Case, tmp_path: Path) -> None:
    """What "auto" decides may differ from one start of a run to the next: the memory that is free does."""
    import torch

    dropout = {"lora": Lora(r=4, alpha=8, dropout=0.2)}
    kept, again = (
        case.train(
            tmp_path / dial, TRAIN.model_copy(update={**dropout, "gradient_checkpointing": dial})
        )
        for dial in ("off", "on")
    )
    want = dict(kept.model.named_parameters())
    for name, got in again.model.named_parameters():
        assert torch.equal(got, want[name]), name
