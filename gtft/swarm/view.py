"""The one view of a swarm: the member list, with what is known of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gtft.swarm.document import read_members
from gtft.swarm.keys import IDENTITY, read_identity
from gtft.swarm.place import MEMBERS, PROGRESS, identity_folder, read_seat

_NOTHING: dict[str, Any] = {
    "round": 0, "rounds": 0, "samples": 0, "bytes_sent": 0, "failures": 0, "retries": 0, "pulls": 0,
    "lineage": "", "adapter": "", "final": "", "left": False, "seen": 0,
}  # fmt: skip


def view_swarm(
    workspace: Path,
    folder: Path,
    records: Mapping[str, Any],
    here: Mapping[str, int] | None,
    now: float,
) -> dict[str, Any]:
    """``records``: verified ones that the swarm gave just now; ``here``: who is up, None when it was not
    reached. The newest of them and of this run's own file counts."""
    members = read_members(folder / MEMBERS, swarm=folder.name)
    own = read_identity(identity_folder(workspace) / IDENTITY).peer_id
    seat = read_seat(folder)
    known = _read_progress(folder)
    rows = []
    for m in members.members:
        found = max(
            (r for r in (known.get(m.peer_id), records.get(m.peer_id)) if r is not None),
            key=lambda r: int(r.get("seq", 0)),
            default={},
        )
        facts = {k: found.get(k, v) for k, v in _NOTHING.items()}
        if here and m.peer_id in here:
            facts["round"] = max(int(facts["round"]), here[m.peer_id])
        rows.append(
            {
                "name": m.name,
                "peer_id": m.peer_id,
                "us": m.peer_id == own,
                "creator": m.peer_id == members.creator,
                "state": _judge(facts, None if here is None else m.peer_id in here),
                **facts,
            }
        )
    return {
        "swarm": members.swarm,
        "serial": members.serial,
        "run": seat.run if seat is not None else None,
        "ends": members.expires,
        "ended": now >= members.expires,
        "base": members.base,
        "recipe": members.recipe,
        "members": rows,
    }


def _judge(facts: Mapping[str, Any], up: bool | None) -> str:
    if facts["final"]:
        return "finished"
    if up:
        return "training"
    if facts["left"]:
        return "left"
    if up is None:
        return "not known" if not facts["seen"] else "seen"
    return "away"


def _read_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by peer, from the file that our own worker writes."""
    try:
        held = json.loads((folder / PROGRESS).read_bytes())
        own = {**held["own"], "seen": held["at"]}
        return {own["peer_id"]: own, **held["others"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
