"""The swarm worker: ``python -m gtft.workers.swarm``. One request (JSON) on stdin, one answer on stdout.

What commands must not load themselves: the hash of a base, and a look at a swarm through its DHT.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from gtft.errors import BaseMissing, GtftError, InternalError, translate_os_error
from gtft.recipe.schema import Base
from gtft.swarm.keys import IDENTITY, read_identity, require_swarm_extra
from gtft.swarm.place import SeatFile, identity_folder, read_seat, sit_down
from gtft.swarm.preflight import check_member
from gtft.training.environment import prepare_environment, require_training_extra


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: Path


class HashBase(_Request):
    """Which base is it? ``root``: where a relative path starts."""

    do: Literal["base"]
    base: Base
    root: Path


class LookAt(_Request):
    """Who is in the swarm in ``folder``?"""

    do: Literal["look"]
    folder: Path


_REQUEST: TypeAdapter[HashBase | LookAt] = TypeAdapter(HashBase | LookAt)


class _Silent:
    """A watch that nobody reads."""

    stop_requested = False

    def progress(self, *_: Any) -> None: ...
    def metric(self, *_: Any) -> None: ...
    def checkpoint(self, *_: Any) -> None: ...
    def warn(self, *_: Any) -> None: ...


def answer(data: str) -> dict[str, Any]:
    """The answer to one request. Raises GtftError."""
    request = _REQUEST.validate_json(data)
    return _hash_base(request) if isinstance(request, HashBase) else _look(request)


def _hash_base(request: HashBase) -> dict[str, Any]:
    require_training_extra()
    if request.base.model == "nano":
        raise BaseMissing(
            'a swarm cannot train on base.model = "nano"',
            why="nano is built from each town's own text, so no two peers have the same",
            fix="build it once (gtft run), give every peer that folder of .gtft/bases, and: "
            "--set base.model=FOLDER",
        )
    prepare_environment(os.environ, offline=False)
    from gtft.training.base import locate_base

    base = locate_base(
        request.base,
        text_file=request.root,
        root=request.root,
        workspace=request.workspace,
        watch=_Silent(),
        clock=time.monotonic,
    )
    return {"id": base.id, "name": base.name + (f"@{base.revision}" if base.revision else "")}


def _look(request: LookAt) -> dict[str, Any]:
    require_swarm_extra()
    prepare_environment(os.environ, offline=True)
    from gtft.training.swarm.look import look
    from gtft.training.swarm.roster import Roster
    from gtft.training.swarm.transport import Host

    identity = read_identity(identity_folder(request.workspace) / IDENTITY)
    file = read_seat(request.folder) or SeatFile(run="", listen=("/ip4/0.0.0.0/tcp/0",))
    members = Roster(request.folder, time.time).document
    check_member(members, identity.peer_id)
    seat = sit_down(request.workspace, request.folder, file, members, identity.peer_id)
    host = Host()
    try:
        with host.starting():
            return look(seat, request.folder, time.time)
    finally:
        host.close()


def main() -> int:
    try:
        out: dict[str, Any] = {"ok": True, "data": answer(sys.stdin.read())}
    except GtftError as e:
        out = {"ok": False, "error": e.as_dict()}
    except OSError as e:
        out = {"ok": False, "error": translate_os_error(e, "answering gtft swarm").as_dict()}
    except ValidationError as e:
        out = {"ok": False, "error": InternalError("no such request", why=str(e)).as_dict()}
    # The last line: libraries may have written before it.
    sys.stdout.write("\n" + json.dumps(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
