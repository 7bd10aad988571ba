"""The health of a corpus in figures and in plain words: is training worth starting?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gtft.corpus.example import Example, count_characters
from gtft.corpus.harvest import Harvested, Settings
from gtft.corpus.secret_rules import PLACEHOLDER
from gtft.corpus.segment import CHARACTERS_PER_TOKEN
from gtft.corpus.similar import write_plain
from gtft.corpus.tally import Tally
from gtft.errors import InternalError

# What public runs of this size needed for one role (design section 6); fewer teach format, not judgement.
ENOUGH_PER_ROLE = 1000
_LENGTHS = (
    "p10",
    "p50",
    "p90",
    "p99",
    "max",
    "characters",
    "characters of answers",
    "estimated tokens",
)
_PSEUDONYMS = {
    "home folder": re.compile(r"(?:/|\\|-)(?:home|Users)(?:/|\\{1,4}|-)user\d+"),
    "e-mail": re.compile(r"\buser\d+@example\.com"),
    "ipv4": re.compile(r"\b(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}\b"),
}


def measure_health(out: Harvested, settings: Settings, suspects: Counter[str]) -> dict[str, Any]:
    """Every figure of the health report. Raises InternalError when a table does not add up."""
    both = [*out.train, *out.heldout]
    health: dict[str, Any] = {
        "examples": {
            "train": len(out.train),
            "heldout": len(out.heldout),
            "clusters": len({e.cluster for e in both}),
            "clusters held out": len({e.cluster for e in out.heldout}),
        },
        "by": {
            side: {
                "source": _count(e.source for e in examples),
                "role": _count(e.role or "unknown" for e in examples),
                "rig": _count(e.rig or "unknown" for e in examples),
                "provenance": _count(e.provenance for e in examples),
            }
            for side, examples in (("train", out.train), ("heldout", out.heldout))
        },
        "train by source and role": {
            source: _count(e.role or "unknown" for e in out.train if e.source == source)
            for source in sorted({e.source for e in out.train})
        },
        "linked by": _count_linked(out.tallies),
        "flow": measure_flow(out),
        "redaction": count_redactions([write_plain(e) for e in both], suspects),
        "prose": {
            "blocks": len(out.prose),
            "characters": sum(map(len, out.prose)),
            "held out": out.figures.get("prose held out", 0),
            "left out as leak": out.figures.get("prose left out as leak", 0),
        },
        "near-duplicate pairs": out.figures.get("near-duplicate pairs", 0),
        "length": measure_lengths(both),
        "leakage": out.figures["leakage"],
        "drift": {name: t.as_dict()["tables"].get("drift", {}) for name, t in out.tallies.items()},
        "bad rows": {name: t.as_dict()["tables"].get("bad", {}) for name, t in out.tallies.items()},
    }
    _refuse_leaks(health["leakage"])
    health["words"] = write_words(health, settings)
    return health


def _refuse_leaks(leakage: dict[str, Any]) -> None:
    leaks = {k: v for k, v in leakage.items() if k != "suites" and v}
    if leaks:
        raise InternalError(
            "training and held-out examples are not apart",
            why=", ".join(f"{v} {k}" for k, v in leaks.items()),
            fix="please report this with the recipe's source list",
        )


def measure_flow(out: Harvested) -> list[dict[str, Any]]:
    """What came in and what became of it, stage by stage: in = out + dropped, or InternalError."""
    rows: list[dict[str, Any]] = []
    for name, tally in sorted(out.tallies.items()):
        tables = tally.as_dict()["tables"]
        rows.append(
            _flow(
                f"records: {name}",
                tally.total("records"),
                tally.total("kept"),
                tables.get("dropped", {}),
            )
        )
        dropped = tables.get("segments dropped", {})
        cut = tally.total("segments")
        rows.append(_flow(f"segments: {name}", cut, cut - sum(dropped.values()), dropped))
    rows.append(_flow("examples", out.staged, len(out.train) + len(out.heldout), dict(out.dropped)))
    return rows


def _flow(stage: str, came: int, kept: int, dropped: dict[str, int]) -> dict[str, Any]:
    if came != kept + sum(dropped.values()):
        raise InternalError(
            f"the counts of {stage} do not add up",
            why=f"{came} in, {kept} kept, {sum(dropped.values())} dropped",
            fix="please report this with the recipe's source list",
        )
    return {"stage": stage, "in": came, "kept": kept, "dropped": dict(sorted(dropped.items()))}


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _count_linked(tallies: dict[str, Tally]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tally in tallies.values():
        total.update(tally.tables.get("linked by", Counter()))
    return dict(sorted(total.items()))


def count_redactions(texts: Sequence[str], suspects: Counter[str]) -> dict[str, Any]:
    """Placeholders and pseudonyms that stand in the corpus, by type, and distinct secret values."""
    secrets: Counter[str] = Counter()
    distinct: dict[str, set[str]] = {}
    personal: Counter[str] = Counter()
    for text in texts:
        for found in PLACEHOLDER.findall(text):
            kind = found.split(":")[1]
            secrets[kind] += 1
            distinct.setdefault(kind, set()).add(found)
        for name, pattern in _PSEUDONYMS.items():
            if n := len(pattern.findall(text)):
                personal[name] += n
    return {
        "secrets": dict(sorted(secrets.items())),
        "distinct": {k: len(v) for k, v in sorted(distinct.items())},
        "personal": dict(sorted(personal.items())),
        "suspects by plugin": dict(sorted(suspects.items())),
    }


def measure_lengths(examples: Sequence[Example]) -> dict[str, int]:
    """Percentiles of characters per example, and estimated tokens in all."""
    sizes = sorted(sum(count_characters(m) for m in e.messages) for e in examples)
    if not sizes:
        return {}

    def at(share: float) -> int:
        return sizes[min(len(sizes) - 1, int(share * len(sizes)))]

    answers = sum(
        count_characters(m) for e in examples for m in e.messages if m["role"] == "assistant"
    )
    return {
        "p10": at(0.1),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": sizes[-1],
        "characters": sum(sizes),
        "characters of answers": answers,
        "estimated tokens": sum(sizes) // CHARACTERS_PER_TOKEN,
    }


def write_words(health: dict[str, Any], settings: Settings) -> list[str]:
    """What the figures mean, one sentence each."""
    train = health["examples"]["train"]
    roles = dict(health["by"]["train"]["role"])
    mine = roles.get(settings.role, 0)
    words = []
    if mine >= ENOUGH_PER_ROLE:
        words.append(f"{mine} {settings.role} examples: enough to start.")
    else:
        words.append(
            f"{mine} {settings.role} examples; about {ENOUGH_PER_ROLE} are needed before a role's judgement "
            "can be learned. Fewer teach formats and conventions. More: harvest more of that role's "
            "sessions, and install the session hook so that every session is labelled."
        )
    unknown = roles.get("unknown", 0)
    if unknown > train / 2:
        words.append(
            f"{unknown} of {train} training examples name no role: the files hold no beacon, no prime "
            "line and no folder below a town."
        )
    known = {r: n for r, n in roles.items() if r != "unknown"}
    if known:
        role, n = max(known.items(), key=lambda item: (item[1], item[0]))
        if n > 0.6 * sum(known.values()) and role != settings.role:
            words.append(f"{role} is {n / sum(known.values()):.0%} of what has a role: imbalanced.")
    if not health["examples"]["heldout"]:
        words.append("Nothing could be held out: every source and role has one cluster only.")
    leaks = health["leakage"]
    words.append(
        f"Leakage: {leaks['shared clusters']} shared clusters, "
        f"{leaks['training examples with a rare held-out phrase']} training examples with a rare "
        "held-out phrase."
    )
    return words


def render_health(health: dict[str, Any]) -> str:
    """The same as a page of Markdown."""
    e = health["examples"]
    lines = [
        "# Corpus health",
        "",
        *(f"- {w}" for w in health["words"]),
        "",
        f"{e['train']} training examples, {e['heldout']} held out, {e['clusters']} clusters "
        f"({e['clusters held out']} held out).",
        "",
        "## What it is made of",
        "",
    ]
    for what in ("source", "role", "rig", "provenance"):
        sides = [health["by"][side][what] for side in ("train", "heldout")]
        names = sorted({*sides[0], *sides[1]}, key=lambda n: (-sides[0].get(n, 0), n))
        lines += [f"| {what} | train | held out |", "|---|---:|---:|"]
        lines += [f"| {n} | {sides[0].get(n, 0)} | {sides[1].get(n, 0)} |" for n in names]
        lines.append("")
    lines += _table("Linked by (conversations)", health["linked by"])
    lines += ["## What came in, and what became of it", ""]
    for row in health["flow"]:
        lines.append(f"- **{row['stage']}**: {row['in']} in, {row['kept']} kept")
        lines += [
            f"  - {n} × {why}"
            for why, n in sorted(row["dropped"].items(), key=lambda i: (-i[1], i[0]))
        ]
    lines.append("")
    lines += _table("Secrets replaced", health["redaction"]["secrets"])
    lines += _table("Personal data replaced", health["redaction"]["personal"])
    lines += _table(
        "Suspects of the second reader, by plugin", health["redaction"]["suspects by plugin"]
    )
    lengths = {k: health["length"][k] for k in _LENGTHS if k in health["length"]}
    lines += _table("Length, characters", lengths)
    return "\n".join(lines).rstrip() + "\n"


def _table(title: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return [f"## {title}", "", "none", ""]
    return [
        f"## {title}",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {k} | {v} |" for k, v in counts.items()),
        "",
    ]


def write_health_page(path: Path, health: dict[str, Any]) -> None:
    path.write_text(render_health(health), "utf-8")
