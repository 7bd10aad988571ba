"""The engine: both gates find the same, long texts are read in windows, bad rules are named."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.redaction import engine as engine_module
from gtft.corpus.redaction import gate, personal, redactor
from gtft.corpus.redaction.canaries import FORMS, make_canaries
from gtft.corpus.redaction.engine import Engine
from gtft.corpus.redaction.gate import HyperscanGate, SlowGate, compile_re2, make_gate
from gtft.corpus.redaction.personal import Detector
from gtft.corpus.redaction.redactor import RedactionConfig, Redactor, start_redactor
from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules import RULES
from gtft.errors import RedactionError

KEY = b"k" * 32


@pytest.fixture(scope="module")
def engines() -> tuple[Engine, Engine]:
    """The same rules behind both gates."""
    fast = Engine(RULES, Detector())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "HAS_HYPERSCAN", False)
        slow = Engine(RULES, Detector())
    assert isinstance(fast._gate, HyperscanGate) and isinstance(slow._gate, SlowGate)
    return fast, slow


def test_both_gates_find_the_same_canaries(engines: tuple[Engine, Engine]) -> None:
    fast, slow = engines
    for _, text, _ in make_canaries():
        for write, _ in FORMS.values():
            data = f"x\n{write(text)}\ny /home/steve/ ann@corp.io".encode()
            assert fast.find(data) == slow.find(data) != []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                ["password", "=", '"', "gh" + "p_", "a1B2c3D4e5F6g7H8", "\n", "://", "@", ":", "/home/", "\\n", "%41",
                 "QWxhZGRpbjpvcGVuIHNlc2FtZQ", "   7\t", "Bearer ", "-----BEGIN RSA PRIVATE KEY-----", "10.20.30.40", "::1"]
            ),
        ),
        max_size=14,
    )
)  # fmt: skip
def test_both_gates_find_the_same_anywhere(
    engines: tuple[Engine, Engine], parts: list[str]
) -> None:
    fast, slow = engines
    data = "".join(parts).encode("utf-8", "surrogatepass")
    assert (fast.find(data) or []) == (slow.find(data) or [])


def test_every_expression_opens_both_gates_for_what_its_pattern_matches() -> None:
    fast = HyperscanGate(["a+b", "(?i)pass", "^x", "[0-9]{3}"])
    slow = SlowGate(["a+b", "(?i)pass", "^x", "[0-9]{3}"])
    for data in (b"aab", b"PASSx", b"x1234", b"", b"\xff\xfe12"):
        assert fast.open_for(data) == slow.open_for(data)


def test_one_bad_expression_is_named() -> None:
    for make in (HyperscanGate, SlowGate):
        with pytest.raises(RedactionError) as caught:
            make(["fine", "(unclosed", "also fine"])
        assert "(unclosed" in caught.value.why
    with pytest.raises(RedactionError):
        compile_re2("(?=lookahead)")


def test_a_rule_of_the_town_is_used_and_a_bad_one_stops_everything() -> None:
    value = "zz9" + "plural" + "z4alpha"
    own = Rule("town_token", "zz9[a-z0-9]{8,40}", gate=("zz9",))
    text = Redactor(KEY, RedactionConfig(rules=(own,))).redact(f"it is {value} now")
    assert text.startswith("it is <SECRET:town_token:") and text.endswith("> now")
    with pytest.raises(RedactionError):
        Redactor(KEY, RedactionConfig(rules=(Rule("bad", "(", gate=("x",)),)))


def test_every_rule_of_ours_compiles() -> None:
    for rule in RULES:
        compile_re2(rule.pattern)
    for pattern in personal._PATTERNS.values():
        compile_re2(pattern)


def test_a_rule_that_does_not_compile_stops_what_it_is_asked_for() -> None:
    engine = Engine([Rule("bad", "(", gate=("x",))], Detector())
    with pytest.raises(RedactionError):
        engine.find(b"an x is here")


def count_compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a gate was compiled rather than loaded, from now on."""
    hyperscan = pytest.importorskip("hyperscan")
    counted: list[int] = []

    class Counting(hyperscan.Database):  # type: ignore[misc]
        def compile(self, *args: object, **more: object) -> None:
            counted.append(1)
            super().compile(*args, **more)

    monkeypatch.setattr(hyperscan, "Database", Counting)
    return counted


def test_a_dumped_gate_is_loaded_where_the_expressions_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = count_compiled(monkeypatch)
    dumped = make_gate(["abc", "[0-9]{3}"]).dump()
    assert compiled == [1]
    again = make_gate(["abc", "[0-9]{3}"], dumped)
    assert again.open_for(b"123 abc") == {0, 1} and compiled == [1]
    assert make_gate(["xyz", "[0-9]{3}"], dumped).open_for(b"xyz") == {0} and compiled == [1, 1]
    assert make_gate(["abc", "[0-9]{3}"], dumped[:40]).open_for(b"abc") == {0}
    assert compiled == [1, 1, 1]


def test_a_gate_that_is_kept_counts_under_the_seal_of_the_key_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = count_compiled(monkeypatch)

    def start(key: bytes) -> None:
        redactor._ENGINES.clear()
        mine = start_redactor(key, RedactionConfig(hosts=("kept",)), tmp_path / "cache")
        assert mine.redact(make_token(3)).startswith("<SECRET:")

    start(KEY)
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    start(KEY)
    assert compiled == [1]
    start(b"q" * 32)
    assert compiled == [1, 1]
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    start(b"q" * 32)
    assert compiled == [1, 1, 1]


def test_neighbours_that_a_rule_forbids_hide_nothing_else() -> None:
    rule = Rule("t", "Q[0-9]{6}", not_before="A-Z", not_after="0-9")
    engine = Engine([rule], Detector())
    assert [s.start for s in engine.find(b"Q123456 XQ123456 Q1234567") or ()] == [0]
    # A sign of a diff is no neighbour.
    assert Engine([Rule("t", "Q[0-9]{6}", not_before="+")], Detector()).find(b"\n+Q123456")


def make_token(seed: int) -> str:
    rng = random.Random(seed)
    body = "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(36))
    return "gh" + "p_" + body


def test_a_long_text_is_read_in_windows_that_cut_nothing() -> None:
    words = "some words of prose that say nothing much\n"
    size = engine_module._PIECE
    mine = Redactor(KEY)
    for at in (size - 60, size - 20, size - 1, size, size + 1, 2 * size - 20):
        text = (words * (3 * size // len(words)))[:at] + f" {make_token(at)} " + words * 2000
        found = mine.find(text)
        assert [text[f.start : f.end] for f in found] == [make_token(at)]
    endless = "x" * (size + 100) + " " + make_token(1) + " " + "é" * size
    assert [endless[f.start : f.end] for f in mine.find(endless)] == [make_token(1)]


def test_a_secret_gives_its_kind_before_its_context_does() -> None:
    token = make_token(4)
    (found,) = Redactor(KEY).find(f'GITHUB_TOKEN="{token}"')
    assert found.kind == "github_pat" and found.value == token


def test_clean_texts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Redactor(KEY)
    text = "a key=value that is no secret, in /home/user/x\n" * 3
    assert mine.redact(text) == text
    monkeypatch.setattr(mine._engine, "find", lambda data: pytest.fail("read again"))
    assert mine.redact(text) == text
    redactor._ENGINES.clear()
