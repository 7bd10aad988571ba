"""Where the tokenizer of a base is on this machine: nothing is fetched, built or loaded."""

from __future__ import annotations

import re
from pathlib import Path

from gtft.errors import BaseMissing, MissingExtra

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE = "tokenizer.json"


def find_tokenizer(given: str, root: Path, workspace: Path) -> Path:
    """The folder of a base (or the file itself, when ``given`` is a tokenizer.json).

    ``given``: "nano" (the one built last in ``workspace``), a path (relative to ``root``), or a hub id that
    is in the cache. Raises BaseMissing with the next command.
    """
    if given == "nano":
        return _find_nano(workspace / "bases")
    path = Path(given) if Path(given).is_absolute() else root / given
    if path.is_file():
        return path
    if path.is_dir() or not _HUB_ID.fullmatch(given):
        if (path / FILE).is_file():
            return path
        raise BaseMissing(
            f"there is no tokenizer at {given}",
            why=f"{path} holds no {FILE}" if path.is_dir() else f"{path} does not exist",
            fix='name a folder that holds one, a hub id in the cache, or "nano"',
        )
    return _find_cached(given)


def _find_nano(bases: Path) -> Path:
    built = [f for f in bases.glob("nano-*") if (f / FILE).is_file()]
    if not built:
        raise BaseMissing(
            "no nano base is built in this workspace",
            why="it is made by the first run that trains it",
            fix="gtft run mol-gtft-quickstart, or name another base",
        )
    return max(built, key=lambda f: (f.stat().st_mtime, f.name))


def _find_cached(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as e:
        raise MissingExtra(
            "reading the hub cache needs huggingface_hub",
            why=str(e),
            fix="pip install 'gtft[train]' -c constraints.txt, or name a folder",
        ) from e
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError) as e:
        folder = None
        why = " ".join(str(e).split())[:200]
    else:
        why = f"what is in the cache of it has no {FILE}"
    if folder is None or not (folder / FILE).is_file():
        raise BaseMissing(
            f"the tokenizer of {hub_id} is not on this machine",
            why=why,
            fix=f"on a machine with network: hf download {hub_id} --include 'tokenizer*' 'chat_template*'",
        )
    return folder
