"""Rules for kinds of secret: where a value stands in a text, and what makes it one.

A rule runs only where one of its ``words`` occurs (lower case), so that a text without any costs little.
The first group that matched is the secret (all of the match when a rule has no group); the rest of the
match is context and stays.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"<SECRET:[a-z0-9_]+:\d+>")

Guard = Callable[[str], bool]


@dataclass(frozen=True)
class Rule:
    kind: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    guard: Guard | None = None


def measure_entropy(text: str) -> float:
    """Shannon entropy, bits per character."""
    n = len(text)
    return -sum(c / n * math.log2(c / n) for c in Counter(text).values()) if n else 0.0


_STAND_IN_WORDS = (
    "password passwd pass pwd secret token apikey api_key api-key key value string none null true false "
    "undefined changeme change_me foobar required optional enabled disabled redacted hidden masked "
    "placeholder dummy example username user admin root default empty"
)
_STAND_INS = frozenset(_STAND_IN_WORDS.split())
_STAND_IN_PARTS = re.compile(
    r"your[_-]?|example|placeholder|change[_-]?me|redacted|x{4,}|\.\.\.|…|\*{3,}|<|>|dummy|insert[_-]|todo",
    re.I,
)


def is_stand_in(value: str) -> bool:
    """True for what documentation writes where a secret would stand."""
    bare = value.strip("\"'`,;")
    return (
        bare.lower() in _STAND_INS
        or len(set(bare)) <= 2
        or bare.startswith(("$", "{", "%", "@", "&", "#"))
        or _STAND_IN_PARTS.search(bare) is not None
    )


def _has_letter_and_digit(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _token_like(value: str) -> bool:
    """A vendor's token after its prefix: digits among letters, not a word with dashes."""
    return sum(c.isdigit() for c in value) >= 2 and measure_entropy(value) >= 3.0


_CODE = re.compile(
    r"^[\w$.]+\(|^[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)+$|^[A-Z][A-Z0-9_]+$|^\.{0,2}/|^~/|^https?://"
    r"|^[\w.-]+\[|^v?\d+(?:\.\d+)+$|^[a-z]+(?:[-_][a-z]+)*$|^[a-z]+(?:[A-Z][a-z]+)+\d?$"
)


def _assigned(value: str) -> bool:
    """An unquoted value after a telling key: letters and digits, and nothing that is code."""
    return (
        not is_stand_in(value)
        and _has_letter_and_digit(value)
        and _CODE.match(value) is None
        and measure_entropy(value) >= 2.8
    )


def _assigned_quoted(value: str) -> bool:
    if is_stand_in(value) or " " in value or _CODE.match(value):
        return False
    return _has_letter_and_digit(value) or (
        any(not c.isalnum() for c in value) and any(c.isalpha() for c in value) and len(value) >= 8
    )


def _written_password(value: str) -> bool:
    return not is_stand_in(value) and _has_letter_and_digit(value) and _CODE.match(value) is None


def _url_password(value: str) -> bool:
    return not is_stand_in(value) and not value.isdigit()


_KEY_WORDS = (
    "password|passwd|passphrase|passcode|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|"
    "private[_-]?key|secret[_-]?key|encryption[_-]?key|signing[_-]?key|account[_-]?key|credential|"
    "client[_-]?secret|db[_-]?pass|[_-]pass|auth[_-]?token|webhook[_-]?key|license[_-]?key"
)
_KEY_TAIL = (
    r"(?:[_-]?(?:v?\d{1,2}|prod|production|dev|live|test|staging|value|b64|base64|hash|salt))?"
)
SENSITIVE_KEY = re.compile(rf"(?:^|[\w.-]*)(?:{_KEY_WORDS}){_KEY_TAIL}$", re.I)
_ASSIGN_WORDS = ("pass", "pwd", "secret", "token", "key", "credential")
_ASSIGN_HEAD = (
    rf"(?<![A-Za-z0-9])[\w.-]{{0,60}}(?:{_KEY_WORDS}){_KEY_TAIL}"
    r"\\?[\"'`\]]{0,2}\s{0,4}(?::\s?[\w\[\]<>.]{1,20}\s?)?(?:=>|:=|===?|!==?|=|:)\s{0,4}"
)
# Prefixes that vendors chose so that their tokens can be recognised.
_PREFIXES = (
    "gsk_|xai-|r8_|pplx-|tvly-|ntn_|secret_|dop_v1_|doo_v1_|dor_v1_|shpat_|shpca_|shppa_|shpss_|"
    "dckr_pat_|dckr_oat_|lin_api_|lin_oauth_|figd_|PMAK-|glsa_|glc_|sntrys_|sntryu_|ATATT3|ATCTT3|"
    "tskey-[a-z]+-|rnd_|fly_|FlyV1 |nvapi-|phc_|phx_|pscale_tkn_|pscale_pw_|ops_ey|CFPAT-|cio_|"
    "hvs\\.|hvb\\.|AGE-SECRET-KEY-1|EAAA|sq0atp-|sq0csp-|sqOatp-|rubygems_|"
    "ghv_|glptt-|vercel_|sbp_|sb_secret_|pat-na1-|pat-eu1-|duffel_live_|dp\\.pt\\.|dp\\.st\\.|"
    "lsv2_pt_|lsv2_sk_|jina_|fw_|together_|co_api_|waka_|nfp_|oy2|bkua_|NRAK-|NRII-|"
    "glrt-|CLOJARS_|EZAK|EZTK|sk_prod_|shippo_live_|mapi_|apify_api_|e2b_|tfp_|hf_oauth_"
)

