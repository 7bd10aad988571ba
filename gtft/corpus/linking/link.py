"""Session → role, rig, actor, bead: what a file itself says about it, never the folder's slug.

What the town's records say is in `gtft.corpus.linking.town_record`; who is believed is decided in `gtft.corpus.linking.linker`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from msgspec.structs import replace

from gtft.corpus.example import Call, Conversation, Entry, Labels

# How sure a rung is by itself, in the order of the cascade. docs/corpus.md says why.
SURE = {
    "hook": 0.99,
    "events": 0.97,
    "prime": 0.97,
    "beacon": 0.95,
    "copied beacon": 0.6,
    "cwd": 0.85,
    "branch": 0.8,
    "agent name": 0.5,
    "costs": 0.7,
    "bead": 0.7,
    "commits": 0.6,
    "parent session": 0.9,
    "claim": 0.9,
    "commands": 0.75,
}
# What a file did not say, kept beside what it said, so that an unlinked session can be explained.
NOTES = ("no prompt", "no cwd", "cwd outside a town", "address not understood")

_TOWN_ROLES = frozenset({"mayor", "deacon", "boot"})
_RIG_ROLES = frozenset({"witness", "refinery"})
_NAMED = {"polecats": "polecat", "polecat": "polecat", "crew": "crew"}
_LONGEST_ADDRESS = 160
_ZONES = timedelta(hours=15)
_BEACON = re.compile(
    r"\[GAS TOWN\][ \t]{1,8}(?P<to>[^\n]{1,120}?)[ \t]{1,8}<-[ \t]{1,8}(?P<sender>[^\n•]{1,120}?)[ \t]{1,8}•"
    r"[ \t]{1,8}(?P<when>\S{1,40})[ \t]{1,8}•[ \t]{1,8}(?P<topic>[^\n]{1,200})"
)
# Inside a structured hook the brackets are left out.
_PRIME = re.compile(
    r"^[ \t]{0,8}\[?GAS TOWN\]?[ \t]{1,8}role:(?P<actor>\S{1,120})[ \t]{1,8}pid:\S{1,20}"
    r"[ \t]{1,8}session:(?P<session>\S{1,160})",
    re.M,
)
_NAME = re.compile(r"[\w][\w.-]{0,60}")
_NEW_SPELLING = re.compile(
    r"(?P<who>[\w-]+(?: [\w.-]+)?)(?:[ ]{1,4}\(rig:[ ]{0,4}(?P<rig>[\w.-]+)\))?"
)
_BEAD = re.compile(r"[a-z][a-z0-9]{0,15}(?:-[A-Za-z0-9_]{1,40}){1,6}(?:\.\d{1,6}){0,6}")
_BRANCH = re.compile(r"polecat/(?P<name>[\w.]+(?:-[\w.]+)*?)(?:/(?P<bead>[^@\s]{1,80})@\w+|-\w+)?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)
_LONGEST_COMMAND = 20_000
_FIRST_ENTRIES = 60
_STEP = re.compile(
    r"(?:^|[;&|\n(]\s{0,8})(?:bd|gt)[ \t]{1,4}(?P<verb>show|update|close|done)(?P<rest>[^\n;&|]{0,300})"
)


def read_bead(text: object) -> str | None:
    """A bead's id, or None: wisps and molecules are the town's own upkeep, not work."""
    if not isinstance(text, str) or not _BEAD.fullmatch(text):
        return None
    return None if text.startswith("mol-") or "-wisp-" in text else text


def parse_actor(text: str) -> Labels | None:
    """An address in either spelling (``rig/polecats/nux``, ``polecat nux (rig: rig)``), or None."""
    text = text.strip().strip("/")
    if len(text) > _LONGEST_ADDRESS:
        return None
    parts = text.split("/")
    if len(parts) > 1:
        return _parse_path_actor(parts) if all(map(_NAME.fullmatch, parts)) else None
    found = _NEW_SPELLING.fullmatch(text)
    if not found:
        return None
    rig = found["rig"]
    role, _, name = found["who"].partition(" ")
    if role in _TOWN_ROLES and not rig and not name:
        return Labels(role=role, actor=role)
    if role == "dog" and name:
        return _dog(name)
    if role in _RIG_ROLES and rig and not name:
        return Labels(role=role, rig=rig, actor=f"{rig}/{role}")
    if role in ("polecat", "crew") and name and rig:
        return _worker(rig, role, name)
    return None


def _dog(name: str) -> Labels:
    # gt keeps boot, the deacon's watchdog, among the dogs.
    if name == "boot":
        return Labels(role="boot", actor="boot")
    return Labels(role="dog", actor=f"deacon/dogs/{name}")


def _worker(rig: str, role: str, name: str) -> Labels:
    folder = "polecats" if role == "polecat" else "crew"
    return Labels(role=role, rig=rig, actor=f"{rig}/{folder}/{name}")


def _parse_path_actor(parts: list[str]) -> Labels | None:
    if parts[:2] == ["deacon", "dogs"] and len(parts) == 3:
        return _dog(parts[2])
    if parts == ["deacon", "boot"]:
        return _dog("boot")
    if len(parts) == 2 and parts[1] in _RIG_ROLES:
        return Labels(role=parts[1], rig=parts[0], actor="/".join(parts))
    if len(parts) == 3 and parts[1] in _NAMED:
        return _worker(parts[0], _NAMED[parts[1]], parts[2])
    return None


def parse_prime(text: str) -> Labels | None:
    """The line that ``gt prime`` prints: ``[GAS TOWN] role:<actor> pid:N session:<id>``."""
    return next((labels for labels, _ in _list_primes(text)), None)


def _list_primes(text: str) -> Iterator[tuple[Labels, str]]:
    """Each prime line and the session that it names."""
    if "GAS TOWN" not in text:
        return
    for found in _PRIME.finditer(text):
        if labels := parse_actor(found["actor"]):
            yield replace(labels, rung="prime", confidence=SURE["prime"]), found["session"]


def parse_beacon(text: str) -> Labels | None:
    """The beacon that opens a first prompt; its topic may name the bead."""
    found = _find_beacon(text)
    labels = parse_actor(found["to"]) if found else None
    if found is None or labels is None:
        return None
    bead = read_bead(found["topic"].strip().partition(":")[2].strip())
    return replace(labels, rung="beacon", bead=bead, confidence=SURE["beacon"])


def _find_beacon(text: str) -> re.Match[str] | None:
    return _BEACON.match(text[:2000].lstrip())


def parse_cwd(cwd: str) -> Labels | None:
    """A working folder below a town: ``<rig>/polecats/<n>``, ``<rig>/witness``, ``mayor`` …"""
    parts = list(PurePosixPath(cwd.replace("\\", "/")[:4096]).parts)
    for i in range(len(parts) - 1, 1, -1):
        part, before = parts[i], parts[i - 1]
        if before in ("home", "Users", "/"):
            return None
        following = parts[i + 1 :]
        found: Labels | None = None
        if part in _NAMED and part != "polecat" and following:
            found = parse_actor(f"{before}/{part}/{following[0]}")
        elif part in _RIG_ROLES and following in ([], ["rig"]):
            found = parse_actor(f"{before}/{part}")
        elif part == "dogs" and before == "deacon" and following:
            found = _dog(following[0])
        elif (part == "mayor" and following in ([], ["rig"])) or (
            part == "deacon" and not following
        ):
            found = Labels(role=part, actor=part)
        if found:
            return replace(found, rung="cwd", confidence=SURE["cwd"])
    return None


def parse_branch(branch: str) -> tuple[str, str | None] | None:
    """A polecat's branch ``polecat/<name>/<bead>@<time>`` or ``polecat/<name>-<time>``: name and bead."""
    found = _BRANCH.fullmatch(branch[:300])
    return (found["name"], read_bead(found["bead"])) if found else None


