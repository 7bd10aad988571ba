"""Secrets that people tell each other in sentences."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_spoken_password, is_spoken_token

_LOGINS = r"pass(?:word|phrase|code|wd)?|pwd|pw|login|creds?|credentials"
_KEYS = r"token|secret|(?:api|access|auth|license|deploy|signing|encryption|admin|app)[ _-]?key|key|pat|bearer"
# Not the comma or full stop of the sentence.
_VALUE = r"[\"'`*(]{0,3}([^\s\"'`<>(){}\[\]\\|]{%d,}[^\s\"'`<>(){}\[\]\\|.,;:?])"

RULES: tuple[Rule, ...] = (
    Rule(
        # "A temporary password is generated for root@localhost: …"
        "written_password",
        r"(?i)\b(?:temporary|initial|generated|new|default|root|admin|one-time)\s+pass(?:word|phrase|code)\b[^\n:=]{0,60}[:=]\s{1,3}"
        + _VALUE % 5,
        (
            r"(?i)(?:temporary|initial|generated|new|default|root|admin|one-time)\s+pass(?:word|phrase|code)[^\n:=]{0,60}[:=]\s{1,3}\S",
        ),
        is_spoken_password,
        context=True,
    ),
    Rule(
        # "the admin password for staging is …", "new pw: …", "changed the passphrase to …"
        "written_password",
        rf"(?i)\b(?:{_LOGINS})\b(?:'s)?[\"'`*]{{0,3}}(?:[ \t][\w()-]{{1,20}}){{0,5}}?\s{{0,2}}(?:'s\b|\bis\b|\bwas\b|\bbecomes\b|\bto\b|\bof\b|\bas\b|\s=\s|:|->|\xe2\x86\x92|\xe2\x80\x94| - )(?:\s(?:now|still|just|set|changed|to)){{0,3}}:?\s{{0,3}}"
        + _VALUE % 5,
        (
            rf"(?i)(?:{_LOGINS})(?:'s)?[\"'`*]{{0,3}}(?:[ \t][\w()-]{{1,20}}){{0,5}}\s{{0,2}}(?:'s|is|was|becomes|to|of|as|\s=\s|:|->|\xe2\x86\x92|\xe2\x80\x94| - )(?:\s(?:now|still|just|set|changed|to)){{0,3}}:?\s{{0,3}}[\"'`*(]{{0,3}}[^\s\"'`<>(){{}}\[\]\\|]{{0,24}}[0-9]",
        ),
        is_spoken_password,
        context=True,
    ),
    Rule(
        # "login with user jane and password …", "password …"
        "written_password",
        rf"(?i)\b(?:pass(?:word|phrase|code|wd)?|pwd|pw)[\"'`*]{{0,3}}[ \t]{{1,2}}{_VALUE % 5}",
        (
            r"(?i)(?:pass(?:word|phrase|code|wd)?|pwd|pw)[\"'`*]{0,3}[ \t]{1,2}[\"'`*(]{0,3}[^\s\"'`<>(){}\[\]\\|]{0,24}[0-9]",
        ),
        is_spoken_password,
        context=True,
    ),
    Rule(
        # "use token … for now", "the key you want is …"
        "written_token",
        rf"(?i)\b(?:{_KEYS})[\"'`*]{{0,3}}(?:[ \t][\w()-]{{1,20}}){{0,5}}?[ \t]{{0,2}}(?:[ \t]|\bis\b|\bwas\b|\bto\b|\s=\s|:|->|\xe2\x86\x92)\s{{0,3}}"
        + _VALUE % 9,
        (
            rf"(?i)(?:{_KEYS})[\"'`*]{{0,3}}(?:[ \t][\w()-]{{1,20}}){{0,5}}[\s:=>\"'`*(]{{1,6}}[^\s\"'`<>(){{}}\[\]\\|]{{0,24}}[0-9][^\s\"'`<>(){{}}\[\]\\|]{{2}}",
        ),
        is_spoken_token,
        context=True,
    ),
    Rule(
        # "credentials: jane / …", "login jane:…"
        "written_password",
        r"(?i)\b(?:credentials?|creds?|login|logins|log in|sign in|username|user/pass(?:word)?)\b[^\n]{0,24}?[:= \t][ \t]{0,3}[\"'`]?[\w.@+-]{2,60}[\"'`]?[ \t]{0,2}(?:/|:|\|)[ \t]{0,2}"
        + _VALUE % 5,
        (
            r"(?i)(?:credential|creds?|login|log in|sign in|username|user/pass)[^\n]{0,90}(?:/|:|\|)[ \t]{0,2}[\"'`*(]{0,3}[^\s\"'`<>(){}\[\]\\|/]{0,40}[0-9]",
        ),
        is_spoken_password,
        context=True,
    ),
)
