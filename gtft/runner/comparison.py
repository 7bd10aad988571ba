"""The end of a comparison by beads: from then on every bead goes to the model."""

from __future__ import annotations

from gtft.records.deployments import Deployments
from gtft.records.rows import DeploymentRow, Message
from gtft.runner.switch import put_routes, read_journal, write_journal
from gtft.runner.switch_lock import lock_deploy
from gtft.runner.workspace import Workspace


def end_comparison(
    ws: Workspace, row: DeploymentRow, *, actor: str, why: str, messages: tuple[Message, ...] = ()
) -> bool:
    """No bead of a live deployment stays with the previous agent any more; False when it is not in service now.

    The server first, the store and ``messages`` last: cut off in between, the same again brings it to its end. Raises
    ConflictError while a switch is made.
    """
    rows = Deployments(ws.store)
    with lock_deploy(ws.path):
        journal = read_journal(ws.path, row.role, row.rig)
        now = rows.find(row.id)
        if journal is None or now is None or now.state != "active":
            return False
        if journal.deployment != now.id or journal.state != "active":
            return False
        route = journal.route.model_copy(update={"ab_share": 0.0})
        write_journal(ws.path, journal.model_copy(update={"route": route}))
        put_routes(ws.path)
        rows.activate(
            now.id,
            detail={**now.detail, "ab_share": 0.0},
            ended={},
            statuses={},
            actor=actor,
            text=f"{now.id}: the comparison by beads has ended: {why}",
            messages=messages,
        )
    return True
