"""``bd create`` and ``bd update`` as bd 1.0.5 reads them: what is refused, and what a bead is afterwards.

Tried against the real bd (tests/contract/test_evals_real_bd.py): where the two differ, this file is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gtft.evals.answer import BadAnswer
from gtft.evals.checks.flags import Kind, Unjudged, Words, read_words

TYPES = frozenset(
    [
        "task",
        "bug",
        "feature",
        "epic",
        "chore",
        "decision",
        "message",
        "molecule",
        "gate",
        "spike",
        "story",
        "milestone",
        "event",
    ]
)
STATUSES = frozenset(["open", "in_progress", "blocked", "deferred", "closed", "pinned", "hooked"])
_TYPE_ALIASES = {
    "enhancement": "feature",
    "feat": "feature",
    "dec": "decision",
    "adr": "decision",
    "investigation": "spike",
    "timebox": "spike",
    "user-story": "story",
    "ms": "milestone",
}
# Link types of --deps; what each makes when it is not itself.
_LINKS = frozenset(
    [
        "blocks",
        "parent-child",
        "conditional-blocks",
        "waits-for",
        "related",
        "discovered-from",
        "tracks",
        "relates-to",
        "replies-to",
        "duplicates",
        "supersedes",
        "until",
        "caused-by",
        "validates",
        "authored-by",
        "assigned-to",
        "approved-by",
        "attests",
        "delegated-from",
    ]
)
_NEEDS = frozenset({"depends-on", "blocked-by"})
_TITLE = 500
_LABEL_CHARS = 255
_LARGEST = 2**31 - 1
# Names of one value; bd refuses two of them that differ.
_DESCRIPTIONS = ("description", "body", "message")
# Flag → field of the bead, for plain texts.
_TEXTS = {
    "design": "design",
    "acceptance": "acceptance",
    "notes": "notes",
    "assignee": "assignee",
    "external-ref": "external_ref",
}


def _table(**kinds: str) -> dict[str, Kind]:
    table: dict[str, Kind] = {}
    kind: Kind
    for kind in ("text", "list", "switch", "barred"):
        table |= dict.fromkeys(kinds.get(kind, "").split(), kind)
    return table


_GLOBAL = _table(
    text="actor",
    switch="json quiet",
    barred="db directory dolt-auto-commit global help ignore-schema-skew profile readonly sandbox verbose",
)
CREATE_FLAGS: Mapping[str, Kind] = _GLOBAL | _table(
    text="title type priority description body message design acceptance notes assignee parent metadata "
    "estimate external-ref",
    list="labels label deps",
    switch="silent ephemeral no-inherit-labels",
    barred="append-notes body-file context defer design-file dry-run due event-actor event-category "
    "event-payload event-target file force graph id mol-type no-history repo skills spec-id stdin validate "
    "waits-for waits-for-gate wisp-type",
)
UPDATE_FLAGS: Mapping[str, Kind] = _GLOBAL | _table(
    text="title type priority description body message design acceptance notes assignee parent estimate "
    "external-ref status",
    list="add-label remove-label set-labels",
    barred="allow-empty-description append-notes await-id body-file claim defer design-file due ephemeral "
    "history metadata no-history persistent session set-metadata spec-id stdin unset-metadata",
)
_GLOBAL_SHORT = {"C": "directory", "h": "help", "q": "quiet", "v": "verbose"}
_BOTH_SHORT = _GLOBAL_SHORT | {
    "a": "assignee",
    "d": "description",
    "e": "estimate",
    "m": "message",
    "p": "priority",
    "t": "type",
}
CREATE_SHORT = _BOTH_SHORT | {"f": "file", "l": "labels"}
UPDATE_SHORT = _BOTH_SHORT | {"s": "status"}


@dataclass(frozen=True)
class NewBead:
    """What one ``bd create`` makes. ``links``: (type, other bead, whether the other one holds the link).
    ``fields``: texts that were given, and estimate (minutes) and metadata. ``dropped``: words that bd ignores."""

    title: str
    type: str
    priority: int
    labels: tuple[str, ...]
    parent: str = ""
    links: tuple[tuple[str, str, bool], ...] = ()
    inherits: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """What one ``bd update`` does to the beads ``ids``. ``fields``: new values; an empty one removes the field.
    ``labels``: what they are replaced with; None leaves them."""

    ids: tuple[str, ...]
    fields: Mapping[str, Any]
    labels: tuple[str, ...] | None
    added: tuple[str, ...]
    removed: tuple[str, ...]


def parse_create(command: Sequence[str]) -> NewBead:
    """The bead that one ``bd create`` command makes; bd's defaults are type task, priority 2.

    Raises BadAnswer on what bd would refuse, Unjudged on a flag that is not judged here.
    """
    if list(command[:2]) != ["bd", "create"]:
        raise BadAnswer(f"not a bd create command: {' '.join(command[:2])[:80]}")
    words = _read(command[2:], CREATE_FLAGS, CREATE_SHORT)
    title = _find_title(words)
    priority = _parse_priority(words.texts.get("priority", "2"))
    fields = _read_fields(words)
    fields = {k: v for k, v in fields.items() if v != ""}
    if "metadata" in words.texts:
        fields["metadata"] = _parse_metadata(words.texts["metadata"])
    kind = _parse_type(words.texts.get("type", "task"))
    if "ephemeral" in words.on or kind == "message":
        fields["ephemeral"] = True
    return NewBead(
        title=title,
        type=kind,
        priority=priority,
        labels=_clip([*words.lists.get("labels", ()), *words.lists.get("label", ())]),
        parent=words.texts.get("parent", ""),
        links=tuple(_parse_link(x) for x in words.lists.get("deps", ()) if x.strip()),
        inherits="no-inherit-labels" not in words.on,
        fields=fields,
        dropped=words.positional[1:],
    )


def parse_update(command: Sequence[str]) -> Change:
    """What one ``bd update`` command changes.

    Raises BadAnswer on what bd would refuse and when nothing is changed, Unjudged on a flag that is not judged
    here and when no bead is named (bd would take the last one that was touched).
    """
    if list(command[:2]) != ["bd", "update"]:
        raise BadAnswer(f"not a bd update command: {' '.join(command[:2])[:80]}")
    words = _read(command[2:], UPDATE_FLAGS, UPDATE_SHORT)
    if not words.positional:
        raise Unjudged("bd update without the id of a bead", "")
    fields = _read_fields(words)
    if "title" in words.texts:
        fields["title"] = words.texts["title"]
        if not fields["title"].strip() or len(fields["title"]) > _TITLE:
            raise BadAnswer(f"a title has 1 to {_TITLE} characters")
    if "type" in words.texts:
        fields["type"] = _parse_type(words.texts["type"])
    if "priority" in words.texts:
        fields["priority"] = _parse_priority(words.texts["priority"])
    if "status" in words.texts:
        fields["status"] = words.texts["status"]
        if fields["status"] not in STATUSES:
            raise BadAnswer(f"bd knows no status {fields['status'][:40]}")
    if "parent" in words.texts:
        fields["parent"] = words.texts["parent"]
    lists = {k: _clip(v) for k, v in words.lists.items() if v}
    if not fields and not words.lists:
        raise BadAnswer("bd update without a change")
    return Change(
        tuple(dict.fromkeys(words.positional)),
        fields,
        lists.get("set-labels"),
        lists.get("add-label", ()),
        lists.get("remove-label", ()),
    )


def _read(words: Sequence[str], flags: Mapping[str, Kind], short: Mapping[str, str]) -> Words:
    if not all(is_sayable(w) for w in words):
        raise BadAnswer("a character that no command line can carry")
    return read_words(words, flags, short)


def is_sayable(word: str) -> bool:
    """Whether a word can be an argument of a program: UTF-8 without a zero byte."""
    try:
        return b"\0" not in word.encode()
    except UnicodeEncodeError:
        return False


def _find_title(words: Words) -> str:
    given = words.texts.get("title", "")
    if not words.positional:
        title = given
    elif given and given != words.positional[0]:
        raise BadAnswer("two titles that differ")
    else:
        title = words.positional[0]
        if title.startswith("-") and not given:
            raise BadAnswer("the title looks like a flag (--title= takes it)")
    if not title or len(title.encode()) > _TITLE:
        raise BadAnswer(f"a title has 1 to {_TITLE} bytes")
    return title


def _read_fields(words: Words) -> dict[str, Any]:
    found: dict[str, Any] = {new: words.texts[f] for f, new in _TEXTS.items() if f in words.texts}
    descriptions = {words.texts[f] for f in _DESCRIPTIONS if f in words.texts}
    if len(descriptions) > 1:
        raise BadAnswer("two descriptions that differ")
    if descriptions:
        found["description"] = descriptions.pop()
    if "estimate" in words.texts:
        found["estimate"] = _parse_minutes(words.texts["estimate"])
    return found


def _parse_type(text: str) -> str:
    kind = _TYPE_ALIASES.get(text.lower(), text)
    if kind not in TYPES:
        raise BadAnswer(f"bd knows no type {text[:40]}")
    return kind


def _parse_priority(text: str) -> int:
    match = re.match(r"\s*[+-]?[0-9]{1,9}", re.sub(r"^[Pp]", "", text.strip()))
    if match is None or not 0 <= int(match.group()) <= 4:
        raise BadAnswer(f"a priority is 0 to 4, not {text[:40]}")
    return int(match.group())


def _parse_minutes(text: str) -> int:
    octal = re.fullmatch(r"\+?0[0-7]+", text)
    try:
        minutes = int(text, 8 if octal else 0)
    except ValueError:
        minutes = -1
    if not 0 <= minutes <= _LARGEST or text != text.strip() or not text.isascii():
        raise BadAnswer(f"an estimate is a whole number of minutes, not {text[:40]}")
    return minutes


def _parse_metadata(text: str) -> Any:
    if text.startswith("@"):
        raise Unjudged("--metadata from a file is not judged here", "--metadata")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise BadAnswer("--metadata is not JSON") from e


def _parse_link(text: str) -> tuple[str, str, bool]:
    kind, colon, other = text.strip().partition(":")
    kind, other = kind.strip(), other.strip()
    if not colon:
        return "blocks", kind, False
    if kind in _NEEDS:
        return "blocks", other, False
    if kind not in _LINKS:
        raise BadAnswer(f"bd knows no dependency type {kind[:40]}")
    return kind, other, kind == "blocks"


def _clip(labels: Sequence[str]) -> tuple[str, ...]:
    """As bd stores them: without repeats, at most 255 characters."""
    return tuple(dict.fromkeys(x[:_LABEL_CHARS] for x in labels))
