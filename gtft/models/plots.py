"""The pictures of a card, drawn with matplotlib's Agg: the same figures give the same bytes.

Every series is told apart by marker or hatch and by a label beside it, never by colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from gtft.markdown import plain
from gtft.models.eval_figures import Candidate, Comparison, Rate, Suite
from gtft.models.figures import CardFigures
from gtft.models.limits import percent, title

LOSS, COMPOSITION, EVAL = "plots/loss.png", "plots/composition.png", "plots/eval.png"
# Only where more than base and tuned were asked.
CANDIDATES = "plots/candidates.png"

_DPI = 150
_WIDTH = 8.0
_INK, _MUTED, _GRID = "#1f2430", "#69707d", "#d9dce1"
_BASE, _TUNED = "#8a6d1f", "#14507d"
# Neighbours differ in lightness and in hatch.
_FILLS = (
    ("#14507d", ""),
    ("#9cc3e0", "///"),
    ("#d9a441", "..."),
    ("#e9dcc0", "xxx"),
    ("#5c7f4f", "\\\\\\"),
    ("#c3d3ba", "+++"),
    ("#b9bdc6", "---"),
)
_OTHER = "other roles"
_LONGEST_LABEL = 26
# text.parse_math: a rig named "$x" is a name, not a formula.
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "hatch.linewidth": 0.7,
    "hatch.color": _INK,
    "legend.frameon": False,
}


def draw_plots(f: CardFigures) -> dict[str, bytes]:
    """Relative path → PNG bytes. The user's matplotlib settings have no effect on them."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawn = {LOSS: _draw_loss(f), COMPOSITION: _draw_composition(f), EVAL: _draw_eval(f)}
        if has_others(f.eval.candidates):
            drawn[CANDIDATES] = _draw_candidates(f)
        return drawn


def has_others(candidates: Sequence[Candidate]) -> bool:
    """Whether more than the base and the tuned model answered."""
    return len(candidates) > 2


def smooth(values: Sequence[float]) -> list[float]:
    """The mean of each value with its neighbours, as many on either side, about a tenth of the series."""
    out: list[float] = []
    for i in range(len(values)):
        reach = min(len(values) // 20, i, len(values) - 1 - i)
        near = values[i - reach : i + reach + 1]
        out.append(sum(near) / len(near))
    return out


def _draw_loss(f: CardFigures) -> bytes:
    kept_out = [(m.step, m.validation) for m in f.adapter.measured if m.validation is not None]
    general = [(m.step, m.general) for m in f.adapter.measured if m.general is not None]
    figure, (axes, *below) = _make_figure(3.6, *((2, (3, 2)) if general or kept_out else ()))
    steps = [s for s, _ in f.adapter.series]
    losses = [v for _, v in f.adapter.series]
    axes.plot(steps, losses, ".", color=_MUTED, markersize=3.5, label="each logged step")
    axes.plot(steps, smooth(losses), "-", color=_TUNED, linewidth=2, label="mean of neighbours")
    for x, y, place in ((steps[0], losses[0], "left"), (steps[-1], losses[-1], "right")):
        _name_point(axes, x, y, place)
    axes.set_title("Training loss")
    # The loss of grpo may be negative.
    axes.set_ylim(min(0, min(losses) * 1.12), max(0, max(losses) * 1.12) or 1)
    axes.set_ylabel(f.adapter.loss_unit)
    for rest in below:
        figure.set_size_inches(_WIDTH, 6.0)
        _draw_retention(rest, kept_out, general, f.adapter.kept_step)
        rest.sharex(axes)
    for each in (axes, *below):
        each.grid(axis="y", color=_GRID, linewidth=0.8)
        each.set_axisbelow(True)
        each.xaxis.get_major_locator().set_params(integer=True)
        each.legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    (below or [axes])[-1].set_xlabel("optimizer step")
    return _save(figure)


def _draw_retention(
    axes: Any,
    kept_out: Sequence[tuple[int, float]],
    general: Sequence[tuple[int, float]],
    kept: int | None,
) -> None:
    for points, name, colour, marker, dash in (
        (kept_out, "rows kept out", _TUNED, "s", "-"),
        (general, "general text", _BASE, "o", "--"),
    ):
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, dash, color=colour, marker=marker, markersize=5, label=name)
            _name_point(axes, x[0], y[0], "left")
            _name_point(axes, x[-1], y[-1], "right")
    if kept is not None:
        axes.axvline(kept, color=_MUTED, linewidth=1, linestyle=":", label="weights kept")
    axes.set_title("What it kept")
    axes.set_ylabel("nats per token")
    highest = max(v for _, v in (*kept_out, *general))
    axes.set_ylim(0, highest * 1.25 or 1)


