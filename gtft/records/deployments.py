"""What becomes of registered models: aliases, statuses, exports, deployments and incidents.

Rows of deployments and incidents are added and never taken away; a deployment that ended says why, and an incident
whose session was withdrawn has no item any more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from gtft.errors import ConflictError
from gtft.records import tables as t
from gtft.records.rows import AliasRow, ArtifactRow, DeploymentRow, IncidentRow, Message, ModelRow
from gtft.records.store import Store
from gtft.records.unit import Unit, as_unit

# What may follow a status. A model is registered as candidate, or as approved when its eval was reviewed. It is
# superseded when another is deployed in its place, never because a newer one was approved; the sweep gives and takes
# expired, and leaves what serves as it is; archived is by hand, or by a prune.
STATUSES: Mapping[str, tuple[str, ...]] = {
    "candidate": ("approved", "archived"),
    "approved": ("deployed", "superseded", "archived", "expired"),
    "deployed": ("approved", "superseded", "expired"),
    "superseded": ("approved", "deployed", "archived", "expired"),
    "expired": ("approved", "archived"),
    "archived": ("approved",),
}

# What an event's text says, where it is read again.
_BEFORE = ", before: "
_PRUNED_ARTIFACT, _PRUNED_MODEL = "pruned:artifact", "model:pruned"
_PRUNE_FINISHED = "model:prune-finished"


class Deployments:
    """Speaks for ``gtft_aliases``, ``gtft_deployments``, ``gtft_incidents`` and the status of models.

    Every change is one transaction: rows, an event of the model's run, and what is sent because of it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.units = store.units

    # -- models

    @as_unit
    def set_status(
        self,
        u: Unit,
        model: ModelRow,
        to: str,
        *,
        actor: str,
        text: str,
        messages: tuple[Message, ...] = (),
    ) -> None:
        """Move a model from the status that ``model`` shows. Raises ConflictError when it may not, or not any more."""
        u.note(f"gtft: {model.name} {model.status} to {to} ({actor})", actor)
        if u.has_landed(model.run_id):
            return
        self._set_status(u, model, to)
        self._tell(u, model.run_id, f"model:{to}", actor, text, messages)

    @as_unit
    def set_alias(
        self, u: Unit, name: str, model: ModelRow, *, actor: str, pin: str = ""
    ) -> str | None:
        """Point a name at a model, in one step; returns the id that it pointed at before. The last one wins, but a pin
        does not move, and stays where no other is given. Raises ConflictError for that, and for a model that was archived
        since ``model`` was read."""
        u.note(f"gtft: alias {name} to {model.name} ({actor})", actor)
        if u.has_landed(model.run_id):
            return self._read_before(u, model.run_id)
        self._require_unarchived(u, model)
        where = t.aliases.c.name == name
        found = u.c.execute(sa.select(t.aliases.c.model_id, t.aliases.c.pin).where(where)).first()
        before = None if found is None else str(found.model_id)
        if found is not None and found.pin and before != model.id:
            raise ConflictError(
                f"{name} is a pin, and a pin does not move",
                why=f"it holds another model: {found.pin}",
                fix=f"gtft model alias {name} --drop",
            )
        # Only dropping the name takes a pin away.
        pin = pin or (str(found.pin) if found is not None else "")
        values: dict[str, Any] = {"model_id": model.id, "pin": pin, "actor": actor}
        values |= {"updated_us": self.store.now_us()}
        if before is None:
            u.c.execute(sa.insert(t.aliases).values(name=name, **values))
        else:
            u.c.execute(sa.update(t.aliases).where(where).values(**values))
        text = f"{name}{', pinned: ' + pin if pin else ''}{_BEFORE}{before or ''}"
        self._tell(u, model.run_id, "model:alias", actor, text, ())
        return before

    @as_unit
    def drop_alias(self, u: Unit, alias: AliasRow, model: ModelRow, *, actor: str) -> bool:
        """Forget a name of ``model``; False when it is not there any more, or points elsewhere by now."""
        u.note(f"gtft: alias {alias.name} of {model.name} removed ({actor})", actor)
        if u.has_landed(model.run_id):
            return True
        where = (t.aliases.c.name == alias.name, t.aliases.c.model_id == alias.model_id)
        if u.c.execute(sa.delete(t.aliases).where(*where)).rowcount != 1:
            return False
        self._tell(u, model.run_id, "model:alias-dropped", actor, alias.name, ())
        return True

    @as_unit
    def list_aliases(self, u: Unit) -> list[AliasRow]:
        rows = u.c.execute(sa.select(t.aliases).order_by(t.aliases.c.name))
        return [AliasRow(**r._mapping) for r in rows]

    @as_unit
    def note_pruned(
        self, u: Unit, model: ModelRow, gone: Mapping[str, int], *, actor: str, text: str
    ) -> None:
        """Its bytes are going (artifact id → bytes): it is archived, and its row and lineage stay.

        Raises ConflictError when somebody moved it to where it may not be archived.
        """
        u.note(f"gtft: {model.name} pruned ({actor})", actor)
        if u.has_landed(model.run_id):
            return
        aliases = u.c.execute(sa.select(t.aliases.c.name).where(t.aliases.c.model_id == model.id))
        of_it = (t.deployments.c.model_id == model.id, t.deployments.c.state != "ended")
        serving = u.c.execute(sa.select(t.deployments.c.id).where(*of_it))
        if used := [*aliases.scalars(), *serving.scalars()]:
            raise ConflictError(
                f"{model.name} is in use: {', '.join(used)}",
                why="it was put to use in the meantime; nothing of it was removed",
                fix="gtft model prune --dry-run",
            )
        self._set_status(u, model, "archived")
        for artifact_id, size in sorted(gone.items()):
            self._tell(u, model.run_id, _PRUNED_ARTIFACT, actor, f"{artifact_id} {size} bytes", ())
        self._tell(u, model.run_id, _PRUNED_MODEL, actor, text, ())

    @as_unit
    def finish_prune(self, u: Unit, model: ModelRow, *, actor: str) -> None:
        """All that `note_pruned` named is gone: what stands there from now on was put there again."""
        u.note(f"gtft: prune of {model.name} finished ({actor})", actor)
        if not u.has_landed(model.run_id):
            self._tell(u, model.run_id, _PRUNE_FINISHED, actor, model.name, ())

    @as_unit
    def list_unfinished_prunes(self, u: Unit) -> set[str]:
        """The runs of models whose prune was stopped in the middle."""
        kinds = t.events.c.kind.in_((_PRUNED_MODEL, _PRUNE_FINISHED))
        query = sa.select(t.events.c.run_id, t.events.c.kind).where(kinds).order_by(t.events.c.seq)
        last = {str(r.run_id): r.kind for r in u.c.execute(query)}
        return {run_id for run_id, kind in last.items() if kind == _PRUNED_MODEL}

    @as_unit
    def list_pruned(self, u: Unit) -> dict[str, int]:
        """What is gone by intention: the ids of artifacts, models among them, → when, microseconds."""
        query = sa.select(t.events).where(t.events.c.kind == _PRUNED_ARTIFACT)
        rows = u.c.execute(query.order_by(t.events.c.created_us))
        return {r.text.partition(" ")[0]: r.created_us for r in rows}

    @as_unit
    def add_artifact(
        self,
        u: Unit,
        row: ArtifactRow,
        parents: tuple[str, ...],
        *,
        model: ModelRow,
        actor: str,
        text: str,
    ) -> None:
        """Record what was made from a model (an export) and its figures; one that is there already stays.

        Raises ConflictError for a model that was archived since ``model`` was read.
        """
        u.note(f"gtft: {row.kind} of {model.run_id} ({actor})", actor)
        if u.has_landed(model.run_id):
            return
        self._require_unarchived(u, model)
        self.store._add_artifact(u, row, parents)
        self._tell(u, model.run_id, f"made:{row.kind}", actor, text, ())

    @as_unit
    def list_children(self, u: Unit, artifact_id: str, kind: str) -> list[ArtifactRow]:
        """Artifacts of a kind that were made from this one, oldest first."""
        of = t.lineage.c.parent == artifact_id
        ids = list(u.c.execute(sa.select(t.lineage.c.child).where(of)).scalars())
        query = sa.select(t.artifacts).where(t.artifacts.c.id.in_(ids), t.artifacts.c.kind == kind)
        rows = u.c.execute(query.order_by(t.artifacts.c.created_us, t.artifacts.c.id))
        return [ArtifactRow(**{**r._mapping, "summary": json.loads(r.summary)}) for r in rows]

    # -- deployments

    @as_unit
    def start(self, u: Unit, row: DeploymentRow, model: ModelRow) -> None:
        """Record a deployment that is being prepared, before anything in the town is touched.

        Raises ConflictError for a model that was archived since ``model`` was read.
        """
        u.note(f"gtft: {row.mode} of {model.name} for {row.role} begins ({row.actor})", row.actor)
        if u.has_landed(model.run_id):
            return
        self._require_unarchived(u, model)
        u.c.execute(sa.insert(t.deployments).values(**_dump(row)))
        text = f"{row.id}: {row.mode} for {row.role}{' of ' + row.rig if row.rig else ''}"
        self._tell(u, model.run_id, "deploy:preparing", row.actor, text, ())

    @as_unit
    def activate(
        self,
        u: Unit,
        deployment_id: str,
        *,
        detail: Mapping[str, Any],
        ended: Mapping[str, str],
        statuses: Mapping[str, str],
        actor: str,
        text: str,
        messages: tuple[Message, ...] = (),
    ) -> DeploymentRow:
        """It is in service: ``ended`` ends others (id → reason), ``statuses`` moves models (id → status).

        A deployment that is active already only gets its detail. Raises ConflictError when it has ended.
        """
        row = self._find(u, deployment_id)
        model = self._model(u, row.model_id)
        u.note(f"gtft: {row.mode} of {model.name} for {row.role} ({actor})", actor)
        if u.has_landed(model.run_id):
            return self._find(u, deployment_id)
        if row.state == "ended":
            raise ConflictError(
                f"deployment {row.id} has ended: {row.reason}", fix="gtft deploy list"
            )
        now = self.store.now_us()
        values = {"state": "active", "detail": _json(detail), "updated_us": now}
        u.c.execute(sa.update(t.deployments).where(t.deployments.c.id == row.id).values(**values))
        for other, reason in ended.items():
            self._end(u, other, reason, f"by {row.id}")
        for model_id, status in statuses.items():
            self._set_status(u, self._model(u, model_id), status)
        self._tell(u, model.run_id, f"deploy:{row.mode}", actor, text, messages)
        return self._find(u, deployment_id)

    @as_unit
    def end(
        self,
        u: Unit,
        deployment_id: str,
        reason: str,
        *,
        statuses: Mapping[str, str],
        actor: str,
        text: str,
        messages: tuple[Message, ...] = (),
    ) -> DeploymentRow:
        """It is out of service: undone, rolled-back, superseded, promoted or failed. One that ended stays as it is."""
        row = self._find(u, deployment_id)
        model = self._model(u, row.model_id)
        u.note(f"gtft: {row.mode} of {model.name} for {row.role} {reason} ({actor})", actor)
        if row.state == "ended" or u.has_landed(model.run_id):
            return self._find(u, deployment_id)
        self._end(u, row.id, reason, text)
        for model_id, status in statuses.items():
            self._set_status(u, self._model(u, model_id), status)
        self._tell(u, model.run_id, f"deploy:{reason}", actor, text, messages)
        return self._find(u, deployment_id)

    @as_unit
    def note_figures(self, u: Unit, deployment_id: str, figures: Mapping[str, Any]) -> None:
        """The newest figures of a deployment; they are no event."""
        u.note(f"gtft: figures of {deployment_id}", "gtft")
        values = {"figures": _json(figures), "updated_us": self.store.now_us()}
        where = t.deployments.c.id == deployment_id
        u.c.execute(sa.update(t.deployments).where(where).values(**values))

    @as_unit
    def find(self, u: Unit, deployment_id: str) -> DeploymentRow | None:
        query = sa.select(t.deployments).where(t.deployments.c.id == deployment_id)
        row = u.c.execute(query).first()
        return _deployment(row) if row else None

    @as_unit
    def list_deployments(
        self, u: Unit, *, role: str | None = None, state: str | None = None
    ) -> list[DeploymentRow]:
        """Oldest first."""
        query = sa.select(t.deployments).order_by(t.deployments.c.created_us, t.deployments.c.id)
        if role is not None:
            query = query.where(t.deployments.c.role == role)
        if state is not None:
            query = query.where(t.deployments.c.state == state)
        return [_deployment(r) for r in u.c.execute(query)]

    # -- incidents

    @as_unit
    def add_incident(
        self, u: Unit, row: IncidentRow, model: ModelRow, messages: tuple[Message, ...] = ()
    ) -> None:
        u.note(f"gtft: incident {row.id} of {model.name} ({row.actor})", row.actor)
        if u.has_landed(model.run_id):
            return
        item = "" if row.item is None else _json(row.item)
        u.c.execute(sa.insert(t.incidents).values(**{**row.__dict__, "item": item}))
        text = f"{row.id}: {row.title}"
        self._tell(u, model.run_id, "incident", row.actor, text, messages)

    @as_unit
    def set_item(
        self, u: Unit, row: IncidentRow, item: dict[str, Any] | None, *, actor: str, text: str
    ) -> None:
        """Another safety item of an incident, or None: no later eval asks it."""
        model = self._model(u, row.model_id)
        u.note(f"gtft: safety item of {row.id} ({actor})", actor)
        if u.has_landed(model.run_id):
            return
        where = t.incidents.c.id == row.id
        u.c.execute(
            sa.update(t.incidents).where(where).values(item="" if item is None else _json(item))
        )
        self._tell(u, model.run_id, "incident:item", actor, f"{row.id}: {text}", ())

    @as_unit
    def list_incidents(self, u: Unit) -> list[IncidentRow]:
        """Oldest first."""
        rows = u.c.execute(
            sa.select(t.incidents).order_by(t.incidents.c.created_us, t.incidents.c.id)
        )
        return [
            IncidentRow(**{**r._mapping, "item": json.loads(r.item) if r.item else None})
            for r in rows
        ]

    # -- inside a transaction

    def _read_before(self, u: Unit, run_id: str) -> str | None:
        where = (t.events.c.run_id == run_id, t.events.c.unit == u.id)
        text: str = u.c.execute(sa.select(t.events.c.text).where(*where)).scalar() or ""
        return text.rpartition(_BEFORE)[2] or None

    def _find(self, u: Unit, deployment_id: str) -> DeploymentRow:
        query = sa.select(t.deployments).where(t.deployments.c.id == deployment_id)
        row = u.c.execute(query).first()
        if row is None:
            raise ConflictError(f"there is no deployment {deployment_id}", fix="gtft deploy list")
        return _deployment(row)

    def _model(self, u: Unit, model_id: str) -> ModelRow:
        row = u.c.execute(sa.select(t.models).where(t.models.c.id == model_id)).first()
        if row is None:
            raise ConflictError(f"the store has no model {model_id}", fix="gtft doctor")
        return ModelRow(**row._mapping)

    def _end(self, u: Unit, deployment_id: str, reason: str, text: str) -> None:
        now = self.store.now_us()
        values: dict[str, Any] = {"state": "ended", "reason": reason, "reason_text": text}
        values |= {"updated_us": now, "ended_us": now}
        where = (t.deployments.c.id == deployment_id, t.deployments.c.state != "ended")
        u.c.execute(sa.update(t.deployments).where(*where).values(**values))

    def _require_unarchived(self, u: Unit, model: ModelRow) -> None:
        """A prune may have taken its bytes between the look and this."""
        now = u.c.execute(sa.select(t.models.c.status).where(t.models.c.id == model.id)).scalar()
        if now == "archived" != model.status:
            raise ConflictError(
                f"{model.name} was archived in the meantime",
                why="a prune may be removing its bytes",
                fix=f"gtft model show {model.name}",
            )

    def _set_status(self, u: Unit, model: ModelRow, to: str) -> None:
        if model.status == to:
            return
        if to not in STATUSES.get(model.status, ()):
            raise ConflictError(
                f"{model.name} is {model.status} and cannot become {to}",
                why=f"from {model.status} a model goes to {', '.join(STATUSES.get(model.status, ()))}",
                fix=f"gtft model show {model.name}",
            )
        where = (t.models.c.id == model.id, t.models.c.status == model.status)
        if u.c.execute(sa.update(t.models).where(*where).values(status=to)).rowcount != 1:
            raise ConflictError(
                f"{model.name} is no longer {model.status}",
                why="somebody moved it at the same time",
                fix=f"gtft model show {model.name}",
            )

    def _tell(
        self,
        u: Unit,
        run_id: str,
        kind: str,
        actor: str,
        text: str,
        messages: tuple[Message, ...],
    ) -> None:
        self.store._add_event(u, run_id, None, kind, actor, text)
        self.store._add_messages(u, run_id, messages)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _dump(row: DeploymentRow) -> dict[str, Any]:
    return {**row.__dict__, "detail": _json(row.detail), "figures": _json(row.figures)}


def _deployment(row: Any) -> DeploymentRow:
    found = {"detail": json.loads(row.detail), "figures": json.loads(row.figures)}
    return DeploymentRow(**{**row._mapping, **found})
