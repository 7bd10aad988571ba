"""What the real ``bd`` makes of bead commands, in a throw-away database: the judge over the code's own rules.

Only commands that the code's own reader took apart are run: no flag that reads a file, leaves the database or
starts anything; a list of arguments, a home and an environment of its own, a time limit. bd's own engine works
in the folder, without a server.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gtft.errors import TownError
from gtft.evals.answer import BadAnswer, parse_answer
from gtft.evals.checks.bead import NEW, State, apply_command
from gtft.evals.checks.bead_command import (
    CREATE_FLAGS,
    CREATE_SHORT,
    UPDATE_FLAGS,
    UPDATE_SHORT,
    is_sayable,
    parse_create,
)
from gtft.evals.checks.flags import Unjudged
from gtft.evals.item import Item
from gtft.tool import Ran, find_tool, run_tool

# The checks whose answers can be judged here.
CHECKED = frozenset({"bead_valid", "bead_state"})
# For one command, on a busy box; an import gets _ROW_SECONDS more for each row.
SECONDS = 30.0
_ROW_SECONDS = 0.5
_PREFIX = "judge"
_VERBS = ("create", "update")
_LONG_AGO = "2026-01-01T00:00:00Z"
_HELP_FLAG = re.compile(
    r"^ +(?:-(\w), )?--([a-z-]+)(?: (string|strings|stringArray|int))? {2,}", re.M
)
# Field of a state → key of bd's JSON.
_KEYS = {
    "title": "title",
    "type": "issue_type",
    "priority": "priority",
    "status": "status",
    "labels": "labels",
    "description": "description",
    "design": "design",
    "acceptance": "acceptance_criteria",
    "notes": "notes",
    "assignee": "assignee",
    "external_ref": "external_ref",
    "estimate": "estimated_minutes",
    "metadata": "metadata",
    "ephemeral": "ephemeral",
}


@dataclass(frozen=True)
class Verdict:
    """``accepted``: bd did it; None when bd was not called. ``agrees``: the code's rules say the same, of validity and
    of every field of every bead afterwards; ``difference`` says where they do not, or why bd was not called."""

    item: str
    accepted: bool | None
    agrees: bool
    difference: str = ""


@dataclass(frozen=True)
class _Case:
    """One answer made ready. ``argv`` is empty when bd is not to be called. ``after``: what the code expects, by the
    ids of the database; None when the code refuses, for ``reason``."""

    item: str
    argv: tuple[str, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    after: Mapping[str, State] | None = None
    reason: str = ""
    agrees: bool = True


def find_bd(environ: Mapping[str, str]) -> Path | None:
    """Where ``bd`` is on the PATH of ``environ``; None without it."""
    return find_tool("bd", environ)


class BeadJudge:
    """A context manager: a database for as long as it is open. Every answer has beads of its own in it.

    ``environ``: only its PATH is used. Raises TownError when bd is missing, cannot make a database, hangs, or takes
    its flags in another way than the code's tables say.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._path = environ.get("PATH", "")
        self._answers = 0

    def __enter__(self) -> BeadJudge:
        # Closed in __exit__; the judge is only used in a with statement.
        self._room = tempfile.TemporaryDirectory(prefix="gtft-bd-")
        try:
            self._open(Path(self._room.name))
        except BaseException:
            self._room.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._room.cleanup()

    def judge(self, answers: Sequence[tuple[Item, str]]) -> list[Verdict]:
        """One verdict per answer, in order. bd is called once for each that is exactly one bead command; equal
        answers to one item are judged once."""
        distinct = {(item.id, output): (item, output) for item, output in answers}
        cases = {key: self._prepare(*pair) for key, pair in distinct.items()}
        rows = [row for c in cases.values() for row in c.rows]
        if rows:
            lines = "".join(json.dumps(r) + "\n" for r in rows)
            self._demand("import", "-", stdin=lines, seconds=SECONDS + _ROW_SECONDS * len(rows))
        ran = {key: self._try(c) for key, c in cases.items()}
        beads: dict[str, dict[str, Any]] = {}
        if any(isinstance(r, Ran) for r in ran.values()):
            for line in self._demand("export", "--all").splitlines():
                row = json.loads(line)
                beads[row.get("id", "")] = row
        return [
            _compare(cases[k], ran[k], beads) for k in ((item.id, out) for item, out in answers)
        ]

    def _try(self, case: _Case) -> Ran | TownError | None:
        """None: bd is not to be called. An error: it did not end in time."""
        if not case.argv:
            return None
        try:
            return self._run(*case.argv)
        except TownError as e:
            return e

    def _open(self, room: Path) -> None:
        home, self._folder = room / "home", room / "rig"
        home.mkdir()
        self._folder.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = judge\n\temail = judge@example.com\n[beads]\n\trole = maintainer\n",
            "utf-8",
        )
        self._environ = {
            "PATH": self._path,
            "HOME": str(home),
            "TMPDIR": str(room),
            "BEADS_ACTOR": "judge",
            "BD_JSON_ENVELOPE": "1",
            "BD_NON_INTERACTIVE": "1",
            "BD_BACKUP_ENABLED": "false",
            # Nothing above the folder is taken for the repository.
            "GIT_CEILING_DIRECTORIES": str(room),
        }
        self._known = {verb: self._read_flags(verb) for verb in _VERBS}
        self._demand(
            *("init", "-p", _PREFIX, "--non-interactive", "--role", "maintainer"),
            *("--skip-hooks", "--skip-agents", "--stealth", "-q"),
        )

    def _prepare(self, item: Item, output: str) -> _Case:
        """The call for an answer, with bead ids that only this answer uses, and what the code makes of it."""
        self._answers += 1
        try:
            commands = parse_answer(output).commands()
        except BadAnswer as e:
            return _Case(item.id, reason=str(e))
        if (
            len(commands) != 1
            or commands[0][0] != "bd"
            or commands[0][1:2] not in (["create"], ["update"])
        ):
            return _Case(item.id, reason="not exactly one bd create or bd update")
        if not all(is_sayable(w) for w in commands[0]):
            return _Case(item.id, reason="a character that no command line can carry")
        others = _find_others(commands[0])
        # Where the item says which beads there are, an id it does not name is a bead that is missing.
        before = item.check.args.get("before", others)
        ids = sorted({*before, *others})
        names = {k: f"{_PREFIX}-a{self._answers}b{n}" for n, k in enumerate(ids, 1)}
        command = [_rename(w, names) for w in commands[0]]
        own = {names[k]: _rename_state(v, names) for k, v in before.items()}
        after: Mapping[str, State] | None = None
        reason = ""
        try:
            after = apply_command(command, own)
        except Unjudged as e:
            # A flag that the code takes for unknown must be unknown to bd as well.
            clash = e.flag in self._known[command[1]] and "unknown" in str(e)
            return _Case(item.id, reason=str(e), agrees=not clash)
        except BadAnswer as e:
            reason = str(e)
        argv = (command[1], "--json", *command[2:])
        return _Case(item.id, argv, tuple(_write_row(k, v) for k, v in own.items()), after, reason)

    def _read_flags(self, verb: str) -> frozenset[str]:
        """Every flag of a command, as its help lists them, such as ``--file`` and ``-f``."""
        table, short = (
            (CREATE_FLAGS, CREATE_SHORT) if verb == "create" else (UPDATE_FLAGS, UPDATE_SHORT)
        )
        found: set[str] = set()
        for letter, name, kind in _HELP_FLAG.findall(self._demand(verb, "--help")):
            found |= {f"--{name}", f"-{letter}"} if letter else {f"--{name}"}
            ours = table.get(name, "barred")
            wanted = {"": "switch", "strings": "list"}.get(kind, "text")
            if ours not in ("barred", wanted) or (
                ours != "barred" and letter and short.get(letter) != name
            ):
                raise TownError(
                    f"this bd takes --{name} of bd {verb} in another way",
                    why=f"it is a {wanted} there and a {ours} in gtft, so answers cannot be run safely",
                    fix="install bd 1.0.5, or evaluate without bd on PATH",
                )
        return frozenset(found)

    def _run(self, *argv: str, stdin: str = "", seconds: float = SECONDS) -> Ran:
        return run_tool(
            "bd",
            *argv,
            environ=self._environ,
            cwd=self._folder,
            stdin=stdin,
            timeout=seconds,
        )

    def _demand(self, *argv: str, stdin: str = "", seconds: float = SECONDS) -> str:
        ran = self._run(*argv, stdin=stdin, seconds=seconds)
        if ran.code != 0:
            raise TownError(
                f"bd {argv[0]} failed in a throw-away database",
                why=(ran.stderr or ran.stdout).strip()[:300],
                fix="bd version, then: gtft doctor",
            )
        return ran.stdout


