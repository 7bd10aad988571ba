"""Two corpora side by side: which examples came, went and changed, and which settings made the difference.

Only ids and places are kept in memory, never a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gtft.artifact import Artifact
from gtft.corpus.governance.row import SIDES, Listed, read_listed
from gtft.shelf import read_document

# What is named one by one; all are counted.
NAMED = 200
_Place = tuple[str, str | None, int]


@dataclass(frozen=True)
class Change:
    """One example. ``why`` says what a corpus' manifests give as the cause."""

    id: str
    source: str
    role: str
    file: str
    why: str
    # The id that the other corpus has for the same place.
    other: str = ""


@dataclass
class Diff:
    """From ``a`` to ``b``. ``settings``: key → (in a, in b); ``dropped``: reason → how many in a, in b."""

    a: str
    b: str
    same: int = 0
    added: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    moved: list[Change] = field(default_factory=list)
    relabelled: list[Change] = field(default_factory=list)
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)

    def groups(self) -> dict[str, list[Change]]:
        return {
            name: getattr(self, name)
            for name in ("added", "removed", "changed", "moved", "relabelled")
        }

    def as_dict(self) -> dict[str, Any]:
        """Counts by source, role and reason of each group, and the first 200 of each by name."""
        return {
            "a": self.a,
            "b": self.b,
            "same": self.same,
            **{name: _describe(found) for name, found in self.groups().items()},
            "settings": {k: {"a": a, "b": b} for k, (a, b) in self.settings.items()},
            "dropped": {k: {"a": a, "b": b} for k, (a, b) in self.dropped.items()},
            "inputs": self.inputs,
        }


@dataclass(frozen=True)
class _Kept:
    side: str
    source: str
    role: str
    place: _Place
    labels: tuple[Any, ...]


def compare(a: Artifact, b: Artifact) -> Diff:
    """Raises EvidenceError when one of them cannot be read."""
    out = Diff(a.id, b.id)
    before, after = read_document(a, "manifest.json"), read_document(b, "manifest.json")
    out.settings = _compare_settings(before, after)
    out.dropped = _compare_drops(before, after)
    files = _Inputs(before, after, bool(out.settings))
    out.inputs = files.count()
    old, new = dict(_read(a)), dict(_read(b))
    gone: dict[tuple[str, _Place], list[str]] = {}
    for id_ in sorted(old.keys() - new.keys(), reverse=True):
        gone.setdefault(_key(old[id_], id_), []).append(id_)
    for id_, kept in new.items():
        was = old.get(id_)
        if was is None:
            twins = gone.get(_key(kept, id_), [])
            twin = twins.pop() if twins else ""
            group = out.changed if twin else out.added
            group.append(_name(id_, kept, files.explain(kept, "b"), twin))
        elif was.side != kept.side:
            out.moved.append(_name(id_, kept, f"{was.side} → {kept.side}"))
        elif was.labels != kept.labels:
            out.relabelled.append(_name(id_, kept, "role, rig, bead, outcome or weight"))
        else:
            out.same += 1
    for id_ in sorted(i for ids in gone.values() for i in ids):
        out.removed.append(_name(id_, old[id_], files.explain(old[id_], "a")))
    return out


class _Inputs:
    """The input files of two manifests: (source, file) → sha256."""

    def __init__(self, before: dict[str, Any], after: dict[str, Any], other_settings: bool) -> None:
        self._other_settings = other_settings
        self._of = {"a": _read_inputs(before), "b": _read_inputs(after)}
        self._files = {
            side: {file: sha for (_, file), sha in found.items()}
            for side, found in self._of.items()
        }

    def count(self) -> dict[str, int]:
        a, b = self._of["a"], self._of["b"]
        return {
            "same": sum(b.get(k) == sha for k, sha in a.items()),
            "changed": sum(k in b and b[k] != sha for k, sha in a.items()),
            "removed": len(a.keys() - b.keys()),
            "added": len(b.keys() - a.keys()),
        }

    def explain(self, kept: _Kept, side: str) -> str:
        """Why only the corpus of ``side`` holds an example, or holds it in this form."""
        file = kept.place[0]
        here, there = self._files[side], self._files["b" if side == "a" else "a"]
        if file not in there:
            return "its file is new" if side == "b" else "its file is not read any more"
        if here.get(file) != there[file]:
            return "its file changed"
        if self._other_settings:
            return "other rules or settings"
        return "withdrawals, consents or the examples beside it"


def _read(corpus: Artifact) -> Iterator[tuple[str, _Kept]]:
    for side in SIDES:
        for e in read_listed(corpus, side):
            yield e.id, _keep(e, side)


def _keep(e: Listed, side: str) -> _Kept:
    labels = (e.role, e.rig, e.bead, e.actor, e.outcome, e.weight)
    place = (e.origin.file, e.origin.session, e.origin.segment)
    return _Kept(side, e.source, e.role or "unknown", place, labels)


def _key(kept: _Kept, id_: str) -> tuple[str, _Place]:
    # Examples without a place of their own (one file, no session) are compared by id only.
    return (kept.source if kept.place[1] else id_, kept.place)


def _name(id_: str, kept: _Kept, why: str, other: str = "") -> Change:
    return Change(id_, kept.source, kept.role, kept.place[0], why, other)


def _describe(found: list[Change]) -> dict[str, Any]:
    def count(key: str) -> dict[str, int]:
        return dict(sorted(Counter(getattr(c, key) for c in found).items()))

    named = sorted(found, key=lambda c: c.id)[:NAMED]
    return {
        "count": len(found),
        "by_source": count("source"),
        "by_role": count("role"),
        "by_reason": count("why"),
        "examples": [
            {k: v for k, v in c.__dict__.items() if v != ""} | {"id": c.id} for c in named
        ],
    }


def _compare_settings(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Every leaf of the manifests' settings and rules that is not the same in both."""
    a, b = dict(_flatten(before)), dict(_flatten(after))
    return {k: (a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)}


def _compare_drops(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[int, int]]:
    a, b = _count_drops(before), _count_drops(after)
    return {k: (a[k], b[k]) for k in sorted(a.keys() | b.keys()) if a[k] != b[k]}


def _count_drops(manifest: dict[str, Any]) -> Counter[str]:
    """Why something was left out, over all stages of the harvest."""
    out: Counter[str] = Counter()
    for stage in manifest.get("flow", []):
        out.update(stage.get("dropped", {}))
    return out


def _flatten(doc: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings and rules as dotted keys; counts and file lists are not settings."""
    for top in ("gtft", "format", "harvest", "rules"):
        if top in doc:
            yield from _walk(top, doc[top])


def _walk(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for k in sorted(value):
            yield from _walk(f"{key}.{k}", value[k])
    elif isinstance(value, list) and any(isinstance(x, dict) for x in value):
        for n, x in enumerate(value):
            yield from _walk(f"{key}[{n}]", x)
    else:
        yield key, value


def _read_inputs(manifest: dict[str, Any]) -> dict[tuple[str, str], str]:
    found = manifest.get("inputs", [])
    return {
        (str(i.get("source", "")), str(i.get("file", ""))): str(i.get("sha256", ""))
        for i in found
        if isinstance(i, dict)
    }
