"""Licence per source: what may be trained on, and why not."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.governance.licence import check_licences, refuse
from gtft.errors import RecipeError


@dataclass(frozen=True)
class Source:
    type: str
    path: str
    licence: str


@pytest.mark.parametrize(
    "licence",
    [
        "own",
        "MIT",
        "Apache-2.0",
        "BSD-3-Clause",
        "0BSD",
        "CC0-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "GPL-3.0-or-later",
        "AGPL-3.0-only",
        "MPL-2.0",
        "mit",
        "MIT AND CC-BY-4.0",
        "CC-BY-ND-4.0 OR MIT",
        "Apache-2.0 WITH LLVM-exception",
    ],
)
def test_what_allows_derivatives_is_taken(licence: str) -> None:
    assert refuse(licence) is None


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("CC-BY-ND-4.0", "derivatives"),
        ("CC-BY-NC-ND-4.0", "derivatives"),
        ("CC-BY-NC-4.0", "non-commercial"),
        ("MIT AND CC-BY-NC-SA-4.0", "non-commercial"),
        ("proprietary", "proprietary"),
        ("LicenseRef-Acme", "proprietary"),
        ("unknown", "nobody has said"),
        ("", "nobody has said"),
        ("NOASSERTION", "nobody has said"),
        ("MIT-but-not-really", "not a licence"),
        ("Apache-2.0-NC", "not a licence"),
        ("(MIT)", "not a licence"),
    ],
)
def test_what_does_not_is_refused_with_its_reason(licence: str, word: str) -> None:
    refusal = refuse(licence)
    assert refusal is not None
    assert word in refusal.reason


def test_non_commercial_text_goes_into_a_non_commercial_model() -> None:
    assert refuse("CC-BY-NC-4.0", model="cc-by-nc-4.0") is None
    assert refuse("CC-BY-NC-4.0", model="apache-2.0") is not None
    assert refuse("CC-BY-NC-ND-4.0", model="cc-by-nc-4.0") is not None


def test_the_recipe_may_accept_one_in_so_many_words() -> None:
    assert refuse("LicenseRef-Acme", allowed=("LicenseRef-Acme",)) is None
    assert refuse("LicenseRef-Acme AND CC-BY-ND-4.0", allowed=("LicenseRef-Acme",)) is not None
    assert refuse("CC-BY-ND-4.0", allowed=("CC-BY",)) is not None


def test_every_refused_source_is_named_at_once() -> None:
    sources = [
        Source("beads", "beads", "own"),
        Source("docs", "manual", "proprietary"),
        Source("docs", "wiki", "CC-BY-ND-4.0"),
    ]
    with pytest.raises(RecipeError) as e:
        check_licences(sources)
    assert [p.key for p in e.value.problems] == ["docs manual", "docs wiki"]
    assert str(e.value).splitlines()[1].startswith("  docs manual: ")
    assert "no derivatives" in str(e.value)
    check_licences(sources, ("proprietary", "CC-BY-ND-4.0"))


@given(st.text(max_size=200), st.text(max_size=20))
def test_any_text_gets_a_verdict(licence: str, model: str) -> None:
    refusal = refuse(licence, (), model)
    assert refusal is None or refusal.reason
