"""Lines of TOML keys: against tomli, which knows the values but not where they stand."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.recipe.lines import MAX_DEPTH, KeyPath, TooDeep, locate, write_path


def every_path(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    if isinstance(value, dict):
        below = [p for k, v in value.items() for p in every_path(v, (*path, k))]
    elif isinstance(value, list):
        below = [p for i, v in enumerate(value) for p in every_path(v, (*path, i))]
    else:
        below = []
    return ([path] if path else []) + below


TRICKY = '''# epochs = 1
title = "a # b"            # [gtft.train]
prose = """
epochs = 2
[gtft.train]
epochs = 3 \\""" still inside
and two quotes at the end"""""
raw = \'\'\'
epochs = 4\'\'\'
other . train.lora."r" = 8
other.train.inline = { a = 1, b.c = "}", d = [ { e = 1 }, { e = 2 } ] }

[gtft]
role = "x"
list = [
  "one",   # epochs = 5
  # "ghost",
  "two",
]
when = 1979-05-27 07:32:00
'quoted.key' = true

[[gtft.harvest.sources]]
path = "first"
[gtft.harvest.sources.deep]
x = 1
[[gtft.harvest.sources]]
path = "second"
[[gtft.harvest.sources.inner]]
y = 1
[[gtft.harvest.sources.inner]]
y = 2
'''


def test_tricky_file_has_every_key_on_its_line() -> None:
    lines = locate(TRICKY)
    expected: dict[KeyPath, int] = {
        ("title",): 2,
        ("prose",): 3,
        ("raw",): 8,
        ("other", "train", "lora", "r"): 10,
        ("other", "train", "inline", "b", "c"): 11,
        ("other", "train", "inline", "d", 1, "e"): 11,
        ("gtft", "role"): 14,
        ("gtft", "list", 0): 16,
        ("gtft", "list", 1): 18,
        ("gtft", "when"): 20,
        ("gtft", "quoted.key"): 21,
        ("gtft", "harvest", "sources", 0, "path"): 24,
        ("gtft", "harvest", "sources", 0, "deep", "x"): 26,
        ("gtft", "harvest", "sources", 1, "path"): 28,
        ("gtft", "harvest", "sources", 1, "inner", 0, "y"): 30,
        ("gtft", "harvest", "sources", 1, "inner", 1, "y"): 32,
    }
    assert {path: lines.lines.get(path) for path in expected} == expected
    assert set(lines.lines) == set(every_path(tomli.loads(TRICKY)))


def test_windows_line_ends_count_once() -> None:
    assert locate(TRICKY.replace("\n", "\r\n")).lines == locate(TRICKY).lines


def test_what_is_absent_is_found_at_its_table() -> None:
    lines = locate("a = 1\n[b]\nc = 2\n")
    assert lines.find(("b", "missing", "deeper")) == 2
    assert lines.find(("nothing",)) == 1


def test_an_inline_table_over_two_lines_is_noticed() -> None:
    assert locate("a = { b = 1,\n c = 2 }\n").wrapped == (1,)
    assert locate("a = { b = [1,\n 2] }\n").wrapped == ()


@pytest.mark.parametrize("text", ["a = " + "[" * 60 + "]" * 60, ".".join("a" * 60) + " = 1"])
def test_hostile_nesting_is_refused(text: str) -> None:
    tomli.loads(text)
    with pytest.raises(TooDeep):
        locate(text)


def test_paths_are_written_as_people_write_them() -> None:
    assert write_path(("gtft", "harvest", "sources", 1, "path")) == "gtft.harvest.sources[1].path"


_KEYS = st.text("ab.\"' #=[\n\té", min_size=0, max_size=4)
_TEXTS = st.text("ab\"'\\#=[]{},\n\r é", max_size=12)
_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-99, 99), st.floats(allow_nan=False), _TEXTS, st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(_KEYS, inner, max_size=3),
        st.lists(st.dictionaries(_KEYS, inner, min_size=1, max_size=2), min_size=1, max_size=3),
    ),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_key_of_any_document_has_a_line(data: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    lines = locate(text)
    assert set(every_path(tomli.loads(text))) == set(lines.lines)
    last = text.count("\n") + 1
    assert all(1 <= line <= last for line in lines.lines.values())


@given(
    st.lists(
        st.sampled_from(
            [
                "a",
                "b",
                "=",
                " = ",
                ".",
                "[",
                "]",
                "[[",
                "]]",
                "{",
                "}",
                ",",
                "\n",
                '"',
                '"""',
                "'",
                "'''",
                "\\",
                "#",
                "1",
                " ",
                "\r\n",
                "true",
                "1.5",
                "é",
            ]
        ),
        max_size=24,
    ).map("".join)
)
@settings(max_examples=400, deadline=None)
def test_whatever_tomli_reads_is_located(text: str) -> None:
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    assert set(every_path(data)) == set(locate(text).lines)
    assert len(max(locate(text).lines, key=len, default=())) <= MAX_DEPTH
