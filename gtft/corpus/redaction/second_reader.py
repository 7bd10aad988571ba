"""Second reader: detect-secrets over the finished text, line by line, with its own rules.

Settings of detect-secrets are global to a process; they are replaced while this reader works, so each process that
verifies makes a reader of its own.

- ``pragma: allowlist`` comments must not hide a secret: that filter is off.
- HexHighEntropyString is off: nearly every quoted hex string of a town is a commit or a content hash;
  a hex value behind a telling key is found by KeywordDetector and by our own rules.
- IPPublicDetector is off: addresses are personal data and get pseudonyms from the test ranges.
- KeywordDetector reads a line twice, as code and as YAML, since it decides by file name.
- Nothing is verified with a vendor: no value leaves the machine.

A plugin reads only where its own patterns can match: hyperscan looks for them first, loosened to what it can express.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gtft.corpus.redaction.canaries import make_canaries
from gtft.corpus.redaction.engine import PLACEHOLDER
from gtft.corpus.redaction.gate import HAS_HYPERSCAN
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.verdicts import Verdicts
from gtft.errors import MissingExtra, RedactionError

_OFF = frozenset({"HexHighEntropyString", "IPPublicDetector"})
_FILTERS = (
    "is_sequential_string",
    "is_potential_uuid",
    "is_likely_id_string",
    "is_templated_secret",
    "is_prefixed_with_dollar_sign",
    "is_not_alphanumeric_string",
)
# What these canaries hold, detect-secrets 1.5.0 has rules for.
_CANARY_KINDS = frozenset(
    {"private_key", "aws_access_key", "github_pat", "gitlab_token", "slack_token", "stripe_key"}
)
_WHOLE = re.compile(r"[A-Za-z0-9_+/=.-]+")
_LONGEST_LINE = 2_000
_ROUNDS = 4
# Raised when what is found changes without a change of detect-secrets.
_VERSION = 2


@dataclass(frozen=True)
class Hit:
    """What the second reader takes for a secret (code points), widened to the whole token, and the plugin that said so."""

    start: int
    end: int
    plugin: str


@dataclass
class SecondReader:
    """Reads texts; one that was clean once is not read again, nor by later processes when there is a ``cache`` folder.

    Raises MissingExtra without detect-secrets, RedactionError when it misses a planted secret.
    """

    cache: Path | None = None
    _plugins: list[Any] = field(init=False, repr=False)
    _keyword: Any = field(init=False, repr=False)
    _gate: Callable[[str], Sequence[int]] = field(init=False, repr=False)
    _filters: list[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            from detect_secrets.filters import heuristic
            from detect_secrets.settings import get_settings
        except ImportError as e:
            raise MissingExtra(
                "detect-secrets is not installed",
                why="it is the second reader of redaction, and no corpus is written without it",
                fix="pip install detect-secrets==1.5.0",
            ) from e
        settings = get_settings()
        settings.clear()
        settings.disable_filters(
            "detect_secrets.filters.allowlist.is_line_allowlisted",
            "detect_secrets.filters.common.is_ignored_due_to_verification_policies",
        )
        self._plugins, self._keyword, self._gate = _start_plugins()
        self._filters = [getattr(heuristic, name) for name in _FILTERS]
        self._indirect = heuristic.is_indirect_reference
        self._verdicts = Verdicts(self.cache, self.version())
        self._check()

    def version(self) -> str:
        """Of detect-secrets and of what is made of it: a verdict counts for this version alone."""
        names = sorted(type(p).__name__ for p in self._plugins)
        text = f"{_VERSION} {importlib.metadata.version('detect-secrets')} {' '.join(names)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def suspects(self, text: str) -> list[Hit]:
        """The hits of a text, by position; placeholders left out."""
        if self._verdicts.is_clean(text):
            return []
        hits = self._read(text)
        if not hits:
            self._verdicts.keep_clean(text)
        return hits

    def save(self) -> None:
        """Puts the verdicts of this process into the cache folder: digests of clean texts, nothing else."""
        self._verdicts.save()

    def _read(self, text: str) -> list[Hit]:
        if not self._gate(text):
            return []
        hits: list[Hit] = []
        at = 0
        for line in text.split("\n"):
            hits += self._read_line(line, at)
            at += len(line) + 1
        return hits

    def _read_line(self, line: str, at: int) -> list[Hit]:
        asked = self._gate(line)
        if not asked:
            return []
        if len(line) > _LONGEST_LINE:
            # In overlapping pieces: some of the plugins' patterns are not linear.
            found: set[Hit] = set()
            for piece in range(0, len(line), _LONGEST_LINE // 2):
                found.update(self._read_line(line[piece : piece + _LONGEST_LINE], at + piece))
            # A piece may begin or end within a placeholder.
            whole = [(m.start() + at, m.end() + at) for m in PLACEHOLDER.finditer(line)]
            apart = [h for h in found if not any(h.start < e and s < h.end for s, e in whole)]
            return sorted(apart, key=_order)
        spans = [m.span() for m in PLACEHOLDER.finditer(line)]
        hits: set[Hit] = set()
        for number in asked:
            if number == len(self._plugins):
                continue
            plugin = self._plugins[number]
            for potential in plugin.analyze_line(filename="text.txt", line=line, line_number=1):
                hits.update(self._locate(line, potential.secret_value, plugin, spans))
        if len(self._plugins) in asked:
            for name in ("text.py", "text.yaml"):
                for potential in self._keyword.analyze_line(name, line, 1):
                    value = potential.secret_value
                    # As YAML the value is the rest of the line: prose, unless it is one token.
                    if name == "text.yaml" and not _is_one_token(value):
                        continue
                    if not self._indirect(line):
                        hits.update(self._locate(line, value, self._keyword, spans))
        moved = (Hit(h.start + at, h.end + at, h.plugin) for h in hits)
        return sorted(moved, key=_order)

    def _locate(
        self, line: str, value: str | None, plugin: Any, spans: list[tuple[int, int]]
    ) -> list[Hit]:
        if not value or self._is_filtered(line, value, plugin):
            return []
        hits = []
        at = line.find(value)
        while at >= 0:
            start, end = widen(line, at, at + len(value))
            if not any(start < e and s < end for s, e in spans):
                hits.append(Hit(start, end, type(plugin).__name__))
            at = line.find(value, at + len(value))
        return hits

    def _is_filtered(self, line: str, value: str, plugin: Any) -> bool:
        for rule in self._filters:
            if rule.__name__ == "is_likely_id_string":
                if rule(value, line, plugin):
                    return True
            elif rule(value):
                return True
        return False

    def _check(self) -> None:
        for kind, text, secret in make_canaries():
            if kind not in _CANARY_KINDS:
                continue
            line = f"{text.splitlines()[0]}  # pragma: allowlist secret"
            if not self._read(line):
                raise RedactionError(
                    "the second reader does not find a planted secret",
                    why=f"its self-test for {kind} failed ({len(self._plugins)} plugins, {len(secret)} characters)",
                    fix="pip install --force-reinstall detect-secrets==1.5.0, then run the command again",
                )


@lru_cache(maxsize=1)
def _start_plugins() -> tuple[list[Any], Any, _Gate]:
    """(plugins, KeywordDetector, gate), made once for a process."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.keyword import DENYLIST

    classes = get_mapping_from_secret_type_to_class()
    by_name = {c.__name__: c for c in classes.values()}
    keyword = by_name.pop("KeywordDetector")()
    plugins = [by_name[name]() for name in sorted(by_name) if name not in _OFF]
    return plugins, keyword, _Gate(plugins, DENYLIST)


