"""``gtft corpus consent | forget | withdrawals``: whose data it is, and what stays out."""

from __future__ import annotations

import re
import shutil
import uuid
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import as_option, get_actor, open_here
from gtft.cli.output import emit, json_option, print_table
from gtft.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gtft.contract import Withdrawal
    from gtft.corpus.governance.kept import Taken
    from gtft.records.rows import ConsentRow, IncidentRow, ModelRow
    from gtft.runner.workspace import Workspace

_RIG = re.compile(r"[\w][\w.-]{0,99}")
_KINDS = ("session", "actor", "email", "rig", "bead")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")


@click.group("consent", invoke_without_command=True)
@json_option
@click.pass_context
def consent(ctx: click.Context, as_json: bool) -> None:
    """Which rigs have agreed that others train on their data. A run may always use its own rig's.

    \b
    gtft corpus consent                             # list
    gtft corpus consent grant harbor --until 2027-01-31
    gtft corpus consent revoke harbor
    """
    if ctx.invoked_subcommand is None:
        _list_consents(open_here(ctx), as_json)


@consent.command("list")
@json_option
@click.pass_context
def consent_list(ctx: click.Context, as_json: bool) -> None:
    """Every consent, revoked ones too.

    \b
    gtft corpus consent list --json
    """
    _list_consents(open_here(ctx), as_json)


def _list_consents(ws: Workspace, as_json: bool) -> None:
    from gtft.records.governance import Governance

    today = _today(ws)
    rows = [
        {**asdict(c), "state": _say_state(c, today)} for c in Governance(ws.store).list_consents()
    ]

    def render() -> None:
        print_table(
            ("rig", "state", "until", "for models of", "given by", "entered by", "on"),
            [
                (
                    r["rig"],
                    r["state"],
                    r["until"] or "revoked",
                    r["purpose"] or "any role",
                    r["given_by"],
                    r["actor"],
                    _say_day(r["created_us"]),
                )
                for r in rows
            ],
            "no rig has given consent: a run uses the data of its own rig, and what names none",
        )

    emit({"consents": rows, "today": today}, as_json, render)


