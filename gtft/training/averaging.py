"""The one seam through which a training meets others: an averager, asked every H updates.

One process meets nobody; under torchrun the gradients are reduced already; a swarm meets its peers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback

from gtft.artifact import write_json
from gtft.errors import TrainingError
from gtft.training.watch import StopRequested, Watch

COMPANION = "swarm.json"
FAILURES_IN_A_ROW = 5
# A creator waits for its first peers: people start them by hand.
FAILURES_BEFORE_THE_FIRST = 60


@dataclass(frozen=True)
class Averaged:
    """A round that succeeded: the common tensors, who took part, rows of all members so far."""

    tensors: tuple[torch.Tensor, ...]
    members: tuple[str, ...]
    samples: int
    lineage: str
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A round that did not happen here. ``behind``: others are further, so this peer pulls."""

    reason: str
    behind: bool = False


@dataclass(frozen=True)
class Forked:
    """The group holds two histories. ``pull``: this peer's has fewer samples and gives way."""

    members: tuple[str, ...]
    reason: str
    pull: bool


@dataclass(frozen=True)
class Adopted:
    """The state of another peer, checked: fingerprint, round, shape, finiteness, norm."""

    tensors: tuple[torch.Tensor, ...]
    round: int
    samples: int
    lineage: str
    donor: str


@dataclass(frozen=True)
class Member:
    """Another peer as last heard of."""

    peer: str
    round: int
    samples: int


