"""``gtft model compare``: models side by side, from the store alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gtft.cli.context import open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import UsageError

if TYPE_CHECKING:
    from gtft.models.comparison import Column, SideBySide

MOST = 3


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="A B [C]")
@json_option
@click.pass_context
def compare(ctx: click.Context, models: tuple[str, ...], as_json: bool) -> None:
    """Two or three models side by side: base, corpus, recipe, results with 95 % intervals, service, size.

    Each was measured when it was made, on the items of its own run: to measure both on the same items, name the
    other in eval.models of a recipe.

    \b
    gtft model compare witness@stable witness
    gtft model compare witness-1a2b3c4d5e6f witness-a1b2c3d4e5f6 --json
    """
    from gtft.models.comparison import compare_models
    from gtft.models.registry import find_model

    ws = open_here(ctx)
    if not 2 <= len(models) <= MOST:
        raise UsageError(
            f"two or three models are compared, not {len(models)}", fix="gtft model compare A B"
        )
    found = [find_model(ws.store, name) for name in models]
    if len({m.id for m in found}) < len(found):
        raise UsageError(
            "a model is compared with another one",
            why=", ".join(f"{n} is {m.name}" for n, m in zip(models, found, strict=True)),
            fix="gtft model list",
        )
    side = compare_models(ws.store, found)
    emit(_describe(side), as_json, lambda: _print(side))


def _describe(side: SideBySide) -> dict[str, Any]:
    columns = []
    for c in side.columns:
        row = asdict(c)
        del row["settings"]
        columns.append(row | {"model": c.model.name, "status": c.model.status})
    return {"models": columns, "recipe": side.recipe}


def _print(side: SideBySide) -> None:
    names = [c.model.name for c in side.columns]
    rows = [(title, *(tell(c) for c in side.columns)) for title, tell in _ROWS]
    print_table(("", *names), rows, "")
    scored = [(name, *(_tell_score(c, name) for c in side.columns)) for name in side.measured]
    click.echo()
    print_table(("passed, and over its base", *names), scored, "")
    click.echo()
    rows = [
        (k, *("-" if v is None else str(v) for v in values)) for k, values in side.recipe.items()
    ]
    print_table(("recipe", *names), rows, "the recipes are the same")


def _tell_score(c: Column, name: str) -> str:
    s = c.scores.get(name)
    if s is None:
        return "-"
    return f"{s.share:.0%} [{s.low:.0%}, {s.high:.0%}] of {s.n}, {s.gain:+.0%}"


def _tell_service(c: Column) -> str:
    return (
        "; ".join(
            f"{d['mode']} for {d['role']}: {d['reason'] or d['state']}{_tell_figures(d['figures'])}"
            for d in c.deployments
        )
        or "never"
    )


def _tell_figures(figures: dict[str, Any]) -> str:
    told = [f"{k} {v:g}" for k, v in sorted(figures.items()) if isinstance(v, int | float)]
    return f" ({', '.join(told)})" if told else ""


def _tell_exports(c: Column) -> str:
    told = []
    for kind, e in c.exports.items():
        size = "" if e["bytes"] is None else f" {e['bytes'] / 1e6:.1f} MB"
        kl = "KL not measured" if e["kl"] is None else f"KL {e['kl']:.2g}"
        told.append(f"{kind}{size}, {kl}")
    return "; ".join(told) or "none"


_ROWS: tuple[tuple[str, Callable[[Column], str]], ...] = (
    ("role and version", lambda c: f"{c.model.role} {c.model.version}"),
    ("status", lambda c: c.model.status),
    ("base", lambda c: c.base),
    ("corpus", lambda c: f"{c.train} examples, {c.heldout} held out"),
    ("last loss", lambda c: f"{c.loss_last:.3f}"),
    ("weights", lambda c: "-" if c.bytes is None else f"{c.bytes / 1e6:.1f} MB"),
    ("gates", lambda c: "met" if c.gates_met else "not all met"),
    ("advice of the eval", lambda c: c.advice or "-"),
    ("service", _tell_service),
    ("exports", _tell_exports),
)

COMMANDS: tuple[click.Command, ...] = (compare,)
