"""Items on writing a formula: a workflow in words, its TOML as the answer."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft

CAPABILITY = "formula"
Doc = dict[str, Any]

_FORM = "Answer with the formula in one TOML block and nothing else."
# name | what it is for | steps: id, title, needed ids
_WORKS = (
    ("mol-tasting", "A tasting of one cask", "draw:Draw three samples: | taste:Score the taste:draw | "
     "acid:Measure the acid:draw | verdict:Write the verdict:taste,acid"),
    ("mol-rebind", "Bind an old book anew", "unstitch:Take the book apart: | pages:Clean the pages:unstitch | "
     "cover:Press the cover:unstitch | sew:Sew pages and cover:pages,cover | gild:Gild the spine:sew"),
    ("mol-lamp", "Service of the lamp", "halt:Stop the lamp: | lens:Clean the lens:halt | bulb:Change the bulb:halt | "
     "beam:Test the beam:lens,bulb | log:Enter it in the log:beam"),
    ("mol-feed", "Take in a supplier's feed", "fetch:Fetch the feed: | shape:Check its shape:fetch | "
     "map:Map the fields:shape | load:Load the rows:map | tell:Tell the supplier:load"),
    ("mol-handbill", "Print a handbill", "type:Set the type: | ink:Mix the ink: | proof:Pull a proof:type,ink | "
     "run:Print the run:proof | fold:Fold the sheets:run"),
    ("mol-census", "Count the birds of a marsh", "plots:Mark the plots: | birds:Count birds:plots | "
     "nests:Count nests:plots | merge:Merge the counts:birds,nests | post:Post the table:merge"),
    ("mol-ferry", "A timetable for the ferry", "tides:Collect the tides: | draft:Draft the times:tides | "
     "ask:Ask the captains:draft | board:Print the board:ask"),
    ("mol-archive", "Take a box into the archive", "scan:Scan the box: | text:Read the text:scan | "
     "people:Tag the people:text | places:Tag the places:text | index:Write the index:people,places"),
    ("mol-sowing", "Sow a bed", "soil:Test the soil: | soak:Soak the seed: | sow:Sow the rows:soil,soak | "
     "label:Label the rows:sow | water:Water the bed:sow"),
    ("mol-clock", "Care for the tower clock", "case:Open the case: | oil:Oil the wheels:case | "
     "weights:Set the weights:case | hour:Check the hour:oil,weights"),
    ("mol-sheet", "Draw a map sheet", "photos:Take the photos: | stitch:Stitch the photos:photos | "
     "roads:Trace the roads:stitch | rivers:Trace the rivers:stitch | render:Render the sheet:roads,rivers"),
    ("mol-kiln", "One firing of the kiln", "load:Load the kiln: | fire:Fire it slowly:load | cool:Let it cool:fire | "
     "sort:Sort the ware:cool"),
)  # fmt: skip
_VARIABLES = (
    ("place", "where it is done", None), ("copies", "how many", "40"), ("until", "the last day", None),
    ("tone", "warm or cold", "warm"), ("owner", "who signs", None), ("depth", "how thorough", "2"),
)  # fmt: skip


def make(dice: random.Random) -> Iterator[Made]:
    for number in range(12):
        yield _in_a_row(dice, number)
    for number in range(12):
        yield _branching(dice, number)
    for number in range(12):
        yield _with_variables(dice, number)
    for number in range(12):
        yield _mixed_order(dice, number)
    for number in range(6):
        yield _one_more_step(dice, number)


def read_work(number: int) -> Doc:
    """A workflow of the bank as a formula's document."""
    name, purpose, rows = _WORKS[number % len(_WORKS)]
    steps: list[Doc] = []
    for row in rows.split(" | "):
        id, title, needs = row.split(":")
        steps.append({"id": id, "title": title, **({"needs": needs.split(",")} if needs else {})})
    return {"formula": name, "description": purpose, "version": 1, "steps": steps}


