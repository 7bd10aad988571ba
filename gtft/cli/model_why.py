"""``gtft model why``: where a model comes from, what came of it, and whether an example is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import open_here
from gtft.cli.output import clip, emit, json_option
from gtft.errors import ConflictError

if TYPE_CHECKING:
    from gtft.corpus.governance.held import Found, Held
    from gtft.corpus.governance.withdrawal import Withdrawals
    from gtft.models.lineage import Story
    from gtft.runner.workspace import Workspace


@click.command()
@click.argument("model")
@click.option(
    "--example",
    metavar="E",
    help="Is this in it? An example's id, a session or a bead; the beginning of an id or session will do.",
)
@json_option
@click.pass_context
def why(ctx: click.Context, model: str, example: str | None, as_json: bool) -> None:
    """From MODEL to its run, recipe, corpus, base, eval and card; to its exports, deployments and withdrawals.

    With --example: whether its corpus, or that of an adapter that it goes on from or lies on, holds it, on which
    side, from which file, how redacted, with whose consent, and whether it was withdrawn since. And back, from an
    example to models: gtft corpus trace EXAMPLE

    \b
    gtft model why witness
    gtft model why witness --example ex-01ac
    gtft model why witness@stable --example gz-4f2 --json
    """
    from gtft.models.lineage import trace_model
    from gtft.models.registry import find_model

    ws = open_here(ctx)
    found = find_model(ws.store, model)
    story = trace_model(ws.store, found, ws.path)
    if example is None:
        data = _describe(ws, story)
        emit(data, as_json, lambda: _print(data))
        return
    held = _look(ws, story, example)
    data = _describe_held(ws, story, example, held)
    emit(data, as_json, lambda: _print_held(data))


def _describe(ws: Workspace, story: Story) -> dict[str, Any]:
    from gtft.models.people import format_time

    found, m = story.lineage, story.lineage.model
    return {
        "model": m.name,
        "role": m.role,
        "version": m.version,
        "status": m.status,
        "pruned": format_time(story.pruned[m.id]) if m.id in story.pruned else None,
        "run": {"id": found.run.id, "by": found.run.actor, "bead": found.run.epic_bead},
        "recipe": {"name": found.run.recipe_name, "hash": found.run.recipe_hash},
        "artifacts": [
            {"kind": a.kind, "id": a.id, "path": a.path, "here": ws.artifact_path(a.path).is_dir()}
            for a in found.artifacts
        ],
        "base": {
            "name": story.base.name,
            "id": story.base.id,
            "revision": story.base.revision,
            "quantization": story.base.quantization,
            "files": story.base.files,
        },
        "continues": story.continues or None,
        "stacks_on": story.stacks_on or None,
        "continued_by": [c.name for c in story.children],
        "aliases": [{"alias": a.name, "pin": a.pin} for a in story.aliases],
        "exports": [
            {
                "id": e.id,
                "format": e.summary.get("format"),
                "verified": e.summary.get("verified") is True,
                "path": e.path,
            }
            for e in story.exports
        ],
        "deployments": [
            {
                "id": d.id,
                "role": d.role,
                "rig": d.rig,
                "mode": d.mode,
                "state": d.state,
                "reason": d.reason,
                "since": format_time(d.created_us),
                "until": format_time(d.ended_us) if d.ended_us else None,
            }
            for d in story.deployments
        ],
        "incidents": [{"id": i.id, "title": i.title, "bead": i.bead_id} for i in story.incidents],
        "withdrawals": [
            {"id": w.id, "kind": w.kind, "on": format_time(w.created_us), "reason": w.reason}
            for w in story.withdrawals
        ],
    }


def _print(data: dict[str, Any]) -> None:
    pruned = f", pruned on {data['pruned']}" if data["pruned"] else ""
    click.echo(f"{data['model']}  {data['role']} {data['version']}, {data['status']}{pruned}")
    bead = f", bead {data['run']['bead']}" if data["run"]["bead"] else ""
    _line("run", f"{data['run']['id']}, dispatched by {data['run']['by']}{bead}")
    _line("recipe", f"{data['recipe']['name']}  {data['recipe']['hash']}")
    for a in data["artifacts"]:
        _line(a["kind"], f"{a['id']}{'' if a['here'] else '  (not on this disk any more)'}")
    base = data["base"]
    revision = f" at {base['revision']}" if base["revision"] else ""
    _line("base", f"{base['id']}  {base['name']}{revision}, loaded as {base['quantization']}")
    for name, sha256 in sorted(base["files"].items()):
        _line("", f"  {sha256}  {name}")
    for key, told in (("continues", "goes on from"), ("stacks_on", "lies on")):
        if data[key]:
            _line(told, f"adapter {short_id(data[key])}")
    for name in data["continued_by"]:
        _line("went on as", name)
    for a in data["aliases"]:
        _line("alias", a["alias"] + (f", pinned: {a['pin']}" if a["pin"] else ""))
    for e in data["exports"]:
        proof = "verified" if e["verified"] else "not verified"
        _line(
            "export", f"{e['format'] or 'not recorded'}, {proof}  {short_id(e['id'])}  {e['path']}"
        )
    for d in data["deployments"]:
        where = f"{d['mode']} for {d['role']}{' of ' + d['rig'] if d['rig'] else ''}"
        until = f" to {d['until']} ({d['reason']})" if d["until"] else f", {d['state']}"
        _line("deployed", f"{where}, {d['since']}{until}")
    for i in data["incidents"]:
        _line("incident", clip(f"{i['title']}{' (' + i['bead'] + ')' if i['bead'] else ''}", 200))
    for w in data["withdrawals"]:
        _line("withdrawn", f"one {w['kind']} on {w['on']}; not unlearned")
    click.echo(f"next: gtft model why {data['model']} --example EXAMPLE|SESSION|BEAD")


def _look(ws: Workspace, story: Story, example: str) -> dict[str, Held | None]:
    """What each corpus that its weights learnt from holds; None for one that is not on this disk.

    Raises ConflictError when none holds it and one could not be looked in.
    """
    from gtft.corpus.governance.withdrawal import KEY_FILE, Withdrawals
    from gtft.corpus.redaction.redactor import load_key
    from gtft.runner.governance import gather_governance

    register = Withdrawals(gather_governance(ws, "", ()).withdrawals, load_key(ws.path / KEY_FILE))
    held = {c: _look_in(ws, c, example, register) for c in story.corpora}
    away = [c for c, h in held.items() if h is None]
    if away and not any(h.counts for h in held.values() if h is not None):
        raise ConflictError(
            f"corpus {short_id(away[0])} is not on this disk any more",
            why="it was pruned" if away[0] in story.pruned else "its folder is gone",
            fix="put its folder back below artifacts/, or unpack it: gtft corpus unpack",
        )
    return held


def _look_in(ws: Workspace, corpus_id: str, example: str, register: Withdrawals) -> Held | None:
    from gtft.artifact import read_artifact
    from gtft.corpus.governance.held import find_held

    row = ws.store.find_artifact(corpus_id)
    if row is None or not ws.artifact_path(row.path).is_dir():
        return None
    return find_held(read_artifact(ws.artifact_path(row.path), kind="corpus"), example, register)


def _describe_held(
    ws: Workspace, story: Story, example: str, held: dict[str, Held | None]
) -> dict[str, Any]:
    from gtft.records.governance import Governance

    standing = {c.rig for c in Governance(ws.store).list_consents(standing=True)}
    revoked = {c.rig for c in Governance(ws.store).list_consents()} - standing
    looked = {c: h for c, h in held.items() if h is not None}
    return {
        "model": story.lineage.model.name,
        "corpus": story.lineage.corpus.id,
        "asked": example,
        "trained_on": sum(h.counts["train"] for h in looked.values()),
        "held_out": sum(h.counts["heldout"] for h in looked.values()),
        "withdrawn_since": sum(h.withdrawn for h in looked.values()),
        "looked_in": list(looked),
        "not_here": [c for c in held if c not in looked],
        "examples": [
            _describe_found(f, revoked) | {"corpus": c, "through": _find_through(story, c)}
            for c, h in looked.items()
            for f in h.examples
        ],
    }


def _find_through(story: Story, corpus_id: str) -> str | None:
    """The earlier adapter that brought a corpus in; None for the model's own."""
    adapter_id = story.corpora[corpus_id]
    return None if adapter_id == story.lineage.adapter.id else adapter_id


