"""Migration: a bead as older exports wrote it → the same bead in today's shape, nothing lost, nothing added."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from gtft.evals.checks.migration import migrate_bead
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import (
    POLECATS,
    Rig,
    draw_fault,
    draw_id,
    draw_ids,
    draw_rigs,
    draw_wish,
)

CAPABILITY = "migration"
_START = datetime(2025, 8, 1, tzinfo=UTC)
_NOTES = (
    "Tried it on a copy first.",
    "The old page stays until autumn.",
    "See the drawing on the wall.",
    "Only on the second floor.",
)
_REASONS = (
    "Merged after two reviews, all checks pass",
    "Replaced the parser and measured it",
    "The setting is read at start now",
)
_RULES = (
    'Today\'s shape: one JSON object, "_type": "issue" and the old fields under their old names. Times: UTC, whole '
    "seconds (fractions cut off), Z at the end. Always there: id, title, status, priority, issue_type, created_at, "
    'updated_at; any other field only when it is not "", null, 0, false, [], {} or "{}".'
)
_FORM = "Answer with the JSON object and nothing else."

Row = dict[str, Any]
_Edit = Callable[[dict[str, Any]], dict[str, Any]]


def make(dice: random.Random) -> Iterator[Made]:
    for n in range(12):
        yield _make_first(dice, n)
    for n in range(12):
        yield _make_hashed(dice, n)
    for n in range(12):
        yield _make_wisp(dice, n)
    for n in range(12):
        yield _make_backup(dice, n)


def _draw_time(dice: random.Random, days: int, offset: int | None) -> str:
    """A moment with fractions, written with an offset in hours; None writes Z without fractions."""
    moment = _START + timedelta(seconds=dice.randrange(days * 86_400))
    if offset is None:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    local = moment.astimezone(timezone(timedelta(hours=offset)))
    return f"{local:%Y-%m-%dT%H:%M:%S}.{dice.randrange(10**6):06d}{offset:+03d}:00"


def _draw_core(dice: random.Random, rig: Rig, times: Sequence[str]) -> Row:
    kind = dice.choice(("bug", "feature", "task"))
    return {
        "id": draw_id(dice, rig.prefix),
        "title": draw_fault(dice) if kind == "bug" else draw_wish(dice),
        "status": dice.choice(("open", "in_progress")),
        "priority": dice.randrange(5),
        "issue_type": kind,
        "created_at": times[0],
        "updated_at": times[1],
    }


def _close(dice: random.Random, row: Row, *, reason: bool) -> None:
    row["status"] = "closed"
    row["closed_at"] = row["updated_at"]
    if reason:
        row["close_reason"] = dice.choice(_REASONS)


def _draw_pair(dice: random.Random, days: int, offset: int | None) -> list[str]:
    """Two moments in order, within ``days`` of August 2025 on."""
    return sorted(_draw_time(dice, days, offset) for _ in range(2))


def _item(
    template: str,
    difficulty: str,
    prompt: str,
    new: Row,
    edits: Sequence[_Edit],
) -> Made:
    right = json.dumps(new)
    wrong = dict.fromkeys(json.dumps(edit(dict(new))) for edit in edits)
    wrong.pop(right, None)
    return draft(
        CAPABILITY,
        "crew",
        template,
        difficulty,
        prompt,
        CheckSpec("bead_migration", {"expect": new}),
        right,
        (*wrong, f"Here it is:\n{right}"),
    )


def _without(key: str) -> _Edit:
    return lambda row: {k: v for k, v in row.items() if k != key}


def _with(**more: Any) -> _Edit:
    return lambda row: {**row, **more}


def _make_first(dice: random.Random, n: int) -> Made:
    """Autumn 2025, the first shape: empty texts, local times with fractions."""
    (rig,) = draw_rigs(dice, 1)
    offset = (-8, -7, 1, 2, 9)[n % 5]
    row = _draw_core(dice, rig, _draw_pair(dice, 60, offset))
    row |= {
        "description": dice.choice(("", f"Reported by {dice.choice(POLECATS)}.")),
        "design": "",
        "acceptance_criteria": dice.choice(("- [ ] a test shows it", "")),
        "notes": dice.choice(("", dice.choice(_NOTES))),
    }
    if n % 2:
        _close(dice, row, reason=False)
    prompt = f"A bead from an export of October 2025:\n{json.dumps(row)}\n{_RULES}\n{_FORM}"
    edits = [
        _with(created_at=row["created_at"]),
        _with(created_at=row["created_at"][:19] + "Z"),
        _with(design=""),
        _without("_type"),
        _with(priority=str(row["priority"])),
    ]
    return _item("migration-first", "easy", prompt, migrate_bead(row), edits)


def _make_hashed(dice: random.Random, n: int) -> Made:
    """Late 2025: a content hash and a repository in each line, links with local times."""
    (rig,) = draw_rigs(dice, 1, dashed=n % 2)
    times = _draw_pair(dice, 90, (-8, 1, 5)[n % 3])
    row = _draw_core(dice, rig, times)
    row = {"id": row.pop("id"), "content_hash": f"{dice.getrandbits(160):040x}", **row}
    others = draw_ids(dice, rig.prefix, 2, 4)[: 1 + n % 2]
    row |= {
        "source_repo": ".",
        "labels": [f"rig:{rig.name}", *dice.sample(["api", "docs", "ui", "wave:3"], n % 3)],
        "dependencies": [
            {
                "issue_id": row["id"],
                "depends_on_id": other,
                "type": dice.choice(("blocks", "discovered-from", "parent-child")),
                "created_at": times[0],
                "created_by": dice.choice(POLECATS),
            }
            for other in others
        ],
    }
    if n % 3 == 1:
        row["notes"] = dice.choice(_NOTES)
    prompt = (
        f"A bead from an export of November 2025:\n{json.dumps(row)}\n{_RULES} content_hash and source_repo are gone. "
        f"The times inside dependencies follow the same rule.\n{_FORM}"
    )
    new = migrate_bead(row)
    turned = [
        {**d, "issue_id": d["depends_on_id"], "depends_on_id": d["issue_id"]}
        for d in new["dependencies"]
    ]
    edits = [
        _with(content_hash=row["content_hash"]),
        _without("labels"),
        _with(dependencies=row["dependencies"]),
        _with(dependencies=turned),
        _with(dependencies=new["dependencies"][1:]),
    ]
    return _item("migration-hashed", "medium", prompt, new, edits)


def _make_wisp(dice: random.Random, n: int) -> Made:
    """Winter 2026: the flag wisp, a status that is none, counts that are computed."""
    (rig,) = draw_rigs(dice, 1)
    row = _draw_core(dice, rig, _draw_pair(dice, 150, None))
    person = f"{rig.name}/polecats/{dice.choice(POLECATS)}"
    row |= {"assignee": person, "created_by": dice.choice(("mayor", person))}
    wisp = n % 2 == 0
    row["wisp"] = wisp
    if n % 3 != 2:
        _close(dice, row, reason=True)
        row["status"] = "completed"
    row |= {
        "pinned": False,
        "metadata": json.dumps({"attempt": dice.randint(1, 5)}) if n % 4 < 2 else "{}",
        "estimated_minutes": dice.choice((15, 30, 90)),
        "dependency_count": 0,
        "dependent_count": dice.randint(0, 3),
        "comment_count": 0,
    }
    prompt = (
        f"A bead from an export of January 2026:\n{json.dumps(row)}\n{_RULES} The flag wisp is called ephemeral now. The "
        "status completed is closed now. metadata is an object, not text. The three counts are not written any "
        f"more.\n{_FORM}"
    )
    new = migrate_bead(row)
    edits = [
        _with(wisp=wisp),
        _with(ephemeral=not wisp),
        _with(status="completed" if new["status"] == "closed" else "closed"),
        _with(metadata=row["metadata"]),
        _with(dependency_count=0),
        _without("assignee"),
    ]
    return _item("migration-wisp", "medium", prompt, new, edits)


def _make_backup(dice: random.Random, n: int) -> Made:
    """A row of a backup's table: every column there, flags as numbers; labels and links in files of their own."""
    (rig,) = draw_rigs(dice, 1, dashed=n % 2)
    core = _draw_core(dice, rig, _draw_pair(dice, 200, None))
    if n % 3 == 0:
        _close(dice, core, reason=True)
    columns: Row = {
        "assignee": None,
        "closed_at": None,
        "close_reason": "",
        "created_by": f"{rig.name}/crew/{dice.choice(POLECATS)}",
        "crystallizes": 0,
        "description": dice.choice(("", f"Asked for by {dice.choice(POLECATS)}.")),
        "ephemeral": n % 4 // 3,
        "estimated_minutes": dice.choice((None, 20, 45)),
        "metadata": dice.choice(("{}", '{"tries": 2}')),
        "pinned": 0,
        "quality_score": None,
    }
    row = dict(sorted({**columns, **core}.items()))
    neighbour, needed, far = draw_ids(dice, rig.prefix, 3, 4)
    labels = [
        {"issue_id": row["id"], "label": f"rig:{rig.name}"},
        {"issue_id": neighbour, "label": "docs"},
        {"issue_id": row["id"], "label": dice.choice(("ui", "api", "wave:2"))},
    ]
    links = [
        _link(dice, row["id"], needed, row["created_at"]),
        _link(dice, neighbour, far, row["created_at"]),
    ]
    dice.shuffle(labels)
    dice.shuffle(links)
    prompt = (
        f"From a backup. issues.jsonl:\n{json.dumps(row)}\nlabels.jsonl:\n{_lines(labels)}\ndependencies.jsonl:\n{_lines(links)}\n"
        f"{_RULES} labels is a list of texts, dependencies a list of the rows of this bead as they are; rows of other "
        "beads stay out. crystallizes and quality_score are gone; flags are true, not 1; metadata is an "
        f"object.\n{_FORM}"
    )
    new = migrate_bead(row, labels, links)
    edits = [
        _with(labels=[x["label"] for x in labels]),
        _without("dependencies"),
        _with(dependencies=links),
        _with(pinned=False),
        _with(metadata=row["metadata"]),
        _with(ephemeral=row["ephemeral"]),
    ]
    return _item("migration-backup", "hard", prompt, new, edits[:5] if n % 2 else edits[1:])


def _link(dice: random.Random, one: str, other: str, time: str) -> Mapping[str, str]:
    return {
        "issue_id": one,
        "depends_on_id": other,
        "type": dice.choice(("blocks", "tracks", "related")),
        "created_at": time,
        "created_by": dice.choice(POLECATS),
    }


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(json.dumps(r) for r in rows)
