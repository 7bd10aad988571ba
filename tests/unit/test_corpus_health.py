"""Figures, flags and the verdict of a corpus, from examples made by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gtft.corpus.example import Origin
from gtft.corpus.health.conflict import Row, find_conflicts, read_taught
from gtft.corpus.health.language import NONE, guess_language
from gtft.corpus.health.measure import Figures, Meter, make_flow
from gtft.corpus.health.page import draw_page
from gtft.corpus.health.render import render_health
from gtft.corpus.health.sufficiency import NOT_YET, STARTING, TRIAL
from gtft.corpus.health.tokens import measure_tokens
from gtft.corpus.tally import Tally
from gtft.errors import InternalError
from health_case import answer, call, example, user


def report(
    train: int, heldout: int = 1, role: str = "witness", flow: Any = (), **figures: Any
) -> dict[str, Any]:
    meter = Meter(role, 1000)
    for n in range(train):
        meter.add(example(n), "train")
    for n in range(heldout):
        meter.add(example(train + n), "heldout")
    return meter.finish(flow, Figures(**figures))


def test_counts_by_label_and_side() -> None:
    meter = Meter("witness", 1000)
    meter.add(example(1, outcome="merged"), "train")
    meter.add(example(2, role=None, rig=None, source="codex", by=("human", "own:m:2")), "train")
    meter.add(example(3, started=""), "heldout")
    health = meter.finish([], Figures(licences={"claude-code x": "MIT"}))
    assert health["examples"] == {"train": 2, "heldout": 1, "clusters": 3, "clusters held out": 1}
    train = health["by"]["train"]
    assert train["role"] == {"unknown": 1, "witness": 1}
    assert train["rig"] == {"gizmo": 1, "unknown": 1}
    assert train["made by"] == {"human": 2, "agent:some-model": 1, "own:m:2": 1}
    assert train["outcome"] == {"merged": 1, "none known": 1}
    assert train["month"] == {"2026-03": 2}
    assert health["by"]["heldout"]["month"] == {"unknown": 1}
    assert health["train by source and role"] == {
        "claude-code": {"witness": 1},
        "codex": {"unknown": 1},
    }
    assert health["licences"] == {"claude-code x": "MIT"}


def test_placeholders_and_pseudonyms_are_counted_and_distinct_values_told_apart() -> None:
    one, two = "<SECRET:github_pat:7f3a9c21>", "<SECRET:suspect:00aa11bb>"
    text = (
        f"{one} {one} {two} /home/user7f3a9c/x user7f3a9c@example.com host00aa11 198.18.1.2 users"
    )
    meter = Meter("witness", 1000)
    flags = meter.add(example(1, user(text), call(f"echo {one}")), "train")
    redaction = meter.finish([], Figures(suspects={"KeywordDetector": 1}))["redaction"]
    assert redaction["secrets"] == {"github_pat": 3, "suspect": 1}
    assert redaction["distinct"] == {"github_pat": 1, "suspect": 1}
    assert redaction["personal"] == {"e-mail": 1, "home folder": 1, "host": 1, "ipv4": 1}
    assert redaction["suspects by plugin"] == {"KeywordDetector": 1}
    assert "secrets replaced: 4" in flags and "suspect of the second reader" in flags


def test_lengths_are_percentiles_and_shares_of_windows() -> None:
    meter = Meter("witness", 1000)
    for n, size in enumerate([10, 20, 30, 20_000, 140_000]):
        meter.add(example(n, user("x" * (size - 1)), answer("y")), "train")
    length = meter.finish([], Figures())["length"]
    assert (length["p50"], length["max"], length["characters of answers"]) == (30, 140_000, 5)
    assert length["fits"] == {"4096": 3, "8192": 4, "16384": 4, "32768": 4}
    assert length["estimated tokens"] == sum([10, 20, 30, 20_000, 140_000]) // 4
    assert sum(length["histogram"].values()) == 5 and length["histogram"]["131072"] == 1


def test_flags_of_one_example() -> None:
    meter = Meter("witness", 1000)
    long = example(1, user("word " * 1000), answer("ok"), role=None, provenance="synthetic")
    assert meter.flags_of(long) == [
        "over the window", "few supervised characters", "unknown role", "synthetic"
    ]  # fmt: skip
    near = example(2, user("word " * 730), answer("fine " * 20))
    assert meter.flags_of(near) == ["near the window"]
    stale = example(3, user("Sync."), call("bd sync"))
    assert meter.flags_of(stale) == ["stale command: bd sync"]
    german = example(
        4, user("Der Zaun ist nicht gut und das Tor ist auch nicht gut."), answer("Ja.")
    )
    assert meter.flags_of(german) == ["language: German"]
    assert meter.add(example(5), "train", marks=["conflict"]) == ["conflict"]
    assert meter.finish([], Figures())["flags"] == {"conflict": 1}


def test_a_stale_command_in_a_prompt_is_mentioned_and_in_an_answer_is_taught() -> None:
    meter = Meter("witness", 1000)
    fenced = "```bash\nbd sync\n```"
    assert meter.add(example(1, user(fenced), answer("No.")), "train") == []
    meter.add(example(2, user("Go."), answer(fenced), call("bd ready && bd sync")), "train")
    stale = meter.finish([], Figures())["staleness"]
    assert (stale["commands seen"], stale["not known"]) == (4, 3)
    assert (stale["examples in answers"], stale["examples in prompts only"]) == (1, 1)
    assert stale["most common"] == [
        {"kind": "unknown command", "what": "bd sync", "uses": 3, "in answers": 2, "examples": 2}
    ]
    assert stale["asked"] == "bd 1.0.5, gt 1.1.0"


def test_a_report_does_not_depend_on_the_order_of_examples() -> None:
    texts = ["bd sync", "bd list --frob", "gt sling x y", "bd sync && gt nosuch"]
    examples = [
        example(n, user(f"/home/user00000{n}/ {n}"), call(t), role=f"r{n % 3}", cluster=f"c{n % 2}")
        for n, t in enumerate(texts * 3)
    ]
    pages = []
    for order in (examples, examples[::-1]):
        meter = Meter("r0", 1000)
        for e in order:
            meter.add(e, "train")
        pages.append(json.dumps(meter.finish([], Figures())))
    assert pages[0] == pages[1]


def test_flow_must_add_up() -> None:
    row = make_flow("examples", 10, 7, {"b": 1, "a": 2})
    assert row == {"stage": "examples", "in": 10, "kept": 7, "dropped": {"a": 2, "b": 1}}
    with pytest.raises(InternalError, match="do not add up"):
        make_flow("examples", 10, 8, {"a": 1})
    with pytest.raises(InternalError, match="do not add up"):
        report(1, flow=[{"stage": "x", "in": 2, "kept": 1, "dropped": {}}])


def test_sides_that_share_something_are_refused() -> None:
    meter = Meter("witness", 1000)
    meter.add(example(1, cluster="c"), "train")
    meter.add(example(2, cluster="c"), "heldout")
    with pytest.raises(InternalError, match="not apart"):
        meter.finish([], Figures())
    with pytest.raises(InternalError, match="not apart"):
        report(1, leakage={"training examples with a rare held-out phrase": 1, "suites": ["x"]})


def test_tallies_give_links_versions_drift_and_what_was_clipped() -> None:
    tally = Tally()
    tally.add("linked by", "beacon", 3)
    tally.add("linked by", "none", 2)
    tally.add("unlinked", "outside the town", 4)
    tally.add("versions", "2.1.7", 9)
    tally.add("drift", "attachment x", 2)
    tally.add("characters", "said", 300)
    tally.add("characters", "left out: tool result cut", 100)
    tally.name("torn line", "a.jsonl", 7)
    health = report(1, tallies={"claude-code x": tally})
    # Every conversation stands in it once.
    assert health["linked by"] == {"beacon": 3, "none": 6}
    assert health["unlinked"] == {
        "outside the town": 4, "no session, and the row names no agent": 2
    }  # fmt: skip
    assert health["versions"] == {"2.1.7": 9}
    assert health["drift"] == {"claude-code x": {"attachment x": 2}}
    assert health["bad rows"] == {"claude-code x": {"torn line": 1}}
    assert health["clipped"] == {
        "characters": {"tool result cut": 100}, "estimated tokens": 25, "share": 0.25
    }  # fmt: skip


@pytest.mark.parametrize(
    ("train", "heldout", "verdict"),
    [(0, 0, NOT_YET), (40, 2, NOT_YET), (240, 9, TRIAL), (1200, 0, TRIAL), (1200, 90, STARTING)],
)
def test_the_verdict_and_its_words_come_first(train: int, heldout: int, verdict: str) -> None:
    health = report(train, heldout)
    assert health["verdict"]["verdict"] == verdict
    assert health["words"][0].startswith(verdict.capitalize())
    assert health["verdict"]["reasons"] and health["verdict"]["next"].startswith("gtft ")
    page = render_health(health)
    assert page.splitlines()[0] == f"# Corpus health: {verdict}"
    assert page.index(health["words"][0]) < page.index("##")


def test_many_examples_of_one_piece_of_work_are_not_many() -> None:
    meter = Meter("witness", 1000)
    for n in range(1500):
        meter.add(example(n, cluster="one", origin=Origin("a", (1, 2), "s", 0)), "train")
    meter.add(example(9999), "heldout")
    health = meter.finish([], Figures())
    assert health["verdict"]["verdict"] == NOT_YET
    assert health["sufficiency"]["witness"]["sessions"] == 1


def test_stale_or_unlabelled_examples_hold_a_start_back() -> None:
    meter = Meter("witness", 1000)
    for n in range(1200):
        meter.add(example(n, user("Go."), call("bd sync")) if n % 10 == 0 else example(n), "train")
    meter.add(example(9999), "heldout")
    health = meter.finish([], Figures())
    assert health["verdict"]["verdict"] == TRIAL
    assert any("do not know" in reason for reason in health["verdict"]["reasons"])


def test_what_to_collect_names_what_was_left_out_and_the_hook() -> None:
    meter = Meter("witness", 1000)
    meter.add(example(1, role=None), "train")
    flow = [make_flow("examples", 9, 1, {"no consent for rig harbor": 8})]
    collect = meter.finish(flow, Figures())["verdict"]["collect"]
    assert any("gtft town install" in line for line in collect)
    assert any(line.startswith("8 left out: no consent for rig harbor") for line in collect)


def test_names_from_files_cannot_draw_on_a_terminal_or_break_a_table() -> None:
    meter = Meter("witness", 1000)
    meter.add(example(1, role="evil\x1b[31m|role\u202e", rig="a\nb"), "train")
    page = render_health(meter.finish([], Figures()))
    assert "\x1b" not in page and "\u202e" not in page
    (line,) = [x for x in page.splitlines() if x.startswith("| evil") and x.count("| ") < 6]
    assert "\\|role" in line
    assert "| a b " in page


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The patrol is done and the gauges of the mill are not to be read.", "English"),
        ("Les roues du moulin ne sont pas dans la maison et le chien est avec nous.", "French"),
        ("Проверь состояние полевых рабочих и закрой задачу", "Cyrillic script"),
        ("日本語のテキストをここに書いてあります。とてもながいぶんです", "Japanese"),
        ("x = [f(n) for n in xs]", NONE),
        ("", NONE),
    ],
)
def test_language_is_guessed_from_script_and_stop_words(text: str, language: str) -> None:
    assert guess_language([text]) == language


def test_tokens_per_bead_id_count_ids_of_known_prefixes_only() -> None:
    examples = [
        example(
            1,
            user("gz-4kx and gz-4kx.1 block pre-commit, utf-8 too"),
            answer("gz-4kx"),
            bead="gz-4kx",
        )
    ]
    tokens = measure_tokens(examples, encode=len)
    assert (tokens["ids"], tokens["mentions"]) == (2, 3)
    assert tokens["by prefix"] == {"gz": {"ids": 2, "mean": 7.0, "max": 8}}
    assert tokens["tokens per mention"] == round((6 + 6 + 8) / 3, 2)
    assert measure_tokens([example(1, user("utf-8"))], encode=len)["ids"] == 0


def test_both_sides_of_a_conflict_stand_in_the_report() -> None:
    rows, texts = [], {}
    for n, (day, said) in enumerate([("2026-01-01", "nudge"), ("2026-02-01", "escalate")]):
        e = example(n, user("A polecat is stuck. What now?"), answer(said), started=day)
        taught = read_taught(e.messages)
        assert taught is not None
        rows.append(Row(e.id, e.role, e.started, taught))
        texts[e.id] = e.messages
    found = find_conflicts(rows)
    meter = Meter("witness", 1000)
    meter.add(example(1), "train")
    conflicts = meter.finish([], Figures(conflicts=found, fetch=texts.get))["conflicts"]
    assert (conflicts["questions"], conflicts["dropped"]) == (1, 1)
    (shown,) = conflicts["shown"]
    assert shown["asked"] == "A polecat is stuck. What now?"
    assert [(s["what"], s["answer"]) for s in shown["sides"]] == [
        ("kept", "escalate"), ("dropped", "nudge")
    ]  # fmt: skip


def test_the_page_is_the_same_from_a_report_that_was_written_with_sorted_keys() -> None:
    meter = Meter("witness", 1000)
    for n in range(40):
        e = example(
            n, user("x" * n * n * 9), call("bd sync"), role=("zeta", "witness", "alpha")[n % 3]
        )
        meter.add(e, "train")
    health = meter.finish([], Figures(licences={"b": "MIT", "a": "own"}))
    read = json.loads(json.dumps(health, sort_keys=True))
    assert render_health(read) == render_health(health)
    assert draw_page(read, "x") == draw_page(health, "x")
