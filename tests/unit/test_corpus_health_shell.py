"""Commands in shell text, and what of them gt and bd no longer know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.corpus.health.commands import load_commands, read_commands
from gtft.corpus.health.program_help import read_help, read_installed, read_program
from gtft.corpus.health.shell_lines import MOST_COMMANDS, split_commands
from gtft.corpus.health.staleness import find_uses
from gtft.errors import TownError
from gtft.tool import run_tool
from health_case import answer, call, user
from town_case import make_environ, need_tools

KNOWN = load_commands()


def stale(message: dict[str, Any]) -> list[str]:
    return [s.what for s in find_uses(message, KNOWN).stale]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("bd ready --json | jq .", [["bd", "ready", "--json"], ["jq", "."]]),
        ("cd x && bd show a; gt done &", [["cd", "x"], ["bd", "show", "a"], ["gt", "done"]]),
        ("A=b BD_ACTOR='x y' bd list", [["bd", "list"]]),
        ("bd create --title=\"it's\" -d 'a \"b\" c'", [["bd", "create", "--title=it's", "-d", 'a "b" c']]),
        ('bd show "$(bd ready --json)"', [["bd", "ready", "--json"], ["bd", "show", "$"]]),
        ("bd show `gt hook`", [["gt", "hook"], ["bd", "show", "$"]]),
        ("bd show $ID ${x:-y}", [["bd", "show", "$ID", "$"]]),
        ("(bd ready) 2>&1 >/dev/null", [["bd", "ready"]]),
        ("bd export > out.jsonl 2>err -q", [["bd", "export", "-q"]]),
        ("bd ready # bd sync", [["bd", "ready"]]),
        ("bd note a#b", [["bd", "note", "a#b"]]),
        ("bd close a \\\n  --reason x", [["bd", "close", "a", "--reason", "x"]]),
        ("cat <<'EOF' | bd import -\nbd sync\nEOF\nbd ready", [["cat"], ["bd", "import", "-"], ["bd", "ready"]]),
        ("if bd ready; then gt done; fi", [["bd", "ready"], ["gt", "done"], ["fi"]]),
        ("timeout 30 bd list", [["bd", "list"]]),
        ("ls | xargs -n1 bd show", [["ls"], ["bd", "show"]]),
        ("bash -lc 'cd x && bd sync'", [["bash", "-lc", "cd x && bd sync"], ["cd", "x"], ["bd", "sync"]]),
        ("bd show <bead-id>", [["bd", "show", "<bead-id>"]]),
        ("bd list '", [["bd", "list", ""]]),
        ('bd list "$(', [["bd", "list", "$"]]),
        ("", []),
    ],
)  # fmt: skip
def test_simple_commands_of_a_text(text: str, commands: list[list[str]]) -> None:
    assert list(split_commands(text)) == commands


@given(st.text(alphabet="bdgt \n\t'\"\\$`|&;()<>#{}-=aEOF", max_size=400))
def test_any_text_ends_in_bounded_words(text: str) -> None:
    found = list(split_commands(text))
    assert len(found) <= MOST_COMMANDS
    assert all(words for words in found)
    assert sum(len(w) for words in found for w in words) <= 6 * (len(text) + 1)


@pytest.mark.parametrize(
    "piece", ["$(", '"$(', "`", "bd x;", "((", "<<E ", "\\", '"\\', "bash -c '"]
)
def test_hostile_repeats_are_bounded(piece: str) -> None:
    assert len(list(split_commands(piece * 20_000))) <= MOST_COMMANDS


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("bd sync", ["bd sync"]),
        ("bd --json sync", ["bd sync"]),
        ("bd -C ~/town --actor me sync", ["bd sync"]),
        ("gt mail inbx", ["gt mail inbx"]),
        ("gt nosuch --flag", ["gt nosuch"]),
        ("bd list --frobnicate", ["bd list --frobnicate"]),
        ("bd list -z", ["bd list -z"]),
        ("bd update gz-1 --status completed", ["bd update --status completed"]),
        ("bd list -s open,completed", ["bd list --status completed"]),
        ("bd mol pour mol-mill-by-night", ["mol-mill-by-night"]),
        ("gt sling gz-1 gizmo --on gz-2 --formula mol-mill-by-night", ["mol-mill-by-night"]),
        # Known, or nothing that can be judged.
        ("bd ready --json --limit 0", []),
        ("bd list --status=open,in_progress -n5 -qv", []),
        ("bd list --status all --status $S", []),
        ("bd close gz-1 --reason '--no-such thing'", []),
        ("bd close gz-1 -- --no-such", []),
        ("bd dep gz-1 --blocks gz-2", []),
        ("bd create -t bug --title=x -p 0 --label y", []),
        ("bd done gz-1", []),
        ("gt work --json", []),
        ("gt close gz-1 --any-flag-of-bd", []),
        ("gt crew next", []),
        ("gt sling mol-polecat-work gizmo --var issue=x", []),
        ("bd cook mol-gtft-finetune", []),
        ("bd mol show mol-7x2", []),
        ("bd <command> --json", []),
        ("bd $VERB --frob", []),
        ("bd help sync", []),
        ("git commit -m 'bd sync'", []),
    ],
)
def test_what_is_no_longer_known(command: str, found: list[str]) -> None:
    assert stale(call(command)) == found


def test_commands_are_found_where_agents_write_them() -> None:
    assert stale(answer("Run this:\n```bash\nbd sync\n```\n")) == ["bd sync"]
    assert stale(answer("```console\n$ bd sync\nbd nosuch is what it printed\n```")) == ["bd sync"]
    assert stale(answer("```\nbd sync\n```")) == ["bd sync"]
    assert stale(answer("bd sync")) == ["bd sync"]
    listed = call("")
    listed["tool_calls"][0]["function"]["arguments"] = {"command": ["bash", "-lc", "bd sync"]}
    assert stale(listed) == ["bd sync"]
    # Prose, other languages, and what a file holds that is written.
    assert stale(answer("bd syncs are gone, as `bd sync` is.")) == []
    assert stale(answer("```python\nbd sync\n```")) == []
    assert stale(user("the gt team and the bd team met")) == []
    written = call("")
    written["tool_calls"][0]["function"]["arguments"] = {"content": "bd sync"}
    assert stale(written) == []


def test_the_shipped_list_is_of_real_programs() -> None:
    assert {n: p.version for n, p in KNOWN.programs.items()} == {"gt": "1.1.0", "bd": "1.0.5"}
    assert len(KNOWN.programs["bd"].commands) > 200
    assert KNOWN.programs["bd"].commands["update"].flags["--status"] is True
    assert KNOWN.programs["bd"].commands["update"].flags["--claim"] is False
    assert "hooked" in KNOWN.statuses and "mol-polecat-work" in KNOWN.formulas
    with pytest.raises(ValueError, match="format"):
        read_commands({"format": 9})


HELP = """Does things.

