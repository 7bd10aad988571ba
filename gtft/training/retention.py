"""What a training keeps: measured while it runs, and the weights that were best before they got worse.

A measurement reads a few rows that are never trained on: the loss on the corpus's own kept-out rows, and on
general rows the loss and how far the model has moved from its base (the adapter switched off). It leaves no
trace in the training: no random number is drawn, and bitsandbytes' repacking in eval mode is off
(`gtft.training.base.guard_linear4bit`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from gtft.artifact import hash_file, hash_json, write_json
from gtft.errors import TrainingError, translate_os_error
from gtft.recipe.schema import Retention as Wanted
from gtft.training.adapters import is_full
from gtft.training.kl import Base, Reading, measure
from gtft.training.measurement import Measurement, find_forgetting, find_overfitting, judge
from gtft.training.render import Row
from gtft.training.trainer import Dice, find_meeting_place, list_trainable, stop_hard
from gtft.training.validation import pick_measured
from gtft.training.watch import Watch

STATE = "retention.json"
BEST = "best_trained.safetensors"
# Fewer kept-out rows than this are measured and shown, but neither stop a training nor choose its weights.
TELLING_ROWS = 8


class Finished(Exception):
    """The training had ended early before it was resumed: there is no step left to do."""


class Retention(TrainerCallback):  # type: ignore[misc]
    """Measures, stops early, keeps the best weights, warns. A companion of `gtft.training.fit`.

    ``general`` and ``validation`` are rows that are not trained on; at most ``wanted.rows`` of each are read.
    ``text`` is the id of the general text, of which other parts may be replayed. Put it before the callback that seals checkpoints, and after one that changes weights. With ``decides``
    False it only measures and warns: peers of a swarm must end with the same weights.
    """

    def __init__(
        self,
        wanted: Wanted,
        general: Sequence[Row],
        validation: Sequence[Row],
        watch: Watch,
        *,
        text: str = "",
        decides: bool = True,
    ) -> None:
        self.trainer: Any = None
        self._text = text
        self._may_decide = decides
        self._wanted = wanted
        self._general = pick_measured(general, wanted.rows)
        self._validation = pick_measured(validation, wanted.rows)
        self._watch = watch
        self._measured: tuple[Measurement, ...] = ()
        self._base: dict[str, float | None] = {}
        self._told: tuple[str, ...] = ()
        self._stopped = ""
        self._best: Path | None = None
        self._bases = {"general": Base(), "validation": Base()}

    @property
    def stopped(self) -> str:
        """Why the training ended before its last step, or ""."""
        return self._stopped

    @property
    def kept_step(self) -> int | None:
        """The step whose weights the artifact gets; None = those of the last one."""
        return judge(self._measured).best if self._decides else None

    def as_dict(self) -> dict[str, Any]:
        """What ``summary.json`` holds of it."""

        def rounded(value: float | None) -> float | None:
            return None if value is None else round(value, 6)

        return {
            "rows": {"general": len(self._general), "validation": len(self._validation)},
            "base": {k: rounded(v) for k, v in sorted(self._base.items())},
            "measurements": [
                {k: v if k == "step" else rounded(v) for k, v in asdict(m).items()}
                for m in self._measured
            ],
            "kept_step": self.kept_step,
            "stopped": self._stopped,
            "warnings": list(self._told),
        }

    def restore(self, folder: Path) -> None:
        """Go on from a verified checkpoint. Raises TrainingError when it replayed or measured other rows."""
        path = folder / STATE
        if not path.is_file():
            self._watch.warn(
                "retention-state", f"{folder.name} holds no measurements; they begin again"
            )
            return
        doc = json.loads(path.read_text("utf-8"))
        if doc["rows"] != self._identify():
            raise TrainingError(
                f"{folder.name} was replayed or measured on other rows",
                why="the general text (train.retention.general) has changed since the run began",
                fix="put it back as it was, or start a new run: gtft run RECIPE",
            )
        self._measured = tuple(Measurement(**m) for m in doc["measured"])
        self._base = dict(doc["base"])
        self._told = tuple(doc["told"])
        self._stopped = str(doc["stopped"])
        if doc["best"] is not None:
            # A copy of our own: rotation will remove the checkpoint.
            self._best = self._name_best(int(doc["best"]["step"]))
            _copy(folder / BEST, self._best)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if 0 < len(self._validation) < TELLING_ROWS:
            self._warn_once(
                "validation-small",
                f"{len(self._validation)} rows are kept out, too few to tell (from {TELLING_ROWS} on they do): "
                "they are measured, but neither stop the training nor choose its weights",
            )
        # Also the measurement that a request to stop cut short.
        if self._is_due(args, state) and not any(
            m.step == state.global_step for m in self._measured
        ):
            self._measure(args, state, kwargs["model"])
        if self._stopped:
            raise Finished

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_due(args, state) and self._measure(args, state, kwargs["model"]):
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Into the checkpoint's folder: what was measured, and the best weights. Sealed with it."""
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        verdict = judge(self._measured)
        best = None
        if self._best is not None:
            _copy(self._best, folder / BEST)
            best = {"step": verdict.best, "sha256": hash_file(folder / BEST)}
        write_json(
            folder / STATE,
            {
                "format": 1,
                "rows": self._identify(),
                "measured": [asdict(m) for m in self._measured],
                "base": self._base,
                "told": list(self._told),
                "stopped": self._stopped,
                "worse": verdict.worse,
                "best": best,
            },
        )

    def finish(self, model: Any) -> None:
        """Put the best weights into the model, when they are not its last ones. For the end of a training."""
        if self._best is None or self.kept_step == self.trainer.state.global_step:
            return
        from safetensors.torch import load_file

        kept = load_file(self._best)
        with torch.no_grad():
            for name, parameter in list_trainable(model):
                parameter.copy_(kept[name])
        self._watch.progress(
            self.trainer.state.global_step,
            self.trainer.state.max_steps,
            "steps",
            None,
            f"the weights of step {self.kept_step} are kept: the lowest loss on kept-out rows",
        )

    @property
    def _decides(self) -> bool:
        return self._may_decide and len(self._validation) >= TELLING_ROWS

    def _is_due(self, args: Any, state: Any) -> bool:
        if not (self._general or self._validation):
            return False
        every = self._wanted.measure_steps or args.save_steps
        return bool(state.global_step % every == 0 or state.global_step == state.max_steps)

    def _measure(self, args: Any, state: Any, model: Any) -> bool:
        """One measurement; True when it ends the training. Cut short by a request to stop it leaves nothing."""
        step, last = state.global_step, state.global_step == state.max_steps
        self._watch.progress(step, state.max_steps, "steps", None, "measuring what it keeps")

        # The last one is not dropped: nothing comes after it that could make up for it.
        def give_up() -> bool:
            return not last and not _is_shared() and self._watch.stop_requested

        readings: dict[str, Reading | None] = {}
        with undisturbed(model, bf16=args.bf16):
            for name, rows in (("general", self._general), ("validation", self._validation)):
                reading = measure(model, rows, self._bases[name], give_up) if rows else None
                if rows and reading is None:
                    return False
                if reading is not None and not math.isfinite(reading.loss):
                    raise stop_hard(f"the {name} loss became {reading.loss}", step, self.trainer)
                readings[name] = reading
        general, validation = _agree(readings["general"]), _agree(readings["validation"])
        if not self._measured:
            self._base = {
                "general_loss": _find_base_loss(general, model, step),
                "validation_loss": _find_base_loss(validation, model, step),
            }
        measurement = Measurement(
            step,
            _mean_loss(state, self._measured[-1].step if self._measured else 0),
            validation.loss if validation else None,
            validation.kl if validation else None,
            general.loss if general else None,
            general.kl if general else None,
        )
        self._measured += (measurement,)
        self._report(measurement)
        return self._decide(state, model)

    def _report(self, m: Measurement) -> None:
        values = asdict(m)
        for name in ("validation_loss", "validation_kl", "general_loss", "general_kl"):
            if values[name] is not None:
                self._watch.metric(m.step, name, values[name])
        base = self._base.get("general_loss")
        if base is not None:
            self._watch.metric(m.step, "general_loss_base", base)
        if told := find_forgetting(m, base):
            self._warn_once("forgetting", told)
        few = len(self._validation) < TELLING_ROWS
        if not few and (told := find_overfitting(self._measured)):
            self._warn_once("overfitting", told)

    def _decide(self, state: Any, model: Any) -> bool:
        if not self._decides:
            return False
        verdict = judge(self._measured)
        step = state.global_step
        if verdict.best == step:
            self._keep(model, step)
        patience = self._wanted.patience
        if not patience or verdict.worse < patience or step in (0, state.max_steps):
            return False
        self._stopped = (
            f"stopped at step {step} of {state.max_steps}: {verdict.worse} measurements in a row without a "
            f"lower loss on kept-out rows; the weights of step {verdict.best} are kept"
        )
        self._warn_once("stopped-early", self._stopped)
        return True

    def _keep(self, model: Any, step: int) -> None:
        from safetensors.torch import save_file

        path = self._name_best(step)
        if self.trainer.state.is_world_process_zero:
            aside = path.with_name(f".{path.name}.tmp")
            weights = {n: p.detach().cpu().contiguous() for n, p in list_trainable(model)}
            try:
                save_file(weights, aside)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
            for other in path.parent.glob("step-*.safetensors"):
                if other != path:
                    other.unlink()
        self._best = path

    def _name_best(self, step: int) -> Path:
        folder = Path(self.trainer.args.output_dir) / "best"
        folder.mkdir(exist_ok=True)
        return folder / f"step-{step}.safetensors"

    def _identify(self) -> str:
        rows = [
            [r.example, list(r.input_ids), [list(s) for s in r.spans]]
            for r in (*self._general, *self._validation)
        ]
        return hash_json([self._text, rows])

    def _warn_once(self, code: str, text: str) -> None:
        if code not in self._told:
            self._told += (code,)
            self._watch.warn(code, text)


