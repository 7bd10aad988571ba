"""``gtft review``: evidence that waits for a witness: list, show, blind, approve, reject."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.blind import command as blind
from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import clip, emit, json_option, print_table

if TYPE_CHECKING:
    from gtft.evals.library import Answered


@click.group(
    "review",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  gtft review\n  gtft review show ft-1.3\n"
    "  gtft review approve ft-1.3 --as witness",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Evidence that waits for a witness: list, show, approve, reject."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@command.command("list", epilog="\b\nExample:\n  gtft review list --json")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """What waits, and who did the work."""
    from gtft.runner.review import list_waiting

    rows = list_waiting(open_here(ctx))
    data = [
        {"bead": r.bead_id, "run": r.run_id, "worker": r.worker, "artifact": r.artifact_id}
        for r in rows
    ]

    def render() -> None:
        print_table(
            ("bead", "run", "worker", "eval"),
            [(r.bead_id, r.run_id, r.worker, short_id(r.artifact_id or "")) for r in rows],
            empty="nothing waits for a review.",
        )

    emit(data, as_json, render)


@command.command(
    "show", epilog="\b\nExample:\n  gtft review show ft-1.3\n  gtft review show ft-1.3 -n 20"
)
@click.argument("bead")
@click.option("-n", "--worst", type=click.IntRange(min=0), default=5, show_default=True)
@json_option
@click.pass_context
def show(ctx: click.Context, bead: str, worst: int, as_json: bool) -> None:
    """The evidence, hashed again now: the verdict, the worst failures, and every safety item."""
    from gtft.artifact import read_artifact
    from gtft.cli.eval import echo_verdict, print_item
    from gtft.evals.item import SAFETY
    from gtft.evals.library import read_answers
    from gtft.evals.pick import find_worst
    from gtft.runner.review import find_waiting, gather_evidence

    ws = open_here(ctx)
    row = find_waiting(ws, bead)
    seen = gather_evidence(ws, row)
    found = read_artifact(Path(seen["artifacts"][-1]["path"]))
    answered = read_answers(found)
    safety = [a for a in answered if a.item.capability == SAFETY]
    failed = find_worst(answered, worst)
    data = {
        **seen,
        "safety": [_describe(a) for a in safety],
        "worst": [_describe(a) for a in failed],
    }

    def render() -> None:
        click.echo(f"eval of {row.run_id}, done by {row.worker}; bead {row.bead_id}\n")
        for a in seen["artifacts"]:
            click.echo(f"  {a['stage']:<8} {short_id(a['id'])}  hash holds  {a['path']}")
        click.echo("")
        echo_verdict(found, ws.path)
        click.echo(f"\nThe {len(failed)} worst failures\n")
        for answer in failed:
            print_item(answer)
        passed = sum(bool(a.tuned["passed"]) for a in safety)
        click.echo(f"Every safety item: tuned passes {passed} of {len(safety)}\n")
        # What failed first: it is what the witness must see.
        for answer in sorted(safety, key=lambda a: bool(a.tuned["passed"])):
            _print_safety(answer)
        click.echo(f"decide: gtft review approve {row.bead_id} --as witness")
        click.echo(f'        gtft review reject {row.bead_id} --as witness --reason "…"')

    emit(data, as_json, render)


def _print_safety(a: Answered) -> None:
    asked = " ".join((a.item.messages[-1].get("content") or "").split())
    told = "pass" if a.tuned["passed"] else f"FAIL ({a.tuned['reason']})"
    click.echo(f"── {a.item.id}  {a.item.suite} · {a.item.template}: {clip(told, 160)}")
    click.echo(f"asked:  {clip(asked, 240)}")
    click.echo(f"tuned:  {clip(' '.join(a.tuned['output'].split()), 240)}\n")


def _describe(a: Answered) -> dict[str, Any]:
    return {"item": a.item.to_json(), "base": a.base, "tuned": a.tuned}


command.add_command(blind)


@command.command("approve", epilog="\b\nExample:\n  gtft review approve ft-1.3 --as witness")
@click.argument("bead")
@as_option
@click.option("--note", default="", help="A word for the record.")
@json_option
@click.pass_context
def approve(ctx: click.Context, bead: str, actor: str | None, note: str, as_json: bool) -> None:
    """Accept the eval; the card can then be written."""
    from gtft.runner.review import approve as approve_row
    from gtft.runner.review import find_waiting

    ws = open_here(ctx)
    row = find_waiting(ws, bead)
    done = approve_row(ws, row, get_actor(actor), note)

    def render() -> None:
        click.echo(f"{done.bead_id} approved by {done.reviewer}. Next: gtft run {done.run_id}")

    emit({"bead": done.bead_id, "run": done.run_id, "reviewer": done.reviewer}, as_json, render)


@command.command(
    "reject", epilog='\b\nExample:\n  gtft review reject ft-1.3 --as witness --reason "unsafe"'
)
@click.argument("bead")
@as_option
@click.option("--reason", default="", help="Why; required.")
@json_option
@click.pass_context
def reject(ctx: click.Context, bead: str, actor: str | None, reason: str, as_json: bool) -> None:
    """Refuse the eval; the run ends as rejected."""
    from gtft.runner.review import find_waiting
    from gtft.runner.review import reject as reject_row

    ws = open_here(ctx)
    row = find_waiting(ws, bead)
    ended = reject_row(ws, row, get_actor(actor), reason)

    def render() -> None:
        click.echo(f"{row.run_id} is rejected: {reason}")

    emit({"run": row.run_id, "rejected": [s.stage for s in ended]}, as_json, render)
