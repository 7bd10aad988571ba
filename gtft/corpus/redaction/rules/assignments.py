"""Values under a telling name: code, settings, tables, headers, flags, XML, pairs of name and value."""

from __future__ import annotations

import re

from gtft.corpus.redaction.rule import Guard, Rule
from gtft.corpus.redaction.rules.guards import (
    is_app_password,
    is_assigned_secret,
    is_assigned_token,
    is_password,
    is_quoted_password,
    is_random,
    is_spoken_password,
    is_word_password,
)

# Names of passwords: short values count. Names of tokens and keys: longer ones, since code and ids stand there as well.
_LOGIN_NAMES = r"pass(?:word|wd|phrase|code|wort)|(?:\b|[_.-]|db|root|user|admin|smtp|ftp|mail|auth|my|api|service|svc)pass|(?:\b|[_.-])pw|pwd|passw|requirepass|masterauth|senha|contrase[\w\xc3\xb1]{1,2}a|mot[_-]?de[_-]?passe"
_KEY_NAMES = (
    r"secret|token|api[_. -]?key|access[_. -]?key(?:[_. -]?id)?|auth[_. -]?key|(?:private|secret|encryption|signing|signature|account"
    r"|master|shared|storage|session|service|admin|app|application|license|licence|deploy|integration|webhook|hmac|cipher|crypto"
    r"|aes|jwt|consumer|subscription|ingest|write|server|client|host|routing|project|vendor|license|publishable|preshared"
    r"|pre-shared|wireguard|db|data|site)[_. -]?key|credentials?|[_. -]creds?|auth[_. -]?(?:token|code)?|bearer|jwt|[_. -]pat|(?:\b|[_. -])psk|instrumentation[_. -]?key|sonar[_. -]login|salt|pepper"
    r"|webhook(?:[_. -]?url)?|dsn|otp|pin[_. -]?code|mnemonic|connection[_. -]?string|sas"
)
_TAIL = r"(?:[_. -]?(?:v?\d{1,2}|prod(?:uction)?|dev(?:elopment)?|live|test|staging|stage|value|b64|base64|hash|plain(?:text)?|new|old|current|default|string|raw|data|base|[\[(]\w{1,12}[\])]))?"
_HEAD = r"(?:[A-Za-z0-9][\w.-]{0,60}?)?"
# What may stand between name and value: a closing quote or bracket, marks of Markdown, a type.
_CLOSE = r"(?:\\{0,3}[\"'`\])*]){0,4}"
_TYPE = r"(?::\s?&?(?:'static\s)?[\w\[\]<>.?| ]{1,24}\s?|\s(?:string|str|text))?"
_OPERATOR = r"\s{0,12}(?:=>|:=|->|===?|!==?|\?\?|\|\||\+=|\?=|=|:)\s{0,12}"
_QUOTED = r"(?:[@$bfruL]{0,2}\\{0,3}\"([^\"\s\\]{%d,})\\{0,3}\"|[bfruL]{0,2}\\{0,3}'([^'\s\\]{%d,})\\{0,3}'|`([^`\s]{%d,})`)"


def _name(words: str) -> str:
    return rf"(?i)(?:{words}){_TAIL}"


def _gate(words: str, between: str, value: str) -> tuple[str, ...]:
    return (rf"(?i)(?:{words}){_TAIL}{between}{value}",)


def _quoted(words: str, least: int) -> Rule:
    return Rule(
        "assigned_secret",
        _name(words) + _CLOSE + _TYPE + _OPERATOR + _QUOTED % (least, least, least),
        _gate(words, _CLOSE + _TYPE + _OPERATOR, r"[@$bfruL]{0,2}\\{0,3}[\"'`][^\s\"'`]{4}"),
        is_quoted_password if least < 8 else is_assigned_secret,
        context=True,
    )


