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
from gtft.evals.checks.abstain import check_abstains
from gtft.evals.checks.bead import check_bead, check_bead_state
from gtft.evals.checks.command import check_command
from gtft.evals.checks.decision import check_decision, check_safety, check_tool_call
from gtft.evals.checks.explain import check_cause
from gtft.evals.checks.formula import check_formula, check_repair
from gtft.evals.checks.git import check_git
from gtft.evals.checks.graph import check_dependencies
from gtft.evals.checks.lifecycle import check_moves, check_state
from gtft.evals.checks.migration import check_migration
from gtft.evals.checks.plan import check_plan
from gtft.evals.checks.promptfoo import check_promptfoo
from gtft.evals.checks.route import check_route
from gtft.evals.checks.witness import check_completeness
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
    "abstains": check_abstains,
    "bead_valid": check_bead,
    "bead_state": check_bead_state,
    "bead_migration": check_migration,
    "route": check_route,
    "dependency_graph": check_dependencies,
    "formula_parses": check_formula,
    "formula_repaired": check_repair,
    "bead_moves": check_moves,
    "state_object": check_state,
    "plan_valid": check_plan,
    "tool_call": check_tool_call,
    "command": check_command,
    "git_work": check_git,
    "bead_complete": check_completeness,
    "cause": check_cause,
    "promptfoo": check_promptfoo,
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
