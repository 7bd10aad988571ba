"""What is known of a deployment, as one JSON document: from its answers, and from what became of the town's beads.

Every share stands with its n; what was never seen is None ("not known"), never 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.models.sequential import Arm, compare_arms, exceeds, find_interval, measure_evidence
from gtft.service import AnswerLine, Mode

FALLBACKS = ("error", "timeout", "abstained")


@dataclass(frozen=True)
class Share:
    """``hits`` of ``n``."""

    hits: int
    n: int

    def to_json(self) -> dict[str, Any] | None:
        """None when nothing was seen. ``low`` and ``high``: the Wilson interval."""
        if not self.n:
            return None
        low, high = find_interval(self.hits, self.n)
        return {
            "hits": self.hits,
            "n": self.n,
            "share": round(self.hits / self.n, 6),
            "low": round(low, 6),
            "high": round(high, 6),
        }


@dataclass(frozen=True)
class TownFigures:
    """What the town's records say of the role, before the deployment and since. ``escalated``: of sessions before,
    ``rejected``: of beads that something became of, ``cost``: (sessions, US dollars).

    ``arms``: for each bead of the comparison whether the previous agent kept it, and whether it ended well."""

    escalated_before: Share = Share(0, 0)
    rejected_before: Share = Share(0, 0)
    rejected_since: Share = Share(0, 0)
    cost_before: tuple[int, float] = (0, 0.0)
    cost_since: tuple[int, float] = (0, 0.0)
    arms: tuple[tuple[bool, bool], ...] = ()


def describe_service(
    mode: Mode, answers: Sequence[AnswerLine], town: TownFigures, *, ab_share: float = 0.0
) -> dict[str, Any]:
    """The figures of a deployment (docs/deployment.md says what is compared). ``answers`` are settled.

    A decision in live is a question: one that a client sends again is the same, and its last answer counts. Escalations
    are then counted by session, like those before: a session asks many times, and is handed on once.
    """
    model = [a for a in answers if a.took == "model" or (mode != "live" and not a.why)]
    compared = [a for a in answers if a.agreed is not None]
    asked = _settle_questions(a for a in answers if a.why != "ab")
    missed: Counter[str] = Counter(a.why for a in asked if a.why)
    # Beside today's agent its own decisions on the same questions are what there is to compare with.
    beside = [a for a in model if a.agent_escalated is not None]
    before = town.escalated_before
    if mode != "live":
        before = Share(sum(bool(a.agent_escalated) for a in beside), len(beside))
        model_escalates = Share(sum(a.escalated for a in beside), len(beside))
    else:
        model_escalates = _count_sessions(model)
    return {
        "answers": len(answers),
        "decisions": len(asked) if mode == "live" else len(compared),
        "agreement": Share(sum(bool(a.agreed) for a in compared), len(compared)).to_json(),
        "agreement_by_outcome": _split(compared),
        "abstained": Share(sum(a.abstained for a in asked), len(asked)).to_json(),
        "escalations": {"since": model_escalates.to_json(), "before": before.to_json()},
        "rejects": {
            "since": town.rejected_since.to_json(),
            "before": town.rejected_before.to_json(),
        },
        "seconds": _tell_seconds([a.seconds for a in model if a.seconds > 0]),
        "tokens": _tell_tokens(model),
        "cost": {"since": _tell_cost(town.cost_since), "before": _tell_cost(town.cost_before)},
        "fallbacks": {
            "all": Share(sum(missed[c] for c in FALLBACKS), len(asked)).to_json(),
            "causes": {c: missed[c] for c in FALLBACKS if missed[c]},
        },
        "ab": _tell_ab(town.arms, ab_share) if mode == "live" and ab_share > 0 else None,
    }


def _settle_questions(answers: Iterable[AnswerLine]) -> list[AnswerLine]:
    """One answer for each prompt of each session, the last; an answer whose prompt is not known stands for itself.
    Beside the agent each question is asked once, and known by its item."""
    found: dict[object, AnswerLine] = {}
    for n, a in enumerate(answers):
        live = a.mode == "live" and a.session and a.prompt_sha256
        found[(a.session, a.prompt_sha256) if live else n] = a
    return list(found.values())


def _count_sessions(model: Iterable[AnswerLine]) -> Share:
    """Sessions with an escalation, of all; an answer whose session is not known stands for itself."""
    found: dict[object, bool] = {}
    for n, a in enumerate(model):
        key = a.session or n
        found[key] = found.get(key, False) or a.escalated
    return Share(sum(found.values()), len(found))


def _split(compared: Iterable[AnswerLine]) -> dict[str, Any]:
    """Agreement where today's agent did well, and where it did not: the second is no fault of the model."""
    found: dict[str, list[bool]] = {}
    for a in compared:
        if a.outcome and a.outcome != "unknown":
            found.setdefault(a.outcome, []).append(bool(a.agreed))
    return {k: Share(sum(v), len(v)).to_json() for k, v in sorted(found.items())}


