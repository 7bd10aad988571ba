"""What `gtft corpus redact` shows: spans of the original, values met elsewhere, files of any size."""

from __future__ import annotations

import io
import random
import string

import pytest

from gtft.corpus.redaction import show
from gtft.corpus.redaction.redactor import RedactionConfig
from gtft.corpus.redaction.show import Shown, Spot

SHOWN = Shown(b"k" * 32, RedactionConfig())


def make_value(seed: int, n: int = 36) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(n - 2)) + "7q"


def run(text: str) -> tuple[str, list[Spot]]:
    data = text.encode()
    SHOWN.learn(io.BytesIO(data))
    texts: list[str] = []
    spots: list[Spot] = []
    for part, found in SHOWN.show(io.BytesIO(data)):
        texts.append(part)
        spots += found
    return "".join(texts), spots


def apply(text: str, spots: list[Spot]) -> str:
    for s in reversed(spots):
        text = text[: s.start] + s.replacement + text[s.end :]
    return text


def test_spans_are_code_points_of_the_original_and_give_the_text() -> None:
    token, word = "gh" + "p_" + make_value(1), "correct" + "horse"
    text = f'é🤝 {token} 🤝\npassword = "{word}"\nmail ann@corp.io {token}\n'
    shown, spots = run(text)
    assert [text[s.start : s.end] for s in spots] == [token, word, "ann@corp.io", token]
    assert apply(text, spots) == shown
    assert {s.reader for s in spots} >= {"rules"}
    assert not any(token in str(s.as_dict()) or word in str(s.as_dict()) for s in spots)


def test_a_value_is_found_bare_before_and_after_it_was_met() -> None:
    value = make_value(2, 20)
    text = f"first {value} bare\n" + "prose\n" * 50 + f"API_TOKEN={value}\n" + f"then {value}\n"
    shown, spots = run(text)
    assert value not in shown and len(spots) == 3
    assert {s.reader for s in spots} == {"rules", "values"}


@pytest.mark.parametrize("line", ["prose that says nothing\n", "x", "é"])
def test_a_file_is_read_in_pieces_that_cut_nothing(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "_PIECE", 4000)
    monkeypatch.setattr(show, "_OVERLAP", 500)
    for at in (3950, 3980, 4000, 4490, 8000):
        token = "gh" + "p_" + make_value(at)
        text = (line * 4000)[:at] + f" {token} " + (line * 4000)[:9000]
        shown, spots = run(text)
        assert [text[s.start : s.end] for s in spots] == [token]
        assert apply(text, spots) == shown


def test_bytes_that_are_no_utf8_and_an_empty_file() -> None:
    assert list(SHOWN.show(io.BytesIO(b""))) == []
    ((text, spots),) = SHOWN.show(io.BytesIO(b"a\xff\xfe b"))
    assert text == "a�� b" and spots == []
