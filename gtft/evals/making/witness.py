"""Witness work: a bead's numbered criteria and a list of evidence → complete or not, and what is missing.

What counts as evidence is stated in every prompt, so the answer follows from it alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gtft.evals.item import CheckSpec
from gtft.evals.making.made import Made, draft
from gtft.evals.making.names import POLECATS, draw_fault, draw_ids, draw_rigs

_EACH = 12
_HEX = "0123456789abcdef"
_FILES = ("manual/returns.md", "src/scales.go", "src/rota.py", "assets/labels.csv", "tools/sweep.sh", "manual/keys.md", "src/bins.ts", "src/quay.rs")  # fmt: skip
_TESTS = ("tests/scales", "tests/rota", "tests/bins", "tests/quay", "tests/keys", "tests/returns")
_SIZES = ("start-up time in ms", "memory in MB", "open warnings", "lines in the log of one order")
_ASK = 'Answer with one JSON object and nothing else: {"complete": true or false, "missing": [the numbers of the criteria that are not shown, such as "K2"]}; an empty list when it is complete.'


@dataclass(frozen=True)
class Criterion:
    """``kind``: file, test or size. ``subject``: the file, the test, or what is measured; ``most`` for a size."""

    kind: str
    subject: str
    most: int = 0

    def tell(self) -> str:
        if self.kind == "file":
            return f"{self.subject} is part of the branch"
        if self.kind == "test":
            return f"{self.subject} passes"
        return f"{self.subject}: at most {self.most}"


@dataclass(frozen=True)
class Evidence:
    """One line: for which bead, at which commit (its place in the branch, newest last), about what, with what result.

    ``result``: 1 or 0 for a file (added, removed) and a test (passed, failed); a measured value for a size.
    """

    bead: str
    commit: int
    kind: str
    subject: str
    result: int

    def tell(self, hashes: Sequence[str]) -> str:
        said = {
            "file": f"{self.subject} {'added' if self.result else 'removed'}",
            "test": f"{self.subject} {'passed' if self.result else 'failed'}",
            "size": f"{self.subject} measured: {self.result}",
        }[self.kind]
        return f"{self.bead}  {hashes[self.commit]}  {said}"


def judge(
    bead: str,
    criteria: Mapping[str, Criterion],
    evidence: Sequence[Evidence],
    head_only: int | None = None,
) -> list[str]:
    """The criteria that are not shown: of the lines about this bead, the last about a criterion decides.

    ``head_only``: tests and sizes count only at this commit.
    """
    missing = []
    for number, criterion in criteria.items():
        lines = [
            e
            for e in evidence
            if (e.bead, e.kind, e.subject) == (bead, criterion.kind, criterion.subject)
            and (head_only is None or e.kind == "file" or e.commit == head_only)
        ]
        shown = bool(lines) and (
            lines[-1].result <= criterion.most
            if criterion.kind == "size"
            else bool(lines[-1].result)
        )
        if not shown:
            missing.append(number)
    return missing


@dataclass
class _Case:
    """What a template fills."""

    bead: str
    other: str
    criteria: dict[str, Criterion]
    evidence: list[Evidence]
    head_only: int | None = None


def make(dice: random.Random) -> Iterator[Made]:
    templates: tuple[tuple[str, str, Callable[[random.Random, int], _Case]], ...] = (
        ("plain", "easy", _plain),
        ("last-word", "medium", _last_word),
        ("other-bead", "medium", _other_bead),
        ("newest-commit", "hard", _newest_commit),
    )
    for name, difficulty, fill in templates:
        for n in range(_EACH):
            yield _make_one(dice, name, difficulty, fill, n)


def _draw_criteria(dice: random.Random, count: int) -> dict[str, Criterion]:
    pool = [
        *(Criterion("file", f) for f in dice.sample(_FILES, 2)),
        *(Criterion("test", t) for t in dice.sample(_TESTS, 2)),
        *(Criterion("size", s, dice.randint(20, 400)) for s in dice.sample(_SIZES, 2)),
    ]
    return {f"K{i}": c for i, c in enumerate(dice.sample(pool, count), 1)}


def _fulfil(dice: random.Random, c: Criterion, good: bool) -> int:
    if c.kind != "size":
        return int(good)
    return c.most - dice.randint(0, 9) if good else c.most + dice.randint(1, 9)


def _start(dice: random.Random, n: int, count: int) -> tuple[_Case, list[str]]:
    """A case without evidence, and the criteria that shall stay open: none in every third."""
    rig = draw_rigs(dice, 1)[0]
    bead, other = draw_ids(dice, rig.prefix, 2)
    case = _Case(bead, other, _draw_criteria(dice, count), [])
    return case, dice.sample(sorted(case.criteria), 0 if n % 3 == 0 else 1 + (n % 3 == 2))


def _plain(dice: random.Random, n: int) -> _Case:
    """One line for what is shown; what is open has a bad line or none."""
    case, missing = _start(dice, n, 3)
    for number, c in case.criteria.items():
        if number not in missing or dice.random() < 0.5:
            result = _fulfil(dice, c, number not in missing)
            case.evidence.append(Evidence(case.bead, 0, c.kind, c.subject, result))
    return case


def _last_word(dice: random.Random, n: int) -> _Case:
    """Lines contradict each other; the last one counts."""
    case, missing = _start(dice, n, 3)
    for number, c in case.criteria.items():
        good = number not in missing
        turns = [not good, good] if dice.random() < 0.6 else [good, not good, good]
        case.evidence += [
            Evidence(case.bead, i, c.kind, c.subject, _fulfil(dice, c, t))
            for i, t in enumerate(turns)
        ]
    case.evidence.sort(key=lambda e: e.commit)
    return case


def _other_bead(dice: random.Random, n: int) -> _Case:
    """What is open here is shown for a bead with a like id, and the other way round."""
    case, missing = _start(dice, n, 4)
    for number, c in case.criteria.items():
        good = number not in missing
        lines = [Evidence(case.other, 1, c.kind, c.subject, _fulfil(dice, c, not good))]
        if good or dice.random() < 0.3:
            lines.append(Evidence(case.bead, 0, c.kind, c.subject, _fulfil(dice, c, good)))
        case.evidence += lines
    dice.shuffle(case.evidence)
    return case


def _newest_commit(dice: random.Random, n: int) -> _Case:
    """Tests and measurements of an older commit do not count."""
    case, missing = _start(dice, n, 4)
    case.head_only = 2
    for number, c in case.criteria.items():
        good = number not in missing
        old = Evidence(case.bead, dice.randint(0, 1), c.kind, c.subject, _fulfil(dice, c, True))
        if c.kind == "file":
            new = [Evidence(case.bead, 2, c.kind, c.subject, 0)] if not good else []
            case.evidence += [old, *new]
        elif good or dice.random() < 0.4:
            case.evidence += [
                old,
                Evidence(case.bead, 2, c.kind, c.subject, _fulfil(dice, c, good)),
            ]
        else:
            case.evidence.append(old)
    case.evidence.sort(key=lambda e: e.commit)
    return case


_COUNTS = {
    "plain": "A criterion is shown when a line says so; what no line speaks of is not shown.",
    "last-word": "Lines are in the order of time. Where they contradict each other, the last one about a criterion counts.",
    "other-bead": "Only lines of this bead count, whatever the others say; a criterion without a line of this bead is not shown.",
    "newest-commit": "Lines are in the order of time, the last one about a criterion counts. A test or a measurement counts only at the newest commit of the branch; a file once added is there until it is removed.",
}  # fmt: skip


def _make_one(
    dice: random.Random,
    name: str,
    difficulty: str,
    fill: Callable[[random.Random, int], _Case],
    n: int,
) -> Made:
    case = fill(dice, n)
    missing = judge(case.bead, case.criteria, case.evidence, case.head_only)
    hashes = ["".join(dice.choice(_HEX) for _ in range(7)) for _ in range(3)]
    lines = [e.tell(hashes) for e in case.evidence] or ["(no line)"]
    head = [f"Commits of the branch, oldest first: {', '.join(hashes)}"] if case.head_only else []
    prompt = "\n".join(
        [
            f"{dice.choice(POLECATS)} says that {case.bead} ({draw_fault(dice)}) is finished. Criteria:",
            *(f"{number}: {c.tell()}" for number, c in case.criteria.items()),
            *head,
            "Evidence (bead, commit, what):",
            *lines,
            _COUNTS[name],
            _ASK,
        ]
    )
    right = {"complete": not missing, "missing": missing}
    open_ = [k for k in case.criteria if k not in missing]
    wrong = [
        {"complete": bool(missing), "missing": missing},
        {"complete": False, "missing": [*missing, open_[0]] if open_ else missing[1:]},
        {"complete": not missing, "missing": ", ".join(missing)},
        {"complete": not missing},
    ]
    if missing:
        wrong.append({"complete": True, "missing": []})
    return draft(
        "witness",
        "witness",
        name,
        difficulty,
        prompt,
        CheckSpec("bead_complete", right),
        json.dumps(right),
        (*(json.dumps(w) for w in wrong), f"Let me look.\n{json.dumps(right)}"),
    )
