"""Measuring while a training runs: exact, without a trace; early stop, best weights, warnings, the KL penalty."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import TrainingError
from gtft.recipe.schema import Lora, Train
from gtft.recipe.schema import Retention as Wanted
from gtft.training.measurement import Measurement, find_forgetting, find_overfitting, judge
from gtft.training.watch import StopRequested
from training_case import TEXT, Recorder, chat, make_base, make_job, make_task

TRAIN = Train(
    learning_rate=4e-3,
    scheduler="constant",
    max_steps=16,
    accumulation=2,
    max_length=128,
    checkpoint_steps=2,
    keep_checkpoints=2,
    lora=Lora(r=4, alpha=8, dropout=0.1),
    retention=Wanted(rows=8, measure_steps=1, patience=3),
)


class Case:
    """A tiny base, rows to learn by heart, rows that are kept out, and general rows."""

    def __init__(self, root: Path) -> None:
        from gtft.training.base import load_tokenizer
        from gtft.training.examples import Conversation
        from gtft.training.general import make_rows, read_general
        from gtft.training.mask import prove

        self.base = make_base(root)
        self.tokenizer = load_tokenizer(self.base)
        # What is learned makes the kept-out answers less likely: their loss falls first, then rises.
        talks = [
            Conversation(f"ex-{n}", chat(f"user: pump {n}", f"assistant: {answer}"), ())
            for n, answer in enumerate(["mend mend now"] * 8 + ["seal the vent"] * 8)
        ]
        rows = prove(talks, self.tokenizer, 128, Recorder()).rows
        self.rows, self.validation = rows[:8], rows[8:]
        text = read_general("", root=root, base_text=root / "base.txt", watch=Recorder())
        self.general = make_rows(text.items, self.tokenizer, 128)

    def fit(
        self,
        workdir: Path,
        train: Train = TRAIN,
        watch: Recorder | None = None,
        companions: tuple[Any, ...] | None = None,
    ) -> Any:
        from gtft.training.fit import fit
        from gtft.training.material import Rows

        workdir.mkdir(exist_ok=True)
        watch = watch or Recorder()
        task = make_task(self.base, self.tokenizer, train, workdir, watch)
        if companions is None:
            companions = (self.retention(train, watch),)
        trained = fit(replace(task, companions=companions), Rows(self.rows))
        for companion in companions:
            companion.finish(trained.model)
        return trained

    def retention(self, train: Train, watch: Recorder) -> Any:
        from gtft.training.retention import Retention

        return Retention(train.retention, self.general, self.validation, watch)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


def read_weights(model: Any) -> dict[str, Any]:
    from gtft.training.trainer import list_trainable

    return {n: p.detach().clone() for n, p in list_trainable(model)}


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def load_adapted(case: Case) -> Any:
    """The base in NF4 with an adapter that is far from zero, in training mode, with dropout."""
    import torch
    from peft import LoraConfig, get_peft_model

    from gtft.training.base import load_model
    from gtft.training.loss import add_answer_head

    torch.manual_seed(0)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_dropout=0.1,
        target_modules="all-linear",
        init_lora_weights=False,
    )
    model = load_model(case.base)
    add_answer_head(model)
    return get_peft_model(model, lora).train()


@pytest.fixture(scope="module")
def adapted(case: Case) -> Any:
    return load_adapted(case)


# --- what is measured ----------------------------------------------------------------------------


def test_loss_and_kl_are_those_of_a_plain_computation_over_all_logits(
    case: Case, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from gtft.training import kl
    from gtft.training.retention import undisturbed

    rows = [*case.general[:3], *case.validation[:2]]
    nll = base_nll = total = torch.zeros((), dtype=torch.float64)
    tokens = 0
    with undisturbed(adapted, bf16=False), torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row.input_ids)])
            labels = torch.tensor(list(row.labels))[1:]
            own = adapted(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            with adapted.disable_adapter():
                base = adapted(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            mask = labels != -100
            at = labels[mask, None]
            nll = nll - own[mask].gather(1, at).sum()
            base_nll = base_nll - base[mask].gather(1, at).sum()
            total = total + (own.exp() * (own - base)).sum(-1)[mask].sum()
            tokens += int(mask.sum())
        kept = kl.Base()
        got = kl.measure(adapted, rows, kept, lambda: False)
        # A few positions at a time, from the base's hidden states of before: the same numbers.
        monkeypatch.setattr(kl, "LOGITS_AT_ONCE", 3 * 600)
        again = kl.measure(adapted, rows, kept, lambda: False)
        monkeypatch.setattr(kl, "_KEPT_NUMBERS", 0)
        fresh = kl.measure(adapted, rows, kl.Base(), lambda: False)
    assert got is not None
    assert got.tokens == tokens == sum(r.supervised for r in rows)
    assert got.loss == pytest.approx(float(nll) / tokens, rel=1e-5)
    assert got.base_loss == pytest.approx(float(base_nll) / tokens, rel=1e-5)
    assert got.kl == pytest.approx(float(total) / tokens, rel=1e-4)
    assert got.kl > 1e-3
    for other in (again, fresh):
        assert other is not None
        assert other.kl == pytest.approx(got.kl, rel=1e-4)
    assert len(kept.hidden) == len(rows)


def test_a_measurement_leaves_gradients_dice_and_modes_as_they_were(
    case: Case, adapted: Any
) -> None:
    import torch

    from gtft.training.kl import Base, measure
    from gtft.training.retention import undisturbed

    row = torch.tensor([list(case.rows[0].input_ids)])

    def gradients() -> Any:
        torch.manual_seed(5)
        adapted.zero_grad()
        adapted(input_ids=row, labels=row).loss.backward()
        return torch.cat([p.grad.flatten() for p in adapted.parameters() if p.grad is not None])

    before = gradients()
    dice, modes = torch.get_rng_state(), [m.training for m in adapted.modules()]
    python = random.getstate()
    with undisturbed(adapted, bf16=False):
        torch.rand(3)
        random.random()
        assert measure(adapted, case.general, Base(), lambda: False) is not None
    assert torch.equal(torch.get_rng_state(), dice)
    assert random.getstate() == python
    assert [m.training for m in adapted.modules()] == modes
    assert all(p.requires_grad for n, p in adapted.named_parameters() if "lora_" in n)
    assert torch.equal(gradients(), before)


def test_a_measurement_that_is_told_to_give_up_says_nothing(case: Case, adapted: Any) -> None:
    from gtft.training.kl import Base, measure

    calls = iter([False, True])
    assert measure(adapted, case.general, Base(), lambda: next(calls)) is None


def test_penalty_is_the_kl_over_the_vocabulary_with_its_gradient(
    case: Case, adapted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from gtft.training import kl
    from gtft.training.packing import Collator

    inputs = Collator([case.rows[:1], case.general[:1]], 0)([{"unit": 0}, {"unit": 1}])
    adapted.eval()
    got = []
    for at_once in (1 << 24, 2 * 600):
        monkeypatch.setattr(kl, "LOGITS_AT_ONCE", at_once)
        adapted.zero_grad()
        out = adapted(**inputs, answer_head=True)
        value = kl.sum_kl(out.hidden, kl.read_base(adapted, inputs), adapted)
        (3 * value).backward()
        got.append((float(value), torch.cat([p.grad.flatten() for p in adapted.parameters() if p.grad is not None])))  # fmt: skip
    adapted.zero_grad()
    rest = {k: v for k, v in inputs.items() if k != "labels"}
    with torch.no_grad(), adapted.disable_adapter():
        base = adapted(**rest).logits[:, :-1].float().log_softmax(-1)
    own = adapted(**rest).logits[:, :-1].float().log_softmax(-1)
    mask = inputs["labels"][:, 1:] != -100
    plain = (own.exp() * (own - base)).sum(-1)[mask].sum()
    (3 * plain).backward()
    gradient = torch.cat([p.grad.flatten() for p in adapted.parameters() if p.grad is not None])
    adapted.train()
    for value, found in got:
        assert value == pytest.approx(float(plain), rel=1e-4)
        assert torch.nn.functional.cosine_similarity(found, gradient, dim=0) > 0.9999
        assert float(found.norm()) == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_with_the_penalty_a_training_stays_nearer_to_its_base(case: Case, tmp_path: Path) -> None:
    told = {}
    for kl in (0.0, 100.0):
        wanted = Wanted(rows=8, measure_steps=6, patience=0, kl=kl)
        train = TRAIN.model_copy(update={"max_steps": 6, "retention": wanted})
        trained = case.fit(tmp_path / str(kl), train)
        told[kl] = (trained.losses[0][1], trained.companions[0].as_dict()["measurements"][-1])
    # A fresh adapter is the base: the penalty begins at 0.
    assert told[100.0][0] == pytest.approx(told[0.0][0], abs=1e-6)
    assert 0 < told[100.0][1]["validation_kl"] < 0.5 * told[0.0][1]["validation_kl"]


# --- while it runs -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training that stops early, left alone; and its watch and folder."""
    watch, workdir = Recorder(), tmp_path_factory.mktemp("whole") / "w"
    return case.fit(workdir, TRAIN, watch), watch, workdir


