"""Checkpoints that can be trusted: a manifest written last, verified before use, kept in order.

``workdir/checkpoint-<step>/`` holds what the trainer saved and ``gtft-checkpoint.json``: size and sha256 of
every file and the fingerprint of the run. A folder without a manifest was never finished. The trainer
notices only truncation by itself: flipped bytes and missing optimizer files train on silently.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from gtft.artifact import hash_file, write_json
from gtft.errors import DiskFull, GtftError, TrainingError, translate_os_error
from gtft.training.watch import Watch

MANIFEST = "gtft-checkpoint.json"
_NAME = re.compile(r"checkpoint-(\d+)")
# What is trained: an adapter, or all weights.
_TRAINED = ("adapter_model.safetensors", "model.safetensors")
_NEEDED = (
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
)
# One for each process of a shared training: rng_state_0.pth and so on.
_RANDOM = "rng_state"


@dataclass(frozen=True)
class Fingerprint:
    """What a checkpoint belongs to. A run resumes only from its own."""

    recipe: str
    corpus: str
    base: str


@dataclass(frozen=True)
class Resumable:
    """A verified checkpoint: its folder and the optimizer step it stands at."""

    path: Path
    step: int


def seal(folder: Path, fingerprint: Fingerprint, libraries: dict[str, str]) -> None:
    """Make a saved checkpoint durable and whole: fsync every file, then write its manifest."""
    try:
        files = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
            with path.open("rb") as f:
                os.fsync(f.fileno())
            name = str(path.relative_to(folder))
            files.append({"name": name, "size": path.stat().st_size, "sha256": hash_file(path)})
    except OSError as e:
        raise translate_os_error(e, "sealing a checkpoint") from e
    write_json(
        folder / MANIFEST,
        {"format": 1, **asdict(fingerprint), "libraries": libraries, "files": files},
    )


def find_resumable(
    workdir: Path, fingerprint: Fingerprint, libraries: dict[str, str], watch: Watch
) -> Resumable | None:
    """The newest checkpoint that is whole and belongs to this run, or None.

    Unfinished folders are removed, damaged ones are renamed ``damaged-…`` and named in a warning. Raises
    TrainingError for a whole checkpoint of another recipe, corpus or base.
    """
    for step, folder in reversed(list_checkpoints(workdir)):
        if not (folder / MANIFEST).is_file():
            watch.warn("checkpoint-unfinished", f"{folder.name} was never finished; it is removed")
            _remove(folder)
            continue
        damage = _find_damage(folder)
        if damage:
            aside = _quarantine(folder)
            watch.warn(
                "checkpoint-damaged",
                f"{folder.name} is not used: {damage}; it is kept as {aside.name}, the one before is used",
            )
            continue
        doc = json.loads((folder / MANIFEST).read_text("utf-8"))
        _check_owner(folder, doc, fingerprint)
        if doc["libraries"] != libraries:
            watch.warn(
                "checkpoint-libraries",
                f"{folder.name} was written with other library versions: the result will not be bit-equal",
            )
        return Resumable(folder, step)
    return None


def is_sealed(folder: Path) -> bool:
    """Whether a checkpoint was finished."""
    return (folder / MANIFEST).is_file()


def list_checkpoints(workdir: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint folder, oldest first."""
    found = [
        (int(m.group(1)), p)
        for p in workdir.glob("checkpoint-*")
        if p.is_dir() and (m := _NAME.fullmatch(p.name))
    ]
    return sorted(found)


def rotate(workdir: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` sealed checkpoints; call it only after sealing."""
    sealed = [p for _, p in list_checkpoints(workdir) if (p / MANIFEST).is_file()]
    for folder in sealed[:-keep]:
        # Manifest first: a removal cut short leaves an unfinished folder, not a damaged one.
        (folder / MANIFEST).unlink()
        _remove(folder)


def discard_unfinished(workdir: Path) -> None:
    """Remove checkpoint folders that were never sealed."""
    for _, folder in list_checkpoints(workdir):
        if not (folder / MANIFEST).is_file():
            _remove(folder)


def check_room(workdir: Path, checkpoint_bytes: int, keep: int) -> None:
    """Raises DiskFull unless ``keep`` + 1 checkpoints fit: the newest is written before the oldest goes."""
    need = (keep + 1) * checkpoint_bytes
    have = shutil.disk_usage(workdir).free + sum(
        f.stat().st_size for _, p in list_checkpoints(workdir) for f in p.rglob("*") if f.is_file()
    )
    if have < need:
        raise DiskFull(
            f"{need / 1e6:.0f} MB are needed for checkpoints, {have / 1e6:.0f} MB are free",
            why=f"{keep} are kept and one more is written before the oldest goes",
            fix="free some space (gtft doctor shows where), or --set train.keep_checkpoints=1",
        )


def translate_save_error(error: BaseException, workdir: Path) -> GtftError | None:
    """A failure to write as the kind a user can act on; None when it is something else.

    safetensors and torch raise their own errors, not OSError, when the disk is full.
    """
    if isinstance(error, OSError):
        return translate_os_error(error, "writing a checkpoint")
    text = str(error)
    by_library = type(error).__name__ == "SafetensorError" or "PytorchStreamWriter" in text
    full = "os error 28" in text or "No space left" in text
    if not full and not (by_library and shutil.disk_usage(workdir).free < 1 << 20):
        return None
    last = list_checkpoints(workdir)
    return DiskFull(
        "the disk is full while writing a checkpoint",
        why=f"{text.strip()}; the last good checkpoint is {last[-1][1].name if last else 'none'}",
        fix="free some space (gtft doctor shows where), then: gtft runs resume RUN",
    )


def _find_damage(folder: Path) -> str:
    """What is wrong with a sealed checkpoint, or the empty string."""
    try:
        doc = json.loads((folder / MANIFEST).read_text("utf-8"))
        listed = {f["name"]: (f["size"], f["sha256"]) for f in doc["files"]}
        if not {"recipe", "corpus", "base", "libraries"} <= doc.keys():
            return "its manifest is incomplete"
        if not listed.keys() & set(_TRAINED):
            return f"it was saved without {_TRAINED[0]}"
        if lacking := sorted(set(_NEEDED) - listed.keys()):
            return f"it was saved without {lacking[0]}"
        if not any(name.startswith(_RANDOM) for name in listed):
            return f"it was saved without {_RANDOM}.pth"
        for name, (size, sha256) in sorted(listed.items()):
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if hash_file(path) != sha256:
                return f"{name} was changed after it was written"
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"it cannot be read ({type(e).__name__}: {e})"
    return ""


def _check_owner(folder: Path, doc: dict[str, object], fingerprint: Fingerprint) -> None:
    ours = asdict(fingerprint)
    other = [name for name, value in ours.items() if doc[name] != value]
    if other:
        raise TrainingError(
            f"{folder.name} belongs to another {' and '.join(other)}",
            why="; ".join(f"{n}: {doc[n]} there, {ours[n]} here" for n in other),
            fix="start a new run: gtft run RECIPE (a run never goes on from another one's checkpoint)",
        )


def _quarantine(folder: Path) -> Path:
    """Out of the way under a name that neither rotation nor the trainer takes for a checkpoint."""
    aside = folder.with_name(f"damaged-{folder.name}")
    n = 1
    while aside.exists():
        n += 1
        aside = folder.with_name(f"damaged-{folder.name}-{n}")
    folder.rename(aside)
    return aside


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as e:
        raise translate_os_error(e, f"removing {folder.name}") from e
