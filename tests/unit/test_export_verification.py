"""The comparison itself: what it measures, and that a mismatch says where it starts."""

from collections.abc import Sequence
from typing import Any

import numpy
import pytest

from gtft.errors import EvidenceError, GateFailed
from gtft.exports.format import (
    CARRIES,
    DTYPES,
    FEATURES,
    FORMATS,
    LIMITS,
    QUANTS,
    find_limit,
    refuse_uncarried,
)
from gtft.exports.prompts import FEWEST, Prompt, Question, choose_questions, write_prompts
from gtft.exports.source import Asked
from gtft.exports.verification import (
    Limit,
    Recorded,
    Verdict,
    require_equal,
    require_same_ends,
    require_same_prompts,
    require_same_template,
    verify,
)
from gtft.runner import exporting

WORDS = ("stop", "yes", "no", "wait")
LIMIT = Limit(kl_mean=0.01, kl_max=0.1, top1=0.9, tie=0.05, why="for this test")


class Table:
    """Answers by a table: the last token decides the next one's probabilities."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = numpy.log(numpy.array(rows) / numpy.sum(rows, axis=1, keepdims=True))

    def is_end(self, token: int) -> bool:
        return token == 0

    def answer(self, prompt: Sequence[int], most: int) -> list[int]:
        out: list[int] = []
        while len(out) < most and (not out or out[-1]):
            out.append(int(self.rows[(out or list(prompt))[-1]].argmax()))
        return out

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        row = [*prompt, *answer]
        return self.rows[row[len(prompt) - 1 : -1]]


class Words:
    """One token per word."""

    template = "words"

    def write(self, question: Question) -> tuple[int, ...]:
        return tuple(WORDS.index(w) for w in str(question.messages[0]["content"]).split())

    def tell(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i] for i in ids)


# yes -> wait -> no -> stop.
ROWS = [[9, 1, 1, 1], [1, 1, 1, 9], [9, 1, 1, 1], [1, 1, 9, 1]]
PROMPTS = [Prompt("one", (1,), (1,)), Prompt("two", (2, 3), (2, 3))]


def compare(rows: Sequence[Sequence[float]], prompts: Sequence[Prompt] = PROMPTS) -> Verdict:
    return verify(Recorded(Table(ROWS), prompts), Table(rows), prompts, Words())


def test_the_same_model_is_equal_in_every_figure() -> None:
    verdict = compare(ROWS)
    assert (verdict.kl_mean, verdict.kl_max, verdict.top1_agreement) == (0.0, 0.0, 1.0)
    assert (verdict.greedy_equal, verdict.prompts, verdict.tokens) == (2, 2, 5)
    assert verdict.first is None
    require_equal(verdict, LIMIT, "it")


def test_kl_is_of_the_adapter_against_the_export() -> None:
    prompts = [Prompt("one", (2,), (2,))]
    verdict = compare([*ROWS[:2], [6, 2, 2, 2], ROWS[3]], prompts)
    p, q = numpy.array([9, 1, 1, 1]) / 12, numpy.array([6, 2, 2, 2]) / 12
    assert verdict.kl_mean == pytest.approx(float((p * numpy.log(p / q)).sum()))
    assert verdict.greedy_equal == 1
    with pytest.raises(GateFailed, match="does not answer as the adapter does") as e:
        require_equal(verdict, LIMIT, "it", "witness-1")
    assert "mean KL" in e.value.why
    assert "witness-1" in e.value.fix


def test_a_difference_says_where_it_starts_and_what_stands_there() -> None:
    verdict = compare([*ROWS[:3], [1, 9, 1, 1]])
    assert verdict.greedy_equal == 0
    first = verdict.first
    assert first is not None
    assert (first.prompt, first.place, first.position) == ("one", "answer", 1)
    assert (first.expected, first.got) == ("no", "yes")
    assert first.gap == pytest.approx(2.2, abs=0.01)
    with pytest.raises(GateFailed) as e:
        require_equal(verdict, LIMIT, "it")
    assert "token 1: the adapter has 'no', the export 'yes'" in e.value.why


def test_a_tie_may_go_either_way_but_is_counted() -> None:
    near = [*ROWS[:3], [1, 9.001, 9, 1]]
    reference = [*ROWS[:3], [1, 9, 9.001, 1]]
    verdict = verify(Table(reference), Table(near), PROMPTS, Words())
    assert verdict.greedy_equal == 0
    require_equal(verdict, Limit(0.01, 0.1, 0.0, 0.05, ""), "it")
    with pytest.raises(GateFailed, match="it"):
        require_equal(verdict, Limit(0.01, 0.1, 0.0, 0.0, ""), "it")
    require_equal(compare([*ROWS[:3], [1, 9, 1, 1]]), Limit(9, 9, 0.0, None, ""), "it")


def test_the_top_token_is_judged_where_the_adapter_is_decided() -> None:
    """A close call decides nothing; a token that it is sure of does."""
    limit = Limit(9, 9, 0.9, None, "")
    close = [*ROWS[:3], [1, 9, 9.5, 1]]
    verdict = verify(Table(close), Table([*ROWS[:3], [1, 9.5, 9, 1]]), PROMPTS, Words())
    assert verdict.top1_agreement < 0.9
    assert verdict.top1_decided == 1.0
    require_equal(verdict, limit, "it")
    verdict = compare([*ROWS[:3], [1, 9.5, 9, 1]])
    assert verdict.top1_decided == verdict.top1_agreement < 0.9
    with pytest.raises(GateFailed, match="where the adapter is decided"):
        require_equal(verdict, limit, "it")


def test_an_export_that_lost_what_was_learnt_fails_however_wide_its_limit() -> None:
    """Half of the way back to the base is too far, where the way is longer than rounding."""
    wide = Limit(9, 9, 0.0, None, "")
    base = [*ROWS[:2], [8, 2, 1, 1], ROWS[3]]
    reference = Recorded(Table(ROWS), PROMPTS, Table(base))
    forgotten = verify(reference, Table(base), PROMPTS, Words())
    assert reference.kl_base == pytest.approx(forgotten.kl_mean)
    with pytest.raises(GateFailed, match="all that the adapter learnt"):
        require_equal(forgotten, wide, "it")
    near = [*ROWS[:2], [8.7, 1.3, 1, 1], ROWS[3]]
    require_equal(verify(reference, Table(near), PROMPTS, Words()), wide, "it")
    # An adapter that learnt next to nothing is not judged by it.
    hair = [*ROWS[:2], [9.01, 1, 1, 1], ROWS[3]]
    reference = Recorded(Table(ROWS), PROMPTS, Table(hair))
    require_equal(verify(reference, Table(hair), PROMPTS, Words()), wide, "it")


def test_a_template_or_an_end_that_is_another_fails() -> None:
    other = Words()
    other.template = "words, words"
    require_same_template(Words(), Words())
    with pytest.raises(GateFailed, match="does not answer") as e:
        require_same_template(Words(), other)
    assert "from character 5" in e.value.why
    require_same_ends([0], Table(ROWS), Words())
    with pytest.raises(GateFailed, match="does not answer") as e:
        require_same_ends([0, 2], Table(ROWS), Words())
    assert "do not end at 'no'" in e.value.why


def test_another_prompt_is_a_mismatch_whatever_would_be_answered() -> None:
    require_same_prompts(PROMPTS, Words())
    prompts = [*PROMPTS, Prompt("three", (3, 1), (3, 99)), Prompt("four", (1,), (1, 2))]
    with pytest.raises(GateFailed, match="does not answer") as e:
        require_same_prompts(prompts, Words())
    assert "2 of 4 prompts are written differently" in e.value.why
    assert "prompt 'three', token 1: the adapter has 'yes', the export 'ids [99]'" in e.value.why


def test_an_answer_that_ends_earlier_is_a_difference() -> None:
    verdict = compare([*ROWS[:3], [9, 1, 1, 1]], [Prompt("one", (1,), (1,))])
    assert verdict.first is not None
    assert (verdict.first.expected, verdict.first.got) == ("no", "stop")


def test_what_cannot_be_compared_fails() -> None:
    with pytest.raises(GateFailed, match="cannot answer") as e:
        compare([[1.0, 2.0]] * 4)
    assert "vocabulary" in e.value.why
    broken = Table(ROWS)
    broken.rows[3] = numpy.nan
    with pytest.raises(GateFailed) as e:
        verify(Table(ROWS), broken, PROMPTS, Words())
    assert "not numbers" in e.value.why


def test_an_impossible_token_is_a_large_figure_and_not_an_error() -> None:
    broken = Table(ROWS)
    broken.rows[3] = [-numpy.inf, 0.0, -numpy.inf, -numpy.inf]
    verdict = verify(Table(ROWS), broken, PROMPTS, Words())
    assert numpy.isfinite(verdict.kl_max)
    assert verdict.kl_max > 100


def test_the_figures_are_told_with_three_digits() -> None:
    told = Verdict(2, 5, 0.000123456, 0.0123456, 0.98765432, 1, ()).as_dict()
    assert (told["kl_mean"], told["kl_max"], told["top1_agreement"]) == (0.000123, 0.0123, 0.9877)


def test_the_questions_are_short_and_of_many_kinds() -> None:
    questions = choose_questions()
    assert len(questions) == len({q.name for q in questions}) >= FEWEST
    assert any(q.tools for q in questions)
    assert choose_questions() == questions


def test_prompts_that_do_not_fit_are_left_out_and_too_few_are_refused() -> None:
    questions = [Question(f"q{n}", ({"role": "user", "content": "yes no"},)) for n in range(FEWEST)]
    assert len(write_prompts(questions, Words(), Words(), 100)) == FEWEST
    with pytest.raises(EvidenceError, match=f"only 0 of {FEWEST}"):
        write_prompts(questions, Words(), Words(), 10)


# -- the tables


def test_every_format_says_of_every_feature_how_it_carries_it() -> None:
    assert set(CARRIES) == set(FORMATS)
    for form in FORMATS:
        assert set(CARRIES[form]) == set(FEATURES)
        for feature, carried in CARRIES[form].items():
            assert carried.how
            if carried.instead:
                # The way that works does work.
                assert not CARRIES[carried.instead][feature].instead


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("feature", list(FEATURES))
def test_what_a_format_cannot_carry_is_refused_with_the_way_that_works(
    form: str, feature: str
) -> None:
    instead = CARRIES[form][feature].instead
    if not instead:
        refuse_uncarried(
            form, frozenset({"lora", feature} if feature != "full" else {feature}), "m"
        )
        return
    with pytest.raises(Exception, match=f"{form} cannot carry") as e:
        refuse_uncarried(form, frozenset({feature}), "m")
    assert getattr(e.value, "fix", "") == f"gtft model export m --format {instead}"


def test_every_format_and_kind_has_a_limit_with_its_reason() -> None:
    for form in FORMATS:
        for asked in (Asked(form, d, q) for d in DTYPES for q in QUANTS):
            assert find_limit(form, asked.kind).why
    for limit in LIMITS.values():
        assert 0 < limit.kl_mean < limit.kl_max
        assert 0 < limit.top1 <= 1


def test_the_command_line_knows_the_same_names() -> None:
    assert (exporting.FORMATS, exporting.DTYPES, exporting.QUANTS) == (FORMATS, DTYPES, QUANTS)
