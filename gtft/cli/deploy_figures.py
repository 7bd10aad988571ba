"""The figures of a deployment in words: for ``gtft deploy status``, ``watch`` and ``gtft model show``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NOT_KNOWN = "not known"


def word_figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, figure with its n), as `gtft.models.service_figures.describe_service` made them; nothing before the
    first look."""
    if error := figures.get("error"):
        yield "last look failed", str(error)
    if "decisions" not in figures:
        return
    yield "decisions", str(figures["decisions"])
    yield "agreement", _share(figures["agreement"])
    for outcome, share in figures["agreement_by_outcome"].items():
        yield f"  where today's work was {outcome}", _share(share)
    yield "abstained", _share(figures["abstained"])
    for key in ("escalations", "rejects"):
        now, before = figures[key]["since"], figures[key]["before"]
        yield key, f"{_share(now)}, before {_share(before)}"
    yield "latency", _latency(figures["seconds"])
    yield "tokens", _tokens(figures["tokens"])
    cost = figures["cost"]
    yield "cost of the role", f"{_cost(cost['since'])}, before {_cost(cost['before'])}"
    fallbacks = figures["fallbacks"]
    causes = ", ".join(f"{n} {c}" for c, n in fallbacks["causes"].items())
    yield "fallbacks", _share(fallbacks["all"]) + (f": {causes}" if causes else "")
    ended = figures.get("ab_end")
    if ab := ended or figures["ab"]:
        arms = f"model {_share(ab['model'])}, previous {_share(ab['previous'])}"
        verdict = f"ended, {ab['verdict']}" if ended else ab["verdict"]
        yield "A/B by bead", f"{verdict}: beads done well by {arms}"
    look = figures.get("sessions", {}).get("look", {})
    if look:
        why = f"; {look['why']}" if look.get("why") else ""
        yield (
            "last look",
            f"{look['asked']} asked, {look['compared']} compared, {look['left']} left{why}",
        )


def _share(share: Mapping[str, Any] | None) -> str:
    if not share:
        return NOT_KNOWN
    low, high = share["low"] * 100, share["high"] * 100
    return f"{share['share']:.0%} of {share['n']} ({low:.0f}–{high:.0f} %)"


def _latency(seconds: Mapping[str, Any] | None) -> str:
    if not seconds:
        return NOT_KNOWN
    return f"median {seconds['median']:g} s, p95 {seconds['p95']:g} s of {seconds['n']} answers"


def _cost(cost: Mapping[str, Any] | None) -> str:
    return f"{cost['usd']:.2f} USD in {cost['n']} sessions" if cost else NOT_KNOWN


def _tokens(tokens: Mapping[str, Any] | None) -> str:
    if not tokens:
        return NOT_KNOWN
    return f"{tokens['read']} read, {tokens['written']} written in {tokens['n']} answers"
