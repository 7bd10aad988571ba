"""``gtft recipe``: list, show, lint, explain, new."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gtft.cli.output import emit, json_option, print_table
from gtft.cli.recipe_options import recipe_options
from gtft.errors import InputError, Problem, RecipeError, UsageError, translate_os_error
from gtft.recipe.find import find_formula, list_formulas, search_folders
from gtft.recipe.formula import SUFFIX, Formula, read_formula
from gtft.recipe.lint import lint, problems_error
from gtft.recipe.resolve import (
    Resolved,
    parse_assignments,
    plain_error,
    resolve_formula,
    show_path,
)

PLAIN = "a plain formula: gt and bd run it, gtft has nothing to do"


@click.group(
    invoke_without_command=True,
    epilog="Example: gtft recipe explain mol-gtft-quickstart --set train.epochs=3",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Recipes: what a run does, as a formula that gt and bd read too."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """The formulas in sight: ./formulas, the town's .beads/formulas, those shipped with gtft."""
    _list(as_json)


@command.command(epilog="Example: gtft recipe show mol-gtft-quickstart")
@click.argument("formula")
@json_option
def show(formula: str, as_json: bool) -> None:
    """What a formula says: its variables, steps and [gtft] tables."""
    found = _read(formula)
    emit(_describe(found), as_json, lambda: _print_formula(found))


@command.command("lint", epilog="Example: gtft recipe lint formulas/mine.formula.toml")
@click.argument("formulas", nargs=-1)
@json_option
def lint_command(formulas: tuple[str, ...], as_json: bool) -> None:
    """Check formulas: every problem at once, with file and line. Without a name: all in sight."""
    root = Path.cwd()
    paths = [find_formula(f, search_folders(root)) for f in formulas] or list(
        list_formulas(search_folders(root))
    )
    problems: list[Problem] = []
    rows: list[dict[str, str]] = []
    for path in paths:
        try:
            found = read_formula(path, shown=show_path(path, root))
        except RecipeError as e:
            problems += e.problems
            continue
        problems += lint(found)
        state = "no problems" if _is_recipe(found) else PLAIN
        rows.append({"formula": found.name, "file": found.document.file, "result": state})
    if problems:
        what = problems[0].file if len({p.file for p in problems}) == 1 else "what was checked"
        raise problems_error(what, tuple(problems))
    emit(
        rows,
        as_json,
        lambda: print_table(
            ("formula", "file", "result"),
            [tuple(r.values()) for r in rows],
            "no formulas in sight; start one: gtft recipe new mol-gtft-mine",
        ),
    )


@command.command(
    epilog="\b\nExamples:\n"
    "  gtft recipe explain mol-gtft-quickstart\n"
    "  gtft recipe explain mol-gtft-quickstart train --set train.epochs=3\n"
    "  gtft recipe explain train.learning_rate\n"
    "  gtft recipe explain"
)
@click.argument("target", required=False)
@click.argument("key", required=False)
@recipe_options
@json_option
def explain(
    target: str | None,
    key: str | None,
    variables: tuple[str, ...],
    sets: tuple[str, ...],
    overlays: tuple[str, ...],
    as_json: bool,
) -> None:
    """What a run would use and why: TARGET is a formula, or a key of the recipe.

    For a formula: the value of each key, and where it comes from (default, effort, formula, variable,
    overlay, --set). For a key: what it takes and means. Without TARGET: every key.
    """
    if target is None or (key is None and _matches(target)):
        if variables or sets or overlays:
            raise UsageError("--var, --set and --overlay change a formula", fix="gtft recipe list")
        keys = _matches(target or "")
        data = [k.as_dict() for k in keys]
        emit(data, as_json, lambda: _print_keys(keys))
        return
    found = _read_or_suggest_key(target)
    if not _is_recipe(found):
        raise plain_error(found)
    resolved = resolve_formula(
        found, variables=parse_assignments(variables), overlays=overlays, sets=sets
    )
    rows = _explain_rows(resolved, key)
    body = {**resolved.document, "keys": rows}
    emit(body, as_json, lambda: _print_resolved(resolved, rows))


