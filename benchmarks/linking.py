"""How well sessions are linked, on made towns of 200 sessions whose truth is known (tests/linked_town.py).

python benchmarks/linking.py [--seeds 20] [--sessions 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from linked_town import FIELDS, Score, count_kinds, make_linked_town, measure

# Not the seeds that the rules were made with.
FIRST_SEED = 101


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="towns, each made from another seed")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--json", action="store_true", dest="as_json")
    args = parser.parse_args()
    fields = {name: Score() for name in FIELDS}
    rungs: dict[str, Score] = {}
    bead_rungs: dict[str, Score] = {}
    unlinked: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            town = make_linked_town(Path(folder), seed, args.sessions)
            result = measure(town)
        kinds += count_kinds(town)
        unlinked += result.tally.tables.get("unlinked", Counter())
        for into, found in (
            (fields, result.fields),
            (rungs, result.rungs),
            (bead_rungs, result.bead_rungs),
        ):
            for name, score in found.items():
                into.setdefault(name, Score()).add(score)
    if not args.as_json:
        print(f"{sum(kinds.values())} sessions in {args.seeds} towns\n")
        print(f"{'field':<22}{'linked':>8}{'right':>8}{'to find':>9}{'precision':>11}{'recall':>9}")
        for name, s in fields.items():
            print(
                f"{name:<22}{s.given:>8}{s.right:>8}{s.known:>9}{s.precision:>11.3f}{s.recall:>9.3f}"
            )
        for title, table in (("actor, by rung", rungs), ("bead, by rung", bead_rungs)):
            print(f"\n{title:<22}{'linked':>8}{'right':>8}{'':>9}{'precision':>11}")
            for name, s in sorted(table.items(), key=lambda x: (-x[1].given, x[0])):
                if s.given:
                    print(f"{name:<22}{s.given:>8}{s.right:>8}{'':>9}{s.precision:>11.3f}")
        print("\nnot linked")
        for reason, n in unlinked.most_common():
            print(f"  {n:>4}  {reason}")
        print()
    print(
        json.dumps(
            {f"{name}_precision": round(s.precision, 4) for name, s in fields.items()}
            | {f"{name}_recall": round(s.recall, 4) for name, s in fields.items()}
        )
    )


if __name__ == "__main__":
    main()