Commands:
  prose     which is no list of commands

Usage:
  tool dep [issue-id] [flags]
  tool dep [command]

Aliases:
  dep, depends

Available Commands:
  add         Add one
  tree-view   Show

Flags:
  -b, --blocks string        Issue that this blocks
      --colour string[="x"]  Optional value
  -h, --help                 help for dep
      --no-cycle-check       Skip it
"""


def test_a_page_of_help_is_read() -> None:
    command, subs = read_help(HELP)
    assert command == {
        "words": True,
        "aliases": ["depends"],
        "flags": "-b= --blocks= --colour -h --help --no-cycle-check",
    }
    assert subs == ["add", "tree-view"]


FAKE = """#!/bin/sh
case "$*" in
  --version) echo "bd version 9.8.7 (dev)";;
  "--help") printf 'A.\\n\\nUsage:\\n  bd [command]\\n\\nAvailable Commands:\\n  ready   Show\\n\\nFlags:\\n  -q, --quiet   x\\n';;
  "ready --help") printf 'R.\\n\\nUsage:\\n  bd ready [flags]\\n\\nFlags:\\n      --all   x\\n\\nGlobal Flags:\\n  -q, --quiet   x\\n';;
  "ready --state=x --help") echo ok;;
  *) echo "Error: unknown flag: x" >&2; exit 1;;
esac
"""


def test_an_installed_program_is_asked_for_its_commands(tmp_path: Path) -> None:
    program = tmp_path / "bd"
    program.write_text(FAKE)
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    doc = read_program("bd", environ, ["ready --state", "ready --other", "gone"])
    assert doc["version"] == "9.8.7"
    assert doc["commands"]["ready"] == {"words": False, "flags": "--all --state="}
    known = read_installed(environ)
    assert known.describe() == "bd 9.8.7, gt 1.1.0"
    assert [s.what for s in find_uses(call("bd list; bd ready --all -q"), known).stale] == [
        "bd list"
    ]
    with pytest.raises(TownError, match="neither"):
        read_installed({"PATH": str(tmp_path / "nothing")})


@pytest.mark.parametrize("path", ["update", "list", "dep", "gate create"])
def test_the_shipped_list_is_what_bd_of_that_version_says(path: str, tmp_path: Path) -> None:
    need_tools("bd")
    environ = make_environ(tmp_path)
    shipped = KNOWN.programs["bd"]

    def ask(*words: str) -> str:
        return run_tool("bd", *words, environ=environ, cwd=tmp_path).stdout

    assert shipped.version in ask("--version"), "scripts/command-list renews the shipped list"
    said, _ = read_help(ask(*path.split(), "--help"))
    flags = {f.rstrip("="): f.endswith("=") for f in said["flags"].split()}
    root = shipped.commands[""].flags
    own = {f: takes for f, takes in flags.items() if f not in root}
    assert own.items() <= shipped.commands[path].flags.items()
    assert said["words"] == shipped.commands[path].takes_words
