"""The report as a page of Markdown that also reads well on a terminal: words first, aligned tables."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from gtft.corpus.segment import shorten

_ROWS = 15
_LONGEST = 120
# In a column of names.
_NAME = 72
_ESCAPED = re.compile(r"\\<(SECRET:[a-z0-9_]{1,60}:[0-9a-f]{8})\\>")
_MARKUP = re.compile(r"([|`*<>\\\[\]])")


def render_health(health: dict[str, Any]) -> str:
    """The whole report. Every name in it comes from files, so none is printed as it is."""
    parts = [
        _verdict(health),
        _composition(health),
        _sufficiency(health),
        _flow(health),
        _staleness(health),
        _conflicts(health),
        _replaced(health),
        _lengths(health),
        _flags(health),
    ]
    return "\n\n".join(p for p in parts if p).rstrip() + "\n"


def clean(value: object, longest: int = _LONGEST) -> str:
    """One line without control, invisible or direction characters."""
    kept = "".join(_keep(c) for c in str(value)[: 4 * longest])
    line = " ".join(kept.split())
    return shorten(line, longest)


def rank(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Largest first; the order of a JSON object tells nothing."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _keep(char: str) -> str:
    kind = unicodedata.category(char)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "" if kind == "Cf" else ("�" if kind in ("Cs", "Co", "Cn") else char)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    # A placeholder stays as it is everywhere: readers know it by its form.
    return _ESCAPED.sub(r"<\1>", _MARKUP.sub(r"\\\1", clean(value)))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A pipe table with aligned columns; all but the first are numbers and stand at the right."""
    cells = [[_cell(c) for c in row] for row in rows]
    widths = [
        max(len(columns[n]), *(len(row[n]) for row in cells)) if cells else len(columns[n])
        for n in range(len(columns))
    ]
    numeric = [all(isinstance(row[n], int) for row in rows) for n in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = (
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(row, widths, numeric, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(columns), line(rule), *map(line, cells)])


def _counts(title: str, counts: Mapping[str, int], ordered: bool = False) -> str:
    """A table of names and numbers, largest first or ``ordered`` as given; the rest is added up."""
    rows = [(clean(k, _NAME), n) for k, n in (counts.items() if ordered else rank(counts))]
    if not rows:
        return ""
    shown, rest = rows[:_ROWS], rows[_ROWS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(n for _, n in rest)))
    return _table((title, "count"), shown)


def _section(title: str, *parts: str) -> str:
    said = [p for p in parts if p]
    return f"## {title}\n\n" + ("\n\n".join(said) if said else "none")


def _verdict(health: dict[str, Any]) -> str:
    e, verdict = health["examples"], health["verdict"]
    lines = [
        f"# Corpus health: {verdict['verdict']}",
        "",
        *(f"- {clean(w, 400)}" for w in health["words"]),
        "",
        f"{e['train']:,} training examples, {e['heldout']:,} held out, {e['clusters']:,} clusters "
        f"({e['clusters held out']:,} held out).",
    ]
    if verdict["collect"]:
        lines += [
            "",
            "What to collect next:",
            "",
            *(f"- {clean(c, 400)}" for c in verdict["collect"]),
        ]
    return "\n".join([*lines, "", f"Next: {verdict['next']}"])


def _composition(health: dict[str, Any]) -> str:
    sides = (health["by"]["train"], health["by"]["heldout"])
    parts = []
    for what in ("source", "role", "rig", "provenance", "made by", "outcome", "language", "month"):
        train, held = (side[what] for side in sides)
        names = sorted({*train, *held}, key=lambda n: (-train.get(n, 0), -held.get(n, 0), n))
        if what == "month":
            names.sort()
        rows = [(n, train.get(n, 0), held.get(n, 0)) for n in names[:_ROWS]]
        if rest := names[_ROWS:]:
            sums = [sum(side[what].get(n, 0) for n in rest) for side in sides]
            rows.append((f"{len(rest)} others", *sums))
        if rows:
            parts.append(_table((_HEADS.get(what, what), "train", "held out"), rows))
    parts.append(_counts("linked by (conversations)", health["linked by"]))
    parts.append(_counts("why no link", health["unlinked"]))
    if health["licences"]:
        parts.append(_table(("source", "licence"), sorted(health["licences"].items())))
    parts.append(_counts("agent version (records)", health["versions"]))
    return _section("What it is made of", *parts)


_HEADS = {"made by": "messages made by", "language": "language (estimated)"}


