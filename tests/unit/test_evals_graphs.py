"""Needs, moves and plans: what bd does with a command, and what the checks let pass."""

import json
import random
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.evals.answer import BadAnswer
from gtft.evals.checks import run_check
from gtft.evals.checks.graph import has_cycle, parse_edge
from gtft.evals.checks.lifecycle import Bead, Beads, Refused, run_command, run_commands
from gtft.evals.checks.plan import close_over, measure_path, measure_width
from gtft.evals.item import CheckSpec
from gtft.evals.making.dependencies import draw_graph

ME, OTHER = "loom/polecats/wilma", "loom/polecats/ulrik"
REASON = "merged, and all criteria are met"
EDGES = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")), max_size=14)


def passes(name: str, args: dict[str, object], answer: str) -> bool:
    return run_check(CheckSpec(name, args), answer).passed


# Needs.


@given(EDGES)
def test_a_circle_is_found_exactly_when_a_bead_reaches_itself(edges: list[tuple[str, str]]) -> None:
    reached = {a: {b for x, b in edges if x == a} for a in "abcdefg"}
    for _ in range(7):
        reached = {a: s.union(*(reached[b] for b in s)) for a, s in reached.items()}
    assert has_cycle(edges) == any(a in s for a, s in reached.items())


@given(st.integers(0, 10_000), st.integers(2, 9))
def test_drawn_graphs_have_no_circle(seed: int, size: int) -> None:
    ids = [f"lo-{n}" for n in range(size)]
    assert not has_cycle(draw_graph(random.Random(seed), ids, 0.6))


def test_the_type_of_a_need_counts_when_the_item_says_so() -> None:
    args = {"edges": [["lo-1", "lo-2"]], "type": "blocks"}
    assert passes("dependency_graph", args, "bd dep add lo-1 lo-2")
    assert passes("dependency_graph", args, "bd dep add lo-1 lo-2 --type=blocks")
    assert not passes("dependency_graph", args, "bd dep add lo-1 lo-2 -t related")
    assert passes("dependency_graph", {"edges": args["edges"]}, "bd dep add lo-1 lo-2 -t related")
    assert not passes("dependency_graph", args, "bd dep remove lo-1 lo-2")


@pytest.mark.parametrize(
    "command", ["bd dep", "bd dep add", "bd dep add a", "bd dep add a b c", "bd dep swap a b",
                "bd dep add a b -t", "bd dep add a b --force", "gt dep add a b", "bd dep remove a b -t blocks"],
)  # fmt: skip
def test_what_is_no_edge_is_refused(command: str) -> None:
    with pytest.raises(BadAnswer):
        parse_edge(command.split())


# Moves.


def state(**rows: Bead) -> Beads:
    return Beads(rows)


def move(beads: Beads, command: str, actor: str = ME) -> Beads:
    return run_command(beads, shlex.split(command), actor)


def test_a_claim_takes_an_open_bead_that_nobody_else_holds() -> None:
    claimed = move(state(a=Bead()), "bd update a --claim")
    assert claimed.rows["a"] == Bead("in_progress", ME)
    assert move(claimed, "bd update a --claim") == claimed
    for bead in (
        Bead("in_progress", OTHER),
        Bead("open", OTHER),
        Bead("closed"),
        Bead("hooked", ME),
        Bead("deferred"),
    ):
        with pytest.raises(Refused):
            move(state(a=bead), "bd update a --claim")  # fmt: skip


def test_a_close_waits_for_needs_and_children_and_leaves_what_is_pinned() -> None:
    beads = Beads({"a": Bead(), "b": Bead(), "e": Bead(kind="epic"), "c": Bead(parent="e"), "p": Bead("pinned")},
                  frozenset({("a", "b")}))  # fmt: skip
    for id in ("a", "e", "p", "x"):
        with pytest.raises(Refused):
            move(beads, f"bd close {id} --reason x")
    beads = move(beads, "bd close b c --reason x")
    assert move(move(beads, "bd close a -r x"), "bd close e -r x").closed() == ["a", "b", "c", "e"]


def test_the_last_closed_child_closes_a_molecule_and_no_epic() -> None:
    for kind, expected in (("molecule", "closed"), ("epic", "open")):
        beads = state(r=Bead(kind=kind), s=Bead("closed", parent="r"), t=Bead(parent="r"))
        assert move(beads, "bd close t -r x").rows["r"].status == expected


