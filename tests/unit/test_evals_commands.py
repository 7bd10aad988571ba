"""Commands by the real trees, git on a clone on paper, a witness's judgement, causes: rule by rule."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.evals.answer import BadAnswer
from gtft.evals.checks import run_check
from gtft.evals.checks.command import load_tree, parse_command
from gtft.evals.item import CheckSpec
from gtft.evals.making import patrol
from gtft.evals.making.explain import find_chain
from gtft.evals.making.witness import Criterion, Evidence, judge
from gtft.evals.shipped import read_shipped


def ask(accept: str, answer: str, **args: Any) -> str:
    """Why an answer fails, "" when it passes."""
    return run_check(CheckSpec("command", {"accept": [accept], **args}), answer).reason


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("bd close ki-1 --reason 'a b'", 'bd done ki-1 -r "a  b"'),
        ("bd close ki-1 --reason x", "gt close ki-1 --reason=x"),
        ("bd close ki-1 --reason x", "bd close -rx ki-1"),
        ("bd list --status open --label a,b", "bd --json list -l b -l a -s open"),
        ("bd list --status open", "bd list --status open --limit 50"),
        ("bd update ki-1 --priority 0", "bd update ki-1 -p P0"),
        ("bd create T --type feature", "```bash\nbd new T -t feat\n```"),
        ("bd create T --labels a", "bd create T --label a"),
        ("gt mq list kiln", "`gt mr list kiln`"),
        ("gt mail send --to mayor/ -s S -m B", "gt mail send -s S --to=mayor/ --body B"),
        ("gt convoy create n --notify", "gt convoy create n --notify"),
        ("bd note ki-1 -- -x", "bd note ki-1 -- -x"),
        ("bd dep add a b", "bd dep add a b --type blocks"),
        (
            "bd list",
            '<tool_call>{"name": "Bash", "arguments": {"command": "bd list"}}</tool_call>',
        ),
    ],
)
def test_what_means_the_same_passes(accept: str, answer: str) -> None:
    assert ask(accept, answer) == ""


@pytest.mark.parametrize(
    ("accept", "answer", "why"),
    [
        ("bd list", "bd lst", "no command lst"),
        ("bd list", "bd", "no command"),
        ("bd gate list", "bd gate", "no command"),
        ("bd list", "bd list --fancy", "no flag --fancy"),
        ("bd list", "bd list --help", "help"),
        ("bd list --limit 0", "bd list --limit all", "no whole number"),
        ("bd list --limit 0", "bd list --limit", "without a value"),
        ("bd close a --reason x", "bd close a --reason x --reason x", "twice"),
        ("bd close a", "bd close a --force=yes", "takes no value"),
        ("bd close a --reason x", "bd close a --reason y", "--reason y"),
        ("bd close a", "bd close b", "not a"),
        ("bd close a", "bd close a b", "not a"),
        ("bd close a", "bd update a --status closed", "not bd close"),
        ("bd close a", "bd close a --force", "was not asked for"),
        ("bd close a --reason x", "bd close a", "is missing"),
        ("bd dep add a b", "bd dep add b a", "not a, b"),
        ("bd dep add a b", "bd dep add a b c", "3 words"),
        ("bd dep add a b", "bd 'dep add' a b", "no command"),
        ("bd export", "bd export > x", "redirects"),
        ("bd list", "bd list\nbd list", "2 commands"),
        ("bd list", "First:\nbd list", "2 commands"),
        ("bd list", "```bash\nbd list\n```\nThat does it.", "commands"),
        ("bd list", "sudo bd list", "runs sudo"),
        ("bd list", "BD_ACTOR=x bd list", "runs BD_ACTOR"),
        ("bd list", "bd 'list", "does not parse"),
        (
            "bd list",
            'See: <tool_call>{"name": "Bash", "arguments": {"command": "bd list"}}</tool_call>',
            "around the calls",
        ),
    ],
)
def test_what_is_invented_or_means_something_else_fails(accept: str, answer: str, why: str) -> None:
    assert why in ask(accept, answer)


def test_free_text_must_be_there_and_plain() -> None:
    line = "bd close a --reason x"
    assert ask(line, "bd close a --reason 'in my own words'", free=["--reason"]) == ""
    assert "missing" in ask(line, "bd close a", free=["--reason"])
    assert "empty" in ask(line, "bd close a --reason ' '", free=["--reason"])
    assert "plain" in ask(line, 'bd close a --reason "$(date)"', free=["--reason"])


def test_words_change_places_only_where_the_item_says_so() -> None:
    assert ask("bd close a b", "bd close b a", any_order=True) == ""
    assert ask("bd close a b", "bd close b a") != ""


@pytest.mark.parametrize("program", ["bd", "gt"])
def test_every_command_of_a_tree_is_found_under_each_of_its_names(program: str) -> None:
    tree = load_tree(program)
    for name, path in tree.names.items():
        known = tree.commands[path]
        if known["args"] is None or known.get("open") or path in ("show", "bead show", "close"):
            continue
        words = ["x0"] * known["args"][0]
        found = parse_command([program, *name.split(), *words])
        assert found.words == tuple(words), name
        if program != "gt":
            assert found.path == path


@pytest.mark.parametrize("program", ["bd", "gt"])
def test_a_tree_names_no_flag_twice(program: str) -> None:
    for path, command in load_tree(program).commands.items():
        shorts = [f["short"] for f in command["flags"].values() if "short" in f]
        assert len(shorts) == len(set(shorts)), path


@pytest.mark.parametrize("kept", ["--permanent", "--wisp=false"])
@pytest.mark.parametrize("to", ["tannery/witness", "--to tannery/witness"])
def test_a_mail_is_kept_in_either_way(to: str, kept: str) -> None:
    found = [i for i in read_shipped("generated") if i.template == "gt-mail"]
    assert found
    for item in found:
        right = item.reference.replace("--permanent", kept)
        right = re.sub(
            r"(?<=send )\S+/witness", lambda m: to.replace("tannery/witness", m[0]), right
        )
        assert run_check(item.check, right).reason == ""


@given(
    st.lists(st.sampled_from(["bd", "gt", "list", "dep", "-p", "--json", "=", "-", "--", ""]) | st.text(max_size=8))
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_words_are_a_command_or_a_bad_answer(words: list[str]) -> None:
    try:
        found = parse_command(words)
    except BadAnswer:
        return
    assert found.program in ("bd", "gt")
    assert found.path in load_tree(found.program).commands


CLONE = {
    "branch": "polecat/ada/ki-1",
    "changed": ["src/a.py", "src/b.py"],
    "untracked": ["new.py", ".beads/x"],
    "behind": 3,
}
END = {
    "commits": [["fix: a (ki-1)", ["new.py", "src/a.py", "src/b.py"]]],
    "behind": 0,
    "submitted": {"by": "done"},
}
COMMIT = "git add src new.py && git commit -m 'fix: a (ki-1)'\n"


def work(answer: str, goal: dict[str, Any] = END) -> str:
    return run_check(CheckSpec("git_work", {"clone": CLONE, "goal": goal}), answer).reason


@pytest.mark.parametrize(
    "answer",
    [
        f"{COMMIT}git fetch origin\ngit rebase origin/main\ngt done",
        f"```bash\ngit status\n{COMMIT}git pull --rebase origin main\ngt done --status COMPLETED\n```",
        "git add -u\ngit add ./new.py\ngt commit -m 'fix: a (ki-1)'\ngit fetch\ngit rebase origin/main\ngt done --issue ki-1",
        f"git fetch origin main\n{COMMIT}git rebase origin/main\ngt done --target main",
        f"git diff --stat\ngit remote -v\n{COMMIT}git fetch -q\ngit rebase origin/main\ngt done",
        "git add src/*.py *.py\ngit commit -m 'fix: a (ki-1)'\ngit pull --rebase origin main\ngt done",
        "git add -A src new.py\ngit commit -qm 'fix: a (ki-1)'\ngit pull --rebase origin main\ngt done",
        "git add *\ngit commit --message='fix: a (ki-1)'\ngit pull --rebase origin main\ngt done",
        "git add new.py\ngit add -v new.py\ngit commit src new.py -m 'fix: a (ki-1)'\n"
        "git pull --rebase origin main\ngt done",
        "git add -- new.py\ngit commit -am 'fix: a (ki-1)'\ngit pull --rebase origin main\ngt done",
    ],
)
def test_ways_that_lead_to_the_same_state_pass(answer: str) -> None:
    assert work(answer) == ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (f"{COMMIT}gt done", "behind is 3"),
        (f"{COMMIT}git rebase origin/main\ngt done", "behind is 3"),
        (f"git fetch\ngit rebase origin/main\n{COMMIT}gt done", "not committed"),
        (f"{COMMIT}git fetch\ngit merge origin/main\ngt done", "git merge"),
        (f"{COMMIT}git fetch\ngit rebase main\ngt done", "not onto origin/main"),
        (f"{COMMIT}git fetch\ngit rebase origin/main", "hands in as None"),
        (f"{COMMIT}git fetch\ngit rebase origin/main\ngt done\ngit log", "after the work"),
        (f"{COMMIT}git push origin HEAD:main", "main"),
        (f"{COMMIT}git push --force-with-lease", "force"),
        (f"{COMMIT}git push origin HEAD:other", "pushes to other"),
        (f"{COMMIT}git push origin +polecat/ada/ki-1", "force"),
        (f"{COMMIT}gh pr create", "runs gh"),
        (f"{COMMIT}git reset --hard", "git reset"),
        ("git add -A\ngit commit -m 'fix: a (ki-1)'\ngit pull --rebase origin main\ngt done", "commits .beads/x"),
        ("git add src/c.py", "no such change"),
        ("git commit -m x", "a commit of nothing"),
        ("git add src\ngit commit", "without a message"),
        ("git add src\ngit commit --no-verify -m x", "--no-verify"),
        ("git add src\ngit commit --amend -m x", "--amend"),
        ("git add src\ngit commit -m 'fix: a (ki-1)'\ngt done", "new.py not committed"),
        (f"{COMMIT}git pull --rebase origin main\ngt done --status DONE", "hands in as"),
        (f"{COMMIT}git pull --rebase origin main\ngt done --finished", "no flag"),
        (f"{COMMIT}git fetch || git rebase origin/main", "plain commands"),
        (f"{COMMIT}git rebase $(git fetch)", "plain commands"),
        ("git add src/*.md", "no such change"),
        ("git add -u new.py", "no such change"),
        ("git add ''", "no such change"),
        (f"git add {'*' * 300}", "no such change"),
        ("git add .\ngit commit -m 'fix: a (ki-1)'\ngit pull --rebase origin main\ngt done", "commits .beads/x"),
        ("git commit new.py -m 'fix: a (ki-1)'", "no such change"),
        ("git commit src/a.py -m 'fix: a (ki-1)'\ngt done", "new.py not committed"),
        ("git commit -a src/a.py -m x", "-a with paths"),
        ("git commit -m", "without a value"),
        (f"git remote remove origin\n{COMMIT}", "git remote remove"),
        (f"git remote add x y\n{COMMIT}", "git remote add"),
        (f"git diff --output=src/a.py HEAD~1\n{COMMIT}", "more than read"),
        (f"git log --output src/a.py\n{COMMIT}", "more than read"),
        (f"git branch -D main\n{COMMIT}", "git branch -D"),
        ("git checkout -- src/a.py", "no branch src/a.py"),
        ("git switch --discard-changes other", "--discard-changes"),
        ("git fetch --upload-pack=x", "--upload-pack"),
        ("git", "not git or gt"),
        ("git status\n" * 50, "50 commands"),
        ("I commit first.\ngit status", "runs I commit first"),
    ],
)  # fmt: skip
def test_ways_that_lead_elsewhere_or_are_forbidden_fail(answer: str, why: str) -> None:
    assert why in work(answer)


def test_a_branch_begins_where_it_should() -> None:
    goal = {"branch": "crew/ada", "start": "origin/main", "behind": 0, "pushed": []}
    clone = {"branch": "main", "behind": 5}
    spec = CheckSpec("git_work", {"clone": clone, "goal": goal})
    assert run_check(spec, "git fetch\ngit switch -c crew/ada origin/main").passed
    assert run_check(spec, "git fetch && git checkout -b crew/ada origin/main").passed
    for make in (
        "git switch --no-track -c crew/ada origin/main",
        "git switch -c crew/ada --no-track origin/main",
        "git switch --create=crew/ada origin/main",
        "git switch -C crew/ada origin/main",
        "git checkout -q -b crew/ada --no-track origin/main",
        "git branch crew/ada origin/main\ngit switch crew/ada",
        "git branch --no-track crew/ada origin/main\ngit checkout crew/ada\ngit branch --show-current",
    ):
        assert run_check(spec, f"git fetch\n{make}").reason == ""
    first = "git branch crew/ada origin/main\n"
    assert "behind" in run_check(spec, f"{first}git fetch\ngit switch crew/ada").reason
    assert "branch is main" in run_check(spec, f"git fetch\n{first}").reason
    assert "already" in run_check(spec, f"git fetch\n{first}git switch -C crew/ada").reason
    assert "already" in run_check(spec, "git switch -C main origin/main").reason
    assert "has no place" in run_check(spec, "git checkout -c crew/ada origin/main").reason
    assert "to switch to" in run_check(spec, "git switch crew/ada").reason
    assert "behind" in run_check(spec, "git switch -c crew/ada origin/main").reason
    assert "start" in run_check(spec, "git fetch\ngit switch -c crew/ada").reason
    assert "start from" in run_check(spec, "git switch -c crew/ada origin/old").reason


def test_work_on_two_branches_is_told_apart() -> None:
    goal = {"branch": "main", "commits": [["m", ["b"]]], "start": ""}
    spec = CheckSpec("git_work", {"clone": {"branch": "main", "changed": ["a", "b"]}, "goal": goal})
    answer = "git switch -c x\ngit commit a -m x\ngit switch main\ngit commit b -m m"
    assert run_check(spec, answer).reason == ""
    assert "branch is x" in run_check(spec, answer.replace("git switch main\n", "")).reason


@given(st.lists(st.sampled_from(["git", "add", "commit", "-m", "push", "origin", ":", "rebase", "switch", "branch", "-c", "-A", "*", "[", "gt", "done", "\n", "HEAD:main"]) | st.text(max_size=6)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_git_of_any_words_fails_and_nothing_else(words: list[str]) -> None:
    assert work(" ".join(words)) != ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"complete": False, "missing": ["K1", "K3"]}, ""),
        ({"missing": ["K3", "K1"], "complete": False}, ""),
        ({"complete": False, "missing": ["K1"]}, "missing K1"),
        ({"complete": False, "missing": ["K1", "K3", "K2"]}, "missing"),
        ({"complete": False, "missing": ["K1", "K3", "K3"]}, "twice"),
        ({"complete": False, "missing": "K1, K3"}, "not a list"),
        ({"complete": False, "missing": [1, 3]}, "not a list"),
        ({"complete": 0, "missing": ["K1", "K3"]}, "neither"),
        ({"complete": "false", "missing": ["K1", "K3"]}, "neither"),
        ({"complete": True, "missing": ["K1", "K3"]}, "complete is True"),
        ({"complete": False, "missing": ["K1", "K3"], "note": "x"}, "keys"),
        ({"complete": False}, "keys"),
    ],
)
def test_completeness_is_compared_exactly(answer: dict[str, Any], why: str) -> None:
    spec = CheckSpec("bead_complete", {"complete": False, "missing": ["K1", "K3"]})
    outcome = run_check(spec, json.dumps(answer))
    assert outcome.passed == (why == "") and why in outcome.reason


@pytest.mark.parametrize(
    ("answer", "ordered", "why"),
    [
        ({"cause": "c", "chain": ["a", "b", "c"]}, True, ""),
        ({"cause": "c", "chain": ["b", "a", "c"]}, False, ""),
        ({"cause": "c", "chain": ["b", "a", "c"]}, True, "chain b, a, c"),
        ({"cause": "b", "chain": ["a", "b", "c"]}, True, "cause b"),
        ({"cause": "z", "chain": ["a", "b", "c"]}, True, "not one of"),
        ({"cause": ["c"], "chain": ["a", "b", "c"]}, True, "not a text"),
        ({"cause": "c", "chain": ["a", "c"]}, False, "chain a, c"),
        ({"cause": "c", "chain": ["a", "b", "c", "c"]}, False, "twice"),
        ({"cause": "c", "chain": {}}, True, "not a list"),
        ({"cause": "c"}, True, "keys"),
    ],
)
def test_a_cause_and_its_chain_are_compared(
    answer: dict[str, Any], ordered: bool, why: str
) -> None:
    args = {"cause": "c", "chain": ["a", "b", "c"], "among": ["a", "b", "c"], "ordered": ordered}
    outcome = run_check(CheckSpec("cause", args), json.dumps(answer))
    assert outcome.passed == (why == "") and why in outcome.reason


def test_the_chain_follows_what_is_not_closed() -> None:
    needs = {"a": ["x", "b"], "b": ["c", "y"], "z": ["a"]}
    assert find_chain("a", needs, {"x", "y"}) == ["a", "b", "c"]
    assert find_chain("c", needs, set()) == ["c"]
    with pytest.raises(ValueError, match="2 beads"):
        find_chain("a", needs, {"y"})


def test_evidence_counts_for_its_bead_its_commit_and_as_the_last_word() -> None:
    criteria = {"K1": Criterion("test", "t"), "K2": Criterion("size", "ms", 50)}
    lines = [
        Evidence("b", 0, "test", "t", 1),
        Evidence("b", 0, "size", "ms", 50),
        Evidence("other", 1, "test", "t", 0),
    ]
    assert judge("b", criteria, lines) == []
    assert judge("b", criteria, [*lines, Evidence("b", 1, "test", "t", 0)]) == ["K1"]
    assert judge("b", criteria, [*lines, Evidence("b", 1, "size", "ms", 51)]) == ["K2"]
    assert judge("b", criteria, lines, head_only=1) == ["K1", "K2"]
    assert judge("other", criteria, lines) == ["K1", "K2"]


@pytest.mark.parametrize("sheet", patrol.SHEETS, ids=lambda s: s.role)
def test_the_first_rule_that_holds_decides(sheet: patrol.Sheet) -> None:
    dice = random.Random(3)
    seen = set()
    for _ in range(400):
        state = sheet.draw(dice)
        rules = [(r, dice.choice(r.numbers)) for r in sheet.rules]
        action, holding = patrol.decide(sheet, rules, state)
        seen.add(action)
        assert (action == sheet.otherwise) == (holding == 0)
        assert patrol.decide(sheet, rules[:0], state) == (sheet.otherwise, 0)
    # run-again behind refuse can never be the first.
    assert seen >= {r.action for r in sheet.rules} - {"run-again"}
