"""Personal data: home-folder names, e-mail addresses, names in git trailers, hosts, public IP addresses, chosen names.

Each becomes a pseudonym that keeps the shape and is keyed: ``/home/user7f3a9c/``, ``user7f3a9c@example.com``. A person's
home folder, mail address and name beside that address share the six hex digits.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec

from gtft.corpus.redaction.gate import compile_re2


class Personal(msgspec.Struct, frozen=True):
    """A span (bytes) that tells who or where somebody is. ``alias``: what the pseudonym is made from."""

    start: int
    end: int
    kind: str
    value: str
    alias: str


# Names that stand for anybody.
_ANYBODY_NAMES = (
    "user username you me your-name yourname name runner root ubuntu shared public default guest "
    "linuxbrew vscode node app admin someone alice bob git gitpod codespace home"
)
_ANYBODY = frozenset(_ANYBODY_NAMES.split())
_PSEUDONYM = re.compile(r"(?:user|host)(?:[0-9a-f]{6}|\d*)$")

# Short and bounded, so `re` is linear on it, and quicker than re2 where there are many hits.
_HOME_NAME = rb"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})"
_HOME = re.compile(
    rb"(?:/(?:home|Users)/|:(?:\\{1,8}|/)Users(?:\\{1,8}|/)|-(?:home|Users)-)" + _HOME_NAME
)
# The same, each by its own beginning, which is found many times faster.
_HOMES = tuple(
    (begin, re.compile(begin + _HOME_NAME))
    for begin in (b"/home/", b"/Users/", b"-home-", b"-Users-")
)
_EMAIL = r"([A-Za-z0-9][\w.+%-]{0,63})@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.)+[A-Za-z]{2,24})"
_TRAILER = (
    r"(?i:co-authored-by|signed-off-by|reviewed-by|acked-by|tested-by|reported-by|suggested-by|author|committer"
    r"|from|to|cc)[:=]?\\?[\"']?[ \t]{1,8}\\?[\"']?([A-Z\x80-\xff][\w.'\x80-\xff-]{0,40}(?: [A-Z\x80-\xff][\w.'\x80-\xff-]{0,40}){0,4}) <"
    + _EMAIL
    + ">"
)
_IPV4 = r"(?:\d{1,3}\.){3}\d{1,3}"
_IPV6 = r"(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){0,6}"
_INTERNAL = "internal|corp|lan|intranet|intra|local|home\\.arpa"
_HOST = rf"([A-Za-z0-9][A-Za-z0-9-]{{0,62}}(?:\.[A-Za-z0-9-]{{1,63}}){{0,6}})\.({_INTERNAL})\b"
_PROMPT = r"\b([A-Za-z_][\w.-]{0,31})@([A-Za-z0-9][\w.-]{0,62}):[~/][^\s$#:]{0,200}[$#] "

_PATTERNS = {
    "email": _EMAIL, "trailer": _TRAILER, "ipv4": _IPV4, "ipv6": _IPV6, "host": _HOST, "prompt": _PROMPT,
}  # fmt: skip

# Expressions for the gate; a detector runs where one of its own hits.
GATES: dict[str, tuple[str, ...]] = {
    "home": (r"/(?:home|Users)/\w", r"[A-Za-z]:(?:\\{1,8}|/)Users[\\/]", r"-(?:home|Users)-\w"),
    "email": (r"[\w.+%-]@[A-Za-z0-9-]+\.[A-Za-z]",),
    "ipv4": (r"\d\.\d{1,3}\.\d{1,3}\.\d",),
    "ipv6": (r"[0-9A-Fa-f]{1,4}::?[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2}",),
    "host": (rf"[A-Za-z0-9-]\.(?:{_INTERNAL})\b",),
    "prompt": (r"[\w.-]@[\w.-]{1,63}:[~/][^\s$#:]{0,200}[$#] ",),
}

# What only looks like a domain: images for dense screens, package versions, files.
_FILE_ENDINGS = (
    "png jpg jpeg gif svg webp ico ts tsx js jsx mjs cjs go py rs rb md json css html toml yaml yml sh "
    "txt lock xml java kt swift c h cpp vue service timer socket target mount internal local"
)
_NOT_TLD = frozenset(_FILE_ENDINGS.split())
# `example.com` is what pseudonyms end in: it stays.
_RESERVED = re.compile(r"(^|\.)(example\.com|example|test|invalid|localhost)$", re.I)
_NO_PERSON = re.compile(r"^(git|no-?reply|donotreply|.*\+noreply|.*\bnoreply)$", re.I)
_WELL_KNOWN = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})
_VERSION_BEFORE = re.compile(rb"(?:version|ver|v|release|build)[\s:=\"']{0,12}$", re.I)
# Names that a platform gives, the same for everybody.
_NOBODYS_HOST = re.compile(
    r"(?:^|\.)(?:localhost|host\.docker|gateway\.docker|kubernetes\.docker|metadata\.google|svc\.cluster|cluster)$",
    re.I,
)
_HOST_BEFORE = re.compile(
    rb"(?:://(?:[^\s/@]{1,100}@)?|@|\b(?:ssh|scp|ping|curl|telnet|nc|host|hostname|server|nslookup|dig)[\"']?[ =:]{1,3}[\"']?)$",
    re.I,
)
_HOST_AFTER = re.compile(rb":\d{2,5}\b")

_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_NEAR_MAIL = _WORD | frozenset(b".+%/:-")


@dataclass
class Detector:
    """Finds personal data in bytes. ``names`` and ``hosts`` are the town's own, looked for as whole words."""

    names: Sequence[str] = ()
    hosts: Sequence[str] = ()
    _patterns: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._finders: dict[str, Callable[[bytes], Iterator[Personal]]] = {
            "email": self._find_emails, "home": self._find_homes, "ipv4": self._find_ipv4,
            "ipv6": self._find_ipv6, "host": self._find_hosts, "prompt": self._find_prompts,
            "names": self._find_names, "hosts": self._find_own_hosts,
        }  # fmt: skip

    def _pattern(self, name: str) -> Any:
        """Compiled at first use."""
        known = self._patterns.get(name)
        if known is None:
            own = {"names": self.names, "hosts": self.hosts}
            pattern = _words(own[name]) if name in own else _PATTERNS[name]
            known = self._patterns[name] = compile_re2(pattern)
        return known

    def gates(self) -> dict[str, tuple[str, ...]]:
        """`GATES`, and those of the names and hosts of this town."""
        own = {"names": self.names, "hosts": self.hosts}
        return GATES | {k: (_words(words),) for k, words in own.items() if words}

    def find(self, data: bytes, asked: Set[str]) -> Iterator[Personal]:
        """The spans of the kinds that are asked for (keys of `gates`); they may overlap."""
        for name, find in self._finders.items():
            if name in asked:
                yield from find(data)

    def _find_homes(self, data: bytes) -> Iterator[Personal]:
        for m in _match_homes(data):
            at, start = m.start(), m.start(1)
            sign = data[at]
            before = data[at - 1] if at else 0
            if sign == 0x3A:
                # A drive letter that is no part of a word.
                if not chr(before).isalpha() or (at > 1 and data[at - 2] in _WORD):
                    continue
            elif before in _WORD or (before == 0x2E and not data.startswith(b"..", at - 2)):
                # `/home/` within another path, a dash within a word.
                continue
            name = _read_home_name(m.group(1), sign == 0x2D)
            if name:
                yield Personal(start, start + len(name), "home_user", name, name.lower())

    def _find_emails(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("trailer").finditer(data):
            local, domain = m.group(2).decode(), m.group(3).decode()
            if _is_person(local, domain) or _RESERVED.search(domain):
                name = m.group(1).decode("utf-8", "replace")
                if _is_person(local, domain) and not _PSEUDONYM.match(name):
                    yield Personal(m.start(1), m.end(1), "name", name, local.lower())
        for m in self._pattern("email").finditer(data):
            start, end = m.span()
            if start and data[start - 1] in _NEAR_MAIL and not _is_after_colon(data, start):
                continue
            if end < len(data) and (data[end] in _WORD or data[end] == 0x40):
                continue
            local, domain = data[start : m.end(1)].decode(), m.group(2).decode()
            if _is_person(local, domain):
                yield Personal(start, end, "email", f"{local}@{domain}", local.lower())

    def _find_ipv4(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("ipv4").finditer(data):
            start, end = m.span()
            if start and (data[start - 1] in _WORD or data[start - 1] in b".-"):
                continue
            if end < len(data) and (data[end] in _WORD or data[end] == 0x2D):
                continue
            if data[end : end + 1] == b"." and data[end + 1 : end + 2].isdigit():
                continue
            text = m.group().decode()
            if _is_public_ipv4(text, data[max(0, start - 24) : start]):
                yield Personal(start, end, "ipv4", text, text)

    def _find_ipv6(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("ipv6").finditer(data):
            start, end = m.span()
            if start and (data[start - 1] in _WORD or data[start - 1] in b":."):
                continue
            if end < len(data) and (data[end] in _WORD or data[end] == 0x3A):
                continue
            text = m.group().decode()
            if _is_public_ipv6(text):
                yield Personal(start, end, "ipv6", text, text.lower())

    def _find_hosts(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("host").finditer(data):
            start, end = m.span()
            name = m.group(1).decode()
            if start and (
                data[start - 1] in _WORD
                or (data[start - 1] in b".-/" and data[start - 2 : start] != b"//")
            ):
                continue
            if _NOBODYS_HOST.search(name) or _PSEUDONYM.match(name):
                continue
            near = data[max(0, start - 120) : start]
            if (
                _HOST_BEFORE.search(near)
                or _HOST_AFTER.match(data, end)
                or _is_machine(name, m.group(2))
            ):
                yield Personal(start, m.end(1), "host", name, name.lower())

    def _find_prompts(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("prompt").finditer(data):
            user, host = m.group(1).decode(), m.group(2).decode()
            if user.lower() not in _ANYBODY and not _PSEUDONYM.match(user):
                yield Personal(m.start(1), m.end(1), "home_user", user, user.lower())
            if host != "localhost" and not _PSEUDONYM.match(host) and not _RESERVED.search(host):
                yield Personal(m.start(2), m.end(2), "host", host, host.lower())

    def _find_names(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("names").finditer(data):
            name = m.group(1).decode("utf-8", "replace")
            yield Personal(m.start(1), m.end(1), "name", name, name.lower())

    def _find_own_hosts(self, data: bytes) -> Iterator[Personal]:
        for m in self._pattern("hosts").finditer(data):
            name = m.group(1).decode("utf-8", "replace")
            yield Personal(m.start(1), m.end(1), "host", name, name.lower())


def _match_homes(data: bytes) -> Iterable[re.Match[bytes]]:
    """What `_HOME` finds."""
    if b":\\" not in data and b":/Users" not in data:
        patterns = [pattern for begin, pattern in _HOMES if begin in data]
        found = [m for pattern in patterns for m in pattern.finditer(data)]
        if len(patterns) < 2:
            return found
        found.sort(key=lambda m: m.start())
        if all(a.end() <= b.start() for a, b in pairwise(found)):
            return found
    return _HOME.finditer(data)


@lru_cache(maxsize=10_000)
def _read_home_name(found: bytes, slug: bool) -> str:
    """The name of somebody at the start of what follows `/home/`, or nothing."""
    name = found.decode("ascii")
    if slug:
        # The path goes on with dashes: the name ends at the first one.
        name = name.split("-")[0]
    name = name.rstrip(".-")
    return "" if len(name) < 2 or name.lower() in _ANYBODY or _PSEUDONYM.match(name) else name


def _words(words: Sequence[str]) -> str:
    """An expression for any of the words, whole, in any case of letters; the longest first."""
    ordered = sorted({w for w in words if w}, key=lambda w: (-len(w), w))
    parts = "|".join("".join(_spell(b) for b in w.encode()) for w in ordered)
    return rf"(?i)(?:^|[^A-Za-z0-9_\x80-\xff])({parts})(?:$|[^A-Za-z0-9_\x80-\xff])"


def _spell(byte: int) -> str:
    c = chr(byte)
    return c if c.isascii() and c.isalnum() else f"\\x{byte:02x}"


def _is_after_colon(data: bytes, start: int) -> bool:
    """`mailto:` and `Author:` may stand before an address; a user name before a URL's password is none."""
    near = data[max(0, start - 100) : start]
    return near.endswith(b":") and b"://" not in near.split()[-1]


def _is_person(local: str, domain: str) -> bool:
    return not (
        domain.rsplit(".", 1)[-1].lower() in _NOT_TLD
        or _RESERVED.search(domain)
        or _NO_PERSON.match(local)
        or "noreply" in domain
    )


def _is_machine(name: str, suffix: bytes) -> bool:
    """`db1.corp` before `.internal`, `Annas-MacBook` before `.local`: no file and no package is named so."""
    if suffix.lower() == b"local":
        return (
            re.search(r"(?i)macbook|imac|-mbp|-pc$|desktop|laptop|mac-?mini|raspberrypi", name)
            is not None
        )
    return "." in name and any(c.isdigit() or c == "-" for c in name) and not name.startswith("v")


def _is_public_ipv4(text: str, before: bytes) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    if text in _WELL_KNOWN or not address.is_global or _VERSION_BEFORE.search(before):
        return False
    # 2.0.64.1 is a version more often than an address of somebody.
    return int(text.split(".")[0]) >= 11


def _is_public_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).is_global
    except ValueError:
        return False


def make_pseudonym(kind: str, alias: str, key: bytes) -> str:
    """What stands in for it: the same for the same key and alias, of the same shape, never found again."""
    group = "user" if kind in ("home_user", "email", "name") else kind
    digest = _digest(group, alias, key)
    short = digest[:3].hex()
    if kind == "email":
        return f"user{short}@example.com"
    if group == "user":
        return f"user{short}"
    if kind == "host":
        return f"host{short}"
    number = int.from_bytes(digest[:4], "big")
    if kind == "ipv4":
        # 198.18.0.0/15 is set aside for tests: nobody has these addresses.
        return f"198.{18 + (number & 1)}.{number >> 8 & 255}.{number >> 16 & 255}"
    return f"2001:db8::{number >> 16:x}:{number & 0xFFFF:x}"


@lru_cache(maxsize=10_000)
def _digest(group: str, alias: str, key: bytes) -> bytes:
    return hmac.digest(key, f"{group}\0{alias}".encode("utf-8", "replace"), "sha256")
