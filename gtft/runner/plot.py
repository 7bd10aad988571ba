"""Lines over steps as inline SVG: colours from the page's style sheet, dashes and labels for who sees none.

The same figures give the same bytes. All text is escaped here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gtft.runner.figures import clean_text

WIDTH, HEIGHT = 760, 230
_LEFT, _RIGHT, _TOP, _FOOT = 78, 150, 30, 40
# A line has at most this many points, lowest and highest of their share: spikes stay.
_MOST_POINTS = 400
_MOST_MARKS = 120
# Beyond this a figure is drawn at the edge.
_EDGE = 1e30
# Labels at the ends of lines keep this distance.
_LABEL = 16

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Line:
    """``kind``: ``main`` (drawn through), ``other`` (dashed, with squares) or ``each`` (faint dots)."""

    name: str
    points: Points
    kind: str = "main"


@dataclass(frozen=True)
class Marks:
    """Steps at which something happened to the training."""

    checkpoints: Sequence[int] = ()
    pauses: Sequence[int] = ()
    resumes: Sequence[int] = ()


def escape(text: object, longest: int = 300) -> str:
    """Text of others as text of a page: no markup, nothing that steers."""
    return html.escape(clean_text(text, longest))


def draw_lines(
    about: str,
    lines: Sequence[Line],
    marks: Marks,
    say: Callable[[float], str],
    *,
    steps: tuple[int, int],
    from_zero: bool = False,
) -> str:
    """One plot; empty without points. ``say`` writes a value with its unit; ``steps``: the first and the
    last, the same for all plots of a page; ``from_zero``: the scale of values begins at 0."""
    lines = [Line(n.name, [(s, _bound(v)) for s, v in n.points], n.kind) for n in lines if n.points]
    if not lines:
        return ""
    values = [v for n in lines for _, v in n.points]
    x = _Scale(steps[0], steps[1], _LEFT, WIDTH - _RIGHT)
    low, high = min(values), max(values)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    y = _Scale(min(low, 0.0) if from_zero else low - air, high + air, HEIGHT - _FOOT, _TOP)
    parts = [*_draw_axes(x, y, say), *_draw_marks(x, marks)]
    for line in lines:
        parts += _draw_line(line, x, y)
    parts += _draw_labels(lines, y, say)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">'
        + "".join(parts)
        + "</svg>"
    )


def smooth(points: Points) -> list[tuple[int, float]]:
    """Each value as the mean of its neighbours, as many on either side, about a tenth of the series."""
    values = [v for _, v in points]
    out: list[tuple[int, float]] = []
    for i, (step, _) in enumerate(points):
        reach = min(len(values) // 20, i, len(values) - 1 - i)
        near = values[i - reach : i + reach + 1]
        out.append((step, math.fsum(near) / len(near)))
    return out


@dataclass(frozen=True)
class _Scale:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> Iterator[float]:
        """Round values inside the scale, at most about so many."""
        raw = (self.high - self.low) / most
        if raw <= 0:
            yield self.low
            return
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * f for f in (1, 2, 5, 10) if size * f >= raw)
        step = max(1.0, step) if whole else step
        n = math.ceil(self.low / step)
        while n * step <= self.high * (1 + 1e-12):
            yield n * step
            n += 1


def _bound(value: float) -> float:
    return min(max(value, -_EDGE), _EDGE)


def _draw_axes(x: _Scale, y: _Scale, say: Callable[[float], str]) -> Iterator[str]:
    for value in y.ticks(5):
        at = y.place(value)
        yield f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
        yield f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" class="right">{escape(say(value))}</text>'
    foot = HEIGHT - _FOOT
    yield f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{foot}" y2="{foot}" class="axis"/>'
    for value in x.ticks(8, whole=True):
        at = x.place(value)
        yield f'<text x="{at:.1f}" y="{foot + 26}" class="middle muted">{value:.0f}</text>'
    yield f'<text x="{WIDTH - _RIGHT + 22}" y="{foot + 26}" class="muted">step</text>'


def _draw_marks(x: _Scale, marks: Marks) -> Iterator[str]:
    foot = HEIGHT - _FOOT
    for step in _inside(x, marks.checkpoints):
        at = x.place(step)
        yield (
            f'<path d="M{at:.1f},{foot + 1} l-4,8 h8 z" class="checkpoint">'
            f"<title>checkpoint at step {step}</title></path>"
        )
    for steps, name in ((marks.pauses, "paused"), (marks.resumes, "resumed")):
        for step in _inside(x, steps):
            at = x.place(step)
            yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{foot}" class="{name}"/>'
            # The one ends where the other begins.
            side, off = ("right", -4) if name == "paused" else ("left", 4)
            yield f'<text x="{at + off:.1f}" y="{_TOP - 10}" class="{side} muted">{name} {step}</text>'


def _inside(x: _Scale, steps: Sequence[int]) -> list[int]:
    found = [s for s in steps if x.low <= s <= x.high]
    return found[:: -(-len(found) // _MOST_MARKS) or 1]


def _draw_line(line: Line, x: _Scale, y: _Scale) -> Iterator[str]:
    places = [(x.place(s), y.place(v)) for s, v in thin(line.points)]
    if line.kind == "each":
        for a, b in places:
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="1.6" class="each"/>'
        return
    yield '<polyline points="{}" class="line {}"/>'.format(
        " ".join(f"{a:.1f},{b:.1f}" for a, b in places), line.kind
    )
    if line.kind == "other" or len(places) == 1:
        for a, b in places:
            yield f'<rect x="{a - 3:.1f}" y="{b - 3:.1f}" width="6" height="6" class="{line.kind}"/>'


def thin(points: Points) -> Points:
    """At most so many points that a plot can show: of each share its lowest and its highest."""
    if len(points) <= _MOST_POINTS:
        return points
    kept: list[tuple[int, float]] = []
    shares = _MOST_POINTS // 2
    for n in range(shares):
        part = points[len(points) * n // shares : len(points) * (n + 1) // shares]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _draw_labels(lines: Sequence[Line], y: _Scale, say: Callable[[float], str]) -> Iterator[str]:
    """Name and last value at the end of each line, moved apart where they would touch."""
    below = -math.inf
    named = [n for n in lines if n.kind != "each"]
    for line in sorted(named, key=lambda n: y.place(n.points[-1][1])):
        value = line.points[-1][1]
        at = max(y.place(value) + 4, below + _LABEL)
        below = at
        text = f"{line.name} {say(value)}"
        yield f'<text x="{WIDTH - _RIGHT + 8}" y="{at:.1f}" class="name-{line.kind}">{escape(text, 40)}</text>'
