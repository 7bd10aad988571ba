"""Gas Town's own cases (``gt-model-eval``), or another promptfoo suite of that shape, read as eval items.

What is not understood is refused by name, never guessed: a template, key or assertion that promptfoo would treat in a way that is not
known here makes the case "not run" with the reason. A case that needs a model to grade it is "not run" too.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from gtft.errors import InputError, translate_os_error
from gtft.evals.item import CheckSpec, Item

SUITE = "gt-model-eval"
CONFIG = "promptfooconfig.yaml"
# Published with the cases (Gas Town, issue 1560); the number of cases passed, of all.
BASELINES = (("Opus 4.6", 0.91), ("Haiku 4.5", 0.90), ("Sonnet 4.5", 0.89))
BASELINES_NOTE = (
    "published in Gas Town's issue 1560: over all cases of that day, those that a model grades included, "
    "at most 512 tokens per answer, cost and latency judged"
)
# What the machine took, not what the answer is; both stand in the report as figures.
NOT_JUDGED = ("cost", "latency")
_LARGEST = 1 << 20
_MOST_CASES = 5000
_LONGEST_CODE = 20_000
_TEXT_TYPES = frozenset({"contains", "icontains", "starts-with", "equals", "regex"})
_LIST_TYPES = frozenset({"contains-any", "icontains-any", "contains-all", "icontains-all"})
_GRADED = frozenset({
    "answer-relevance", "classifier", "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance",
    "factuality", "g-eval", "is-refusal", "llm-rubric", "model-graded-closedqa", "model-graded-factuality", "moderation", "pi",
    "search-rubric", "select-best", "similar",
})  # fmt: skip
_CONFIG_KEYS = frozenset({
    "$schema", "description", "prompts", "providers", "defaultTest", "tests", "commandLineOptions", "evaluateOptions", "outputPath",
    "sharing", "tags",
})  # fmt: skip
_CASE_KEYS = frozenset({"description", "vars", "assert", "metadata"})
_ASSERTION_KEYS = frozenset({"type", "value", "threshold", "metric"})
_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
# A plain name; not one that either language gives a meaning of its own.
_NAME = (
    r"(?!(?:true|false|none|null|undefined|not|and|or|is|in|if|else|self|super|loop|caller|env|range|cycler|joiner|lipsum|dict|namespace)\b"
    r"|True\b|False\b|None\b)[A-Za-z_]\w*"
)
_TAG = re.compile(
    rf"\{{\{{ *{_NAME} *\}}\}}"
    rf"|\{{% *(?:(?:el)?if +(?:not +)?{_NAME}(?: +is +(?:not +)?defined)?|else|endif) *%\}}"
)
_ASKED = re.compile(r"\bprocess\s*[.\[]|\brequire\s*\(|\bimport\s*\(|\bfetch\s*\(")
_CONTEXT = re.compile(r"\bcontext\s*(?:\?\.|\.|\[)\s*(\w+)")
_PLACES = ("gt-model-eval", "*/mayor/rig/gt-model-eval", "*/refinery/rig/gt-model-eval")


@dataclass(frozen=True)
class NotRun:
    """A case that is not scored. ``file`` is a stem, ``number`` counts from 1."""

    file: str
    number: int
    case: str
    role: str
    reason: str


@dataclass(frozen=True)
class Cases:
    """``case_of`` leads from an item's id to its place: file stem, number from 1."""

    items: tuple[Item, ...]
    not_run: tuple[NotRun, ...]
    case_of: dict[str, tuple[str, int]]


class Judged(Protocol):
    """What is looked at of a generation."""

    @property
    def candidate(self) -> str: ...

    @property
    def item(self) -> str: ...

    @property
    def passed(self) -> bool: ...


def find_cases_folders(given: str, workspace: Path, root: Path) -> list[Path]:
    """Where the cases are, the first one to be used: the folder that the recipe names, then those of the town that the
    workspace is in (the town's own, then those of rigs' clones), then of ``root``.

    Raises InputError when the folder that the recipe names holds no cases.
    """
    found: list[Path] = []
    if given:
        path = Path(given).expanduser()
        places = [path] if path.is_absolute() else [workspace / path, root / path]
        found = [p for p in places if (p / CONFIG).is_file()][:1]
        if not found:
            raise InputError(
                f"{given} holds no {CONFIG}",
                why="eval.gt_model_eval names the folder of Gas Town's cases",
                fix="gtft recipe lint, or leave eval.gt_model_eval empty to look below the town",
            )
    town = workspace.parent
    if (town / "mayor" / "town.json").is_file():
        found += [p for place in _PLACES for p in sorted(town.glob(place))]
    return [p for p in dict.fromkeys([*found, root / SUITE]) if (p / CONFIG).is_file()]


