"""The prime text: what a town's agents of a role read at the start of every session."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtft.errors import InputError, TownError, translate_os_error
from gtft.evals.asking.candidate import Unavailable
from gtft.evals.item import Item, Message
from gtft.tool import find_tool, run_tool

# Names the session and its process: never the same twice, and no part of what the role must know.
_SESSION = re.compile(r"^\[GAS TOWN\] role:.*\n?", re.M)
_TOWN_ROLES = frozenset({"mayor", "deacon"})
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Prime:
    """``source``: where the text is from, in words."""

    text: str
    source: str


def read_prime(
    path: str, *, root: Path, role: str, scope: Sequence[str], environ: Mapping[str, str]
) -> Prime:
    """The text of ``path`` (from ``root``), or what ``gt prime`` tells the role in the town at ``root``.

    Raises InputError when the file that the recipe names cannot be used, Unavailable when none is named and
    gt has none to give.
    """
    if path:
        return _read_file(root, Path(path).expanduser())
    if not (root / "mayor" / "town.json").is_file():
        raise Unavailable("no prime text: the recipe names none (eval.prime) and this is no town")
    if find_tool("gt", environ) is None:
        raise Unavailable("no prime text: the recipe names none (eval.prime), gt is not installed")
    actor = name_actor(role, scope)
    try:
        ran = run_tool("gt", "prime", "--dry-run", environ={**environ, "GT_ROLE": actor}, cwd=root)
    except TownError as e:
        raise Unavailable(f"no prime text: {e.what}") from e
    text = _SESSION.sub("", ran.stdout).strip()
    if ran.code or not text:
        said = " ".join(ran.stderr.split())[:120] or "nothing"
        raise Unavailable(f"no prime text: gt prime as {actor} ended with {ran.code}: {said}")
    return Prime(text, f"gt prime as {actor}")


def name_actor(role: str, scope: Sequence[str]) -> str:
    """The agent whose prime text is asked for: ``mayor``, or the first rig's ``gizmo/witness``."""
    rigs = [s.removeprefix("rig:") for s in scope if s.startswith("rig:")]
    if role in _TOWN_ROLES or not rigs:
        return role
    return f"{rigs[0]}/polecats/gtft" if role == "polecat" else f"{rigs[0]}/{role}"


def put_first(text: str, item: Item) -> tuple[Message, ...]:
    """The item's chat with ``text`` as the beginning of its system message."""
    messages = item.messages
    if messages[:1] and messages[0]["role"] == "system":
        head = {**messages[0], "content": f"{text}\n\n{messages[0]['content']}"}
        return (head, *messages[1:])
    return ({"role": "system", "content": text}, *messages)


def _read_file(root: Path, path: Path) -> Prime:
    full = path if path.is_absolute() else root / path
    fix = "correct eval.prime in the recipe (gtft recipe lint)"
    try:
        if full.stat().st_size > _MOST_BYTES:
            why = f"it is longer than {_MOST_BYTES} bytes"
            raise InputError(f"the prime text {path.name} cannot be read", why=why, fix=fix)
        text = full.read_text("utf-8").strip()
    except UnicodeDecodeError as e:
        raise InputError(
            f"the prime text {path.name} cannot be read", why="it is not UTF-8", fix=fix
        ) from e
    except FileNotFoundError as e:
        raise InputError(
            f"the prime text {path.name} does not exist", why="the recipe names it", fix=fix
        ) from e
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    if not text:
        raise InputError(
            f"the prime text {path.name} is empty", why="it would add nothing", fix=fix
        )
    return Prime(text, path.name)
