"""``routes.json`` as it is now: read again when the file is another one."""

from __future__ import annotations

import re
from pathlib import Path

from gtft.errors import InputError
from gtft.service import FOLDER, ROUTES_FILE, Route, Routes, read_routes
from gtft.serving.question import Refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RoutesFile:
    """Follows the workspace's file. ``fault``: why it cannot be read; what was read before stays true meanwhile."""

    def __init__(self, workspace: Path | None) -> None:
        self._workspace = workspace
        self._stamp: tuple[int, int, int] | None = None
        self._routes = Routes()
        self.fault = ""

    def read(self) -> Routes:
        if self._workspace is None:
            return self._routes
        stamp = _stamp(self._workspace / FOLDER / ROUTES_FILE)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._routes, self.fault = read_routes(self._workspace), ""
            except InputError as e:
                self.fault = e.what
        return self._routes

    def find(self, role: str, rig: str) -> Route:
        """Raises Refused when the names are no names, or nothing is deployed for them."""
        if not _NAME.fullmatch(role) or (rig and not _NAME.fullmatch(rig)):
            raise Refused(404, "there is no such role")
        route = self.read().find(role, rig)
        if route is None:
            where = f" of rig {rig}" if rig else ""
            raise Refused(404, f"no model is deployed for the role {role}{where}")
        return route


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
