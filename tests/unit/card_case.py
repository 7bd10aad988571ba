"""A store that holds one whole run, filled by hand, for the tests of cards and models."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_json, short_id, stage_artifact, write_file, write_json
from gtft.contract import STAGES, InputArtifact, Job
from gtft.recipe.schema import Recipe
from gtft.records.rows import ArtifactRow, Change, ModelRow, Run, StageRow
from gtft.records.store import Store, open_sqlite

RUN = "run-0301-091200-abcdef"
REVIEWER = "gizmo/witness"
WORKER = "gizmo/polecats/nux"

CORPUS: dict[str, Any] = {
    "train": 240,
    "heldout": 60,
    "clusters": 290,
    "by_source": {"claude-code": 200, "beads": 35, "formulas": 5},
    "by_role": {"witness": 120, "polecat": 80, "unknown": 40},
    "by_rig": {"gizmo": 150, "harbor": 90},
    "provenance": {"agent": 200, "human": 40},
    "dropped": {"exact duplicate": 3, "near-duplicate": 2},
    "leakage": {"shared clusters": 0, "suites": ["a.jsonl"]},
    "redaction": {"secrets": {"github-token": 4}, "personal": {"e-mail": 7}},
}
ADAPTER: dict[str, Any] = {
    "base": {
        "name": "nano-0123456789ab",
        "id": "sha256:" + "cd" * 32,
        "path": "bases/nano-0123456789ab",
        "revision": None,
        "quantization": "nf4",
    },
    "adapter": {"r": 16, "alpha": 32, "trainable": 491520, "files_bytes": 1970000},
    "tokens": {"supervised": 12000, "context": 48000},
    "rows": 238,
    "empty_rows": 2,
    "steps": 40,
    "epochs": 2.0,
    "loss": {
        "first": 3.5,
        "last": 0.75,
        "series": [[n, 3.5 - n * 2.75 / 39] for n in range(40)],
    },
    "hyperparameters": {"learning_rate": 0.002, "lora": {"r": 16, "alpha": 32}, "seed": 7},
}


BASE_ID = ADAPTER["base"]["id"]
# What newer harvests and trainings add.
CONSENT = [
    {"rig": "gizmo", "used": True, "why": "the run's own rig"},
    {"rig": "harbor", "used": True, "why": "a standing consent until 2026-12-31"},
    {"rig": "lantern", "used": False, "why": "outside the recipe's scope"},
]
RETENTION = {
    "base": {"general_loss": 1.0, "validation_loss": 2.5},
    "rows": {"general": 16, "validation": 14},
    "kept_step": 40,
    "measurements": [
        {"step": 0, "validation_loss": 2.5, "general_loss": 1.0, "general_kl": 0.0},
        {"step": 20, "validation_loss": 1.1, "general_loss": 1.2, "general_kl": 0.31},
        {"step": 40, "validation_loss": 0.75, "general_loss": 1.12, "general_kl": 0.23},
    ],
}
PLANNED = "tokens=10 rows=2; machine: 2 cores, 22.9 GiB of memory, no GPU"
TRAINED = "adapter sha256:00; 9 files re-hashed; 40 steps, 823.9 MiB of memory at most"


def compare(n: int, base: int, tuned: int, p: float) -> dict[str, Any]:
    def rate(passed: int) -> dict[str, float]:
        share = passed / n
        low, high = max(0.0, share - 0.15), min(1.0, share + 0.15)
        return {"passed": passed, "rate": share, "low": low, "high": high}

    gain = (tuned - base) / n
    return {
        "n": n,
        "base": rate(base),
        "tuned": rate(tuned),
        "gain": gain,
        "gain_low": gain - 0.1,
        "gain_high": gain + 0.1,
        "p_value": p,
    }


# ``candidates.tuned.adapter`` is filled in by `Case.fill`, when the adapter has its id.
EVAL: dict[str, Any] = {
    "suites": {
        "heldout": {
            **compare(52, 1, 39, 0.00001),
            "capabilities": {
                "patrol-decision": compare(40, 0, 32, 0.00001),
                "safety": compare(12, 1, 7, 0.06),
            },
        },
        "authored": {
            **compare(24, 1, 3, 0.25),
            "capabilities": {
                "patrol-decision": compare(14, 0, 3, 0.25),
                "formula": compare(10, 1, 0, 1.0),
            },
        },
    },
    "gates": [
        {
            "name": "items",
            "required": 20,
            "measured": 52,
            "met": True,
            "told": "at least 20; there are 52",
        },
        {
            "name": "safety",
            "required": 1.0,
            "measured": 0.5833,
            "met": False,
            "told": "at least 100 % of the safety items; measured 7 of 12",
        },
    ],
    "verdict": "The tuned model is better than its base.",
    "candidates": {"base": {"id": BASE_ID}, "tuned": {"adapter": ""}},
    "overlap": 0,
    "overlap_figures": {
        "items_removed": 1,
        "max_similarity": 0.41,
        "median_similarity": 0.2,
        "items_sharing_a_rare_phrase": 0,
    },
    "dropped": {"no check fits": 3},
    "cut_off": 2,
    "max_new_tokens": 96,
    "decoding": "greedy",
}


def answered(**suites: tuple[int, float]) -> dict[str, Any]:
    """A candidate's rates: suite → (items, share)."""
    return {
        "suites": {
            name: {"n": n, "passed": round(n * p), "rate": p, "low": p - 0.1, "high": p + 0.1}
            for name, (n, p) in suites.items()
        }
    }


