"""First reader: planted secrets go, everything else stays, twice is the same as once."""

from __future__ import annotations

import random
import re
import stat
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.redaction import canaries, redactor
from gtft.corpus.redaction.canaries import check_rules, make_canaries
from gtft.corpus.redaction.engine import PLACEHOLDER
from gtft.corpus.redaction.personal import make_pseudonym
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor, load_key, may_propagate
from gtft.errors import InputError, RedactionError

KEY = b"k" * 32


def make_redactor(**config: tuple[str, ...]) -> Redactor:
    return Redactor(KEY, RedactionConfig(**config))  # type: ignore[arg-type]


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
    redactor = make_redactor()
    once = redactor.redact(text)
    assert token not in once
    assert redactor.redact(once) == once
    assert make_redactor().redact(once) == once


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
        redacted = make_redactor().redact(f"x {frame.format(value)} y")
        assert value not in redacted, redacted
        assert "<SECRET:" in redacted
        assert redacted.endswith(" y")


def test_a_private_key_goes_from_header_to_footer_and_an_open_one_to_its_last_line() -> None:
    head, foot = "-----BEGIN " + "EC PRIVATE KEY-----", "-----END " + "EC PRIVATE KEY-----"
    body = "\n".join(random_token(i, 64) for i in range(5))
    placeholder = "<SECRET:private_key:[0-9a-f]{8}>"
    closed = make_redactor().redact(f"a\n{head}\n{body}\n{foot}\nb")
    assert re.fullmatch(f"a\n{placeholder}\nb", closed)
    opened = make_redactor().redact(f"a\n{head}\n{body}\nshort words follow")
    assert re.fullmatch(f"a\n{placeholder}\nshort words follow", opened)


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
    assert make_redactor().redact(text) == text


def test_personal_data_gets_stable_pseudonyms_that_keep_the_shape() -> None:
    redactor = make_redactor()
    steve, anna = (make_pseudonym("home_user", name, KEY) for name in ("steve", "anna"))
    one, two = (make_pseudonym("ipv4", ip, KEY) for ip in ("93.184.216.34", "93.184.216.35"))
    text = (
        "/home/steve/x /Users/anna/y C:\\Users\\steve\\z -Users-anna-Code-x "
        "steve@corp.io Co-Authored-By: Anna Lee <anna@corp.io> from 93.184.216.34 to 93.184.216.35"
    )
    once = redactor.redact(text)
    assert once == (
        f"/home/{steve}/x /Users/{anna}/y C:\\Users\\{steve}\\z -Users-{anna}-Code-x "
        f"{steve}@example.com Co-Authored-By: {anna} <{anna}@example.com> from {one} to {two}"
    )
    assert re.fullmatch(r"user[0-9a-f]{6}", steve) and steve != anna
    assert redactor.redact(once) == once
    assert make_redactor().redact("/home/anna/w") == f"/home/{anna}/w"
    assert Redactor(b"q" * 32).redact("/home/anna/w") != f"/home/{anna}/w"


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("mailto:steve@corp.io", "steve"),
        ('"path": "C:\\\\Users\\\\steve\\\\x"', "steve"),
        ("see\\nsteve@corp.io\\nthen", "steve"),
        ("ssh deploy@db1.corp.internal", "db1"),
        ("psql -h db1.corp.internal:5432", "db1"),
        ("Bonjour: Annas-MacBook-Pro.local", "Annas"),
        ("steve@mill:~/town$ ls", "steve"),
        ("2606:4700:4700::1111 answered", "4700"),
        ("Signed-off-by: Zoë Grün <zoe@corp.io>", "Grün"),
    ],
)
def test_each_kind_of_personal_data_goes(text: str, gone: str) -> None:
    once = make_redactor().redact(text)
    assert gone not in once
    assert make_redactor().redact(once) == once


def test_an_escape_before_a_name_stays_whole() -> None:
    once = make_redactor().redact("a\\nsteve@corp.io\\tb")
    assert re.fullmatch(r"a\\nuser[0-9a-f]{6}@example\.com\\tb", once)


def test_chosen_names_and_hosts_go_as_whole_words_in_any_case() -> None:
    redactor = make_redactor(names=("Zed Morrow", "zed"), hosts=("mill",))
    once = redactor.redact("Zed Morrow asked ZED at mill, not zedoary or milling")
    assert "Morrow" not in once and "ZED" not in once and " mill," not in once
    assert once.endswith("not zedoary or milling")
    assert redactor.redact(once) == once


def test_equal_values_share_a_placeholder_that_only_the_key_gives() -> None:
    a, b = tokens(1)["github_pat"], tokens(2)["github_pat"]
    first, second, third = make_redactor().redact(f"{b} {a} {b}").split()
    assert first == third != second
    assert make_redactor().redact(a) == second
    assert Redactor(b"q" * 32).redact(a) != second
    assert PLACEHOLDER.fullmatch(first)


