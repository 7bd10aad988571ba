"""What a town works by now: formulas, directives, and the commands of gt and bd, each as a hash.

A harvest records it in its corpus; a model is judged stale by how much of it has changed since
(`gtft.models.freshness`). gtft's own formulas and blocks are left out: a deployment does not age a model.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gtft.errors import TownError, translate_os_error
from gtft.tool import find_tool, run_tool
from gtft.town.locate import Town

# A file that is longer is hashed by its beginning and its size.
MOST_BYTES = 1 << 20
FORMULA, DIRECTIVE, COMMANDS = "formula", "directive", "commands"
PROGRAMS = ("gt", "bd")
_SECONDS = 20.0
_OWN_FORMULAS = "mol-gtft-"
# As `gtft.town.parts` and `gtft.town.directive` mark what they put into a page.
_OWN_BLOCK = re.compile(
    rb"\n?<!-- (gtft[a-z ]*): begin[^>]*-->\n.*?<!-- \1: end[^>]*-->(?:\n|$)", re.S
)
_PLAIN = re.compile(r"[a-z][a-z0-9-]{0,60}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_COMMAND = re.compile(r"^  [a-z][\w-]* .*$", re.M)


def read_conventions(town: Town, environ: Mapping[str, str]) -> dict[str, str]:
    """``formula NAME``, ``directive ROLE`` and ``commands PROGRAM`` → 16 hex digits, the programs' version before.

    What several rigs have under one name counts as one. A program that is not there, or does not answer, has
    no entry. Raises TownError and InputError for a file that cannot be read.
    """
    roots = (town.root, *(r.path for r in town.rigs))
    parts: dict[str, set[bytes]] = {}
    for root in roots:
        for key, data in _read_files(root):
            parts.setdefault(key, set()).add(hashlib.sha256(data).digest())
    found = {key: _digest(b"".join(sorted(hashes))) for key, hashes in parts.items()}
    found |= {f"{COMMANDS} {p}": said for p in PROGRAMS if (said := _ask(p, environ))}
    return dict(sorted(found.items()))


def _read_files(root: Path) -> Iterator[tuple[str, bytes]]:
    folders = (
        (FORMULA, root / ".beads" / "formulas", ("*.formula.toml", "*.formula.json")),
        (FORMULA, root / "formula-overlays", ("*.toml",)),
        (DIRECTIVE, root / "directives", ("*.md",)),
    )
    for kind, folder, patterns in folders:
        for path in sorted(p for pattern in patterns for p in folder.glob(pattern)):
            name = path.name.partition(".")[0]
            if not path.is_file() or (kind == FORMULA and name.startswith(_OWN_FORMULAS)):
                continue
            data = _read(path)
            if kind == DIRECTIVE:
                data = _OWN_BLOCK.sub(b"", data).strip()
                if not data:
                    continue
            # A corpus states these names: one that may be somebody's is stated as a hash.
            safe = name if _PLAIN.fullmatch(name) else f"name-{_digest(name.encode())}"
            yield f"{kind} {safe}", data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            data = f.read(MOST_BYTES + 1)
        return data if len(data) <= MOST_BYTES else data + b"%d" % path.stat().st_size
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name} of the town") from e


def _ask(program: str, environ: Mapping[str, str]) -> str:
    """A program's version and a hash of its list of commands; "" when it cannot be asked."""
    if find_tool(program, environ) is None:
        return ""
    try:
        # In an empty folder: what it says must not depend on where it is asked.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            said = [
                run_tool(program, word, environ=environ, cwd=Path(folder), timeout=_SECONDS).stdout
                for word in ("--version", "--help")
            ]
    except TownError:
        return ""
    version = _VERSION.search(said[0])
    commands = sorted(m.group().strip() for m in _COMMAND.finditer(said[1]))
    if version is None or not commands:
        return ""
    return f"{version[0]} {_digest(chr(10).join(commands).encode())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
