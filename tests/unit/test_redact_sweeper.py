"""Value propagation: what was a secret once goes wherever it stands, in every form, and nothing else does."""

from __future__ import annotations

import base64
import json
import random
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.redaction import sweeper as sweeper_module
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.sweeper import Sweeper, read_town_values
from gtft.errors import InputError

KEY = b"k" * 32


def make_value(seed: int, n: int = 20, letters: str = string.ascii_letters + string.digits) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(letters) for _ in range(n - 2)) + "7q"


def make_values(count: int) -> dict[str, str]:
    return {make_value(i): f"<SECRET:assigned_secret:{i:08x}>" for i in range(count)}


def make_slow(values: dict[str, str]) -> Sweeper:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeper_module, "HAS_HYPERSCAN", False)
        return Sweeper(values)


@pytest.mark.parametrize("make", [Sweeper, make_slow])
def test_a_value_goes_in_every_form(make: type[Sweeper]) -> None:
    value = make_value(3) + '"/' + "x9é"
    sweeper = make({value: "<SECRET:assigned_secret:0a1b2c3d>"})
    once = json.dumps(value)[1:-1]
    for form in (value, once, json.dumps(once)[1:-1], quote(value, safe=""), quote(value)):
        text = f"it was {form} then"
        assert sweeper.sweep(text) == "it was <SECRET:assigned_secret:0a1b2c3d> then", form
        assert sweeper.hits(text.encode())


@pytest.mark.parametrize("make", [Sweeper, make_slow])
@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
@pytest.mark.parametrize("after", ["", "\n", "xy", ":end"])
def test_a_value_goes_in_base64_at_every_alignment(
    make: type[Sweeper], before: str, after: str
) -> None:
    value = make_value(7)
    sweeper = make({value: "<SECRET:jwt:0a1b2c3d>"})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        form = encode((before + value + after).encode()).decode()
        assert sweeper.sweep(f"it was {form}, then") == "it was <SECRET:jwt:0a1b2c3d>, then"


def test_words_and_short_values_are_never_propagated() -> None:
    values = {
        "correcthorse": "<SECRET:a:00000000>",
        "hunter2x9": "<SECRET:a:00000001>",
        "x" * 20: "<SECRET:a:00000002>",
    }
    sweeper = Sweeper(values)
    text = "correcthorse hunter2x9 " + "x" * 20
    assert sweeper.sweep(text) == text
    assert not sweeper.hits(text.encode())


def test_of_values_within_values_the_longest_counts() -> None:
    short, long = make_value(1), make_value(2) + make_value(1) + make_value(3)
    sweeper = Sweeper({short: "<SECRET:a:00000001>", long: "<SECRET:a:00000002>"})
    assert sweeper.sweep(f"{long} {short}") == "<SECRET:a:00000002> <SECRET:a:00000001>"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=6), st.integers(0, 9)), max_size=12))
def test_both_ways_sweep_the_same_and_twice_is_once(parts: list[str | int]) -> None:
    values = list(VALUES)
    text = "".join(values[p] if isinstance(p, int) else p for p in parts)
    swept = FAST.sweep(text)
    assert swept == SLOW.sweep(text)
    assert FAST.sweep(swept) == swept
    assert not any(v in swept for v in VALUES)


VALUES = make_values(10)
FAST, SLOW = Sweeper(VALUES), make_slow(VALUES)


def test_thousands_of_values_in_one_pass() -> None:
    values = make_values(2000)
    sweeper = Sweeper(values)
    text = " ".join(f"{v} and" for v in values)
    assert sweeper.sweep(text) == " ".join(f"{p} and" for p in values.values())


def test_the_values_of_a_towns_settings_are_looked_for_everywhere(tmp_path: Path) -> None:
    one, two, three = make_value(1), make_value(2), make_value(3)
    (tmp_path / ".env").write_text(f"DEBUG=1\nexport DB_PASSWORD={one}\nAPI_TOKEN='{two}'\n")
    (tmp_path / "settings.json").write_text(
        json.dumps({"auth": {"client_secret": three}}, indent=2)
    )
    mine = Redactor(KEY)
    read_town_values([tmp_path / ".env", tmp_path / "settings.json"], mine)
    with pytest.raises(InputError, match="absent does not exist"):
        read_town_values([tmp_path / "absent"], mine)
    assert {one, two, three} <= set(mine.values)
    swept = Sweeper(mine.values).sweep(f"bare {one} {two} {three} end")
    assert not any(v in swept for v in (one, two, three))


def test_the_lines_of_a_key_block_are_known_again() -> None:
    lines = [make_value(i, 64) for i in range(4)]
    head, foot = "-----BEGIN " + "RSA PRIVATE KEY-----", "-----END " + "RSA PRIVATE KEY-----"
    mine = Redactor(KEY)
    mine.redact("\n".join([head, *lines, foot]))
    swept = Sweeper(mine.values).sweep(f"a line alone: {lines[2]}")
    assert lines[2] not in swept
