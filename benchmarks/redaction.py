"""What redaction finds of planted secrets, what it takes from real text by mistake, and how fast it is.

python benchmarks/redaction.py [--docs 6000] [--seed 1] [--held-out] [--json] [--real DIR] [--misses N] [--hits N]

cover: share of documents of which at least 95 % of the secret's characters lie inside replaced spans.
bare: the value stands without context; ``bare+`` is the same after the values (12 characters and more) that
were found with context in another document were swept for. Real text is never printed, values are masked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planted import FORMS, Document, make_carriers, plant, plant_again

from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.sweeper import Sweeper

ENOUGH = 0.95
LEAST_SWEPT = 12
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
KEY = bytes(range(32))


def read_texts(folder: Path) -> Iterator[str]:
    """Every string of the JSON lines below a folder, each once; other files whole."""
    seen: set[bytes] = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        raw = path.read_text("utf-8", "replace")
        for text in _strings_of(raw, path.suffix):
            mark = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
            if len(text) >= 6 and mark not in seen:
                seen.add(mark)
                yield text.encode("utf-8", "replace").decode()


def _strings_of(raw: str, suffix: str) -> Iterator[str]:
    if suffix not in (".jsonl", ".json"):
        yield raw
        return
    for part in [raw] if suffix == ".json" else raw.splitlines():
        try:
            yield from _walk(json.loads(part))
        except (ValueError, RecursionError):
            yield part


def _walk(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            yield top
        elif isinstance(top, dict):
            stack += top.values()
        elif isinstance(top, list):
            stack += top


def cover(doc: Document, redactor: Redactor) -> float:
    """Share of the secret's characters inside what would be replaced."""
    inside = 0
    spans = [(f.start, f.end) for f in redactor.find(doc.text) if not f.personal]
    for at in doc.secret:
        inside += any(start <= at < end for start, end in spans)
    return inside / len(doc.secret)


def _rates(rows: list[tuple[str, bool]]) -> dict[str, float]:
    good: dict[str, list[bool]] = defaultdict(list)
    for name, hit in rows:
        good[name].append(hit)
    return {name: round(sum(hits) / len(hits), 4) for name, hits in sorted(good.items())}


def measure_planted(args: argparse.Namespace, carriers: list[str]) -> dict[str, Any]:
    redactor = Redactor(KEY)
    docs = list(plant(args.seed, args.docs, carriers, held_out=args.held_out))
    by_form, by_kind, missed = [], [], []
    swept: list[Document] = []
    for doc in docs:
        hit = cover(doc, redactor) >= ENOUGH
        by_form.append((doc.form, hit))
        if doc.form != "bare":
            by_kind.append((doc.kind, hit))
            if not hit:
                missed.append(doc)
        elif len(doc.value) >= LEAST_SWEPT:
            swept.append(doc)
    # The same values once more, with context: what redaction learns there it must find bare.
    rng = random.Random(args.seed)
    for doc in swept:
        redactor.redact(plant_again(doc, carriers, rng).text)
    sweeper = Sweeper(redactor.values)
    plus = [(doc.form, doc.value not in sweeper.sweep(redactor.redact(doc.text))) for doc in swept]
    by_context = Counter((d.context, d.form) for d in missed)
    return {
        "documents": len(docs),
        "by_form": _rates(by_form),
        "bare_swept": _rates(plus).get("bare", 0.0),
        "by_kind": _rates(by_kind),
        "missed": [
            {"kind": d.kind, "form": d.form, "context": d.context} for d in missed[: args.misses]
        ],
        "missed_contexts": [[c, f, n] for (c, f), n in by_context.most_common(args.misses)],
    }


def measure_real(folder: Path, hits_shown: int) -> dict[str, Any]:
    redactor = Redactor(KEY)
    texts = list(read_texts(folder))
    size = sum(len(t.encode()) for t in texts)
    redactor.find("warm up")
    begin = time.process_time()
    found = [redactor.find(text) for text in texts]
    seconds = time.process_time() - begin
    removed: Counter[str] = Counter()
    hits: Counter[tuple[str, str, str]] = Counter()
    personal = 0
    for text, findings in zip(texts, found, strict=True):
        for f in findings:
            if f.personal:
                personal += 1
                continue
            removed[f.kind] += f.end - f.start
            before = text[max(0, f.start - 50) : f.start].replace("\n", "\\n")
            hits[f.kind, before, _mask(text[f.start : f.end])] += 1
    count = sum(hits.values())
    return {
        "megabytes": round(size / 1e6, 2),
        "mb_per_second": round(size / 1e6 / seconds, 1),
        "hits": count,
        "hits_per_mb": round(count / size * 1e6, 3),
        "share_removed": round(sum(removed.values()) / max(1, sum(map(len, texts))), 6),
        "by_kind": dict(Counter(kind for (kind, _, _), n in hits.items() for _ in range(n))),
        "personal": personal,
        "for_review": [[*key, n] for key, n in hits.most_common(hits_shown)],
    }


def _mask(value: str) -> str:
    """Enough to judge by, not the value."""
    shape = "".join(
        "9" if c.isdigit() else "a" if c.islower() else "A" if c.isupper() else c
        for c in value[4:40]
    )
    return f"{value[:4]}{shape} ({len(value)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true", help="other contexts and kinds")
    parser.add_argument("--real", type=Path, default=REAL, help="real text; default ../shared/data")
    parser.add_argument("--misses", type=int, default=0)
    parser.add_argument("--hits", type=int, default=0)
    parser.add_argument("--json", action="store_true", dest="as_json")
    args = parser.parse_args()
    carriers = make_carriers(random.Random(args.seed))
    if args.real.is_dir():
        pool = [t for t in read_texts(args.real / "transcripts") if 300 <= len(t) <= 1500]
        carriers = random.Random(args.seed).sample(pool, min(400, len(pool))) or carriers
    figures = {"planted": measure_planted(args, carriers)} if args.docs else {}
    if args.real.is_dir():
        figures["real"] = measure_real(args.real, args.hits)
    if args.as_json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    if args.docs:
        _show_planted(figures["planted"])
    if "real" in figures:
        _show_real(figures["real"])


def _show_planted(planted: dict[str, Any]) -> None:
    forms = planted["by_form"]
    print(f"{planted['documents']} documents; cover by form")
    print("  ".join(f"{name} {forms.get(name, 0):.3f}" for name in FORMS))
    print(f"bare+ {planted['bare_swept']:.3f}")
    print("cover by kind (all forms with context)")
    for kind, rate in planted["by_kind"].items():
        print(f"  {kind:<24} {rate:.3f}")
    for context, form, n in planted["missed_contexts"]:
        print(f"  missed {n:3} {form:<8} {context!r}")


def _show_real(real: dict[str, Any]) -> None:
    print(
        f"real text: {real['megabytes']} MB, {real['mb_per_second']} MB/s; {real['hits']} hits "
        f"({real['hits_per_mb']}/MB), {real['share_removed']:.4%} of characters; {real['personal']} personal"
    )
    for kind, n in sorted(real["by_kind"].items(), key=lambda item: -item[1]):
        print(f"  {kind:<24} {n}")
    for kind, before, masked, n in real["for_review"]:
        print(f"  {n:3} {kind:<20} {before} [{masked}]")


if __name__ == "__main__":
    main()
