"""Answers and distributions of a model that transformers runs here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gtft.evals.asking.load import Candidates
from gtft.evals.asking.local import find_ends


class LocalAnswerer:
    """A loaded model, as the tuned one. One row at a time: what stands beside a row must not change its figures."""

    def __init__(
        self, loaded: Candidates, *, as_base: bool = False, ends: frozenset[int] | None = None
    ) -> None:
        """``as_base``: without the adapter; ``ends``: the tokens that end an answer, else as gtft finds them."""
        self._loaded, self._as_base = loaded, as_base
        self.ends = find_ends(loaded) if ends is None else ends

    def is_end(self, token: int) -> bool:
        return token in self.ends

    def answer(self, prompt: Sequence[int], most: int) -> list[int]:
        import torch

        out: list[int] = []
        with self._loaded.answering(as_base=self._as_base) as model, torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=model.device)
            kept = None
            while len(out) < most and not (out and out[-1] in self.ends):
                step = model(input_ids=ids, past_key_values=kept, use_cache=True)
                kept = step.past_key_values
                out.append(int(step.logits[0, -1].float().argmax()))
                ids = torch.tensor([[out[-1]]], device=model.device)
        return out

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        import torch

        with self._loaded.answering(as_base=self._as_base) as model, torch.inference_mode():
            ids = torch.tensor([[*prompt, *answer]], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0]
            rows = logits[len(prompt) - 1 : -1].float()
            return torch.log_softmax(rows, dim=-1).cpu().numpy()
