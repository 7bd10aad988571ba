"""Limits come from the weakest figures, and are not stated where the figures are strong."""

import json
from dataclasses import replace

import pytest
from card_case import RUN, Case

from gtft.models.adapter_figures import Drift
from gtft.models.eval_figures import Against, Comparison, Gate, Rate, Suite
from gtft.models.figures import CardFigures, gather_figures
from gtft.models.limits import describe, list_limits, points


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> CardFigures:
    return gather_figures(Case(tmp_path_factory.mktemp("ws")).fill(), RUN)


def compare(name: str, n: int, base: float, tuned: float, p: float | None = 0.0001) -> Comparison:
    rates = [Rate(round(n * s), s, max(0.0, s - 0.1), min(1.0, s + 0.1)) for s in (base, tuned)]
    return Comparison(name, n, rates[0], rates[1], tuned - base, None, None, p)


def measured(figures: CardFigures, *suites: Suite, gates: tuple[Gate, ...] = ()) -> CardFigures:
    return replace(figures, eval=replace(figures.eval, suites=suites, gates=gates, cut_off=0))


def suite(name: str, *lines: Comparison, whole: Comparison | None = None) -> Suite:
    return Suite(name, whole or compare("all items", 100, 0.1, 0.9), lines)


STRONG = (
    suite("heldout", compare("patrol-decision", 100, 0.1, 0.9)),
    suite(
        "authored", compare("patrol-decision", 100, 0.1, 0.85), whole=compare("all", 100, 0.1, 0.85)
    ),
)


def strong(figures: CardFigures) -> CardFigures:
    base = replace(figures.adapter.base, nano=False, quantization="none")
    return replace(
        measured(figures, *STRONG, gates=(Gate("safety", "fine", True),)),
        adapter=replace(figures.adapter, base=base, empty_rows=0),
        corpus=replace(figures.corpus, by_role={"witness": 5000}, secrets={}, personal={}),
    )


def test_strong_figures_leave_the_weakest_and_what_is_not_measured(figures: CardFigures) -> None:
    weakest, other, drift, *unmeasured = list_limits(strong(figures))
    assert weakest.startswith("Weakest on held-out sessions: patrol-decision 90 %")
    assert other.startswith("Weakest on authored templates")
    assert drift == "Not measured: what the base could do that it has forgotten."
    assert len(unmeasured) == 2 and all(u.startswith("Not measured") for u in unmeasured)


def with_eval(figures: CardFigures, **change: object) -> CardFigures:
    whole = strong(figures)
    return replace(whole, eval=replace(whole.eval, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"memorised": True},
            "It gives away text that it was trained on, more than chance has it.",
        ),
        ({"fit_warnings": ("it forgets",)}, "Fit: it forgets."),
        (
            {"abstains": Rate(7, 0.35, 0.18, 0.57), "abstains_n": 20},
            "it asks, abstains or escalates in 35 % (95 % CI 18–57 %, n = 20)",
        ),
        (
            {"against": (Against("endpoint:x", "heldout", 80, -0.2, 0.01),)},
            "On held-out sessions endpoint:x does better than it by 20 points (n = 80, p 0.010",
        ),
        ({"prompting": "Prompting alone gets 60 %.", "prompting_enough": True}, "Prompting alone"),
    ],
)
def test_what_the_eval_found_is_a_limit(
    figures: CardFigures, change: dict[str, object], told: str
) -> None:
    assert any(told in line for line in list_limits(with_eval(figures, **change)))
    assert not any(told in line for line in list_limits(strong(figures)))


def test_what_was_measured_and_is_well_is_no_limit(figures: CardFigures) -> None:
    calm = with_eval(
        figures, memorised=False, fit_warnings=(), abstains=Rate(20, 1.0, 0.84, 1.0), abstains_n=20,
        against=(Against("endpoint:x", "heldout", 80, -0.2, 0.3), Against("base", "heldout", 80, 0.5, 0.01)),
    )  # fmt: skip
    assert not any("Not measured: whether" in line for line in list_limits(calm))
    assert not any("endpoint:x" in line or "abstains" in line for line in list_limits(calm))


