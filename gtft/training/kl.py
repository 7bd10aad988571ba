"""How far a model has moved from its base: KL(model ‖ base) per token, exact over the vocabulary.

For one position, with p the model's next-token distribution and q the base's (the adapter switched off):
KL(p ‖ q) = Σ_v p_v (log p_v - log q_v), in nats (Kullback and Leibler 1951). Its gradient by the model's
logits is p_v (log p_v - log q_v - KL). Logits are formed a few positions at a time and never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from gtft.training.loss import LOGITS_AT_ONCE, Scale, bend, read_scale
from gtft.training.render import IGNORED, Row

# Hidden states of the base that are kept between measurements, numbers: 64 MiB in float32.
_KEPT_NUMBERS = 1 << 24


@dataclass(frozen=True)
class Reading:
    """Means over ``tokens`` supervised tokens, in nats. ``base_loss`` and ``kl``: None without an adapter."""

    loss: float
    base_loss: float | None
    kl: float | None
    tokens: int


@dataclass(frozen=True)
class Compared:
    """Sums over the ``tokens`` supervised tokens of one row, in nats: loss by base and by tuned, KL(tuned ‖ base)."""

    base_nats: float
    tuned_nats: float
    kl: float
    tokens: int


@dataclass
class Base:
    """The base's hidden states of rows already read, by number of the row: they never change."""

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    numbers: int = 0

    def keep(self, row: int, hidden: torch.Tensor) -> None:
        if self.numbers + hidden.numel() <= _KEPT_NUMBERS:
            self.numbers += hidden.numel()
            self.hidden[row] = hidden.cpu()


@torch.no_grad()
def measure(
    model: Any, rows: Sequence[Row], base: Base, give_up: Callable[[], bool]
) -> Reading | None:
    """The mean loss and KL of rows, one row at a time; None when told to give up in between.

    ``model``: a PEFT model, or a plain one (then nothing of its base is known). Call it in eval mode.
    ``base`` must have been filled by the same rows, or be empty.
    """
    inner = _unwrap(model)
    head, scale = inner.get_output_embeddings(), read_scale(inner.config)
    adapted = hasattr(model, "disable_adapter")
    nll = base_nll = kl = 0.0
    tokens = 0
    for number, row in enumerate(rows):
        if give_up():
            return None
        ids = torch.tensor([list(row.input_ids)], device=head.weight.device)
        labels = torch.tensor([list(row.labels)], device=head.weight.device)
        hidden = _read(inner, {"input_ids": ids}, labels)
        before = None
        if adapted:
            before = base.hidden.get(number)
            if before is None:
                before = read_base(model, {"input_ids": ids, "labels": labels})
                base.keep(number, before)
            before = before.to(hidden.device)
        target = labels[:, 1:]
        sums = _compare(hidden, before, target[target != IGNORED], head, scale)
        nll, base_nll, kl = nll + sums[0], base_nll + sums[1], kl + sums[2]
        tokens += hidden.shape[0]
    if not tokens:
        return None
    return Reading(
        nll / tokens,
        base_nll / tokens if adapted else None,
        kl / tokens if adapted else None,
        tokens,
    )


@torch.no_grad()
def compare(
    answering: Callable[..., AbstractContextManager[Any]],
    rows: Sequence[Row],
    tell: Callable[[int, int], None],
) -> list[Compared]:
    """Each row as a tuned model and its base read it, whatever sets them apart (an adapter, a second one, all
    weights). ``answering(as_base=)`` gives either; ``tell`` (done, total) is called between rows and may raise."""
    read: list[list[torch.Tensor]] = []
    heads = []
    targets = [torch.tensor(r.labels[1:]) for r in rows]
    for number, as_base in enumerate((True, False)):
        with answering(as_base=as_base) as model:
            inner = _unwrap(model)
            heads.append((inner.get_output_embeddings(), read_scale(inner.config)))
            read.append([])
            for at, row in enumerate(rows):
                tell(number * len(rows) + at, 2 * len(rows))
                device = heads[-1][0].weight.device
                ids = torch.tensor([list(row.input_ids)], device=device)
                labels = torch.tensor([list(row.labels)], device=device)
                read[-1].append(_read(inner, {"input_ids": ids}, labels).cpu())
    return [
        _sum_up(before, after, target[target != IGNORED], heads)
        for before, after, target in zip(*read, targets, strict=True)
    ]