def read_cases(folder: Path) -> Cases:
    """The cases of ``folder`` as items; each case of the files is either an item or in ``not_run``.

    Raises InputError when the configuration as a whole cannot be run unchanged.
    """
    config = read_yaml(folder / CONFIG, folder)
    if not isinstance(config, dict):
        raise _refuse(f"{CONFIG} is not a promptfoo configuration")
    if unknown := sorted(set(map(str, config)) - _CONFIG_KEYS):
        raise _refuse(f"{CONFIG} has the key {unknown[0]}")
    template = _read_prompt(config, folder)
    transform, defaults, default_vars = _read_defaults(config.get("defaultTest") or {})
    items: dict[str, Item] = {}
    case_of: dict[str, tuple[str, int]] = {}
    not_run: list[NotRun] = []
    for stem, number, case in list_cases(config, folder):
        title = str(case.get("description", "")) if isinstance(case, dict) else ""
        role = _read_role(case)
        try:
            item = _make_item(case, stem, template, transform, defaults, default_vars)
            if item.id in items:
                raise _Refused("the same case twice")
            items[item.id] = item
            case_of[item.id] = stem, number
        except _Refused as e:
            not_run.append(NotRun(stem, number, title, role, str(e)))
    return Cases(tuple(items.values()), tuple(not_run), case_of)


def list_cases(config: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, int, Any]]:
    """File stem, number in it and the case as it stands there. Raises InputError."""
    tests = config.get("tests")
    if not isinstance(tests, list):
        raise _refuse(f"{CONFIG} lists no tests")
    left = _MOST_CASES
    for test in tests:
        inside, stem = [test], Path(CONFIG).stem
        if isinstance(test, str):
            path = _follow(test, folder)
            inside, stem = read_yaml(path, folder), path.stem
            if not isinstance(inside, list):
                raise _refuse(f"{path.name} is not a list of cases")
        for number, case in enumerate(inside, start=1):
            left -= 1
            if left < 0:
                raise _refuse(f"there are more than {_MOST_CASES} cases")
            yield stem, number, case