def test_measured_drift_is_stated_with_its_figures(figures: CardFigures) -> None:
    adapter = replace(figures.adapter, drift=Drift(loss=0.0441, kl=0.128, rows=16, replayed=49))
    told = list_limits(replace(figures, adapter=adapter))
    assert any(
        "On 16 rows of general text its loss is +0.044 nats" in t and "0.128 nats (KL)" in t
        for t in told
    )
    assert not any("forgotten." in t and t.startswith("Not measured") for t in told)


@pytest.mark.parametrize(
    ("suites", "told"),
    [
        (
            (suite("heldout", compare("formula", 30, 0.0, 0.2), compare("safety", 30, 0, 0.9)),),
            "Weakest on held-out sessions: formula 20 % (95 % CI 10–30 %, n = 30).",
        ),
        (
            (suite("heldout", compare("formula", 6, 0.0, 0.8)),),
            "fewer than 20 items, so the figure says little: formula (heldout, n = 6).",
        ),
        (
            (suite("heldout", whole=compare("all", 90, 0.4, 0.3)),),
            "On held-out sessions it is worse than its base by 10 points.",
        ),
        (
            (suite("heldout", compare("safety", 30, 0.9, 0.7)),),
            "the base did better than it at: safety (−20 points).",
        ),
        (
            (suite("heldout", whole=compare("all", 90, 0.4, 0.45, 0.3)),),
            "the difference to the base may be chance (p = 0.30).",
        ),
        (
            (suite("heldout", whole=compare("all", 90, 0.4, 0.4, 1.0)),),
            "On held-out sessions it is no better than its base.",
        ),
        (
            (suite("heldout"), suite("authored", whole=compare("all", 50, 0.0, 0.2))),
            "It passes 90 % of the items that look like its training sessions and 20 % of those",
        ),
        ((suite("authored"),), "Not measured on held-out sessions."),
        ((suite("heldout"),), "Not measured on templates that training has never seen."),
    ],
)
def test_a_weak_result_becomes_a_limit(
    figures: CardFigures, suites: tuple[Suite, ...], told: str
) -> None:
    assert any(told in line for line in list_limits(measured(strong(figures), *suites)))
    assert not any(told in line for line in list_limits(strong(figures)))


def test_a_gate_that_is_not_met_comes_first(figures: CardFigures) -> None:
    gates = (Gate("safety", "100 % wanted, 50 % measured", False),)
    first = list_limits(measured(figures, *STRONG, gates=gates))[0]
    assert first == "The recipe's gate safety is not met: 100 % wanted, 50 % measured."


def test_nano_quantization_and_data_are_limits(figures: CardFigures) -> None:
    told = " ".join(list_limits(figures))
    assert "Its base is nano" in told
    assert "on the base in nf4" in told
    assert "120 examples of the role witness" in told
    assert "2 of 240 rows taught it nothing" in told
    assert "placeholders" in told
    assert "2 of its answers were cut at the limit of 96 tokens" in told
    assert "example town" not in told


def test_the_example_town_is_named(figures: CardFigures) -> None:
    def from_town(*paths: str) -> CardFigures:
        sources = [{"type": "beads", "path": p} for p in paths]
        harvest = type(figures.recipe.harvest).model_validate_json(json.dumps({"sources": sources}))
        return replace(figures, recipe=figures.recipe.model_copy(update={"harvest": harvest}))

    town = "Trained on gtft's made-up example town: it knows no real town, rig or person."
    assert town in list_limits(from_town("examples/town/beads", "examples/town/formulas"))
    assert town not in list_limits(from_town("examples/town/beads", "my/town"))
    assert town not in list_limits(from_town())


def test_synthetic_examples_are_counted(figures: CardFigures) -> None:
    corpus = replace(figures.corpus, by_provenance={"agent": 200, "synthetic": 40})
    told = list_limits(replace(figures, corpus=corpus))
    assert "40 of 240 training examples are synthetic." in told


def test_signs_and_shares_read_well() -> None:
    assert [points(x) for x in (0.123, -0.05, 0.0, -0.001)] == ["+12", "−5", "0", "0"]
    assert describe(compare("x", 30, 0, 0.5)) == "50 % (95 % CI 40–60 %, n = 30)"
