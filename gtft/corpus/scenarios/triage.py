"""Patrols: readings of several things from a shell, an ordered procedure, one target and one action."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import NamedTuple

from gtft.corpus.scenarios.scene import Act, Case, Scene, compose


class Column(NamedTuple):
    """What is read: its names, the command that shows it, its range, the action it leads to, and how that is done
    ({} is the target, {rig} the rig). ``low``: a small reading is what calls for it."""

    names: tuple[str, ...]
    source: str
    most: int
    action: str
    command: str
    low: bool = False


class Rule(NamedTuple):
    column: int
    sign: str
    limit: int


SIGNS: dict[str, Callable[[int, int], bool]] = {
    "more than": operator.gt,
    "at least": operator.ge,
    "less than": operator.lt,
    "at most": operator.le,
}
_HIGH = ("more than", "at least")
_LOW = ("less than", "at most")
NOTHING = "move-on"

PATROLS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "witness": (
        "polecat",
        (
            Column(("silent_min", "quiet_minutes", "no_output_min"), "tmux list-windows -a -F '#S #{window_activity}'", 90, "ask-for-a-word", 'gt nudge {rig}/{} -m "Where do you stand?"'),
            Column(("changed_files", "dirty", "edits"), "git status --porcelain | wc -l", 40, "have-it-committed", 'gt nudge {rig}/{} -m "Please commit what you have"'),
            Column(("unpushed", "ahead", "local_commits"), "git rev-list --count @{u}..HEAD", 20, "have-it-pushed", 'gt nudge {rig}/{} -m "Please push your branch"'),
            Column(("restarts", "starts_today", "respawns"), "gt trail --json", 9, "tell-the-mayor", 'gt mail send mayor/ -s "{} keeps starting anew" -m "See the session log of {rig}/{}"'),
            Column(("context_left_pct", "room_left_pct", "window_free_pct"), "gt session list --json", 100, "have-it-handed-over", 'gt nudge {rig}/{} -m "Little room left: please run gt handoff"', low=True),
        ),
    ),
    "refinery": (
        "request",
        (
            Column(("behind", "commits_behind", "base_moved_by"), "git rev-list --count HEAD..origin/main", 60, "ask-for-a-rebase", 'gt nudge {rig}/witness -m "{} is behind main, please have it rebased"'),
            Column(("red_runs", "failed_runs", "reds_in_a_row"), "gt mq status --json", 8, "give-back", 'gt mq reject {rig} {} --reason "Tests stay red, see the log" --notify'),
            Column(("waiting_min", "in_queue_min", "queued_minutes"), "gt mq list --json", 400, "look-into-it", "gt mq status {}"),
            Column(("files", "touched_files", "diff_files"), "git diff --name-only origin/main | wc -l", 120, "ask-to-split", 'gt nudge {rig}/witness -m "{} is large, can it be split?"'),
            Column(("days_left", "due_in_days", "days_to_deadline"), "bd list --json", 30, "put-it-first", "bd update {} --priority 0", low=True),
        ),
    ),
    "deacon": (
        "rig",
        (
            Column(("heartbeat_age", "beat_min", "min_since_beat"), "cat .runtime/heartbeats/*.json", 60, "look-at-its-witness", "gt witness status {}"),
            Column(("queue", "requests_open", "merge_queue"), "gt mq list --json", 50, "look-at-its-refinery", "gt refinery status {}"),
            Column(("idle_hands", "free_polecats", "unused_slots"), "gt polecat list --all --json", 12, "find-it-work", "gt ready --rig {}"),
            Column(("escalations", "open_calls", "calls_for_help"), "gt escalate list --json", 7, "tell-the-overseer", 'gt mail send overseer -s "{} needs a look" -m "Its open escalations pile up"'),
            Column(("free_gb", "disk_left_gb", "gb_left"), "df --output=avail -BG", 200, "have-branches-pruned", 'gt nudge {}/witness -m "The disk is nearly full, merged branches can be pruned"', low=True),
        ),
    ),
    "dog": (
        "database",
        (
            Column(("backup_age_h", "hours_unsaved", "last_copy_h"), "ls -l --time-style=+%s backups", 72, "make-a-backup", "bd -C {}/mayor/rig backup sync"),
            Column(("size_mb", "mb", "disk_mb"), "du -sm .dolt-data/*", 4000, "ask-for-compaction", 'gt mail send deacon/ -s "{} has grown" -m "It may want compaction"'),
            Column(("connections", "clients", "open_conns"), "gt dolt status", 200, "report-the-load", 'gt nudge deacon -m "{} has many clients"'),
            Column(("untouched", "forgotten_beads", "beads_gone_quiet"), "bd stale --json", 90, "list-what-is-stale", "bd -C {}/mayor/rig stale --json"),
            Column(("writes_per_h", "commits_last_hour", "hourly_commits"), "gt dolt logs", 300, "ask-whether-it-is-used", 'gt mail send deacon/ -s "Is {} in use?" -m "Hardly anything is written there"', low=True),
        ),
    ),
    "mayor": (
        "convoy",
        (
            Column(("left", "open_beads", "still_open"), "gt convoy list --json", 30, "see-what-is-left", "gt convoy status {}"),
            Column(("stuck", "blocked_beads", "held_up"), "bd blocked --json", 12, "look-for-the-knot", "bd dep tree {}"),
            Column(("still_h", "hours_without_close", "quiet_hours"), "gt trail --json", 96, "ask-the-owner", 'gt mail send overseer -s "Is {} still wanted?" -m "Nothing was closed for a while"'),
            Column(("rigs", "rigs_touched", "spread"), "gt convoy status --json", 8, "cut-it-in-two", 'bd note {} "Touches many rigs, to be cut in two"'),
            Column(("hands", "polecats_on_it", "workers"), "gt polecat list --all --json", 15, "find-hands", "gt polecat list --all --json", low=True),
        ),
    ),
}  # fmt: skip
ROLES = tuple(PATROLS)


def decide(rules: list[Rule], rows: list[tuple[int, ...]]) -> tuple[int, int] | None:
    """(rule, row) of the first rule that fits any row; of its rows the one that is furthest, then the first."""
    for n, rule in enumerate(rules):
        fitting = [
            i for i, row in enumerate(rows) if SIGNS[rule.sign](row[rule.column], rule.limit)
        ]
        if fitting:
            turn = 1 if rule.sign in _HIGH else -1
            return n, max(fitting, key=lambda i: (turn * rows[i][rule.column], -i))
    return None


def make(scene: Scene) -> Case:
    role = ROLES[scene.turn % len(ROLES)]
    kind, columns = PATROLS[role]
    rng = scene.rng
    used = rng.sample(range(len(columns)), rng.randint(3, 5))
    rules = [_draw_rule(scene, c, columns[c]) for c in used]
    # Which rule decides is drawn evenly, "none" included.
    wanted = rng.randrange(len(rules) + 1)
    targets = _name_targets(scene, kind)
    rows = [_draw_row(scene, columns, rules, wanted, n == 0) for n in range(len(targets))]
    rng.shuffle(rows)
    found = decide(rules, rows)
    called = [scene.pick(c.names) for c in columns]
    order = rng.sample(range(len(columns)), len(columns))
    state = f"{_write_rules(scene, rules, columns, called)}\n\n{scene.pick(_LAYOUTS)(columns, called, order, targets, rows)}"
    act = None
    if found is None:
        fields: dict[str, object] = {
            "target": None,
            "action": NOTHING,
            "reason": "no rule fits any of them",
        }
        sentence = f"{NOTHING}: none of the {len(rules)} rules fits any of the {len(rows)}."
    else:
        n, i = found
        rule, column = rules[n], columns[rules[n].column]
        value = rows[i][rule.column]
        why = f"rule {n + 1}: {called[rule.column]} is {value}, {rule.sign} {rule.limit}"
        fields = {"target": targets[i], "action": column.action, "reason": why}
        sentence = f"{column.action} for {targets[i]} ({why})."
        act = Act(column.command.replace("{}", targets[i]).replace("{rig}", scene.rig.name), "ok")
    entries = compose(
        scene,
        scene.introduce(role, scene.people(1)[0], scene.pick(("round", "readings", "patrol step"))),
        state,
        scene.pick(_QUESTIONS).format(kind),
        fields,
        sentence,
        act=act,
        deeds=True,
    )
    fits = tuple(tuple(SIGNS[r.sign](row[r.column], r.limit) for r in rules) for row in rows)
    answer = f"{fields['action']} {found and found[1]}"
    rig = scene.rig.name if role in ("witness", "refinery") else None
    return Case("triage", (role, tuple(r.column for r in rules), fits), answer, role, rig, entries)


def _draw_rule(scene: Scene, number: int, column: Column) -> Rule:
    limit = scene.rng.randint(max(2, column.most // 4), column.most * 3 // 4)
    return Rule(number, scene.pick(_LOW if column.low else _HIGH), limit)


def _draw_row(
    scene: Scene, columns: tuple[Column, ...], rules: list[Rule], wanted: int, hit: bool
) -> tuple[int, ...]:
    """Readings that no rule before ``wanted`` fits, and that rule does when ``hit``."""
    row = [scene.rng.randint(0, c.most) for c in columns]
    for n, rule in enumerate(rules[: wanted + 1]):
        fits = hit if n == wanted else False
        if n == wanted and not hit:
            continue
        row[rule.column] = _draw_value(scene, rule, columns[rule.column].most, fits)
    return tuple(row)


def _draw_value(scene: Scene, rule: Rule, most: int, fits: bool) -> int:
    """A reading on the right side of the limit, often close to it or on it."""
    near = scene.chance(0.3)
    while True:
        value = rule.limit + scene.rng.randint(-1, 1) if near else scene.rng.randint(0, most)
        if SIGNS[rule.sign](value, rule.limit) == fits:
            return value


def _name_targets(scene: Scene, kind: str) -> list[str]:
    count = scene.rng.randint(3, 5)
    if kind == "polecat":
        return scene.people(count)
    if kind in ("rig", "database"):
        names = [r.name for r in scene.rigs]
        return scene.rng.sample(names, min(count, len(names)))
    if kind == "convoy":
        return [f"hq-cv-{scene.bead().rpartition('-')[2]}" for _ in range(count)]
    return [scene.bead() for _ in range(count)]


def _write_rules(
    scene: Scene, rules: list[Rule], columns: tuple[Column, ...], called: list[str]
) -> str:
    shape = scene.pick(_RULES)
    lines = [
        shape.format(
            n=n,
            column=called[r.column],
            sign=r.sign,
            limit=r.limit,
            action=columns[r.column].action,
        )
        for n, r in enumerate(rules, 1)
    ]
    return "\n".join([scene.pick(_HEADS), *lines, scene.pick(_TAILS).format(NOTHING)])


_RULES = (
    "{n}. {column} {sign} {limit}: {action}",
    "{n}. If {column} is {sign} {limit}, {action}.",
    "{n}) {action} when {column} is {sign} {limit}",
    "{n}) {column} {sign} {limit} -> {action}",
)
_HEADS = (
    "Rules, the first that fits anything counts:",
    "In this order, only the first hit counts:",
    "Procedure (top rule wins):",
    "What to do, most pressing first:",
)
_TAILS = (
    "Several fit one rule: take the most extreme reading, then the one listed first. No hit: {}.",
    "Of several, the furthest from the limit, on a tie the upper one. Else {}.",
    "One target only: the most extreme, if equal the earlier listed. If nothing fits: {}.",
)
_QUESTIONS = (
    "Which {} first, and what is done?",
    "Name one {} and the action.",
    "One {}, one action, one reason.",
    "Your decision on this {} round?",
)

_Layout = Callable[
    [tuple[Column, ...], list[str], list[int], list[str], list[tuple[int, ...]]], str
]


def _write_table(
    columns: tuple[Column, ...],
    called: list[str],
    order: list[int],
    targets: list[str],
    rows: list[tuple[int, ...]],
) -> str:
    head = "name".ljust(14) + " ".join(called[c].rjust(len(called[c]) + 1) for c in order)
    lines = [
        t.ljust(14) + " ".join(str(row[c]).rjust(len(called[c]) + 1) for c in order)
        for t, row in zip(targets, rows, strict=True)
    ]
    return "\n".join([head, *lines])


def _write_sections(
    columns: tuple[Column, ...],
    called: list[str],
    order: list[int],
    targets: list[str],
    rows: list[tuple[int, ...]],
) -> str:
    parts = []
    for c in order:
        lines = [f"{t} {row[c]}" for t, row in zip(targets, rows, strict=True)]
        parts.append("\n".join([f"$ {columns[c].source}   # {called[c]}", *lines]))
    return "\n".join(parts)


def _write_json(
    columns: tuple[Column, ...],
    called: list[str],
    order: list[int],
    targets: list[str],
    rows: list[tuple[int, ...]],
) -> str:
    return "\n".join(
        json.dumps({"name": t, **{called[c]: row[c] for c in order}})
        for t, row in zip(targets, rows, strict=True)
    )


_LAYOUTS: tuple[_Layout, ...] = (_write_table, _write_sections, _write_json)
