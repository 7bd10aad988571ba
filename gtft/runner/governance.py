"""What a harvest must know of the store: the run's own rig, consents, withdrawals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from gtft.contract import EVERY_RIG, Consent, Governance, Withdrawal
from gtft.records import governance as records
from gtft.records.deployments import Deployments
from gtft.runner.workspace import Workspace
from gtft.service import read_answers

_RIG_AGENTS = frozenset({"witness", "refinery", "polecats", "crew"})


def gather_governance(ws: Workspace, actor: str, scope: Sequence[str]) -> Governance:
    """As it stands now, as plain data for the worker. ``actor`` dispatched the run."""
    store = records.Governance(ws.store)
    return Governance(
        own=find_own_rig(ws, actor, scope),
        today=datetime.fromtimestamp(ws.now(), UTC).strftime("%Y-%m-%d"),
        rigs=tuple(r.name for r in ws.home.town.rigs) if ws.home is not None else (),
        consents=tuple(
            Consent(rig=c.rig, until=c.until, purpose=c.purpose)
            for c in store.list_consents(standing=True)
        ),
        withdrawals=tuple(
            Withdrawal.model_validate({"kind": w.kind, "who": w.who})
            for w in store.list_withdrawals()
        ),
        own_models=_count_generations(ws),
        served=_find_served(ws),
    )


def _find_served(ws: Workspace) -> dict[str, str]:
    """Session → the model that answered in it, for every live deployment that ever was."""
    names = {m.id: m.name for m in ws.store.list_models()}
    return {
        a.session: names[d.model_id]
        for d in Deployments(ws.store).list_deployments()
        if d.mode == "live" and d.model_id in names
        for a in read_answers(ws.path, d.id)
        if a.took == "model" and a.session
    }


def _count_generations(ws: Workspace) -> dict[str, int]:
    models = sorted(ws.store.list_models(), key=lambda m: (m.created_us, m.id))
    of_role: Counter[str] = Counter()
    out: dict[str, int] = {}
    for m in models:
        of_role[m.role] += 1
        out[m.name] = of_role[m.role]
    return out


def find_own_rig(ws: Workspace, actor: str, scope: Sequence[str]) -> str:
    """The rig of the agent who dispatched the run; for people, the mayor and the agents of gtft's own
    rig the first that the scope names, if any. A workspace without a town has one owner: where the scope
    is empty too, every rig."""
    if not scope and ws.home is None:
        return EVERY_RIG
    parts = actor.strip("/").split("/")
    home = ws.home.rig.name if ws.home is not None else ""
    if len(parts) > 1 and parts[1] in _RIG_AGENTS and parts[0] != home:
        return parts[0]
    return scope[0].removeprefix("rig:") if scope else ""
