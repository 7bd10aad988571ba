"""Keys and certificates, from header to footer; hashes of passwords; seeds of wallets and second factors."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_body, is_phrase, is_token, token

_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-{5}"
_BREAK = r"(?:\\[nrt]|[\s>|\"',+\\])"

RULES: tuple[Rule, ...] = (
    Rule(
        "private_key",
        # Whole; else, when its end is cut off, to the last line that is key.
        rf"-----BEGIN {_LABEL}(?:(?:[^-]|-[^-])*?-{{5,6}}END {_LABEL}"
        rf"|(?:{_BREAK}{{1,12}}(?:Proc-Type|DEK-Info|Version|Comment|Hash)[^\n\\]{{0,100}})*"
        rf"(?:{_BREAK}{{1,12}}[A-Za-z0-9+/=]{{16,1000}})*(?:{_BREAK}{{1,4}}[A-Za-z0-9+/]{{2,15}}={{1,2}})?)",
        gate=(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE",),
        lines=True,
    ),
    Rule(
        "private_key",
        # Its beginning was cut off.
        rf"(?:[A-Za-z0-9+/=]{{40,76}}{_BREAK}{{1,4}})+(?:[A-Za-z0-9+/=]{{1,76}}{_BREAK}{{1,4}})?-{{5,6}}END {_LABEL}",
        gate=(r"-----END [A-Z0-9 ]{0,40}PRIVATE",),
        lines=True,
    ),
    token("private_key", "b3BlbnNzaC1rZXktdjEA", "A-Za-z0-9+/=\\s", 60, ""),
    Rule(
        "private_key",
        r"(?s)PuTTY-User-Key-File-.{0,1000}?Private-Lines: \d+\s+([A-Za-z0-9+/=\s]+?Private-(?:MAC|Hash): [0-9a-f]+)",
        (r"PuTTY-User-Key-File-",),
        lines=True,
    ),
    Rule("private_key", r"<RSAKeyValue>.{0,1000}?</RSAKeyValue>", (r"<RSAKeyValue>",), lines=True),
    Rule(
        "jwk_private",
        r"\"(?:d|k|p|q|dp|dq|qi)\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{22,1000})\"",
        (r"\"kty\"",),
        is_token,
    ),
    token("age_key", "AGE-SECRET-KEY-(?:PQ-)?1", "0-9A-Za-z", 40, "200"),
    token("minisign_key", "RWRTY0Iy", "A-Za-z0-9+/=", 60, "400"),
    token("ssh_certificate_key", "PRIVATE-KEY-V\\d:", "A-Za-z0-9+/=", 40, "400"),
    token("extended_key", "[xyztuv]prv", "A-Za-z0-9", 100, "112"),
    token("nostr_key", "nsec1", "a-z0-9", 50, "60"),
    token("stellar_key", "S[A-D]", "A-Z2-7", 54, "54", guard=is_token),
    Rule(
        "jwt",
        r"ey[JI][\w-]{8,1000}\.ey[JI][\w-]{8,}(?:\.[\w-]*){0,3}",
        (r"ey[JI][\w-]{8}",),
        is_body,
    ),
    Rule(
        "password_hash",
        r"\$(?:apr1|1|5|6|7|y|gy|2[abxy]|sha1|bcrypt-sha256)\$[./A-Za-z0-9$=,]{20,130}",
        (r"\$(?:apr1|[1567y]|gy|2[abxy]|sha1|bcrypt-sha256)\$[./A-Za-z0-9]",),
        is_body,
    ),
    Rule(
        "password_hash",
        r"\$(?:argon2(?:id|i|d)|scrypt|pbkdf2(?:-sha\d+)?)\$[A-Za-z0-9+/=,$.]{30,300}",
        (r"\$(?:argon2|scrypt|pbkdf2)",),
        is_body,
    ),
    Rule(
        "password_hash",
        r"(?:pbkdf2_sha\d+|bcrypt_sha256|scrypt:\d+:\d+:\d+)\$[A-Za-z0-9+/=$.]{30,300}",
        (r"pbkdf2_sha\d", r"bcrypt_sha256\$", r"scrypt:\d"),
        is_body,
    ),
    Rule("password_hash", r"\{S?SHA(?:\d+)?\}[A-Za-z0-9+/=]{24,200}", (r"\{S?SHA\d{0,3}\}",)),
    Rule("password_hash", r"SCRAM-SHA-256\$[\w+/=:$]{40,300}", (r"SCRAM-SHA-256\$",)),
    Rule("password_hash", r":\$[56]\$[^:\s]{10,200}", (r":\$[56]\$",)),
    Rule(
        "otp_secret",
        r"(?i)otpauth(?:-migration)?://[^\s\"'<>]{1,300}?(?:secret|data)=([A-Z0-9%+/_=-]{10,300})",
        (r"(?i)otpauth(?:-migration)?://",),
    ),
    Rule(
        "otp_secret",
        r"(?i)(?:totp|otp|2fa|mfa|two[_ -]?factor)[\w .-]{0,24}[\"'`]{0,2}\s{0,3}[:=]\s{0,3}[\"'`]?([A-Z2-7]{16,64})\b",
        (
            r"(?i)(?:otp|2fa|mfa|factor)[\w .-]{0,24}[\"'`]{0,2}\s{0,3}[:=]\s{0,3}[\"'`]?[A-Z2-7]{16}",
        ),
        is_body,
    ),
    Rule(
        "seed_phrase",
        r"(?i)(?:mnemonic|seed|recovery|wallet|secret)[_ -]?(?:phrase|words|key)?[\"'`*]{0,3}\s{0,3}(?:is|:|=|=>)\s{0,4}[\"'`]?"
        r"(?:((?:(?:\d{1,2}[.)] {0,2})?[a-z]{3,8}[ ,]{1,3}){11,23}[a-z]{3,8})\b"
        # Cut by the end of a line, in a word or between two.
        r"|((?:[a-z]{3,8}[ ,]{1,3}){2,22}[a-z]{0,8}\s?\n\s?(?:[a-z]{1,8}[ ,]{1,3}){1,22}[a-z]{3,8})\b)",
        (
            r"(?i)(?:mnemonic|seed|recovery|wallet|phrase)[\w \"'`*-]{0,12}\s{0,3}(?:is|:|=)\s{0,4}[\"'`]?(?:(?:\d{1,2}[.)] {0,2})?[a-z]{1,8}[\s,]{1,3}){11}",
        ),
        is_phrase,
    ),
    Rule(
        "recovery_codes",
        r"(?i)(?:recovery|backup|scratch)[ _-]?codes?\b[^\n]{0,60}[:=]\s{0,4}((?:[-*\d.\s\"',]{0,8}[a-z0-9]{4,10}(?:-[a-z0-9]{4,10}){0,3}){2,20})",
        (r"(?i)(?:recovery|backup|scratch)[ _-]?codes?\b[^\n]{0,60}[:=]\s{0,4}\S",),
        is_token,
    ),
    Rule(
        "kubeconfig_key",
        r"(?:client-key-data|client-certificate-key|tls\.key)\\?[\"']?:\s{0,4}\\?[\"']?([A-Za-z0-9+/=]{40,})",
        (r"(?:client-key-data|client-certificate-key|tls\.key)\\?[\"']?:",),
    ),
    Rule(
        "license_key",
        r"(?i)\b(?:licen[sc]e|serial|activation|product)(?:[_ -]?(?:key|code|number|no))?\\{0,3}[\"'`]?\s{0,3}(?:[:=]|is)\s{0,3}\\{0,3}[\"'`]?((?-i:(?:[A-Z0-9]{4,8}-){2,7}[A-Z0-9]{4,8}))\b",
        (
            r"(?i)(?:licen[sc]e|serial|activation|product)[\w \"'`:=\\-]{1,20}[A-Z0-9]{4,8}-[A-Z0-9]{4,8}-[A-Z0-9]{4}",
        ),
        is_token,
    ),
)
