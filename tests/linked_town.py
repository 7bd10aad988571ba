"""A made town of 200 sessions whose truth is known: transcripts as real files, and the town's records.

Everything that makes linking hard is in it, in fixed shares: both spellings of addresses, start events that
have expired or carry a process id, resumed and forked sessions, sub-agents, a wrong folder, two sessions of
one agent at once, beads given to another, people's own sessions outside the town, sessions that say nothing.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from gtft.corpus.example import Conversation, Labels
from gtft.corpus.files import InputFile
from gtft.corpus.linking.link import complete
from gtft.corpus.linking.linker import Linker
from gtft.corpus.linking.town_record import RecordPaths, find_records, read_records
from gtft.corpus.sources import FORMATS
from gtft.corpus.tally import Tally
from source_case import read_settled

RIGS = {"gizmo": "gz", "my_rig": "mr"}
FIELDS = ("role", "rig", "actor", "bead")
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
ZONE = timedelta(hours=-7)  # beacons are written in the town's local time
DAYS = 24
_OUTSIDE = ("/home/ann/src/website", "/srv/film/crew/list", "/home/ann/notes", "/opt/shop/api")


@dataclass
class Session:
    """The truth of one session, and how its file will look."""

    id: str
    kind: str
    truth: Labels
    start: datetime
    end: datetime
    format: str = "claude-code"
    cwd: str | None = None
    beacon: str = ""
    prime: str = ""
    branch: str = "main"
    claim: str = ""
    command: str = "bd ready"
    shown: str = ""
    copies: Session | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class LinkedTown:
    folder: Path
    sessions: list[Session]
    files: dict[str, list[InputFile]]
    paths: RecordPaths


@dataclass
class Score:
    """Of one field: how often it was given, how often rightly, and how many there are to find."""

    given: int = 0
    right: int = 0
    known: int = 0

    def add(self, other: Score) -> None:
        self.given += other.given
        self.right += other.right
        self.known += other.known

    @property
    def precision(self) -> float:
        return self.right / self.given if self.given else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.known if self.known else 1.0


@dataclass
class Result:
    fields: dict[str, Score]
    rungs: dict[str, Score]
    bead_rungs: dict[str, Score]
    tally: Tally
    wrong: list[str]


def measure(town: LinkedTown) -> Result:
    """Read every file with its own reader, link it, and compare with the truth."""
    talks: list[Conversation] = []
    for kind, files in sorted(town.files.items()):
        for talk in read_settled(FORMATS[kind].read, files, Tally()):
            talks.append(complete(talk))
    truth = {s.id: s for s in town.sessions}
    tally = Tally()
    linker = Linker(read_records(town.paths), (t.evidence for t in talks), tally)
    result = Result({f: Score() for f in FIELDS}, {}, {}, tally, [])
    met = set()
    for talk in talks:
        session = truth[(talk.evidence.session or "").partition("#")[0]]
        met.add(session.id)
        found = linker.decide(talk.evidence)
        _, bead_rung = linker.find_bead(talk.evidence, found) if found.role else (None, "")
        for name in FIELDS:
            given, right = getattr(found, name), getattr(session.truth, name)
            scores = [result.fields[name]]
            if name == "actor":
                scores.append(result.rungs.setdefault(found.rung, Score()))
            if name == "bead" and given:
                scores.append(result.bead_rungs.setdefault(bead_rung, Score()))
            for score in scores:
                score.given += given is not None
                score.right += given is not None and given == right
                score.known += right is not None
            if given is not None and given != right:
                result.wrong.append(f"{session.kind}: {name} {given}, is {right}, by {found.rung}")
            elif given is None and right is not None:
                result.wrong.append(f"{session.kind}: {name} not found, is {right}")
    assert len(met) == len(truth), f"{len(truth) - len(met)} sessions were not read"
    return result


def make_linked_town(folder: Path, seed: int = 1, sessions: int = 200) -> LinkedTown:
    """The same seed makes the same bytes."""
    maker = _Maker(folder, random.Random(seed))
    return maker.make(sessions)


class _Maker:
    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.town = "/srv/gt"
        self.sessions: list[Session] = []
        self.events: list[dict[str, Any]] = []
        self.costs: list[dict[str, Any]] = []
        self.hooks: list[dict[str, Any]] = []
        self.beads: dict[str, dict[str, Any]] = {}
        self.free: dict[str, datetime] = {}
        self.answers = 0

    def make(self, count: int) -> LinkedTown:
        inside = count * 9 // 10
        for n in range(inside):
            when = NOW - timedelta(days=DAYS) * (1 - n / inside)
            if n % 16 == 15:
                self._twice(when)
            elif n % 16 in (7, 11) and self.sessions:
                self._again(when, fork=n % 16 == 11)
            else:
                self._plain(when, n)
            if len(self.sessions) >= inside:
                break
        while len(self.sessions) < count - 4:
            self._outsider()
        while len(self.sessions) < count:
            self._silent()
        return self._write()

    # --- sessions ---

    def _plain(self, when: datetime, n: int) -> Session:
        rng = self.rng
        role = rng.choices(
            ["polecat", "crew", "witness", "refinery", "mayor", "deacon", "boot", "dog"],
            [10, 4, 2, 2, 3, 1, 1, 1],
        )[0]
        return self._start(self._pick(role), when)

    def _pick(self, role: str) -> Labels:
        rig = self.rng.choice(sorted(RIGS))
        if role in ("mayor", "deacon", "boot"):
            return Labels(role, None, role)
        if role == "dog":
            return Labels(role, None, "deacon/dogs/rex")
        if role in ("witness", "refinery"):
            return Labels(role, rig, f"{rig}/{role}")
        folder, names = (
            ("polecats", ["nux", "toast", "slit"])
            if role == "polecat"
            else ("crew", ["ann", "bo-b"])
        )
        return Labels(role, rig, f"{rig}/{folder}/{self.rng.choice(names)}")

    def _start(self, who: Labels, when: datetime, *, beside: bool = False) -> Session:
        rng = self.rng
        actor = who.actor or ""
        start = when if beside else max(when, self.free.get(actor, when) + timedelta(minutes=3))
        end = start + timedelta(minutes=rng.randint(6, 50))
        self.free[actor] = max(end, self.free.get(actor, end))
        s = Session(str(UUID(int=rng.getrandbits(128), version=4)), who.role or "", who, start, end)
        s.cwd = self._home(who)
        if who.role in ("polecat", "dog") or (who.role == "crew" and rng.random() < 0.6):
            self._assign(s)
        s.beacon = self._write_beacon(s) if rng.random() < 0.88 else ""
        said = rng.random()
        if said < 0.06 and s.beacon:
            s.kind += ", wrong folder"
            s.cwd = (
                f"{self.town}/gizmo/crew/ann" if actor != "gizmo/crew/ann" else f"{self.town}/mayor"
            )
        elif said < 0.11:
            s.kind += ", no folder"
            s.cwd = None
        s.format = rng.choices(["claude-code", "codex", "pi", "gemini"], [16, 2, 1, 1])[0]
        if s.truth.bead and rng.random() < 0.6:
            s.command = f"gt hook && bd show {s.truth.bead}"
        elif self.beads and rng.random() < 0.3:
            # Others, and workers too, look at beads that are not theirs.
            s.command = f"bd show {rng.choice(sorted(self.beads))} --json"
        if s.format == "claude-code" and rng.random() < 0.3:
            # Who looks for an earlier session sees the lines of others.
            other = rng.choice(self.sessions).id if self.sessions else s.id
            s.shown = f"[GAS TOWN] role:deacon pid:3 session:{other}\n"
        if s.format == "gemini":
            s.cwd, s.branch = None, ""
            s.beacon = s.beacon or self._write_beacon(s)
        self._record(s, by_hook=NOW - start < timedelta(days=2))
        self.sessions.append(s)
        return s

    def _twice(self, when: datetime) -> None:
        """Two sessions of one agent at one time."""
        first = self._start(self._pick("crew"), when)
        second = self._start(replace(first.truth, bead=None), first.start, beside=True)
        first.kind = second.kind = "crew, two at once"

    def _again(self, when: datetime, *, fork: bool) -> None:
        """A session that starts with a copy of another: resumed by the same agent, or forked by a crew member."""
        olds = [s for s in self.sessions if s.format == "claude-code" and not s.copies and s.cwd]
        old = self.rng.choice(olds[-20:])
        who = self._pick("crew") if fork else replace(old.truth, bead=None)
        s = self._start(who, when)
        s.kind = "forked" if fork else "resumed"
        s.format, s.copies, s.beacon, s.cwd = "claude-code", old, "", self._home(who)
        if not s.prime:
            s.prime = f"[GAS TOWN] role:{who.actor} pid:77 session:{s.id}" if fork else ""

    def _outsider(self) -> None:
        """A person's own session, which must not be taken for an agent's."""
        rng = self.rng
        start = NOW - timedelta(hours=rng.randint(1, DAYS * 24))
        s = Session(
            str(UUID(int=rng.getrandbits(128), version=4)), "outside", Labels(), start,
            start + timedelta(minutes=20),
        )  # fmt: skip
        s.cwd = rng.choice(_OUTSIDE)
        if rng.random() < 0.2:
            s.prime = f"why does this print\n> [GAS TOWN] role:mayor pid:1 session:{'x' * 8}"
        s.format = rng.choice(["claude-code", "claude-code", "codex"])
        self.sessions.append(s)

    def _silent(self) -> None:
        """An agent's session of which nothing tells whose it was."""
        who = self._pick("witness")
        start = NOW - timedelta(days=self.rng.randint(5, DAYS))
        end = start + timedelta(minutes=2)
        id_ = str(UUID(int=self.rng.getrandbits(128), version=4))
        self.sessions.append(Session(id_, "says nothing", who, start, end, branch=""))

    def _home(self, who: Labels) -> str:
        actor = who.actor or ""
        if who.role == "refinery":
            return f"{self.town}/{actor}/rig"
        if who.role == "boot":
            return f"{self.town}/deacon/dogs/boot"
        return f"{self.town}/{actor}" + (f"/{who.rig}" if who.role == "polecat" else "")

    def _write_beacon(self, s: Session) -> str:
        who, bead = s.truth, s.truth.bead
        to = who.actor or ""
        if self.rng.random() < 0.6:
            name = to.rpartition("/")[2]
            to = who.role or ""
            to += f" {name}" if who.role in ("polecat", "crew", "dog") else ""
            to += f" (rig: {who.rig})" if who.rig else ""
        topic = f"assigned:{bead}" if bead and self.rng.random() < 0.7 else "patrol"
        at = (s.start + ZONE).strftime("%Y-%m-%dT%H:%M")
        return f"[GAS TOWN] {to} <- mayor • {at} • {topic}\n\nRun `gt prime --hook` and begin work."

    # --- records ---

    def _assign(self, s: Session) -> None:
        """A bead for the session: slung just before; sometimes it was somebody else's first."""
        rng, who = self.rng, s.truth
        prefix = RIGS[who.rig] if who.rig else "hq"
        bead = f"{prefix}-{rng.randrange(36**4):05x}"
        s.truth = replace(who, bead=bead)
        before = s.start - timedelta(minutes=1)
        row = {"id": bead, "title": f"Work {bead}", "status": "closed", "issue_type": "task",
               "created_at": iso(before), "updated_at": iso(s.end), "closed_at": iso(s.end),
               "assignee": who.actor, "owner": "ann@example.org", "close_reason": "Done"}  # fmt: skip
        self.beads[bead] = row
        self._event("sling", "mayor", before, bead=bead, target=who.actor)
        if rng.random() < 0.3:
            row["closed_by_session"] = s.id
        elif rng.random() < 0.2:
            # The refinery closes what it merged.
            row["closed_by_session"] = str(UUID(int=rng.getrandbits(128), version=4))
        if who.role == "crew" and rng.random() < 0.6:
            s.claim = bead
        if who.role == "polecat":
            name = (who.actor or "").rpartition("/")[2]
            s.branch = f"polecat/{name}/{bead}@mk1" if rng.random() < 0.6 else f"polecat/{name}-mk1"
        if rng.random() < 0.12:
            s.kind = f"{s.kind}, bead given to another later"
            later = s.end + timedelta(minutes=5)
            row["assignee"] = f"{who.rig or 'gizmo'}/polecats/furiosa"
            row.pop("closed_by_session", None)
            row["updated_at"] = row["closed_at"] = iso(later + timedelta(hours=1))
            self._event("unhook", who.actor or "", s.end, bead=bead)
            self._event("sling", "mayor", later, bead=bead, target=row["assignee"])
        else:
            self._event("done", who.actor or "", s.end, bead=bead, branch=s.branch)

    def _record(self, s: Session, *, by_hook: bool) -> None:
        rng, actor = self.rng, s.truth.actor or ""
        if by_hook:
            self.hooks.append({"at": iso(s.start), "session": s.id, "cwd": s.cwd, "role": actor,
                               "rig": s.truth.rig, "actor": actor, "bead": s.truth.bead})  # fmt: skip
        by_process = rng.random() < 0.25
        named = f"{actor}-{rng.randint(100, 9999)}" if by_process else s.id
        self._event("session_start", actor, s.start, session_id=named, role=actor, cwd=s.cwd or "")
        if rng.random() < 0.4:
            s.prime = f"[GAS TOWN] role:{actor} pid:{rng.randint(100, 999)} session:{named}"
        if s.format == "claude-code" and rng.random() < 0.5:
            s.shown += s.prime
            s.command = f"gt prime --hook && {s.command}" if s.prime else s.command
            s.prime = ""
        if rng.random() < 0.1:
            # gt fell back to an id that another agent had left in the folder.
            self._event("session_start", "deacon", s.start, session_id=s.id, role="deacon")
        for part in (0.3, 0.7, 1.0):
            at = s.start + (s.end - s.start) * part + timedelta(seconds=4)
            name = "" if s.truth.role in ("witness", "refinery") else actor.rpartition("/")[2]
            self.costs.append({"session_id": f"gz-{name}", "role": s.truth.role, "rig": s.truth.rig or "",
                               "worker": name, "cost_usd": 0.4, "ended_at": iso(at)})  # fmt: skip

    def _event(self, kind: str, actor: str, at: datetime, **payload: Any) -> None:
        keep = timedelta(days=3 if kind == "session_start" else 14)
        if NOW - at < keep:
            self.events.append({"ts": iso(at), "source": "gt", "type": kind, "actor": actor,
                                "payload": payload, "visibility": "feed"})  # fmt: skip

    # --- files ---

    def _write(self) -> LinkedTown:
        files: dict[str, list[InputFile]] = {}
        for s in self.sessions:
            # The slug says what it likes: it must never be asked.
            slug = self.rng.choice(["-srv-gt-mayor", "-srv-gt-gizmo-crew-ann", "-home-ann"])
            name = f"{s.format}/{slug}/{s.id}.jsonl"
            rows = getattr(self, f"_rows_{s.format.replace('-', '_')}")(s)
            s.rows = rows
            files.setdefault(s.format, []).append(self._put(name, rows))
            if s.format == "claude-code" and self.rng.random() < 0.15:
                name = f"{s.format}/{slug}/{s.id}/subagents/agent-a1.jsonl"
                files[s.format].append(self._put(name, self._rows_sub_agent(s)))
        town = self.folder / "town"
        self._put("town/.events.jsonl", sorted(self.events, key=lambda e: e["ts"]))
        self._put("home/.gt/costs.jsonl", self.costs)
        self._put("town/.gtft/sessions.jsonl", self.hooks)
        self._put("town/gizmo/.beads/issues.jsonl", list(self.beads.values()))
        rigs = {r: {"beads": {"prefix": p}} for r, p in RIGS.items()}
        self._put("town/mayor/rigs.json", [{"version": 1, "rigs": rigs}])
        return LinkedTown(
            self.folder, self.sessions, files, find_records(town, self.folder / "home")
        )

    def _put(self, name: str, rows: list[dict[str, Any]]) -> InputFile:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return InputFile(path, name)

    def _texts(self, s: Session) -> list[str]:
        first = s.beacon or "Please look at the tests."
        return [x for x in (first, s.prime) if x]

    def _times(self, s: Session, n: int) -> list[str]:
        step = (s.end - s.start) / max(n - 1, 1)
        return [iso(s.start + step * i) for i in range(n)]

    def _rows_claude_code(self, s: Session) -> list[dict[str, Any]]:
        bare = {"sessionId": s.id, "version": "2.1.20", "isSidechain": False}
        if s.cwd:
            bare["cwd"] = s.cwd
        if s.branch:
            bare["gitBranch"] = s.branch
        copied = [{**r, **bare, "version": "2.1.30"} for r in s.copies.rows] if s.copies else []
        said = [] if s.kind == "says nothing" else self._texts(s)
        rows: list[dict[str, Any]] = []
        for text in said:
            rows.append({"type": "user", "message": {"role": "user", "content": text}})
        command = f"bd update {s.claim} --claim --json" if s.claim else s.command
        use = {"type": "tool_use", "id": f"t-{s.id}", "name": "Bash", "input": {"command": command}}
        rows.append({"type": "assistant", "message": self._answer([use])})
        shown = s.shown or "ok"
        back = {"type": "tool_result", "tool_use_id": f"t-{s.id}", "content": shown}
        rows.append({"type": "user", "message": {"role": "user", "content": [back]}})
        rows.append(
            {"type": "assistant", "message": self._answer([{"type": "text", "text": "Done."}])}
        )
        for n, (row, at) in enumerate(zip(rows, self._times(s, len(rows)), strict=True)):
            row.update(bare, uuid=f"{s.id}-{n}", parentUuid=None, timestamp=at)
        return copied + rows

    def _rows_sub_agent(self, s: Session) -> list[dict[str, Any]]:
        bare = {"sessionId": s.id, "isSidechain": True, "agentId": "a1", "version": "2.1.20"}
        ask = {"role": "user", "content": "Find where the flag is read."}
        rows = [
            {"type": "user", "message": ask},
            {"type": "assistant", "message": self._answer([{"type": "text", "text": "In main."}])},
        ]
        for n, row in enumerate(rows):
            row.update(bare, uuid=f"{s.id}-a{n}", parentUuid=None, timestamp=iso(s.end))
        return rows

    def _answer(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        self.answers += 1
        return {
            "id": f"msg_{self.answers}",
            "role": "assistant",
            "model": "m-1",
            "content": content,
        }

    def _rows_codex(self, s: Session) -> list[dict[str, Any]]:
        def item(**payload: Any) -> dict[str, Any]:
            return {"type": "response_item", "payload": payload}

        meta = {"id": s.id, "timestamp": iso(s.start), **({"cwd": s.cwd} if s.cwd else {})}
        if s.branch:
            meta["git"] = {"branch": s.branch}
        rows = [{"type": "session_meta", "payload": meta}]
        for text in self._texts(s):
            content = [{"type": "input_text", "text": text}]
            rows.append(item(type="message", role="user", content=content))
        command = json.dumps({"command": ["bash", "-lc", f"bd update {s.claim or 'x'} --claim"]})
        if s.claim:
            rows.append(item(type="function_call", name="shell", arguments=command, call_id="c1"))
            rows.append(item(type="function_call_output", call_id="c1", output="ok"))
        said = [{"type": "output_text", "text": f"Done {s.id}."}]
        rows.append(item(type="message", role="assistant", content=said))
        for row, at in zip(rows, self._times(s, len(rows)), strict=True):
            row["timestamp"] = at
        return rows

    def _rows_pi(self, s: Session) -> list[dict[str, Any]]:
        head = {"type": "session", "version": 3, "id": s.id, "timestamp": iso(s.start)}
        if s.cwd:
            head["cwd"] = s.cwd
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "text", "text": t}]} for t in self._texts(s)
        ]
        content: list[dict[str, Any]] = [{"type": "text", "text": "Done."}]
        if s.claim:
            claim = {"command": f"bd update {s.claim} --claim"}
            call = {"type": "toolCall", "id": "c1", "name": "bash", "arguments": claim}
            messages.append(
                {"role": "assistant", "content": [call], "model": "m", "stopReason": "toolUse"}
            )
            messages.append({"role": "toolResult", "toolCallId": "c1", "toolName": "bash",
                             "content": [{"type": "text", "text": "ok"}]})  # fmt: skip
        messages.append(
            {"role": "assistant", "content": content, "model": "m", "stopReason": "stop"}
        )
        rows = [head]
        for n, (m, at) in enumerate(zip(messages, self._times(s, len(messages)), strict=True)):
            before = f"e{n - 1}-{s.id[:4]}" if n else None
            rows.append({"type": "message", "id": f"e{n}-{s.id[:4]}", "parentId": before,
                         "timestamp": at, "message": m})  # fmt: skip
        return rows

    def _rows_gemini(self, s: Session) -> list[dict[str, Any]]:
        rows = [
            {"sessionId": s.id, "projectHash": "ab" * 32, "startTime": iso(s.start), "kind": "main"}
        ]
        calls = []
        if s.claim:
            reply = {"functionResponse": {"id": "c1", "name": "sh", "response": {"output": "ok"}}}
            calls = [{"id": "c1", "name": "run_shell_command", "status": "success", "result": [reply],
                      "args": {"command": f"bd update {s.claim} --claim"}}]  # fmt: skip
        texts = self._texts(s)
        for n, text in enumerate(texts):
            rows.append({"id": f"u{n}", "timestamp": iso(s.start), "type": "user", "content": text})
        rows.append({"id": "a1", "timestamp": iso(s.end), "type": "gemini", "content": f"Done {s.id}.",
                     "model": "g-1", "toolCalls": calls})  # fmt: skip
        return rows


def iso(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def count_kinds(town: LinkedTown) -> Counter[str]:
    """What is in the town, by kind of session."""
    return Counter(s.kind for s in town.sessions)
