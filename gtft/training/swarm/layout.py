"""How an adapter's tensors lie in the one flat vector that is exchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from gtft.swarm.tensors import hash_tensors


def flatten(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """One float32 vector on the CPU."""
    return torch.cat([t.detach().reshape(-1).to("cpu", torch.float32) for t in tensors])


class Layout:
    """Names (as the model has them) and shapes, in the vector's order."""

    def __init__(self, names: Sequence[str] = (), tensors: Sequence[torch.Tensor] = ()) -> None:
        self._names = tuple(names)
        self._shapes = tuple(t.shape for t in tensors)

    def sign(self, fingerprint: str) -> str:
        """The fingerprint with names and shapes in it: what two peers must share to exchange numbers."""
        shape = json.dumps([[n, list(s)] for n, s in zip(self._names, self._shapes, strict=True)])
        return hashlib.sha256(f"{fingerprint}|{shape}".encode()).hexdigest()

    def split(self, vector: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors in a vector."""
        pieces = torch.split(vector, [s.numel() for s in self._shapes])
        return tuple(p.reshape(s) for p, s in zip(pieces, self._shapes, strict=True))

    def hash(self, vector: torch.Tensor) -> str:
        """Equal to the hash of the adapter file that these numbers become."""
        return hash_tensors(self._name_rows(vector))

    def _name_rows(self, vector: torch.Tensor) -> Iterator[tuple[str, str, Sequence[int], Any]]:
        for name, tensor in zip(self._names, self.split(vector), strict=True):
            data: Any = tensor.contiguous().numpy().data
            # As PEFT saves them; DoRA's magnitude without its last part.
            saved = name.replace(".default.", ".")
            if saved.endswith(".lora_magnitude_vector.weight"):
                saved = saved.removesuffix(".weight")
            yield saved, "F32", tuple(tensor.shape), data
