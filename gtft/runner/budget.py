"""What a training will need: tokens, updates, time, memory and disk, and what would help where it is too much.

Speed is, in this order, what a probe measured, what runs of this base took here, or the shape's arithmetic, which
is rough. Memory is what this recipe took here, what a probe measured, or `gtft.footprint`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gtft.footprint import (
    MARGIN,
    Shape,
    count_mapped,
    estimate_memory,
    fits_without_checkpointing,
)
from gtft.recipe.load import plan_load
from gtft.recipe.schema import Recipe, Train
from gtft.runner.box import Box, say_count, say_size
from gtft.runner.past import Past
from gtft.runner.volume import Volume

# Parameters times tokens a second that a core does with NF4 and bfloat16, and what a layer costs besides.
CORE_SPEED = 2.2e10
LAYER_SECONDS = 0.015
# Recomputing the forward pass adds about this share of a step.
CHECKPOINTING_COSTS = 0.35
# A forward pass without gradients, as a share of a training step.
FORWARD_COSTS = 0.33
# Imports, loading and writing the adapter, on a box where nobody else computes.
START_SECONDS = 12.0
# Tokens that nano reads in a step of its own training (gtft.training.pretrain), at this multiple of the cost.
_NANO_STEP_TOKENS, _NANO_COSTS = 1024, 2.0
# Tokenizer, states and manifest of a checkpoint.
_SMALL_FILES = 2_000_000
_GENERAL_TOKENS = 200
_SHORTEST_ROW = 128
_SMALLEST_RANK = 4


@dataclass(frozen=True)
class Probe:
    """What a probe measured: seconds of a step = ``start`` + ``per_token`` · tokens; ``peak``: bytes."""

    start: float
    per_token: float
    peak: int
    checkpoint: int
    longest: int
    checkpointing: bool


def read_probe(found: dict[str, Any]) -> Probe:
    """From what the probe worker said: a straight line through its timings."""
    points = [(float(n), float(s)) for n, s in found["timings"]]
    start, per_token = _draw_line(points)
    return Probe(
        start,
        per_token,
        int(found["peak"]),
        int(found["checkpoint"]),
        int(found["longest"]),
        bool(found["checkpointing"]),
    )


def _draw_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(start, slope) by least squares, neither below 0."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    start = mean_y - slope * mean_x
    if slope <= 0 or start < 0:
        return 0.0, mean_y / mean_x
    return start, slope


@dataclass(frozen=True)
class Plan:
    """``tokens``: those of all updates; ``seconds``: of the train stage; ``memory``: the worker's peak; ``disk``:
    checkpoints and adapter, bytes. None = not known. ``sources``: where each figure is from; ``rough``: names of
    figures that may be off by a factor. ``checkpointing``: what "auto" becomes here."""

    rows: int
    updates: int
    tokens: int
    seconds: float | None
    memory: int | None
    disk: int | None
    checkpointing: bool
    sources: dict[str, str]
    rough: tuple[str, ...]
    # Seconds of one update; None = not known.
    pace: float | None = None
    # Weights that are read from their file in every step: the kernel can drop them, but not for good.
    mapped: int = 0
    measured: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def need(self) -> int | None:
        """Bytes that must be free: an estimate may be too low, a measured peak is what it is."""
        if self.memory is None:
            return None
        return (self.memory if self.measured else int(self.memory * MARGIN)) + self.mapped


@dataclass(frozen=True)
class Remedy:
    """What would help: ``how`` is what to type (``--set …``, a command), ``text`` the figure it gives."""

    how: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """``word``: fits, fits if, does not fit, not known. ``lacks``: what is short, in words."""

    word: str
    lacks: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()


@dataclass(frozen=True)
class Given:
    """What a plan is made from. ``shape`` None: the base's shape is not known; ``gpu``: bytes of the card's
    free memory, None without one; ``free``: bytes that a training may take, the headroom taken off."""

    recipe: Recipe
    shape: Shape | None
    volume: Volume
    pasts: tuple[Past, ...]
    same: tuple[Past, ...]
    box: Box
    free: int
    gpu: int | None = None
    probe: Probe | None = None


def plan_training(given: Given) -> Plan:
    """The plan of a recipe's train stage on this box."""
    train = given.recipe.train
    volume = given.volume
    per_update = train.batch * train.accumulation * train.processes
    packs = train.packing == "on" or (train.packing == "auto" and given.gpu is not None)
    units = volume.rows
    if packs and train.method == "sft":
        units = max(1, math.ceil(volume.tokens / train.max_length))
    updates = train.max_steps or max(1, math.ceil(train.epochs * units / per_update))
    if train.engine == "swarm":
        # As many as lead to its last round, whatever the corpus.
        updates = train.swarm.every * train.swarm.rounds
    tokens = round(updates * per_update * volume.tokens / units)
    checkpointing = _settle_checkpointing(given)
    sources = {"tokens": volume.source}
    rough = ["tokens"] if volume.rough else []
    memory, sources["memory"], measured = _plan_memory(given, train, checkpointing)
    work, sources["time"], loose = _plan_work(given, tokens, updates, checkpointing)
    base, built = _plan_base(given)
    sources["time"] += built
    if loose or (volume.rough and not train.max_steps):
        rough.append("time")
    disk, sources["disk"] = _plan_disk(given, train)
    return Plan(
        rows=volume.rows,
        updates=updates,
        tokens=tokens,
        seconds=None if work is None else work + base + _plan_start(given),
        memory=memory,
        disk=disk,
        checkpointing=checkpointing,
        sources=sources,
        rough=tuple(rough),
        pace=None if work is None else work / updates,
        mapped=_count_mapped(given),
        measured=measured,
    )


