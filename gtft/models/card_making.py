"""The card's sections about what the adapter was made from and how."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from gtft.markdown import bullets, code, prose, table
from gtft.models.figures import CardFigures
from gtft.models.plots import COMPOSITION, LOSS

NOT_RECORDED = "not recorded"
# A card travels; the folder names of the machine that made it do not belong to it.
_ABSOLUTE = re.compile(r"(?<![\w.…])(?:~|[A-Za-z]:)?[/\\][^\s'\",\]]*[/\\]([^/\\\s'\",\]]+)")


def write_composition(f: CardFigures) -> str:
    c = f.corpus
    parts = [
        "## What it was trained on",
        f"{c.train} examples for training and {c.heldout} held out for the eval, split by session and bead, "
        "never by row. What follows counts the training side.",
        f"![{_describe_composition(f)}]({COMPOSITION})",
        _tabulate_cells(f),
    ]
    for name, counts in (("rig", c.by_rig), ("provenance", c.by_provenance)):
        parts.append(f"By {name}: {_list_counts(counts)}.")
    if c.by_kind is not None:
        parts.append(f"By kind: {_list_counts(c.by_kind)}.")
    parts += [
        f"Shared with what it was measured on: {_list_all(c.leakage)}.",
        f"Left out, by reason: {_list_counts(c.dropped, none='nothing')}.",
        _write_consent(f),
        f"Secrets replaced by placeholders, by type: {_list_counts(c.secrets, none='none found')}.",
        f"Personal data replaced, by type: {_list_counts(c.personal, none='none found')}.",
        "Sources and their licences:",
        _tabulate_sources(f),
    ]
    return "\n\n".join(parts)


def write_recipe(f: CardFigures) -> str:
    a, base = f.adapter, f.adapter.base
    facts = [
        f"recipe {code(f.recipe_name)}, {code(f.recipe_hash)}, effort {code(f.recipe.effort)}, "
        f"seed {f.recipe.train.seed}",
        f"base {code(base.hub_id or base.name)}, {code(base.id)}, loaded as {code(base.quantization)}",
        f"{a.rows} rows, {a.supervised:,} trained tokens"
        + (f" and {a.context:,} of context" if a.context is not None else "")
        + f"; loss on the assistant's turns only; {a.empty_rows} rows without a trained token",
        f"{a.steps} optimizer steps, {a.epochs:g} epochs",
        f"loss {a.loss_first:.3f} at the first logged step, {a.loss_last:.3f} at the last "
        f"({a.loss_unit})",
    ]
    if a.drift is not None and a.drift.replayed:
        facts.append(f"{a.drift.replayed} rows of general text were replayed beside the corpus's")
    if a.stopped:
        facts.append(f"it stopped early: {a.stopped}")
    if a.peers:
        facts.append(
            f"trained in a swarm of {', '.join(code(p) for p in a.peers)}; the corpora of the others are not "
            "here, and only adapter weights were exchanged"
        )
    if a.continues:
        facts.append(
            f"goes on from adapter {code(a.continues)}, whose own corpus is not counted on this card"
        )
    if a.stacks_on:
        facts.append(
            f"lies on top of the role adapter {code(a.stacks_on)}, which it needs, and which it is compared with; that "
            "one's own corpus is not counted on this card"
        )
    parts = ["## How it was trained", bullets(facts), f"![{_describe_loss(f)}]({LOSS})"]
    if f.changes:
        told = [code(hide_folders(change)) for change in f.changes]
        parts += ["Changed on the command line:", bullets(told)]
    parts += [*_write_retention(f), *_write_cost(f)]
    rows = [[code(k), code(v)] for k, v in _flatten(f.adapter.hyperparameters)]
    parts += ["### Hyperparameters as used", table(("key", "value"), rows)]
    return "\n\n".join(parts)


def hide_folders(text: str) -> str:
    """Absolute paths shortened to their last part: ``/home/someone/town`` → ``…/town``."""
    return _ABSOLUTE.sub(r"…/\1", text)


def _write_consent(f: CardFigures) -> str:
    """Whose data the run was allowed, as the harvest asked and recorded it."""
    scope = ", ".join(prose(s.removeprefix("rig:")) for s in f.recipe.scope) or "every rig"
    head = f"Consent: the recipe's scope is {scope}."
    if f.corpus.consent is None:
        return f"{head} What the rigs were asked: {NOT_RECORDED}."
    if not f.corpus.consent:
        return f"{head} No source named a rig: it is the town's own."
    used = [f"{prose(c.rig)} ({prose(c.why)})" for c in f.corpus.consent if c.used]
    kept = [f"{prose(c.rig)} ({prose(c.why)})" for c in f.corpus.consent if not c.used]
    told = f"{head} Used, and what allowed it: {', '.join(used) or 'none'}."
    return f"{told} Left out: {', '.join(kept)}." if kept else told


def _write_cost(f: CardFigures) -> list[str]:
    c = f.cost
    rows = [[s.stage, say_seconds(s.seconds), str(s.attempts)] for s in c.stages]
    told = f" The runner said of the training: {prose(c.told)}." if c.told else ""
    machine = prose(c.machine) if c.machine else NOT_RECORDED
    return [
        "### Hardware and time",
        f"Machine of the training: {machine}.{told} Time from the last claim of a stage to its evidence:",
        table(("stage", "time", "claims"), rows, numeric=(1, 2)),
    ]


def _write_retention(f: CardFigures) -> list[str]:
    a = f.adapter
    if not a.measured:
        return []
    rows = [
        [
            str(m.step)
            + (" (base)" if m.step == 0 else "")
            + (" **kept**" if m.step == a.kept_step else ""),
            _nats(m.validation),
            _nats(m.general),
            _nats(m.kl),
        ]
        for m in a.measured
    ]
    columns = ("step", "loss on rows kept out", "loss on general text", "KL to the base there")
    return [
        "### What it kept while it learnt",
        "Nats per token, measured during the training. A rising loss on general text is forgetting.",
        table(columns, rows, numeric=(1, 2, 3)),
    ]


def _nats(value: float | None) -> str:
    return NOT_RECORDED if value is None else f"{value:.3f}"


def say_seconds(seconds: float) -> str:
    """``38 s``, ``3.5 min``, ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tabulate_cells(f: CardFigures) -> str:
    c = f.corpus
    if c.cells is None:
        rows = [["source", prose(k), str(v)] for k, v in c.by_source.items()]
        rows += [["role", prose(k), str(v)] for k, v in c.by_role.items()]
        return table(("by", "name", "examples"), rows, numeric=(2,))
    roles = list(c.by_role)
    rows = [
        [
            prose(source),
            *(str(c.cells.get(source, {}).get(role, 0)) for role in roles),
            str(total),
        ]
        for source, total in c.by_source.items()
    ]
    columns = ("source", *(prose(r) for r in roles), "all")
    return table(columns, rows, numeric=range(1, len(columns)))