class Averager(Protocol):
    """Who a training averages with. Tensors are float32 on the CPU, in the order given to ``begin``."""

    rounds: int
    every: int

    def begin(
        self,
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
        companion: Mapping[str, Any] | None,
    ) -> Adopted | None: ...

    def due(self) -> bool: ...

    def average(
        self, tensors: Sequence[torch.Tensor], weight: int, round: int
    ) -> Averaged | Failed | Forked: ...

    def pull_state(self, min_round: int) -> Adopted | None: ...

    def finish(self) -> Adopted: ...

    def leaving(self) -> bool: ...

    def members(self) -> tuple[Member, ...]: ...

    def companion(self) -> dict[str, Any]: ...

    def evidence(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


class LocalAverager:
    """Nobody to average with: never due, and every round is what it was given."""

    rounds = 0
    every = 0

    def begin(
        self,
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
        companion: Mapping[str, Any] | None,
    ) -> Adopted | None:
        """Nothing to adopt."""
        return None

    def due(self) -> bool:
        """Nobody waits."""
        return False

    def average(
        self, tensors: Sequence[torch.Tensor], weight: int, round: int
    ) -> Averaged | Failed | Forked:
        """The tensors themselves."""
        return Averaged(tuple(tensors), (), weight, "", 0.0)

    def pull_state(self, min_round: int) -> Adopted | None:
        """Nobody has a state."""
        return None

    def finish(self) -> Adopted:
        """Raises TrainingError: there is no common end to wait for."""
        raise TrainingError("a training alone has no common adapter to wait for")

    def leaving(self) -> bool:
        """There is nothing to leave."""
        return False

    def members(self) -> tuple[Member, ...]:
        """Nobody."""
        return ()

    def companion(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def evidence(self) -> dict[str, Any]:
        """Nothing to prove."""
        return {}

    def close(self) -> None:
        """Nothing to close."""


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Meets the averager every H updates, or earlier when somebody waits; takes over what was agreed.

    A companion of `gtft.training.fit`: its file goes into every checkpoint. A failed round trains on
    and is tried again; FAILURES_IN_A_ROW of them raise TrainingError. Optimizer moments stay local.
    """

    def __init__(self, averager: Averager, watch: Watch, rows_per_step: int) -> None:
        self._averager = averager
        self._watch = watch
        self._rows_per_step = rows_per_step
        self._round = 0
        self._rows = 0
        self._since = 0
        self._failures = 0
        self._rounds_here = 0
        self._companion: dict[str, Any] | None = None
        self._left = ""
        self.trainer: Any = None

    def restore(self, folder: Path) -> None:
        """What the checkpoint that the run goes on from keeps of the swarm."""
        path = folder / COMPANION
        if path.is_file():
            self._companion = json.loads(path.read_text("utf-8"))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Join: a peer that is not the first takes the swarm's weights before its first step."""
        named = _trainable(kwargs["model"])
        adopted = self._averager.begin([n for n, _ in named], _copy_out(named), self._companion)
        self._round = int(self._averager.companion().get("round", 0))
        if adopted is not None:
            self._adopt(adopted, kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count this step's rows; at H, when called, or at the last step: meet."""
        if not self._averager.rounds:
            return
        self._rows += self._rows_per_step
        self._since += 1
        last = state.global_step >= state.max_steps
        if self._averager.due() or last or self._since >= self._averager.every:
            self._meet(state.global_step, kwargs)
        if last:
            self._meet_to_the_end(state.global_step, kwargs)
        if self._left:
            control.should_save = True
        if self._left or self._round >= self._averager.rounds:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Round, lineage and samples go into the checkpoint."""
        companion = self._averager.companion()
        if companion:
            write_json(
                Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPANION, companion
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the last round: everybody takes the same bytes. A run without them is not finished: raises
        StopRequested when it left, or was asked to stop, before the last round."""
        if not self._averager.rounds:
            return
        step = state.global_step
        if step >= state.max_steps:
            # Resumed at its last step, it has only the others left to wait for.
            self._meet_to_the_end(step, kwargs)
        if self._left:
            raise StopRequested(step, self._left)
        if self._round < self._averager.rounds:
            text = f"stopped in round {self._round + 1} of {self._averager.rounds}"
            raise StopRequested(step, text)
        adopted = self._averager.finish()
        _copy_in(_trainable(kwargs["model"]), adopted.tensors)

    def _meet_to_the_end(self, step: int, kwargs: Mapping[str, Any]) -> None:
        while (
            self._round < self._averager.rounds
            and not self._left
            and not self._watch.stop_requested
        ):
            self._meet(step, kwargs)

    def _meet(self, step: int, kwargs: Mapping[str, Any]) -> None:
        if self._watch.stop_requested or self._round >= self._averager.rounds:
            return
        named = _trainable(kwargs["model"])
        outcome = self._averager.average(_copy_out(named), self._rows, self._round + 1)
        self._since = 0
        if isinstance(outcome, Averaged):
            _copy_in(named, outcome.tensors)
            self._arrive(self._round + 1, kwargs)
            self._watch.metric(step, "swarm_members", float(len(outcome.members)))
            self._watch.metric(step, "swarm_samples", float(outcome.samples))
            self._watch.metric(step, "swarm_seconds", outcome.seconds)
        elif self._watch.stop_requested:
            return
        else:
            self._fail(step, outcome, kwargs)
        self._watch.metric(step, "swarm_round", float(self._round))
        if self._averager.leaving():
            # Saved first: what was trained since the last checkpoint is not lost.
            self._left = f"left the swarm after round {self._round}"

    def _fail(self, step: int, outcome: Failed | Forked, kwargs: Mapping[str, Any]) -> None:
        self._watch.warn("swarm-round", f"round {self._round + 1} at step {step}: {outcome.reason}")
        pull = outcome.pull if isinstance(outcome, Forked) else outcome.behind
        adopted = None
        if pull:
            floor = self._round if isinstance(outcome, Forked) else self._round + 1
            adopted = self._averager.pull_state(floor)
        if adopted is not None:
            self._watch.warn(
                "swarm-pull", f"took over round {adopted.round} from {adopted.donor[-8:]}"
            )
            self._adopt(adopted, kwargs)
            return
        self._failures += 1
        bound = FAILURES_IN_A_ROW if self._rounds_here or self._round else FAILURES_BEFORE_THE_FIRST
        if self._failures >= bound:
            raise TrainingError(
                f"this peer lost its swarm at round {self._round + 1} of {self._averager.rounds}",
                why=f"{self._failures} rounds in a row failed, or this peer was taken off the list; "
                f"the last reason: {outcome.reason}",
                fix="gtft swarm status (who is there), then gtft runs resume RUN",
            )

    def _adopt(self, adopted: Adopted, kwargs: Mapping[str, Any]) -> None:
        _copy_in(_trainable(kwargs["model"]), adopted.tensors)
        self._arrive(adopted.round, kwargs)

    def _arrive(self, number: int, kwargs: Mapping[str, Any]) -> None:
        self._round, self._rows, self._failures = number, 0, 0
        self._rounds_here += 1
        _align(kwargs.get("lr_scheduler"), number * self._averager.every)


def _trainable(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def _copy_out(named: Sequence[tuple[str, torch.nn.Parameter]]) -> list[torch.Tensor]:
    return [p.detach().to("cpu", torch.float32) for _, p in named]


def _copy_in(
    named: Sequence[tuple[str, torch.nn.Parameter]], tensors: Sequence[torch.Tensor]
) -> None:
    with torch.no_grad():
        for (_, parameter), tensor in zip(named, tensors, strict=True):
            parameter.copy_(tensor)


def _align(scheduler: Any, steps: int) -> None:
    """The learning rate follows the swarm's rounds, whenever this peer came in."""
    if scheduler is not None and scheduler.last_epoch != steps:
        scheduler.last_epoch = steps - 1
        scheduler.step()
