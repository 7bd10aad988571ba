"""What tells a secret from what only stands where secrets stand: words, code, ids, digests."""

from __future__ import annotations

import math
import re
from collections import Counter

from gtft.corpus.redaction.rule import Guard, Rule

_STAND_INS = (
    "password passwd passphrase passcode pass pwd pw secret secrets token tokens apikey "
    "api_key api-key key keys value string str bytes none null nil true false undefined "
    "changeme change_me foobar foo bar baz required optional enabled disabled redacted hidden "
    "masked placeholder dummy example username user admin root default empty test testing "
    "hunter mypassword mysecret mytoken pass123 password1 password123 secret123 token123 "
    "test123 abc123 abcdef 123456 12345678 foobar123 supersecret topsecret notasecret "
    "admin123 user123 invalid unknown missing basic bearer oauth oauth2 auth0 base64 utf8 "
    "utf-8 sha1 sha256 md5 hs256 rs256 es256 ed25519 x509 pkcs8 pkcs1 p256 bcrypt argon2 "
    "argon2id http2 localhost postgres mysql redis prompt tiger scott iamsensitive"
)
_WORDS = frozenset(_STAND_INS.split())
_PROGRAMS = (
    "postgres mysql password username database required optional disabled enabled private public plaintext "
    "encrypted hashed prompt keyring keychain environment string boolean hidden secret confirm current "
    "reset change forgot update verify invalid incorrect missing account session security sensitive unknown "
    "this that your with from have text must been when"
)
_PROGRAM_WORDS = frozenset(_PROGRAMS.split())
_FILLERS = "the and of to is are was for in on it that this with or be as by an if not from"
_SENTENCE = frozenset(_FILLERS.split())
# What no token holds, and what documentation puts into the form of one.
_FORM_OF_NONE = re.compile(
    r"example|placeholder|redacted|your[-_]|(.)\1{5,}|\.\.\.|\u2026|\*{3,}|[<>]|\$\{|\{\{|abcdef0?1?2?3|1234567890ab",
    re.IGNORECASE,
)
# Parts that documentation and tests put into a value that is none.
_PARTS = re.compile(
    r"example|placeholder|change[_-]?me|redacted|replace[_-]?(?:me|with)|x{5,}|0{8,}|\.\.\.|\u2026|\*{3,}|<|>|insert[_-]"
    r"|(?:^|[-_. :])(?-i:your?|my|the|some|fake|mock|dummy|sample|todo|fixme|test|YOUR?|MY|FAKE|MOCK|DUMMY|SAMPLE|TODO|TEST)"
    r"(?:$|[-_. :]|pass|pwd|secret|token|key|value)"
    r"|^your|\$\{|\{\{|\$\(|%\(|^\D{0,12}12345678\d{0,2}$|abcdef0?1?2?3|(?:^|[_-])not[_-]?(?:a[_-]?)?(?:real|secret|set|valid)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"^[\w$.:>-]+\(|^[A-Za-z_$][\w$]*\??(?:(?:\.|::|->)[A-Za-z_$][\w$]*)+$|^[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+$|^\.{0,2}/|^~/"
    r"|^[a-z][a-z0-9+.-]*://|^[\w.-]+\[|^v?\d+(?:\.\d+)+|^[a-z]+(?:[-_./:][a-z]+)*\d?$|^[a-z]+(?:[A-Z][a-z]+)+\d?$"
    r"|^(?:[A-Z][a-z]+)+\d?$|^[\w./-]+\.(?:py|go|js|ts|tsx|md|json|ya?ml|toml|txt|sh|rs|pem|key|env|sql|html|lock|cfg)"
    r"(?:[:#].*)?$|^--[a-z]|^-[a-z]+(?:-[a-z]+)*$|^[+-]?\d+(?:[.,:]\d+)*(?:[a-zA-Z%]{1,3})?$|^\d{4}-\d\d-\d\d|^&?(?:self|this)\.|^[a-z_]{2,20}=\w|^\w{2,30}=(?:True|False|None|\d{1,4})$|.*(?:\[(?:a-z|A-Z|0-9|\^)|\]\{)|^Test[A-Z]"
    r"|^(?:[\w.@~-]*/){2,}[\w.@~-]*\.\w+(?:[:#-].*)?$|^[\w.-]*/(?:[a-z_.-]+/)+"
)
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", re.I)
_HEX = re.compile(r"^(?:0x)?[0-9a-f]+$", re.I)
# Words joined by dashes, underscores, dots or colons, with a number here and there: an identifier.
_NAME = re.compile(
    r"^[.:@#-]?(?:[A-Za-z]*[a-z]{2,}[A-Za-z]*|[A-Z]{2,}|\d{1,4}|[a-z]|v\d+)(?:[-_.:/](?:[A-Za-z]{2,}\d{0,2}|\d{1,4}|[a-z]"
    r"|v\d+))+$"
)
_RUN = re.compile(r"[a-z]+|[A-Z]+|\d+|[^A-Za-z0-9]+")


def measure_entropy(text: str) -> float:
    """Shannon entropy, bits per character."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in Counter(text).values()) if n else 0.0


def is_stand_in(value: str) -> bool:
    """True for what documentation writes where a secret would stand."""
    bare = value.strip("\"'`,;.:()[]\\ ")
    return (
        bare.lower() in _WORDS
        or len(set(bare)) <= 2
        or bare.startswith(("${", "$(", "{", "%(", "%s", "@{", "&", "#{"))
        or (bare.startswith("%") and bare.endswith("%"))
        or (bare.startswith("$") and bare[1:].replace("_", "").isalpha())
        or _PARTS.search(bare) is not None
    )


def has_letter_and_digit(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def is_token(value: str) -> bool:
    """What follows a vendor's prefix: digits among letters, no words with dashes."""
    return sum(c.isdigit() for c in value) >= 2 and is_body(value)


def is_body(value: str) -> bool:
    """As `is_token` for alphabets where digits may be rare (base64, long)."""
    return measure_entropy(value) >= 3.0 and _FORM_OF_NONE.search(value) is None


def is_name(value: str) -> bool:
    """An identifier, a path, a version, code: what programs call things."""
    return bool(_UUID.match(value) or _CODE.match(value) or _NAME.match(value))


def is_hex(value: str) -> bool:
    return _HEX.match(value) is not None


def is_random(value: str) -> bool:
    """Long and without the grain of words: for places where identifiers and ids stand as well."""
    if len(value) < 16 or not has_letter_and_digit(value) or is_stand_in(value):
        return False
    if is_name(value):
        return False
    if is_hex(value):
        # Commit and content digests stand behind weak names as often as secrets do.
        return len(value) == 32 and measure_entropy(value) >= 3.0
    return measure_entropy(value) >= 3.4 and _changes(value) >= 0.3


def _changes(value: str) -> float:
    """How often the class of character changes, per character: 0.1 in words, 0.6 in random text."""
    return len(_RUN.findall(value)) / len(value)


def is_assigned_secret(value: str) -> bool:
    """After the name of a token or key: letters and digits, neither code nor an identifier."""
    if is_stand_in(value) or not has_letter_and_digit(value) or len(value) < 8:
        return False
    if _CODE.match(value) or _NAME.match(value):
        return False
    return measure_entropy(value) >= (2.8 if len(value) >= 12 else 2.5)


def is_assigned_token(value: str) -> bool:
    """As `is_assigned_secret` without quotes around it: longer, since code stands there as well."""
    if len(value) < 12 or not is_assigned_secret(value):
        return False
    return sum(c.isdigit() for c in value) >= 2 or _is_mixed(value)


def is_password(value: str) -> bool:
    """After the name of a password, without quotes: a letter and a digit or a sign, and no code."""
    if len(value) < 5 or is_stand_in(value) or _CODE.match(value) or _NAME.match(value):
        return False
    return has_letter_and_digit(value) or _has_signs(value)


def is_quoted_password(value: str) -> bool:
    """In quotes after the name of a password: a word will do, when it is no name of a thing."""
    if len(value) < 5 or is_stand_in(value):
        return False
    return is_password(value) or (
        len(value) >= 8 and value.isalnum() and _CODE.match(value) is None
    )


def _has_signs(value: str) -> bool:
    signs = sum(c in "!#$%^*&?~+=@" for c in value[1:])
    return len(value) >= 8 and signs >= 1 and value[0].isalnum() and any(c.isalpha() for c in value)


def is_spoken_password(value: str) -> bool:
    """In prose: more than a word with a number at its end, unless it is long."""
    bare = value.rstrip(".,;:!?)")
    return (
        len(bare) >= 6
        and is_password(bare)
        and has_letter_and_digit(bare)
        and not _UUID.match(bare)
    )


def is_spoken_token(value: str) -> bool:
    """After ``use token``: shorter than what stands behind a name, but without the grain of words."""
    bare = value.rstrip(".,;:!?)")
    if is_assigned_token(bare):
        return True
    return len(bare) >= 10 and _is_mixed(bare) and is_assigned_secret(bare)


def _is_mixed(value: str) -> bool:
    return (
        any(c.isupper() for c in value)
        and any(c.islower() for c in value)
        and _changes(value) >= 0.4
    )


def is_url_password(value: str) -> bool:
    return not is_stand_in(value) and not value.isdigit() and not value.startswith("$")


def is_command_password(value: str) -> bool:
    """Where only a password can stand: a word will do, a path or a flag will not."""
    return (
        len(value) >= 4
        and not is_stand_in(value)
        and not value.startswith(("-", "/", "./", "~/", "$"))
    )


def is_word_password(value: str) -> bool:
    """Letters alone, where a setting of that name holds them: no word that programs use there."""
    return not is_stand_in(value) and value.lower() == value and value not in _PROGRAM_WORDS


def is_app_password(value: str) -> bool:
    return not any(w in _SENTENCE or w in _PROGRAM_WORDS for w in value.split())


def is_phrase(value: str) -> bool:
    """Twelve to twenty-four words of a wallet: hardly any twice, and none of those that make a sentence."""
    words = [w for w in value.replace(",", " ").lower().split() if w[0].isalpha()]
    sentence = sum(w in _SENTENCE for w in words)
    return 12 <= len(words) <= 25 and len(set(words)) * 3 >= len(words) and sentence == 0


def token(
    kind: str, prefix: str, chars: str, least: int, most: str = "", guard: Guard | None = is_body
) -> Rule:
    """A rule for tokens that begin with a vendor's prefix: at least ``least`` of ``chars`` after it."""
    return Rule(
        kind,
        f"{prefix}[{chars}]{{{least},{most}}}",
        gate=(f"{prefix}[{chars}]{{{min(least, 20)}}}",),
        guard=guard,
        not_before="A-Za-z0-9",
    )