def write_formula(doc: Mapping[str, Any]) -> str:
    """TOML: scalars first, then ``[vars]``, then ``[[steps]]``."""
    lines = [f"{k} = {_write(v)}" for k, v in doc.items() if k not in ("vars", "steps")]
    for name, value in doc.get("vars", {}).items():
        if isinstance(value, dict):
            lines += [f"[vars.{name}]", *(f"{k} = {_write(v)}" for k, v in value.items())]
    short = {k: v for k, v in doc.get("vars", {}).items() if not isinstance(v, dict)}
    if short:
        lines += ["[vars]", *(f"{k} = {_write(v)}" for k, v in short.items())]
    for step in doc.get("steps", []):
        lines += ["[[steps]]", *(f"{k} = {_write(v)}" for k, v in step.items())]
    return "\n".join(lines)


def fence(text: str) -> str:
    return f"```toml\n{text}\n```"


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_write(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def change_step(doc: Doc, at: int, **changes: Any) -> Doc:
    """A copy with other values in one step; None takes a key away."""
    made = copy.deepcopy(doc)
    step = {**made["steps"][at], **changes}
    made["steps"][at] = {k: v for k, v in step.items() if v is not None}
    return made


def _check(doc: Doc) -> CheckSpec:
    steps = doc["steps"]
    args: Doc = {
        "name": doc["formula"],
        "version": doc["version"],
        "steps": [s["id"] for s in steps],
        "titles": {s["id"]: s["title"] for s in steps},
        "needs": [[s["id"], n] for s in steps for n in s.get("needs", [])],
        "vars": {k: v.get("default") for k, v in doc.get("vars", {}).items()},
    }
    if "pour" in doc:
        args["pour"] = doc["pour"]
    return CheckSpec("formula_parses", args)


def _head(doc: Doc) -> str:
    steps = "\n".join(f'- {s["id"]}: "{s["title"]}"' for s in doc["steps"])
    poured = ", pour set to true" if doc.get("pour") else ""
    return (
        f"Write a formula named {doc['formula']}, version {doc['version']}{poured}, that both gt and bd accept. Its "
        f"steps, id and title:\n{steps}\n"
    )


def _misses(doc: Doc) -> list[str]:
    """Formulas that are nearly the one asked for."""
    last = len(doc["steps"]) - 1
    step, first = doc["steps"][last], doc["steps"][0]["id"]
    need = step["needs"][0]
    turned = change_step(change_step(doc, last, needs=None), 0, needs=[step["id"]])
    docs = [
        change_step(doc, last, needs=None),
        turned,
        change_step(doc, last, needs=[*step["needs"], first])
        if first not in step["needs"]
        else turned,
        change_step(doc, last, needs=None, depends_on=step["needs"]),
        change_step(doc, last, needs=[need + "s"]),
        change_step(doc, 0, title=None, name=doc["steps"][0]["title"]),
        change_step(doc, 0, title=doc["steps"][0]["title"] + " again"),
        change_step(doc, last, needs=need),
        {**doc, "version": str(doc["version"])},
        {**doc, "formula": doc["formula"] + "s"},
        {**doc, "steps": doc["steps"][:-1]},
        {"name": doc["formula"], **{k: v for k, v in doc.items() if k != "formula"}},
    ]
    return [fence(write_formula(d)) for d in docs]


def _finish(
    dice: random.Random,
    template: str,
    difficulty: str,
    prompt: str,
    doc: Doc,
    more: Sequence[str] = (),
) -> Made:
    misses = (*dice.sample(_misses(doc), 4), *more)
    return draft(
        CAPABILITY, None, template, difficulty, f"{prompt}\n{_FORM}", _check(doc), fence(write_formula(doc)),
        misses,
    )  # fmt: skip


def _bare(number: int, dice: random.Random) -> Doc:
    doc = read_work(number)
    del doc["description"]
    return {**doc, "version": dice.randint(1, 4)}


def _in_a_row(dice: random.Random, number: int) -> Made:
    doc = _bare(number, dice)
    rows = doc["steps"][: 2 + number % 3]
    doc["steps"] = [
        {"id": s["id"], "title": s["title"], **({"needs": [rows[n - 1]["id"]]} if n else {})}
        for n, s in enumerate(rows)
    ]
    prompt = _head(doc) + "They run in this order; each needs only the one before it. No variables."
    return _finish(dice, "in-a-row", "easy", prompt, doc)


def _say_needs(dice: random.Random, step: Doc) -> str:
    needs = " and ".join(step.get("needs", []))
    if not needs:
        return f"{step['id']} needs nothing."
    return dice.choice(
        ("{a} needs {b}.", "{a} begins after {b}.", "Only then {a}: when {b} is done.")
    ).format(a=step["id"], b=needs)


def _branching(dice: random.Random, number: int) -> Made:
    doc = _bare(number, dice)
    if number % 2:
        doc = {
            "formula": doc["formula"],
            "version": doc["version"],
            "pour": True,
            "steps": doc["steps"],
        }
    said = " ".join(_say_needs(dice, s) for s in doc["steps"])
    prompt = f"{_head(doc)}What needs what, directly: {said} Write no other needs and no variables."
    return _finish(dice, "branching", "medium", prompt, doc)


def _with_variables(dice: random.Random, number: int) -> Made:
    work = _bare(number, dice)
    chosen = dice.sample(_VARIABLES, 1 + number % 2)
    variables = {
        name: {
            "description": words,
            **({"required": True} if default is None else {"default": default}),
        }
        for name, words, default in chosen
    }
    steps = work["steps"][:3]
    doc = {
        "formula": work["formula"],
        "version": work["version"],
        "vars": variables,
        "steps": steps,
    }
    said = "; ".join(
        f"{name} ({words}), "
        + ("which must be given each time" if default is None else f'default "{default}"')
        for name, words, default in chosen
    )
    needs = " ".join(_say_needs(dice, s) for s in steps)
    prompt = f"{_head(doc)}{needs} No other needs. Variables in [vars]: {said}."
    name, words, default = chosen[0]
    both = {**variables, name: {"description": words, "required": True, "default": default or ""}}
    number_default = {**variables, name: {"description": words, "default": 3}}
    missing = {k: v for k, v in variables.items() if k != name}
    more = [fence(write_formula({**doc, "vars": v})) for v in (both, number_default, missing)]
    return _finish(
        dice, "with-variables", "medium" if len(chosen) == 1 else "hard", prompt, doc, more
    )


def _mixed_order(dice: random.Random, number: int) -> Made:
    doc = _bare(number, dice)
    followers: dict[str, list[str]] = {}
    for step in doc["steps"]:
        for need in step.get("needs", []):
            followers.setdefault(need, []).append(step["id"])
    said = [f"When {k} is done, {' and '.join(v)} may start." for k, v in followers.items()]
    mixed = {**doc, "steps": dice.sample(doc["steps"], len(doc["steps"]))}
    prompt = (
        f"{_head(mixed)}The list is not in order. {' '.join(dice.sample(said, len(said)))} A step named more than "
        "once there waits for all of them; one that is not named there needs nothing. Only these direct needs, no "
        "variables."
    )
    return _finish(dice, "mixed-order", "hard", prompt, doc)


_MORE = (
    ("weigh", "Weigh the result"), ("photo", "Take a photo of it"), ("sign", "Let the owner sign"),
    ("rest", "Let it rest a night"), ("spot", "Spot-check by hand"), ("invoice", "Write the invoice"),
)  # fmt: skip


def _one_more_step(dice: random.Random, number: int) -> Made:
    old = _bare(number + 3, dice)
    id, title = _MORE[number]
    last = old["steps"][-1]
    step: Doc = {"id": id, "title": title, "needs": list(last["needs"])}
    steps = [*old["steps"][:-1], step, {**last, "needs": [id]}]
    doc = {**old, "steps": steps}
    prompt = (
        f'Put a step in between: id {id}, title "{title}". It needs what {last["id"]} needs now, and {last["id"]} needs '
        f"only {id} from then on. Raise nothing else, not even the version. No variables.\n"
        f"{fence(write_formula(old))}"
    )
    return _finish(dice, "one-more-step", "medium", prompt, doc, [fence(write_formula(old))])
