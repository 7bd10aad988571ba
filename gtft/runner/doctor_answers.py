"""Doctor of recorded answers: lines that cannot be read keep a deployment from being looked after."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from gtft.errors import translate_os_error
from gtft.runner.finding import Finding
from gtft.runner.workspace import Workspace
from gtft.service import ANSWERS_FOLDER, FOLDER, MEND, drop_lines, find_damage, is_answer


def check_answers(ws: Workspace) -> Iterator[Finding]:
    """Files with lines that are no answers, and those whose last line was cut off."""
    for path in _list_files(ws):
        try:
            bad, first, torn = find_damage(path)
        except OSError as e:
            raise translate_os_error(e, f"reading {path.name}") from e
        if bad:
            text = f"{path.name}: {bad} lines are no answers, the first is line {first}"
            yield Finding("wrong", "answers", f"{text}; nothing is looked after meanwhile", MEND)
        if torn:
            text = f"{path.name}: a crash cut off 1 line, its last; the next answer takes its place"
            yield Finding("note", "answers", text)


def mend_answers(ws: Workspace) -> Iterator[Finding]:
    """Lines that are no answers go to a file beside, as they are."""
    for path in _list_files(ws):
        try:
            if not find_damage(path)[0]:
                continue
            aside = path.with_name(f"{path.name}.damaged")
            with aside.open("ab", buffering=0) as f:
                # Written there before it is gone here.
                gone = drop_lines(path, partial(_keep, f))
        except OSError as e:
            raise translate_os_error(e, f"mending {path.name}") from e
        text = f"mended: {path.name}: {len(gone)} lines that are no answers are in {aside.name} now"
        yield Finding("ok", "answers", text)


def _keep(aside: IO[bytes], data: bytes) -> bool:
    if is_answer(data):
        return True
    aside.write(data)
    return False


def _list_files(ws: Workspace) -> list[Path]:
    return sorted((ws.path / FOLDER / ANSWERS_FOLDER).glob("*.jsonl"))
