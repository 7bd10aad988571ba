"""How figures and other people's text are written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SUITES = {
    "heldout": "sessions the model never saw",
    "authored": "hand-made items in wordings that no training example uses",
    "generated": "made items with computed answers",
    "gt-model-eval": "Gas Town's own patrol cases",
}
_ORDER = tuple(SUITES)


def sort_suites(names: Iterable[str]) -> list[str]:
    """Held-out sessions first, then gtft's own, then others by name."""
    return sorted(names, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def signed(share: float) -> str:
    """A difference in points, with its sign."""
    rounded = round(100 * share)
    return f"{rounded:+d}" if rounded else "0"


def tell_rate(r: Mapping[str, Any]) -> str:
    """``63 % (49–75)``: a share and its 95 % interval."""
    return f"{percent(r['rate'])} ({100 * r['low']:.0f}–{100 * r['high']:.0f})"


def tell_gain(c: Mapping[str, Any], to: str = " to ") -> str:
    """``+12 (-3 to +27)``: a difference in points and its 95 % interval."""
    return f"{signed(c['gain'])} ({signed(c['gain_low'])}{to}{signed(c['gain_high'])})"


def tell_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def tell_chance(p: float) -> str:
    if p < 0.001:
        return "less than once in 1,000 times"
    if p >= 0.9995:
        return "every time"
    return f"{100 * p:.1f} % of the time"


def count_of(n: int, noun: str, plural: str = "") -> str:
    """``1 item``, ``2 items``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {plural or noun + 's'}"


def clean(text: object, longest: int = 300) -> str:
    """One line of others' text; what would steer a terminal or a page is spelled out."""
    line = " ".join(str(text)[: 4 * longest].split())
    shown = "".join(c if c.isprintable() else _spell(c) for c in line)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _spell(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
