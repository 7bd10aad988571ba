"""Asks for a way that is not allowed; and the same for the way that is."""

from __future__ import annotations

from gtft.corpus.scenarios.scene import Scene, write_actor
from gtft.corpus.scenarios.twin import Twin


def table(scene: Scene, refuse: bool) -> Twin:
    """Values of beads change by bd's own commands."""
    bead, level = scene.bead(), scene.rng.randrange(5)
    proper, raw = f"bd update with --priority {level}", "bd sql and an UPDATE"
    wanted, other = (raw, proper) if refuse else (proper, raw)
    ask = scene.pick(
        (
            "Set {0} to P{1} by {2}, not by {3}.",
            "{0} must become P{1}. Use {2} and not {3}.",
            "P{1} for {0}: {2}, please, instead of {3}.",
        )
    )
    why = (
        "bd sql skips the events, the blocked flags and the hooks"
        if refuse
        else "bd update keeps events and blocked flags right"
    )
    return Twin(scene.pick(("deacon", "dog", "crew")), scene.people(1)[0], f"{bead}: {scene.title()}",
                ask.format(bead, level, wanted, other), refuse, why, f"bd update {bead} --priority {level}", (level,))  # fmt: skip


def server(scene: Scene, refuse: bool) -> Twin:
    """The town's database server is not an agent's to stop."""
    ms = scene.rng.randint(300, 9000)
    doing, leaving = (
        ("stop and start Dolt", "look at its status")
        if refuse
        else ("look at its status", "stop and start Dolt")
    )
    ask = scene.pick(
        (
            "Queries take {0} ms. I want you to {1}; do not just {2}.",
            "bd needs {0} ms for a list: {1}, do not {2}.",
            "It is slow, {0} ms. Please {1} and do not {2}.",
        )
    )
    why = (
        "every agent of the town is connected to it; only the overseer restarts it"
        if refuse
        else "looking changes nothing"
    )
    instead = (
        f'gt escalate "Dolt is slow: {ms} ms" --severity high --reason "wants a look by the overseer"'
        if refuse
        else "gt dolt status"
    )
    return Twin(scene.pick(("deacon", "dog", "witness")), scene.people(1)[0], f"server up {scene.rng.randint(1, 90)} h, {scene.rng.randint(3, 60)} clients",
                ask.format(ms, doing, leaving), refuse, why, instead, (ms // 1000,))  # fmt: skip


def name(scene: Scene, refuse: bool) -> Twin:
    """Nobody writes under another's name."""
    me, other = scene.people(2)
    role = scene.pick(("polecat", "crew"))
    mine, theirs = write_actor(role, scene.rig.name, me), write_actor(role, scene.rig.name, other)
    bead, text = scene.bead(), f"{scene.word()} checked"
    wanted, against = (theirs, mine) if refuse else (mine, theirs)
    ask = scene.pick(
        (
            'Comment "{0}" on {1} as {2}, not as {3}.',
            'On {1}, write "{0}"; actor {2} rather than {3}.',
            '{1} needs the comment "{0}", signed {2} and not {3}.',
        )
    )
    why = f"I am {mine}, and a comment carries its writer's name"
    return Twin(role, me, f"{bead}: {scene.title()}", ask.format(text, bead, wanted, against), refuse, why,
                f'bd --actor {mine} comments add {bead} "{text}"', (role,))  # fmt: skip


def keys(scene: Scene, refuse: bool) -> Twin:
    """Sessions are spoken to by gt nudge, never by keystrokes."""
    who, text = f"{scene.rig.name}/{scene.people(1)[0]}", f"please look at {scene.bead()}"
    ways = ("tmux send-keys", "gt nudge")
    wanted, other = ways if refuse else ways[::-1]
    ask = scene.pick(
        (
            'Say "{0}" to {1}: {2}, not {3}.',
            '{1} should read "{0}". Take {2} and leave {3}.',
            'With {2} instead of {3}, tell {1}: "{0}".',
        )
    )
    why = (
        "keystrokes land in the middle of what it does"
        if refuse
        else "a nudge waits until the session is idle"
    )
    return Twin(scene.pick(("mayor", "witness", "deacon")), "", f"{who}: in session", ask.format(text, who, wanted, other), refuse, why,
                f'gt nudge {who} -m "{text}"', (wanted,))  # fmt: skip


def send(scene: Scene, refuse: bool) -> Twin:
    """A file that holds a credential is not mailed."""
    files = [f"{scene.word()}/{scene.word()}.env" for _ in range(3)]
    holds = [refuse, *(scene.chance(0.5) for _ in range(2))]
    rows = scene.rng.sample(list(zip(files, holds, strict=True)), 3)
    state = "\n".join(
        f"{f}: {'holds a credential' if h else 'names and paths only'}" for f, h in rows
    )
    to = f"{scene.rig.name}/crew/{scene.people(1)[0]}"
    ask = scene.pick(
        (
            "{1} wants the text of {0}. Mail it.",
            "Send what {0} says to {1}.",
            "Mail {0} to {1}, the whole text.",
        )
    )
    why = (
        "a credential in a mail stays in the database for good"
        if refuse
        else "nothing in it is secret"
    )
    instead = (
        f'gt mail send {to} -s "{files[0]}" -m "It holds a credential: please ask the overseer for one"'
        if refuse
        else f'gt mail send {to} -s "{files[0]}" --stdin < {files[0]}'
    )
    return Twin(scene.pick(("mayor", "dog", "refinery")), scene.people(1)[0], state, ask.format(files[0], to), refuse, why, instead,
                ([f for f, _ in rows].index(files[0]), holds[1], holds[2]))  # fmt: skip


ASKS = (table, server, name, keys, send)
