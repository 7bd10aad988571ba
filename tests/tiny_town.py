"""A town small enough that a whole run takes seconds: made on the spot, by program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FORMULA = """\
formula = "mol-gtft-tiny"
description = \"\"\"
Run: gtft run {{issue}}
A run of a few seconds, for tests.
\"\"\"
version = 1
type = "workflow"
pour = true

[vars.issue]
description = "The bead that carries this run"
required = true

[gtft]
role = "witness"
scope = ["rig:gizmo"]

[gtft.base]
model = "nano"
nano = { vocab = 512, hidden = 32, layers = 2, heads = 2, context = 256, steps = 4 }

[gtft.harvest]
min_examples = 8
heldout = 0.25

[[gtft.harvest.sources]]
type = "claude-code"
path = "transcripts"

[[gtft.harvest.sources]]
type = "beads"
path = "beads"

[gtft.train]
learning_rate = 1e-2
max_steps = 40
accumulation = 2
max_length = 256
checkpoint_steps = 8
lora = { r = 4, alpha = 8 }

[gtft.eval]
max_items = 6
max_new_tokens = 64
gates = { min_items = 2 }

[[steps]]
id = "harvest"
title = "Harvest"

[[steps]]
id = "train"
title = "Train"
needs = ["harvest"]

[[steps]]
id = "eval"
title = "Evaluate"
needs = ["train"]

[[steps]]
id = "card"
title = "Card"
needs = ["eval"]
"""

NAMES = [
    "amber",
    "birch",
    "cobalt",
    "dune",
    "ember",
    "fjord",
    "garnet",
    "hazel",
    "indigo",
    "jasper",
    "kelp",
    "lotus",
    "maple",
    "nickel",
    "onyx",
    "pebble",
    "quartz",
    "raven",
    "sable",
    "topaz",
    "umber",
    "violet",
    "walnut",
    "xenon",
    "yarrow",
    "zephyr",
    "acorn",
    "basil",
    "clover",
    "dahlia",
    "elm",
    "fern",
]
SIGNS = (
    ("its session answers and the last commit is fresh", "no-op", "it works"),
    ("nothing moved for an hour though the session is up", "nudge", "idle with a live session"),
    ("the session is dead and the branch holds unsaved edits", "escalate", "work may be lost"),
    ("the merge is in and the tree is clean", "cleanup", "nothing is left to keep"),
)


def make_town(root: Path, sessions: int = 32) -> Path:
    """Write transcripts, beads and the tiny formula below ``root``; returns it."""
    transcripts = root / "transcripts"
    transcripts.mkdir(parents=True)
    for n in range(sessions):
        write_session(transcripts / f"s{n:03}.jsonl", n)
    (root / "beads").mkdir()
    rows = [
        {
            "id": f"gz-{n}",
            "title": f"Mend the {NAMES[n]} gauge of the {NAMES[-n - 1]} pump",
            "description": f"The {NAMES[n]} gauge sticks at {n * 7} when the {NAMES[-n - 1]} pump starts. "
            "Find the cause, mend it, and add a check that would have caught it before the release.",
            "status": "closed",
            "priority": n % 4,
            "issue_type": ("bug", "task")[n % 2],
            "close_reason": f"replaced the spring of gauge {n} and added a start-up check",
            "created_at": f"2026-03-{n + 1:02}T08:00:00Z",
        }
        for n in range(12)
    ]
    (root / "beads" / "issues.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (root / "formulas").mkdir()
    (root / "formulas" / "mol-gtft-tiny.formula.toml").write_text(FORMULA)
    return root


def write_session(path: Path, n: int) -> None:
    """One Claude Code session in which the witness of gizmo decides about a polecat."""
    sign, action, why = SIGNS[n % len(SIGNS)]
    first, second, third = (NAMES[(n * k + k) % len(NAMES)] for k in (1, 5, 11))
    session = f"00000000-0000-4000-8000-{n:012}"
    prompt = (
        f"[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-{n % 27 + 1:02}T09:{n:02} • patrol\n"
        f"Polecat {first}, which carries the {second} {third} bead number {n * 37 % 101}: {sign}. "
        "Answer with one JSON object: action and reason."
    )
    answer = json.dumps({"action": action, "reason": f"{first}: {why}"})
    common = {
        "sessionId": session,
        "cwd": "/town/gizmo/witness",
        "version": "2.1.40",
        "isSidechain": False,
        "userType": "external",
    }
    records = [
        {
            **common,
            "type": "user",
            "uuid": f"u-{n}",
            "parentUuid": None,
            "timestamp": "2026-03-01T09:00:00Z",
            "message": {"role": "user", "content": prompt},
        },
        {
            **common,
            "type": "assistant",
            "uuid": f"a-{n}",
            "parentUuid": f"u-{n}",
            "timestamp": "2026-03-01T09:00:05Z",
            "message": {
                "id": f"msg_{n}",
                "role": "assistant",
                "model": "made-up",
                "content": [{"type": "text", "text": answer}],
            },
        },
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def gtft(
    *argv: str, cwd: Path, environ: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run the real command line in ``cwd``."""
    return subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", *argv],
        cwd=cwd,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_gtft(*argv: str, cwd: Path, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the real command line and go on."""
    return subprocess.Popen(
        [sys.executable, "-m", "gtft.cli.main", *argv],
        cwd=cwd,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
