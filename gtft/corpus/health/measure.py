"""Figures of a corpus, gathered example by example while it is written: nothing of a text is kept."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gtft.corpus.example import Example
from gtft.corpus.health import language, staleness
from gtft.corpus.health.commands import CommandList, load_commands
from gtft.corpus.health.conflict import MOST_SHOWN, Conflict, show_conflict
from gtft.corpus.health.sufficiency import Stock, judge, measure_stock
from gtft.corpus.health.words import write_words
from gtft.corpus.segment import CHARACTERS_PER_TOKEN
from gtft.corpus.tally import Tally
from gtft.errors import InternalError

WINDOWS = (4096, 8192, 16384, 32768)
# The tables that every report has by side; readers of a corpus's summary know the first four.
BY = ("source", "role", "rig", "provenance", "actor", "outcome", "month", "language", "made by")
SIDES = ("train", "heldout")
# Loss on less than this share of an example pays little for the text that is read.
LEAST_SUPERVISED = 0.01
NEAR_WINDOW = 0.9
_LISTED = 20
_MOST_NAMES = 10_000
_OTHERS = "(others)"
# Of beads and model calls; why a session is not linked, the linker says.
_NO_AGENT = "no session, and the row names no agent"

_PLACEHOLDER = re.compile(r"<SECRET:([a-z0-9_]{1,60}):([0-9a-f]{1,64})>")
# Pseudonyms as `gtft.corpus.redaction.personal` makes them. Each begins with plain letters: the search for
# those is what makes it fast.
_USER = re.compile(r"user[0-9a-f]{6}(@example\.com|\b)")
_HOST = re.compile(r"host[0-9a-f]{6}\b")
_HOMES = tuple(f"{name}{slash}" for name in ("home", "Users") for slash in ("/", "\\", "-"))
_ADDRESSES = (("198.18.", "ipv4"), ("198.19.", "ipv4"), ("2001:db8::", "ipv6"))
_LENGTHS = ("p10", "p50", "p90", "p99")
_LEFT_OUT = "left out: "
# What the reasons of the harvest for a copy have in them.
_COPIES = ("duplicate", "copy", "differs in numbers")

# What encoded arguments have in them when they call gt or bd.
_CALLS = ("bd ", "gt ", '"bd"', '"gt"')

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Figures:
    """What the harvest knows and no example shows. ``tallies`` by source name; ``prose`` and ``leakage`` as
    the report has them; ``suspects`` by plugin; ``licences`` by source name; ``fetch`` gives the messages
    of an id, kept or dropped, so that both sides of a conflict can be shown; ``canaries`` as
    `gtft.corpus.canary.describe_canaries` has them: no other figure counts them."""

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    leakage: Mapping[str, Any] = field(default_factory=dict)
    prose: Mapping[str, int] = field(default_factory=dict)
    near_duplicate_pairs: int = 0
    suspects: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    canaries: Mapping[str, int] = field(default_factory=dict)
    conflicts: Sequence[Conflict] = ()
    rules: Sequence[Mapping[str, Any]] = ()
    fetch: Callable[[str], Sequence[dict[str, Any]] | None] = lambda _: None


def make_flow(stage: str, came: int, kept: int, dropped: Mapping[str, int]) -> dict[str, Any]:
    """One row of "what came in, and what became of it". Raises InternalError when it does not add up."""
    if came != kept + sum(dropped.values()):
        raise InternalError(
            f"the counts of {stage} do not add up",
            why=f"{came} in, {kept} kept, {sum(dropped.values())} dropped",
            fix="please report this with the recipe's source list",
        )
    return {"stage": stage, "in": came, "kept": kept, "dropped": dict(sorted(dropped.items()))}


@dataclass
class _Seen:
    """What one look at an example gave."""

    size: int = 0
    answers: int = 0
    secrets: Counter[str] = field(default_factory=Counter)
    values: set[str] = field(default_factory=set)
    personal: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    stale: list[tuple[staleness.Stale, bool]] = field(default_factory=list)
    language: str = ""


class Meter:
    """Feed it every example once, in any order, then `finish`. ``role`` is the one that is trained for.

    The shipped command list is asked unless another is given: a corpus is the same on every machine.
    """

    def __init__(self, role: str, window_tokens: int, known: CommandList | None = None) -> None:
        self.role = role
        self.window = window_tokens * CHARACTERS_PER_TOKEN
        self.known = known or load_commands()
        self._by: dict[str, dict[str, Counter[str]]] = {
            side: {what: Counter() for what in BY} for side in SIDES
        }
        self._cells: dict[str, Counter[str]] = {}
        self._clusters: dict[str, set[str]] = {side: set() for side in SIDES}
        self._sizes = array("L")
        self._answers = 0
        self._stocks: dict[str, Stock] = {}
        self._secrets: Counter[str] = Counter()
        self._values: set[str] = set()
        self._personal: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._commands = 0
        self._stale: dict[staleness.Stale, Counter[str]] = {}
        self._stale_examples: Counter[str] = Counter()

    def add(self, example: Example, side: str, marks: Sequence[str] = ()) -> list[str]:
        """Count one example of ``train`` or ``heldout``; its flags, ``marks`` (what others flagged) included."""
        seen = self._look(example)
        flags = [*self._list_flags(example, seen), *marks]
        self._flags.update({f.partition(":")[0] for f in flags})
        self._sizes.append(seen.size)
        self._answers += seen.answers
        self._secrets.update(seen.secrets)
        self._values |= seen.values
        self._personal.update(seen.personal)
        self._count_labels(example, side, seen)
        self._count_stale(seen, side)
        return flags

    def flags_of(self, example: Example) -> list[str]:
        """What is worth knowing of one example, each flag as ``kind`` or ``kind: what``; counts nothing."""
        return self._list_flags(example, self._look(example))

    def _look(self, example: Example) -> _Seen:
        seen = _Seen()
        prose: list[str] = []
        texts: list[str] = []
        for message in example.messages:
            content = message["content"]
            role = message["role"]
            texts.append(content)
            size = len(content)
            called = "bd " in content or "gt " in content
            for call in message.get("tool_calls") or ():
                text = _encode(call["function"]).decode()
                texts.append(text)
                size += len(text)
                called = called or any(name in text for name in _CALLS)
            seen.size += size
            if role == "assistant":
                seen.answers += size
            if role == "tool":
                continue
            if called:
                uses = staleness.find_uses(message, self.known)
                if uses.seen:
                    seen.commands += uses.seen
                    seen.stale += [(s, role == "assistant") for s in uses.stale]
            if len(prose) < 4 and role != "system" and content:
                prose.append(content)
        # One search through all of it: many small ones cost more.
        _look_for_replaced("\n".join(texts), seen)
        seen.language = language.guess_language(prose)
        return seen

    def _list_flags(self, e: Example, seen: _Seen) -> list[str]:
        flags = [
            f"stale {s.kind.removeprefix('unknown ')}: {s.what}"
            for s in dict.fromkeys(s for s, answer in seen.stale if answer)
        ]
        if seen.size > self.window:
            flags.append("over the window")
        elif seen.size > NEAR_WINDOW * self.window:
            flags.append("near the window")
        if seen.answers < LEAST_SUPERVISED * seen.size or not seen.answers:
            flags.append("few supervised characters")
        if seen.secrets:
            flags.append(f"secrets replaced: {sum(seen.secrets.values())}")
        if seen.secrets["suspect"]:
            flags.append("suspect of the second reader")
        if seen.language not in ("English", language.NONE):
            flags.append(f"language: {seen.language}")
        if e.role is None:
            flags.append("unknown role")
        if e.provenance in ("synthetic", "own"):
            flags.append(e.provenance)
        return flags

    def _count_labels(self, e: Example, side: str, seen: _Seen) -> None:
        role = e.role or "unknown"
        by = self._by[side]
        by["source"][e.source] += 1
        by["role"][role] += 1
        by["rig"][e.rig or "unknown"] += 1
        by["provenance"][e.provenance] += 1
        _add(by["actor"], e.actor or "unknown")
        by["outcome"][e.outcome or "none known"] += 1
        by["month"][e.started[:7] or "unknown"] += 1
        by["language"][seen.language] += 1
        for author in e.by:
            _add(by["made by"], author)
        self._clusters[side].add(e.cluster)
        stock = self._stocks.setdefault(role, Stock())
        if side == "train":
            self._cells.setdefault(e.source, Counter())[role] += 1
            stock.add(e, seen.size, seen.answers)
        else:
            stock.heldout += 1

    def _count_stale(self, seen: _Seen, side: str) -> None:
        self._commands += seen.commands
        if not seen.stale:
            return
        if any(answer for _, answer in seen.stale):
            self._stale_examples["answers"] += 1
            self._stale_examples[side] += 1
        else:
            self._stale_examples["prompts only"] += 1
        met: set[staleness.Stale] = set()
        for stale, answer in seen.stale:
            key = stale
            if key not in self._stale and len(self._stale) >= _MOST_NAMES:
                key = staleness.Stale(stale.kind, _OTHERS)
            counts = self._stale.setdefault(key, Counter())
            counts["uses"] += 1
            counts["in answers"] += answer
            counts["examples"] += key not in met
            met.add(key)

    def finish(self, flow: Sequence[dict[str, Any]], figures: Figures) -> dict[str, Any]:
        """The health report. Raises InternalError when a table does not add up or the sides share something."""
        train, heldout = (sum(self._by[s]["source"].values()) for s in SIDES)
        for row in flow:
            make_flow(row["stage"], row["in"], row["kept"], row["dropped"])
        leakage = dict(figures.leakage)
        shared = len(self._clusters["train"] & self._clusters["heldout"])
        leakage["shared clusters"] = max(shared, int(leakage.get("shared clusters", 0)))
        _refuse_leaks(leakage)
        health: dict[str, Any] = {
            "role": self.role,
            "examples": {
                "train": train,
                "heldout": heldout,
                "clusters": len(self._clusters["train"] | self._clusters["heldout"]),
                "clusters held out": len(self._clusters["heldout"]),
            },
            "by": {
                side: {
                    what: _sort_by_name(counts) if what == "month" else _sort(counts)
                    for what, counts in tables.items()
                }
                for side, tables in self._by.items()
            },
            "train by source and role": {s: _sort(c) for s, c in sorted(self._cells.items())},
            "licences": dict(sorted(figures.licences.items())),
            "canaries": dict(figures.canaries),
            **_describe_links(figures.tallies),
            "versions": _merge(figures.tallies, "versions"),
            "flow": list(flow),
            "redaction": self._describe_redaction(figures.suspects),
            "prose": {
                "blocks": 0,
                "characters": 0,
                "held out": 0,
                "left out as leak": 0,
                **figures.prose,
            },
            "duplicates": _list_duplicates(flow),
            "near-duplicate pairs": figures.near_duplicate_pairs,
            "length": self._describe_lengths(),
            "clipped": _describe_clipped(figures.tallies),
            "leakage": leakage,
            "staleness": self.describe_staleness(),
            "conflicts": _describe_conflicts(figures),
            "flags": _sort(self._flags),
            "drift": _gather(figures.tallies, "drift"),
            "bad rows": _gather(figures.tallies, "bad"),
        }
        health["imbalance"] = _describe_imbalance(health["by"]["train"]["role"])
        health["sufficiency"] = measure_stock(self._stocks, self.role)
        health["verdict"] = judge(health)
        health["words"] = write_words(health)
        return health

    def _describe_redaction(self, suspects: Mapping[str, int]) -> dict[str, Any]:
        distinct = Counter(value.partition(":")[0] for value in self._values)
        return {
            "secrets": dict(sorted(self._secrets.items())),
            "distinct": dict(sorted(distinct.items())),
            "personal": dict(sorted(self._personal.items())),
            "suspects by plugin": dict(sorted(suspects.items())),
        }

    def _describe_lengths(self) -> dict[str, Any]:
        if not self._sizes:
            return {}
        sizes = sorted(self._sizes)
        n, total = len(sizes), sum(sizes)
        at = {name: sizes[min(n - 1, int(int(name[1:]) / 100 * n))] for name in _LENGTHS}
        within = Counter(_find_window(s) for s in sizes)
        return {
            **at,
            "max": sizes[-1],
            "characters": total,
            "characters of answers": self._answers,
            "estimated tokens": total // CHARACTERS_PER_TOKEN,
            "fits": {str(w): sum(within[v] for v in WINDOWS if v <= w) for w in WINDOWS},
            "histogram": _make_histogram(sizes),
        }

    def describe_staleness(self) -> dict[str, Any]:
        """The report's ``staleness`` of what was added so far."""
        kinds: Counter[str] = Counter()
        for stale, counts in self._stale.items():
            kinds[stale.kind] += counts["uses"]
        most = sorted(
            self._stale.items(), key=lambda item: (-item[1]["examples"], -item[1]["uses"], item[0])
        )
        return {
            "asked": self.known.describe(),
            "commands seen": self._commands,
            "not known": sum(kinds.values()),
            "by kind": {k: kinds[k] for k in staleness.KINDS if kinds[k]},
            "training examples": self._stale_examples["train"],
            "examples in answers": self._stale_examples["answers"],
            "examples in prompts only": self._stale_examples["prompts only"],
            "most common": [
                {
                    "kind": stale.kind,
                    "what": stale.what,
                    "uses": counts["uses"],
                    "in answers": counts["in answers"],
                    "examples": counts["examples"],
                }
                for stale, counts in most[:_LISTED]
            ],
        }