def order_roles(health: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The wanted role first, then the largest."""
    roles: dict[str, dict[str, Any]] = health["sufficiency"]
    return sorted(roles.items(), key=lambda i: (i[0] != health["role"], -i[1]["examples"], i[0]))


def order_windows(length: dict[str, Any]) -> list[tuple[int, int]]:
    """(window in tokens, examples that fit), smallest first."""
    return sorted((int(w), n) for w, n in length["fits"].items())


def _sufficiency(health: dict[str, Any]) -> str:
    rows = [
        (
            role,
            s["examples"],
            s["clusters"],
            s["sessions"],
            s["estimated tokens trained"],
            s["missing"],
            s["enough for"],
        )
        for role, s in order_roles(health)[:_ROWS]
    ]
    columns = (
        "role",
        "examples",
        "clusters",
        "sessions",
        "tokens trained",
        "missing",
        "enough for",
    )
    return _section("Is there enough, role by role", _table(columns, rows))


def _flow(health: dict[str, Any]) -> str:
    lines = []
    for row in health["flow"]:
        lines.append(f"- **{clean(row['stage'])}**: {row['in']:,} in, {row['kept']:,} kept")
        lines += [f"  - {n:,} × {clean(why)}" for why, n in rank(row["dropped"])]
    drift = {
        f"{source}: {kind}": n
        for source, kinds in sorted(health["drift"].items())
        for kind, n in sorted(kinds.items())
    }
    bad = {
        f"{source}: {kind}": n
        for source, kinds in health["bad rows"].items()
        for kind, n in kinds.items()
    }
    return _section(
        "What came in, and what became of it",
        "\n".join(lines),
        _counts("types that gtft does not know (drift)", drift),
        _counts("bad rows", bad),
        "Where the first of them are: gtft corpus show" if bad else "",
    )


def _staleness(health: dict[str, Any]) -> str:
    stale = health["staleness"]
    rows = [(m["what"], m["kind"], m["uses"], m["examples"]) for m in stale["most common"]]
    said = (
        f"{stale['commands seen']:,} commands of gt and bd in tool calls and fenced code; "
        f"{stale['not known']:,} of them hold something that {stale['asked']} do not know, in "
        f"{stale['examples in answers']:,} examples that teach it and "
        f"{stale['examples in prompts only']:,} that only mention it."
    )
    table = _table(("what", "why", "uses", "examples"), rows) if rows else ""
    return _section("Staleness", said, table)


def _conflicts(health: dict[str, Any]) -> str:
    c = health["conflicts"]
    if not c["questions"] and not c["rules in all"]:
        return ""
    lines = []
    for shown in c["shown"]:
        lines.append(f"- asked: {clean(shown['asked'], 200)}")
        lines.append(f"  - {shown['why']}")
        lines += [f"  - {s['what']} {s['id']}: {clean(s['answer'], 200)}" for s in shown["sides"]]
    for rule in c["rules"]:
        lines.append(f"- {clean(rule['command'])}: {clean(rule['why'])}")
        lines += [
            f"  - {s['what']} ({clean(' '.join((s['where'], s['date'])))}): {clean(s['text'], 200)}"
            for s in rule["sides"]
        ]
    return _section("Conflicts", "\n".join(lines))


def _replaced(health: dict[str, Any]) -> str:
    redaction = health["redaction"]
    kinds = [
        (kind, n, redaction["distinct"].get(kind, 0)) for kind, n in rank(redaction["secrets"])
    ]
    return _section(
        "Replaced before anything was written",
        _table(("secret", "places", "values"), kinds) if kinds else "No secret was found.",
        _counts("personal data", redaction["personal"]),
        _counts("suspects of the second reader, by plugin", redaction["suspects by plugin"]),
    )


def _lengths(health: dict[str, Any]) -> str:
    length, clipped = health["length"], health["clipped"]
    if not length:
        return ""
    names = (
        "p10",
        "p50",
        "p90",
        "p99",
        "max",
        "characters",
        "characters of answers",
        "estimated tokens",
    )
    total = sum(health["examples"][side] for side in ("train", "heldout"))
    fits = ", ".join(f"{n / total:.0%} in {w:,}" for w, n in order_windows(length))
    said = f"Fits a window of so many tokens (four characters each): {fits}."
    lost = f"Cut away to fit: about {clipped['estimated tokens']:,} tokens, {clipped['share']:.0%} of what was said."
    return _section(
        "Length",
        _counts(
            "characters per example", {k: length[k] for k in names if k in length}, ordered=True
        ),
        said,
        lost,
        _counts("characters cut away", clipped["characters"]),
    )


def _flags(health: dict[str, Any]) -> str:
    if not health["flags"]:
        return ""
    note = "Which ones: gtft corpus health --flagged WHAT"
    return _section("Flags on single examples", _counts("flag", health["flags"]), note)
