"""Checks on a witness's judgement: is the bead complete, and if not, which criteria are open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object


def check_completeness(answer: Answer, args: Mapping[str, Any]) -> None:
    """One JSON object {"complete": true or false, "missing": [criterion, …]}, and no other key.

    ``args``: complete, missing; the order of the criteria does not matter.
    """
    doc = parse_object(answer)
    check_keys(doc, ("complete", "missing"))
    complete, missing = doc["complete"], read_names(doc["missing"], "missing")
    if not isinstance(complete, bool):
        raise BadAnswer("complete is neither true nor false")
    if complete != args["complete"]:
        raise BadAnswer(f"complete is {complete}")
    if set(missing) != set(args["missing"]):
        raise BadAnswer(f"missing {', '.join(missing)[:80] or 'nothing'}, not as it is")


def check_keys(doc: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    """Raises BadAnswer unless the object has exactly these keys."""
    if set(doc) != set(keys):
        raise BadAnswer(f"keys {', '.join(sorted(doc))[:80] or 'none'}, not {', '.join(keys)}")


def read_names(value: Any, key: str) -> list[str]:
    """A list of different texts. Raises BadAnswer."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadAnswer(f"{key} is not a list of texts")
    if len(set(value)) != len(value):
        raise BadAnswer(f"{key} names one thing twice")
    return value