def _find_others(command: Sequence[str]) -> dict[str, State]:
    """The beads that a ``bd create`` leans on, made up as plain ones."""
    try:
        bead = parse_create(command)
    except BadAnswer:
        return {}
    ids = {bead.parent, *(other for _, other, _ in bead.links)} - {""}
    return {
        i: {"title": "Another bead", "type": bead.type, "priority": 2, "status": "open"}
        for i in ids
    }


def _rename(word: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        word = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w-]|\.\w)", new, word)
    return word


def _rename_state(state: State, names: Mapping[str, str]) -> State:
    found = dict(state)
    if "parent" in found:
        found["parent"] = names.get(found["parent"], found["parent"])
    if "links" in found:
        found["links"] = sorted([kind, names.get(other, other)] for kind, other in found["links"])
    return found


def _write_row(bead: str, state: State) -> dict[str, Any]:
    """The line of a bead for ``bd import``."""
    links = [*state.get("links", ())]
    if "parent" in state:
        links.append(["parent-child", state["parent"]])
    return {
        "id": bead,
        "created_at": _LONG_AGO,
        "updated_at": _LONG_AGO,
        **{_KEYS[k]: v for k, v in state.items() if k in _KEYS},
        "dependencies": [
            {"issue_id": bead, "depends_on_id": other, "type": kind, "created_at": _LONG_AGO}
            for kind, other in links
        ],
    }


