"""Checks on explanations: the one cause, and the way from what is asked about to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object
from gtft.evals.checks.witness import check_keys, read_names


def check_cause(answer: Answer, args: Mapping[str, Any]) -> None:
    """One JSON object {"cause": name, "chain": [name, …]}, and no other key.

    ``args``: cause; chain; ordered, whether the order of the chain counts (default true); among, the names that
    may be a cause, to tell an unknown one from a wrong one.
    """
    doc = parse_object(answer)
    check_keys(doc, ("cause", "chain"))
    cause, chain = doc["cause"], read_names(doc["chain"], "chain")
    if not isinstance(cause, str):
        raise BadAnswer("cause is not a text")
    if "among" in args and cause not in args["among"]:
        raise BadAnswer(f"cause {cause[:40]} is not one of the {len(args['among'])} given")
    if cause != args["cause"]:
        raise BadAnswer(f"cause {cause[:40]}, not {args['cause']}")
    right = list(args["chain"])
    same = chain == right if args.get("ordered", True) else set(chain) == set(right)
    if not same:
        raise BadAnswer(f"chain {', '.join(chain)[:80] or 'empty'}, not {', '.join(right)[:80]}")
