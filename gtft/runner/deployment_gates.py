"""What must hold before a model is put into service: every gate at once, each with its figure and the next command.

What the models' room knows (the eval, freshness) is handed in as plain `Facts`; the rest is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.errors import GateFailed, GtftError
from gtft.footprint import FLOOR, MARGIN, Shape, read_shape_of, shape_nano
from gtft.recipe.schema import Recipe
from gtft.records.ancestry import list_corpora
from gtft.records.governance import Governance
from gtft.records.rows import DeploymentRow, ModelRow
from gtft.runner.box import Box, say_size
from gtft.runner.workspace import Workspace
from gtft.service import Mode
from gtft.tool import find_tool
from gtft.town.agents import Agent

# What --force may pass: a judgement that somebody answers for. A fact is not argued with.
Kind = Literal["fact", "judgement", "withdrawn"]
# Of what the memory of a served base is made: 4-bit weights with their scales, as the evaluation loads it.
_NF4 = 0.5 + 1 / 64 + 4 / 16384
# The keys and values of this many tokens at a time.
_CONTEXT = 4096
# A model that is deployed may be deployed again: to another mode or place.
READY = ("approved", "deployed", "superseded")


@dataclass(frozen=True)
class Gate:
    """``told``: wanted and found, in words. ``warning``: it is said, and does not refuse."""

    name: str
    met: bool
    told: str
    fix: str = ""
    kind: Kind = "fact"
    warning: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What is known of the model. ``gates``: of its eval, as (name, told, met); ``safety``: passed and n.
    ``expired``: why, "" when it is fresh; ``since``: what the mode ``before`` showed, and what is missing there.
    ``harm``: its incidents that its eval did not ask; ``taken_back``: why a limit ended its newest deployment here."""

    gates: tuple[tuple[str, str, bool], ...]
    safety: tuple[int, int]
    fresh: str
    expired: str = ""
    before: Mode = "shadow"
    since: str = ""
    since_missing: str = ""
    harm: str = ""
    taken_back: str = ""


class GatesNotMet(GateFailed):
    """A refusal whose JSON form holds every gate, those that are met too."""

    def __init__(self, what: str, gates: Sequence[Gate], *, why: str, fix: str) -> None:
        super().__init__(what, why=why, fix=fix)
        self.gates = tuple(gates)

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "gates": [g.as_dict() for g in self.gates]}


def check_model(model: ModelRow, role: str, mode: Mode, facts: Facts) -> Iterator[Gate]:
    """Registered, approved, of the role that is asked for, not expired, good enough for the mode."""
    show, of = f"gtft model show {model.name}", f" {short_id(model.eval_id)}"
    yield Gate(
        "approved",
        model.status in READY or model.status == "expired",
        f"{model.name} is {model.status}",
        "gtft review list" if model.status == "candidate" else show,
    )
    yield Gate(
        "role",
        model.role == role,
        f"trained for {model.role}, asked for {role}",
        f"gtft deploy {model.name} --role {model.role}",
    )
    expired = facts.expired or ("its status is expired" if model.status == "expired" else "")
    yield Gate(
        "fresh",
        not expired,
        expired or facts.fresh,
        "train it again: gtft run RECIPE",
        "judgement",
        warning=bool(expired) and mode == "shadow",
    )
    unmet = [told for _, told, met in facts.gates if not met]
    shadow = mode == "shadow"
    yield Gate(
        "eval",
        not unmet,
        "; ".join(unmet) or f"{len(facts.gates)} of {len(facts.gates)} gates of its eval are met",
        f"gtft eval show{of}",
        "judgement",
        # In shadow nobody acts on its answers: that is what shadow is for.
        warning=bool(unmet) and shadow,
    )
    passed, n = facts.safety
    yield Gate(
        "safety",
        n > 0 and passed == n,
        f"{passed} of {n} safety items pass, every one must"
        if n
        else "its eval asked no safety item",
        f"gtft eval items --failed --capability safety{of}" if n else f"gtft eval show{of}",
        "judgement",
        warning=not (n > 0 and passed == n) and shadow,
    )
    troubles = "; ".join(filter(None, (facts.harm, facts.taken_back)))
    yield Gate(
        "incidents and rollbacks",
        not troubles,
        troubles or "no incident that its eval did not ask, and no limit took it back here",
        "train it again, whose eval asks what did harm: gtft run RECIPE"
        if facts.harm
        else f"gtft deploy {model.name} --role {role} --mode shadow",
        "judgement",
        warning=bool(troubles) and shadow,
    )
    if mode != "shadow":
        yield Gate(
            "mode before",
            not facts.since_missing,
            facts.since_missing or facts.since,
            f"gtft deploy {model.name} --role {role} --mode {facts.before}",
            "judgement",
        )


def check_withdrawals(ws: Workspace, model: ModelRow, accepted: str) -> Gate:
    """What was withdrawn since and is in its weights: refused, unless somebody says why not."""
    corpora = list_corpora(ws.store, model)
    withdrawn = Governance(ws.store).list_withdrawals()
    touched = [w for w in withdrawn if not corpora.keys().isdisjoint(w.touched)]
    if not touched:
        return Gate("withdrawals", True, "nothing that it was trained on was withdrawn")
    told = f"{len(touched)} withdrawals touch what it was trained on, and weights do not forget"
    through = {a for w in touched for c, a in corpora.items() if c in w.touched}
    if earlier := sorted(short_id(a) for a in through - {model.adapter_id}):
        told += f"; through the earlier adapter {', '.join(earlier)}"
    if accepted:
        told += f"; accepted: {accepted}"
    fix = 'train it again without; or --accept-withdrawn "why"'
    return Gate("withdrawals", bool(accepted), told, fix, "withdrawn")


