"""Formulas with a fault: what is wrong, in which line, and the formula as its plan wants it."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose
from gtft.errors import RecipeError
from gtft.recipe.formula import parse_formula

ROLES = ("mayor", "crew", "polecat", "dog", "deacon")
FAULTS = (
    "none", "quote", "bracket", "header", "same id", "unknown need", "cycle", "undeclared variable",
    "required with default", "no title", "depends_on", "number as default", "key below steps",
)  # fmt: skip
_USED = re.compile(r"\{\{(\w+)\}\}")


class Step(NamedTuple):
    id: str
    title: str
    needs: tuple[str, ...]
    text: str


class Plan(NamedTuple):
    """``vars``: name → default, None where a value must be given."""

    name: str
    vars: tuple[tuple[str, str | None], ...]
    steps: tuple[Step, ...]


def find_faults(text: str) -> list[str]:
    """What gtft's own parser, and the rules that gt and bd share, find wrong in a formula."""
    try:
        formula = parse_formula(text.encode(), source=Path("formula.toml"))
    except RecipeError as e:
        return [p.text for p in e.problems]
    raw = formula.document.data
    found = [
        f"{k} stands below the steps"
        for s in raw.get("steps", [])
        for k in s
        if k in ("formula", "version")
    ]
    ids = [s.id for s in formula.steps]
    found += [f"step {i} is there twice" for i in sorted(set(ids)) if ids.count(i) > 1]
    found += [f"step {s.id} has no title" for s in formula.steps if not s.title]
    found += [f"step {s['id']} says depends_on" for s in raw.get("steps", []) if "depends_on" in s]
    needs = {s.id: s.needs for s in formula.steps}
    found += [
        f"{s.id} needs {n}, which is no step"
        for s in formula.steps
        for n in s.needs
        if n not in needs
    ]
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as e:
        found.append(f"circle: {e.args[1]}")
    declared = {v.name for v in formula.vars}
    found += [f"{n} is not declared" for n in sorted(set(_USED.findall(text)) - declared)]
    for name, spec in raw.get("vars", {}).items():
        if isinstance(spec, dict) and spec.get("required") and "default" in spec:
            found.append(f"{name} is required and has a default")
        if isinstance(spec, dict) and not isinstance(spec.get("default", ""), str):
            found.append(f"the default of {name} is no text")
    if "formula" not in raw:
        found.append("no name")
    return found


def write(plan: Plan, fault: str = "none", at: int = 1) -> list[str]:
    """The lines of a formula with one fault, at step or variable ``at`` where it has a place."""
    top = [f'formula = "{plan.name}"', 'type = "workflow"', "version = 1", "pour = true"]
    lines = [line for line in top if fault != "key below steps" or not line.startswith("version")]
    name = plan.vars[at % len(plan.vars)][0]
    for var, default in plan.vars:
        if fault == "undeclared variable" and var == name:
            continue
        hit = var == name
        lines += ["", f"[vars.{var}]"]
        if default is None or (hit and fault == "required with default"):
            lines.append("required = true")
        if default is not None:
            lines.append(
                f"default = {default}"
                if hit and fault == "number as default"
                else f'default = "{default}"'
            )
    for n in range(len(plan.steps)):
        lines += ["", *_write_step(plan, n, fault if n == at else "none")]
    return [*lines, "version = 1"] if fault == "key below steps" else lines


def _write_step(plan: Plan, n: int, fault: str) -> list[str]:
    step = plan.steps[n]
    needs = step.needs
    if fault == "unknown need":
        needs = (needs[0] + "s", *needs[1:])
    elif fault == "cycle":
        # Back to a step that needs this one.
        needs = (*needs, next(s.id for s in plan.steps if step.id in s.needs))
    listed = ", ".join(f'"{x}"' for x in needs)
    lines = ["[steps]" if fault == "header" else "[[steps]]"]
    lines.append(f'id = "{plan.steps[n - 1].id if fault == "same id" else step.id}"')
    if fault != "no title":
        lines.append(f'title = "{step.title}' + ("" if fault == "quote" else '"'))
    if needs:
        key = "depends_on" if fault == "depends_on" else "needs"
        lines.append(f"{key} = [{listed}" + ("" if fault == "bracket" else "]"))
    if step.text:
        lines.append(f'description = "{step.text}"')
    return lines


def draw(scene: Scene) -> Plan:
    rng = scene.rng
    ids = rng.sample(_STEPS, rng.randint(3, 5))
    names = rng.sample(_VARS, rng.randint(1, 3))
    settings = [(n, None if scene.chance(0.4) else str(rng.randint(1, 90))) for n in names]
    # One with a default is always there: some faults need it.
    settings[0] = (names[0], str(rng.randint(1, 90)))
    steps = []
    for n, id in enumerate(ids):
        needs = [ids[n - 1]] if n else []
        if n > 1 and scene.chance(0.4):
            needs.append(rng.choice(ids[: n - 1]))
        used = names[n] if n < len(names) else ""
        text = f"{scene.pick(_VERBS)} {scene.thing()}, with {{{{{used}}}}}" if used else ""
        steps.append(Step(id, f"{id.capitalize()} the {scene.thing()}", tuple(needs), text))
    return Plan(f"mol-{scene.word()}-{scene.word()}", tuple(settings), tuple(steps))