# What an eval adds that measured all it could; `EVAL` is a summary as earlier evals wrote it.
FOUND: dict[str, Any] = {
    "candidates": {
        "base": {"id": BASE_ID, **answered(heldout=(52, 0.1), authored=(24, 0.1))},
        "tuned": {"adapter": "", **answered(heldout=(52, 0.75), authored=(24, 0.125))},
        "base+prime": answered(heldout=(52, 0.6), authored=(24, 0.2)),
        "tuned+prime": answered(heldout=(52, 0.8)),
    },
    "advice": {"do": "do not deploy", "why": ["5 of 12 safety items fail"]},
    "prompting": {"candidate": "base+prime", "enough": True, "told": "Prompting alone gets 60 %."},
    "comparisons": [
        {
            "a": "tuned",
            "b": "endpoint:today",
            "suite": "heldout",
            "n": 52,
            "gain": -0.2,
            "p_corrected": 0.01,
        }
    ],
    "memorisation": {"found": True, "measured": True},
    "calibration": {
        "tuned": {
            "unanswerable": {"n": 20, "abstained": 7, "rate": 0.35, "low": 0.18, "high": 0.57}
        }
    },
    "fit": {"warnings": [{"code": "forgetting", "told": "it forgets"}]},
    "findings": [
        {
            "title": "Who answered the same items",
            "blocks": [
                {"text": "7 candidates answered."},
                {"columns": ["", "heldout"], "rows": [["base", "2 % (0–10) of 52"], ["tuned", ""]]},
            ],
        }
    ],
}
SUMMARIES = {"harvest": CORPUS, "train": ADAPTER, "eval": EVAL}


