"""How good the memory estimate of a plan is: real trainings of random bases, estimated and measured.

python benchmarks/budget.py [--json] [--only NAME] [--rows FILE]

Each point is a training of two steps in a process of its own, through `gtft.training.fit` with the real
NF4 layers (`python -m gtft.workers.probe`, what `gtft plan --probe` starts). Measured is the peak of the
process's anonymous memory (RssAnon, sampled 50 times a second); estimated is `gtft.footprint` as it stands.
The points of ``HELD_OUT`` were not used to choose its constants. ``--rows``: append every point to a
file as JSON, and do not measure again what is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from gtft.footprint import MIB, estimate_memory, read_shape_of, shape_nano
from gtft.recipe.load import plan_load
from gtft.recipe.schema import Recipe

# What a base is made of: names of config.json; "family" and "dtype" are ours.
BASES: dict[str, dict[str, Any]] = {
    "8M": {"vocab_size": 6144, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
           "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "85M": {"vocab_size": 6144, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
            "num_attention_heads": 12, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "qwen3 130M": {"family": "qwen3", "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2304,
                   "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
                   "head_dim": 128, "tie_word_embeddings": True},
    "128k words": {"vocab_size": 128256, "hidden_size": 512, "intermediate_size": 1536,
                   "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
                   "tie_word_embeddings": False},
    "300M": {"vocab_size": 6144, "hidden_size": 1280, "intermediate_size": 3584, "num_hidden_layers": 16,
             "num_attention_heads": 20, "num_key_value_heads": 4, "tie_word_embeddings": False},
}  # fmt: skip


# Share of a row that the probe trains (gtft.training.probe).
SUPERVISED = 0.3


@dataclass(frozen=True)
class Point:
    """A base, the longest row and what differs from the recipe's defaults."""

    base: str
    length: int
    train: dict[str, Any] = field(default_factory=dict)
    quantization: str = "nf4"
    # How many different lengths of rows, downwards from ``length``.
    lengths: int = 1

    @property
    def name(self) -> str:
        extra = [f"{k}={v}" for k, v in sorted(self.train.items())]
        if self.quantization != "nf4":
            extra.append(self.quantization)
        if self.lengths > 1:
            extra.append(f"{self.lengths} lengths")
        return " ".join([self.base, str(self.length), *extra])


ON, R64, R8 = {"gradient_checkpointing": "on"}, {"lora": {"r": 64}}, {"lora": {"r": 8}}
OFF = {"gradient_checkpointing": "off"}
POINTS = (
    Point("nano", 256, OFF),
    Point("nano", 1024, OFF),
    Point("nano", 128, OFF, lengths=40),
    Point("8M", 512, {"batch": 4, **OFF}),
    Point("85M", 256, OFF),
    Point("85M", 512, OFF),
    Point("85M", 1024, OFF),
    Point("85M", 512, {**OFF, **R64}),
    Point("85M", 256, {"batch": 2, **ON}),
    Point("85M", 512, ON),
    Point("85M", 1024, ON),
    Point("85M", 512, OFF, "none"),
    Point("qwen3 130M", 512, OFF),
    Point("qwen3 130M", 1024, ON),
    Point("128k words", 256, OFF),
    Point("128k words", 512, OFF),
    Point("128k words", 1024, ON),
    Point("300M", 256, OFF),
    Point("300M", 512, ON),
    Point("8M", 512, {"adapter": "full", **OFF}, "none"),
)
HELD_OUT = (
    Point("8M", 128, OFF, lengths=60),
    Point("nano", 512, {**OFF, **R64}),
    Point("8M", 1024, OFF),
    Point("85M", 768, {**OFF, **R8}),
    Point("85M", 512, {**OFF, "lora": {"target_modules": ["q_proj", "v_proj"]}}),
    Point("300M", 512, OFF),
    Point("300M", 1024, {**ON, **R8}),
    Point("85M", 256, {"adapter": "full", **OFF}, "none"),
)


