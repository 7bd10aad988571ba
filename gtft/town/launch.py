"""What stands before a role's agent in its start command: it asks whether the server answers, then becomes the agent.

``gtft deploy launch JOURNAL -- COMMAND …``. When the server answers, COMMAND is started as it stands; when it does
not, or the journal cannot be read, the role's previous agent is: the same command without the variables that point
at the server, or the previous program where that was another. Seconds at most, and nothing heavy is imported.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gtft.errors import UsageError

# Of the whole question, names that do not resolve and answers that drip included.
HEALTH_SECONDS = 2.0
_MOST_HEALTH = 1 << 20
# The token of a server that asks for one, and the header that is for it alone (gtft.serving.access).
TOKEN_VARIABLE, TOKEN_HEADER = "GTFT_SERVE_TOKEN", "x-gtft-token"
# Beside the journals: the programs that gt starts in the agents' place.
PROGRAMS = "agents"
# Variables that point an agent at a server, where the journal does not say which ones were set.
POINTERS = ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL")


@dataclass(frozen=True)
class Start:
    """What is to be executed, and why not the model's agent ("" when it is)."""

    argv: tuple[str, ...]
    environ: dict[str, str]
    why: str = ""


def word_wrapper(program: Sequence[str], journal: Path) -> tuple[str, ...]:
    """The words that gt is to put before the agent. Where gtft itself does not run any more (it was uninstalled, its
    Python is gone), the shell starts the agent without us: a role must not hang on a program that it can do without.

    A handoff of gt's starts again the agent that GT_AGENT names; where it is empty, the one that the role has by then.
    The session keeps the previous agent's name: what runs there after a rollback has no launcher to empty it."""
    asked = " ".join(f'"${n}"' for n in range(1, len(program) + 1))
    script = (
        'if [ "$TMUX" ] && [ "$GT_AGENT" ]; then '
        'tmux set-environment GT_AGENT "$GT_AGENT" >/dev/null 2>&1; fi; export GT_AGENT=; '
        f'if {asked} --version >/dev/null 2>&1; then exec "$@"; fi; '
        'until [ "$1" = -- ]; do shift; done; shift; '
        f'unset {" ".join(POINTERS)}; exec "$@"'
    )
    return ("sh", "-c", script, "sh", *program, "deploy", "launch", str(journal), "--")


def word_program(launcher: Sequence[str], command: str, key: str, url: str) -> bytes:
    """The program that gt starts in the agent's place. A handoff of gt's knows an agent's command and arguments only,
    neither its wrapper nor its variables: this one brings both along."""
    words = " ".join(shlex.quote(w) for w in (*launcher, command))
    return f'#!/bin/sh\nexport {key}={shlex.quote(url)}\nexec {words} "$@"\n'.encode()


def plan_start(
    journal: Path,
    command: Sequence[str],
    environ: Mapping[str, str],
    answers: Callable[[str], bool] | None = None,
) -> Start:
    """Decide between the model's agent and the previous one. Raises UsageError without a command."""
    if not command:
        raise UsageError(
            "there is no agent to start", fix="gtft deploy launch JOURNAL -- COMMAND …"
        )
    found = _read_launch(journal)
    command = _name_program(command, journal, found["given"] if found else ())
    if found is None:
        clean = {k: v for k, v in environ.items() if k not in POINTERS}
        return Start(tuple(command), clean, f"{journal} cannot be read")
    token, health = environ.get(TOKEN_VARIABLE, ""), found["health"]
    why = f"{health} does not answer for {found['role']}"
    if not found["serves"]:
        why = "the model is out of service"
    elif answers(health) if answers else serves_role(health, found["role"], found["rig"], token):
        argv = _with_words(command, found["given"], found["words"])
        return Start(argv, _with_token(found, found["env"] | dict(environ)))
    clean = {k: v for k, v in environ.items() if k not in found["keys"]}
    previous = found["previous"]
    if previous is None:
        return Start(tuple(command), clean | found["env"], why)
    clean = {k: v for k, v in clean.items() if k not in found["env"]}
    return Start(_as_previous(previous, command, found["given"]), clean | previous["env"], why)


def is_healthy(url: str, token: str = "") -> bool:
    """Whether the server at ``url`` answers with 200 within `HEALTH_SECONDS`."""
    return _ask_in_time(url, token) is not None


