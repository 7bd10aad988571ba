"""The registered models, read from the store. The runner registers one when its card is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from gtft.artifact import short_id
from gtft.errors import EvidenceError, UsageError
from gtft.records.rows import ArtifactRow, ModelRow, Run
from gtft.records.store import Store

# Shorter beginnings of an id than this are taken for a name.
_SHORTEST_ID = 6


@dataclass(frozen=True)
class Lineage:
    """A model and everything it comes from."""

    model: ModelRow
    run: Run
    corpus: ArtifactRow
    adapter: ArtifactRow
    eval: ArtifactRow
    card: ArtifactRow

    @property
    def artifacts(self) -> tuple[ArtifactRow, ...]:
        return (self.corpus, self.adapter, self.eval, self.card)


def list_models(store: Store, role: str | None = None) -> list[ModelRow]:
    """All models, or those of one role; newest first."""
    rows = [m for m in store.list_models() if role is None or m.role == role]
    return sorted(rows, key=lambda m: (-m.created_us, m.name))


def find_model(store: Store, name: str) -> ModelRow:
    """By name, by the beginning of a name or of the adapter's id, or by role (its newest model).

    Raises UsageError when there is none, or more than one begins with ``name``.
    """
    models = list_models(store)
    exact = [m for m in models if name in (m.name, m.id)]
    of_role = [m for m in models if m.role == name]
    begins = [m for m in models if _begins(m, name)]
    if exact or of_role:
        return (exact or of_role)[0]
    if len(begins) > 1:
        raise UsageError(
            f"{name} is the beginning of {len(begins)} models",
            why=", ".join(sorted(m.name for m in begins)),
            fix="write one of these names out",
        )
    if begins:
        return begins[0]
    raise _refuse(name, models)


def trace_lineage(store: Store, model: ModelRow) -> Lineage:
    """The run and the artifacts of a model. Raises EvidenceError that names what the store has not."""
    run = store.find_run(model.run_id)
    if run is None:
        raise EvidenceError(
            f"the store has no run {model.run_id}, which made {model.name}", fix="gtft doctor"
        )
    return Lineage(
        model=model,
        run=run,
        corpus=_find(store, model, "corpus", model.corpus_id),
        adapter=_find(store, model, "adapter", model.adapter_id),
        eval=_find(store, model, "eval", model.eval_id),
        card=_find(store, model, "card", model.card_id),
    )


def _find(store: Store, model: ModelRow, kind: str, artifact_id: str) -> ArtifactRow:
    row = store.find_artifact(artifact_id)
    if row is None or row.kind != kind:
        raise EvidenceError(
            f"the store has no {kind} {short_id(artifact_id)}, which {model.name} is registered with",
            fix="gtft doctor",
        )
    return row


def _begins(model: ModelRow, name: str) -> bool:
    mark = name.removeprefix("sha256:")
    by_id = len(mark) >= _SHORTEST_ID and model.id.removeprefix("sha256:").startswith(mark)
    return by_id or (bool(name) and model.name.startswith(name))


def _refuse(name: str, models: list[ModelRow]) -> UsageError:
    near = get_close_matches(name, [m.name for m in models], n=1)
    if near:
        return UsageError(f"there is no model {name}", fix=f"gtft model show {near[0]}")
    return UsageError(
        f"there is no model {name}",
        why=f"{len(models)} models are registered" if models else "no model is registered yet",
        fix="gtft model list" if models else "gtft status",
    )