def test_a_reason_is_read_as_bd_reads_it() -> None:
    for reason, outcome in (
        (REASON, "success"),
        ("FAILED for good", "failure"),
        ("unblocked", "failure"),
    ):
        assert move(state(a=Bead()), f"bd close a -r '{reason}'").rows["a"].outcome == outcome


def test_ready_and_blocked_follow_the_needs() -> None:
    beads = Beads({"a": Bead(), "b": Bead(), "c": Bead("in_progress", ME), "m": Bead(kind="molecule")},
                  frozenset({("a", "b"), ("c", "a")}))  # fmt: skip
    assert (beads.ready(), beads.blocked()) == (["b"], ["a", "c"])
    beads = move(beads, "bd close b -r x")
    assert (beads.ready(), beads.blocked()) == (["a"], ["c"])
    assert move(beads, "bd defer a").ready() == []
    assert move(move(beads, "bd defer a"), "bd undefer a") == beads
    assert move(beads, "bd reopen b").ready() == ["b"]


def test_a_need_that_closes_a_circle_is_refused_and_changes_nothing() -> None:
    start = state(a=Bead(), b=Bead())
    commands = [
        c.split()
        for c in ("bd dep add a b", "bd dep add b a", "bd dep remove a b", "bd dep add b a")
    ]
    end, refused = run_commands(start, commands, ME)
    assert (refused, set(end.needs)) == ([2], {("b", "a")})


def test_a_state_survives_its_json_form() -> None:
    beads = Beads(
        {"a": Bead("closed", ME, "epic", "", "failure"), "b": Bead(parent="a")},
        frozenset({("b", "a")}),
    )
    assert Beads.from_json(json.loads(json.dumps(beads.to_json()))) == beads


START = Beads({"lo-1": Bead("in_progress", ME), "lo-2": Bead()})
GOAL = move(START, f"bd close lo-1 --reason '{REASON}'")
CLOSING = {**START.to_json(), "actor": ME, "goal": GOAL.to_json(), "most": 1, "reason": 20}


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (f'bd close lo-1 --reason "{REASON}"', True),
        (f"```bash\nbd close lo-1 -r '{REASON}'\n```", True),
        ('bd close lo-1 --reason "done"', False),
        ("bd close lo-1", False),
        (f'bd close lo-1 --reason "{REASON}, no error left"', False),
        (f'bd close lo-2 --reason "{REASON}"', False),
        (f'bd close lo-1 lo-2 --reason "{REASON}"', False),
        (f'bd close lo-1 --reason "{REASON}" --force', False),
        ("bd update lo-1 --status closed", False),
        (f'bd close lo-1 --reason "{REASON}"\nbd show lo-1', False),
        (f'bd close lo-1 --reason "{REASON}" && rm -rf .', False),
        (f'Then bd close lo-1 --reason "{REASON}"', False),
        ("", False),
        ("bd", False),
        ("bd close", False),
        ("bd close --reason", False),
    ],
)
def test_a_move_passes_when_it_leaves_the_goal(answer: str, passed: bool) -> None:
    assert passes("bead_moves", CLOSING, answer) is passed


@given(
    st.lists(
        st.sampled_from(
            [
                "bd",
                "gt",
                "update",
                "close",
                "dep",
                "add",
                "remove",
                "lo-1",
                "lo-2",
                "--claim",
                "--status=open",
                "-s",
                "-r",
                "x",
                ";",
                '"',
                "'",
            ]
        ),
        max_size=12,
    )
)
@settings(max_examples=300)
def test_wild_commands_neither_crash_nor_pass(words: list[str]) -> None:
    assert not passes("bead_moves", CLOSING, " ".join(words))  # fmt: skip


def test_an_object_is_compared_key_by_key_with_its_types() -> None:
    args = {"expect": {"ready": ["a", "b"], "rounds": 1, "order": ["x", "y"]}, "ordered": ["order"]}
    right = {"ready": ["b", "a"], "rounds": 1, "order": ["x", "y"]}
    assert passes("state_object", args, json.dumps(right))
    assert passes("state_object", args, f"```json\n{json.dumps(right)}\n```")
    for wrong in (
        {**right, "rounds": True},
        {**right, "rounds": "1"},
        {**right, "rounds": 1.0},
        {**right, "ready": ["a", "b", "b"]},
        {**right, "ready": "ab"},
        {**right, "order": ["y", "x"]},
        {**right, "why": ""},
        {"ready": ["a", "b"]},
    ):
        assert not passes("state_object", args, json.dumps(wrong)), wrong
    assert not passes("state_object", args, f"It is {json.dumps(right)}")


