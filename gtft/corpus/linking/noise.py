"""What a town's machinery says to its agents, by rule: heartbeats, nudges, mail notices, patrols of nothing.

Such a turn is no work: with an answer that does nothing it goes, and a session of nothing else goes whole.
A nudge that asks for something is work, and stays as the harness's word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from gtft.corpus.example import Entry
from gtft.corpus.tally import Tally

_LONGEST_NOTICE = 600
_SENDER = re.compile(r"^\[(?:URGENT )?from [^\]\n]{1,80}\][ \t]{0,4}")
# What a text is by its beginning, in lower case.
_NOTICES = (
    ("mail notice", ("📬", "you have new mail", "you have mail", "new mail from")),
    ("heartbeat", ("health_check", "heartbeat", "gupp_check")),
    (
        "lifecycle notice",
        (
            "polecat_done", "polecat_started", "polecat dispatched", "polecat spawned", "merge_ready",
            "work_done", "start_work", "lifecycle:", "new mr available", "convoy_needs_feeding",
            "e-stop cleared", "queued nudge",
        ),
    ),
    (
        "nudge",
        (
            "still working", "are you still", "are you there", "are you alive", "are you stuck", "you there",
            "any progress", "any update", "status?", "status update?", "how's it going", "how is it going",
            "continue", "keep going", "go on", "proceed", "wake up", "check your hook", "check your mail",
            "ping", "nudge",
        ),
    ),
    ("patrol", ("run `gt boot triage`", "run your patrol", "continue patrol", "patrol")),
)  # fmt: skip
# What is longer than this says more than its kind.
_MOST_WORDS = {"nudge": 14, "patrol": 14, "heartbeat": 14}
_LONGEST_REPLY = 400
# A start text is no longer than so many words, and says one of these.
_MOST_START = 80
_BEGIN = ("gt prime", "gt hook", "your hook", "patrol", "gt mail")
# Calls that look and change nothing.
_LOOKS = re.compile(
    r"(?:gt (?:hook|prime|mail (?:inbox|check|read)|status|peek|feed|patrol (?:scan|status|report|new)|rig"
    r" (?:list|status)|polecat list|mq list|refinery (?:queue|status|ready)|dog list|convoy (?:list|status)"
    r"|boot (?:status|triage)|health|deacon heartbeat|escalate list|agents|witness status)"
    r"|bd (?:ready|list|show|stats|mol (?:current|status)|blocked|gate list)"
    r"|git (?:status|log|fetch)|sleep|date|pwd|ls|echo|tmux (?:ls|list-sessions|has-session|capture-pane))"
    r"(?:\s[^\n;&|]{0,300})?"
)
_WRITES = re.compile(r"[>`]|\$\(")
_PARTS = re.compile(r"&&|\|\||[;|\n]")
_LONGEST_COMMAND = 4000


def name_notice(text: str) -> str:
    """What kind of notice a user text is: "heartbeat", "nudge", "mail notice" …; "" when it is none."""
    if len(text) > _LONGEST_NOTICE:
        return ""
    text = text.strip()
    said = _SENDER.sub("", text).lower().lstrip("*_#> ")
    for kind, beginnings in _NOTICES:
        if said.startswith(beginnings):
            most = _MOST_WORDS.get(kind)
            return kind if most is None or len(said.split()) <= most else ""
    return ""


def sift(entries: Sequence[Entry], tally: Tally) -> tuple[Entry, ...]:
    """The entries without notices that were answered with nothing, and without answers that were taken back.

    A town's notice that set work going stays, as the harness's word. A branch that was taken back as a whole
    stays too: its outcome says so. Table ``turns dropped`` (by reason, in entries).
    """
    taken = [e for e in entries if e.kind == "assistant"]
    back = {e.response for e in taken if e.mark == "rewound"}
    if len(back) == len({e.response for e in taken}):
        back = set()
    if not back and not any(e.kind == "user" and name_notice(e.text) for e in entries):
        return tuple(entries)
    kept: list[Entry] = []
    for episode in _split_episodes(entries):
        first = episode[0]
        kind = name_notice(first.text) if first.kind == "user" else ""
        if kind and not _does_something(episode):
            tally.add("turns dropped", f"noise: {kind}", len(episode))
            continue
        if kind and _is_towns(first.text, kind):
            episode[0] = replace(first, by="harness")
        calls = {c.id for e in episode if e.response in back for c in e.calls}
        for e in episode:
            if (e.kind == "assistant" and e.response in back) or (e.call_id and e.call_id in calls):
                tally.add("turns dropped", "taken back")
            else:
                kept.append(e)
    return tuple(kept)


def _is_towns(text: str, kind: str) -> bool:
    """Whether no person writes so: a bare "continue" may be anybody's."""
    return kind not in ("nudge", "patrol") or _SENDER.match(text.strip()) is not None


def noise_of(entries: Sequence[Entry]) -> str:
    """Why a whole session is noise; "" when it is not: no answer, nothing but notices, a patrol of nothing."""
    answers = [e for e in entries if e.kind == "assistant"]
    if not answers:
        return "no answer"
    kinds = set()
    for e in entries:
        if e.kind in ("user", "summary"):
            kinds.add(name_notice(e.text) or ("patrol" if _is_start(e.text) else "work"))
    if not kinds or "work" in kinds:
        return ""
    looks = [c for e in answers for c in e.calls]
    if not all(_only_looks(c.arguments) for c in looks):
        return ""
    if looks:
        return "patrol that found nothing"
    if _does_something(answers):
        return ""
    return f"only {kinds.pop()}" if len(kinds) == 1 else "only notices"


def _is_start(text: str) -> bool:
    """The town's own start text: a beacon, and nothing behind it but to look and begin."""
    beacon, _, rest = text.strip().partition("\n")
    if not beacon.startswith("[GAS TOWN]"):
        return False
    words = rest.lower().split()
    return not words or (len(words) <= _MOST_START and any(b in rest.lower() for b in _BEGIN))


def _split_episodes(entries: Sequence[Entry]) -> Iterable[list[Entry]]:
    """A user turn with all that follows up to the next one."""
    episode: list[Entry] = []
    for e in entries:
        if e.kind in ("user", "summary", "boundary") and episode:
            yield episode
            episode = []
        episode.append(e)
    if episode:
        yield episode


def _does_something(entries: Iterable[Entry]) -> bool:
    """Whether they hold a long answer, or a call that may have changed anything."""
    said = 0
    for e in entries:
        if e.kind == "assistant":
            said += len(e.text)
            if said > _LONGEST_REPLY or not all(_only_looks(c.arguments) for c in e.calls):
                return True
    return False


def _only_looks(arguments: Mapping[str, object]) -> bool:
    command = arguments.get("command") or arguments.get("cmd")
    if isinstance(command, list):
        command = command[-1] if command else ""
    if not isinstance(command, str) or len(command) > _LONGEST_COMMAND or _WRITES.search(command):
        return False
    parts = [p.strip() for p in _PARTS.split(command)]
    return all(_LOOKS.fullmatch(p) for p in parts if p)


def is_own(model: str, own_models: Mapping[str, int]) -> int | None:
    """The generation of a model that gtft trained, None for any other.

    ``own_models``: the name that it answers under → its generation. Names are compared without the
    provider before them and the tag behind (``ollama/town-7b:latest``), in lower case.
    """
    if not model or not own_models:
        return None
    if model in own_models:
        return own_models[model]
    name = _bare(model)
    return next((g for n, g in sorted(own_models.items()) if _bare(n) == name), None)


def _bare(model: str) -> str:
    return model.lower().rpartition("/")[2].partition(":")[0]