def test_what_a_text_becomes_does_not_hang_on_what_was_read_before() -> None:
    value = random_token(5, 24)
    texts = [f"postgres://app:{value}@db:5432/x", f"API_KEY={value}"]
    forward, backward = make_redactor(), make_redactor()
    there = [forward.redact(t) for t in texts]
    back = [backward.redact(t) for t in reversed(texts)]
    assert there == back[::-1]
    assert forward.values == backward.values


def test_a_value_under_a_telling_key_goes_whatever_it_looks_like() -> None:
    redactor = make_redactor()
    tree = {"env": {"DB_PASSWORD": "correcthorse"}, "password_file": "/etc/x", "token": "${T}"}
    cleaned = redactor.redact_tree(tree)
    assert PLACEHOLDER.fullmatch(cleaned["env"].pop("DB_PASSWORD"))
    assert cleaned == {"env": {}, "password_file": "/etc/x", "token": "${T}"}


def test_words_paths_and_placeholders_are_never_propagated() -> None:
    assert may_propagate(random_token(3, 14))
    for value in (
        "correcthorse", "correct-horse-battery", "Some Words Here", "/etc/ssl/private", "123456789012",
        "<SECRET:jwt:0a1b2c3d>", "changeme-changeme", "hunter2x9",
    ):  # fmt: skip
        assert not may_propagate(value), value


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_redaction_of_any_text_is_idempotent(text: str) -> None:
    redactor = make_redactor()
    once = redactor.redact(text)
    assert redactor.redact(once) == once


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["password", "=", ": ", '"', "'", "token", "://", "@", "/home/", "a1b2c3d4e5", "\n", " ",
             "<SECRET:jwt:0a1b2c3d>", "Bearer ", "curl -u a:", "sk-", "machine x login y password ", "user1"]
        ),
        max_size=14,
    )
)  # fmt: skip
def test_redaction_of_pieces_of_secrets_is_idempotent(parts: list[str]) -> None:
    redactor = make_redactor()
    once = redactor.redact("".join(parts))
    assert redactor.redact(once) == once


def test_findings_are_spans_of_the_text() -> None:
    token = tokens(5)["github_pat"]
    text = f"é {token} 🤝 {token} \ud800"
    assert [text[f.start : f.end] for f in make_redactor().find(text)] == [token, token]


def test_a_rule_set_that_misses_a_canary_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    check_rules(make_redactor())
    fewer = tuple(r for r in redactor.RULES if "jwt" not in r.kind)
    monkeypatch.setattr(redactor, "RULES", fewer)
    redactor._ENGINES.clear()
    try:
        with pytest.raises(RedactionError, match="planted"):
            check_rules(make_redactor())
    finally:
        redactor._ENGINES.clear()


def test_the_self_test_leaves_no_values_behind() -> None:
    mine = make_redactor()
    mine.redact(f"API_KEY={random_token(1, 24)}")
    before = dict(mine.values)
    check_rules(mine)
    assert mine.values == before


def test_the_digest_changes_with_the_key_the_names_and_the_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests = {
        make_redactor().digest,
        Redactor(b"q" * 32).digest,
        make_redactor(names=("zed",)).digest,
        make_redactor(hosts=("zed",)).digest,
    }
    monkeypatch.setattr(redactor, "RULES", redactor.RULES[1:])
    digests.add(make_redactor().digest)
    assert len(digests) == 5
    assert not any("zed" in d for d in digests)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "town" / "redaction.key"
    key = load_key(path)
    assert len(key) == 32 and load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["redaction.key"]
    path.write_bytes(b"short")
    with pytest.raises(InputError, match="not a redaction key"):
        load_key(path)


def test_no_value_and_no_key_in_what_is_shown_of_a_redactor() -> None:
    mine = make_redactor()
    token = tokens(1)["github_pat"]
    mine.redact(token)
    assert mine.values and token not in repr(mine) and repr(KEY) not in repr(mine)


def test_canaries_stand_in_every_form() -> None:
    assert len(canaries.FORMS) >= 10


def test_every_canary_is_made_anew_and_long_enough_to_matter() -> None:
    canaries = make_canaries()
    assert len({kind for kind, _, _ in canaries}) >= 15
    assert all(secret in text and len(secret) >= 9 for _, text, secret in canaries)


def test_only_the_domain_of_pseudonyms_stays() -> None:
    said = Redactor(b"k" * 32).redact("- cc rowan.ash@example.org, quill@example.com on the digest")
    assert "rowan" not in said and "example.org" not in said
    assert "quill@example.com" in said
