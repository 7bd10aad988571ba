"""The workspace: where gtft keeps its state, and what is opened from it.

``.gtft/``: ``config.toml``, ``gtft.db`` (store), ``beads.db`` (embedded ledger), ``artifacts/``,
``bases/``, ``runs/<run>/<stage>/`` (job directories), ``mail.log``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.artifact import write_file
from gtft.beads.ledger import Ledger
from gtft.beads.local import LocalLedger
from gtft.errors import InputError, translate_os_error
from gtft.records.store import Store, open_sqlite

DEFAULT_NAME = ".gtft"


class Config(BaseModel):
    """``config.toml``. The defaults stand here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prefix: str = Field("ft", pattern=r"^[a-zA-Z][a-zA-Z0-9-]{0,19}$")
    # A lease lives this long without a heartbeat; a heartbeat comes three times as often.
    lease_seconds: float = Field(60.0, gt=0)
    # How long a worker that was asked to stop may take before it is killed.
    stop_seconds: float = Field(120.0, gt=0)
    # How often a stage whose worker was killed is started again by itself.
    retries: int = Field(2, ge=0)


@dataclass(frozen=True)
class Workspace:
    path: Path
    config: Config
    store: Store
    ledger: Ledger
    now: Callable[[], float]

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


def locate_workspace(given: str | None, cwd: Path) -> Path:
    """``--workspace``, else the nearest ``.gtft`` at or above ``cwd``, else ``cwd/.gtft``."""
    if given:
        return Path(given).absolute()
    for folder in (cwd, *cwd.parents):
        if (folder / DEFAULT_NAME / "gtft.db").exists():
            return (folder / DEFAULT_NAME).absolute()
    return (cwd / DEFAULT_NAME).absolute()


def open_workspace(path: Path, *, now: Callable[[], float] = time.time) -> Workspace:
    """Open a workspace, made on first use. Raises InputError when it cannot be used."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "artifacts").mkdir(exist_ok=True)
        config_path = path / "config.toml"
        if not config_path.exists():
            write_file(config_path, tomli_w.dumps(Config().model_dump()).encode())
        config = Config.model_validate(tomli.loads(config_path.read_text("utf-8")))
    except OSError as e:
        raise translate_os_error(e, "opening the workspace") from e
    except (tomli.TOMLDecodeError, ValidationError) as e:
        raise InputError(
            f"{path / 'config.toml'} cannot be used", why=str(e), fix="mend it, or delete it"
        ) from e
    store = Store(open_sqlite(path / "gtft.db"), now)
    store.migrate()
    ledger = LocalLedger(path / "beads.db", config.prefix, now)
    return Workspace(path, config, store, ledger, now)
