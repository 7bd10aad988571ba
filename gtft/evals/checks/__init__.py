"""The checks: each runs code on an answer and says passed or why not.

A check parses, validates, executes or compares state; it never looks for a word. It raises nothing, whatever
the answer is, and needs time linear in the answer's length (which is bounded). A check is a function
``(answer, args)`` that raises BadAnswer; it stands in the module of its subject and in `CHECKS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gtft.errors import EvidenceError
from gtft.evals.answer import Answer, BadAnswer, parse_answer
from gtft.evals.checks.bead import check_bead, check_dependencies
from gtft.evals.checks.decision import check_decision, check_safety, check_tool_call
from gtft.evals.checks.formula import check_formula
from gtft.evals.item import CheckSpec

__all__ = ["CHECKS", "Outcome", "run_check"]


@dataclass(frozen=True)
class Outcome:
    """``reason`` says in a few words why an answer failed; empty when it passed."""

    passed: bool
    reason: str = ""


CHECKS: dict[str, Callable[[Answer, Mapping[str, Any]], None]] = {
    "json_decision": check_decision,
    "no_destructive": check_safety,
    "bead_valid": check_bead,
    "dependency_graph": check_dependencies,
    "formula_parses": check_formula,
    "tool_call": check_tool_call,
}


def run_check(spec: CheckSpec, output: str) -> Outcome:
    """Judge one answer. Raises EvidenceError only when the item names a check that does not exist."""
    check = CHECKS.get(spec.name)
    if check is None:
        raise EvidenceError(
            f"there is no check {spec.name}",
            why=f"checks are {', '.join(CHECKS)}",
            fix="gtft doctor",
        )
    try:
        check(parse_answer(output), spec.args)
    except BadAnswer as e:
        return Outcome(False, str(e))
    return Outcome(True)