def _shouted(words: str, guard: Guard) -> Rule:
    gap = r"(?:_[A-Z0-9]{1,12})?[\"'`]?(?:[ \t]{1,40}|\s{0,4}\n\s{0,12}|[ \t](?:is|was|to|=|->)[ \t])[\"'`]?"
    return Rule(
        "assigned_secret",
        r"(?m)(?:\b(?:ENV|ARG|setx|set|setenv|export|config:set|secrets? set|config set|put|add)[ \t]{1,4}(?:-\w{1,2}[ \t]{1,4}){0,2}|^\s{0,8}|[\"'`=])"
        rf"(?:[A-Z][A-Z0-9]*_)*(?:{words}){gap}([^\s\"'`|<>(){{}}\\]{{8,}})",
        (
            rf"(?:{words}){gap}[^\s\"'`|<>(){{}}\\]{{8}}",
            # The same with a line number before the value.
            rf"(?:{words})(?:_[A-Z0-9]{{1,12}})?\n[^\n]{{1,16}}[^\s\"'`|<>(){{}}\\]{{8}}",
        ),
        guard,
        context=True,
        lines=True,
    )


RULES: tuple[Rule, ...] = (
    _quoted(_LOGIN_NAMES, 5),
    _quoted(_KEY_NAMES, 8),
    Rule(
        # A line of its own, in .env, INI, YAML, properties: all of what follows, whatever signs are in it.
        "assigned_secret",
        rf"(?im)^\s{{0,40}}(?:(?:export|set|setx|-|\*|\+|>|env|[$]env:|[#]define|const|let|var|\$)\s{{1,8}}){{0,3}}{_HEAD}(?:{_LOGIN_NAMES}){_TAIL}"
        r"[\"'`*]{0,3}\s{0,12}(?:[:=]|=>|:=)[\s*]{0,12}([^\s\"'`(){}\[\]<>,;\\][^\s\"'`<>\\]{4,200})[ \t\r]*$",
        _gate(_LOGIN_NAMES, r"[\"'`*]{0,3}\s{0,12}(?:[:=]|=>|:=)", r"[\s*]{0,12}[^\s\"'`]{4}"),
        is_password,
        context=True,
    ),
    Rule(
        "assigned_secret",
        _name(_LOGIN_NAMES)
        + _CLOSE
        + r"(?::\s?str\s?)?"
        + _OPERATOR
        + r"([^\s\"'`,;&(){}\[\]<>|\\]{5,})",
        _gate(_LOGIN_NAMES, _CLOSE + r"(?::\s?str\s?)?" + _OPERATOR, r"[^\s\"'`,;]{4}"),
        is_password,
        not_after=r"(\[{",
        context=True,
    ),
    Rule(
        "assigned_secret",
        _name(_KEY_NAMES) + _CLOSE + _TYPE + _OPERATOR + r"([^\s\"'`,;&(){}\[\]<>|\\]{10,})",
        _gate(_KEY_NAMES, _CLOSE + _TYPE + _OPERATOR, r"[^\s\"'`,;]{8}"),
        is_assigned_token,
        not_after=r"(\[{",
        context=True,
    ),
    Rule(
        # Any other …key, when what it holds can be nothing else.
        "assigned_secret",
        r"(?i)\b(?:[A-Za-z0-9][\w.-]{0,40}[_. -]?)?key"
        + _TAIL
        + _CLOSE
        + r"\s{0,8}(?:=>|:=|->|=|:)\s{0,8}[\"'`]?([\w+/=.~$!@#%^*-]{20,})",
        (
            r"(?i)key[\w.-]{0,12}[\"'`\])*]{0,4}\s{0,8}(?:=>|:=|->|=|:)\s{0,8}[\"'`]?[\w+/=.~$!@#%^*-]{20}",
        ),
        is_random,
        not_after=r"(\[",
        context=True,
    ),
    Rule(
        # Ids of sessions are secrets on the web and mere names elsewhere.
        "session_id",
        _name(r"session(?:[_. -]?(?:id|key|token))?|sess[_. -]?id|sid|cookie|csrf|xsrf")
        + _CLOSE
        + r"\s{0,8}(?:=>|:=|=|:)\s{0,8}[\"'`]?([\w%+/=.~]{16}[\w%+/=.~-]{0,})",
        (
            r"(?i)(?:session|sess[_. -]?id|sid|cookie|csrf|xsrf)[\w. -]{0,8}[\"'`\])*]{0,4}\s{0,8}(?:=>|:=|=|:)\s{0,8}[\"'`]?[A-Za-z_%+/=.~]{0,15}[0-9][\w%+/=.~]{8}",
        ),
        is_random,
        not_after=r"(\[",
        context=True,
    ),
    Rule(
        # <password>…</password>, <setting name="ApiKey" value="…">, <input name=… value=…>
        "assigned_secret",
        rf"(?i)<(?:\w{{1,20}}:)?{_HEAD}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}(?:\s[^<>\n]{{0,100}})?>\s{{0,8}}(?:<!\[CDATA\[)?([^\s<>]{{5,}}?)(?:\]\]>)?\s{{0,8}}</",
        _gate(f"{_LOGIN_NAMES}|{_KEY_NAMES}", r"(?:\s[^<>\n]{0,100})?>\s{0,8}", r"[^\s<>]{5}"),
        is_password,
        context=True,
        lines=True,
    ),
    Rule(
        # name: DB_LOGIN_NAMES, value: …  in YAML, JSON and XML; also two cells of a table and (NAME, "value").
        "assigned_secret",
        rf"(?i)\b(?:name|key|id|variable|setting|field|label)\\{{0,3}}[\"']?\s{{0,4}}[:=]\s{{0,4}}\\{{0,3}}[\"']?{_HEAD}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}\\{{0,3}}[\"']?[\s,;]{{1,40}}"
        r"(?:(?:type|secure|sensitive|secret)\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}[\w\"'\\]{1,20}[\s,;]{1,40})?"
        r"\\{0,3}[\"']?(?:value|content|data|val|default)\\{0,3}[\"']?\s{0,4}[:=]\s{0,4}(?:\\{0,3}[\"']([^\"'\s\\]{5,})|([^\s\"',;\\<>{}]{6,}))",
        _gate(
            f"{_LOGIN_NAMES}|{_KEY_NAMES}",
            r"\\{0,3}[\"']?[\s,;]+",
            r"[^\n]*(?:value|content|data|val|default)\\{0,3}[\"']?\s{0,4}[:=]",
        ),
        is_password,
        context=True,
        lines=True,
    ),
    Rule(
        "assigned_secret",
        rf"(?i)\|\s{{0,20}}[*`]{{0,3}}{_HEAD}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}[*`]{{0,3}}\s{{0,40}}\|\s{{0,20}}[*`]{{0,3}}([^\s|`]{{6,}})[*`]{{0,3}}\s{{0,40}}(?:\||$)",
        _gate(f"{_LOGIN_NAMES}|{_KEY_NAMES}", r"[*`]{0,3}\s*\|\s*", r"[*`]{0,3}[^\s|`]{6}"),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        # define('DB_PASSWORD', '…'), getenv("API_KEY", "…"), set_secret("X_TOKEN", "…")
        "assigned_secret",
        rf"(?i)[\"'`:]{_HEAD}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}\\{{0,3}}[\"'`]?\s{{0,4}}(?:,|\)\s{{0,4}}(?:\|\||or|\?\?|\?:))\s{{0,4}}[bfru]?\\{{0,3}}[\"'`]([^\"'`\s\\]{{6,}})\\{{0,3}}[\"'`]",
        _gate(
            f"{_LOGIN_NAMES}|{_KEY_NAMES}",
            r"\\{0,3}[\"'`]?\s{0,4}(?:,|\)\s{0,4}(?:\|\||or|\?\?|\?:))",
            r"\s{0,4}[bfru]?\\{0,3}[\"'`][^\s\"'`]{6}",
        ),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        # .setPassword("…"), withToken('…'), password "…", requirepass …; gh secret set NAME --body "…"
        "assigned_secret",
        rf"(?i)\b[\w.]{{0,60}}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}(?:\(|\s{{1,8}}(?:--?(?:body|value|text|string|b|v)[ =])?)\s{{0,4}}[@bfruL]?\\{{0,3}}[\"'`]([^\"'`\s\\]{{6,}})\\{{0,3}}[\"'`]",
        _gate(
            f"{_LOGIN_NAMES}|{_KEY_NAMES}",
            r"(?:\(|\s{1,8}(?:--?[a-z]{1,8}[ =])?)",
            r"\s{0,4}[@bfruL]?\\{0,3}[\"'`][^\s\"'`]{6}",
        ),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        # password = hash("…"), []byte("…"), ConvertTo-SecureString "…"
        "assigned_secret",
        _name(f"{_LOGIN_NAMES}|{_KEY_NAMES}")
        + _CLOSE
        + _OPERATOR
        + r"(?:[\w\[\].:&*]{1,30}\(|ConvertTo-SecureString\s(?:-String\s)?)\s{0,4}"
        + _QUOTED % (6, 6, 6),
        _gate(
            f"{_LOGIN_NAMES}|{_KEY_NAMES}",
            _CLOSE + _OPERATOR,
            r"(?:[\w\[\].:&*]{1,30}\(|ConvertTo-SecureString\s(?:-String\s)?)\s{0,4}\\{0,3}[\"'`][^\s\"'`]{6}",
        ),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        # <entry key="password">…</entry>, <key>ApiKey</key><string>…</string>
        "assigned_secret",
        rf"(?i)(?:<\w{{1,20}}\s[^<>\n]{{0,60}}(?:name|key|id)=\\{{0,3}}[\"']|<key>){_HEAD}(?:{_LOGIN_NAMES}|{_KEY_NAMES}){_TAIL}"
        r"(?:\\{0,3}[\"'][^<>\n]{0,60}>|</key>\s{0,40}<string>)\s{0,8}([^\s<>]{5,})\s{0,8}</",
        _gate(
            f"{_LOGIN_NAMES}|{_KEY_NAMES}",
            r"(?:\\{0,3}[\"'][^<>\n]{0,60}>|</key>\s{0,40}[^\n]{0,20}<string>)",
            r"\s{0,8}[^\s<>]{5}",
        ),
        is_password,
        context=True,
        lines=True,
    ),
    Rule(
        # DB_PASSWORD=letters: a setting in capitals holds a value and no code.
        "assigned_secret",
        r"(?m)^\s{0,12}(?:export\s|-\s|-e\s)?(?:[A-Z][A-Z0-9]*_)*(?:PASSWORD|PASSWD|PASSPHRASE|PWD)\s?[=:]\s{0,4}[\"']?([a-zA-Z][\w-]{5,60})[\"']?\s{0,4}$",
        (r"(?:PASSWORD|PASSWD|PASSPHRASE|PWD)\s?[=:]\s{0,4}[\"']?[a-zA-Z][\w-]{5}",),
        is_word_password,
        context=True,
    ),
    Rule(
        # password = "letters"
        "assigned_secret",
        r"(?i)\b(?:[\w.-]{0,30}[_.-])?(?:password|passwd|passphrase|pwd)\\{0,3}[\"']?\s{0,4}(?:=|:|=>)\s{0,4}\\{0,3}[\"']([a-z][a-z-]{5,40})\\{0,3}[\"']",
        (
            r"(?i)(?:password|passwd|passphrase|pwd)\\{0,3}[\"']?\s{0,4}(?:=|:|=>)\s{0,4}\\{0,3}[\"'][a-z-]{6}",
        ),
        is_word_password,
        context=True,
    ),
    Rule(
        # Four times four letters, as Google gives them to apps.
        "app_password",
        r"(?i)pass(?:word|wd)?\w{0,12}\\{0,3}[\"']?\s{0,4}(?:=|:|=>|is)\s{0,4}\\{0,3}[\"']?((?-i:[a-z]{4}(?: [a-z]{4}){3}))\b",
        (
            r"(?i)pass(?:word|wd)?\w{0,12}\\{0,3}[\"']?\s{0,4}(?:=|:|=>|is)\s{0,4}\\{0,3}[\"']?[a-z]{4}(?: [a-z]{4}){3}",
        ),
        is_app_password,
        context=True,
    ),
    # ENV NAME value, setx NAME value, a name and its value on the next line or after a gap.
    _shouted(r"PASSWORD|PASSWD|PASS|PWD|PASSPHRASE", is_spoken_password),
    _shouted(r"SECRET|TOKEN|KEY|CREDENTIALS?|PAT|PSK|DSN|AUTH|URL|WEBHOOK", is_assigned_token),
)

# Keys of JSON whose text is a secret whatever it looks like.
SENSITIVE_KEY = re.compile(
    rf"^{_HEAD}(?:{_LOGIN_NAMES}|secret|token|api[_-]?key|(?:access|auth|private|secret|encryption|signing|account)[_-]?key"
    rf"|credential|client[_-]?secret|auth[_-]?token|bearer){_TAIL}$",
    re.IGNORECASE,
)