def _tell_seconds(seconds: Sequence[float]) -> dict[str, Any] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 4)

    return {"n": len(ordered), "median": at(0.5), "p95": at(0.95)}


def _tell_tokens(model: Sequence[AnswerLine]) -> dict[str, int] | None:
    if not model:
        return None
    read, written = sum(a.prompt_tokens for a in model), sum(a.tokens for a in model)
    return {"n": len(model), "read": read, "written": written}


def _tell_cost(cost: tuple[int, float]) -> dict[str, Any] | None:
    """US dollars of the role's sessions, as the town wrote them down."""
    return {"n": cost[0], "usd": round(cost[1], 6)} if cost[0] else None


def _tell_ab(arms: Iterable[tuple[bool, bool]], share: float) -> dict[str, Any]:
    seen = Counter(arms)
    model = Arm(seen[False, True], seen[False, False])
    previous = Arm(seen[True, True], seen[True, False])
    return {
        "share": share,
        "model": Share(model.successes, model.n).to_json(),
        "previous": Share(previous.successes, previous.n).to_json(),
        "log_e": round(measure_evidence(model, previous), 6) if model.n and previous.n else 0.0,
        "verdict": compare_arms(model, previous),
    }


def find_breach(
    figures: Mapping[str, Any], limits: Mapping[str, float], *, repeatedly: bool = False
) -> tuple[str, str] | None:
    """The first limit of ``[gtft.deploy.limits]`` that the figures are beyond: its name, and the figure in words.

    No limit is looked at before ``min_decisions`` decisions, nor a figure of fewer observations than that.
    ``repeatedly``: this is asked again and again, so a share must be beyond its limit for sure (`exceeds`); who asks
    once, before a promotion, is told of any share that is.

    A share before that was 0 of n counts as 1 of n: nothing is a multiple of nothing. For a multiple
    the intervals must part too. Looked at after every decision, a model that is like the one before it would else be
    beyond 2 times in up to half of all deployments; so it is in 1 of 25 at most (simulated: rates of 2 to 30 %, 20 to
    200 decisions before, 500 since).
    """
    least = limits["min_decisions"]
    if figures["decisions"] < least:
        return None
    agreement = figures["agreement"]
    fewest = limits["min_agreement"]
    if agreement and agreement["n"] >= least and agreement["share"] < fewest:
        apart = Arm(agreement["n"] - agreement["hits"], agreement["hits"])
        if not repeatedly or exceeds(apart, 1 - fewest):
            return "min_agreement", f"{_say(agreement)} agree, at least {fewest:.0%} must"
    missed = figures["fallbacks"]["all"]
    most = limits["max_fallback"]
    if missed and missed["n"] >= least and missed["share"] > most:
        gone = Arm(missed["hits"], missed["n"] - missed["hits"])
        if not repeatedly or exceeds(gone, most):
            why = ", ".join(f"{n} {c}" for c, n in figures["fallbacks"]["causes"].items())
            text = f"{_say(missed)} went without the model ({why}), at most {most:.0%} may"
            return "max_fallback", text
    for name, key in (("max_escalations", "escalations"), ("max_rejects", "rejects")):
        since, before = figures[key]["since"], figures[key]["before"]
        if not limits[name] or not since or not before or since["n"] < least:
            continue
        base = max(before["share"], 1 / before["n"])
        if since["share"] > limits[name] * base and since["low"] > before["high"]:
            text = f"{key}: {_say(since)} since, {_say(before)} before, at most {limits[name]:g} times that may be"
            return name, text
    seconds, longest = figures["seconds"], limits["max_seconds"]
    if longest and seconds and seconds["n"] >= least and seconds["median"] > longest:
        text = f"the median of {seconds['n']} answers took {seconds['median']:g} s, at most {longest:g} s may"
        return "max_seconds", text
    if (ab := figures["ab"]) and ab["verdict"] == "worse":
        return (
            "ab_share",
            f"beads done well: {_say(ab['model'])} by the model, {_say(ab['previous'])} by the previous agent",
        )
    return None


def _say(share: Mapping[str, Any]) -> str:
    return f"{share['hits']} of {share['n']} ({share['share']:.0%})"
