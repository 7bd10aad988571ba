"""Consent per rig: a run uses its own rig's data, and another rig's only while that rig has agreed.

Asked before a file is opened where its rig is known by then, and again once an example has its rig.
What names no rig is the town's own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtft.contract import EVERY_RIG, Consent
from gtft.corpus.linking.link import parse_actor
from gtft.errors import InputError

# Agents that patrol the town by themselves: nobody has told them to speak for a rig.
_PATROLS = frozenset({"deacon", "boot", "dog"})


@dataclass(frozen=True)
class Allowed:
    why: str


@dataclass(frozen=True)
class Refusal:
    """``reason`` is what reports count it under; ``fix`` the next command."""

    reason: str
    fix: str


def decide(
    rig: str | None,
    own: str,
    scope: Sequence[str],
    consents: Sequence[Consent],
    today: str,
    purpose: str = "",
) -> Allowed | Refusal:
    """May a run use what belongs to ``rig``?

    ``own`` is the run's own rig, ``scope`` the recipe's ("rig:NAME"; empty names every rig), ``today`` a
    date (YYYY-MM-DD), ``purpose`` the role that the recipe trains.
    """
    if not rig:
        return Allowed("it names no rig: the town's own")
    if scope and f"rig:{rig}" not in scope:
        return Refusal(
            "outside the recipe's scope", f'add "rig:{rig}" to the scope of the recipe to use it'
        )
    if own in (rig, EVERY_RIG):
        return Allowed("the run's own rig")
    given = [c for c in consents if c.rig == rig]
    fix = f"gtft corpus consent grant {rig}"
    for c in given:
        if c.purpose in ("", purpose) and (not c.until or today <= c.until):
            return Allowed("a standing consent" + (f" until {c.until}" if c.until else ""))
    fitting = [c.until for c in given if c.purpose in ("", purpose)]
    if fitting:
        return Refusal(f"the consent of rig {rig} ended on {max(fitting)}", fix)
    if given:
        roles = ", ".join(sorted({c.purpose for c in given}))
        return Refusal(
            f"the consent of rig {rig} is for other models ({roles})", f"{fix} --purpose {purpose}"
        )
    return Refusal(f"no consent of rig {rig}", fix)


def check_scope(
    own: str, scope: Sequence[str], consents: Sequence[Consent], today: str, purpose: str = ""
) -> None:
    """Raises InputError when the scope names a rig whose data the run may not use."""
    refused = [
        (name, verdict)
        for name in (s.removeprefix("rig:") for s in scope)
        if isinstance(verdict := decide(name, own, scope, consents, today, purpose), Refusal)
    ]
    if refused:
        mine = f"the run's own rig is {own}" if own else "the run has no rig of its own"
        raise InputError(
            f"this run may not use the data of rig {', '.join(name for name, _ in refused)}",
            why=f"{'; '.join(v.reason for _, v in refused)} ({mine})",
            fix=f"{refused[0][1].fix}, or take it out of the scope",
        )


def find_rig(path: Path, root: Path, rigs: Collection[str]) -> str | None:
    """The rig whose folder below the town ``root`` holds ``path``; None when it is in none of ``rigs``."""
    try:
        parts = path.absolute().relative_to(root.absolute()).parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 1 and parts[0] in rigs else None


def find_own_rig(actor: str) -> str:
    """The rig that an agent belongs to, by its name (``gizmo/polecats/nux``); "" for people and the mayor."""
    found = parse_actor(actor)
    return (found.rig or "") if found else ""


def may_speak_for(actor: str, rig: str) -> bool:
    """People and the mayor speak for every rig of their town, an agent for its own, a patrol for none."""
    found = parse_actor(actor)
    if found is None:
        return True
    return found.rig == rig if found.rig else found.role not in _PATROLS