def _read_state(row: Mapping[str, Any], new: str) -> State:
    state: State = {}
    for field, key in _KEYS.items():
        value = row.get(key)
        if value is not None and value is not False and value not in ("", []):
            state[field] = value
    if "labels" in state:
        state["labels"] = sorted(state["labels"])
    links = []
    for link in row.get("dependencies", ()):
        other = NEW if link["depends_on_id"] == new else link["depends_on_id"]
        if link["type"] == "parent-child":
            state["parent"] = other
        else:
            links.append([link["type"], other])
    if links:
        state["links"] = sorted(links)
    return state


def tell_verdicts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Counts, and each disagreement by its item."""
    return {
        "answers": len(verdicts),
        "run": sum(v.accepted is not None for v in verdicts),
        "accepted": sum(v.accepted is True for v in verdicts),
        "disagreements": [
            {"item": v.item, "difference": v.difference} for v in verdicts if not v.agrees
        ],
    }


def _compare(
    case: _Case, ran: Ran | TownError | None, beads: Mapping[str, Mapping[str, Any]]
) -> Verdict:
    if ran is None:
        return Verdict(case.item, None, case.agrees, case.reason)
    if isinstance(ran, TownError):
        return Verdict(case.item, None, False, ran.what)
    said = (ran.stderr or ran.stdout).strip()[:200]
    # bd ends with 0 where nothing was to be changed.
    accepted = ran.code == 0 and not ran.stdout.startswith("No updates")
    if accepted != (case.after is not None):
        why = f"gtft refuses: {case.reason}" if accepted else f"bd refuses: {said}"
        return Verdict(case.item, accepted, False, why)
    if case.after is None:
        return Verdict(case.item, accepted, True)
    new = _find_id(ran.stdout) if NEW in case.after else ""
    for name, expected in case.after.items():
        row = beads.get(new if name == NEW else name)
        if row is None:
            return Verdict(case.item, accepted, False, f"{name} is not in the database")
        found = _read_state(row, new)
        for key in sorted(set(found) | set(expected)):
            if found.get(key) != expected.get(key):
                why = f"{name}: {key} {found.get(key)!r} in bd, {expected.get(key)!r} in gtft"
                return Verdict(case.item, accepted, False, why[:300])
    return Verdict(case.item, accepted, True)


def _find_id(printed: str) -> str:
    try:
        doc = json.loads(printed)
    except ValueError:
        return ""
    data = doc.get("data", doc) if isinstance(doc, dict) else {}
    return str(data.get("id", "")) if isinstance(data, dict) else ""
