"""What an installed gt or bd says of itself: its ``--help``, read command by command."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gtft.corpus.health.commands import FORMAT, CommandList, load_commands, read_commands
from gtft.errors import TownError
from gtft.tool import Ran, find_tool, run_tool

# Real programs have some 400 commands, 4 deep; more is a program that repeats itself.
MOST_COMMANDS, DEEPEST = 2000, 6
_TIMEOUT_SECONDS = 20.0
_SUB = re.compile(r"^  ([a-z0-9][\w-]*) ")
# "-b, --blocks string  Text"; "string[="x"]" takes a value only behind "=".
_FLAG = re.compile(r"^ +(?:-(\w), )?--([\w-]+)(\S*)(?: (\S+))?(?:  |$)")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_AT_ONCE = 4


def read_program(
    name: str,
    environ: Mapping[str, str],
    hidden: Sequence[str] = (),
    open_commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Every command of a program with its flags, as `gtft.corpus.health.commands` stores them.

    ``hidden``: commands ("crew next") and flags ("list --state") that help does not show; each is taken
    when the program knows it. ``open_commands`` hand their flags on, which help does not say either.
    Runs only ``--help`` and ``--version``, in an empty folder. Raises TownError when the program is
    missing or answers with something else.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):

        def ask(words: str) -> Ran:
            return run_tool(
                name, *words.split(), environ=environ, cwd=Path(folder), timeout=_TIMEOUT_SECONDS
            )

        version = _VERSION.search(ask("--version").stdout)
        commands: dict[str, Any] = {}
        taken: list[str] = []
        waiting = [""]
        for depth in range(DEEPEST + 1):
            if depth == DEEPEST:
                waiting = [h for h in hidden if "--" not in h and h not in commands]
            pages = pool.map(lambda path: ask(f"{path} --help").stdout, waiting)
            found: list[str] = []
            for path, page in zip(waiting, pages, strict=True):
                if f"\n  {name} {path}".rstrip() in page:
                    commands[path], subs = read_help(page)
                    taken += [path] if depth == DEEPEST else []
                    found += [f"{path} {s}".strip() for s in subs if s != "help"]
                elif depth < DEEPEST:
                    # Its parent names it, but it has no page of its own: it hands everything on.
                    commands[path] = {"words": True, "flags": "", "open": True}
            waiting = [p for p in dict.fromkeys(found) if p not in commands][:MOST_COMMANDS]
        for given in hidden:
            path, dashes, flag = given.partition(" --")
            if not dashes or path not in commands:
                continue
            shown = commands[path]["flags"].replace("=", "").split()
            if f"--{flag}" not in shown and _knows(ask(f"{path} --{flag}=x --help")):
                commands[path]["flags"] += f" --{flag}="
                taken.append(given)
    if version is None or "" not in commands:
        raise TownError(
            f"{name} does not describe itself",
            why=f"{name} --version and {name} --help gave nothing that can be read",
            fix="gtft doctor",
        )
    common = set(commands[""]["flags"].split())
    for path, command in commands.items():
        own = {f for f in command["flags"].split() if not path or f not in common}
        command["flags"] = " ".join(sorted(own))
        if path in open_commands:
            command["open"] = True
    return {"version": version[0], "hidden": taken, "commands": dict(sorted(commands.items()))}


def _knows(answer: Ran) -> bool:
    return "unknown flag" not in answer.stderr + answer.stdout


def read_help(text: str) -> tuple[dict[str, Any], list[str]]:
    """One page of help (the form of Go's cobra): the command, and the names of its sub-commands."""
    command: dict[str, Any] = {}
    flags: list[str] = []
    subs: list[str] = []
    part, described = "", False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            part = line.rstrip(":") if line.endswith(":") else ""
            described = described or part == "Usage"
            if not described:
                # Prose of the program, whose own headings are like these.
                part = ""
            elif not part.endswith(("Flags", "Usage", "Aliases", "Examples")):
                part = "commands" if part else ""
        elif part == "Usage" and ("<" in line or "[" in line):
            rest = re.sub(r"\[flags\]|\[command\]", "", line)
            command["words"] = command.get("words", False) or bool(re.search(r"[<\[]|\.\.\.", rest))
        elif part == "Aliases" and line:
            command["aliases"] = line.replace(" ", "").split(",")[1:]
        elif part.endswith("Flags") and (found := _FLAG.match(line)):
            short, long, optional, kind = found.groups()
            mark = "=" if kind and "[=" not in optional + kind else ""
            flags += [f"-{short}{mark}"] if short else []
            flags.append(f"--{long}{mark}")
        elif part == "commands" and (sub := _SUB.match(line)):
            subs.append(sub[1])
    command["flags"] = " ".join(flags)
    return command, subs


def read_installed(environ: Mapping[str, str]) -> CommandList:
    """What the gt and bd on PATH know; for one that is not there, the shipped list. Takes half a minute.

    Statuses and formulas are the shipped ones. Raises TownError when neither is there.
    """
    shipped = load_commands()
    programs: dict[str, Any] = {}
    for name, program in shipped.programs.items():
        if find_tool(name, environ) is not None:
            opened = [path for path, command in program.commands.items() if command.open]
            programs[name] = read_program(name, environ, program.hidden, opened)
    if not programs:
        raise TownError(
            "neither gt nor bd is on PATH",
            why="--installed asks the programs of this machine",
            fix="gtft corpus health    (against the list that gtft ships)",
        )
    found = read_commands({"format": FORMAT, "programs": programs, "statuses": [], "formulas": []})
    return CommandList({**shipped.programs, **found.programs}, shipped.statuses, shipped.formulas)
