"""Made-up decisions: the answer follows from the prompt, from nothing less, and stays apart from what is measured."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import gtft.evals
from gtft.corpus.health.commands import load_commands
from gtft.corpus.health.staleness import find_uses
from gtft.corpus.linking.chronicle import Hold
from gtft.corpus.linking.town_record import TownRecords
from gtft.corpus.partition.near import find_near, sketch
from gtft.corpus.partition.overlap import find_rare_of_items
from gtft.corpus.partition.suite import list_suites, read_suite
from gtft.corpus.partition.words import hash_many, make_grams
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.scenarios import (
    FAMILIES,
    NOWHERE,
    TownNames,
    find_names,
    make_cases,
    make_scenarios,
)
from gtft.corpus.scenarios.repair import FAULTS, find_faults
from gtft.corpus.scenarios.scene import ROLES, Case
from gtft.corpus.segment import Limits, assemble, cut
from gtft.corpus.tally import Tally

OURS = TownNames(
    {"gz-": "gizmo", "hb": "harbor", "hb-x": "harbor-x", "hq-": "hq"},
    ("wren", "stork", "swift", "crane", "owl"),
)
SUITES = Path(gtft.evals.__file__).parent / "suites"
UPSTREAM = Path(__file__).parents[2].parent / "shared" / "data" / "gt-model-eval"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return list(make_cases(4000, 7, NOWHERE))


def shown(case: Case) -> str:
    """All that stands before the answer."""
    return "\n".join(e.text for e in case.entries[:-1])


def whole(case: Case) -> str:
    return "\n".join(
        "\n".join([e.text, *(c.arguments["command"] for c in e.calls)]) for e in case.entries
    )


def answered(cases: list[Case], family: str) -> list[tuple[Case, dict[str, Any]]]:
    """Cases whose answer is JSON, with it."""
    found = [(c, c.entries[-1].text) for c in cases if c.family == family]
    return [(c, json.loads(text)) for c, text in found if text.startswith("{")]


def test_the_same_seed_gives_the_same_and_a_longer_list_begins_with_a_shorter_one() -> None:
    some = list(make_scenarios(60, 3, OURS))
    assert some == list(make_scenarios(120, 3, OURS))[:60]
    assert [s.entries for s in some] != [s.entries for s in make_scenarios(60, 4, OURS)]


def test_each_says_where_it_comes_from_and_becomes_one_example() -> None:
    redactor, tally = Redactor(b"k" * 32), Tally()
    limits = Limits(window=16_000, result=2000)
    for talk in make_scenarios(400, 1):
        (candidate,) = talk.evidence.candidates
        assert (talk.source, talk.provenance) == ("scenarios", "synthetic")
        assert (candidate.rung, candidate.confidence) == ("made up", 1.0)
        assert candidate.role in ROLES
        units = list(assemble(talk.entries, limits, redactor, tally))
        (example,) = cut(talk, units, limits, redactor, tally)
        assert example.messages[-1]["role"] == "assistant"
        assert example.messages[-1]["content"] == talk.entries[-1].text
        assert len(example.messages) == len(talk.entries)
    assert "turns dropped" not in tally.tables


def test_names_of_the_town_are_used() -> None:
    cases = [c for c in make_cases(800, 2, OURS) if c.family != "route"]
    assert {c.rig for c in cases} == {"gizmo", "harbor", "harbor-x", None}
    assert sum(bool(set(OURS.polecats) & set(re.findall(r"\w+", whole(c)))) for c in cases) > 250
    one = TownNames({"gz": "gizmo"})
    assert len(list(make_cases(200, 2, one))) == 200


def test_names_come_from_rigs_that_agreed_and_must_be_names() -> None:
    held = {
        a: [Hold("gz-1", 0.0)]
        for a in ("gizmo/polecats/wren", "other/polecats/owl", "gizmo/crew/max")
    }
    prefixes = {"gz": "gizmo", "ot": "other", "q": 'gizmo"; rm', "b d": "gizmo"}
    records = TownRecords(holds=held, prefixes=prefixes)
    assert find_names(records, {"gizmo", 'gizmo"; rm'}) == TownNames({"gz": "gizmo"}, ("wren",))
    assert find_names(TownRecords(), ()) == NOWHERE


def test_families_roles_and_answers_are_balanced(cases: list[Case]) -> None:
    assert Counter(c.family for c in cases) == dict.fromkeys(FAMILIES, 500)
    roles = Counter(c.role for c in cases)
    assert set(roles) == set(ROLES)
    assert min(roles.values()) > 250 and max(roles.values()) < 1000
    by_family = {f: Counter(c.answer for c in cases if c.family == f) for f in FAMILIES}
    assert set(by_family["lifecycle"].values()) == {50}
    assert set(by_family["refusal"].values()) == {250}
    decisions = Counter(c.answer.split()[0] for c in cases if c.family == "asking")
    assert set(decisions.values()) == {166, 167}
    faults = Counter(c.state[0] for c in cases if c.family == "repair")
    assert set(faults) == set(FAULTS) and set(faults.values()) <= {38, 39}
    for family, answers in by_family.items():
        assert max(answers.values()) <= 250, family


def test_no_two_say_the_same() -> None:
    for names in (NOWHERE, OURS):
        texts = [whole(c) for c in make_cases(1000, 5, names)]
        assert len(set(texts)) > 980
        words = hash_many([t.encode() for t in texts])
        grams = make_grams(words, 5)
        near = find_near(
            sketch(words), lambda i, g=grams: g.hashes[g.offsets[i] : g.offsets[i + 1]], 0.7
        )
        assert len({later for _, later, _ in near}) < 100


def guess(train: list[Case], test: list[Case]) -> float:
    """The share that naive Bayes over the words of the prompt gets right."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    often: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for c in train:
        words = set(re.findall(r"[a-z_-]+|\d+", shown(c).lower()))
        seen[c.answer].update(words)
        often.update(words)
        counts[c.answer] += 1
    known = {w for w, n in often.items() if n >= 5}
    right = 0
    for c in test:
        words = known & set(re.findall(r"[a-z_-]+|\d+", shown(c).lower()))

        def score(a: str, words: set[str] = words) -> float:
            n = counts[a]
            return math.log(n) + sum(math.log((seen[a][w] + 0.5) / (n + 1)) for w in words)

        right += max(counts, key=score) == c.answer
    return right / len(test)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_alone_do_not_give_the_answer(cases: list[Case], family: str) -> None:
    mine = [c for c in cases if c.family == family]
    train, test = mine[:250], mine[250:]
    common = Counter(c.answer for c in train).most_common(1)[0][0]
    majority = sum(c.answer == common for c in test) / len(test)
    # A coin gives half of the refusals.
    limit = 0.6 if family == "refusal" else 0.5
    assert max(majority, guess(train, test)) < limit


