"""First reader: planted secrets go, everything else stays, twice is the same as once."""

from __future__ import annotations

import json
import random
import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus import redact as redact_module
from gtft.corpus.redact import Redactor, check_rules, find_secrets, make_canaries
from gtft.errors import RedactionError


def random_token(seed: int, n: int, letters: str = string.ascii_letters + string.digits) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(letters) for _ in range(n - 2)) + "7q"


def tokens(seed: int) -> dict[str, str]:
    """Made at run time: a file with such strings would set off every scanner."""
    r = random_token
    return {
        "github_pat": "gh" + "p_" + r(seed, 36),
        "github_fine_grained": "github" + "_pat_" + r(seed, 60),
        "gitlab_token": "gl" + "pat-" + r(seed, 20),
        "slack_token": "xo" + "xb-" + "123456789012-" + r(seed, 24),
        "stripe_key": "sk" + "_live_" + r(seed, 24),
        "google_key": "AI" + "za" + r(seed, 35),
        "model_api_key": "sk" + "-proj-" + r(seed, 20) + "-" + r(seed + 1, 20),
        "huggingface_token": "h" + "f_" + r(seed, 34),
        "npm_token": "np" + "m_" + r(seed, 36),
        "pypi_token": "py" + "pi-" + r(seed, 80),
        "aws_access_key": "AK" + "IA" + r(seed, 16, string.ascii_uppercase + string.digits).upper(),
        "sendgrid_key": "S" + "G." + r(seed, 22) + "." + r(seed + 1, 43),
        "vendor_token": "gs" + "k_" + r(seed, 52),
        "telegram_token": "123456789:" + "AA" + r(seed, 33),
    }


KINDS = sorted(tokens(0))


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    before=st.text(max_size=40),
    after=st.text(max_size=40),
    frame=st.sampled_from(
        ["{}", '"{}"', "key={}", "export A={}", "({})", "`{}`", "a\n{}\nb", "{},"]
    ),
)
def test_a_planted_token_is_gone_in_any_surroundings(
    kind: str, seed: int, before: str, after: str, frame: str
) -> None:
    token = tokens(seed)[kind]
    text = f"{before} {frame.format(token)} {after}"
    redactor = Redactor()
    once = redactor.redact(text)
    assert token not in once
    assert redactor.redact(once) == once
    assert Redactor().redact(once) == once


CONTEXTS = {
    "url": ("postgres://app:{}@db.corp:5432/main", 9),
    "https": ("git clone https://ann:{}@git.corp/x.git", 12),
    "bearer": ("-H 'Authorization: Bearer {}'", 32),
    "basic": ("Authorization: Basic {}", 24),
    "curl": ("curl -sS -u ann:{} https://ci.corp", 10),
    "netrc": ("machine git.corp login ann password {}", 10),
    "env": ("export DB_PASSWORD={}", 14),
    "yaml": ("  client_secret: {}", 20),
    "json": ('{{"api_key": "{}"}}', 20),
    "escaped json": ('{{\\"api_key\\": \\"{}\\"}}', 20),
    "python": ("password = '{}'", 10),
    "go": ('AuthToken := "{}"', 24),
    "docker": ('"auth": "{}"', 24),
    "mysql": ("mysql -h db -u root -p{}", 10),
    "flag": ("deploy --token {}", 20),
    "prose": ("the password is {} for now", 10),
    "aws": ("aws_secret_access_key = {}", 40),
    "azure": ("AccountName=x;AccountKey={}==", 86),
    "slack hook": ("https://hooks.slack.com/services/T000/B000/{}", 24),
}


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_values_without_a_form_of_their_own_go_by_their_context(name: str) -> None:
    frame, length = CONTEXTS[name]
    for seed in range(20):
        value = random_token(seed, length)
        redacted = Redactor().redact(f"x {frame.format(value)} y")
        assert value not in redacted, redacted
        assert "<SECRET:" in redacted
        assert redacted.endswith(" y")


def test_a_private_key_goes_from_header_to_footer_and_an_open_one_to_its_last_line() -> None:
    head, foot = "-----BEGIN " + "EC PRIVATE KEY-----", "-----END " + "EC PRIVATE KEY-----"
    body = "\n".join(random_token(i, 64) for i in range(5))
    closed = Redactor().redact(f"a\n{head}\n{body}\n{foot}\nb")
    assert closed == "a\n<SECRET:private_key:1>\nb"
    opened = Redactor().redact(f"a\n{head}\n{body}\nshort words follow")
    assert opened == "a\n<SECRET:private_key:1>\nshort words follow"
    escaped = json.dumps(f"{head}\n{body}\n{foot}")
    assert Redactor().redact(escaped) == '"<SECRET:private_key:1>"'


