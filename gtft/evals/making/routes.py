"""Ids, prefixes and routes: from a town's own files, whose bead an id is and where work is filed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gtft.evals.checks.route import UNKNOWN, find_owner, find_prefix
from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import (
    DASHED,
    HEADQUARTERS,
    POLECATS,
    RIGS,
    Rig,
    draw_fault,
    draw_id,
    draw_rigs,
    draw_tail,
    draw_wish,
)

CAPABILITY = "routing"
ROLES = ("mayor", "deacon", "witness", "polecat", "crew", "refinery", "dog")
_RULE = (
    "An id belongs to the longest prefix in the list that it begins with; a prefix may hold dashes."
)
_FILES = (
    "src/main.go",
    "lib/parse.py",
    "web/app.ts",
    "docs/setup.md",
    "cmd/run.go",
    "tests/load.py",
)


def make(dice: random.Random) -> Iterator[Made]:
    for n in range(14):
        yield _make_lookup(dice, n)
    for n in range(14):
        yield _make_dashed(dice, n)
    for n in range(8):
        yield _make_list(dice, n)
    for n in range(14):
        yield _make_filing(dice, n)


def _write_routes(rigs: Sequence[Rig], dash: bool = True) -> str:
    lines = (json.dumps({"prefix": r.prefix + ("-" if dash else ""), "path": r.path}) for r in rigs)
    return "\n".join(lines)


def _write_rigs(rigs: Sequence[Rig]) -> str:
    """An excerpt of mayor/rigs.json; headquarters is no rig and not in it."""
    found = {
        r.name: {"git_url": f"https://git.example.com/{r.name}.git", "beads": {"prefix": r.prefix}}
        for r in rigs
        if r is not HEADQUARTERS
    }
    return json.dumps({"version": 1, "rigs": found})


def _tell(bead: str, rigs: Sequence[Rig]) -> dict[str, str]:
    """The whole answer about one id."""
    by_prefix = {r.prefix: r for r in rigs}
    prefix = find_prefix(bead, by_prefix)
    if prefix is None:
        return {"prefix": UNKNOWN, "path": UNKNOWN}
    return {"prefix": prefix + "-", "path": by_prefix[prefix].path}


def _item(
    dice: random.Random,
    template: str,
    difficulty: str,
    prompt: str,
    answer: Mapping[str, Any],
    wrong: Sequence[Mapping[str, Any]],
) -> Made:
    right = json.dumps(answer)
    others = dict.fromkeys(json.dumps(w) for w in wrong if w != answer)
    return draft(
        CAPABILITY,
        dice.choice(ROLES),
        template,
        difficulty,
        prompt,
        CheckSpec("route", {"expect": dict(answer)}),
        right,
        (*others, f"The answer is {right}", json.dumps({**answer, "sure": True})),
    )


def _make_lookup(dice: random.Random, n: int) -> Made:
    """One id: known, of headquarters, or of nobody."""
    rigs = [HEADQUARTERS, *draw_rigs(dice, 4)]
    dice.shuffle(rigs)
    rig = HEADQUARTERS if n % 5 == 3 else dice.choice([r for r in rigs if r is not HEADQUARTERS])
    bead = draw_id(dice, rig.prefix)
    if n % 5 == 4:
        free = dice.choice([r for r in RIGS if r not in rigs])
        bead = draw_id(dice, free.prefix)
    answer = _tell(bead, rigs)
    prompt = (
        f"The town's .beads/routes.jsonl:\n{_write_routes(rigs)}\n{_RULE}\nOf which prefix is {bead}, and in which "
        f'path is it kept? Answer with one JSON object and nothing else: {{"prefix": …, "path": …}}, both as in the '
        f'file, or both "{UNKNOWN}" when no line fits.'
    )
    other = dice.choice([r for r in rigs if r is not rig])
    wrong = (
        {"prefix": other.prefix + "-", "path": other.path},
        {"prefix": rig.prefix + "-", "path": "." if rig is not HEADQUARTERS else "hq/mayor/rig"},
        {"prefix": UNKNOWN, "path": UNKNOWN},
        {"prefix": "hq-", "path": "."},
    )
    return _item(dice, "routing-lookup", "easy", prompt, answer, wrong)


def _make_dashed(dice: random.Random, n: int) -> Made:
    """Prefixes that begin one another, and ids whose tails hold dashes: wisps, agents, children."""
    long = DASHED[n % len(DASHED)]
    base = next(r for r in RIGS if r.prefix == long.prefix.split("-")[0])
    rigs = [HEADQUARTERS, base, long]
    rigs += [r for r in draw_rigs(dice, 2) if r is not base]
    dice.shuffle(rigs)
    rig = base if n % 3 == 1 else long
    tail = draw_tail(dice)
    bead = (
        f"{rig.prefix}-{tail}",
        f"{rig.prefix}-wisp-{tail}",
        f"{rig.prefix}-{rig.name}-polecat-{dice.choice(POLECATS)}",
        f"{rig.prefix}-{tail}.{dice.randint(1, 9)}",
        f"{rig.prefix}{dice.choice('qxz')}-{tail}",
    )[(n + n // 5) % 5]
    answer = _rig_answer(bead, rigs)
    prompt = (
        f"mayor/rigs.json of a town (hq is headquarters' prefix and needs no entry):\n{_write_rigs(rigs)}\n{_RULE} After "
        f"the prefix comes a dash.\nTo which rig does {bead} belong? Answer with one JSON object and nothing else: "
        f'{{"rig": …, "prefix": …}}, the rig hq for headquarters, both "{UNKNOWN}" when no prefix fits.'
    )
    cut = bead.split("-")[0]
    wrong = [{"rig": r.name, "prefix": r.prefix} for r in rigs[:3]]
    wrong += [{"rig": UNKNOWN, "prefix": UNKNOWN}, {"rig": rig.name, "prefix": cut}]
    return _item(dice, "routing-dashed", "hard" if n % 2 else "medium", prompt, answer, wrong[:5])


def _rig_answer(bead: str, rigs: Sequence[Rig]) -> dict[str, str]:
    by_prefix = {r.prefix: r.name for r in rigs}
    prefix = find_prefix(bead, by_prefix)
    if prefix is None:
        return {"rig": UNKNOWN, "prefix": UNKNOWN}
    return {"rig": by_prefix[prefix], "prefix": prefix}


def _make_list(dice: random.Random, n: int) -> Made:
    """Several ids at once, and whether they can be found in one database."""
    long = dice.choice(DASHED)
    base = next(r for r in RIGS if r.prefix == long.prefix.split("-")[0])
    rigs = [HEADQUARTERS, base, long, *[r for r in draw_rigs(dice, 2) if r is not base]]
    dice.shuffle(rigs)
    stranger = dice.choice([r for r in RIGS if r not in rigs])
    beads = [
        draw_id(dice, long.prefix),
        draw_id(dice, base.prefix),
        draw_id(dice, stranger.prefix if n % 2 else "hq"),
        f"{long.prefix}-wisp-{draw_tail(dice)}",
    ]
    dice.shuffle(beads)
    answer = {b: _tell(b, rigs)["path"] for b in beads}
    prompt = (
        f"routes.jsonl, written without the dash at the end of a prefix:\n{_write_routes(rigs, dash=False)}\n{_RULE}\nIds "
        f"that came up: {', '.join(beads)}. Answer with one JSON object and nothing else: each of these ids with "
        f'the path of its line, or "{UNKNOWN}".'
    )
    first, second, third, last = beads
    wrong = (
        {**answer, first: answer[second], second: answer[first]},
        {b: p for b, p in answer.items() if b != third},
        {b: base.path if p == long.path else p for b, p in answer.items()},
        {**answer, last: "."},
        {b: "." if p == UNKNOWN else p for b, p in answer.items()},
    )
    return _item(dice, "routing-list", "hard", prompt, answer, wrong)


def _make_filing(dice: random.Random, n: int) -> Made:
    """Where new work is filed: the rig that owns the code, or hq when more than one does."""
    rigs = draw_rigs(dice, 4, dashed=n % 2)
    count = (1, 1, 2, 1, 3, 2)[n % 6]
    owners = dice.sample(rigs, count)
    files = [f"{r.name}/{f}" for r in owners for f in dice.sample(_FILES, 1 + n % 2)]
    dice.shuffle(files)
    owner = find_owner([r.name for r in owners])
    rig = next((r for r in rigs if r.name == owner), HEADQUARTERS)
    answer = {"file_in": rig.name, "id_begins": f"{rig.prefix}-"}
    title = draw_fault(dice) if n % 2 else draw_wish(dice)
    finder = dice.choice([r for r in rigs if r not in owners] or rigs)
    listed = dice.sample([*rigs, HEADQUARTERS], len(rigs) + 1)
    table = "; ".join(f"{r.name} ({r.prefix})" for r in listed)
    prompt = (
        f"Rigs and their prefixes: {table}.\nWork is filed in the rig that owns all the code it touches, whoever "
        f"found it; where more than one rig owns it, at headquarters, hq.\nA polecat of {finder.name} found: {title}. "
        f"To be changed: {', '.join(files)} (the first part of a path is its rig). Answer with one JSON object and "
        'nothing else: {"file_in": <name of the rig, or hq>, "id_begins": <prefix with its dash>}.'
    )
    wrong: list[dict[str, Any]] = [
        {"file_in": r.name, "id_begins": f"{r.prefix}-"} for r in (finder, owners[0])
    ]
    wrong += [
        {"file_in": "hq", "id_begins": "hq-"},
        {"file_in": rig.name, "id_begins": rig.name + "-"},
        {"file_in": [r.name for r in owners], "id_begins": f"{rig.prefix}-"},
    ]
    difficulty = "easy" if count == 1 else "medium"
    return _item(dice, "routing-filing", difficulty, prompt, answer, wrong)