def _settle_checkpointing(given: Given) -> bool:
    wanted = given.recipe.train.gradient_checkpointing
    if wanted != "auto":
        return wanted == "on"
    if given.probe is not None:
        return given.probe.checkpointing
    if given.gpu is not None:
        return True
    if given.shape is None:
        return False
    load = plan_load(
        given.recipe.base, given.recipe.train, gpu=False, checkpointing=False,
        length=given.volume.longest,
    )  # fmt: skip
    return not fits_without_checkpointing(given.shape, load, given.free)


def _plan_memory(given: Given, train: Train, checkpointing: bool) -> tuple[int | None, str, bool]:
    peaks = [p.peak for p in given.same if p.peak is not None]
    if peaks and train == given.recipe.train:
        # The first of several processes measured itself.
        peak = int(max(peaks)) * (train.processes if given.gpu is None else 1)
        return peak, f"measured: {say_count(len(peaks), 'run')} of this recipe", True
    if given.probe is not None and train == given.recipe.train:
        text = f"measured by the probe, rows of {given.probe.longest} tokens"
        return given.probe.peak, text, True
    if given.shape is None:
        return None, "the base's shape is not known", False
    load = plan_load(
        given.recipe.base, train, gpu=given.gpu is not None, checkpointing=checkpointing,
        length=given.volume.longest,
    )  # fmt: skip
    words = ", with gradient checkpointing" if checkpointing else ""
    text = f"computed from the base's shape, rows of {load.length} tokens{words}"
    return estimate_memory(given.shape, load).total, text, False


def _count_mapped(given: Given) -> int:
    if given.shape is None:
        return 0
    load = plan_load(
        given.recipe.base, given.recipe.train, gpu=given.gpu is not None, checkpointing=False
    )
    return count_mapped(given.shape, load)