def _describe_found(f: Found, revoked: set[str]) -> dict[str, Any]:
    e = f.example
    return {
        "id": e.id,
        "side": f.side,
        "source": e.source,
        "file": e.origin.file,
        "lines": list(e.origin.lines),
        "session": e.origin.session,
        "bead": e.bead,
        "role": e.role,
        "rig": e.rig,
        "outcome": e.outcome,
        "provenance": e.provenance,
        "licence": f.licence,
        "redacted": f.redacted,
        "consent": f.consent,
        "consent_revoked": e.rig in revoked,
        "withdrawn": f.withdrawn or None,
    }


def _print_held(data: dict[str, Any]) -> None:
    asked = clip(data["asked"], 100)
    if not data["trained_on"] and not data["held_out"]:
        n = len(data["looked_in"])
        corpora = "the corpus" if n == 1 else f"none of the {n} corpora"
        holds = "holds nothing" if n == 1 else "holds anything"
        click.echo(f"no: {corpora} of {data['model']} {holds} of {asked}")
        click.echo("an example may be in another corpus: gtft corpus trace EXAMPLE")
        return
    click.echo(
        f"{'yes' if data['trained_on'] else 'not trained on'}: {data['model']} was trained on "
        f"{_count(data['trained_on'])} of {asked}; held out: {data['held_out']}"
    )
    for e in data["examples"]:
        side = "trained on" if e["side"] == "train" else "held out"
        click.echo(f"{e['id']}  {side}  {clip(e['file'], 200)}:{e['lines'][0]}-{e['lines'][1]}")
        if e["through"]:
            _line("through", f"the earlier adapter {short_id(e['through'])}")
        who = ", ".join(f"{k} {e[k]}" for k in ("session", "bead", "role", "rig") if e[k])
        _line("of", who or "nothing is known of whose it is")
        hidden = ", ".join(f"{n} {kind}" for kind, n in e["redacted"].items())
        _line("redacted", hidden or "no secret was found in it")
        revoked = "; revoked since" if e["consent_revoked"] else ""
        _line("consent", f"{e['consent']}{revoked}; licence {e['licence']}")
        if e["withdrawn"]:
            _line("withdrawn", f"since ({e['withdrawn']}); what is trained is not unlearned")
    more = data["trained_on"] + data["held_out"] - len(data["examples"])
    if more:
        click.echo(f"and {more} more")
    for corpus in data["not_here"]:
        click.echo(f"not looked in: corpus {short_id(corpus)}, which is not on this disk any more")


def _count(n: int) -> str:
    return f"{n} example{'' if n == 1 else 's'}"


def _line(title: str, text: str) -> None:
    click.echo(f"  {title:<12} {text}")


COMMANDS: tuple[click.Command, ...] = (why,)