@consent.command()
@click.argument("rig")
@click.option("--by", "given_by", metavar="WHO", help="Who agreed.  [default: who acts]")
@click.option("--until", metavar="DATE", default="", help="The last day it holds (YYYY-MM-DD).")
@click.option("--purpose", metavar="ROLE", default="", help="Only for models of this role.")
@as_option
@_dry_run
@json_option
@click.pass_context
def grant(
    ctx: click.Context,
    rig: str,
    given_by: str | None,
    until: str,
    purpose: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Record that RIG has agreed: runs of other rigs may harvest its data.

    People and the mayor may speak for any rig, an agent for its own.

    \b
    gtft corpus consent grant harbor --by harbor/crew/ann
    gtft corpus consent grant harbor --until 2027-01-31 --purpose witness
    """
    from gtft.records.governance import Governance
    from gtft.records.rows import ConsentRow

    ws = open_here(ctx)
    who = get_actor(actor)
    _check_rig(ws, rig)
    _check_speaker(who, rig)
    if until and _check_day(until) < _today(ws):
        raise UsageError(f"--until {until} is over already", fix="give a day that is to come")
    row = ConsentRow(
        id=uuid.uuid4().hex[:12],
        rig=rig,
        until=until,
        purpose=purpose,
        given_by=given_by or who,
        actor=who,
        created_us=ws.store.now_us(),
    )
    if not dry_run:
        Governance(ws.store).add_consent(row)
    terms = f"until {until}" if until else "until it is revoked"
    aim = f"for models of role {purpose}" if purpose else "for models of any role"

    def render() -> None:
        would = "would be recorded" if dry_run else "recorded"
        click.echo(f"{would}: rig {rig} agrees {terms}, {aim} (given by {row.given_by})")

    emit({"consent": asdict(row), "dry_run": dry_run}, as_json, render)


@consent.command()
@click.argument("rig")
@as_option
@_dry_run
@json_option
@click.pass_context
def revoke(ctx: click.Context, rig: str, actor: str | None, dry_run: bool, as_json: bool) -> None:
    """Take back every consent of RIG: later harvests leave its data out.

    What was harvested before stays; to withdraw that too: gtft corpus forget RIG --kind rig

    \b
    gtft corpus consent revoke harbor
    """
    from gtft.records.governance import Governance

    ws = open_here(ctx)
    who = get_actor(actor)
    _check_speaker(who, rig)
    store = Governance(ws.store)
    standing = [c for c in store.list_consents(standing=True) if c.rig == rig]
    if not standing:
        raise ConflictError(
            f"rig {rig} has no consent to revoke",
            why="none was given, or it was revoked before",
            fix="gtft corpus consent",
        )
    if not dry_run:
        store.revoke_consents(rig, who)

    def render() -> None:
        click.echo(f"{'would be revoked' if dry_run else 'revoked'}: {len(standing)} of rig {rig}")
        click.echo(f"what is harvested already stays: gtft corpus forget {rig} --kind rig")

    emit({"revoked": [c.id for c in standing], "dry_run": dry_run}, as_json, render)


@click.command()
@click.argument("who")
@click.option("--kind", type=click.Choice(_KINDS), help="What WHO is.  [default: by its form]")
@click.option("--reason", default="", help="A word for the register; no personal data.")
@as_option
@_dry_run
@json_option
@click.pass_context
def forget(
    ctx: click.Context,
    who: str,
    kind: str | None,
    reason: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Leave WHO (a session, actor, e-mail, rig or bead) out of every later harvest.

    Lists the corpora that hold such examples and the models trained on them. Weights that are trained
    already are not unlearned: retrain, and take the old model out of use. Answers and preferences that
    were recorded beside such sessions are removed, and no eval asks an item made from one any more.
    E-mails and the names of people are kept as keyed hashes only.

    \b
    gtft corpus forget ann@example.com --dry-run
    gtft corpus forget gizmo/crew/ann --reason "asked to"
    gtft corpus forget 4f1c2e8a-0b7d-4c7e-9d7e-1a2b3c4d5e6f --kind session
    """
    from gtft.corpus.governance.kept import Taken, count_kept, drop_kept
    from gtft.corpus.governance.withdrawal import (
        KEY_FILE,
        Withdrawals,
        guess_kind,
        make_withdrawal,
        may_withdraw,
    )
    from gtft.corpus.linking.town_record import read_recorded
    from gtft.corpus.redaction.redactor import load_key
    from gtft.records.governance import Governance, make_withdrawal_id
    from gtft.records.rows import WithdrawalRow

    ws = open_here(ctx)
    doer = get_actor(actor)
    key = load_key(ws.path / KEY_FILE)
    taken = make_withdrawal(kind or guess_kind(who), who, key)  # type: ignore[arg-type]
    if not may_withdraw(doer, taken, who):
        raise UsageError(
            f"{doer} may not withdraw this {taken.kind}",
            why="an agent withdraws its own rig or the actors of it; people and the mayor anything",
            fix="ask the mayor, or do it as a person",
        )
    register = Withdrawals((taken,), key)
    of_it = Taken(register, read_recorded(ws.path / "sessions.jsonl"))
    held, damaged = _count_held(ws, register, of_it)
    kept = dict(count_kept(ws.path, of_it))
    incidents = _list_incidents(ws, of_it)
    store = Governance(ws.store)
    adapters, models = store.list_made_from(held)
    row = WithdrawalRow(
        id=make_withdrawal_id(taken.kind, taken.who),
        kind=taken.kind,
        who=taken.who,
        reason=reason,
        actor=doer,
        touched=tuple(sorted(held)),
        created_us=ws.store.now_us(),
    )
    new = False if dry_run else store.add_withdrawal(row)
    if new:
        # What was read of it is kept there, redacted; the next harvest reads everything again.
        shutil.rmtree(ws.path / "cache" / "harvest", ignore_errors=True)
    if not dry_run:
        # Also what came in since an earlier withdrawal of the same.
        drop_kept(ws.path, of_it)
        _end_asking(ws, incidents, doer)
    named = {m.adapter_id for m in models}
    data = {
        "id": row.id,
        "kind": row.kind,
        "guessed": kind is None,
        "who": row.who,
        "new": new,
        "dry_run": dry_run,
        "corpora": [{"id": c, **counts} for c, counts in sorted(held.items())],
        "models": [_describe_model(ws, m) for m in models],
        "adapters": [a.id for a in adapters if a.id not in named],
        "kept": [{"file": str(p.relative_to(ws.path)), "lines": n} for p, n in kept.items()],
        "incidents": [{"id": i.id, "title": i.title, "bead": i.bead_id} for i in incidents],
        "unlearned": False,
        "damaged": damaged,
    }
    emit(data, as_json, lambda: _say_forgotten(taken, data))


def _count_held(
    ws: Workspace, withdrawals: Any, of_it: Taken
) -> tuple[dict[str, dict[str, int]], list[dict[str, str]]]:
    """Corpora that hold what is withdrawn, with counts by side; and those that cannot be read. ``of_it`` learns what
    they hold of it."""
    from gtft.corpus.governance.trace import list_covered
    from gtft.corpus.library import KIND
    from gtft.errors import EvidenceError
    from gtft.shelf import list_shelf

    shelf = list_shelf(ws.artifacts, KIND)
    damaged = [{"corpus": name, "why": why} for name, why in shelf.damaged]
    held: dict[str, dict[str, int]] = {}
    for corpus in shelf.found:
        try:
            counts = {"train": 0, "heldout": 0}
            for side, example in list_covered(corpus, withdrawals):
                counts[side] += 1
                of_it.add(example)
        except EvidenceError as e:
            damaged.append({"corpus": corpus.path.name, "why": f"{e.what}: {e.why}"})
            continue
        if any(counts.values()):
            held[corpus.id] = counts
    return held, damaged


def _list_incidents(ws: Workspace, of_it: Taken) -> list[IncidentRow]:
    """Incidents with an item that was made from such a session."""
    from gtft.records.deployments import Deployments

    return [i for i in Deployments(ws.store).list_incidents() if i.item and of_it.covers(i.item)]


def _end_asking(ws: Workspace, incidents: Sequence[IncidentRow], actor: str) -> None:
    from gtft.records.deployments import Deployments

    for i in incidents:
        text = "its session was withdrawn: no eval asks its item"
        Deployments(ws.store).set_item(i, None, actor=actor, text=text)


def _describe_model(ws: Workspace, model: ModelRow) -> dict[str, str]:
    run = ws.store.find_run(model.run_id)
    return {
        "name": model.name,
        "role": model.role,
        "status": model.status,
        "adapter": model.adapter_id,
        "corpus": model.corpus_id,
        "recipe": run.recipe_name if run is not None else "",
    }


def _say_forgotten(taken: Withdrawal, data: dict[str, Any]) -> None:
    guess = ", by its form" if data["guessed"] else ""
    state = (
        "would be withdrawn"
        if data["dry_run"]
        else ("withdrawn" if data["new"] else "in the register already")
    )
    click.echo(f"{state}: {taken.kind}{guess}, kept as {taken.who}")
    for c in data["corpora"]:
        click.echo(
            f"  corpus {short_id(c['id'])}: {c['train']} training examples, {c['heldout']} held out"
        )
    for m in data["models"]:
        click.echo(f"  model {m['name']} ({m['role']}, {m['status']})")
    for a in data["adapters"]:
        click.echo(f"  adapter {short_id(a)}, not registered as a model")
    gone = "would be removed" if data["dry_run"] else "removed"
    for k in data["kept"]:
        click.echo(f"  {k['file']}: {k['lines']} lines {gone}")
    for i in data["incidents"]:
        end = "would not be asked" if data["dry_run"] else "is not asked"
        click.echo(
            f"  incident {i['id']}: its item {end} any more; bead {i['bead']} keeps an excerpt"
        )
    for d in data["damaged"]:
        click.echo(f"  not searched: {d['corpus']}: {d['why']}", err=True)
    if not data["corpora"]:
        click.echo("no corpus on the shelf holds anything of it")
    if data["models"] or data["adapters"]:
        click.echo("weights that are trained already are not unlearned: they may still repeat it")
        for recipe in sorted({m["recipe"] for m in data["models"] if m["recipe"]}):
            click.echo(f"next: gtft run {recipe}   (a model without it; then stop using the old)")
    elif not data["dry_run"]:
        click.echo("the next harvest leaves it out")


@click.command()
@json_option
@click.pass_context
def withdrawals(ctx: click.Context, as_json: bool) -> None:
    """The register: what was withdrawn, by whom, and which corpora and models held it.

    \b
    gtft corpus withdrawals
    gtft corpus withdrawals --json
    """
    from gtft.records.governance import Governance

    ws = open_here(ctx)
    store = Governance(ws.store)
    rows = [
        {**asdict(w), "models": [m.name for m in store.list_made_from(w.touched)[1]]}
        for w in store.list_withdrawals()
    ]

    def render() -> None:
        print_table(
            ("kind", "who", "on", "by", "reason", "corpora", "models"),
            [
                (
                    r["kind"],
                    r["who"],
                    _say_day(r["created_us"]),
                    r["actor"],
                    r["reason"] or "-",
                    ", ".join(short_id(c) for c in r["touched"]) or "-",
                    ", ".join(r["models"]) or "-",
                )
                for r in rows
            ],
            "nothing was withdrawn",
        )

    emit({"withdrawals": rows}, as_json, render)


def _say_state(row: ConsentRow, today: str) -> str:
    if row.revoked_us is not None:
        return f"revoked {_say_day(row.revoked_us)}"
    return "ended" if row.until and row.until < today else "stands"


def _say_day(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d")


def _today(ws: Workspace) -> str:
    return datetime.fromtimestamp(ws.now(), UTC).strftime("%Y-%m-%d")


def _check_day(text: str) -> str:
    try:
        if len(text) != len("2026-01-31"):
            raise ValueError("a date is written YYYY-MM-DD")
        return date.fromisoformat(text).isoformat()
    except ValueError as e:
        raise UsageError(
            f"--until {text[:40]} is no date", why=str(e), fix="--until 2027-01-31"
        ) from e


def _check_rig(ws: Workspace, rig: str) -> None:
    """A rig of the town where there is one; anything that can be a rig's name where there is none."""
    if ws.home is not None:
        ws.home.town.rig(rig)
    elif not _RIG.fullmatch(rig):
        raise UsageError(f"{rig[:80]!r} cannot be the name of a rig", fix="gtft corpus consent")


def _check_speaker(actor: str, rig: str) -> None:
    from gtft.corpus.governance.consent import may_speak_for

    if not may_speak_for(actor, rig):
        raise UsageError(
            f"{actor} may not speak for rig {rig}",
            why="an agent speaks for its own rig; people and the mayor for every one",
            fix="ask the mayor, or an agent of that rig",
        )


COMMANDS: tuple[click.Command, ...] = (consent, forget, withdrawals)
