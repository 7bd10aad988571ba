"""Artifacts: published whole or not at all, named by content, refused when touched."""

import errno
import json
import os
from pathlib import Path

import pytest

from gtft.artifact import hash_json, read_artifact, stage_artifact, verify_artifact, write_file
from gtft.errors import DiskFull, EvidenceError


def make(root: Path, text: str = "one", parents: tuple[str, ...] = ()) -> Path:
    with stage_artifact(root, "corpus", parents) as s:
        (s.path / "a.txt").write_text(text)
        (s.path / "sub").mkdir()
        (s.path / "sub" / "b.bin").write_bytes(b"\x00\x01")
    return s.result.path


def test_same_content_has_same_id_anywhere(tmp_path: Path) -> None:
    one, two = make(tmp_path / "x"), make(tmp_path / "y")
    assert read_artifact(one).id == read_artifact(two).id
    assert read_artifact(make(tmp_path / "z", "other")).id != read_artifact(one).id
    with_parent = make(tmp_path / "p", parents=(hash_json(1),))
    assert read_artifact(with_parent).id != read_artifact(one).id


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), stage_artifact(tmp_path, "corpus") as s:
        (s.path / "a.txt").write_text("half")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_disk_full_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as e, stage_artifact(tmp_path, "corpus"):
        raise OSError(errno.ENOSPC, "No space left on device", "a.txt")
    assert e.value.exit_code == 9
    assert "free some space" in e.value.fix
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    dead = tmp_path / ".tmp-corpus-999999999"
    dead.mkdir()
    alive = tmp_path / f".tmp-card-{os.getppid()}"
    alive.mkdir()
    make(tmp_path)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("harm", ["edit", "remove", "add", "link", "manifest", "escape"])
def test_every_harm_is_named(tmp_path: Path, harm: str) -> None:
    path = make(tmp_path)
    verify_artifact(path, kind="corpus")
    if harm == "edit":
        (path / "a.txt").write_text("two")
    elif harm == "remove":
        (path / "a.txt").unlink()
    elif harm == "add":
        (path / "c.txt").write_text("more")
    elif harm == "link":
        (path / "a.txt").unlink()
        (path / "a.txt").symlink_to("/etc/hostname")
    else:
        doc = json.loads((path / "artifact.json").read_text())
        doc["files"][0]["name"] = "../../etc/x" if harm == "escape" else "z.txt"
        (path / "artifact.json").write_text(json.dumps(doc))
    with pytest.raises(EvidenceError):
        verify_artifact(path, kind="corpus")


def test_another_kind_or_id_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(EvidenceError, match="expected: adapter"):
        read_artifact(path, kind="adapter")
    with pytest.raises(EvidenceError, match="recorded another one"):
        verify_artifact(path, expect=hash_json("other"))


def test_a_damaged_twin_is_set_aside_and_replaced(tmp_path: Path) -> None:
    path = make(tmp_path)
    (path / "a.txt").write_text("tampered")
    again = make(tmp_path)
    assert again == path
    verify_artifact(again)
    assert len(list(tmp_path.glob(".damaged-*"))) == 1


def test_write_file_replaces_whole(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_file(target, b"old")
    write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
