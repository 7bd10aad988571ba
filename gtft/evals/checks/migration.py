"""Old bead lines in today's shape (what ``bd export`` of 1.0.5 writes and ``bd import`` reads), and the check."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gtft.evals.answer import Answer, BadAnswer, parse_object

# Keys of older exports that today's shape does not have.
GONE = (
    "content_hash", "source_repo", "crystallizes", "quality_score", "agent_state", "role_type", "role_bead", "hook_bead",
    "last_activity", "rig", "compacted_at_commit", "timeout_ns", "dependency_count", "dependent_count", "comment_count",
)  # fmt: skip
ALWAYS = ("id", "title", "status", "priority", "issue_type", "created_at", "updated_at")
_FLAGS = ("ephemeral", "pinned", "is_template", "no_history")
_EMPTY: tuple[Any, ...] = ("", None, 0, False, [], {})
_LINK_KEYS = ("issue_id", "depends_on_id", "type", "created_at", "created_by")


def migrate_bead(
    row: Mapping[str, Any],
    labels: Sequence[Mapping[str, Any]] = (),
    links: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """``row`` in today's shape. ``labels``, ``links``: rows of a backup's other tables; those of other beads are
    left out. Raises ValueError on a time that is none, KeyError on a row without the keys that every bead has."""
    found = {k: v for k, v in row.items() if k not in GONE and k != "wisp"}
    if row.get("wisp"):
        found["ephemeral"] = True
    found |= {k: bool(found[k]) for k in _FLAGS if k in found}
    if isinstance(found.get("metadata"), str):
        found["metadata"] = json.loads(found["metadata"] or "{}")
    if found["status"] == "completed":
        found["status"] = "closed"
    own = [*found.get("labels", ()), *(x["label"] for x in labels if x["issue_id"] == row["id"])]
    found["labels"] = sorted(set(own))
    joined = [
        *found.get("dependencies", ()),
        *(x for x in links if x["issue_id"] == row["id"]),
    ]
    found["dependencies"] = [
        {k: _write_time(x[k]) if k == "created_at" else x[k] for k in _LINK_KEYS} for x in joined
    ]
    for key, value in found.items():
        if key.endswith(("_at", "_until")) and value:
            found[key] = _write_time(value)
    found = {k: v for k, v in found.items() if k in ALWAYS or v not in _EMPTY}
    return {"_type": "issue", **found}


def check_migration(answer: Answer, args: Mapping[str, Any]) -> None:
    """The whole answer is one JSON object with exactly the fields of ``expect``; labels and dependencies in any
    order, but none twice."""
    doc = parse_object(answer)
    expected: Mapping[str, Any] = args["expect"]
    if lost := sorted(set(expected) - set(doc)):
        raise BadAnswer(f"lost: {', '.join(lost)[:120]}")
    if added := sorted(set(doc) - set(expected)):
        raise BadAnswer(f"too much: {', '.join(added)[:120]}")
    for key, value in expected.items():
        if _settle(doc[key]) != _settle(value):
            raise BadAnswer(f"{key} {str(doc[key])[:60]}, not {str(value)[:60]}")


def _settle(value: Any) -> str:
    """As text, so that true is not 1 and 2 is not 2.0; lists in sorted order."""
    if isinstance(value, list):
        return "\n".join(sorted(json.dumps(x, sort_keys=True) for x in value))
    return json.dumps(value, sort_keys=True)


def _write_time(text: str) -> str:
    """UTC, whole seconds, as bd writes it."""
    moment = datetime.fromisoformat(text).astimezone(UTC).replace(microsecond=0)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
