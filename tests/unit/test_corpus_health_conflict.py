"""Questions that were answered in two ways, and rules that say opposite things."""

from __future__ import annotations

from gtft.corpus.health.conflict import LONGEST_DECISION, Conflict, Conflicts, Rules, read_taught
from health_case import answer, call, example, user


def decide(
    *cases: tuple[str, str], role: str | None = "witness", ask: str = "Stuck. What now?"
) -> list[Conflict]:
    conflicts = Conflicts()
    for n, (day, said) in enumerate(cases):
        conflicts.add(example(n, user(ask), answer(said), started=day, role=role))
    return conflicts.finish()


def test_the_later_decision_stands_and_the_earlier_goes() -> None:
    (found,) = decide(("2026-02-01", "escalate"), ("2026-01-01", "nudge"))
    assert found.kept == ("ex-0000000000000000",)
    assert found.dropped == ("ex-0000000000000001",)
    assert not found.flagged and not found.reversed
    assert "2026-02-01" in found.why


def test_a_decision_that_came_back_is_flagged() -> None:
    (found,) = decide(("2026-01-01", "nudge"), ("2026-02-01", "escalate"), ("2026-03-01", "nudge"))
    assert found.reversed
    assert found.kept == found.flagged == ("ex-0000000000000000", "ex-0000000000000002")
    assert found.dropped == ("ex-0000000000000001",)


def test_what_no_date_decides_stays_and_is_flagged() -> None:
    for day in ("", "2026-01-01"):
        (found,) = decide((day, "nudge"), (day, "escalate"))
        assert not found.kept and not found.dropped and len(found.flagged) == 2


def test_answers_in_prose_may_differ() -> None:
    long = "word " * LONGEST_DECISION
    (found,) = decide(("2026-01-01", long), ("2026-02-01", long + "more"))
    assert not found.dropped and len(found.flagged) == 2


def test_the_same_answer_or_another_question_or_role_is_no_conflict() -> None:
    assert decide(("2026-01-01", "nudge"), ("2026-02-01", " Nudge \n")) == []
    conflicts = Conflicts()
    conflicts.add(example(1, user("Gauge 3 of 5?"), answer("wait"), started="2026-01-01"))
    conflicts.add(example(2, user("Gauge 4 of 5?"), answer("act"), started="2026-02-01"))
    conflicts.add(
        example(3, user("Gauge 3 of 5?"), answer("act"), started="2026-02-01", role="mayor")
    )
    conflicts.add(example(4, answer("act"), started="2026-02-01"))
    assert conflicts.finish() == []


def test_the_clock_of_a_beacon_and_white_space_do_not_make_another_question() -> None:
    conflicts = Conflicts()
    for n, (day, said) in enumerate([("01", "nudge"), ("02", "escalate")]):
        beacon = f"[GAS TOWN] witness <- deacon • 2026-03-{day}T09:10 • patrol\n  look"
        conflicts.add(example(n, user(beacon), answer(said), started=f"2026-03-{day}"))
    (found,) = conflicts.finish()
    assert found.dropped == ("ex-0000000000000000",)


def test_calls_count_as_what_was_asked_and_answered() -> None:
    ask = user("Close it.")
    same = read_taught(
        [ask, call("bd close gz-1"), {"role": "tool", "content": "ok"}, answer("done")]
    )
    other = read_taught(
        [ask, call("bd close gz-2"), {"role": "tool", "content": "ok"}, answer("done")]
    )
    assert same is not None and other is not None
    assert same.asked != other.asked and same.answered == other.answered
    first, second = (
        read_taught([ask, call("bd close gz-1")]),
        read_taught([ask, call("bd note gz-1")]),
    )
    assert first is not None and second is not None
    assert first.asked == second.asked and first.answered != second.answered


def test_rows_in_any_order_give_the_same_decisions() -> None:
    cases = [("2026-01-01", "a"), ("2026-02-01", "b"), ("2026-03-01", "c"), ("2026-03-02", "b")]
    examples = [example(n, user("Q?"), answer(s), started=d) for n, (d, s) in enumerate(cases)]
    found = []
    for order in (examples, examples[::-1]):
        conflicts = Conflicts()
        for e in order:
            conflicts.add(e)
        found.append(conflicts.finish())
    assert found[0] == found[1] and len(found[0]) == 1


def test_rules_that_say_opposite_things_of_one_command() -> None:
    rules = Rules()
    rules.add("old.md", "Always run `bd sync` before you stop. Never use `bd edit`.", "2026-01-01")
    rules.add(
        "new.md", "Never run `bd sync --all`: it is gone.\nYou must run `bd ready`.", "2026-03-01"
    )
    (row,) = rules.finish()
    assert (row["command"], row["stands"], row["reversed"]) == ("bd sync", "forbids", False)
    assert [(s["what"], s["where"]) for s in row["sides"]] == [
        ("forbids", "new.md"),
        ("demands", "old.md"),
    ]


def test_rules_without_dates_are_shown_and_not_decided() -> None:
    rules = Rules()
    rules.add("a.md", "Always run `gt done`.")
    rules.add("b.md", "Do not run `gt done`.")
    rules.add("c.md", "x " * 5_000 + "always `gt done`")
    (row,) = rules.finish()
    assert row["stands"] == "" and "read both" in row["why"]
