"""Our block in a role's directive, ``directives/<role>.md`` of the town or of a rig: the supported way into ``gt prime``."""

from __future__ import annotations

import re

BEGIN, END = b"<!-- gtft deploy: begin -->\n", b"<!-- gtft deploy: end -->\n"
# After a last line that had no end.
_GLUED = b"\n<!-- gtft deploy: begin here -->\n"
# Editors write \r\n, and take away the end of the last line.
_FIRST = re.compile(
    rb"^<!-- gtft deploy: begin -->\r?\n"
    rb"|(?:\A|\n)<!-- gtft deploy: begin here -->\n"
    rb"|(?:\A|\r\n)<!-- gtft deploy: begin here -->\r\n",
    re.MULTILINE,
)
_LAST = re.compile(rb"^<!-- gtft deploy: end -->(?:\r?\n|\Z)", re.MULTILINE)
_MARK = re.compile(rb"^[ \t]*<!-- gtft deploy: (?:begin|end)", re.MULTILINE)


def put_block(found: bytes | None, text: str) -> bytes:
    """The file with our block at its end, in place of an older one."""
    rest = take_block(found or b"")
    begin = BEGIN if not rest or rest.endswith(b"\n") else _GLUED
    return rest + begin + text.strip("\n").encode(errors="surrogateescape") + b"\n" + END


def take_block(found: bytes) -> bytes:
    """The file without our block; every other byte stays. One without both of its marks stays, too."""
    block = _find(found)
    return found if block is None else found[: block[0].start()] + found[block[1].end() :]


def read_block(found: bytes) -> str | None:
    """What our block says."""
    block = _find(found)
    if block is None:
        return None
    return found[block[0].end() : block[1].start()].decode(errors="surrogateescape")


def has_block(found: bytes) -> bool:
    """Whether our block is there, or one of its two marks."""
    return _MARK.search(found) is not None


def _find(found: bytes) -> tuple[re.Match[bytes], re.Match[bytes]] | None:
    begins = list(_FIRST.finditer(found))
    end = _LAST.search(found, begins[-1].end()) if begins else None
    return None if end is None else (begins[-1], end)


def word_advice(role: str, rig: str, model: str) -> str:
    """What the role is told in the mode advise."""
    where = f" --rig {rig}" if rig else ""
    return f"""\
## A second opinion (gtft, model {model})

Before each decision of your patrol, ask the model that was trained on this role's history:

    gtft advise --role {role}{where} <<'QUESTION'
    what you see, and what you may choose from
    QUESTION

Read its answer as advice: you decide, and you answer for it. When it does not answer, go on without it.
"""
