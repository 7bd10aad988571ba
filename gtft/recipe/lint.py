"""``lint``: every problem of a formula at once, each with file and line."""

from __future__ import annotations

from gtft.errors import Problem, RecipeError
from gtft.recipe.check import check_recipe
from gtft.recipe.formula import Formula
from gtft.recipe.overlay import Layers
from gtft.recipe.portable import check_portable
from gtft.recipe.variables import check_declarations, fill_variables


def lint(formula: Formula) -> tuple[Problem, ...]:
    """The problems of a formula, in the order of its lines; none for a plain formula.

    Values that wait for a required variable are judged when a run gives one.
    """
    if "gtft" not in formula.document.data:
        return ()
    problems = list(lint_frame(formula))
    if formula.gtft is not None:
        layers = Layers()
        layers.lay(formula.document, "formula", ("gtft",))
        filled, _ = fill_variables(formula, {})
        names = tuple(v.name for v in formula.vars)
        problems += check_recipe(layers, filled, names, formula.document.file).problems
    return tuple(sorted(problems, key=lambda p: (p.line, p.key)))


def lint_frame(formula: Formula) -> tuple[Problem, ...]:
    """The problems outside the ``[gtft]`` tables: what gt or bd refuse or silently lose."""
    doc = formula.document
    problems = [*check_portable(formula), *check_declarations(doc)]
    if formula.gtft is None and "gtft" in doc.data:
        problems.append(doc.problem(("gtft",), "gtft", "must be a table: [gtft]"))
    return tuple(problems)


def require_clean(formula: Formula) -> None:
    """Raise one RecipeError with every problem that `lint` finds."""
    problems = lint(formula)
    if problems:
        raise problems_error(formula.document.file, problems)


def problems_error(what: str, problems: tuple[Problem, ...]) -> RecipeError:
    """Every problem as one error."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return RecipeError(
        f"{what} has {count}",
        problems=problems,
        fix="gtft recipe explain KEY tells what a key takes; then: gtft recipe lint FORMULA",
    )
