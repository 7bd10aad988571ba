"""What gtft puts into a town comes out again to the byte, and what is not ours stays as it is."""

from __future__ import annotations

import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.cli.main import run
from gtft.contract import LOCK_FILE
from gtft.errors import TownError
from gtft.runner.workspace import TownLink, open_workspace, read_config
from gtft.town import install as room
from gtft.town.hooks import find_home, log_error, queue_bead, record_session
from gtft.town.install import (
    Plan,
    apply_install,
    apply_uninstall,
    find_state,
    plan_install,
    plan_uninstall,
    read_manifest,
)
from gtft.town.json_text import add_item, drop_items, list_items
from gtft.town.locate import read_town
from gtft.town.parts import Part, list_parts, list_settings, put, read, take
from run_case import add_run

REPO = Path(__file__).parents[2]
# As Go writes it: two spaces, & escaped.
SETTINGS = """{
  "editorMode": "normal",
  "hooks": {
    "SessionStart": [
      {
        "matcher": "",
        "hooks": [
          {
            "type": "command",
            "command": "gt prime --hook \\u0026"
          }
        ]
      }
    ],
    "Stop": []
  }
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A town as gt leaves it, with a rig, an operator's own directive and no ``.gtft``."""
    root = tmp_path / "town"
    files = {
        "mayor/town.json": '{"type": "town", "name": "tt"}',
        "mayor/rigs.json": '{"rigs": {"finetune": {"beads": {"prefix": "ft"}}}}',
        "mayor/.claude/settings.json": SETTINGS,
        "finetune/polecats/.claude/settings.json": SETTINGS,
        "finetune/.beads/metadata.json": '{"dolt_database": "finetune", "project_id": "p"}',
        ".beads/metadata.json": '{"dolt_database": "hq"}',
        ".beads/routes.jsonl": '{"prefix":"ft-","path":"finetune"}\n',
        "directives/witness.md": "Mine.\r\nNo newline at the end",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (root / "mayor/.claude/settings.json").chmod(0o600)
    (tmp_path / "home/.gt").mkdir(parents=True)
    (tmp_path / "home/.gt/hooks-base.json").write_text('{"SessionStart": []}\n')
    return root


def parts(root: Path) -> tuple[Part, ...]:
    formulas = sorted((REPO / "formulas").glob("*.formula.toml"))
    plugin, hook = REPO / "plugins/gtft-sweep", REPO / "hooks/on_close"
    environ = {"HOME": str(root.parent / "home")}
    return list_parts(read_town(root), "finetune", formulas, plugin, hook, environ)


def install(root: Path, *, force: bool = False) -> Plan:
    plan = plan_install(root, parts(root), "finetune", "1", force=force)
    apply_install(root, plan)
    return plan


def uninstall(root: Path, *, force: bool = False) -> Plan:
    plan = plan_uninstall(root, list_settings(read_town(root)), force=force)
    apply_uninstall(root, plan)
    return plan


def snapshot(root: Path) -> dict[str, object]:
    """Every path below the folder: mode, and bytes of a file."""
    top = root.parent
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        mode = stat.filemode(path.lstat().st_mode)
        found[str(path.relative_to(top))] = (mode, path.read_bytes() if path.is_file() else b"")
    return found


def states(root: Path) -> set[str]:
    manifest = read_manifest(root)
    return {find_state(p, manifest.get(p.path), root) for p in parts(root)}


def test_install_and_uninstall_leave_the_town_as_it_was(root: Path) -> None:
    before = snapshot(root)
    install(root)
    assert states(root) == {"installed"}
    assert (root / "mayor/.claude/settings.json").stat().st_mode & 0o777 == 0o600
    assert os.access(root / "plugins/gtft-sweep/run.sh", os.X_OK)
    assert os.access(root / "finetune/.beads/hooks/on_close", os.X_OK)
    config = (root / ".gtft/config.toml").read_text()
    assert 'rig = "finetune"' in config
    uninstall(root)
    assert snapshot(root) == before


def test_a_second_install_changes_nothing(root: Path) -> None:
    install(root)
    before = snapshot(root)
    assert install(root).work == ()
    assert snapshot(root) == before


def test_gts_own_entry_stays_and_ours_has_another_matcher(root: Path) -> None:
    install(root)
    hooks = json.loads((root / "mayor/.claude/settings.json").read_text())["hooks"]
    first, ours = hooks["SessionStart"]
    assert first["hooks"][0]["command"] == "gt prime --hook &"
    assert first["matcher"] == "" != ours["matcher"]
    assert "gtft hook session-start" in ours["hooks"][0]["command"]
    assert set(ours) == {"matcher", "hooks"}


def test_a_diff_names_every_file_and_plan_alone_writes_nothing(root: Path) -> None:
    before = snapshot(root)
    plan = plan_install(root, parts(root), "finetune", "1")
    text = "".join(c.diff(root) for c in plan.work)
    assert snapshot(root) == before
    assert "+++ b/directives/witness.md" in text
    assert "--- /dev/null\n+++ b/plugins/gtft-sweep/run.sh" in text
    assert '+            "command": "if command -v gtft' in text
    assert "-Mine" not in text


def test_what_others_write_meanwhile_is_kept(root: Path) -> None:
    install(root)
    settings_file = root / "mayor/.claude/settings.json"
    settings_file.write_text(settings_file.read_text().replace("normal", "vim"))
    directive = root / "directives/witness.md"
    directive.write_bytes(b"First.\n" + directive.read_bytes() + b"Last.\n")
    uninstall(root)
    assert settings_file.read_text() == SETTINGS.replace("normal", "vim")
    assert directive.read_bytes() == b"First.\nMine.\r\nNo newline at the endLast.\n"


def test_a_settings_file_that_gt_makes_later_is_cleaned_too(root: Path) -> None:
    install(root)
    late = root / "finetune/witness/.claude/settings.json"
    late.parent.mkdir(parents=True)
    late.write_text((root / "finetune/polecats/.claude/settings.json").read_text())
    uninstall(root)
    assert late.read_text() == SETTINGS


def test_an_update_replaces_our_old_parts_and_keeps_hand_made_changes(root: Path) -> None:
    formula = root / ".beads/formulas/mol-gtft-quickstart.formula.toml"
    before = snapshot(root)
    older = tuple(
        Part(p.kind, p.name, p.path, b"# old\n", p.mode) if p.kind in ("file", "block") else p
        for p in parts(root)
    )
    apply_install(root, plan_install(root, older, "finetune", "0"))
    assert "older" in states(root)
    (root / "plugins/gtft-sweep/run.sh").write_text("#!/bin/sh\n# mine now\n")
    directive = root / "directives/mayor.md"
    directive.write_text(directive.read_text().replace("# old", "# edited"))
    plan = install(root)
    kept = {c.path.name: c.note for c in plan.kept}
    assert sorted(kept) == ["mayor.md", "run.sh"]
    assert "changed by hand" in kept["run.sh"]
    assert formula.read_bytes() == (REPO / "formulas" / formula.name).read_bytes()
    assert install(root, force=True).kept == ()
    assert states(root) == {"installed"}
    uninstall(root)
    assert snapshot(root) == before


def test_a_part_changed_by_hand_outlives_uninstall_unless_forced(root: Path) -> None:
    before = snapshot(root)
    install(root)
    mine = root / "plugins/gtft-sweep/run.sh"
    mine.write_text("#!/bin/sh\n# mine now\n")
    assert [c.path for c in uninstall(root).kept] == [mine]
    assert mine.read_text().endswith("mine now\n")
    uninstall(root, force=True)
    assert snapshot(root) == before


def test_a_file_of_that_name_which_is_not_ours_is_left_alone(root: Path) -> None:
    hook = root / "finetune/.beads/hooks/on_close"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 0\n")
    elsewhere = root.parent / "elsewhere.md"
    elsewhere.write_text("linked")
    (root / "directives/mayor.md").symlink_to(elsewhere)
    before = snapshot(root)
    notes = {c.path.name: c.note for c in install(root).kept}
    assert "not from gtft" in notes["on_close"] and "symbolic link" in notes["mayor.md"]
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"
    assert elsewhere.read_text() == "linked"
    uninstall(root)
    assert snapshot(root) == before


@pytest.mark.parametrize("again", ["install", "uninstall"])
@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_crash_anywhere_is_mended_by_the_next_command(
    root: Path, monkeypatch: pytest.MonkeyPatch, after: int, again: str
) -> None:
    before = snapshot(root)
    real, written = room.write_file, [0]

    def write(path: Path, data: bytes, *, mode: int | None = None) -> None:
        if written[0] == after:
            raise KeyboardInterrupt
        written[0] += 1
        real(path, data, mode=mode)

    monkeypatch.setattr(room, "write_file", write)
    with pytest.raises(KeyboardInterrupt):
        install(root)
    monkeypatch.undo()
    if again == "install":
        install(root)
        assert states(root) == {"installed"}
    uninstall(root)
    assert snapshot(root) == before


def test_a_file_that_changes_after_the_question_is_not_overwritten(root: Path) -> None:
    plan = plan_install(root, parts(root), "finetune", "1")
    (root / "directives/witness.md").write_text("Just written.\n")
    with pytest.raises(TownError, match="changed while"):
        apply_install(root, plan)
    assert (root / "directives/witness.md").read_text() == "Just written.\n"


def test_a_workspace_that_is_linked_to_another_rig_is_not_linked_anew(root: Path) -> None:
    (root / ".gtft").mkdir()
    (root / ".gtft/config.toml").write_text('[town]\nrig = "other"\n')
    with pytest.raises(TownError, match="other"):
        parts(root)
    (root / ".gtft/config.toml").write_text('[town]\nrig = "finetune"\nroot = ".."\n')
    install(root)
    uninstall(root)
    assert (root / ".gtft/config.toml").read_text() == '[town]\nrig = "finetune"\nroot = ".."\n'


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "/tmp/.gt/other.json"])
def test_a_manifest_never_leads_out_of_the_town(root: Path, name: str) -> None:
    install(root)
    path = root / ".gtft/install.json"
    doc = json.loads(path.read_text())
    doc["parts"][0]["path"] = name
    path.write_text(json.dumps(doc))
    with pytest.raises(TownError, match="cannot be read"):
        uninstall(root)