@command.command(epilog="Example: gtft recipe new mol-gtft-polecat --role polecat")
@click.argument("name")
@click.option("--role", default="witness", show_default=True, help="The role it is for.")
@click.option("--from", "origin", metavar="FORMULA", help="Copy this formula instead.")
@click.option("--folder", default="formulas", show_default=True, help="Where it is written.")
@click.option("--dry-run", is_flag=True, help="Print it; write nothing.")
@json_option
def new(
    name: str, role: str, origin: str | None, folder: str, dry_run: bool, as_json: bool
) -> None:
    """Write a formula with every key, its default and its meaning. Never overwrites a file."""
    from gtft.recipe.formula import parse_formula
    from gtft.recipe.skeleton import check_name, copy_formula, write_skeleton

    check_name(name)
    path = Path(folder) / f"{name}{SUFFIX}"
    if origin is None:
        text = write_skeleton(name, role)
    else:
        source = _read(origin)
        if not _is_recipe(source):
            raise plain_error(source)
        text = copy_formula(source.source.read_text("utf-8"), source.name, name)
    problems = lint(parse_formula(text.encode(), source=path))
    if problems:
        raise problems_error(str(path), problems)
    if not dry_run:
        _write_new(path, text)
    body = {"formula": name, "file": str(path), "written": not dry_run, "text": text}
    emit(
        body,
        as_json,
        lambda: click.echo(
            text.rstrip() if dry_run else f"wrote {path}\nnext: gtft recipe explain {name}"
        ),
    )


def _write_new(path: Path, text: str) -> None:
    created = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as f:
            created = True
            f.write(text)
    except FileExistsError as e:
        raise UsageError(
            f"{path} exists already",
            why="gtft recipe new never overwrites",
            fix="choose another name, or remove that file yourself",
        ) from e
    except OSError as e:
        if created:
            path.unlink(missing_ok=True)
        raise translate_os_error(e, f"writing {path}") from e


def _read(name: str) -> Formula:
    root = Path.cwd()
    path = find_formula(name, search_folders(root))
    return read_formula(path, shown=show_path(path, root))


def _read_or_suggest_key(target: str) -> Formula:
    from gtft.recipe.keys import all_keys

    try:
        return _read(target)
    except UsageError as e:
        near = difflib.get_close_matches(target, [k.path for k in all_keys()], n=1, cutoff=0.7)
        if near:
            raise UsageError(
                f"there is no formula and no key {target}; did you mean {near[0]}?",
                why=e.why,
                fix=f"gtft recipe explain {near[0]}",
            ) from e
        raise


def _is_recipe(formula: Formula) -> bool:
    return "gtft" in formula.document.data


def _list(as_json: bool) -> None:
    root = Path.cwd()
    rows = [_list_row(path, root) for path in list_formulas(search_folders(root))]
    emit(
        rows,
        as_json,
        lambda: print_table(
            ("formula", "kind", "file", "what it does"),
            [(r["formula"], r["kind"], r["file"], _plain(str(r["summary"]))) for r in rows],
            "no formulas in sight; start one: gtft recipe new mol-gtft-mine",
        ),
    )


def _list_row(path: Path, root: Path) -> dict[str, object]:
    file = show_path(path, root)
    row: dict[str, object] = {"formula": path.name.removesuffix(SUFFIX), "file": file}
    try:
        found = read_formula(path, shown=file)
    except (RecipeError, InputError) as e:
        return row | {"kind": "unreadable", "problems": 1, "summary": e.what}
    if not _is_recipe(found):
        return row | {"kind": "plain", "problems": 0, "summary": PLAIN}
    count = len(lint(found))
    summary = f"{count} problems: gtft recipe lint {file}" if count else found.summary
    return row | {"kind": "recipe", "problems": count, "summary": summary}


def _describe(f: Formula) -> dict[str, object]:
    return {
        "formula": f.name,
        "file": f.document.file,
        "version": f.version,
        "type": f.type,
        "kind": "recipe" if _is_recipe(f) else "plain",
        "note": "" if _is_recipe(f) else PLAIN,
        "description": f.description,
        "variables": [
            {
                "name": v.name,
                "description": v.description,
                "required": v.required,
                "default": v.default,
                "enum": list(v.enum),
                "pattern": v.pattern,
                "type": v.type,
            }
            for v in f.vars
        ],
        "steps": [{"id": s.id, "title": s.title, "needs": list(s.needs)} for s in f.steps],
        "gtft": f.gtft,
    }


