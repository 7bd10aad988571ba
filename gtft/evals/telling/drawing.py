"""Shares and differences as inline SVG: shapes and labels tell apart, colour only helps; all text is escaped here.

The same figures give the same bytes.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gtft.evals.telling.words import clean, percent

WIDTH = 760
_LEFT, _RIGHT = 200, 560
_ROW, _TOP, _FOOT = 26, 34, 34
_NAME = 27


@dataclass(frozen=True)
class Row:
    """One candidate: a share with its 95 % interval. ``main`` is drawn filled, others hollow."""

    name: str
    rate: float
    low: float
    high: float
    label: str
    main: bool


@dataclass(frozen=True)
class Pair:
    """One capability: the base's share and the tuned model's. ``sure``: the difference holds after correction."""

    name: str
    base: float
    tuned: float
    label: str
    sure: bool


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: its mean, the share that passes with its interval, and how many."""

    confidence: float
    rate: float
    low: float
    high: float
    n: int


def escape(text: object, longest: int = 300) -> str:
    """Others' text as text of a page."""
    return html.escape(clean(text, longest))


def draw_forest(about: str, rows: Sequence[Row]) -> str:
    """Every candidate's share with its interval, one below the other; empty without rows."""
    if not rows:
        return ""
    parts = list(_draw_shares(len(rows)))
    for n, r in enumerate(rows):
        y = _place(n)
        parts.append(
            f'<text x="{_LEFT - 12}" y="{y + 4}" class="right">{escape(r.name, _NAME)}</text>'
        )
        parts.append(
            f'<line x1="{_share(r.low)}" x2="{_share(r.high)}" y1="{y}" y2="{y}" class="bar{_kind(r.main)}"/>'
        )
        parts += [_cap(_share(end), y, r.main) for end in (r.low, r.high)]
        parts.append(_mark(_share(r.rate), y, r.main))
        weight = ' class="strong"' if r.main else ""
        parts.append(f'<text x="{_RIGHT + 14}" y="{y + 4}"{weight}>{escape(r.label)}</text>')
    return _svg(about, _height(len(rows)), parts)


def draw_pairs(about: str, pairs: Sequence[Pair]) -> str:
    """Per capability a hollow dot (base) joined to a filled square (tuned); a dashed join = may be chance."""
    if not pairs:
        return ""
    parts = list(_draw_shares(len(pairs)))
    for n, p in enumerate(pairs):
        y = _place(n)
        join = "join" if p.sure else "join unsure"
        parts.append(
            f'<text x="{_LEFT - 12}" y="{y + 4}" class="right">{escape(p.name, _NAME)}</text>'
        )
        parts.append(
            f'<line x1="{_share(p.base)}" x2="{_share(p.tuned)}" y1="{y}" y2="{y}" class="{join}"/>'
        )
        parts += [_mark(_share(p.base), y, False), _mark(_share(p.tuned), y, True)]
        parts.append(f'<text x="{_RIGHT + 14}" y="{y + 4}">{escape(p.label)}</text>')
    return _svg(about, _height(len(pairs)), parts)


def draw_reliability(about: str, bins: Sequence[Bin]) -> str:
    """How often answers pass, over how likely the model found them; on the diagonal it knows what it knows."""
    if not bins:
        return ""
    left, top, side = 90, 20, 280

    def x(share: float) -> float:
        return round(left + side * share, 1)

    def y(share: float) -> float:
        return round(top + side * (1 - share), 1)

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            f'<line x1="{left}" x2="{left + side}" y1="{y(share)}" y2="{y(share)}" class="grid"/>',
            f'<text x="{left - 8}" y="{y(share) + 4}" class="right">{percent(share)}</text>',
            f'<text x="{x(share)}" y="{top + side + 20}" class="middle muted">{percent(share)}</text>',
        ]
    parts += [
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" class="diagonal"/>',
        f'<text x="{left + side / 2}" y="{top + side + 42}" class="middle muted">confidence of the answer</text>',
        f'<text x="{left}" y="{top - 8}" class="muted">answers that pass</text>',
        f'<text x="{x(0.6)}" y="{y(0.53)}" class="muted">below: surer than right</text>',
        f'<text x="{x(0.4)}" y="{y(0.53)}" class="right muted">above: better than sure</text>',
    ]
    ordered = sorted(bins, key=lambda b: b.confidence)
    line = " ".join(f"{x(b.confidence)},{y(b.rate)}" for b in ordered)
    parts.append(f'<polyline points="{line}" class="bar-main" fill="none"/>')
    for b in ordered:
        at = x(b.confidence)
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="{y(b.low)}" y2="{y(b.high)}" class="bar-other"/>'
        )
        parts.append(_mark(at, y(b.rate), True))
    for n, b in enumerate(ordered):
        text = f"{percent(b.confidence)} sure: {percent(b.rate)} of {b.n} pass"
        parts.append(f'<text x="{left + side + 40}" y="{top + 20 + n * 20}">{escape(text)}</text>')
    return _svg(about, top + side + 56, parts)


def _draw_shares(rows: int) -> Iterator[str]:
    foot = _height(rows) - _FOOT
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = _share(share)
        yield f'<line x1="{at}" x2="{at}" y1="{_TOP - 16}" y2="{foot}" class="grid"/>'
        yield f'<text x="{at}" y="{foot + 20}" class="middle muted">{percent(share)}</text>'


def _mark(x: float, y: float, main: bool) -> str:
    if main:
        return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" class="mark-main"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="mark-other"/>'


def _cap(x: float, y: float, main: bool) -> str:
    return f'<line x1="{x}" x2="{x}" y1="{y - 4}" y2="{y + 4}" class="bar{_kind(main)}"/>'


def _kind(main: bool) -> str:
    return "-main" if main else "-other"


def _share(share: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, share)), 1)


def _place(row: int) -> int:
    return _TOP + row * _ROW


def _height(rows: int) -> int:
    return _TOP + (rows - 1) * _ROW + 18 + _FOOT


def _svg(about: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(about, 1000)}">'
        + "".join(parts)
        + "</svg>"
    )
