"""What may be removed of models nobody uses, and removing it.

Kept, always: what serves or is being prepared, what `rollback --to` goes back to, what an alias or a pin means, and
the adapters that any of these, or a run that is not done, goes on from. The store keeps every row: a pruned
model still has its lineage, its eval and its card. The store is told first, then folders go: each is renamed
aside and then deleted, so that a kill leaves no half artifact under its name, and the next prune goes on. The
store is told again when all are gone: from then on a folder under that name was put there by somebody.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gtft.artifact import MANIFEST, Artifact, is_alive, short_id
from gtft.errors import ConflictError, EvidenceError, translate_os_error
from gtft.models.lineage import BASE_FILE
from gtft.models.registry import find_pruned
from gtft.records.ancestry import list_needed
from gtft.records.deployments import Deployments
from gtft.records.rows import ArtifactRow, DeploymentRow, ModelRow, Run
from gtft.records.store import Store
from gtft.shelf import list_shelf

DAY_US = 86_400 * 1_000_000
ASIDE = ".pruned-"
_MOST_BYTES = 1 << 20
# Keys of a recipe that name adapters or models by the beginning of an id.
_NAMING = (("train", "continues"), ("train", "stacks_on"), ("eval", "models"))


@dataclass(frozen=True)
class Rules:
    """``keep``: newest models of each role that stay; ``older_than``: days, younger ones stay; ``corpora``: remove
    also corpora that only pruned models were trained on."""

    keep: int
    older_than: float = 0.0
    corpora: bool = False


@dataclass(frozen=True)
class Piece:
    """A folder. ``path`` is relative to the workspace; ``artifact``: its id, "" when it is none."""

    what: str
    path: str
    bytes: int
    artifact: str = ""


@dataclass(frozen=True)
class Removal:
    """A model that goes, or what is left of one. ``noted``: the store says so already, and a prune was stopped."""

    model: ModelRow
    pieces: tuple[Piece, ...]
    noted: bool = False

    @property
    def bytes(self) -> int:
        return sum(p.bytes for p in self.pieces)


@dataclass(frozen=True)
class Pruning:
    """The plan. ``kept``: the other models, with why. ``besides``: bases that no adapter needs any more, work of
    runs that ended without a model, what an earlier prune left aside."""

    removals: tuple[Removal, ...]
    kept: tuple[tuple[ModelRow, str], ...]
    besides: tuple[Piece, ...]

    @property
    def bytes(self) -> int:
        return sum(r.bytes for r in self.removals) + sum(p.bytes for p in self.besides)


def plan_pruning(store: Store, workspace: Path, rules: Rules, *, now_us: int) -> Pruning:
    """What would go and what stays. Changes nothing. Raises EvidenceError for a stored path that leads elsewhere."""
    models = sorted(store.list_models(), key=lambda m: (m.role, -m.version))
    gone = {m.id for m in models if find_pruned(store, m, workspace) is not None}
    why = _find_keepers(store, [m for m in models if m.id not in gone], rules, now_us)
    removals: list[Removal] = []
    stopped = Deployments(store).list_unfinished_prunes()
    exports = list_shelf(workspace / "artifacts", "export").found
    staying = {m.corpus_id for m in models if m.id in why} | _list_unfinished_inputs(store)
    runs = _list_work(store, workspace, models)
    for m in models:
        if m.id in why:
            continue
        noted = m.id in gone and m.run_id in stopped
        made = [e for e in exports if m.adapter_id in e.parents]
        pieces = _list_pieces(store, workspace, m, made, staying if rules.corpora else None)
        removal = Removal(m, tuple(pieces), noted)
        if removal.pieces or noted or m.id not in gone:
            removals.append(removal)
    # What lies on another goes before it: a prune that is stopped leaves no model without what it needs.
    removals.sort(key=lambda r: -len(list_needed(store, r.model)))
    leaving = {p.path for r in removals for p in r.pieces}
    besides = [
        *_list_asides(workspace),
        *runs,
        *_list_unused_bases(store, workspace, leaving),
    ]
    kept = tuple((m, why[m.id]) for m in models if m.id in why)
    return Pruning(tuple(removals), kept, tuple(besides))


def prune(
    store: Store, workspace: Path, plan: Pruning, *, actor: str, tell: Callable[[Piece], None]
) -> int:
    """Carry a plan out; returns the bytes that were freed. ``tell`` is called after each folder.

    Raises ConflictError, with nothing of that model removed, when somebody put it to use since the plan, and with
    nothing removed at all while an export is being made.
    """
    _refuse_while_exporting(workspace)
    freed = 0
    rows = Deployments(store)
    known = rows.list_pruned().keys()
    for removal in plan.removals:
        told = known if removal.noted else ()
        sizes = {p.artifact: p.bytes for p in removal.pieces if p.artifact not in ("", *told)}
        if removal.model.id not in known:
            sizes.setdefault(removal.model.id, 0)
        if sizes:
            text = f"{removal.model.name}: {removal.bytes} bytes in {len(removal.pieces)} folders"
            rows.note_pruned(removal.model, sizes, actor=actor, text=text)
        for piece in removal.pieces:
            freed += _remove(workspace / piece.path, piece)
            tell(piece)
        rows.finish_prune(removal.model, actor=actor)
    for piece in plan.besides:
        freed += _remove(workspace / piece.path, piece)
        tell(piece)
    return freed


def _find_keepers(
    store: Store, models: list[ModelRow], rules: Rules, now_us: int
) -> dict[str, str]:
    """Model id → why it stays."""
    rows = Deployments(store)
    why: dict[str, str] = {}
    deployments = rows.list_deployments()
    for d in deployments:
        if d.state != "ended":
            why[d.model_id] = f"{d.mode} for {d.role}{' of ' + d.rig if d.rig else ''}"
    for model_id, told in _list_before(deployments):
        why.setdefault(model_id, told)
    for a in rows.list_aliases():
        told = f"pinned by {a.name}: {a.pin}" if a.pin else f"{a.name} means it"
        why.setdefault(a.model_id, told)
    of_role: dict[str, int] = {}
    for m in models:
        of_role[m.role] = of_role.get(m.role, 0) + 1
        days = (now_us - m.created_us) / DAY_US
        if m.status == "deployed":
            why.setdefault(m.id, "deployed")
        elif of_role[m.role] <= rules.keep:
            why.setdefault(m.id, f"one of the newest {rules.keep} of {m.role}")
        elif days < rules.older_than:
            why.setdefault(m.id, f"{days:.0f} days old")
    for run in _list_unfinished(store):
        for m in models:
            if m.run_id == run.id:
                why.setdefault(m.id, f"its run {run.id} is not done")
        for name in _list_named(run):
            for m in models:
                if m.name == name or m.id.removeprefix("sha256:").startswith(_strip(name)):
                    why.setdefault(m.id, f"{run.id} needs it, which is not done")
    by_id = {m.id: m for m in models}
    for m in list(by_id.values()):
        if m.id in why:
            for needed in list_needed(store, m):
                why.setdefault(needed, f"{m.name} was trained from it")
    return {i: told for i, told in why.items() if i in by_id}


def _list_before(deployments: list[DeploymentRow]) -> Iterator[tuple[str, str]]:
    """What served before, where something serves now: ``rollback --to`` goes back to it."""
    for now in deployments:
        if now.state != "active":
            continue
        earlier = [
            d
            for d in deployments
            if (d.role, d.rig) == (now.role, now.rig)
            and d.state == "ended"
            and d.reason != "failed"
            and d.model_id != now.model_id
        ]
        if earlier:
            yield (
                earlier[-1].model_id,
                f"served {now.role} before: gtft rollback --to goes back to it",
            )


def _list_unfinished(store: Store) -> list[Run]:
    going = {s.run_id for s in store.list_stages() if s.state != "done"}
    return [r for r in store.list_runs() if r.id in going]


def _list_unfinished_inputs(store: Store) -> set[str]:
    going = {r.id for r in _list_unfinished(store)}
    return {s.artifact_id or "" for s in store.list_stages() if s.run_id in going}


def _list_named(run: Run) -> Iterator[str]:
    recipe = run.recipe.get("recipe", {})
    for table, key in _NAMING:
        value = recipe.get(table, {}).get(key) or ()
        yield from ([value] if isinstance(value, str) else value)


def _strip(name: str) -> str:
    return name.removeprefix("sha256:").removeprefix("adapter-")


def _list_pieces(
    store: Store, workspace: Path, model: ModelRow, made: list[Artifact], staying: set[str] | None
) -> Iterator[Piece]:
    """Folders that are there: exports, the work of its run, the adapter; the corpus when nothing else needs it.

    ``made``: its exports on the shelf, those too that the store was not told of."""
    rows: list[ArtifactRow] = Deployments(store).list_children(model.adapter_id, "export")
    exports = {e.id: str(e.path.relative_to(workspace)) for e in made}
    for artifact_id, path in sorted((exports | {r.id: r.path for r in rows}).items()):
        yield from _find_piece(workspace, "export", path, artifact_id)
    yield from _list_work_of(workspace, model.run_id)
    adapter = store.find_artifact(model.adapter_id)
    if adapter is not None:
        yield from _find_piece(workspace, "adapter", adapter.path, adapter.id)
    if staying is not None and model.corpus_id not in staying:
        corpus = store.find_artifact(model.corpus_id)
        if corpus is not None:
            # Two pruned models may share one: the first takes it along.
            staying.add(model.corpus_id)
            yield from _find_piece(workspace, "corpus", corpus.path, corpus.id)


def _list_work_of(workspace: Path, run_id: str) -> Iterator[Piece]:
    """What the stages of a run left in their work folders, checkpoints above all."""
    for path in sorted((workspace / "runs" / run_id).glob("*/work")):
        what = "checkpoints" if path.parent.name == "train" else f"work of {path.parent.name}"
        for piece in _find_piece(workspace, what, str(path.relative_to(workspace))):
            if piece.bytes:
                yield piece


def _list_work(store: Store, workspace: Path, models: list[ModelRow]) -> list[Piece]:
    """Work of runs that ended without a model: nothing goes on from it any more."""
    made = {m.run_id for m in models}
    going = {r.id for r in _list_unfinished(store)}
    return [
        piece
        for run in store.list_runs()
        if run.id not in made and run.id not in going
        for piece in _list_work_of(workspace, run.id)
    ]


def _list_unused_bases(store: Store, workspace: Path, leaving: set[str]) -> Iterator[Piece]:
    """Bases that gtft built and no adapter on the shelf lies on; none while a run might just be using one."""
    bases = [p for p in sorted((workspace / "bases").glob("*")) if (p / MANIFEST).is_file()]
    if not bases or _list_unfinished(store):
        return
    used: set[str] = set()
    for path in sorted((workspace / "artifacts").glob("adapter-*")):
        if str(path.relative_to(workspace)) in leaving:
            continue
        where = path / BASE_FILE
        try:
            with where.open("rb") as f:
                doc = json.loads(f.read(_MOST_BYTES))
            used |= {str(doc["name"]), Path(str(doc.get("path") or "")).name}
        except (OSError, ValueError, KeyError, TypeError):
            # A damaged adapter does not say which base it needs: all of them stay.
            return
    for path in bases:
        if path.name not in used:
            yield from _find_piece(workspace, "base", str(path.relative_to(workspace)))


def _list_asides(workspace: Path) -> list[Piece]:
    found = [p for f in ("artifacts", "bases") for p in (workspace / f).glob(f"{ASIDE}*")]
    found += (workspace / "runs").glob(f"*/*/{ASIDE}*")
    return [
        Piece("left by a prune that was stopped", str(p.relative_to(workspace)), _measure(p))
        for p in sorted(found)
    ]


def _refuse_while_exporting(workspace: Path) -> None:
    for path in sorted((workspace / "artifacts").glob(".tmp-export-*")):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and is_alive(int(pid)):
            raise ConflictError(
                "an export is being made",
                why=f"process {pid} reads an adapter that might go; nothing was removed",
                fix="wait for it to end, then: gtft model prune",
            )


def _find_piece(workspace: Path, what: str, stored: str, artifact: str = "") -> Iterator[Piece]:
    path = workspace / stored
    if path.is_symlink() or not path.resolve().is_relative_to(workspace.resolve()):
        raise EvidenceError(
            f"{what} {short_id(artifact) or stored} is not a folder of this workspace",
            why=f"{stored} is a link, or leads out of {workspace}",
            fix="gtft doctor",
        )
    if path.is_dir():
        yield Piece(what, stored, _measure(path), artifact)


def _measure(path: Path) -> int:
    return sum(p.lstat().st_size for p in path.rglob("*") if p.is_symlink() or p.is_file())


def _remove(path: Path, piece: Piece) -> int:
    """Rename aside, then delete; 0 when somebody else did."""
    aside = path if path.name.startswith(ASIDE) else path.with_name(f"{ASIDE}{path.name}")
    try:
        if aside != path:
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)
            _fsync(path.parent)
        shutil.rmtree(aside)
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise translate_os_error(e, f"removing {path.name}") from e
    return piece.bytes


def _fsync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