def read_yaml(path: Path, folder: Path) -> Any:
    """A YAML file inside ``folder``, without aliases and repeated keys. Raises InputError."""
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise _refuse(f"{path.name} lies outside the folder of the cases")
        with path.open("rb") as f:
            data = f.read(_LARGEST + 1)
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    if len(data) > _LARGEST:
        raise _refuse(f"{path.name} is larger than {_LARGEST} bytes")
    try:
        return yaml.load(data.decode("utf-8"), _PlainLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise _refuse(f"{path.name} is not YAML that is read here: {str(e)[:200]}") from e


def leave_out(cases: Cases, ids: Collection[str], reason: str) -> Cases:
    """The same with these items not run: there is no Node, or they do not fit the model."""
    left = tuple(
        NotRun(*cases.case_of[i.id], i.check.args["case"], str(i.role), reason)
        for i in cases.items
        if i.id in ids
    )
    kept = tuple(i for i in cases.items if i.id not in ids)
    return replace(cases, items=kept, not_run=(*cases.not_run, *left))


def tell_cases(
    items: Sequence[Item], generations: Sequence[Judged], not_run: Sequence[NotRun]
) -> dict[str, Any]:
    """Per role and per file: cases, cases not run, and how many each candidate passed; the published figures beside.

    A case with several answers of one candidate is passed when most of them are.
    """
    ours = {i.id: i for i in items if i.suite == SUITE}
    votes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for g in generations:
        if g.item in ours:
            votes[g.candidate, g.item].append(g.passed)
    candidates = sorted({c for c, _ in votes})
    passed = {key: 2 * sum(v) > len(v) for key, v in votes.items()}

    def tell(chosen: Sequence[Item], left: int) -> dict[str, Any]:
        counts = {c: sum(passed.get((c, i.id), False) for i in chosen) for c in candidates}
        rates = {c: round(k / len(chosen), 4) for c, k in counts.items() if chosen}
        return {"n": len(chosen), "not_run": left, "passed": counts, "rates": rates}

    roles, files = Counter(n.role for n in not_run), Counter(n.file for n in not_run)
    everything = list(ours.values())
    rows = [{"role": "all", **tell(everything, len(not_run))}]
    for role in sorted({str(i.role) for i in everything} | set(roles)):
        rows.append({"role": role, **tell([i for i in everything if i.role == role], roles[role])})
    per_file = [
        {"file": stem, **tell([i for i in everything if i.template == stem], files[stem])}
        for stem in sorted({i.template for i in everything} | set(files))
    ]
    told = [f"{len(everything)} of Gas Town's cases were asked, as they are"]
    if not_run:
        told.append(f"{len(not_run)} are not run, each with its reason, and count for nobody")
    told.append(f"cost and latency of a case are not judged; published rates: {BASELINES_NOTE}")
    return {
        "told": told,
        "rows": rows,
        "files": per_file,
        "not_run": [vars(n) for n in not_run],
        "not_judged": list(NOT_JUDGED),
        "published": [{"model": model, "rate": rate} for model, rate in BASELINES],
        "published_note": BASELINES_NOTE,
    }


class _Refused(Exception):
    """This case is not run; the message says why."""


class _PlainLoader(yaml.SafeLoader):
    """No aliases, which can make a small file huge; no key twice, which promptfoo refuses and PyYAML does not."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) != len(node.value):
            raise yaml.YAMLError(f"a key stands twice{node.start_mark}")
        return found


def _read_prompt(config: Mapping[str, Any], folder: Path) -> str:
    prompts = config.get("prompts")
    if not isinstance(prompts, list) or len(prompts) != 1 or not isinstance(prompts[0], str):
        raise _refuse(f"{CONFIG} does not have exactly one prompt")
    path = _follow(prompts[0], folder)
    if path.suffix != ".txt":
        raise _refuse(f"the prompt {path.name} is not a .txt file")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise _refuse(f"the prompt {path.name} cannot be read") from e
    lines = re.split(r"\r?\n", text)
    if any(line.strip() == "---" for line in lines):
        raise _refuse(f"the prompt {path.name} holds several prompts (---)")
    template = "\n".join(lines).strip()
    if found := _TEMPLATE.search(_TAG.sub("", template)):
        place = template.count("\n", 0, template.find(found.group())) + 1
        raise _refuse(
            f"the prompt {path.name} uses more of the template language than is read here",
            why=f"near line {place}; read are {{{{ name }}}}, and if, elif, else, endif with one name",
        )
    return template


def _read_defaults(given: Any) -> tuple[str | None, list[dict[str, Any]], dict[str, Any]]:
    """The transform, the assertions and the vars of defaultTest."""
    if not isinstance(given, dict) or set(given) - {"options", "assert", "vars"}:
        raise _refuse("defaultTest has keys besides options, assert and vars")
    options = given.get("options") or {}
    if not isinstance(options, dict) or set(options) - {"provider", "transform"}:
        raise _refuse("defaultTest.options has keys besides provider and transform")
    transform = options.get("transform")
    try:
        if transform is not None:
            _examine_code(transform, "the transform")
        return transform, _read_assertions(given.get("assert")), dict(given.get("vars") or {})
    except _Refused as e:
        raise _refuse(f"defaultTest cannot be run unchanged: {e}") from e


def _make_item(
    case: Any,
    stem: str,
    template: str,
    transform: str | None,
    defaults: Sequence[dict[str, Any]],
    default_vars: Mapping[str, Any],
) -> Item:
    if not isinstance(case, dict):
        raise _Refused("it is not an object")
    if unknown := sorted(set(map(str, case)) - _CASE_KEYS):
        raise _Refused(f"its key {unknown[0]} is not known here")
    values = _read_vars({**default_vars, **(case.get("vars") or {})})
    assertions = [*defaults, *_read_assertions(case.get("assert"))]
    if not assertions:
        raise _Refused("it asserts nothing")
    return Item(
        id="",
        suite=SUITE,
        capability=SUITE,
        role=values.get("role"),
        template=stem,
        cluster=SUITE,
        messages=({"role": "user", "content": _render(template, values)},),
        tools=(),
        check=CheckSpec(
            "promptfoo",
            {
                "case": str(case.get("description", "")),
                "vars": values,
                "transform": transform,
                "assertions": assertions,
            },
        ),
        reference="",
    ).identified()


def _read_role(case: Any) -> str:
    found = case.get("vars") if isinstance(case, dict) else None
    return str(found.get("role", "")) if isinstance(found, dict) else ""


def _read_vars(given: Mapping[Any, Any]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, str) or not isinstance(name, str):
            raise _Refused(f"its var {name} is not a text")
        if _TEMPLATE.search(value):
            raise _Refused(f"its var {name} holds a template")
        if value.startswith(("file://", "package:")):
            raise _Refused(f"its var {name} names a file")
        # promptfoo takes one line end away before it writes the prompt.
        values[name] = value.removesuffix("\n")
    return values


def _read_assertions(given: Any) -> list[dict[str, Any]]:
    """Those that are judged, as they stand. Raises _Refused for what cannot be judged as promptfoo does."""
    if given is None:
        return []
    if not isinstance(given, list):
        raise _Refused("its assertions are not a list")
    kept = []
    for a in given:
        if not isinstance(a, dict) or not isinstance(a.get("type"), str):
            raise _Refused("an assertion without a type")
        kind = _base(a["type"])
        if kind.partition(":")[0] in _GRADED:
            raise _Refused(f"{a['type']} needs a grading model")
        if kind in NOT_JUDGED:
            continue
        if unknown := sorted(set(map(str, a)) - _ASSERTION_KEYS):
            raise _Refused(f"the key {unknown[0]} of an assertion is not known here")
        _examine_assertion(a, kind)
        kept.append({k: a[k] for k in ("type", "value", "threshold") if k in a})
    return kept


def _examine_assertion(a: Mapping[str, Any], kind: str) -> None:
    value = a.get("value")
    threshold = a.get("threshold")
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float)
    ):
        raise _Refused("a threshold that is no number")
    if kind == "javascript":
        _examine_code(value, "an assertion")
    elif kind == "is-json":
        if value is not None:
            raise _Refused("is-json with a schema")
    elif kind in _TEXT_TYPES:
        _examine_text(value)
    elif kind in _LIST_TYPES:
        for v in value if isinstance(value, list) and value else [value]:
            _examine_text(v)
        if isinstance(value, str) and ('"' in value or "\\" in value):
            raise _Refused(f"{kind} with quotes in one text")
    else:
        raise _Refused(f"{a['type']} is not an assertion that is judged here")


def _examine_text(value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise _Refused("an assertion compares with something that is no text")
    if _TEMPLATE.search(value):
        raise _Refused("an assertion holds a template")
    if value.startswith(("file://", "package:")):
        raise _Refused("an assertion names a file")


def _examine_code(value: Any, what: str) -> None:
    _examine_text(value)
    if len(value) > _LONGEST_CODE:
        raise _Refused(f"{what} is longer than {_LONGEST_CODE} characters")
    if found := _ASKED.search(value):
        raise _Refused(f"{what} asks for {found.group().rstrip('.([ ')}, which it does not get")
    for name in _CONTEXT.findall(value):
        if name != "vars":
            raise _Refused(f"{what} asks for context.{name}, which it does not get")


def _render(template: str, values: Mapping[str, str]) -> str:
    from jinja2.sandbox import SandboxedEnvironment

    # Both languages agree on the tags that `_TAG` lets through, on texts, and on names that are not given.
    made = SandboxedEnvironment(autoescape=False, keep_trailing_newline=True)
    return made.from_string(template).render(dict(values))


def _base(kind: str) -> str:
    return kind.removeprefix("not-")


def _follow(said: str, folder: Path) -> Path:
    name = said.removeprefix("file://")
    if name == said or any(c in name for c in "*?[{:"):
        raise _refuse(f"{said[:80]} does not name one file of this folder")
    return folder / name


def _refuse(what: str, why: str = "") -> InputError:
    return InputError(
        what,
        why=why or "the cases are run unchanged or not at all",
        fix="name another folder (eval.gt_model_eval), or take gt-model-eval out of eval.suites",
    )
