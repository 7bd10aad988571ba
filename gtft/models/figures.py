"""Everything a card may say, gathered from the store and from nowhere else."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from gtft.artifact import hash_json, short_id
from gtft.errors import EvidenceError
from gtft.models.adapter_figures import AdapterFigures, read_adapter
from gtft.models.corpus_figures import CorpusFigures, read_corpus
from gtft.models.cost import Cost, read_cost
from gtft.models.eval_figures import EvalFigures, read_eval
from gtft.models.people import People, read_people
from gtft.recipe.schema import Recipe
from gtft.records.ancestry import list_ancestors
from gtft.records.rows import ArtifactRow, Run
from gtft.records.store import Store

# stage → the kind of artifact that a card is made from
SOURCES = {"harvest": "corpus", "train": "adapter", "eval": "eval"}


@dataclass(frozen=True)
class CardFigures:
    """The figures of one run. The same store content gives the same figures, and so the same card."""

    model: str
    role: str
    run_id: str
    recipe_name: str
    recipe_hash: str
    recipe: Recipe
    # ``--set`` and overlay files that changed the formula, as the run stores them.
    changes: tuple[str, ...]
    people: People
    cost: Cost
    corpus: CorpusFigures
    adapter: AdapterFigures
    eval: EvalFigures

    @property
    def artifact_ids(self) -> dict[str, str]:
        """kind → id of what the card is made from; these are the parents of the card."""
        return {"corpus": self.corpus.id, "adapter": self.adapter.id, "eval": self.eval.id}


def name_model(role: str, adapter_id: str) -> str:
    """The name under which the runner registers the model of an adapter."""
    return f"{role}-{short_id(adapter_id)}"


def gather_figures(store: Store, run_id: str) -> CardFigures:
    """Raises EvidenceError that names the first figure, artifact or move that the store does not have."""
    run = store.find_run(run_id)
    if run is None or run.id != run_id:
        raise EvidenceError(f"the store has no run {run_id}", fix="gtft runs list")
    recipe = _read_recipe(run)
    rows = {stage: find_recorded(store, run.id, stage) for stage in SOURCES}
    _check_lineage(store, rows)
    people = read_people(store, run)
    if people.review.self_approved and not recipe.review.self_approval:
        _refuse_own_approval(store, run, people)
    adapter = read_adapter(rows["train"], nano=recipe.base.model == "nano")
    measured = read_eval(rows["eval"])
    _check_candidates(adapter, measured)
    return CardFigures(
        model=name_model(run.role, adapter.id),
        role=run.role,
        run_id=run.id,
        recipe_name=run.recipe_name,
        recipe_hash=run.recipe_hash,
        recipe=recipe,
        changes=_list_changes(run),
        people=people,
        cost=read_cost(store, run),
        corpus=read_corpus(rows["harvest"]),
        adapter=adapter,
        eval=measured,
    )


def find_recorded(store: Store, run_id: str, stage: str) -> ArtifactRow:
    """The artifact that the store recorded for a stage. Raises EvidenceError when there is none."""
    artifact_id = store.find_stage(run_id, stage).artifact_id
    row = store.find_artifact(artifact_id) if artifact_id else None
    if row is None or row.kind != SOURCES[stage]:
        raise EvidenceError(
            f"the card cannot be written: the store has no {SOURCES[stage]} for {stage} of {run_id}",
            why="a card is made from a recorded corpus, adapter and eval",
            fix=f"gtft runs show {run_id}",
        )
    return row


def _read_recipe(run: Run) -> Recipe:
    try:
        stored = run.recipe["recipe"]
        if hash_json(stored) != run.recipe_hash:
            raise EvidenceError(
                f"the recipe stored with {run.id} is not the one that it names",
                why=f"it names {short_id(run.recipe_hash)}, the content gives {short_id(hash_json(stored))}",
                fix="gtft doctor",
            )
        return Recipe.model_validate_json(json.dumps(stored))
    except (KeyError, ValidationError) as e:
        raise EvidenceError(
            f"the recipe stored with {run.id} cannot be read", why=str(e), fix="gtft doctor"
        ) from e


def _check_lineage(store: Store, rows: dict[str, ArtifactRow]) -> None:
    corpus, adapter, measured = rows["harvest"], rows["train"], rows["eval"]
    of_adapter = {corpus.id} | list_ancestors(adapter)
    for child, wanted in ((adapter, of_adapter), (measured, {corpus.id, adapter.id})):
        recorded = set(store.list_parents(child.id))
        if recorded != wanted:
            raise EvidenceError(
                f"the {child.kind} {short_id(child.id)} was not made from this run's artifacts",
                why=f"the store has {sorted(map(short_id, recorded))} as its parents, "
                f"the run has {sorted(map(short_id, wanted))}",
                fix="gtft doctor",
            )


def _check_candidates(adapter: AdapterFigures, measured: EvalFigures) -> None:
    pairs = (
        ("adapter", adapter.id, measured.adapter_id),
        ("base", adapter.base.id, measured.base_id),
    )
    for what, trained, scored in pairs:
        if trained != scored:
            raise EvidenceError(
                f"the eval {short_id(measured.id)} measured another {what} than was trained",
                why=f"trained: {short_id(trained)}, measured: {short_id(scored)}",
                fix="gtft doctor",
            )


def _refuse_own_approval(store: Store, run: Run, people: People) -> None:
    """The runner refuses this move; a store that shows it anyway is not one to write a card from."""
    if people.review.reviewer == store.find_stage(run.id, "eval").worker:
        raise EvidenceError(
            f"the card cannot be written: {people.review.reviewer} approved their own eval",
            why="the recipe does not set review.self_approval",
            fix=f"gtft runs show {run.id}",
        )


def _list_changes(run: Run) -> tuple[str, ...]:
    sets = [f"--set {s}" for s in run.recipe.get("sets", [])]
    overlays = [
        f"overlay {o.get('file', o) if isinstance(o, dict) else o}"
        for o in run.recipe.get("overlays", [])
    ]
    return (*overlays, *sets)
