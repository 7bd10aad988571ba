"""First reader: secrets become typed placeholders, personal data pseudonyms that keep the shape.

``<SECRET:github_pat:7f3a9c21>`` is a keyed hash of the value: equal values stay equal, and without the key, which never
leaves the workspace, it cannot be guessed back. What a text becomes depends on the text, the key and the configuration
alone, never on what was read before it. Values stay in memory: never in a log or a manifest.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.metadata
import os
import secrets
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import xxhash
from msgspec.structs import replace

from gtft.artifact import write_file
from gtft.corpus.redaction.engine import PLACEHOLDER, Engine, Span
from gtft.corpus.redaction.gate import compile_re2
from gtft.corpus.redaction.personal import Detector, make_pseudonym
from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules import RULES, SENSITIVE_KEY, is_stand_in
from gtft.errors import InputError, translate_os_error

KEY_BYTES = 32
LEAST_PROPAGATED = 12
_GATE_NAME = "redaction.gate"
_SEAL_BYTES = 32
# Raised when what is found or what is put in its place changes without a change of a rule.
_VERSION = 2
# No rule and no personal data fits in fewer characters.
_SHORTEST = 6
_SHORT = 300
_ROUNDS = 4
# Bytes on both sides of a replacement that are read again.
_AROUND = 400
_MOST_REMEMBERED = 300_000


@dataclass(frozen=True)
class RedactionConfig:
    """What a town adds: ``names`` of people and ``hosts`` that become pseudonyms anywhere, ``rules`` of its own."""

    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A span of a text (code points) that is replaced. ``personal``: a pseudonym, not a placeholder."""

    start: int
    end: int
    kind: str
    value: str
    replacement: str
    personal: bool = False


