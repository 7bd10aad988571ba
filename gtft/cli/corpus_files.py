"""``gtft corpus diff | trace | pack | unpack``: corpora compared, followed back, carried elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import find_artifacts, open_here
from gtft.cli.output import emit, json_option, print_table

if TYPE_CHECKING:
    from gtft.artifact import Artifact
    from gtft.corpus.governance.diff import Diff
    from gtft.runner.workspace import Workspace


def _find(ctx: click.Context, prefix: str | None) -> Artifact:
    from gtft.corpus.library import KIND
    from gtft.shelf import find_on_shelf

    return find_on_shelf(find_artifacts(ctx), KIND, prefix)


@click.command()
@click.argument("a")
@click.argument("b", required=False)
@json_option
@click.pass_context
def diff(ctx: click.Context, a: str, b: str | None, as_json: bool) -> None:
    """From corpus A to corpus B (without B: to the newest): examples that came, went, changed; settings.

    An example of the same place (file, session, segment) with another content has changed.

    \b
    gtft corpus diff 599322 d41f0a
    gtft corpus diff 599322 --json
    """
    from gtft.corpus.governance.diff import compare

    found = compare(_find(ctx, a), _find(ctx, b))
    emit(found.as_dict(), as_json, lambda: _say_diff(found))


def _say_diff(found: Diff) -> None:
    click.echo(f"{short_id(found.a)} → {short_id(found.b)}: {found.same} examples are the same")
    doc = found.as_dict()
    for name, changes in found.groups().items():
        if not changes:
            continue
        click.echo(f"\n{name}: {len(changes)}")
        for key in ("source", "role", "reason"):
            counts = ", ".join(f"{k} {n}" for k, n in doc[name][f"by_{key}"].items())
            click.echo(f"  by {key}: {counts}")
        for e in doc[name]["examples"][:5]:
            other = f"  was {e['other']}" if "other" in e else ""
            click.echo(f"  {e['id']}  {e['file']}{other}")
        if len(changes) > 5:
            click.echo(f"  … and {len(changes) - 5} more (--json)")
    inputs = ", ".join(f"{n} {k}" for k, n in found.inputs.items() if n)
    click.echo(f"\ninput files: {inputs or 'none'}")
    if found.dropped:
        rows = [(k, x, y) for k, (x, y) in found.dropped.items()]
        print_table(("left out", "before", "after"), rows, "")
    print_table(
        ("setting", "before", "after"),
        [(k, _say(x), _say(y)) for k, (x, y) in found.settings.items()],
        "settings and rules are the same",
    )


def _say(value: Any) -> str:
    return "-" if value is None else str(value)


@click.command()
@click.argument("example")
@json_option
@click.pass_context
def trace(ctx: click.Context, example: str, as_json: bool) -> None:
    """From EXAMPLE (the start of its id) to its file, session, actor, contributor, corpora and models.

    \b
    gtft corpus trace ex-01ac
    gtft corpus trace ex-01ac --json
    """
    from gtft.corpus.governance.trace import trace as find
    from gtft.corpus.library import KIND
    from gtft.records.governance import Governance
    from gtft.shelf import list_shelf

    ws = open_here(ctx)
    shelf = list_shelf(ws.artifacts, KIND)
    found = find(shelf.found, example)
    e = found[0].example
    adapters, models = Governance(ws.store).list_made_from(
        [f.corpus for f in found if f.side == "train"]
    )
    named = {m.adapter_id for m in models}
    data = {
        "id": e.id,
        "source": e.source,
        "file": e.origin.file,
        "lines": list(e.origin.lines),
        "segment": e.origin.segment,
        "session": e.origin.session,
        "actor": e.actor,
        "role": e.role,
        "rig": e.rig,
        "bead": e.bead,
        "cluster": e.cluster,
        "outcome": e.outcome,
        "started": e.started,
        "provenance": e.provenance,
        "contributor": e.contributor,
        "corpora": [{"id": f.corpus, "side": f.side} for f in found],
        "models": [{"name": m.name, "status": m.status, "corpus": m.corpus_id} for m in models],
        "adapters": [a.id for a in adapters if a.id not in named],
        "damaged": [name for name, _ in shelf.damaged],
    }
    emit(data, as_json, lambda: _say_trace(data))


def _say_trace(data: dict[str, Any]) -> None:
    click.echo(f"{data['id']}  {data['file']}:{data['lines'][0]}-{data['lines'][1]}")
    for key in ("source", "session", "actor", "role", "rig", "bead", "cluster", "outcome"):
        click.echo(f"  {key:<12}{data[key] or 'not known'}")
    click.echo(f"  {'contributor':<12}{data['contributor'] or 'not known'}  (keyed hash)")
    for c in data["corpora"]:
        side = "trained on" if c["side"] == "train" else "held out"
        click.echo(f"  corpus      {short_id(c['id'])}, {side}")
    for m in data["models"]:
        click.echo(f"  model       {m['name']}, {m['status']}")
    for a in data["adapters"]:
        click.echo(f"  adapter     {short_id(a)}, not registered as a model")
    if not data["models"] and not data["adapters"]:
        click.echo("  models      none was trained on it")
    session = data["session"]
    if session:
        click.echo(f"next: gtft corpus forget {session} --kind session --dry-run")


@click.command()
@click.argument("corpus", required=False)
@click.option("-o", "--out", metavar="FILE", help="Where to.  [default: corpus-<id>.tar.gz here]")
@click.option("--dry-run", is_flag=True, help="Check the corpus; write nothing.")
@json_option
@click.pass_context
def pack(
    ctx: click.Context, corpus: str | None, out: str | None, dry_run: bool, as_json: bool
) -> None:
    """Write a corpus as one file, for somebody who has a GPU. The same corpus gives the same bytes.

    \b
    gtft corpus pack
    gtft corpus pack 599322 -o harbor.tar.gz
    """
    from gtft.artifact import hash_file, verify_artifact
    from gtft.corpus.governance.bundle import pack as write

    found = _find(ctx, corpus)
    path = Path(out) if out else Path(f"corpus-{short_id(found.id)}.tar.gz")
    data: dict[str, Any] = {"corpus": found.id, "file": str(path), "dry_run": dry_run}
    if dry_run:
        verify_artifact(found.path, kind=found.kind, expect=found.id)
    else:
        data |= {"size": write(found, path), "sha256": hash_file(path)}

    def render() -> None:
        if dry_run:
            click.echo(f"{short_id(found.id)} is whole; {path} would be written")
            return
        click.echo(f"{path}  {data['size'] / 1e6:.2f} MB  sha256 {data['sha256']}")
        click.echo(f"there: gtft corpus unpack {path.name}")

    emit(data, as_json, render)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything; keep nothing.")
@json_option
@click.pass_context
def unpack(ctx: click.Context, bundle: Path, dry_run: bool, as_json: bool) -> None:
    """Put a bundle's corpus on this workspace's shelf, once every hash holds and both readers find nothing.

    A bundle that holds what was withdrawn here (gtft corpus withdrawals) is refused.

    \b
    gtft corpus unpack harbor.tar.gz --dry-run
    gtft corpus unpack harbor.tar.gz
    """
    from gtft.corpus.governance.bundle import unpack as read

    ws = open_here(ctx)
    made = read(bundle, ws.artifacts, lambda corpus: _scan(ws, corpus), keep=not dry_run)
    data = {"corpus": made.id, "path": str(made.path), "dry_run": dry_run}

    def render() -> None:
        if dry_run:
            click.echo(f"{short_id(made.id)} is whole and clean; nothing was kept (--dry-run)")
            return
        click.echo(f"corpus {short_id(made.id)}   {made.path}")
        click.echo(f"next: gtft corpus health {short_id(made.id)}")

    emit(data, as_json, render)


def _scan(ws: Workspace, corpus: Artifact) -> None:
    """What a bundle may not bring in: secrets, and what was withdrawn here."""
    from gtft.corpus.governance.trace import count_covered
    from gtft.corpus.governance.withdrawal import KEY_FILE, Withdrawals
    from gtft.corpus.redaction.redactor import Redactor, load_key
    from gtft.corpus.redaction.verify import Verifier
    from gtft.errors import ConflictError, EvidenceError
    from gtft.runner.governance import gather_governance

    key = load_key(ws.path / KEY_FILE)
    register = Withdrawals(gather_governance(ws, "", ()).withdrawals, key)
    covered = count_covered(corpus, register)
    if covered:
        raise ConflictError(
            f"the bundle holds {covered.total()} examples that were withdrawn here",
            why="what somebody took back does not come in again",
            fix="gtft corpus withdrawals; ask for a bundle that is harvested without them",
        )
    try:
        Verifier(Redactor(key)).scan_files([corpus.path / f.name for f in corpus.files])
    except (ValueError, RecursionError) as e:
        raise EvidenceError(
            "the bundle holds a file that cannot be read",
            why=f"{type(e).__name__} while both readers looked through it",
            fix="ask for it again, made with: gtft corpus pack",
        ) from e


COMMANDS: tuple[click.Command, ...] = (diff, trace, pack, unpack)
