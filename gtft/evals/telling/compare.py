"""Evaluations side by side, on the items that all of them asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.errors import UsageError
from gtft.evals.item import Item
from gtft.evals.library import KIND, Answered, read_answers
from gtft.evals.telling.blocks import Block, Bullets, Paragraph, Section, Table, quote, write_plain
from gtft.evals.telling.score import count, shorten, sort_candidates, tell_rate
from gtft.evals.telling.stats import correct_holm
from gtft.evals.telling.words import count_of, sort_suites, tell_gain, tell_p
from gtft.evals.telling.words import tell_rate as say_rate

# Hex digits of an id that name an evaluation in a comparison.
_SHORT = 8


@dataclass(frozen=True)
class Flip:
    """An item on which the candidates differ. ``answers``: candidate → its line of generations.jsonl."""

    item: Item
    answers: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """``candidates``: name in the comparison ("tuned of 4f2a90…") → suite ("all" first) → rate with its interval.

    ``pairs``: every two candidates of which one is a tuned model; ``gain`` is b (always tuned) minus a, p corrected
    over all pairs (Holm). ``asked``: items of each evaluation; ``common``: those that all candidates answered.
    """

    evals: Mapping[str, str]
    asked: Mapping[str, int]
    common: int
    candidates: Mapping[str, Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]]
    flips: Sequence[Flip]
    left_out: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "flips": [{"item": f.item.to_json(), "answers": dict(f.answers)} for f in self.flips],
        }


def compare(evals: Sequence[Artifact]) -> Comparison:
    """The tuned model of each evaluation, and every other candidate, on their common items (same item id).

    A base or endpoint that gave the same answers in each stands once. A candidate that lacks common items of the tuned
    models is left out and named. Raises EvidenceError for an evaluation that was edited, UsageError when fewer
    than two are given or they share no item.
    """
    if len({e.id for e in evals}) < 2:
        raise UsageError(
            "two different evaluations are needed to compare",
            why=f"given: {', '.join(short_id(e.id) for e in evals) or 'none'}",
            fix="gtft eval list",
        )
    read = {e.id: _read(e) for e in {e.id: e for e in evals}.values()}
    shared = set.intersection(*(set(found) for found in read.values()))
    if not shared:
        raise UsageError(
            "these evaluations share no item",
            why="only answers to the same items can be compared; held-out items follow from the corpus",
            fix="gtft eval list",
        )
    items = {i: next(iter(read.values()))[i].item for i in sorted(shared)}
    answers, left_out = _name_candidates(read, items)
    passed = {(name, i): bool(lines[i]["passed"]) for name, lines in answers.items() for i in items}
    return Comparison(
        evals={short_id(e)[:_SHORT]: e for e in read},
        asked={short_id(e)[:_SHORT]: len(found) for e, found in read.items()},
        common=len(items),
        candidates={n: _tell_rates(n, list(items.values()), passed) for n in answers},
        pairs=_tell_pairs(list(answers), list(items.values()), passed),
        flips=[
            Flip(item, {n: answers[n][i] for n in answers})
            for i, item in items.items()
            if len({passed[n, i] for n in answers if _is_tuned(n)}) > 1
        ],
        left_out=left_out,
    )


def write_comparison(c: Comparison, width: int = 80, most: int = 10) -> str:
    """For a terminal: rates, differences, then at most ``most`` flipped items with the answers."""
    suites = ["all", *sort_suites({s for rates in c.candidates.values() for s in rates} - {"all"})]
    rows = [[name, *(say_rate(rates[s]) for s in suites)] for name, rates in c.candidates.items()]
    asked = ", ".join(f"{n} of {name}" for name, n in c.asked.items())
    blocks: list[Block] = [
        Paragraph(
            f"{count_of(c.common, 'common item')} ({asked}). Brackets are 95 % intervals (Wilson)."
        ),
        Table(("candidate", *suites), rows),
        Table(
            ("from", "to", "gain, points", "won/lost", "p", "p corrected"),
            [
                [
                    p["a"],
                    p["b"],
                    tell_gain(p, "…"),
                    f"{p['only_b']}/{p['only_a']}",
                    tell_p(p["p_value"]),
                    tell_p(p["p_corrected"]),
                ]
                for p in c.pairs
            ],
            numeric=(2, 3, 4, 5),
        ),
    ]
    if c.left_out:
        blocks.append(Bullets([f"{name} is left out: {why}" for name, why in c.left_out.items()]))
    sections = [Section("Side by side", blocks)]
    flips: list[Block] = [_show_flip(f) for f in c.flips[:most]]
    if len(c.flips) > most:
        flips.append(Paragraph(f"{len(c.flips) - most} more: -n {len(c.flips)}"))
    if flips:
        title = f"{count_of(len(c.flips), 'item')} on which the tuned models differ"
        sections.append(Section(title, flips))
    return write_plain(sections, width)


def _show_flip(f: Flip) -> Block:
    asked = str(f.item.messages[-1].get("content") or "") if f.item.messages else ""
    rows = [
        [f.item.id, quote(asked, 240)],
        ["right", quote(f.item.reference, 160)],
        *(
            [name, f"{_tell_outcome(g)} {quote(g['output'], 240)}"]
            for name, g in f.answers.items()
            if _is_tuned(name)
        ),
    ]
    return Table(("", ""), rows)


def _tell_outcome(line: Mapping[str, Any]) -> str:
    return "pass:" if line["passed"] else f"FAIL ({quote(line['reason'], 100)}):"


def _read(found: Artifact) -> dict[str, Answered]:
    verify_artifact(found.path, kind=KIND, expect=found.id)
    return {a.item.id: a for a in read_answers(found)}


def _name_candidates(
    read: Mapping[str, Mapping[str, Answered]], items: Mapping[str, Item]
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str]]:
    """Candidate → item id → its answer; and who lacks answers."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    left_out: dict[str, str] = {}
    for eval_id, found in read.items():
        for name in sort_candidates(n for i in items for n in found[i].answers):
            label = f"{name} of {short_id(eval_id)[:_SHORT]}"
            lines = {i: found[i].answers[name] for i in items if name in found[i].answers}
            missing = len(items) - len(lines)
            if missing:
                left_out[label] = f"it did not answer {count_of(missing, 'common item')}"
            elif name == "tuned" or not any(_same(lines, o) for o in out.values()):
                out[label] = lines
    return out, left_out


