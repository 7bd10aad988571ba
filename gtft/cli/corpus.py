"""``gtft corpus``: what the models are trained on, and whether it is fit for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gtft.artifact import Artifact, short_id
from gtft.cli import corpus_care, corpus_files, corpus_quarantine, corpus_tokens
from gtft.cli.context import find_artifacts
from gtft.cli.corpus_tokens import find_base
from gtft.cli.output import emit, json_option, print_table

_SIDES = {"train": "train.jsonl", "heldout": "heldout.jsonl"}
_PLACES = 10
_corpus = click.argument("corpus", required=False)


def _find(ctx: click.Context, prefix: str | None) -> Artifact:
    from gtft.corpus.library import KIND
    from gtft.shelf import find_on_shelf

    return find_on_shelf(find_artifacts(ctx), KIND, prefix)


@click.group(
    invoke_without_command=True,
    epilog="Start here: gtft corpus health    (docs/corpus.md)",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Corpora: what they hold, where it came from, and whether training is worth starting.

    CORPUS is the start of an id; without it, the newest one.

    \b
    gtft corpus                       # list
    gtft corpus health                # the newest one, in words and figures
    gtft corpus preview 599322 -n 2   # two examples, trained turns marked
    gtft corpus tokens --base nano    # what ids, paths and commands cost
    gtft corpus redact notes.txt      # what a harvest would replace in any text
    gtft corpus forget ann@example.com --dry-run
    """
    if ctx.invoked_subcommand is None:
        _list(ctx, as_json)


for _more in (
    *corpus_care.COMMANDS,
    *corpus_files.COMMANDS,
    *corpus_quarantine.COMMANDS,
    *corpus_tokens.COMMANDS,
):
    command.add_command(_more)


@command.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """The corpora of this workspace.

    \b
    gtft corpus list
    gtft corpus list --json
    """
    _list(ctx, as_json)


def _list(ctx: click.Context, as_json: bool) -> None:
    from gtft.corpus.library import KIND
    from gtft.shelf import list_shelf, read_document

    shelf = list_shelf(find_artifacts(ctx), KIND)
    rows: list[dict[str, Any]] = []
    for c in shelf.found:
        summary = read_document(c, "summary.json")
        rows.append(
            {
                "id": c.id,
                "path": str(c.path),
                "train": summary["train"],
                "heldout": summary["heldout"],
                "clusters": summary["clusters"],
                "by_source": summary["by_source"],
            }
        )
    damaged = [{"folder": name, "why": why} for name, why in shelf.damaged]

    def render() -> None:
        print_table(
            ("corpus", "train", "held out", "clusters", "sources"),
            [
                (
                    short_id(r["id"]),
                    r["train"],
                    r["heldout"],
                    r["clusters"],
                    ", ".join(f"{k} {n}" for k, n in r["by_source"].items()),
                )
                for r in rows
            ],
            "no corpus yet: gtft run mol-gtft-quickstart makes one",
        )
        for d in damaged:
            click.echo(f"damaged: {d['folder']}: {d['why']}", err=True)

    emit({"corpora": rows, "damaged": damaged}, as_json, render)


@command.command()
@_corpus
@json_option
@click.pass_context
def show(ctx: click.Context, corpus: str | None, as_json: bool) -> None:
    """One corpus: its files, what it was made from, how it was split.

    \b
    gtft corpus show
    gtft corpus show 599322 --json
    """
    from gtft.shelf import read_document

    found = _find(ctx, corpus)
    manifest = read_document(found, "manifest.json")
    data = {
        "id": found.id,
        "path": str(found.path),
        "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in found.files],
        "manifest": manifest,
    }

    def render() -> None:
        split = manifest["split"]
        click.echo(f"corpus {short_id(found.id)}   {found.path}")
        click.echo(
            f"{split['train']} training examples, {split['heldout']} held out, "
            f"{split['clusters']} clusters; gtft {manifest['gtft']}"
        )
        if (planted := manifest.get("canaries", {})).get("planted"):
            click.echo(
                f"{planted['planted']} canaries besides, in {planted['examples']} training examples"
            )
        click.echo()
        harvest = manifest["harvest"]
        for s in harvest["sources"]:
            name = f"{s['type']} {s['path']}"
            inputs = [i for i in manifest["inputs"] if i["source"] == name]
            size = sum(i["size"] for i in inputs) / 1e6
            click.echo(f"  {name}: {len(inputs)} files, {size:.2f} MB, licence {s['licence']}")
        click.echo()
        print_table(
            ("file", "bytes", "sha256"),
            [(f.name, f.size, f.sha256[:12]) for f in found.files],
            "no files",
        )
        show_places(manifest["sources"])
        click.echo(f"next: gtft corpus health {short_id(found.id)}")

    emit(data, as_json, render)


