"""Items on mending a formula: one or two faults that gt or bd refuses, everything else to be kept."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gtft.evals.item import CheckSpec
from gtft.evals.making.formula import Doc, change_step, fence, read_work, write_formula
from gtft.evals.making.made import Made, draft

CAPABILITY = "formula-repair"


class Fault(NamedTuple):
    """``break_doc`` takes the right document and gives the broken one; ``break_text`` does it to its TOML.

    ``needed`` prepares the right document; ``hint`` says what only its author can know; ``complaint`` is the
    parser's.
    """

    name: str
    complaint: str
    hint: str = ""
    needed: Callable[[Doc], Doc] = copy.deepcopy
    break_doc: Callable[[Doc], Doc] = copy.deepcopy
    break_text: Callable[[str], str] = str


def make(dice: random.Random) -> Iterator[Made]:
    for number, fault in enumerate(_FAULTS):
        yield _one(dice, number, fault, told=True)
    for number, fault in enumerate(_FAULTS):
        yield _one(dice, number + 5, fault, told=False)
    for number, (a, b) in enumerate(_PAIRS):
        yield _two(dice, number, _BY_NAME[a], _BY_NAME[b])


def _last(doc: Doc) -> Any:
    return doc["steps"][-1]


def _with_variable(**row: Any) -> Callable[[Doc], Doc]:
    def prepare(doc: Doc) -> Doc:
        made = copy.deepcopy(doc)
        steps = made.pop("steps")
        return {**made, "vars": {"place": {"description": "where", **row}}, "steps": steps}

    return prepare


def _set_variable(**row: Any) -> Callable[[Doc], Doc]:
    def break_it(doc: Doc) -> Doc:
        made = copy.deepcopy(doc)
        made["vars"]["place"] |= row
        return made

    return break_it


def _with_short_variable(value: Any) -> Callable[[Doc], Doc]:
    def prepare(doc: Doc) -> Doc:
        made = copy.deepcopy(doc)
        steps = made.pop("steps")
        return {**made, "vars": {"rounds": value}, "steps": steps}

    return prepare


def _change_last(**changes: Any) -> Callable[[Doc], Doc]:
    return lambda doc: change_step(doc, len(doc["steps"]) - 1, **changes)


def _change_first(**changes: Any) -> Callable[[Doc], Doc]:
    return lambda doc: change_step(doc, 0, **changes)


def _misspell_need(doc: Doc) -> Doc:
    needs = _last(doc)["needs"]
    return _change_last(needs=[needs[0][:1] + needs[0][2:], *needs[1:]])(doc)


def _close_circle(doc: Doc) -> Doc:
    return change_step(doc, 0, needs=[_last(doc)["id"]])


def _same_id(doc: Doc) -> Doc:
    return change_step(doc, len(doc["steps"]) - 1, id=doc["steps"][0]["id"])


def _swept(doc: Doc) -> Doc:
    made = copy.deepcopy(doc)
    made["steps"].append({"id": "sweep", "title": "Sweep the floor"})
    return made


def _title_as_name(doc: Doc) -> Doc:
    return change_step(doc, 0, title=None, name=doc["steps"][0]["title"])


def _need_as_text(doc: Doc) -> Doc:
    return change_step(doc, 1, needs=doc["steps"][1]["needs"][0])


def _one_need(doc: Doc) -> Doc:
    return change_step(doc, 1, needs=[doc["steps"][0]["id"]])


def _name_below(text: str) -> str:
    name, _, rest = text.partition("\n")
    return f"{rest}\n{name}"


def _name_in_table(text: str) -> str:
    name, _, rest = text.partition("\n")
    scalars, steps, tail = rest.partition("[[steps]]")
    return f"{scalars}{name.replace('formula', '[formula]' + chr(10) + 'name')}\n{steps}{tail}"


_FAULTS = (
    Fault("unknown-need", "needs references unknown step", "A step's id is misspelt in one list of needs.",
          break_doc=_misspell_need),
    Fault("circle", "cycle detected", "The first step was meant to need nothing.", break_doc=_close_circle),
    Fault("default-stays", "cannot have both required:true and default", "The default is right: nobody has to give "
          "the value.", _with_variable(default="cellar"), _set_variable(required=True)),
    Fault("required-stays", "cannot have both required:true and default", "The value must be given each time.",
          _with_variable(required=True), _set_variable(default="cellar")),
    Fault("no-title", "title is required", 'The last step is called "Close the day".',
          _change_last(title="Close the day"), _change_last(title=None)),
    Fault("version-text", "version: a string where a whole number belongs", "It is version 1.",
          break_text=lambda t: t.replace("version = 1", 'version = "1.0"')),
    Fault("name-in-table", "formula: a table where a string belongs", "", break_text=_name_in_table),
    Fault("title-as-name", "title is required", "Its author wrote another key for it.", break_doc=_title_as_name),
    Fault("need-as-text", "needs: a string where a list belongs", "", _one_need, _need_as_text),
    Fault("gate-as-text", "gate: a string where a table belongs", "A person opens the last step.",
          _change_last(gate={"type": "human"}), _change_last(gate="human")),
    Fault("same-id", "duplicate step id", "The step that sweeps has the id sweep.", _swept, _same_id),
    Fault("name-below", "formula: name is required", "", break_text=_name_below),
    Fault("unknown-type", "type: invalid value", "It is a plain workflow.",
          lambda d: {"formula": d["formula"], "type": "workflow", **d}, lambda d: {**d, "type": "patrol"}),
    Fault("number-variable", "vars: a number where a string or a table belongs", "",
          _with_short_variable("3"), _with_short_variable(3)),
    Fault("step-tables", "workflow formula requires at least one step", "",
          break_text=lambda t: t.replace("[[steps]]", "[[step]]")),
    Fault("open-quote", "toml: the file does not parse", "",
          break_text=lambda t: t.rpartition('"' if t.endswith('"') else '"]')[0] + ("" if t.endswith('"') else "]")),
    Fault("urgency", "priority must be 0-4", "The last step is as urgent as can be.",
          _change_last(priority=0), _change_last(priority=9)),
)  # fmt: skip
_BY_NAME = {f.name: f for f in _FAULTS}
_PAIRS = (
    ("unknown-need", "version-text"), ("circle", "title-as-name"), ("default-stays", "unknown-need"),
    ("required-stays", "version-text"), ("no-title", "name-in-table"), ("gate-as-text", "version-text"),
    ("same-id", "version-text"), ("unknown-type", "urgency"), ("number-variable", "title-as-name"),
    ("step-tables", "unknown-need"), ("need-as-text", "unknown-type"), ("urgency", "name-below"),
    ("default-stays", "circle"), ("no-title", "version-text"),
)  # fmt: skip


def _draw_work(number: int) -> Doc:
    doc = read_work(number)
    if number % 2:
        del doc["description"]
    return doc


def _one(dice: random.Random, number: int, fault: Fault, *, told: bool) -> Made:
    right = fault.needed(_draw_work(number))
    broken = fault.break_text(write_formula(fault.break_doc(right)))
    said = f"One of them says: {fault.complaint}. " if told else ""
    return _draft(
        dice, fault.name, "easy" if told else "medium", f"{said}{fault.hint}", right, broken
    )


def _two(dice: random.Random, number: int, a: Fault, b: Fault) -> Made:
    right = b.needed(a.needed(_draw_work(number)))
    text = write_formula(b.break_doc(a.break_doc(right)))
    broken = b.break_text(a.break_text(text))
    hint = f"There are two faults. {a.hint} {b.hint}".strip()
    return _draft(dice, "two-faults", "hard", hint, right, broken)


def _draft(
    dice: random.Random, template: str, difficulty: str, hint: str, right: Doc, broken: str
) -> Made:
    prompt = (
        f"gt and bd do not both accept this formula. {hint.strip()}\n{fence(broken)}\nMend it and leave all the rest "
        "as it is: the same keys, titles and needs, the steps in the same order. Answer with the whole mended formula "
        "in one TOML block and nothing else."
    )
    last = len(right["steps"]) - 1
    at = next(i for i, s in enumerate(right["steps"]) if s.get("needs"))
    docs = (
        {**right, "steps": right["steps"][:-1]},
        change_step(right, 0, title=right["steps"][0]["title"] + "!"),
        change_step(right, at, needs=None),
        {**right, "version": 2},
        {**right, "steps": [*right["steps"][1:], right["steps"][0]]},
        change_step(right, last, description="mended"),
    )
    misses = (fence(broken), *(fence(write_formula(d)) for d in dice.sample(docs, 3)))
    check = CheckSpec("formula_repaired", {"accept": [right]})
    return draft(
        CAPABILITY, None, template, difficulty, prompt, check, fence(write_formula(right)), misses
    )
