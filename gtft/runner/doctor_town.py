"""Doctor in a town: the programs, the server, the database, the rig's beads, and what gtft installed."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from gtft.beads.bd_program import NEWEST, OLDEST
from gtft.errors import GtftError, InputError, TownError
from gtft.records.dolt import check_target, open_dolt
from gtft.runner.finding import Finding, Level
from gtft.runner.workspace import DEFAULT_NAME, Config, find_home, read_config
from gtft.tool import find_tool, run_tool
from gtft.town.locate import Server, Town, find_root, find_server, read_routes

# From, below. gt before 1.1 cannot install a town with bd 1.0.5, gt 1.2 refuses it or points it at another
# database (docs/decisions.md); gt 1.1 asks for dolt 1.82.4.
NEEDED: dict[str, tuple[tuple[int, int, int], tuple[int, int, int] | None]] = {
    "bd": (OLDEST, NEWEST),
    "gt": ((1, 1, 0), (1, 2, 0)),
    "dolt": ((1, 82, 4), None),
}
VERSION_SECONDS = 20.0
CONNECT_SECONDS = 3.0
PATIENCE_SECONDS = 2.0
# With one of these wrong the workspace cannot be opened.
UNREACHABLE = ("config", "town", "Dolt server", "database")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")

INSTALLED = "installed"

# What `gtft town status` knows of the parts of a town that is linked to a rig: (name, state).
ListParts = Callable[[Town, str], Iterable[tuple[str, str]]]


def check_town(
    path: Path, cwd: Path, environ: Mapping[str, str], list_parts: ListParts | None = None
) -> Iterator[Finding]:
    """The workspace's town, or the one that ``cwd`` is in. Nothing is changed."""
    try:
        config = read_config(path) if (path / "config.toml").exists() else Config()
    except InputError as e:
        yield Finding("wrong", "config", f"{e.what}: {e.why}", e.fix)
        return
    link = config.town
    above = find_root(cwd, environ)
    if link is None and above is None:
        for name in NEEDED:
            if find_tool(name, environ) is None:
                yield Finding("note", name, "not on PATH: the embedded ledger and store are used")
        return
    yield from check_programs(cwd, environ, needed=link is not None)
    if link is None:
        assert above is not None
        if path.resolve() != (above / DEFAULT_NAME).resolve():
            yield _misplaced(path, above)
        yield Finding(
            "note",
            "town",
            f"{above} is a town, and gtft is not installed in it: the embedded ledger and store are used",
            "gtft town install",
        )
        return
    try:
        home, target = find_home(path, link, environ)
    except TownError as e:
        yield _as_wrong("town", e)
        return
    town, rig = home.town, home.rig
    yield Finding("ok", "town", f"{town.name} at {town.root}, rig {rig.name}, beads {rig.prefix}-…")
    if path.resolve() != (town.root / DEFAULT_NAME).resolve():
        yield _misplaced(path, town.root)
    yield from _check_rig(town, rig.name, rig.prefix, rig.beads_dir)
    server = find_server(town, environ)
    found = check_server(server)
    yield found
    if found.level == "ok":
        try:
            check_target(open_dolt(target), target, PATIENCE_SECONDS)
        except GtftError as e:
            yield _as_wrong("database", e)
        else:
            text = f"{rig.database}, the beads of {rig.name}; project {target.project_id or 'not named'}"
            yield Finding("ok", "database", text)
    if list_parts is not None:
        yield from _check_parts(town, rig.name, list_parts)


def check_programs(cwd: Path, environ: Mapping[str, str], *, needed: bool) -> Iterator[Finding]:
    """bd, gt and dolt: there, and of a version that works. ``needed``: without them something fails."""
    bad: Level = "wrong" if needed else "note"
    for name, (least, below) in NEEDED.items():
        wanted = f"{_dotted(least)} or later" + (f", below {_dotted(below)}" if below else "")
        fix = f"install {name} {wanted} (docs/in-a-town.md)"
        path = find_tool(name, environ)
        if path is None:
            # Only gt itself calls dolt.
            yield Finding("note" if name == "dolt" else bad, name, "not on PATH", fix)
            continue
        try:
            ran = run_tool(name, "version", environ=environ, cwd=cwd, timeout=VERSION_SECONDS)
        except TownError as e:
            yield Finding(bad, name, e.what, e.fix)
            continue
        seen = _VERSION.search(ran.stdout)
        if ran.code != 0 or seen is None:
            said = (ran.stderr.strip() or ran.stdout.strip() or f"exit {ran.code}").splitlines()[0]
            yield Finding(bad, name, f"{path} does not tell its version: {said}", fix)
            continue
        version = (int(seen[1]), int(seen[2]), int(seen[3]))
        if version < least or (below is not None and version >= below):
            text = f"{_dotted(version)} at {path}; gtft works with {wanted}"
            yield Finding(bad, name, text, fix)
        else:
            yield Finding("ok", name, f"{_dotted(version)} at {path}")


def check_server(server: Server) -> Finding:
    """Whether anything listens where the town's Dolt server should."""
    where = f"{server.host}:{server.port}"
    try:
        socket.create_connection((server.host, server.port), CONNECT_SECONDS).close()
    except OSError as e:
        text = f"nothing answers at {where} ({e.strerror or e}); runs wait for it and go on"
        return Finding("wrong", "Dolt server", text, "gt dolt status, then: gt dolt start")
    return Finding("ok", "Dolt server", f"answers at {where} as {server.user}")


def _misplaced(path: Path, root: Path) -> Finding:
    inside = path.resolve().is_relative_to(root.resolve())
    where = (
        "in a worktree or rig, where gt done would commit it" if inside else "outside of the town"
    )
    return Finding(
        "wrong" if inside else "note",
        "workspace",
        f"{path} is {where}; the town's own is {root / DEFAULT_NAME}",
        "leave --workspace and GTFT_WORKSPACE out",
    )


def _check_rig(town: Town, name: str, prefix: str, beads_dir: Path) -> Iterator[Finding]:
    if not (beads_dir / "metadata.json").is_file():
        text = f"{beads_dir} holds no bead database"
        yield Finding("wrong", f"rig {name}", text, "gt doctor, then: gt rig list")
    routes = read_routes(town.root / ".beads" / "routes.jsonl")
    if prefix in routes:
        yield Finding("ok", "routes", f"{prefix}- leads to {routes[prefix]}")
    else:
        text = f"no route for {prefix}-: gt and bd find none of our beads from the town's root"
        yield Finding("wrong", "routes", text, "gt doctor --fix")


def _check_parts(town: Town, rig: str, list_parts: ListParts) -> Iterator[Finding]:
    try:
        found = list(list_parts(town, rig))
    except GtftError as e:
        yield _as_wrong(INSTALLED, e)
        return
    off = [f"{name} ({state})" for name, state in found if state != INSTALLED]
    if off:
        text = f"{len(off)} of {len(found)} parts are not as gtft puts them: {', '.join(off)}"
        yield Finding("note", INSTALLED, text, "gtft town status, then: gtft town install")
    else:
        yield Finding("ok", INSTALLED, f"{len(found)} parts are in place")


def _as_wrong(about: str, e: GtftError) -> Finding:
    return Finding("wrong", about, f"{e.what}: {e.why}" if e.why else e.what, e.fix)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