_PREFIX_WORDS = tuple(
    sorted({re.split(r"[\\\[({ ]", p, maxsplit=1)[0].lower() for p in _PREFIXES.split("|")})
)


def _rule(kind: str, words: str, pattern: str, guard: Guard | None = None, flags: int = 0) -> Rule:
    return Rule(kind, tuple(words.split()), re.compile(pattern, flags), guard)


def _starts(*prefixes: str) -> str:
    return " ".join(p + digit for p in prefixes for digit in "0123456789abcdef")


_I = re.IGNORECASE
_PEM = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"

RULES: tuple[Rule, ...] = (
    _rule(
        "private_key",
        "-----begin",
        rf"-----BEGIN {_PEM}"
        rf"(?:(?:(?!-----BEGIN)[\s\S]){{0,20000}}?-----END {_PEM}"
        r"|(?:(?:\\[nrt]|\s|[>|+]\s)+[A-Za-z0-9+/=]{16,})*(?:(?:\\[nr]|\s)+[A-Za-z0-9+/]{2,15}={0,2}(?=[ \t]*(?:\r?\n|$)))?)",
    ),
    _rule("aws_access_key", "akia asia abia acca", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    _rule(
        "aws_secret_key",
        "aws secretaccesskey secret_access_key",
        r"(?:aws|secret_?access_?key)[^\n]{0,40}?[\"'=:\s]([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        _token_like,
        _I,
    ),
    _rule("github_pat", "ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[A-Za-z0-9]{30,255}"),
    _rule("github_fine_grained", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,255}"),
    _rule(
        "gitlab_token",
        "glpat- gldt- glrt- glcbt- glptt- glft- glimt- glagent- glsoat- glffct-",
        r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{20,}",
    ),
    _rule("slack_token", "xox xapp-", r"\bx(?:ox[abeoprs](?:\.xox[bp])?|app)-[A-Za-z0-9-]{10,}"),
    _rule(
        "webhook_url",
        "hooks. webhook",
        r"https?://(?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[\w/+-]{20,}"
        r"|(?:\w+\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d+/[\w-]{20,}"
        r"|[\w.-]+\.webhook\.office\.com/[\w/@.-]{20,}"
        r"|hooks\.zapier\.com/hooks/catch/[\w/]{8,}"
        r"|chat\.googleapis\.com/v1/spaces/\S{20,}"
        r"|[\w.-]+/(?:api/)?webhooks?/[\w-]*\d[\w-]{23,})",
    ),
    _rule(
        "webhook_url",
        "chat.googleapis.com",
        r"https://chat\.googleapis\.com/v1/spaces/[^\s\"'<>]{20,}",
    ),
    _rule(
        "discord_token",
        ".",
        r"\b[MNO][A-Za-z\d_-]{23,27}\.[\w-]{6}\.[\w-]{27,40}\b",
        guard=_token_like,
    ),
    _rule("telegram_token", ":aa", r"\b\d{8,10}:AA[A-Za-z0-9_-]{32,35}"),
    _rule(
        "stripe_key",
        "sk_ rk_ pk_ whsec_",
        r"\b(?:(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{24,})",
    ),
    _rule("google_key", "aiza", r"\bAIza[0-9A-Za-z_-]{30,}"),
    _rule("google_oauth", "ya29. gocspx-", r"\b(?:ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[\w-]{20,})"),
    _rule(
        "model_api_key",
        "sk-",
        r"(?<![A-Za-z0-9])sk-[A-Za-z0-9][A-Za-z0-9_-]{18,}",
        guard=_token_like,
    ),
    _rule("huggingface_token", "hf_ api_org_", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    _rule("npm_token", "npm_ _authtoken", r"\bnpm_[A-Za-z0-9]{36}|_authToken\s*=\s*([\w-]{20,})"),
    _rule("pypi_token", "pypi-", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    _rule("sendgrid_key", "sg.", r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}"),
    _rule("twilio_key", _starts("sk", "ac"), r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    _rule("mailgun_key", "key-", r"\bkey-[0-9a-f]{32}\b"),
    _rule("mailchimp_key", "-us", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    _rule("databricks_token", "dapi", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    _rule("jwt", "eyj", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    _rule(
        "vendor_token",
        " ".join(_PREFIX_WORDS),
        rf"(?<![A-Za-z0-9_-])(?:{_PREFIXES})[A-Za-z0-9_+/=.-]{{20,}}",
        guard=_token_like,
    ),
    _rule(
        "url_password",
        "://",
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>]{0,100}:([^\s/\"'<>]{1,200})@(?=[\w.\[-])",
        _url_password,
        _I,
    ),
    _rule(
        "url_password",
        "://",
        r"\b(?:https?|git|ssh)://([\w-]{20,})(?::x-oauth-basic)?@(?=\w)",
        _token_like,
        _I,
    ),
    _rule(
        "bearer_token",
        "bearer authorization",
        r"\b(?:authorization\\?[\"']?\s*[:=,]\s*\\?[\"']?(?:(?:basic|bearer|token|apikey|digest)\s+)?|bearer\s+)"
        r"([A-Za-z0-9_\-.=+/~]{12,})",
        lambda v: not is_stand_in(v) and _has_letter_and_digit(v) and _CODE.match(v) is None,
        _I,
    ),
    _rule(
        "curl_password",
        "curl",
        r"\bcurl\b[^\n]{0,300}?\s(?:-u|--user|--proxy-user|-U)[ =]?\\?[\"']?[^\s:\"']{1,100}:([^\s\"'\\]{1,200})",
        _url_password,
    ),
    _rule(
        "command_password",
        "mysql sshpass --password --token --secret --api-key --apikey",
        r"(?:\bmysql(?:dump|admin)?\b[^\n|;]{0,200}?\s-p|\bsshpass\s+-p\s*|"
        r"--(?:password|passwd|token|secret|api-?key|auth-token|access-token)[ =])\\?[\"']?([^\s\"'\\<>]{5,200})",
        lambda v: not is_stand_in(v) and _CODE.match(v) is None and not v.startswith("-"),
    ),
    _rule(
        "netrc_password",
        "machine login",
        r"\b(?:machine\s+\S{1,200}|default)\s+login\s+\S{1,200}\s+password\s+(\S{1,200})",
        _url_password,
    ),
    _rule("docker_auth", "auth", r"\\?\"_?auth\\?\"\s*:\s*\\?\"([A-Za-z0-9+/=]{12,})\\?\""),
    _rule("npm_token", "_auth", r"\b_(?:auth|password)\s*=\s*\"?([A-Za-z0-9+/=_-]{12,})"),
    _rule(
        "azure_key",
        "accountkey sharedaccesskey sig=",
        r"(?:(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,}={0,2})|[?&]sig=([A-Za-z0-9%+/]{30,}))",
    ),
    _rule(
        "assigned_secret",
        " ".join(_ASSIGN_WORDS),
        rf"{_ASSIGN_HEAD}(?:[@bfru]{{0,2}}\\?\"([^\"\\\n]{{6,300}})\\?\"|[bfru]{{0,2}}'([^'\n]{{6,300}})'|`([^`\n]{{6,300}})`)",
        _assigned_quoted,
        _I,
    ),
    _rule(
        "assigned_secret",
        " ".join(_ASSIGN_WORDS),
        rf"{_ASSIGN_HEAD}([^\s\"'`,;(){{}}\[\]<>|\\]{{8,300}})",
        _assigned,
        _I,
    ),
    _rule(
        "written_password",
        "pass pwd",
        r"\b(?:password|passphrase|passcode|passwd|pwd)\s+(?:is|was|to|=|->)\s+[\"'`]?([^\s\"'`,;<>]{6,200})",
        _written_password,
        _I,
    ),
)