def _print_formula(f: Formula) -> None:
    click.echo(f"{_plain(f.name)}  version {f.version}  {f.document.file}")
    if not _is_recipe(f):
        click.echo(PLAIN)
    click.echo("\n" + _plain(f.description.strip()))
    if f.vars:
        click.echo("\nvariables (--var NAME=VALUE)")
        for v in f.vars:
            value = "required" if v.required else f'default "{v.default or ""}"'
            choice = f"; one of {', '.join(v.enum)}" if v.enum else ""
            click.echo(_plain(f"  {v.name}: {v.description} ({value}{choice})"))
    if f.steps:
        click.echo("\nsteps")
        for s in f.steps:
            after = f" (after {', '.join(s.needs)})" if s.needs else ""
            click.echo(_plain(f"  {s.id}: {s.title}{after}"))
    if f.gtft is not None:
        import tomli_w

        click.echo("\n" + _plain(tomli_w.dumps({"gtft": dict(f.gtft)}).rstrip()))


def _matches(asked: str) -> list[Any]:
    """The keys at or below ``asked``; indices may be left out or given. "" is all of them."""
    from gtft.recipe.keys import all_keys

    want = _bare(asked.removeprefix("gtft."))
    return [k for k in all_keys() if not want or f"{_bare(k.path)}.".startswith(f"{want}.")]


def _bare(path: str) -> str:
    """A key's path without its indices."""
    return re.sub(r"\[\d*\]", "", path)


def _print_keys(keys: Sequence[Any]) -> None:
    if len(keys) > 1:
        rows = [
            (k.path, f"{k.type} {k.range}".strip(), k.default_text, k.description) for k in keys
        ]
        print_table(("key", "takes", "default", "what it is"), rows, "no keys")
        return
    key = keys[0]
    click.echo(f"{key.path}: {key.description}")
    click.echo(f"  takes    {key.type}{', ' + key.range if key.range else ''}")
    click.echo(f"  default  {key.default_text}")
    for name, value in key.efforts.items():
        click.echo(f"  effort {name}: {value}")
    click.echo(f"  set it   gtft run FORMULA --set {key.path.replace('[]', '.0')}=…")


def _explain_rows(resolved: Resolved, key: str | None) -> list[dict[str, object]]:
    from gtft.recipe.keys import all_keys

    meaning = {_bare(k.path): k.description for k in all_keys()}
    want = _bare(key.removeprefix("gtft.")) if key else ""
    rows: list[dict[str, object]] = []
    for path, origin in resolved.origins.items():
        bare = _bare(path)
        if want and not f"{bare}.".startswith(f"{want}."):
            continue
        rows.append(
            {
                "key": path,
                "value": _value_at(resolved.document["recipe"], path),
                "from": str(origin),
                "meaning": meaning.get(bare, ""),
            }
        )
    if key and not rows:
        near = difflib.get_close_matches(key, list(resolved.origins), n=1, cutoff=0.5)
        raise UsageError(
            f"a recipe has no key {key}" + (f"; did you mean {near[0]}?" if near else ""),
            fix="gtft recipe explain",
        )
    return rows


def _value_at(recipe: Any, path: str) -> Any:
    for part in path.replace("[", ".").replace("]", "").split("."):
        recipe = recipe[int(part)] if isinstance(recipe, list) else recipe[part]
    return recipe


def _print_resolved(resolved: Resolved, rows: Sequence[Mapping[str, object]]) -> None:
    from gtft.recipe.keys import write_value

    file = resolved.document["formula_file"]
    click.echo(f"{resolved.formula} version {resolved.version}, recipe {resolved.hash[:19]}")
    click.echo(f"formula: {file}")
    table = [
        (
            r["key"],
            _plain("none" if r["value"] is None else write_value(r["value"])),
            _plain(str(r["from"])).replace(f"{file}:", "line "),
            r["meaning"],
        )
        for r in rows
    ]
    print_table(("key", "value", "from", "what it is"), table, "no keys")


def _plain(text: str) -> str:
    """Text for a terminal: control characters of a formula do not reach it."""
    return "".join(c if c in "\n\t" or c.isprintable() else "�" for c in text)
