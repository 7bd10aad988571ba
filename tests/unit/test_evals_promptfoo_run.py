"""promptfoo itself: what it is given, and what is made of its results. A stand-in on PATH writes results as it does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gtft.errors import MissingExtra, WorkerFailed
from gtft.evals.promptfoo import Cases, read_cases
from gtft.evals.promptfoo_run import (
    Theirs,
    compare_with_promptfoo,
    find_promptfoo,
    run_promptfoo,
)
from promptfoo_case import CONFIG, add_vars, answer, assert_also, make_test, write_suite
from town_case import need_tools

URL = "http://127.0.0.1:9/v1"
# Keeps what it was given, and answers every test with the next of ANSWERS.
STAND_IN = """#!{python}
import json, os, sys
given = sys.argv[1:]
config = json.load(open(given[given.index("-c") + 1]))
json.dump({{"argv": given, "environ": dict(os.environ), "config": config}}, open("given.json", "w"))
results = [
    {{"success": passed, "prompt": {{"raw": "p"}}, "testCase": test,
     "response": {{"output": said}}, "gradingResult": {{"reason": "because"}}}}
    for test, (said, passed) in zip(config["tests"], {answers!r})
]
json.dump({{"results": {{"results": results}}}}, open(given[given.index("-o") + 1], "w"))
"""


def install(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "promptfoo"
    program.write_text(text)
    program.chmod(0o755)
    return program


def run(tmp_path: Path, cases: Cases, text: str, **changes: Any) -> list[Theirs]:
    program = install(tmp_path / "bin", text)
    workdir = tmp_path / "work"
    workdir.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"url": URL, "model": "tuned", "max_new_tokens": 77}
    settings |= {"workdir": workdir, "environ": dict(os.environ), **changes}
    return run_promptfoo(program, tmp_path / "suite", cases, **settings)


def make_cases(tmp_path: Path) -> Cases:
    rubric = {"type": "llm-rubric", "value": "wise"}
    upper = [make_test(), assert_also(rubric), add_vars(note="b")]
    return read_cases(write_suite(tmp_path / "suite", upper, [add_vars(role="tidewatch")]))


def stand_in(*answers: tuple[Any, bool]) -> str:
    return STAND_IN.format(python=sys.executable, answers=answers)


def test_it_gets_the_cases_as_they_stand_and_nothing_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "made-up-key")
    cases = make_cases(tmp_path)
    theirs = run(tmp_path, cases, stand_in(("a", True), ({"b": 1}, False), (None, False)))
    assert [t.item for t in theirs] == [i.id for i in cases.items]
    assert [(t.passed, t.output) for t in theirs] == [
        (True, "a"),
        (False, '{"b": 1}'),
        (False, "null"),
    ]
    given = json.loads((tmp_path / "work" / "given.json").read_text())
    config = given["config"]
    assert config["defaultTest"]["options"] == CONFIG["defaultTest"]["options"]
    # Cost and latency are about the machine: neither of the two judges them.
    assert config["defaultTest"]["assert"] == CONFIG["defaultTest"]["assert"][:2]
    assert [t["vars"]["role"] for t in config["tests"]] == ["lockkeeper", "lockkeeper", "tidewatch"]
    (prompt,) = config["prompts"]
    assert (
        Path(prompt.removeprefix("file://")).read_text()
        == (tmp_path / "suite" / "prompts" / "lock.txt").read_text()
    )
    (provider,) = config["providers"]
    assert provider["id"] == "openai:chat:tuned"
    assert provider["config"] == {"apiBaseUrl": URL, "temperature": 0, "max_tokens": 77}
    environ = given["environ"]
    assert "made-up-key" not in json.dumps(environ)
    assert environ["HOME"] == str(tmp_path / "work")
    for switch in ("TELEMETRY", "UPDATE", "REMOTE_GENERATION", "SHARING"):
        assert environ[f"PROMPTFOO_DISABLE_{switch}"] == "1"


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\necho broken >&2\nexit 3\n",
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "[[[" > "$2"\n',
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho "{}" > "$2"\n',
        stand_in(("a", True)),
    ],
)
def test_a_run_without_a_result_for_each_case_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(WorkerFailed, match="gave no result for each case"):
        run(tmp_path, make_cases(tmp_path), text)


def test_a_run_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed) as e:
        run(tmp_path, make_cases(tmp_path), "#!/bin/sh\nexec sleep 60\n", seconds=0.2)
    assert "did not end" in e.value.why


def test_cases_on_which_the_two_differ_are_named(tmp_path: Path) -> None:
    need_tools("node")
    cases = make_cases(tmp_path)
    a, b, c = cases.items

    def said(item: Any, passed: bool, output: str) -> Theirs:
        return Theirs(item.id, passed, output, item.messages[0]["content"], "not what was expected")

    theirs = [said(a, True, answer()), said(b, False, answer()), said(c, True, answer("hold"))]
    told = compare_with_promptfoo(cases, theirs)
    assert (told["n"], told["agree"], told["passed"]) == (3, 1, {"gtft": 2, "promptfoo": 2})
    assert [(d["file"], d["number"], d["ours"]) for d in told["disagreements"]] == [
        ("upper-lock", 3, "passed"),
        ("lower-lock", 1, "javascript return d.action === 'open-sluice';: not met"),
    ]
    assert told["disagreements"][0]["promptfoo"] == "not what was expected"
    assert told["other_prompts"] == []
    # The raw answers, where they are known, go through our own transform.
    raw = {i.id: f"```json\n{answer()}\n```" for i in cases.items}
    assert compare_with_promptfoo(cases, theirs, raw)["passed"]["gtft"] == 3
    theirs[0] = Theirs(a.id, True, answer(), "another prompt", "")
    assert compare_with_promptfoo(cases, theirs)["other_prompts"][0]["number"] == 1


def test_where_promptfoo_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="not installed"):
        find_promptfoo({"PATH": str(tmp_path / "bin")}, tmp_path)
    local = install(tmp_path / "node_modules" / ".bin", "#!/bin/sh\n")
    assert find_promptfoo({"PATH": str(tmp_path / "bin")}, tmp_path) == local
    known = install(tmp_path / "bin", "#!/bin/sh\n")
    assert find_promptfoo({"PATH": str(tmp_path / "bin")}, tmp_path) == known
