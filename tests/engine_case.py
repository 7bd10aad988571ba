"""What the tests of engines share: a base with a role adapter, a task adapter on it and a second role, and asking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals_case import example, make_adapter, make_base, make_corpus
from gtft.artifact import Artifact, stage_artifact, write_json
from gtft.serving.engine import Ask, End, Token
from gtft.serving.loading import Places, Wanted

WORDS = ("pump", "harbor", "tide", "leaks", "which rig?", "bd create", "é", "the 3 is high", "{}")


@dataclass(frozen=True)
class Bench:
    """Artifacts of one base, ready to be loaded."""

    places: Places
    base: Path
    role: Artifact
    task: Artifact
    other: Artifact

    def wanted(self, name: str) -> Wanted:
        artifact: Artifact = getattr(self, name)
        return Wanted(name, artifact.path, role="witness", aliases=(f"{name}-alias",))


def make_bench(root: Path) -> Bench:
    base = make_base(root)
    artifacts = root / "artifacts"
    corpus = make_corpus(artifacts, [example(1)], [example(2)])
    role = make_adapter(artifacts, base, root, corpus)
    task = vary_adapter(role, artifacts, 0.5, stacks_on=role.id)
    other = vary_adapter(role, artifacts, -1.0)
    return Bench(Places(root, root, artifacts), base, role, task, other)


def vary_adapter(
    adapter: Artifact, artifacts: Path, factor: float, stacks_on: str = ""
) -> Artifact:
    """A copy whose weights are ``factor`` times as large."""
    import torch
    from safetensors.torch import load_file, save_file

    with stage_artifact(artifacts, "adapter", parents=adapter.parents) as staging:
        for entry in adapter.files:
            (staging.path / entry.name).write_bytes((adapter.path / entry.name).read_bytes())
        weights = load_file(adapter.path / "adapter_model.safetensors")
        torch.manual_seed(11)
        for name, value in weights.items():
            if "lora_B" in name:
                weights[name] = value * factor + torch.randn_like(value) * 0.2
        save_file(weights, staging.path / "adapter_model.safetensors", {"format": "pt"})
        doc = json.loads((adapter.path / "base.json").read_text("utf-8"))
        write_json(staging.path / "base.json", {**doc, "stacks_on": stacks_on})
    return staging.result


def make_ask(model: str = "role", text: str = "which pump leaks?", **settings: Any) -> Ask:
    given: dict[str, Any] = {
        "messages": ({"role": "user", "content": text},),
        "tools": (),
        "max_tokens": 24,
        "seconds": 120.0,
        **settings,
    }
    return Ask(model, **given)


def make_texts(count: int) -> list[str]:
    """Prompts of very unlike lengths, some of which begin alike."""
    return [
        " ".join(WORDS[(n + k * k) % len(WORDS)] for k in range(n % 13 + 1)) for n in range(count)
    ]


async def read(engine: Any, ask: Ask) -> tuple[list[Token], End]:
    """The whole answer. Its tokens are its text, always."""
    tokens: list[Token] = []
    async for what in engine.answer(ask):
        if isinstance(what, End):
            assert "".join(t.text for t in tokens) == what.text
            return tokens, what
        tokens.append(what)
    raise AssertionError("an answer without an end")


def read_all(engine: Any, asks: Sequence[Ask]) -> list[tuple[list[Token], End]]:
    """All at once, in order."""

    async def gather() -> list[tuple[list[Token], End]]:
        return await asyncio.gather(*(read(engine, ask) for ask in asks))

    return asyncio.run(gather())
