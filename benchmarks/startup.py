"""How long `gtft --help` takes, beside an empty Python: ratios of medians from one run, alternating.

python benchmarks/startup.py [--runs 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "gtft --help": [sys.executable, "-m", "gtft.cli.main", "--help"],
    "gtft status --help": [sys.executable, "-m", "gtft.cli.main", "status", "--help"],
    "gtft recipe list": [sys.executable, "-m", "gtft.cli.main", "recipe", "list"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true", dest="as_json")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for n in range(args.runs + 1):
        for name, argv in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            if n:
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    floor = medians["python -c pass"]
    if not args.as_json:
        for name, median in medians.items():
            print(f"{name:<20} {median * 1000:6.0f} ms   {median / floor:4.1f} x an empty Python")
    print(
        json.dumps(
            {
                "help_ms": round(medians["gtft --help"] * 1000),
                "help_x": round(medians["gtft --help"] / floor, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
