"""Checkpoints: sealed last, verified before use, damaged ones set aside, foreign ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gtft.errors import DiskFull, TrainingError
from gtft.training.checkpoint import (
    MANIFEST,
    Fingerprint,
    check_room,
    discard_unfinished,
    find_resumable,
    list_checkpoints,
    rotate,
    seal,
    translate_save_error,
)
from training_case import Recorder

OURS = Fingerprint("recipe-1", "corpus-1", "base-1")
LIBRARIES = {"torch": "2"}
FILES = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def save(workdir: Path, step: int, *, sealed: bool = True) -> Path:
    folder = workdir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(f"{name} at {step}".encode() * 9)
    if sealed:
        seal(folder, OURS, LIBRARIES)
    return folder


def test_newest_whole_checkpoint_is_used(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    found = find_resumable(tmp_path, OURS, LIBRARIES, Recorder())
    assert found is not None
    assert (found.step, found.path.name) == (10, "checkpoint-10")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(FILES), st.integers(0, 10_000), st.sampled_from(["flip", "cut", "gone"]))
def test_any_damage_falls_back_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, how: str
) -> None:
    workdir = tmp_path_factory.mktemp("work")
    save(workdir, 5)
    victim = save(workdir, 10) / name
    data = bytearray(victim.read_bytes())
    if how == "gone":
        victim.unlink()
    elif how == "cut":
        victim.write_bytes(data[: at % len(data)])
    else:
        data[at % len(data)] ^= 0x20
        victim.write_bytes(data)
    watch = Recorder()
    found = find_resumable(workdir, OURS, LIBRARIES, watch)
    assert found is not None
    assert found.step == 5
    assert [c for c, _ in watch.warnings] == ["checkpoint-damaged"]
    assert "checkpoint-10" in watch.warnings[0][1]
    assert name in watch.warnings[0][1]
    assert (workdir / "damaged-checkpoint-10").is_dir()
    assert [s for s, _ in list_checkpoints(workdir)] == [5]


def test_unfinished_checkpoint_is_removed_and_the_one_before_used(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10, sealed=False)
    watch = Recorder()
    found = find_resumable(tmp_path, OURS, LIBRARIES, watch)
    assert found is not None
    assert found.step == 5
    assert [c for c, _ in watch.warnings] == ["checkpoint-unfinished"]
    assert not (tmp_path / "checkpoint-10").exists()


def test_checkpoint_saved_without_its_optimizer_is_damaged(tmp_path: Path) -> None:
    folder = save(tmp_path, 5, sealed=False)
    (folder / "optimizer.pt").unlink()
    seal(folder, OURS, LIBRARIES)
    assert find_resumable(tmp_path, OURS, LIBRARIES, Recorder()) is None


@pytest.mark.parametrize("field", ["recipe", "corpus", "base"])
def test_checkpoint_of_another_run_is_refused(tmp_path: Path, field: str) -> None:
    save(tmp_path, 5)
    other = Fingerprint(**{**OURS.__dict__, field: "another"})
    with pytest.raises(TrainingError, match=f"another {field}"):
        find_resumable(tmp_path, other, LIBRARIES, Recorder())
    assert (tmp_path / "checkpoint-5").is_dir()


def test_other_library_versions_are_told_but_used(tmp_path: Path) -> None:
    save(tmp_path, 5)
    watch = Recorder()
    assert find_resumable(tmp_path, OURS, {"torch": "3"}, watch) is not None
    assert [c for c, _ in watch.warnings] == ["checkpoint-libraries"]


def test_rotation_counts_only_sealed_checkpoints(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step)
    save(tmp_path, 20, sealed=False)
    (tmp_path / "damaged-checkpoint-3").mkdir()
    rotate(tmp_path, keep=2)
    assert [s for s, _ in list_checkpoints(tmp_path)] == [10, 15, 20]
    discard_unfinished(tmp_path)
    assert [s for s, _ in list_checkpoints(tmp_path)] == [10, 15]
    assert (tmp_path / "damaged-checkpoint-3").is_dir()


def test_too_little_room_is_refused_before_the_first_step(tmp_path: Path) -> None:
    check_room(tmp_path, 1, keep=2)
    with pytest.raises(DiskFull):
        check_room(tmp_path, 1 << 60, keep=2)


def test_full_disk_is_told_whatever_library_says_it(tmp_path: Path) -> None:
    save(tmp_path, 5)

    class SafetensorError(Exception):
        pass

    told = translate_save_error(
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        tmp_path,
    )
    assert isinstance(told, DiskFull)
    assert "checkpoint-5" in told.why
    assert isinstance(translate_save_error(OSError(28, "No space left"), tmp_path), DiskFull)
    assert translate_save_error(RuntimeError("shapes differ"), tmp_path) is None
    assert not (tmp_path / "checkpoint-5" / f".{MANIFEST}.tmp").exists()
