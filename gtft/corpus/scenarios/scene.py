"""What all scenarios share: the dice, the names, and how a case becomes turns.

A fixed run of words stays shorter than a phrase of `gtft.corpus.partition.overlap` wherever it can: what stands in
few examples then ties no two of them together.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import xxhash

from gtft.corpus.example import Call, Entry
from gtft.corpus.scenarios.names import TownNames
from gtft.corpus.scenarios.words import ENDS, PEOPLE, RIGS, THINGS, VERBS

T = TypeVar("T")

TOWN_ROLES = ("mayor", "deacon", "dog")
RIG_ROLES = ("witness", "refinery", "polecat", "crew")
ROLES = (*TOWN_ROLES, *RIG_ROLES)
MORNING = datetime(2026, 1, 5, 6, 0)

_ID = string.ascii_lowercase + string.digits


class Rig(NamedTuple):
    name: str
    prefix: str


class Act(NamedTuple):
    """A command that carries the answer out, what it prints, and what is said after it (else: the answer)."""

    command: str
    output: str
    says: str = ""


@dataclass(frozen=True)
class Case:
    """One decision. ``answer`` is the computed one with names left out, ``state`` what it was computed from:
    cases of one family and state are one case in other words."""

    family: str
    state: tuple[Any, ...]
    answer: str
    role: str
    rig: str | None
    entries: tuple[Entry, ...]

    @property
    def link(self) -> str:
        return f"scenario:{self.family}:{xxhash.xxh3_64_hexdigest(repr(self.state).encode())}"


_SENDERS = ("mayor", "deacon", "daemon", "overseer")


class Scene:
    """The dice of one example, with the names it has drawn. ``turn`` counts a family's examples from 0."""

    def __init__(self, rng: random.Random, names: TownNames, turn: int) -> None:
        self.rng = rng
        self.turn = turn
        self.own = bool(names.prefixes)
        self._taken: set[str] = set()
        self._polecats = names.polecats
        self.now = MORNING + timedelta(minutes=rng.randrange(500_000))
        known = sorted((rig, p.rstrip("-")) for p, rig in names.prefixes.items() if rig != "hq")
        if known:
            rigs = [Rig(*k) for k in rng.sample(known, min(len(known), rng.randint(3, 5)))]
        else:
            rigs = self._make_rigs(rng.randint(3, 5))
        self.rigs: tuple[Rig, ...] = tuple(rigs)
        self.rig = rigs[0]

    def leave_town(self) -> None:
        """From here on all rigs are made up."""
        self.own = False
        self.rigs = tuple(self._make_rigs(self.rng.randint(3, 5)))
        self.rig = self.rigs[0]

    def _make_rigs(self, count: int) -> list[Rig]:
        rigs: list[Rig] = []
        used = {"hq"}
        for name in self.rng.sample(RIGS, count):
            prefix = name[0] + self.rng.choice(name[1:]) + self.rng.choice(("", "", name[-1]))
            if prefix not in used:
                used.add(prefix)
                rigs.append(Rig(name, prefix))
        return rigs

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def bead(self, rig: Rig | None = None) -> str:
        """A bead id that no other of this scene has."""
        prefix = (rig or self.rig).prefix
        while True:
            found = f"{prefix}-{''.join(self.rng.choices(_ID, k=self.rng.randint(3, 5)))}"
            if found not in self._taken:
                self._taken.add(found)
                return found

    def people(self, count: int) -> list[str]:
        """Different names of polecats."""
        if len(self._polecats) >= count and self.chance(0.7):
            return self.rng.sample(self._polecats, count)
        return self.rng.sample(PEOPLE, count)

    def title(self) -> str:
        return f"{self.pick(VERBS)} the {self.pick(THINGS)} {self.pick(THINGS)} {self.pick(ENDS)}"

    def thing(self) -> str:
        return f"{self.pick(THINGS)} {self.pick(THINGS)}"

    def word(self) -> str:
        return self.pick(THINGS)

    def commit(self) -> str:
        return f"{self.rng.randrange(16**7):07x}"

    def introduce(self, role: str, name: str, topic: str) -> str:
        """Who is spoken to, and when."""
        who, at = write_actor(role, self.rig.name, name), self.now.strftime("%Y-%m-%d %H:%M")
        n = self.rng.randrange(6)
        if n < 2:
            rig = "" if role in TOWN_ROLES else f" (rig: {self.rig.name})"
            called = f" {name}" if role in ("polecat", "crew", "dog") else ""
            sender = self.pick([s for s in _SENDERS if s != role])
            return f"[GAS TOWN] {role}{called}{rig} <- {sender} • {at.replace(' ', 'T')} • {topic}"
        if n == 2:
            return f"You are {who}. It is {at}."
        if n == 3:
            return f"{at}, {who}:"
        if n == 4:
            return f"role {role}, address {who}, clock {at}"
        return f"To: {who}\nTime: {at}\nAbout: {topic}"


