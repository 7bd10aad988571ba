"""Rules for kinds of secret: each family finds its kinds, in any syntax, and leaves look-alikes alone."""

from __future__ import annotations

import random
import re
import string

import pytest

from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.rules import RULES, SENSITIVE_KEY, is_stand_in

REDACTOR = Redactor(bytes(range(32)))
SETS = {
    "A": string.ascii_letters + string.digits,
    "U": string.ascii_uppercase + string.digits,
    "h": "0123456789abcdef",
    "a": string.ascii_lowercase + string.digits,
    "W": string.ascii_letters + string.digits + "-_",
}


def make(shape: str, seed: int = 1) -> str:
    """``{A20}`` becomes 20 random letters and digits: no file holds anything that looks like a secret."""
    rng = random.Random(f"{shape}{seed}")

    def run(m: re.Match[str]) -> str:
        body = "".join(rng.choice(SETS[m[1]]) for _ in range(int(m[2]) - 2))
        return body + ("7Q" if m[1] == "U" else "7a")

    return re.sub(r"\{([AUhaW])(\d+)\}", run, shape)


def found(text: str) -> list[str]:
    return [text[f.start : f.end] for f in REDACTOR.find(text) if not f.personal]


KINDS = {
    "github_pat": "gh{0}p_{A36}",
    "github_fine_grained": "github_{0}pat_{A22}_{A59}",
    "gitlab_token": "glpat{0}-{A20}",
    "atlassian_token": "ATB{0}B{A28}{h8}",
    "npm_token": "npm{0}_{A36}",
    "pypi_token": "pypi{0}-AgEIcHlwaS5vcmc{A90}",
    "terraform_token": "{A14}.atlas{0}v1.{A67}",
    "vault_token": "hvs{0}.{A92}",
    "aws_access_key": "AK{0}IA{U16}",
    "google_key": "AI{0}za{A35}",
    "google_oauth": "GOC{0}SPX-{A28}",
    "azure_client_secret": "{A3}8Q{0}~{A34}",
    "digitalocean_token": "dop{0}_v1_{h64}",
    "databricks_token": "dap{0}i{h32}",
    "anthropic_key": "sk{0}-ant-api03-{A93}AA",
    "openai_key": "sk{0}-proj-{A74}",
    "huggingface_token": "hf{0}_{A34}",
    "groq_key": "gs{0}k_{A52}",
    "slack_token": "xo{0}xb-123456789012-{A24}",
    "discord_token": "MT{A24}.{0}G{A5}.{A38}",
    "telegram_token": "1234567890:{0}AA{A33}",
    "sendgrid_key": "S{0}G.{A22}.{A43}",
    "twilio_key": "S{0}K{h32}",
    "stripe_key": "sk{0}_live_{A24}",
    "shopify_token": "shp{0}at_{h32}",
    "sentry_token": "sntr{0}ys_{A90}",
    "grafana_token": "gls{0}a_{A32}_{h8}",
    "newrelic_key": "NRA{0}K-{U27}",
    "postman_key": "PMA{0}K-{h24}-{h34}",
    "age_key": "AGE-SECRET{0}-KEY-1{U58}",
    "password_hash": "$2{0}y$10${A53}",
    "vendor_token": "acmepay_{0}live_{A32}",
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("frame", ["{}", '"{}"', "x={}", "see {}, please", "| {} |", "`{}`\n"])
def test_a_token_with_a_form_of_its_own_is_found_bare_and_named(kind: str, frame: str) -> None:
    value = make(KINDS[kind].replace("{0}", ""))
    text = frame.replace("{}", value)
    findings = [f for f in REDACTOR.find(text) if not f.personal]
    assert [f.kind for f in findings] == [kind]
    assert value in text[findings[0].start : findings[0].end]


SYNTAXES = (
    'db_password = "@"', "DB_PASSWORD=@", "  password: @", '  "apiKey": "@",', "<password>@</password>",
    '<add key="ApiKey" value="@" />', "spring.datasource.password=@", "tool --api-key @ -v", "tool --auth-token=@",
    "X-Api-Key: @", "| API_KEY | @ |", "ENV API_TOKEN @", "- name: DB_PASSWORD\n  value: @", "api_token := `@`",
    "define('DB_PASSWORD', '@');", 'client.setPassword("@")', 'os.getenv("API_KEY", "@")', "auth-token => '@',",
    "Authorization: Bearer @", "-H 'authorization: token @'", "curl -u admin:@ https://ci.corp/x", "mysql -u root -p@ app",
    "sshpass -p @ ssh ops@h1", "redis-cli -h c1 -a @ ping", "PGPASSWORD=@ psql", "openssl enc -k @ -in a",
    "postgres://app:@@db.corp:5432/x", "https://jane:@@git.corp/x.git", "jdbc:postgresql://db/x?user=a&password=@&ssl=1",
    "Server=db;Database=x;User ID=s;Password=@;Encrypt=True", "GET /hook?access_token=@&page=2", "machine git.corp login j password @",
    '{"auths": {"r.corp": {"auth": "@"}}}', "Set-Cookie: sessionid=@; HttpOnly", "The admin password is @ and works.",
    "new pw: @", "login with jane and password @ please", "credentials: jane / @", "echo '@' | sudo -S apt update",
    "requests.get(url, auth=('svc', '@'))", "vault login @", "username jane password 7 @", "sqlplus scott/@@orcl",
    "az login -u id -p @ --tenant t", "unzip -P @ a.zip", "net use Z: /user:jane @", "key=@&x=1", "<key>ApiKey</key><string>@</string>",
    '<entry key="password">@</entry>', 'k := []byte("x"); secretKey := []byte("@")', "db.corp:5432:main:app:@", "set -x API_TOKEN @",
    "https://jane%40corp.io:@@git.corp/", "A temporary password is generated for root: @", "PW=@",
    "wss://x/?X-Amz-Signature=@", "ngrok config add-authtoken @", "storePassword @",
    "CREATE USER app IDENTIFIED BY '@';", "//registry.npmjs.org/:_authToken=@", "**Password**: `@`", "requirepass @",
)  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("seed", range(3))
def test_a_value_under_a_telling_name_is_found_in_any_syntax(syntax: str, seed: int) -> None:
    value = make("Kq3{A20}", seed)
    head, _, tail = syntax.partition("@")
    text = f"before\n{head}{value}{tail}\nafter"
    assert found(text) == [value]


@pytest.mark.parametrize(
    "line", ["password: @", 'pwd = "@"', "mysql://root:@@h/x", "curl -u a:@ h"]
)
def test_short_passwords_count_where_a_password_is_named(line: str) -> None:
    value = make("q{a5}9")
    head, _, tail = line.partition("@")
    assert found(head + value + tail) == [value]


def test_a_private_key_goes_from_header_to_footer() -> None:
    label = "EC PRIVATE" + " KEY-----"
    body = "\n".join(make("{A64}", n) for n in range(3))
    block = f"-----BEGIN {label}\n{body}\n-----END {label}"
    assert found(f"cat key\n{block}\ndone") == [block]


def test_a_private_key_that_was_cut_off_goes_to_its_last_line() -> None:
    body = "\n".join(make("{A64}", n) for n in range(3))
    text = "-----BEGIN " + f"RSA PRIVATE KEY-----\n{body}"
    assert found(f"{text}\n$ ls") == [text]


def test_a_certificate_and_a_public_key_stay() -> None:
    for label in ("CERTIFICATE", "PUBLIC KEY"):
        body = "\n".join(make("{A64}", n) for n in range(2))
        assert found(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----") == []


LOOK_ALIKES = (
    "commit {h40}", "index {h7}..{h7} 100644", "id: {h8}-{h4}-{h4}-{h4}-{h12}", '"sessionId": "{h8}-{h4}-{h4}-{h4}-{h12}"',
    '"integrity": "sha512-{A86}=="', "sha256:{h64}", "toolu_01{A22}", "msg_01{A22}", "chatcmpl-{A29}", "gt-{a5}: fix the flaky test",
    "libc-{h16}.rlib", "target/debug/deps/serde-{h16}.d", "main.{h8}.chunk.js", "token = get_token()", "password = os.environ['DB_PASSWORD']",
    "api_key: ${API_KEY}", "password: {{ vault.password }}", "API_KEY=your-key-here", "password: xxxxxxxx", "token: <your token>",
    'password = "changeme"', "SECRET_KEY=example-key-1", "max_tokens: 4096", "password: string", "password: str = Field(...)",
    "const token = await client.auth.getToken2(user)", "key = lambda x: x[1]", "tokens=[101, 2023, 102]", "tokenizer = AutoTokenizer",
    "https://user:password@host/x", "postgres://$USER:$PASS@localhost/x", "cache_key = users_v2_list", "primary_key=True",
    "the password is required", "Authorization: Bearer $TOKEN", "--- PASS: TestTokenRefresh2 (0.00s)", "secretName: db-credentials-2",
    "http://localhost:8080/path", "func (s *Store) TokenV2() string", "see docs/api-key-rotation-2024.md", "version = 1.2.3-beta.4",
)  # fmt: skip


@pytest.mark.parametrize("line", LOOK_ALIKES)
@pytest.mark.parametrize("seed", range(3))
def test_look_alikes_stay(line: str, seed: int) -> None:
    assert found(f"before\n{make(line, seed)}\nafter") == []


def test_stand_ins_are_told_from_values() -> None:
    assert all(
        is_stand_in(v)
        for v in ("your-api-key", "<token>", "${X}", "xxxxxxxx", "changeme", "my-secret")
    )
    assert not any(is_stand_in(make(s)) for s in ("{A16}", "{h32}", "Tr0ub4dor&{a6}"))


def test_keys_that_tell_of_a_secret() -> None:
    tell = (
        "password",
        "dbPassword",
        "api_key",
        "client-secret",
        "AUTH_TOKEN",
        "smtp.pass",
        "secretKey",
    )
    assert all(SENSITIVE_KEY.match(k) for k in tell)
    plain = (
        "max_tokens",
        "token_count",
        "compass",
        "keyboard",
        "primary_key",
        "author",
        "tokenizer",
    )
    assert not any(SENSITIVE_KEY.match(k) for k in plain)


def test_rules_are_well_formed() -> None:
    assert all(re.fullmatch(r"[a-z0-9_]+", r.kind) for r in RULES)
    # A guard without a name would not show in the digest of the rules.
    assert all(r.guard is None or r.guard.__name__ != "<lambda>" for r in RULES)


def test_hostile_text_takes_linear_time() -> None:
    """No timing: re2 has no other; this holds that no rule slips past it into Python's own engine."""
    for text in (
        "password=" * 5000,
        "-----BEGIN " + "A" * 50_000,
        "a:" * 20_000 + "@",
        "eyJ" * 20_000,
    ):
        REDACTOR.find(text)
