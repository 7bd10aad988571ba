"""First reader: secrets become typed placeholders, personal data stable pseudonyms that keep the shape.

``<SECRET:github_pat:1>`` numbers the values of a kind by first appearance in the order of reading.
Nothing in it comes from the value, so it cannot be guessed back, and the same input gives the same text
everywhere. Values stay in memory: never in a log or a manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from gtft.corpus.personal import find_personal
from gtft.corpus.secret_rules import PLACEHOLDER, RULES, SENSITIVE_KEY, Rule, is_stand_in
from gtft.errors import RedactionError

LEAST_PROPAGATED = 12
_WORDS = tuple(sorted({word for rule in RULES for word in rule.words}))
# No rule and no personal data fits in fewer characters.
_SHORTEST = 6
_ROUNDS = 4


@dataclass(frozen=True)
class Finding:
    """A span of a text (code points) that is replaced. ``personal``: a pseudonym, not a placeholder."""

    start: int
    end: int
    kind: str
    value: str
    personal: bool = False


def find_secrets(text: str) -> list[Finding]:
    """The secrets of a text by our own rules: sorted, not overlapping, placeholders left alone."""
    lower = text.lower()
    spans: list[Finding] = []
    done = [m.span() for m in PLACEHOLDER.finditer(text)]
    present = {word for word in _WORDS if word in lower}
    if not present:
        return []
    for rule in RULES:
        if present.isdisjoint(rule.words):
            continue
        for match in rule.pattern.finditer(text):
            found = _confirm(rule, match, text)
            if found and not any(found.start < end and start < found.end for start, end in done):
                spans.append(found)
    return _merge(spans, text)


def _confirm(rule: Rule, match: re.Match[str], text: str) -> Finding | None:
    """The span that is the secret: the rule's group, else the first group that matched, else all."""
    start, end = match.span()
    for group in range(1, rule.pattern.groups + 1):
        if match.start(group) >= 0:
            start, end = match.span(group)
            break
    value = text[start:end]
    if not value or (rule.guard is not None and not rule.guard(value)):
        return None
    return Finding(start, end, rule.kind, value)


def _merge(spans: list[Finding], text: str) -> list[Finding]:
    """Overlapping spans become their union, under the kind of the longest (the first rule on a tie)."""
    out: list[Finding] = []
    for f in sorted(spans, key=lambda s: s.start):
        if out and f.start < out[-1].end:
            last = out[-1]
            kind = f.kind if f.end - f.start > last.end - last.start else last.kind
            end = max(last.end, f.end)
            out[-1] = Finding(last.start, end, kind, text[last.start : end])
        else:
            out.append(f)
    return out


