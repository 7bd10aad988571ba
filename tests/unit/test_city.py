"""A model in a Gas City: ``city.toml`` gets an upstream and a patch, and has its bytes back afterwards."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import tomli
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy_case import make_agent, make_model, open_town
from gtft.cli.main import main
from gtft.errors import ConflictError, GtftError, TownError, UsageError
from gtft.records.deployments import Deployments
from gtft.runner.deployment import carry_out, plan_deployment
from gtft.runner.deployment_files import Wanted, with_city_form
from gtft.town.city import (
    CITY,
    CityPlan,
    has_block,
    list_refusals,
    name_upstream,
    plan_city,
    take_block,
)
from gtft.town.settings import swap_file

WITNESS = '[[agent]]\nname = "witness"\nprompt_template = "w.md"\n'
RIGS = """[[rigs]]
name = "backend"
path = "/srv/backend"
[rigs.imports.gas]
source = "packs/gas"

[[ "rigs" ]]   # the other one
name = "web"

[daemon]
patrol_interval = "30s"
"""
ODD = """# A city made by hand,   with   odd   spaces
"unknown key" = 1
[workspace]
name = "lab"   # a name
[made.up]
x = { y = [1, 2 ,3] }
text = '''
[[rigs]]
name = "no rig at all"
'''
[upstreams.bedrock]
base_url = "https://bedrock.example/anthropic"
[[patches.agent]]
name = "mayor"
suspended = true
"""


def make_city(folder: Path, text: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CITY).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def plan(root: Path, **changed: str) -> CityPlan:
    given_: dict[str, str] = {
        "role": "witness",
        "rig": "",
        "base_url": "http://127.0.0.1:8000/roles/witness",
        "key_env": "GTFT_KEY",
        "model": "gtft-witness-3",
        "provider": "claude",
    }
    return plan_city(root, **{**given_, **changed})  # type: ignore[arg-type]


def put(made: CityPlan) -> None:
    swap_file(made.path, made.found, made.new, made.mode)


def take_back(root: Path, name: str) -> None:
    path = root / CITY
    now = path.read_bytes()
    swap_file(path, now, take_block(now, name), 0o644)


def there_and_back(root: Path, **changed: str) -> bytes:
    """Deploys and rolls back; returns what the file was in between."""
    made = plan(root, **changed)
    put(made)
    between = (root / CITY).read_bytes()
    take_back(root, made.name)
    return between


def test_an_upstream_and_a_patch_are_what_gas_city_reads(tmp_path: Path) -> None:
    root = make_city(tmp_path, ODD + WITNESS)
    made = plan(root)
    put(made)
    doc = tomli.loads((root / CITY).read_text())
    assert doc["upstreams"]["gtft-witness"] == {
        "description": "gtft: witness",
        "base_url": "http://127.0.0.1:8000/roles/witness",
        "auth_token": "$GTFT_KEY",
    }
    assert doc["upstreams"]["bedrock"]["base_url"].startswith("https://")
    assert doc["patches"]["agent"] == [
        {"name": "mayor", "suspended": True},
        {
            "name": "witness",
            "provider": "claude",
            "upstream": "gtft-witness",
            "option_defaults": {"model": "gtft-witness-3"},
        },
    ]
    shown = made.diff()
    assert "+[upstreams.gtft-witness]" in shown and not re.search("^-[^-]", shown, re.MULTILINE)


def test_an_older_gc_gets_variables_instead(tmp_path: Path) -> None:
    root = make_city(tmp_path, WITNESS)
    doc = tomli.loads(plan(root, form="env", key_env="", model="").new.decode())
    assert "upstreams" not in doc
    (patch,) = doc["patches"]["agent"]
    assert patch == {
        "name": "witness",
        "provider": "claude",
        "env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8000/roles/witness"},
    }
    own = make_city(tmp_path / "own", f'{WITNESS}[providers.fast]\nbase = "builtin:codex"\n')
    doc = tomli.loads(plan(own, form="env", provider="fast").new.decode())
    assert set(doc["patches"]["agent"][0]["env"]) == {"OPENAI_BASE_URL", "OPENAI_API_KEY"}


@pytest.mark.parametrize("rig", ["backend", "web"])
@pytest.mark.parametrize("key", ["overrides", "patches"])
def test_a_rig_s_agent_is_patched_below_its_rig(tmp_path: Path, rig: str, key: str) -> None:
    text = RIGS
    if key == "patches":
        text = text.replace('path = "/srv', 'patches = []\npath = "/srv').replace(
            'name = "web"\n', 'name = "web"\n[[rigs.patches]]\nagent = "mayor"\n'
        )
    root = make_city(tmp_path, text)
    before = (root / CITY).read_bytes()
    if key == "patches" and rig == "backend":
        # An array in one line cannot be added to from behind.
        with pytest.raises(TownError, match="without touching what is yours"):
            plan(root, rig=rig)
        return
    doc = tomli.loads(there_and_back(root, rig=rig, agent="gastown.witness").decode())
    assert (root / CITY).read_bytes() == before
    mine, other = sorted(doc["rigs"], key=lambda r: r["name"] != rig)
    assert mine["name"] == rig and mine[key][-1]["agent"] == "witness"
    assert mine[key][-1]["upstream"] == f"gtft-{rig}-witness"
    assert not other.get(key) and "patches" not in doc
    assert doc["daemon"] == {"patrol_interval": "30s"}


def test_an_agent_of_the_city_itself_and_of_a_pack(tmp_path: Path) -> None:
    root = make_city(tmp_path, "[workspace]\n")
    with pytest.raises(TownError, match="which agent of this city is the witness"):
        plan(root)
    doc = tomli.loads(plan(root, agent="gastown.witness").new.decode())
    assert doc["patches"]["agent"][0]["name"] == "gastown.witness"
    (root / "agents" / "witness").mkdir(parents=True)
    assert tomli.loads(plan(root).new.decode())["patches"]["agent"][0]["name"] == "witness"
    with pytest.raises(TownError, match="web is not a rig of this city"):
        plan(root, rig="web")


@pytest.mark.parametrize(
    "text",
    [
        ODD + WITNESS,
        ODD.replace("\n", "\r\n") + WITNESS.replace("\n", "\r\n"),
        WITNESS.rstrip("\n"),
        WITNESS + "# no line end",
        '[[agent]]\nname = "witness"\r\n# mixed\n\n\n',
        '[ "upstreams" . a ]\nbase_url = "x"\n[[agent]]\nname="witness"',
        '["patches"]\n[["patches"."agent"]]\nname = "mayor"\n[[agent]]\nname = "witness"\n',
        WITNESS + "[upstreams]\n[upstreams.x]\nenv = {A = '1'}\n",
    ],
)
def test_what_is_rolled_back_has_its_bytes_again(tmp_path: Path, text: str) -> None:
    root = make_city(tmp_path, text)
    between = there_and_back(root)
    assert between != text.encode() and tomli.loads(between.decode())
    assert (root / CITY).read_bytes() == text.encode()


@pytest.mark.parametrize(
    "text",
    [
        'upstreams = { a = { base_url = "x" } }\n' + WITNESS,
        "patches = { agent = [] }\n" + WITNESS,
        'patches.agent = [{ name = "mayor" }]\n' + WITNESS,
        "upstreams = 3\n" + WITNESS,
        "agent = 3\n",
        'agent = ["witness"]\n',
        "rigs = { a = 1 }\n",
        "[[agent]]\nname = \n",
        "x = 1\nx = 2\n",
        '[upstreams.gtft-witness]\nbase_url = "mine"\n' + WITNESS,
        b"\xff\xfe",
        "a=" + "[" * 3000,
    ],
)
def test_what_cannot_be_edited_safely_is_refused_untouched(
    tmp_path: Path, text: str | bytes
) -> None:
    root = make_city(tmp_path, text)
    before = (root / CITY).read_bytes()
    with pytest.raises(TownError) as caught:
        plan(root)
    assert caught.value.why
    assert (root / CITY).read_bytes() == before


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "ftp://x/"},
        {"base_url": 'http://127.0.0.1/"\nx = 1'},
        {"base_url": "http://user:made-up@127.0.0.1/"},
        {"base_url": "http:///roles"},
        {"key_env": "sk-made-up-key"},
        {"role": "../witness"},
        {"rig": "a b"},
        {"model": 'm"x'},
        {"agent": "a]b"},
        {"provider": "opencode"},
        {"provider": "claude]"},
    ],
)
def test_hostile_values_are_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        plan(make_city(tmp_path, WITNESS), **changed)


def test_no_city_a_link_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TownError, match="there is no city"):
        plan(tmp_path)
    (tmp_path / "real.toml").write_text(WITNESS)
    (tmp_path / CITY).symlink_to(tmp_path / "real.toml")
    with pytest.raises(TownError, match="symbolic link"):
        plan(tmp_path)
    (tmp_path / CITY).unlink()
    (tmp_path / CITY).mkdir()
    with pytest.raises(TownError, match="no plain file"):
        plan(tmp_path)


def test_a_writer_in_between_is_not_written_over(tmp_path: Path) -> None:
    root = make_city(tmp_path, WITNESS)
    made = plan(root)
    (root / CITY).write_text(WITNESS + "[daemon]\n")
    with pytest.raises(ConflictError, match="changed while gtft was at work"):
        put(made)
    assert (root / CITY).read_text() == WITNESS + "[daemon]\n"
    assert take_block((root / CITY).read_bytes(), made.name) == (root / CITY).read_bytes()


def test_what_others_wrote_since_stays_at_a_rollback(tmp_path: Path) -> None:
    root = make_city(tmp_path, WITNESS)
    (root / CITY).chmod(0o600)
    made = plan(root)
    put(made)
    with (root / CITY).open("a") as f:
        f.write("[daemon]\n")
    take_back(root, made.name)
    assert (root / CITY).read_text() == WITNESS + "[daemon]\n"
    assert stat.S_IMODE((root / CITY).stat().st_mode) == 0o600


def test_a_block_whose_end_is_gone_is_told_not_guessed(tmp_path: Path) -> None:
    root = make_city(tmp_path, WITNESS)
    made = plan(root)
    damaged = made.new.replace(b"# gtft deploy gtft-witness: end\n", b"")
    assert has_block(damaged, made.name) and take_block(damaged, made.name) == damaged


@pytest.mark.parametrize("text", [WITNESS, WITNESS.rstrip("\n")])
@pytest.mark.parametrize("first", ["witness", "refinery"])
def test_two_roles_come_and_go_in_any_order(tmp_path: Path, text: str, first: str) -> None:
    text = '[[agent]]\nname = "refinery"\n' + text
    root = make_city(tmp_path, text)
    for role in ("witness", "refinery"):
        put(plan(root, role=role))
    second = {"witness": "refinery", "refinery": "witness"}[first]
    for role in (first, second):
        take_back(root, f"gtft-{role}")
        doc = tomli.loads((root / CITY).read_text())
        left = [p["name"] for p in doc.get("patches", {}).get("agent", [])]
        assert left == ([second] if role == first else [])
    assert (root / CITY).read_text() == text


def test_another_model_takes_the_place_of_the_block(tmp_path: Path) -> None:
    root = make_city(tmp_path, WITNESS)
    put(plan(root))
    once = (root / CITY).read_bytes()
    put(plan(root, model="gtft-witness-4"))
    assert (root / CITY).read_bytes() == once.replace(b"witness-3", b"witness-4")
    take_back(root, "gtft-witness")
    assert (root / CITY).read_bytes() == WITNESS.encode()


def make_gc(folder: Path, code: int, out: str, err: str) -> dict[str, str]:
    """A ``gc`` that says what it is told to say, and writes down how it was called."""
    folder.mkdir()
    (folder / "out").write_text(out)
    (folder / "err").write_text(err)
    gc = folder / "gc"
    gc.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/argv"\n'
        f'cat "{folder}/out"\ncat "{folder}/err" >&2\nexit {code}\n'
    )
    gc.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}


RESOLVED = '[[agent]]\nname = "witness"\nupstream = "gtft-witness"\n'


@pytest.mark.parametrize(
    ("code", "out", "err", "told"),
    [
        (1, "", 'agent "witness" not found in merged config', "not found in merged config"),
        (0, RESOLVED, 'city.toml: unknown field "upstreams.gtft-witness"', "unknown field"),
        (0, RESOLVED, 'city.toml: unknown field "patches.agent.upstream"', "unknown field"),
        (0, '[[agent]]\nname = "witness"\n', "", "no agent of the city"),
        (0, "no = = toml", "", "no agent of the city"),
    ],
)
def test_what_gc_does_not_take_is_told(
    tmp_path: Path, code: int, out: str, err: str, told: str
) -> None:
    root = make_city(tmp_path / "city", WITNESS)
    environ = make_gc(tmp_path / "bin", code, out, err)
    made = plan(root)
    put(made)
    assert told in " ".join(list_refusals(made, environ))
    said = (tmp_path / "bin" / "argv").read_text().splitlines()
    assert said == ["--city", str(root), "config", "show"]


def test_what_gc_takes_stays(tmp_path: Path) -> None:
    root = make_city(tmp_path / "city", WITNESS)
    environ = make_gc(tmp_path / "bin", 0, RESOLVED, 'warning: unknown field "mine"\n')
    made = plan(root)
    put(made)
    assert not list(list_refusals(made, environ))
    assert not list(list_refusals(made, {"PATH": ""}))


GC_OF_APRIL = """#!/bin/sh
# gc --city FOLDER config show, of April 2026: it leaves out what it does not know, and says so.
at="$2/city.toml"
for key in $(sed -n 's/^\\[\\(upstreams[^]]*\\)\\]/\\1/p' "$at"); do
  echo "gc config show: warning: $at: unknown field \\"$key\\"" >&2