def _look_for_replaced(text: str, seen: _Seen) -> None:
    """Placeholders and pseudonyms. Plain searches first: most texts hold none."""
    if "<SECRET:" in text:
        for kind, digest in _PLACEHOLDER.findall(text):
            seen.secrets[kind] += 1
            seen.values.add(f"{kind}:{digest}")
    for found in _USER.finditer(text):
        if found[1]:
            seen.personal["e-mail"] += 1
        elif text.endswith(_HOMES, 0, found.start()):
            seen.personal["home folder"] += 1
        else:
            seen.personal["name"] += 1
    if n := len(_HOST.findall(text)):
        seen.personal["host"] += n
    for address, kind in _ADDRESSES:
        if n := text.count(address):
            seen.personal[kind] += n


def _refuse_leaks(leakage: dict[str, Any]) -> None:
    leaks = {k: v for k, v in leakage.items() if isinstance(v, int) and v}
    if leaks:
        raise InternalError(
            "training and held-out examples are not apart",
            why=", ".join(f"{v} {k}" for k, v in sorted(leaks.items())),
            fix="please report this with the recipe's source list",
        )


def _add(counts: Counter[str], name: str) -> None:
    """Names come from files: a table of them stays bounded."""
    counts[name if name in counts or len(counts) < _MOST_NAMES else _OTHERS] += 1


