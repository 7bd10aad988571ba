"""The health report as one HTML page: no script, no network, good in light and dark and on paper."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from gtft.corpus.health.drawing import (
    PATTERNS,
    draw_bars,
    draw_columns,
    draw_patterns,
    draw_share,
    draw_stacks,
    escape,
)
from gtft.corpus.health.render import order_roles, order_windows, rank
from gtft.corpus.health.sufficiency import ENOUGH_PER_ROLE, NOT_YET, STARTING, TRIAL
from gtft.corpus.segment import CHARACTERS_PER_TOKEN

_ROWS = 12
_REASONS = 7
_FAULTS = 40
_MONTHS = 48
_SIGN = {STARTING: "●", TRIAL: "◐", NOT_YET: "○"}
_OTHERS = "others"
_MONTH = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def draw_page(health: dict[str, Any], name: str) -> str:
    """The page of one corpus; ``name`` is what it is called. Every text in it comes from files: all is escaped."""
    style = files("gtft.corpus.health").joinpath("page.css").read_text("utf-8")
    body = [
        _draw_verdict(health, name),
        _section("Is there enough?", _draw_sufficiency(health)),
        _section("What it is made of", *_draw_composition(health)),
        _section("What came in, and what became of it", *_draw_flow(health["flow"][-1:])),
        _section("Is it up to date?", *_draw_staleness(health)),
        _section("Does it contradict itself?", _draw_conflicts(health)),
        _section("Are training and test apart?", *_draw_leakage(health)),
        _section("What was replaced", *_draw_replaced(health)),
        _section("How long are examples?", *_draw_lengths(health)),
        _section("Flags on single examples", _draw_flags(health)),
        _section("Source by source", *_draw_flow(health["flow"][:-1]), *_draw_faults(health)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Corpus {escape(name)}: {escape(health['verdict']['verdict'])}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n{draw_patterns()}\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n" + "\n".join(p for p in parts if p) + "\n</section>"


def _figure(title: str, drawn: str, note: str = "") -> str:
    more = f" <span>{escape(note, 300)}</span>" if note else ""
    return f"<figure><figcaption>{escape(title)}{more}</figcaption>{drawn}</figure>"


def _say(text: str) -> str:
    return f"<p>{escape(text, 600)}</p>"


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(i, 600)}</li>" for i in items) + "</ul>"


def _draw_verdict(health: dict[str, Any], name: str) -> str:
    e, verdict = health["examples"], health["verdict"]
    word = verdict["verdict"]
    mine = health["sufficiency"][verdict["role"]]
    cards = [
        (f"{mine['examples']:,}", f"{verdict['role']} examples, {ENOUGH_PER_ROLE:,} needed"),
        (f"{e['train']:,}", "training examples in all"),
        (f"{e['heldout']:,}", "held out for testing"),
        (f"{e['clusters']:,}", "separate pieces of work"),
        (f"{health['length'].get('estimated tokens', 0):,}", "tokens, estimated"),
    ]
    drawn = "".join(f'<div class="card"><b>{a}</b><span>{escape(b)}</span></div>' for a, b in cards)
    collect = (
        f"<h3>What to collect next</h3>{_list(verdict['collect'])}" if verdict["collect"] else ""
    )
    return (
        f'<header>\n<p class="muted">Corpus {escape(name)} · training for {escape(verdict["role"])}</p>\n'
        f'<h1><span class="sign" aria-hidden="true">{_SIGN[word]}</span>{escape(word.capitalize())}</h1>\n'
        f"{_list(health['words'])}\n{collect}\n"
        f'<p class="next">Next: <code>{escape(verdict["next"], 200)}</code></p>\n'
        f'<div class="cards">{drawn}</div>\n</header>'
    )


def _draw_sufficiency(health: dict[str, Any]) -> str:
    rows = [
        (role, s["examples"], f"{s['examples']:,}: {s['enough for'].partition(':')[0]}")
        for role, s in order_roles(health)[:_ROWS]
    ]
    return _figure(
        "Training examples per role",
        draw_bars(
            rows,
            "training examples per role",
            line=(ENOUGH_PER_ROLE, f"{ENOUGH_PER_ROLE:,} needed"),
        ),
        "the wanted role first, and what the examples are enough for",
    )


def _fold(names: Sequence[str], most: int) -> tuple[list[str], list[str]]:
    """The first names, and those that are added up as others."""
    return (
        (list(names), [])
        if len(names) <= most
        else (list(names[: most - 1]), list(names[most - 1 :]))
    )


def _draw_composition(health: dict[str, Any]) -> list[str]:
    cells: Mapping[str, Mapping[str, int]] = health["train by source and role"]
    by = health["by"]["train"]
    sources, rest = _fold([name for name, _ in rank(by["source"])], PATTERNS)
    roles = [name for name, _ in rank(by["role"])][:_ROWS]
    rows = [
        (
            role,
            [cells[s].get(role, 0) for s in sources]
            + ([sum(cells[s].get(role, 0) for s in rest)] if rest else []),
        )
        for role in roles
    ]
    names = sources + ([_OTHERS] if rest else [])
    parts = [_figure("Role by source", draw_stacks(rows, names, "role by source"), "training side")]
    linked = health["linked by"]
    parts.append(
        _figure(
            "What said which role spoke",
            draw_bars(_share_rows(linked), "conversations by what linked them"),
            "conversations; “none” stays unknown",
        )
    )
    for title, what in (
        ("Who wrote the messages", "made by"),
        ("Outcome", "outcome"),
        ("Language (estimated)", "language"),
        ("Rig", "rig"),
    ):
        if len(by[what]) > 1 or what == "made by":
            parts.append(_figure(title, draw_bars(_share_rows(by[what]), title)))
    months = _fill_months(by["month"])
    if len(months) > 1:
        note = f"{by['month']['unknown']:,} have no date" if "unknown" in by["month"] else ""
        parts.append(_figure("When it was made", draw_columns(months, "examples per month"), note))
    if health["licences"]:
        parts.append(_table(("source", "licence"), sorted(health["licences"].items())))
    return parts


def _fill_months(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Every month from the first to the last; those without examples too, when they are not too many."""
    known = sorted(m for m in counts if _MONTH.fullmatch(m))
    if not known:
        return []
    first, last = (12 * int(m[:4]) + int(m[5:]) - 1 for m in (known[0], known[-1]))
    if last - first >= _MONTHS:
        return [(m, counts[m]) for m in known[-_MONTHS:]]
    names = [f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, last + 1)]
    return [(m, counts.get(m, 0)) for m in names]