def _same(a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]) -> bool:
    """The same candidate gave the same answers to the same prompts."""
    return all(
        (a[i]["candidate"], a[i]["prompt_sha256"], a[i]["output"])
        == (b[i]["candidate"], b[i]["prompt_sha256"], b[i]["output"])
        for i in a
    )


def _is_tuned(name: str) -> bool:
    return name.startswith("tuned of ")


def _tell_rates(
    name: str, items: Sequence[Item], passed: Mapping[tuple[str, str], bool]
) -> dict[str, Any]:
    groups = {"all": items} | {
        s: [i for i in items if i.suite == s] for s in sort_suites({i.suite for i in items})
    }
    return {
        group: {"n": len(inside), **tell_rate(sum(passed[name, i.id] for i in inside), len(inside))}
        for group, inside in groups.items()
    }


def _tell_pairs(
    names: Sequence[str], items: Sequence[Item], passed: Mapping[tuple[str, str], bool]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for first, second in combinations(names, 2):
        if not (_is_tuned(first) or _is_tuned(second)):
            continue
        a, b = (first, second) if _is_tuned(second) else (second, first)
        score = count(items, passed, base=a, tuned=b)
        rows.append(
            {
                "a": a,
                "b": b,
                "n": score.n,
                **score.difference(),
                "only_a": score.broken,
                "only_b": score.fixed,
            }
        )
    for row, p in zip(rows, correct_holm([r["p_value"] for r in rows]), strict=True):
        row["p_corrected"] = shorten(p)
    return rows
