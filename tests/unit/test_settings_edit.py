"""Settings files are edited without touching another byte, or refused with the reason."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtft.errors import ConflictError, InputError, TownError
from gtft.town.agents import PRESETS, Roster
from gtft.town.directive import put_block, take_block, word_advice
from gtft.town.json_text import drop_member, set_member
from gtft.town.role import make_config
from gtft.town.settings import (
    SettingsFile,
    check_writable,
    parse_settings,
    put_agent,
    read_settings,
    swap_file,
    take_agent,
)

OURS = {"command": "claude", "args": [], "exec_wrapper": ["gtft", "deploy", "launch", "J", "--"]}
FILES = {
    "gt": '{\n  "type": "town-settings",\n  "version": 1,\n  "default_agent": "claude"\n}\n',
    "comments": '{\n    "//": "who runs what",\n    "role_agents": {\n        "//witness": "cheap",\n        '
    '"mayor": "codex"\n    },\n    "made up": [1, 2.50, 1e3],\n    "agents": {"x": {"command": "x"}}\n}',
    "one line": '{"version":1,"agents":{},"role_agents":{"witness":"claude"}}',
    "crlf": '{\r\n  "version": 1,\r\n  "role_agents": {\r\n    "mayor": "codex"\r\n  }\r\n}\r\n',
    "empty": "{}",
    "spaces": ' \n{ "version" : 1 , "name" : "\\u00e9 \U0001f600" }\n\n',
    "null": '{"version": 1, "agents": null}',
}


def make_file(text: str) -> SettingsFile:
    data = text.encode()
    return SettingsFile(Path("config.json"), data, parse_settings(data, Path("config.json")))


def put(text: str) -> bytes:
    return put_agent(make_file(text), "town", "witness", "gtft-witness", OURS)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_ours_goes_in_and_nothing_else_changes(text: str) -> None:
    new = put(text)
    before, after = json.loads(text), json.loads(new)
    assert after["agents"].pop("gtft-witness") == OURS
    assert after["role_agents"].pop("witness") == "gtft-witness"
    for key in ("agents", "role_agents"):
        left = {k: v for k, v in (before.pop(key, None) or {}).items() if k != "witness"}
        assert after.pop(key) == left
    assert list(after.items()) == list(before.items())
    assert (b"\r\n" in new) == ("\r\n" in text) and new.replace(b"\r\n", b"").count(b"\r") == 0
    # Every line of theirs is still a line, as it was written.
    kept = [
        line.rstrip(",") for line in text.splitlines() if '"version"' in line and "{" not in line
    ]
    assert all(any(k in line for line in new.decode().splitlines()) for k in kept)


@pytest.mark.parametrize("name", ["gt", "comments", "crlf", "empty", "spaces"])
def test_taken_out_again_it_is_the_same_file(name: str) -> None:
    text = FILES[name]
    made = tuple(k for k in ("agents", "role_agents") if k not in json.loads(text))
    out = take_agent(put(text), Path("c"), "witness", "gtft-witness", None, made)
    assert json.loads(out) == json.loads(text)
    if name != "spaces":
        assert out == text.encode()


def test_the_entry_before_comes_back() -> None:
    text = FILES["one line"]
    out = take_agent(put(text), Path("c"), "witness", "gtft-witness", "claude", ())
    assert out == text.encode()


def test_an_entry_that_somebody_moved_since_stays_theirs() -> None:
    moved = put(FILES["gt"]).replace(b'"witness": "gtft-witness"', b'"witness": "gemini"')
    out = json.loads(take_agent(moved, Path("c"), "witness", "gtft-witness", None, ("agents",)))
    assert out["role_agents"] == {"witness": "gemini"} and "agents" not in out


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b'{"a": 1,\n "b": {"c": 1},\n "a": 2}', "'a' is there twice"),
        (b'{"agents": {"x": {},\n "x": {}}}', "'x' is there twice"),
        # Written again, it would be no JSON any more: gt could not read a word of its settings.
        (b'{"agents": {"x": {"t": 1e999}}}', "float"),
        (b'{"agents": {"x": {"env": {"A": "\\ud800"}}}}', "surrogate"),
        (b'{"Agents": {}}', "does not mind the case"),
        (b'{"agents": []}', "not an object"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1,}', ""),
        (b"", ""),
        (b'{"a":' + b"[" * 200_000, ""),
    ],
)
def test_what_cannot_be_edited_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(TownError) as e:
        parse_settings(data, Path("config.json"))
    assert why in e.value.why and e.value.fix


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(TownError, match="not gtft's"):
        put('{"agents": {"gtft-witness": {"command": "mine"}}}')


def test_links_and_read_only_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings" / "config.json"
    path.parent.mkdir()
    real = tmp_path / "real.json"
    real.write_text("{}")
    path.symlink_to(real)
    with pytest.raises(TownError, match="symbolic link"):
        read_settings(path, tmp_path)
    path.unlink()
    path.write_text("{}")
    path.chmod(0o444)
    with pytest.raises(TownError, match="is read-only"):
        check_writable(path)
    path.chmod(0o644)
    path.parent.chmod(0o555)
    with pytest.raises(TownError, match="settings is read-only"):
        check_writable(path)
    path.parent.chmod(0o755)
    check_writable(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TownError, match="no settings file"):
        read_settings(path, tmp_path)


def test_a_file_is_swapped_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.json"
    swap_file(path, None, b"one", 0o640)
    assert path.read_bytes() == b"one" and path.stat().st_mode & 0o777 == 0o640
    for expect in (b"other", None):
        with pytest.raises(ConflictError, match="nothing of theirs was overwritten"):
            swap_file(path, expect, b"two", 0o640)
    assert path.read_bytes() == b"one" and [p.name for p in path.parent.iterdir()] == [path.name]
    swap_file(path, b"one", None, 0o640)
    assert not list(path.parent.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        swap_file(tmp_path / "file" / "config.json", None, b"x", 0o644)


@given(st.text(alphabet="ab\n -<>!", max_size=40))
def test_a_directive_comes_back_to_the_byte(text: str) -> None:
    data = text.encode()
    with_block = put_block(data, word_advice("witness", "gizmo", "m"))
    assert take_block(with_block) == data
    assert put_block(with_block, word_advice("witness", "gizmo", "m")) == with_block


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=3), _JSON, max_size=4),
    st.lists(st.text(max_size=3), min_size=1, max_size=3),
    st.sampled_from([None, 0, 2]),
)
def test_members_of_any_object(doc: dict[str, Any], keys: list[str], indent: int | None) -> None:
    text = json.dumps(doc, indent=indent)
    try:
        new = set_member(text, keys, "x")
    except ValueError:
        # Something on the way is no object.
        return
    found = json.loads(new)
    for key in keys:
        found = found[key]
    assert found == "x"
    gone = json.loads(drop_member(new, keys))
    for key in keys[:-1]:
        gone = gone[key]
    assert keys[-1] not in gone


def test_who_runs_a_role_is_found_as_gt_finds_it() -> None:
    town = {
        "default_agent": "codex",
        "agents": {"mine": {"command": "/opt/claude", "env": {"A": "1"}}},
    }
    rig = {"agent": "gemini", "role_agents": {"witness": "mine"}}
    assert Roster(town).find("witness").name == "codex"
    mine = Roster(town, rig).find("witness")
    assert (mine.name, mine.command, mine.args) == ("mine", "/opt/claude", PRESETS["claude"].args)
    assert mine.protocol == "anthropic" and mine.is_claude
    assert Roster(town, rig).find("polecat").name == "gemini"
    runtime = Roster({}, {"runtime": {"command": "codex"}}).find("witness")
    assert (runtime.command, runtime.protocol) == ("codex", "openai")
    preset = Roster(
        {"default_agent": "mine"}, {}, [{"mine": {"command": "run-it", "args": ["-x"]}}]
    )
    assert preset.find("witness").config == {
        "provider": "mine",
        "command": "run-it",
        "args": ["-x"],
    }
    with pytest.raises(TownError, match="no agent gone"):
        Roster({"role_agents": {"witness": "gone"}}).find("witness")


def test_an_agent_that_is_told_its_server_is_asked_in_that_protocol() -> None:
    own = Roster({"agents": {"x": {"command": "x", "env": {"OPENAI_BASE_URL": "http://gpu/v1"}}}})
    agent = own.get("x")
    assert (agent.protocol, agent.upstream) == ("openai", "http://gpu/v1")
    previous = Roster({}, {"runtime": {"provider": "codex"}}).find("witness")
    program = Path("/a path/it's/x")
    config = make_config(agent, "http://h/v1", ("a b", "--"), ("box",), program, previous)
    assert config["env"] == {"OPENAI_BASE_URL": "http://h/v1", "GT_AGENT": "codex"}
    # gt joins these words into a shell command as they are.
    assert config["exec_wrapper"] == ["'a b'", "--", "box"]
    assert config["command"] == "/a\\ path/it\\'s/x"


def test_an_agent_has_what_gt_fills_in_from_its_preset() -> None:
    agents = {
        "g": {"provider": "groq-compound", "env": {"ANTHROPIC_MODEL": "mine"}},
        "o": {"command": "opencode"},
        "c": {"command": "/opt/claude"},
        "m": {"provider": "mine"},
    }
    files = [{"mine": {"command": "run-it", "args": ["-x"], "env": {"A": "1"}}}]
    roster = Roster({"agents": agents}, {}, files)
    g = roster.get("g")
    assert (g.command, g.upstream) == ("claude", "https://api.groq.com/openai/v1")
    assert g.env["ANTHROPIC_MODEL"] == "mine" and g.env["ANTHROPIC_API_KEY"] == "$GROQ_API_KEY"
    assert roster.get("o").env == {"OPENCODE_PERMISSION": '{"*":"allow"}'}
    assert "env" not in roster.get("c").config
    m = roster.get("m")
    assert (m.command, m.args, m.env) == ("run-it", ("-x",), {"A": "1"})