@dataclass
class Redactor:
    """Replaces and remembers: equal values get equal placeholders over the whole corpus."""

    ordinals: dict[tuple[str, str], int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    pseudonyms: dict[tuple[str, str], int] = field(default_factory=dict)
    _per_kind: dict[str, int] = field(default_factory=dict)
    # Digests of texts without a finding: the same text gets the same verdict without a second look.
    _clean: set[bytes] = field(default_factory=set)

    def find(self, text: str) -> list[Finding]:
        """Secrets, then personal data outside them, by position."""
        if len(text) < _SHORTEST:
            return []
        mark = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        if mark in self._clean:
            return []
        findings = self._find(text)
        if not findings:
            self._clean.add(mark)
        return findings

    def _find(self, text: str) -> list[Finding]:
        secrets = find_secrets(text)
        taken = [(f.start, f.end) for f in secrets]
        taken += [m.span() for m in PLACEHOLDER.finditer(text)]
        personal = [
            Finding(p.start, p.end, p.kind, p.value, personal=True)
            for p in find_personal(text)
            if not any(p.start < end and start < p.end for start, end in taken)
        ]
        return sorted(secrets + personal, key=lambda f: f.start)

    def replacement(self, finding: Finding) -> str:
        """What stands in for it; a value met before gets what it got before."""
        if finding.personal:
            return self._pseudonym(finding)
        return self.placeholder(finding.kind, finding.value)

    def placeholder(self, kind: str, value: str) -> str:
        """The placeholder of a value: a value keeps the kind under which it was met first."""
        kind = self.kinds.setdefault(value, kind)
        if (kind, value) not in self.ordinals:
            self._per_kind[kind] = self._per_kind.get(kind, 0) + 1
            self.ordinals[kind, value] = self._per_kind[kind]
        return f"<SECRET:{kind}:{self.ordinals[kind, value]}>"

    def redact(self, text: str) -> str:
        """The text with every finding replaced. Redacting twice changes nothing more."""
        # A pseudonym's digits may make a secret of what it stands in: so until nothing is found.
        for _ in range(_ROUNDS):
            findings = self.find(text)
            if not findings:
                break
            parts: list[str] = []
            at = 0
            for f in findings:
                parts += [text[at : f.start], self.replacement(f)]
                at = f.end
            parts.append(text[at:])
            text = "".join(parts)
        return text

    def redact_tree(self, value: Any, key: str = "") -> Any:
        """A JSON value, its keys too. A text under a telling key is a secret whatever it looks like."""
        if isinstance(value, str):
            if SENSITIVE_KEY.match(key) and _fits_a_key(value):
                return self.placeholder("assigned_secret", value)
            return self.redact(value)
        if isinstance(value, list):
            return [self.redact_tree(v, key) for v in value]
        if isinstance(value, dict):
            return {self.redact(k): self.redact_tree(v, k) for k, v in value.items()}
        return value

    def sweep(self) -> Callable[[str], str]:
        """A function that replaces every confirmed value of 12 characters and more wherever it stands:
        bare, JSON-escaped or URL-encoded."""
        literals: dict[str, str] = {}
        for kind, value in self.ordinals:
            if len(value) < LEAST_PROPAGATED:
                continue
            placeholder = self.placeholder(kind, value)
            for form in (value, json.dumps(value)[1:-1], quote(value, safe="")):
                literals.setdefault(form, placeholder)
        ordered = sorted(literals.items(), key=lambda item: (-len(item[0]), item[0]))

        def replace(text: str) -> str:
            for literal, placeholder in ordered:
                if literal in text:
                    text = text.replace(literal, placeholder)
            return text

        return replace

    def _pseudonym(self, f: Finding) -> str:
        group = "user" if f.kind in ("home_user", "email") else f.kind
        # A person's home folder and mail address share the name before the @.
        name = f.value.split("@")[0].lower() if group == "user" else f.value
        if (group, name) not in self.pseudonyms:
            self.pseudonyms[group, name] = 1 + sum(g == group for g, _ in self.pseudonyms)
        n = self.pseudonyms[group, name]
        if f.kind == "home_user":
            return f"user{n}"
        if f.kind == "email":
            return f"user{n}@example.com"
        if f.kind == "ipv4":
            block = ("192.0.2", "198.51.100", "203.0.113")[(n - 1) // 254 % 3]
            return f"{block}.{(n - 1) % 254 + 1}"
        return f"2001:db8::{n:x}"


def _fits_a_key(value: str) -> bool:
    return (
        6 <= len(value) <= 300
        and not any(c.isspace() for c in value)
        and not is_stand_in(value)
        and not PLACEHOLDER.search(value)
    )


def check_rules() -> None:
    """Canaries made now must all be found. Raises RedactionError: without that no corpus is written."""
    for kind, text, secret in make_canaries():
        redacted = Redactor().redact(text)
        if secret in redacted or "<SECRET:" not in redacted:
            raise RedactionError(
                "the redaction rules do not find a planted secret",
                why=f"the self-test for {kind} failed; nothing is written without it",
                fix="reinstall gtft (pip install --force-reinstall gtft), then run the command again",
            )


def make_canaries() -> list[tuple[str, str, str]]:
    """(kind, text, the part that must be gone), put together here so that no file holds one."""
    mixed = "".join(
        chr(97 + i * 7 % 26) + str(i * 3 % 10) + chr(65 + i * 11 % 26) for i in range(14)
    )
    hexes = "".join(f"{i * 37 % 256:02x}" for i in range(20))
    upper = "".join(c for c in mixed.upper() if c.isalnum())
    jwt_head, jwt_body = "ey" + "JhbGciOiJIUzI1NiJ9", "ey" + "J" + mixed[:20]
    pem = "-----BEGIN " + "RSA PRIVATE KEY-----"
    return [
        ("private_key", f"{pem}\n{mixed}\n-----END " + "RSA PRIVATE KEY-----", mixed),
        ("private_key", f"{pem}\n{mixed}\n{mixed}", mixed),
        ("aws_access_key", "AK" + "IA" + upper[:16], upper[:16]),
        ("github_pat", "gh" + "p_" + mixed[:36], mixed[:36]),
        ("github_fine_grained", "github" + "_pat_" + mixed, mixed),
        ("gitlab_token", "gl" + "pat-" + mixed[:20], mixed[:20]),
        ("slack_token", "xo" + f"xb-123456789012-{hexes}", hexes),
        ("stripe_key", "sk" + "_live_" + mixed[:24], mixed[:24]),
        ("google_key", "AI" + "za" + mixed[:35], mixed[:35]),
        ("model_api_key", "sk" + "-ant-api03-" + mixed, mixed),
        ("huggingface_token", "h" + "f_" + mixed[:34], mixed[:34]),
        ("npm_token", "np" + "m_" + mixed[:36], mixed[:36]),
        ("pypi_token", "py" + "pi-" + mixed + mixed, mixed),
        ("jwt", f"{jwt_head}.{jwt_body}.{mixed}", jwt_body),
        ("url_password", f"postgres://app:{mixed[:9]}@db.internal:5432/x", mixed[:9]),
        ("bearer_token", f"Authorization: Bearer {mixed}", mixed),
        ("curl_password", f"curl -u deploy:{mixed[:12]} https://ci.internal", mixed[:12]),
        ("netrc_password", f"machine h.internal\n login me\n password {mixed[:10]}", mixed[:10]),
        ("assigned_secret", f'db_password = "{mixed[:12]}"', mixed[:12]),
        ("assigned_secret", f"API_KEY={hexes}", hexes),
    ]
