"""The verdict in plain words: better or not, at what, by how much, how sure, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gtft.evals.score import HELDOUT, SAFETY, SURE, Gate, percent

_SUITES = {
    "heldout": "sessions the model never saw",
    "authored": "templates that no training example uses",
}


def judge(figures: Mapping[str, Any] | None) -> str:
    """ "better", "worse" or "no difference shown", from the held-out suite's figures."""
    if not figures or figures["p_value"] >= SURE:
        return "no difference shown"
    return "better" if figures["gain"] > 0 else "worse"


def write_headline(suites: Mapping[str, Mapping[str, Any]], gates: Sequence[Gate]) -> str:
    """One or two sentences: the outcome on held-out sessions, and whether the gates are met."""
    held = suites.get(HELDOUT)
    if not held:
        return "No held-out item could be scored, so nothing is known about the model."
    word = {
        "better": "The tuned model is better than its base",
        "worse": "The tuned model is worse than its base",
        "no difference shown": "No difference between the tuned model and its base is shown",
    }[judge(held)]
    missed = [g.name for g in gates if not g.met]
    told = f"{_compare(held)} on {held['n']} items from {_SUITES[HELDOUT]}"
    state = f"not met: {', '.join(missed)}" if missed else "all met"
    return f"{word}: {told}. Gates {state}."


def write_verdict(report: Mapping[str, Any], gates: Sequence[Gate]) -> str:
    """verdict.md: what a witness reads before approving. Markdown, a page."""
    suites = report["suites"]
    held = suites.get(HELDOUT)
    lines = ["# Verdict", "", report["verdict"], ""]
    lines += ["## How much, and how sure", ""]
    for name in sorted(suites, key=lambda n: (n != HELDOUT, n)):
        lines += [_sentence(name, suites[name]), ""]
    for name in sorted(suites, key=lambda n: (n != HELDOUT, n)):
        lines += [f"## {name}: {_SUITES.get(name, 'items')}", "", *_table(suites[name]), ""]
    lines += ["## Gates of the recipe", ""]
    lines += [f"- {'met' if g.met else 'NOT MET'} · {g.name}: {g.told}" for g in gates]
    lines += ["", "## Safety", "", _safety(suites), ""]
    lines += ["## Are these items new to the model?", "", _overlap(report), ""]
    lines += ["## What to do next", ""]
    lines += [f"- {step}" for step in _next_steps(report, held, gates)]
    return "\n".join(lines) + "\n"


def _sentence(name: str, s: Mapping[str, Any]) -> str:
    where = _SUITES.get(name, "items")
    sure = (
        f"If both were equally good, a difference this large would come up {_chance(s['p_value'])} "
        "(exact McNemar test, paired by item)."
    )
    return (
        f"On {s['n']} items from {where}: {_compare(s)}. The gain lies between {_signed(s['gain_low'])} and "
        f"{_signed(s['gain_high'])} points (95 %). {s['fixed']} items pass only with the adapter, "
        f"{s['broken']} only without it. {sure}"
    )


def _compare(s: Mapping[str, Any]) -> str:
    return (
        f"tuned {percent(s['tuned']['rate'])} ({s['tuned']['passed']} of {s['n']}), "
        f"base {percent(s['base']['rate'])} ({s['base']['passed']} of {s['n']})"
    )


def _table(s: Mapping[str, Any]) -> list[str]:
    rows = [
        "| capability | items | base | tuned | 95 % of tuned | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, c in [*s["capabilities"].items(), ("all", s)]:
        tuned = c["tuned"]
        rows.append(
            f"| {name} | {c['n']} | {percent(c['base']['rate'])} | {percent(tuned['rate'])} "
            f"| {percent(tuned['low'])} to {percent(tuned['high'])} | {c['p_value']:.2g} |"
        )
    return rows


def _safety(suites: Mapping[str, Mapping[str, Any]]) -> str:
    found = [s["capabilities"][SAFETY] for s in suites.values() if SAFETY in s["capabilities"]]
    if not found:
        return "No safety item was scored: nothing is known about destructive requests."
    n = sum(f["n"] for f in found)
    passed = sum(f["tuned"]["passed"] for f in found)
    if passed == n:
        return f"All {n} destructive or injected requests were refused or escalated."
    return (
        f"{n - passed} of {n} destructive or injected requests were NOT refused or escalated. "
        "Do not let this model act on its own."
    )


def _overlap(report: Mapping[str, Any]) -> str:
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


def _next_steps(
    report: Mapping[str, Any], held: Mapping[str, Any] | None, gates: Sequence[Gate]
) -> list[str]:
    steps: list[str] = []
    if held and held["n"] < 100:
        steps.append(f"{held['n']} held-out items leave wide intervals; harvest more sessions.")
    weak = [] if not held else _weakest(held)
    if weak:
        told = ", ".join(f"{n} ({percent(c['tuned']['rate'])} of {c['n']})" for n, c in weak)
        steps.append(f"Weakest: {told}. More examples of these: gtft corpus health")
    if held and judge(held) != "better":
        steps.append("Train longer or with a higher rate: gtft run RECIPE --set train.epochs=…")
    authored = report["suites"].get("authored")
    if held and authored and held["tuned"]["rate"] - authored["tuned"]["rate"] > 0.2:
        steps.append(
            "It does much worse on templates it never met: it has learned this town's wording more than "
            "the rules behind it. More varied sessions help."
        )
    if report["cut_off"]:
        steps.append(
            f"{report['cut_off']} answers of the tuned model were cut at the token limit: "
            "gtft run RECIPE --set eval.max_new_tokens=…"
        )
    if any(not g.met for g in gates):
        steps.append("Gates are not met: reject, or approve knowing that the card will say so.")
    steps.append("See both answers to every failed item: gtft eval items --failed")
    return steps


def _weakest(s: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    low = [(n, c) for n, c in s["capabilities"].items() if c["tuned"]["rate"] < 0.5]
    return sorted(low, key=lambda nc: (nc[1]["tuned"]["rate"], nc[0]))[:3]


def _chance(p: float) -> str:
    if p < 0.001:
        return "less than once in 1,000 times"
    return f"{100 * p:.1f} % of the time"


def _signed(share: float) -> str:
    return f"{100 * share:+.0f}"
