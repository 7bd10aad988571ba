"""How fast and how large a training is, beside TRL and beside a plain torch loop: ratios from one run.

python benchmarks/train.py [--json] [--rounds 3] [--rows 64] [--threads 2] [--only NAME …] [--no-overhead]

One base of about 85 M random parameters, held in NF4, and one set of rows for all: the lengths and the trained
shares of a corpus that was harvested from real transcripts, beads and formulas (LENGTHS below), with random
tokens. Each contender is a process of its own that reads the rows, warms up on 8 and trains once over the
rest; the rounds alternate, and the best of each counts. supervised tokens per second are compared, and the
peak of the anonymous memory (RssAnon, sampled every 5 ms).

plain    SFTTrainer as TRL's documentation sets up QLoRA: its own defaults (8 rows a step, padded, activation
         checkpointing, all of TRL's head), NF4 with bfloat16 compute
tuned    the same trainer with everything set by hand as gtft has it: 1 row × 8, no checkpointing, small head
         chunk, passive waiting, the same optimizer
raw      a plain torch loop over the same PEFT model: 1 row × 8, the model's own loss
gtft     `gtft.training.fit` with the recipe's defaults, checkpoints and figures included

overhead: what runner and worker add to a run of 10 minutes, as a share of it. The train stage of a small run is
carried out by the runner, and then the same job by the bare training in a process of its own, which reads, proves,
trains and writes, but has no runner, no events and no checkpoints; fixed = the difference of the wall times (from
claim to evidence, from start to end); beside it stands the processor time that the runner takes for a second of
watching (median of the seconds), which counts in full: (fixed + 600 × that) / 600.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

IGNORED = -100
VOCAB = 16384
SHAPE = {
    "hidden_size": 640,
    "intermediate_size": 1792,
    "num_hidden_layers": 16,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
RATE = 2e-4
STEP = 8
WARM = 8
# (tokens, trained tokens at the end), 64 rows drawn from those of at most 1024 tokens.
LENGTHS = (
    (62, 35), (70, 35), (78, 44), (78, 44), (79, 44), (98, 55), (108, 60), (112, 64), (121, 67), (123, 70),
    (126, 60), (126, 69), (128, 70), (130, 69), (131, 70), (135, 31), (139, 77), (141, 77), (142, 78), (147, 82),
    (148, 30), (148, 81), (148, 81), (150, 85), (157, 44), (163, 88), (166, 49), (168, 43), (169, 44), (182, 44),
    (187, 100), (193, 43), (199, 105), (205, 41), (209, 110), (217, 119), (223, 60), (232, 112), (239, 126),
    (240, 43), (240, 62), (244, 49), (250, 79), (257, 77), (275, 69), (282, 48), (290, 64), (295, 44), (295, 81),
    (297, 34), (303, 137), (318, 43), (336, 88), (348, 55), (353, 62), (397, 46), (399, 44), (422, 55), (460, 36),
    (472, 78), (546, 48), (563, 72), (827, 47), (1015, 956),
)  # fmt: skip
CONTENDERS = ("plain", "tuned", "raw", "gtft")


def make_rows(count: int) -> list[tuple[list[int], list[int]]]:
    """(input_ids, labels) of so many rows, in random order."""
    dice = random.Random(5)
    # Evenly over the mix, the longest among them.
    lengths = [LENGTHS[(i + 1) * len(LENGTHS) // count % len(LENGTHS) - 1] for i in range(count)]
    dice.shuffle(lengths)
    rows = []
    for tokens, trained in lengths:
        ids = [dice.randrange(10, VOCAB) for _ in range(tokens)]
        rows.append((ids, [IGNORED] * (tokens - trained) + ids[tokens - trained :]))
    return rows


def count_supervised(rows: list[tuple[list[int], list[int]]]) -> int:
    return sum(label != IGNORED for _, labels in rows for label in labels[1:])


def make_base(folder: Path) -> None:
    """A random Llama with a tokenizer that knows its numbers by heart."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, tie_word_embeddings=True, **SHAPE))
    model.to(torch.bfloat16).save_pretrained(folder)
    words = {"<eos>": 0, "<pad>": 1} | {f"w{n}": n for n in range(2, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<eos>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(folder)


class Peak:
    """The peak of this process's anonymous memory, bytes; sampled by a thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with Path("/proc/self/status").open() as f:
            while not self._stop.wait(0.005):
                f.seek(0)
                for line in f:
                    if line.startswith("RssAnon"):
                        self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
                        break

    def stop(self) -> int:
        self._stop.set()
        return self.bytes


def load_nf4(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=configure_nf4(), device_map={"": "cpu"}, dtype=torch.bfloat16
    )


def configure_nf4() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def time_trl(base: Path, rows: list[tuple[list[int], list[int]]], work: Path, tuned: bool) -> float:
    """Seconds for all rows after the warm-up."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer import utils as trl_utils

    stamps: list[float] = []

    class Stamp(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            stamps.append(time.perf_counter())

    settings: dict[str, Any] = {}
    if tuned:
        trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = 4096
        settings = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": STEP,
            "gradient_checkpointing": False,
            "optim": "adamw_torch",
            "learning_rate": RATE,
            "logging_steps": 1,
            "train_sampling_strategy": "sequential",
        }
    torch.manual_seed(7)
    trainer = SFTTrainer(
        model=str(base),
        quantization_config=configure_nf4(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
        args=SFTConfig(
            output_dir=str(work),
            use_cpu=True,
            report_to="none",
            num_train_epochs=1,
            disable_tqdm=True,
            save_strategy="no",
            **settings,
        ),
        train_dataset=Dataset.from_dict(
            {"input_ids": [i for i, _ in rows], "labels": [label for _, label in rows]}
        ),
        callbacks=[Stamp()],
    )
    trainer.train()
    return stamps[-1] - stamps[WARM // STEP - 1]


def time_raw(base: Path, rows: list[tuple[list[int], list[int]]], work: Path) -> float:
    import bitsandbytes
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    model = get_peft_model(load_nf4(base), LoraConfig(task_type="CAUSAL_LM", **LORA))
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    model.train()
    began = 0.0
    for at in range(0, len(rows), STEP):
        if at == WARM:
            began = time.perf_counter()
        batch = rows[at : at + STEP]
        tokens = count_supervised(batch)
        for ids, labels in batch:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(),
                torch.tensor(labels[1:]),
                ignore_index=IGNORED,
                reduction="sum",
            )
            (loss / tokens).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def time_gtft(
    base: Path, rows: list[tuple[list[int], list[int]]], work: Path, **changed: Any
) -> float:
    from transformers import TrainerCallback

    from gtft.recipe.schema import Base, Train
    from gtft.training.adapters import Ancestors, attach
    from gtft.training.base import load_tokenizer, locate_base
    from gtft.training.device import settle
    from gtft.training.fit import Task, fit
    from gtft.training.material import Rows
    from gtft.training.render import Row

    class Stamp(TrainerCallback):  # type: ignore[misc]
        trainer: Any = None
        stamps: list[float] = []  # noqa: RUF012 - one training per process

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.stamps.append(time.perf_counter())

        def restore(self, folder: Path) -> None:
            raise AssertionError("nothing is resumed here")

    watch: Any = _Silent()
    found = locate_base(
        Base(model=str(base)),
        text_file=base,
        root=base,
        workspace=base,
        watch=watch,
        clock=time.monotonic,
    )
    train = Train(epochs=1.0, **changed)
    made = []
    for n, (ids, labels) in enumerate(rows):
        first = sum(label == IGNORED for label in labels)
        made.append(Row(f"row-{n}", array("i", ids), ((first, len(ids)),), cut=0))
    settings = settle(train, cuda=False, bf16=False, fits=True)
    capacity = train.max_length if settings.packing else 0
    stamp = Stamp()
    fit(
        Task(
            base=found,
            tokenizer=load_tokenizer(found),
            train=train,
            settings=settings,
            corpus="corpus",
            recipe_hash="recipe",
            workdir=work,
            watch=watch,
            clock=time.monotonic,
            equip=lambda model: attach(model, train, Ancestors()),
            measure_memory=lambda: 0,
            companions=(stamp,),
            keep_threads=True,
        ),
        Rows(tuple(made), capacity),
    )
    return stamp.stamps[-1] - stamp.stamps[WARM // STEP - 1]


def carry_out(name: str, base: Path, count: int, work: Path) -> dict[str, float]:
    """The body of one contender's process."""
    rows = make_rows(count)
    if name.startswith("gtft"):
        from gtft.training.environment import prepare_environment

        prepare_environment(os.environ, offline=True)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    peak = Peak()
    if name == "plain":
        seconds = time_trl(base, rows, work, tuned=False)
    elif name == "tuned":
        seconds = time_trl(base, rows, work, tuned=True)
    elif name == "raw":
        seconds = time_raw(base, rows, work)
    else:
        # gtft, or gtft:key=value,… for a look at another setting.
        changed = dict(pair.split("=") for pair in name.partition(":")[2].split(",") if pair)
        typed = {k: int(v) if v.isdigit() else v for k, v in changed.items()}
        seconds = time_gtft(base, rows, work, **typed)
    bytes_ = peak.stop()
    # The order differs, so the tokens after the warm-up are taken as the share of the rows.
    share = (count - WARM) / count
    return {
        "seconds": seconds,
        "tokens_per_s": count_supervised(rows) * share / seconds,
        "peak": bytes_,
    }


def measure(
    names: list[str], base: Path, count: int, rounds: int, threads: int
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    for turn in range(rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as work:
                environ = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
                if name != "plain":
                    environ["OMP_WAIT_POLICY"] = "PASSIVE"
                done = subprocess.run(
                    [sys.executable, __file__, "--one", name, str(base), str(count), work],
                    env=environ,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            one = found[name][-1]
            print(
                f"round {turn + 1}  {name:<8} {one['tokens_per_s']:8.1f} supervised tokens/s"
                f"  peak {one['peak'] / 1e6:7.0f} MB",
                file=sys.stderr,
            )
    return found


def time_overhead() -> float:
    """The share of a 10-minute training that runner and worker add."""
    from gtft.cli.main import run as gtft

    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "ws"
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        where = ["--workspace", str(workspace)]
        argv = [*where, "run", "mol-gtft-quickstart", "--quiet", "--as", "bench/polecats/one"]
        argv += ["--set", "base.nano.steps=20"]
        # The first builds the base, which both then find.
        _call(gtft, [*argv, "--set", "train.max_steps=8"])
        before = set(workspace.glob("runs/*/train"))
        with _Pulse() as pulse:
            _call(gtft, [*argv, "--set", "train.max_steps=120"])
        (job,) = set(workspace.glob("runs/*/train")) - before
        watched = _read_stage_seconds(workspace, job.parent.name, "train")
        bare_job = Path(folder) / "bare"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, __file__, "--bare", str(job), str(bare_job)],
            check=True,
            capture_output=True,
        )
        bare = time.perf_counter() - began
    per_second = pulse.rate
    fixed = watched - bare
    print(
        f"train stage through the runner {watched:.1f} s, bare {bare:.1f} s; the runner takes "
        f"{1000 * per_second:.1f} ms of processor a second",
        file=sys.stderr,
    )
    # Of two noisy times the difference may be negative: runner and worker make nothing faster.
    return (max(0.0, fixed) + 600 * per_second) / 600


class _Pulse:
    """Processor seconds that this process takes for a second, the median over the seconds it lives."""

    def __init__(self) -> None:
        self._taken: list[float] = []
        self._stop = threading.Event()

    def __enter__(self) -> _Pulse:
        threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    @property
    def rate(self) -> float:
        return statistics.median(self._taken)

    def _count(self) -> None:
        at, taken = time.perf_counter(), time.process_time()
        while not self._stop.wait(1.0):
            now, used = time.perf_counter(), time.process_time()
            self._taken.append((used - taken) / (now - at))
            at, taken = now, used


def _call(gtft: Callable[[list[str]], None], argv: list[str]) -> None:
    try:
        gtft(argv)
    except SystemExit as e:
        if e.code:
            raise


def _read_stage_seconds(workspace: Path, run: str, stage: str) -> float:
    """From the claim to the evidence, by the run's own history."""
    import sqlite3

    with sqlite3.connect(workspace / "gtft.db") as store:
        asked = "select kind, created_us from gtft_events where run_id = ? and stage = ?"
        rows = store.execute(asked, (run, stage))
        at = dict(rows.fetchall())
    return float(at["review"] - at["claimed"]) / 1e6


def train_bare(job_dir: Path, work: Path) -> None:
    """The training of a job and nothing else: no lock, no events, no metrics, no manifest, no checkpoints."""
    from gtft.contract import Job
    from gtft.training.environment import prepare_environment
    from gtft.workers.train import work as train

    prepare_environment(os.environ, offline=True)
    job = Job.model_validate_json((job_dir / "job.json").read_bytes())
    recipe = dict(job.recipe)
    recipe["train"] = {**recipe["train"], "checkpoint_steps": 100000}
    work.mkdir()
    train(
        job.model_copy(
            update={"workdir": work / "work", "artifacts": work / "artifacts", "recipe": recipe}
        ),
        _Silent(),  # type: ignore[arg-type]
    )


class _Silent:
    stop_requested = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_a, **_k: None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--no-overhead", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        train_bare(Path(given.bare[0]), Path(given.bare[1]))
        return
    if given.one:
        name, base, count, work = given.one
        print(json.dumps(carry_out(name, Path(base), int(count), Path(work))))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        make_base(base)
        found = measure(given.only, base, given.rows, given.rounds, given.threads)
    best = {n: max(r["tokens_per_s"] for r in runs) for n, runs in found.items()}
    peak = {n: statistics.median(r["peak"] for r in runs) for n, runs in found.items()}
    result: dict[str, float] = {}
    if set(CONTENDERS) <= best.keys():
        result = {
            "default_x": round(best["gtft"] / best["plain"], 3),
            "tuned_x": round(best["gtft"] / best["tuned"], 3),
            "raw_x": round(best["gtft"] / best["raw"], 3),
            "peak_x": round(peak["gtft"] / peak["plain"], 3),
        }
    if not given.no_overhead:
        result["overhead"] = round(time_overhead(), 4)
    for name in best:
        print(f"{name:<24} {best[name]:8.1f} supervised tokens/s   peak {peak[name] / 1e6:6.0f} MB")
    print(json.dumps(result) if given.json else result)


if __name__ == "__main__":
    main()
