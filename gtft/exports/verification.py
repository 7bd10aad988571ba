"""Whether an export answers as the adapter did: greedy answers, and the next-token distributions along them.

The reference is the adapter as it was trained, on its base as it was stored then; the export is read back from what was
written and runs on its own runtime. Both write the prompts with their own tokenizer and chat template. The
distributions are compared along the reference's own answers (KL(reference || export), nats per token), so one
early difference does not make all that follows look different.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gtft.errors import GateFailed
from gtft.exports.prompts import ANSWER, Prompt, Writer

# Tokens of the surroundings that are shown where two texts part.
_SHOWN = 8
# Where the adapter prefers a token by no more nats than this, it is undecided.
CLOSE = 0.1
# How much of what the adapter learnt an export may lose, as a share of the KL to its base; below a KL of so many nats
# no share is judged: other arithmetic alone makes that much.
_MOST_LOST = 0.5
_NOISE = 2e-4


class Answerer(Protocol):
    """A loaded model on its runtime."""

    def is_end(self, token: int) -> bool:
        """Whether an answer ends with this token."""
        ...

    def answer(self, prompt: Sequence[int], most: int) -> list[int]:
        """The greedy continuation: at least one and at most ``most`` ids, the token that ends the turn included."""
        ...

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """Natural log probabilities, numpy ``(len(answer), vocabulary)``: row i is of the token at i, after the prompt
        and ``answer[:i]``."""
        ...


@dataclass(frozen=True)
class Difference:
    """Where two sides part. ``position``: of the token, in the prompt or in the answer (``place``), from 0.

    ``gap``: by how many nats the reference prefers its own token to the export's; None in a prompt, or where one
    answer has ended.
    """

    prompt: str
    place: str
    position: int
    expected: str
    got: str
    gap: float | None = None

    def __str__(self) -> str:
        close = "" if self.gap is None else f" (the adapter prefers its own by {self.gap:.3g} nats)"
        return (
            f"{self.place} {self.prompt!r}, token {self.position}: the adapter has {self.expected!r}, "
            f"the export {self.got!r}{close}"
        )


@dataclass(frozen=True)
class Verdict:
    """What was measured. KL in nats per token over ``tokens`` positions; ``top1_agreement``: share of positions whose
    most likely token is the same, ``top1_decided``: of those at which the adapter is not undecided; ``greedy_equal`` of
    ``prompts``: answers that are the same to the last token; ``kl_base``: of the adapter against its base without it,
    which is what a forgotten adapter would show."""

    prompts: int
    tokens: int
    kl_mean: float
    kl_max: float
    top1_agreement: float
    greedy_equal: int
    differences: tuple[Difference, ...]
    top1_decided: float = 1.0
    kl_base: float | None = None

    @property
    def first(self) -> Difference | None:
        return self.differences[0] if self.differences else None

    def as_dict(self) -> dict[str, Any]:
        """The figures as ``summary.json`` holds them."""
        return {
            # Three digits: the same on machines whose last bits differ.
            "kl_mean": float(f"{self.kl_mean:.3g}"),
            "kl_max": float(f"{self.kl_max:.3g}"),
            "kl_base": None if self.kl_base is None else float(f"{self.kl_base:.3g}"),
            "top1_agreement": round(self.top1_agreement, 4),
            "top1_decided": round(self.top1_decided, 4),
            "greedy_equal": self.greedy_equal,
            "greedy_prompts": self.prompts,
            "compared_tokens": self.tokens,
            "differences": [vars(d) for d in self.differences],
        }


@dataclass(frozen=True)
class Limit:
    """What an export may differ by, and why so much. ``kl_mean``, ``kl_max`` in nats per token, ``top1``: least share
    of the positions at which the adapter is decided.

    ``tie``: an answer may part from the adapter's where the adapter itself prefers its own token by no more nats
    than this; None: greedy answers are counted, and decide nothing.
    """

    kl_mean: float
    kl_max: float
    top1: float
    tie: float | None
    why: str


class Recorded:
    """What an answerer said, kept: the model can be freed before the next one is loaded.

    ``base``: the same model without the adapter; then ``kl_base`` is the mean KL to it, in nats per token.
    """

    def __init__(
        self, source: Answerer, prompts: Iterable[Prompt], base: Answerer | None = None
    ) -> None:
        import numpy

        self._said: dict[tuple[int, ...], tuple[list[int], Any]] = {}
        kls = []
        for prompt in prompts:
            ids = source.answer(prompt.reference, ANSWER)
            scores = source.score(prompt.reference, ids)
            self._said[prompt.reference] = (ids, scores)
            if base is not None:
                kls.append(_measure_kl(scores, base.score(prompt.reference, ids)))
        self.kl_base = float(numpy.concatenate(kls).mean()) if kls else None

    def answer(self, prompt: Sequence[int], most: int) -> list[int]:
        return self._said[tuple(prompt)][0][:most]

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        ids, scores = self._said[tuple(prompt)]
        assert list(answer) == ids[: len(answer)]
        return scores[: len(answer)]


def require_same_prompts(prompts: Sequence[Prompt], writer: Writer, model: str = "MODEL") -> None:
    """Raises GateFailed when the export's tokenizer or chat template writes a prompt differently: whatever it answered,
    it would be asked something else than it was trained on."""
    apart = [p for p in prompts if p.reference != p.exported]
    if not apart:
        return
    at = _part(apart[0].reference, apart[0].exported) or 0
    mine, theirs = (ids[at : at + _SHOWN] for ids in (apart[0].reference, apart[0].exported))
    # The export's ids may mean nothing to the adapter's tokenizer.
    found = Difference(apart[0].name, "prompt", at, writer.tell(mine), f"ids {list(theirs)}")
    raise _fail(
        "the export",
        model,
        [f"{len(apart)} of {len(prompts)} prompts are written differently"],
        [found],
    )


def require_same_template(reference: Writer, exported: Writer, model: str = "MODEL") -> None:
    """Raises GateFailed when the export's chat template is another one: the prompts that are compared do not tell how it
    writes what they do not hold."""
    mine, theirs = reference.template, exported.template
    if mine == theirs:
        return
    at = _part([ord(c) for c in mine], [ord(c) for c in theirs]) or 0
    shown = (t[at : at + 40] for t in (mine, theirs))
    raise _fail(
        "the export",
        model,
        [
            f"its chat template is another one, from character {at}: {next(shown)!r} and {next(shown)!r}"
        ],
        [],
    )


def require_same_ends(
    ends: Iterable[int], exported: Answerer, writer: Writer, model: str = "MODEL"
) -> None:
    """Raises GateFailed when a token that ends the adapter's answers does not end the export's, which would talk on."""
    missing = [e for e in sorted(ends) if not exported.is_end(e)]
    if missing:
        told = ", ".join(repr(writer.tell([e])) for e in missing)
        raise _fail("the export", model, [f"its answers do not end at {told}"], [])


def verify(
    reference: Answerer | Recorded, exported: Answerer, prompts: Iterable[Prompt], writer: Writer
) -> Verdict:
    """Put all prompts to both. ``writer`` tells tokens as text.

    Raises GateFailed when the two cannot be compared at all: another vocabulary, or figures that are not numbers.
    """
    import numpy

    differences: list[Difference] = []
    kls: list[Any] = []
    same: list[Any] = []
    decided: list[Any] = []
    equal = 0
    for prompt in prompts:
        expected = reference.answer(prompt.reference, ANSWER)
        got = exported.answer(prompt.exported, ANSWER)
        mine = numpy.asarray(reference.score(prompt.reference, expected), numpy.float64)
        theirs = numpy.asarray(exported.score(prompt.exported, expected), numpy.float64)
        _require_comparable(prompt, mine, theirs)
        kls.append(_measure_kl(mine, theirs))
        two = numpy.partition(mine, -2, axis=1)[:, -2:]
        decided.append(two[:, 1] - two[:, 0] > CLOSE)
        same.append(mine.argmax(axis=1) == theirs.argmax(axis=1))
        equal += expected == got
        if found := _find_difference(prompt, expected, got, mine, writer):
            differences.append(found)
    kl, top1 = numpy.concatenate(kls), numpy.concatenate(same)
    judged = top1[numpy.concatenate(decided)]
    # Rounding may leave a hair below 0.
    return Verdict(
        prompts=len(kls),
        tokens=len(kl),
        kl_mean=max(0.0, float(kl.mean())),
        kl_max=max(0.0, float(kl.max())),
        top1_agreement=float(top1.mean()),
        greedy_equal=equal,
        differences=tuple(differences),
        top1_decided=float(judged.mean()) if len(judged) else 1.0,
        kl_base=getattr(reference, "kl_base", None),
    )


def _measure_kl(mine: Any, theirs: Any) -> Any:
    """KL(mine || theirs) of each row of log probabilities, nats."""
    import numpy

    mine, theirs = numpy.asarray(mine, numpy.float64), numpy.asarray(theirs, numpy.float64)
    # An impossible token is a large figure, not an infinite one.
    apart = numpy.maximum(mine, -1e4) - numpy.maximum(theirs, -1e4)
    return (numpy.exp(mine) * apart).sum(axis=1)


def require_equal(verdict: Verdict, limit: Limit, what: str, model: str = "MODEL") -> None:
    """Raises GateFailed unless the export keeps within its limit; the reason says where it starts to differ."""
    broken = []
    if verdict.kl_mean > limit.kl_mean:
        broken.append(f"mean KL {verdict.kl_mean:.3g}, at most {limit.kl_mean:g}")
    if verdict.kl_max > limit.kl_max:
        broken.append(f"largest KL {verdict.kl_max:.3g}, at most {limit.kl_max:g}")
    if verdict.top1_decided < limit.top1:
        broken.append(
            f"same top token at {verdict.top1_decided:.1%} of the positions where the adapter is decided, "
            f"at least {limit.top1:.1%}"
        )
    if verdict.kl_base is not None and verdict.kl_mean > max(verdict.kl_base * _MOST_LOST, _NOISE):
        broken.append(
            f"mean KL {verdict.kl_mean:.3g}, and all that the adapter learnt is {verdict.kl_base:.3g} from its base"
        )
    apart = [d for d in verdict.differences if not _is_tie(d, limit)]
    if apart:
        broken.append(f"{len(apart)} of {verdict.prompts} greedy answers part where it is no tie")
    if broken:
        raise _fail(what, model, broken, [*apart, *verdict.differences][:1])


def _fail(what: str, model: str, broken: list[str], shown: list[Difference]) -> GateFailed:
    return GateFailed(
        f"{what} does not answer as the adapter does: nothing was kept",
        why="; ".join([*broken, *(f"it starts at {d}" for d in shown)]),
        fix=f"gtft model export {model} --format adapter, which runs on the base as it was trained",
    )


def _is_tie(found: Difference, limit: Limit) -> bool:
    return limit.tie is None or (found.gap is not None and found.gap <= limit.tie)


def _require_comparable(prompt: Prompt, mine: Any, theirs: Any) -> None:
    import numpy

    why = ""
    if mine.shape[1] != theirs.shape[1]:
        why = f"the adapter's vocabulary has {mine.shape[1]} tokens, the export's {theirs.shape[1]}"
    elif numpy.isnan(mine).any():
        why = f"the adapter's own probabilities are not numbers at prompt {prompt.name!r}"
    elif numpy.isnan(theirs).any():
        why = f"it starts at prompt {prompt.name!r}: its probabilities are not numbers"
    if why:
        raise GateFailed(
            "the export cannot answer as the adapter does: nothing was kept",
            why=why,
            fix="gtft model export MODEL --format adapter",
        )


def _find_difference(
    prompt: Prompt, expected: Sequence[int], got: Sequence[int], mine: Any, writer: Writer
) -> Difference | None:
    """The first token at which the answers part."""
    at = _part(expected, got)
    if at is None:
        return None
    gap = None
    if at < len(expected) and at < len(got):
        gap = float(f"{mine[at, expected[at]] - mine[at, got[at]]:.3g}")
    shown = [writer.tell(ids[at : at + 1]) for ids in (expected, got)]
    return Difference(prompt.name, "answer", at, shown[0], shown[1], gap)


def _part(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first position at which two rows differ; None when they are the same."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return None if len(one) == len(other) else min(len(one), len(other))
