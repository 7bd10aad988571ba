"""Claude Code transcripts: ``~/.claude/projects/<slug>/<session>.jsonl`` and its sub-agents.

Records that resume and checkpoint files repeat are kept once, by uuid: the copy of the lowest version,
then of the first file, then of the first line (later copies name another folder and branch). The pieces of
one response share ``message.id``. A file is read by itself; `gtft.corpus.claims` settles what several hold.
What each field means: docs/corpus.md.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from operator import attrgetter

from msgspec.structs import replace

from gtft.corpus.claims import MARK, RECORD, RESPONSE, Claims, parse_version
from gtft.corpus.example import Author, Call, Conversation, Entry, Evidence, Mark
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import is_too_deep
from gtft.corpus.linking.link import gather
from gtft.corpus.sources.block import name_kind, note_drift, write_placeholder
from gtft.corpus.sources.claude_record import Batch, Block, Message, Part, Record, read_batches
from gtft.corpus.sources.clues import FIRST_TEXTS, judge_author, read_time
from gtft.corpus.tally import Tally

_HARNESS = (
    "<command-",
    "<local-command",
    "<bash-",
    "<task-notification",
    "<agent-notification",
    "<system-reminder",
    "Caveat",
    "[Request interrupted",
)
_INTERRUPTED = "[Request interrupted"
_DENIED = "The user doesn't want to proceed with this tool use"
_SUMMARY = "This session is being continued"
_SLASH = re.compile(r"^/[a-z][\w:-]*(\s|$)")
_BOUNDARIES = frozenset({"compact_boundary", "microcompact_boundary"})
_ASIDE_TYPES = (
    "progress file-history-snapshot summary custom-title ai-title agent-name pr-link attachment mode "
    "permission-mode last-prompt worktree-state relocated started result frame-link bridge-session"
)
_KNOWN_ASIDE = frozenset(_ASIDE_TYPES.split())
# What wrote a prompt, when it says so: a person at the keyboard; all else is a program.
_HUMAN_ORIGINS = frozenset({"human", "user", "cli", "typed"})
_PROGRAMS = frozenset({"sdk", "system", "hook", "task-notification"})
_type_of = attrgetter("type")


class _Open:
    """One session (or sub-agent) of the file, while it is read."""

    __slots__ = (
        "agent", "agent_name", "answered", "calls", "cwd", "entries", "first", "header", "last",
        "marks", "name", "queue", "texts",
    )  # fmt: skip

    def __init__(self, name: str, agent: str) -> None:
        self.name = name
        self.agent = agent
        self.entries: list[Entry] = []
        self.texts: list[str] = []
        self.queue: deque[str] = deque()
        self.cwd: str | None = None
        self.agent_name: str | None = None
        self.header = ""
        self.first: Record | None = None
        self.last: Record | None = None
        # The line of the last answer, and what became of turns: by line, response or call.
        self.answered = 0
        self.marks: dict[int | str, Mark] = {}
        # Calls of version 1 that wait for their result.
        self.calls: deque[str] = deque()


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """The sessions of ``files`` (one of them, where claims are to be settled), sub-agents apart.

    Tables: ``records`` (type), ``dropped`` (reason, in records), ``kept``, ``blocks``, ``drift``.
    """
    for file in files:
        counted = Tally()
        reader = _Reader(file, counted, claims, {})
        reader.read()
        if reader.older:
            # A later copy has a lower version: read once more, now that it is known which one stays.
            counted = Tally()
            reader = _Reader(file, counted, claims, reader.older)
            reader.read()
        reader.note_claims()
        tally.merge(counted)
        yield from reader.close()


class _Reader:
    """Reads one file once. ``stays``: the line of the copy to keep, for records that an older copy wins."""

    def __init__(
        self, file: InputFile, tally: Tally, claims: Claims, stays: dict[str, int]
    ) -> None:
        self.file = file
        self.tally = tally
        self.claims = claims
        self.stays = stays
        self.older: dict[str, int] = {}
        self.sessions: dict[tuple[str, str], _Open] = {}
        self.dropped: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.blocks: Counter[str] = Counter()
        self.links: dict[str, None] = {}
        # Records by uuid with their line, in order; a run of records has one version.
        self.seen: dict[str, int] = {}
        self.run_starts: list[int] = []
        self.run_lines: list[int] = []
        self.run_versions: list[str] = []
        self.parents: list[str] = []
        self.unique = 0
        self.owners: dict[str, _Open] = {}
        self.responses: list[str] = []
        self.response_at: list[int] = []
        self.queued: dict[str, None] = {}
        self.parent = _find_parent(file)
        # The first record of a chain of records, for sub-agents that carry no id.
        self.roots: dict[str, str] = {}

    def read(self) -> None:
        """Everything that the file says, into ``sessions`` and the tally."""
        kinds: Counter[str | None] = Counter()
        bare: Counter[str | None] = Counter()
        repeated: Counter[str | None] = Counter()
        dropped, kept, seen, stays = self.dropped, self.kept, self.seen, self.stays
        lost = bool(self.claims.lost)
        session_id: str | None = None
        agent_id: str | None = None
        sidechain: bool | None = None
        version: str | None = ""
        previous: str | None = None
        s: _Open | None = None
        for batch in read_batches(self.file, self.tally):
            kinds.update(map(_type_of, batch.records))
            for line, r in zip(batch.numbers, batch.records, strict=True):
                if (
                    s is None
                    or r.session_id != session_id
                    or r.agent_id != agent_id
                    or r.is_sidechain is not sidechain
                    or (sidechain and agent_id is None)
                ):
                    session_id, agent_id, sidechain = r.session_id, r.agent_id, r.is_sidechain
                    s = self._find(r)
                kind, message, uuid = r.type, r.message, r.uuid
                if kind == "user" and message is not None and len(s.texts) < FIRST_TEXTS:
                    _note_text(s, r, message)
                if uuid is not None:
                    if r.version != version or not self.run_starts:
                        version = r.version
                        self._start_run(line, version)
                    if r.parent_uuid != previous and r.parent_uuid is not None:
                        self.parents.append(r.parent_uuid)
                    previous = uuid
                    if uuid in seen or (stays and stays.get(uuid, line) != line):
                        if uuid in seen:
                            self._compare_copies(uuid, line, version)
                        dropped["repeated uuid"] += 1
                        repeated[kind] += 1
                        continue
                    seen[uuid] = line
                    if lost and self.claims.lose(RECORD, uuid):
                        dropped["repeated uuid"] += 1
                        repeated[kind] += 1
                        continue
                    s.last = r
                    if s.cwd is None:
                        s.cwd = r.cwd or None
                        s.first = s.first or r
                else:
                    bare[kind] += 1
                if kind == "progress":
                    dropped["progress"] += 1
                    continue
                if kind == "assistant":
                    reason = self._take_answer(s, r, message, line)
                elif kind == "user":
                    reason = self._take_user(s, r, message, line)
                else:
                    reason = self._take_other(s, r, line, batch)
                if reason:
                    dropped[reason] += 1
                else:
                    kept[kind or ""] += 1
        self._count(kinds, kinds - bare - repeated)

    def _count(self, kinds: Counter[str | None], unique: Counter[str | None]) -> None:
        for table, counts in (("records", kinds), ("unique", unique), ("kept", self.kept)):
            for kind, n in counts.items():
                self.tally.add(table, name_kind(kind), n)
        if self.unique:
            self.tally.add("responses", "unique", self.unique)
        for table, counts in (("dropped", self.dropped), ("blocks", self.blocks)):
            for reason, n in counts.items():
                self.tally.add(table, reason, n)

    def _find(self, r: Record) -> _Open:
        """The session of a record, opened when it is new."""
        name = r.session_id or r.other_session or self.file.name
        if self.parent and name.startswith("agent-"):
            name = self.parent
        agent = ""
        if r.is_sidechain is True:
            agent = r.agent_id or ""
            if not agent and r.uuid is not None:
                agent = self.roots.get(r.parent_uuid or "", r.uuid)
                self.roots[r.uuid] = agent
        s = self.sessions.get((name, agent))
        if s is None:
            s = self.sessions[name, agent] = _Open(name, agent)
        return s

    def _start_run(self, line: int, version: str | None) -> None:
        self.run_starts.append(len(self.seen))
        self.run_lines.append(line)
        self.run_versions.append(version or "")

    def _compare_copies(self, uuid: str, line: int, version: str | None) -> None:
        """Remember a copy that is older than those before it."""
        at = self.older.get(uuid, self.seen[uuid])
        before = self.run_versions[bisect_right(self.run_lines, at) - 1]
        if not self.stays and parse_version(version or "") < parse_version(before):
            self.older[uuid] = line

    def _take_user(self, s: _Open, r: Record, message: Message | None, line: int) -> str:
        """Put a record where it belongs; the reason when it is dropped. So do all that follow."""
        if message is None or message.content is None:
            return self._refuse(message, line)
        content = message.content
        blocks = [Block("text", text=content)] if isinstance(content, str) else content
        entries = s.entries
        before = len(entries)
        reason = "empty"
        texts: list[str] = []
        for b in blocks:
            kind = b.type
            if kind == "tool_result":
                self.blocks["user tool_result"] += 1
                text = b.content if isinstance(b.content, str) else _flatten(b.content)
                call = b.tool_use_id or ""
                if r.tool_denial_kind or (b.is_error and text.startswith(_DENIED)):
                    s.marks[call or r.source_tool or s.answered] = "denied"
                entries.append(Entry("result", line, text, "", (), call))
            elif kind == "text":
                self.blocks["user text"] += 1
                text = b.text or ""
                if r.is_compact_summary is True or text.startswith(_SUMMARY):
                    entries.append(Entry("summary", line, text))
                elif r.is_meta is True or _harness(text):
                    reason = "meta" if r.is_meta is True else "harness"
                    if text.startswith(_INTERRUPTED):
                        s.marks.setdefault(r.interrupted_message_id or s.answered, "interrupted")
                elif text.strip():
                    texts.append(text)
            elif kind in ("image", "document"):
                self.blocks[f"user {kind}"] += 1
                if r.is_meta is not True:
                    texts.append(_hold_place(b))
            else:
                self.blocks[f"user {name_kind(kind)}"] += 1
                self.tally.add("drift", f"user block {name_kind(kind, 'without type')}")
        if r.interrupted_message_id:
            s.marks.setdefault(self._locate(r.interrupted_message_id), "interrupted")
        if texts:
            text = "\n\n".join(texts)
            entries.append(Entry("user", line, text, "", (), "", _judge(r, s, text)))
        return "" if len(entries) > before else reason

    def _take_answer(self, s: _Open, r: Record, message: Message | None, line: int) -> str:
        if message is None:
            return self._refuse(message, line)
        if message.model == "<synthetic>":
            return "synthetic"
        if r.is_api_error_message is True:
            return "API error"
        response = message.id
        if response:
            owner = self.owners.get(response)
            lost = owner is None and self.claims.lose(RESPONSE, response)
            self.responses.append(response)
            self.response_at.append(-1 if r.uuid is None else len(self.seen) - 1)
            if lost or (owner is not None and owner is not s):
                return "replayed response"
            if owner is None:
                self.owners[response] = s
                self.unique += 1
        else:
            response = r.uuid or f"{self.file.name}:{line}"
            self.unique += 1
        content = message.content
        if content is None:
            return self._refuse(message, line)
        blocks = [Block("text", text=content)] if isinstance(content, str) else content
        texts: list[str] = []
        calls: list[Call] = []
        reason = "empty"
        for b in blocks:
            kind = b.type
            if kind == "tool_use":
                self.blocks["assistant tool_use"] += 1
                calls.append(self._call(b, line))
            elif kind == "text":
                self.blocks["assistant text"] += 1
                if text := (b.text or "").strip():
                    texts.append(text)
            elif kind in ("thinking", "redacted_thinking"):
                self.blocks[f"assistant {kind}"] += 1
                reason = "thinking only"
            else:
                self.blocks[f"assistant {name_kind(kind)}"] += 1
                self.tally.add("drift", f"assistant block {name_kind(kind, 'without type')}")
        if r.supersedes_uuids:
            self._take_back(s, r.supersedes_uuids)
        if not texts and not calls:
            return reason
        mark: Mark = "interrupted" if r.is_aborted_mid_stream is True else ""
        text = texts[0] if len(texts) == 1 else "\n\n".join(texts)
        s.answered = line
        s.entries.append(
            Entry(
                "assistant", line, text, response, tuple(calls), "", "", message.model or "", mark
            )
        )
        return ""

    def _take_other(self, s: _Open, r: Record, line: int, batch: Batch) -> str:
        kind = r.type
        if kind in _KNOWN_ASIDE:
            if kind == "agent-name":
                s.agent_name = r.agent_name or s.agent_name
            elif kind == "pr-link" and r.pr_url:
                self.links[f"pr:{r.pr_url}"] = None
            elif kind == "attachment" and r.attachment is not None:
                self.tally.add("attachments", name_kind(r.attachment.type))
            return kind
        if kind == "system":
            self.tally.add("system", name_kind(r.subtype, "no subtype"))
            if r.retracted_message_uuids:
                self._take_back(s, r.retracted_message_uuids)
            if r.subtype not in _BOUNDARIES:
                return "system"
            s.entries.append(Entry("boundary", line))
            return ""
        if kind == "queue-operation":
            return self._take_queue(s, r, line)
        if kind in ("tool_use", "tool_result"):
            return self._take_old(s, r, line)
        what = f"record {name_kind(kind, 'without type')}"
        note_drift(what, batch.decode(line, self.file), self.file, line, self.tally)
        return "unknown type"

    def _take_queue(self, s: _Open, r: Record, line: int) -> str:
        """``remove`` means that a text typed in mid-turn went to the model without a record of its own."""
        operation = r.operation or ""
        content = r.content if isinstance(r.content, str) else ""
        if r.timestamp:
            mark = "\0".join((s.name, r.timestamp, operation, content))
            if mark in self.queued:
                return "repeated queue operation"
            self.queued[mark] = None
            if self.claims.lose(MARK, mark):
                return "repeated queue operation"
        self.tally.add("queue", name_kind(operation, "no operation"))
        if operation == "enqueue":
            s.queue.append(content)
            return "queue operation"
        text = content
        if operation in ("remove", "dequeue") and s.queue:
            first = s.queue.popleft()
            text = text or first
        if operation != "remove" or not text.strip() or _harness(text) or _SLASH.match(text):
            return "queue operation"
        s.entries.append(Entry("user", line, text, by=judge_author(text, s.agent)))
        return ""

    def _take_old(self, s: _Open, r: Record, line: int) -> str:
        """Version 1: calls and results as records of their own, paired in order where they have no ids."""
        self.tally.add("drift", f"version 1 {r.type}")
        if r.type == "tool_use":
            name = r.id or r.uuid or f"{self.file.name}:{line}"
            if not r.id:
                s.calls.append(name)
            call = Call(name, r.name or "unknown", self._check(r.input, line))
            s.answered = line
            s.entries.append(Entry("assistant", line, response=f"old:{name}", calls=(call,)))
        else:
            found = r.tool_use_id or (s.calls.popleft() if s.calls else "")
            said = r.content if r.content is not None else r.output
            text = said if isinstance(said, str) else _flatten(said)
            s.entries.append(Entry("result", line, text, call_id=found))
        return ""

    def _call(self, b: Block, line: int) -> Call:
        return Call(b.id or "", b.name or "unknown", self._check(b.input, line))

    def _check(self, arguments: dict[str, object] | None, line: int) -> dict[str, object]:
        """The arguments of a call, unless they are nested too deep."""
        if arguments is None:
            return {}
        for value in arguments.values():
            if isinstance(value, dict | list):
                if is_too_deep(arguments):
                    self.tally.name("nested too deep", self.file.name, line)
                    return {}
                break
        return arguments

    def _refuse(self, message: Message | None, line: int) -> str:
        what = (
            "message is not an object" if message is None else "content is neither text nor blocks"
        )
        self.tally.name(what, self.file.name, line)
        return "wrong shape"

    def _locate(self, name: str) -> int | str:
        """The line of a record by uuid, or the name of a response."""
        return self.seen.get(name, name)

    def _take_back(self, s: _Open, names: list[str]) -> None:
        for name in names:
            s.marks[self._locate(name)] = "rewound"

    def note_claims(self) -> None:
        """What the file took, for `gtft.corpus.claims.settle`."""
        runs = list(zip(self.run_starts, self.run_versions, strict=True))
        self.claims.note_records(self.seen, runs, set(self.parents) - self.seen.keys())
        self.claims.note_responses(self.responses, self.response_at)
        self.claims.note_marks(self.queued)
        self.claims.link = self._name_link()

    def _name_link(self) -> str:
        """Of the first session that has a name. Sessions in one file are a forked one and its original."""
        names = [name for name, _ in self.sessions]
        named = (n for n in names if n != self.file.name)
        return f"session:{next(named, self.file.name)}"

    def close(self) -> Iterator[Conversation]:
        """The conversations, in the order in which they began."""
        for (name, agent), s in self.sessions.items():
            if not s.entries:
                continue
            started = read_time(s.first.timestamp) if s.first else ""
            evidence = Evidence(
                session=f"{name}#{agent}" if agent else name,
                parent=name if agent else None,
                candidates=gather(s.texts, s.cwd, s.agent_name, name, started),
                started=started,
                ended=read_time(s.last.timestamp) if s.last else "",
                branch=s.last.git_branch or "" if s.last else "",
            )
            beads = sorted({f"bead:{c.bead}" for c in evidence.candidates if c.bead})
            links = dict.fromkeys([f"session:{name}", self._name_link(), *self.links, *beads])
            yield Conversation(
                source="claude-code",
                file=self.file.name,
                links=tuple(links),
                entries=tuple(_mark(s.entries, s.marks) if s.marks else s.entries),
                evidence=evidence,
                header=s.header,
            )


def _find_parent(file: InputFile) -> str:
    """The session that started a sub-agent, where its file lies below ``<session>/subagents``."""
    folders = file.path.parts[-5:-1]
    return folders[folders.index("subagents") - 1] if "subagents" in folders[1:] else ""


def _mark(entries: list[Entry], marks: dict[int | str, Mark]) -> Iterator[Entry]:
    """The entries with what became of each answer: by its calls first, then by itself."""
    for e in entries:
        if e.kind != "assistant":
            yield e
            continue
        names: list[int | str] = [c.id for c in e.calls if c.id]
        found = [marks[n] for n in (*names, e.line, e.response) if n in marks]
        yield replace(e, mark=found[0]) if found else e


def _note_text(s: _Open, r: Record, message: Message) -> None:
    """Remember the first texts for linking and the first prompt as header, repeated records too."""
    content = message.content
    if isinstance(content, str):
        text = content
    else:
        text = "\n\n".join([b.text or "" for b in content or () if b.type == "text"])
    if text:
        s.texts.append(text)
        if not s.header and r.is_meta is not True and not _harness(text):
            s.header = text


def _judge(r: Record, s: _Open, text: str) -> Author:
    """Who wrote a prompt. A record that says nothing about it was typed by a person."""
    if r.origin is not None and r.origin.sender:
        return "agent"
    if r.origin is not None and r.origin.kind:
        if r.origin.kind not in _HUMAN_ORIGINS:
            return "harness"
    elif r.source_tool or r.prompt_source in _PROGRAMS:
        return "harness"
    return judge_author(text, s.agent)


def _flatten(content: Sequence[Part] | None) -> str:
    """The text of a tool result: blocks of text and images."""
    return "\n".join([p.text or "" if p.type == "text" else _hold_place(p) for p in content or ()])


def _hold_place(block: Part | Block) -> str:
    return write_placeholder(
        name_kind(block.type, "block"), (block.source and block.source.media_type) or ""
    )


def _harness(text: str) -> bool:
    return text.lstrip().startswith(_HARNESS)
