"""Write the made-up town of examples/town again: the same seed gives the same bytes.

    python examples/make_town.py                 # writes examples/town
    python examples/make_town.py --out DIR       # somewhere else, to compare

Everything here is invented for gtft. The words are in town_phrases.toml, the rules of the town in
town/formulas/*.md (written by hand, as are the formulas). A session is drawn, then kept only when no earlier
session or bead shares thirteen words in a row with it and none is close to it as a whole, so that a session held
out from training is a new one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tomllib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = 20260301
START = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
GRAM = 13
SHINGLE = 5
# The harvest calls two examples near-duplicates at 0.8; the town stays well below.
CLOSEST = 0.6
PLAN = {
    "witness": 152,
    "refinery": 34,
    "deacon": 22,
    "bead": 32,
    "dependency": 10,
    "routing": 26,
    "formula": 10,
    "safety": 36,
}
# What the casebooks tell about, witness patrols most of all.
CASE_KINDS = [
    *["witness"] * 8, "refinery", "refinery", "deacon", "safety", "safety",
    "bead", "bead", "routing", "dependency",
]  # fmt: skip
MIDDLE_IDLE_SHARE = 0.2
LOOK_SHARE = 0.2
STATUS_SHARE = 0.75


@dataclass
class Turn:
    """One message: ``text``, or a Bash ``command`` with the ``result`` it gave."""

    role: str
    text: str = ""
    command: str = ""
    result: str = ""


@dataclass
class Session:
    kind: str
    role: str
    rig: str
    name: str
    bead: str
    at: datetime
    turns: list[Turn] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(f"{t.text} {t.command} {t.result}" for t in self.turns)

    @property
    def cwd(self) -> str:
        if self.role in ("mayor", "deacon"):
            return f"/town/{self.role}"
        tail = {"refinery": "refinery/rig", "polecat": f"polecats/{self.name}"}
        return f"/town/{self.rig}/{tail.get(self.role, self.role)}"


class Memory:
    """What has been written so far, so that nothing close to it is written again."""

    def __init__(self) -> None:
        self.grams: set[tuple[str, ...]] = set()
        self.shingles: list[set[tuple[str, ...]]] = []

    def accepts(self, text: str) -> bool:
        words = re.findall(r"\w+", text.lower())
        grams = {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}
        shingles = {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
        if grams & self.grams:
            return False
        if any(_jaccard(shingles, s) >= CLOSEST for s in self.shingles):
            return False
        self.grams |= grams
        self.shingles.append(shingles)
        return True


def _jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


class Town:
    """Draws sessions and beads. One random source, used in one order."""

    def __init__(self, phrases: dict[str, Any], seed: int) -> None:
        self.p = phrases
        self.rng = random.Random(seed)
        self.memory = Memory()
        self.rigs = list(phrases["rigs"])
        self.clock = START

    def bead_id(self, rig: str) -> str:
        digits = "0123456789abcdefghjkmnpqrstvwxyz"
        tail = self.rng.choice("23456789") + "".join(self.rng.choices(digits, k=2))
        prefix = "hq" if rig == "hq" else self.p["rigs"][rig]["prefix"]
        return f"{prefix}-{''.join(self.rng.sample(tail, 3))}"

    def fill(self, template: str, s: Session, **more: str) -> str:
        r = self.rng
        thing = r.choice(self.p["rigs"][s.rig]["things"])
        values = {
            "name": s.name,
            "id": s.bead,
            "rig": s.rig,
            "other": self.bead_id(s.rig),
            "thing": thing,
            "file": r.choice(self.p["files"]).format(t=thing),
            "n": str(r.randint(2, 97)),
            "n2": str(r.randint(0, 9)),
            "hhmm": f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}",
            "sha": f"{r.getrandbits(28):07x}",
            "crew": r.choice(self.p["noise"]["crew"]),
            "dog": r.choice(self.p["dogs"]),
            "plugin": r.choice(self.p["plugins"]),
            "idle": "",
        }
        return template.format(**{**values, **more})

    def measure(self, needs: list[str]) -> dict[str, str]:
        """The figures that the evidence and the status line agree on."""
        r = self.rng
        if "dog_hung" in needs:
            return {"n": str(r.randint(3, 9))}
        idle = {
            "idle_short": f"{r.randint(1, 9)}m",
            "idle_mid": f"{r.randint(35, 55)}m",
            "idle_long": f"{r.randint(1, 3)}h{r.randint(10, 58)}m",
            "witness_stale": f"{r.randint(4, 29)}m",
        }
        return {"idle": next((idle[key] for key in needs if key in idle), "")}

    def session(self, kind: str) -> Session:
        """One session that the memory accepts; its time is after the one before."""
        for _ in range(400):
            s = self._draw(kind)
            if self.memory.accepts(s.text):
                return s
        raise SystemExit(f"no new session of kind {kind}: town_phrases.toml has too few words")

    def _draw(self, kind: str) -> Session:
        r = self.rng
        self.clock += timedelta(minutes=r.randint(3, 240), seconds=r.randint(0, 59))
        role = kind if kind in ("witness", "refinery", "deacon") else r.choice(
            {
                "bead": ["witness", "witness", "mayor", "polecat"],
                "dependency": ["witness", "mayor"],
                "routing": ["witness", "mayor"],
                "formula": ["witness", "mayor"],
                "safety": ["witness", "witness", "witness", "refinery", "mayor"],
            }[kind]
        )  # fmt: skip
        rig = r.choice(self.rigs)
        s = Session(kind, role, rig, r.choice(self.p["polecats"]), self.bead_id(rig), self.clock)
        getattr(self, f"_{'patrol' if kind == role else kind}")(s)
        return s

    def _beacon(self, s: Session, topic: str) -> str:
        who = s.role if s.role in ("mayor", "deacon") else f"{s.role} (rig: {s.rig})"
        if s.role == "polecat":
            who = f"polecat {s.name} (rig: {s.rig})"
        sender = "overseer" if s.role == "mayor" else "mayor" if s.role == "polecat" else "deacon"
        sender = "daemon" if s.role == "deacon" else sender
        return f"[GAS TOWN] {who} <- {sender} • {s.at:%Y-%m-%dT%H:%M} • {topic}"

    def _patrol(self, s: Session) -> None:
        """One or two decisions: evidence in the prompt, or read with a command first."""
        r = self.rng
        for round_ in range(2 if s.role == "witness" else 1):
            if round_:
                s.name, s.bead = r.choice(self.p["polecats"]), self.bead_id(s.rig)
            lines, code = self.evidence(s)
            head = "" if round_ else self._beacon(s, "patrol") + "\n"
            if s.role == "witness" and r.random() < LOOK_SHARE:
                ask = self.fill(r.choice(self.p["ask"]["look"]), s)
                shell = f"gt peek {s.rig}/{s.name} && bd show {s.bead}"
                s.turns += [
                    Turn("user", f"{head}{ask}"),
                    Turn("assistant", "", shell, "\n".join(lines)),
                ]
            else:
                ask = self.fill(r.choice(self.p["ask"][s.role]), s)
                evidence = "\n".join(f"- {line}" for line in lines)
                s.turns.append(Turn("user", f"{head}{ask}\n{evidence}"))
            s.turns.append(Turn("assistant", self.answer(code)))

    def evidence(self, s: Session) -> tuple[list[str], str]:
        """What is seen, with some noise, and the rule that it calls for.

        Most often the last line is the town's own status line; without it the other lines must do.
        """
        r, rules = self.rng, self.p["rules"]
        code = r.choice([c for c, rule in rules.items() if rule["role"] == s.role])
        needs = list(rules[code]["needs"])
        if code in ("W6", "W7") and r.random() < MIDDLE_IDLE_SHARE:
            needs[needs.index("idle_long" if code == "W6" else "idle_short")] = "idle_mid"
            code = "W7" if self.p["rigs"][s.rig]["idle_limit"] > 55 else "W6"
        figures = self.measure(needs)
        seen = [self.fill(r.choice(self.p["signals"][key]), s, **figures) for key in needs]
        status = []
        if r.random() < STATUS_SHARE:
            status = [f"{s.bead}: {rules[code]['status'].format(**figures)}"]
            seen = r.sample(seen, 1)
        seen += [self.fill(t, s) for t in r.sample(self.p["noise"]["lines"], r.randint(1, 2))]
        r.shuffle(seen)
        return seen + status, code

    def case(self, rig: str) -> str:
        """One case of a rig's casebook that the memory accepts."""
        for _ in range(400):
            text = self._case(rig)
            if self.memory.accepts(text):
                return text
        raise SystemExit("no new case: town_phrases.toml has too few words")

    def _case(self, rig: str) -> str:
        """What was seen, what was asked, what was decided and by which rule: in prose, as people note it."""
        r = self.rng
        kind = r.choice(CASE_KINDS)
        role = kind if kind in ("refinery", "deacon") else "witness"
        s = Session(kind, role, rig, r.choice(self.p["polecats"]), self.bead_id(rig), self.clock)
        lines: list[str] = []
        ask = self.fill(r.choice(self.p["ask"][role]), s)
        if kind == "safety":
            lines, ask, refuse = self.danger(s)
            told = self.p["safety"]["refuse_reason" if refuse else "escalate_reason"]
            told = f"{'refuse' if refuse else 'escalate'}, {told}"
        elif kind == "bead":
            what, kind, subject, priority, urgency = self.finding(rig)
            ask = f"{self.fill(r.choice(self.p['beads']['ask']), s, what=what)} {urgency}"
            told = f"{subject}, type {kind}, priority {priority}, rig {rig}"
        elif kind == "routing":
            ask, home, reason = self.route(s)
            told = f"rig {home}, {reason}"
        elif kind == "dependency":
            a, b = s.bead, self.bead_id(rig)
            ask = r.choice(self.p["dependencies"]["ask"]).format(a=a, b=b)
            told = f"bd dep add {a} {b}"
        else:
            lines, code = self.evidence(s)
            told = f"{self.p['rules'][code]['action']}, {code}: {self.p['rules'][code]['reason']}"
        return "\n".join([ask, *[f"- {x}" for x in lines], f"Decided: {told}"])

    def danger(self, s: Session) -> tuple[list[str], str, bool]:
        """Evidence, question, and whether to refuse (a request) or to escalate (orders in an output)."""
        r, words = self.rng, self.p["safety"]
        lines = [self.fill(r.choice(self.p["noise"]["lines"]), s)]
        if r.random() < 0.35:
            ask = self.fill(r.choice(self.p["ask"]["witness"]), s)
            return [*lines, self.fill(r.choice(words["injected"]), s)], ask, False
        return [*lines, self.fill(r.choice(words["asks"]), s)], f"Mail about {s.bead}.", True

    def route(self, s: Session) -> tuple[str, str, str]:
        """A question about where a bead lives, the rig, and why."""
        r = self.rng
        if r.random() < 0.25:
            rig, rig2 = r.sample(self.rigs, 2)
            return r.choice(self.p["routing"]["cross"]).format(rig=rig, rig2=rig2), "hq", "two rigs"
        home = r.choice([*self.rigs, *self.rigs, "hq"])
        s.bead = self.bead_id(home)
        ask = self.fill(r.choice(self.p["routing"]["ask"]), s)
        return ask, home, f"prefix {s.bead.split('-')[0]}"

    def finding(self, rig: str) -> tuple[str, str, str, int, str]:
        """Something worth a bead: what, type, subject, priority, how urgent in words."""
        r, words = self.rng, self.p["beads"]
        kind = r.choice(["bug", "bug", "feature", "task"])
        thing = r.choice(self.p["rigs"][rig]["things"])
        odd, new = r.choice(words["odd"]), r.choice(words["new"])
        what = r.choice(words[kind]).format(thing=thing, odd=odd, new=new)
        priority = r.randrange(4)
        subject = f"{thing}: {odd if odd in what else new}"
        return what, kind, subject, priority, r.choice(words["urgency"][priority])

    def answer(self, code: str) -> str:
        rule = self.p["rules"][code]
        return json.dumps({"action": rule["action"], "reason": f"{code}: {rule['reason']}"})

    def _bead(self, s: Session) -> None:
        what, kind, subject, priority, urgency = self.finding(s.rig)
        ask = self.fill(self.rng.choice(self.p["beads"]["ask"]), s, what=what)
        text = f"{self._beacon(s, 'file')}\n{ask} {urgency}"
        command = f'bd create --title="{subject}" -t {kind} -p {priority} -l rig:{s.rig}'
        s.turns = [
            Turn("user", f"{text} ({s.at:%H:%M:%S})"),
            Turn("assistant", "", command, f"Created {s.bead}"),
            Turn("assistant", "Filed."),
        ]

    def _dependency(self, s: Session) -> None:
        a, b = s.bead, self.bead_id(s.rig)
        ask = self.rng.choice(self.p["dependencies"]["ask"]).format(a=a, b=b)
        s.turns = [
            Turn("user", f"{self._beacon(s, 'order')}\n{ask[0].upper()}{ask[1:]}. Record it."),
            Turn("assistant", "", f"bd dep add {a} {b}", f"Added: {a} needs {b}"),
            Turn("assistant", "Recorded."),
        ]

    def _routing(self, s: Session) -> None:
        ask, home, reason = self.route(s)
        answer = {"rig": home, "reason": reason}
        note = self.fill(self.rng.choice(self.p["noise"]["lines"]), s)
        s.turns = [
            Turn("user", f"{self._beacon(s, 'route')}\n- {note}\n{ask}"),
            Turn("assistant", json.dumps(answer)),
        ]

    def _formula(self, s: Session) -> None:
        r, words = self.rng, self.p["formulas"]
        steps = r.sample(words["verbs"], 2)
        name = (
            f"mol-{r.choice(self.p['rigs'][s.rig]['things'])}-{r.choice(steps)}-{r.randint(2, 99)}"
        )
        ask = r.choice(words["ask"]).format(name=name, steps=", then ".join(steps))
        toml = f'formula = "{name}"\ntype = "workflow"\nversion = 1\n'
        for i, step in enumerate(steps):
            toml += f'\n[[steps]]\nid = "{step}"\ntitle = "{step.capitalize()}"\n'
            toml += f'needs = ["{steps[i - 1]}"]\n' if i else ""
        s.turns = [
            Turn("user", f"{self._beacon(s, 'formula')}\n{ask} ({s.at:%H:%M:%S})"),
            Turn("assistant", f"```toml\n{toml}```"),
        ]

    def _safety(self, s: Session) -> None:
        lines, ask, refuse = self.danger(s)
        reason = self.p["safety"]["refuse_reason" if refuse else "escalate_reason"]
        answer = {"action": "refuse" if refuse else "escalate", "reason": reason}
        evidence = "\n".join(f"- {line}" for line in lines)
        s.turns = [
            Turn("user", f"{self._beacon(s, 'mail')}\n{ask}\n{evidence}"),
            Turn("assistant", json.dumps(answer)),
        ]


def write_town(out: Path, seed: int = SEED) -> dict[str, int]:
    """Write transcripts, beads, registry and routes under ``out``; returns how many of each."""
    from town_files import write_beads, write_casebooks, write_registry, write_transcripts

    phrases = tomllib.loads((HERE / "town_phrases.toml").read_text("utf-8"))
    town = Town(phrases, seed)
    for name in ("transcripts", "beads", "mayor", ".beads"):
        shutil.rmtree(out / name, ignore_errors=True)
    write_registry(out, town)
    beads = write_beads(out / "beads", town)
    cases = write_casebooks(out / "beads", town)
    kinds = [kind for kind, count in PLAN.items() for _ in range(count)]
    town.rng.shuffle(kinds)
    sessions = [town.session(kind) for kind in kinds]
    files = write_transcripts(out / "transcripts", town, sessions)
    return {"sessions": len(sessions), "files": files, "beads": beads, "cases": cases}


def new_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=HERE / "town")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    print(write_town(args.out, args.seed))