def _plan_work(
    given: Given, tokens: int, updates: int, checkpointing: bool
) -> tuple[float | None, str, bool]:
    """(seconds of all updates and measurements, source, rough)."""
    train, keep = given.recipe.train, given.recipe.train.retention
    # What a row's step costs besides the plain loss on it: both answers of a pair, and the reference.
    times = {"dpo": 2 + 2 * FORWARD_COSTS, "orpo": 2.0, "kto": 1 + 2 * FORWARD_COSTS}.get(
        train.method, 2.0 if keep.kl > 0 else 1.0
    )
    measures = math.ceil(updates / (keep.measure_steps or train.checkpoint_steps))
    read = measures * 2 * keep.rows * 2 * _GENERAL_TOKENS * FORWARD_COSTS
    work = tokens * times + read
    rates = [p.rate for p in given.pasts if p.rate]
    if given.probe is not None:
        steps = updates * train.accumulation * times
        took = steps * given.probe.start + work * given.probe.per_token
        return took, "measured by the probe", False
    if rates:
        rate = sum(rates) / len(rates)
        text = f"{rate:.0f} tokens/s, as {say_count(len(rates), 'run')} on this base here"
        return work / rate, text, False
    if given.shape is None or given.gpu is not None:
        return None, "its speed was not measured; --probe does it in a minute", False
    rate = _guess_rate(given.shape, given.box, checkpointing, volume=given.volume)
    text = f"rough: {rate:.0f} tokens/s from the base's size and {given.box.cores} cores; --probe measures it"
    return work / rate, text, True


def _guess_rate(shape: Shape, box: Box, checkpointing: bool, *, volume: Volume) -> float:
    length = volume.tokens / volume.rows
    cores = box.cores / _crowd(box)
    seconds = length * shape.parameters / (CORE_SPEED * cores) + LAYER_SECONDS * shape.layers
    return length / (seconds * (1 + CHECKPOINTING_COSTS * checkpointing))


def _crowd(box: Box) -> float:
    """How many want each core, with us: others that compute share them with a process that waits passively."""
    return max(1.0, (box.load + 1) / max(1, box.cores))


def _plan_start(given: Given) -> float:
    known = [s for p in given.pasts if (s := p.start_seconds) is not None]
    return sum(known) / len(known) if known else START_SECONDS * _crowd(given.box)


def _plan_base(given: Given) -> tuple[float, str]:
    """Seconds until the base is there, and where the figure is from."""
    known = [p.base_seconds for p in given.pasts if p.base_seconds is not None]
    if known:
        return max(known), ""
    if given.recipe.base.model != "nano" or given.shape is None:
        return 0.0, ""
    cost = given.shape.parameters * _NANO_STEP_TOKENS * _NANO_COSTS / CORE_SPEED
    steps = given.recipe.base.nano.steps
    return steps * (cost / max(1, given.box.cores) + LAYER_SECONDS * given.shape.layers), (
        "; building nano is in it"
    )


def _plan_disk(given: Given, train: Train) -> tuple[int | None, str]:
    """Checkpoints (one more than are kept while the next is written), the best weights and the adapter."""
    if given.probe is not None and train == given.recipe.train and given.probe.checkpoint:
        one, text = given.probe.checkpoint, "a checkpoint as the probe wrote it"
    elif given.shape is None:
        return None, "the base's shape is not known"
    else:
        trained = (
            given.shape.parameters
            if train.adapter == "full"
            else given.shape.lora_parameters(train.lora.r, train.lora.target_modules)
        )
        # Weights, two moments, and the best weights so far.
        one, text = trained * 4 * 4 + _SMALL_FILES, "computed from the adapter's size"
    count = train.keep_checkpoints + 1
    return one * count + one // 4, f"{count} checkpoints and the adapter; {text}"


# -- the verdict


def judge(given: Given, plan: Plan, disk_free: int) -> Verdict:
    """Whether it fits, and what would make it fit: each remedy alone, then what they do together."""
    lacks: list[str] = []
    free = given.free if given.gpu is None else given.gpu
    short = plan.need is not None and plan.need > free
    if short and plan.need is not None:
        lacks.append(f"memory: {say_size(plan.need)} needed, {say_size(free)} free for it")
    full = plan.disk is not None and plan.disk > disk_free
    if full and plan.disk is not None:
        lacks.append(f"disk: {say_size(plan.disk)} needed, {say_size(disk_free)} free")
    if plan.memory is None and not full:
        return Verdict("not known", ("memory: " + plan.sources["memory"],))
    if not lacks:
        return Verdict("fits")
    remedies: list[Remedy] = []
    cured = True
    if short:
        found, enough = _cure_memory(given, plan, free)
        remedies += found
        cured = cured and enough
    if full:
        found, enough = _cure_disk(given, disk_free)
        remedies += found
        cured = cured and enough
    return Verdict("fits if" if cured else "does not fit", tuple(lacks), tuple(remedies))