def _order(h: Hit) -> tuple[int, int, str]:
    return h.start, h.end, h.plugin


def _is_one_token(value: str | None) -> bool:
    return bool(value) and not any(c.isspace() for c in value or "")


def widen(line: str, start: int, end: int) -> tuple[int, int]:
    """The span grown to the whole token on both sides (letters, digits, ``_+/=.-``; a ``=`` before it is a sign)."""
    while start > 0 and line[start - 1] != "=" and _WHOLE.fullmatch(line[start - 1]):
        start -= 1
    while end < len(line) and _WHOLE.fullmatch(line[end]):
        end += 1
    return start, end


class _Gate:
    """Which plugins (by number; the one after the last is KeywordDetector) can find anything in a text: a superset, by
    their own patterns and by the words of KeywordDetector; without hyperscan all of them."""

    def __init__(self, plugins: Sequence[Any], words: Sequence[str]) -> None:
        self._everyone = range(len(plugins) + 1)
        patterns = [(n, p) for n in self._everyone[:-1] for p in _patterns_of(plugins[n])]
        self._patterns = [*patterns, (len(plugins), re.compile("|".join(words), re.IGNORECASE))]
        self._owners = [number for number, _ in self._patterns]
        # By whether the text is ASCII: with Python's idea of letters the second takes seconds to make.
        self._databases: dict[bool, Any] = {}

    def __call__(self, text: str) -> Sequence[int]:
        ascii_only = text.isascii()
        if ascii_only not in self._databases:
            self._databases[ascii_only] = _compile(self._patterns, ascii_only)
        database = self._databases[ascii_only]
        if database is None:
            return self._everyone
        try:
            data = text.encode()
        except UnicodeEncodeError:
            # A lone surrogate: no UTF-8, which hyperscan needs here.
            return self._everyone
        found: set[int] = set()
        database.scan(data, match_event_handler=_keep, context=(found, self._owners))
        return sorted(found)