def _sum_up(
    before: torch.Tensor, after: torch.Tensor, targets: torch.Tensor, heads: Sequence[Any]
) -> Compared:
    """From the hidden states [n, h] of base and tuned, each with a head and scale of its own."""
    step = max(1, LOGITS_AT_ONCE // heads[0][0].weight.shape[0])
    sums = [0.0, 0.0, 0.0]
    for at in range(0, len(targets), step):
        other, own = (
            _log_probabilities(
                hidden[at : at + step].to(head.weight.device), head.weight, head.bias, scale
            )[0]
            for hidden, (head, scale) in zip((before, after), heads, strict=True)
        )
        target = targets[at : at + step, None].to(own.device)
        sums[0] -= float(other.gather(1, target).double().sum())
        sums[1] -= float(own.gather(1, target).double().sum())
        sums[2] += float((own.exp() * (own - other)).sum(-1).double().sum())
    return Compared(sums[0], sums[1], sums[2], len(targets))


def read_base(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The base's hidden states [n, h] at the n positions whose next token is supervised, without gradient.

    ``model``: a PEFT model; ``inputs``: what its forward takes, and ``labels`` [batch, length].
    """
    rest = {k: v for k, v in inputs.items() if k not in ("labels", "answer_weights")}
    with torch.no_grad(), model.disable_adapter():
        return _read(_unwrap(model), rest, inputs["labels"])


def sum_kl(hidden: torch.Tensor, base: torch.Tensor, model: Any) -> torch.Tensor:
    """Σ KL(model ‖ base) over positions, with its gradient by ``hidden`` [n, h]; ``base`` as `read_base` gives it.

    The language-model head is the one of both, and is not trained.
    """
    inner = _unwrap(model)
    head, scale = inner.get_output_embeddings(), read_scale(inner.config)
    total: torch.Tensor = _KlSum.apply(hidden, base, head.weight, head.bias, scale)  # type: ignore[no-untyped-call]
    return total


def _unwrap(model: Any) -> Any:
    """The causal language model below PEFT, with the adapter's layers in it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _read(inner: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = inner.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden[:, :-1][labels[:, 1:] != IGNORED]


def _log_probabilities(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, scale: Scale
) -> tuple[torch.Tensor, torch.Tensor | float | None]:
    """Log-probabilities [n, v] in float32, and the slope of the model's logits by the head's."""
    # What leaves an autocast region is float32, the head need not be.
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    logits, slope = bend(logits, scale)
    return torch.log_softmax(logits, -1), slope


def _compare(
    hidden: torch.Tensor,
    base: torch.Tensor | None,
    targets: torch.Tensor,
    head: Any,
    scale: Scale,
) -> tuple[float, float, float]:
    """(Σ nll, Σ nll of the base, Σ KL) of positions [n, h] against their next tokens [n]."""
    step = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    sums = [0.0, 0.0, 0.0]
    for at in range(0, hidden.shape[0], step):
        target = targets[at : at + step, None]
        own, _ = _log_probabilities(hidden[at : at + step], head.weight, head.bias, scale)
        sums[0] -= float(own.gather(1, target).double().sum())
        if base is not None:
            other, _ = _log_probabilities(base[at : at + step], head.weight, head.bias, scale)
            sums[1] -= float(other.gather(1, target).double().sum())
            sums[2] += float((own.exp() * (own - other)).sum(-1).double().sum())
    return sums[0], sums[1], sums[2]


class _KlSum(torch.autograd.Function):
    """(hidden [n, h], base [n, h], head [v, h], bias [v] or None) → Σ KL; gradient by ``hidden`` alone."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        base: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: Scale,
    ) -> torch.Tensor:
        step = max(1, LOGITS_AT_ONCE // weight.shape[0])
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for at in range(0, hidden.shape[0], step):
            own, slope = _log_probabilities(hidden[at : at + step], weight, bias, scale)
            other, _ = _log_probabilities(base[at : at + step], weight, bias, scale)
            apart = own - other
            own = own.exp()
            kl = (own * apart).sum(-1, keepdim=True)
            total += kl.sum()
            bent = own * (apart - kl)
            if slope is not None:
                bent *= slope
            gradient[at : at + step] = bent.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None, None
