"""The registered models, read from the store. The runner registers one when its card is accepted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gtft.artifact import MANIFEST, short_id
from gtft.errors import ConflictError, EvidenceError, UsageError
from gtft.records.deployments import Deployments
from gtft.records.rows import AliasRow, ArtifactRow, ModelRow, Run
from gtft.records.store import Store

# Shorter beginnings of an id than this are taken for a name.
_SHORTEST_ID = 6
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# What the runner calls a model: its role, a dash, the beginning of its adapter's id.
_MODEL_NAME = re.compile(r".*-[0-9a-f]{12}")
_ID = re.compile(rf"[0-9a-f]{{{_SHORTEST_ID},64}}")
# Roles that a model may be made for later (gt's own).
ROLES = frozenset(
    {"mayor", "deacon", "witness", "refinery", "polecat", "crew", "boot", "dog", "overseer"}
)


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
    """The model that ``name`` means. In this order: a full name or adapter id; an alias; a role (its newest
    model); the beginning of exactly one name or id.

    Raises UsageError when there is none, when several begin so, or when an alias and a role are both called so.
    """
    models = list_models(store)
    exact = [m for m in models if name in (m.name, m.id)]
    if exact:
        return exact[0]
    alias = next((a for a in Deployments(store).list_aliases() if a.name == name), None)
    of_role = [m for m in models if m.role == name]
    if alias is not None and of_role:
        raise UsageError(
            f"{name} is both an alias and a role",
            why=f"the alias means {_find_aliased(models, alias).name}, the role's newest is {of_role[0].name}",
            fix="write one of these names out",
        )
    if alias is not None:
        return _find_aliased(models, alias)
    if of_role:
        return of_role[0]
    begins = [m for m in models if _begins(m, name)]
    if len(begins) > 1:
        raise UsageError(
            f"{name} is the beginning of {len(begins)} models",
            why=", ".join(sorted(m.name for m in begins)),
            fix="write one of these names out",
        )
    if begins:
        return begins[0]
    raise _refuse(name, models)


def find_alias(store: Store, name: str) -> AliasRow:
    """Raises UsageError that names what there is."""
    aliases = Deployments(store).list_aliases()
    found = next((a for a in aliases if a.name == name), None)
    if found is None:
        known = ", ".join(a.name for a in aliases)
        raise UsageError(
            f"there is no alias {name[:80]}",
            why=f"known: {known}" if known else "no alias was given yet",
            fix="gtft model alias",
        )
    return found


def check_alias(name: str, models: list[ModelRow]) -> str:
    """A name that may become an alias: never one that could be taken for a model, an id or a role.

    Raises UsageError.
    """
    taken = ""
    if not _ALIAS.fullmatch(name):
        taken = "an alias is at most 64 letters, digits, dots, dashes, underscores and @, beginning with one of the first two"
    elif name in ROLES or any(m.role == name for m in models):
        taken = "a role means its newest model"
    elif _MODEL_NAME.fullmatch(name) or any(m.name == name for m in models):
        taken = "models are called so"
    elif _ID.fullmatch(name):
        taken = "it would be taken for the beginning of an id"
    if taken:
        raise UsageError(
            f"{name[:80]!r} cannot be an alias", why=taken, fix="such as witness@stable"
        )
    return name


def find_pruned(store: Store, model: ModelRow, workspace: Path) -> int | None:
    """When the model's bytes were removed by a prune, microseconds; None when they were not, or are here again."""
    rows = Deployments(store)
    at = rows.list_pruned().get(model.id)
    row = store.find_artifact(model.adapter_id) if at is not None else None
    if at is None or row is None or not (made := workspace / row.path / MANIFEST).is_file():
        return at
    # One that a stopped prune did not come to; what was made again since is none.
    left = model.run_id in rows.list_unfinished_prunes()
    return at if left and made.stat().st_mtime_ns // 1000 <= at else None


def set_alias(
    store: Store, name: str, model: ModelRow, workspace: Path, *, actor: str, pin: str = ""
) -> ModelRow | None:
    """Point an alias at a model, in one step; the model that it pointed at before, if any.

    ``pin``: why the model may not be pruned. Raises UsageError for a name that cannot be one, ConflictError for
    a pin that would move, and for a model whose bytes are gone.
    """
    models = store.list_models()
    check_alias(name, models)
    rows = Deployments(store)
    now = next((a for a in rows.list_aliases() if a.name == name), None)
    if now is not None and now.pin and now.model_id != model.id:
        raise ConflictError(
            f"{name} is a pin, and a pin does not move",
            why=f"it holds {_find_aliased(models, now).name}: {now.pin}",
            fix=f"gtft model alias {name} --drop",
        )
    if find_pruned(store, model, workspace) is not None:
        raise ConflictError(
            f"{model.name} was pruned: its adapter is gone",
            fix="gtft model list shows what is there",
        )
    before = rows.set_alias(name, model, actor=actor, pin=pin)
    return next((m for m in models if m.id == before), None)


def archive(store: Store, model: ModelRow, *, actor: str) -> None:
    """Out of the way, nothing deleted. Raises ConflictError when it is deployed or an alias means it."""
    rows = Deployments(store)
    serving = [d for d in rows.list_deployments() if d.model_id == model.id and d.state != "ended"]
    if serving or model.status == "deployed":
        raise ConflictError(
            f"{model.name} is deployed",
            why=", ".join(
                f"{d.mode} for {d.role}{' of ' + d.rig if d.rig else ''}" for d in serving
            ),
            fix="gtft deploy undo, or gtft rollback",
        )
    aliases = [a.name for a in rows.list_aliases() if a.model_id == model.id]
    if aliases:
        raise ConflictError(
            f"{model.name} is what {', '.join(aliases)} means",
            why="an archived model is out of use",
            fix=f"gtft model alias {aliases[0]} OTHER, or: gtft model alias {aliases[0]} --drop",
        )
    rows.set_status(model, "archived", actor=actor, text="archived")


def unarchive(store: Store, model: ModelRow, workspace: Path, *, actor: str) -> None:
    """Approved again. Raises ConflictError when it is not archived, or its bytes are gone."""
    rows = Deployments(store)
    if model.status != "archived":
        raise ConflictError(
            f"{model.name} is not archived", why=f"it is {model.status}", fix="gtft model list"
        )
    if find_pruned(store, model, workspace) is not None:
        raise ConflictError(
            f"{model.name} was pruned: its adapter is gone",
            why="only its row and its lineage are left",
            fix=f"gtft model why {model.name} tells how it was made",
        )
    rows.set_status(model, "approved", actor=actor, text="taken from the archive")


def _find_aliased(models: list[ModelRow], alias: AliasRow) -> ModelRow:
    found = next((m for m in models if m.id == alias.model_id), None)
    if found is None:
        raise EvidenceError(
            f"the alias {alias.name} means {short_id(alias.model_id)}, which the store has not",
            fix=f"gtft model alias {alias.name} --drop",
        )
    return found


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
