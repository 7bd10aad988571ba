"""What goes wrong is told: class, cause, next command, documented exit code; no traceback, no half artifact."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_town import gtft, make_town


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return make_town(tmp_path / "town")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "GTFT_WORKSPACE": str(tmp_path / "ws"), "OMP_NUM_THREADS": "1"}


def run(town: Path, environ: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return gtft("run", "mol-gtft-tiny", *argv, cwd=town, environ=environ)


def assert_told(
    done: subprocess.CompletedProcess[str], code: int, tmp_path: Path, *words: str
) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr
    for w in words:
        assert w in done.stderr, done.stderr
    made = tmp_path / "ws" / "artifacts"
    assert not made.exists() or not list(made.glob(".tmp-*"))


def test_an_empty_town(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    for folder in ("transcripts", "beads"):
        shutil.rmtree(town / folder)
        (town / folder).mkdir()
    assert_told(run(town, environ), 4, tmp_path)


def test_a_source_that_is_not_there(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    shutil.rmtree(town / "transcripts")
    assert_told(run(town, environ), 4, tmp_path, "transcripts")


def test_too_small_a_corpus(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    done = run(town, environ, "--set", "harvest.min_examples=1000")
    assert_told(done, 5, tmp_path, "1000")


def test_a_base_that_is_not_there(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    done = run(town, environ, "--set", "base.model=./models/none")
    assert_told(done, 6, tmp_path, "models/none")
    held = gtft("status", cwd=town, environ=environ).stdout
    assert "ready (failed)" in held
    assert "gtft runs resume" in held


def test_an_unreadable_file(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """A source that is a link to itself: unreadable for root too. A single file is only named."""
    shutil.rmtree(town / "transcripts")
    (town / "transcripts").symlink_to(town / "transcripts")
    assert_told(run(town, environ), 4, tmp_path, "transcripts")


def test_a_formula_with_ten_errors_shows_all_ten(
    town: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    path = town / "formulas" / "mol-gtft-tiny.formula.toml"
    text = path.read_text()
    for old, new in (
        ("version = 1", 'version = "one"'),
        ('model = "nano"', "model = 7"),
        ("heldout = 0.25", "heldout = 25"),
        ("min_examples = 8", "min_exampels = 8"),
        ("learning_rate = 1e-2", "learning_rate = -1.0"),
        ("accumulation = 2", 'accumulation = "two"'),
        ('type = "beads"', 'type = "pearls"'),
        ("max_items = 6", "max_itmes = 6"),
        ('needs = ["train"]', 'needs = ["trian"]'),
        ('title = "Card"\n', ""),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    done = run(town, environ)
    assert_told(done, 3, tmp_path, "min_examples", "max_items")
    shown = [line for line in done.stderr.splitlines() if ".formula.toml:" in line]
    assert len(shown) >= 10, done.stderr
    assert not list((tmp_path / "ws").glob("runs/*"))


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare (util-linux)")
@pytest.mark.parametrize("size", ["400k", "700k"])
def test_a_full_disk(town: Path, environ: dict[str, str], tmp_path: Path, size: str) -> None:
    """A real tmpfs that is too small, in a mount namespace of its own."""
    workspace = tmp_path / "ws"
    workspace.mkdir()
    script = (
        f'mount -t tmpfs -o size={size} none "$GTFT_WORKSPACE" && '
        f'"{sys.executable}" -m gtft.cli.main run mol-gtft-tiny; code=$?; '
        'find "$GTFT_WORKSPACE/artifacts" "$GTFT_WORKSPACE/bases" -name ".tmp-*" 2>/dev/null; exit $code'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        cwd=town, env=environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert_told(done, 9, tmp_path, "error (disk-full)")
    assert ".tmp-" not in done.stdout


def test_a_store_of_a_newer_gtft(town: Path, environ: dict[str, str], tmp_path: Path) -> None:
    import sqlite3

    assert gtft("status", cwd=town, environ=environ).returncode == 0
    with sqlite3.connect(tmp_path / "ws" / "gtft.db") as c:
        c.execute("INSERT INTO gtft_schema VALUES (99, 0)")
    assert_told(gtft("status", cwd=town, environ=environ), 4, tmp_path, "schema 99")


def test_json_errors_are_one_object(town: Path, environ: dict[str, str]) -> None:
    import json

    done = gtft("runs", "show", "run-nope", "--json", cwd=town, environ=environ)
    body = json.loads(done.stdout)
    assert done.returncode == 2
    assert body["ok"] is False
    assert body["error"]["kind"] == "usage"
    assert body["error"]["fix"] == "gtft runs list"
