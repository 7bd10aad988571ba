"""Second reader: detect-secrets over the finished text, line by line, with its own rules.

Settings of detect-secrets are global to a process; they are replaced while this reader works.

- ``pragma: allowlist`` comments must not hide a secret: that filter is off.
- HexHighEntropyString is off: nearly every quoted hex string of a town is a commit or a content hash;
  a hex value behind a telling key is found by KeywordDetector and by our own rules.
- IPPublicDetector is off: addresses are personal data and get pseudonyms from the documentation ranges.
- KeywordDetector reads a line twice, as code and as YAML, since it decides by file name.
- Nothing is verified with a vendor: no value leaves the machine.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from gtft.corpus.redact import Redactor, make_canaries
from gtft.corpus.secret_rules import PLACEHOLDER
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
# Each word that KeywordDetector looks for holds one of these: other lines need not be read by it.
_KEYWORD_GATE = ("key", "pass", "pwd", "secret", "contrase")
_WHOLE = re.compile(r"[A-Za-z0-9_+/=.-]+")
_LONGEST_LINE = 2_000


@dataclass(frozen=True)
class Hit:
    """What the second reader takes for a secret, widened to the whole token, and the plugin that said so."""

    start: int
    end: int
    plugin: str


@dataclass
class SecondReader:
    """Reads lines; a line that was clean once is not read again."""

    _plugins: list[Any] = field(default_factory=list)
    _keyword: Any = None
    _filters: list[Any] = field(default_factory=list)
    _clean: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        try:
            from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
            from detect_secrets.filters import heuristic
            from detect_secrets.plugins.keyword import DENYLIST
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
        classes = get_mapping_from_secret_type_to_class()
        for name, cls in sorted((c.__name__, c) for c in classes.values()):
            if name == "KeywordDetector":
                self._keyword = cls()
            elif name not in _OFF:
                self._plugins.append(cls())
        self._filters = [getattr(heuristic, name) for name in _FILTERS]
        self._indirect = heuristic.is_indirect_reference
        if not all(any(gate in word for gate in _KEYWORD_GATE) for word in DENYLIST):
            raise RedactionError(
                "this version of detect-secrets looks for words that the second reader does not know",
                why="KeywordDetector's list has changed",
                fix="pip install detect-secrets==1.5.0",
            )
        self._check()

    def find(self, line: str) -> list[Hit]:
        """The hits of one line, placeholders left out."""
        if len(line) > _LONGEST_LINE:
            return self._find_in_pieces(line)
        mark = hashlib.blake2b(line.encode("utf-8", "replace"), digest_size=12).digest()
        if mark in self._clean:
            return []
        hits = self._read(line)
        if not hits:
            self._clean.add(mark)
        return hits

    def _find_in_pieces(self, line: str) -> list[Hit]:
        """A very long line in overlapping pieces: some of the plugins' patterns are not linear."""
        step = _LONGEST_LINE // 2
        hits: list[Hit] = []
        for at in range(0, len(line), step):
            piece = line[at : at + _LONGEST_LINE]
            hits += [Hit(h.start + at, h.end + at, h.plugin) for h in self._read(piece)]
        return hits

    def _read(self, line: str) -> list[Hit]:
        spans = [m.span() for m in PLACEHOLDER.finditer(line)]
        hits: list[Hit] = []
        for plugin in self._plugins:
            for secret in plugin.analyze_line(filename="text.txt", line=line, line_number=1):
                hits += self._locate(line, secret.secret_value, plugin, spans)
        lower = line.lower()
        if any(word in lower for word in _KEYWORD_GATE):
            for name in ("text.py", "text.yaml"):
                found = self._keyword.analyze_line(filename=name, line=line, line_number=1)
                for secret in found:
                    value = secret.secret_value
                    # As YAML the value is the rest of the line: prose, unless it is one token.
                    if name == "text.yaml" and not _one_token(value):
                        continue
                    if not self._indirect(line):
                        hits += self._locate(line, value, self._keyword, spans)
        return sorted(set(hits), key=lambda h: (h.start, h.end, h.plugin))

    def _locate(
        self, line: str, value: str | None, plugin: Any, spans: list[tuple[int, int]]
    ) -> list[Hit]:
        if not value or self._filtered(line, value, plugin):
            return []
        hits = []
        at = line.find(value)
        while at >= 0:
            start, end = widen(line, at, at + len(value))
            if not any(start < e and s < end for s, e in spans):
                hits.append(Hit(start, end, type(plugin).__name__))
            at = line.find(value, at + len(value))
        return hits

    def _filtered(self, line: str, value: str, plugin: Any) -> bool:
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
            if not self.find(line):
                raise RedactionError(
                    "the second reader does not find a planted secret",
                    why=f"its self-test for {kind} failed ({len(self._plugins)} plugins, {len(secret)} characters)",
                    fix="pip install --force-reinstall detect-secrets==1.5.0, then run the command again",
                )


def _one_token(value: str | None) -> bool:
    return bool(value) and not any(c.isspace() for c in value or "")


def widen(line: str, start: int, end: int) -> tuple[int, int]:
    """The span grown to the whole token on both sides (letters, digits, ``_+/=.-``)."""
    while start > 0 and _WHOLE.fullmatch(line[start - 1]):
        start -= 1
    while end < len(line) and _WHOLE.fullmatch(line[end]):
        end += 1
    return start, end


def replace_suspects(text: str, reader: SecondReader, redactor: Redactor) -> tuple[str, list[str]]:
    """The text with each hit replaced as ``<SECRET:suspect:N>``, and the plugins that hit.

    Raises RedactionError when a line still has a hit afterwards.
    """
    plugins: list[str] = []
    lines = text.split("\n")
    for i, line in enumerate(lines):
        for _ in range(4):
            hits = reader.find(line)
            if not hits:
                break
            plugins += sorted({h.plugin for h in hits})
            line = _replace(line, hits, redactor)
        else:
            raise RedactionError(
                "the second scan still finds a secret after it was replaced",
                why=f"{reader.find(line)[0].plugin} hits the same line again",
                fix="gtft corpus redact FILE shows the line; remove that file from the source",
            )
        lines[i] = line
    return "\n".join(lines), plugins


def _replace(line: str, hits: list[Hit], redactor: Redactor) -> str:
    parts: list[str] = []
    at = 0
    for h in hits:
        if h.start < at:
            continue
        parts += [line[at : h.start], redactor.placeholder("suspect", line[h.start : h.end])]
        at = h.end
    parts.append(line[at:])
    return "".join(parts)
