"""The YAML head of a card, through huggingface_hub's own ModelCardData."""

from __future__ import annotations

import re
from typing import Any

from gtft.artifact import short_id
from gtft.markdown import plain
from gtft.models.eval_figures import Comparison, Suite
from gtft.models.figures import CardFigures
from gtft.models.limits import title

# https://huggingface.co/docs/hub/repositories-licenses; the Hub refuses a card with any other identifier.
_KNOWN = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 llama3
llama3.1 llama3.2 llama3.3 llama4 gemma unknown other
"""
LICENCES = frozenset(_KNOWN.split())
_SLUG = re.compile(r"[^a-z0-9.+]+")


def write_front_matter(f: CardFigures) -> str:
    """The block between and with its ``---`` lines. No network is used."""
    from huggingface_hub import ModelCardData

    fields: dict[str, Any] = {**_pick_licence(f.recipe.card.licence), **_describe(f)}
    data = ModelCardData(**fields)
    return f"---\n{data.to_yaml()}\n---\n"


def _describe(f: CardFigures) -> dict[str, Any]:
    whole = f.adapter.rank is None
    tags = ["gtft", "gas-town", f"role-{slug(f.role)}", *(() if whole else ("lora",))]
    if f.adapter.base.quantization == "nf4":
        tags.append("qlora")
    described: dict[str, Any] = {
        "language": "en",
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-generation",
        "tags": tags,
        "model_name": plain(f.model, 96),
        "eval_results": _list_results(f),
    }
    if f.adapter.base.hub_id is not None:
        relation = "finetune" if whole else "adapter"
        described |= {"base_model": f.adapter.base.hub_id, "base_model_relation": relation}
    return described


def _pick_licence(given: str) -> dict[str, str]:
    name = given.strip().lower()
    if name in LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": slug(given)}


def _list_results(f: CardFigures) -> list[Any]:
    return [
        _make_result(f, suite, c, config)
        for suite in f.eval.suites
        for config, c in ((None, suite.overall), *((c.name, c) for c in suite.capabilities))
    ]


def _make_result(f: CardFigures, suite: Suite, c: Comparison, config: str | None) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        task_name="Text generation",
        dataset_type=f"gtft-{slug(suite.name)}",
        dataset_name=plain(f"gtft {title(suite)}" + (f": {config}" if config else "")),
        dataset_config=plain(config, 64) if config else None,
        dataset_revision=short_id(f.eval.id),
        metric_type="accuracy",
        metric_name="share of items passed",
        metric_value=round(c.tuned.share, 4),
        metric_args={
            "items": c.n,
            "interval_95": [round(c.tuned.low, 4), round(c.tuned.high, 4)],
            "base": round(c.base.share, 4),
        },
    )


def slug(text: str) -> str:
    """Lower-case letters, digits, dots, plus and minus; what a Hub tag may hold."""
    return _SLUG.sub("-", plain(text, 64).lower()).strip("-.") or "unnamed"
