"""The move of an embedded workspace into its town: rows into the rig's database, beads through ``bd``.

The old store is locked until the end. ``config.toml`` is what switches, after everything is in the town
and was compared; a move that was cut off anywhere is simply done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gtft.beads.bd import BdLedger
from gtft.beads.bd_program import BdProgram
from gtft.beads.transfer import choose_ids, move_beads, read_old_beads
from gtft.errors import ConflictError, TownError, UsageError, translate_os_error
from gtft.records.dolt import check_target, open_dolt
from gtft.records.rows import StageRow
from gtft.records.store import Store, open_sqlite
from gtft.records.transfer import add_rows, read_rows, rename_beads
from gtft.records.unit import Unit
from gtft.runner.lease import may_take_over
from gtft.runner.workspace import (
    Config,
    Home,
    TownLink,
    Workspace,
    find_home,
    read_config,
    write_config,
)
from gtft.town.locate import find_root

STORE_FILE, LEDGER_FILE = "gtft.db", "beads.db"
ASIDE = "embedded"
_SIDE_FILES = ("-wal", "-shm")


@dataclass(frozen=True)
class Moved:
    """What a move did. ``renamed``: beads that have another id now, old → new."""

    rig: str
    runs: int
    beads: int
    renamed: dict[str, str]
    aside: Path


def move_workspace(
    path: Path,
    rig: str,
    *,
    actor: str,
    environ: dict[str, str],
    now: Callable[[], float],
    tell: Callable[[str], None] = lambda step: None,
    dry_run: bool = False,
) -> Moved:
    """Move the embedded workspace at ``path`` into the rig of the town it stands in. Repeatable.

    ``tell`` is given each step before it is taken. Raises UsageError when there is nothing to move or the
    workspace stands elsewhere, ConflictError while somebody works on a stage, TownError.
    """
    config = _check_place(path, rig, environ)
    home, target = find_home(path, TownLink(rig=rig), environ)
    engine = open_dolt(target)
    check_target(engine, target)
    there = Store(engine, now)
    bd = BdProgram(home.rig.beads_dir, environ)
    ledger = BdLedger(home.rig.beads_dir, environ)
    store = Store(open_sqlite(path / STORE_FILE), now)
    store.migrate()
    is_switched = config.town is not None
    source = Workspace(path, config, store, ledger, now, environ)

    def work(u: Unit) -> Moved:
        # Inside SQLite's write lock: nobody claims or delivers from the old store meanwhile.
        rows = read_rows(u)
        _refuse_live(source, [StageRow(**r) for r in rows["gtft_stages"]])
        old = read_old_beads(path / LEDGER_FILE)
        ids = choose_ids(old, home.rig.prefix, ledger)
        renamed = {k: v for k, v in ids.items() if k != v}
        if dry_run:
            return Moved(rig, len(rows["gtft_runs"]), len(old), renamed, _find_aside(path))
        tell("beads")
        stamp = store.now_us()
        move_beads(old, ids, bd, ledger, actor=actor, now_us=stamp, keep=is_switched)
        tell("rows")
        there.migrate()
        wanted = rename_beads(rows, ids)
        message = f"gtft: {len(rows['gtft_runs'])} runs moved in ({actor})"
        there.units.run(
            lambda v: add_rows(v, wanted, keep=is_switched, message=message, actor=actor)
        )
        tell("switch")
        if not is_switched:
            link = TownLink(rig=rig, root=os.path.relpath(home.town.root, path))
            write_config(path, config.model_copy(update={"town": link}))
        return Moved(rig, len(rows["gtft_runs"]), len(old), renamed, _find_aside(path))

    moved = store.units.run(work)
    if not dry_run:
        tell("aside")
        _put_aside(path, moved.aside)
    return moved


def _check_place(path: Path, rig: str, environ: dict[str, str]) -> Config:
    root = find_root(path.parent, environ)
    if root is None:
        raise TownError(
            f"{path} stands in no town",
            why="no mayor/town.json in its folder or above, and GT_ROOT names none",
            fix="gtft --workspace TOWN/.gtft store move --rig RIG",
        )
    if path.resolve() != (root / ".gtft").resolve():
        raise UsageError(
            f"{path} is not the workspace of the town {root}",
            why="runs name their artifacts from there, so the folder moves first",
            fix=f"mv {path} {root / '.gtft'}, then: gtft store move --rig {rig}",
        )
    if not (path / STORE_FILE).is_file():
        raise UsageError(
            f"{path} holds no embedded store", why="there is nothing to move", fix="gtft store"
        )
    config = read_config(path)
    if config.town is not None and config.town.rig != rig:
        raise UsageError(
            f"{path} belongs to the rig {config.town.rig} already",
            why="its config.toml says so",
            fix=f"gtft store move --rig {config.town.rig}",
        )
    return config


def _refuse_live(ws: Workspace, rows: list[StageRow]) -> None:
    for row in rows:
        if row.state == "active" and not may_take_over(ws, row):
            raise ConflictError(
                f"{row.stage} of {row.run_id} is being worked on by {row.worker}",
                why="a store moves only while nobody holds a lease in it",
                fix=f"gtft runs pause {row.run_id}, then: gtft store move",
            )


def _find_aside(path: Path) -> Path:
    """A folder that holds no old store yet: a move that was cut off here goes on with the same one."""
    n = 1
    while (found := path / (ASIDE if n == 1 else f"{ASIDE}-{n}")) and (found / STORE_FILE).exists():
        n += 1
    return found


def _put_aside(path: Path, aside: Path) -> None:
    try:
        aside.mkdir(exist_ok=True)
        # The store last: while it is there, the move is not over.
        for name in (LEDGER_FILE, STORE_FILE):
            for end in (*_SIDE_FILES, ""):
                if (path / f"{name}{end}").exists():
                    (path / f"{name}{end}").rename(aside / f"{name}{end}")
    except OSError as e:
        raise translate_os_error(e, "putting the old store aside") from e


def describe_home(ws: Workspace) -> dict[str, object]:
    """Where the store and the ledger of a workspace are."""
    home: Home | None = ws.home
    return {
        "workspace": str(ws.path),
        "store": ws.store.url,
        "schema": ws.store.migrate(),
        "runs": len(ws.store.list_runs()),
        "ledger": str(home.rig.beads_dir if home else ws.path / LEDGER_FILE),
        "town": str(home.town.root) if home else None,
        "rig": home.rig.name if home else None,
        # Linked before it was moved, or a move that was cut off at its very end.
        "left_behind": str(ws.path / STORE_FILE)
        if home and (ws.path / STORE_FILE).exists()
        else None,
    }