def _name_point(axes: Any, x: float, y: float, place: str) -> None:
    """The value beside a point, on white, so that what lies behind it does not run through it."""
    axes.annotate(
        f"{y:.2f}",
        (x, y),
        xytext=(7 if place == "left" else -5, 9),
        textcoords="offset points",
        ha=place,
        fontsize=9,
        fontweight="bold",
        bbox={
            "boxstyle": "round,pad=0.12",
            "facecolor": "white",
            "edgecolor": "none",
            "alpha": 0.85,
        },
    )


def _draw_composition(f: CardFigures) -> bytes:
    cells = f.corpus.cells
    if cells is None:
        return _draw_totals(f)
    totals = {source: sum(roles.values()) for source, roles in cells.items()}
    sources = sorted(totals, key=lambda s: (totals[s], s))
    roles, folded = _fold_roles(f.corpus.by_role)
    sums = [
        (f"by {name}", fold_counts(counts))
        for name, counts in (("rig", f.corpus.by_rig), ("kind", f.corpus.by_kind))
        if counts
    ]
    heights = [len(sources) or 1, *(len(counts) for _, counts in sums)]
    figure, (axes, *below) = _make_figure(
        1.9 + 0.55 * heights[0] + sum(0.8 + 0.34 * n for n in heights[1:]),
        rows=len(heights),
        heights=[2 * heights[0], *heights[1:]],
    )
    widest = max(totals.values(), default=0) or 1
    for y, source in enumerate(sources):
        left = 0
        counts = {r: cells[source].get(r, 0) for r in roles}
        counts[_OTHER] = totals[source] - sum(counts.values())
        for n, role in enumerate((*roles, _OTHER)):
            if counts[role]:
                colour, hatch = _FILLS[n]
                axes.barh(
                    y,
                    counts[role],
                    left=left,
                    height=0.62,
                    color=colour,
                    hatch=hatch,
                    edgecolor=_INK,
                    linewidth=0.6,
                )
                _write_inside(axes, left, y, counts[role], widest)
                left += counts[role]
        axes.text(left + widest * 0.012, y, str(totals[source]), va="center", fontweight="bold")
    axes.set_yticks(range(len(sources)), [_label(s) for s in sources])
    axes.set_xlim(0, widest * 1.09)
    axes.set_title("Training examples by source and role")
    _add_role_key(axes, f, roles, folded)
    for rest, (name, counts) in zip(below, sums, strict=True):
        _draw_bars(rest, name, counts, ("#b9bdc6", ""))
    (below or [axes])[-1].set_xlabel("examples")
    return _save(figure)


def fold_counts(counts: dict[str, int], most: int = 8) -> dict[str, int]:
    """The largest first; those past ``most`` in one, so that a town of many rigs is still read."""
    ranked = sorted(counts, key=lambda n: (-counts[n], n))
    kept = {n: counts[n] for n in (ranked if len(ranked) <= most else ranked[: most - 1])}
    rest = ranked[len(kept) :]
    return {**kept, f"{len(rest)} others": sum(counts[n] for n in rest)} if rest else kept


def _add_role_key(axes: Any, f: CardFigures, roles: Sequence[str], folded: int) -> None:
    from matplotlib.patches import Patch

    named = [f"{_label(r)} ({f.corpus.by_role[r]})" for r in roles]
    if folded:
        named.append(f"{_OTHER} ({folded})")
    keys = [
        Patch(facecolor=_FILLS[n][0], hatch=_FILLS[n][1], edgecolor=_INK, linewidth=0.6, label=name)
        for n, name in enumerate(named)
    ]
    axes.legend(
        handles=keys,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.04),
        handlelength=2.4,
        handleheight=1.3,
    )


def _draw_totals(f: CardFigures) -> bytes:
    """Two sets of bars, when the store has sums by source and by role but not the one by the other."""
    groups = [("by source", f.corpus.by_source), ("by role", f.corpus.by_role)]
    heights = [max(1, len(counts)) for _, counts in groups]
    figure, grid = _make_figure(1.6 + 0.34 * sum(heights), rows=2, heights=heights)
    for axes, (name, counts), fill in zip(grid, groups, _FILLS, strict=False):
        _draw_bars(axes, name, counts, fill)
    grid[-1].set_xlabel("examples")
    return _save(figure)


def _draw_bars(axes: Any, name: str, counts: dict[str, int], fill: tuple[str, str]) -> None:
    names = list(reversed(counts))
    values = [counts[n] for n in names]
    widest = max(values, default=0) or 1
    axes.barh(
        range(len(names)),
        values,
        height=0.62,
        color=fill[0],
        hatch=fill[1],
        edgecolor=_INK,
        linewidth=0.6,
    )
    for y, value in enumerate(values):
        axes.text(value + widest * 0.012, y, str(value), va="center", fontweight="bold")
    axes.set_yticks(range(len(names)), [_label(n) for n in names])
    axes.set_xlim(0, widest * 1.09)
    axes.set_title(f"Training examples {name}")


