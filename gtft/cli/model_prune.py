"""``gtft model prune``: what may be removed, and removing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table

if TYPE_CHECKING:
    from gtft.models.retention import Piece, Pruning

KEEP = 3


@click.command()
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=0),
    default=KEEP,
    show_default=True,
    help="The newest N models of each role stay.",
)
@click.option(
    "--older-than",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Younger ones stay too.",
)
@click.option("--corpora", is_flag=True, help="Also corpora that no kept model was trained on.")
@click.option("--dry-run", is_flag=True, help="Say what would be freed.  [default without --yes]")
@click.option("--yes", is_flag=True, help="Remove it.")
@as_option
@json_option
@click.pass_context
def prune(
    ctx: click.Context,
    keep: int,
    older_than: float,
    corpora: bool,
    dry_run: bool,
    yes: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Remove adapters, exports and checkpoints of models that nobody uses, and bases that none needs.

    What is deployed, what rollback --to goes back to, what an alias or pin means, and what any of these was trained
    from always stays. Cards and evals stay, and so does the model's row: gtft model why goes on to answer. Refused
    while an export is being made. Stopped in the middle, the same command goes on.

    \b
    gtft model prune --dry-run
    gtft model prune --keep 2 --older-than 30 --dry-run
    gtft model prune --keep 2 --older-than 30 --yes
    """
    from gtft.models.retention import Rules, plan_pruning
    from gtft.models.retention import prune as carry_out

    ws = open_here(ctx)
    rules = Rules(keep, older_than, corpora)
    plan = plan_pruning(ws.store, ws.path, rules, now_us=ws.store.now_us())
    work = bool(plan.removals or plan.besides)
    data = _describe(plan) | {"dry_run": dry_run or not yes}
    if dry_run or not yes or not work:
        emit(data, as_json, lambda: _print(plan))
        return

    def tell(piece: Piece) -> None:
        if not as_json:
            click.echo(f"removed {piece.path}  {_size(piece.bytes)}")

    freed = carry_out(ws.store, ws.path, plan, actor=get_actor(actor), tell=tell)
    emit(data | {"freed": freed}, as_json, lambda: click.echo(f"freed {_size(freed)}"))


def _describe(plan: Pruning) -> dict[str, Any]:
    return {
        "bytes": plan.bytes,
        "models": [
            {
                "model": r.model.name,
                "status": r.model.status,
                "bytes": r.bytes,
                "stopped_before": r.noted,
                "pieces": [_piece(p) for p in r.pieces],
            }
            for r in plan.removals
        ],
        "besides": [_piece(p) for p in plan.besides],
        "kept": [{"model": m.name, "why": why} for m, why in plan.kept],
    }


def _piece(p: Piece) -> dict[str, Any]:
    return {"what": p.what, "path": p.path, "bytes": p.bytes, "artifact": p.artifact or None}


def _print(plan: Pruning) -> None:
    rows = [
        (r.model.name if n == 0 else "", p.what, p.path, _size(p.bytes))
        for r in plan.removals
        for n, p in enumerate(r.pieces)
    ]
    rows += [("", p.what, p.path, _size(p.bytes)) for p in plan.besides]
    rows += [
        (r.model.name, "nothing is left of it", "", _size(0)) for r in plan.removals if not r.pieces
    ]
    print_table(("model", "what", "folder", "size"), rows, "nothing to remove")
    for m, why in plan.kept:
        click.echo(f"stays: {m.name}: {why}")
    if rows:
        click.echo(f"\nwould free {_size(plan.bytes)}. Next: the same with --yes")


def _size(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"


COMMANDS: tuple[click.Command, ...] = (prune,)
