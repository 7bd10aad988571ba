"""`Store`: the only speaker of SQL for the tables ``gtft_*``.

Every public method is one transaction (`as_unit`), re-run whole where the engine asks for it. A change of
state writes the row, its event and its outbox entries together, so that nothing is announced that did not
happen and nothing happens unannounced; on Dolt it is then one version commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from gtft.errors import ConflictError
from gtft.records import tables as t
from gtft.records.migrations import find_version, migrate
from gtft.records.rows import (
    ArtifactRow,
    Change,
    EventRow,
    Message,
    ModelRow,
    OutboxRow,
    Run,
    StageRow,
)
from gtft.records.unit import PATIENCE_SECONDS, Unit, Units, as_unit


def open_sqlite(path: Path) -> sa.Engine:
    """An engine on one SQLite file: WAL, every commit on disk, writers queue for 30 s."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.NullPool,
        connect_args={"timeout": 30},
    )

    @sa.event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: object) -> None:
        # SQLAlchemy, not the driver, begins transactions, so that BEGIN IMMEDIATE is possible.
        dbapi.isolation_level = None
        dbapi.execute("PRAGMA journal_mode = WAL")
        dbapi.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(c: sa.Connection) -> None:
        c.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Store:
    """gtft's records over one engine. ``now`` gives seconds since the epoch; ``patience``: seconds that
    a Dolt server that is away is waited for before TownError."""

    def __init__(
        self, engine: sa.Engine, now: Callable[[], float], patience: float = PATIENCE_SECONDS
    ) -> None:
        self.units = Units(engine, patience)
        self._now = now

    @property
    def url(self) -> str:
        """Where the store is, without a password."""
        u = self.units.engine.url
        bare = sa.URL.create(u.drivername, u.username, None, u.host, u.port, u.database, u.query)
        return bare.render_as_string(hide_password=False)

    def now_us(self) -> int:
        return int(self._now() * 1_000_000)

    def migrate(self) -> int:
        """Create or upgrade the tables; returns the schema version. Raises InputError when a newer gtft
        wrote the store."""
        if (version := self.units.run(find_version)) is not None:
            return version
        return self.units.run(lambda u: migrate(u, self.now_us()))

    # -- runs

    @as_unit
    def add_run(self, u: Unit, run: Run, stages: tuple[StageRow, ...]) -> None:
        """A new run with its stages and its first event. Raises ConflictError when the id is taken."""
        u.note(f"gtft {run.id}: dispatched {run.recipe_name} ({run.actor})", run.actor)
        if u.has_landed(run.id):
            return
        row = {**run.__dict__, "recipe": _dump(run.recipe)}
        u.c.execute(sa.insert(t.runs).values(**row))
        u.c.execute(sa.insert(t.stages), [dict(s.__dict__) for s in stages])
        self._add_event(u, run.id, None, "dispatched", run.actor, run.recipe_name)

    @as_unit
    def set_beads(self, u: Unit, run_id: str, epic: str, beads: dict[str, str]) -> None:
        """Record the ids that the ledger gave to the run's beads (stage → id)."""
        u.c.execute(sa.update(t.runs).where(t.runs.c.id == run_id).values(epic_bead=epic))
        for stage, bead_id in beads.items():
            u.c.execute(
                sa.update(t.stages)
                .where(t.stages.c.run_id == run_id, t.stages.c.stage == stage)
                .values(bead_id=bead_id)
            )

    @as_unit
    def find_run(self, u: Unit, run_id: str) -> Run | None:
        """By id, or by an unambiguous beginning of one."""
        rows = u.c.execute(
            sa.select(t.runs).where(t.runs.c.id.startswith(run_id, autoescape=True)).limit(2)
        ).all()
        exact = [r for r in rows if r.id == run_id]
        if exact or len(rows) == 1:
            return _run((exact or rows)[0])
        return None

    @as_unit
    def list_runs(self, u: Unit) -> list[Run]:
        """Newest first."""
        rows = u.c.execute(sa.select(t.runs).order_by(t.runs.c.created_us.desc(), t.runs.c.id))
        return [_run(r) for r in rows]

    @as_unit
    def set_desired(self, u: Unit, run_id: str, desired: str, actor: str, text: str = "") -> None:
        """What the operator wants of a run; who asked and why stays as an event."""
        u.note(f"gtft {run_id}: asked to {desired} ({actor})", actor)
        if u.has_landed(run_id):
            return
        u.c.execute(sa.update(t.runs).where(t.runs.c.id == run_id).values(desired=desired))
        self._add_event(u, run_id, None, f"asked:{desired}", actor, text)

    @as_unit
    def add_event(
        self,
        u: Unit,
        run_id: str,
        stage: str | None,
        kind: str,
        actor: str,
        text: str,
        *,
        messages: tuple[Message, ...] = (),
    ) -> None:
        """Something that happened besides a move, and what is sent because of it."""
        if not u.has_landed(run_id):
            self._add_event(u, run_id, stage, kind, actor, text)
            self._add_messages(u, run_id, messages)

    @as_unit
    def list_events(self, u: Unit, run_id: str) -> list[EventRow]:
        rows = u.c.execute(
            sa.select(t.events).where(t.events.c.run_id == run_id).order_by(t.events.c.seq)
        )
        return [_event(r) for r in rows]

    # -- stages

    @as_unit
    def list_stages(
        self, u: Unit, run_id: str | None = None, state: str | None = None
    ) -> list[StageRow]:
        """Of one run or of all, in order; only those in ``state`` when it is given."""
        query = sa.select(t.stages).order_by(t.stages.c.run_id, t.stages.c.position)
        if run_id is not None:
            query = query.where(t.stages.c.run_id == run_id)
        if state is not None:
            query = query.where(t.stages.c.state == state)
        return [StageRow(**r._mapping) for r in u.c.execute(query)]

    @as_unit
    def find_stage(self, u: Unit, run_id: str, stage: str) -> StageRow:
        return self._stage(u, run_id, stage)

    @as_unit
    def find_bead(self, u: Unit, bead_id: str) -> StageRow | None:
        """The stage that a bead stands for."""
        row = u.c.execute(sa.select(t.stages).where(t.stages.c.bead_id == bead_id)).one_or_none()
        return StageRow(**row._mapping) if row else None

    @as_unit
    def list_claimable(self, u: Unit, limit: int = 50) -> list[StageRow]:
        """Stages that stand at ready for nobody's decision, whose run is wanted and whose earlier stage
        was accepted; oldest run first."""
        here, before = t.stages.alias("here"), t.stages.alias("before")
        query = (
            sa.select(here)
            .join(t.runs, t.runs.c.id == here.c.run_id)
            .outerjoin(
                before,
                (before.c.run_id == here.c.run_id) & (before.c.position == here.c.position - 1),
            )
            .where(
                here.c.state == "ready",
                here.c.reason.is_(None),
                here.c.bead_id.is_not(None),
                t.runs.c.desired == "run",
                sa.or_(
                    before.c.run_id.is_(None),
                    (before.c.state == "done") & before.c.reason.is_(None),
                ),
            )
            .order_by(t.runs.c.created_us, here.c.run_id)
            .limit(limit)
        )
        return [StageRow(**r._mapping) for r in u.c.execute(query)]

    def claim(
        self,
        row: StageRow,
        actor: str,
        token: str,
        lease_until_us: int,
        text: str,
        messages: tuple[Message, ...] = (),
    ) -> StageRow | None:
        """Compare-and-set: take a stage that still is as ``row`` says. None when somebody was faster.

        ``row`` is ready (a claim) or active (a take-over of the lease that ``row`` shows). The write
        carries a token unique to the claimer and is believed only after COMMIT and a re-read
        (dolt.md section 6).
        """
        self._claim(row, actor, token, lease_until_us, text, messages)
        seen = self.find_stage(row.run_id, row.stage)
        return seen if seen.token == token else None

    @as_unit
    def _claim(
        self,
        u: Unit,
        row: StageRow,
        actor: str,
        token: str,
        lease_until_us: int,
        text: str,
        messages: tuple[Message, ...],
    ) -> None:
        takeover = row.state == "active"
        done = u.c.execute(
            sa.update(t.stages)
            .where(
                *_same(row.run_id, row.stage, row.state, row.token),
                t.stages.c.updated_us == row.updated_us,
            )
            .values(
                state="active",
                reason="expired" if takeover else None,
                reason_text="",
                token=token,
                lease_until_us=lease_until_us,
                attempt=row.attempt + 1,
                worker=actor,
                started_us=self.now_us(),
                updated_us=self.now_us(),
            )
        )
        if done.rowcount == 1:
            kind = "taken-over" if takeover else "claimed"
            self._add_event(u, row.run_id, row.stage, kind, actor, text)
            self._add_messages(u, row.run_id, messages)
            u.note(_name_move(row.run_id, row.stage, row.state, "active", None, actor), actor)

    @as_unit
    def renew(self, u: Unit, run_id: str, stage: str, token: str, lease_until_us: int) -> bool:
        """Push the lease forward. False when the token is not the holder's any more."""
        done = u.c.execute(
            sa.update(t.stages)
            .where(*_same(run_id, stage, "active", token))
            .values(lease_until_us=lease_until_us)
        )
        return done.rowcount == 1

    @as_unit
    def change(
        self,
        u: Unit,
        run_id: str,
        stage: str,
        change: Change,
        *,
        token: str | None = None,
        artifact: ArtifactRow | None = None,
        parents: tuple[str, ...] = (),
        model: ModelRow | None = None,
        reviewer: str | None = None,
    ) -> StageRow:
        """One move: the row, its event, its outbox entries and what was produced, all or nothing.

        ``token`` guards moves out of ``active``. Raises ConflictError when the stage is not in
        ``change.frm`` (any more) or is held with another token.
        """
        move = (run_id, stage, change.frm, change.to, change.reason, change.actor)
        u.note(_name_move(*move), change.actor)
        if u.has_landed(run_id):
            return self._stage(u, run_id, stage)
        values: dict[str, Any] = {
            "state": change.to,
            "reason": change.reason,
            "reason_text": change.text if change.reason else "",
            "updated_us": self.now_us(),
        }
        if change.to != "active":
            values |= {"token": None, "lease_until_us": None}
        if artifact is not None:
            values["artifact_id"] = artifact.id
        if reviewer is not None:
            values["reviewer"] = reviewer
        where = [
            t.stages.c.run_id == run_id,
            t.stages.c.stage == stage,
            t.stages.c.state == change.frm,
        ]
        if token is not None:
            where.append(t.stages.c.token == token)
        if u.c.execute(sa.update(t.stages).where(*where).values(**values)).rowcount != 1:
            seen = self._stage(u, run_id, stage)
            raise ConflictError(
                f"{stage} of {run_id} is {seen.state}, held by {seen.worker or 'nobody'}",
                why=f"somebody moved it before it could go from {change.frm} to {change.to}",
                fix=f"gtft runs show {run_id}",
            )
        if artifact is not None:
            self._add_artifact(u, artifact, parents)
        if model is not None:
            self._add_model(u, model)
        kind = change.to if change.reason is None else f"{change.to}:{change.reason}"
        self._add_event(u, run_id, stage, kind, change.actor, change.text)
        self._add_messages(u, run_id, change.messages)
        return self._stage(u, run_id, stage)

    # -- artifacts and models

    @as_unit
    def find_artifact(self, u: Unit, artifact_id: str) -> ArtifactRow | None:
        row = u.c.execute(sa.select(t.artifacts).where(t.artifacts.c.id == artifact_id)).first()
        return _artifact(row) if row else None

    @as_unit
    def list_artifacts(self, u: Unit, kind: str | None = None) -> list[ArtifactRow]:
        query = sa.select(t.artifacts).order_by(t.artifacts.c.created_us)
        if kind is not None:
            query = query.where(t.artifacts.c.kind == kind)
        return [_artifact(r) for r in u.c.execute(query)]

    @as_unit
    def list_parents(self, u: Unit, artifact_id: str) -> list[str]:
        query = sa.select(t.lineage.c.parent).where(t.lineage.c.child == artifact_id)
        return sorted(u.c.execute(query).scalars())

    @as_unit
    def list_models(self, u: Unit) -> list[ModelRow]:
        query = sa.select(t.models).order_by(t.models.c.role, t.models.c.version)
        return [ModelRow(**r._mapping) for r in u.c.execute(query)]

    # -- outbox

    def take_message(self, token: str, lease_until_us: int) -> OutboxRow | None:
        """The next undelivered message whose earlier ones of the same run are delivered, leased to
        ``token``; None when there is none to deliver now. Its ``tries`` are those before this one.

        Asked again with the same token before it is settled, it gives the same message.
        """
        self._take_message(token, lease_until_us)
        return self._find_taken(token)

    @as_unit
    def _find_taken(self, u: Unit, token: str) -> OutboxRow | None:
        row = u.c.execute(_taken(token)).first()
        return replace(_outbox(row), tries=row.tries - 1) if row else None

    @as_unit
    def _take_message(self, u: Unit, token: str, lease_until_us: int) -> None:
        if u.c.execute(_taken(token)).first() is not None:
            return
        first = (
            sa.select(t.outbox.c.run_id, sa.func.min(t.outbox.c.seq).label("seq"))
            .where(t.outbox.c.done_us.is_(None))
            .group_by(t.outbox.c.run_id)
            .subquery()
        )
        query = (
            sa.select(t.outbox)
            .join(first, (t.outbox.c.run_id == first.c.run_id) & (t.outbox.c.seq == first.c.seq))
            .where(
                sa.or_(
                    t.outbox.c.lease_until_us.is_(None), t.outbox.c.lease_until_us < self.now_us()
                )
            )
            .order_by(t.outbox.c.created_us, t.outbox.c.run_id)
            .limit(1)
        )
        row = u.c.execute(query).first()
        if row is not None:
            u.c.execute(
                sa.update(t.outbox)
                .where(t.outbox.c.run_id == row.run_id, t.outbox.c.seq == row.seq)
                .values(token=token, lease_until_us=lease_until_us, tries=row.tries + 1)
            )

    @as_unit
    def settle_message(self, u: Unit, row: OutboxRow, token: str, error: str | None) -> None:
        """Delivered (``error`` None), or to be tried again when its lease ends."""
        values: dict[str, Any] = {"token": None, "last_error": error or ""}
        if error is None:
            values["done_us"] = self.now_us()
        u.c.execute(
            sa.update(t.outbox)
            .where(
                t.outbox.c.run_id == row.run_id,
                t.outbox.c.seq == row.seq,
                t.outbox.c.token == token,
            )
            .values(**values)
        )

    @as_unit
    def list_messages(self, u: Unit, *, pending: bool, kind: str | None = None) -> list[OutboxRow]:
        done = t.outbox.c.done_us
        query = sa.select(t.outbox).where(done.is_(None) if pending else done.is_not(None))
        if kind is not None:
            query = query.where(t.outbox.c.kind == kind)
        rows = u.c.execute(query.order_by(t.outbox.c.created_us, t.outbox.c.seq))
        return [_outbox(r) for r in rows]

    # -- inside a transaction

    def _stage(self, u: Unit, run_id: str, stage: str) -> StageRow:
        row = u.c.execute(
            sa.select(t.stages).where(t.stages.c.run_id == run_id, t.stages.c.stage == stage)
        ).one_or_none()
        if row is None:
            raise ConflictError(f"run {run_id} has no stage {stage}", fix="gtft runs list")
        return StageRow(**row._mapping)

    def _add_event(
        self, u: Unit, run_id: str, stage: str | None, kind: str, actor: str, text: str
    ) -> None:
        u.c.execute(
            sa.insert(t.events).values(
                run_id=run_id,
                seq=_next_seq(u.c, t.events, run_id),
                stage=stage,
                kind=kind,
                actor=actor,
                text=text,
                created_us=self.now_us(),
                unit=u.id,
            )
        )

    def _add_messages(self, u: Unit, run_id: str, messages: tuple[Message, ...]) -> None:
        first = _next_seq(u.c, t.outbox, run_id)
        for n, m in enumerate(messages):
            u.c.execute(
                sa.insert(t.outbox).values(
                    run_id=run_id,
                    seq=first + n,
                    kind=m.kind,
                    payload=_dump(m.payload),
                    tries=0,
                    last_error="",
                    created_us=self.now_us(),
                )
            )

    def _add_artifact(self, u: Unit, row: ArtifactRow, parents: tuple[str, ...]) -> None:
        known = u.c.execute(sa.select(t.artifacts.c.id).where(t.artifacts.c.id == row.id)).first()
        if known is None:
            u.c.execute(
                sa.insert(t.artifacts).values(**{**row.__dict__, "summary": _dump(row.summary)})
            )
            for parent in sorted(set(parents)):
                u.c.execute(sa.insert(t.lineage).values(child=row.id, parent=parent))

    def _add_model(self, u: Unit, model: ModelRow) -> None:
        if u.c.execute(sa.select(t.models.c.id).where(t.models.c.id == model.id)).first():
            return
        last = u.c.execute(
            sa.select(sa.func.max(t.models.c.version)).where(t.models.c.role == model.role)
        ).scalar()
        u.c.execute(sa.insert(t.models).values(**{**model.__dict__, "version": (last or 0) + 1}))


