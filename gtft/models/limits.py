"""The limits that a card states, derived from the weakest figures. Plain text, not Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from gtft.models.eval_figures import Comparison, Suite
from gtft.models.figures import CardFigures

# Fewer items than this leave an interval too wide to choose by.
FEW_ITEMS = 20
# A role has seen enough of its own work from about here (design, "sufficiency").
ENOUGH_EXAMPLES = 1000
SURE = 0.05
# Tuned pass rate on held-out sessions minus that on authored templates, from which it is said.
WIDE_GAP = 0.10
_EXAMPLE_TOWN = "examples/town"


def list_limits(f: CardFigures) -> tuple[str, ...]:
    """Measured limits first, the weakest results at the top, then those of the data and the base."""
    return (
        *_list_unmet_gates(f),
        *_list_risks(f),
        *_list_unproven(f),
        *_list_others(f),
        *_list_weakest(f),
        *_list_thin(f),
        *_list_gap(f),
        *_list_cut_off(f),
        *_list_data(f),
        *_list_base(f),
        *_list_drift(f),
        *_list_unmeasured(f),
    )


def _list_others(f: CardFigures) -> Iterator[str]:
    """Who does better than it, and whether training was needed at all."""
    for c in f.eval.against:
        if c.other != "base" and c.gain < 0 and c.p_corrected < SURE:
            yield (
                f"On {name_suite(c.suite)} {c.other} does better than it by {points(-c.gain)[1:]} points (n = {c.n}, p "
                f"{c.p_corrected:.3f} after correction)."
            )
    if f.eval.prompting_enough and f.eval.prompting:
        yield f.eval.prompting


def _list_risks(f: CardFigures) -> Iterator[str]:
    if f.eval.memorised:
        yield "It gives away text that it was trained on, more than chance has it."
    for told in f.eval.fit_warnings or ():
        yield f"Fit: {told}."


def _list_unmeasured(f: CardFigures) -> Iterator[str]:
    if f.eval.memorised is None:
        yield "Not measured: whether it repeats training text word by word."
    abstains = f.eval.abstains
    if abstains is None:
        yield "Not measured: whether it knows when it does not know."
    elif abstains.share < 1:
        yield (
            f"Asked what cannot be known from what is given, it asks, abstains or escalates in {percent(abstains.share)} "
            f"(95 % CI {number(abstains.low)}–{percent(abstains.high)}, n = {f.eval.abstains_n}); else it makes "
            "something up."
        )


def _list_drift(f: CardFigures) -> Iterator[str]:
    drift = f.adapter.drift
    if drift is None:
        yield "Not measured: what the base could do that it has forgotten."
        return
    kl = "" if drift.kl is None else f", and it is {drift.kl:.3f} nats (KL) away from it"
    yield (
        f"On {drift.rows} rows of general text its loss is {drift.loss:+.3f} nats a token from the base's"
        f"{kl}; what it has forgotten beyond that was not measured."
    )


def describe(c: Comparison) -> str:
    """``7 % (95 % CI 2–21 %, n = 30)`` of the tuned model."""
    t = c.tuned
    return f"{percent(t.share)} (95 % CI {number(t.low)}–{percent(t.high)}, n = {c.n})"


def number(share: float) -> str:
    return f"{100 * share:.0f}"


def percent(share: float) -> str:
    return f"{number(share)} %"


def points(gain: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    rounded = round(100 * gain)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def _list_unmet_gates(f: CardFigures) -> Iterator[str]:
    for gate in f.eval.gates:
        if not gate.met:
            yield f"The recipe's gate {gate.name} is not met: {gate.told}."


def _list_unproven(f: CardFigures) -> Iterator[str]:
    for suite in f.eval.suites:
        whole = suite.overall
        if whole.gain < 0:
            yield f"On {title(suite)} it is worse than its base by {points(-whole.gain)[1:]} points."
        elif whole.gain == 0:
            yield f"On {title(suite)} it is no better than its base."
        elif whole.p_value is not None and whole.p_value >= SURE:
            yield (
                f"On {title(suite)} the difference to the base may be chance "
                f"(p = {whole.p_value:.2f})."
            )
        worse = [c for c in suite.capabilities if c.gain < 0]
        if worse:
            listed = ", ".join(f"{c.name} ({points(c.gain)} points)" for c in worse)
            yield f"On {title(suite)} the base did better than it at: {listed}."


def _list_weakest(f: CardFigures) -> Iterator[str]:
    for suite in f.eval.suites:
        ranked = sorted(suite.capabilities, key=lambda c: (c.tuned.share, c.name))
        weak = [c for c in ranked if c.tuned.share < 0.5][:3] or ranked[:1]
        if weak:
            listed = "; ".join(f"{c.name} {describe(c)}" for c in weak)
            yield f"Weakest on {title(suite)}: {listed}."


def _list_thin(f: CardFigures) -> Iterator[str]:
    thin = [
        f"{c.name} ({suite.name}, n = {c.n})"
        for suite in f.eval.suites
        for c in suite.capabilities
        if c.n < FEW_ITEMS
    ]
    if thin:
        yield (
            f"Measured on fewer than {FEW_ITEMS} items, so the figure says little: {', '.join(thin)}."
        )


def _list_gap(f: CardFigures) -> Iterator[str]:
    heldout, authored = f.eval.find_suite("heldout"), f.eval.find_suite("authored")
    if heldout is None:
        yield "Not measured on held-out sessions."
    if authored is None:
        yield "Not measured on templates that training has never seen."
    if heldout and authored:
        gap = heldout.overall.tuned.share - authored.overall.tuned.share
        if gap >= WIDE_GAP:
            yield (
                f"It passes {percent(heldout.overall.tuned.share)} of the items that look like its "
                f"training sessions and {percent(authored.overall.tuned.share)} of those written "
                "differently: part of what it learnt is the form of this town's sessions."
            )


def _list_cut_off(f: CardFigures) -> Iterator[str]:
    if f.eval.cut_off:
        limit = f" of {f.eval.longest_answer} tokens" if f.eval.longest_answer else ""
        yield (
            f"{f.eval.cut_off} of its answers were cut at the limit{limit}: it does not always know "
            "when to stop."
        )


def _list_data(f: CardFigures) -> Iterator[str]:
    own = f.corpus.by_role.get(f.role, 0)
    if own < ENOUGH_EXAMPLES:
        yield (
            f"It was trained on {own} examples of the role {f.role}; about {ENOUGH_EXAMPLES} are "
            "needed before a role's judgement can be learnt. Fewer teach form and conventions."
        )
    sources = f.recipe.harvest.sources
    if sources and all(s.path.startswith(_EXAMPLE_TOWN) for s in sources):
        yield "Trained on gtft's made-up example town: it knows no real town, rig or person."
    synthetic = (f.corpus.by_provenance or {}).get("synthetic", 0)
    if synthetic:
        yield f"{synthetic} of {f.corpus.train} training examples are synthetic."
    if f.corpus.secrets or f.corpus.personal:
        yield (
            "Secrets and personal data in its corpus were replaced by placeholders; it can write such "
            "placeholders itself, and they stand for nothing."
        )
    if f.adapter.empty_rows:
        rows = f.adapter.rows + f.adapter.empty_rows
        yield f"{f.adapter.empty_rows} of {rows} rows taught it nothing (no token to train on)."


def _list_base(f: CardFigures) -> Iterator[str]:
    if f.adapter.base.nano:
        yield (
            "Its base is nano: a very small model built from scratch on the training side of this "
            "corpus. It shows that the way works and knows nothing beyond that text; no role "
            "should be served by it."
        )
    if f.adapter.base.quantization != "none":
        yield (
            f"Trained and measured on the base in {f.adapter.base.quantization}; on the base in "
            "another precision its answers may differ."
        )


def title(suite: Suite) -> str:
    """What a suite is, in plain words."""
    return name_suite(suite.name)


def name_suite(name: str) -> str:
    return {
        "heldout": "held-out sessions",
        "authored": "authored templates",
        "generated": "generated items",
        "gt-model-eval": "Gas Town's own cases",
    }.get(name, f"the suite {name}")
