"""What goes into a corpus: consent, scope, withdrawals, incidents and selection, asked in this order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gtft.contract import Governance, Withdrawal
from gtft.corpus.governance.consent import Allowed, Refusal, check_scope, decide
from gtft.corpus.governance.row import Row
from gtft.corpus.governance.select import Selection
from gtft.corpus.governance.withdrawal import Withdrawals


class Admission:
    """One harvest's rules. ``scope`` and ``role`` are the recipe's, ``key`` the workspace's redaction key, ``harmful``
    the sessions that eval items were made of because a model did harm in them.

    Raises InputError when the scope names a rig whose data the run may not use.
    """

    def __init__(
        self,
        governance: Governance,
        scope: Sequence[str],
        role: str,
        selection: Selection,
        key: bytes,
        harmful: frozenset[str] = frozenset(),
    ) -> None:
        own, given, today = governance.own, governance.consents, governance.today
        check_scope(own, scope, given, today, role)
        self._selection = selection
        self._withdrawals = Withdrawals(governance.withdrawals, key)
        self._harm = Withdrawals((Withdrawal(kind="session", who=s) for s in harmful), key)
        self._ask = partial(decide, own=own, scope=scope, consents=given, today=today, purpose=role)
        self._verdicts: dict[str | None, Allowed | Refusal] = {}

    def refuse_rig(self, rig: str | None) -> str:
        """Why a file of this rig must not be opened; "" when it may."""
        verdict = self._verdicts.get(rig)
        if verdict is None:
            verdict = self._verdicts[rig] = self._ask(rig)
        return verdict.reason if isinstance(verdict, Refusal) else ""

    def describe(self) -> list[dict[str, Any]]:
        """Each rig that was asked about, whether it may be used, and why: for the manifest."""
        return [
            {
                "rig": rig,
                "used": isinstance(verdict, Allowed),
                "why": verdict.why if isinstance(verdict, Allowed) else verdict.reason,
            }
            for rig, verdict in sorted(self._verdicts.items(), key=lambda x: x[0] or "")
            if rig
        ]

    def refuse(self, row: Row) -> str:
        """Why an example stays out; "" when it goes in."""
        return (
            self.refuse_rig(row.rig)
            or self._withdrawals.covers(row)
            or (self._harm.covers(row) and "an incident's item was made of it")
            or self._selection.admits(row)
        )
