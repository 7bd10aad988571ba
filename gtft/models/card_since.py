"""The second part of a card: what has happened to a model since its card was written, as the store has it now.

The card itself is an artifact and stays as it was; this part says when it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gtft.artifact import short_id
from gtft.markdown import bullets, code, plain, prose, table
from gtft.models.freshness import Freshness
from gtft.models.lineage import Story
from gtft.models.people import format_time
from gtft.models.summary import Summary, read_summary
from gtft.records.rows import ArtifactRow, DeploymentRow, ModelRow

SINCE, SINCE_DATA = "SINCE.md", "since.json"
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Since:
    """``at_us`` is when it was asked for; ``newer`` are later models of the role, oldest first."""

    story: Story
    freshness: Freshness
    newer: tuple[ModelRow, ...]
    at_us: int

    @property
    def model(self) -> ModelRow:
        return self.story.lineage.model


@dataclass(frozen=True)
class Export:
    """An export's summary; a figure that its maker did not record is None."""

    id: str
    format: str
    bytes: int | None
    kl_mean: float | None
    kl_max: float | None
    top1: float | None
    equal: int | None
    prompts: int | None
    verified: bool
    runtime: str

    @property
    def greedy(self) -> str:
        if self.equal is None or self.prompts is None:
            return _UNKNOWN
        return f"{self.equal} of {self.prompts}"


def read_export(row: ArtifactRow) -> Export:
    """Raises EvidenceError for a figure of another kind than a card can state."""
    s = read_summary(row)
    return Export(
        id=row.id,
        format=" ".join(t for k in ("format", "dtype") if (t := s.find_text(k))) or _UNKNOWN,
        bytes=s.find_count("bytes"),
        kl_mean=s.find_number("kl_mean"),
        kl_max=s.find_number("kl_max"),
        top1=s.find_number("top1_agreement"),
        equal=s.find_count("greedy_equal") if not isinstance(row.summary.get("greedy_equal"), bool)
        else None,
        prompts=s.find_count("greedy_prompts"),
        verified=row.summary.get("verified") is True,
        runtime=_read_runtime(s),
    )  # fmt: skip


def _read_runtime(s: Summary) -> str:
    value = s.data.get("runtime")
    return plain(value) if value else _UNKNOWN


def write_since(since: Since) -> str:
    """Markdown. The same store at the same time gives the same text."""
    m, story = since.model, since.story
    parts = [
        f"# {prose(m.name)} since its card",
        f"As the store had it on {format_time(since.at_us)}. The card is of {format_time(m.created_us)} and stays as it was "
        f"({code(m.card_id)}).",
        bullets(list(_list_state(since))),
        "## Withdrawals",
        _write_withdrawals(story),
        "## Freshness",
        _write_freshness(since.freshness),
        "## Exports",
        _write_exports([read_export(e) for e in story.exports]),
        "## Deployments",
        *_write_deployments(story),
        "## Incidents",
        _write_incidents(story),
    ]
    return "\n\n".join(parts) + "\n"


def describe_since(since: Since) -> dict[str, Any]:
    """The same as JSON."""
    m, story, fresh = since.model, since.story, since.freshness
    return {
        "model": m.name,
        "asked": format_time(since.at_us),
        "card": m.card_id,
        "status": m.status,
        "version": m.version,
        "aliases": [{"name": a.name, "pin": a.pin} for a in story.aliases],
        "newer": [{"model": n.name, "version": n.version, "status": n.status} for n in since.newer],
        "withdrawals": [
            {"id": w.id, "kind": w.kind, "at": format_time(w.created_us)} for w in story.withdrawals
        ],
        "freshness": {
            "expired": fresh.expired,
            "reasons": list(fresh.reasons),
            "age_days": round(fresh.age_days, 2),
            "max_age_days": fresh.max_age_days,
            "drift": None if fresh.drift is None else round(fresh.drift.share, 4),
            "max_drift": fresh.max_drift,
            "changed": list(fresh.drift.changed) if fresh.drift else [],
            "unknown": fresh.unknown,
        },
        "exports": [{"id": e.id, **e.summary} for e in story.exports],
        "deployments": [
            {
                "id": d.id,
                "role": d.role,
                "rig": d.rig,
                "mode": d.mode,
                "state": d.state,
                "reason": d.reason,
                "since": format_time(d.created_us),
                "ended": format_time(d.ended_us) if d.ended_us else None,
                "figures": d.figures,
            }
            for d in story.deployments
        ],
        "incidents": [
            {"id": i.id, "title": i.title, "bead": i.bead_id, "at": format_time(i.created_us)}
            for i in story.incidents
        ],
    }


def _list_state(since: Since) -> Iterator[str]:
    m = since.model
    yield f"status: **{prose(m.status)}**, version {m.version} of the role {prose(m.role)}"
    for a in since.story.aliases:
        yield f"alias {code(a.name)}" + (f", pinned: {prose(a.pin)}" if a.pin else "")
    if since.newer:
        names = ", ".join(f"{code(n.name)} ({prose(n.status)})" for n in since.newer)
        yield f"later models of the role: {names}"
    gone = [a.kind for a in since.story.lineage.artifacts if a.id in since.story.pruned]
    if gone:
        yield f"bytes removed, by intention, of: {', '.join(gone)}"


