"""Figures for TensorBoard, MLflow and W&B (``train.report_to``), never in the way of a training.

Each library has a thread of its own and a queue that drops its oldest figures when the library does not
keep up. What a library does (hangs, raises, finds the disk full) is told as a warning, once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from gtft.training.watch import Watch

# name in the recipe → (module that must be there, what to install)
LIBRARIES = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "mlflow": ("mlflow", "mlflow"),
    "wandb": ("wandb", "wandb"),
}
# name in the recipe → a process that the library starts for itself
HELPERS = {"wandb": "wandb-core"}
# As many figures wait for a library at most; hours of a training.
QUEUE = 10_000
PROJECT = "gtft"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


# How long the libraries may take at the end, seconds; less when the box is wanted back.
CLOSE_SECONDS, STOP_SECONDS = 15.0, 2.0


class Logger(Protocol):
    """What a library is asked for, in a thread of its own."""

    def write(self, step: int, name: str, value: float) -> None: ...

    def close(self) -> None: ...


# Opens a library; it is given the first step that this attempt trained.
Opener = Callable[[int], Logger]


class Bridge:
    """Takes every figure at once and hands it on when the libraries are ready. Used by one thread."""

    def __init__(self, openers: Mapping[str, Opener], watch: Watch) -> None:
        self._channels = [_Channel(name, opener) for name, opener in openers.items()]
        self._watch = watch

    @classmethod
    def open(
        cls,
        names: Sequence[str],
        folder: Path,
        run_name: str,
        watch: Watch,
        environ: MutableMapping[str, str],
    ) -> Bridge:
        """A bridge to the named libraries; one that is not installed is told, and left out.

        ``folder``: where their files go, unless the user's environment names a server. Their own
        telemetry is switched off in ``environ``.
        """
        for key, value in _QUIET.items():
            environ.setdefault(key, value)
        openers: dict[str, Opener] = {}
        for name in dict.fromkeys(names):
            module, package = LIBRARIES[name]
            if importlib.util.find_spec(module) is None:
                text = f"{name} is not installed, so no figures go there: pip install {package}"
                watch.warn("report-missing", text)
                continue
            openers[name] = _choose_opener(name, folder, run_name, environ)
        return cls(openers, watch)

    def figure(self, step: int, name: str, value: float) -> None:
        """Returns at once, whatever the libraries do."""
        for channel in self._channels:
            channel.put((step, name, value))
        self._tell()

    def close(self, timeout: float) -> None:
        """Give the libraries ``timeout`` seconds for what waits; then say what they did not take."""
        end = time.monotonic() + timeout
        for channel in self._channels:
            channel.finish()
        for channel in self._channels:
            channel.join(max(0.0, end - time.monotonic()))
        self._tell()
        for channel in self._channels:
            if channel.is_stuck():
                _end_helper(channel.name)
            lost = channel.count_lost()
            if lost and not channel.failed:
                text = f"{channel.name} did not keep up: {lost} figures are only in metrics.jsonl"
                self._watch.warn("report-dropped", text)

    def _tell(self) -> None:
        # Here, not in the channels: a watch is for one thread.
        for channel in self._channels:
            if channel.failed and not channel.told:
                channel.told = True
                text = (
                    f"{channel.name} takes no more figures, the training goes on: {channel.failed}"
                )
                self._watch.warn("report-failed", text)


class Mirror:
    """A watch that passes everything on, and every figure to a bridge too."""

    def __init__(self, watch: Watch, bridge: Bridge) -> None:
        self._watch = watch
        self._bridge = bridge

    @property
    def stop_requested(self) -> bool:
        return self._watch.stop_requested

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None:
        self._watch.progress(done, total, unit, eta_s, note)

    def metric(self, step: int, name: str, value: float) -> None:
        self._watch.metric(step, name, value)
        self._bridge.figure(step, name, value)

    def checkpoint(self, path: str, step: int) -> None:
        self._watch.checkpoint(path, step)

    def warn(self, code: str, text: str) -> None:
        self._watch.warn(code, text)


@contextlib.contextmanager
def mirror(
    names: Sequence[str],
    folder: Path,
    run_name: str,
    watch: Watch,
    environ: MutableMapping[str, str],
) -> Iterator[Watch]:
    """A watch whose figures also go to the named libraries, as `Bridge.open` says; ``watch`` itself when
    there are none, and in every process of a shared training but the first."""
    if not names or environ.get("RANK", "0") != "0":
        yield watch
        return
    bridge = Bridge.open(names, folder, run_name, watch, environ)
    try:
        yield Mirror(watch, bridge)
    finally:
        bridge.close(STOP_SECONDS if watch.stop_requested else CLOSE_SECONDS)


class _Channel:
    """One library, its queue and its thread. The thread is a daemon: it keeps no process alive."""

    def __init__(self, name: str, opener: Opener) -> None:
        self.name = name
        # Why the library was given up; empty while it works.
        self.failed = ""
        self.told = False
        self._opener = opener
        self._dropped = 0
        self._waiting: deque[tuple[int, str, float]] = deque()
        self._finished = False
        # Held for moments only, never while the library works.
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"figures-{name}", daemon=True)
        self._started = False
        self._first_step = 0

    def put(self, figure: tuple[int, str, float]) -> None:
        with self._change:
            if self.failed or self._finished:
                return
            if len(self._waiting) >= QUEUE:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(figure)
            self._change.notify()
        if not self._started and figure[0] > 0:
            # Not while a training prepares itself (step 0): a swarm forks its processes then, best
            # without threads, and where a resumed one goes on is not known yet.
            self._started = True
            self._first_step = figure[0]
            self._thread.start()

    def finish(self) -> None:
        with self._change:
            self._finished = True
            self._change.notify()

    def join(self, timeout: float) -> None:
        if self._started:
            self._thread.join(timeout)

    def is_stuck(self) -> bool:
        """The library still works on what it was given."""
        return self._thread.is_alive()

    def count_lost(self) -> int:
        """Figures that were dropped, and those that still wait or are being written; not those of a
        training that never made a step."""
        if not self._started:
            return 0
        with self._change:
            return self._dropped + len(self._waiting) + self.is_stuck()

    def _take(self) -> tuple[int, str, float] | None:
        with self._change:
            while not self._waiting:
                if self._finished:
                    return None
                self._change.wait()
            return self._waiting.popleft()

    def _work(self) -> None:
        logger: Logger | None = None
        try:
            while (figure := self._take()) is not None:
                logger = logger or self._opener(self._first_step)
                logger.write(*figure)
            if logger is not None:
                logger.close()
        except BaseException as e:  # noqa: BLE001 - whatever a library raises, it must not reach the training
            with self._change:
                self.failed = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
                self._waiting.clear()
            if logger is not None:
                with contextlib.suppress(Exception):
                    logger.close()


def _end_helper(name: str) -> None:
    """End the process that a stuck library waits for when ours exits."""
    helper = HELPERS.get(name)
    for child in psutil.Process().children() if helper else ():
        with contextlib.suppress(psutil.Error):
            if child.name() == helper:
                child.kill()


def _choose_opener(name: str, folder: Path, run_name: str, environ: Mapping[str, str]) -> Opener:
    match name:
        case "tensorboard":
            return lambda step: _TensorBoard(folder / name, step)
        case "mlflow":
            where = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
            return lambda step: _Mlflow(folder, where, run_name)
        case _:
            mode = environ.get("WANDB_MODE", "offline")
            return lambda step: _Wandb(folder, mode, run_name)


class _TensorBoard:
    """Torch's own writer. After a resume, TensorBoard hides what was written of later steps before."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=10)

    def write(self, step: int, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Mlflow:
    """Through the client, not the global run: that one would be ended again when the process exits."""

    def __init__(self, folder: Path, where: str, run_name: str) -> None:
        from mlflow.tracking import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=where)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self._run: str = self._client.create_run(experiment, run_name=run_name).info.run_id

    def write(self, step: int, name: str, value: float) -> None:
        self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _Wandb:
    """Offline unless WANDB_MODE says otherwise; no code, no system figures, no console."""

    def __init__(self, folder: Path, mode: str, run_name: str) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        logging.getLogger("wandb").setLevel(logging.ERROR)
        settings = wandb.Settings(
            console="off",
            save_code=False,
            disable_git=True,
            silent=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run: Any = wandb.init(
            project=PROJECT, name=run_name, dir=str(folder), mode=mode, settings=settings
        )
        # The step as a figure of its own: after a resume W&B refuses its own step to go back.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, name: str, value: float) -> None:
        self._run.log({"step": step, name: value})

    def close(self) -> None:
        self._run.finish()
