"""What ``gtft corpus redact`` reads, shows and counts."""

from __future__ import annotations

import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from gtft.errors import translate_os_error

if TYPE_CHECKING:
    from gtft.corpus.redaction.redactor import RedactionConfig
    from gtft.corpus.redaction.rule import Rule

# Files together smaller than this are read faster than a bar is seen.
_WORTH_A_BAR = 8 << 20


def show_redaction(
    ctx: click.Context, names: Sequence[str], rule_files: Sequence[Path], as_json: bool
) -> list[dict[str, Any]]:
    """Prints the redacted texts, or gives them back with their spans for ``--json``."""
    from gtft.corpus.redaction.show import Shown

    key, cache = _find_key(ctx)
    shown = Shown(key, _read_rules(rule_files), cache)
    # Standard input cannot be read twice.
    stdin = sys.stdin.buffer.read() if "-" in names else b""
    size = len(stdin) + sum(_measure(n) for n in names if n != "-")
    out: list[dict[str, Any]] = []
    with _progress(2 * size) as report:
        for name in names:
            with _open(name, stdin) as file:
                shown.learn(file, report)
        for name in names:
            with _open(name, stdin) as file:
                spots = 0
                texts: list[str] = []
                spans: list[dict[str, Any]] = []
                text = ""
                for text, found in shown.show(file, report):
                    spots += len(found)
                    if as_json:
                        texts.append(text)
                        spans += [s.as_dict() for s in found]
                    else:
                        click.echo(text, nl=False)
            if as_json:
                out.append({"file": name, "spans": spans, "text": "".join(texts)})
            else:
                click.echo("", nl=bool(text) and not text.endswith("\n"))
                click.echo(f"{name}: {spots} replaced", err=True)
    return out


def _find_key(ctx: click.Context) -> tuple[bytes, Path | None]:
    """The workspace's key, so that placeholders are those of its corpora, and its cache; else a key for this
    call alone."""
    from gtft.corpus.governance.withdrawal import KEY_FILE
    from gtft.corpus.redaction.redactor import KEY_BYTES, load_key
    from gtft.runner.workspace import locate_workspace

    workspace = locate_workspace(ctx.find_root().obj, Path.cwd(), os.environ)
    path = workspace / KEY_FILE
    if not path.exists():
        return secrets.token_bytes(KEY_BYTES), None
    return load_key(path), workspace / "cache" / "harvest"


def _read_rules(paths: Sequence[Path]) -> RedactionConfig:
    from gtft.corpus.redaction.redactor import RedactionConfig
    from gtft.corpus.redaction.rule_files import read_rule_file

    rules: list[Rule] = []
    for path in paths:
        read = read_rule_file(path)
        rules += read.rules
        for line in read.left_out:
            click.echo(f"{path.name}: {line}", err=True)
    return RedactionConfig(rules=tuple(rules))


def _measure(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError as e:
        raise translate_os_error(e, f"reading {name}") from e


@contextmanager
def _open(name: str, stdin: bytes) -> Iterator[BinaryIO]:
    if name == "-":
        yield io.BytesIO(stdin)
        return
    try:
        with Path(name).open("rb") as file:
            yield file
    except OSError as e:
        raise translate_os_error(e, f"reading {name}") from e


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for long work in front of somebody."""
    if size < _WORTH_A_BAR or not sys.stderr.isatty():
        yield lambda n: None
        return
    with click.progressbar(length=size, file=sys.stderr, label="redacting") as bar:
        yield bar.update
