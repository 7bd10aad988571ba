"""Training from pairs and judgements: DPO, KTO and ORPO of TRL, on rows that gtft has written.

The reference is the model with its adapter switched off: no second model is loaded. One that goes on from
an earlier adapter is held to that adapter as it was (a frozen copy of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from gtft.errors import TrainingError
from gtft.training.adapters import TRAINED
from gtft.training.preferences import Judgement, Judgements, Pair, Pairs
from gtft.training.render import IGNORED
from gtft.training.trainer import Guarded

if TYPE_CHECKING:
    from gtft.training.fit import Task

# TRL's name for the frozen copy.
_COPY = "ref"


class _Ready:
    """Put before a TRL trainer: the dataset holds numbers of units, the collator makes the tensors."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class DpoTrainer(Guarded, _Ready, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on ready-made rows."""

    def __init__(self, *args: Any, continued: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _settle_reference(self.model, continued)


class KtoTrainer(Guarded, _Ready, KTOTrainer):  # type: ignore[misc]
    """KTOTrainer on ready-made rows."""

    def __init__(self, *args: Any, continued: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _settle_reference(self.model, continued)


class PairCollator:
    """Numbers of pairs → the tensors of TRL's DPO: all chosen rows, then all rejected ones."""

    def __init__(self, pairs: Sequence[Pair], pad: int) -> None:
        self._pairs = pairs
        self._pad = pad

    def __call__(self, batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = [self._pairs[b["unit"]] for b in batch]
        rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
        return _lay([(r.input_ids, _mask(r.labels)) for r in rows], self._pad)


class OddsCollator:
    """Numbers of pairs → the tensors of TRL's ORPO."""

    def __init__(self, pairs: Sequence[Pair], pad: int) -> None:
        self._pairs = pairs
        self._pad = pad

    def __call__(self, batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pairs = [self._pairs[b["unit"]] for b in batch]
        out: dict[str, torch.Tensor] = {}
        for side, rows in (
            ("chosen", [p.chosen for p in pairs]),
            ("rejected", [p.rejected for p in pairs]),
        ):
            laid = _lay([(r.input_ids, _mask(r.labels)) for r in rows], self._pad)
            mask = laid["completion_mask"]
            out[f"{side}_input_ids"] = laid["input_ids"]
            out[f"{side}_attention_mask"] = laid["attention_mask"]
            out[f"{side}_labels"] = laid["input_ids"].masked_fill(mask == 0, IGNORED)
        return out


class JudgementCollator:
    """Numbers of judgements → the tensors of TRL's KTO.

    Its KL is estimated from answers beside a prompt that they do not belong to: each row takes the answer of
    the next one, or, when that is of the same pair, of the next pair of all.
    """

    def __init__(self, judgements: Sequence[Judgement], pad: int) -> None:
        self._judgements = judgements
        self._pad = pad

    def __call__(self, batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        units = [self._judgements[b["unit"]] for b in batch]
        rows = [(j.row.input_ids, _mask(j.row.labels)) for j in units]
        strange = []
        for at, judgement in enumerate(units):
            other = units[(at + 1) % len(units)]
            if other.pair == judgement.pair:
                other = self._find_stranger(batch[at]["unit"])
            ids, mask = other.row.input_ids, _mask(other.row.labels)
            prompt = judgement.row.input_ids[: judgement.prompt]
            joined = (prompt + ids[other.prompt :], [0] * len(prompt) + mask[other.prompt :])
            strange.append(joined)
        return {
            **_lay(rows, self._pad),
            **{f"KL_{name}": t for name, t in _lay(strange, self._pad).items()},
            "label": torch.tensor([j.good for j in units]),
        }

    def _find_stranger(self, number: int) -> Judgement:
        here = self._judgements[number].pair
        count = len(self._judgements)
        later = (self._judgements[(number + n) % count] for n in range(1, count))
        return next((j for j in later if j.pair != here), self._judgements[number])


def build_trainer(
    task: Task,
    model: Any,
    material: Pairs | Judgements,
    order: list[int],
    settings: dict[str, Any],
    callbacks: list[Any],
) -> Any:
    """``order``: numbers of the material's units, for the whole run; ``settings``: what every trainer shares.

    Raises TrainingError when this TRL has no ORPO.
    """
    preference = task.train.preference
    continued = bool(task.train.continues)
    pad = task.tokenizer.pad_token_id
    shared: dict[str, Any] = {
        "model": model,
        "train_dataset": Dataset.from_dict({"unit": order}),
        "processing_class": task.tokenizer,
        "callbacks": callbacks,
    }
    # The recipe's dropout is 0 here; TRL would turn off the base's as well, and so it should.
    config = {
        **settings,
        "beta": preference.beta,
        "max_length": None,
        "remove_unused_columns": False,
    }
    if isinstance(material, Judgements):
        good = sum(j.good for j in material.judgements)
        desirable, undesirable = weigh_judgements(good, len(material.judgements) - good)
        args = KTOConfig(**config, desirable_weight=desirable, undesirable_weight=undesirable)
        collator: Any = JudgementCollator(material.judgements, pad)
        return KtoTrainer(args=args, data_collator=collator, continued=continued, **shared)
    if task.train.method == "orpo":
        return _build_orpo(config, OddsCollator(material.pairs, pad), shared)
    losses = {"sigmoid": 1.0} | ({"sft": preference.sft_weight} if preference.sft_weight else {})
    args = DPOConfig(
        **config,
        loss_type=list(losses),
        loss_weights=list(losses.values()),
        # The frozen reference is read anew each step: ahead of time it would be read in eval mode.
        precompute_ref_log_probs=False,
    )
    collator = PairCollator(material.pairs, pad)
    return DpoTrainer(args=args, data_collator=collator, continued=continued, **shared)


def weigh_judgements(good: int, bad: int) -> tuple[float, float]:
    """Weights of good and bad answers so that both kinds count the same (arXiv:2402.01306, eq. 8)."""
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good), max(1.0, good / bad)


def _build_orpo(config: dict[str, Any], collator: OddsCollator, shared: dict[str, Any]) -> Any:
    try:
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    except ImportError as e:
        raise TrainingError(
            "the installed TRL has no ORPO",
            why=f"trl.experimental.orpo: {e}; it is not part of TRL's stable interface",
            fix="gtft run RECIPE --set train.method=dpo, or install the TRL that gtft names",
        ) from e

    class OrpoTrainer(Guarded, ORPOTrainer):  # type: ignore[misc]
        """ORPOTrainer on ready-made rows, whose plain loss is of the answer alone."""

        @staticmethod
        def tokenize_row(feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
            chosen, *rest = super().concatenated_forward(model, batch)
            # TRL trains the prompt as well; here only what the model wrote is trained.
            return (chosen, *rest[:3], -chosen.mean(), *rest[4:])

    args = ORPOConfig(**{**config, "max_length": 1 << 30})
    return OrpoTrainer(args=args, data_collator=collator, **shared)


def _settle_reference(model: Any, continued: bool) -> None:
    """TRL copies an adapter it is given as the reference; a fresh one is nothing yet, and is switched off."""
    if continued:
        for name, parameter in model.named_parameters():
            if f".{_COPY}." in name:
                parameter.data = parameter.data.to(torch.float32)
                parameter.requires_grad_(False)
    else:
        model.delete_adapter(_COPY)
    model.set_adapter(TRAINED)


def _mask(labels: Any) -> list[int]:
    return [int(label != IGNORED) for label in labels]


def _lay(rows: Sequence[tuple[Any, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """(ids, mask) rows padded side by side, with what TRL calls them."""
    width = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _ in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]
        ),
        "completion_mask": torch.tensor([mask + [0] * (width - len(mask)) for _, mask in rows]),
    }
