"""What a base's tokenizer makes of what a town writes: tokens per bead id, path, command and JSON key.

Tokens are of the text of messages and calls, without the chat template around them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from gtft.corpus.example import Example, Message
from gtft.corpus.health.commands import CommandList, Program, load_commands
from gtft.corpus.health.render import clean
from gtft.corpus.health.shell_lines import split_commands
from gtft.corpus.health.staleness import list_shell
from gtft.corpus.health.tokens import BeadIds, Encode, list_texts

# A path has a slash between names; what stands behind "//" is an address.
_PATH = re.compile(
    r"(?<![\w./~:@-])(?:~/|\.{1,2}/|/)?(?:[\w.@+-]{1,80}/){1,30}[\w.@+-]{1,80}(?![\w/])"
)
_KEY = re.compile(r'"([A-Za-z_][\w.-]{0,63})"\s{0,4}:')
_LONGEST_TEXT = 200_000
# Distinct texts of one kind that are told apart.
_MOST = 50_000
_SHOWN = 10
# Where advice begins, tokens and shares.
_MANY_PER_ID = 6.0
_MUCH = 0.05
NEVER_ADD = (
    "Do not add tokens to the tokenizer for these: an adapter for added tokens holds the whole embedding and head, "
    "does not load on the unchanged base any more, and cannot be exported as a GGUF adapter. gtft does not offer it; "
    "a model learns to write ids and commands from examples."
)


class _Kind:
    """Texts of one kind, how often each is met, and what it counts under."""

    def __init__(self) -> None:
        self.met: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, text: str) -> None:
        if (name, text) in self.met or len(self.met) < _MOST:
            self.met[name, text] += 1

    def describe(self, encode: Encode) -> dict[str, Any]:
        costs = {key: encode(key[1]) for key in self.met}
        groups: dict[str, Counter[str]] = {}
        for (name, text), times in self.met.items():
            group = groups.setdefault(name, Counter())
            cost = costs[name, text]
            group.update({"mentions": times, "tokens": cost * times})
            group["max"] = max(group["max"], cost)
        ranked = sorted(groups, key=lambda n: (-groups[n]["tokens"], n))
        dearest = sorted(self.met, key=lambda k: (-costs[k], k[1]))[:_SHOWN]
        mentions = sum(self.met.values())
        tokens = sum(costs[key] * times for key, times in self.met.items())
        return {
            "distinct": len(self.met),
            "mentions": mentions,
            "tokens": tokens,
            "tokens per mention": round(tokens / mentions, 2) if mentions else 0.0,
            "most tokens": {
                n: {
                    "mentions": groups[n]["mentions"],
                    "tokens": groups[n]["tokens"],
                    "mean": round(groups[n]["tokens"] / groups[n]["mentions"], 2),
                    "max": groups[n]["max"],
                }
                for n in ranked[:_SHOWN]
            },
            "dearest": {clean(text): costs[name, text] for name, text in dearest},
        }


def measure_costs(examples: Iterable[Example], encode: Encode) -> dict[str, Any]:
    """The report on a corpus; examples are read once. Shares are of all tokens of the corpus."""
    ids = BeadIds()
    kinds = {"paths": _Kind(), "commands": _Kind(), "json keys": _Kind()}
    known = load_commands()
    count = total = characters = 0
    for example in examples:
        count += 1
        ids.add(example)
        for message in example.messages:
            for text in list_texts(message):
                total += encode(text)
                characters += len(text)
                for path in _PATH.findall(text[:_LONGEST_TEXT]):
                    kinds["paths"].add(path, path)
                for key in _KEY.findall(text[:_LONGEST_TEXT]):
                    kinds["json keys"].add(key, f'"{key}":')
            for name, command in _list_commands(message, known):
                kinds["commands"].add(name, command)
    report: dict[str, Any] = {
        "examples": count,
        "tokens": total,
        "characters per token": round(characters / total, 2) if total else 0.0,
        "bead ids": ids.describe(encode),
        **{name: kind.describe(encode) for name, kind in kinds.items()},
    }
    for name in ("bead ids", *kinds):
        part = report[name]
        part["share"] = round(part["tokens"] / total, 4) if total else 0.0
        part["per 1,000 tokens"] = round(1000 * part["share"], 1)
        part["tokens per example"] = round(part["tokens"] / count, 1) if count else 0.0
    report["advice"] = advise(report)
    return report


def advise(report: dict[str, Any]) -> list[str]:
    """What follows from the figures. The last line always stands."""
    lines = []
    ids, paths, commands, keys = (report[k] for k in ("bead ids", "paths", "commands", "json keys"))
    if ids["tokens per mention"] >= _MANY_PER_ID:
        dear = max(ids["by prefix"], key=lambda p: (ids["by prefix"][p]["mean"], p))
        lines.append(
            f"A bead id is {ids['tokens per mention']} tokens on average ({dear}-…: "
            f"{ids['by prefix'][dear]['mean']}): one wrong piece is another bead. Let the model copy ids from what it "
            "was shown, check them with bd, and give new rigs short prefixes."
        )
    if paths["share"] >= _MUCH:
        lines.append(
            f"Paths are {paths['share']:.0%} of what is read. Work from the rig's folder so that paths are relative; "
            "count on it when you choose train.max_length."
        )
    if commands["share"] >= _MUCH:
        lines.append(
            f"Commands of gt and bd are {commands['share']:.0%} of what is read: these are what the model learns here, "
            "no cost to save."
        )
    if keys["share"] >= _MUCH:
        lines.append(
            f"JSON keys are {keys['share']:.0%} of what is read: ask gt and bd for the fields that are needed instead "
            "of whole records."
        )
    return [*lines, NEVER_ADD]


def render_costs(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['examples']:,} examples, {report['tokens']:,} tokens of text, "
        f"{report['characters per token']} characters per token",
        "",
    ]
    for name, what in (
        ("bead ids", "bead id"),
        ("paths", "path"),
        ("commands", "command of gt or bd"),
        ("json keys", "JSON key"),
    ):
        part = report[name]
        distinct = part.get("distinct", part.get("ids", 0))
        lines.append(f"## Tokens per {what}")
        if not part["mentions"]:
            lines += ["none met", ""]
            continue
        lines.append(
            f"{distinct:,} different, {part['mentions']:,} mentions, {part['tokens per mention']} tokens each: "
            f"{part['share']:.1%} of the corpus, {part['per 1,000 tokens']} in 1,000 tokens of context, "
            f"{part['tokens per example']} per example"
        )
        if name == "bead ids":
            rows = [
                f"{p}-…: {d['ids']:,} ids, {d['mean']} on average, {d['max']} at most"
                for p, d in part["by prefix"].items()
            ]
        else:
            rows = [
                f"{clean(n)}: {d['mentions']:,} times, {d['mean']} on average, {d['max']} at most"
                for n, d in part["most tokens"].items()
            ]
        lines += [f"- {row}" for row in rows[:_SHOWN]]
        dear = ", ".join(f"{n} {cost}" for n, cost in list(part["dearest"].items())[:3])
        lines += [f"- dearest: {dear}", ""]
    return "\n".join([*lines, "## What follows", *(f"- {a}" for a in report["advice"])]) + "\n"


def _list_commands(message: Message, known: CommandList) -> Iterator[tuple[str, str]]:
    """(command, as it is written) of each call of gt or bd."""
    if message["role"] == "tool":
        return
    for text in list_shell(message):
        for words in split_commands(text):
            program = known.programs.get(PurePosixPath(words[0]).name if words[0] else "")
            if program is not None and len(words) > 1:
                yield _name(program, words), " ".join(words)


def _name(program: Program, words: list[str]) -> str:
    path = ""
    for word in words[1:]:
        if (path, word) not in program.children:
            break
        path = program.children[path, word]
    return f"{program.name} {path}".strip()
