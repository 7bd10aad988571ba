"""The subset of formulas that gt, bd and gtft all read; what one of them refuses or silently loses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from gtft.contract import STAGES
from gtft.errors import Problem
from gtft.recipe.check import FORMULA_KEYS
from gtft.recipe.formula import SUFFIX, Formula
from gtft.recipe.keys import child_names
from gtft.recipe.lines import KeyPath
from gtft.recipe.variables import check_uses, show

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FIRST_LINE = "Run: gtft run {{issue}}"

# Scalars of bd that gt drops without harm; a table of that name is refused by bd.
_BD_SCALARS = ("phase", "source")
_TOP = (*FORMULA_KEYS, *_BD_SCALARS, "gtft")
# Words that gt or bd give a meaning of their own.
_FOREIGN: dict[str, str] = {
    "extends": "bd looks for the parent, gt does not resolve it: write the steps here",
    "compose": "gt and bd read it differently",
    "template": "belongs to expansions; gt and bd refuse it here",
    "aspects": "bd ignores it",
    "advice": "gt refuses it",
    "pointcuts": "gt refuses it",
    "legs": "belongs to convoys",
    "synthesis": "belongs to convoys",
    "inputs": "bd ignores it: use [vars]",
    "prompts": "bd ignores it",
    "output": "gt wants a table of its own there",
    "agent": "bd ignores it, and gt refuses a table of that name",
    "review_only": "bd ignores it",
}
_STEP_TEXT = ("id", "title", "description", "acceptance", "notes", "type", "assignee")
_STEP = (*_STEP_TEXT, "needs", "priority", "labels", "metadata", "gate", "condition")


def check_portable(formula: Formula) -> Iterator[Problem]:
    """Problems of a formula outside ``[vars]`` and ``[gtft]``."""
    yield from _check_top(formula)
    yield from _check_steps(formula)
    yield from _check_prose(formula)


def _check_top(formula: Formula) -> Iterator[Problem]:
    doc, raw = formula.document, formula.document.data
    for line in doc.lines.wrapped:
        yield Problem(
            doc.file, line, "", "an inline table must end on its line (gt and bd refuse this)"
        )
    for key, value in raw.items():
        text = _judge_top_key(key, value)
        if text:
            yield doc.problem((key,), key, text)
    name = raw.get("formula")
    if name is None:
        yield doc.problem((), "formula", 'is missing: formula = "NAME" at the top')
    elif not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        yield doc.problem(("formula",), "formula", f"is not a name: {show(name)}")
    elif formula.source.name.endswith(SUFFIX) and formula.source.name != name + SUFFIX:
        text = (
            f"is {name}, but gt and bd look it up as {name}{SUFFIX}: rename the file or the formula"
        )
        yield doc.problem(("formula",), "formula", text)
    version = raw.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 2**31:
        text = f"must be a whole number from 1 on, is {show(version)} (gt and bd refuse others)"
        yield doc.problem(("version",), "version", text)
    if raw.get("type", "workflow") != "workflow":
        text = f'must be "workflow", is {show(raw["type"])}'
        yield doc.problem(("type",), "type", text)
    if raw.get("pour") is not True:
        text = "must be true, or bd makes only the root bead: pour = true"
        yield doc.problem(("pour",), "pour", text)
    description = raw.get("description")
    if not isinstance(description, str) or description.split("\n", 1)[0].rstrip() != FIRST_LINE:
        text = f"must begin with the line: {FIRST_LINE} (an agent sees little else)"
        yield doc.problem(("description",), "description", text)


def _judge_top_key(key: str, value: object) -> str:
    is_table = isinstance(value, dict | list)
    if key in _FOREIGN:
        return f"does not belong in a recipe: {_FOREIGN[key]}"
    if key in _BD_SCALARS:
        return "" if isinstance(value, str) else "must be text (bd refuses anything else)"
    if key == "gtft" or key in FORMULA_KEYS:
        return ""
    if key in child_names(""):
        return f"belongs under gtft: [gtft.{key}]" if is_table else f"belongs under [gtft]: {key}"
    near = difflib.get_close_matches(key.lower(), _TOP, n=1, cutoff=0.75)
    if near:
        return f"is not known to gt, bd or gtft; did you mean {near[0]}?"
    # A table of another program is its own business; a stray scalar is lost.
    return "" if is_table else f"is not known and would be lost; known: {', '.join(_TOP)}"


def _check_steps(formula: Formula) -> Iterator[Problem]:
    doc, raw = formula.document, formula.document.data.get("steps")
    if not isinstance(raw, list) or not raw or not all(isinstance(s, dict) for s in raw):
        yield doc.problem(("steps",), "steps", "must be [[steps]] tables, one per stage")
        return
    ids: dict[str, int] = {}  # the first step of each id
    for i, step in enumerate(raw):
        for key, text in _check_step(step, ids):
            yield doc.problem(("steps", i, key), f"steps[{i}].{key}", text)
        if isinstance(step.get("id"), str):
            ids.setdefault(step["id"], i)
    missing = [s for s in STAGES if s not in ids]
    if missing:
        text = f"has no step {', '.join(missing)}; the stages are {', '.join(STAGES)}"
        yield doc.problem(("steps",), "steps", text)
    needs = {id: _texts(raw[i].get("needs")) for id, i in ids.items()}
    for i, step in enumerate(raw):
        for need in _texts(step.get("needs")):
            if need not in ids:
                near = difflib.get_close_matches(need, ids, n=1) if len(ids) < 50 else []
                hint = f"; did you mean {near[0]}?" if near else ""
                text = f"names no step: {show(need)}{hint}"
                yield doc.problem(("steps", i, "needs"), f"steps[{i}].needs", text)
    cycle = _find_cycle(needs)
    if cycle:
        first = min(range(len(cycle) - 1), key=lambda i: ids[cycle[i]])
        cycle = cycle[first:-1] + cycle[:first] + (cycle[first],)
        where = ids[cycle[0]]
        text = f"form a cycle: {' → '.join(cycle)}"
        yield doc.problem(("steps", where, "needs"), f"steps[{where}].needs", text)
        return
    for before, after in pairwise(STAGES):
        if before in needs and after in needs and before not in _reach(needs, after):
            text = f'the stage {after} comes after {before}: needs = ["{before}"]'
            where = ids[after]
            yield doc.problem(("steps", where, "needs"), f"steps[{where}].needs", text)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _check_step(step: Mapping[str, Any], earlier: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for key, value in step.items():
        if key == "depends_on":
            yield key, "is ignored by gt: write needs"
        elif key in FORMULA_KEYS and key not in _STEP:
            text = "stands below [[steps]] and so belongs to this step: move it above [vars]"
            yield key, text
        elif key not in _STEP:
            near = difflib.get_close_matches(key, _STEP, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield key, f"is not in the subset that gt and bd share, and would be lost{hint}"
        elif key in _STEP_TEXT and not isinstance(value, str):
            yield key, f"must be text, is {show(value)}"
    if isinstance(step.get("id", ""), str):
        found = step.get("id", "")
        if found in earlier:
            yield "id", f"is used twice: {show(found)}"
        elif found not in STAGES:
            near = difflib.get_close_matches(found, STAGES, n=1)
            hint = f"; did you mean {near[0]}?" if near else f": {', '.join(STAGES)}"
            yield "id", f"must be the name of a stage, is {show(found)}{hint}"
    title = step.get("title", "")
    if isinstance(title, str) and not title.strip():
        yield "title", "is missing (bd refuses a step without one)"
    needs = step.get("needs", [])
    if not isinstance(needs, list) or not all(isinstance(n, str) for n in needs):
        yield "needs", f"must be a list of step ids, is {show(needs)}"
    if "gate" in step and not isinstance(step["gate"], dict):
        yield "gate", 'must be a table: gate = { type = "human" } (bd refuses text)'
    if "metadata" in step and not isinstance(step["metadata"], dict):
        yield "metadata", "must be a table"
    priority = step.get("priority", 2)
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 4:
        yield "priority", f"must be 0 to 4, is {show(priority)}"
    labels = step.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(n, str) for n in labels):
        yield "labels", "must be a list of texts"


def _check_prose(formula: Formula) -> Iterator[Problem]:
    doc = formula.document
    raw_vars = doc.data.get("vars")
    declared = tuple(raw_vars) if isinstance(raw_vars, dict) else ()
    texts: list[tuple[KeyPath, str, str]] = [(("description",), "description", formula.description)]
    for i, step in enumerate(formula.steps):
        texts.append((("steps", i, "title"), f"steps[{i}].title", step.title))
        texts.append((("steps", i, "description"), f"steps[{i}].description", step.description))
    for path, key, text in texts:
        found: list[str] = []
        check_uses(text, declared, found.append, strict=False)
        for problem in found:
            yield doc.problem(path, key, problem)


def _find_cycle(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The ids of a cycle in the order of their needs; empty when there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as e:
        return tuple(reversed(e.args[1]))
    return ()


def _reach(needs: Mapping[str, tuple[str, ...]], start: str) -> set[str]:
    seen: set[str] = set()
    stack = [start]
    while stack:
        for need in needs.get(stack.pop(), ()):
            if need not in seen:
                seen.add(need)
                stack.append(need)
    return seen
