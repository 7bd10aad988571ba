"""What is trained on a base: the shapes that are refused, going on from an adapter, a task on top of a role."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from evals_case import make_job as make_eval_job
from gtft.artifact import Artifact, stage_artifact, verify_artifact, write_json
from gtft.errors import EvidenceError, TrainingError, UsageError
from gtft.recipe.methods import REFUSED_INITS, refuse_methods
from gtft.recipe.schema import Base, Lora, Train
from gtft.workers.frame import carry_out
from training_case import NANO, TEXT, Recorder, make_base, make_job, read_events

LORA = Lora(r=4, alpha=8)


def where(base: Base | None = None, **train: Any) -> list[str]:
    return [".".join(map(str, p)) for p, _ in refuse_methods(base or Base(), Train(**train))]


def test_every_initialisation_but_the_harmless_ones_is_refused_with_its_reason() -> None:
    for name in REFUSED_INITS:
        ((path, text),) = refuse_methods(
            Base(), Train(lora=Lora.model_validate({"init_lora_weights": name}))
        )
        assert path == ("train", "lora", "init_lora_weights")
        assert f'"{name}"' in text
    for name in ("default", "gaussian"):
        assert where(lora=Lora.model_validate({"init_lora_weights": name})) == []


@pytest.mark.parametrize(
    ("expected", "train"),
    [
        ("train.lora.target_modules", {"lora": Lora(target_modules=("q_proj", "lm_head"))}),
        ("train.lora.target_modules", {"lora": Lora(target_modules="lm_head")}),
        ("train.lora.target_modules", {"lora": Lora(target_modules=())}),
        ("train.lora.use_dora", {"lora": Lora(use_dora=True), "stacks_on": "abc"}),
        ("train.lora.dropout", {"lora": Lora(dropout=0.1), "method": "dpo"}),
        ("train.batch", {"method": "kto"}),
        ("train.packing", {"method": "dpo", "packing": "on"}),
        ("base.quantization", {"adapter": "full"}),
    ],
)
def test_what_cannot_be_trained_is_refused(expected: str, train: dict[str, Any]) -> None:
    assert where(**train) == [expected]


def test_full_training_is_for_answers_alone() -> None:
    plain = Base(quantization="none")
    assert where(plain, adapter="full") == []
    assert where(plain, adapter="full", method="dpo") == ["train.adapter"]
    assert where(plain, adapter="full", engine="swarm") == ["train.adapter"]
    assert where(plain, adapter="full", continues="abc") == ["train.continues"]


def test_a_job_that_comes_from_elsewhere_is_refused_again() -> None:
    from gtft.training.adapters import require_trainable

    with pytest.raises(TrainingError, match=r'train\.lora\.init_lora_weights "pissa"'):
        require_trainable(Base(), Train(lora=Lora(init_lora_weights="pissa")))


class Case:
    """A tiny base and adapters on a shelf."""

    def __init__(self, root: Path) -> None:
        self.base = make_base(root)
        self.artifacts = root / "artifacts"
        self.role = self.store(self.make(Train(lora=LORA), 1))

    def find(self, train: Train, watch: Any = None) -> Any:
        from gtft.training.adapters import find_ancestors

        return find_ancestors(train, self.artifacts, self.base, watch or Recorder())

    def attach(self, train: Train) -> Any:
        from gtft.training.adapters import attach
        from gtft.training.base import load_model

        return attach(load_model(self.base), train, self.find(train))

    def make(self, train: Train, seed: int) -> Any:
        """A model with an adapter that changes its answers."""
        import torch

        model = self.attach(train) if train.stacks_on else self._fresh(train)
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                torch.nn.init.normal_(parameter, 0, 0.05)
        return model

    def _fresh(self, train: Train) -> Any:
        from gtft.training.adapters import Ancestors, attach
        from gtft.training.base import load_model

        return attach(load_model(self.base), train, Ancestors())

    def store(self, model: Any, below: dict[str, str] | None = None, **base: Any) -> Artifact:
        from gtft.training.adapters import save_trained

        with stage_artifact(self.artifacts, "adapter") as staging:
            save_trained(model, staging.path)
            (staging.path / "README.md").unlink(missing_ok=True)
            write_json(staging.path / "base.json", {**self.base.as_dict(), **(below or {}), **base})
        return staging.result


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("adapters"))


def answer(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([list(range(5, 25))])).logits


def test_going_on_starts_where_the_earlier_adapter_stood(case: Case) -> None:
    import torch

    watch = Recorder()
    train = Train(lora=LORA, continues=case.role.id[:14])
    ancestors = case.find(train, watch)
    assert ancestors.ids == (case.role.id,)
    assert ancestors.as_dict() == {"continues": case.role.id}
    assert [code for code, _ in watch.warnings] == ["continues"]
    model = case.attach(train)
    assert torch.equal(answer(model), answer(case.make(Train(lora=LORA), 1)))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}


@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_task_on_top_of_a_role_is_what_peft_serves(case: Case, use_rslora: bool) -> None:
    """In training the role is part of the base; served, PEFT has both adapters active."""
    import torch
    from peft import PeftModel

    from gtft.training.base import load_model

    role = case.store(case.make(Train(lora=Lora(r=4, alpha=8, use_rslora=use_rslora)), 1))
    as_role = answer(case.make(Train(lora=Lora(r=4, alpha=8, use_rslora=use_rslora)), 1))
    train = Train(lora=Lora(r=2, alpha=8), stacks_on=role.id)
    model = case.make(train, 2)
    with model.disable_adapter():
        assert torch.equal(answer(model), as_role)
    assert not torch.equal(answer(model), as_role)
    assert all("default" in n for n, p in model.named_parameters() if p.requires_grad)
    task = case.store(model, case.find(train).below)
    served = PeftModel.from_pretrained(load_model(case.base), role.path, adapter_name="role")
    served.load_adapter(task.path, "task")
    served.base_model.set_adapter(["role", "task"])
    assert torch.allclose(answer(served), answer(model), atol=1e-6)


def test_evaluated_on_top_of_its_role_and_compared_with_it(case: Case) -> None:
    """What an eval loads: the role alone is the base that a task adapter is compared with."""
    import torch

    from gtft.evals.asking.load import Candidates, _attach
    from gtft.training.base import load_model

    train = Train(lora=LORA, stacks_on=case.role.id)
    model = case.make(train, 3)
    task = case.store(model, case.find(train).below)
    found = Candidates(_attach(load_model(case.base), task, case.role), None, 0, 0, stacked=True)
    with found.answering(as_base=False) as tuned:
        assert torch.allclose(answer(tuned), answer(model), atol=1e-6)
    with found.answering(as_base=True) as plain, model.disable_adapter():
        assert torch.allclose(answer(plain), answer(model), atol=1e-6)
    with found.answering(as_base=False) as tuned:
        assert torch.allclose(answer(tuned), answer(model), atol=1e-6)


def test_what_does_not_fit_is_refused_with_the_reason(case: Case) -> None:
    tall = Train(lora=Lora(r=2, alpha=8), stacks_on=case.role.id)
    task = case.store(case.make(tall, 2), case.find(tall).below)
    dora = case.store(case.make(Train(lora=Lora(r=4, alpha=8, use_dora=True)), 1))
    other = case.store(case.make(Train(lora=LORA), 5), id="sha256:" + "0" * 64, name="another")
    stored = case.store(case.make(Train(lora=LORA), 6), quantization="none")
    for train, reason in (
        (Train(lora=Lora(r=8, alpha=8), continues=case.role.id), "its r is 4, the recipe's is 8"),
        (Train(lora=Lora(r=4, alpha=4), continues=case.role.id), "its lora_alpha is 8"),
        (Train(lora=LORA, continues=dora.id), "its use_dora is True"),
        (Train(lora=Lora(r=2, alpha=8), continues=task.id), "it stands on adapter"),
        (Train(lora=LORA, continues=other.id), "it was trained on another"),
        (Train(lora=LORA, continues=stored.id), "it was trained on the base stored as none"),
        (Train(lora=LORA, stacks_on=task.id), "two floors are the most"),
        (Train(lora=LORA, stacks_on=dora.id), "it is a DoRA adapter"),
    ):
        with pytest.raises(TrainingError, match="does not fit this training") as e:
            case.find(train)
        assert reason in e.value.why
    few = Train(lora=Lora(r=4, alpha=8, target_modules=("q_proj",)), continues=case.role.id)
    with pytest.raises(TrainingError, match="does not fit") as e:
        case.attach(few)
    assert "the other does not" in e.value.why
    with pytest.raises(TrainingError, match="no module that"):
        case.attach(Train(lora=Lora(target_modules=("nowhere",))))


def test_a_role_of_other_layers_is_refused(case: Case) -> None:
    """Its files are whole and it names this base: they must fit all the same."""
    from safetensors.torch import load_file, save_file

    with stage_artifact(case.artifacts, "adapter") as staging:
        for entry in case.role.files:
            shutil.copy(case.role.file(entry.name), staging.path / entry.name)
        path = staging.path / "adapter_model.safetensors"
        weights = {n.replace("q_proj", "elsewhere"): w for n, w in load_file(path).items()}
        save_file(weights, path)
    with pytest.raises(TrainingError, match="does not fit") as e:
        case.attach(Train(lora=LORA, stacks_on=staging.result.id))
    assert "no such layer" in e.value.why


def test_an_unknown_adapter_is_told_with_those_that_are_there(case: Case) -> None:
    with pytest.raises(UsageError, match=r"train\.continues: no ids of kind adapter") as e:
        case.find(Train(continues="ffff"))
    assert case.role.id.removeprefix("sha256:")[:12] in e.value.why


def test_a_changed_adapter_is_refused(case: Case) -> None:
    spoiled = case.store(case.make(Train(lora=LORA), 9))
    path = spoiled.path / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(EvidenceError, match="has changed"):
        case.find(Train(lora=LORA, stacks_on=spoiled.id))


def test_full_training_of_a_large_base_is_refused_with_the_figure(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.training import adapters

    monkeypatch.setattr(adapters, "FULL_AT_MOST", 1000)
    with pytest.raises(TrainingError, match="too many to train all of them") as e:
        case._fresh(Train(adapter="full"))
    assert "16 bytes each" in e.value.why


def test_two_saved_adapters_have_the_same_configuration(case: Case, tmp_path: Path) -> None:
    """dora and rsLoRA reach PEFT under its own names."""
    from gtft.training.adapters import save_trained

    train = Train(lora=Lora(r=4, alpha=8, use_dora=True, use_rslora=True))
    save_trained(case.make(train, 1), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["use_dora"], config["use_rslora"], config["init_lora_weights"]) == (
        True,
        True,
        True,
    )


def make_world(root: Path) -> Artifact:
    """A corpus with everything that training and eval read: 12 examples, 3 held out, 24 pairs."""

    def example(n: int, about: str = "case") -> dict[str, Any]:
        words = " ".join(f"{chr(97 + (n * k) % 26)}{n * k}" for k in range(2, 8))
        answer = json.dumps({"action": ("mend", "wait")[n % 2], "reason": f"r{n}"})
        return {
            "id": f"ex-{n:016x}",
            "source": "claude-code",
            "cluster": f"session:{n}",
            "messages": [
                {"role": "user", "content": f"{about} {words}"},
                {"role": "assistant", "content": answer},
            ],
            "tools": [],
            "role": "witness",
        }

    def pair(n: int) -> dict[str, Any]:
        prompt, good = example(n, "another thing altogether than")["messages"]
        return {
            "prompt": [prompt],
            "chosen": [good],
            "rejected": [{"role": "assistant", "content": f"prose {n}"}],
            "tools": [],
            "why": "denied",
        }

    files = {
        "train.jsonl": [example(n) for n in range(5, 17)],
        "heldout.jsonl": [example(n) for n in range(1, 4)],
        "preferences.jsonl": [pair(n) for n in range(40, 64)],
    }
    with stage_artifact(root / "artifacts", "corpus") as staging:
        for name, rows in files.items():
            (staging.path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        (staging.path / "base.txt").write_text(TEXT)
    return staging.result


def run_train(root: Path, corpus: Artifact, name: str, **train: Any) -> Artifact:
    from gtft.workers.train import work

    return run_worker(work, make_job(root, corpus, name, max_steps=3, **train))


def run_eval(root: Path, corpus: Artifact, adapter: Artifact, name: str) -> dict[str, Any]:
    from gtft.workers.evaluate import work

    found = run_worker(
        work, make_eval_job(root, corpus, adapter, name, suites=["heldout"], max_new_tokens=40)
    )
    summary: dict[str, Any] = json.loads(found.file("summary.json").read_text())
    rows = [json.loads(x) for x in found.file("generations.jsonl").read_text().splitlines()]
    assert {r["candidate"] for r in rows} == {"base", "tuned"}
    return {"summary": summary, "outputs": {(r["candidate"], r["item"]): r["output"] for r in rows}}


def run_worker(work: Any, job: Path) -> Artifact:
    previous = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert carry_out(work, job) == 0, read_events(job)[-1]
    finally:
        signal.signal(signal.SIGTERM, previous[0])
        signal.signal(signal.SIGINT, previous[1])
    return verify_artifact(Path(read_events(job)[-1]["path"]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    root = tmp_path_factory.mktemp("world")
    return root, make_world(root)


def test_a_role_a_task_on_top_of_it_and_their_eval(world: tuple[Path, Artifact]) -> None:
    root, corpus = world
    lora = {"r": 4, "alpha": 8}
    role = run_train(root, corpus, "role", lora=lora)
    task = run_train(root, corpus, "task", lora=lora, stacks_on=role.id, method="dpo")
    assert sorted(task.parents) == sorted((corpus.id, role.id))
    summary = json.loads(task.file("summary.json").read_text())
    assert summary["stacks_on"] == role.id
    assert summary["rows"] == 24
    assert json.loads(task.file("base.json").read_text())["stacks_on"] == role.id
    config = json.loads(task.file("adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert json.loads(task.file("mask.json").read_text())["pairs"] == 24
    as_role = run_eval(root, corpus, role, "eval-role")["outputs"]
    as_task = run_eval(root, corpus, task, "eval-task")["outputs"]
    # What the task is compared with is the role as it answers by itself.
    for (candidate, item), text in as_role.items():
        if candidate == "tuned":
            assert as_task["base", item] == text


def test_full_training_ends_in_a_model_that_is_compared_with_its_base(
    world: tuple[Path, Artifact],
) -> None:
    from gtft.runner.evidence import _check_adapter

    root, corpus = world
    base = {"model": "nano", "nano": NANO, "quantization": "none"}
    given = {"base": base, "adapter": "full", "learning_rate": 1e-2, "lora": {}}
    full = run_train(root, corpus, "full", **given)
    names = {f.name for f in full.files}
    assert {"model.safetensors", "config.json", "tokenizer.json", "base.json"} <= names
    assert not {"adapter_config.json", "README.md", "training_args.bin"} & names
    _check_adapter(full)
    summary = json.loads(full.file("summary.json").read_text())
    assert "r" not in summary["adapter"]
    assert summary["loss"]["last"] < summary["loss"]["first"]
    assert run_train(root, corpus, "again", **given).id == full.id
    found = run_eval(root, corpus, full, "eval-full")
    assert any(
        found["outputs"]["base", item] != text
        for (candidate, item), text in found["outputs"].items()
        if candidate == "tuned"
    )
    spoiled = root / "spoiled"
    with stage_artifact(spoiled, "adapter") as staging:
        weights = next((root / "bases").glob("*/model.safetensors"))
        shutil.copy(weights, staging.path / "model.safetensors")
        shutil.copy(full.file("base.json"), staging.path / "base.json")
    with pytest.raises(EvidenceError, match="changes nothing"):
        _check_adapter(staging.result)


def test_a_run_that_goes_on_from_nothing_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the harvest, not after it."""
    from click.testing import CliRunner

    from gtft.cli.main import main

    monkeypatch.chdir(tmp_path)
    given = ["run", "mol-gtft-quickstart", "--set", "train.stacks_on=ffff"]
    with pytest.raises(UsageError, match=r"train\.stacks_on: there is no adapter yet"):
        CliRunner().invoke(main, given, catch_exceptions=False)
