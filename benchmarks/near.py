"""Speed, memory and recall of words, sketches, near-duplicates and the overlap check.

python benchmarks/near.py [FOLDER] [--mb 80] [--json]

Texts of about 3,000 characters are grown from the strings of a folder of transcripts (JSONL), or from made
words: most with a fifth of their words changed, some a near copy of an earlier one (1 % of words edited).
Recall: against the planted copies, and against every pair of 3,000 texts compared exactly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gtft.corpus.partition.groups import Groups
from gtft.corpus.partition.near import SHINGLE, find_near, measure_jaccard, sketch
from gtft.corpus.partition.overlap import find_rare
from gtft.corpus.partition.split import Row, choose_held_out
from gtft.corpus.partition.words import Words, digest_masked, hash_many, make_grams

SIZE, THRESHOLD, BATCH, BRUTE = 3000, 0.8, 256, 3000
T = TypeVar("T")


def read_base(folder: Path | None) -> list[bytes]:
    """Texts of SIZE bytes to grow from."""
    if folder is None:
        rng = random.Random(1)
        words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 10))) for _ in range(20_000)]
        said = " ".join(words[int(20_000 * rng.random() ** 3)] for _ in range(1_500_000))
    else:
        said = "\n".join(s for f in sorted(folder.rglob("*.jsonl")) for s in read_strings(f))
    data = said.encode("utf-8", "replace")
    texts = (data[i : i + SIZE] for i in range(0, len(data), SIZE))
    return list(dict.fromkeys(texts))


def read_strings(path: Path) -> Iterator[str]:
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            doc = json.loads(line)
        except ValueError:
            continue
        message = doc.get("message") if isinstance(doc, dict) else None
        blocks = message.get("content") if isinstance(message, dict) else None
        for block in [blocks] if isinstance(blocks, str) else blocks or []:
            text = block if isinstance(block, str) else block.get("text") or block.get("content")
            if isinstance(text, str):
                yield text


def edit(text: bytes, share: float, rng: np.random.Generator) -> bytes:
    """The text with a share of its bytes replaced by letters."""
    data = np.frombuffer(text, np.uint8).copy()
    at = rng.integers(0, len(data), rng.poisson(share * len(data)))
    data[at] = rng.integers(0x61, 0x7B, len(at))
    return data.tobytes()


def grow(base: list[bytes], size: int) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Texts of ``size`` bytes together, and the pairs of which one is an edited copy."""
    rng = np.random.default_rng(2)
    texts = base[: size // SIZE]
    planted = []
    while len(texts) * SIZE < size:
        if len(texts) % 10 == 0:
            i = int(rng.integers(len(texts)))
            planted.append((i, len(texts)))
            texts.append(edit(texts[i], 0.01 / 6, rng))
        else:
            texts.append(edit(base[len(texts) % len(base)], 0.2 / 6, rng))
    return texts, planted


class Clock:
    """CPU seconds of all threads, and MB/s, of each step: other work on the machine counts less."""

    def __init__(self, mb: float, silent: bool) -> None:
        self.mb, self.silent = mb, silent
        self.seconds: dict[str, float] = {}

    def run(self, name: str, step: Callable[[], T]) -> T:
        begin = time.process_time()
        made = step()
        self.seconds[name] = took = time.process_time() - begin
        if not self.silent:
            print(f"{name:<28} {took:7.2f} s {self.mb / took:8.0f} MB/s   peak {read_peak()} MB")
        return made


def read_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def compare_all(words: Words) -> dict[tuple[int, int], float]:
    """Every pair at or above the threshold, exactly."""
    grams = make_grams(words, SHINGLE)
    bounds = grams.offsets.tolist()
    sets = [np.unique(grams.hashes[a:b]) for a, b in pairwise(bounds)]
    index: dict[int, list[int]] = defaultdict(list)
    found = {}
    for j, mine in enumerate(sets):
        shared: Counter[int] = Counter()
        for g in mine.tolist():
            shared.update(index[g])
            index[g].append(j)
        for i, n in shared.items():
            if n >= THRESHOLD * max(len(mine), len(sets[i])):
                score = measure_jaccard(sets[i], mine)
                if score >= THRESHOLD:
                    found[i, j] = score
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--mb", type=int, default=80)
    parser.add_argument("--json", action="store_true", dest="as_json")
    args = parser.parse_args()
    texts, planted = grow(read_base(args.folder), args.mb * 1_000_000)
    clock = Clock(sum(map(len, texts)) / 1e6, args.as_json)
    starts = range(0, len(texts), BATCH)
    before = read_peak()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(texts, planted, clock, Path(folder) / "words", starts)
    figures["texts"] = len(texts)
    figures["peak_above_texts_mb"] = figures["peak_mb"] - before
    for name, took in clock.seconds.items():
        figures[f"{name.replace(' ', '_')}_mb_s"] = round(clock.mb / took, 1)
    if not args.as_json:
        print(f"{len(texts)} texts, {clock.mb:.0f} MB; {before} MB of memory before the first step")
    print(json.dumps(figures))


def measure(
    texts: list[bytes],
    planted: list[tuple[int, int]],
    clock: Clock,
    file: Path,
    starts: range,
) -> dict[str, Any]:
    def write_words() -> list[int]:
        bounds = [0]
        with file.open("wb") as f:
            for a in starts:
                words = hash_many(texts[a : a + BATCH])
                f.write(words.hashes.tobytes())
                bounds += (words.offsets[1:] + bounds[-1]).tolist()
        return bounds

    bounds = clock.run("words", write_words)

    def load(a: int, b: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return np.fromfile(file, np.uint64, bounds[b] - bounds[a], offset=8 * bounds[a])

    def read(a: int, b: int) -> Words:
        """The words of texts a to b - 1, from the file."""
        flat = load(a, b)
        return Words(flat, np.array(bounds[a : b + 1]) - bounds[a], np.zeros(len(flat), np.bool_))

    def pick(places: list[int]) -> Words:
        parts = [load(i, i + 1) for i in places]
        flat = np.concatenate(parts)
        return Words(flat, np.cumsum([0, *map(len, parts)]), np.zeros(len(flat), np.bool_))

    def batches() -> Iterator[tuple[int, Words]]:
        for a in starts:
            yield a, read(a, min(a + BATCH, len(texts)))

    clock.run("masked digests", lambda: [digest_masked(w) for _, w in batches()])
    sketches = clock.run("sketches", lambda: np.concatenate([sketch(w) for _, w in batches()]))

    def grams_of(i: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return make_grams(read(i, i + 1), SHINGLE).hashes

    pairs = clock.run("near-duplicates", lambda: find_near(sketches, grams_of, THRESHOLD))
    again = find_near(
        np.concatenate([sketch(hash_many(texts[a : a + 99])) for a in range(0, len(texts), 99)]),
        grams_of,
        THRESHOLD,
    )
    names = [f"text:{i:06}" for i in range(len(texts))]

    def choose() -> tuple[list[str], frozenset[str]]:
        groups = Groups()
        for i, j, _ in pairs:
            groups.join(names[i], names[j])
        clusters = [groups.find(n) for n in names]
        rows = [Row(c, "made", f"role{i % 7}", None, 1) for i, c in enumerate(clusters)]
        return clusters, choose_held_out(rows, 0.2, 7).held

    clusters, held = clock.run("clusters and split", choose)
    numbers = np.unique(clusters, return_inverse=True)[1]
    is_held = np.array([c in held for c in clusters])
    flat_places = np.flatnonzero(is_held).tolist()
    held_places = [flat_places[i : i + BATCH] for i in range(0, len(flat_places), BATCH)]
    everything = [(numbers[a : a + BATCH], a) for a in starts]
    rare = clock.run(
        "rare phrases",
        lambda: find_rare(
            (pick(places) for places in held_places),
            ((c, read(a, a + len(c))) for c, a in everything),
        ),
    )
    flags = clock.run(
        "leak check", lambda: np.concatenate([rare.shares_many(w) for _, w in batches()])
    )
    peak = read_peak()
    truth = {
        (i, j)
        for i, j in planted
        if measure_jaccard(np.unique(grams_of(i)), np.unique(grams_of(j))) >= THRESHOLD
    }
    found = {(i, j) for i, j, _ in pairs}
    some = sorted({n for pair in planted[: BRUTE // 3] for n in pair} | set(range(BRUTE // 3)))
    place = {n: k for k, n in enumerate(some)}
    exact = compare_all(hash_many([texts[n] for n in some]))
    mine = {(place[i], place[j]) for i, j in found if i in place and j in place}
    return {
        "planted": len(truth),
        "planted_recall": round(len(truth & found) / max(1, len(truth)), 4),
        "exact_pairs": len(exact),
        "exact_recall": round(len(mine & exact.keys()) / max(1, len(exact)), 4),
        "false_pairs": len(mine - exact.keys()),
        "peak_mb": peak,
        "pairs": len(pairs),
        "same_again": again == pairs,
        "pairs_sha256": hashlib.sha256(repr(pairs).encode()).hexdigest()[:16],
        "rare_phrases": len(rare),
        "training_texts_that_share_one": int((flags & ~is_held).sum()),
    }


if __name__ == "__main__":
    main()
