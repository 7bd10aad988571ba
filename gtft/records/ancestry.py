"""What is in a model's weights: the earlier adapters that its training went on from, and every corpus behind them."""

from __future__ import annotations

from gtft.records.rows import ArtifactRow, ModelRow
from gtft.records.store import Store


def list_ancestors(adapter: ArtifactRow) -> set[str]:
    """The adapters that this one goes on from or lies on, as its training recorded them."""
    return {str(adapter.summary.get(k) or "") for k in ("continues", "stacks_on")} - {""}


def list_needed(store: Store, model: ModelRow) -> set[str]:
    """The adapters that a model's training went on from or that it lies on, over any number of steps."""
    needed: set[str] = set()
    front = {model.adapter_id}
    while front:
        found: set[str] = set()
        for adapter_id in front:
            row = store.find_artifact(adapter_id)
            if row is not None:
                found |= list_ancestors(row)
        front = found - needed
        needed |= front
    return needed


def list_corpora(store: Store, model: ModelRow) -> dict[str, str]:
    """Every corpus that the model's weights learnt from → the adapter that was trained on it; its own first."""
    corpora = {model.corpus_id: model.adapter_id}
    for adapter_id in sorted(list_needed(store, model)):
        for parent in store.list_parents(adapter_id):
            row = store.find_artifact(parent)
            if row is not None and row.kind == "corpus":
                corpora.setdefault(parent, adapter_id)
    return corpora
