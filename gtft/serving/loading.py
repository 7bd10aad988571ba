"""What a server loads: bases with their adapters, exactly as the eval loads them; which can share a base, what fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.errors import UsageError
from gtft.evals.asking.load import (
    BaseRecord,
    Candidates,
    add_candidate,
    find_base,
    find_role,
    is_whole,
    load_candidates,
    read_base,
    remove_candidate,
    shares,
)
from gtft.footprint import FLOOR, read_shape_of
from gtft.memory import measure_free
from gtft.weights import inspect_weights

# The name of a base without adapters; of further bases in the same server: base:ITS-NAME.
BASE = "base"
# Bytes of an NF4 weight with its share of the scales, and of one kept unpacked on a CPU (gtft.evals.asking.load).
_NF4, _UNPACKED, _MOST_UNPACKED = 0.516, 2, 1 << 30


@dataclass(frozen=True)
class Wanted:
    """A model to serve: ``folder`` of its adapter's artifact; ``aliases`` are asked for just like ``name``."""

    name: str
    folder: Path
    role: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where bases and the adapters below task adapters are looked for."""

    workspace: Path
    root: Path
    artifacts: Path


@dataclass(frozen=True)
class Checked:
    """A wanted model whose files are those that were recorded. ``below``: the role adapter that it lies on."""

    wanted: Wanted
    artifact: Artifact
    record: BaseRecord
    below: Artifact | None

    @property
    def kind(self) -> Literal["role", "task", "whole"]:
        if is_whole(self.artifact):
            return "whole"
        return "task" if self.below else "role"

    @property
    def group(self) -> tuple[str, ...]:
        """Models of one group can share a base in memory."""
        if self.kind == "whole":
            return ("whole", self.artifact.id)
        config = json.loads((self.artifact.path / "adapter_config.json").read_text("utf-8"))
        return (self.record.id, self.record.quantization, str(config.get("peft_type")))


def check_wanted(wanted: Wanted, places: Places) -> Checked:
    """Hash it again. Raises EvidenceError for files that are not those of the record, or that are hostile."""
    inspect_weights(wanted.folder)
    artifact = verify_artifact(wanted.folder, kind="adapter")
    record = read_base(artifact)
    return Checked(wanted, artifact, record, find_role(record, places.artifacts))


def group_wanted(checked: Sequence[Checked]) -> list[list[Checked]]:
    """By the base that they can share, in the order of their first."""
    groups: dict[tuple[str, ...], list[Checked]] = {}
    for one in checked:
        groups.setdefault(one.group, []).append(one)
    return list(groups.values())


def estimate_base(folder: Path, record: BaseRecord, *, gpu: bool = False) -> int:
    """Bytes that a base holds while it answers, without keys and values."""
    shape = read_shape_of(folder)
    held = shape.other_parameters * shape.stored
    if record.quantization != "nf4":
        return held + shape.linear_parameters * shape.stored
    unpacked = shape.linear_parameters * _UNPACKED
    held += int(shape.linear_parameters * _NF4)
    return held + (unpacked if not gpu and unpacked <= _MOST_UNPACKED else 0)


def check_memory(
    bases: Sequence[tuple[Path, Checked]], budget: int, free: Callable[[], int] = measure_free
) -> int:
    """Bytes that these bases and ``budget`` for keys and values take. Raises UsageError when there are not so many."""
    import torch

    gpu = torch.cuda.is_available()
    needed = FLOOR + budget
    for folder, one in bases:
        needed += estimate_base(folder, one.record, gpu=gpu) * (2 if one.kind == "whole" else 1)
    left = int(torch.cuda.mem_get_info()[0]) if gpu else free()
    if needed > left:
        mib = 1 << 20
        raise UsageError(
            "there is not enough memory to serve these models",
            why=f"about {needed // mib} MiB are needed, of which {budget // mib} for the answers being written; "
            f"{left // mib} MiB are free",
            fix="serve fewer models at once, or give the answers less: gtft model serve --help",
        )
    return needed


class Adapters:
    """One base in memory, and the models on it that are loaded now: at most ``most`` of them, and the first.

    Used by the thread that answers. ``used`` tells the models that answer right now, which stay. A model that is not
    loaded is, when it is asked; the one that was not asked for the longest goes.
    """

    def __init__(self, group: Sequence[Checked], folder: Path, *, most: int = 8) -> None:
        """Raises what `load_candidates` raises, and UsageError for a model that cannot be on this base."""
        first, *rest = group
        self.most = max(1, most)
        beside = [(c.artifact, c.below) for c in rest[: self.most - 1]]
        self._first = load_candidates(first.artifact, first.record, folder, first.below, beside)
        self._checked = {c.artifact.id: c for c in group}
        # In the order of asking, the latest last.
        self._loaded: dict[str, Candidates] = {first.artifact.id: self._first, **self._first.beside}
        for key, one in self._first.beside.items():
            if one.model is not self._first.model:
                raise self._misfit(self._checked[key])
        self._stack = ExitStack()
        self._active: str | None = None
        self._answers: Any = None
        self.record = first.record
        self.used: Callable[[], Collection[str]] = tuple

    @property
    def context(self) -> int:
        return self._first.context

    @property
    def first(self) -> Candidates:
        return self._first

    @property
    def checked(self) -> tuple[Checked, ...]:
        return tuple(self._checked.values())

    def add(self, one: Checked) -> None:
        """Another model of the same base, loaded when it is asked. Raises UsageError when it cannot be on it."""
        model, record = self._first.model, self.record
        if one.record.id != record.id or not shares(
            one.artifact, one.below, one.record, model, record
        ):
            raise self._misfit(one)
        self._checked[one.artifact.id] = one

    def remove(self, key: str) -> None:
        """Whoever calls has seen that it answers nothing."""
        self._checked.pop(key, None)
        if key in self._loaded:
            self.close()
            self._drop(key)

    def activate(self, key: str) -> Any:
        """The model, answering as ``key``; it is loaded when it is not. Raises what loading raises."""
        if key != BASE:
            if key not in self._loaded:
                self.close()
                self._attach(self._checked[key])
                self._make_room(key)
            self._loaded[key] = self._loaded.pop(key)
        if key != self._active:
            self.close()
            one = replace(self._first, stacked=False) if key == BASE else self._loaded[key]
            self._answers = self._stack.enter_context(one.answering(as_base=key == BASE))
            self._active = key
        return self._answers

    def close(self) -> None:
        """Have the model as it was loaded; it can be used again."""
        self._stack.close()
        self._active = None

    def _attach(self, one: Checked) -> None:
        beside = {k: c for k, c in self._loaded.items() if c is not self._first}
        now = replace(self._first, beside=beside)
        added = add_candidate(now, one.artifact, one.record, one.below)
        self._loaded[one.artifact.id] = added

    def _make_room(self, key: str) -> None:
        used = {key, *self.used()}
        idle = [k for k in self._loaded if k not in used]
        while len(self._loaded) > self.most and idle:
            self._drop(idle.pop(0))

    def _drop(self, key: str) -> None:
        loaded = self._loaded[key]
        # What was loaded first carries the base; its adapters are small.
        if loaded is not self._first:
            remove_candidate(self._loaded.pop(key))

    def _misfit(self, one: Checked) -> UsageError:
        return UsageError(
            f"the model {one.wanted.name} cannot be served on the base {self.record.name} that is loaded",
            why=f"it was trained on {one.record.name} ({short_id(one.record.id)}), stored as {one.record.quantization}",
            fix="start the server again with it: gtft model serve",
        )


def find_folder(one: Checked, places: Places) -> Path:
    """The base's folder, hashed and inspected. Raises BaseMissing or EvidenceError."""
    folder = find_base(one.record, places.workspace, places.root)
    inspect_weights(folder)
    return folder