def test_a_settings_file_that_is_not_json_stops_the_install(root: Path) -> None:
    (root / "mayor/.claude/settings.json").write_text("{ not json")
    before = snapshot(root)
    with pytest.raises(TownError, match=r"settings\.json"):
        install(root)
    assert snapshot(root) == before


def command(root: Path, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """``gtft town …`` in the town; the exit code."""
    monkeypatch.chdir(root / "mayor")
    monkeypatch.setenv("HOME", str(root.parent / "home"))
    for name in ("GT_HOME", "GT_DOLT_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as stopped:
        run(["town", *argv])
    return int(stopped.value.code or 0)


def test_runs_in_a_store_of_its_own_are_moved_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ws = open_workspace(root / ".gtft")
    own = (root / ".gtft/config.toml").read_bytes()
    assert command(root, monkeypatch, "install", "--yes") == 0
    linked = (root / ".gtft/config.toml").read_bytes()
    assert linked.startswith(own) and read_config(root / ".gtft").town == TownLink(rig="finetune")
    assert command(root, monkeypatch, "uninstall", "--yes") == 0
    assert (root / ".gtft/config.toml").read_bytes() == own
    add_run(ws)
    assert command(root, monkeypatch, "install", "--yes") == 8
    assert "gtft store move --rig finetune" in capsys.readouterr().err
    assert states(root) == {"absent"}


def test_the_question_comes_before_anything_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(root)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert command(root, monkeypatch, "install") == 130
    assert "+++ b/plugins/gtft-sweep/plugin.md" in capsys.readouterr().out
    assert command(root, monkeypatch, "install", "--dry-run", "--json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert {c["was"] for c in data["changes"]} == {"absent"} and data["kept"] == []
    assert command(root, monkeypatch, "install", "--json") == 2
    assert snapshot(root) == before


def test_status_without_a_server_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / ".dolt-data").mkdir()
    # Port 1 is nobody's.
    (root / ".dolt-data/config.yaml").write_text("listener:\n  port: 1\n")
    monkeypatch.setenv("PATH", "")
    assert command(root, monkeypatch, "status", "--json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["server"]["reachable"] is False
    assert (data["database"], data["linked"]) == ("finetune", False)
    assert data["versions"]["bd"] == "absent"
    assert {p["state"] for p in data["parts"]} == {"absent"}


TEXTS = st.text(st.sampled_from("a#é\n\r \t<!->🜁"), max_size=40) | st.text(max_size=60)


@given(TEXTS, st.sampled_from(["x.md", "x.toml"]), TEXTS)
@settings(max_examples=300, deadline=None)
def test_a_block_comes_out_of_any_text_to_the_byte(text: str, name: str, piece: str) -> None:
    found = text.encode()
    part = Part("block", "directive", Path(name), (piece.rstrip("\n") + "\n").encode())
    once = put(part, found)
    assert put(part, once) == once
    assert read("block", once, part.path) == part.piece
    assert take("block", once, part.path) == found
    newer = Part("block", "directive", Path(name), b"newer\n")
    assert take("block", put(newer, once), part.path) == found
    # What is written around it stays around it.
    assert take("block", b"head\n" + once + b"tail", part.path) == b"head\n" + found + b"tail"


def documents() -> st.SearchStrategy[Any]:
    values = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
    entry = st.fixed_dictionaries({"matcher": st.text(max_size=3), "hooks": st.just([{"a": 1}])})
    filled = st.fixed_dictionaries({}, optional={"SessionStart": st.lists(entry, min_size=1)})
    return st.dictionaries(st.text(max_size=4), values, max_size=3).flatmap(
        lambda d: filled.map(lambda h: {**d, "hooks": {**h, "Stop": []}})
    )


@given(documents(), st.sampled_from([None, 1, 2, "\t"]), st.sampled_from(["", "\n", "  \r\n"]))
@settings(max_examples=300, deadline=None)
def test_an_entry_comes_out_of_any_json_to_the_byte(
    document: Any, indent: int | str | None, tail: str
) -> None:
    text = json.dumps(document, indent=indent) + tail
    keys = ("hooks", "SessionStart")
    ours = {"matcher": "ours", "hooks": [{"command": "x"}]}
    added = add_item(text, keys, ours)
    assert list_items(added, keys) == [*document["hooks"].get("SessionStart", []), ours]
    assert drop_items(added, keys, lambda e: e == ours) == text


NOW = 1_800_000_000.0
AGENT = {
    "GT_ROLE": "finetune/polecats/nux",
    "GT_RIG": "finetune",
    "GT_SESSION": "ft-nux",
    "BD_ACTOR": "finetune/polecats/nux",
}


def test_a_session_and_then_its_closed_bead_are_recorded(root: Path) -> None:
    install(root)
    beats = root / ".runtime/heartbeats"
    beats.mkdir(parents=True)
    (beats / "ft-nux.json").write_text('{"bead": "ft-6qw", "state": "working"}')
    home = find_home(root / "finetune" / "polecats", {})
    assert home == root / ".gtft"
    for session in ("s-1", "s-2"):
        stdin = json.dumps({"session_id": session, "cwd": "/w", "transcript_path": "/t.jsonl"})
        record_session(home, stdin.encode(), AGENT, NOW)
    lines = [json.loads(x) for x in (home / "sessions.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "at": "2027-01-15T08:00:00Z",
        "session": "s-1",
        "transcript": "/t.jsonl",
        "cwd": "/w",
        "role": "finetune/polecats/nux",
        "rig": "finetune",
        "actor": "finetune/polecats/nux",
        "bead": "ft-6qw",
    }
    queue_bead(home, "ft-6qw", AGENT, NOW)
    said = json.loads((home / "queue/ft-6qw.json").read_text())
    assert (said["actor"], said["session"]) == ("finetune/polecats/nux", "s-2")
    uninstall(root)
    assert sorted(p.name for p in home.iterdir()) == ["queue", "sessions.jsonl"]


@pytest.mark.parametrize(
    "bead", ["../x", "/etc/x", "a/b", "", ".", "ft", "ft-1/../../x", "ft-\n", "x" * 300]
)
def test_a_hostile_id_never_becomes_a_path(tmp_path: Path, bead: str) -> None:
    with pytest.raises(ValueError, match="is not a bead"):
        queue_bead(tmp_path, bead, {}, NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stdin", [b"", b"[]", b"{", b"null", b'{"session_id": 7}', b"\xff\xfe"])
def test_what_is_no_hook_input_is_refused_in_words(tmp_path: Path, stdin: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        record_session(tmp_path, stdin, {}, NOW)
    assert not (tmp_path / "sessions.jsonl").exists()
    log_error(tmp_path, "session-start", ValueError("why"), NOW)
    assert (tmp_path / "hooks.log").read_text().endswith("session-start: ValueError: why\n")


def hook(cwd: Path, *argv: str, stdin: str | None = "") -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(cwd), **AGENT}
    command = [sys.executable, "-m", "gtft.cli.main", "hook", *argv]
    return subprocess.run(
        command, cwd=cwd, env=environ, input=stdin, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("stdin", ["", "not json", '{"session_id": "s-1"}', "\0" * 100_000])
def test_the_hook_says_nothing_and_succeeds_whatever_comes(root: Path, stdin: str) -> None:
    install(root)
    for done in (
        hook(root / "mayor", "session-start", stdin=stdin),
        hook(root / "mayor", "bead-close", "../../x", "close", stdin=stdin),
        hook(root.parent, "session-start", stdin=stdin),
    ):
        assert (done.returncode, done.stdout) == (0, "")
    assert not (root.parent / ".gtft").exists()
    recorded = root / ".gtft/sessions.jsonl"
    assert recorded.exists() == stdin.startswith("{")
    assert "bead-close" in (root / ".gtft/hooks.log").read_text()


def test_the_hook_works_where_nothing_can_be_written(root: Path) -> None:
    install(root)
    # A folder where the file should be: no right can be taken from root, whom tests may run as.
    (root / ".gtft/sessions.jsonl").mkdir()
    (root / ".gtft/hooks.log").mkdir()
    done = hook(root, "session-start", stdin='{"session_id": "s-1"}')
    assert (done.returncode, done.stdout) == (0, "")


def test_the_hook_does_not_wait_for_an_input_that_never_ends(root: Path) -> None:
    install(root)
    end, begin = os.pipe()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "gtft.cli.main", "hook", "session-start"],
        cwd=root, stdin=end, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    os.close(begin)
    os.close(end)
    assert done.returncode == 0
    assert time.monotonic() - started < 10


def test_the_hook_imports_nothing_but_the_command_line() -> None:
    code = (
        "import sys\nfrom gtft.cli.main import run\n"
        "try:\n    run(['hook', 'bead-close', 'ft-1'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if m.startswith("
        "('gtft.', 'sqlalchemy', 'pydantic', 'rich', 'yaml', 'tomli'))), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = "['gtft.cli', 'gtft.cli.hook', 'gtft.cli.main', 'gtft.errors', 'gtft.town', 'gtft.town.hooks']"
    assert done.stderr.strip() == mine


def test_the_installed_shell_lines_do_not_need_gtft(root: Path) -> None:
    install(root)
    entry = json.loads((root / "mayor/.claude/settings.json").read_text())["hooks"]["SessionStart"]
    for command in (
        ["/bin/sh", "-c", entry[-1]["hooks"][0]["command"]],
        [str(root / "finetune/.beads/hooks/on_close"), "ft-1", "close"],
    ):
        done = subprocess.run(
            command, env={"PATH": "/usr/bin:/bin"}, input=b"{}", capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_nothing_is_taken_out_under_a_worker(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(root, monkeypatch, "install", "--yes") == 0
    job_dir = root / ".gtft" / "runs" / "run-1" / "train"
    job_dir.mkdir(parents=True)
    with (job_dir / LOCK_FILE).open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert command(root, monkeypatch, "uninstall", "--yes") == 8
        assert "gtft runs pause run-1" in capsys.readouterr().err
        assert states(root) == {"installed"}
    assert command(root, monkeypatch, "uninstall", "--yes") == 0


def test_where_nobody_answers_nothing_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(root)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert command(root, monkeypatch, "install") == 2
    assert "--yes" in capsys.readouterr().err
    assert snapshot(root) == before
