"""Our block in a role's directive, ``directives/<role>.md`` of the town or of a rig: the supported way into ``gt prime``."""

from __future__ import annotations

BEGIN, END = b"<!-- gtft deploy: begin -->\n", b"<!-- gtft deploy: end -->\n"
# After a last line that had no end.
_GLUED = b"\n<!-- gtft deploy: begin here -->\n"


def put_block(found: bytes | None, text: str) -> bytes:
    """The file with our block at its end, in place of an older one."""
    rest = take_block(found or b"")
    begin = BEGIN if not rest or rest.endswith(b"\n") else _GLUED
    return rest + begin + text.strip("\n").encode() + b"\n" + END


def take_block(found: bytes) -> bytes:
    """The file without our block; every other byte stays."""
    for begin in (_GLUED, BEGIN):
        at = found.rfind(begin)
        if at < 0 or (begin == BEGIN and at and found[at - 1 : at] != b"\n"):
            continue
        stop = found.find(END, at)
        if stop >= 0:
            return found[:at] + found[stop + len(END) :]
    return found


def has_block(found: bytes | None) -> bool:
    return found is not None and take_block(found) != found


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
