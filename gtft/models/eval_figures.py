"""What the store knows of an evaluation: base beside tuned, per suite and capability, and the gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gtft.models.summary import Summary, read_summary
from gtft.records.rows import ArtifactRow

_CANNOT = "calibration.tuned.unanswerable"
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Rate:
    """Items passed, as a count and a share, with the 95 % interval of the share (between 0 and 1)."""

    passed: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Base and tuned on the same ``n`` items. ``gain`` is tuned minus base, in shares, paired by item."""

    name: str
    n: int
    base: Rate
    tuned: Rate
    gain: float
    gain_low: float | None
    gain_high: float | None
    p_value: float | None
    # After Holm's correction over all capabilities and suites.
    p_corrected: float | None = None


@dataclass(frozen=True)
class Suite:
    name: str
    overall: Comparison
    capabilities: tuple[Comparison, ...]


@dataclass(frozen=True)
class Gate:
    """``told`` says in words what was wanted and what was measured."""

    name: str
    told: str
    met: bool


@dataclass(frozen=True)
class Overlap:
    """How near the items come to training. Similarities: Jaccard of five-word pieces, 0 to 1.

    ``removed`` items were left out because training holds them, whole or nearly; the other figures are of
    those that stayed, which may be more than were picked to be scored.
    """

    removed: int
    highest: float
    median: float
    rare_phrases: int


@dataclass(frozen=True)
class Against:
    """The tuned model against another candidate on the ``n`` items of a suite that both answered."""

    other: str
    suite: str
    n: int
    gain: float
    p_corrected: float


@dataclass(frozen=True)
class Candidate:
    """Who answered: ``rates`` holds suite → (items, rate)."""

    name: str
    rates: dict[str, tuple[int, Rate]]


@dataclass(frozen=True)
class Grid:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Finding:
    """A section of the verdict that the card repeats: sentences and tables in the eval's own words."""

    title: str
    blocks: tuple[str | Grid, ...]


@dataclass(frozen=True)
class EvalFigures:
    """None where the eval has not recorded it."""

    id: str
    suites: tuple[Suite, ...]
    gates: tuple[Gate, ...]
    verdict: str
    # what was measured: the base's content id and the adapter's artifact id
    base_id: str
    adapter_id: str
    # scored items that stand in the training set, whole or nearly
    in_training: int | None
    overlap: Overlap | None
    # items that were not scored, by reason
    unscored: dict[str, int] | None
    # answers of the tuned model that were cut at the token limit
    cut_off: int | None
    longest_answer: int | None
    decoding: str | None
    # "deploy", "shadow" or "do not deploy", and why
    advice: str | None = None
    reasons: tuple[str, ...] = ()
    # whether prompting alone is not shown to be worse, in a sentence
    prompting: str | None = None
    prompting_enough: bool = False
    against: tuple[Against, ...] = ()
    # everyone who answered the same items, base and tuned first; empty of an eval that records no rates of others
    candidates: tuple[Candidate, ...] = ()
    findings: tuple[Finding, ...] = ()
    # whether something memorised came out; None when that was not measured
    memorised: bool | None = None
    # of items that cannot be answered from what is given: how often it abstains; None when none was asked
    abstains: Rate | None = None
    abstains_n: int = 0
    # warnings about the fit, such as overfitting; None when the fit was not measured
    fit_warnings: tuple[str, ...] | None = None

    def find_suite(self, name: str) -> Suite | None:
        return next((s for s in self.suites if s.name == name), None)


def read_eval(row: ArtifactRow) -> EvalFigures:
    """The figures of an eval artifact. Raises EvidenceError for what must be there and is not."""
    s = read_summary(row)
    suites = s.table("suites")
    if not suites.data:
        raise s.refuse("suites", "a table with a suite", suites.data)
    return EvalFigures(
        id=row.id,
        suites=tuple(_read_suite(name, suites.table(name)) for name in _order(suites.data)),
        gates=tuple(_read_gate(s, n, g) for n, g in enumerate(s.array("gates"))),
        verdict=s.text("verdict"),
        base_id=s.text("candidates.base.id"),
        adapter_id=s.text("candidates.tuned.adapter"),
        in_training=s.find_count("overlap"),
        overlap=_read_overlap(s.table("overlap_figures")) if s.has("overlap_figures") else None,
        unscored=s.find_counts("dropped"),
        cut_off=s.find_count("cut_off"),
        longest_answer=s.find_count("max_new_tokens"),
        decoding=s.find_text("decoding"),
        advice=s.find_text("advice.do"),
        reasons=tuple(_read_texts(s, "advice.why")),
        prompting=s.find_text("prompting.told"),
        prompting_enough=s.table("prompting").data.get("enough") is True
        if s.has("prompting")
        else False,
        against=tuple(_read_rows(s, "comparisons", _read_against)),
        candidates=tuple(_read_candidates(s.table("candidates"))),
        findings=tuple(_read_rows(s, "findings", _read_finding)),
        memorised=_read_memorised(s),
        abstains=_read_abstaining(s),
        abstains_n=s.find_count(f"{_CANNOT}.n") or 0,
        fit_warnings=_read_warnings(s),
    )