def _draw_eval(f: CardFigures) -> bytes:
    panels = [(s, (s.overall, *s.capabilities)) for s in f.eval.suites]
    heights = [len(lines) for _, lines in panels]
    figure, grid = _make_figure(
        1.2 + 0.46 * sum(heights) + 0.6 * len(panels), rows=len(panels), heights=heights
    )
    for axes, (suite, lines) in zip(grid, panels, strict=True):
        _draw_suite(axes, suite, lines)
    grid[-1].set_xlabel("items passed, with 95 % confidence interval")
    _add_candidate_key(figure, grid[0])
    return _save(figure)


def _draw_candidates(f: CardFigures) -> bytes:
    """Every candidate's share of each suite, the tuned model filled in."""
    panels = [
        (
            suite,
            [(c.name, *c.rates[suite.name]) for c in f.eval.candidates if suite.name in c.rates],
        )
        for suite in f.eval.suites
    ]
    panels = [(suite, rows) for suite, rows in panels if rows]
    heights = [len(rows) for _, rows in panels]
    figure, grid = _make_figure(
        0.6 + 0.36 * sum(heights) + 0.75 * len(panels), rows=len(panels), heights=heights
    )
    for axes, (suite, rows) in zip(grid, panels, strict=True):
        for n, (name, _, rate) in enumerate(reversed(rows)):
            own = name == "tuned"
            _draw_rate(axes, rate, n, _TUNED if own else _BASE, "s" if own else "o", hollow=not own)
            weight = "bold" if own else "normal"
            axes.text(1.035, n, percent(rate.share), va="center", fontweight=weight)
        names = [f"{_label(name)} (n = {n})" for name, n, _ in reversed(rows)]
        axes.set_yticks(range(len(rows)), names, fontsize=9)
        _set_shares(axes, len(rows))
        axes.set_title(plain(title(suite)).capitalize(), pad=8)
    grid[-1].set_xlabel("items passed, with 95 % confidence interval")
    return _save(figure)


def _set_shares(axes: Any, rows: int) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.5, rows - 0.5)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_suite(axes: Any, suite: Suite, lines: Sequence[Comparison]) -> None:
    for n, c in enumerate(lines):
        y = len(lines) - 1 - n
        _draw_rate(axes, c.base, y + 0.17, _BASE, "o", hollow=True)
        _draw_rate(axes, c.tuned, y - 0.17, _TUNED, "s", hollow=False)
        axes.text(
            1.035,
            y,
            f"{percent(c.base.share)} → {percent(c.tuned.share)}",
            va="center",
            fontweight="bold" if c is suite.overall else "normal",
        )
    names = ["all items" if c is suite.overall else _label(c.name) for c in lines]
    labels = [f"{name}\nn = {c.n}" for name, c in zip(names, lines, strict=True)]
    axes.set_yticks(range(len(lines)), list(reversed(labels)), fontsize=9)
    axes.axhline(len(lines) - 1.5, color=_MUTED, linewidth=0.8)
    _set_shares(axes, len(lines))
    axes.set_title(plain(title(suite)).capitalize(), pad=10)


def _draw_rate(axes: Any, rate: Rate, y: float, colour: str, marker: str, *, hollow: bool) -> None:
    axes.errorbar(
        rate.share,
        y,
        xerr=[[max(0.0, rate.share - rate.low)], [max(0.0, rate.high - rate.share)]],
        fmt=marker,
        color=colour,
        markersize=7,
        markerfacecolor="white" if hollow else colour,
        markeredgewidth=1.6,
        elinewidth=1.6,
        capsize=3,
        clip_on=False,
    )


def _add_candidate_key(figure: Any, axes: Any) -> None:
    from matplotlib.lines import Line2D

    kinds = (("base", _BASE, "o", "white"), ("tuned", _TUNED, "s", _TUNED))
    keys = [
        Line2D(
            [],
            [],
            color=c,
            marker=m,
            markerfacecolor=fill,
            markersize=7,
            markeredgewidth=1.6,
            label=name,
        )
        for name, c, m, fill in kinds
    ]
    axes.legend(
        handles=keys, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2
    )


def _write_inside(axes: Any, left: float, y: float, count: int, widest: int) -> None:
    if count / widest < 0.06:
        return
    axes.text(
        left + count / 2,
        y,
        str(count),
        ha="center",
        va="center",
        fontsize=9,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
    )


def _fold_roles(by_role: dict[str, int]) -> tuple[list[str], int]:
    """The roles that get a fill of their own, largest first, and how many examples the others have."""
    ranked = sorted(by_role, key=lambda r: (-by_role[r], r))
    if len(ranked) <= len(_FILLS):
        return ranked, 0
    kept = ranked[: len(_FILLS) - 1]
    return kept, sum(by_role[r] for r in ranked[len(kept) :])


def _label(name: str) -> str:
    return plain(name, _LONGEST_LABEL) or "unnamed"


def _make_figure(height: float, rows: int = 1, heights: Sequence[float] = (1,)) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(hspace=0.08 if rows > 1 else 0.02)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, 1, squeeze=False, height_ratios=heights)[:, 0]
    return figure, grid


def _save(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()
