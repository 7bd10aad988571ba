"""Whether a model still fits its town: its age, and how much of what the town works by has changed since.

The limits are the recipe's ([gtft.deploy] max_age_days and max_drift); what was at the harvest is in the
summary of the model's corpus, what is now comes from `gtft.town.conventions`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from gtft.errors import EvidenceError
from gtft.recipe.schema import Deploy
from gtft.records.deployments import STATUSES, Deployments
from gtft.records.rows import ModelRow, Run
from gtft.records.store import Store
from gtft.town.conventions import COMMANDS

DAY_US = 86_400 * 1_000_000
ACTOR = "gtft/sweep"
_PLURAL = {"formula": "formulas", "directive": "directives"}


@dataclass(frozen=True)
class Drift:
    """``changed``: names of what is new, gone or different since the harvest, such as "formula mol-witness-patrol";
    ``of``: how many names there are in all, then or now. ``told``: in words, by kind."""

    changed: tuple[str, ...]
    of: int
    told: tuple[str, ...]

    @property
    def share(self) -> float:
        return len(self.changed) / self.of if self.of else 0.0


@dataclass(frozen=True)
class Freshness:
    """``reasons``: why it is expired, in words; empty when it is not. ``drift``: None when it cannot be known, and
    ``unknown`` says why."""

    expired: bool
    reasons: tuple[str, ...]
    age_days: float
    max_age_days: float
    max_drift: float
    drift: Drift | None
    unknown: str


@dataclass(frozen=True)
class Moved:
    """A model whose status follows its freshness: ``to`` is expired or approved; "" = it serves and stays
    deployed."""

    model: ModelRow
    to: Literal["expired", "approved", ""]
    reasons: tuple[str, ...]


def judge_freshness(
    store: Store, model: ModelRow, *, now_us: int, conventions: Mapping[str, str] | None
) -> Freshness:
    """``conventions``: what the town works by now; None without a town, and then only the age counts.

    Raises EvidenceError when the store has lost the model's run or its recipe cannot be read.
    """
    run = store.find_run(model.run_id)
    if run is None:
        raise EvidenceError(
            f"the store has no run {model.run_id}, which made {model.name}", fix="gtft doctor"
        )
    limits = read_deploy(run)
    corpus = store.find_artifact(model.corpus_id)
    recorded = corpus.summary.get("conventions") if corpus is not None else None
    drift, unknown = None, ""
    if conventions is None:
        unknown = "there is no town"
    elif not isinstance(recorded, dict) or not recorded:
        unknown = "its harvest did not record what the town worked by"
    else:
        drift = measure_drift({str(k): str(v) for k, v in recorded.items()}, conventions)
    age = max(0, now_us - model.created_us) / DAY_US
    reasons: list[str] = []
    if limits.max_age_days and age >= limits.max_age_days:
        reasons.append(f"{age:.0f} days old, and its recipe allows {limits.max_age_days:g}")
    watched = drift is not None and bool(drift.changed) and limits.max_drift < 1
    if drift is not None and watched and drift.share >= limits.max_drift:
        reasons.append(f"{', '.join(drift.told)} changed since")
    return Freshness(
        expired=bool(reasons),
        reasons=tuple(reasons),
        age_days=age,
        max_age_days=limits.max_age_days,
        max_drift=limits.max_drift,
        drift=drift,
        unknown=unknown,
    )


def measure_drift(then: Mapping[str, str], now: Mapping[str, str]) -> Drift:
    """What is new, gone or different. A program is compared only where both times could ask it."""
    names = sorted(
        n for n in {*then, *now} if not n.startswith(COMMANDS) or (n in then and n in now)
    )
    changed = tuple(n for n in names if then.get(n) != now.get(n))
    of, off = Counter(_kind(n) for n in names), Counter(_kind(n) for n in changed)
    told = [f"{off[k]} of {of[k]} {many}" for k, many in _PLURAL.items() if off[k]]
    told += [_tell_program(n, then[n], now[n]) for n in changed if _kind(n) == COMMANDS]
    return Drift(changed, len(names), tuple(told))


def read_deploy(run: Run) -> Deploy:
    """The [gtft.deploy] table that the run stores; its defaults for one made before there was such a table."""
    try:
        return Deploy.model_validate_json(json.dumps(run.recipe["recipe"].get("deploy", {})))
    except (KeyError, AttributeError, ValidationError) as e:
        raise EvidenceError(
            f"the recipe stored with {run.id} cannot be read", why=str(e), fix="gtft doctor"
        ) from e


def expire_models(
    store: Store, *, now_us: int, conventions: Mapping[str, str] | None, dry_run: bool = False
) -> list[Moved]:
    """Give expired models that status, and take it from those that are fresh again; nothing is deleted.

    What serves stays deployed and is only told: who takes a model out of service is a person or its limits.
    """
    rows = Deployments(store)
    serving = {d.model_id for d in rows.list_deployments() if d.state != "ended"}
    moved: list[Moved] = []
    for model in store.list_models():
        if "expired" not in STATUSES[model.status] and model.status != "expired":
            continue
        found = judge_freshness(store, model, now_us=now_us, conventions=conventions)
        if found.expired == (model.status == "expired"):
            continue
        if found.expired and (model.status == "deployed" or model.id in serving):
            moved.append(Moved(model, "", found.reasons))
            continue
        if not found.expired and found.drift is None:
            # It may have expired for a drift that cannot be seen from here.
            continue
        to: Literal["expired", "approved"] = "expired" if found.expired else "approved"
        reasons = found.reasons or ("within its limits again",)
        if not dry_run:
            rows.set_status(model, to, actor=ACTOR, text="; ".join(reasons))
        moved.append(Moved(model, to, reasons))
    return moved


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def _tell_program(name: str, then: str, now: str) -> str:
    program = name.partition(" ")[2]
    before, after = then.partition(" ")[0], now.partition(" ")[0]
    if before == after:
        return f"the commands of {program}"
    return f"{program} ({before}, now {after})"