def write_actor(role: str, rig: str, name: str) -> str:
    """The address of an agent, as BD_ACTOR has it."""
    if role in ("mayor", "deacon"):
        return role
    if role == "dog":
        return f"deacon/dogs/{name}"
    return f"{rig}/{role}" if role in ("witness", "refinery") else f"{rig}/{PLACE[role]}/{name}"


PLACE = {"polecat": "polecats", "crew": "crew"}

# Longer ones could be cut by a harvest, and the answer would no longer follow.
_LONGEST_PRINTED = 1500
_WITHOUT = ("json", "json", "text")
_WITH_DEEDS = (*_WITHOUT, "act", "act")
_JSON = (
    "Answer as one JSON object with the keys {}.",
    "One JSON object, nothing else: {}.",
    "Reply in JSON ({}).",
    "JSON only. Keys: {}.",
    "I read the answer with a program: JSON, keys {}.",
)
_TEXT = (
    "Say it in a sentence.",
    "A short answer will do.",
    "Tell me, and why.",
    "Answer in plain words.",
    "What do you say?",
    "Short, with the reason.",
)
_ACT = (
    "Do it.",
    "Then do it yourself.",
    "Go ahead and run what is needed.",
    "Carry it out.",
    "Run the command for it.",
    "Act on it now.",
)
_LOOK = (
    "Look first.",
    "Look it up before you answer.",
    "I have not looked; you do.",
    "Check the present state.",
    "The state is yours to read.",
)


def compose(
    scene: Scene,
    opening: str,
    state: str,
    question: str,
    fields: Mapping[str, Any],
    sentence: str,
    *,
    look: str = "",
    act: Act | None = None,
    deeds: bool = False,
) -> tuple[Entry, ...]:
    """A case as turns: asked for as JSON, in words or as a deed; the state given, or looked up by ``look``.

    ``deeds``: a deed is asked for even where there is nothing to do, or the asking would tell the answer.
    """
    looks = bool(look) and len(state) <= _LONGEST_PRINTED and scene.chance(0.35)
    form = scene.pick(_WITH_DEEDS if act or deeds else _WITHOUT)
    if form == "json":
        how = scene.pick(_JSON).format(", ".join(fields))
        answer = json.dumps(fields, ensure_ascii=False)
    else:
        how = scene.pick(_ACT if form == "act" else _TEXT)
        answer = sentence
    parts = [opening, question, scene.pick(_LOOK)] if looks else [opening, state, question]
    if not looks and scene.chance(0.3):
        parts[1:] = [question, state]
    prompt = scene.pick(("\n\n", "\n")).join([*parts, how])
    turns = [Entry("user", 1, prompt, by="harness")]
    steps = [Act(look, state)] if looks else []
    if form == "act" and act:
        steps.append(act)
        answer = act.says or sentence
    for n, step in enumerate(steps, 1):
        call = Call(f"c{n}", "Bash", {"command": step.command})
        turns.append(Entry("assistant", len(turns) + 1, "", f"r{n}", (call,), model=AUTHOR))
        turns.append(Entry("result", len(turns) + 1, step.output, call_id=call.id))
    turns.append(Entry("assistant", len(turns) + 1, answer, "last", model=AUTHOR))
    return tuple(turns)


AUTHOR = "scenarios"