def show_places(sources: dict[str, Any]) -> None:
    """Where something could not be read: the first ones by file and line."""
    named = [n for s in sources.values() for n in s.get("named", ())]
    # A bad line tells more than a file that is no transcript.
    places = sorted(named, key=lambda n: not n["line"])
    if not places:
        return
    click.echo("\nnot read as it should be (a place each; --json has more):")
    for n in places[:_PLACES]:
        where = f"{n['file']}:{n['line']}" if n["line"] else n["file"]
        detail = f" ({n['detail']})" if n["detail"] else ""
        click.echo(f"  {where}: {n['reason']}{detail}")
    if len(places) > _PLACES:
        click.echo(f"  … and {len(places) - _PLACES} more")
    click.echo()


@command.command()
@_corpus
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Write one page with plots.  [default: corpus-ID-health.html here]",
)
@click.option(
    "--flagged",
    metavar="WHAT",
    help='Only the examples flagged so: "stale", "conflict", "language: German", …',
)
@click.option(
    "--installed", is_flag=True, help="Staleness against the gt and bd on PATH (half a minute)."
)
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR",
    help="Tokens per bead id for the tokenizer.json in DIR.",
)
@json_option
@click.pass_context
def health(
    ctx: click.Context,
    corpus: str | None,
    page: str | None,
    flagged: str | None,
    installed: bool,
    tokenizer: Path | None,
    as_json: bool,
) -> None:
    """Is training worth starting? The verdict first, then composition, drops, staleness, conflicts, leakage.

    \b
    gtft corpus health
    gtft corpus health 599322 --json
    gtft corpus health --html health.html
    gtft corpus health --flagged stale
    gtft corpus health --installed --tokenizer models/base
    """
    import os

    from gtft.corpus.health.report import (
        ask_installed,
        count_tokens,
        list_flagged,
        read_report,
        render_flagged,
        render_report,
        write_page,
    )

    found = _find(ctx, corpus)
    doc = read_report(found)
    if flagged is not None:
        entries = list_flagged(found, flagged)
        emit(
            {"id": found.id, "flagged": entries},
            as_json,
            lambda: click.echo(render_flagged(entries), nl=False),
        )
        return
    if installed:
        doc["staleness"] = ask_installed(found, doc, os.environ)
    if tokenizer is not None:
        doc["tokens per bead id"] = count_tokens(found, tokenizer)
    if page is None:
        emit({"id": found.id, "health": doc}, as_json, lambda: click.echo(render_report(doc)))
        return
    path = Path(page or f"corpus-{short_id(found.id)}-health.html")
    write_page(path, doc, short_id(found.id))
    emit(
        {"id": found.id, "html": str(path), "health": doc},
        as_json,
        lambda: click.echo(f"{doc['words'][0]}\n{path}"),
    )


