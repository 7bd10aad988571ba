"""report.json and summary.json of an evaluation: figures only, no clock and no path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gtft.artifact import Artifact
from gtft.evals.generate import Generation
from gtft.evals.item import Item
from gtft.evals.load import BaseRecord
from gtft.evals.overlap import Overlap
from gtft.evals.score import HELDOUT, Gate, count_failures, outcomes, tell_suites
from gtft.evals.verdict import judge, write_headline
from gtft.recipe.schema import Recipe

_MOST_NAMED = 50


def make_report(
    items: Sequence[Item],
    generations: Sequence[Generation],
    gates: Sequence[Gate],
    overlap: Overlap,
    dropped: Mapping[str, int],
    base: BaseRecord,
    adapter: Artifact,
    recipe: Recipe,
) -> dict[str, Any]:
    """Everything that the verdict, the store and the card say, as one JSON document.

    ``overlap`` counts scored items that training holds; they are removed before, so it must be 0.
    """
    suites = tell_suites(items, outcomes(generations))
    scored = {i.id for i in items}
    shares = {k: v for k, v in overlap.similarity.items() if k in scored}
    return {
        "outcome": judge(suites.get(HELDOUT)),
        "verdict": write_headline(suites, gates),
        "suites": suites,
        "gates": [asdict(g) for g in gates],
        "gates_met": all(g.met for g in gates),
        "overlap": len(scored & {r.item for r in overlap.removed}),
        "overlap_figures": overlap.figures(scored) | {"items_compared": len(overlap.similarity)},
        "removed": [asdict(r) for r in overlap.removed[:_MOST_NAMED]],
        "closest": dict(sorted(shares.items(), key=lambda kv: (-kv[1], kv[0]))[:5]),
        "dropped": dict(dropped),
        "failures": count_failures(generations),
        "cut_off": sum(g.finish == "length" for g in generations if g.candidate == "tuned"),
        "tokens": dict(sorted(_sum_tokens(generations).items())),
        "candidates": {
            "base": {"name": base.name, "id": base.id, "quantization": base.quantization},
            "tuned": {"name": f"{base.name} + adapter", "adapter": adapter.id},
        },
        "max_new_tokens": recipe.eval.max_new_tokens,
        "decoding": "greedy",
        "role": recipe.role,
    }


def make_summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the report that goes into the store."""
    left_out = {"removed", "closest"}
    return {k: v for k, v in report.items() if k not in left_out}


def _sum_tokens(generations: Sequence[Generation]) -> Counter[str]:
    out: Counter[str] = Counter()
    for g in generations:
        out[g.candidate] += g.tokens
    return out