def _sort(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _sort_by_name(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _merge(tallies: Mapping[str, Tally], table: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tally in tallies.values():
        total.update(tally.tables.get(table, Counter()))
    return dict(sorted(total.items()))


def _gather(tallies: Mapping[str, Tally], table: str) -> dict[str, dict[str, int]]:
    return {n: _sort_by_name(t.tables.get(table, Counter())) for n, t in sorted(tallies.items())}


def _describe_links(tallies: Mapping[str, Tally]) -> dict[str, dict[str, int]]:
    """Every conversation once: by what linked it, and why the rest ("none") is not linked."""
    linked, why = _merge(tallies, "linked by"), _merge(tallies, "unlinked")
    if silent := linked.get("none", 0):
        why[_NO_AGENT] = silent
    if why:
        linked["none"] = sum(why.values())
    return {"linked by": linked, "unlinked": why}


def _list_duplicates(flow: Iterable[dict[str, Any]]) -> dict[str, int]:
    """What was dropped because it was there already, by the reason that the flow gives."""
    found: Counter[str] = Counter()
    for row in flow:
        for why, n in row["dropped"].items():
            if any(word in why for word in _COPIES):
                found[why] += n
    return dict(sorted(found.items()))


def _describe_clipped(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    characters = _merge(tallies, "characters")
    lost = {k.removeprefix(_LEFT_OUT): n for k, n in characters.items() if k.startswith(_LEFT_OUT)}
    total = sum(lost.values())
    said = characters.get("said", 0)
    return {
        "characters": _sort(lost),
        "estimated tokens": total // CHARACTERS_PER_TOKEN,
        "share": round(total / (total + said), 4) if total + said else 0.0,
    }


def _describe_imbalance(roles: Mapping[str, int]) -> dict[str, Any]:
    known = {r: n for r, n in roles.items() if r != "unknown"}
    total = sum(known.values())
    if not total:
        return {"largest": "", "share": 0.0, "roles": 0}
    largest = min(known, key=lambda r: (-known[r], r))
    return {"largest": largest, "share": round(known[largest] / total, 4), "roles": len(known)}


def _describe_conflicts(figures: Figures) -> dict[str, Any]:
    found = figures.conflicts
    return {
        "questions": len(found),
        "dropped": sum(len(c.dropped) for c in found),
        "flagged": sum(len(c.flagged) for c in found),
        "reversals": sum(c.reversed for c in found)
        + sum(bool(r["reversed"]) for r in figures.rules),
        "shown": [show_conflict(c, figures.fetch) for c in _order(found)[:MOST_SHOWN]],
        "rules": [dict(r) for r in figures.rules[:MOST_SHOWN]],
        "rules in all": len(figures.rules),
    }


def _order(found: Sequence[Conflict]) -> list[Conflict]:
    """Reversals first, then what was decided, then what nothing decides; otherwise as found."""
    return sorted(found, key=lambda c: (not c.reversed, not c.dropped))


def _find_window(size: int) -> int:
    return next((w for w in WINDOWS if size <= w * CHARACTERS_PER_TOKEN), 0)


def _make_histogram(sizes: Sequence[int]) -> dict[str, int]:
    """Examples by power of two of their characters: "4096" counts 4,096 to 8,191."""
    counts = Counter(1 << max(s.bit_length() - 1, 0) for s in sizes)
    low, high = min(counts), max(counts)
    bins: dict[str, int] = {}
    while low <= high:
        bins[str(low)] = counts[low]
        low *= 2
    return bins
