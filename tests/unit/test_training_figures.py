"""The bridge to TensorBoard and others: whatever a library does, a training does not notice."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import gtft.training.figures as module
from gtft.training.figures import Bridge, mirror
from training_case import Recorder

PATIENCE = 30.0


class Logger:
    """A library that keeps what it is given."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.written: list[tuple[int, str, float]] = []
        self.closed = False

    def write(self, step: int, name: str, value: float) -> None:
        self.written.append((step, name, value))

    def close(self) -> None:
        self.closed = True


def test_figures_arrive_in_order_and_the_library_is_closed() -> None:
    made: list[Logger] = []

    def open_logger(first_step: int) -> Logger:
        made.append(Logger(first_step))
        return made[0]

    watch = Recorder()
    bridge = Bridge({"x": open_logger}, watch)
    bridge.figure(0, "base_seconds", 4.0)
    for n in range(5, 50):
        bridge.figure(n, "loss", 1.0 / n)
    bridge.close(PATIENCE)
    [logger] = made
    assert logger.written[0] == (0, "base_seconds", 4.0)
    assert logger.written[1:] == [(n, "loss", 1.0 / n) for n in range(5, 50)]
    assert (logger.first_step, logger.closed, watch.warnings) == (5, True, [])


def test_nothing_is_opened_before_the_first_step() -> None:
    opened: list[int] = []
    watch = Recorder()
    bridge = Bridge({"x": lambda step: opened.append(step) or Logger(step)}, watch)
    before = threading.active_count()
    bridge.figure(0, "base_seconds", 4.0)
    assert threading.active_count() == before
    bridge.close(PATIENCE)
    assert (opened, watch.warnings) == ([], [])


@pytest.mark.parametrize("where", ["open", "write", "close"])
def test_a_library_that_hangs_stops_neither_the_training_nor_its_end(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE", 100)
    forever, hung = threading.Event(), threading.Event()

    class Hanging(Logger):
        def __init__(self, first_step: int) -> None:
            super().__init__(first_step)
            self._hang("open")

        def write(self, step: int, name: str, value: float) -> None:
            self._hang("write")

        def close(self) -> None:
            self._hang("close")

        def _hang(self, here: str) -> None:
            if here == where:
                hung.set()
                forever.wait()

    watch = Recorder()
    other = Logger(0)
    bridge = Bridge({"bad": Hanging, "good": lambda _step: other}, watch)
    for n in range(1, 1001):
        bridge.figure(n, "loss", 0.0)
        while where == "close" and n - len(other.written) > 50:
            threading.Event().wait(0.001)
    bridge.close(1.0)
    assert hung.wait(PATIENCE)
    codes = [(c, t.partition(" did not")[0]) for c, t in watch.warnings if t.startswith("bad")]
    assert codes == [("report-dropped", "bad")]
    lost = int(watch.warnings[0][1].split(": ")[1].split()[0])
    # The queue, what was dropped from it, and the one in hand.
    assert lost >= (1 if where == "close" else 998)
    forever.set()


def test_a_library_that_hangs_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading\n"
        "from gtft.training.figures import Bridge\n"
        "class Watch:\n"
        "    def warn(self, code, text): print(code)\n"
        "bridge = Bridge({'x': lambda step: threading.Event().wait()}, Watch())\n"
        "bridge.figure(1, 'loss', 1.0)\n"
        "bridge.close(0.1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "report-dropped\n"


def test_the_oldest_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 10)
    go, entered, logger = threading.Event(), threading.Event(), Logger(0)

    def open_late(_step: int) -> Logger:
        entered.set()
        go.wait(PATIENCE)
        return logger

    watch = Recorder()
    bridge = Bridge({"x": open_late}, watch)
    bridge.figure(1, "loss", 0.0)
    assert entered.wait(PATIENCE)
    for n in range(2, 102):
        bridge.figure(n, "loss", 0.0)
    go.set()
    bridge.close(PATIENCE)
    assert [s for s, _, _ in logger.written] == [1, *range(92, 102)]
    [(code, text)] = watch.warnings
    assert (code, text) == (
        "report-dropped", "x did not keep up: 90 figures are only in metrics.jsonl"
    )  # fmt: skip


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SystemExit(3)])
def test_a_library_that_raises_is_told_once_and_left_alone(error: BaseException) -> None:
    tries: list[int] = []

    class Full(Logger):
        def write(self, step: int, name: str, value: float) -> None:
            tries.append(step)
            raise error

    watch = Recorder()
    bridge = Bridge({"x": Full}, watch)
    for n in range(1, 201):
        bridge.figure(n, "loss", 0.0)
    bridge.close(PATIENCE)
    bridge.figure(201, "loss", 0.0)
    assert tries == [1]
    [(code, text)] = watch.warnings
    assert code == "report-failed"
    assert text.startswith("x takes no more figures, the training goes on: ")
    assert type(error).__name__ in text


def test_a_library_that_is_not_there_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.LIBRARIES, "wandb", ("not_installed_anywhere", "wandb"))
    watch, environ = Recorder(), {"WANDB_SILENT": "false"}
    bridge = Bridge.open(("wandb",), tmp_path, "run-1", watch, environ)
    bridge.figure(1, "loss", 1.0)
    bridge.close(PATIENCE)
    assert watch.warnings == [
        ("report-missing", "wandb is not installed, so no figures go there: pip install wandb")
    ]
    assert environ["WANDB_ERROR_REPORTING"] == "false", "no telemetry of its own"
    assert environ["WANDB_SILENT"] == "false", "what the user has set stays"
    assert list(tmp_path.iterdir()) == []


def test_a_mirrored_watch_hears_everything_and_closes_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, watch = Logger(0), Recorder()
    monkeypatch.setattr(module, "_choose_opener", lambda *_: lambda _step: logger)
    with (
        pytest.raises(ValueError, match="a bug"),
        mirror(("tensorboard",), tmp_path, "run-1", watch, {}) as mirrored,
    ):
        mirrored.metric(3, "loss", 1.5)
        mirrored.checkpoint("x", 3)
        mirrored.warn("code", "text")
        mirrored.progress(3, 9, "steps", None, "note")
        assert mirrored.stop_requested is False
        raise ValueError("a bug")
    assert logger.written == watch.metrics == [(3, "loss", 1.5)]
    assert logger.closed
    assert (watch.checkpoints, watch.warnings, watch.notes) == ([3], [("code", "text")], ["note"])


@pytest.mark.parametrize(
    ("names", "environ"), [((), {}), (("tensorboard",), {"RANK": "1", "WORLD_SIZE": "2"})]
)
def test_without_a_library_the_watch_is_the_watch(
    tmp_path: Path, names: tuple[str, ...], environ: dict[str, str]
) -> None:
    watch = Recorder()
    with mirror(names, tmp_path, "run-1", watch, environ) as mirrored:
        assert mirrored is watch


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    """The real library: what it wrote is read back by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = Recorder()
    for first, last, value in ((1, 8, 1.0), (5, 10, 2.0)):
        bridge = Bridge.open(("tensorboard",), tmp_path / "figures", "run-1", watch, {})
        # Before the first step, in each attempt.
        bridge.figure(0, "base_seconds", 4.0)
        for n in range(first, last + 1):
            bridge.figure(n, "loss", value)
        bridge.close(PATIENCE * 4)
    assert watch.warnings == []
    read = EventAccumulator(str(tmp_path / "figures" / "tensorboard"))
    read.Reload()
    found = [(e.step, e.value) for e in read.Scalars("loss")]
    assert found == [(n, 1.0) for n in range(1, 5)] + [(n, 2.0) for n in range(5, 11)]
