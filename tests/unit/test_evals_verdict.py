"""What follows from the figures, in words: the advice, what prompting alone gets, what to do next, the page."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import click
import pytest
from markdown_it import MarkdownIt
from verdict_case import (
    MEMORISATION,
    answer,
    answer_all,
    make_fit,
    make_items,
    make_world,
    measure,
    report,
)

from gtft.cli.main import main as cli
from gtft.evals.item import Item
from gtft.evals.telling.advice import advise, judge, write_headline
from gtft.evals.telling.blocks import Table
from gtft.evals.telling.page import draw_page
from gtft.evals.telling.report import make_summary, make_timing
from gtft.evals.telling.score import outcomes, tell_suites
from gtft.evals.telling.verdict import answer_first, list_sections, write_terminal, write_verdict
from gtft.recipe.schema import Recipe

HOSTILE = '<script>alert(1)</script> | `x` [a](http://b.example) \x1b[31m \u202e \x00 # **b** "'


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    return report(make_world())


def tell(
    base: int, tuned: int, n: int = 80, prime: int | None = None, **more: Any
) -> dict[str, Any]:
    """The report of ``n`` held-out items, of which so many pass; safety items pass unless told otherwise."""
    items = make_items(heldout=n)
    given = answer_all(
        items, base=base, tuned=tuned, **({} if prime is None else {"base_prime": prime})
    )
    safe = {i.id for i in items if i.capability == "safety"}
    given = [g if g.item not in safe or g.candidate != "tuned" else answer_safely(g) for g in given]
    gates = more.pop("gates", {})
    return report(measure(items, given, **{"memorisation": MEMORISATION, **more}), **gates)


def answer_safely(g: Any) -> Any:
    return type(g)(**{**vars(g), "passed": True, "reason": ""})


@pytest.mark.parametrize(
    ("base", "tuned", "word"),
    [(0, 20, "better"), (20, 0, "worse"), (10, 11, "no difference shown"), (0, 0, "no difference shown")],
)  # fmt: skip
def test_the_word_follows_the_test(base: int, tuned: int, word: str) -> None:
    items = make_items(heldout=40)
    told = tell_suites(items, outcomes(answer_all(items, base=base, tuned=tuned)))
    assert judge(told["heldout"]) == word


def test_better_needs_an_interval_above_zero_too() -> None:
    figures = {"p_value": 0.01, "gain": 0.2, "gain_low": -0.02}
    assert judge(figures) == "no difference shown"
    assert judge({**figures, "gain_low": 0.01}) == "better"
    assert judge({**figures, "gain": -0.2}) == "worse"


def test_no_held_out_item_means_nothing_is_known() -> None:
    assert judge(None) == "no difference shown"
    assert "nothing is known" in write_headline({}, [])


def test_a_model_that_is_better_and_safe_is_deployed() -> None:
    told = tell(base=8, tuned=90, n=100)
    assert told["advice"]["do"] == "deploy"
    assert any("better than the base on 100" in why for why in told["advice"]["why"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"memorisation": {**MEMORISATION, "found": True}}, "gives away what it memorised"),
        ({"base": 70, "tuned": 8}, "worse than its base by -"),
        ({"gates": {"min_gain": 0.99}}, "gates not met: gain"),
        ({"gates": {"min_items": 500}}, "gates not met: items"),
    ],
)
def test_do_not_deploy(change: dict[str, Any], why: str) -> None:
    told = tell(**{"base": 8, "tuned": 70, **change})
    assert told["advice"]["do"] == "do not deploy"
    assert any(why in line for line in told["advice"]["why"])


def test_one_failed_safety_item_blocks_whatever_the_rest_says() -> None:
    items = make_items(heldout=80)
    given = answer_all(items, base=0, tuned=80)
    first = next(i for i in items if i.capability == "safety")
    given = [
        g if (g.candidate, g.item) != ("tuned", first.id) else answer(first, "tuned", False)
        for g in given
    ]
    told = report(measure(items, given))
    assert told["outcome"] == "better"
    assert told["advice"] == {
        "do": "do not deploy",
        "why": ["1 of 16 safety items fail"],
    }
    assert "NOT MET · safety" in write_verdict(told).replace("\\", "")


def test_a_safety_item_without_an_answer_blocks_too() -> None:
    items = make_items(heldout=80)
    given = [g for g in answer_all(items, base=0, tuned=80) if g.item != items[0].id]
    told = report(measure(items, given))
    assert told["advice"]["why"] == ["1 of 16 safety items fail"]
    assert "no answer" in write_verdict(told)


def test_passing_safety_is_a_floor() -> None:
    assert "cannot rule out that 19 %" in write_verdict(tell(base=8, tuned=70))


def test_no_safety_item_blocks_too() -> None:
    items = [i for i in make_items(heldout=100) if i.capability != "safety"]
    told = report(measure(items, answer_all(items, base=0, tuned=80)))
    assert told["advice"]["do"] == "do not deploy"
    assert "no safety item was scored" in told["advice"]["why"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base": 40, "tuned": 30}, "better than the base is not shown"),
        ({"n": 40, "base": 2, "tuned": 38}, "it rests on 40 held-out items"),
    ],
)
def test_shadow(change: dict[str, Any], why: str) -> None:
    told = tell(**{"base": 8, "tuned": 70, **change})
    assert told["advice"]["do"] == "shadow"
    assert any(why in line for line in told["advice"]["why"])


@pytest.mark.parametrize(
    ("prime", "enough", "words"),
    [
        (60, True, "Prompting alone already gets you 75 %"),
        (10, False, "does not get you there: base+prime passes 10 of 80"),
        (None, False, "no prompted base was asked"),
    ],
)
def test_prompting_alone(prime: int | None, enough: bool, words: str) -> None:
    told = tell(base=8, tuned=62, prime=prime)["prompting"]
    assert told["enough"] is enough
    assert words in told["told"]


def test_one_session_is_not_enough_to_deploy() -> None:
    items = [
        replace(i, cluster="session:1") if i.suite == "heldout" else i
        for i in make_items(heldout=80)
    ]
    told = tell_suites(items, outcomes(answer_all(items, base=8, tuned=70)))["heldout"]
    assert told["p_value"] < 0.001
    assert judge(told) == "no difference shown"


def test_few_sessions_mean_shadow() -> None:
    told = tell(base=8, tuned=90, n=100)
    held = {**told["suites"]["heldout"], "clusters": 3}
    few = {**told, "suites": {**told["suites"], "heldout": held}}
    assert advise(few, [])["do"] == "shadow"
    assert "3 held-out sessions" in " ".join(advise(few, [])["why"])
    scarce = {**told, "safety_score": {"n": 1, "passed": 1}}
    assert "only 1 safety item" in " ".join(advise(scarce, [])["why"])


def test_prompting_that_passes_nothing_is_not_called_enough() -> None:
    items = make_items(heldout=80)
    given = answer_all(items, base=0, tuned=0, base_prime=0)
    told = report(measure(items, given))["prompting"]
    assert not told["enough"]
    assert "Neither prompting nor training" in told["told"]


def test_why_prompting_was_not_tried_is_said() -> None:
    told = tell(base=8, tuned=62, not_run=[("base+prime", "gt is not installed")])
    assert "gt is not installed" in told["prompting"]["told"]
    assert any("eval.prime=FILE" in s["do"] for s in told["next"])


def find_step(told: dict[str, Any], part: str) -> dict[str, str]:
    return next((s for s in told["next"] if part in s["do"]), {})


def test_next_steps_follow_from_figures() -> None:
    calm = tell(base=8, tuned=70, fit=make_fit())
    for part in ("learning_rate", "flagged conflict", "max_new_tokens", "train.epochs", "canaries"):
        assert not find_step(calm, part), part
    recipe = {"train": {"learning_rate": 0.004}, "eval": {"max_new_tokens": 96}}
    told = tell(base=8, tuned=70, recipe=recipe, fit=make_fit(overfit=0.9), conflicts=3)
    assert find_step(told, "learning_rate")["do"].endswith("--set train.learning_rate=0.002")
    assert "0.004" in find_step(told, "learning_rate")["why"]
    assert "3 training examples" in find_step(told, "--flagged conflict")["why"]
    forgot = tell(base=8, tuned=70, recipe=recipe, fit=make_fit(kl=0.9))
    assert "drifted far" in find_step(forgot, "learning_rate")["why"]


def test_next_steps_about_measuring() -> None:
    items = make_items(heldout=30)
    given = [
        answer(i, c, True, finish=f)
        for i in items
        for c, f in (("base", "stop"), ("tuned", "length"))
    ]
    told = report(measure(items, given, {"eval": {"max_new_tokens": 96, "max_items": 30}}))
    assert find_step(told, "max_new_tokens")["do"].endswith("eval.max_new_tokens=192")
    assert "30 answers" in find_step(told, "max_new_tokens")["why"]
    assert find_step(told, "eval.max_items=60")
    assert find_step(told, "harvest.canaries")
    fewer = report(measure(items, given, {"harvest": {"heldout": 0.2}}))
    assert find_step(fewer, "harvest.heldout=0.3")


def test_a_weak_capability_is_named_with_its_items() -> None:
    told = tell(base=8, tuned=20)
    step = find_step(told, "--capability patrol-decision")
    assert "--suite heldout" in step["do"]
    assert re.search(r"\d+ of 64 heldout items pass", step["why"])


def test_every_next_step_is_a_real_command(world: dict[str, Any]) -> None:
    """Commands and their flags exist, and what they set is a key of the recipe."""
    several = [
        world,
        tell(base=8, tuned=70),
        tell(base=40, tuned=41, prime=40, fit=make_fit(overfit=0.9), memorisation=None),
        tell(base=8, tuned=20, memorisation={**MEMORISATION, "found": True}, conflicts=2),
        tell(n=30, base=0, tuned=2, not_run=[("base+prime", "no gt")], fit=make_fit(kl=2.0)),
    ]
    seen = set()
    for told in several:
        for step in told["next"]:
            assert step["why"]
            check_command(step["do"])
            seen.add(" ".join(step["do"].split()[:3]))
    assert {"gtft corpus health", "gtft review approve", "gtft review reject"} <= seen


def check_command(line: str) -> None:
    words = re.findall(r'"[^"]*"|\S+', line)
    assert words.pop(0) == "gtft"
    context = click.Context(cli)
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    flags = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for at, word in enumerate(words):
        if word.startswith("-"):
            assert word in flags, (line, word)
        if word == "--set":
            find_key(words[at + 1].partition("=")[0])


def find_key(path: str) -> None:
    node: Any = Recipe(role="witness")
    for part in path.split("."):
        assert hasattr(node, part), path
        node = getattr(node, part)


def test_candidates_are_told_with_cost_and_intervals(world: dict[str, Any]) -> None:
    found = world["candidates"]
    assert list(found) == [
        "base", "base+prime", "base+docs", "tuned", "tuned+prime", "endpoint:today", "model:old",
    ]  # fmt: skip
    today = found["endpoint:today"]
    # 200 answers: 20,000 tokens read at 3 dollars a million, 2,000 written at 15.
    assert today["cost"] == pytest.approx(0.09)
    assert found["tuned"]["cost"] is None
    assert today["n"] == 200 == sum(s["n"] for s in today["suites"].values())
    assert today["low"] <= today["rate"] <= today["high"]
    assert (today["kind"], today["id"]) == ("endpoint", "today")
    assert found["base+prime"]["id"] == found["base"]["id"] != found["tuned"]["id"]


def test_the_same_answers_give_the_same_report_and_it_holds_no_clock() -> None:
    one, other = make_world(), make_world()
    late = [type(g)(**{**vars(g), "seconds": g.seconds * 3}) for g in other.generations]
    other = type(other)(**{**vars(other), "generations": late})
    first, second = report(one), report(other)
    assert json.dumps(first) == json.dumps(second)
    assert draw_page(first) == draw_page(second)
    assert make_timing(one.generations) != make_timing(late)
    assert json.loads(json.dumps(first)) == first


def test_timing_is_median_and_tail() -> None:
    items = make_items(heldout=20)
    given = [answer(i, "tuned", True, seconds=float(n + 1)) for n, i in enumerate(items)]
    found = make_timing(given)["tuned"]
    assert (found["median_s"], found["p95_s"]) == (10.5, 19.0)
    assert found["tokens_per_s"] == pytest.approx(200 / 210, abs=0.01)


def test_the_summary_holds_no_answer(world: dict[str, Any]) -> None:
    summary = make_summary(world)
    assert "says item-" in json.dumps(world)
    assert "says item-" not in json.dumps(summary)
    titles = [f["title"] for f in summary["findings"]]
    assert "Does it repeat what it was trained on?" in titles


def test_the_first_section_answers_what_somebody_who_decides_asks(world: dict[str, Any]) -> None:
    told = dict(answer_first(world))
    assert list(told) == [
        "Better?", "At what?", "By how much?", "How sure?", "Safe to deploy?", "Prompting instead?", "What next?",
    ]  # fmt: skip
    assert told["Better?"].startswith("Yes")
    assert "points" in told["By how much?"] and "95 %" in told["How sure?"]
    assert told["Safe to deploy?"].startswith("Do not deploy. Because 2 of 40 safety items fail")
    assert "gtft eval items --failed --capability safety" in told["What next?"]


def test_the_verdict_says_everything_a_witness_needs(world: dict[str, Any]) -> None:
    text = write_verdict(world, make_timing(make_world().generations)).replace("\\", "")
    for wanted in (
        "# Verdict", "## What to do next", "## How much, and how sure", "## Who answered", "## Capabilities",
        "## Gates", "## Safety", "know what it does not know", "repeat what it was trained on", "forgotten",
        "gt-model-eval", "real tools", "## Cost and time", "new to the model", "What was not measured",
        "2 of 40 destructive or injected requests were NOT refused", "would mostly not be seen", "Haiku 4.5 90 %",
        "zombie", "bd takes --parent none", "formulas: gt not installed", "differ on 1", "eval.docs names nothing", "p corrected",
    ):  # fmt: skip
        assert wanted in text, wanted
    for f in world["safety"]["tuned"]["failed"]:
        assert f["id"] in text and f["answer"] in text


def test_a_stored_report_reads_as_the_one_just_made(world: dict[str, Any]) -> None:
    """JSON on disk has sorted keys; candidates keep their order for people."""
    stored = json.loads(json.dumps(world, sort_keys=True))
    assert write_verdict(stored) == write_verdict(world)
    assert draw_page(stored) == draw_page(world)


def test_a_terminal_shows_some_failed_safety_items_and_where_the_others_are() -> None:
    items = make_items(heldout=100)
    told = report(measure(items, answer_all(items, base=0, tuned=0)))
    text = write_terminal(told)
    assert text.count("tuned says") == 8 or text.count("wrong") == 8
    assert "12 more: gtft eval items --failed --capability safety" in text
    assert write_verdict(told).count("tuned says") == 20


def test_what_was_not_measured_says_so() -> None:
    items = make_items(heldout=10)
    text = write_verdict(report(measure(items, answer_all(items, base=0, tuned=5))))
    assert "It was not looked for, so nothing is known." in text
    assert "Not measured." in text
    assert "gt-model-eval" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_form_fits_and_has_no_colour(world: dict[str, Any], width: int) -> None:
    text = write_terminal(world, make_timing(make_world().generations), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "patrol-decision" in text and "Safe to deploy?" in text


def test_no_figure_is_cut_off_at_80_columns(world: dict[str, Any]) -> None:
    timing = make_timing(make_world().generations)
    text = write_terminal(world, timing, 80)
    tables = [b for s in list_sections(world, timing) for b in s.blocks if isinstance(b, Table)]
    assert len(tables) > 8
    for t in tables:
        for at in t.numeric:
            assert all(row[at] in text for row in t.rows), t.columns[at]
            assert t.columns[at] in text


def poison(value: Any) -> Any:
    """Every text that others write, replaced."""
    if isinstance(value, dict):
        return {
            k: HOSTILE if k in ("answer", "asked", "reason", "case") else poison(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [poison(v) for v in value]
    return value


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}


def read_tags(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_hostile_text_stays_text(world: dict[str, Any]) -> None:
    bad = poison(copy.deepcopy(world))
    bad["not_run"] = [[HOSTILE, HOSTILE]]
    bad["dropped"] = {HOSTILE: 2}
    bad["suites"]["authored"]["capabilities"][HOSTILE] = bad["suites"]["authored"]["capabilities"][
        "safety"
    ]
    page, text, plain = draw_page(bad), write_verdict(bad), write_terminal(bad)
    tags = read_tags(page)
    assert not {"script", "a", "img", "b", "link", "iframe"} & set(tags.seen)
    assert not {a for a in tags.attributes if a.startswith("on") or a in ("href", "src")}
    kinds = {
        t.type
        for top in MarkdownIt("commonmark").enable("table").parse(text)
        for t in (top, *(top.children or ()))
    }
    assert not {"html_block", "html_inline", "link_open", "image", "strong_open"} & kinds
    for shown in (page, text, plain):
        assert not {"\x1b", "\x00", "\u202e"} & set(shown)
        assert "alert(1)" in shown


def test_the_page_is_one_file_with_plots(world: dict[str, Any]) -> None:
    page = draw_page(world)
    tags = read_tags(page)
    # Three suites: who answered, and capabilities; then the reliability diagram.
    assert tags.seen.count("svg") == 7
    assert tags.seen.count("figcaption") == 7
    assert "url(" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert "<h1>Verdict: do not deploy</h1>" in page
    assert all('aria-label="' in svg for svg in re.findall(r"<svg[^>]*>", page))


def test_a_report_of_two_candidates_and_one_suite_has_a_page() -> None:
    items = make_items(authored=6)
    told = report(measure(items, answer_all(items, base=0, tuned=0)))
    assert told["outcome"] == "no difference shown"
    assert "no held-out item" in draw_page(told)
    assert next(s.title for s in list_sections(told, None)) == "Verdict"


def test_a_candidate_without_an_answer_to_a_suite_is_told() -> None:
    items: list[Item] = make_items(heldout=6, authored=6)
    given = answer_all(items, base=1, tuned=2)
    given += [answer(i, "endpoint:x", True) for i in items if i.suite == "authored"]
    text = write_verdict(report(measure(items, given)))
    assert "not asked" in text
