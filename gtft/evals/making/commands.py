"""Command choice: a need in words → the one gt or bd command that meets it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_fault, draw_ids, draw_rigs

_AGAIN = 14
_ENDINGS = (
    "Reply with that command line and nothing else.",
    "Your reply is the command alone: one line, no explanation.",
)
_LABELS = ("paint", "cellar", "midsummer", "fragile", "two-hands", "loud", "customer", "spare-part")
_REASONS = (
    "see the slip of Tuesday",
    "the foreman said so",
    "decided at the round table",
    "as the customer wrote, page two",
)
_NOTES = (
    "the fixture needs a second column",
    "seen again on the old printer",
    "half of it is done, the rest tomorrow",
    "ask the archive for the 1998 list",
)


class Need(NamedTuple):
    """``right``: commands that do it, the reference first. ``wrong``: nearly right. All are filled with names."""

    template: str
    difficulty: str
    role: str | None
    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    free: tuple[str, ...] = ()


NEEDS = (
    Need("bd-close", "easy", "polecat", "Bead {a} is through. Close it, and give as its reason: {reason}",
         ('bd close {a} --reason "{reason}"',),
         ('bd update {a} --status closed', 'bd close {b} --reason "{reason}"', 'bd finish {a} --reason "{reason}"', 'bd close {a}')),
    Need("bd-show", "easy", None, "You want to read bead {a} with every field that bd keeps of it, in the long form.",
         ("bd show {a} --long",), ("bd show {a} --all", "bd list {a} --long", "bd show {b} --long", "bd show {a}")),
    Need("bd-claim", "easy", "polecat", "Nobody works on {a}. Take it for yourself so that assignee and status change in one atomic step.",
         ("bd update {a} --claim",), ("bd claim {a}", "bd update {a} --status in_progress", "bd update {b} --claim", "bd ready --claim")),
    Need("bd-priority", "easy", "mayor", "Since this morning nothing in the town is more urgent than {a}. Say so in its priority.",
         ("bd update {a} --priority 0", "bd priority {a} 0", "bd priority {a} P0"), ("bd update {a} --priority 4", "bd update {a} --urgent", "bd update {a} --priority 1", "bd priority 0 {a}")),
    Need("bd-needs", "medium", None, "{a} is of no use until {b} has been closed. Let the ledger hold {a} back until then.",
         ("bd dep add {a} {b}", "bd dep add {a} --blocked-by {b}", "bd dep {b} --blocks {a}", "bd link {a} {b}"),
         ("bd dep add {b} {a}", "bd dep {a} --blocks {b}", "bd dep add {a} {b} --type related", "bd dep add {a} needs {b}")),
    Need("bd-list", "hard", "mayor", "Print every open bug that carries the label {label}, however many there are.",
         ("bd list --status open --type bug --label {label} --limit 0",),
         ("bd list --status open --type bug --label {label}", "bd list --status open --type bug --labels {label} --limit 0",
          "bd list --type bug --label {label} --limit 0", "bd list --status open --type bug --label {label} --limit all")),
    Need("bd-ready", "medium", "crew", "Which beads labelled {label} could be begun at once and have no assignee yet?",
         ("bd ready --unassigned --label {label}", "bd ready --unassigned --label {label} --limit 0", "bd list --ready --no-assignee --label {label}"),
         ("bd ready --label {label}", "bd ready --no-assignee --label {label}", "bd list --status open --no-assignee --label {label}",
          "bd ready --unassigned --exclude-label {label}")),
    Need("bd-label", "easy", None, "Put the label {label} on {a}. It has others, and they stay.",
         ("bd label add {a} {label}", "bd tag {a} {label}", "bd update {a} --add-label {label}"),
         ("bd update {a} --set-labels {label}", "bd label {a} {label}", "bd label add {label} {a}", "bd update {a} --label {label}")),
    Need("bd-unlabel", "easy", None, "{a} no longer deserves its label {label}; nothing else about it changes.",
         ("bd label remove {a} {label}", "bd update {a} --remove-label {label}"),
         ("bd update {a} --set-labels {label}", "bd tag {a} {label}", "bd label delete {a} {label}", "bd label remove {b} {label}")),
    Need("bd-comment", "medium", "witness", 'Leave a comment on {a} (its notes stay as they are): "{note}"',
         ('bd comments add {a} "{note}"', 'bd comment {a} "{note}"', "bd comment {a} {note}"),
         ('bd note {a} "{note}"', 'bd comments {a} add "{note}"', 'bd update {a} --notes "{note}"', 'bd comment {b} "{note}"')),
    Need("bd-note", "medium", "polecat", 'The notes of {a} are long. Add this line below them without losing one: "{note}"',
         ('bd note {a} "{note}"', 'bd update {a} --append-notes "{note}"', "bd note {a} {note}"),
         ('bd update {a} --notes "{note}"', 'bd comment {a} "{note}"', 'bd note {a} --append "{note}"', 'bd update {b} --append-notes "{note}"')),
    Need("bd-gate-human", "hard", "mayor", "{a} must stand still until a person says yes. Set that up; its reason: {reason}",
         ('bd gate create --blocks {a} --type human --reason "{reason}"',),
         ('bd gate create --blocks {a} --type manual --reason "{reason}"', 'bd gate add {a} --type human --reason "{reason}"',
          'bd update {a} --status blocked', 'bd gate create --blocks {b} --type human --reason "{reason}"')),
    Need("bd-gate-timer", "hard", "deacon", "Bead {a} may only go on when {n} minutes have gone by. Use a gate whose reason is: {reason}",
         ('bd gate create --blocks {a} --type timer --timeout {n}m --reason "{reason}"',),
         ('bd gate create --blocks {a} --type timer --timeout {n} --reason "{reason}"', 'bd gate create --blocks {a} --type human --timeout {n}m --reason "{reason}"',
          'bd gate create --blocks {a} --type timer --timeout {n}h --reason "{reason}"', 'bd defer {a} --until +{n}m')),
    Need("bd-gate-resolve", "medium", "mayor", "The gate {a} waited for a person, and that person has agreed. Open it by hand, with this reason: {reason}",
         ('bd gate resolve {a} --reason "{reason}"',),
         ('bd gate close {a} --reason "{reason}"', 'bd gate check {a}', 'bd gate resolve {b} --reason "{reason}"', 'bd gate resolve {a} --because "{reason}"')),
    Need("bd-defer", "medium", None, "Nobody should be offered {a} before tomorrow, and after that it comes back by itself.",
         ("bd defer {a} --until tomorrow", "bd update {a} --defer tomorrow"),
         ("bd update {a} --due tomorrow", "bd defer {a}", "bd defer {b} --until tomorrow", "bd snooze {a} --until tomorrow")),
    Need("bd-blocked", "medium", "mayor", "Of all that lies below the epic {a}: what is blocked at the moment?",
         ("bd blocked --parent {a}",), ("bd blocked {a}", "bd list --status blocked --epic {a}", "bd ready --parent {a}", "bd blocked --epic {a}")),
    Need("bd-child", "hard", "mayor", 'Below the epic {a} a new task is wanted, called "{title}", priority 1, and it must not take over the labels of the epic.',
         ('bd create "{title}" --parent {a} --type task --priority 1 --no-inherit-labels', 'bd create --title "{title}" --parent {a} --type task --priority 1 --no-inherit-labels'),
         ('bd create "{title}" --parent {a} --type task --priority 1', 'bd create "{title}" --deps {a} --type task --priority 1 --no-inherit-labels',
          'bd create "{title}" --epic {a} --type task --priority 1 --no-inherit-labels', 'bd create "{title}" --parent {a} --type task --no-inherit-labels')),
    Need("bd-duplicate", "medium", "witness", "Somebody wrote {b} down although {a} was there and says the same. {a} is the one that is kept: mark the other.",
         ("bd duplicate {b} --of {a}",), ("bd duplicate {a} --of {b}", "bd duplicates {b} --of {a}", "bd supersede {b} --with {a}", "bd duplicate {b} {a}")),
    Need("bd-supersede", "medium", "mayor", "The plan in {a} is out of date; {b}, written later, takes its place. Record that.",
         ("bd supersede {a} --with {b}",), ("bd supersede {b} --with {a}", "bd supersede {a} --by {b}", "bd duplicate {a} --of {b}", "bd replace {a} {b}")),
    Need("bd-export", "medium", "dog", "Write all records that bd exports by default, and the persistent memories too, to the file {label}.jsonl (bd itself writes the file).",
         ("bd export --output {label}.jsonl --include-memories",),
         ("bd export --output {label}.jsonl", "bd export --include-memories > {label}.jsonl", "bd export --file {label}.jsonl --include-memories", "bd export --output {label}.jsonl --memories")),
    Need("bd-stale", "medium", "deacon", "Find the beads in progress on which nothing was written for {n} days.",
         ("bd stale --days {n} --status in_progress",),
         ("bd stale --days {n}", "bd stale {n} --status in_progress", "bd stale --older-than {n} --status in_progress", "bd stale --days {n} --status open")),
    Need("bd-metadata", "hard", "polecat", "In the metadata of {a} the key oven becomes {label} and the key shelf becomes {n}; all its other keys stay. Use the flag that sets one key and can be repeated, not JSON.",
         ("bd update {a} --set-metadata oven={label} --set-metadata shelf={n}",),
         ("bd update {a} --set-metadata oven={n} --set-metadata shelf={label}", "bd update {a} --set-metadata oven={label}",
          "bd update {a} --meta oven={label} --meta shelf={n}", "bd kv set oven {label}")),
    Need("bd-reopen", "easy", "witness", "{a} was closed too early. Open it again and say why: {reason}",
         ('bd reopen {a} --reason "{reason}"',),
         ('bd update {a} --status open', 'bd open {a} --reason "{reason}"', 'bd reopen {a}', 'bd reopen {b} --reason "{reason}"')),
    Need("bd-pour", "hard", "mayor", "Make persistent beads of the formula mol-{label}, with its variable oven set to {n} and its variable rig set to {rig}.",
         ("bd mol pour mol-{label} --var oven={n} --var rig={rig}",),
         ("bd mol wisp mol-{label} --var oven={n} --var rig={rig}", "bd mol pour mol-{label} --var oven={rig} --var rig={n}",
          "bd mol pour mol-{label} --set oven={n} --set rig={rig}", "bd formula pour mol-{label} --var oven={n} --var rig={rig}")),
    Need("bd-assign", "easy", "mayor", "{a} belongs to {rig}/crew/{who} from now on; its status stays as it is.",
         ("bd assign {a} {rig}/crew/{who}", "bd update {a} --assignee {rig}/crew/{who}"),
         ("bd assign {rig}/crew/{who} {a}", "bd update {a} --owner {rig}/crew/{who}", "bd update {a} --claim", "bd update {a} --assignee {rig}/crew/{other}")),
    Need("bd-tree", "hard", None, "Draw as a tree all that waits for {a}, directly or through others (not what {a} waits for).",
         ("bd dep tree {a} --direction up", "bd dep tree {a} --reverse"),
         ("bd dep tree {a}", "bd dep tree {a} --direction down", "bd dep tree {a} --up", "bd graph {a} --direction up")),
    Need("bd-remember", "medium", "crew", 'Keep this for every later session, under the key {label}: "{note}"',
         ('bd remember "{note}" --key {label}', 'gt remember "{note}" --key {label}'),
         ('bd remember {label} "{note}"', 'bd remember "{note}"', 'bd kv set {label} "{note}"', 'bd remember "{note}" --name {label}')),
    Need("bd-count", "medium", "mayor", "How many beads does {rig}/crew/{who} have as assignee, counted by status?",
         ("bd count --assignee {rig}/crew/{who} --by-status",),
         ("bd count --assignee {rig}/crew/{who} --status", "bd count --by-assignee --by-status", "bd count --assignee {rig}/crew/{other} --by-status", "bd count --assignee {rig}/crew/{who} --group-by status")),
    Need("gt-sling-raw", "hard", "mayor", "{a} goes to a fresh polecat of {rig}: the bead itself without a formula, no convoy for it, and nothing of it may enter the merge queue.",
         ("gt sling {a} {rig} --hook-raw-bead --no-convoy --no-merge",),
         ("gt sling {a} {rig} --no-convoy --no-merge", "gt sling {rig} {a} --hook-raw-bead --no-convoy --no-merge",
          "gt sling {a} {rig} --raw --no-convoy --no-merge", "gt hook {a} {rig} --hook-raw-bead")),
    Need("gt-sling-formula", "hard", "mayor", "Apply the formula mol-{label} to the bead {a} that exists already, in {rig}, with the variable oven set to {n}.",
         ("gt sling mol-{label} {rig} --on {a} --var oven={n}",),
         ("gt sling {a} {rig} --on mol-{label} --var oven={n}", "gt sling mol-{label} {rig} --bead {a} --var oven={n}",
          "gt sling mol-{label} {rig} --on {a}", "gt formula run mol-{label} --rig {rig} --set oven={n}")),
    Need("gt-nudge", "easy", "witness", 'The session of {rig}/{who} is open. Say to it, without a mail: "{note}"',
         ('gt nudge {rig}/{who} "{note}"', 'gt nudge {rig}/{who} --message "{note}"'),
         ('gt mail send {rig}/{who} -s "{note}" -m "{note}"', 'gt nudge {rig}/{other} "{note}"', 'gt nudge "{note}" {rig}/{who}', 'gt say {rig}/{who} "{note}"')),
    Need("gt-mail", "hard", "deacon", 'A mail to the witness of {rig} that is not reaped after a week: subject "{label}: look", body "{note}".',
         tuple(f'gt mail send {to} --subject "{{label}}: look" --message "{{note}}" {kept}' for kept in ("--permanent", "--wisp=false") for to in ("{rig}/witness", "--to {rig}/witness")),
         ('gt mail send {rig}/witness --subject "{label}: look" --message "{note}"', 'gt mail send {rig}/refinery --subject "{label}: look" --message "{note}" --permanent',
          'gt mail send {rig}/witness --subject "{label}: look" --message "{note}" --keep', 'gt nudge {rig}/witness "{note}"')),
    Need("gt-escalate", "hard", "refinery", 'Raise "{title}" to those who can decide: severity high, about bead {a}, with the reason {reason}.',
         ('gt escalate "{title}" --severity high --related {a} --reason "{reason}"',),
         ('gt escalate "{title}" --severity urgent --related {a} --to mayor', 'gt escalate "{title}" --severity high --bead {a} --reason "{reason}"',
          'gt escalate "{title}" --related {a} --reason "{reason}"', 'gt mail send mayor/ -s "{title}" -m "{reason}"')),
    Need("gt-reject", "hard", "refinery", "The request {a} in the merge queue of {rig} cannot be taken. Refuse it, tell its worker, reason: {reason}",
         ('gt mq reject {rig} {a} --reason "{reason}" --notify',),
         ('gt mq reject {a} {rig} --reason "{reason}" --notify', 'gt mq reject {rig} {a} --reason "{reason}"',
          'gt mq drop {rig} {a} --reason "{reason}" --notify', 'bd close {a} --reason "{reason}"')),
    Need("gt-retry", "medium", "refinery", "The merge request {a} of {rig} failed because of a lost connection. It should be tried again now, not in the next round.",
         ("gt mq retry {rig} {a} --now",), ("gt mq retry {rig} {a}", "gt mq retry {a} --now", "gt mq resubmit {rig} {a} --now", "gt mq retry {rig} {b} --now")),
    Need("gt-convoy", "medium", "mayor", 'Track {a} and {b} together in a new convoy named "{label} week" whose life its caller manages.',
         ('gt convoy create "{label} week" {a} {b} --owned', 'gt convoy create "{label} week" {b} {a} --owned'),
         ('gt convoy create "{label} week" {a} {b}', 'gt convoy create {a} {b} "{label} week" --owned', 'gt convoy add "{label} week" {a} {b}', 'gt convoy create --name "{label} week" {a} {b} --owned')),
    Need("gt-hook", "easy", "mayor", "In one line: what hangs on the hook of the polecat {who} of {rig}?",
         ("gt hook show {rig}/polecats/{who}", "gt hook show {rig}/{who}"), ("gt hook {rig}/polecats/{who}", "gt hook show {rig}/polecats/{other}", "gt hook clear", "gt hook list {rig}/polecats/{who}")),
    Need("gt-peek", "easy", "witness", "Have a look at the last {n} lines that {rig}/{who} printed, without disturbing it.",
         ("gt peek {rig}/{who} --lines {n}", "gt peek {rig}/{who} {n}"),
         ("gt peek {rig}/{who}", "gt peek {rig}/{who} --tail {n}", "gt nudge {rig}/{who} {n}", "gt peek {rig}/{other} --lines {n}")),
    Need("gt-unsling", "medium", "mayor", "{a} hangs on the hook of {rig}/{who} by mistake. Take it off again, but only if it is this bead that hangs there.",
         ("gt unsling {a} {rig}/{who}",), ("gt unsling {rig}/{who}", "gt unsling {rig}/{who} {a}", "gt hook clear {a} {rig}/{who}", "gt unsling {b} {rig}/{who}")),
    Need("gt-release", "medium", "witness", "The worker on {a} died. Set the bead back so that another one can claim it, with the reason: {reason}",
         ('gt release {a} --reason "{reason}"',),
         ('bd reopen {a} --reason "{reason}"', 'gt release {b} --reason "{reason}"', 'gt free {a} --reason "{reason}"', 'gt release {a}')),
    Need("gt-crew", "medium", "mayor", "{who} joins {rig} as a long-lived member with a workspace and a feature branch of its own.",
         ("gt crew add {who} --rig {rig} --branch",), ("gt crew add {who} --rig {rig}", "gt crew add {rig} {who} --branch", "gt crew create {who} --rig {rig} --branch", "gt polecat add {who} --rig {rig}")),
    Need("gt-trail", "easy", "mayor", "Show the trail that the agents left in the last {n} hours.",
         ("gt trail --since {n}h",), ("gt trail {n}h", "gt trail --hours {n}", "gt trail --since {n}d", "gt trail")),
    Need("gt-git-state", "medium", "witness", "Before anybody thinks of removing {rig}/{who}: does its worktree hold changes, unpushed commits or stashes?",
         ("gt polecat git-state {rig}/{who}",), ("gt polecat nuke {rig}/{who} --dry-run", "gt polecat git-state {who}/{rig}", "gt polecat git-status {rig}/{who}", "gt polecat stale {rig}")),
    Need("gt-plugin", "easy", "dog", "Show what a run of the plugin {label} would do now, without doing it.",
         ("gt plugin run {label} --dry-run",), ("gt plugin run {label}", "gt plugin show {label}", "gt plugin run {label} --force", "gt plugin test {label} --dry-run")),
    Need("gt-ready", "easy", "mayor", "With gt, asked from the folder of the town: which work is ready in {rig}, and only there?",
         ("gt ready --rig {rig}",), ("gt ready {rig}", "gt ready", "gt ready --rig {rig2}", "gt work ready --rig {rig}")),
    Need("gt-broadcast", "medium", "mayor", 'Every worker of {rig}, and nobody outside it, should hear: "{note}"',
         ('gt broadcast "{note}" --rig {rig}',), ('gt broadcast "{note}"', 'gt broadcast {rig} "{note}"', 'gt broadcast "{note}" --rig {rig} --all', 'gt mail send @town -s "{label}" -m "{note}"')),
)  # fmt: skip


def make(dice: random.Random) -> Iterator[Made]:
    """Each need once, and some of them a second time with other names."""
    again = dice.sample(range(len(NEEDS)), _AGAIN)
    for n, need in enumerate([*NEEDS, *(NEEDS[i] for i in sorted(again))]):
        yield _fill(dice, need, _ENDINGS[n % len(_ENDINGS)])


def _fill(dice: random.Random, need: Need, ending: str) -> Made:
    rig, rig2 = draw_rigs(dice, 2)
    a, b = draw_ids(dice, rig.prefix, 2)
    who, other = dice.sample(POLECATS, 2)
    names = {
        "a": a,
        "b": b,
        "rig": rig.name,
        "rig2": rig2.name,
        "who": who,
        "other": other,
        "label": dice.choice(_LABELS),
        "reason": dice.choice(_REASONS),
        "note": dice.choice(_NOTES),
        "title": draw_fault(dice).replace("'", ""),
        "n": str(dice.randint(12, 59)),
    }
    right = [line.format(**names) for line in need.right]
    wrong = [line.format(**names) for line in need.wrong]
    talk = f"You can do that like this:\n{right[0]}"
    return draft(
        "commands",
        need.role,
        need.template,
        need.difficulty,
        f"{need.text.format(**names)}\nOne gt or bd command does it. {ending}",
        CheckSpec("command", {"accept": right}),
        right[0],
        (*wrong, talk),
    )
