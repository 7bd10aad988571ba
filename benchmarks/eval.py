"""Items per second of gtft's evaluation beside lm-evaluation-harness' HF backend: ratios from one run.

python benchmarks/eval.py [--json] [--rounds 3] [--items 200] [--tokens 256] [--threads 2] [--model FOLDER] [--system]

Both have the same model object, the same prompts (the shipped items through the model's chat template), the same
limit of tokens and end of turn, greedy, in the model's own precision, in one process. lm_eval is asked with each batch
size of SIZES and goes on with its best. The rounds alternate; x_lm_eval is the median of the paired ratios. gtft's time
is all of it: rendering, tokenizing, decoding, checking, storing with fsync; lm_eval's is `HFLM.generate_until` on texts
that are rendered already. The share of equal answers is printed: it is below 1 where two logits are closer than rounding.

Without --model a Llama of the recipe's nano shape is made and taught the items for --steps steps, so that its answers
end as those of a trained model do. --system puts one system prompt (a town's prime text has this length) before each.
lm_eval is no dependency of gtft: pip install 'lm_eval[hf]'
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

SIZES = (8, 16, 32, 64, 128)
RULES = "You work in Gas Town. Rule {n}: look at the bead, then act on it, and tell the mayor what you did. "


class Silent:
    """Nobody watches and nobody asks to stop."""

    stop_requested = False

    def progress(self, *_: object) -> None:
        pass


def choose_items(count: int, system: bool) -> list[Any]:
    from gtft.evals.shipped import read_shipped

    items = [*read_shipped("authored"), *read_shipped("generated")]
    items.sort(key=lambda i: i.id)
    items = items[:count]
    if system:
        text = "".join(RULES.format(n=n) for n in range(16))
        first = {"role": "system", "content": text}
        items = [
            replace(i, messages=(first, *i.messages)).identified()
            for i in items
            if i.messages[0]["role"] != "system"
        ]
    return items


def make_nano(items: list[Any], steps: int) -> tuple[Any, Any]:
    """A Llama of the recipe's nano shape, taught the items' references: model and tokenizer."""
    from gtft.evals.asking.generate import write_prompts
    from gtft.recipe.schema import Nano
    from gtft.training.nano_tokenizer import train_tokenizer
    from gtft.training.pretrain import Passage, build_model, pretrain

    nano = Nano()
    texts = [str(m["content"]) for i in items for m in i.messages] + [i.reference for i in items]
    tokenizer = train_tokenizer(texts, nano.vocab, nano.context)
    model = build_model(
        nano,
        len(tokenizer),
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        seed=0,
    )
    passages = []
    for prompt in write_prompts(items, tokenizer, nano.context)[0]:
        answer = [*tokenizer(prompt.item.reference)["input_ids"], tokenizer.eos_token_id]
        passages.append(Passage((*prompt.ids, *answer), (-100,) * len(prompt.ids) + tuple(answer)))

    pretrain(model, passages, steps, seed=0, watch=_NoWatch(), clock=time.monotonic)
    return model.eval(), tokenizer


class _NoWatch(Silent):
    def metric(self, *_: object) -> None:
        pass

    def warn(self, *_: object) -> None:
        pass


def run_gtft(model: Any, tokenizer: Any, items: list[Any], tokens: int) -> tuple[float, list[str]]:
    """Seconds, and the answers in the order of ``items``."""
    from gtft.evals.asking.decode import Limits
    from gtft.evals.asking.generate import generate
    from gtft.evals.asking.load import Candidates
    from gtft.evals.asking.local import LocalCandidate

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        loaded = Candidates(model, tokenizer, model.config.max_position_embeddings, 0, plain=model)
        candidate = LocalCandidate(
            "base", loaded, as_base=True, limits=Limits(tokens, 600.0), clock=time.monotonic
        )
        prompts, too_long = candidate.write(items)
        assert not too_long
        made = generate(
            [candidate],
            {"base": prompts},
            seeds=1,
            item_seconds=600.0,
            log=Path(folder) / "log.jsonl",
            key="benchmark",
            report=Silent(),
            clock=time.monotonic,
        )
        seconds = time.monotonic() - began
    assert not [g for g in made if g.finish in ("error", "timeout")]
    return seconds, [g.output for g in made]


def run_lm_eval(
    model: Any, tokenizer: Any, texts: list[str], tokens: int, size: int
) -> tuple[float, list[str]]:
    """Seconds, and the answers in the order of ``texts``."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=size,
        max_length=model.config.max_position_embeddings,
        add_bos_token=False,
    )
    settings = {"until": [tokenizer.eos_token], "max_gen_toks": tokens, "do_sample": False}
    asked = [
        Instance("generate_until", {}, (text, dict(settings)), n) for n, text in enumerate(texts)
    ]
    began = time.monotonic()
    made = harness.generate_until(asked, disable_tqdm=True)
    return time.monotonic() - began, [text.strip() for text in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=256, help="of one answer, at most")
    parser.add_argument("--steps", type=int, default=400, help="of teaching the nano model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--model", type=Path, help="folder of another model")
    parser.add_argument("--system", action="store_true", help="one long system prompt for all")
    args = parser.parse_args()
    if importlib.util.find_spec("lm_eval") is None:
        sys.exit("lm_eval is not installed; for this comparison: pip install 'lm_eval[hf]'")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    torch.set_num_threads(args.threads)
    hf_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    items = choose_items(args.items, args.system)
    if args.model:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype="auto").eval()
        tokenizer = AutoTokenizer.from_pretrained(args.model)
    else:
        model, tokenizer = make_nano(items, args.steps)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    from gtft.evals.asking.generate import write_prompts

    room = model.config.max_position_embeddings - args.tokens
    prompts, _ = write_prompts(items, tokenizer, room)
    items = [p.item for p in prompts]
    texts = [tokenizer.decode(p.ids, skip_special_tokens=False) for p in prompts]
    assert [tuple(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts] == [
        p.ids for p in prompts
    ]
    told = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{len(items)} items, {sum(len(p.ids) for p in prompts)} prompt tokens, model of {told:.1f} M"
    )
    ours, answers = run_gtft(model, tokenizer, items, args.tokens)
    print(f"warm-up gtft {ours:.1f} s")
    tried = {n: run_lm_eval(model, tokenizer, texts, args.tokens, n)[0] for n in args.sizes}
    size = min(tried, key=lambda n: tried[n])
    for n, seconds in tried.items():
        print(f"lm_eval, batches of {n:<4} {len(items) / seconds:7.2f} items/s")
    pairs = []
    for n in range(args.rounds):
        ours, answers = run_gtft(model, tokenizer, items, args.tokens)
        theirs, others = run_lm_eval(model, tokenizer, texts, args.tokens, size)
        pairs.append((ours, theirs))
        print(
            f"round {n + 1}: gtft {len(items) / ours:.2f} items/s, lm_eval {len(items) / theirs:.2f}"
        )
    equal = statistics.fmean(a == b for a, b in zip(answers, others, strict=True))
    lengths = [len(tokenizer(a)["input_ids"]) for a in answers]
    print(f"answers: {statistics.fmean(lengths):.0f} tokens on average, {max(lengths)} at most")
    print(f"equal answers: {100 * equal:.1f} %")
    found = {
        "items_per_s": round(len(items) / statistics.median(a for a, _ in pairs), 2),
        "x_lm_eval": round(statistics.median(b / a for a, b in pairs), 2),
        "lm_eval_items_per_s": round(len(items) / statistics.median(b for _, b in pairs), 2),
        "lm_eval_batch": size,
        "equal_answers": round(equal, 4),
        "items": len(items),
        "rounds": args.rounds,
        "threads": args.threads,
    }
    print(json.dumps(found) if args.json else f"x lm_eval: {found['x_lm_eval']}")


if __name__ == "__main__":
    main()