@dataclass
class Redactor:
    """Replaces and collects. ``values``: each confirmed value that is long and strange enough to be looked for
    elsewhere → its placeholder. ``placed`` counts placeholders that were put. Rules are compiled once for a process
    and a configuration; raises RedactionError when one does not compile. ``gate``: from `dump_gate` of a redactor
    with the same configuration, so that another process need not compile it."""

    key: bytes = field(repr=False)
    config: RedactionConfig = RedactionConfig()
    values: dict[str, str] = field(default_factory=dict, repr=False)
    # How many placeholders were put in: a text that raised it holds what `values` does not forget.
    placed: int = 0
    _short: dict[str, str] = field(default_factory=dict, repr=False)
    _clean: set[bytes] = field(default_factory=set, repr=False)
    _keys: dict[str, tuple[str, bool]] = field(default_factory=dict, repr=False)

    gate: InitVar[bytes] = b""

    def __post_init__(self, gate: bytes) -> None:
        self._engine = _start_engine(self.config, gate)

    def dump_gate(self) -> bytes:
        """The compiled gate (about 2 MB), for `Redactor(key, config, gate=…)` in a child process."""
        return self._engine.dump_gate()

    @property
    def digest(self) -> str:
        """Of the key, the rules, the configuration and the engines: two redactors with the same one do the same."""
        return digest_rules(self.key, self.config)

    def find(self, text: str) -> list[Finding]:
        """What `redact` replaces in its first round, by position."""
        if len(text) < _SHORTEST:
            return []
        data = _encode(text)
        out: list[Finding] = []
        characters = at = 0
        for s in self._find(data):
            characters += count_characters(data[at : s.start])
            length = count_characters(data[s.start : s.end])
            end = characters + length
            replacement = self._replacement(s)
            out.append(Finding(characters, end, s.kind, s.value, replacement, bool(s.alias)))
            characters, at = end, s.end
        return out

    def _find(self, data: bytes) -> list[Span]:
        mark = xxhash.xxh3_128_digest(data)
        if mark in self._clean:
            return []
        spans = self._engine.find(data)
        if not spans:
            # A text that did not open the gate is as quick to read again as to remember.
            if spans is not None:
                if len(self._clean) >= _MOST_REMEMBERED:
                    self._clean.clear()
                self._clean.add(mark)
            return []
        return spans

    def _replacement(self, s: Span) -> str:
        if s.alias:
            return make_pseudonym(s.kind, s.alias, self.key)
        placeholder = self.placeholder(s.kind, s.value)
        for value in s.also:
            if may_propagate(value):
                self.values[value] = min(placeholder, self.values.get(value, placeholder))
        return placeholder

    def placeholder(self, kind: str, value: str) -> str:
        """The placeholder of a value, which is kept for propagation when it may be (`may_propagate`)."""
        self.placed += 1
        placeholder = f"<SECRET:{kind}:{self.mark(value)}>"
        for part in _lines_of_key(value) if kind == "private_key" else (value,):
            if may_propagate(part):
                # The least one when kinds differ, so that the order of reading decides nothing.
                self.values[part] = min(placeholder, self.values.get(part, placeholder))
        return placeholder

    def mark(self, value: str) -> str:
        """The eight hex digits of a value's placeholder, whatever its kind."""
        return hmac.digest(self.key, b"secret\0" + _encode(value), hashlib.sha256)[:4].hex()

    def redact(self, text: str) -> str:
        """The text with every finding replaced. Redacting twice changes nothing more."""
        if len(text) < _SHORTEST:
            return text
        if len(text) > _SHORT:
            return self._redact(text)
        known = self._short.get(text)
        if known is None:
            placed = self.placed
            known = self._redact(text)
            # The same paths stand in call after call. A text with a secret is not kept.
            if known != text and self.placed == placed:
                if len(self._short) >= _MOST_REMEMBERED // 10:
                    self._short.clear()
                self._short[text] = known
        return known

    def _redact(self, text: str) -> str:
        data = _encode(text)
        spans = self._find(data)
        if not spans:
            return text
        # What is put in may make a secret of what it stands beside: so until nothing is found near it.
        for _ in range(_ROUNDS):
            data, changed = self._replace(data, spans)
            spans = [
                replace(s, start=s.start + first, end=s.end + first)
                for first, last in _widen(data, changed)
                for s in self._engine.find(data[first:last]) or ()
            ]
            if not spans:
                break
        return data.decode("utf-8", "surrogatepass")

    def _replace(self, data: bytes, spans: list[Span]) -> tuple[bytes, list[tuple[int, int]]]:
        """The data with the spans replaced, and where the replacements stand in it."""
        parts: list[bytes] = []
        changed: list[tuple[int, int]] = []
        at = size = 0
        for s in spans:
            new = self._replacement(s).encode()
            parts += [data[at : s.start], new]
            size += s.start - at
            changed.append((size, size + len(new)))
            size += len(new)
            at = s.end
        parts.append(data[at:])
        return b"".join(parts), changed

    def redact_tree(self, value: Any, key: str = "") -> Any:
        """A JSON value, its keys too. A text under a telling key is a secret whatever it looks like."""
        if isinstance(value, str):
            if key and self._read_key(key)[1] and _fits_a_key(value):
                return self.placeholder("assigned_secret", value)
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_tree(v, key) for v in value]
        if isinstance(value, dict):
            return {self._read_key(k)[0]: self.redact_tree(v, k) for k, v in value.items()}
        return value

    def _read_key(self, key: str) -> tuple[str, bool]:
        """(the key redacted, whether it tells of a secret)."""
        known = self._keys.get(key)
        if known is None:
            if len(self._keys) >= _MOST_REMEMBERED // 10:
                self._keys.clear()
            known = self._keys[key] = (self.redact(key), SENSITIVE_KEY.match(key) is not None)
        return known


# The engines of this process; few configurations are ever used in one.
_ENGINES: dict[RedactionConfig, Engine] = {}
_MOST_ENGINES = 4


def _start_engine(config: RedactionConfig, gate: bytes) -> Engine:
    known = _ENGINES.get(config)
    if known is None:
        for rule in config.rules:
            # Ours are compiled by the tests, and at first use; a town's own are not known to be right.
            compile_re2(rule.pattern)
        if len(_ENGINES) >= _MOST_ENGINES:
            _ENGINES.clear()
        detector = Detector(config.names, config.hosts)
        known = _ENGINES[config] = Engine((*config.rules, *RULES), detector, gate)
    return known


