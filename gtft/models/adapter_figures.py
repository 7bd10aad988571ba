"""What the store knows of a training: the base, the adapter's shape, the loss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gtft.models.summary import Summary, read_summary
from gtft.records.rows import ArtifactRow

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class BaseFigures:
    """The base as the training recorded it. ``hub_id`` is None for a nano base and for a local folder."""

    name: str
    id: str
    hub_id: str | None
    revision: str | None
    quantization: str
    nano: bool


@dataclass(frozen=True)
class Drift:
    """What the training measured of the kept weights on general text: nats per token above the base's
    loss, and the KL to the base in nats per token (None of a full training). ``rows`` were read."""

    loss: float
    kl: float | None
    rows: int
    replayed: int


@dataclass(frozen=True)
class Measured:
    """Losses in nats per token at a step: on the rows kept out of training, and on general text."""

    step: int
    validation: float | None
    general: float | None
    # To the base, on general text; None of a full training.
    kl: float | None


@dataclass(frozen=True)
class AdapterFigures:
    """Losses in nats per supervised token (of sft; else what the method minimises); ``series`` is (step, loss),
    in steps' order. ``continues`` and ``stacks_on``: ids of the adapters it goes on from and lies on, "" for none."""

    id: str
    base: BaseFigures
    # None of a full training, which has no adapter
    rank: int | None
    alpha: float | None
    trainable: int
    files_bytes: int | None
    supervised: int
    context: int | None
    # rows that are trained on, and rows left out because no token of theirs would be
    rows: int
    empty_rows: int
    steps: int
    epochs: float
    loss_first: float
    loss_last: float
    series: tuple[tuple[float, float], ...]
    hyperparameters: dict[str, Any]
    method: str = "sft"
    continues: str = ""
    stacks_on: str = ""
    drift: Drift | None = None
    # Measurements during the training, in steps' order; step 0 is the base.
    measured: tuple[Measured, ...] = ()
    # The step whose weights were kept; None = the last one.
    kept_step: int | None = None
    stopped: str = ""
    # names of the members of its swarm, this one among them
    peers: tuple[str, ...] = ()

    @property
    def loss_unit(self) -> str:
        return "nats per trained token" if self.method == "sft" else f"the loss of {self.method}"


def read_adapter(row: ArtifactRow, nano: bool) -> AdapterFigures:
    """The figures of an adapter artifact. Raises EvidenceError for what must be there and is not."""
    s = read_summary(row)
    return AdapterFigures(
        id=row.id,
        base=_read_base(s.table("base"), nano),
        rank=s.find_count("adapter.r"),
        alpha=s.find_number("adapter.alpha"),
        trainable=s.count("adapter.trainable"),
        files_bytes=s.find_count("adapter.files_bytes"),
        supervised=s.count("tokens.supervised"),
        context=s.find_count("tokens.context"),
        rows=s.count("rows"),
        empty_rows=s.count("empty_rows"),
        steps=s.count("steps"),
        epochs=s.number("epochs"),
        loss_first=s.number("loss.first"),
        loss_last=s.number("loss.last"),
        series=_read_series(s),
        hyperparameters=dict(s.table("hyperparameters").data),
        method=s.find_text("hyperparameters.method") or "sft",
        continues=s.find_text("continues") or "",
        stacks_on=s.find_text("stacks_on") or "",
        drift=_read_drift(s),
        measured=tuple(_read_measured(s)),
        kept_step=s.find_count("retention.kept_step"),
        stopped=s.find_text("retention.stopped") or "",
        peers=tuple(str(m.get("name", "")) for m in s.array("swarm.members"))
        if s.has("swarm")
        else (),
    )


def _read_drift(s: Summary) -> Drift | None:
    """Of the measurement at the step whose weights were kept, else of the last one."""
    base = s.find_number("retention.base.general_loss")
    if base is None or not s.has("retention.measurements"):
        return None
    kept = s.find_count("retention.kept_step")
    measured = [m for m in s.array("retention.measurements") if m.get("general_loss") is not None]
    chosen = [m for m in measured if m.get("step") == kept] or measured[-1:]
    if not chosen:
        return None
    kl = chosen[0].get("general_kl")
    return Drift(
        loss=float(chosen[0]["general_loss"]) - base,
        kl=None if kl is None else float(kl),
        rows=s.find_count("retention.rows.general") or 0,
        replayed=s.find_count("retention.replayed_rows") or 0,
    )


def _read_measured(s: Summary) -> Iterator[Measured]:
    if not s.has("retention.measurements"):
        return
    for n, found in enumerate(s.array("retention.measurements")):
        if not isinstance(found, dict):
            raise s.refuse(f"retention.measurements[{n}]", "a table", found)
        row = Summary(f"{s.label}: retention.measurements[{n}]", found)
        yield Measured(
            row.count("step"),
            row.find_number("validation_loss"),
            row.find_number("general_loss"),
            row.find_number("general_kl"),
        )


def _read_base(s: Summary, nano: bool) -> BaseFigures:
    name, given = s.text("name"), s.find_text("path")
    # The training records a hub model's own id as its path; a folder is recorded as a path.
    hub = name if name == given and not nano and _HUB_ID.fullmatch(name) else None
    return BaseFigures(
        name=name,
        id=s.text("id"),
        hub_id=hub,
        revision=s.find_text("revision"),
        quantization=s.text("quantization"),
        nano=nano,
    )


def _read_series(s: Summary) -> tuple[tuple[float, float], ...]:
    points: list[tuple[float, float]] = []
    for n, pair in enumerate(s.array("loss.series")):
        if not isinstance(pair, list) or len(pair) != 2:
            raise s.refuse(f"loss.series[{n}]", "a step and a loss", pair)
        point = Summary(f"{s.label}: loss.series[{n}]", {"step": pair[0], "loss": pair[1]})
        points.append((point.number("step"), point.number("loss")))
    if not points:
        raise s.refuse("loss.series", "a series with points", points)
    return tuple(points)