def gather(
    texts: Sequence[str],
    cwd: str | None,
    agent_name: str | None,
    session: str | None = None,
    started: str = "",
) -> tuple[Labels, ...]:
    """Every rung that a file itself gives, in the order of the cascade: prime, beacon, cwd, agent name.

    ``texts`` are the first user texts of the session, harness text included. ``session`` and ``started``
    (ISO 8601) tell copies: a fork starts with the prompts of its original, so a prime line of another
    session is passed over, and a beacon of another time comes after the folder, less sure.
    At the end stand notes (`NOTES`) about what the file does not say: labels without a role.
    """
    primes = [p for t in texts for p in _list_primes(t)]
    exact = [p for p, named in primes if named == session]
    # An id made of a process id may be anybody's.
    loose = [p for p, named in primes if not (session and _UUID.fullmatch(named))]
    prime = next(iter(exact or loose), None)
    text = next((t for t in texts if parse_beacon(t)), "")
    beacon = parse_beacon(text)
    copied = bool(primes and not prime) or (beacon is not None and _is_older(text, started))
    if beacon and copied:
        beacon = replace(beacon, bead=None, confidence=SURE["copied beacon"])
    if prime and copied and not exact:
        prime = replace(prime, confidence=SURE["copied beacon"])
    place = parse_cwd(cwd) if cwd else None
    name = parse_actor(agent_name) if agent_name else None
    if name:
        name = replace(name, rung="agent name", confidence=SURE["agent name"])
    notes = []
    if not any(t.strip() for t in texts):
        notes.append("no prompt")
    if not cwd:
        notes.append("no cwd")
    elif place is None:
        notes.append("cwd outside a town")
    if not primes and not beacon and any(t.lstrip().startswith("[GAS TOWN]") for t in texts):
        notes.append("address not understood")
    order = (prime, beacon, place, name)
    if copied:
        order = (prime, place, beacon, name) if exact else (place, prime, beacon, name)
    return tuple(c for c in order if c is not None) + tuple(Labels(rung=n) for n in notes)