def _share_rows(counts: Mapping[str, int], most: int = _ROWS) -> list[tuple[str, int, str]]:
    total = sum(counts.values()) or 1
    names, rest = _fold([name for name, _ in rank(counts)], most)
    rows = [(n, counts[n]) for n in names]
    if rest:
        rows.append((f"{len(rest)} {_OTHERS}", sum(counts[n] for n in rest)))
    return [(n, v, f"{v:,} ({_percent(v, total)})") for n, v in rows]


def _percent(n: int, total: int) -> str:
    share = f"{n / total:.0%}"
    return "under 1%" if n and share == "0%" else share


def _draw_flow(flow: Sequence[dict[str, Any]]) -> list[str]:
    parts: list[str] = []
    whole: list[str] = []
    for row in flow:
        came, kept = row["in"], row["kept"]
        if kept == came:
            whole += [f"{row['stage']} ({came:,})"] if came else []
            continue
        drawn = draw_share(kept, came, f"{row['stage']}: {kept} of {came} kept")
        note = f"{came:,} in, {kept:,} kept ({_percent(kept, came)})"
        reasons = draw_bars(_share_rows(row["dropped"], _REASONS), "why dropped", series=1)
        parts.append(_figure(row["stage"], drawn + reasons, note))
    if whole:
        parts.append(_say(f"Nothing was dropped of: {', '.join(whole)}."))
    return parts


def _draw_faults(health: dict[str, Any]) -> list[str]:
    """What readers did not know, and what was damaged: long names, so tables."""
    parts = []
    for title, name in (
        ("Types that gtft does not know (drift)", "drift"),
        ("Bad rows", "bad rows"),
    ):
        found = [
            (source, kind, f"{n:,}")
            for source, kinds in sorted(health[name].items())
            for kind, n in rank(kinds)
        ]
        if found:
            parts.append(_figure(title, _table(("source", "what", "count"), found[:_FAULTS])))
    return parts


