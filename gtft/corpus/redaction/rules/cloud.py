"""Clouds and what runs in them: hosts, databases as a service, networks."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules.guards import is_body, is_random, is_token, token

RULES: tuple[Rule, ...] = (
    Rule(
        "aws_access_key",
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
        guard=is_body,
        not_before="A-Za-z0-9+/",
        not_after="A-Za-z0-9+/",
    ),
    Rule(
        "aws_secret_key",
        r"(?i)(?:aws|secret[_-]?(?:access[_-]?)?key|akia[A-Z0-9]{16})[^\n]{0,60}?[\"'=:\s,>|]([A-Za-z0-9/+]{40})",
        (
            r"(?i)(?:aws|secret_?-?access_?-?key|secret_?-?key|akia[A-Z0-9]{16})[^\n]{0,60}[\"'=:\s,>|][A-Za-z0-9/+]{40}",
        ),
        is_token,
        not_after="A-Za-z0-9/+=._-",
    ),
    token("aws_session_token", "(?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)", "A-Za-z0-9+/=", 50),
    token("aws_bedrock_key", "(?:ABSK|bedrock-api-key-)", "A-Za-z0-9+/=", 80, "1000"),
    token("google_key", "AIza", "0-9A-Za-z_-", 30, "40"),
    token("google_key", "AQ\\.Ab8", "0-9A-Za-z_-", 40, "80"),
    token("google_oauth", "ya29\\.", "0-9A-Za-z_.-", 20, "1000"),
    token("google_oauth", "GOCSPX-", "0-9A-Za-z_-", 20, "40"),
    token("google_refresh_token", "1//0[a-z0-9]", "0-9A-Za-z_-", 40, "200"),
    Rule(
        "azure_key",
        r"(?i)\b(?:AccountKey|SharedAccessKey|account-key|AZURE_STORAGE_KEY)[= \"':]{1,4}([A-Za-z0-9+/]{40,100}={0,2})",
        (
            r"(?i)(?:AccountKey|SharedAccessKey|account-key|STORAGE_KEY)[= \"':]{1,4}[A-Za-z0-9+/]{8}",
        ),
        is_body,
    ),
    Rule(
        "azure_sas",
        r"[?&;](?:amp;)?sig=([A-Za-z0-9%+/_-]{30,200}={0,2})",
        (r"[?&;]sig=[A-Za-z0-9%+/_-]{8}",),
        is_body,
    ),
    Rule(
        "azure_client_secret",
        r"[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}",
        (r"[78]Q~[A-Za-z0-9_~.-]{8}",),
        is_token,
    ),
    Rule("azure_key", r"[A-Za-z0-9+/]{76}\+ASt[A-Za-z0-9+/]{5}==", (r"\+ASt[A-Za-z0-9+/]{5}==",)),
    Rule(
        "azure_key",
        r"[A-Za-z0-9]{52}(?:JQQJ99|AAAB)[A-Za-z0-9]{20,40}",
        (r"JQQJ99[A-Za-z0-9]{8}",),
        is_token,
    ),
    token("digitalocean_token", "do[opr]_v1_", "0-9a-f", 60, "70"),
    token("digitalocean_key", "DO00", "A-Z0-9", 16, "16", guard=is_random),
    token("cloudflare_key", "v1\\.0-", "0-9a-f-", 24, "200", guard=is_random),
    token("cloudflare_token", "cf[ua]t_", "A-Za-z0-9", 36, "60"),
    token("heroku_key", "HRKU-", "A-Za-z0-9_-", 36, "80"),
    token("alibaba_key", "LTAI", "A-Za-z0-9", 16, "26", guard=is_random),
    token("tencent_key", "AKID", "A-Za-z0-9", 32, "36", guard=is_random),
    token("yandex_key", "(?:AQVN|YCA[A-Z]|t1\\.9euel)", "A-Za-z0-9_.-", 30, "400", guard=is_random),
    token("scaleway_key", "SCW", "A-Z0-9", 17, "17", guard=is_random),
    token("supabase_key", "(?:sbp_|sb_secret_)", "A-Za-z0-9_-", 24, "80"),
    token("planetscale_token", "pscale_(?:tkn|pw|oauth|api)_", "A-Za-z0-9_.=-", 24, "80"),
    token("neon_key", "napi_", "a-z0-9", 32, "80", guard=is_random),
    token("mongodb_key", "mdb_sa_sk_", "A-Za-z0-9_-", 32, "60"),
    token("databricks_token", "(?:dapi|dose|dkea)", "0-9a-f", 32, "34"),
    token("tailscale_key", "tskey-[a-z]{2,12}-", "A-Za-z0-9-", 16, "120"),
    Rule("ngrok_token", r"\b[12][A-Za-z0-9]{26}_[A-Za-z0-9]{21}\b", guard=is_random),
    token("pinecone_key", "pcsk_", "A-Za-z0-9_", 40, "100"),
    token("kubernetes_token", "K10[0-9a-f]{64}::", "A-Za-z0-9:._-", 16, "200"),
    Rule(
        "kubernetes_token",
        r"\b([a-z0-9]{6}\.[a-z0-9]{16})\b",
        (r"(?i)(?:--token|bootstrap|kubeadm)[^\n]{0,60}\b[a-z0-9]{6}\.[a-z0-9]{16}\b",),
        is_token,
    ),
    token("openshift_token", "sha256~", "A-Za-z0-9_-", 43, "43"),
    token("hetzner_key", "hcloud_", "A-Za-z0-9", 40, "80"),
)
