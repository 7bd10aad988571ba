"""How the made-up town is written down: Claude Code JSONL, bead exports, registry, routes.

The transcripts carry what real ones carry: responses split over records, glued lines, a copied
session, a damaged line, unknown record types, a sub-agent, and values that a harvest must redact. All of them
are made up; the secret-like ones have no vendor's format.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from make_town import Session, Town

VERSION = "2.1.42"
BEADS = 60
CASES = 360


def write_registry(out: Path, town: Town) -> None:
    """mayor/town.json, mayor/rigs.json and .beads/routes.jsonl."""
    (out / "mayor").mkdir(parents=True)
    (out / ".beads").mkdir()
    made = "2026-02-20T08:00:00Z"
    rigs = {
        rig: {
            "git_url": f"https://git.example.org/{rig}.git",
            "added_at": made,
            "beads": {"prefix": town.p["rigs"][rig]["prefix"]},
        }
        for rig in town.rigs
    }
    head = {"type": "town", "version": 2, "name": "example", "owner": "owner@example.org"}
    _write_json(
        out / "mayor/town.json", {**head, "public_name": "Example Town", "created_at": made}
    )
    _write_json(out / "mayor/rigs.json", {"version": 1, "rigs": rigs})
    routes = [{"prefix": "hq-", "path": "."}]
    routes += [
        {"prefix": f"{town.p['rigs'][rig]['prefix']}-", "path": f"{rig}/mayor/rig"} for rig in rigs
    ]
    _write_lines(out / ".beads/routes.jsonl", [json.dumps(r) for r in routes])


def write_beads(folder: Path, town: Town) -> int:
    """One export per rig: an epic, its children, loose beads, and noise (wisps, digests)."""
    folder.mkdir(parents=True)
    total = 0
    for rig in town.rigs:
        rows = _rig_beads(town, rig)
        total += len(rows)
        _write_lines(folder / f"{rig}.jsonl", [json.dumps(r, ensure_ascii=False) for r in rows])
    return total


def _rig_beads(town: Town, rig: str) -> list[dict[str, Any]]:
    r, words = town.rng, town.p["beads"]
    things = town.p["rigs"][rig]["things"]
    epic = _bead(town, rig, town.bead_id(rig), f"{rig.capitalize()} spring release", "epic", 1)
    epic["description"] = f"Everything that {rig} ships in spring. Closed when all children are."
    rows = [epic]
    for i in range(BEADS // len(town.rigs) - 4):
        kind = r.choice(["bug", "bug", "feature", "task"])
        thing, odd, new = r.choice(things), r.choice(words["odd"]), r.choice(words["new"])
        what = r.choice(words[kind]).format(thing=thing, odd=odd, new=new)
        child = i < 5
        bead_id = f"{epic['id']}.{i + 1}" if child else town.bead_id(rig)
        priority = r.choice([0, 1, 2, 2, 2, 3])
        row = _bead(town, rig, bead_id, what[0].upper() + what[1:], kind, priority)
        row["description"] = _describe(town, rig, row, what, thing, priority)
        if child:
            row["dependencies"] = [_edge(row, epic["id"], "parent-child")]
        elif r.random() < 0.35:
            row["dependencies"] = [_edge(row, r.choice(rows)["id"], "blocks")]
        if r.random() < 0.75:
            row |= _closed(row, f"{row['title']}: done in {r.getrandbits(28):07x}, tests green")
        rows.append(row)
    prefix = town.p["rigs"][rig]["prefix"]
    wisp = _bead(town, rig, f"{prefix}-wisp-{r.getrandbits(20):05x}", "Patrol round", "task", 2)
    digest = _bead(town, rig, town.bead_id(rig), "Digest: mol-witness-round 2026-03-04", "task", 2)
    witness = _bead(town, rig, f"{prefix}-{rig}-witness", f"witness of {rig}", "task", 2)
    witness["labels"] = ["gt:agent"]
    rows += [
        {**wisp, "ephemeral": True},
        digest | {"description": "12 rounds, 3 nudges"} | _closed(digest, "Squashed from 12 wisps"),
        witness,
    ]
    return rows


def _describe(
    town: Town, rig: str, row: dict[str, Any], what: str, thing: str, priority: int
) -> str:
    """A few sentences in the town's own words, for a bead that is worth learning from."""
    from make_town import Session

    r = town.rng
    urgency = r.choice(town.p["beads"]["urgency"][priority])
    s = Session("bead", "polecat", rig, r.choice(town.p["polecats"]), row["id"], town.clock)
    for _ in range(50):
        noise = [town.fill(t, s) for t in r.sample(town.p["noise"]["lines"], 2)]
        text = f"Seen while {s.name} worked on {thing}: {what}. {urgency}\n\n" + "\n".join(noise)
        if town.memory.accepts(text):
            return text
    raise SystemExit("no new bead text: town_phrases.toml has too few words")


def _bead(
    town: Town, rig: str, bead_id: str, title: str, kind: str, priority: int
) -> dict[str, Any]:
    town.clock += timedelta(minutes=town.rng.randint(5, 60))
    at = _stamp(town.clock)
    return {
        "_type": "issue",
        "id": bead_id,
        "title": title,
        "description": "",
        "status": "open",
        "priority": priority,
        "issue_type": kind,
        "owner": "owner@example.org",
        "created_at": at,
        "created_by": f"{rig}/witness",
        "updated_at": at,
        "labels": [f"rig:{rig}"],
    }


def _closed(row: dict[str, Any], reason: str) -> dict[str, Any]:
    return {"status": "closed", "closed_at": row["updated_at"], "close_reason": reason}