def _write_withdrawals(story: Story) -> str:
    if not story.withdrawals:
        return "Nothing that it was trained on has been withdrawn."
    rows = [[code(w.id), prose(w.kind), format_time(w.created_us)] for w in story.withdrawals]
    return "\n\n".join(
        [
            "Withdrawn since from a corpus that it, or an adapter that it goes on from or lies on, was trained on. **What it "
            "learnt from that is not unlearned**; a training without it is a new model.",
            # Who withdrew is nobody's business but theirs.
            table(("withdrawal", "of one", "on"), rows),
        ]
    )


def _write_freshness(f: Freshness) -> str:
    allowed = f", allowed {f.max_age_days:g}" if f.max_age_days else ", no limit"
    told = [f"age: {f.age_days:.0f} days{allowed}"]
    if f.drift is None:
        told.append(f"what the town works by: not compared, {prose(f.unknown)}")
    else:
        limit = f"expires at {_percent(f.max_drift)}" if f.max_drift < 1 else "no limit"
        told.append(
            f"what the town works by (formulas, commands, directives): {len(f.drift.changed)} of {f.drift.of} changed "
            f"({_percent(f.drift.share)}, {limit})"
        )
        told += [prose(line) for line in f.drift.told]
    word = f"**Expired**: {prose('; '.join(f.reasons))}." if f.expired else "Not expired."
    return f"{word}\n\n{bullets(told)}"


def _write_exports(exports: list[Export]) -> str:
    if not exports:
        return "None."
    rows = [
        [
            prose(e.format),
            code(short_id(e.id)),
            _UNKNOWN if e.bytes is None else _say_size(e.bytes),
            _nats(e.kl_mean),
            _nats(e.kl_max),
            _UNKNOWN if e.top1 is None else f"{100 * e.top1:.1f} %",
            e.greedy,
            "yes" if e.verified else "**no**",
            prose(e.runtime),
        ]
        for e in exports
    ]
    columns = (
        "format",
        "id",
        "size",
        "KL",
        "most",
        "same token",
        "same answer",
        "verified",
        "on",
    )
    told = (
        "Measured against the trained model on fixed prompts: KL in nats per token (mean, and the most of one token), the "
        "share of places where the likeliest token is the same, and how many greedy answers are the same to the end."
    )
    return f"{told}\n\n{table(columns, rows, numeric=range(2, 7))}"


def _write_deployments(story: Story) -> Iterator[str]:
    if not story.deployments:
        yield "Never deployed."
        return
    rows = [
        [
            code(d.id),
            prose(d.role) + (f" of {prose(d.rig)}" if d.rig else ""),
            d.mode,
            _tell_state(d),
            format_time(d.created_us),
            format_time(d.ended_us) if d.ended_us else "–",
        ]
        for d in story.deployments
    ]
    yield table(("deployment", "role", "mode", "state", "since", "until"), rows)
    for d in story.deployments:
        figures = [[prose(k), v] for k, v in _flatten(d.figures)]
        if figures:
            yield f"{code(d.id)}, as last measured on {format_time(d.updated_us)}:"
            yield table(("figure", "value"), figures, numeric=(1,))


def _tell_state(d: DeploymentRow) -> str:
    return f"{d.state}: {prose(d.reason)}" if d.reason else d.state


def _write_incidents(story: Story) -> str:
    if not story.incidents:
        return "None was opened."
    rows = [
        [
            code(i.id),
            format_time(i.created_us),
            prose(i.title),
            code(i.bead_id) if i.bead_id else "–",
            "added to the suite" if i.item else "none",
        ]
        for i in story.incidents
    ]
    return table(("incident", "on", "what", "bead", "safety item"), rows)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves as ``a: b`` → value; a share with its n in one row; what was never seen is said to be."""
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and {"hits", "n", "share"} <= set(value):
            yield name, _tell_share(value)
        elif isinstance(value, dict):
            yield from _flatten(value, f"{name}: ")
        elif value is None:
            yield name, "not known"
        elif isinstance(value, float):
            yield name, f"{value:g}"
        elif isinstance(value, str | int):
            yield name, prose(value)


def _tell_share(v: Mapping[str, Any]) -> str:
    told = f"{_percent(v['share'])} ({v['hits']} of {v['n']})"
    if isinstance(v.get("low"), int | float) and isinstance(v.get("high"), int | float):
        told += f", {_percent(v['low'])[:-2]}–{_percent(v['high'])}"
    return told


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _nats(value: float | None) -> str:
    # Two digits of whatever size: a good export's is a millionth, and 0 would be another claim.
    return _UNKNOWN if value is None else f"{value:.2g}"


def _say_size(size: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"
