"""Observability, office, search, identity: every other service; and the shapes that vendors share."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import (
    is_hex,
    is_name,
    is_random,
    is_stand_in,
    is_token,
    measure_entropy,
    token,
)

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Ids of messages, calls and objects have the same shape as tokens and are none.
_IDS = (
    "toolu_",
    "msg_",
    "req_",
    "call_",
    "chatcmpl-",
    "resp_",
    "run_",
    "thread_",
    "asst_",
    "file-",
    "evt_",
    "srvtoolu_",
    "session_",
    "batch_",
    "item_",
    "step_",
    "cs_",
    "acct_",
    "cus_",
    "sha256",
    "sha512",
    "sha1",
    "md5",
    "user_",
    "org_",
    "proj_",
    "prj_",
    "dpl_",
    "team_",
    "agent_",
    "agent-",
    "chunk",
    "index-",
    "vendor-",
    "_zn",
)


def is_prefixed_token(value: str) -> bool:
    """``vendor_Zx81…``: one long run of mixed characters behind a short name, and not an object's id."""
    if value.lower().startswith(_IDS) or not is_random(value):
        return False
    body = max(value.replace("-", "_").split("_"), key=len)
    kinds = any(c.isdigit() for c in body) + any(c.islower() for c in body)
    kinds += any(c.isupper() for c in body)
    return kinds == 3 and len(body) >= 24 and measure_entropy(body) >= 4.0


def is_marked_token(value: str) -> bool:
    """As `is_prefixed_token` with ``live``, ``pat``, ``key`` … in its name: any alphabet will do."""
    if value.lower().startswith(_IDS) or is_stand_in(value) or is_name(value):
        return False
    body = max(value.replace("-", "_").split("_"), key=len)
    # Builds name their files with 16 hex digits.
    long = len(body) >= (24 if is_hex(body) else 16)
    return long and sum(c.isdigit() for c in body) >= 2 and measure_entropy(body) >= 3.0


RULES: tuple[Rule, ...] = (
    token("sentry_token", "sntry[su]_", "A-Za-z0-9_+/=-", 40, "300"),
    token("grafana_token", "gl(?:sa|c|u)_", "A-Za-z0-9_+/=", 30, "400", guard=is_random),
    token("grafana_token", "eyJrIjoi", "A-Za-z0-9+/=_-", 60, "400"),
    token("newrelic_key", "NR(?:AK|II|IQ|JS|AA|RA|BR)-", "A-Za-z0-9_-", 19, "64"),
    token("dynatrace_token", "dt0[a-z]\\d\\d\\.", "A-Z0-9.", 60, "120"),
    token("honeycomb_key", "hc[a-z](?:ik|mk)_", "a-z0-9", 40, "80"),
    token("posthog_key", "ph[cxs]_", "A-Za-z0-9", 40, "60"),
    token("pagerduty_key", "pdus\\+_", "A-Za-z0-9_+-", 20, "60"),
    Rule(
        "pagerduty_key",
        r"u\+[A-Za-z0-9_-]{18}",
        guard=is_token,
        not_before=r"\w+",
        not_after=r"\w-",
    ),
    token("splunk_token", "splunkd_", "A-Za-z0-9_^", 40, "200"),
    token("linear_key", "lin_(?:api|oauth|wh)_", "A-Za-z0-9", 30, "80"),
    token("notion_token", "ntn_", "A-Za-z0-9", 40, "60"),
    token("notion_token", "secret_", "A-Za-z0-9", 40, "50", guard=is_random),
    token("figma_token", "fig[dour]{1,2}_", "A-Za-z0-9_-", 30, "80"),
    token("postman_key", "PMA[KT]-", "A-Za-z0-9-", 24, "80"),
    token("airtable_token", "pat[A-Za-z0-9]{14}\\.", "0-9a-f", 60, "64"),
    token("asana_token", "[012]/\\d{14,17}(?:/\\d{14,17})?:", "0-9a-f", 32, "32"),
    Rule(
        "hubspot_token", f"pat-(?:na|eu|ap)\\d-{_UUID}", (r"pat-(?:na|eu|ap)\d-",), not_before=r"\w"
    ),
    token("typeform_token", "tfp_", "A-Za-z0-9_-", 40, "80"),
    token("contentful_token", "CFPAT-", "A-Za-z0-9_-", 40, "60"),
    token("mapbox_token", "(?:sk|tk)\\.eyJ", "A-Za-z0-9_.-", 40, "200"),
    token("dropbox_token", "sl\\.(?:u\\.|B)", "A-Za-z0-9_-", 60, "1000", guard=is_random),
    token("readme_key", "rdme_", "a-z0-9", 60, "80"),
    token("algolia_key", "(?:algolia_)", "0-9a-f", 32, "32"),
    Rule("okta_token", r"SSWS ([A-Za-z0-9_-]{30,60})"),
    token("clerk_key", "ak_", "A-Za-z0-9", 32, "60", guard=is_random),
    token("stytch_secret", "secret-(?:test|live)-", "A-Za-z0-9_=-", 32, "80"),
    token("auth_code", "(?:authk|wos)_", "A-Za-z0-9", 30, "80", guard=is_random),
    token("frameio_token", "fio-u-", "A-Za-z0-9_=-", 60, "80"),
    token("duo_token", "DI[A-Z0-9]{18}:", "A-Za-z0-9", 40, "40"),
    token("snyk_token", "snyk_(?:uat|sat)\\.", "A-Za-z0-9_.-", 40, "300"),
    token("sonar_token", "sq[upa]_", "0-9a-f", 40, "40"),
    token("nightfall_key", "NF-", "A-Za-z0-9", 32, "40", guard=is_random),
    token("ethereum_rpc_key", "infura\\.io/v3/", "0-9a-f", 32, "32"),
    token("ethereum_rpc_key", "g\\.alchemy\\.com/v2/", "A-Za-z0-9_-", 32, "32"),
    # Made by convention all over the industry: company_[sk_][live_]random.
    Rule(
        "vendor_token",
        r"(?i)[a-z][a-z0-9]{1,19}(?:[_-][a-z0-9]{1,12}){0,3}[_-](?:live|test|prod|sk|pk|rk|pat|api|key|apikey|secret|token"
        r"|access|auth|svc|sa|oauth|whsec|priv|private|admin|session|refresh|deploy)(?:[_-](?:v\d|[a-z]{2,8}\d?)){0,2}"
        r"[_.-][a-z0-9][a-z0-9_-]{15,200}",
        (
            r"(?i)(?:live|test|prod|[spr]k|pat|api|key|secret|token|access|auth|svc|sa|whsec|priv|private|admin|session"
            r"|refresh|deploy)[_.-](?:[a-z0-9]{1,8}[_.-]){0,2}[a-z0-9]{16}",
        ),
        is_marked_token,
        not_before=r"\w.-",
        context=True,
    ),
    Rule(
        "vendor_token",
        r"[A-Za-z][A-Za-z0-9]{1,11}(?:[_-][A-Za-z0-9]{1,8}){0,2}[_-][A-Za-z0-9]{28,200}",
        (r"[A-Za-z0-9][_-][A-Za-z0-9]{28}",),
        is_prefixed_token,
        not_before=r"\w./+-",
        not_after=r"\w",
        context=True,
    ),
)
