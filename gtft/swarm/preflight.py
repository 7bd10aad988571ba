"""What must hold before a peer starts: each check has its own error and its next command."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gtft.artifact import short_id
from gtft.errors import ConflictError, InputError, Problem, RecipeError
from gtft.swarm.document import ADDRESS, Member, Members, check_address
from gtft.swarm.terms import compare_terms

# Hivemind's own limit: beyond it peers refuse each other's records.
MOST_SKEW_S = 3.0
DIAL_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What one address of a swarm said. ``skew``: its clock minus ours, seconds; None when it was not told.

    Not ``answered``: nobody there. Answered and not ``accepted``: it did not take our token.
    """

    address: str
    answered: bool
    accepted: bool
    skew: float | None = None


def check_dates(members: Members, now: float) -> None:
    """Raises InputError for an invitation that has ended or not begun."""
    if now >= members.expires:
        raise InputError(
            f"the invitation to {members.name} ended on {_say_day(members.expires)}",
            why="members are admitted until a date that the operator signed",
            fix=f"ask the operator for a new one: gtft swarm invite {members.name} --days 30",
        )
    if now + MOST_SKEW_S < members.not_before:
        raise InputError(
            f"the invitation to {members.name} begins on {_say_day(members.not_before)}",
            why=f"this machine's clock says {_say_day(now)}",
            fix="set the clock (timedatectl set-ntp true), or wait",
        )


def check_member(members: Members, peer_id: str) -> Member:
    """Our own entry. Raises InputError when there is none."""
    found = members.find(peer_id)
    if found is None:
        raise InputError(
            f"this workspace is not a member of {members.name}",
            why=f"its peer id is {peer_id}; invited are {', '.join(m.name for m in members.members)}",
            fix="send the operator your card: gtft swarm id",
        )
    return found


def check_terms(members: Members, terms: Mapping[str, Any], formula: str) -> None:
    """Raises RecipeError that names every key in which our recipe differs from the swarm's."""
    differs = compare_terms(members.terms, terms)
    if differs:
        raise RecipeError(
            f"{formula} is not the recipe of {members.name}",
            problems=tuple(Problem(formula, 0, "", line) for line in differs),
            why="adapters can only be averaged when all are trained in the same way",
            fix="gtft swarm join INVITATION RECIPE --set KEY=VALUE for each of these keys",
        )


def check_base(members: Members, base: str, name: str) -> None:
    """Raises InputError when our base is not, byte by byte, the swarm's."""
    if base != members.base:
        raise InputError(
            f"the base {name} is not the one of {members.name}",
            why=f"its files hash to {short_id(base)}; the swarm trains on {members.base_name}, "
            f"{short_id(members.base)}",
            fix="get the same files of the same revision, then: gtft swarm join INVITATION RECIPE "
            "--set base.model=FOLDER",
        )


def check_bootstrap(members: Members, peer_id: str, known: Sequence[str]) -> None:
    """Raises InputError when there is nobody to turn to: who joins nobody would silently train alone."""
    if not known and peer_id != members.creator:
        raise InputError(
            f"the invitation to {members.name} names no address of a peer",
            why="without one this peer would train alone",
            fix=f"ask the operator: gtft swarm invite {members.name} --bootstrap ADDRESS",
        )


def find_open(
    addresses: Sequence[str], dial: Callable[[str, int], bool] | None = None
) -> tuple[str, ...]:
    """The addresses where something listens. One of several that is down must not keep a peer from starting.

    ``dial`` (host, port): whether a connection opens within DIAL_S."""

    def is_open(address: str) -> bool:
        found = ADDRESS.fullmatch(address)
        return found is not None and (dial or _dial)(found[1].partition("/")[2], int(found[2]))

    if not addresses:
        return ()
    with ThreadPoolExecutor(min(16, len(addresses))) as pool:
        answers = list(pool.map(is_open, addresses))
    return tuple(a for a, there in zip(addresses, answers, strict=True) if there)


def check_open(members: Members, creator: bool, known: Sequence[str], found: Sequence[str]) -> None:
    """Raises InputError when no known address is open, unless this peer is the creator, who may be first."""
    if not found and not creator:
        raise _unreachable(members, known)


def check_listen(addresses: Sequence[str]) -> None:
    """Raises InputError for an address that cannot be one, ConflictError for a port that is taken here."""
    for address in addresses:
        problem = check_address(address, with_peer=False)
        found = ADDRESS.fullmatch(address)
        if found is None or problem:
            raise InputError(problem, fix="--listen /ip4/0.0.0.0/tcp/31330")
        kind, _, host = found[1].partition("/")
        if not kind.startswith("ip") or found[3]:
            raise InputError(
                f"{address} is not an address to listen on",
                why="it must be a number (ip4 or ip6), without a peer",
                fix="--listen /ip4/0.0.0.0/tcp/31330",
            )
        _try_port(
            address, socket.AF_INET6 if kind == "ip6" else socket.AF_INET, host, int(found[2])
        )


def check_answers(members: Members, answers: Sequence[Answer]) -> None:
    """Raises InputError unless a peer of the swarm answered, took our token, and has our time."""
    for a in answers:
        if a.skew is not None and abs(a.skew) > MOST_SKEW_S:
            raise InputError(
                f"this machine's clock is {abs(a.skew):.1f} s {'behind' if a.skew > 0 else 'ahead of'} "
                f"that of {a.address}",
                why=f"peers refuse each other's records when their clocks differ by more than {MOST_SKEW_S:.0f} s",
                fix="set the clock (timedatectl set-ntp true), then run the command again",
            )
    if any(a.accepted for a in answers):
        return
    if any(a.answered for a in answers):
        raise InputError(
            f"the peers of {members.name} answer, but do not accept this peer",
            why="it was taken off the member list, or the clocks differ by more than a minute",
            fix="compare the clock (timedatectl); then ask the operator: gtft swarm invite SWARM",
        )
    raise _unreachable(members, [a.address for a in answers])


def _unreachable(members: Members, tried: Sequence[str]) -> InputError:
    return InputError(
        f"no peer of {members.name} can be reached",
        why="tried " + (", ".join(tried) or "none"),
        fix="is the creator's run going (gtft swarm status there), and its port open? then try again",
    )


def _dial(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), DIAL_S):
            return True
    except OSError:
        return False


def _try_port(address: str, family: socket.AddressFamily, host: str, port: int) -> None:
    if port == 0:
        return
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            raise ConflictError(
                f"this machine cannot listen on {address}",
                why="another program listens there"
                if e.errno == errno.EADDRINUSE
                else (e.strerror or str(e)),
                fix="--listen with another port, and its --announce",
            ) from e


def _say_day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