def _is_older(text: str, started: str) -> bool:
    """Whether a beacon is from another time than the session. It is local, without a zone: ± 15 hours."""
    found = _find_beacon(text)
    try:
        written = datetime.fromisoformat(found["when"]) if found else None
        begun = datetime.fromisoformat(started)
    except ValueError:
        return False
    if written is None:
        return False
    return abs(written.replace(tzinfo=None) - begun.replace(tzinfo=None)) > _ZONES


def complete(talk: Conversation) -> Conversation:
    """A conversation whose evidence also has what its entries show: a prime line that ``gt prime`` printed
    for this very session, and the bead that it works on (`find_claim`)."""
    evidence = talk.evidence
    found = evidence.candidates
    if not evidence.parent and all(c.rung != "prime" for c in found):
        prime = _find_printed_prime(talk.entries, evidence.session or "")
        found = (prime, *found) if prime else found
    claim = find_claim(talk.entries)
    if claim:
        found = (*found, claim)
    if found is evidence.candidates:
        return talk
    return replace(talk, evidence=replace(evidence, candidates=found))


def _find_printed_prime(entries: Sequence[Entry], session: str) -> Labels | None:
    asked = set()
    for e in entries[:_FIRST_ENTRIES]:
        asked.update([c.id for c in e.calls if "gt prime" in _read_command(c)])
        if e.kind != "result" or "GAS TOWN" not in e.text:
            continue
        for labels, named in _list_primes(e.text[:_LONGEST_COMMAND]):
            # A log may show anybody's line.
            if named == session or (e.call_id in asked and not _UUID.fullmatch(named)):
                return labels
    return None


def find_claim(entries: Iterable[Entry]) -> Labels | None:
    """The one bead that the session itself works on, by its own commands; the rung says how that was seen.

    ``claim``: it claims one (``bd update ID --claim``). ``commands``: it claims none, but closes one, or
    looks at one. None when it names several: then no one bead is what the session is about.
    """
    named: dict[str, set[str]] = {"claim": set(), "close": set(), "show": set()}
    for entry in entries:
        for call in entry.calls:
            command = _read_command(call)
            if "bd " in command or "gt " in command:
                for step, bead in _list_steps(command):
                    named[step].add(bead)
    step = next((n for n in ("claim", "close", "show") if named[n]), "")
    if not step or len(named[step]) != 1:
        return None
    rung = "claim" if step == "claim" else "commands"
    return Labels(bead=named[step].pop(), rung=rung, confidence=SURE[rung])


def _read_command(call: Call) -> str:
    command = call.arguments.get("command") or call.arguments.get("cmd")
    if isinstance(command, list):
        # What a shell is called with: the last word is the command.
        command = command[-1] if command else ""
    return command[:_LONGEST_COMMAND] if isinstance(command, str) else ""


def _list_steps(command: str) -> Iterator[tuple[str, str]]:
    for found in _STEP.finditer(command):
        verb, rest = found["verb"], found["rest"]
        words = rest.split()
        if verb == "done":
            words = words[words.index("--issue") + 1 :] if "--issue" in words else []
        bead = read_bead(words[0]) if words else None
        if bead is None:
            continue
        if verb == "update":
            if "--claim" in words or "in_progress" in rest:
                yield "claim", bead
        else:
            yield ("show" if verb == "show" else "close"), bead
