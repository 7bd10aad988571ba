"""A run as one HTML page: no script, no network, good in light and dark, without colour and on paper."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gtft.artifact import short_id, write_file
from gtft.contract import STAGES
from gtft.records.rows import EventRow, Run
from gtft.runner.box import GIB, say_count, say_size
from gtft.runner.figures import Figures, read_figures, say_seconds, spell_out, summarize
from gtft.runner.plot import Line, Marks, draw_lines, escape, smooth
from gtft.runner.status import RunView, view_run
from gtft.runner.workspace import Workspace

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Beyond this a smoothed line is drawn through the dots.
_FEW = 30
_MOST_ROWS = 400


@dataclass(frozen=True)
class RunPage:
    """What the page of a run shows. ``planned``: lines of planned and measured figures; ``recipe``: TOML."""

    run: Run
    view: RunView
    events: tuple[EventRow, ...]
    figures: Mapping[str, Figures]
    planned: tuple[str, ...]
    recipe: str


def gather_page(ws: Workspace, run: Run, recipe: str, planned: tuple[str, ...]) -> RunPage:
    """Everything about ``run`` from the store and from its jobs' files."""
    figures: dict[str, Figures] = {s: read_figures(ws.job_dir(run.id, s)) for s in STAGES}
    events = tuple(ws.store.list_events(run.id))
    return RunPage(run, view_run(ws, run), events, figures, planned, recipe)


def write_page(path: Path, page: RunPage) -> None:
    """Aside, then renamed: a reader finds the old page or the new one."""
    write_file(path, draw_page(page).encode())


def draw_page(page: RunPage) -> str:
    """The same content gives the same bytes; times are UTC. Every text in it is escaped."""
    style = files("gtft.runner").joinpath("page.css").read_text("utf-8")
    sections = [
        ("Stages", _draw_stages(page)),
        ("Training", _draw_training(page.figures["train"])),
        ("Planned, and what it took", _list(page.planned)),
        ("Warnings", _draw_warnings(page.figures)),
        ("History", _draw_history(page.events)),
        ("Recipe", _draw_recipe(page)),
    ]
    body = [_draw_head(page)]
    body += [
        f"<section>\n<h2>{name}</h2>\n{drawn}\n</section>" for name, drawn in sections if drawn
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.view.id)}: {escape(page.view.state)}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _draw_head(page: RunPage) -> str:
    v = page.view
    waits = f", waits for {escape(v.waits_for)}" if v.waits_for != "nobody" else ""
    cards = "".join(
        f'<div class="card"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
        for figure, what in _list_cards(page.figures["train"])
    )
    return (
        f'<header>\n<p class="muted">{escape(v.recipe)} for {escape(v.role)}, by {escape(v.actor)}</p>\n'
        f"<h1>{escape(v.id)}</h1>\n<p>{escape(v.state)}{waits}</p>\n"
        f'<p class="next">Next: <code>{escape(v.next)}</code></p>\n'
        f'<div class="cards">{cards}</div>\n</header>'
    )


def _list_cards(figures: Figures) -> list[tuple[str, str]]:
    t = summarize(figures)
    if t is None:
        return []
    cards = [(f"{t.step:,}{f' of {t.total:,}' if t.total else ''}", "steps")]
    if t.loss_last is not None:
        cards.append((f"{t.loss_last:.3f}", f"loss, from {t.loss_first:.3f}"))
    if t.validation_best is not None:
        cards.append((f"{t.validation_best:.3f}", f"best held-out, step {t.validation_best_step}"))
    if t.tokens_per_s is not None:
        cards.append((f"{t.tokens_per_s:,.0f}", "tokens/s (median)"))
    if t.peak_memory is not None:
        cards.append((say_size(t.peak_memory), "memory at most"))
    if t.seconds is not None:
        cards.append((say_seconds(t.seconds), "training, last attempt"))
    cards.append((str(len(t.checkpoints)), "checkpoints"))
    cards.append((str(t.warnings), "warnings"))
    return cards


