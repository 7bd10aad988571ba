"""Value propagation: a value that was a secret once is a secret wherever it stands, bare or written otherwise."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from gtft.corpus.redaction.engine import PLACEHOLDER
from gtft.corpus.redaction.gate import HAS_HYPERSCAN, compile_re2
from gtft.corpus.redaction.redactor import Redactor, count_characters, may_propagate
from gtft.errors import InputError, translate_os_error

_LEAST_FORM = 12
_RUN_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-=")
_LARGEST_SETTINGS = 1 << 20
_SETTING = re.compile(
    r"""^\s{0,40}(?:export\s+)?["']?([\w.-]{1,100})["']?\s{0,8}[=:]\s{0,8}(["'])?(.{1,2000}?)\2?\s{0,8},?\s{0,8}$"""
)


@dataclass(frozen=True)
class Swept:
    """A span (code points) where a known value stands, and its placeholder."""

    start: int
    end: int
    placeholder: str

    @property
    def kind(self) -> str:
        return self.placeholder.split(":")[1]


class _Literals(Protocol):
    def find(self, data: bytes, first_only: bool) -> list[tuple[int, int]]: ...


class Sweeper:
    """Finds ``values`` (value → placeholder) in any text: raw, JSON-escaped once and twice, URL-encoded, in base64.

    Values that `may_propagate` refuses are left out. Thread-unsafe; one per process.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        forms: dict[bytes, tuple[str, bool]] = {}
        for value in sorted(v for v in values if may_propagate(v)):
            for form, in_base64 in _spell(value):
                # A value inside of a longer one gives way to it: see `_find`.
                forms.setdefault(form, (values[value], in_base64))
        self._forms = sorted(forms)
        self._means = [forms[f] for f in self._forms]
        self._literals: _Literals | None = None
        if self._forms:
            make = _HyperscanLiterals if HAS_HYPERSCAN else _SlowLiterals
            self._literals = make(self._forms)

    def hits(self, data: bytes) -> bool:
        """True when any form of any value stands in ``data`` (UTF-8): stops at the first."""
        return self._literals is not None and bool(self._literals.find(data, first_only=True))

    def find(self, text: str) -> list[Swept]:
        """Where values stand, by position, apart from each other."""
        if self._literals is None or len(text) < _LEAST_FORM:
            return []
        data = text.encode("utf-8", "surrogatepass")
        out: list[Swept] = []
        characters = at = 0
        for start, end, placeholder in self._find(data):
            characters += count_characters(data[at:start])
            last = characters + count_characters(data[start:end])
            out.append(Swept(characters, last, placeholder))
            characters, at = last, end
        return out

    def sweep(self, text: str) -> str:
        """The text with every value's placeholder in its place."""
        parts: list[str] = []
        at = 0
        for s in self.find(text):
            parts += [text[at : s.start], s.placeholder]
            at = s.end
        return "".join([*parts, text[at:]]) if parts else text

    def _find(self, data: bytes) -> list[tuple[int, int, str]]:
        """(start, end, placeholder), apart from each other: of two that overlap the longer one counts for both."""
        assert self._literals is not None
        spans = []
        for number, end in self._literals.find(data, first_only=False):
            placeholder, in_base64 = self._means[number]
            start = end - len(self._forms[number])
            if in_base64:
                start, end = _whole_run(data, start, end)
            spans.append((start, end, placeholder))
        out: list[tuple[int, int, str]] = []
        for start, end, placeholder in sorted(spans, key=lambda s: (s[0], -s[1], s[2])):
            if out and start < out[-1][1]:
                first, last, kept = out[-1]
                longer = placeholder if end - start > last - first else kept
                out[-1] = (first, max(last, end), longer)
            else:
                out.append((start, end, placeholder))
        return out


class _HyperscanLiterals:
    def __init__(self, literals: Sequence[bytes]) -> None:
        import hyperscan

        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=list(literals), ids=list(range(len(literals))), flags=0, literal=True
        )
        self._stopped = hyperscan.ScanTerminated

    def find(self, data: bytes, first_only: bool) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        try:
            self._database.scan(
                data, match_event_handler=_stop if first_only else _collect, context=found
            )
        except self._stopped:
            return found
        return found


