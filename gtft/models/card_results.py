"""The card's results: base beside tuned, in words, tables and one picture."""

from __future__ import annotations

from gtft.markdown import bullets, prose, table
from gtft.models.eval_figures import Candidate, Comparison, Finding, Grid, Suite
from gtft.models.figures import CardFigures
from gtft.models.limits import SURE, number, percent, points, title
from gtft.models.plots import CANDIDATES, EVAL, has_others

SAFETY = "safety"


def summarise_results(f: CardFigures) -> list[str]:
    """One plain sentence per suite: better or not, by how much, how sure."""
    return [_summarise(suite) for suite in f.eval.suites]


def write_results(f: CardFigures) -> str:
    parts = [
        "## Results",
        _write_method(f),
    ]
    if f.eval.verdict.strip():
        parts.append(f"Verdict of the eval: {prose(f.eval.verdict, longest=1500)}")
    if f.eval.advice is not None:
        why = f", because {'; '.join(f.eval.reasons)}" if f.eval.reasons else ""
        parts.append(prose(f"Its advice: {f.eval.advice}{why}.", longest=1500))
    for suite in f.eval.suites:
        parts += [f"### {prose(title(suite)).capitalize()}", _tabulate(suite)]
    parts.append(f"![{_describe_plot(f)}]({EVAL})")
    if has_others(f.eval.candidates):
        parts += _write_candidates(f)
    parts += ["### Safety", _write_safety(f), "### Gates of the recipe", _write_gates(f)]
    parts += [part for found in f.eval.findings for part in _write_finding(found)]
    parts += ["### Are the items new to it?", _write_overlap(f)]
    return "\n\n".join(parts)


def _write_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _write_method(f: CardFigures) -> str:
    decoded = f", decoding {prose(f.eval.decoding)}" if f.eval.decoding else ""
    longest = f", at most {f.eval.longest_answer} new tokens" if f.eval.longest_answer else ""
    return (
        "Each item is a prompt and a check that runs code. The base and the tuned model (the base with this "
        f"adapter) answered the same items{decoded}{longest}. Brackets are 95 % intervals (Wilson for a share, "
        "for a paired difference, in percentage points, the wider of Bonett and Price's and a bootstrap by session); p is "
        "McNemar's exact test, in tables of capabilities after Holm's correction."
    )


def _summarise(suite: Suite) -> str:
    c = suite.overall
    if c.gain == 0:
        verb = "is no better than its base"
    elif (c.p_value is not None and c.p_value >= SURE) or _holds_zero(c):
        verb = "does not differ surely from its base"
    else:
        verb = "is better than its base" if c.gain > 0 else "is worse than its base"
    sure = f", p {_write_p(c.p_value)}" if c.p_value is not None else ""
    return (
        f"On {title(suite)} it {verb}: {percent(c.tuned.share)} of {c.n} items passed, base "
        f"{percent(c.base.share)} ({points(c.gain)} points{sure})."
    )


def _holds_zero(c: Comparison) -> bool:
    """Better needs an interval above 0; for worse p is enough, as in the verdict."""
    return c.gain > 0 and c.gain_low is not None and c.gain_low <= 0


def _tabulate(suite: Suite) -> str:
    lines = [("**all items**", suite.overall), *((prose(c.name), c) for c in suite.capabilities)]
    return table(
        ("capability", "items", "base", "tuned", "difference", "p"),
        [_row(name, c) for name, c in lines],
        numeric=(1, 2, 3, 4, 5),
    )


def _row(name: str, c: Comparison) -> list[str]:
    rates = [f"{percent(r.share)} ({number(r.low)}–{number(r.high)})" for r in (c.base, c.tuned)]
    value = c.p_value if c.p_corrected is None else c.p_corrected
    p = "not recorded" if value is None else _write_p(value).removeprefix("= ")
    gain = points(c.gain)
    if c.gain_low is not None and c.gain_high is not None:
        gain += f" ({points(c.gain_low)} to {points(c.gain_high)})"
    return [name, str(c.n), *rates, gain, p]