def _cure_memory(given: Given, plan: Plan, free: int) -> tuple[list[Remedy], bool]:
    """What would bring the need down to ``free``; (remedies, whether one of them is enough)."""
    out: list[Remedy] = []
    held = sum(g.resident for g in given.box.groups if g.what == "gtft worker")
    if held and plan.need is not None and given.gpu is None:
        enough = plan.need <= free + held
        out.append(
            Remedy(
                "gtft runs pause RUN",
                f"gives back up to {say_size(held)} that workers of gtft hold"
                + ("" if enough else ", not enough by itself"),
            )
        )
        if enough:
            return out + _list_smaller(given, plan, free)[0], True
    smaller, fits = _list_smaller(given, plan, free)
    return out + smaller, fits


def _list_smaller(given: Given, plan: Plan, free: int) -> tuple[list[Remedy], bool]:
    """Single changes that are enough, the mildest of each kind; without one what they do together."""
    out: list[Remedy] = []
    kinds: set[str] = set()
    first = given.recipe.train
    train, on = first, plan.checkpointing
    together: dict[str, str] = {}
    need: int | None = None
    for sets, then in _list_changes(first, plan.checkpointing):
        kind = sets[0].partition("=")[0]
        turns_on = kind == "train.gradient_checkpointing"
        alone = _need(given, then(first), plan.checkpointing or turns_on)
        if alone is not None and alone <= free and kind not in kinds:
            kinds.add(kind)
            out.append(_say(sets, alone, free))
        if need is None or need > free:
            # From the mildest to the hardest, one on top of the other.
            train, on = then(train), on or turns_on
            together |= {s.partition("=")[0]: s for s in sets}
            need = _need(given, train, on)
    if out or need is None:
        return out, bool(out)
    return [_say(tuple(together.values()), need, free)], need <= free


def _list_changes(train: Train, on: bool) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(what to set, the change), the mildest first; they are taken one on top of the other."""
    if train.batch > 1:
        accumulation = train.accumulation * train.batch
        yield (
            ("train.batch=1", f"train.accumulation={accumulation}"),
            lambda t: t.model_copy(update={"batch": 1, "accumulation": accumulation}),
        )
    if not on:
        yield (
            ("train.gradient_checkpointing=on",),
            lambda t: t.model_copy(update={"gradient_checkpointing": "on"}),
        )
    length = train.max_length
    while length // 2 >= _SHORTEST_ROW:
        length //= 2
        yield (
            (f"train.max_length={length}",),
            lambda t, n=length: t.model_copy(update={"max_length": n}),
        )
    rank = train.lora.r
    while train.adapter == "lora" and rank // 2 >= _SMALLEST_RANK:
        rank //= 2
        yield (
            (f"train.lora.r={rank}",),
            lambda t, n=rank: t.model_copy(update={"lora": t.lora.model_copy(update={"r": n})}),
        )


def _need(given: Given, train: Train, checkpointing: bool) -> int | None:
    volume = replace(given.volume, longest=min(given.volume.longest, train.max_length))
    bare = replace(given, same=(), probe=None, volume=volume)
    memory, _, _ = _plan_memory(bare, train, checkpointing)
    return None if memory is None else int(memory * MARGIN) + _count_mapped(given)


def _say(sets: Sequence[str], need: int, free: int) -> Remedy:
    how = " ".join(f"--set {s}" for s in sets)
    return Remedy(how, f"{say_size(need)} needed" + ("" if need <= free else ", still too much"))


def _cure_disk(given: Given, disk_free: int) -> tuple[list[Remedy], bool]:
    train = given.recipe.train.model_copy(update={"keep_checkpoints": 1})
    disk, _ = _plan_disk(replace(given, probe=None), train)
    if disk is None or given.recipe.train.keep_checkpoints == 1:
        return [], False
    enough = disk <= disk_free
    text = f"{say_size(disk)} needed" + ("" if enough else ", still too much")
    return [Remedy("--set train.keep_checkpoints=1", text)], enough
