"""The HTML page: complete, well formed, and deaf to what hostile files put into names and texts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from gtft.corpus.health.conflict import Conflict, Rules
from gtft.corpus.health.measure import Figures, Meter, make_flow
from gtft.corpus.health.page import draw_page
from gtft.corpus.tally import Tally
from health_case import answer, call, example, user

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Tags must nest; texts and tags are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.stack == []
    return reader


def report(name: str = "x") -> dict[str, Any]:
    meter = Meter("witness", 1000)
    texts = {}
    for n in range(30):
        e = example(
            n,
            user(f"{name} <SECRET:github_pat:7f3a9c21> /home/user7f3a9c/"),
            call("bd sync"),
            role=("witness", "mayor", f"{name}{n}")[n % 3],
            source=f"{name}{n % 9}",
            started=f"2026-0{1 + n % 5}-01",
            outcome=name,
            by=(f"agent:{name}",),
        )
        texts[e.id] = (user(name), answer(name))
        meter.add(e, "heldout" if n == 7 else "train")
    tally = Tally()
    for table in ("linked by", "drift", "characters", "versions"):
        tally.add(table, f"left out: {name}", 9)
    rules = Rules()
    rules.add(name, "Always `bd sync`.", "2026-01-01")
    rules.add(name, "Never `bd sync`.", "2026-02-01")
    ids = tuple(texts)
    figures = Figures(
        tallies={name: tally},
        licences={name: name},
        conflicts=[Conflict(ids[:1], ids[1:2], (), "the later decision stands")],
        rules=rules.finish(),
        fetch=texts.get,
        suspects={name: 1},
    )
    return meter.finish([make_flow(name, 40, 30, {name: 6, "exact duplicate": 4})], figures)


def test_a_page_is_whole_and_begins_with_the_verdict() -> None:
    health = report()
    page = read(draw_page(health, "599322"))
    assert page.text.index("Not yet") < page.text.index("Is there enough?")
    for title in (
        "What it is made of", "What came in", "Is it up to date?", "contradict itself", "training and test apart",
        "What was replaced", "How long", "Flags", "1,000 needed",
    ):  # fmt: skip
        assert title in page.text
    assert page.tags.count("svg") >= 10


def test_a_page_needs_no_network_and_no_script() -> None:
    page = draw_page(report(), "599322")
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert not {a for a, _ in reader.attributes} & {"src", "href", "onload", "onclick", "style"}
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes


def test_text_of_files_stays_text() -> None:
    page = draw_page(report(HOSTILE), HOSTILE)
    reader = read(page)
    assert "script" not in reader.tags
    assert "<script>alert(1)</script>" in reader.text
    assert "\x1b" not in page and "\u202e" not in page


def test_every_series_has_a_pattern_and_every_bar_its_figure() -> None:
    page = draw_page(report(), "599322")
    for n in range(1, 7):
        assert f'id="p{n}"' in page and f'fill="url(#p{n})"' in page
    assert "url(#p7)" not in page


def test_an_empty_corpus_has_a_page_too() -> None:
    page = read(draw_page(Meter("witness", 1000).finish([], Figures()), "0"))
    assert "Not yet" in page.text


def test_the_same_report_gives_the_same_page() -> None:
    assert draw_page(report(), "a") == draw_page(report(), "a")