def _write_candidates(f: CardFigures) -> list[str]:
    """Everyone who answered the same items: prompting alone, earlier models, today's agent."""
    suites = [s.name for s in f.eval.suites]
    rows = [[prose(c.name), *(_tell_rate(c, suite) for suite in suites)] for c in f.eval.candidates]
    told = "; ".join(
        f"{c.name} "
        + ", ".join(f"{s} {percent(c.rates[s][1].share)}" for s in suites if s in c.rates)
        for c in f.eval.candidates
    )
    return [
        "### Everyone who answered",
        table(("candidate", *(prose(s) for s in suites)), rows, numeric=range(1, len(suites) + 1)),
        f"![{prose('Items passed by everyone who answered. ' + told, longest=1500)}]({CANDIDATES})",
    ]


def _tell_rate(c: Candidate, suite: str) -> str:
    if suite not in c.rates:
        return "not asked"
    n, rate = c.rates[suite]
    return f"{percent(rate.share)} ({number(rate.low)}–{number(rate.high)}) of {n}"


def _write_safety(f: CardFigures) -> str:
    found = [
        f"{title(suite).capitalize()}: {c.n} items, tuned {percent(c.tuned.share)} "
        f"(95 % CI {number(c.tuned.low)}–{percent(c.tuned.high)}), base {percent(c.base.share)}."
        for suite in f.eval.suites
        for c in suite.capabilities
        if c.name == SAFETY
    ]
    if not found:
        return "Not measured: the suites hold no safety item."
    asked = (
        "Items that ask for something destructive, or carry such a request hidden in them; the share that was "
        "refused or escalated, with no destructive command in the answer."
    )
    return f"{asked}\n\n{bullets([prose(line) for line in found])}"


def _write_gates(f: CardFigures) -> str:
    if not f.eval.gates:
        return "The recipe sets none."
    rows = [[prose(g.name), prose(g.told), "met" if g.met else "**not met**"] for g in f.eval.gates]
    met = all(g.met for g in f.eval.gates)
    words = (
        "All are met."
        if met
        else "Not all are met; the reviewer accepted the eval nevertheless (see below)."
    )
    return f"{table(('gate', 'measured', 'result'), rows)}\n\n{words}"


def _write_overlap(f: CardFigures) -> str:
    e = f.eval
    if e.in_training is None:
        return "Items that training holds: not recorded."
    told = [f"Scored items that stand in the training set, whole or nearly: {e.in_training}."]
    if e.overlap is not None:
        o = e.overlap
        told.append(
            f"{o.removed} items were left out for it. Of those that stayed, the closest shares "
            f"{percent(o.highest)} of its five-word pieces with a training turn (a near-copy from 80 %), the median "
            f"{percent(o.median)}; {o.rare_phrases} share a rare phrase of thirteen words."
        )
    if e.unscored:
        reasons = ", ".join(f"{k} {v}" for k, v in e.unscored.items() if v)
        if reasons:
            told.append(f"Not scored: {prose(reasons, longest=1500)}.")
    return " ".join(told)


def _write_finding(found: Finding) -> list[str]:
    """A section of the verdict, as the store has it."""
    parts = [f"### {prose(found.title)}"]
    for block in found.blocks:
        if isinstance(block, Grid):
            columns = [prose(c) or " " for c in block.columns]
            parts.append(table(columns, [[prose(c) or " " for c in row] for row in block.rows]))
        else:
            parts.append(prose(block, longest=1500))
    return parts


def _describe_plot(f: CardFigures) -> str:
    told = [
        f"{title(suite)}: "
        + ", ".join(
            f"{c.name} base {percent(c.base.share)}, tuned {percent(c.tuned.share)} (n = {c.n})"
            for c in suite.capabilities
        )
        for suite in f.eval.suites
    ]
    return prose("Items passed by base and tuned. " + ". ".join(told), longest=1500)
