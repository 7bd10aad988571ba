"""Withdrawals: what somebody took back, and every later harvest leaves out.

The register keeps agents, rigs, beads and sessions as they are called. An e-mail, or the name of an actor who
may be a person, is kept as a keyed hash only; its key is the workspace's and never leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

from gtft.contract import Withdrawal
from gtft.corpus.governance.consent import find_own_rig, may_speak_for
from gtft.corpus.governance.row import Row, hash_contributor
from gtft.errors import UsageError

Kind = Literal["session", "actor", "email", "rig", "bead"]
# In the workspace; made by `gtft.corpus.redaction.redactor.load_key`.
KEY_FILE = "redaction.key"
KINDS: tuple[Kind, ...] = get_args(Kind)
_HASHED = "hmac:"
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
_UUID = re.compile(
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|ses_\w+|agent-[0-9a-f]{6,}"
)
_BEAD = re.compile(r"[a-z][a-z0-9]{1,15}(?:-[A-Za-z0-9_]+)+(?:\.\d+)*")
_NAME = re.compile(r"\w[\w.-]*")
_TOWN_AGENTS = frozenset({"mayor", "deacon", "boot"})
_LONGEST = 255


def guess_kind(who: str) -> Kind:
    """What a name is the name of, by its form. Raises UsageError when it has none of the five."""
    if _EMAIL.fullmatch(who):
        return "email"
    if "/" in who.strip("/") or who.strip("/") in _TOWN_AGENTS:
        return "actor"
    if _UUID.fullmatch(who):
        return "session"
    if _BEAD.fullmatch(who):
        return "bead"
    if _NAME.fullmatch(who):
        return "rig"
    raise UsageError(
        f"{who[:80]!r} is no session, actor, e-mail, rig or bead by its form",
        why="sessions are UUIDs, actors hold a slash, beads a dash, e-mails an @",
        fix="say which it is: --kind session",
    )


def make_withdrawal(kind: Kind, who: str, key: bytes) -> Withdrawal:
    """The row that the register keeps. Raises UsageError for a name that can be none."""
    name = who.strip().strip("/") if kind == "actor" else who.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise UsageError(
            f"{who[:40]!r} cannot be a name",
            why=f"it is empty, longer than {_LONGEST} characters, or holds control characters",
            fix="gtft corpus trace EXAMPLE shows the names of an example",
        )
    if kind == "email" and not _EMAIL.fullmatch(name):
        raise UsageError(f"{who} is no e-mail address", fix="--kind actor, or another kind")
    if kind == "email" or (kind == "actor" and _may_be_person(name)):
        return Withdrawal(kind=kind, who=_HASHED + hash_contributor(key, name))
    return Withdrawal(kind=kind, who=name)


def may_withdraw(actor: str, withdrawal: Withdrawal, plain: str) -> bool:
    """People and the mayor may withdraw anything, an agent what names its own rig or an actor of it."""
    own = find_own_rig(actor)
    if not own:
        return may_speak_for(actor, "")
    named = plain.strip("/").split("/")[0]
    return withdrawal.kind in ("rig", "actor") and named == own


class Withdrawals:
    """The register, asked row by row. ``key``: the workspace's redaction key."""

    def __init__(self, items: Iterable[Withdrawal], key: bytes) -> None:
        self._key = key
        self._of: dict[Kind, frozenset[str]] = {k: frozenset() for k in KINDS}
        for w in items:
            self._of[w.kind] |= {w.who}
        self._any = any(self._of.values())
        self._hashes: dict[str, str] = {}

    def covers(self, row: Row) -> str:
        """ "" for a row that nobody took back; else the reason that reports count it under.

        ``row.contributor`` is `hash_contributor` of whose work it is; ``row.actor`` is as the source has it.
        """
        if not self._any:
            return ""
        for kind in KINDS:
            if self._of[kind] and self._fits(kind, row):
                return f"withdrawn: {kind}"
        return ""

    def _fits(self, kind: Kind, row: Row) -> bool:
        known = self._of[kind]
        if kind == "session":
            cluster = row.cluster.removeprefix("session:") if row.cluster[:8] == "session:" else ""
            # A fork or a resumed copy holds the same records under another session.
            tied = [x.removeprefix("session:") for x in row.links if x.startswith("session:")]
            return not known.isdisjoint((row.session, row.parent, cluster, *tied))
        if kind == "bead":
            cluster = row.cluster.removeprefix("bead:") if row.cluster[:5] == "bead:" else ""
            return any(not known.isdisjoint(_above(b)) for b in (row.bead or "", cluster))
        if kind == "rig":
            return row.rig in known or find_own_rig(row.actor or "") in known
        if kind == "email":
            return bool(row.contributor) and _HASHED + row.contributor in known
        return bool(row.actor) and (row.actor in known or self._hash(row.actor or "") in known)

    def _hash(self, actor: str) -> str:
        if actor not in self._hashes:
            self._hashes[actor] = _HASHED + hash_contributor(self._key, actor)
        return self._hashes[actor]


def _above(bead: str) -> list[str]:
    """A bead and those above it: gz-1.2 is part of gz-1."""
    parts = bead.split(".")
    return [".".join(parts[: n + 1]) for n in range(min(len(parts), 20))]


def _may_be_person(actor: str) -> bool:
    """Everybody but the agents whose names Gas Town makes up."""
    parts = actor.split("/")
    if parts[0] in _TOWN_AGENTS:
        return False
    return not (len(parts) > 1 and parts[1] in ("witness", "refinery", "polecats"))
