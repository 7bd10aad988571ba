"""The answer loss: cross-entropy of the supervised tokens only, without ever holding all logits.

The language-model head is the widest layer of a small model. It is applied to the positions whose next
token is trained, a few at a time, and their gradient is formed while the logits are at hand (as Liger's
fused linear cross-entropy does, arXiv:2410.10989): the logits are neither kept nor computed twice.
"""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from gtft.training.render import IGNORED

# Logits held at once, numbers: 64 MiB in float32.
LOGITS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Scale:
    """What a model does to its logits: ``scale * x``, then ``cap * tanh(x / cap)`` when there is a cap."""

    scale: float = 1.0
    cap: float | None = None


def read_scale(config: Any) -> Scale:
    """The scale of a model's logits, under the names that its family gives it in ``config.json``."""
    text = config.get_text_config()
    cap = getattr(text, "final_logit_softcapping", None)
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        value = getattr(text, name, None)
        if value is not None:
            return Scale(float(value), cap)
    divisor = getattr(text, "logits_scaling", None)
    if divisor is None:
        return Scale(1.0, cap)
    multiplies = text.model_type == "hyperclovax"
    return Scale(float(divisor) if multiplies else 1.0 / float(divisor), cap)


class _AnswerLoss(torch.autograd.Function):
    """(hidden [n, h], head [v, h], bias [v] or None, targets [n], weights [n]) → (Σ weight · nll, hits)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        scale: Scale,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, vocab = hidden.shape[0], head.shape[0]
        step = max(1, LOGITS_AT_ONCE // vocab)
        need_hidden, need_head = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_head = torch.zeros_like(head, dtype=torch.float32) if need_head else None
        d_bias = (
            torch.zeros_like(bias, dtype=torch.float32)
            if bias is not None and ctx.needs_input_grad[2]
            else None
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hits = torch.zeros((), dtype=torch.long, device=hidden.device)
        for at in range(0, n, step):
            piece, target = hidden[at : at + step], targets[at : at + step, None]
            weight = weights[at : at + step, None]
            logits = torch.nn.functional.linear(piece, head, bias).float()
            logits, slope = bend(logits, scale)
            hits += (logits.argmax(-1, keepdim=True) == target).sum()
            logits -= torch.logsumexp(logits, -1, keepdim=True)
            total -= (logits.gather(1, target) * weight).sum()
            if d_hidden is None and d_head is None and d_bias is None:
                continue
            # d nll / d logits = softmax - onehot, in place of the logits.
            grad = logits.exp_()
            grad.scatter_add_(1, target, grad.new_full((len(target), 1), -1.0))
            grad *= weight
            if slope is not None:
                grad *= slope
            small = grad.to(head.dtype)
            if d_hidden is not None:
                d_hidden[at : at + step] = small @ head
            if d_head is not None:
                d_head += (small.T @ piece).float()
            if d_bias is not None:
                d_bias += grad.sum(0)
        ctx.save_for_backward(
            d_hidden,
            d_head.to(head.dtype) if d_head is not None else None,
            d_bias.to(bias.dtype) if d_bias is not None and bias is not None else None,
        )
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        outer = grads[0]
        scaled = [None if g is None else g * outer.to(g.dtype) for g in ctx.saved_tensors]
        return (*scaled, None, None, None)


def bend(logits: torch.Tensor, scale: Scale) -> tuple[torch.Tensor, torch.Tensor | float | None]:
    """The model's own logits, and their slope by the plain ones (None = 1)."""
    if scale.scale != 1.0:
        logits = logits * scale.scale
    if scale.cap is None:
        return logits, (scale.scale if scale.scale != 1.0 else None)
    bent = torch.tanh(logits / scale.cap)
    return bent * scale.cap, (1 - bent * bent) * scale.scale


@dataclass
class Answered(ModelOutput):  # type: ignore[misc]
    """``nll``: Σ weight · nats over the supervised tokens; ``tokens`` of them, ``hits`` guessed right; ``hidden``
    [tokens, h]: the states that they were guessed from.

    A `ModelOutput`, because what wraps a model (DDP, autocast) looks for tensors in one.
    """

    nll: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    hits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


def add_answer_head(model: Any) -> None:
    """Teach a causal language model ``model(…, labels=, answer_weights=, answer_head=True) -> Answered``.

    ``labels`` [batch, length] with -100 on what is not trained, not shifted; ``answer_weights`` of the same
    shape, or None. Any other call is the model's own. Through ``forward``, so that PEFT, checkpointing and
    DDP, which wrap it, work as they do otherwise.
    """
    own = model.forward
    scale = read_scale(model.config)

    @functools.wraps(type(model).forward)
    def forward(
        self: Any,
        *args: Any,
        answer_head: bool = False,
        answer_weights: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not answer_head:
            if labels is not None:
                kwargs["labels"] = labels
            return own(*args, **kwargs)
        assert labels is not None
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        return score_answers(hidden, labels, answer_weights, self.get_output_embeddings(), scale)

    model.forward = types.MethodType(forward, model)


def score_answers(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
    head: Any,
    scale: Scale,
) -> Answered:
    """The loss of hidden states [batch, length, h] against labels and weights [batch, length]."""
    target = labels[:, 1:]
    mask = target != IGNORED
    picked = hidden[:, :-1][mask]
    each = (
        picked.new_ones(picked.shape[0], dtype=torch.float32)
        if weights is None
        else weights[:, 1:][mask]
    )
    nll, hits = _AnswerLoss.apply(  # type: ignore[no-untyped-call]
        picked, head.weight, head.bias, target[mask], each, scale
    )
    return Answered(nll=nll, tokens=mask.sum(), hits=hits, hidden=picked)