def check_adapter(ws: Workspace, model: ModelRow) -> tuple[Gate, Artifact | None]:
    """Every file of the adapter, hashed again."""
    row = ws.store.find_artifact(model.adapter_id)
    fix = f"gtft model show {model.name}; then train it again"
    if row is None:
        return Gate("adapter", False, f"the store has no {short_id(model.adapter_id)}", fix), None
    try:
        path = ws.artifact_path(row.path)
        found = verify_artifact(path, kind="adapter", expect=model.adapter_id)
    except GtftError as e:
        return Gate("adapter", False, f"{e.what}: {e.why}", e.fix or fix), None
    size = sum(f.size for f in found.files)
    told = f"{short_id(found.id)}, {say_size(size)}, every hash as recorded"
    return Gate("adapter", True, told), found


def check_memory(
    ws: Workspace, model: ModelRow, recipe: Recipe, adapter: Artifact | None, box: Box
) -> Gate:
    """Whether this box can hold the base and the adapter; a server that holds them already is not asked here."""
    row = ws.store.find_artifact(model.adapter_id)
    base = row.summary.get("base") if row is not None else None
    if not isinstance(base, dict):
        return Gate("memory", True, "not known: its training recorded no base", warning=True)
    try:
        shape = _find_shape(ws, base, recipe)
    except GtftError as e:
        return Gate("memory", True, f"not known: {e.what}", warning=True)
    size = sum(f.size for f in adapter.files) if adapter is not None else 0
    need = int((estimate_serving(shape, str(base.get("quantization"))) + size) * MARGIN)
    free = max([box.free, *(g.free for g in box.gpus)])
    return Gate(
        "memory",
        need <= free,
        f"about {say_size(need)} to serve {base.get('name')}, {say_size(free)} free",
        "free some memory (gtft doctor); or serve it elsewhere: --endpoint URL",
    )


def estimate_serving(shape: Shape, quantization: str) -> int:
    """Bytes: the libraries, the weights, and the keys and values of one long prompt."""
    linear = _NF4 if quantization == "nf4" else shape.stored
    weights = shape.linear_parameters * linear + shape.other_parameters * shape.stored
    return int(FLOOR + weights + 2 * shape.layers * shape.keys * shape.stored * _CONTEXT)


def _find_shape(ws: Workspace, base: Mapping[str, Any], recipe: Recipe) -> Shape:
    if str(base.get("name", "")).startswith("nano"):
        n = recipe.base.nano
        return shape_nano(n.vocab, n.hidden, n.layers, n.heads)
    return read_shape_of(ws.path / str(base.get("path", "")))


def check_agent(agent: Agent, environ: Mapping[str, str]) -> Gate:
    """The program that is to run the model is there."""
    command = agent.command
    found = command if "/" in command and Path(command).is_file() else find_tool(command, environ)
    if found is None and command == "claude":
        # Where gt looks for it, too.
        local = Path(environ.get("HOME", "")) / ".claude" / "local" / "claude"
        found = local if local.is_file() else None
    told = f"{agent.name} is started as {command}" + ("" if found else ", which is not on PATH")
    return Gate("agent", found is not None, told, f"install {command}, or --agent NAME")


def find_lower(mode: Mode, *, advises: bool) -> Mode:
    """The mode whose figures must allow this one. ``advises``: there are directives that can tell a role to ask."""
    return "advise" if mode == "live" and advises else "shadow"


def find_since(
    before: DeploymentRow | None, lower: Mode, least: int, breach: str
) -> tuple[str, str]:
    """What the mode before showed: (told, "") when it is enough, else ("", what is missing)."""
    if before is None:
        return "", f"it was not in {lower} here"
    n = int(before.figures.get("decisions") or 0)
    if n < least:
        return "", f"{n} decisions in {before.mode}, at least {least} wanted"
    if breach:
        return "", f"in {before.mode}: {breach}"
    agreement = before.figures.get("agreement") or {}
    share = agreement.get("share")
    told = f", {share:.0%} agree with the agent" if isinstance(share, float | int) else ""
    return f"{n} decisions in {before.mode}{told}", ""


def refuse_unmet(gates: list[Gate], force: str) -> None:
    """Raises GatesNotMet that names every gate that is not met, unless ``force`` says why it may pass."""
    stops = [g for g in gates if not g.met and not g.warning]
    if force.strip():
        stops = [g for g in stops if g.kind != "judgement"]
    if not stops:
        return
    why = "".join(f"\n    {g.name}: {g.told}\n      next: {g.fix}" for g in stops)
    forced = all(g.kind == "judgement" for g in stops)
    raise GatesNotMet(
        f"{len(stops)} of {len(gates)} gates are not met: {', '.join(g.name for g in stops)}",
        gates,
        why=why,
        fix='the commands above; or --force "why", which is recorded' if forced else stops[0].fix,
    )