# Plans.

PLAN = {
    "epics": {"top": None},
    "parents": {"a": "top", "b": "top", "c": "top"},
    "before": [["a", "c"]],
}


def write(needs: dict[str, list[str]], parent: str = "top", epics: object = None) -> str:
    tasks = {t: {"parent": parent, "needs": n} for t, n in needs.items()}
    return json.dumps({"epics": epics or {"top": None}, "tasks": tasks})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (write({"a": [], "b": [], "c": ["a"]}), ""),
        (write({"a": [], "b": [], "c": []}), "c does not wait for a"),
        (write({"a": ["c"], "b": [], "c": []}), "c does not wait for a"),
        (write({"a": [], "b": ["a"], "c": ["a"]}), "b waits for a without need"),
        (write({"a": [], "b": ["a"], "c": ["b"]}), "3 rounds, 2 are possible"),
        (write({"a": ["c"], "b": [], "c": ["a"]}), "circle"),
        (write({"a": [], "b": ["b"], "c": ["a"]}), "circle"),
        (write({"a": [], "c": ["a"]}), "tasks a, c, not"),
        (write({"a": [], "b": [], "c": ["a"], "d": []}), "tasks a, b, c, d, not"),
        (write({"a": [], "b": [], "c": ["x"]}), "no task"),
        (write({"a": [], "b": [], "c": ["top"]}), "no task"),
        (write({"a": [], "b": [], "c": ["a", "a"]}), "twice"),
        (write({"a": [], "b": [], "c": ["a"]}, parent="a"), "no epic"),
        (write({"a": [], "b": [], "c": ["a"]}, epics={"top": "top"}), "epics"),
        (write({"a": [], "b": [], "c": ["a"]}, epics={"top": None, "x": "top"}), "epics"),
        ('{"epics": {"top": null}, "tasks": []}', "not an object"),
        ('{"epics": {"top": null}, "tasks": {"a": 1, "b": 2, "c": 3}}', "nothing else"),
        ('{"tasks": {}}', "keys tasks"),
    ],
)
def test_a_plan_keeps_what_was_said_and_adds_no_waiting(answer: str, reason: str) -> None:
    outcome = run_check(CheckSpec("plan_valid", PLAN), answer)
    assert outcome.passed == (not reason)
    assert reason in outcome.reason


def test_a_need_that_follows_from_others_may_be_written_too() -> None:
    args = {
        "epics": {"top": None},
        "parents": dict.fromkeys("abc", "top"),
        "before": [["a", "b"], ["b", "c"]],
    }
    assert passes("plan_valid", args, write({"a": [], "b": ["a"], "c": ["b", "a"]}))


@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0, 1))
@settings(max_examples=60)
def test_width_and_path_are_what_trying_everything_finds(
    seed: int, size: int, chance: float
) -> None:
    tasks = [f"t{n}" for n in range(size)]
    edges = draw_graph(random.Random(seed), tasks, chance)
    needs = {t: [b for a, b in edges if a == t] for t in tasks}
    reach = close_over(needs)
    widest = 0
    for chosen in range(1, 2**size):
        group = [t for n, t in enumerate(tasks) if chosen >> n & 1]
        if all(a not in reach[b] for a in group for b in group):
            widest = max(widest, len(group))
    rounds, done = 0, set[str]()
    while len(done) < size:
        done |= {t for t in tasks if set(needs[t]) <= done}
        rounds += 1
    assert (measure_width(reach), measure_path(needs)) == (widest, rounds)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["epics", "tasks", "a", "b", "c", "parent", "needs", "top"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=200)
def test_wild_plans_neither_crash_nor_pass(doc: object) -> None:
    assert not passes("plan_valid", PLAN, json.dumps(doc))
    assert not passes("state_object", {"expect": {"ready": ["a"]}}, json.dumps(doc))  # fmt: skip
