"""Views: a secret in another form is found, its span covers it, and what stands around it is untouched."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.redaction import views
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.views import View

REDACTOR = Redactor(b"k" * 32)
LETTERS = string.ascii_letters + string.digits


def make_token(seed: int) -> str:
    rng = random.Random(seed)
    return "gh" + "p_" + "".join(rng.choice(LETTERS) for _ in range(34)) + "7q"


def escape(text: str) -> str:
    return json.dumps(text)[1:-1]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def encode_url_safe(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def percent(text: str) -> str:
    return quote(text, safe="")


def color(text: str) -> str:
    third = len(text) // 3
    return f"\x1b[1;32m{text[:third]}\x1b[0m\x1b[38;5;12m{text[third:]}\x1b[0m"


def fold(width: int) -> Callable[[str], str]:
    def change(text: str) -> str:
        return "\n".join(text[i : i + width] for i in range(0, len(text), width))

    return change


def number(text: str) -> str:
    return "\n".join(f"{i:6d}\t{line}" for i, line in enumerate(text.split("\n"), start=9))


def arrow(text: str) -> str:
    return "\n".join(f"{i:6d}→{line}" for i, line in enumerate(text.split("\n"), start=9))


def mark(sign: str) -> Callable[[str], str]:
    return lambda text: "\n".join(sign + line for line in text.split("\n"))


def hex_escape(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


CHAINS: dict[str, list[Callable[[str], str]]] = {
    "escaped": [escape],
    "escaped three times": [escape, escape, escape],
    "every letter escaped": [hex_escape],
    "percent": [percent],
    "percent in JSON": [percent, escape],
    "JSON in percent": [escape, percent],
    "ANSI": [color],
    "ANSI in JSON": [color, escape],
    "base64": [lambda t: encode(f"key {t} end")],
    "base64 for URLs": [lambda t: encode_url_safe(f"key?? {t} >>end")],
    "base64 twice": [lambda t: encode(f"key {t} end"), encode],
    "JSON in base64": [lambda t: json.dumps({"k": f"is\n{t}\n"}), encode],
    "base64 in JSON": [lambda t: encode(f"key {t} end"), lambda t: json.dumps({"data": t})],
    "base64 wrapped": [lambda t: encode(f"some words {t} and some more of them"), fold(60)],
    "base64 wrapped at 50": [lambda t: encode(f"some words {t} and some more of them"), fold(50)],
    "base64 wrapped, numbered": [lambda t: encode(f"some words {t} and more"), fold(64), number],
    "base64 wrapped in a diff": [lambda t: encode(f"some words {t} and more"), fold(64), mark("+")],
    "base64 wrapped in JSON": [lambda t: encode(f"some words {t} and more"), fold(64), escape],
    "wrapped": [fold(16)],
    "wrapped once": [fold(24)],
    "wrapped, numbered": [fold(16), number],
    "wrapped with arrows": [fold(16), arrow],
    "wrapped in a diff": [fold(16), mark("+")],
    "wrapped in a quote": [fold(16), mark("> ")],
    "wrapped in a box": [fold(16), mark("| ")],
    "wrapped and indented": [fold(16), mark("    ")],
    "wrapped, escaped": [fold(16), escape],
    "numbered, escaped twice": [number, escape, escape],
}


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_a_token_in_another_form_is_covered_and_the_rest_untouched(name: str) -> None:
    for seed in range(12):
        written = make_token(seed)
        for step in CHAINS[name]:
            written = step(written)
        text = f"before it\n{written}\n\nafter it 🤝"
        found = REDACTOR.find(text)
        assert found, (name, seed, text)
        start, end = text.index(written), text.index(written) + len(written)
        assert all(start <= f.start and f.end <= end for f in found)
        once = REDACTOR.redact(text)
        assert once.startswith("before it\n") and once.endswith("\n\nafter it 🤝")
        left = "".join(text[start + i] for i in range(end - start) if not _inside(start + i, found))
        body = make_token(seed)[4:]
        assert not any(body[i : i + 8] in left.replace("\n", "") for i in range(len(body) - 8)), (
            once
        )


def _inside(at: int, found: list[object]) -> bool:
    return any(f.start <= at < f.end for f in found)  # type: ignore[attr-defined]


STEPS = [escape, percent, color, encode, hex_escape]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    chain=st.lists(st.sampled_from(STEPS), max_size=3),
    before=st.text(alphabet="ab é→\n", max_size=30),
    after=st.text(alphabet="ab é→\n", max_size=30),
)
def test_a_token_is_found_through_chains_of_forms(
    seed: int, chain: list[Callable[[str], str]], before: str, after: str
) -> None:
    written = f"it is {make_token(seed)} so"
    for step in chain:
        written = step(written)
    # A blank line: one or two letters on the next line may well be the rest of a token that was cut.
    text = f"{before}\n\n{written}\n\n{after}"
    start = len(before) + 2
    found = [f for f in REDACTOR.find(text) if not f.personal]
    assert found
    assert all(start <= f.start < f.end <= start + len(written) for f in found)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["\\", "n", '"', "u0041", "\\ud83e\\udd1d", "%41", "%4", "\x1b[1m", "\x1b", "[0m", "é", "\n", "a", "\0",
             "\\x41", "   12\t", "+", "> ", "Zx9Kq7Lm", "4fT2"]
        ),
        max_size=40,
    )
)  # fmt: skip
def test_every_byte_of_a_view_maps_to_its_source_in_order(parts: list[str]) -> None:
    root = View("".join(parts).encode())
    for view in (views.decode(root), views.strip_prefixes(root), views.join_wraps(root)):
        if view is None:
            continue
        pieces = view.pieces
        assert sum(len(d) for d in _pieces_of(view)) == len(view.data)
        places = [view.find_source(i, i + 1) for i in range(len(view.data))]
        assert all(0 <= s < e <= len(root.data) for s, e in places)
        # Lines on both sides of a doubtful cut stand in a joined view twice.
        assert view.step == "join" or places == sorted(places)
        for i, (s, e) in enumerate(places):
            if e - s == 1 and view.step != "decode":
                assert root.data[s : s + 1] == view.data[i : i + 1]
        assert len(pieces.at) == len(pieces.source) == len(pieces.width)


def _pieces_of(view: View) -> list[bytes]:
    at = [*view.pieces.at, len(view.data)]
    return [view.data[a:b] for a, b in pairwise(at)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["\\", '"', "n", "t", "/", "u", "0", "é", "x"]), max_size=30))
def test_quick_and_exact_decoding_agree(parts: list[str]) -> None:
    data = "".join(parts).encode()
    exact = views._ESCAPE.sub(lambda m: views._undo(m.group()), data)
    assert views._decode_quickly(data) == exact


def test_lists_of_tokens_paths_and_settings_are_not_joined() -> None:
    for text in (
        "gtft/corpus/a1.py\ngtft/corpus/b2.py\ngtft/corpus/c3.py",
        "3f2a9b7c1d4e\nDB_HOST=x",
        "it was built with python3\nand then it failed",
        "API_KEY=\nDEBUG: 1",
    ):
        assert views.join_wraps(View(text.encode())) is None, text


@pytest.mark.parametrize(
    "text",
    [
        "\\" * 200_000,
        "%41" * 60_000,
        "\x1b[" * 60_000,
        "QUFB" * 50_000,
        "a1\n" * 60_000,
        "-----BEGIN " * 20_000,
        "\\u00" * 40_000,
        "/home/" * 40_000,
        "@a." * 60_000,
        "password=" * 20_000,
        "1:" * 80_000,
        "x" * 200_000,
        "ey" + "J" * 200_000,
        "machine a login b " * 10_000,
        "-" * 200_000,
        '"' * 200_000,
    ],
    ids=lambda t: repr(t[:8]),
)
def test_hostile_text_is_read_in_bounded_work(text: str) -> None:
    spent = []
    real = views.grow

    def count(view: View, hints: set[str]) -> object:
        for child in real(view, hints):
            spent.append(len(child.data))
            yield child

    views.grow = count  # type: ignore[assignment]
    try:
        REDACTOR.redact(text)
    finally:
        views.grow = real
    assert sum(spent) <= 60 * len(text) + 5_000_000
