"""The workspace: where gtft keeps its state, and what is opened from it.

``.gtft/``: ``config.toml``, ``gtft.db`` (store), ``beads.db`` (embedded ledger), ``artifacts/``,
``bases/``, ``runs/<run>/<stage>/`` (job directories), ``mail.log``. In a town that gtft is installed in,
it is ``<town>/.gtft``, its store is in the Dolt database of a rig and its ledger is that rig's ``bd``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomli
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import write_file
from gtft.beads.bd import BdLedger
from gtft.beads.ledger import Ledger
from gtft.beads.local import LocalLedger
from gtft.errors import InputError, TownError, translate_os_error
from gtft.records.dolt import Target, check_target, open_dolt
from gtft.records.store import Store, open_sqlite
from gtft.town.locate import Rig, Town, find_root, find_server, read_town

DEFAULT_NAME = ".gtft"
# How long a command waits for a town whose server is away; a runner waits longer (`Config.patience_seconds`).
ANSWER_SECONDS = 10.0


class TownLink(BaseModel):
    """``[town]`` in ``config.toml``: state is kept in this town, in the database of this rig."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rig: str
    # Relative to the workspace, so that a town can be moved.
    root: str = ".."


class Config(BaseModel):
    """``config.toml``. The defaults stand here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prefix: str = Field("ft", pattern=r"^[a-zA-Z][a-zA-Z0-9-]{0,19}$")
    # A lease lives this long without a heartbeat; a heartbeat comes three times as often.
    lease_seconds: float = Field(60.0, gt=0)
    # How long a worker that was asked to stop may take before it is killed: memory is free again in 30 s.
    stop_seconds: float = Field(25.0, gt=0)
    # How often a stage whose worker was killed is started again by itself.
    retries: int = Field(2, ge=0)
    # How long a runner waits for a store that is away before it gives up; its worker goes on.
    patience_seconds: float = Field(900.0, ge=0)
    # Trainings at a time on one device of this box, over all workspaces of the user.
    trainings_per_device: int = Field(1, ge=1)
    # Memory that a training leaves free, MiB: it waits, and gives way, for that. 0 = it never gives way.
    headroom_mb: int = Field(512, ge=0)
    # A run that waits longer than this for somebody is stale: the sweep says so.
    stale_days: float = Field(14.0, gt=0)
    town: TownLink | None = None


@dataclass(frozen=True)
class Home:
    """The town that a workspace keeps its state in, and the rig whose database and beads it uses."""

    town: Town
    rig: Rig


@dataclass(frozen=True)
class Workspace:
    path: Path
    config: Config
    store: Store
    ledger: Ledger
    now: Callable[[], float]
    # What the programs of the town are called with.
    environ: Mapping[str, str] = field(repr=False)
    home: Home | None = None

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def mail_log(self) -> Path:
        return self.path / "mail.log"

    def job_dir(self, run_id: str, stage: str) -> Path:
        return self.path / "runs" / run_id / stage

    def artifact_path(self, stored: str) -> Path:
        """Paths in the store are relative to the workspace, so that it can be moved."""
        return self.path / stored


def locate_workspace(given: str | None, cwd: Path, environ: Mapping[str, str]) -> Path:
    """``--workspace``; in a town ``<town>/.gtft``; else the nearest ``.gtft`` at or above ``cwd``,
    else ``cwd/.gtft``. Never a folder of its own in a rig or a worktree."""
    if given:
        return Path(given).absolute()
    town = find_root(cwd, environ)
    if town is not None:
        return town / DEFAULT_NAME
    for folder in (cwd, *cwd.parents):
        if (folder / DEFAULT_NAME / "config.toml").exists():
            return (folder / DEFAULT_NAME).absolute()
    return (cwd / DEFAULT_NAME).absolute()


def read_config(path: Path) -> Config:
    """``config.toml`` of the workspace at ``path``. Raises InputError when it cannot be used."""
    try:
        return Config.model_validate(tomli.loads((path / "config.toml").read_text("utf-8")))
    except OSError as e:
        raise translate_os_error(e, "opening the workspace") from e
    except (tomli.TOMLDecodeError, ValidationError) as e:
        raise InputError(
            f"{path / 'config.toml'} cannot be used",
            why=str(e),
            fix="mend it; or delete it and, in a town, then: gtft town install",
        ) from e


def write_config(path: Path, config: Config) -> None:
    write_file(path / "config.toml", tomli_w.dumps(config.model_dump(exclude_none=True)).encode())


def open_workspace(
    path: Path, *, now: Callable[[], float] = time.time, environ: Mapping[str, str] = os.environ
) -> Workspace:
    """Open a workspace, made on first use. Raises InputError when it cannot be used, TownError when
    its town cannot."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "artifacts").mkdir(exist_ok=True)
        if not (path / "config.toml").exists():
            write_config(path, Config())
    except OSError as e:
        raise translate_os_error(e, "opening the workspace") from e
    config = read_config(path)
    if config.town is None and (path / "install.json").is_file():
        raise TownError(
            f"{path / 'config.toml'} has lost its link to the town",
            why="gtft is installed here, and its state is in the database of a rig",
            fix="gtft town install",
        )
    if config.town is None:
        store = Store(open_sqlite(path / "gtft.db"), now)
        store.migrate()
        local = LocalLedger(path / "beads.db", config.prefix, now)
        return Workspace(path, config, store, local, now, environ)
    home, target = find_home(path, config.town, environ)
    engine = open_dolt(target)
    check_target(engine, target, ANSWER_SECONDS)
    store = Store(engine, now, ANSWER_SECONDS)
    store.migrate()
    ledger = BdLedger(home.rig.beads_dir, environ)
    return Workspace(path, config, store, ledger, now, environ, home)


def find_home(path: Path, link: TownLink, environ: Mapping[str, str]) -> tuple[Home, Target]:
    """The town of a workspace and the database in it. Raises TownError."""
    town = read_town((path / link.root).resolve())
    rig = town.rig(link.rig)
    server = find_server(town, environ)
    target = Target(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=rig.database,
        project_id=rig.project_id,
    )
    return Home(town, rig), target