def _draw_training(figures: Figures) -> str:
    points = figures.points
    losses = points("loss")
    if not losses:
        return "<p>No step was trained yet.</p>"
    marks = Marks(figures.checkpoints, figures.pauses, figures.resumes)
    loss = [Line("loss", losses)]
    if len(losses) > _FEW:
        loss = [Line("each step", losses, "each"), Line("loss", smooth(losses))]
    plots: list[tuple[str, str, list[Line], Callable[[float], str], bool]] = [
        (
            "Loss",
            "of sft in nats per trained token; dots: each logged step, line: mean of neighbours, squares: held-out rows",
            [*loss, Line("held-out", points("validation_loss"), "other")],
            _say_short,
            False,
        ),
        (
            "Distance from the base",
            "KL on general text with the adapter off and on",
            [Line("KL", points("general_kl"))],
            _say_short,
            True,
        ),
        (
            "Loss on general text",
            "nats per token; above the base it forgets",
            [
                Line("now", points("general_loss")),
                Line("base", points("general_loss_base"), "other"),
            ],
            _say_short,
            False,
        ),
        ("Learning rate", "", [Line("rate", points("learning_rate"))], _say_short, True),
        (
            "Gradient norm",
            "before clipping",
            [Line("norm", points("grad_norm"))],
            _say_short,
            True,
        ),
        ("Tokens per second", "", [Line("tokens/s", points("tokens_per_s"))], _say_count, True),
        (
            "Memory",
            "resident, of the worker",
            [Line("memory", [(s, v / GIB) for s, v in points("memory_bytes")])],
            _say_gib,
            True,
        ),
    ]
    known = [s for _, _, lines, _, _ in plots for n in lines for s, _ in n.points]
    steps = (min(known), max(known))
    drawn = [
        _draw_figure(title, note, draw_lines(title, lines, marks, say, steps=steps, from_zero=zero))
        for title, note, lines, say, zero in plots
    ]
    key = '<p class="muted">▲ checkpoint, full line: paused, dashed line: resumed.</p>'
    return key + "\n".join(d for d in drawn if d)


def _draw_figure(title: str, note: str, drawn: str) -> str:
    more = f" <span>{escape(note)}</span>" if note else ""
    return (
        f"<figure><figcaption>{escape(title)}{more}</figcaption>{drawn}</figure>" if drawn else ""
    )


def _draw_stages(page: RunPage) -> str:
    rows = []
    for s in page.view.stages:
        began, took = _measure(page.events, s.stage)
        state = f"{s.state} ({s.reason})" if s.reason else s.state
        rows.append(
            (
                s.stage,
                state,
                s.bead or "–",
                s.worker or "–",
                s.reviewer or "–",
                str(s.attempt),
                short_id(s.artifact) if s.artifact else "–",
                began,
                took,
            )
        )
    columns = (
        "stage",
        "state",
        "bead",
        "worker",
        "reviewer",
        "attempts",
        "artifact",
        "began",
        "took",
    )
    return _table(columns, rows)


def _measure(events: Sequence[EventRow], stage: str) -> tuple[str, str]:
    """(when it was first claimed, how long until its evidence): pauses count."""
    of = [e for e in events if e.stage == stage]
    start = next((e.created_us for e in of if e.kind == "claimed"), None)
    if start is None:
        return "–", "–"
    end = next((e.created_us for e in reversed(of) if e.kind == "review"), None)
    return say_utc(start), say_seconds((end - start) / 1e6) if end is not None else "–"


def _draw_warnings(figures: Mapping[str, Figures]) -> str:
    rows = [(stage, w.code, w.text) for stage, f in figures.items() for w in f.warnings]
    return _table(("stage", "code", "what"), rows) if rows else "<p>none</p>"


def _draw_history(events: Sequence[EventRow]) -> str:
    rows = [(say_utc(e.created_us), e.stage or "run", e.kind, e.actor, e.text) for e in events]
    return _table(("when (UTC)", "stage", "what", "who", "text"), rows)


def _draw_recipe(page: RunPage) -> str:
    overlays = [
        o.get("file", o) if isinstance(o, dict) else o for o in page.run.recipe.get("overlays", [])
    ]
    changes = [f"--overlay {o}" for o in overlays]
    changes += [f"--set {s}" for s in page.run.recipe.get("sets", [])]
    text = html.escape("\n".join(spell_out(line) for line in page.recipe.rstrip("\n").split("\n")))
    return (
        f"<p>{escape(page.run.recipe_name)}, <code>{escape(page.run.recipe_hash)}</code></p>"
        + _list(changes)
        + f"<details><summary>as it was resolved</summary><pre>{text}</pre></details>"
    )


def _list(items: Sequence[str]) -> str:
    if not items:
        return ""
    return "<ul>" + "".join(f"<li>{escape(i, 600)}</li>" for i in items) + "</ul>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(c, 600)}</td>" for c in row) + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = len(rows) - _MOST_ROWS
    left = f'<p class="muted">and {say_count(more, "more row")}</p>' if more > 0 else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>{left}'


def say_utc(us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(us / 1e6))


def _say_short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.3g}"


def _say_gib(value: float) -> str:
    return f"{value:.3g} GiB"


def _say_count(value: float) -> str:
    return f"{value:,.0f}"
