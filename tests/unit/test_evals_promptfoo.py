"""promptfoo cases: read as they are or refused by name, judged by their own JavaScript, which gets nowhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals_case import make_corpus, make_job
from gtft.contract import Job
from gtft.errors import InputError, MissingExtra
from gtft.evals.checks import run_check
from gtft.evals.checks.promptfoo import Judge, find_node, make_body
from gtft.evals.item import CheckSpec, Item
from gtft.evals.promptfoo import find_cases_folders, leave_out, read_cases, tell_cases
from gtft.recipe.schema import Recipe
from gtft.workers.gathering import gather_items
from promptfoo_case import CONFIG, PROMPT, add_vars, answer, assert_also, make_test, write_suite
from town_case import need_tools

UPSTREAM = Path(__file__).parents[2].parent / "shared" / "data" / "gt-model-eval"
FINE = answer()


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    need_tools("node")
    made = Judge(find_node(os.environ["PATH"]), seconds=0.5)
    yield made
    made.close()


def run(judge: Judge, code: str, output: str = FINE, **assertion: Any) -> dict[str, Any]:
    """What one javascript assertion says of an answer."""
    one = {"type": "javascript", "value": code, **assertion}
    return judge.judge(output, {"vars": {"a": "1"}, "transform": None, "assertions": [one]})


def met(judge: Judge, output: str, kind: str, value: Any = None) -> bool:
    one = {"type": kind, "value": value}
    said = judge.judge(output, {"vars": {}, "transform": None, "assertions": [one]})
    assert said.get("passed") or said["why"] == "not met"
    return said.get("passed") is True


def only(folder: Path) -> Item:
    (item,) = read_cases(folder).items
    return item


def reason(folder: Path) -> str:
    """Why the only case is not run."""
    found = read_cases(folder)
    assert not found.items
    (one,) = found.not_run
    return one.reason


# Reading


def test_a_case_becomes_an_item_with_its_own_prompt_and_all_assertions(tmp_path: Path) -> None:
    item = only(write_suite(tmp_path, [add_vars(tide="ebb", note="engineer is away\n")]))
    assert (item.suite, item.capability, item.cluster) == ("gt-model-eval",) * 3
    assert (item.role, item.template, item.reference) == ("lockkeeper", "upper-lock", "")
    (message,) = item.messages
    assert message["role"] == "user"
    text = message["content"]
    assert text.startswith("You keep the lockkeeper of a lock on the canal. Step: level-check\n")
    assert "\nTide: ebb\n" in text
    # One line end of a var goes, the others stay.
    assert "```\n$ gauge upper\n4.10 m\n$ gauge lower\n4.08 m\n```" in text
    assert "## Note\nengineer is away\n" in text
    assert "No note." not in text
    args = item.check.args
    assert [a["type"] for a in args["assertions"]] == ["is-json", "javascript", "javascript"]
    assert args["transform"] == CONFIG["defaultTest"]["options"]["transform"]


def test_a_var_that_is_not_given_is_not_written(tmp_path: Path) -> None:
    text = only(write_suite(tmp_path, [make_test()])).messages[0]["content"]
    assert "Tide" not in text
    assert "No note." in text


def test_every_case_is_an_item_or_named_with_its_reason(tmp_path: Path) -> None:
    rubric = {"type": "llm-rubric", "value": "The answer is wise."}
    upper = [make_test(), assert_also(rubric), make_test()]
    found = read_cases(write_suite(tmp_path, upper, [add_vars(role="tidewatch")]))
    assert [found.case_of[i.id] for i in found.items] == [("upper-lock", 1), ("lower-lock", 1)]
    assert [(n.file, n.number, n.role, n.reason) for n in found.not_run] == [
        ("upper-lock", 2, "lockkeeper", "llm-rubric needs a grading model"),
        ("upper-lock", 3, "lockkeeper", "the same case twice"),
    ]


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (assert_also({"type": "not-similar", "value": "x"}), "not-similar needs a grading model"),
        (assert_also({"type": "contains-json"}), "contains-json is not an assertion that is judged"),
        (assert_also({"type": "python", "value": "True"}), "python is not an assertion"),
        (assert_also({"type": "is-json", "value": {"type": "object"}}), "is-json with a schema"),
        (assert_also({"type": "contains", "value": "{{role}}"}), "an assertion holds a template"),
        (assert_also({"type": "contains", "value": 3}), "no text"),
        (assert_also({"type": "contains-any", "value": '"a, b", c'}), "with quotes"),
        (assert_also({"type": "contains", "value": "a", "weight": 0}), "the key weight"),
        (assert_also({"type": "javascript", "value": "file://grade.js"}), "names a file"),
        (assert_also({"type": "javascript", "value": "require('fs') && 1"}), "asks for require"),
        (assert_also({"type": "javascript", "value": "process.exit(0)"}), "asks for process"),
        (assert_also({"type": "javascript", "value": "context.prompt !== ''"}), "context.prompt"),
        (assert_also({"type": "javascript", "value": "1", "threshold": True}), "threshold"),
        (add_vars(note="{{ gauge }}"), "its var note holds a template"),
        (add_vars(note=["a", "b"]), "its var note is not a text"),
        (add_vars(note=True), "its var note is not a text"),
        (add_vars(gauge="file://../secret.txt"), "its var gauge names a file"),
        (make_test(threshold=0.5), "its key threshold is not known"),
        (make_test(options={"transform": "1"}), "its key options is not known"),
        (make_test(assert_=1), "its key assert_ is not known"),
        ("a text", "not an object"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_not_run(tmp_path: Path, case: Any, told: str) -> None:
    assert told in reason(write_suite(tmp_path, [case]))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"nunjucksFilters": {}}, "nunjucksFilters"),
        ({"prompts": ["file://prompts/lock.txt", "file://prompts/lock.txt"]}, "exactly one prompt"),
        ({"prompts": ["file://../lock.txt"]}, "cannot be read"),
        ({"tests": "file://tests/upper-lock.yaml"}, "lists no tests"),
        ({"tests": ["file://../../outside.yaml"]}, "outside"),
        ({"tests": ["file://tests/*.yaml"]}, "does not name one file"),
        ({"defaultTest": {"options": {"postprocess": "1"}}}, "besides provider and transform"),
        ({"defaultTest": {"assert": [{"type": "llm-rubric", "value": "x"}]}}, "grading model"),
        ({"defaultTest": {"threshold": 1}}, "besides options"),
    ],
)
def test_a_configuration_that_would_mean_something_else_is_refused(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        read_cases(write_suite(tmp_path / "suite", [make_test()], **config))


@pytest.mark.parametrize(
    "tag",
    [
        "{{ role | upper }}", "{% for x in role %}{% endfor %}", "{# said #}", "{{ env.HOME }}", "{%- if role -%}{% endif %}",
        "{% include 'x' %}", "{{ role", "{% if a and b %}{% endif %}", "{{ range }}", "{{ env }}", "{{ ''.__class__ }}",
    ],
)  # fmt: skip
def test_a_template_that_the_two_languages_may_read_differently_is_refused(
    tmp_path: Path, tag: str
) -> None:
    with pytest.raises(InputError, match="template language"):
        read_cases(write_suite(tmp_path, [make_test()], prompt=PROMPT + tag))


def test_yaml_of_a_stranger(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite", [make_test()])
    tests = folder / "tests" / "upper-lock.yaml"
    for text, told in (
        ("- &a [x, x]\n- *a\n", "aliases"),
        ("- {vars: {a: b, a: c}}\n", "twice"),
        ("- !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("[" * 3000, "not YAML"),
        ("a: b\n", "not a list"),
        ("- [\n", "not YAML"),
        ("- " + "x" * (1 << 20), "larger than"),
    ):
        tests.write_text(text, "utf-8")
        with pytest.raises(InputError, match=told):
            read_cases(folder)
    (tmp_path / "outside.yaml").write_text("[]")
    tests.unlink()
    tests.symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(InputError, match="outside"):
        read_cases(folder)


def test_where_the_cases_are_looked_for(tmp_path: Path) -> None:
    town, root = tmp_path / "town", tmp_path / "root"
    workspace = town / ".gtft"
    for folder in (workspace, root, town / "mayor"):
        folder.mkdir(parents=True)
    rig = write_suite(town / "pier" / "mayor" / "rig" / "gt-model-eval", [])
    assert find_cases_folders("", workspace, root) == []
    (town / "mayor" / "town.json").write_text("{}")
    assert find_cases_folders("", workspace, root) == [rig]
    own = write_suite(town / "gt-model-eval", [])
    beside = write_suite(root / "gt-model-eval", [])
    assert find_cases_folders("", workspace, root) == [own, rig, beside]
    named = write_suite(root / "cases", [])
    assert find_cases_folders("cases", workspace, root) == [named, own, rig, beside]
    with pytest.raises(InputError, match="holds no promptfooconfig"):
        find_cases_folders("nowhere", workspace, root)


# Judging


def test_right_answers_pass_and_wrong_ones_say_which_assertion(
    tmp_path: Path, judge: Judge
) -> None:
    check = only(
        write_suite(tmp_path, [assert_also({"type": "contains", "value": "gauges"})])
    ).check
    for right in (FINE, f"```json\n{FINE}\n```", f"  {FINE}\n"):
        assert run_check(check, right).passed
    for wrong, told in (
        ("", "is-json: not met"),
        (f"Here it is: {FINE}", "is-json: not met"),
        (f"```json\n{FINE}\n``` and so on", "is-json: not met"),
        (answer("hold"), "javascript return d.action === 'open-sluice';: not met"),
        (answer("Open-Sluice"), "includes(d.action);: not met"),
        (answer(reason="levels agree"), "contains gauges: not met"),
        ("null", "threw Cannot read properties of null"),
        ("[]", "not met"),
        (f'<tool_call>{{"name": "Bash", "arguments": {FINE}}}</tool_call>', "a tool call"),
    ):
        outcome = run_check(check, wrong)
        assert not outcome.passed
        assert told in outcome.reason


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        ("output.includes('open')", True),
        ("output.includes('shut')", False),
        ("output.includes('open');", True),
        ("const d = JSON.parse(output); d.action === 'open-sluice'", True),
        ("let a = 'x;y'; a === 'x;y'", True),
        ("const a = 1", None),
        ("const d = JSON.parse(output);\nreturn d.action === 'open-sluice';\n", True),
        ("const d = JSON.parse(output);\nd.action === 'open-sluice';\n", None),
        ("context.vars.a === '1'", True),
        ("0.4", True),
        ("0", False),
        ("-1", False),
        ("'yes'", None),
        ("Promise.resolve(true)", True),
        ("Promise.reject(new Error('no'))", None),
        ("({pass: true, score: 0, reason: 'r'})", True),
        ("({pass: false, score: 1, reason: 'r'})", False),
        ("({pass: 'true', score: 1, reason: 'r'})", None),
        ("this is no javascript", None),
        ("}); (() => {", None),
    ],
)
def test_javascript_means_what_it_means_to_promptfoo(
    judge: Judge, code: str, passes: bool | None
) -> None:
    """None: the assertion fails because its code does."""
    said = run(judge, code)
    assert (said.get("passed") is True) == (passes is True)
    if not passes:
        assert (said["why"] == "not met") == (passes is False)


def test_thresholds_and_inversion(judge: Judge) -> None:
    assert run(judge, "0.4", threshold=0.5)["why"] == "not met"
    assert run(judge, "0.5", threshold=0.5)["passed"]
    assert run(judge, "true", type="not-javascript")["why"] == "not met"
    assert run(judge, "false", type="not-javascript")["passed"]


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("contains", "Wren", "a Wren b", "a wren b"),
        ("icontains", "Wren", "a wRen b", "a w ren"),
        ("contains-any", ["x", "y"], "a y", "a Y"),
        ("contains-any", "x, y", "a y", "a , b"),
        ("icontains-any", ["X"], "ax", "a"),
        ("contains-all", ["x", "y"], "yx", "y"),
        ("icontains-all", ["X", "y"], "xY", "x"),
        ("starts-with", "ab", "abc", " abc"),
        ("equals", "ab", "ab", "ab "),
        ("regex", "^a+$", "aaa", "aab"),
        ("is-json", None, '{"a": [1, null]}', "{'a': 1}"),
        ("is-json", None, '"text"', "NaN"),
        ("is-json", None, "3", "{} {}"),
    ],
)
def test_other_assertions_and_their_opposites(
    judge: Judge, kind: str, value: Any, right: str, wrong: str
) -> None:
    assert met(judge, right, kind, value)
    assert not met(judge, wrong, kind, value)
    assert not met(judge, right, f"not-{kind}", value)
    assert met(judge, wrong, f"not-{kind}", value)


def test_a_transform_that_makes_an_object_and_one_that_makes_nothing(judge: Judge) -> None:
    args = {"vars": {}, "assertions": [{"type": "javascript", "value": "output.action.length > 3"}]}
    assert judge.judge(FINE, {**args, "transform": "JSON.parse(output)"})["passed"]
    assert judge.judge("{", {**args, "transform": "JSON.parse(output)"})["failed"] == -1
    assert "returns nothing" in judge.judge(FINE, {**args, "transform": "undefined"})["why"]
    assert judge.judge(FINE, {**args, "transform": "const x = 1\nreturn {action: 'long'}"})[
        "passed"
    ]


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_text_arrives_as_it_was_said(judge: Judge, text: str) -> None:
    assert met(judge, text, "equals", text) or not text
    assert met(judge, text, "contains", text)


def test_bodies_are_made_as_promptfoo_makes_them() -> None:
    assert make_body("a > 1;;\n") == "return a > 1"
    assert make_body("let a = 'b;'; a") == "let a = 'b;'; return a"
    assert make_body("const a = 1;") == "const a = 1"
    assert make_body("const a = 1\nreturn a\n") == "const a = 1\nreturn a"


# Hostile code


@pytest.mark.parametrize(
    "code",
    [
        "fetch('http://127.0.0.1:9/')",
        "require('net').connect(9)",
        "process.binding('fs')",
        "process.mainModule.require('child_process')",
        "import('node:net').then((m) => m.connect(9))",
        "this.constructor.constructor('return process')().pid > 0",
        "(function () { return this })().constructor.constructor('return process')().pid > 0",
        "context.constructor.constructor('return process')().pid > 0",
        "output.constructor.constructor('return 1')() === 1",
        "eval('1 === 1')",
        "new Function('return true')()",
        "(async () => {}).constructor('return true')()",
        "import('x').catch((e) => e.constructor.constructor('return process')().pid > 0)",
        "import('x').constructor.constructor('return true')()",
        "new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])) !== null",
        "setTimeout(() => true, 1) && true",
        "globalThis.Buffer.from('x').length === 1",
        "new Worker('x')",
        "new Promise(() => {})",
        "({then(resolve) {}})",
        "const f = () => f(); f()",
        "throw1",
        "Promise.reject({get message() { throw 1 }})",
    ],
)
def test_code_that_wants_out_fails_and_the_next_answer_is_judged(judge: Judge, code: str) -> None:
    said = run(judge, code)
    assert "passed" not in said
    assert said["why"] != "not met"
    assert run(judge, "output.length > 3")["passed"]


@pytest.mark.parametrize(
    "code",
    [
        "while (true) {}",
        "Promise.resolve().then(function again() { return Promise.resolve().then(again) })",
        "const a = [];\nwhile (true) a.push(new Array(1e6).fill(a.length));",
        "const a = [];\nwhile (true) a.push(new Uint8Array(1e8).fill(1));",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "/^(a+)+$/.test('a'.repeat(40) + 'b')",
        "'x'.repeat(2 ** 29).split('').length > 0",
        "globalThis.finish = () => ({ toString() { while (true) {} } });\nreturn true;",
        "throw { get message() { while (true) {} } };\n",
        "Object.defineProperty(globalThis, 'finish', { get() { while (true) {} } });\nreturn true;",
    ],
)
def test_code_that_eats_time_or_memory_fails_and_the_next_answer_is_judged(
    judge: Judge, code: str
) -> None:
    assert "passed" not in run(judge, code)
    assert run(judge, "output.length > 3")["passed"]


def test_code_cannot_change_what_the_next_case_sees(judge: Judge) -> None:
    for code in (
        "JSON.parse = () => ({ action: 'open-sluice' });\nString.prototype.includes = () => true;\nreturn true;",
        "Object.prototype.passed = true;\nArray.prototype.push = null;\nreturn true;",
        # From the error of a refused import to this side's own prototypes.
        "return import('x').catch((e) => {\n"
        " let top = e;\n"
        " while (Object.getPrototypeOf(top)) top = Object.getPrototypeOf(top);\n"
        " const text = Object.getPrototypeOf(top.constructor('x'));\n"
        " text.indexOf = () => -1;\n text.includes = () => true;\n text.slice = () => '{}';\n"
        " top.passed = true;\n e.constructor.polluted = 1;\n return true; })",
        "globalThis.finish = () => '{\"passed\":true}';\nreturn true;",
    ):
        run(judge, code)
        assert run(judge, "output.includes('shut')")["why"] == "not met"
        assert run(judge, "typeof polluted === 'undefined' && ({}).passed === undefined")["passed"]


def test_what_comes_back_is_one_short_line(judge: Judge) -> None:
    said = run(judge, "throw new Error('x'.repeat(1e6) + '\\n{\"passed\":true}\\n');\n")
    assert len(json.dumps(said)) < 400
    said = run(
        judge, 'globalThis.finish = () => \'{"passed":false}\\n{"passed":true}\';\nreturn 1;'
    )
    assert run(judge, "output.includes('shut')")["why"] == "not met"


def test_hostile_answers_are_only_text(tmp_path: Path, judge: Judge) -> None:
    check = only(write_suite(tmp_path, [make_test()])).check
    for text in (
        "{" * 15_000, "[" * 15_000, "\u2028\u2029\x00\ud800", "`${process.exit()}`", "');while(1){}('", "</script>", '{"__proto__": {"action": "open-sluice"}}',
        "x" * 500_000, '{"action": {"toString": "open-sluice"}}', '{"action": ["open-sluice"]}',
    ):  # fmt: skip
        outcome = run_check(check, text)
        assert not outcome.passed
        assert outcome.reason
    assert run_check(check, FINE).passed


def test_no_node_is_an_error_and_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"Node\.js 20"):
        find_node(str(tmp_path))
    old = tmp_path / "node"
    old.write_text("#!/bin/sh\necho v18.1.0\n")
    old.chmod(0o755)
    with pytest.raises(MissingExtra) as e:
        find_node(str(tmp_path))
    assert "v18.1.0" in e.value.why
    mute = Judge(old)
    with pytest.raises(MissingExtra, match="does not start"):
        run(mute, "true")


# Telling


@dataclass(frozen=True)
class Said:
    candidate: str
    item: str
    passed: bool


def test_the_table_counts_per_role_and_file_with_the_published_rates(tmp_path: Path) -> None:
    rubric = {"type": "llm-rubric", "value": "wise"}
    found = read_cases(
        write_suite(
            tmp_path,
            [make_test(), add_vars(note="b"), assert_also(rubric)],
            [add_vars(role="tidewatch")],
        )
    )
    a, b, c = (i.id for i in found.items)
    said = [Said("base", i, False) for i in (a, b, c)]
    said += [Said("tuned", a, True), Said("tuned", b, False), Said("tuned", c, True)]
    said.append(Said("tuned", "item-of-another-suite", True))
    told = tell_cases(found.items, said, found.not_run)
    rows = {r["role"]: r for r in told["rows"]}
    assert rows["all"]["n"] == 3
    assert rows["all"]["passed"] == {"base": 0, "tuned": 2}
    assert rows["lockkeeper"]["rates"] == {"base": 0.0, "tuned": 0.5}
    assert (rows["lockkeeper"]["n"], rows["lockkeeper"]["not_run"]) == (2, 1)
    assert rows["tidewatch"]["passed"]["tuned"] == 1
    assert {f["file"]: f["n"] for f in told["files"]} == {"lower-lock": 1, "upper-lock": 2}
    assert [p["rate"] for p in told["published"]] == [0.91, 0.9, 0.89]
    assert told["not_run"][0]["reason"] == "llm-rubric needs a grading model"


def test_most_answers_of_a_case_decide(tmp_path: Path) -> None:
    found = read_cases(write_suite(tmp_path, [make_test()]))
    (item,) = found.items
    for votes, passed in (((True, True, False), 1), ((True, False), 0), ((False, False, True), 0)):
        told = tell_cases(found.items, [Said("tuned", item.id, v) for v in votes], ())
        assert told["rows"][0]["passed"] == {"tuned": passed}


def test_what_cannot_be_asked_is_named_like_what_is_not_run(tmp_path: Path) -> None:
    found = read_cases(write_suite(tmp_path, [make_test(), add_vars(note="b")]))
    first, second = found.items
    left = leave_out(found, {second.id}, "it does not fit 64 tokens")
    assert left.items == (first,)
    (one,) = left.not_run
    assert (one.file, one.number, one.role) == ("upper-lock", 2, "lockkeeper")
    assert one.reason == "it does not fit 64 tokens"


def test_gas_towns_own_cases() -> None:
    """Where the real ones are: 97, of which 8 need a grading model."""
    if not UPSTREAM.is_dir():
        pytest.skip("gt-model-eval is not beside this checkout")
    found = read_cases(UPSTREAM)
    assert len(found.items) + len(found.not_run) == 97
    assert {n.reason for n in found.not_run} <= {"llm-rubric needs a grading model"}
    assert {i.role for i in found.items} == {"deacon", "dog", "refinery", "witness"}


def test_a_check_without_assertions_of_its_own_still_needs_the_defaults(tmp_path: Path) -> None:
    need_tools("node")
    item = only(write_suite(tmp_path, [make_test(**{"assert": None})]))
    assert run_check(item.check, answer("hold")).passed
    assert not run_check(item.check, answer("drain")).passed
    spec = CheckSpec("promptfoo", {**item.check.args, "assertions": []})
    assert run_check(spec, "anything").passed


def test_an_evaluation_without_node_says_so_and_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tools("node")
    corpus = make_corpus(tmp_path / "artifacts", [], [])
    write_suite(tmp_path / "gt-model-eval", [make_test()])
    folder = make_job(tmp_path, corpus, corpus, suites=["gt-model-eval"])
    job = Job.model_validate_json((folder / "job.json").read_text())
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    assert len(gather_items(job, recipe, corpus).items) == 1
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gather_items(job, recipe, corpus)
    assert found.items == []
    assert found.cases is not None
    assert "Node.js" in found.cases.not_run[0].reason
    assert found.not_run[0][0] == "gt-model-eval"
