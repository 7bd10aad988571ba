"""Passwords and tokens in URLs and connection strings, headers and cookies, netrc, docker."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import (
    is_assigned_secret,
    is_body,
    is_password,
    is_random,
    is_token,
    is_url_password,
)

_PARAMETERS = (
    r"(?:[\w.-]{0,20}(?:token|secret|password|passwd|passphrase|apikey|api[_-]key|auth[_-]?key|access[_-]?key|subscription-key"
    r"|signature|credential|client_secret|refresh|jwt|assertion)|pwd|pass|key|sig|code|auth|sid|session(?:_?id)?|state|sign)"
)


def is_header_value(value: str) -> bool:
    return is_password(value) and len(value) >= 12 and any(c.isdigit() for c in value)


RULES: tuple[Rule, ...] = (
    Rule(
        "url_password",
        r"(?i)[a-z][a-z0-9+.-]{1,20}:(?://|\\/\\/)[^\s:/\"'<>`\\]{0,100}:([^\s/\"'<>`\\]{1,200})@[\w.\[$%{-]",
        (r"(?i)[a-z0-9]:(?://|\\/\\/)[^\s:/\"'<>`\\]{0,100}:[^\s/\"'<>`\\]{1,200}@",),
        is_url_password,
        context=True,
    ),
    Rule(
        # A password with signs that belong into no URL, as people write them.
        "url_password",
        r"(?i)\b(?:postgres(?:ql)?|mysql|mariadb|mongodb|redis|rediss|amqps?|mssql|sqlserver|cockroachdb|clickhouse|ldaps?"
        r"|smtps?|imaps?|ftps?|sftp|nats)(?:\+[a-z0-9]{1,12})?://[^\s:/@\"'<>`]{0,100}:([^\s\"'<>`@]{1,100})@[\w.\[-]",
        (
            r"(?i)(?:sql|maria|mongo|redis|amqp|cockroach|clickhouse|ldap|smtp|imap|ftp|nats)[a-z+0-9]{0,14}://[^\s@]{0,100}:[^\s@]{1,100}@",
        ),
        is_url_password,
        context=True,
    ),
    Rule(
        "url_token",
        r"(?i)(?:https?|git|ssh|wss?)://([\w.-]{16,})(?::(?:x-oauth-basic|x-token-auth|x|))?@\w",
        (r"(?i)(?:https?|git|ssh|wss?)://[\w.-]{16,255}:?[a-z-]{0,14}@",),
        is_token,
        context=True,
    ),
    Rule(
        "url_token",
        rf"(?i)[?&;](?:amp;)?{_PARAMETERS}=([^\s&\"'<>`#;\\)\]}}]{{8,}})",
        (
            r"(?i)[?&;][\w.-]{0,40}(?:token|secret|pass|pwd|key|sig|code|auth|cred|sid|session|state|refresh|jwt|assert|sign)[\w-]{0,10}=[^\s&]{8}",
        ),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        "bearer_token",
        r"(?i)\bauthorization\\?[\"']?\s{0,3}(?:[:=,]|=>|to)\s{0,3}[bf]?\\?[\"'`]?(?:(?:basic|bearer|token|apikey|api-key|digest|ssws|geniekey|key|negotiate|oauth|hmac|jwt|bot)\b[\s:=]{1,3})?"
        r"(?:token=)?\\?[\"']?([\w.=+/~:|$@!-]{8,})",
        (r"(?i)authorization\\?[\"']?\s{0,3}(?:[:=,]|=>|to)",),
        is_header_value,
        context=True,
    ),
    Rule(
        "bearer_token",
        r"(?i)\b(?:bearer|ssws|geniekey)[\s:=]{1,3}([\w.=+/~|-]{12,})",
        (r"(?i)(?:bearer|ssws|geniekey)[\s:=]{1,3}[\w.=+/~-]{12}",),
        is_assigned_secret,
        context=True,
    ),
    Rule(
        "basic_auth",
        r"\b[Bb](?:asic|ASIC) ([A-Za-z0-9+/]{8,400}={0,2})",
        (r"[Bb](?:asic|ASIC) [A-Za-z0-9+/]{8}",),
        is_token,
        not_after=r"\w",
        context=True,
    ),
    Rule(
        "session_cookie",
        r"(?i)\b[\w.-]{0,24}(?:sess(?:ion)?(?:[_-]?(?:id|token|key|v\d))?|sid|phpsessid|jsessionid|connect\.sid|auth|token|jwt|csrf|xsrf|remember(?:_\w{1,12})?"
        r"|_gh_sess|user_session|cf_clearance|li_at|awsalb|xs|datr)=\\?[\"']?([\w.%+/=:~-]{16,})",
        (
            r"(?i)(?:sess[\w-]{0,12}|sid|auth|token|jwt|csrf|xsrf|remember[\w]{0,12}|clearance|li_at|awsalb|xs|datr)=\\?[\"']?[\w.%+/=:~-]{16}",
        ),
        is_random,
        context=True,
    ),
    Rule(
        "session_cookie",
        r"(?i)\b(?:set-)?cookie\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"']?(?:[\w.-]{1,60}=[^;\s]{0,100};\s{0,2}){0,8}?[\w.-]{1,60}=([\w.%+/=:~-]{20,})",
        (r"(?i)cookie\\?[\"']?\s{0,3}[:=]",),
        is_random,
        context=True,
    ),
    Rule(
        "netrc_password",
        r"\b(?:machine\s+\S{1,200}|default)\s+login\s+\S{1,200}\s+(?:account\s+\S{1,100}\s+)?password\s+(\S{1,200})",
        (r"(?:machine\s{1,8}\S{1,200}|default)\s{1,8}[^\n]{0,24}login\s",),
        is_url_password,
        context=True,
        lines=True,
    ),
    Rule(
        "docker_auth",
        r"\\{0,3}\"(?:_?auth|identitytoken|registrytoken)\\{0,3}\"\s{0,4}:\s{0,4}\\{0,3}\"([A-Za-z0-9+/=._-]{12,})\\{0,3}\"",
        (r"\"(?:_?auth|identitytoken|registrytoken)\\{0,3}\"\s{0,4}:",),
        is_body,
        context=True,
    ),
    Rule(
        "npm_token",
        r"_(?:auth|password)\s{0,3}=\s{0,3}\"?([A-Za-z0-9+/=_-]{12,400})",
        (r"[:\s]_(?:auth|password)\s{0,3}=",),
        is_token,
        context=True,
    ),
    Rule(
        # Server=…;Password=…; and jdbc:…?password=…
        "connection_password",
        r"(?i)[;?&,\s\"'](?:password|pwd|pass)\s?=\s?(?:\{([^}\n]{1,128})\}|([^;&\s\"'<>]{4,128}))",
        (
            r"(?i)(?:;[\w .-]{1,24}=[^;\n]{0,80};|jdbc:|odbc|host=|user=|uid=|dsn)[^\n]{0,250}(?:password|pwd|pass)\s?=",
        ),
        is_url_password,
        context=True,
    ),
    Rule(
        "connection_password",
        r"(?i)jdbc:oracle:\w{1,8}:[\w.]{1,40}/([^@\s\"']{1,128})@",
        (r"(?i)jdbc:oracle:",),
        is_url_password,
        context=True,
    ),
    Rule(
        "htpasswd",
        r"(?m)^\s{0,8}[\w.@-]{1,40}:(\$[\w./$]{20,120}|\{SHA\}[\w+/=]{28})\s*$",
        (r":(?:\$(?:apr1|2[aby])\$|\{SHA\})",),
        context=True,
        lines=True,
    ),
    Rule(
        "url_signature",
        r"(?i)\bX-(?:Amz|Goog|Oss)-(?:Signature|Security-Token)=([\w%+/=-]{16,})",
        (r"(?i)X-(?:Amz|Goog|Oss)-S\w{4}",),
        is_body,
        context=True,
    ),
)
