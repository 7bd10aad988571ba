"""Prefixes and routes: where a bead lives, where a new one is filed, whether two share a database."""

from __future__ import annotations

import json
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Rig, Scene, compose

ROLES = ("mayor", "deacon", "crew", "polecat", "dog", "refinery", "witness")
KINDS = ("where", "file", "where", "same", "where", "file")
HQ = "hq"


class Route(NamedTuple):
    prefix: str
    rig: str
    path: str


def resolve(bead: str, routes: list[Route]) -> Route | None:
    """The route with the longest prefix that the id begins with; a prefix may hold dashes itself."""
    fitting = [r for r in routes if bead.startswith(r.prefix + "-")]
    return max(fitting, key=lambda r: len(r.prefix), default=None)


def place(files: list[str], routes: list[Route]) -> Route:
    """Where a bead on these files is filed: with the rig that owns them all, else at headquarters."""
    owners = {f.split("/", 1)[0] for f in files}
    found = [r for r in routes if r.rig in owners and r.rig != HQ]
    if len(owners) == 1 and found:
        return found[0]
    return next(r for r in routes if r.rig == HQ)


def make(scene: Scene) -> Case:
    kind = KINDS[scene.turn % len(KINDS)]
    # Every second time the prefixes are others, with some that look alike.
    if scene.own and scene.chance(0.5):
        scene.leave_town()
    rigs = list(scene.rigs)
    if not scene.own:
        rigs += _make_traps(scene, rigs[0])
    routes = [Route(HQ, HQ, "."), *(Route(r.prefix, r.name, f"{r.name}/mayor/rig") for r in rigs)]
    scene.rng.shuffle(routes)
    role = scene.pick(ROLES)
    opening = scene.introduce(
        role, scene.people(1)[0], scene.pick(("routes", "which ledger", "ids"))
    )
    layout, look = scene.pick(_LAYOUTS)
    tell = {"where": _tell_where, "file": _tell_file, "same": _tell_same}[kind]
    asked, question, fields, sentence, act, answer = tell(scene, routes, rigs)
    entries = compose(
        scene,
        opening,
        layout(routes),
        question,
        fields,
        sentence,
        look=look,
        act=act,
        deeds=kind == "where",
    )
    rig = scene.rig.name if role in ("crew", "polecat", "refinery", "witness") else None
    shape = tuple((len(r.prefix), "-" in r.prefix, r.rig == HQ) for r in routes)
    return Case("route", (kind, shape, asked, answer), f"{kind} {answer}", role, rig, entries)


def _make_traps(scene: Scene, rig: Rig) -> list[Rig]:
    """Rigs whose prefixes look like another's."""
    words = [scene.word() for _ in range(2)]
    tail = scene.pick("abdeklmnrtw")
    taken = {r.prefix for r in scene.rigs}
    traps = [
        Rig(f"{rig.name}-{words[0]}", f"{rig.prefix}-{words[0][:3]}"),
        Rig(f"{words[1]}{rig.name}", rig.prefix + tail),
    ]
    return [t for t in traps if t.prefix not in taken][: scene.rng.randint(1, 2)]


_Told = tuple[tuple[object, ...], str, dict[str, object], str, Act | None, str]


def _draw_id(scene: Scene, rig: Rig, kinds: tuple[str, ...]) -> tuple[str, str]:
    """(kind of id, id)."""
    kind = scene.pick(kinds)
    tail = scene.bead(rig)[len(rig.prefix) + 1 :]
    if kind == "wisp":
        return kind, f"{rig.prefix}-wisp-{tail}"
    if kind == "agent":
        return kind, f"{rig.prefix}-{rig.name}-polecat-{scene.people(1)[0]}"
    if kind == "child":
        return kind, f"{rig.prefix}-{tail}.{scene.rng.randint(1, 9)}"
    if kind == "stranger":
        return kind, f"{rig.prefix}{scene.pick('jqx')}{scene.pick('qz')}-{tail}"
    return kind, f"{rig.prefix}-{tail}"


_HEADQUARTERS = Rig(HQ, HQ)


