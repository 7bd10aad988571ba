"""Personal data: home-folder names, e-mail addresses, public IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Personal:
    """A span that tells who somebody is; ``kind`` is home_user, email, ipv4 or ipv6."""

    start: int
    end: int
    kind: str
    value: str


# Names that stand for anybody.
_ANYBODY_NAMES = (
    "user username you me your-name yourname name runner root ubuntu shared public default guest "
    "linuxbrew vscode node app admin someone alice bob git gitpod codespace home"
)
_ANYBODY = frozenset(_ANYBODY_NAMES.split())
_PSEUDONYM = re.compile(r"^user\d+$")
_HOME = re.compile(
    r"(?:(?<![\w.])/(?:home|Users)/|\b[A-Za-z]:(?:\\{1,4}|/)Users(?:\\{1,4}|/)|file:///(?:home|Users)/"
    r"|(?<![A-Za-z0-9])-(?:home|Users)-)(?P<name>[A-Za-z0-9_][\w.-]{0,31})"
)
_EMAIL = re.compile(
    r"(?<![\w.+%/:-])[A-Za-z0-9][\w.+%-]{0,63}@(?P<domain>[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,24})(?![\w@])"
)
# What only looks like a domain: images for dense screens, package versions, files.
_FILE_ENDINGS = (
    "png jpg jpeg gif svg webp ico ts tsx js jsx mjs cjs go py rs rb md json css html toml yaml yml sh "
    "txt lock xml java kt swift c h cpp vue service timer socket target mount internal local"
)
_NOT_TLD = frozenset(_FILE_ENDINGS.split())
# `example.com` is what pseudonyms end in: it stays.
_RESERVED = re.compile(r"(^|\.)(example\.com|example|test|invalid|localhost)$", re.I)
_NO_PERSON = re.compile(r"^(git|no-?reply|donotreply|.*\+noreply|.*\bnoreply)$", re.I)
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){0,6}(?![\w:])")
_WELL_KNOWN = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})
_VERSION_BEFORE = re.compile(r"(?:version|ver|v|release|build)[\s:=\"']*$", re.I)


def find_personal(text: str) -> Iterator[Personal]:
    """Spans of personal data, by kind. Names that stand for anybody and reserved domains stay."""
    if "/" in text or "Users" in text or "-home-" in text:
        yield from _find_homes(text)
    if "@" in text:
        yield from _find_emails(text)
    if "." in text:
        for m in _IPV4.finditer(text):
            if _public_ipv4(m.group(), text[max(0, m.start() - 12) : m.start()]):
                yield Personal(m.start(), m.end(), "ipv4", m.group())
    if "::" in text or text.count(":") >= 7:
        for m in _IPV6.finditer(text):
            if _public_ipv6(m.group()):
                yield Personal(m.start(), m.end(), "ipv6", m.group())


def _find_homes(text: str) -> Iterator[Personal]:
    for m in _HOME.finditer(text):
        start, name = m.start("name"), m["name"]
        if text[start - 1] == "-":
            # In a slug the path goes on with dashes: the name ends at the first one.
            name = name.split("-")[0]
        name = name.rstrip(".-")
        if len(name) < 2 or name.lower() in _ANYBODY or _PSEUDONYM.match(name):
            continue
        yield Personal(start, start + len(name), "home_user", name)


def _find_emails(text: str) -> Iterator[Personal]:
    for m in _EMAIL.finditer(text):
        local, domain = m.group().split("@", 1)
        if domain.rsplit(".", 1)[-1].lower() in _NOT_TLD:
            continue
        if _RESERVED.search(domain) or _NO_PERSON.match(local) or "noreply" in domain:
            continue
        yield Personal(m.start(), m.end(), "email", m.group())


def _public_ipv4(text: str, before: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    if text in _WELL_KNOWN or not address.is_global or _VERSION_BEFORE.search(before):
        return False
    # 2.0.64.1 is a version more often than an address of somebody.
    return int(text.split(".")[0]) >= 11


def _public_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).is_global
    except ValueError:
        return False