def _collect(number: int, start: int, end: int, flags: int, found: Any) -> None:
    found.append((number, end))


def _stop(number: int, start: int, end: int, flags: int, found: Any) -> bool:
    found.append((number, end))
    return True


class _SlowLiterals:
    """The same with re2: alternations of so many literals, each hit looked up at its place."""

    _GROUP = 400

    def __init__(self, literals: Sequence[bytes]) -> None:
        self._groups: list[Any] = []
        # By the first bytes, so that all literals that start at a place are found.
        self._by_start: dict[bytes, list[tuple[int, bytes]]] = {}
        for number, literal in enumerate(literals):
            self._by_start.setdefault(literal[:_LEAST_FORM], []).append((number, literal))
        starts = sorted(self._by_start)
        for first in range(0, len(starts), self._GROUP):
            group = starts[first : first + self._GROUP]
            pattern = "|".join("".join(f"\\x{b:02x}" for b in s) for s in group)
            self._groups.append(compile_re2(pattern))

    def find(self, data: bytes, first_only: bool) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for pattern in self._groups:
            at = 0
            while (m := pattern.search(data, at)) is not None:
                at = m.start() + 1
                for number, literal in self._by_start[m.group()]:
                    if data.startswith(literal, m.start()):
                        found.append((number, m.start() + len(literal)))
                        if first_only:
                            return found
        return found


def _spell(value: str) -> Iterable[tuple[bytes, bool]]:
    """(form, whether it is base64) of a value, the ways in which tools write it down."""
    raw = value.encode("utf-8", "surrogatepass")
    yield raw, False
    once = json.dumps(value)[1:-1]
    for text in (
        once,
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(once)[1:-1],
        once.replace("/", "\\/"),
        quote(raw, safe=""),
        quote(raw, safe="").replace("%2F", "%2f").replace("%3D", "%3d").replace("%2B", "%2b"),
        quote(raw, safe="/"),
    ):
        yield text.encode("utf-8", "surrogatepass"), False
    for skip, lost in ((0, 0), (1, 2), (2, 3)):
        # Before it stand `skip` other bytes of a group of three; the characters that share bits with what
        # stands before and after are left out.
        whole = base64.b64encode(b"\0" * skip + raw)
        end = (skip + len(raw)) * 8 // 6
        form = whole[lost:end]
        if len(form) >= _LEAST_FORM:
            yield form, True
            yield form.translate(bytes.maketrans(b"+/", b"-_")), True


def _whole_run(data: bytes, start: int, end: int) -> tuple[int, int]:
    while start > 0 and data[start - 1] in _RUN_BYTES:
        start -= 1
    while end < len(data) and data[end] in _RUN_BYTES:
        end += 1
    return start, end


def read_town_values(paths: Sequence[Path], redactor: Redactor) -> None:
    """Adds the secrets in a town's ``.env`` and settings files to ``redactor.values``; nothing else of them is kept.

    Each setting is read with its key. Raises InputError when a file is absent, over 1 MB, or cannot be read.
    """
    for path in paths:
        try:
            if not path.is_file():
                raise InputError(
                    f"{path} does not exist",
                    why="[gtft.harvest.redaction] settings names it, so that its values are hidden",
                    fix="correct the path in the recipe (gtft recipe lint)",
                )
            if path.stat().st_size > _LARGEST_SETTINGS:
                raise InputError(
                    f"{path} is too large for a settings file",
                    why=f"it has more than {_LARGEST_SETTINGS} bytes",
                    fix="name the settings file itself in [gtft.harvest.redaction] settings",
                )
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as e:
            raise translate_os_error(e, f"reading {path.name}") from e
        redactor.redact(text)
        for line in text.splitlines():
            m = _SETTING.match(line) if len(line) < 3000 else None
            if m and not PLACEHOLDER.search(m[3]):
                redactor.redact_tree({m[1]: m[3]})
