"""``gtft review blind``: two answers side by side, judged without knowing whose they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gtft.artifact import short_id
from gtft.cli.context import as_option, find_artifacts, get_actor
from gtft.cli.output import clip, emit, json_option

if TYPE_CHECKING:
    from gtft.evals.blind import Duel, Judgement

_CHOICES = {"a": "A", "b": "B", "=": "same"}


@click.command(
    "blind",
    epilog="\b\nExamples:\n  gtft review blind\n  gtft review blind --pair item-4f2a --choose b\n"
    "  gtft review blind --json      # what is left to judge",
)
@click.argument("eval_id", metavar="[EVAL]", required=False)
@as_option
@click.option("--pair", help="The pair to judge: the start of its id.")
@click.option("--choose", type=click.Choice(["a", "b", "="]), help="A, B, or equally good.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    eval_id: str | None,
    actor: str | None,
    pair: str | None,
    choose: str | None,
    as_json: bool,
) -> None:
    """Judge answers of base and tuned blind; they become preference pairs of the next harvest.

    The prompts are training examples (recipe: eval.blind_items), never items of an eval. Whose an answer is
    is told when all are judged. Without --choose you are asked one pair after the other.
    """
    from gtft.artifact import verify_artifact
    from gtft.errors import UsageError
    from gtft.evals.blind import FILE, JUDGEMENTS, read_duels, read_judgements
    from gtft.evals.library import KIND
    from gtft.shelf import find_on_shelf

    artifacts = find_artifacts(ctx)
    by = get_actor(actor)
    found = find_on_shelf(artifacts, KIND, eval_id)
    verify_artifact(found.path, kind=KIND, expect=found.id)
    if not any(f.name == FILE for f in found.files):
        raise UsageError(
            f"the eval {short_id(found.id)} holds no pairs to judge",
            why="its recipe asks for none",
            fix="gtft run RECIPE --set eval.blind_items=20",
        )
    path = artifacts.parent / JUDGEMENTS
    duels = read_duels(found.file(FILE))
    judged = {j.duel: j for j in read_judgements(path) if j.by == by and j.eval == found.id}
    left = [d for d in duels if d.id not in judged]
    if choose is not None:
        left = [_find(duels, pair)]
    made: list[Judgement] = []
    if not (as_json and choose is None):
        for n, duel in enumerate(left):
            if choose is None:
                _show(duel, by, n + 1, len(left))
            choice = choose or _ask()
            if choice == "q":
                break
            if choice != "s":
                made.append(_note(path, duel, found.id, by, _CHOICES[choice]))
    judged |= {j.duel: j for j in made}
    rest = [d for d in duels if d.id not in judged]
    told = Counter(j.choice for j in judged.values())
    data: dict[str, Any] = {
        "eval": found.id,
        "judged": len(judged),
        "left": [
            {
                "pair": d.id,
                "prompt": list(d.messages),
                **dict(zip("AB", (d.answers[c] for c in d.order(by)), strict=True)),
            }
            for d in rest
        ],
        # Whose answers were better is told when nothing is left to judge.
        "preferred": None if rest else dict(told),
    }

    def render() -> None:
        click.echo(f"{len(judged)} of {len(duels)} pairs judged by {by}; {len(rest)} left")
        if not rest and duels:
            click.echo(
                f"tuned preferred {told['tuned']} times, base {told['base']}, equally good {told['same']}"
                " (tuned has trained on these prompts: this is no measure of it)"
            )
            click.echo("the next harvest takes them as preference pairs: gtft run RECIPE")

    emit(data, as_json, render)


def _find(duels: list[Duel], pair: str | None) -> Duel:
    from gtft.errors import UsageError

    found = [d for d in duels if pair and d.id.startswith(pair)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{len(found)} pairs begin with {pair or 'nothing'}",
        why="--choose judges one pair",
        fix="gtft review blind --json",
    )


def _show(duel: Duel, by: str, n: int, of: int) -> None:
    click.echo(f"── pair {n} of {of} · {duel.role or 'any role'} · {duel.id}")
    for m in duel.messages[-3:]:
        click.echo(f"{m['role']}: {clip(m.get('content') or '', 1500)}")
    for letter, name in zip("AB", duel.order(by), strict=True):
        click.echo(f"\n{letter}:  {clip(duel.answers[name], 1500)}")
    click.echo("")


def _ask() -> str:
    choices = click.Choice([*_CHOICES, "s", "q"])
    answer: str = click.prompt("better: a, b, = (equal), s (skip), q (stop)", type=choices)
    return answer


def _note(path: Path, duel: Duel, eval_id: str, by: str, choice: str) -> Judgement:
    """One line, written and synced before the next pair is shown."""
    from gtft.errors import translate_os_error
    from gtft.evals.blind import judge_duel

    at = datetime.now(UTC).isoformat(timespec="seconds")
    judgement = judge_duel(duel, eval_id, by, at, choice)
    try:
        with path.open("a", encoding="utf-8") as f:
            f.write(json.dumps(judgement.to_json(), sort_keys=True) + "\n")
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise translate_os_error(e, "keeping the judgement") from e
    return judgement
