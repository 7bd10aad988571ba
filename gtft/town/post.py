"""What the town is told: mail that stays, nudges, lines of the feed (gas-town.md section 4).

Each message has a mark (``run/number``) inside it, so that one sent by a runner that died before it could
note so is found again instead of being sent twice. A nudge leaves no trace and is not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from gtft.errors import TownError
from gtft.tool import Ran, run_tool
from gtft.town.locate import Town

SENDER = "gtft"
# The feed is a file that only grows; a line that may be there already is near its end.
FEED_TAIL_BYTES = 1024 * 1024


def send_mail(
    town: Town,
    environ: Mapping[str, str],
    *,
    to: str,
    subject: str,
    body: str,
    mark: str,
    again: bool,
) -> None:
    """Mail that is kept (no wisp). ``again``: an earlier try may have arrived. Raises TownError."""
    text = f"{body}\n\ngtft-id: {mark}"
    if again and _is_in_mail(town, environ, mark, to):
        return
    _succeed(
        run_tool(
            "gt", "mail", "send", f"--to={to}", f"--subject={subject}", "--stdin", "--permanent",
            f"--from={SENDER}", environ=environ, cwd=town.root, stdin=text,
        ),
        f"mail to {to}",
    )  # fmt: skip


def nudge(town: Town, environ: Mapping[str, str], *, to: str, text: str) -> bool:
    """A line to a running agent. False when nobody runs there: a nudge is for those who are awake."""
    done = run_tool(
        "gt", "nudge", f"--message={text}", "--", to.rstrip("/"), environ=environ, cwd=town.root
    )
    return done.code == 0


def emit_event(
    town: Town,
    environ: Mapping[str, str],
    *,
    kind: str,
    actor: str,
    rig: str,
    bead: str,
    text: str,
    mark: str,
    again: bool,
) -> None:
    """A line of the town's feed. Raises TownError."""
    if again and _is_in_feed(town, mark):
        return
    _succeed(
        run_tool(
            "gt", "activity", "emit", kind, f"--actor={actor}", f"--rig={rig}", f"--issue={bead}",
            f"--message={text}", f"--reason={mark}", environ=environ, cwd=town.root,
        ),
        f"feed event {kind}",
    )  # fmt: skip


def _is_in_mail(town: Town, environ: Mapping[str, str], mark: str, to: str) -> bool:
    done = run_tool(
        "bd", "list", "--all", "--json", "--limit=0", "--label=gt:message",
        f"--desc-contains=gtft-id: {mark}",
        environ={**environ, "BEADS_DIR": str(town.root / ".beads"), "BD_JSON_ENVELOPE": "1"},
        cwd=town.root,
    )  # fmt: skip
    _succeed(done, "looking for mail that was sent")
    try:
        found = json.loads(done.stdout)
    except ValueError as e:
        raise TownError("bd list did not answer in JSON", why=done.stdout[:200]) from e
    rows = found.get("data") or [] if isinstance(found, dict) else found
    return any(
        f"gtft-id: {mark}" in str(r.get("description")).splitlines()
        and str(r.get("assignee")).rstrip("/") == to.rstrip("/")
        for r in rows
    )


def _is_in_feed(town: Town, mark: str) -> bool:
    path = town.root / ".events.jsonl"
    if not path.is_file():
        return False
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - FEED_TAIL_BYTES))
        return any(f'"reason":"{mark}"'.encode() in line for line in f)


def _succeed(done: Ran, what: str) -> None:
    if done.code != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise TownError(
            f"{what} did not go out",
            why=said[0][:300] if said else f"{done.argv[0]} exited with {done.code}",
            fix="gtft doctor",
        )