def _tell_where(scene: Scene, routes: list[Route], rigs: list[Rig]) -> _Told:
    rig = scene.pick((*rigs, rigs[-1], _HEADQUARTERS))
    kinds = (
        ("bead", "wisp", "child", "stranger")
        if rig.name == HQ
        else ("bead", "wisp", "agent", "child", "stranger")
    )
    kind, bead = _draw_id(scene, rig, kinds)
    route = resolve(bead, routes)
    question = scene.pick(_WHERE).format(bead)
    if route is None:
        fields: dict[str, object] = {"id": bead, "rig": None, "folder": None}
        sentence = (
            f"Nowhere here: no route has a prefix that {bead} begins with. I would not guess."
        )
        return (kind,), question, fields, sentence, None, "none"
    fields = {"id": bead, "rig": route.rig, "folder": route.path}
    sentence = f"{bead} belongs to {route.rig} (prefix {route.prefix}), kept in {route.path}."
    printed = json.dumps([{"id": bead, "title": scene.title(), "status": "open"}])
    act = Act(f"bd -C {route.path} show {bead} --json", printed)
    return (kind,), question, fields, sentence, act, f"{routes.index(route)}"


def _tell_file(scene: Scene, routes: list[Route], rigs: list[Rig]) -> _Told:
    spread = scene.pick((1, 1, 1, 2, 2, 3, 0))
    owners = [r.name for r in scene.rng.sample(rigs, min(spread, len(rigs)))]
    names = owners or [scene.pick(("settings", "plugins", "directives"))]
    files = [
        f"{n}/{scene.pick(('src', 'lib', 'docs', 'tests'))}/{scene.word()}.{scene.pick(_ENDS)}"
        for n in names
    ]
    for _ in range(scene.rng.randrange(3)):
        files.append(f"{scene.pick(names)}/{scene.word()}/{scene.word()}.{scene.pick(_ENDS)}")
    scene.rng.shuffle(files)
    route = place(files, routes)
    title = scene.title()
    question = scene.pick(_FILE).format(title) + "\n" + "\n".join(f"- {f}" for f in files)
    command = f'bd -C {route.path} create --title="{title}" -t task -p 2'
    fields: dict[str, object] = {"rig": route.rig, "prefix": route.prefix, "command": command}
    why = (
        f"all of it is code of {route.rig}"
        if route.rig != HQ
        else ("more than one rig owns it" if len(owners) > 1 else "it is the town's own, no rig's")
    )
    sentence = f"In {route.rig}, because {why}:\n\n`{command}`"
    act = Act(command, f"Created issue: {route.prefix}-{scene.bead()[-3:]}")
    return (len(files), len(owners)), question, fields, sentence, act, f"{routes.index(route)}"


def _tell_same(scene: Scene, routes: list[Route], rigs: list[Rig]) -> _Told:
    same = scene.chance(0.5)
    kinds = ("bead", "wisp", "child")
    while True:
        one, other = scene.pick((*rigs, _HEADQUARTERS)), scene.pick((*rigs, _HEADQUARTERS))
        (k1, a), (k2, b) = _draw_id(scene, one, kinds), _draw_id(scene, other, kinds)
        first, second = resolve(a, routes), resolve(b, routes)
        if first and second and (first == second) == same:
            break
    question = scene.pick(_SAME).format(a, b)
    fields: dict[str, object] = {"same": same, "rigs": [first.rig, second.rig]}
    sentence = (
        f"Yes, both are in {first.rig}."
        if same
        else f"No: {a} is in {first.rig}, {b} in {second.rig}. Work across rigs is tracked at hq."
    )
    return (k1, k2), question, fields, sentence, None, str(same)


_ENDS = ("py", "go", "ts", "md", "rs", "toml")
_WHERE = (
    "Which rig keeps {}, and in which folder?",
    "Where does {} live? Rig and folder.",
    "Find the home of {}: rig, folder.",
    "{} came up in a mail. Whose bead is it, and where is it kept?",
)
_FILE = (
    'A bead "{}" is to be filed. It is about these files:',
    'Where is "{}" filed? What has to change:',
    'File "{}" in the right place. The work touches:',
)
_SAME = (
    "Are {} and {} kept in one database?",
    "{} and {}: same ledger, or two?",
    "Do {} and {} belong to the same rig?",
)


def _write_lines(routes: list[Route]) -> str:
    return "\n".join(json.dumps({"prefix": r.prefix + "-", "path": r.path}) for r in routes)


def _write_table(routes: list[Route]) -> str:
    return "\n".join(f"{r.prefix + '-':<12} {r.rig:<22} {r.path}" for r in routes)


def _write_sentences(routes: list[Route]) -> str:
    return "\n".join(f"Ids with {r.prefix}- are of {r.rig}, folder {r.path}" for r in routes)


_LAYOUTS = (
    (_write_lines, "cat .beads/routes.jsonl"),
    (_write_table, ""),
    (_write_sentences, ""),
)
