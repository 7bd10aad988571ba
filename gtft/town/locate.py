"""Where the town is, which rigs it has, and where its Dolt server listens (gas-town.md 9, dolt.md 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gtft.errors import TownError

MARKER = Path("mayor") / "town.json"
DEFAULT_PORT = 3307


@dataclass(frozen=True)
class Rig:
    """A registered rig. ``beads_dir`` holds its ``metadata.json``; ``prefix`` is without the dash."""

    name: str
    prefix: str
    path: Path
    beads_dir: Path
    database: str
    project_id: str


@dataclass(frozen=True)
class Server:
    """Where the town's Dolt server listens, and who we are to it."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Town:
    """A Gas Town. ``rigs`` in the order of ``mayor/rigs.json``."""

    root: Path
    name: str
    rigs: tuple[Rig, ...]

    @property
    def home(self) -> Path:
        """Where gtft keeps what it writes in this town: never in a worktree."""
        return self.root / ".gtft"

    def rig(self, name: str) -> Rig:
        """A registered rig. Raises TownError that names those there are."""
        for r in self.rigs:
            if r.name == name:
                return r
        known = ", ".join(r.name for r in self.rigs) or "none"
        raise TownError(
            f"{name} is not a rig of the town {self.name}",
            why=f"mayor/rigs.json knows: {known}",
            fix=f"one of those, or: gt rig add {name} GIT_URL",
        )


def find_root(cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """The town that ``cwd`` is in, else the one GT_ROOT or GT_TOWN_ROOT names; None without a town."""
    given = (Path(environ[k]) for k in ("GT_ROOT", "GT_TOWN_ROOT") if environ.get(k))
    for folder in (cwd, *cwd.parents, *given):
        if (folder / MARKER).is_file():
            return folder.absolute()
    return None


def read_town(root: Path) -> Town:
    """The town at ``root``. Raises TownError when its files cannot be read."""
    marker = _read_json(root / MARKER)
    known = _read_json(root / "mayor" / "rigs.json").get("rigs") or {}
    if not isinstance(known, dict):
        raise TownError(f"{root / 'mayor' / 'rigs.json'} lists no rigs", fix="gt rig list")
    routes = read_routes(root / ".beads" / "routes.jsonl")
    rigs = tuple(_read_rig(root, name, entry, routes) for name, entry in known.items())
    return Town(root, str(marker.get("name") or root.name), rigs)


def find_server(town: Town, environ: Mapping[str, str]) -> Server:
    """The address by gt's own order: config.yaml, GT_DOLT_PORT, mayor/daemon.json, 3307."""
    listener: dict[str, Any] = {}
    config = town.root / ".dolt-data" / "config.yaml"
    if config.is_file():
        try:
            listener = (yaml.safe_load(config.read_text("utf-8")) or {}).get("listener") or {}
        except (OSError, yaml.YAMLError, AttributeError) as e:
            raise TownError(f"{config} cannot be read", why=str(e), fix="gt dolt status") from e
    daemon = town.root / "mayor" / "daemon.json"
    env = _read_json(daemon).get("env") or {} if daemon.is_file() else {}
    ports = (listener.get("port"), environ.get("GT_DOLT_PORT"), env.get("GT_DOLT_PORT"))
    port = next((int(str(p)) for p in ports if str(p or "").isdigit()), DEFAULT_PORT)
    return Server(
        host=str(environ.get("GT_DOLT_HOST") or listener.get("host") or "127.0.0.1"),
        port=port,
        user=environ.get("GT_DOLT_USER") or "root",
        password=environ.get("GT_DOLT_PASSWORD") or "",
    )


def read_routes(path: Path) -> dict[str, str]:
    """``routes.jsonl``: prefix without its dash → path, as gt (``ft-``) or Gas City (``ft``) wrote it."""
    routes: dict[str, str] = {}
    if not path.is_file():
        return routes
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("prefix") and row.get("path"):
            routes[str(row["prefix"]).rstrip("-")] = str(row["path"])
    return routes


def _read_rig(root: Path, name: str, entry: Any, routes: dict[str, str]) -> Rig:
    # The name becomes a path: one plain folder below the town, nothing else.
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise TownError(f"mayor/rigs.json names a rig {name!r}, which is no folder name")
    beads = entry.get("beads") if isinstance(entry, dict) else None
    prefix = str((beads or {}).get("prefix") or "").rstrip("-")
    beads_dir = _find_beads(root, name, routes.get(prefix, name))
    metadata = beads_dir / "metadata.json"
    found = _read_json(metadata) if metadata.is_file() else {}
    return Rig(
        name=name,
        prefix=prefix,
        path=root / name,
        beads_dir=beads_dir,
        database=str(found.get("dolt_database") or ""),
        project_id=str(found.get("project_id") or ""),
    )


def _find_beads(root: Path, name: str, route: str) -> Path:
    """Where the rig's beads live: the route's folder, else the mayor's clone; one ``redirect`` is followed."""
    tried = (root / route / ".beads", root / name / "mayor" / "rig" / ".beads")
    for folder in tried:
        redirect = folder / "redirect"
        if redirect.is_file():
            folder = (folder.parent / redirect.read_text("utf-8").strip()).resolve()
        if (folder / "metadata.json").is_file():
            return folder
    return tried[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise TownError(f"{path} cannot be read", why=str(e), fix="gt doctor") from e
    if not isinstance(found, dict):
        raise TownError(f"{path} is not a JSON object", fix="gt doctor")
    return found
