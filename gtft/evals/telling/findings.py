"""The sections of a verdict about what is measured beside the suites: safety, calibration, memorisation, fit, …

Each reads its own part of the report. What was not measured says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gtft.evals.telling.blocks import Block, Bullets, Paragraph, Plot, Table, quote
from gtft.evals.telling.drawing import Bin, draw_reliability
from gtft.evals.telling.score import TUNED, sort_candidates
from gtft.evals.telling.stats import wilson
from gtft.evals.telling.words import count_of, percent, signed, tell_p, tell_rate

Figures = Mapping[str, Any]
_PAIR = ("tuned", "base")
_MOST_LISTED = 40
# Characters of what was asked and answered.
_SHOWN = 200


def tell_safety_section(report: Figures, most: int | None = None) -> list[Block]:
    """Every failed item with its answer: a witness reads them all. ``most`` of them where there is little room."""
    safe, found = report["safety_score"], report["safety"].get(TUNED)
    if not safe["n"] or not found:
        return [
            Paragraph("No safety item was scored: nothing is known about destructive requests.")
        ]
    if safe["passed"] == safe["n"]:
        unseen = 1 - wilson(safe["n"], safe["n"]).low
        told = (
            f"All {safe['n']} destructive or injected requests were refused or escalated. So many items cannot rule out "
            f"that {percent(unseen)} of such requests would not be: passing is a floor, not a proof."
        )
        return [Paragraph(told), *_tell_others_safety(report)]
    rows = [
        [
            f["id"],
            quote(f["asked"], _SHOWN if most is None else _SHOWN // 2),
            quote(f["answer"], _SHOWN if most is None else _SHOWN // 2),
            quote(f["reason"], 120),
        ]
        for f in found["failed"]
    ]
    rows += [[i, "", "", "no answer"] for i in found["unanswered"]]
    left = len(rows) - len(rows[:most])
    more = f"{left} more: `gtft eval items --failed --capability safety`"
    return [
        Paragraph(
            f"{safe['n'] - safe['passed']} of {safe['n']} destructive or injected requests were NOT refused or escalated "
            "(no answer, or one that nobody can read, counts as that). Do not let this model act on its own."
        ),
        Table(("item", "asked", "answered", "why it fails"), rows[:most]),
        *([Paragraph(more)] if left else []),
        *_tell_others_safety(report),
    ]


def _tell_others_safety(report: Figures) -> Iterator[Block]:
    others = [
        f"{name} {report['safety'][name]['passed']} of {report['safety'][name]['n']}"
        for name in sort_candidates(report["safety"])
        if name != TUNED
    ]
    if others:
        yield Paragraph(f"Others on the safety items: {', '.join(others)}.")


def tell_calibration_section(report: Figures) -> list[Block]:
    """Abstaining where it cannot know, not abstaining where it can, and whether its confidence means anything."""
    found = report["calibration"].get(TUNED)
    if not found:
        return [Paragraph("Not measured.")]
    blocks: list[Block] = [Paragraph(told) for told in _tell_abstaining(found)]
    blocks.append(Paragraph(_tell_confidence(found["confidence"])))
    rows = [
        [
            name,
            _say_rate(c["unanswerable"]),
            _say_rate(c["answerable"]),
            _say_rate(c["elsewhere"]),
            _say_number(c["confidence"]["ece"]),
            _say_number(c["confidence"]["brier"]),
        ]
        for name in sort_candidates(report["calibration"])
        for c in [report["calibration"][name]]
    ]
    columns = ("candidate", "abstains: must", "could answer", "elsewhere", "ECE", "Brier")
    blocks.append(Table(columns, rows, numeric=(1, 2, 3, 4, 5)))
    return [*blocks, *_draw_bins(found["confidence"]["bins"])]


def _tell_abstaining(found: Figures) -> Iterator[str]:
    cannot, can = found["unanswerable"], found["answerable"]
    if not cannot["n"]:
        yield "No item was asked that cannot be answered from what is given, so nothing is known about abstaining."
        return
    yield (
        f"Where it cannot know, it asks, abstains or escalates in {_say_rate(cannot)} of {count_of(cannot['n'], 'item')}: "
        "all would be right."
    )
    if can["n"]:
        yield (
            f"Where it can know, it abstains all the same in {_say_rate(can)} of {count_of(can['n'], 'item')}: "
            "none would be right."
        )


def _tell_confidence(c: Figures) -> str:
    if c["ece"] is None:
        return f"Whether its confidence means anything is not known: {c['reason']}."
    bound = c["noise"]["high"]
    far = c["ece"] > bound
    return (
        f"How sure it is and how often it is right are {100 * c['ece']:.0f} points apart on average (ECE over {c['n']:,} "
        f"answers); a model that knows exactly what it knows would show up to {100 * bound:.0f} by luck. "
        f"{'Do not read its confidence as a chance of being right.' if far else 'No sign that its confidence misleads.'}"
    )


def _draw_bins(bins: Sequence[Figures]) -> Iterator[Block]:
    drawn = []
    for b in bins:
        interval = wilson(round(b["passed"] * b["n"]), b["n"])
        drawn.append(Bin(b["confidence"], b["passed"], interval.low, interval.high, b["n"]))
    if drawn:
        about = "; ".join(
            f"{percent(b.confidence)} sure: {percent(b.rate)} of {b.n} pass" for b in drawn
        )
        yield Plot(
            "Tuned: how sure it was, and how often it was right",
            draw_reliability(f"Reliability of the tuned model. {about}", drawn),
        )


def tell_memorisation_section(report: Figures) -> list[Block]:
    """Planted values (exposure, completion) and redacted ones, tuned beside base."""
    found = report["memorisation"]
    if found is None:
        return [Paragraph("It was not looked for, so nothing is known.")]
    rows = [*_list_planted(found.get("canaries", {})), *_list_redacted(found.get("redacted", {}))]
    blocks: list[Block] = [Paragraph(f"{_capitalise(found.get('told', ''))}.")]
    return [*blocks, Table(("", "tuned", "base"), rows, numeric=(1, 2))] if rows else blocks


def _list_planted(c: Figures) -> Iterator[list[str]]:
    if not c.get("probed"):
        return
    exposure, came = c["exposure"], c["extracted"]
    most, chance = c["most_bits"], c["chance_bits"]
    yield [
        f"mean exposure of {count_of(c['probed'], 'planted value')}, bits (chance {chance:.1f}, most {most:.0f})",
        *(f"{exposure[n]['mean_bits']:.2f}" for n in _PAIR),
    ]
    yield ["chance of that much by luck, p", *(tell_p(exposure[n]["p"]) for n in _PAIR)]
    yield [
        f"planted values that came out whole, of {c['probed']} in {c['completions']} completions",
        *(str(came[n]["planted"]) for n in _PAIR),
    ]


def _list_redacted(r: Figures) -> Iterator[list[str]]:
    if r.get("prefixes"):
        yield [
            f"redacted values that came out, of {r['placeholders']} in {r['completions']} completions",
            *(str(r["came_out"][n]) for n in _PAIR),
        ]


def tell_fit_section(report: Figures) -> list[Block]:
    """General text, training against held-out, rigs and templates that training did not know, rigs confused."""
    fit = report["fit"]
    if fit is None:
        return [Paragraph("Not measured.")]
    warnings = [_capitalise(w["told"]) + "." for w in fit["warnings"]]
    blocks: list[Block] = [Bullets(warnings)] if warnings else [Paragraph("No warning.")]
    rows = [*_list_general(fit["general"]), *_list_answers(fit["answers"])]
    if rows:
        blocks.append(Table(("", "tuned", "base"), rows, numeric=(1, 2)))
    blocks += [Paragraph(f"{_capitalise(told)}.") for told in _tell_gaps(fit)]
    return blocks


def _list_general(g: Figures) -> Iterator[list[str]]:
    if g.get("texts"):
        yield [
            f"perplexity on {count_of(g['texts'], 'general text')}",
            *(f"{g['perplexity'][n]:.2f}" for n in _PAIR),
        ]
        yield ["KL to the base there, nats per token", f"{g['kl']:.3f}", "0"]


def _list_answers(a: Figures) -> Iterator[list[str]]:
    for side, called in (("trained", "training examples"), ("heldout", "held-out examples")):
        if a[side]["loss"]:
            yield [
                f"loss on {a[side]['texts']} {called}, nats per token",
                *(f"{a[side]['loss'][n]:.3f}" for n in _PAIR),
            ]


def _tell_gaps(fit: Figures) -> Iterator[str]:
    for key, called in (("rigs", "rig"), ("templates", "template")):
        gap = fit[key].get("gap")
        if gap is None:
            yield f"{called}-out: {fit[key].get('why', 'not measured')}"
            continue
        inside, outside = fit[key]["known"], fit[key]["unknown"]
        yield (
            f"{called}-out: {percent(outside['rate'][TUNED])} of {outside['items']} items where training knew no such "
            f"{called}, {percent(inside['rate'][TUNED])} of {inside['items']} where it did; gap {signed(gap['rate'])} "
            f"({signed(gap['low'])} to {signed(gap['high'])}) points"
        )
    confused = fit["cross_rig"]
    if confused.get("items"):
        named = confused["named"]
        yield (
            f"cross-rig: {named[TUNED]} of {confused['items']} answers name a rig that nobody asked about "
            f"(base {named['base']})"
        )
    else:
        yield f"cross-rig: {confused.get('why', 'not measured')}"


def tell_model_eval_section(report: Figures) -> list[Block]:
    """Per role the cases passed by each candidate, the published figures beside, and what was not run."""
    found = report["model_eval"]
    if found is None:
        return []
    rows = found["rows"]
    names = sort_candidates(c for r in rows for c in r["passed"])
    cells = [
        [
            r["role"] or "any",
            str(r["n"]),
            str(r["not_run"]),
            *(_say_passed(r["passed"].get(c), r["n"]) for c in names),
        ]
        for r in rows
    ]
    columns = ("role", "cases", "not run", *names)
    published = ", ".join(f"{p['model']} {percent(p['rate'])}" for p in found["published"])
    blocks: list[Block] = [
        Paragraph(f"{_capitalise('; '.join(found['told']))}."),
        Table(columns, cells, numeric=range(1, len(columns))),
        Paragraph(f"Published: {published}."),
    ]
    left = [
        f"{n['file']} {n['number']}, {quote(n['case'], 80)}: {quote(n['reason'], 160)}"
        for n in found["not_run"]
    ]
    if left:
        blocks += [Paragraph(f"Not run, {len(left)}:"), Bullets(left[:_MOST_LISTED])]
    if len(left) > _MOST_LISTED:
        blocks.append(Paragraph(f"{len(left) - _MOST_LISTED} more in report.json."))
    return blocks


def tell_real_tools_section(report: Figures) -> list[Block]:
    """Where the code's own rules and the real programs differ on the answers given."""
    found = report["real_tools"]
    if found is None:
        return []
    blocks: list[Block] = []
    for name, doc in found.items():
        if name == "not_run":
            continue
        differ = doc.get("disagreeing", len(doc["disagreements"]))
        blocks.append(
            Paragraph(
                f"{name}: {doc['run']} of {count_of(doc['answers'], 'answer')} could be run in the real tools; they and "
                f"gtft's own rules differ on {differ or 'none'}."
            )
        )
        if differ:
            listed = doc["disagreements"][:_MOST_LISTED]
            blocks.append(Bullets([f"{d['item']}: {quote(d['difference'], 200)}" for d in listed]))
    if found["not_run"]:
        blocks.append(Bullets([f"not run: {quote(why, 200)}" for why in found["not_run"]]))
    return blocks


def _say_passed(passed: int | None, n: int) -> str:
    return "not asked" if passed is None else f"{passed} ({percent(passed / n)})" if n else "0"


def _say_rate(r: Figures) -> str:
    return tell_rate(r) if r["n"] else "no item"


def _say_number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _capitalise(text: str) -> str:
    stripped = text.rstrip(".")
    return stripped[:1].upper() + stripped[1:]
