"""Requests and tokens per second of gtft's engine, beside the same model answering one request after another.

python benchmarks/serve.py --workspace DIR [--json] [--rounds 3] [--requests 64] [--tokens 128] [--threads 2] [--at 1 8 32]

The newest adapter of a workspace (``make demo`` leaves one) is loaded once, as the eval loads it, in one process. The
requests are shipped eval items, greedy, of at most so many tokens.

generate   transformers' ``generate`` on the loaded model, one request after another: what a server without batches does.
           Its prompts are written and tokenized already, and it streams nothing
engine     `LocalEngine` with so many clients at once, each of which asks its next question when it has its answer; prompts
           are written, tokens are streamed, and nothing is left from the round before
two        the same, where every second request is for the base without adapter

The rounds alternate; requests/s and tokens/s are medians, x_generate is the median of the paired ratios of tokens/s.
first and last are medians of the seconds to the first token and to the end. The share of equal answers is printed: it is
below 1 where two logits are closer than rounding.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any


def choose_items(count: int) -> list[Any]:
    from gtft.evals.shipped import read_shipped

    items = [*read_shipped("authored"), *read_shipped("generated")]
    items.sort(key=lambda i: i.id)
    return items[:count]


def load(workspace: Path) -> Any:
    from gtft.serving.loading import Adapters, Places, Wanted, check_wanted, find_folder

    artifacts = workspace / "artifacts"
    folders = sorted(artifacts.glob("adapter-*"), key=lambda p: p.stat().st_mtime)
    if not folders:
        sys.exit(f"there is no adapter in {artifacts}")
    places = Places(workspace, workspace, artifacts)
    one = check_wanted(Wanted("tuned", folders[-1]), places)
    return Adapters([one], find_folder(one, places))


def ask_generate(adapters: Any, items: list[Any], tokens: int) -> dict[str, Any]:
    import torch

    from gtft.evals.asking.generate import write_prompts
    from gtft.evals.asking.local import find_ends

    loaded = adapters.first
    prompts, _ = write_prompts(items, loaded.tokenizer, loaded.context - tokens)
    texts, count, ends = {}, 0, sorted(find_ends(loaded))
    with loaded.answering(as_base=False) as model, torch.inference_mode():
        began = time.monotonic()
        for prompt in prompts:
            ids = torch.tensor([prompt.ids])
            made = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=ends,
                pad_token_id=loaded.tokenizer.pad_token_id,
            )
            answer = [t for t in made[0, ids.shape[1] :].tolist() if t not in ends]
            texts[json.dumps(prompt.item.messages)] = loaded.tokenizer.decode(answer).strip()
            count += len(answer)
        seconds = time.monotonic() - began
    return {"seconds": seconds, "requests": len(prompts), "tokens": count, "texts": texts}


def ask_engine(
    adapters: Any, items: list[Any], tokens: int, clients: int, models: tuple[str, ...]
) -> dict[str, Any]:
    from gtft.serving.engine import Ask, End
    from gtft.serving.local import LocalEngine

    firsts: list[float] = []
    lasts: list[float] = []
    texts: dict[Any, str] = {}
    counts: list[int] = []

    async def run() -> float:
        engine = LocalEngine(adapters, queue=len(items))
        left = list(enumerate(items))

        async def be_client() -> None:
            while left:
                n, item = left.pop(0)
                began, first = time.monotonic(), 0.0
                ask = Ask(models[n % len(models)], item.messages, item.tools, tokens, 600.0)
                async for what in engine.answer(ask):
                    first = first or time.monotonic() - began
                    if isinstance(what, End):
                        firsts.append(first)
                        lasts.append(time.monotonic() - began)
                        counts.append(what.tokens)
                        if ask.model == "tuned":
                            texts[json.dumps(item.messages)] = what.text

        began = time.monotonic()
        await asyncio.gather(*(be_client() for _ in range(clients)))
        seconds = time.monotonic() - began
        await engine.aclose()
        return seconds

    seconds = asyncio.run(run())
    return {
        "seconds": seconds,
        "requests": len(items),
        "tokens": sum(counts),
        "texts": texts,
        "first": statistics.median(firsts),
        "last": statistics.median(lasts),
    }


def measure(asked: argparse.Namespace) -> list[dict[str, Any]]:
    adapters = load(asked.workspace)
    items = choose_items(asked.requests)
    contenders = [(f"engine, {n} at once", n, ("tuned",)) for n in asked.at]
    contenders.append((f"two models, {max(asked.at)} at once", max(asked.at), ("tuned", "base")))
    ask_engine(adapters, items[:8], 8, 8, ("tuned",))
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        found = {"generate": ask_generate(adapters, items, asked.tokens)}
        for name, clients, models in contenders:
            found[name] = ask_engine(adapters, items, asked.tokens, clients, models)
        rounds.append(found)

    def rate(found: dict[str, Any], what: str) -> float:
        return float(found[what] / found["seconds"])

    rows = []
    for name in rounds[0]:
        runs = [r[name] for r in rounds]
        row = {
            "name": name,
            "requests_per_s": statistics.median(rate(r, "requests") for r in runs),
            "tokens_per_s": statistics.median(rate(r, "tokens") for r in runs),
            "x_generate": statistics.median(
                rate(r[name], "tokens") / rate(r["generate"], "tokens") for r in rounds
            ),
        }
        if "first" in runs[0]:
            row |= {k: statistics.median(r[k] for r in runs) for k in ("first", "last")}
            plain = rounds[0]["generate"]["texts"]
            same = [plain[k] == t for k, t in runs[0]["texts"].items() if k in plain]
            row["equal"] = sum(same) / len(same)
        rows.append({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--at", type=int, nargs="+", default=[1, 8, 32])
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    from gtft.training.environment import prepare_environment

    prepare_environment(os.environ, offline=True)
    rows = measure(asked)
    for row in rows:
        print(
            f"{row['name']:26} {row['requests_per_s']:8.2f} requests/s {row['tokens_per_s']:8.1f} tokens/s"
            f"  ×{row['x_generate']:.2f}"
            + (f"  first {row['first']:.3f} s, last {row['last']:.3f} s, equal {row['equal']:.3f}" if "first" in row else "")
        )  # fmt: skip
    if asked.json:
        print(json.dumps({"threads": asked.threads, "tokens": asked.tokens, "rows": rows}))


if __name__ == "__main__":
    main()