# --- Independent readers: the answer, from the prompt alone. ---

SIGN = r"(more than|at least|less than|at most)"
RULES = (
    rf"^\d\. (\w+) {SIGN} (\d+): ([\w-]+)$",
    rf"^\d\. If (\w+) is {SIGN} (\d+), ([\w-]+)\.$",
    rf"^\d\) (?P<action>[\w-]+) when (\w+) is {SIGN} (\d+)$",
    rf"^\d\) (\w+) {SIGN} (\d+) -> ([\w-]+)$",
)


def read_rules(text: str) -> list[tuple[str, str, int, str]]:
    found = []
    for line in text.splitlines():
        for pattern in RULES:
            if m := re.match(pattern, line):
                parts = list(m.groups())
                if "action" in m.groupdict():
                    parts.append(parts.pop(0))
                found.append((parts[0], parts[1], int(parts[2]), parts[3]))
    return found


def read_readings(text: str) -> dict[str, dict[str, int]]:
    """name → column → value, from any of the layouts."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    columns: list[str] = []
    section = ""
    for line in text.splitlines():
        words = line.split()
        if line.startswith("{"):
            row = json.loads(line)
            found[row.pop("name")] = row
        elif line.startswith("name ") and "  " in line:
            columns = words[1:]
        elif line.startswith("$ "):
            section = words[-1]
        elif columns and len(words) == len(columns) + 1 and all(w.isdigit() for w in words[1:]):
            found[words[0]] = dict(zip(columns, map(int, words[1:]), strict=True))
        elif section and len(words) == 2 and words[1].isdigit():
            found[words[0]][section] = int(words[1])
    return found


def test_triage_follows_from_the_prompt(cases: list[Case]) -> None:
    read = answered(cases, "triage")
    assert len(read) > 100
    for case, answer in read:
        text = shown(case)
        rows, expect = read_readings(text), (None, "move-on")
        for column, sign, limit, action in read_rules(text):
            if sign in ("more than", "at least"):
                best = max(rows, key=lambda n, c=column: rows[n][c])
            else:
                best = min(rows, key=lambda n, c=column: rows[n][c])
            value = rows[best][column]
            if {"more than": value > limit, "at least": value >= limit, "less than": value < limit, "at most": value <= limit}[sign]:  # fmt: skip
                expect = (best, action)
                break
        assert (answer["target"], answer["action"]) == expect


def read_board(text: str) -> tuple[dict[str, tuple[str, int]], list[tuple[str, str]]]:
    """id → (status, priority), and the (bead, what gates it) pairs."""
    beads: dict[str, tuple[str, int]] = {}
    needs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith('{"_type"'):
            row = json.loads(line)
            beads[row["id"]] = (row["status"], row["priority"])
            needs += [
                (d["issue_id"], d["depends_on_id"])
                for d in row["dependencies"]
                if d["type"] == "blocks"
            ]
        elif m := re.match(r"(\S+) +\| (\d) \| (\w+) +\| ([^|]+) \| ", line):
            beads[m[1]] = (m[3], int(m[2]))
            needs += [(m[1], b) for b in m[4].split() if b != "-"]
        elif m := re.match(r"(\S+) \(P(\d), (\w+)\): ", line):
            beads[m[1]] = (m[3], int(m[2]))
        elif m := re.match(r"(\S+-\w+) needs (\S+)\.$", line):
            needs.append((m[1], m[2]))
    return beads, needs


def test_what_is_ready_follows_from_the_prompt(cases: list[Case]) -> None:
    read = answered(cases, "ready")
    assert len(read) > 100
    for case, answer in read:
        beads, needs = read_board(shown(case))

        def held(bead: str, done: str = "", beads: Any = beads, needs: Any = needs) -> list[str]:
            return sorted(
                b for a, b in needs if a == bead and beads[b][0] != "closed" and b != done
            )

        free = {b for b, (status, _) in beads.items() if status == "open" and not held(b)}
        if "ready" in answer:
            assert answer["ready"] == sorted(free, key=lambda b: (beads[b][1], b))
        elif "now_ready" in answer:
            done = answer["closed"]
            after = {b for b, (s, _) in beads.items() if s == "open" and not held(b, done)}
            assert answer["now_ready"] == sorted(after - free - {done})
        elif "cycle" in answer:
            asked = re.findall(
                r"[a-z]+-[a-z0-9]+", next(x for x in shown(case).splitlines() if asks_for_need(x))
            )
            a, b = asked
            reach, todo = set(), [b]
            while todo:
                here = todo.pop()
                if here not in reach:
                    reach.add(here)
                    todo += [y for x, y in needs if x == here]
            assert answer["allowed"] == (a not in reach)
            for x, y in pairwise(answer["cycle"]):
                assert (x, y) in [*needs, (a, b)]
            assert not answer["cycle"] or answer["cycle"][0] == answer["cycle"][-1] == a
        else:
            assert answer["blocked_by"] == held(answer["bead"])
            assert answer.get("can_start", not answer["blocked_by"]) is not bool(
                held(answer["bead"])
            )


def asks_for_need(line: str) -> bool:
    return line.startswith(("Somebody wants ", "Check before adding: ", "Would bd accept "))


def read_routes(text: str) -> dict[str, tuple[str, str]]:
    """prefix → (rig, folder)."""
    found = {}
    for line in text.splitlines():
        if line.startswith('{"prefix"'):
            row = json.loads(line)
            rig = "hq" if row["path"] == "." else row["path"].split("/")[0]
            found[row["prefix"]] = (rig, row["path"])
        elif (m := re.match(r"Ids with (\S+) are of (\S+), folder (\S+)$", line)) or (
            m := re.match(r"(\S+-) +(\S+) +(\S+)$", line)
        ):
            found[m[1]] = (m[2], m[3])
    return found


@pytest.mark.parametrize("names", [NOWHERE, OURS])
def test_routes_follow_from_the_prompt(names: TownNames) -> None:
    read = answered(list(make_cases(4000, 11, names)), "route")
    assert len(read) > 150
    for case, answer in read:
        text = shown(case)
        routes = read_routes(text)

        def owner(bead: str, routes: Any = routes) -> str | None:
            return next(
                (routes[bead[:n]][0] for n in range(len(bead), 0, -1) if bead[:n] in routes), None
            )

        if "id" in answer:
            assert answer["rig"] == owner(answer["id"])
            assert answer["folder"] == next(
                (f for r, f in routes.values() if r == answer["rig"]), None
            )
            assert answer["id"] in text
        elif "same" in answer:
            line = next(
                x
                for x in text.splitlines()
                if re.search(r"one database\?|same ledger|same rig\?", x)
            )
            a, b = re.findall(r"[\w-]+-[\w.]+", line)
            assert answer["rigs"] == [owner(a), owner(b)]
            assert answer["same"] == (owner(a) == owner(b))
        else:
            tops = set(re.findall(r"^- ([\w-]+)/", text, re.M))
            rigs = {r for r, _ in routes.values()}
            assert answer["rig"] == (tops.pop() if len(tops) == 1 and tops <= rigs else "hq")
            assert routes[answer["prefix"] + "-"][0] == answer["rig"]
            assert f"-C {routes[answer['prefix'] + '-'][1]} create" in answer["command"]


def test_broken_formulas_are_broken_and_mended_ones_are_not(cases: list[Case]) -> None:
    mended = 0
    for case in (c for c in cases if c.family == "repair"):
        broken = re.search(r"```toml\n(.*?)\n```", shown(case), re.S)
        assert broken
        fault = case.state[0]
        assert bool(find_faults(broken[1])) == (fault != "none"), case
        if fault == "none":
            continue
        said = case.entries[-1].text
        if said.startswith("{"):
            text = json.loads(said)["formula"]
        elif case.entries[1].calls:
            text = (
                case.entries[1].calls[0].arguments["command"].split("\n", 1)[1].split("\nEND\n")[0]
            )
        else:
            text = said.split("```toml\n")[1].removesuffix("\n```")
        assert find_faults(text) == []
        line = int(case.answer.rpartition(" ")[2])
        pairs = enumerate(zip(broken[1].splitlines(), text.splitlines(), strict=False), 1)
        first = next(n for n, (a, b) in pairs if a != b)
        assert line == (first if fault != "key below steps" else len(broken[1].splitlines()))
        mended += 1
    assert mended > 400


def test_every_command_exists() -> None:
    """Commands of answers, of calls and of readings; a flag that bd or gt does not know is never taught."""
    known, seen = load_commands(), 0
    for case in make_cases(4000, 13, OURS):
        for e in case.entries:
            lines = [c.arguments["command"] for c in e.calls]
            lines += re.findall(r"`([^`\n]+)`", e.text)
            lines += re.findall(r"^\$ (.+?)(?:   # \w+)?$", e.text, re.M)
            if e.kind == "assistant" and e.text.startswith("{"):
                lines.append(json.loads(e.text).get("command") or "")
            for line in filter(None, lines):
                uses = find_uses({"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {"command": line}}}]}, known)  # fmt: skip
                assert uses.stale == (), line
                seen += uses.seen
    assert seen > 2000


def test_redaction_finds_nothing_in_them() -> None:
    redactor = Redactor(b"k" * 32)
    for case in make_cases(1500, 17, NOWHERE):
        assert redactor.redact(whole(case)) == whole(case)


def count_shared(suites: Path) -> int:
    items = [t.encode() for path in list_suites([suites]) for t in read_suite(path)]
    assert len(items) > 50
    rare = find_rare_of_items(hash_many(items), [])
    texts = [whole(c).encode() for names in (NOWHERE, OURS) for c in make_cases(4000, 19, names)]
    return int(rare.shares_many(hash_many(texts)).sum())


def test_nothing_is_shared_with_an_eval_suite() -> None:
    assert count_shared(SUITES) == 0


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="gt-model-eval (../shared/data) is absent")
def test_nothing_is_shared_with_the_model_eval_of_gas_town() -> None:
    assert count_shared(UPSTREAM) == 0


def test_one_case_in_other_words_has_one_link(cases: list[Case]) -> None:
    by_state: dict[str, set[str]] = defaultdict(set)
    for c in cases:
        by_state[repr((c.family, c.state))].add(c.link)
    assert all(len(links) == 1 for links in by_state.values())
    assert len({c.link for c in cases}) == len(by_state) > 2000