def _order(suites: Iterable[str]) -> list[str]:
    """Held-out sessions first, then gtft's own items, then any other by name."""
    order = ("heldout", "authored", "generated")
    return sorted(suites, key=lambda n: (order.index(n) if n in order else len(order), n))


def _read_suite(name: str, s: Summary) -> Suite:
    table = s.table("capabilities")
    capabilities = tuple(_read_comparison(c, table.table(c)) for c in sorted(table.data))
    return Suite(name, _read_comparison("all items", s), capabilities)


def _read_comparison(name: str, s: Summary) -> Comparison:
    return Comparison(
        name=name,
        n=s.count("n"),
        base=_read_rate(s.table("base")),
        tuned=_read_rate(s.table("tuned")),
        gain=s.number("gain"),
        gain_low=s.find_number("gain_low"),
        gain_high=s.find_number("gain_high"),
        p_value=s.find_number("p_value"),
        p_corrected=s.find_number("p_corrected"),
    )


def _read_rate(s: Summary) -> Rate:
    return Rate(s.count("passed"), s.number("rate"), s.number("low"), s.number("high"))


def _read_candidates(s: Summary) -> Iterator[Candidate]:
    first = ("base", "tuned")
    for name in sorted(s.data, key=lambda n: (n not in first, n)):
        found = s.table(name)
        if found.has("suites"):
            suites = found.table("suites")
            tables = [(suite, suites.table(suite)) for suite in _order(suites.data)]
            yield Candidate(name, {suite: (t.count("n"), _read_rate(t)) for suite, t in tables})


def _read_overlap(s: Summary) -> Overlap:
    return Overlap(
        removed=s.count("items_removed"),
        highest=s.number("max_similarity"),
        median=s.number("median_similarity"),
        rare_phrases=s.count("items_sharing_a_rare_phrase"),
    )


def _read_texts(s: Summary, key: str) -> Iterator[str]:
    for n, text in enumerate(s.array(key) if s.has(key) else ()):
        if not isinstance(text, str):
            raise s.refuse(f"{key}[{n}]", "text", text)
        yield text


def _read_rows(s: Summary, key: str, read: Callable[[Summary], _Row]) -> Iterator[_Row]:
    for n, row in enumerate(s.array(key) if s.has(key) else ()):
        if not isinstance(row, dict):
            raise s.refuse(f"{key}[{n}]", "a table", row)
        yield read(Summary(f"{s.label}: {key}[{n}]", row))


def _read_against(s: Summary) -> Against:
    return Against(
        s.text("b"), s.text("suite"), s.count("n"), s.number("gain"), s.number("p_corrected")
    )


def _read_finding(s: Summary) -> Finding:
    return Finding(s.text("title"), tuple(_read_rows(s, "blocks", _read_block)))


def _read_block(s: Summary) -> str | Grid:
    if s.has("text"):
        return s.text("text")
    columns = tuple(_read_texts(s, "columns"))
    rows = []
    for n, row in enumerate(s.array("rows")):
        if not isinstance(row, list) or len(row) != len(columns):
            raise s.refuse(f"rows[{n}]", f"a row of {len(columns)} cells", row)
        rows.append(tuple(map(str, row)))
    return Grid(columns, tuple(rows))


def _read_memorised(s: Summary) -> bool | None:
    if not s.has("memorisation"):
        return None
    found = s.table("memorisation").data
    return found.get("found") is True if found.get("measured", True) else None


def _read_abstaining(s: Summary) -> Rate | None:
    if not s.find_count(f"{_CANNOT}.n"):
        return None
    c = s.table(_CANNOT)
    return Rate(c.count("abstained"), c.number("rate"), c.number("low"), c.number("high"))


def _read_warnings(s: Summary) -> tuple[str, ...] | None:
    if not s.has("fit"):
        return None
    found = s.table("fit").data.get("warnings") or []
    return tuple(str(w.get("told", w) if isinstance(w, dict) else w) for w in found)


def _read_gate(s: Summary, n: int, found: object) -> Gate:
    if not isinstance(found, dict):
        raise s.refuse(f"gates[{n}]", "a table", found)
    g = Summary(f"{s.label}: gates[{n}]", found)
    return Gate(g.text("name"), g.text("told"), g.data.get("met") is True)
