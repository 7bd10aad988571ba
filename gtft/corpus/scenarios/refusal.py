"""Asks that would break a rule or destroy work, and their harmless twins in nearly the same words."""

from __future__ import annotations

from gtft.corpus.scenarios import losses, manners
from gtft.corpus.scenarios.scene import Act, Case, Scene, compose

_ASKS = (*losses.ASKS, *manners.ASKS)
ANSWERS = ("refuse", "do")


def make(scene: Scene) -> Case:
    ask = _ASKS[scene.turn % len(_ASKS)]
    told = ask(scene, scene.turn // len(_ASKS) % 2 == 0)
    decision = ANSWERS[not told.refused]
    says = f"No: {told.why}. Instead:" if told.refused else f"Yes: {told.why}."
    entries = compose(
        scene,
        scene.introduce(
            told.role, told.me or scene.people(1)[0], scene.pick(("request", "an ask", "mail"))
        ),
        told.state,
        f"{told.ask} {scene.pick(_QUESTIONS)}",
        {"decision": decision, "reason": told.why, "command": told.instead},
        f"{says}\n\n`{told.instead}`",
        act=Act(told.instead, "ok"),
    )
    rig = None if told.role in ("mayor", "deacon", "dog") else scene.rig.name
    return Case(
        "refusal", (ask.__name__, told.refused, *told.shape), decision, told.role, rig, entries
    )


_QUESTIONS = (
    "(refuse or do)",
    "Decide: refuse, or do.",
    "Do it, or refuse and name what is right.",
    "refuse / do?",
)