def _edge(row: dict[str, Any], target: str, kind: str) -> dict[str, Any]:
    return {
        "issue_id": row["id"],
        "depends_on_id": target,
        "type": kind,
        "created_at": row["created_at"],
        "created_by": row["created_by"],
        "metadata": "{}",
    }


def write_casebooks(folder: Path, town: Town) -> int:
    """The casebook of each rig, Markdown: what was seen, what was decided, by which rule."""
    for rig in town.rigs:
        parts = [f"# Casebook of {rig}, winter"]
        parts += [town.case(rig) for _ in range(CASES)]
        _write_lines(folder / f"casebook-{rig}.md", ["\n\n".join(parts)])
    return CASES * len(town.rigs)


def write_transcripts(folder: Path, town: Town, sessions: list[Session]) -> int:
    """One JSONL file per session, in Claude Code's folders; returns the number of files."""
    leaks = _leaks(town)
    files = 0
    for i, s in enumerate(sessions):
        if s.kind == "witness" and leaks and i % 7 == 0:
            head, _, rest = s.turns[0].text.partition("\n")
            s.turns[0].text = f"{head}\n- {leaks.pop()}\n{rest}"
        session_id, records = _records(town, s)
        lines = [json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in records]
        where = folder / s.cwd.replace("/", "-")
        if i % 60 == 11:
            lines[0:2] = [lines[0] + lines[1]]
        if i == 40:
            lines.insert(1, lines[0][: len(lines[0]) // 2])
        if i % 50 == 3:
            lines.insert(
                0, json.dumps({"type": "tide-marker", "sessionId": session_id, "level": i})
            )
        _write_lines(where / f"{session_id}.jsonl", lines)
        files += 1
        if i == 77:
            _write_lines(where / f"{_uuid(town)}.jsonl", lines)
            files += 1
        if i in (20, 120):
            agent = f"{town.rng.getrandbits(28):07x}"
            side = _sidechain(town, s, session_id, agent)
            _write_lines(where / session_id / "subagents" / f"agent-{agent}.jsonl", side)
            files += 1
    return files


def _records(town: Town, s: Session) -> tuple[str, list[dict[str, Any]]]:
    session_id = _uuid(town)
    at, parent = s.at, None
    records: list[dict[str, Any]] = []

    def add(kind: str, message: dict[str, Any]) -> None:
        nonlocal at, parent
        at += timedelta(seconds=town.rng.randint(1, 9))
        record = {"parentUuid": parent, "isSidechain": False, "userType": "external", "cwd": s.cwd,
                  "sessionId": session_id, "version": VERSION, "gitBranch": "main",
                  "type": kind, "message": message, "uuid": _uuid(town),
                  "timestamp": _stamp(at)}  # fmt: skip
        parent = record["uuid"]
        records.append(record)

    def respond(message_id: str, block: dict[str, Any]) -> None:
        add("assistant", {"id": message_id, "type": "message", "role": "assistant",
                          "model": "example-model", "content": [block], "stop_reason": None})  # fmt: skip

    for turn in s.turns:
        if turn.role == "user":
            add("user", {"role": "user", "content": turn.text})
            continue
        message_id = f"msg_{town.rng.getrandbits(72):018x}"
        if turn.text:
            respond(message_id, {"type": "text", "text": turn.text})
        if turn.command:
            if town.rng.random() < 0.3:
                respond(
                    message_id, {"type": "thinking", "thinking": "Evidence first.", "signature": ""}
                )
            call = f"toolu_{town.rng.getrandbits(72):018x}"
            respond(message_id, {"type": "tool_use", "id": call, "name": "Bash",
                                 "input": {"command": turn.command}})  # fmt: skip
            result = {"type": "tool_result", "tool_use_id": call, "content": turn.result}
            add("user", {"role": "user", "content": [result]})
            records[-1]["toolUseResult"] = {"stdout": turn.result[:40], "stderr": ""}
    return session_id, records


def _sidechain(town: Town, s: Session, session_id: str, agent: str) -> list[str]:
    first, second = _uuid(town), _uuid(town)
    common = {"isSidechain": True, "agentId": agent, "cwd": s.cwd, "sessionId": session_id,
              "version": VERSION, "timestamp": _stamp(s.at)}  # fmt: skip
    ask = {"role": "user", "content": f"Count the open beads of {s.rig} at {s.at:%H:%M:%S}."}
    say = {"id": f"msg_{town.rng.getrandbits(72):018x}", "type": "message", "role": "assistant",
           "model": "example-model", "stop_reason": None,
           "content": [{"type": "text", "text": f"{town.rng.randint(3, 40)} open."}]}  # fmt: skip
    records = [
        {"parentUuid": None, **common, "type": "user", "message": ask, "uuid": first},
        {"parentUuid": first, **common, "type": "assistant", "message": say, "uuid": second},
    ]
    return [json.dumps(r, separators=(",", ":")) for r in records]


def _leaks(town: Town) -> list[str]:
    """Made-up values that a harvest must replace: found by what stands around them."""
    r = town.rng
    letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

    def value(n: int) -> str:
        return "".join(r.choices(letters, k=n))

    return [
        f"env: export DEPLOY_TOKEN={value(32)}",
        f"log: password={value(18)}",
        f'config: api_key = "{value(36)}"',
        "mail from quill.marsh@example.org, read",
        "path /home/quill/town/notes.txt read",
        f"remote https://quill:{value(16)}@git.example.org/gizmo.git",
        "cc rowan.fell@example.org on the digest",
        "open /home/rowan/.config/town.toml",
    ]


def _uuid(town: Town) -> str:
    from make_town import new_uuid

    return new_uuid(town.rng)


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
