"""Small charts as inline SVG: bars, stacked bars, columns. Colours come from the page's style sheet.

Every figure is written beside its mark and every series has a pattern of its own, so that nothing is told by
colour alone. All text is escaped here; widths are in the units of the view box.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from gtft.corpus.health.render import clean
from gtft.corpus.segment import shorten

WIDTH = 760
# The column of labels is as wide as its longest label, within these.
_LABELS = (110, 330)
_ROW, _BAR = 26, 16
_AIR = 6
# Least room behind a bar for its figure.
_FIGURE = 110
_CHARACTER = 7.6
# On both sides of columns, for the halves of their labels.
_EDGE = 26
PATTERNS = 7


def escape(text: object, longest: int = 120) -> str:
    """Text of others as text: no markup, no control or direction characters."""
    return html.escape(clean(text, longest))


def _text(x: float, y: float, text: str, kind: str = "", longest: int = 120) -> str:
    shown = clean(text, 4000)
    cut = shorten(shown, longest)
    title = f"<title>{html.escape(shown)}</title>" if cut != shown else ""
    classes = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{classes}>{html.escape(cut)}{title}</text>'


def _svg(height: float, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(about, 300)}">'
        + "".join(parts)
        + "</svg>"
    )


def _mark(x: float, y: float, width: float, height: float, series: int) -> str:
    """A rectangle of a series: its colour, and its pattern over it."""
    n = series % PATTERNS
    box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.8):.1f}" height="{height:.1f}"'
    over = f'<rect {box} fill="url(#p{n})"/>' if n else ""
    return f'<rect {box} class="s{n}"/>{over}'


def _measure_labels(labels: Sequence[str]) -> int:
    longest = max(len(clean(label)) for label in labels)
    return int(min(max(longest * _CHARACTER + 16, _LABELS[0]), _LABELS[1]))


def draw_bars(
    rows: Sequence[tuple[str, int, str]],
    about: str,
    *,
    line: tuple[int, str] | None = None,
    series: int = 0,
) -> str:
    """Horizontal bars: (label, value, what is written behind it). ``line`` marks a value that is wanted."""
    if not rows:
        return _nothing()
    left = _measure_labels([label for label, _, _ in rows])
    figures = max(_FIGURE, int(max(len(f) for _, _, f in rows) * _CHARACTER) + 10)
    room = WIDTH - left - figures
    top = 22 if line else 0
    most = max([v for _, v, _ in rows] + ([line[0]] if line else []) + [1])
    height = top + len(rows) * _ROW + 4
    parts: list[str] = []
    for n, (label, value, figure) in enumerate(rows):
        y = top + n * _ROW
        length = room * value / most
        parts.append(_text(left - 8, y + _BAR - 2, label, "label", int(left / _CHARACTER)))
        parts.append(_mark(left, y + 1, length, _BAR, series if value else PATTERNS))
        behind = left + length + 8
        wanted = left + room * line[0] / most if line else 0.0
        if behind < wanted < behind + len(figure) * _CHARACTER:
            # The figure would stand across the line: behind the line then, where nothing is.
            behind = wanted + 8
        parts.append(_text(behind, y + _BAR - 2, figure, "figure", 40))
    if line:
        x = left + room * line[0] / most
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{height}" class="wanted"/>')
        parts.append(_text(x, 10, line[1], "wanted-label"))
    return _svg(height, about, parts)


def draw_stacks(rows: Sequence[tuple[str, Sequence[int]]], names: Sequence[str], about: str) -> str:
    """Stacked bars: a label and one value per name of ``names``; with a legend."""
    if not rows:
        return _nothing()
    left = _measure_labels([label for label, _ in rows])
    room = WIDTH - left - 80
    most = max([sum(values) for _, values in rows] + [1])
    legend, top = _draw_legend(names, left)
    parts = [legend]
    for n, (label, values) in enumerate(rows):
        y = top + n * _ROW
        x = float(left)
        parts.append(_text(left - 8, y + _BAR - 2, label, "label", int(left / _CHARACTER)))
        for series, value in enumerate(values):
            if value:
                width = room * value / most
                parts.append(_mark(x, y + 1, width, _BAR, series))
                x += width
        parts.append(_text(x + 8, y + _BAR - 2, f"{sum(values):,}", "figure"))
    return _svg(top + len(rows) * _ROW + 4, about, parts)


def _draw_legend(names: Sequence[str], left: int) -> tuple[str, int]:
    parts: list[str] = []
    x, y = float(left), 0
    for n, name in enumerate(names):
        shown = clean(name, 24)
        width = 26 + len(shown) * _CHARACTER + 14
        if x + width > WIDTH and x > left:
            x, y = float(left), y + 20
        parts.append(_mark(x, y + 2, 14, 12, n))
        parts.append(_text(x + 20, y + 12, shown, "figure"))
        x += width
    return "".join(parts), y + 20 + _AIR


def draw_share(kept: int, came: int, about: str) -> str:
    """One bar over the whole width: what was kept, and what was not."""
    share = kept / came if came else 0.0
    room = float(WIDTH)
    parts = [_mark(0, 0, room * share, 18, 0)] if kept else []
    if kept < came:
        parts.append(_mark(room * share, 0, room * (1 - share), 18, 1))
    return _svg(18, about, parts)


def draw_columns(
    bins: Sequence[tuple[str, int]],
    about: str,
    *,
    lines: Mapping[float, str] | None = None,
) -> str:
    """Columns side by side; ``lines``: place (in columns from the left, fractions allowed) → its name."""
    if not bins:
        return _nothing()
    top, foot, tall = 34, 24, 150
    step = (WIDTH - 2 * _EDGE) / len(bins)
    most = max([v for _, v in bins] + [1])
    parts: list[str] = []
    every = max(1, -(-len(bins) // 14))
    for n, (label, value) in enumerate(bins):
        x = _EDGE + n * step
        height = tall * value / most
        if value:
            parts.append(_mark(x + step * 0.08, top + tall - height, step * 0.84, height, 0))
            if step > 30:
                parts.append(_text(x + step / 2, top + tall - height - 4, f"{value:,}", "middle"))
        if n % every == 0:
            parts.append(_text(x + step / 2, top + tall + 16, label, "middle muted"))
    parts.append(
        f'<line x1="{_EDGE}" x2="{WIDTH - _EDGE}" y1="{top + tall}" y2="{top + tall}" class="axis"/>'
    )
    for place, name in (lines or {}).items():
        x = _EDGE + place * step
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{top + tall}" class="wanted"/>')
        parts.append(_text(min(max(x, 34), WIDTH - 34), 10, name, "wanted-label"))
    return _svg(top + tall + foot, about, parts)


def _nothing() -> str:
    return '<p class="muted">none</p>'


def draw_patterns() -> str:
    """The patterns that all charts of a page share; put once into it."""
    shapes = (
        '<path d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4"/>',
        '<circle cx="2" cy="2" r="1.1"/><circle cx="6" cy="6" r="1.1"/>',
        '<path d="M0,0 l8,8 M8,0 l-8,8"/>',
        '<path d="M-2,6 l4,4 M0,0 l8,8 M6,-2 l4,4"/>',
        '<path d="M4,0 v8 M0,4 h8"/>',
        '<path d="M0,2 h8 M0,6 h8"/>',
    )
    made = "".join(
        f'<pattern id="p{n}" width="8" height="8" patternUnits="userSpaceOnUse" class="hatch">{s}</pattern>'
        for n, s in enumerate(shapes, start=1)
    )
    return (
        f'<svg width="0" height="0" aria-hidden="true" class="patterns"><defs>{made}</defs></svg>'
    )