def _plain_rows(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    return [(n, v, figure.partition(" (")[0]) for n, v, figure in _share_rows(counts)]


def _draw_staleness(health: dict[str, Any]) -> list[str]:
    stale = health["staleness"]
    parts = [
        _say(
            f"{stale['not known']:,} of {stale['commands seen']:,} commands of gt and bd hold something that "
            f"{stale['asked']} do not know. {stale['examples in answers']:,} examples teach one, "
            f"{stale['examples in prompts only']:,} only mention one."
        )
    ]
    rows = [
        (m["what"], m["examples"], f"in {m['examples']:,}: {m['kind']}")
        for m in stale["most common"][:_ROWS]
    ]
    if rows:
        parts.append(
            _figure("Most common, by examples", draw_bars(rows, "stale commands", series=2))
        )
    return parts


def _draw_conflicts(health: dict[str, Any]) -> str:
    c = health["conflicts"]
    if not c["questions"] and not c["rules in all"]:
        return _say(
            "No question is answered in two ways, and no command is both demanded and forbidden."
        )
    said = _say(
        f"Questions answered in more than one way: {c['questions']:,}. Earlier answers left out: {c['dropped']:,}. "
        f"Examples flagged: {c['flagged']:,}. Decisions given up and taken again: {c['reversals']:,}. "
        f"Commands that texts both demand and forbid: {c['rules in all']:,}."
    )
    rows: list[tuple[str, str, str]] = []
    for shown in c["shown"][:_ROWS]:
        sides = [f"{s['what']} ({s['id']}): {s['answer']}" for s in shown["sides"]]
        rows.append((shown["asked"], "\n".join(sides), shown["why"]))
    for rule in c["rules"][:_ROWS]:
        sides = [f"{s['what']} ({s['where']}): {s['text']}" for s in rule["sides"]]
        rows.append((rule["command"], "\n".join(sides), rule["why"]))
    return said + _table(("question or command", "both sides", "what stands"), rows)


def _draw_leakage(health: dict[str, Any]) -> list[str]:
    leaks = {k: v for k, v in health["leakage"].items() if isinstance(v, int)}
    rows = [(k, v, f"{v:,}" if v else "0: none") for k, v in sorted(leaks.items())]
    parts = [
        _figure(
            "Shared between training and held-out examples or eval suites",
            draw_bars(rows, "leakage"),
        )
    ]
    duplicates = dict(health["duplicates"])
    if health["near-duplicate pairs"]:
        duplicates["near pairs that stay together"] = health["near-duplicate pairs"]
    parts.append(
        _figure(
            "Copies", draw_bars(_plain_rows(duplicates), "copies"), "dropped, or kept on one side"
        )
    )
    return parts


def _draw_replaced(health: dict[str, Any]) -> list[str]:
    redaction = health["redaction"]
    secrets = [
        (k, n, f"{n:,} places, {redaction['distinct'].get(k, 0):,} values")
        for k, n in rank(redaction["secrets"])[:_ROWS]
    ]
    return [
        _figure("Secrets, by kind", draw_bars(secrets, "secrets by kind")),
        _figure("Personal data", draw_bars(_plain_rows(redaction["personal"]), "personal data")),
    ]


def _draw_lengths(health: dict[str, Any]) -> list[str]:
    length, clipped = health["length"], health["clipped"]
    if not length:
        return [_say("There are no examples.")]
    histogram = sorted((int(b), n) for b, n in length["histogram"].items())
    bins = [(f"{b:,}", n) for b, n in histogram]
    first = max(histogram[0][0], 1)
    windows = order_windows(length)
    lines = {
        math.log2(w * CHARACTERS_PER_TOKEN / first): f"{w // 1024}k tokens" for w, _ in windows
    }
    shown = {place: name for place, name in lines.items() if 0 <= place <= len(bins)}
    total = sum(health["examples"][s] for s in ("train", "heldout"))
    fits = ", ".join(f"{_percent(n, total)} in {w // 1024}k" for w, n in windows)
    return [
        _figure(
            "Examples by length",
            draw_columns(bins, "examples by characters", lines=shown),
            "characters, each column twice as long as the one before",
        ),
        _say(
            f"Half are longer than {length['p50']:,} characters, one in ten is longer than {length['p90']:,}. "
            f"Of a window in tokens, {fits} fit. {length['characters of answers']:,} of "
            f"{length['characters']:,} characters are trained on."
        ),
        _figure(
            "Cut away to fit, characters",
            draw_bars(_plain_rows(clipped["characters"]), "characters cut away", series=1),
            f"about {clipped['estimated tokens']:,} tokens, {clipped['share']:.0%} of what was said",
        )
        if clipped["characters"]
        else "",
    ]


def _draw_flags(health: dict[str, Any]) -> str:
    if not health["flags"]:
        return _say("none")
    command = "<p>Which ones: <code>gtft corpus health --flagged WHAT</code></p>"
    return _figure("Examples per flag", draw_bars(_plain_rows(health["flags"]), "flags")) + command


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            "<td>" + "<br>".join(escape(line, 400) for line in str(cell).split("\n")) + "</td>"
            for cell in row
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