@dataclass
class Case:
    """Change ``summaries``, ``recipe`` or the names before `fill`."""

    home: Path
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    role: str = "witness"
    workers: dict[str, str] = field(default_factory=dict)
    reviewer: str = REVIEWER
    review_text: str = "evidence accepted"
    accept: bool = True
    sets: list[str] = field(default_factory=list)
    made: dict[str, Artifact] = field(default_factory=dict)
    # stage → how long it takes; all are done in no time otherwise
    durations: dict[str, float] = field(default_factory=dict)
    # since the run began
    seconds: float = 0.0

    @property
    def store(self) -> Store:
        return Store(open_sqlite(self.home / "gtft.db"), lambda: 1772356320.0 + self.seconds)

    def fill(self) -> Store:
        """Write artifacts of the three stages and the run that recorded them."""
        store = self.store
        store.migrate()
        recipe = Recipe.model_validate_json(json.dumps({"role": self.role, **self.recipe}))
        document = {"recipe": recipe.model_dump(mode="json"), "sets": self.sets, "overlays": []}
        run = Run(
            RUN, "mol-gtft-quickstart", hash_json(document["recipe"]), document, self.role, "ft-1",
            "overseer/al", str(self.home), "run", store.now_us(),
        )  # fmt: skip
        store.add_run(run, tuple(self._stage(n, s, store) for n, s in enumerate(STAGES)))
        for stage in ("harvest", "train", "eval"):
            self._carry_out(store, stage)
        return store

    def job(self) -> Job:
        """The job of the card stage, as the runner would write it."""
        run = self.store.find_run(RUN)
        assert run is not None
        return Job(
            run_id=RUN,
            stage="card",
            bead_id="ft-5",
            actor=WORKER,
            recipe=run.recipe["recipe"],
            recipe_hash=run.recipe_hash,
            inputs=tuple(
                InputArtifact(stage=s, id=a.id, path=a.path)  # type: ignore[arg-type]
                for s, a in self.made.items()
            ),
            workspace=self.home,
            workdir=self.home / "work",
            artifacts=self.home / "artifacts",
            seed=7,
            root=self.home,
            store_url=self.store.url,
        )

    def make_card(self, text: str) -> Artifact:
        """A card artifact without the worker, for tests that are not about its text."""
        parents = tuple(a.id for a in self.made.values())
        with stage_artifact(self.home / "artifacts", "card", parents) as staging:
            write_file(staging.path / "README.md", text.encode())
            name = f"{self.role}-{short_id(self.made['train'].id)}"
            write_json(staging.path / "summary.json", {"model": name})
        return staging.result

    def register(self, card: Artifact) -> ModelRow:
        """What the runner does when the card is accepted."""
        store, adapter = self.store, self.made["train"].id
        summary = json.loads((card.path / "summary.json").read_bytes())
        model = ModelRow(
            adapter, str(summary["model"]), self.role, 0, "approved", RUN,
            self.made["harvest"].id, adapter, self.made["eval"].id, card.id, store.now_us(),
        )  # fmt: skip
        row = store.claim(store.find_stage(RUN, "card"), WORKER, "token-card", 0, "")
        assert row is not None
        self._submit(store, "card", card, summary)
        store.change(
            RUN, "card", Change("review", "done", None, "gtft", ""), model=model, reviewer="gtft"
        )
        return model

    def _carry_out(self, store: Store, stage: str) -> None:
        worker = self.workers.get(stage, WORKER)
        row = store.claim(store.find_stage(RUN, stage), worker, f"token-{stage}", 0, "")
        assert row is not None
        if stage == "train":
            store.add_event(RUN, stage, "planned", worker, PLANNED)
            store.add_event(RUN, stage, "taken-over", worker, "attempt 2")
        self.seconds += self.durations.get(stage, 0.0)
        parents = tuple(a.id for a in self.made.values())
        if stage == "train":
            given = self.summaries.get(stage) or {}
            parents += tuple(given[k] for k in ("continues", "stacks_on") if k in given)
        kind = {"harvest": "corpus", "train": "adapter", "eval": "eval"}[stage]
        summary = copy.deepcopy(self.summaries.get(stage) or SUMMARIES[stage])
        if stage == "eval" and summary.get("candidates", {}).get("tuned", {}).get("adapter") == "":
            summary["candidates"]["tuned"]["adapter"] = self.made["train"].id
        with stage_artifact(self.home / "artifacts", kind, parents) as staging:
            write_json(staging.path / "summary.json", summary)
        self.made[stage] = staging.result
        self._submit(store, stage, staging.result, summary)
        if stage == "eval" and not self.accept:
            return
        reviewer = self.reviewer if stage == "eval" else "gtft"
        text = self.review_text if stage == "eval" else "evidence holds"
        store.change(RUN, stage, Change("review", "done", None, reviewer, text), reviewer=reviewer)

    def _submit(self, store: Store, stage: str, made: Artifact, summary: dict[str, Any]) -> None:
        path = str(made.path.relative_to(self.home))
        row = ArtifactRow(made.id, made.kind, path, summary, store.now_us())
        text = TRAINED if stage == "train" else "submitted"
        change = Change("active", "review", None, self.workers.get(stage, WORKER), text)
        store.change(RUN, stage, change, token=f"token-{stage}", artifact=row, parents=made.parents)

    def _stage(self, position: int, stage: str, store: Store) -> StageRow:
        return StageRow(
            RUN, stage, position, f"ft-{position + 2}", "ready", None, "", None, None, 0, None, None,
            None, None, store.now_us(),
        )  # fmt: skip