@contextlib.contextmanager
def undisturbed(model: Any, *, bf16: bool) -> Iterator[None]:
    """Eval mode within; mode of every module and random states are as before afterwards."""
    dice = Dice.read()
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    device = next(model.parameters()).device.type
    try:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            yield
    finally:
        for module, training in modes:
            module.training = training
        dice.restore()


def _find_base_loss(reading: Reading | None, model: Any, step: int) -> float | None:
    """A full training has no adapter to switch off: what it measures before its first step is the base's."""
    if reading is None:
        return None
    if is_full(model):
        return reading.loss if step == 0 else None
    return reading.base_loss


def _mean_loss(state: Any, since: int) -> float | None:
    """Of the steps from ``since`` on whose loss is logged; the one of this step comes later."""
    losses = [
        float(e["loss"])
        for e in state.log_history
        if "loss" in e and since <= int(e["step"]) < state.global_step
    ]
    return sum(losses) / len(losses) if losses else None


def _is_shared() -> bool:
    # A build of torch without the module has no is_initialized.
    return bool(torch.distributed.is_available()) and bool(torch.distributed.is_initialized())


def _agree(reading: Reading | None) -> Reading | None:
    """With several processes the first one's figures, so that all of them decide alike."""
    if reading is None or not _is_shared():
        return reading
    values = [reading.loss, reading.base_loss, reading.kl]
    shared = torch.tensor(
        [math.nan if v is None else v for v in values],
        dtype=torch.float64,
        device=find_meeting_place(),
    )
    torch.distributed.broadcast(shared, src=0)
    loss, base, kl = (None if math.isnan(v) else v for v in shared.tolist())
    return Reading(math.nan if loss is None else loss, base, kl, reading.tokens)


def _copy(path: Path, to: Path) -> None:
    # Each process of a shared training copies for itself.
    aside = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(path, aside)
        aside.replace(to)
    except OSError as e:
        aside.unlink(missing_ok=True)
        raise translate_os_error(e, "keeping the best weights") from e