def test_how_often_is_measured_does_not_change_what_is_learned(
    case: Case, whole: Any, tmp_path: Path
) -> None:
    """Dropout is on: a single random number drawn by a measurement would show."""
    patient = TRAIN.model_copy(update={"max_steps": 6, "retention": Wanted(rows=8, patience=0)})
    without = case.fit(tmp_path / "a", patient, companions=())
    watch = Recorder()
    often = patient.model_copy(
        update={"retention": patient.retention.model_copy(update={"measure_steps": 1})}
    )
    measured = case.retention(often, watch)
    from gtft.training.fit import fit
    from gtft.training.material import Rows

    (tmp_path / "b").mkdir()
    task = make_task(case.base, case.tokenizer, often, tmp_path / "b", watch)
    trained = fit(replace(task, companions=(measured,)), Rows(case.rows))
    assert equal(read_weights(trained.model), read_weights(without.model))
    assert trained.losses == without.losses
    steps = [step for step, name, _ in watch.metrics if name == "validation_loss"]
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    names = {name for _, name, _ in watch.metrics}
    assert {"general_loss", "general_loss_base", "general_kl", "validation_kl"} <= names


def test_it_stops_when_kept_out_rows_get_no_better_and_gives_the_best_weights(
    case: Case, whole: Any
) -> None:
    from gtft.training.kl import Base, measure
    from gtft.training.retention import undisturbed

    trained, watch, workdir = whole
    (retention,) = trained.companions
    told = retention.as_dict()
    losses = {m["step"]: m["validation_loss"] for m in told["measurements"]}
    assert trained.steps < TRAIN.max_steps
    assert f"stopped at step {trained.steps} of 16" in told["stopped"]
    best = told["kept_step"]
    assert 0 < best < trained.steps
    assert losses[best] == min(v for s, v in losses.items() if s)
    with undisturbed(trained.model, bf16=False):
        got = measure(trained.model, case.validation, Base(), lambda: False)
    assert got is not None
    assert got.loss == pytest.approx(losses[best], abs=1e-5)
    assert "stopped-early" in [code for code, _ in watch.warnings]
    state = json.loads((workdir / f"checkpoint-{trained.steps}" / "retention.json").read_text())
    assert state["best"]["step"] == best
    assert len(list((workdir / "best").iterdir())) == 1


