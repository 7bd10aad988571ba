"""Reading exercises for the nano base: what any pretrained base can do before it is fine-tuned.

A real base can find a line, repeat it, write JSON and call a tool. A few thousand short chats made of a town's own
words teach the nano base the same; none of them is a transcript and none decides anything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gtft.training.nano_text import END_TURN, START_TURN, escape_special

_LINE_CHARS = (12, 90)


@dataclass(frozen=True)
class Piece:
    """A stretch of training text; ``trained`` False for what is only read."""

    text: str
    trained: bool


Exercise = tuple[Piece, ...]


def compose_exercises(documents: Sequence[str], seed: int) -> Iterator[Exercise]:
    """Endless exercises on the lines and words of the documents; the same seed gives the same ones."""
    dice = random.Random(seed)  # noqa: S311 - it draws exercises, not secrets
    lines = _collect_lines(documents)
    words = sorted({w for line in lines for w in line.split() if w.isalpha() and len(w) < 12})
    if len(lines) < 8 or len(words) < 8:
        return
    while True:
        match dice.randrange(4):
            case 0:
                yield _find(dice, lines)
            case 1:
                yield _to_json(dice, lines, words)
            case 2:
                yield _call(dice, lines)
            case _:
                yield _call_and_find(dice, lines)


def _find(dice: random.Random, lines: list[str]) -> Exercise:
    shown, answer, clue = _draw(dice, lines)
    listed = "\n".join(f"- {line}" for line in shown)
    return (*_turn("user", f"{listed}\nWhich line says {clue}?"), *_answer(answer))


def _to_json(dice: random.Random, lines: list[str], words: list[str]) -> Exercise:
    keys = dice.sample(words, dice.randint(1, 3))
    pairs = {key: _snippet(dice, dice.choice(lines), 6) for key in keys}
    listed = "\n".join(f"{k}: {v}" for k, v in pairs.items())
    answer = json.dumps(pairs, ensure_ascii=False)
    if dice.random() < 0.3:
        answer = f"```json\n{answer}\n```"
        listed += "\nAs JSON, fenced."
    else:
        listed += "\nAs JSON."
    return (*_turn("user", listed), *_answer(answer))


def _call(dice: random.Random, lines: list[str]) -> Exercise:
    command = dice.choice(lines)
    return (*_turn("user", f"Run {command}"), *_answer(_write_call(command)))


def _call_and_find(dice: random.Random, lines: list[str]) -> Exercise:
    shown, answer, clue = _draw(dice, lines)
    command = _snippet(dice, dice.choice(lines), 4)
    return (
        *_turn("user", f"Run {command}\nWhich line says {clue}?"),
        *_answer(_write_call(command)),
        *_turn("tool", "\n".join(shown)),
        *_answer(answer),
    )


def _draw(dice: random.Random, lines: list[str]) -> tuple[list[str], str, str]:
    """Some lines, one of them, and a clue that only that one holds."""
    while True:
        shown = dice.sample(lines, dice.randint(2, 7))
        answer = dice.choice(shown)
        clue = _snippet(dice, answer, 2)
        if sum(clue in line for line in shown) == 1:
            return shown, answer, clue


def _snippet(dice: random.Random, line: str, most: int) -> str:
    words = line.split()
    start = dice.randrange(len(words))
    return " ".join(words[start : start + dice.randint(1, most)])


def _write_call(command: str) -> str:
    call = {"name": "Bash", "arguments": {"command": command}}
    return f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"


def _turn(role: str, text: str) -> Exercise:
    return (Piece(f"{START_TURN}{role}\n{text}{END_TURN}\n{START_TURN}assistant\n", False),)


def _answer(text: str) -> Exercise:
    return (Piece(f"{text}{END_TURN}", True), Piece("\n", False))


def _collect_lines(documents: Sequence[str]) -> list[str]:
    low, high = _LINE_CHARS
    return sorted(
        {
            line
            for document in documents
            for raw in document.splitlines()
            if low <= len(line := escape_special(raw.strip(" \t-*#|"))) <= high
        }
    )