def make_base(folder: Path, settings: dict[str, Any]) -> None:
    """A random model with a small tokenizer, saved as bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from gtft.training.nano_tokenizer import train_tokenizer

    settings = dict(settings)
    qwen = settings.pop("family", "llama") == "qwen3"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen3Config(**settings) if qwen else LlamaConfig(**settings)
    model = (Qwen3ForCausalLM if qwen else LlamaForCausalLM)(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    train_tokenizer(["a base to measure with"], 512, 4096).save_pretrained(folder)


def describe(point: Point, bases: Path) -> Recipe:
    model = "nano" if point.base == "nano" else str(bases / point.base)
    document = {
        "role": "witness",
        "base": {"model": model, "quantization": point.quantization},
        "train": {**point.train, "max_length": point.length},
    }
    return Recipe.model_validate_json(json.dumps(document))


def estimate(point: Point, recipe: Recipe) -> int:
    nano = recipe.base.nano
    shape = (
        shape_nano(nano.vocab, nano.hidden, nano.layers, nano.heads)
        if point.base == "nano"
        else read_shape_of(Path(recipe.base.model))
    )
    on = recipe.train.gradient_checkpointing == "on"
    load = plan_load(recipe.base, recipe.train, gpu=False, checkpointing=on)
    return estimate_memory(shape, replace(load, supervised=SUPERVISED, lengths=point.lengths)).total


def measure(point: Point, recipe: Recipe, scratch: Path) -> dict[str, Any]:
    """What the probe worker says. Raises RuntimeError with its own words when it fails."""
    with tempfile.TemporaryDirectory(dir=scratch) as workdir:
        ask = Path(workdir) / "ask.json"
        ask.write_text(
            json.dumps(
                {
                    "recipe": recipe.model_dump(mode="json"),
                    "root": str(scratch),
                    "workdir": workdir,
                    "seconds": 400,
                    "lengths": [
                        point.length,
                        *range(point.length, point.length - point.lengths, -1),
                    ],
                }
            )
        )
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gtft.workers.probe", str(ask)],
            capture_output=True,
            text=True,
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        )
    if done.returncode:
        raise RuntimeError(f"{point.name}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--only", default="", help="points whose name starts so")
    parser.add_argument("--rows", type=Path, help="a file of measured points to go on with")
    parser.add_argument("--make", nargs=2, metavar=("BASE", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make_base(Path(args.make[1]), BASES[args.make[0]])
        return
    known: dict[str, dict[str, Any]] = {}
    if args.rows and args.rows.exists():
        for line in args.rows.read_text("utf-8").splitlines():
            row = json.loads(line)
            known[row["name"]] = row
    errors: dict[bool, list[float]] = {False: [], True: []}
    if not args.as_json:
        print(f"{'point':<58}{'estimated':>10}{'measured':>10}{'error':>8}{'tokens/s':>10}")
    with tempfile.TemporaryDirectory() as folder:
        bases = Path(folder)
        for point in (*POINTS, *HELD_OUT):
            if not point.name.startswith(args.only):
                continue
            if point.base != "nano" and not (bases / point.base).exists():
                argv = [sys.executable, __file__, "--make", point.base, str(bases / point.base)]
                subprocess.run(argv, check=True, capture_output=True)
            recipe = describe(point, bases)
            row = known.get(point.name)
            if row is None:
                row = {"name": point.name, **measure(point, recipe, bases)}
                if args.rows:
                    with args.rows.open("a") as f:
                        f.write(json.dumps(row) + "\n")
            guess, peak = estimate(point, recipe), row["peak"]
            held_out = point in HELD_OUT
            errors[held_out].append(guess / peak - 1)
            if not args.as_json:
                rate = max(n / s for n, s in row["timings"])
                mark = " (held out)" if held_out else ""
                print(
                    f"{point.name + mark:<58}{guess / MIB:>10.0f}{peak / MIB:>10.0f}"
                    f"{guess / peak - 1:>+8.1%}{rate:>10.0f}",
                    flush=True,
                )
    out: dict[str, Any] = {}
    for held_out, values in errors.items():
        if values:
            name = "held_out" if held_out else "fitted"
            out[f"{name}_points"] = len(values)
            out[f"{name}_mean_error"] = round(mean(abs(v) for v in values), 4)
            out[f"{name}_worst_error"] = round(max(values, key=abs), 4)
            out[f"{name}_within_15"] = sum(abs(v) <= 0.15 for v in values)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
