"""Bead exports in every shape they have had: one example per bead that says what it is about.

Rows are known by their keys, not by the file's name. A bead that several files hold is taken once, from
the row that was updated last.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from gtft.corpus.example import Conversation, Entry, Labels, Provenance
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.link import parse_actor
from gtft.corpus.tally import Tally

_REAL_TYPES = frozenset({"task", "bug", "feature", "epic", "chore", "decision", "spike", "story"})
_LEAST_DESCRIPTION = 40
_LONGEST_BODY = 400
_NOISE_LABELS = ("gt:message", "gt:agent", "gt:role", "gt:rig", "gt:wisp", "gt:digest")
_NOISE_TITLE = (
    ("digest", re.compile(r"^(digest|patrol digest|.* digest:)", re.I)),
    ("heartbeat", re.compile(r"^heartbeat", re.I)),
    ("molecule", re.compile(r"^mol-")),
    ("flag as title", re.compile(r"^-")),
    ("patrol report", re.compile(r"^(plugin run|compactor dog|session ended|handoff|🤝)", re.I)),
)
# Lines that sling writes above a description (any case; "_", "-" or nothing between the words).
_ATTACHMENT = re.compile(
    r"^(attached[_-]?(molecule|formula|at|args|vars)|dispatched[_-]?by|no[_-]?merge|review[_-]?only"
    r"|mode|convoy([_-]?(id|owned))?|merge[_-]?strategy|formula[_-]?vars)\s*:",
    re.I,
)


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """One conversation per informative bead. Tables: ``records`` (shape), ``dropped``, ``kept``."""
    newest: dict[str, tuple[datetime, int, int]] = {}
    for number, file in enumerate(files):
        for row in read_rows(file, Tally()):
            if _shape(row.value) == "bead":
                rank = (_updated(row.value), -number, -row.order)
                newest[row.value["id"]] = max(rank, newest.get(row.value["id"], rank))
    for number, file in enumerate(files):
        for row in read_rows(file, tally):
            shape = _shape(row.value)
            tally.add("records", shape)
            if shape != "bead":
                if shape == "unknown":
                    keys = ",".join(sorted(row.value)[:8])
                    tally.add("drift", "row of unknown shape")
                    tally.name("row of unknown shape", file.name, row.line, keys)
                tally.add("dropped", f"{shape} row")
                continue
            rank = (_updated(row.value), -number, -row.order)
            reason = "older version" if newest[row.value["id"]] != rank else _judge(row.value)
            if reason:
                tally.add("dropped", reason)
                continue
            tally.add("kept", "bead")
            yield _convert(row, file)


def _shape(r: dict[str, Any]) -> str:
    """What table a row is from, by its keys."""
    if r.get("_type") == "memory":
        return "memory"
    keys = r.keys()
    shapes = (
        ("event", {"issue_id", "event_type"}),
        ("dependency", {"issue_id", "depends_on_id"}),
        ("label", {"issue_id", "label"}),
        ("comment", {"issue_id", "text"}),
        ("interaction", {"id", "kind"}),
        ("deletion", {"id", "deleted_at", "deleted_by"}),
        ("config", {"key", "value"}),
    )
    if isinstance(r.get("id"), str) and isinstance(r.get("title"), str):
        return "bead"
    return next((name for name, needed in shapes if needed <= keys), "unknown")


def _judge(r: dict[str, Any]) -> str:
    """Why a bead is noise for training; empty when it is not."""
    title = r["title"].strip()
    kind = r.get("issue_type") or "task"
    labels = [x for x in r.get("labels") or [] if isinstance(x, str)]
    if r.get("status") == "tombstone":
        return "tombstone"
    if r.get("ephemeral") or r.get("wisp") or r.get("wisp_type") or "-wisp-" in r["id"]:
        return "wisp"
    if r.get("is_template"):
        return "template"
    if kind not in _REAL_TYPES:
        return f"type {kind}" if isinstance(kind, str) else "type unknown"
    if any(x.startswith(_NOISE_LABELS) for x in labels):
        return "infrastructure label"
    for reason, pattern in _NOISE_TITLE:
        if pattern.search(title):
            return reason
    if not title:
        return "no title"
    if len(strip_attachments(_text(r.get("description")))) < _LEAST_DESCRIPTION:
        return "description too short"
    return ""


def strip_attachments(description: str) -> str:
    """A description without the lines that sling wrote above it."""
    lines = description.splitlines()
    while lines and (not lines[0].strip() or _ATTACHMENT.match(lines[0].strip())):
        lines.pop(0)
    return "\n".join(lines).strip()


def _convert(row: Row, file: InputFile) -> Conversation:
    r = row.value
    description = strip_attachments(_text(r.get("description")))
    title = " ".join(r["title"].split())
    labels, author = _link(r)
    return Conversation(
        source="beads",
        file=file.name,
        links=(f"bead:{r['id']}",),
        entries=(
            Entry("user", row.line, text=f"File a bead for this.\n\n{description}"),
            Entry(
                "assistant",
                row.line,
                text=f"```bash\n{write_create(r, title, description)}\n```",
                response=r["id"],
            ),
        ),
        labels=labels,
        provenance=author,
        plain=f"{title}\n{description}",
    )


def write_create(r: dict[str, Any], title: str, description: str) -> str:
    """The ``bd create`` line for a bead: title, type, priority, labels and a short body."""
    kind = r.get("issue_type") or "task"
    priority = r.get("priority")
    words = ["bd create", f"--title={_quote(title)}", "-t", str(kind)]
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= 4:
        words += ["-p", str(priority)]
    names = sorted({x for x in r.get("labels") or [] if isinstance(x, str)})
    if names:
        words += ["-l", shlex.quote(",".join(names))]
    body = description.split("\n\n")[0].strip()
    if body and "\n" not in body and len(body) <= _LONGEST_BODY:
        words.append(f"--description={_quote(body)}")
    return " ".join(words)


def _quote(text: str) -> str:
    """As people write it: double quotes, unless the shell would read something into them."""
    return shlex.quote(text) if re.search(r'["\\$`!]', text) else f'"{text}"'


def _link(r: dict[str, Any]) -> tuple[Labels, Provenance]:
    """Role and rig of who filed it. A name that is no town address is a person's."""
    creator = _text(r.get("created_by")).strip()
    actor = parse_actor(creator) if creator else None
    rig = next(
        (
            x.removeprefix("rig:")
            for x in r.get("labels") or []
            if isinstance(x, str) and x.startswith("rig:")
        ),
        "",
    )
    rig = rig or _text(r.get("rig")) or (actor.rig or "" if actor else "")
    labels = Labels(
        role=actor.role if actor else None,
        rig=rig or None,
        bead=r["id"],
        rung="bead" if actor or rig else "none",
    )
    return labels, "human" if creator and actor is None and "/" not in creator else "agent"


def _updated(r: dict[str, Any]) -> datetime:
    """``updated_at`` in UTC; the year 1 when it is absent or unreadable."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", _text(r.get("updated_at")))
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
