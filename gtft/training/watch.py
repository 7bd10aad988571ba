"""Who watches a training: told of progress and figures, and able to ask it to stop."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """What training needs of the worker's reporter."""

    @property
    def stop_requested(self) -> bool: ...

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None: ...

    def metric(self, step: int, name: str, value: float) -> None: ...

    def checkpoint(self, path: str, step: int) -> None: ...

    def warn(self, code: str, text: str) -> None: ...


class StopRequested(Exception):
    """Training was asked to stop; what it had done up to ``step`` is saved."""

    def __init__(self, step: int | None, text: str) -> None:
        super().__init__(text)
        self.step = step
        self.text = text