STAYS = [
    "commit 3f2a9b7c1d4e5f60718293a4b5c6d7e8f9012345 by refinery",
    "session 6113e919-3a1b-4c2d-9e8f-001122334455",
    "bead gt-4k2x9 blocks hq-cv-xxa1b and gt-gastown-polecat-Toast",
    "max_tokens: 4096, token_count = 12345678, tokens=99",
    "password = os.environ['DB_PASSWORD']",
    'password = getpass("Password: ")',
    "token: string; secret?: boolean",
    "API_KEY=<your key here>",
    "export TOKEN=${GITHUB_TOKEN}",
    "api_key = config.get_secret_key()",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "see https://docs.python.org/3/library/secrets.html",
    "git@github.com:town/gizmo.git",
    "user@example.com and noreply@anthropic.com",
    "icon@2x.png and actions/checkout@v4.yml and foo@1.2.3",
    "127.0.0.1:8080, 10.0.0.12, version 2.0.64.1, 8.8.8.8",
    "/home/user/town and /Users/you/code and C:\\Users\\Public",
    "12:30:45 and a::b::c and fe80::1",
    "bd update gt-1 --set-metadata gtft.claim=abc",
    "pass the token to the next stage; the secret is out",
    "sk-learn-contrib-package and task-based-work",
]


@pytest.mark.parametrize("text", STAYS)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert Redactor().redact(text) == text


def test_personal_data_gets_stable_pseudonyms_that_keep_the_shape() -> None:
    redactor = Redactor()
    text = (
        "/home/steve/x /Users/anna/y C:\\Users\\steve\\z -Users-anna-Code-x "
        "steve@corp.io Co-Authored-By: Anna <anna@corp.io> from 93.184.216.34 to 93.184.216.35"
    )
    once = redactor.redact(text)
    assert once == (
        "/home/user1/x /Users/user2/y C:\\Users\\user1\\z -Users-user2-Code-x "
        "user1@example.com Co-Authored-By: Anna <user2@example.com> from 192.0.2.1 to 192.0.2.2"
    )
    assert redactor.redact(once) == once
    assert redactor.redact("/home/anna/w") == "/home/user2/w"


def test_equal_values_share_a_placeholder_and_numbers_follow_the_order_of_reading() -> None:
    redactor = Redactor()
    a, b = tokens(1)["github_pat"], tokens(2)["github_pat"]
    assert redactor.redact(f"{b} {a} {b}") == (
        "<SECRET:github_pat:1> <SECRET:github_pat:2> <SECRET:github_pat:1>"
    )
    assert redactor.redact(a) == "<SECRET:github_pat:2>"


def test_a_confirmed_value_is_swept_wherever_it_stands_bare() -> None:
    redactor = Redactor()
    value = random_token(3, 14) + '"/' + "x9"
    short = "hunter2x9"
    redactor.redact_tree({"password": value, "db_password": short})
    sweep = redactor.sweep()
    for form in (value, json.dumps(value), quote(value, safe="")):
        assert value not in sweep(f"it was {form} then")
        assert "<SECRET:assigned_secret:1>" in sweep(f"it was {form} then")
    assert sweep(f"bare {short}") == f"bare {short}"


def test_a_value_under_a_telling_key_goes_whatever_it_looks_like() -> None:
    redactor = Redactor()
    tree = {"env": {"DB_PASSWORD": "correcthorse"}, "password_file": "/etc/x", "token": "${T}"}
    assert redactor.redact_tree(tree) == {
        "env": {"DB_PASSWORD": "<SECRET:assigned_secret:1>"},
        "password_file": "/etc/x",
        "token": "${T}",
    }


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_redaction_of_any_text_is_idempotent(text: str) -> None:
    redactor = Redactor()
    once = redactor.redact(text)
    assert redactor.redact(once) == once


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["password", "=", ": ", '"', "'", "token", "://", "@", "/home/", "a1b2c3d4e5", "\n", " ",
             "<SECRET:jwt:1>", "Bearer ", "curl -u a:", "sk-", "machine x login y password ", "user1"]
        ),
        max_size=14,
    )
)  # fmt: skip
def test_redaction_of_pieces_of_secrets_is_idempotent(parts: list[str]) -> None:
    redactor = Redactor()
    once = redactor.redact("".join(parts))
    assert redactor.redact(once) == once


def test_findings_are_spans_of_the_text() -> None:
    token = tokens(5)["github_pat"]
    text = f"é {token} 🤝 {token}"
    assert [text[f.start : f.end] for f in find_secrets(text)] == [token, token]


def test_a_rule_set_that_misses_a_canary_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    check_rules()
    monkeypatch.setattr(
        redact_module, "RULES", tuple(r for r in redact_module.RULES if r.kind != "jwt")
    )
    with pytest.raises(RedactionError, match="planted"):
        check_rules()


def test_every_canary_is_made_anew_and_long_enough_to_matter() -> None:
    canaries = make_canaries()
    assert len({kind for kind, _, _ in canaries}) >= 15
    assert all(secret in text and len(secret) >= 9 for _, text, secret in canaries)
