"""Writing Markdown around text that is not ours: nothing inserted can break a table, a line or a link."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

LONGEST = 300
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$])")
_LINK = re.compile(r"(?i):(?=//)|(?<=\bwww)\.|@")
_LEADING = re.compile(r"^(\s*)([#+\-=]|\d+(?=[.)](?:\s|$)))")


def plain(value: object, longest: int = LONGEST) -> str:
    """One line without control or invisible characters, cut at ``longest`` characters."""
    kept = "".join(_keep(c) for c in str(value)[: 4 * longest])
    line = " ".join(kept.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def prose(value: object, longest: int = LONGEST) -> str:
    """Text for a sentence, a list item or a table cell: shown as it is, never read as markup."""
    line = _MARKUP.sub(r"\\\1", plain(value, longest))
    line = _LINK.sub(lambda m: "\\" + m[0], line)
    return _LEADING.sub(_escape_leading, line)


def code(value: object) -> str:
    """A code span, also inside a table: ids, names of keys, commands."""
    line = plain(value).replace("`", "'").replace("|", "\\|")
    return f"`{line or ' '}`"


def command(*words: str) -> str:
    """One line of a shell, its words quoted; for a fenced block."""
    return shlex.join(plain(w) for w in words)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()
) -> str:
    """A pipe table. Cells are Markdown already (``prose`` or ``code``); ``numeric`` columns align right."""
    rule = ["---:" if n in numeric else "---" for n in range(len(columns))]
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _keep(char: str) -> str:
    kind = unicodedata.category(char)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    if kind == "Cf":
        return ""
    return "�" if kind in ("Cs", "Co", "Cn") else char


def _escape_leading(found: re.Match[str]) -> str:
    space, mark = found[1], found[2]
    return f"{space}{mark}\\" if mark.isdigit() else f"{space}\\{mark}"
