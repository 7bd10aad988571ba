"""The live picture of a run: drawn again in place, good without colour and in plain ASCII."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gtft.cli.sight import Sight, describe_change
from gtft.cli.training import describe_training
from gtft.contract import Checkpoint, Event
from gtft.records.rows import StageRow
from gtft.runner.figures import (
    Figures,
    Training,
    clean_text,
    draw_line,
    mark_columns,
    say_seconds,
    summarize,
)

_BAR = 28
_LINE = 48
_RAMP, _PLAIN_RAMP = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_WARNINGS = 3
# While nothing is new, only what is left counts down.
_REDRAW_SECONDS = 2.0
# Files that did not change for so long: say so, once a step should have been reported.
_SILENT_SECONDS = 60.0


class Screen:
    """A face of `gtft.cli.watch`. What should stay scrolls above the picture."""

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._clock = clock
        self._shown = False
        self._drawn = 0.0
        self._state: tuple[str, ...] = ()

    def show(self, sight: Sight, events: list[tuple[str, Event]]) -> None:
        state = (sight.state, sight.waiting, sight.away)
        idle = self._shown and not events and state == self._state
        if idle and self._clock() - self._drawn < _REDRAW_SECONDS:
            return
        self._state, self._drawn = state, self._clock()
        for stage, event in events:
            # The past is in the picture; so are checkpoints, as marks.
            if self._shown and not isinstance(event, Checkpoint):
                text = describe_change(stage, event)
                if text:
                    self._live.console.print(Text(text))
        self._shown = True
        self._live.update(draw(sight, ascii_only=_is_ascii(self._live.console)), refresh=True)

    def end(self, sight: Sight, last_words: str) -> None:
        self._live.stop()
        # Never broken into lines: it ends with a command.
        self._live.console.print(Text(last_words), soft_wrap=True)


@contextmanager
def open_screen() -> Iterator[Screen]:
    """The terminal is left in order whatever happens inside."""
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield Screen(live)


def draw(sight: Sight, *, ascii_only: bool) -> Group:
    """One picture. Every text of others in it is cleaned."""
    state = sight.state if not sight.away else f"{sight.state}, {clean_text(sight.away)}"
    head = Text(
        f"{sight.run}  {clean_text(sight.recipe, 60)} for {clean_text(sight.role, 40)}", "bold"
    )
    lines = [head, Text(state if sight.is_active else f"{state}; next: {clean_text(sight.next)}")]
    lines += [_draw_stage(r, sight, ascii_only=ascii_only) for r in sight.stages]
    figures = sight.figures["train"]
    training = summarize(figures)
    if training is not None:
        lines += _draw_training(figures, training, ascii_only=ascii_only)
    warned = [w for f in sight.figures.values() for w in f.warnings]
    lines += [
        Text(f"! {clean_text(w.code, 60)}: {clean_text(w.text, 160)}", "yellow")
        for w in warned[-_WARNINGS:]
    ]
    return Group(*lines)


def _draw_stage(row: StageRow, sight: Sight, *, ascii_only: bool) -> Text:
    progress = sight.figures[row.stage].progress
    state = row.state + (f" ({row.reason})" if row.reason else "")
    text = f"{row.stage:<8} {state:<16}"
    if row.state == "active" and sight.waiting:
        return Text(f"{text} waits: {clean_text(sight.waiting)}")
    if row.state != "active" or progress is None:
        return Text(text.rstrip(), "dim" if row.state == "done" else "")
    if progress.total:
        full = min(_BAR, _BAR * max(0, progress.done) // progress.total)
        done, todo = ("#", ".") if ascii_only else ("█", "░")
        text += f"{done * full}{todo * (_BAR - full)} "
    total = f"/{progress.total}" if progress.total is not None else ""
    text += f"{progress.done}{total} {clean_text(progress.unit, 20)}"
    if sight.eta_s is not None:
        text += f", about {say_seconds(sight.eta_s)} left"
    if progress.note:
        text += f", {clean_text(progress.note, 80)}"
    if sight.silent_s > _SILENT_SECONDS:
        text += f" (nothing new for {say_seconds(sight.silent_s)})"
    return Text(text)


def _draw_training(figures: Figures, training: Training, *, ascii_only: bool) -> list[Text]:
    lines: list[Text] = [Text("")]
    points = figures.points("loss")
    steps = [s for s, _ in points]
    for name, value in describe_training(training):
        lines.append(Text(f"{name:<9} {value if not ascii_only else value.replace('→', '->')}"))
        if name == "loss" and len(points) > 1:
            ramp = _PLAIN_RAMP if ascii_only else _RAMP
            lines.append(Text(f"{'':<9} {draw_line([v for _, v in points], _LINE, ramp)}"))
            marks = mark_columns(steps, training.checkpoints, _LINE)
            if marks:
                lines.append(Text(f"{'':<9} {marks}  (^ checkpoint)"))
    return lines


def _is_ascii(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")
