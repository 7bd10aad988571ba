"""How fast a harvest is, beside the least that any harvest must do: ratios from one run, alternating, best of 3.

python benchmarks/harvest.py FOLDER [--json] [--grow MB | --no-grow] [--rounds 3] [--no-reader]

The floor reads every file in large blocks, parses it typed (msgspec, only the fields with text) and gathers all
texts of messages, calls and results, in one plain loop; nothing is kept. x_floor_by_line compares with
the same loop over lines, as one would write it at first.

The harvest is the whole way to a corpus on disk: claims, redaction by rule, segments, dedup, split, leak check,
health, last scan. detect-secrets is left out of it, and timed by itself over the folder as it is
(detect_secrets_s). Each is measured in a process of its own, with its files in the page cache. What it takes to
import the parts and to compile the rules is not in the figures but stands as start_s (what a second process
compiles for itself is in second_core_x).

A folder smaller than --grow (200 MB; use 1000 for the memory figure) is grown by copies in a temporary folder.
Each copy has ids of its own, and one word in two is another word, so that neither the caches of blocks nor the
dedup make it easy. x_floor_cpu compares processor time, which other work on the machine disturbs less.
peak_mb is the sum of resident memory over the processes of a harvest, sampled.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

MB = 1_000_000
BLOCK = 256 * 1024
SUFFIXES = (".jsonl", ".json")
_SAMPLE_S = 0.02


class Part(msgspec.Struct, gc=False):
    text: str | None = None


class Block(msgspec.Struct, gc=False):
    text: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[Part] | None = None


class Message(msgspec.Struct, gc=False):
    content: str | list[Block] | None = None


class Record(msgspec.Struct, gc=False):
    type: str | None = None
    message: Message | None = None
    content: str | list[Part] | None = None


def list_transcripts(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))


def read_floor(files: list[Path], *, by_line: bool = False) -> int:
    """The texts of all files; their number of characters."""
    decoder = msgspec.json.Decoder(Record)
    size = 0
    for path in files:
        texts: list[str] = []
        if by_line:
            with path.open("rb") as f:
                for line in f:
                    with contextlib.suppress(ValueError, RecursionError):
                        _gather([decoder.decode(line)], texts)
            size += sum(map(len, texts))
            continue
        for block in _read_blocks(path):
            try:
                records = decoder.decode_lines(block)
            except (ValueError, RecursionError):
                records = list(_decode_each(block, decoder))
            _gather(records, texts)
        size += sum(map(len, texts))
    return size


def _read_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as f:
        held = b""
        while piece := f.read(BLOCK):
            end = piece.rfind(b"\n") + 1
            if end:
                yield held + piece[:end]
                held = piece[end:]
            else:
                held += piece
        if held:
            yield held


def _decode_each(block: bytes, decoder: msgspec.json.Decoder[Record]) -> Iterator[Record]:
    for line in block.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            yield decoder.decode(line)


def _gather(records: list[Record], texts: list[str]) -> None:
    for r in records:
        said = r.content if r.message is None else r.message.content
        if said is None:
            continue
        if isinstance(said, str):
            texts.append(said)
            continue
        for b in said:
            if b.text is not None:
                texts.append(b.text)
            elif type(b) is Block:
                if b.input is not None:
                    texts += [v for v in b.input.values() if type(v) is str]
                elif type(b.content) is str:
                    texts.append(b.content)
                elif b.content:
                    texts += [p.text for p in b.content if p.text is not None]


_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID = rb"(?:msg|toolu|req|call)_[A-Za-z0-9]{8,40}"
_WORD = rb"(?:(?<=[ /.(=])|(?<=\\\\n)|(?<=\\\\t))[A-Za-z][a-z]{2,11}(?![A-Za-z_\"-])"
_CHANGED = re.compile(rb"%s|%s|%s" % (_UUID, _ID, _WORD))


class _Changes(dict[bytes, bytes]):
    """What stands in one copy for an id or a word of the original, of the same length."""

    def __init__(self, copy: int) -> None:
        super().__init__()
        self._seed = copy.to_bytes(8, "big")

    def __missing__(self, old: bytes) -> bytes:
        digest = hashlib.blake2b(old, key=self._seed).hexdigest().encode()
        if old[8:9] == b"-":
            new = b"-".join([digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]])
        elif b"_" in old:
            head, _, tail = old.partition(b"_")
            new = head + b"_" + digest[: len(tail)]
        elif digest[0] in b"01234567":
            new = bytes(97 + (c + digest[1]) % 26 for c in old)
        else:
            new = old
        self[old] = new
        return new

    def swap(self, found: re.Match[bytes]) -> bytes:
        return self[found[0]]


def grow(files: list[Path], folder: Path, wanted: int) -> None:
    """Copies of ``files`` into ``folder`` until it holds ``wanted`` bytes, the originals first."""
    size = copy = 0
    while size < wanted:
        changes = _Changes(copy)
        for number, path in enumerate(files):
            if size >= wanted:
                return
            with (
                path.open("rb") as f,
                (folder / f"{copy:04}-{number:04}-{path.name}").open("wb") as out,
            ):
                for line in f:
                    out.write(_CHANGED.sub(changes.swap, line) if copy else line)
                size += out.tell()
        copy += 1


def work(mode: str, folder: Path, scratch: Path, workers: int) -> dict[str, Any]:
    """One measured thing, in a process of its own: ``floor``, ``lines`` (the floor line by line), ``harvest``
    or ``reader``."""
    files = list_transcripts(folder)
    for path in files:
        # The disk is not what is measured.
        with path.open("rb", buffering=0) as f:
            while f.read(1 << 20):
                pass
    begin = time.perf_counter()
    if mode in ("floor", "lines"):
        start, cpu = time.perf_counter(), time.process_time()
        read_floor(files, by_line=mode == "lines")
        return {
            "seconds": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
            "start_s": start - begin,
        }
    run = _prepare_harvest(folder, scratch, workers, reader=mode == "reader")
    start, cpu = time.perf_counter(), time.process_time()
    timings = run()
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    compiled = timings["compile"]
    return {
        "seconds": seconds - compiled,
        "cpu_s": cpu_s - timings.pop("compile cpu"),
        "start_s": start - begin + compiled,
        "timings": {k: round(v, 3) for k, v in timings.items()},
    }


def _prepare_harvest(
    folder: Path, scratch: Path, workers: int, *, reader: bool
) -> Callable[[], dict[str, float]]:
    from gtft.corpus.cleaning import Cleaner
    from gtft.corpus.harvest import Timings
    from gtft.corpus.intake import Source
    from gtft.corpus.redaction import engine
    from gtft.corpus.redaction.second_reader import SecondReader
    from gtft.corpus.settings import Settings
    from gtft.corpus.snapshot import make_corpus
    from gtft.recipe.schema import Harvest

    if not reader:
        # The one thing that is changed: detect-secrets finds nothing, at once.
        SecondReader.suspects = lambda self, text: []  # type: ignore[method-assign]
        Cleaner.read_again = (  # type: ignore[method-assign]
            lambda self, drafts, prose, *rest: (list(drafts), list(prose))
        )
    defaults = Harvest()
    settings = Settings(
        sources=(Source("auto", str(folder)),),
        min_examples=1,
        heldout=defaults.heldout,
        window_tokens=defaults.window_tokens,
        tool_result_chars=defaults.tool_result_chars,
        near_duplicate=defaults.near_duplicate,
        seed=1,
        role="polecat",
        key=b"k" * 32,
        workers=workers,
    )
    timings = Timings()
    # What is compiled in this process is timed apart; children of a harvest compile for themselves.
    engine.make_gate = _time(engine.make_gate, timings)
    SecondReader.__post_init__ = _time(SecondReader.__post_init__, timings)  # type: ignore[method-assign]
    timings.seconds.update({"compile": 0.0, "compile cpu": 0.0})

    def run() -> dict[str, float]:
        artifacts = scratch / "artifacts"
        artifacts.mkdir(parents=True, exist_ok=True)
        make_corpus(
            settings,
            folder,
            artifacts,
            scratch / "work",
            [],
            _say_nothing,
            scratch / "cache",
            timings,
        )
        return dict(timings.seconds)

    return run


def _time(make: Callable[..., Any], timings: Any) -> Callable[..., Any]:
    def timed(*args: Any) -> Any:
        cpu = time.process_time()
        with timings.phase("compile"):
            made = make(*args)
        timings.seconds["compile cpu"] += time.process_time() - cpu
        return made

    return timed


def _say_nothing(done: int, total: int | None, unit: str, note: str) -> None:
    pass


def measure(mode: str, folder: Path, scratch: Path, workers: int = 1) -> dict[str, Any]:
    """`work` in a child process, with the peak of its memory (``peak_mb``). Raises when it fails."""
    argv = [sys.executable, __file__, str(folder), "--child", mode, "--scratch", str(scratch)]
    with subprocess.Popen(
        [*argv, "--workers", str(workers)], stdout=subprocess.PIPE, text=True
    ) as child:
        peak = 0.0
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(_SAMPLE_S):
                peak = max(peak, sum_memory(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        out = child.communicate()[0]
        done.set()
        watcher.join()
    if child.returncode:
        raise SystemExit(f"{mode} over {folder} ended with {child.returncode}")
    return {**json.loads(out.splitlines()[-1]), "peak_mb": peak}


def sum_memory(pid: int) -> float:
    """Resident memory of a process and all below it, in MB; 0 where the system has no /proc."""
    total = 0
    waiting = [pid]
    while waiting:
        one = Path("/proc") / str(waiting.pop())
        try:
            waiting += map(int, (one / "task" / one.name / "children").read_text().split())
            for line in (one / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        except (OSError, ValueError):
            continue
    return total * 1024 / MB


def compare(
    folder: Path, original: Path, scratch: Path, rounds: int, reader: bool
) -> dict[str, Any]:
    """Every figure of the report."""
    runs: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("floor", "lines", "one", "two", "again")
    }
    for _ in range(rounds):
        for name in ("floor", "lines"):
            runs[name].append(measure(name, folder, scratch))
        for name, workers in (("one", 1), ("two", 2)):
            shutil.rmtree(scratch, ignore_errors=True)
            runs[name].append(measure("harvest", folder, scratch, workers))
        runs["again"].append(measure("harvest", folder, scratch, 2))
    shutil.rmtree(scratch, ignore_errors=True)
    best = {name: min(r["seconds"] for r in rs) for name, rs in runs.items()}
    cpu = {name: min(r["cpu_s"] for r in runs[name]) for name in ("floor", "one")}
    files = list_transcripts(folder)
    size = sum(p.stat().st_size for p in files)
    report = {
        "x_floor": round(best["one"] / best["floor"], 2),
        "mb_s_per_core": round(size / MB / best["one"], 1),
        "peak_mb": round(max(r["peak_mb"] for r in runs["one"] + runs["two"])),
        "second_core_x": round(best["one"] / best["two"], 2),
        "incremental_x": round(best["two"] / best["again"], 1),
        "x_floor_cpu": round(cpu["one"] / cpu["floor"], 2),
        "x_floor_by_line": round(best["one"] / best["lines"], 2),
        "floor_mb_s": round(size / MB / best["floor"]),
        "peak_mb_one_process": round(max(r["peak_mb"] for r in runs["one"])),
        "seconds": {name: round(s, 3) for name, s in best.items()},
        "start_s": round(min(r["start_s"] for r in runs["one"]), 2),
        "timings": min(runs["one"], key=lambda r: r["seconds"])["timings"],
        "timings_two": min(runs["two"], key=lambda r: r["seconds"])["timings"],
        "timings_again": min(runs["again"], key=lambda r: r["seconds"])["timings"],
        "bytes": size,
        "files": len(files),
        "rounds": rounds,
    }
    if reader:
        read = measure("reader", original, scratch, 2)
        report["detect_secrets_s"] = read["timings"].get("second reader", 0.0)
        report["detect_secrets_mb"] = round(
            sum(p.stat().st_size for p in list_transcripts(original)) / MB, 1
        )
        report["peak_mb_with_reader"] = round(read["peak_mb"])
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--grow", type=int, default=200, metavar="MB")
    parser.add_argument("--no-grow", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-reader", action="store_true", help="do not time detect-secrets")
    parser.add_argument(
        "--child", choices=["floor", "lines", "harvest", "reader"], help=argparse.SUPPRESS
    )
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.child:
        print(json.dumps(work(args.child, folder, args.scratch, args.workers)))
        return
    files = list_transcripts(folder)
    if not files:
        raise SystemExit(f"{args.folder} holds no *.jsonl or *.json file")
    with tempfile.TemporaryDirectory() as tmp:
        measured = folder
        if not args.no_grow and sum(p.stat().st_size for p in files) < args.grow * MB:
            measured = Path(tmp) / "grown"
            measured.mkdir()
            grow(files, measured, args.grow * MB)
        report = compare(measured, folder, Path(tmp) / "scratch", args.rounds, not args.no_reader)
    if not args.as_json:
        for name, value in report.items():
            print(f"{name:<20} {value}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
