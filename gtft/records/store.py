"""`Store`: the only speaker of SQL for the tables ``gtft_*``.

Every public method is one transaction. A change of state writes the row, its event and its outbox entries
together, so that nothing is announced that did not happen and nothing happens unannounced.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError

from gtft.errors import ConflictError, DiskFull, InputError
from gtft.records import tables as t
from gtft.records.migrations import migrate
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
    """gtft's records over one engine. ``now`` gives seconds since the epoch."""

    def __init__(self, engine: sa.Engine, now: Callable[[], float]) -> None:
        self._engine = engine
        self._now = now

    @property
    def url(self) -> str:
        return self._engine.url.render_as_string(hide_password=False)

    def now_us(self) -> int:
        return int(self._now() * 1_000_000)

    def migrate(self) -> int:
        """Create or upgrade the tables; returns the schema version."""
        with self._unit() as c:
            return migrate(c, self.now_us())

    # -- runs

    def add_run(self, run: Run, stages: tuple[StageRow, ...]) -> None:
        """A new run with its stages and its first event. Raises ConflictError when the id is taken."""
        with self._unit() as c:
            row = {**run.__dict__, "recipe": _dump(run.recipe)}
            c.execute(sa.insert(t.runs).values(**row))
            c.execute(sa.insert(t.stages), [dict(s.__dict__) for s in stages])
            self._add_event(c, run.id, None, "dispatched", run.actor, run.recipe_name)

    def set_beads(self, run_id: str, epic: str, beads: dict[str, str]) -> None:
        """Record the ids that the ledger gave to the run's beads (stage → id)."""
        with self._unit() as c:
            c.execute(sa.update(t.runs).where(t.runs.c.id == run_id).values(epic_bead=epic))
            for stage, bead_id in beads.items():
                c.execute(
                    sa.update(t.stages)
                    .where(t.stages.c.run_id == run_id, t.stages.c.stage == stage)
                    .values(bead_id=bead_id)
                )

    def find_run(self, run_id: str) -> Run | None:
        """By id, or by an unambiguous beginning of one."""
        with self._unit() as c:
            rows = c.execute(
                sa.select(t.runs).where(t.runs.c.id.startswith(run_id, autoescape=True)).limit(2)
            ).all()
        exact = [r for r in rows if r.id == run_id]
        if exact or len(rows) == 1:
            return _run((exact or rows)[0])
        return None

    def list_runs(self) -> list[Run]:
        """Newest first."""
        with self._unit() as c:
            rows = c.execute(sa.select(t.runs).order_by(t.runs.c.created_us.desc(), t.runs.c.id))
            return [_run(r) for r in rows]

    def set_desired(self, run_id: str, desired: str, actor: str, text: str = "") -> None:
        """What the operator wants of a run; who asked and why stays as an event."""
        with self._unit() as c:
            c.execute(sa.update(t.runs).where(t.runs.c.id == run_id).values(desired=desired))
            self._add_event(c, run_id, None, f"asked:{desired}", actor, text)

    def add_event(self, run_id: str, stage: str | None, kind: str, actor: str, text: str) -> None:
        with self._unit() as c:
            self._add_event(c, run_id, stage, kind, actor, text)

    def list_events(self, run_id: str) -> list[EventRow]:
        with self._unit() as c:
            rows = c.execute(
                sa.select(t.events).where(t.events.c.run_id == run_id).order_by(t.events.c.seq)
            )
            return [EventRow(**r._mapping) for r in rows]

    # -- stages

    def list_stages(self, run_id: str | None = None, state: str | None = None) -> list[StageRow]:
        """Of one run or of all, in order; only those in ``state`` when it is given."""
        query = sa.select(t.stages).order_by(t.stages.c.run_id, t.stages.c.position)
        if run_id is not None:
            query = query.where(t.stages.c.run_id == run_id)
        if state is not None:
            query = query.where(t.stages.c.state == state)
        with self._unit() as c:
            return [StageRow(**r._mapping) for r in c.execute(query)]

    def find_stage(self, run_id: str, stage: str) -> StageRow:
        with self._unit() as c:
            return self._stage(c, run_id, stage)

    def find_bead(self, bead_id: str) -> StageRow | None:
        """The stage that a bead stands for."""
        with self._unit() as c:
            row = c.execute(sa.select(t.stages).where(t.stages.c.bead_id == bead_id)).one_or_none()
        return StageRow(**row._mapping) if row else None

    def list_claimable(self, limit: int = 50) -> list[StageRow]:
        """Stages that stand at ready for nobody's decision, whose run is wanted and whose earlier stage
        was accepted; oldest run first."""
        now, before = t.stages.alias("now"), t.stages.alias("before")
        query = (
            sa.select(now)
            .join(t.runs, t.runs.c.id == now.c.run_id)
            .outerjoin(
                before,
                (before.c.run_id == now.c.run_id) & (before.c.position == now.c.position - 1),
            )
            .where(
                now.c.state == "ready",
                now.c.reason.is_(None),
                now.c.bead_id.is_not(None),
                t.runs.c.desired == "run",
                sa.or_(
                    before.c.run_id.is_(None),
                    (before.c.state == "done") & before.c.reason.is_(None),
                ),
            )
            .order_by(t.runs.c.created_us, now.c.run_id)
            .limit(limit)
        )
        with self._unit() as c:
            return [StageRow(**r._mapping) for r in c.execute(query)]

    def claim(
        self, row: StageRow, actor: str, token: str, lease_until_us: int, text: str
    ) -> StageRow | None:
        """Compare-and-set: take a stage that still is as ``row`` says. None when somebody was faster.

        ``row`` is ready (a claim) or active (a take-over of the lease that ``row`` shows). The write
        carries a token unique to the claimer and is believed only after COMMIT and a re-read
        (dolt.md section 6).
        """
        takeover = row.state == "active"
        with self._unit() as c:
            done = c.execute(
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
                self._add_event(c, row.run_id, row.stage, kind, actor, text)
        with self._unit() as c:
            seen = self._stage(c, row.run_id, row.stage)
        return seen if seen.token == token else None

    def renew(self, run_id: str, stage: str, token: str, lease_until_us: int) -> bool:
        """Push the lease forward. False when the token is not the holder's any more."""
        with self._unit() as c:
            done = c.execute(
                sa.update(t.stages)
                .where(*_same(run_id, stage, "active", token))
                .values(lease_until_us=lease_until_us)
            )
            return done.rowcount == 1

    def change(
        self,
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
        with self._unit() as c:
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
            if c.execute(sa.update(t.stages).where(*where).values(**values)).rowcount != 1:
                seen = self._stage(c, run_id, stage)
                raise ConflictError(
                    f"{stage} of {run_id} is {seen.state}, held by {seen.worker or 'nobody'}",
                    why=f"somebody moved it before it could go from {change.frm} to {change.to}",
                    fix=f"gtft runs show {run_id}",
                )
            if artifact is not None:
                self._add_artifact(c, artifact, parents)
            if model is not None:
                self._add_model(c, model)
            kind = change.to if change.reason is None else f"{change.to}:{change.reason}"
            self._add_event(c, run_id, stage, kind, change.actor, change.text)
            self._add_messages(c, run_id, change.messages)
            return self._stage(c, run_id, stage)

    # -- artifacts and models

    def find_artifact(self, artifact_id: str) -> ArtifactRow | None:
        with self._unit() as c:
            row = c.execute(sa.select(t.artifacts).where(t.artifacts.c.id == artifact_id)).first()
        return _artifact(row) if row else None

    def list_artifacts(self, kind: str | None = None) -> list[ArtifactRow]:
        query = sa.select(t.artifacts).order_by(t.artifacts.c.created_us)
        if kind is not None:
            query = query.where(t.artifacts.c.kind == kind)
        with self._unit() as c:
            return [_artifact(r) for r in c.execute(query)]

    def list_parents(self, artifact_id: str) -> list[str]:
        query = sa.select(t.lineage.c.parent).where(t.lineage.c.child == artifact_id)
        with self._unit() as c:
            return sorted(c.execute(query).scalars())

    def list_models(self) -> list[ModelRow]:
        query = sa.select(t.models).order_by(t.models.c.role, t.models.c.version)
        with self._unit() as c:
            return [ModelRow(**r._mapping) for r in c.execute(query)]

    # -- outbox

    def take_message(self, token: str, lease_until_us: int) -> OutboxRow | None:
        """The next undelivered message whose earlier ones of the same run are delivered, leased to
        ``token``; None when there is none to deliver now."""
        now = self.now_us()
        first = (
            sa.select(t.outbox.c.run_id, sa.func.min(t.outbox.c.seq).label("seq"))
            .where(t.outbox.c.done_us.is_(None))
            .group_by(t.outbox.c.run_id)
            .subquery()
        )
        query = (
            sa.select(t.outbox)
            .join(first, (t.outbox.c.run_id == first.c.run_id) & (t.outbox.c.seq == first.c.seq))
            .where(sa.or_(t.outbox.c.token.is_(None), t.outbox.c.lease_until_us < now))
            .order_by(t.outbox.c.created_us, t.outbox.c.run_id)
            .limit(1)
        )
        with self._unit() as c:
            row = c.execute(query).first()
            if row is None:
                return None
            c.execute(
                sa.update(t.outbox)
                .where(t.outbox.c.run_id == row.run_id, t.outbox.c.seq == row.seq)
                .values(token=token, lease_until_us=lease_until_us, tries=row.tries + 1)
            )
            return _outbox(row)

    def settle_message(self, row: OutboxRow, token: str, error: str | None) -> None:
        """Delivered (``error`` None), or to be tried again when its lease ends."""
        values: dict[str, Any] = {"last_error": error or ""}
        if error is None:
            values["done_us"] = self.now_us()
        with self._unit() as c:
            c.execute(
                sa.update(t.outbox)
                .where(
                    t.outbox.c.run_id == row.run_id,
                    t.outbox.c.seq == row.seq,
                    t.outbox.c.token == token,
                )
                .values(**values)
            )

    def list_messages(self, *, pending: bool, kind: str | None = None) -> list[OutboxRow]:
        done = t.outbox.c.done_us
        query = sa.select(t.outbox).where(done.is_(None) if pending else done.is_not(None))
        if kind is not None:
            query = query.where(t.outbox.c.kind == kind)
        with self._unit() as c:
            rows = c.execute(query.order_by(t.outbox.c.created_us, t.outbox.c.seq))
            return [_outbox(r) for r in rows]

    # -- inside a transaction

    def _stage(self, c: sa.Connection, run_id: str, stage: str) -> StageRow:
        row = c.execute(
            sa.select(t.stages).where(t.stages.c.run_id == run_id, t.stages.c.stage == stage)
        ).one_or_none()
        if row is None:
            raise ConflictError(f"run {run_id} has no stage {stage}", fix="gtft runs list")
        return StageRow(**row._mapping)

    def _add_event(
        self, c: sa.Connection, run_id: str, stage: str | None, kind: str, actor: str, text: str
    ) -> None:
        c.execute(
            sa.insert(t.events).values(
                run_id=run_id,
                seq=_next_seq(c, t.events, run_id),
                stage=stage,
                kind=kind,
                actor=actor,
                text=text,
                created_us=self.now_us(),
            )
        )

    def _add_messages(self, c: sa.Connection, run_id: str, messages: tuple[Message, ...]) -> None:
        first = _next_seq(c, t.outbox, run_id)
        for n, m in enumerate(messages):
            c.execute(
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

    def _add_artifact(self, c: sa.Connection, row: ArtifactRow, parents: tuple[str, ...]) -> None:
        known = c.execute(sa.select(t.artifacts.c.id).where(t.artifacts.c.id == row.id)).first()
        if known is None:
            c.execute(
                sa.insert(t.artifacts).values(**{**row.__dict__, "summary": _dump(row.summary)})
            )
            for parent in sorted(set(parents)):
                c.execute(sa.insert(t.lineage).values(child=row.id, parent=parent))

    def _add_model(self, c: sa.Connection, model: ModelRow) -> None:
        if c.execute(sa.select(t.models.c.id).where(t.models.c.id == model.id)).first():
            return
        last = c.execute(
            sa.select(sa.func.max(t.models.c.version)).where(t.models.c.name == model.name)
        ).scalar()
        c.execute(sa.insert(t.models).values(**{**model.__dict__, "version": (last or 0) + 1}))

    @contextmanager
    def _unit(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as c, c.begin():
                yield c
        except IntegrityError as e:
            raise ConflictError(
                "the store already holds that row", why=str(e.orig), fix="gtft status"
            ) from e
        except DatabaseError as e:
            if "disk is full" in str(e.orig):
                raise DiskFull(
                    "the disk is full while writing the store",
                    why="the change was rolled back; nothing was lost",
                    fix="free some space, then run the command again",
                ) from e
            raise InputError("the store cannot be used", why=str(e.orig), fix="gtft doctor") from e


def _same(run_id: str, stage: str, state: str, token: str | None) -> list[Any]:
    holder = t.stages.c.token.is_(None) if token is None else t.stages.c.token == token
    return [
        t.stages.c.run_id == run_id,
        t.stages.c.stage == stage,
        t.stages.c.state == state,
        holder,
    ]


def _next_seq(c: sa.Connection, table: sa.Table, run_id: str) -> int:
    last = c.execute(sa.select(sa.func.max(table.c.seq)).where(table.c.run_id == run_id)).scalar()
    return (last or 0) + 1


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _run(row: Any) -> Run:
    return Run(**{**row._mapping, "recipe": json.loads(row.recipe)})


def _artifact(row: Any) -> ArtifactRow:
    return ArtifactRow(**{**row._mapping, "summary": json.loads(row.summary)})


def _outbox(row: Any) -> OutboxRow:
    keep = {k: v for k, v in row._mapping.items() if k not in ("token", "lease_until_us")}
    return OutboxRow(**{**keep, "payload": json.loads(row.payload)})
