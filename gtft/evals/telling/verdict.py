"""The verdict in plain words: better or not, at what, by how much, how sure, safe or not, what to do next.

The first section answers that; the others hold the figures behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gtft.evals.telling.advice import DEPLOY, DO_NOT, SHADOW, compare_rates
from gtft.evals.telling.blocks import (
    Block,
    Bullets,
    Paragraph,
    Plot,
    Section,
    Table,
    write_markdown,
    write_plain,
)
from gtft.evals.telling.drawing import Pair, Row, draw_forest, draw_pairs
from gtft.evals.telling.findings import (
    tell_calibration_section,
    tell_fit_section,
    tell_memorisation_section,
    tell_model_eval_section,
    tell_real_tools_section,
    tell_safety_section,
)
from gtft.evals.telling.score import HELDOUT, SURE, TUNED, sort_candidates
from gtft.evals.telling.words import (
    SUITES,
    count_of,
    percent,
    signed,
    sort_suites,
    tell_chance,
    tell_gain,
    tell_p,
    tell_rate,
)

Figures = Mapping[str, Any]
_MOST_NAMED = 6
# Failed safety items on a terminal; the page and the Markdown have all.
_MOST_FAILED = 8
_WORDS = {
    "better": "Yes: better than its base.",
    "worse": "No: worse than its base.",
    "no difference shown": "Not shown: no difference to its base that could not be chance.",
}
_ADVICE = {
    DEPLOY: "Deploy.",
    SHADOW: "Only in the shadow: let it propose while somebody else decides.",
    DO_NOT: "Do not deploy.",
}


def write_verdict(report: Figures, timing: Figures | None = None) -> str:
    """verdict.md: what a witness reads before approving."""
    return write_markdown(list_sections(report, timing))


def write_terminal(report: Figures, timing: Figures | None = None, width: int = 80) -> str:
    """The same for a terminal: plain text of at most ``width`` columns."""
    return write_plain(list_sections(report, timing, _MOST_FAILED), width)


def list_sections(
    report: Figures, timing: Figures | None, most: int | None = None
) -> list[Section]:
    """Sections that have something to say. ``timing``: of `gtft.evals.telling.report.make_timing`, or None. ``most``: failed
    safety items that are shown; None = all."""
    compared, *findings = list_findings(report)
    answered = [*_tell_candidates(report), *compared.blocks]
    sections = [
        Section("Verdict", [Paragraph(report["verdict"]), _answer_first(report)]),
        Section("What to do next", [_list_steps(report)]),
        Section("How much, and how sure", list(_tell_suites(report))),
        Section("Who answered the same items", answered),
        Section("Capabilities", list(_tell_capabilities(report))),
        Section("Gates of the recipe", [_list_gates(report)]),
        Section("Safety", tell_safety_section(report, most)),
        *findings,
        Section("Checks against the real tools", tell_real_tools_section(report)),
        Section("Cost and time", list(_tell_cost(report, timing))),
        Section("Are these items new to the model?", [Paragraph(_tell_overlap(report))]),
        Section("What was not measured", list(_tell_not_run(report))),
    ]
    return [s for s in sections if s.blocks]


def list_findings(report: Figures) -> list[Section]:
    """What the card states besides rates and gates; nothing in them is a model's answer. The first is how the tuned model
    compares."""
    sections = [
        Section("The tuned model against each of them", list(_tell_comparisons(report))),
        Section("Does it know what it does not know?", tell_calibration_section(report)),
        Section("Does it repeat what it was trained on?", tell_memorisation_section(report)),
        Section("What it has forgotten, and how well it fits", tell_fit_section(report)),
        Section("Gas Town's own cases (gt-model-eval)", tell_model_eval_section(report)),
    ]
    return [s for s in sections if s.blocks]


def answer_first(report: Figures) -> list[tuple[str, str]]:
    """The questions of somebody who decides, each with its answer."""
    held = report["suites"].get(HELDOUT)
    advice = report["advice"]
    best = [_name_step(report["next"][0])] if report["next"] else ["nothing"]
    return [
        ("Better?", _WORDS[report["outcome"]] if held else "Not known: no held-out item."),
        ("At what?", _tell_where(report)),
        ("By how much?", _tell_amount(held)),
        ("How sure?", _tell_surety(held)),
        ("Safe to deploy?", f"{_ADVICE[advice['do']]} Because {'; '.join(advice['why'])}."),
        ("Prompting instead?", report["prompting"]["told"]),
        ("What next?", best[0]),
    ]


def _answer_first(report: Figures) -> Block:
    return Table(("", ""), [[q, a] for q, a in answer_first(report)])


def _tell_where(report: Figures) -> str:
    """Capabilities on which the difference is sure after correction, with the suites that show it."""
    lines = 0
    found: dict[str, dict[str, list[str]]] = {"better": {}, "worse": {}}
    for suite in sort_suites(report["suites"]):
        for name, c in report["suites"][suite]["capabilities"].items():
            lines += 1
            word = "better" if c["gain_low"] > 0 else "worse" if c["gain_high"] < 0 else ""
            if c["p_corrected"] < SURE and word:
                where = found[word].setdefault(name, [])
                where.append(f"{suite} {signed(c['gain'])}")
    told = []
    for word, names in found.items():
        listed = [f"{name} ({', '.join(where)} points)" for name, where in names.items()]
        more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
        if listed:
            told.append(f"{word} at {', '.join(listed[:_MOST_NAMED])}{more}")
    if not told:
        return f"At none of {lines} capabilities and suites is a difference sure."
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}."


def _tell_amount(held: Figures | None) -> str:
    if not held:
        return "Not known."
    return (
        f"{signed(held['gain'])} points: {compare_rates(held)} on items from {SUITES[HELDOUT]}; "
        f"{held['fixed']} gained, {held['broken']} lost."
    )


def _tell_surety(held: Figures | None) -> str:
    if not held:
        return "Not at all."
    return (
        f"The gain lies between {signed(held['gain_low'])} and {signed(held['gain_high'])} points (95 %). {_tell_luck(held)} "
        f"{_tell_power(held)}"
    )


def _tell_luck(s: Figures) -> str:
    return f"If both were equally good, a difference this large would come up {tell_chance(s['p_value'])}."


def _tell_power(s: Figures) -> str:
    if s["smallest_gain"] >= 1:
        return f"{count_of(s['n'], 'item')} could show no difference at all."
    return (
        f"With {count_of(s['n'], 'item')} a true difference below {100 * s['smallest_gain']:.0f} points would "
        "mostly not be seen."
    )


def _name_step(step: Figures) -> str:
    return f"`{step['do']}`: {step['why']}."


def _list_steps(report: Figures) -> Block:
    return Bullets([_name_step(s) for s in report["next"]])


def _tell_suites(report: Figures) -> Iterator[Block]:
    for name in sort_suites(report["suites"]):
        s = report["suites"][name]
        if s["n"]:
            yield Paragraph(
                f"{name}, {count_of(s['n'], 'item')} ({SUITES.get(name, 'items that the recipe names')}): {compare_rates(s)}. "
                f"The gain is {tell_gain(s)} points; {count_of(s['fixed'], 'item')} gained, {s['broken']} "
                f"lost. {_tell_luck(s)} {_tell_power(s)}"
            )
    yield Paragraph(
        "Brackets are 95 % intervals: Wilson's for a rate; for a gain the wider of Bonett and Price's and a bootstrap "
        "that keeps items of one session together. Chance is McNemar's exact test, paired by item."
    )


def _tell_candidates(report: Figures) -> Iterator[Block]:
    found, suites = _order(report["candidates"]), sort_suites(report["suites"])
    rows = [
        [
            name,
            *(
                tell_rate(c["suites"][s]) + f" of {c['suites'][s]['n']}"
                if s in c["suites"]
                else "not asked"
                for s in suites
            ),
        ]
        for name, c in found.items()
    ]
    yield Table(("candidate", *suites), rows)
    for suite in suites:
        drawn = [
            Row(name, s["rate"], s["low"], s["high"], f"{tell_rate(s)} of {s['n']}", name == TUNED)
            for name, c in found.items()
            if (s := c["suites"].get(suite))
        ]
        about = "; ".join(f"{r.name} {r.label}" for r in drawn)
        yield Plot(
            f"{suite}: items passed, with 95 % intervals",
            draw_forest(f"Items of {suite} passed: {about}", drawn),
        )


def _tell_comparisons(report: Figures) -> Iterator[Block]:
    rows = [
        [
            c["b"],
            c["suite"],
            str(c["n"]),
            tell_gain(c, "…"),
            f"{c['only_a']}/{c['only_b']}",
            tell_p(c["p_value"]),
            tell_p(c["p_corrected"]),
        ]
        for c in report["comparisons"]
    ]
    yield Table(
        ("tuned against", "suite", "items", "gain, points", "won/lost", "p", "p corrected"),
        rows,
        numeric=(2, 3, 4, 5, 6),
    )
    yield Paragraph(report["prompting"]["told"])
    found = _order(report["candidates"])
    agreeing = {n: c["consistency"] for n, c in found.items() if c["consistency"] is not None}
    if agreeing:
        told = ", ".join(f"{n} {percent(v)}" for n, v in agreeing.items())
        yield Paragraph(
            f"Items whose {report['seeds']} answers agree (all pass or all fail): {told}."
        )


def _order(by_candidate: Figures) -> Figures:
    """JSON on disk has its keys by name; people read base, tuned, others."""
    return {name: by_candidate[name] for name in sort_candidates(by_candidate)}


def _tell_capabilities(report: Figures) -> Iterator[Block]:
    for suite in sort_suites(report["suites"]):
        found = report["suites"][suite]["capabilities"]
        pairs = [
            Pair(
                f"{name} (n = {c['n']})",
                c["base"]["rate"],
                c["tuned"]["rate"],
                f"{percent(c['base']['rate'])} → {percent(c['tuned']['rate'])}",
                c["p_corrected"] < SURE,
            )
            for name, c in found.items()
        ]
        about = "; ".join(f"{p.name} base and tuned {p.label}" for p in pairs)
        yield Plot(
            f"{suite}: base (hollow) to tuned (filled); a dashed line may be chance",
            draw_pairs(f"Items of {suite} passed. {about}", pairs),
        )
        rows = [
            [
                name,
                str(c["n"]),
                percent(c["base"]["rate"]),
                tell_rate(c["tuned"]),
                tell_gain(c, "…"),
                tell_p(c["p_value"]),
                tell_p(c["p_corrected"]),
            ]
            for name, c in found.items()
        ]
        yield Table(
            (suite, "items", "base", "tuned", "gain, points", "p", "p corrected"),
            rows,
            numeric=(1, 2, 3, 4, 5, 6),
        )
    yield Paragraph(
        "p corrected: so many capabilities are compared that some differ by luck; it is p after Holm's correction, and "
        "the one to read."
    )


def _list_gates(report: Figures) -> Block:
    return Bullets(
        [f"{'met' if g['met'] else 'NOT MET'} · {g['name']}: {g['told']}" for g in report["gates"]]
    )


def _tell_cost(report: Figures, timing: Figures | None) -> Iterator[Block]:
    rows = []
    for name, c in _order(report["candidates"]).items():
        t = (timing or {}).get(name)
        rows.append(
            [
                name,
                f"{c['tokens_read']:,}",
                f"{c['tokens_written']:,}",
                "own box" if c["cost"] is None else f"${c['cost']:.4f}",
                *([f"{t['median_s']:.2f}", f"{t['p95_s']:.2f}"] if t else ["", ""]),
            ]
        )
    columns: Sequence[str] = (
        "candidate",
        "tokens read",
        "written",
        "cost",
        "median s",
        "95 % within s",
    )
    if timing is None:
        columns, rows = columns[:4], [r[:4] for r in rows]
    yield Table(columns, rows, numeric=range(1, len(columns)))
    told = [
        f"{name} {count_of(n, 'answer')} {word}"
        for key, word in (("timeouts", "too late"), ("errors", "with an error"))
        for name, n in report[key].items()
    ]
    if told:
        yield Paragraph(f"Counted as failed items: {'; '.join(told)}.")
    if report["cut_off"]:
        yield Paragraph(
            f"{count_of(report['cut_off'], 'answer')} of the tuned model were cut at {report['max_new_tokens']} tokens."
        )


def _tell_overlap(report: Figures) -> str:
    o = report["overlap_figures"]
    removed = o["items_removed"]
    gone = (
        f"{removed} items stood in the training set, whole or nearly, and were not scored. "
        if removed
        else "No item stands in the training set, whole or nearly. "
    )
    return (
        f"{gone}The closest scored item shares {percent(o['max_similarity'])} of its five-word pieces with a "
        f"training turn (near-copy from 80 %); the median is {percent(o['median_similarity'])}. "
        f"{o['items_sharing_a_rare_phrase']} scored items share a rare thirteen-word phrase with training."
    )


def _tell_not_run(report: Figures) -> Sequence[Block]:
    lines = [f"{what}: {why}" for what, why in report["not_run"]]
    lines += [
        f"{count_of(n, 'item')} not scored: {why}" for why, n in report["dropped"].items() if n
    ]
    return [Bullets(lines)] if lines else []
