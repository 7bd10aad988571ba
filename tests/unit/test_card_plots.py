"""The pictures: PNGs, the same bytes for the same figures, drawn whatever things are called."""

import struct
from dataclasses import replace

import matplotlib
import pytest
from card_case import RUN, Case

from gtft.models.figures import CardFigures, gather_figures
from gtft.models.plots import COMPOSITION, EVAL, LOSS, draw_plots, smooth

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> CardFigures:
    return gather_figures(Case(tmp_path_factory.mktemp("ws")).fill(), RUN)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(SIGNATURE) and png.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def test_three_pngs_of_one_width(figures: CardFigures) -> None:
    plots = draw_plots(figures)
    assert list(plots) == [LOSS, COMPOSITION, EVAL]
    assert {size(png)[0] for png in plots.values()} == {1200}


def test_the_same_figures_give_the_same_bytes(figures: CardFigures) -> None:
    first = draw_plots(figures)
    # What a user has set in matplotlibrc must not show in an artifact, nor be lost by drawing one.
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 40}):
        assert draw_plots(figures) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert b"Software" not in first[LOSS] and b"matplotlib" not in first[LOSS]


def test_other_figures_give_other_bytes(figures: CardFigures) -> None:
    first = draw_plots(figures)
    other = draw_plots(
        replace(
            figures,
            corpus=replace(figures.corpus, by_role={"witness": 239, "polecat": 1}),
            adapter=replace(figures.adapter, series=((0, 3.0), (1, 1.0))),
            eval=replace(figures.eval, suites=figures.eval.suites[:1]),
        )
    )
    assert all(first[name] != other[name] for name in first)
    assert size(other[EVAL])[1] < size(first[EVAL])[1]


def test_source_by_role_is_drawn_when_it_is_recorded(figures: CardFigures) -> None:
    cells = {
        "claude-code": {f"role {n}": 10 * n for n in range(1, 12)},
        "beads": {"role 1": 1},
    }
    by_role = {f"role {n}": 10 * n for n in range(11, 0, -1)}
    corpus = replace(figures.corpus, cells=cells, by_role=by_role)
    drawn = draw_plots(replace(figures, corpus=corpus))[COMPOSITION]
    assert size(drawn)[0] == 1200
    assert drawn != draw_plots(figures)[COMPOSITION]


@pytest.mark.parametrize("text", ["$\\frac{1", "a\nb", "x" * 500, "", "\u202e\x00", "\ud800"])
def test_any_name_can_be_drawn(figures: CardFigures, text: str) -> None:
    suite = figures.eval.suites[0]
    named = replace(suite, capabilities=(replace(suite.capabilities[0], name=text),))
    drawn = draw_plots(
        replace(
            figures,
            corpus=replace(figures.corpus, by_role={text: 240}),
            eval=replace(figures.eval, suites=(named,)),
        )
    )
    assert {size(png)[0] for png in drawn.values()} == {1200}


def test_one_point_and_no_role_are_enough(figures: CardFigures) -> None:
    drawn = draw_plots(
        replace(
            figures,
            corpus=replace(figures.corpus, by_role={}, by_source={}),
            adapter=replace(figures.adapter, series=((1, 0.0),)),
        )
    )
    assert len(drawn) == 3


def test_smoothing_keeps_ends_and_length() -> None:
    values = [float(n % 7) for n in range(200)]
    smoothed = smooth(values)
    assert len(smoothed) == 200
    assert smoothed[0] == values[0] and smoothed[-1] == values[-1]
    assert max(smoothed[20:-20]) - min(smoothed[20:-20]) < 1
    assert smooth([4.0]) == [4.0]


def test_files_are_drawn_without_a_display(figures: CardFigures) -> None:
    before = matplotlib.get_backend()
    draw_plots(figures)
    assert matplotlib.get_backend() == before
