"""Who answers in an evaluation: the recipe's candidates, and why some of them cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.artifact import Artifact, hash_json, verify_artifact
from gtft.contract import Job
from gtft.errors import EvidenceError, InputError, MissingExtra, UsageError
from gtft.evals.asking.candidate import Candidate, Prompt, Unavailable
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.endpoint import EndpointCandidate
from gtft.evals.asking.load import BaseRecord, Candidates, find_role, read_base
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.asking.passages import read_library
from gtft.evals.asking.prime import put_first, read_prime
from gtft.evals.item import Item
from gtft.models.registry import find_model
from gtft.recipe.schema import Recipe
from gtft.shelf import find_on_shelf
from gtft.workers.card import open_store
from gtft.workers.gathering import find_trained

BASE, TUNED = "base", "tuned"


@dataclass(frozen=True)
class Earlier:
    """An earlier model: how the recipe calls it, its adapter, and the role's adapter below that."""

    name: str
    adapter: Artifact
    role: Artifact | None


@dataclass(frozen=True)
class Panel:
    """``candidates``: base and tuned first. ``not_run``: (candidate, why it cannot answer here)."""

    candidates: tuple[Candidate, ...]
    not_run: tuple[tuple[str, str], ...]

    def write(self, items: Sequence[Item]) -> tuple[dict[str, list[Prompt]], list[tuple[str, str]]]:
        """The prompts of all on the same items; and who cannot read enough of them.

        An item that a candidate would have to shorten is another question: it is left out for that candidate.
        """
        prompts: dict[str, list[Prompt]] = {}
        refused: list[tuple[str, str]] = []
        ids = {i.id for i in items}
        for candidate in self.candidates:
            written, _ = candidate.write(items)
            whole = [p for p in written if p.item.id in ids]
            if 2 * len(whole) < len(items):
                why = (
                    f"with what it reads first, {len(whole)} of {len(items)} items fit the context"
                )
                refused.append((candidate.name, why))
                continue
            if len(whole) < len(items):
                left = f"{len(items) - len(whole)} items do not fit with what it reads first"
                refused.append((f"{candidate.name}: some items", left))
            prompts[candidate.name] = whole
        return prompts, refused


def find_earlier(
    job: Job, recipe: Recipe, base: BaseRecord
) -> tuple[list[Earlier], list[tuple[str, str]]]:
    """The earlier models of ``eval.models`` that lie on the same base, hashed again; and why others cannot answer."""
    found: list[Earlier] = []
    not_run: list[tuple[str, str]] = []
    for given in recipe.eval.models:
        name = f"model:{given}"
        try:
            adapter = _find_adapter(job, given)
            record = read_base(adapter)
            role = find_role(record, job.artifacts)
            find_trained([adapter], job.artifacts)
        except (UsageError, EvidenceError, InputError) as e:
            not_run.append((name, e.what))
            continue
        if record.id == base.id:
            found.append(Earlier(name, adapter, role))
        else:
            not_run.append((name, f"it was trained on another base, {record.name}"))
    return found, not_run


def make_panel(
    job: Job,
    recipe: Recipe,
    loaded: Candidates,
    earlier: Sequence[Earlier],
    environ: Mapping[str, str],
    clock: Callable[[], float],
) -> Panel:
    """Base and tuned, and what of the recipe's others can be asked here. Raises InputError for a file that the recipe
    names and that cannot be read."""
    table = recipe.eval
    limits = Limits(table.max_new_tokens, table.item_seconds)
    not_run: list[tuple[str, str]] = []

    def local(name: str, which: Candidates, **more: Any) -> Candidate:
        return LocalCandidate(
            name, which, limits=limits, clock=clock, temperature=table.temperature, **more
        )

    made = [local(BASE, loaded, as_base=True), local(TUNED, loaded, as_base=False)]
    for name in [c for c in table.candidates if c not in (BASE, TUNED)]:
        side, _, addition = name.partition("+")
        try:
            made.append(
                local(name, loaded, as_base=side == BASE, **_extend(job, recipe, addition, environ))
            )
        except Unavailable as e:
            not_run.append((name, str(e)))
    made += [local(e.name, loaded.beside[e.adapter.id], as_base=False) for e in earlier]
    for endpoint in table.endpoints:
        try:
            made.append(
                EndpointCandidate(
                    endpoint,
                    max_new_tokens=table.max_new_tokens,
                    item_seconds=table.item_seconds,
                    temperature=table.temperature,
                    environ=environ,
                    clock=clock,
                )
            )
        except (InputError, MissingExtra) as e:
            not_run.append((f"endpoint:{endpoint.name}", e.what))
    return Panel(tuple(made), tuple(not_run))


def _extend(job: Job, recipe: Recipe, addition: str, environ: Mapping[str, str]) -> dict[str, Any]:
    table = recipe.eval
    if addition == "prime":
        prime = read_prime(
            table.prime, root=job.root, role=recipe.role, scope=recipe.scope, environ=environ
        )
        return {
            "extend": lambda item: put_first(prime.text, item),
            "extension": hash_json(prime.text),
        }
    library = read_library(table.docs, job.root)
    return {
        "extend": lambda item: library.extend(item, table.passages),
        "extension": hash_json([library.key, table.passages]),
    }


def _find_adapter(job: Job, given: str) -> Artifact:
    """By the start of an adapter's id, or by a model's name in the registry."""
    try:
        found = find_on_shelf(job.artifacts, "adapter", given)
    except UsageError:
        model = find_model(open_store(job.store_url), given)
        found = find_on_shelf(job.artifacts, "adapter", model.adapter_id)
    return verify_artifact(found.path, kind="adapter", expect=found.id)