def serves_role(url: str, role: str, rig: str, token: str = "") -> bool:
    """Whether it answers, and says that the role is live there: another town's server may have the port by now."""
    body = _ask_in_time(url, token)
    try:
        roles = json.loads(body or b"null")["roles"]
        return any(
            r["role"] == role and r["rig"] in (rig, "") and r["mode"] == "live" for r in roles
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _ask_in_time(url: str, token: str) -> bytes | None:
    """The body of a 200. A thread that is not waited for: no socket's timeout is one of the whole."""
    found: list[bytes] = []
    asking = threading.Thread(target=lambda: found.extend(_ask(url, token)), daemon=True)
    asking.start()
    asking.join(HEALTH_SECONDS)
    return found[0] if found else None


def _ask(url: str, token: str) -> list[bytes]:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return []
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=HEALTH_SECONDS)
        try:
            headers = {TOKEN_HEADER: token} if token else {}
            connection.request("GET", parts.path or "/", headers=headers)
            answer = connection.getresponse()
            return [answer.read(_MOST_HEALTH)] if answer.status == 200 else []
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return []


def start(plan: Start) -> None:
    """Become the agent. Raises OSError when the program cannot be executed."""
    os.execvpe(plan.argv[0], list(plan.argv), plan.environ)  # noqa: S606


def _read_launch(journal: Path) -> dict[str, Any] | None:
    """The ``launch`` of a journal; None when there is none to go by."""
    try:
        doc = json.loads(journal.read_bytes())
        launch = doc["launch"]
        previous = launch["previous"]
        if previous is not None:
            previous = {
                "argv": [str(a) for a in previous["argv"]],
                "env": {str(k): str(v) for k, v in previous["env"].items()},
                "prompt": None if previous["prompt"] is None else str(previous["prompt"]),
                "is_claude": bool(previous["is_claude"]),
            }
        return {
            "serves": doc["state"] in ("applying", "active"),
            "role": str(doc["role"]),
            "rig": str(doc["rig"]),
            "health": str(launch["health"]),
            "protocol": str(launch["protocol"]),
            "keys": tuple(map(str, launch["keys"])),
            "given": tuple(map(str, launch["given"])),
            "env": {str(k): str(v) for k, v in launch["env"].items()},
            "words": tuple(map(str, launch["words"])),
            "token": str(launch["token"]),
            "previous": previous,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _with_token(found: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """A word in place of a key, for agents that do not start without one; a real one is never replaced.
    A server that asks for a token gets it from the environment, never from the settings."""
    out = dict(environ)
    token, key = environ.get(TOKEN_VARIABLE, ""), found["token"]
    if token and found["protocol"] == "anthropic":
        mine = f"{TOKEN_HEADER}: {token}"
        custom = environ.get("ANTHROPIC_CUSTOM_HEADERS", "")
        out["ANTHROPIC_CUSTOM_HEADERS"] = f"{custom}\n{mine}" if custom else mine
    if key and not environ.get(key):
        out[key] = token or "gtft-local"
    return out


def _name_program(command: Sequence[str], journal: Path, given: Sequence[str]) -> tuple[str, ...]:
    """The command with the agent's own program, where gt was told to start ours in its place.

    Without a journal ours still knows which that is; where it is gone too, its name says it."""
    ours = f"{journal.parent / PROGRAMS}{os.sep}"

    def name(word: str) -> str:
        if not word.startswith(ours) or (not given and Path(word).is_file()):
            return word
        return given[0] if given else Path(word).name

    return tuple(map(name, command))


def _find_given(command: Sequence[str], given: Sequence[str]) -> int | None:
    """Where the agent's own words end in the command: a wrapper may stand before them, and what gt added behind."""
    ends = range(len(given), len(command) + 1)
    return next((e for e in ends if tuple(command[e - len(given) : e]) == tuple(given)), None)


def _with_words(
    command: Sequence[str], given: Sequence[str], words: Sequence[str]
) -> tuple[str, ...]:
    """The command with ``words`` behind the agent's own, before what gt added."""
    at = _find_given(command, given)
    at = len(command) if at is None else at
    return (*command[:at], *words, *command[at:])


def _as_previous(
    previous: Mapping[str, Any], command: Sequence[str], given: Sequence[str]
) -> tuple[str, ...]:
    """The previous program in the model's agent's wrapper, with the prompt and the settings that gt gave to that."""
    at = _find_given(command, given)
    wrapper = [] if at is None else list(command[: at - len(given)])
    rest = [] if at is None else list(command[at:])
    settings: list[str] = []
    if "--settings" in rest[:-1]:
        at = rest.index("--settings")
        settings = rest[at : at + 2]
        del rest[at : at + 2]
    argv = wrapper + list(previous["argv"])
    if previous["is_claude"]:
        argv += settings
    style = previous["prompt"]
    # gt puts the prompt last, behind an option or not.
    if rest and style is not None:
        argv += [style, rest[-1]] if style else [rest[-1]]
    return tuple(argv)
