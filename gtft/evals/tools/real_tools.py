"""Answers about beads and formulas, judged by the real bd and gt too, where they are installed.

Code decides, so that a result is the same everywhere; where a tool says otherwise, that is counted and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gtft.errors import TownError
from gtft.evals.answer import BadAnswer, parse_answer
from gtft.evals.asking.generate import Generation
from gtft.evals.checks.formula import find_toml
from gtft.evals.item import Item
from gtft.evals.tools import real_formula
from gtft.evals.tools.real_bd import CHECKED, BeadJudge, find_bd, tell_verdicts

_FORMULAS = frozenset({"formula_parses", "formula_repaired"})
_MOST_NAMED = 10


def ask_real_tools(
    items: Sequence[Item], generations: Sequence[Generation], environ: Mapping[str, str]
) -> dict[str, Any] | None:
    """``beads`` and ``formulas``: how many answers were run, and each on which tool and code differ; ``not_run``:
    why not. None when no item is about either."""
    by_id = {i.id: i for i in items}
    answers = [(by_id[g.item], g.output) for g in generations]
    beads = [(i, text) for i, text in answers if i.check.name in CHECKED]
    formulas = [(i, text) for i, text in answers if i.check.name in _FORMULAS]
    found: dict[str, Any] = {}
    not_run: list[str] = []
    if beads:
        if find_bd(environ) is None:
            not_run.append("beads: bd is not installed")
        else:
            try:
                with BeadJudge(environ) as judge:
                    found["beads"] = tell_verdicts(judge.judge(beads))
            except TownError as e:
                not_run.append(f"beads: {e.what}")
    if formulas:
        missing = [p for p in real_formula.PARSERS if p not in real_formula.find_parsers(environ)]
        if missing:
            not_run.append(f"formulas: {' and '.join(missing)} not installed")
        else:
            try:
                found["formulas"] = _judge_formulas(formulas, environ)
            except TownError as e:
                not_run.append(f"formulas: {e.what}")
    if not beads and not formulas:
        return None
    return {**found, "not_run": not_run}


def _judge_formulas(
    answers: Sequence[tuple[Item, str]], environ: Mapping[str, str]
) -> dict[str, Any]:
    texts: dict[str, str] = {}
    for item, output in answers:
        try:
            texts.setdefault(find_toml(parse_answer(output)), item.id)
        except BadAnswer:
            # No formula was found in it: there is nothing to run.
            continue
    verdicts = real_formula.judge(list(texts), environ)
    ran = [v for v in verdicts if not v.skipped]
    differ = [
        {"item": texts[text], "difference": v.code or "; ".join(map(": ".join, v.refusals.items()))}
        for text, v in zip(texts, verdicts, strict=True)
        if v.disagrees
    ]
    return {
        "answers": len(answers),
        "run": len(ran),
        "accepted": sum(not v.refusals for v in ran),
        "disagreements": differ[:_MOST_NAMED],
        "disagreeing": len(differ),
    }