done
url="$(sed -n 's/.*ANTHROPIC_BASE_URL = "\\([^"]*\\)".*/\\1/p' "$at")"
printf '[[agent]]\\nname = "witness"\\n[agent.env]\\nANTHROPIC_BASE_URL = "%s"\\n' "$url"
"""


def test_a_gc_of_april_gets_variables_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = make_agent(tmp_path, "claude", "gc")
    (tmp_path / "bin" / "gc").write_text(GC_OF_APRIL)
    root = make_city(tmp_path / "city", WITNESS)
    ws = open_town(root, environ)
    model = make_model(ws, "a")
    url = "http://127.0.0.1:9"
    wanted = Wanted(model, "live", "witness", "", url, "me")
    made = plan_deployment(ws, None, wanted, "dep-1", environ)
    with pytest.raises(TownError, match="gc does not take"):
        carry_out(ws, made, lambda: None)
    assert (root / CITY).read_text() == WITNESS
    told = with_city_form(ws, wanted)
    assert told.form == "env" and with_city_form(ws, replace(wanted, mode="shadow")).form != "env"
    carry_out(ws, plan_deployment(ws, None, told, "dep-2", environ), lambda: None)
    (patch,) = tomli.loads((root / CITY).read_text())["patches"]["agent"]
    assert patch["env"] == {"ANTHROPIC_BASE_URL": f"{url}/roles/witness"}
    # Without its server an agent of a city has nobody to answer.
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("GTFT_WORKSPACE", str(ws.path))
    shown = CliRunner().invoke(main, ["deploy", "status"])
    assert "does not answer: agents of the city get no answer" in shown.output
    assert "agents of the city get no answer" in CliRunner().invoke(main, ["doctor"]).output
    back = CliRunner().invoke(main, ["rollback"])
    assert back.exit_code == 0 and "gt witness restart" not in back.output
    assert (root / CITY).read_text() == WITNESS
    (tmp_path / "bin" / "gc").unlink()
    assert with_city_form(ws, wanted).form == "upstream"


def test_in_a_city_shadow_is_the_mode_before_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = make_agent(tmp_path, "claude")
    root = make_city(tmp_path / "city", WITNESS)
    ws = open_town(root, environ)
    model = make_model(ws, "a")
    made = plan_deployment(
        ws, None, Wanted(model, "shadow", "witness", "", "", "me"), "dep-1", environ
    )
    carry_out(ws, made, lambda: None)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("GTFT_WORKSPACE", str(ws.path))
    promote = ["deploy", "promote", "--endpoint", "http://127.0.0.1:9", "--dry-run", "--json"]

    def look() -> tuple[str, dict[str, object]]:
        said = CliRunner().invoke(main, promote)
        assert said.exit_code == 0, (said.output, said.exception)
        data = json.loads(said.stdout.splitlines()[-1])["data"]
        return data["mode"], next(g for g in data["gates"] if g["name"] == "mode before")

    mode, gate = look()
    assert mode == "live" and not gate["met"] and "--mode shadow" in str(gate["fix"])
    empty = {"since": None, "before": None}
    Deployments(ws.store).note_figures("dep-1", {
        "decisions": 30, "agreement": None, "fallbacks": {"all": None, "causes": {}},
        "escalations": empty, "rejects": empty, "seconds": None, "ab": None,
    })  # fmt: skip
    assert look()[1]["told"] == "30 decisions in shadow"


KEYS = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
VALUES = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(['"a # b"', "'[x]'", "'''\n[[rigs]]\n'''", "[1,\n 2]", "{ a = 1 }", "true"]),
)
SPACE = st.sampled_from(
    ["", "\n", "  \n", "# gtft\n", "# gtft deploy gtft-witness: end\n", "\t# é\n"]
)


@st.composite
def cities(draw: st.DrawFn) -> str:
    """Cities as a hand writes them: tables in any order, quoted heads, comments, CRLF, no last line end."""
    names = draw(st.lists(KEYS, max_size=5, unique=True))
    parts = [
        f"{draw(SPACE)}[{draw(st.sampled_from(['', 'x.']))}t{name}]  # c\n"
        + "".join(f"{k} = {draw(VALUES)}\n" for k in draw(st.lists(KEYS, max_size=3, unique=True)))
        for name in names
    ]
    parts += [f'[[rigs]]\nname = "r{n}"\n{draw(SPACE)}' for n in range(draw(st.integers(1, 3)))]
    parts += [
        draw(st.sampled_from(['[[agent]]\nname = "witness"\n', "[[ 'agent' ]]\nname='witness'\n"]))
    ]
    parts += draw(st.lists(st.sampled_from(["[upstreams.z]\nbase_url = 'x'\n"]), max_size=1))
    text = "".join(draw(st.permutations(parts))) + draw(SPACE)
    text = text.replace("\n", "\r\n") if draw(st.booleans()) else text
    return text.rstrip("\r\n") if draw(st.booleans()) else text


@settings(max_examples=80, deadline=None)
@given(
    text=cities(), rig=st.sampled_from(["", "r0", "r1"]), form=st.sampled_from(["upstream", "env"])
)
def test_any_city_comes_back_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, text: str, rig: str, form: str
) -> None:
    root = make_city(tmp_path_factory.mktemp("city"), text)
    before = (root / CITY).read_bytes()
    try:
        made = plan(root, rig=rig, form=form)
    except GtftError:
        # A rig that is not there, and what cannot be added to: nothing was written.
        assert (root / CITY).read_bytes() == before
        return
    old, new = tomli.loads(before.decode()), tomli.loads(made.new.decode())
    assert {k: v for k, v in new.items() if k in old and k not in ("rigs", "upstreams")} == {
        k: v for k, v in old.items() if k not in ("rigs", "upstreams")
    }
    assert take_block(made.new, name_upstream("witness", rig)) == before
