"""Which rows are trained, which are replayed, and which are only measured on.

What is measured on while a training runs decides when it stops and which weights are kept, so it must be
neither trained on nor taken from the eval's held-out side: both would flatter the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError, translate_os_error
from gtft.recipe.schema import Train
from gtft.training.general import PREFIX, General, Mix, make_rows, mix
from gtft.training.material import balance_weights
from gtft.training.render import Row
from gtft.training.watch import Watch

# Fewer clusters than this cannot spare one.
FEWEST_CLUSTERS = 20
# Clusters of planted secrets (`gtft.corpus.canary`): one that is not trained would prove nothing.
_CANARY = "canary:"


@dataclass(frozen=True)
class Division:
    """The rows of a training, each in one place. ``kept_out``: the clusters behind ``validation``.

    ``mixed`` is what is trained: ``own``, the corpus's rows, and the replayed ones among them. ``validation``
    and ``general`` are only measured on.
    """

    own: tuple[Row, ...]
    mixed: Mix
    validation: tuple[Row, ...]
    general: tuple[Row, ...]
    source: General
    kept_out: tuple[str, ...]
    clusters: int

    def as_dict(self) -> dict[str, Any]:
        """What ``mask.json`` tells beside the corpus's own rows; rows are [example, tokens, supervised tokens]."""
        replayed = [r for r in self.mixed.rows if r.example.startswith(PREFIX)]
        return {
            "general": self.source.as_dict(),
            "replay": {**self.mixed.as_dict(), "per_row": _list_rows(replayed)},
            "validation": {
                "clusters": self.clusters,
                "kept_out": list(self.kept_out),
                "per_row": _list_rows(self.validation),
            },
            "measured_general": _list_rows(self.general),
        }


def _list_rows(rows: Sequence[Row]) -> list[list[Any]]:
    return [[r.example, len(r.input_ids), r.supervised] for r in rows]


def divide(
    rows: Sequence[Row],
    train_file: Path,
    source: General,
    tokenizer: Any,
    train: Train,
    watch: Watch,
) -> Division:
    """Keep clusters of ``train_file`` out of ``rows``, and mix the rest with replayed general rows.

    The own rows get their outcome weights, on average 1; replayed rows weigh 1, or less where their tokens would be
    more of the loss than their share. Raises EvidenceError for a
    line that is no example.
    """
    wanted = train.retention
    made = {r.example for r in rows}
    clusters = {e: c for e, c in read_clusters(train_file) if e in made}
    kept = keep_out(clusters.values(), wanted.validation, train.seed, watch)
    chosen = frozenset(kept)
    own = tuple(r for r in rows if clusters.get(r.example) not in chosen)
    validation = tuple(r for r in rows if clusters.get(r.example) in chosen)
    own = (
        balance_weights(own)
        if train.outcome_weights
        else tuple(replace(r, weight=1.0) for r in own)
    )
    replayed = make_rows(source.replayed, tokenizer, train.max_length) if wanted.replay else ()
    mixed = mix(own, replayed, wanted.replay, train.seed)
    mixed = replace(mixed, rows=_weigh_replay(mixed.rows, wanted.replay))
    if mixed.short:
        watch.warn(
            "replay-short",
            f"{mixed.replayed} of the {mixed.wanted} general rows that train.retention.replay = "
            f"{wanted.replay} asks for: {source.source} has no more; name a larger set in train.retention.general",
        )
    general = make_rows(source.measured, tokenizer, train.max_length)
    return Division(own, mixed, validation, general, source, kept, len(set(clusters.values())))


def _weigh_replay(rows: tuple[Row, ...], share: float) -> tuple[Row, ...]:
    """Replayed rows that weigh no more than ``share`` of the loss: a passage trains every token, a chat some."""
    general = sum(r.supervised for r in rows if r.example.startswith(PREFIX))
    own = sum(r.weight * r.supervised for r in rows if not r.example.startswith(PREFIX))
    if not general or general <= own * share / (1 - share):
        return rows
    weight = own * share / (1 - share) / general
    return tuple(replace(r, weight=weight) if r.example.startswith(PREFIX) else r for r in rows)


def read_clusters(train_file: Path) -> Iterable[tuple[str, str]]:
    """(example id, cluster) of every line; an example without a cluster is one by itself."""
    try:
        with train_file.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    yield _read_cluster(line, train_file.name, number)
    except OSError as e:
        raise translate_os_error(e, "reading the training examples") from e


def keep_out(clusters: Iterable[str], share: float, seed: int, watch: Watch) -> tuple[str, ...]:
    """The clusters to measure on: ``share`` of them, at least one, by a hash of seed and name, sorted.

    Whole clusters, because examples of one session or bead tell about each other; never a canary's. None, with a warning, when there are
    fewer than 20.
    """
    names = sorted({c for c in clusters if not c.startswith(_CANARY)})
    if not share:
        return ()
    if len(names) < FEWEST_CLUSTERS:
        watch.warn(
            "validation-none",
            f"no rows are kept out to measure on: the corpus has {len(names)} clusters, {FEWEST_CLUSTERS} are "
            "needed to spare one; the training does not stop early",
        )
        return ()
    names.sort(key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return tuple(sorted(names[: max(1, round(share * len(names)))]))


def pick_measured(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    """At most ``most`` rows, the same ones in any order of ``rows``, in the order given."""
    ranked = sorted(
        range(len(rows)),
        key=lambda i: (hashlib.sha256(rows[i].example.encode()).digest(), i),
    )
    return tuple(rows[i] for i in sorted(ranked[:most]))


def _read_cluster(line: bytes, name: str, number: int) -> tuple[str, str]:
    try:
        doc: Mapping[str, Any] = json.loads(line)
        example = str(doc["id"])
        return example, str(doc.get("cluster") or example)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise EvidenceError(
            f"{name}:{number} is not a training example",
            why=f"{type(e).__name__}: {e}",
            fix="gtft run RECIPE (a new run harvests again)",
        ) from e