def _same(run_id: str, stage: str, state: str, token: str | None) -> list[Any]:
    holder = t.stages.c.token.is_(None) if token is None else t.stages.c.token == token
    return [
        t.stages.c.run_id == run_id,
        t.stages.c.stage == stage,
        t.stages.c.state == state,
        holder,
    ]


def _taken(token: str) -> sa.Select[Any]:
    return sa.select(t.outbox).where(t.outbox.c.token == token, t.outbox.c.done_us.is_(None))


def _name_move(run_id: str, stage: str, frm: str, to: str, reason: str | None, actor: str) -> str:
    """The message of a version commit."""
    because = f", {reason}" if reason else ""
    return f"gtft {run_id}: {stage} {frm} → {to}{because} ({actor})"


def _next_seq(c: sa.Connection, table: sa.Table, run_id: str) -> int:
    last = c.execute(sa.select(sa.func.max(table.c.seq)).where(table.c.run_id == run_id)).scalar()
    return (last or 0) + 1


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _run(row: Any) -> Run:
    return Run(**{**row._mapping, "recipe": json.loads(row.recipe)})


def _event(row: Any) -> EventRow:
    return EventRow(**{k: v for k, v in row._mapping.items() if k != "unit"})


def _artifact(row: Any) -> ArtifactRow:
    return ArtifactRow(**{**row._mapping, "summary": json.loads(row.summary)})


def _outbox(row: Any) -> OutboxRow:
    keep = {k: v for k, v in row._mapping.items() if k not in ("token", "lease_until_us")}
    return OutboxRow(**{**keep, "payload": json.loads(row.payload)})
