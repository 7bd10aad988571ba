"""``gtft model export``: a model in the format of another program, proven to answer as it did."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from gtft.artifact import short_id
from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option
from gtft.runner.exporting import DTYPES, FORMATS, QUANTS


@click.command("export")
@click.argument("name", metavar="MODEL")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What to make.")
@click.option(
    "--quant",
    type=click.Choice(QUANTS),
    default=QUANTS[0],
    show_default=True,
    help="Of GGUF files.",
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default=DTYPES[0],
    show_default=True,
    help="Of merged weights.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also a copy in this new folder.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Ask adapter and export the same, and keep the export only if it answers alike.",
)
@as_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    form: str,
    quant: str,
    dtype: str,
    out: Path | None,
    verify: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Export a model: a PEFT folder, merged weights, GGUF, a LoRA for llama.cpp, or for Ollama.

    The export stands on the shelf (gtft model show MODEL) with what was measured; its README says how to run it.

    \b
    gtft model export witness --format merged
    gtft model export witness --format gguf --quant q8_0 --out ../witness-gguf
    gtft model export witness-1a2b3c4d5e6f --format adapter --json
    """
    from gtft.models.registry import find_model, trace_lineage
    from gtft.runner.exporting import Wanted, check_out, export_model, place_copy
    from gtft.shelf import read_document

    ws = open_here(ctx)
    found = trace_lineage(ws.store, find_model(ws.store, name))
    if out is not None:
        check_out(out)
    made = export_model(
        ws,
        found.model,
        ws.artifact_path(found.adapter.path),
        Wanted(form, dtype, quant, verify),
        root=Path(found.run.root),
        environ=os.environ,
        listen=_Lines(quiet=as_json),
        actor=get_actor(actor),
        card=ws.artifact_path(found.card.path),
    )
    if out is not None:
        place_copy(made, out)
    figures = read_document(made, "summary.json")
    data = {**figures, "id": made.id, "path": str(made.path), "out": str(out) if out else None}
    emit(data, as_json, lambda: _print(data))


class _Lines:
    """What is under way, on stderr: one line that changes on a terminal, one per step elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._last = quiet, ""
        self._live = sys.stderr.isatty()

    def __call__(self, doing: str, done: int, total: int) -> None:
        if self._quiet or (doing == self._last and not self._live):
            return
        count = f" {done} of {total}" if total and self._live else ""
        click.echo(
            f"\r\x1b[K{doing}{count} …" if self._live else f"{doing} …", err=True, nl=not self._live
        )
        self._last = doing


def _print(data: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    kind = f" {data['dtype']}" if data["dtype"] else ""
    click.echo(f"{data['format']}{kind} of {data['model']}: {short_id(data['id'])}")
    click.echo(f"  size      {data['bytes'] / 1e6:.1f} MB, {len(data['files'])} files")
    if data["verified"]:
        click.echo(f"  verified  on {data['runtime']}, over {data['compared_tokens']} tokens")
        click.echo(
            f"  KL        {data['kl_mean']:.2g} nats per token, {data['kl_max']:.2g} at most"
        )
        click.echo(f"  top token the same at {data['top1_agreement']:.1%}")
        click.echo(f"  greedy    {data['greedy_equal']} of {data['greedy_prompts']} answers equal")
        for d in data["differences"][:1]:
            gap = "" if d["gap"] is None else f", a tie within {d['gap']:.2g} nats"
            click.echo(
                f"            first difference: {d['prompt']}, token {d['position']}: "
                f"{d['expected']!r}, the export {d['got']!r}{gap}"
            )
    else:
        click.echo("  verified  no: nobody compared it with the adapter")
    for note in data["notes"]:
        click.echo(f"  note      {note}")
    click.echo(f"  where     {data['out'] or data['path']}")
    click.echo(f"\nNext: how to run it stands in {Path(data['out'] or data['path']) / 'README.md'}")
