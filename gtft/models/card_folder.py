"""A model card written out of the workspace, for a hub or a reader: the card's own files and the part since."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, is_alive, read_artifact, write_file, write_json
from gtft.errors import ConflictError, EvidenceError, translate_os_error
from gtft.models.card_since import SINCE, SINCE_DATA

_MARKS = ("artifact.json", "README.md", SINCE)


def write_card_folder(card: Artifact, since: str, data: dict[str, Any], out: Path) -> None:
    """Write ``out`` whole, in place of an earlier card there, or leave it as it was.

    The files of the card are copied byte for byte, its ``artifact.json`` too, so that they can be hashed again.
    Raises ConflictError when ``out`` is there and is not a card that was written like this.
    """
    check_folder(out)
    out = out.absolute()
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    before = out.with_name(f".{out.name}.{os.getpid()}.old")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep_dead(out)
        aside.mkdir()
        for name in (*(f.name for f in card.files), "artifact.json"):
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, (card.path / name).read_bytes())
        write_file(aside / SINCE, since.encode())
        write_json(aside / SINCE_DATA, data)
        if out.exists():
            out.rename(before)
        aside.rename(out)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as e:
        if before.exists() and not out.exists():
            before.rename(out)
        raise translate_os_error(e, f"writing {out.name}") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep_dead(out: Path) -> None:
    """What a killed writer left beside ``out``."""
    for left in out.parent.glob(f".{out.name}.*"):
        pid = left.name.split(".")[-2]
        if left.suffix in (".tmp", ".old") and pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def check_folder(out: Path) -> None:
    """Raises ConflictError when something is at ``out`` that is not an empty folder or an earlier card."""
    if not out.is_symlink() and (not out.exists() or _is_card(out)):
        return
    raise ConflictError(
        f"{out} is there already and is no card",
        why="nothing of somebody else's is overwritten",
        fix=f"another folder: gtft model card MODEL --out {out.name}-card",
    )


def _is_card(out: Path) -> bool:
    if not out.is_dir():
        return False
    names = {str(p.relative_to(out)) for p in out.rglob("*") if not p.is_dir() or p.is_symlink()}
    if not any(out.iterdir()):
        return True
    if not names.issuperset(_MARKS):
        return False
    try:
        found = read_artifact(out, kind="card")
    except EvidenceError:
        return False
    return names <= {*(f.name for f in found.files), "artifact.json", SINCE, SINCE_DATA}