def test_a_training_that_had_stopped_early_is_not_trained_on(case: Case, whole: Any) -> None:
    trained, _, workdir = whole
    again = case.fit(workdir, TRAIN, watch := Recorder())
    assert again.steps == trained.steps
    assert equal(read_weights(again.model), read_weights(trained.model))
    assert again.companions[0].as_dict() == trained.companions[0].as_dict()
    assert watch.metrics == []
    assert "stopped-early" not in [code for code, _ in watch.warnings]


class Impatient(Recorder):
    """Asks to stop while a measurement runs."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.asked = False

    @property
    def stop_requested(self) -> bool:
        return self.asked

    def progress(self, done: int, *args: Any, **kwargs: Any) -> None:
        note = args[-1] if args and isinstance(args[-1], str) else ""
        self.asked = self.asked or (done == self.at and note.startswith("measuring"))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_stop_in_the_middle_of_a_measurement_changes_nothing(
    case: Case, whole: Any, tmp_path: Path, which: str
) -> None:
    trained, _, _ = whole
    told = trained.companions[0].as_dict()
    at = told["kept_step"] if which == "best" else trained.steps
    with pytest.raises(StopRequested):
        case.fit(tmp_path / "w", TRAIN, Impatient(at))
    state = json.loads((tmp_path / "w" / f"checkpoint-{at}" / "retention.json").read_text())
    assert at not in [m["step"] for m in state["measured"]]
    again = case.fit(tmp_path / "w", TRAIN)
    assert again.companions[0].as_dict() == told
    assert again.steps == trained.steps
    assert equal(read_weights(again.model), read_weights(trained.model))


def make_killer(at: int) -> Any:
    """A companion that ends the training at a step, without any chance to save."""
    from transformers import TrainerCallback

    class Killer(TrainerCallback):  # type: ignore[misc]
        def restore(self, folder: Path) -> None: ...

        def finish(self, model: Any) -> None: ...

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at:
                raise KeyboardInterrupt

    return Killer()


def test_a_kill_after_the_best_and_a_rotation_changes_nothing(
    case: Case, whole: Any, tmp_path: Path
) -> None:
    trained, _, _ = whole
    workdir = tmp_path / "w"
    keep_one = TRAIN.model_copy(update={"keep_checkpoints": 1})
    watch = Recorder()
    companions = (case.retention(keep_one, watch), make_killer(trained.steps))
    with pytest.raises(KeyboardInterrupt):
        case.fit(workdir, keep_one, watch, companions)
    assert len(list(workdir.glob("checkpoint-*"))) == 1
    # What lies beside the checkpoints is not trusted: the checkpoint's own copy is.
    for file in (workdir / "best").iterdir():
        file.write_bytes(b"torn")
    again = case.fit(workdir, keep_one)
    assert again.companions[0].as_dict() == trained.companions[0].as_dict()
    assert equal(read_weights(again.model), read_weights(trained.model))


def test_a_checkpoint_that_was_measured_on_other_rows_is_refused(
    case: Case, whole: Any, tmp_path: Path
) -> None:
    from gtft.training.retention import Retention

    _, _, workdir = whole
    newest = max(workdir.glob("checkpoint-*"))
    other = Retention(TRAIN.retention, case.general[1:], case.validation, Recorder())
    with pytest.raises(TrainingError, match="other rows"):
        other.restore(newest)
    replays = Retention(TRAIN.retention, case.general, case.validation, Recorder(), text="changed")
    with pytest.raises(TrainingError, match="other rows"):
        replays.restore(newest)


def test_a_loss_that_is_not_finite_stops_hard(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.training import retention
    from gtft.training.kl import Reading

    monkeypatch.setattr(
        retention, "measure", lambda *_: Reading(float("nan"), 1.0, float("nan"), 5)
    )
    with pytest.raises(TrainingError, match="the general loss became nan at step 0"):
        case.fit(tmp_path / "w")


def test_few_kept_out_rows_are_measured_but_decide_nothing(case: Case, tmp_path: Path) -> None:
    from gtft.training.retention import Retention

    watch = Recorder()
    train = TRAIN.model_copy(
        update={"max_steps": 5, "retention": Wanted(measure_steps=1, patience=1)}
    )
    few = Retention(train.retention, (), case.validation[:3], watch)
    trained = case.fit(tmp_path / "w", train, watch, (few,))
    assert trained.steps == 5
    assert few.kept_step is None
    assert few.as_dict()["stopped"] == ""
    assert len(few.as_dict()["measurements"]) == 6
    assert not (tmp_path / "w" / "best").exists()
    assert [code for code, _ in watch.warnings].count("validation-small") == 1


def test_a_peer_of_a_swarm_measures_but_neither_stops_nor_keeps_other_weights(
    case: Case, tmp_path: Path
) -> None:
    from gtft.training.retention import Retention

    watch = Recorder()
    train = TRAIN.model_copy(
        update={"max_steps": 4, "retention": Wanted(measure_steps=1, patience=1, rows=8)}
    )
    peer = Retention(train.retention, (), case.validation, watch, decides=False)
    trained = case.fit(tmp_path / "w", train, watch, (peer,))
    assert trained.steps == 4
    assert peer.kept_step is None
    assert len(peer.as_dict()["measurements"]) == 5


def test_a_full_training_compares_with_what_it_measured_before_its_first_step(
    case: Case, tmp_path: Path
) -> None:
    train = TRAIN.model_copy(update={"adapter": "full", "max_steps": 2, "learning_rate": 1e-4})
    base, case.base = case.base, replace(case.base, quantization="none")
    try:
        trained = case.fit(tmp_path / "w", train)
    finally:
        case.base = base
    told = trained.companions[0].as_dict()
    first = told["measurements"][0]
    assert told["base"]["general_loss"] == first["general_loss"] > 0
    assert {m["general_kl"] for m in told["measurements"]} == {None}


def test_the_held_out_side_of_the_corpus_has_no_part_in_it(tmp_path: Path) -> None:
    """To stop by what the eval asks would be to learn from it: it may hold anything, nothing changes."""
    import io

    from gtft.artifact import stage_artifact
    from gtft.contract import Job
    from gtft.workers.frame import Reporter
    from gtft.workers.train import work

    lines = [
        {
            "id": f"ex-{n}",
            "cluster": f"bead:{n // 2}",
            "messages": list(chat(f"user: pump {n}", f"assistant: mend {n % 3}")),
        }
        for n in range(48)
    ]
    held = {"id": "ex-99", "cluster": "bead:99", "messages": list(chat("user: x", "assistant: y"))}
    made = []
    for heldout in ("no example at all\n", json.dumps(held) + "\n"):
        with stage_artifact(tmp_path / "artifacts", "corpus") as staging:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (staging.path / "train.jsonl").write_text(text)
            (staging.path / "base.txt").write_text(TEXT)
            (staging.path / "heldout.jsonl").write_text(heldout)
        folder = make_job(tmp_path, staging.result, f"job-{len(made)}", max_steps=3)
        job = Job.model_validate_json((folder / "job.json").read_bytes())
        adapter = work(job, Reporter(folder, io.StringIO()))
        names = ("adapter_model.safetensors", "mask.json", "loss.jsonl")
        made.append([adapter.file(n).read_bytes() for n in names])
    assert made[0] == made[1]


# --- what follows from it ------------------------------------------------------------------------


def losses(*values: float, trained: tuple[float | None, ...] = ()) -> list[Measurement]:
    own = trained or tuple(3.0 - n / 10 for n in range(len(values)))
    return [
        Measurement(n * 5, t, validation_loss=v)
        for n, (v, t) in enumerate(zip(values, own, strict=True))
    ]


def test_the_best_is_the_lowest_and_patience_counts_from_the_last_real_gain() -> None:
    assert judge([]).best is None
    assert (judge(losses(3.0, 2.0, 2.5, 2.1)).best, judge(losses(3.0, 2.0, 2.5, 2.1)).worse) == (
        5,
        2,
    )
    # Less than a thousandth better: kept as the best, but no reason to go on.
    crept = judge(losses(3.0, 2.0, 1.9995, 1.999))
    assert (crept.best, crept.worse) == (15, 2)
    # The base is the one to beat, but an untrained adapter is never kept.
    worse = judge(losses(2.0, 2.2, 2.1))
    assert (worse.best, worse.worse) == (10, 2)


def test_overfitting_needs_two_rises_and_a_falling_training_loss() -> None:
    assert "from 2.000 to 2.200" in find_overfitting(losses(2.5, 2.0, 2.1, 2.2))
    assert find_overfitting(losses(2.5, 2.0, 2.1)) == ""
    assert find_overfitting(losses(2.5, 2.0, 2.1, 2.2, trained=(None, 2.0, 2.1, 2.2))) == ""
    assert find_overfitting(losses(2.0, 2.0005, 2.001)) == ""


def test_forgetting_is_told_by_loss_or_by_kl_with_figures() -> None:
    at = Measurement(40, general_loss=2.0, general_kl=0.02)
    assert find_forgetting(at, 1.95) == ""
    assert "step 40" in find_forgetting(at, 1.85)
    assert "+0.150 nats" in find_forgetting(at, 1.85)
    assert "KL 0.300" in find_forgetting(replace(at, general_kl=0.3), 2.0)
    assert find_forgetting(Measurement(40), None) == ""