def _compile(patterns: Sequence[tuple[int, re.Pattern[str]]], ascii_only: bool) -> Any:
    """The patterns, loosened to what hyperscan can express; None where they cannot be compiled."""
    if not HAS_HYPERSCAN:
        return None
    import hyperscan

    flags = (
        hyperscan.HS_FLAG_PREFILTER
        | hyperscan.HS_FLAG_SINGLEMATCH
        | hyperscan.HS_FLAG_ALLOWEMPTY
        | hyperscan.HS_FLAG_MULTILINE
        | hyperscan.HS_FLAG_DOTALL
    )
    if not ascii_only:
        flags |= hyperscan.HS_FLAG_UTF8 | hyperscan.HS_FLAG_UCP
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    caseless = hyperscan.HS_FLAG_CASELESS
    try:
        database.compile(
            expressions=[p.pattern.encode() for _, p in patterns],
            ids=list(range(len(patterns))),
            flags=[flags | (caseless if p.flags & re.IGNORECASE else 0) for _, p in patterns],
        )
    except hyperscan.error:
        # A version of detect-secrets with patterns of another kind: everything is read, slowly.
        return None
    return database


def _keep(number: int, start: int, end: int, flags: int, context: Any) -> None:
    context[0].add(context[1][number])


# More than 4.5 bits a character needs 23 different ones: a shorter string never passes the plugin's own test.
_ENTROPY_GATE = re.compile(r"['\"][A-Za-z0-9+/\\_=-]{23,}['\"]")


def _patterns_of(plugin: Any) -> list[re.Pattern[str]]:
    if type(plugin).__name__ == "Base64HighEntropyString" and plugin.entropy_limit >= 4.5:
        return [_ENTROPY_GATE]
    return list(plugin.denylist) if hasattr(plugin, "denylist") else [re.compile("")]


@dataclass(frozen=True)
class Cleaned:
    """A text after the second reader. ``plugins`` hit and were dealt with; ``left`` hits that stayed (then the text
    must not be written)."""

    text: str
    plugins: tuple[str, ...]
    left: tuple[Hit, ...] = ()


def replace_suspects(text: str, reader: SecondReader, redactor: Redactor) -> Cleaned:
    """Each hit replaced as ``<SECRET:suspect:…>``, and the text read again until nothing is found."""
    plugins: list[str] = []
    for _ in range(_ROUNDS):
        hits = reader.suspects(text)
        if not hits:
            return Cleaned(text, tuple(plugins))
        plugins += sorted({h.plugin for h in hits})
        text = _replace(text, hits, redactor)
    return Cleaned(text, tuple(plugins), tuple(reader.suspects(text)))


def _replace(text: str, hits: list[Hit], redactor: Redactor) -> str:
    parts: list[str] = []
    at = 0
    for h in hits:
        if h.start < at:
            continue
        parts += [text[at : h.start], redactor.placeholder("suspect", text[h.start : h.end])]
        at = h.end
    parts.append(text[at:])
    return "".join(parts)