def make(scene: Scene) -> Case:
    fault = FAULTS[scene.turn % len(FAULTS)]
    plan = draw(scene)
    at = scene.rng.randint(1, len(plan.steps) - (2 if fault == "cycle" else 1))
    if fault in ("required with default", "number as default"):
        at = 0
    good, bad = write(plan), write(plan, fault, at)
    line, why = _explain(plan, fault, at, good, bad)
    text = "\n".join(good)
    role = scene.pick(ROLES)
    state = f"{_tell_plan(scene, plan)}\n\n```toml\n" + "\n".join(bad) + "\n```"
    if fault == "none":
        fields: dict[str, object] = {"line": None, "problem": None, "formula": None}
        sentence = "Nothing is wrong with it: it parses, and it is what the plan says. I leave it as it is."
        act = None
    else:
        fields = {"line": line, "problem": why, "formula": text}
        sentence = f"Line {line}: {why}. Mended:\n\n```toml\n{text}\n```"
        path = f".beads/formulas/{plan.name}.formula.toml"
        act = Act(
            f"cat > {path} <<'END'\n{text}\nEND\nbd formula list",
            f"{plan.name}: {len(plan.steps)} steps",
            f"Line {line} was wrong: {why}. The file is mended, and bd reads it.",
        )
    entries = compose(
        scene,
        scene.introduce(
            role, scene.people(1)[0], scene.pick(("formula", "formula check", plan.name))
        ),
        state,
        scene.pick(_QUESTIONS).format(plan.name),
        fields,
        sentence,
        act=act,
        deeds=True,
    )
    shape = (
        fault,
        at,
        tuple(len(s.needs) for s in plan.steps),
        tuple(d is None for _, d in plan.vars),
    )
    rig = scene.rig.name if role in ("crew", "polecat") else None
    return Case("repair", shape, f"{fault} {line}", role, rig, entries)


def _explain(
    plan: Plan, fault: str, at: int, good: list[str], bad: list[str]
) -> tuple[int | None, str]:
    """(line of the fault, what it is)."""
    if fault == "none":
        return None, ""
    step, name = plan.steps[at], plan.vars[at % len(plan.vars)][0]
    line = next((n for n, (g, b) in enumerate(zip(good, bad, strict=False), 1) if g != b), len(bad))
    if fault == "key below steps":
        return len(
            bad
        ), "version stands below the steps, so it belongs to the last step and not to the formula"
    return line, {
        "quote": f"the title of {step.id} has no closing quote",
        "bracket": f"the list that {step.id} needs is not closed",
        "header": "one step has single brackets: a step is written [[steps]]",
        "same id": f"two steps are called {plan.steps[at - 1].id}; the plan calls this one {step.id}",
        "unknown need": f"{step.id} needs {step.needs[0]}s, but the step is called {step.needs[0]}"
        if step.needs
        else "",
        "cycle": f"{step.id} needs a step that itself waits for {step.id}",
        "undeclared variable": f"{name} is used in a step, and there is no [vars.{name}]",
        "required with default": f"{name} is required and has a default; bd refuses both together",
        "no title": f"{step.id} has no title, and bd refuses that",
        "depends_on": f"{step.id} says depends_on, which gt ignores: it is needs",
        "number as default": f"the default of {name} is a number and would be lost: it must be text",
    }[fault]


def _tell_plan(scene: Scene, plan: Plan) -> str:
    """What the formula is meant to be, in words."""
    steps = [
        f"{s.id} ({s.title})" + (f" after {' and '.join(s.needs)}" if s.needs else " first")
        for s in plan.steps
    ]
    vars = [f"{n} must be given" if d is None else f"{n} is {d} unless given" for n, d in plan.vars]
    if scene.chance(0.5):
        return f"Plan of {plan.name}:\n" + "\n".join(f"* {x}" for x in [*steps, *vars])
    return f"{plan.name} is meant so: {'; '.join(steps)}. Settings: {', '.join(vars)}."


_STEPS = [
    "fetch",
    "build",
    "check",
    "pack",
    "sign",
    "ship",
    "count",
    "sort",
    "index",
    "render",
    "upload",
    "clean",
    "compare",
    "split",
    "join",
    "notify",
    "archive",
    "verify",
    "tag",
    "freeze",
    "mirror",
    "rotate",
    "inspect",
    "publish",
    "restore",
]
_VARS = [
    "issue",
    "rig",
    "limit",
    "days",
    "target",
    "branch",
    "depth",
    "count",
    "level",
    "owner",
    "window",
]
_VERBS = ("Work on the", "Go through the", "Prepare the", "Take the", "Write the", "Look at the")
_QUESTIONS = (
    "Is {} all right? If not, mend it.",
    "Check {} against its plan, and repair it when needed.",
    "Somebody says that {} cannot be poured. Find out, and give the right file.",
    "Read {} as gt and bd would. What has to change?",
)