def digest_rules(key: bytes, config: RedactionConfig) -> str:
    """`Redactor.digest`, without compiling anything."""
    parts = [str(_VERSION), *_versions(), *config.names, "\0", *config.hosts, "\0"]
    # A town's own rules come first: of two that find the same span they give the kind.
    for r in (*config.rules, *RULES):
        guard = getattr(r.guard, "__qualname__", "")
        parts += [r.kind, r.pattern, *r.gate, guard, r.not_before, r.not_after]
        parts.append(f"{r.context}{r.lines}")
    text = "\x01".join(parts).encode("utf-8", "surrogatepass")
    return hmac.digest(key, b"rules\0" + text, hashlib.sha256).hex()


def may_propagate(value: str) -> bool:
    """True for a value that is a secret wherever it stands: long, and no word, name, path or placeholder."""
    return (
        len(value) >= LEAST_PROPAGATED
        and not value.isspace()
        and not PLACEHOLDER.search(value)
        and not is_stand_in(value)
        and not _is_plain(value)
    )


def _is_plain(value: str) -> bool:
    """Words of prose or code, or a number: they stand in many places and mean nothing there."""
    if value.isdigit() or ("/" in value and value.startswith(("/", "./", "~/", "http"))):
        return True
    pieces = value.replace("-", " ").replace("_", " ").replace(".", " ").split()
    # Twelve words and more are the seed of a wallet.
    return len(pieces) < 12 and all(
        p.isalpha() and (p.islower() or p.isupper() or p.istitle()) for p in pieces
    )


def _widen(data: bytes, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Whole lines around places, apart from each other."""
    out: list[tuple[int, int]] = []
    for start, end in places:
        if out and end + _AROUND <= out[-1][1]:
            continue
        first = data.rfind(b"\n", 0, max(0, start - _AROUND)) + 1
        last = data.find(b"\n", end + _AROUND) + 1 or len(data)
        # One longer window is read faster than two short ones.
        if out and first <= out[-1][1] + _AROUND:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def _lines_of_key(value: str) -> list[str]:
    """The lines of a key block that hold enough of it to be known again by themselves."""
    return [
        line
        for line in (p.strip() for p in value.split("\n"))
        if len(line) >= 40 and "--" not in line
    ]


def _fits_a_key(value: str) -> bool:
    return (
        6 <= len(value) <= 300
        and not any(c.isspace() for c in value)
        and not is_stand_in(value)
        and not PLACEHOLDER.search(value)
    )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def count_characters(data: bytes) -> int:
    """The code points that whole UTF-8 characters make."""
    return len(data) if data.isascii() else len(data.decode("utf-8", "surrogatepass"))


def _versions() -> list[str]:
    """The engines that are here; the gate may be either one, since both find the same."""
    return ["re2 " + importlib.metadata.version("google-re2")]


def start_redactor(key: bytes, config: RedactionConfig, cache: Path) -> Redactor:
    """A redactor whose gate is kept in the folder ``cache``: compiling it takes a second.

    What is kept there counts only under a seal of the key, which never leaves the workspace.
    """
    path = cache / _GATE_NAME
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    gate = kept[_SEAL_BYTES:]
    if not hmac.compare_digest(kept[:_SEAL_BYTES], _seal(gate, key)):
        gate = b""
    redactor = Redactor(key, config, gate=gate)
    dumped = redactor.dump_gate()
    if dumped and dumped != gate:
        cache.mkdir(parents=True, exist_ok=True)
        write_file(path, _seal(dumped, key) + dumped, mode=0o600)
    return redactor


def _seal(gate: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"gate\0" + gate, hashlib.sha256)


def load_key(path: Path) -> bytes:
    """The key of a workspace; made at first use (32 random bytes, mode 0600).

    Raises InputError when the file holds anything else, a kind of `translate_os_error` when it cannot be written.
    """
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as e:
        raise translate_os_error(e, f"reading {path}") from e
    if len(key) != KEY_BYTES:
        raise InputError(
            f"{path.name} is not a redaction key",
            why=f"it holds {len(key)} bytes, not {KEY_BYTES}",
            fix="put the right file back; when it is lost, delete it: every placeholder and pseudonym will change",
        )
    return key


def _make_key(path: Path) -> None:
    """Written aside and linked into place: of two processes the first one's key counts for both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(secrets.token_bytes(KEY_BYTES))
            f.flush()
            os.fsync(f.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return
    finally:
        aside.unlink()
