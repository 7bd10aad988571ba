"""The shape of a rule: where a secret of some kind stands in a text, and what makes it one.

A text (UTF-8 bytes) goes through three steps:

1. **gate**: every expression of every rule in one pass (hyperscan). A hit says: this rule is worth a look. It may hit
   too often, never too seldom. Keep it short: a literal prefix with a few characters of what follows, no left boundary.
2. **pattern**: google-re2 over the whole text, bytes (``\\w``, ``\\d``, ``\\s``, ``\\b`` are ASCII). The first group that
   took part is the secret, else the whole match; the rest of the match is context and stays.
3. **guard** on the secret as str: False throws it away.

The same steps run over views of the text (`gtft.corpus.redaction.views`): unescaped, ANSI stripped, URL-decoded, line
prefixes stripped, wrapped lines joined, base64 decoded. So a rule need not know about ``\\"`` or ``cat -n``.

What stands in the folder ``rules``: ``rules/__init__.py`` exports ``RULES: tuple[Rule, ...]`` (on equal spans the first
one gives the kind), ``SENSITIVE_KEY`` (a compiled pattern whose ``match(key)`` tells whether what stands under that JSON
key is a secret) and ``is_stand_in(value) -> bool`` (what documentation writes where a secret would stand).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Takes the secret, says whether it is one. A named function: its name goes into the digest of the rules.
Guard = Callable[[str], bool]


@dataclass(frozen=True)
class Rule:
    """One kind of secret.

    ``kind``: ``[a-z0-9_]+``, what the placeholder says; several rules may share one.
    ``pattern``: re2 syntax, flags inline (``(?i)``); no lookaround, repeats up to 1000.
    ``gate``: expressions that both hyperscan and re2 take, flags inline; any one of them opens the rule. ``()``: the
    pattern is its own gate (fine for a prefix with a bounded tail; not for ``*`` and large repeats).
    ``not_before`` / ``not_after``: the inside of a character class (``A-Za-z0-9_``); a match with such a byte directly
    before its first or after its last byte is no match.
    ``context``: the value is known by what stands around it; a rule with a form of its own gives the kind before it.
    ``lines``: a match may go over several lines (PEM, netrc): it is also looked for with line prefixes stripped.
    """

    kind: str
    pattern: str
    gate: tuple[str, ...] = ()
    guard: Guard | None = None
    not_before: str = ""
    not_after: str = ""
    context: bool = False
    lines: bool = False
