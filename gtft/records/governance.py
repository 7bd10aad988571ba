"""Consents and withdrawals in the store, and what was made from a corpus.

Rows are added and never taken away: a consent that is revoked stays, with who revoked it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from gtft.records import tables as t
from gtft.records.rows import ArtifactRow, ConsentRow, ModelRow, WithdrawalRow
from gtft.records.store import Store
from gtft.records.unit import Unit, as_unit


class Governance:
    """Speaks for ``gtft_consents`` and ``gtft_withdrawals`` over the units of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.units = store.units

    @as_unit
    def add_consent(self, u: Unit, row: ConsentRow) -> None:
        """Record what a rig agreed to; a row that is there already (a unit that was run again) stays."""
        u.note(f"gtft: consent of rig {row.rig} ({row.actor})", row.actor)
        if u.c.execute(sa.select(t.consents.c.id).where(t.consents.c.id == row.id)).first() is None:
            u.c.execute(sa.insert(t.consents).values(**row.__dict__))

    @as_unit
    def revoke_consents(self, u: Unit, rig: str, actor: str) -> None:
        """Revoke whatever stands of a rig."""
        u.note(f"gtft: consent of rig {rig} revoked ({actor})", actor)
        standing = (t.consents.c.rig == rig, t.consents.c.revoked_us.is_(None))
        values = {"revoked_us": self.store.now_us(), "revoked_by": actor}
        u.c.execute(sa.update(t.consents).where(*standing).values(**values))

    @as_unit
    def list_consents(self, u: Unit, *, standing: bool = False) -> list[ConsentRow]:
        """Oldest first; only those that nobody revoked when ``standing``. Their last days are not looked at."""
        query = sa.select(t.consents).order_by(t.consents.c.created_us, t.consents.c.id)
        if standing:
            query = query.where(t.consents.c.revoked_us.is_(None))
        return [ConsentRow(**r._mapping) for r in u.c.execute(query)]

    @as_unit
    def add_withdrawal(self, u: Unit, row: WithdrawalRow) -> bool:
        """Record a withdrawal; False when it stood in the register before (its touched corpora grow)."""
        u.note(f"gtft: withdrawal {row.id} of one {row.kind} ({row.actor})", row.actor)
        where = t.withdrawals.c.id == row.id
        found = u.c.execute(sa.select(t.withdrawals).where(where)).first()
        if found is None:
            values = {**row.__dict__, "touched": json.dumps(sorted(row.touched))}
            u.c.execute(sa.insert(t.withdrawals).values(**values))
            return True
        touched = json.dumps(sorted({*json.loads(found.touched), *row.touched}))
        u.c.execute(sa.update(t.withdrawals).where(where).values(touched=touched))
        return False

    @as_unit
    def list_withdrawals(self, u: Unit) -> list[WithdrawalRow]:
        """Oldest first."""
        rows = u.c.execute(
            sa.select(t.withdrawals).order_by(t.withdrawals.c.created_us, t.withdrawals.c.id)
        )
        return [_withdrawal(r) for r in rows]

    @as_unit
    def list_made_from(
        self, u: Unit, corpora: Collection[str]
    ) -> tuple[list[ArtifactRow], list[ModelRow]]:
        """The adapters that descend from these corpora, over any number of steps, and the models that
        were registered with one of them."""
        seen, front = set(corpora), set(corpora)
        while front:
            query = sa.select(t.lineage.c.child).where(t.lineage.c.parent.in_(sorted(front)))
            front = set(u.c.execute(query).scalars()) - seen
            seen |= front
        of = t.artifacts.c.id.in_(sorted(seen)) & (t.artifacts.c.kind == "adapter")
        adapters = u.c.execute(sa.select(t.artifacts).where(of).order_by(t.artifacts.c.created_us))
        found = [ArtifactRow(**{**r._mapping, "summary": json.loads(r.summary)}) for r in adapters]
        ids = sorted(seen)
        either = t.models.c.corpus_id.in_(ids) | t.models.c.adapter_id.in_([a.id for a in found])
        models = u.c.execute(sa.select(t.models).where(either).order_by(t.models.c.created_us))
        return found, [ModelRow(**r._mapping) for r in models]


def make_withdrawal_id(kind: str, who: str) -> str:
    """The same withdrawal has the same id, so that it stands in the register once."""
    return hashlib.sha256(f"{kind}\0{who}".encode()).hexdigest()[:12]


def _withdrawal(row: Any) -> WithdrawalRow:
    return WithdrawalRow(**{**row._mapping, "touched": tuple(json.loads(row.touched))})
