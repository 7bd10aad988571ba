"""The page of a run: one file that needs nobody, shows the training and trusts no text in it."""

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from gtft.cli.main import main
from gtft.contract import EVENTS_FILE, METRICS_FILE
from gtft.runner.page import draw_page, gather_page
from gtft.runner.plot import Line, Marks, draw_lines, smooth, thin
from gtft.runner.workspace import Workspace
from run_case import add_run, claim_of, finish_stage

HOSTILE = '</svg><script>alert(1)</script><img src="http://x.example/y">\x1b[2J\u202e&'


class Reader(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def write_training(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True)
    figures = [
        {"step": n, "name": name, "value": value}
        for n in range(1, steps + 1)
        for name, value in (
            ("loss", 3.0 * math.exp(-n / 50)),
            ("learning_rate", 1e-4 / n),
            ("grad_norm", 1.0 / n),
            ("tokens_per_s", 500.0 + n),
            ("memory_bytes", 2e9 + n),
        )
    ]
    figures += [{"step": n, "name": "validation_loss", "value": 2.0} for n in range(0, steps, 25)]
    figures += [{"step": n, "name": "general_kl", "value": 0.01} for n in range(0, steps, 25)]
    events = [
        {"event": "progress", "done": steps // 2, "total": steps, "unit": "steps"},
        {"event": "checkpoint", "path": "x", "step": steps // 2},
        {"event": "paused", "step": steps // 2},
        {"event": "progress", "done": steps // 2, "total": steps, "unit": "steps"},
        {"event": "warning", "code": "overfit", "text": HOSTILE},
    ]
    (folder / METRICS_FILE).write_text("".join(json.dumps(f) + "\n" for f in figures))
    (folder / EVENTS_FILE).write_text("".join(json.dumps(e) + "\n" for e in events))


def make_page(ws: Workspace, steps: int) -> str:
    run = add_run(ws)
    finish_stage(ws, claim_of(ws, run.id))
    claim_of(ws, run.id)
    if steps:
        write_training(ws.job_dir(run.id, "train"), steps)
    ws.store.add_event(run.id, None, "refused", HOSTILE, HOSTILE)
    recipe = f'name = "x"\nlicence = "{HOSTILE}"\n'
    page = gather_page(ws, run, recipe, ("time: planned 8.6 min, took 9.1 min", HOSTILE))
    assert draw_page(page) == draw_page(page)
    return draw_page(page)


@pytest.mark.parametrize("steps", [0, 1, 300])
def test_the_page_needs_no_network_and_runs_nothing(ws: Workspace, steps: int) -> None:
    page = make_page(ws, steps)
    read = Reader(page)
    assert not {"script", "img", "link", "iframe", "object", "a", "form"} & set(read.tags)
    assert not {k for k, _ in read.attributes} & {"src", "href", "style", "onload", "onclick"}
    assert "url(" not in page and "@import" not in page
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes
    assert "\x1b" not in page and "\u202e" not in page
    assert read.text.count("<script>alert(1)</script>") >= 3
    assert "\\x1b[2J\\u202e&" in read.text


def test_the_page_shows_every_figure_and_mark(ws: Workspace) -> None:
    page = make_page(ws, 300)
    titles = re.findall(r"<figcaption>([^<]*)", page)
    assert [t.strip() for t in titles] == [
        "Loss", "Distance from the base", "Learning rate", "Gradient norm", "Tokens per second", "Memory",
    ]  # fmt: skip
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        assert "nan" not in drawing and "inf" not in drawing
        assert "checkpoint at step 150" in drawing
        texts = [t.text for t in ET.fromstring(drawing).iter() if t.tag == "text"]
        assert {"paused 150", "resumed 150"} <= set(texts)
    text = Reader(page).text
    assert "planned 8.6 min, took 9.1 min" in text
    for wanted in (
        "300 of 300",
        "best held-out, step 0",
        "tokens/s (median)",
        "sha256:r",
        "gtft run",
    ):
        assert wanted in text, wanted


def test_a_run_that_did_not_train_yet_says_so(ws: Workspace) -> None:
    page = make_page(ws, 0)
    assert "No step was trained yet." in page
    assert "<svg" not in page


@pytest.mark.parametrize(
    "values", [[1.0], [2.0, 2.0, 2.0], [0.0, 0.0], [1e308, -1e308], [5e-324, 1.0], [-3.0, 4.0]]
)
def test_any_values_give_a_drawing_inside_its_box(values: list[float]) -> None:
    points = list(enumerate(values))
    drawn = draw_lines(
        HOSTILE, [Line("x", points)], Marks([0], [0], [0]), str, steps=(0, len(values) - 1)
    )
    root = ET.fromstring(drawn)
    places = [p for t in root.iter("polyline") for p in t.attrib["points"].split()]
    assert len(places) == len(values)
    for place in places:
        x, y = map(float, place.split(","))
        assert 0 <= x <= 760 and 0 <= y <= 230


def test_a_spike_survives_when_points_are_left_out() -> None:
    points = [(n, 1.0) for n in range(100_000)]
    points[70_001] = (70_001, 50.0)
    kept = thin(points)
    assert len(kept) < 1000
    assert (70_001, 50.0) in kept
    assert [s for s, _ in kept] == sorted(s for s, _ in kept)


def test_smoothing_keeps_the_ends_and_the_steps() -> None:
    points = [(n * 2, float(n % 2)) for n in range(101)]
    smoothed = smooth(points)
    assert [s for s, _ in smoothed] == [s for s, _ in points]
    assert smoothed[0] == points[0] and smoothed[-1] == points[-1]
    assert abs(smoothed[50][1] - 0.5) < 0.1


def test_the_command_writes_one_file_and_nothing_beside_it(ws: Workspace, tmp_path: Path) -> None:
    run = add_run(ws)
    write_training(ws.job_dir(run.id, "train"), 40)
    folder = tmp_path / "out"
    folder.mkdir()
    argv = ["--workspace", str(ws.path), "runs", "page", "run-1", "--out", str(folder / "r.html")]
    for _ in range(2):
        done = CliRunner().invoke(main, argv)
        assert done.exit_code == 0, done.output
    assert [p.name for p in folder.iterdir()] == ["r.html"]
    assert Reader((folder / "r.html").read_text("utf-8")).text.count("witness") >= 2
    done = CliRunner().invoke(main, [*argv, "--json"])
    assert json.loads(done.output)["data"] == {"run": "run-1", "html": str(folder / "r.html")}
