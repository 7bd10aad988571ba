"""The gate: which expressions occur in a text, all of them in one pass.

Hyperscan where it is installed. Elsewhere re2, expression by expression: the same answer, several times slower.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import re2

from gtft.errors import RedactionError

HAS_HYPERSCAN = importlib.util.find_spec("hyperscan") is not None
_MEMORY = 64 << 20
# So many expressions are tried as one alternation before they are tried one by one.
_GROUP = 12
_MARK_BYTES = 32


class Gate(Protocol):
    """Says which expressions (by position) match somewhere in a text."""

    def open_for(self, data: bytes) -> set[int]: ...

    def dump(self) -> bytes:
        """What `make_gate` makes the same gate from without compiling; empty where that saves nothing."""
        ...


def compile_re2(pattern: str) -> Any:
    """A pattern over bytes, in bounded memory and linear time. Raises RedactionError when re2 does not take it."""
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        return re2.compile(pattern.encode("ascii"), options)
    except (re2.error, UnicodeEncodeError) as e:
        raise _refuse(pattern, str(e)) from e


def make_gate(expressions: Sequence[str], dumped: bytes = b"") -> Gate:
    """The fastest gate that this machine has. Raises RedactionError for an expression that does not compile.

    ``dumped``: from `Gate.dump` of a process that is trusted; that of other expressions is compiled anew.
    """
    return HyperscanGate(expressions, dumped) if HAS_HYPERSCAN else SlowGate(expressions)


class HyperscanGate:
    def __init__(self, expressions: Sequence[str], dumped: bytes = b"") -> None:
        import hyperscan

        self._mark = _mark_expressions(expressions)
        if dumped[:_MARK_BYTES] == self._mark:
            with suppress(hyperscan.error):
                self._database = hyperscan.loadb(dumped[_MARK_BYTES:], hyperscan.HS_MODE_BLOCK)
                self._database.scratch = hyperscan.Scratch(self._database)
                return
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        # Ends and starts are not asked for: hyperscan reports every possible end, and 0 as the start.
        flags = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_ALLOWEMPTY
        try:
            self._database.compile(
                expressions=[e.encode("ascii") for e in expressions],
                ids=list(range(len(expressions))),
                flags=flags,
            )
        except (hyperscan.error, UnicodeEncodeError) as e:
            raise _refuse(*_find_bad(expressions, flags, str(e))) from e

    def open_for(self, data: bytes) -> set[int]:
        found: set[int] = set()
        self._database.scan(data, match_event_handler=_keep, context=found)
        return found

    def dump(self) -> bytes:
        import hyperscan

        return self._mark + bytes(hyperscan.dumpb(self._database))


def _mark_expressions(expressions: Sequence[str]) -> bytes:
    """Of the expressions in their order and of the engine: a dump with another mark is another gate."""
    text = "\0".join((importlib.metadata.version("hyperscan"), *expressions))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _keep(number: int, start: int, end: int, flags: int, found: Any) -> None:
    found.add(number)


def _find_bad(expressions: Sequence[str], flags: int, why: str) -> tuple[str, str]:
    """One bad expression fails the whole set and is not named: so each is tried alone."""
    import hyperscan

    for e in expressions:
        try:
            hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK).compile(
                expressions=[e.encode("ascii")], ids=[0], flags=flags
            )
        except (hyperscan.error, UnicodeEncodeError) as error:
            return e, str(error)
    return "all expressions together", why


class SlowGate:
    def __init__(self, expressions: Sequence[str]) -> None:
        self._groups = []
        for first in range(0, len(expressions), _GROUP):
            group = expressions[first : first + _GROUP]
            alone = [(first + i, compile_re2(e)) for i, e in enumerate(group)]
            self._groups.append((compile_re2("|".join(f"(?:{e})" for e in group)), alone))

    def open_for(self, data: bytes) -> set[int]:
        found: set[int] = set()
        for together, alone in self._groups:
            if together.search(data):
                found.update(i for i, pattern in alone if pattern.search(data))
        return found

    def dump(self) -> bytes:
        return b""


def _refuse(pattern: str, why: str) -> RedactionError:
    return RedactionError(
        "a redaction rule does not compile: nothing is redacted without it",
        why=f"{pattern[:120]}: {why}",
        fix="correct the rule file that holds it, or leave it out (gtft corpus redact --rules FILE tries one)",
    )