def _tabulate_sources(f: CardFigures) -> str:
    rows = [
        [code(s.type), code(_show_path(s.path)), prose(_tell_licence(s.licence))]
        for s in f.recipe.harvest.sources
    ]
    return table(("reader", "from", "licence"), rows)


def _tell_licence(licence: str) -> str:
    return "the town's own" if licence == "own" else licence


def _show_path(path: str) -> str:
    pure = PurePath(path)
    return f"…/{pure.name}" if pure.is_absolute() or path.startswith("~") else path


def _list_counts(counts: dict[str, int] | None, none: str = NOT_RECORDED) -> str:
    if counts is None:
        return NOT_RECORDED
    shown = [f"{prose(k)} {v}" for k, v in counts.items() if v]
    return ", ".join(shown) or none


def _list_all(counts: dict[str, int] | None) -> str:
    """As `_list_counts`, zeros included: here a zero is what is claimed."""
    if not counts:
        return NOT_RECORDED
    return ", ".join(f"{prose(k)} {v}" for k, v in counts.items())


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key in sorted(values):
        value = values[key]
        if isinstance(value, dict) and value:
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", hide_folders(text)))
    return rows


def _describe_composition(f: CardFigures) -> str:
    told = ", ".join(f"{k} {v}" for k, v in f.corpus.by_source.items())
    roles = ", ".join(f"{k} {v}" for k, v in f.corpus.by_role.items())
    return prose(f"Examples by source: {told}. By role: {roles}.", longest=1500)


def _describe_loss(f: CardFigures) -> str:
    a = f.adapter
    return (
        f"Training loss over {a.steps} steps, from {a.loss_first:.2f} to {a.loss_last:.2f} "
        f"({a.loss_unit})"
    )
