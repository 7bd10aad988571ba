"""What every command shares: one JSON envelope, tables that read well without colour."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help='Print one JSON object: {"ok": true, "data": …}.'
)


def emit(data: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print ``data`` in the envelope, or call ``render`` for people."""
    if as_json:
        click.echo(json.dumps({"ok": True, "data": data}, ensure_ascii=False, default=str))
    else:
        render()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table on a terminal, tab-separated lines otherwise; ``empty`` when there are no rows."""
    if not rows:
        click.echo(empty)
        return
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(str(c) for c in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for c in columns:
        table.add_column(c, overflow="fold")
    for row in rows:
        table.add_row(*[str(c) for c in row])
    Console().print(table)


def clip(text: str, most: int) -> str:
    """One screenful, without control characters that a terminal would obey; further lines are set in."""
    clean = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    clean = clean if len(clean) <= most else f"{clean[:most]} … ({len(clean)} characters)"
    return clean.replace("\n", "\n        ")
