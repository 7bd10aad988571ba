"""``python -m gtft.evals.making``: write the generated suites again."""

from __future__ import annotations

import sys

from gtft.evals.making import write_suites

for capability, count in write_suites().items():
    sys.stdout.write(f"{count:4} {capability}\n")
