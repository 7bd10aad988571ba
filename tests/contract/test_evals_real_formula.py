"""gtft's own rules for a formula against the real parsers of bd and gt: on every item that ships and on odd ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gtft.errors import TownError
from gtft.evals.answer import parse_answer
from gtft.evals.checks.formula import find_toml
from gtft.evals.making import make_suite
from gtft.evals.shipped import read_shipped
from gtft.evals.tools.real_formula import Verdict, find_parsers, judge
from town_case import make_path, need_tools

CAPABILITIES = ("formula", "formula-repair")
# Of the answers that are nearly right every eighth is tried: each costs two processes.
EVERY = 8

TOP = 'formula = "probe"\nversion = 1\n'
STEPS = '[[steps]]\nid = "a"\ntitle = "A"\n[[steps]]\nid = "b"\ntitle = "B"\nneeds = ["a"]\n'
# Name -> (is it accepted, text).
PROBES: dict[str, tuple[bool, str]] = {
    "plain": (True, TOP + STEPS),
    "no version": (True, 'formula = "probe"\n' + STEPS),
    "version 0": (True, TOP.replace("1", "0") + STEPS),
    "version below 0": (False, TOP.replace("1", "-1") + STEPS),
    "version true": (False, TOP.replace("1", "true") + STEPS),
    "version 1.0": (False, TOP.replace("1", "1.0") + STEPS),
    "version beyond 64 bits": (False, TOP.replace("1", str(2**63)) + STEPS),
    "a strange number beyond 64 bits": (False, f"x = {2**63}\n" + TOP + STEPS),
    "the largest number": (True, f"x = {2**63 - 1}\n" + TOP + STEPS),
    "empty name": (False, TOP.replace("probe", "") + STEPS),
    "blank name": (True, TOP.replace("probe", " ") + STEPS),
    "no name": (False, "version = 1\n" + STEPS),
    "keys in capitals": (True, (TOP + STEPS).replace("formula", "Formula").replace("id =", "ID =")),
    "table in capitals": (True, TOP + STEPS.replace("[[steps]]", "[[Steps]]")),
    "unknown keys and tables": (True, TOP + '[train]\nx = 1\n[[more.y]]\nz = 2\n' + STEPS + "run = 3\n"),
    "empty type": (True, TOP + 'type = ""\n' + STEPS),
    "workflow": (True, TOP + 'type = "workflow"\n' + STEPS),
    "unknown type": (False, TOP + 'type = "patrol"\n' + STEPS),
    "convoy without legs": (False, TOP + 'type = "convoy"\n' + STEPS),
    "convoy": (True, TOP + '[[legs]]\nid = "x"\n[synthesis]\ndepends_on = ["x"]\n'),
    "convoy of an unknown leg": (False, TOP + '[[legs]]\nid = "x"\n[synthesis]\ndepends_on = ["y"]\n'),
    "leg twice": (False, TOP + '[[legs]]\nid = "x"\n[[legs]]\nid = "x"\n'),
    "input with a number": (False, TOP + "[inputs.x]\ndefault = 3\n" + STEPS),
    "input without": (False, TOP + '[inputs.x]\nrequired_unless = ["y"]\n[[legs]]\nid = "x"\n'),
    "expansion": (True, TOP + 'type = "expansion"\n[[template]]\nid = "{target}.a"\ntitle = "A"\n'),
    "template as a table": (False, TOP + '[template]\nid = "a"\n' + STEPS),
    "aspect": (True, TOP + 'type = "aspect"\n[[aspects]]\nid = "a"\n'),
    "no steps": (False, TOP),
    "empty list of steps": (False, "steps = []\n" + TOP),
    "steps in one line": (True, 'steps = [{id = "a", title = "A"}]\n' + TOP),
    "one table of steps": (False, TOP + '[steps]\nid = "a"\ntitle = "A"\n'),
    "no id": (False, TOP + STEPS.replace('id = "a"\n', "").replace('needs = ["a"]\n', "")),
    "id twice": (False, TOP + STEPS.replace('id = "b"', 'id = "a"')),
    "no title": (False, TOP + STEPS.replace('title = "B"\n', "")),
    "empty title": (False, TOP + STEPS.replace('"B"', '""')),
    "blank title": (True, TOP + STEPS.replace('"B"', '" "')),
    "unknown need": (False, TOP + STEPS.replace('["a"]', '["c"]')),
    "need twice": (True, TOP + STEPS.replace('["a"]', '["a", "a"]')),
    "need of its own": (False, TOP + STEPS.replace('["a"]', '["b"]')),
    "need as text": (False, TOP + STEPS.replace('["a"]', '"a"')),
    "need as number": (False, TOP + STEPS.replace('["a"]', "[1]")),
    "circle": (False, TOP + STEPS.replace('title = "A"', 'title = "A"\nneeds = ["b"]')),
    "depends_on": (True, TOP + STEPS.replace("needs", "depends_on")),
    "unknown depends_on": (False, TOP + STEPS.replace('needs = ["a"]', 'depends_on = ["c"]')),
    "priority 4": (True, TOP + STEPS + "priority = 4\n"),
    "priority 5": (False, TOP + STEPS + "priority = 5\n"),
    "priority as text": (False, TOP + STEPS + 'priority = "1"\n'),
    "labels": (True, TOP + STEPS + 'labels = ["x"]\n'),
    "labels as text": (False, TOP + STEPS + 'labels = "x"\n'),
    "acceptance as list": (False, TOP + STEPS + 'acceptance = ["x"]\n'),
    "parallel as text": (False, TOP + STEPS + 'parallel = "yes"\n'),
    "gate": (True, TOP + STEPS + 'gate = { type = "human", id = "x" }\n'),
    "gate as text": (False, TOP + STEPS + 'gate = "human"\n'),
    "gate of a number": (False, TOP + STEPS + "gate = { type = 3 }\n"),
    "metadata": (True, TOP + STEPS + "[steps.metadata]\nx = 1\n"),
    "notes as a table": (False, TOP + STEPS + "[steps.notes]\nx = 1\n"),
    "pour": (True, TOP + "pour = true\n" + STEPS),
    "pour as text": (False, TOP + 'pour = "yes"\n' + STEPS),
    "phase as a table": (False, TOP + "[phase]\nx = 1\n" + STEPS),
    "output as text": (False, TOP + 'output = "x"\n' + STEPS),
    "a number among the prompts": (False, TOP + "[prompts]\nx = 1\n" + STEPS),
    "short variable": (True, TOP + '[vars]\nx = "3"\n' + STEPS),
    "short variable of a number": (False, TOP + "[vars]\nx = 3\n" + STEPS),
    "required variable": (True, TOP + "[vars.x]\nrequired = true\n" + STEPS),
    "required and default": (False, TOP + '[vars.x]\nrequired = true\ndefault = ""\n' + STEPS),
    "not required and default": (True, TOP + '[vars.x]\nrequired = false\ndefault = "y"\n' + STEPS),
    "required and a default that is lost": (True, TOP + "[vars.x]\nrequired = true\ndefault = 3\n" + STEPS),
    "required as text": (True, TOP + '[vars.x]\nrequired = "yes"\ndefault = "y"\n' + STEPS),
    "variable without a name": (False, TOP + '[vars]\n"" = "x"\n' + STEPS),
    "name after the steps": (False, "version = 1\n" + STEPS + 'formula = "probe"\n'),
    "key twice": (False, TOP + "version = 1\n" + STEPS),
    "not TOML": (False, TOP + STEPS + "needs: [a]\n"),
    "nothing": (False, ""),
    "a lone surrogate": (False, TOP.replace("probe", "\ud800") + STEPS),
    "windows line ends": (True, (TOP + STEPS).replace("\n", "\r\n")),
}  # fmt: skip


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    need_tools("bd", "gt")
    yield {**os.environ, "PATH": make_path()}


def read_texts() -> list[list[str]]:
    """The TOML of every right answer, and of the answers that are nearly right."""
    right = [i.reference for i in read_shipped("authored") if i.capability in CAPABILITIES]
    wrong: list[str] = []
    for capability in CAPABILITIES:
        for made in make_suite(capability):
            right.append(made.item.reference)
            wrong += made.near_misses
    return [[*dict.fromkeys(find_toml(parse_answer(a)) for a in part)] for part in (right, wrong)]


def name_disagreements(texts: list[str], verdicts: list[Verdict]) -> list[str]:
    return [
        f"code: {v.code or 'accepts'}; parsers: {v.refusals or 'accept'}\n{t}"
        for t, v in zip(texts, verdicts, strict=True)
        if v.disagrees or v.skipped
    ]


def test_rules_and_parsers_agree_on_every_right_answer(environ: dict[str, str]) -> None:
    texts = read_texts()[0]
    verdicts = judge(texts, environ)
    assert len(texts) >= 80
    assert not name_disagreements(texts, verdicts)
    assert not any(v.code for v in verdicts)


def test_rules_and_parsers_agree_on_a_sample_of_wrong_answers(environ: dict[str, str]) -> None:
    texts = read_texts()[1][::EVERY]
    verdicts = judge(texts, environ)
    assert not name_disagreements(texts, verdicts)
    assert sum(bool(v.refusals) for v in verdicts) > 10
    assert sum(not v.refusals for v in verdicts) > 10


def test_rules_and_parsers_agree_on_odd_formulas(environ: dict[str, str]) -> None:
    texts = [text for _, text in PROBES.values()]
    verdicts = judge(texts, environ)
    assert not name_disagreements(texts, verdicts)
    for (name, (accepted, _)), verdict in zip(PROBES.items(), verdicts, strict=True):
        assert (not verdict.code) == accepted, f"{name}: {verdict.code or 'accepted'}"


def test_what_loads_or_repeats_is_not_run(environ: dict[str, str]) -> None:
    loop = STEPS + "[steps.loop]\ncount = 1000000000\n[[steps.loop.body]]\nid = 'x'\ntitle = 'X'\n"
    texts = [
        TOP + 'extends = ["../../etc/x"]\n' + STEPS,
        TOP + loop,
        TOP + "Extends = 3\n" + STEPS,
        TOP + STEPS + "#" * 20_000,
    ]
    verdicts = judge(texts, environ)
    assert all(v.skipped and not v.refusals and not v.disagrees for v in verdicts)


def test_without_the_parsers_nothing_is_judged(environ: dict[str, str], tmp_path: Path) -> None:
    assert find_parsers(environ) == ("bd", "gt")
    with pytest.raises(TownError, match="bd and gt"):
        judge([TOP + STEPS], {"PATH": str(tmp_path)})


def test_a_parser_that_hangs_is_no_verdict(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gtft.evals.tools.real_formula._SECONDS", 0.2)
    gt = tmp_path / "gt"
    gt.write_text("#!/bin/sh\nexec sleep 30\n")
    gt.chmod(0o755)
    verdict = judge([TOP + STEPS], {"PATH": f"{tmp_path}{os.pathsep}{environ['PATH']}"})[0]
    assert "did not answer" in verdict.skipped
    assert not verdict.disagrees