@command.command()
@_corpus
@click.option("--example", "wanted", metavar="ID", help="The example whose id starts with ID.")
@click.option("-n", "count", type=click.IntRange(1), default=3, show_default=True, help="How many.")
@click.option(
    "--side",
    type=click.Choice(sorted(_SIDES)),
    help="Which side.  [default: train; with --example, either]",
)
@click.option("--role", help="Only examples of this role.")
@click.option("--source", help="Only examples of this source.")
@click.option(
    "--select", "items", multiple=True, metavar="KEY:VALUE", help="As in a recipe; may be repeated."
)
@click.option("--tokens", is_flag=True, help="Token by token: trained, context, masked.")
@click.option(
    "--base",
    metavar="MODEL",
    help='With --tokens: a folder, a hub id that is in the cache, or "nano".  [default: nano]',
)
@click.option(
    "--max-length",
    type=click.IntRange(64),
    metavar="TOKENS",
    help="With --tokens: the longest row.  [default: the recipe's default]",
)
@click.option("--full", is_flag=True, help="With --tokens: long context is not shortened.")
@json_option
@click.pass_context
def preview(
    ctx: click.Context,
    corpus: str | None,
    wanted: str | None,
    count: int,
    side: str | None,
    role: str | None,
    source: str | None,
    items: tuple[str, ...],
    tokens: bool,
    base: str | None,
    max_length: int | None,
    full: bool,
    as_json: bool,
) -> None:
    """Examples as they are trained on: roles, calls, and which turns carry loss.

    With --tokens they are shown as the chosen base reads them: the rows that training makes of each, and
    what every token is.

    \b
    gtft corpus preview
    gtft corpus preview -n 1 --role witness
    gtft corpus preview --select rig:gizmo --select since:2026-01-01
    gtft corpus preview --side heldout --example ex-01ac
    gtft corpus preview -n 1 --tokens --base models/base
    """
    from itertools import islice

    from gtft.cli.corpus_preview import ask_tokens, render_messages, render_tokens
    from gtft.corpus.governance.row import describe
    from gtft.corpus.governance.select import parse_select
    from gtft.corpus.library import read_examples
    from gtft.errors import UsageError

    found = _find(ctx, corpus)
    selection = parse_select(items)
    sides = [side] if side else sorted(_SIDES, reverse=True) if wanted else ["train"]
    fits = (
        (s, e)
        for s in sides
        for e in read_examples(found, _SIDES[s])
        if (wanted is None or e.id.startswith(wanted))
        and (role is None or e.role == role)
        and (source is None or e.source == source)
        and not selection.admits(describe(e))
    )
    shown = list(islice(fits, count))
    if not shown:
        label = any(i.startswith("label:") for i in items)
        raise UsageError(
            f"no such example on the {' or '.join(sides)} side of {short_id(found.id)}",
            why="a corpus keeps no labels: select by label in a recipe"
            if label
            else "no example has that id, role or source, or is selected",
            fix=f"gtft corpus health {short_id(found.id)} shows roles and sources; try --side heldout",
        )
    rows = [
        {
            **e.to_json(),
            "side": s,
            "trained": [m["role"] == "assistant" for m in e.messages] if s == "train" else [],
        }
        for s, e in shown
    ]
    if not tokens:
        if base or max_length or full:
            raise UsageError("--base, --max-length and --full need --tokens", fix="add --tokens")
        emit({"id": found.id, "examples": rows}, as_json, lambda: render_messages(rows))
        return
    from gtft.recipe.schema import Train

    given = base or "nano"
    place = find_base(ctx, given)
    folder = place if place.is_dir() else place.parent
    longest = max_length or Train().max_length
    seen = ask_tokens(folder, longest, rows)
    data = {"id": found.id, "base": folder.name, "max_length": longest, "examples": seen}
    emit(data, as_json, lambda: render_tokens(seen, folder.name, full))


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…|-")
@click.option(
    "--rules",
    "rule_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Rules of your own beside the shipped ones (gitleaks TOML, kingfisher YAML); may be repeated.",
)
@json_option
@click.pass_context
def redact(
    ctx: click.Context, files: tuple[str, ...], rule_files: tuple[Path, ...], as_json: bool
) -> None:
    """What a harvest would replace in a text. Prints the redacted text; ``-`` reads stdin.

    --json lists the spans (code points) with their kind and replacement; the values stay hidden.
    Placeholders are keyed with the workspace's key, and with a throw-away one where there is none.

    \b
    gtft corpus redact session.log
    git log -3 | gtft corpus redact -
    gtft corpus redact --json notes.txt
    """
    from gtft.cli.redact import show_redaction

    out = show_redaction(ctx, files, rule_files, as_json)
    if as_json:
        emit({"files": out}, as_json, lambda: None)
