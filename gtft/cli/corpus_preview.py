"""What ``gtft corpus preview`` prints: examples as messages, or token by token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

# Tokens of a run of context that are shown at either end without --full.
_SHOWN = 40
# Importing the libraries takes seconds on a busy box, minutes on a drowning one.
_TIMEOUT_S = 300.0
_COLOURS: dict[str, dict[str, Any]] = {
    "trained": {"fg": "green", "bold": True},
    "masked": {"fg": "yellow"},
    "context": {"dim": True},
}
_SEAM = "·"


def ask_tokens(base: Path, max_length: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples as token rows, from the preview worker. Raises what the worker reports."""
    from gtft.errors import WorkerFailed, find_kind

    request = json.dumps({"base": str(base), "max_length": max_length, "examples": rows})
    failed = "the preview worker ended without an answer"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gtft.workers.preview"],
            input=request,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise WorkerFailed(
            failed, why=f"none within {_TIMEOUT_S:.0f} s", fix="try again with a smaller -n"
        ) from e
    answers = []
    for line in done.stdout.splitlines():
        answer = json.loads(line) if line.startswith("{") else {}
        if error := answer.get("error"):
            raise find_kind(error["kind"])(error["what"], why=error["why"], fix=error["fix"])
        if answer:
            answers.append(answer)
    if done.returncode or len(answers) != len(rows):
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise WorkerFailed(failed, why=escape(last[0])[:300], fix="gtft doctor")
    return answers


def render_tokens(examples: list[dict[str, Any]], base: str, full: bool) -> None:
    """Each row with its totals, then a line for each stretch of one kind, the kind in front."""
    click.echo(
        f"base {escape(base)}; {_SEAM} stands between two tokens; ↵ is a line break in a token\n"
        "trained = carries loss, context = is read, masked = an answer that this row does not train\n"
    )
    for e in examples:
        for number, row in enumerate(e["rows"], start=1):
            cut = f", {row['cut_messages']} messages cut" if row["cut_messages"] else ""
            weight = f", weight {row['weight']:g}" if row["weight"] != 1 else ""
            click.echo(
                f"── {e['id']}  row {number} of {len(e['rows'])}: {row['tokens']} tokens = "
                f"{row['supervised']} trained in {row['turns']} turn{'s' * (row['turns'] != 1)} + "
                f"{row['context']} context{cut}{weight}"
            )
            for piece in row["pieces"]:
                for line in _lines(piece, full):
                    click.echo(
                        click.style(f"{piece['kind']:<7} │ {line}", **_COLOURS[piece["kind"]])
                    )
            click.echo()
        if not e["rows"]:
            click.echo(f"── {e['id']}  trains nothing: {escape('; '.join(e['causes']))}\n")
        elif e["causes"]:
            click.echo(f"   not trained: {escape('; '.join(e['causes']))}\n")


def render_messages(rows: list[dict[str, Any]]) -> None:
    """Each example with its roles and calls; the turns that carry loss are marked."""
    for r in rows:
        side = r["side"]
        origin = r["origin"]
        click.echo(
            f"── {r['id']}  {r['source']}  role {r['role'] or 'unknown'}  rig {r['rig'] or 'unknown'}  "
            f"{escape(origin['file'])}:{origin['lines'][0]}-{origin['lines'][1]}"
            f"{'' if side == 'train' else '  held out'}"
        )
        for m in r["messages"]:
            trained = side == "train" and m["role"] == "assistant"
            click.echo(f"{'[trained] ' if trained else '          '}{m['role']}:")
            for line in m["content"].splitlines():
                click.echo(f"            {escape(line)}")
            for c in m.get("tool_calls", ()):
                f = c["function"]
                arguments = json.dumps(f["arguments"], ensure_ascii=False)
                click.echo(f"            call {escape(f['name'])} {escape(arguments)}")
        click.echo()


def escape(text: str) -> str:
    """Text without control, invisible, direction or unassigned characters: they are spelled out."""
    return "".join(c if _is_plain(c) else _spell(c) for c in text)


def _lines(piece: dict[str, Any], full: bool) -> Iterator[str]:
    """A run of one kind as lines; a line ends where a token has a line break."""
    tokens = piece["tokens"]
    left_out = 0
    if not full and piece["kind"] != "trained" and len(tokens) > 2 * _SHOWN:
        left_out = sum(n for _, n in tokens[_SHOWN:-_SHOWN])
        yield from _break(tokens[:_SHOWN])
        yield f"… {left_out} tokens …"
        tokens = tokens[-_SHOWN:]
    yield from _break(tokens)


def _break(tokens: list[list[Any]]) -> Iterator[str]:
    line: list[str] = []
    for text, _ in tokens:
        shown = "".join("↵" if c == "\n" else escape(c) for c in text)
        line.append(shown)
        if "\n" in text:
            yield _SEAM.join(line)
            line = []
    if line:
        yield _SEAM.join(line)


def _is_plain(char: str) -> bool:
    return unicodedata.category(char)[0] not in "CZ" or char == " "


def _spell(char: str) -> str:
    return {"\t": "\\t", "\r": "\\r", "\n": "\\n"}.get(char) or f"\\u{{{ord(char):x}}}"
