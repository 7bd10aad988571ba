"""What the real ``bd`` and ``gt`` say of a formula, where they are installed.

Each text is parsed by ``bd cook --dry-run`` and ``gt formula run --dry-run`` in a throw-away folder with a home of
its own: neither needs a server, and nothing is started or written outside that folder. A formula is text from a
model, so a file's name is chosen here, and one that pulls in other files or multiplies steps is not run at all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gtft.errors import TownError
from gtft.evals.answer import LONGEST_ANSWER, BadAnswer
from gtft.evals.checks.formula import find_beyond, parse_formula
from gtft.tool import find_tool, run_tool

PARSERS = ("bd", "gt")
_SECONDS = 20.0
_AT_ONCE = 2
_INIT = (
    "init", "-p", "tt", "--non-interactive", "--role", "maintainer", "--skip-hooks", "--skip-agents", "--stealth",
    "-q",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """``code``: what gtft's own rules say, "" when they accept. ``refusals``: parser → what it said, for those that
    refused. ``skipped``: why the parsers were not asked, "" when they were."""

    code: str
    refusals: Mapping[str, str]
    skipped: str = ""

    @property
    def disagrees(self) -> bool:
        """The rules accept what a parser refuses, or refuse what both accept."""
        return not self.skipped and bool(self.code) != bool(self.refusals)


def find_parsers(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those of bd and gt that are on PATH; `judge` needs both."""
    return tuple(p for p in PARSERS if find_tool(p, environ))


def judge(texts: Sequence[str], environ: Mapping[str, str]) -> list[Verdict]:
    """One verdict for each formula's TOML, in their order. Only PATH is taken from ``environ``.

    About 0.3 s a text. A text on which a parser does not end is skipped and says so. Raises TownError when a parser
    is missing, or bd cannot make its database.
    """
    if missing := [p for p in PARSERS if p not in find_parsers(environ)]:
        raise TownError(
            f"{' and '.join(missing)} cannot be asked about formulas",
            why="not on PATH",
            fix="install it (docs/in-a-town.md), then: gtft doctor",
        )
    with _make_town(environ) as town, ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda n: _judge(texts[n], n, town), range(len(texts))))


@dataclass(frozen=True)
class _Town:
    folder: Path
    environ: Mapping[str, str]


def _judge(text: str, number: int, town: _Town) -> Verdict:
    code = ""
    try:
        beyond = find_beyond(parse_formula(text))
    except BadAnswer as e:
        code, beyond = str(e), _name_beyond(text)
    if len(text) > LONGEST_ANSWER:
        beyond = f"{len(text)} characters"
    if beyond:
        return Verdict(code, {}, beyond)
    name = f"formula-{number}"
    path = town.folder / ".beads" / "formulas" / f"{name}.formula.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    refusals: dict[str, str] = {}
    for program, arguments in (("bd", ("cook", name)), ("gt", ("formula", "run", name))):
        try:
            done = run_tool(
                program,
                *arguments,
                "--dry-run",
                environ=town.environ,
                cwd=town.folder,
                timeout=_SECONDS,
            )
        except TownError as e:
            return Verdict(code, {}, str(e))
        if done.code:
            refusals[program] = (done.stderr or done.stdout).strip()[:200]
    return Verdict(code, refusals)


def _name_beyond(text: str) -> str:
    """Of a text that the rules refuse: the first word in it that could make bd load or repeat anything."""
    folded = text.casefold()
    words = ("extends", "compose", "loop", "expand", "advice", "on_complete")
    return next((w for w in words if w in folded), "")


@contextmanager
def _make_town(environ: Mapping[str, str]) -> Iterator[_Town]:
    """A folder with bd's own embedded database, as bd parses nothing without one."""
    with tempfile.TemporaryDirectory(prefix="gtft-formulas-") as temporary:
        root = Path(temporary)
        home, folder = root / "home", root / "town"
        home.mkdir()
        folder.mkdir()
        own = {
            "PATH": environ.get("PATH", ""),
            "HOME": str(home),
            "BD_NON_INTERACTIVE": "1",
            "BD_BACKUP_ENABLED": "false",
            "GT_TEST_NO_NUDGE": "1",
        }
        done = run_tool("bd", *_INIT, environ=own, cwd=folder)
        if done.code:
            raise TownError(
                "bd could not make a database to parse formulas with",
                why=done.stderr.strip()[:200],
                fix="bd version, then: gtft doctor",
            )
        (folder / ".beads" / "formulas").mkdir(exist_ok=True)
        yield _Town(folder, own)
