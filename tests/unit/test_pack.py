"""The pack for Gas City: each of its files is held against the rules of pack schema 2, and its scripts are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from gtft import __version__
from gtft.cli.main import COMMANDS

REPO = Path(__file__).resolve().parents[2]
RESERVED = {
    "agents", "assets", "commands", "doctor", "formulas", "lifecycle", "orders", "skills", "mcp",
    "template-fragments", "overlay",
}  # fmt: skip
NAMES = ("install", "train", "status", "eval", "review", "deploy", "rollback")
CHECKS = ("python", "runtime", "disk")
SCRIPTS = sorted(
    [*REPO.glob("commands/*/run.sh"), *REPO.glob("doctor/*/run.sh"), *REPO.glob("assets/*.sh")]
)


def read(path: str) -> dict[str, object]:
    return tomli.loads((REPO / path).read_text("utf-8"))


def test_pack_toml_has_nothing_that_a_loader_refuses() -> None:
    doc = read("pack.toml")
    assert set(doc) == {"pack"}
    pack = doc["pack"]
    assert isinstance(pack, dict)
    assert set(pack) <= {"name", "schema", "version", "requires_gc", "description", "requires"}
    assert pack["name"] == "gtft" and pack["schema"] == 2
    assert pack["version"] == __version__
    assert (REPO / "LICENSE").is_file()


def test_only_reserved_folders_hold_what_gas_city_reads() -> None:
    machine_readable = ("run.sh", "agent.toml", "command.toml", "doctor.toml")
    used = {
        f.name
        for f in REPO.iterdir()
        if f.is_dir() and any(p.name in machine_readable for p in f.glob("*/*"))
    }
    # ``plugins`` is Gas Town's: it has a plugin.md, and no loader of Gas City looks there.
    assert used - {"plugins"} == {"commands", "doctor"} <= RESERVED
    assert not list(REPO.glob("*/order.toml")) and not (REPO / "lifecycle").exists()
    assert {p.name for p in (REPO / "commands").iterdir()} == set(NAMES)
    assert {p.name for p in (REPO / "doctor").iterdir()} == set(CHECKS)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_a_script_a_description_and_help(name: str) -> None:
    folder = REPO / "commands" / name
    assert {p.name for p in folder.iterdir()} == {"run.sh", "command.toml", "help.md"}
    doc = read(f"commands/{name}/command.toml")
    assert set(doc) <= {"command", "description", "run"} and doc["description"]
    assert f"gc gtft {name}" in (folder / "help.md").read_text("utf-8")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_has_a_script_and_a_description(name: str) -> None:
    doc = read(f"doctor/{name}/doctor.toml")
    assert set(doc) <= {"description", "run", "fix", "warmup"} and doc["description"]


@pytest.mark.parametrize("path", sorted(REPO.glob("orders/*.toml")), ids=lambda p: p.name)
def test_an_order_fires_in_old_and_new_builds(path: Path) -> None:
    doc = tomli.loads(path.read_text("utf-8"))
    assert set(doc) == {"order"}
    order = doc["order"]
    known = {
        "description", "formula", "exec", "trigger", "gate", "interval", "schedule", "check", "on", "timeout",
        "enabled", "scope", "idempotent", "env",
    }  # fmt: skip
    assert set(order) <= known
    assert ("exec" in order) != ("formula" in order)
    # ``gate`` until April 2026, ``trigger`` since; a build takes the one it knows.
    assert order["trigger"] == order["gate"] == "cooldown"
    for key in ("interval", "timeout"):
        assert re.fullmatch(r"\d+(s|m|h)", order[key])
    assert order["scope"] == "city"
    script = order["exec"].removeprefix("$PACK_DIR/")
    assert os.access(REPO / script, os.X_OK)


def test_the_fragment_is_one_template_and_names_commands_that_are_there() -> None:
    (path,) = (REPO / "template-fragments").iterdir()
    assert path.name == "gtft-usage.template.md"
    text = path.read_text("utf-8")
    assert re.findall(r"\{\{.*?\}\}", text) == ['{{ define "gtft-usage" }}', "{{ end }}"]
    assert set(re.findall(r"gc gtft (\w+)", text)) <= set(NAMES)


def test_what_the_pack_calls_is_there() -> None:
    """The nouns of the scripts are those of the program."""
    called = {
        m
        for path in SCRIPTS
        for m in re.findall(r"^run_gtft ([a-z]+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert called == {"run", "status", "eval", "review", "deploy", "rollback", "sweep"}
    assert called <= set(COMMANDS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: str(p.relative_to(REPO)))
def test_a_script_is_plain_sh_and_holds_no_secret(path: Path) -> None:
    text = path.read_text("utf-8")
    subprocess.run(["sh", "-n", str(path)], check=True)
    if path.name != "gtft-env.sh":
        assert os.access(path, os.X_OK)
        assert text.startswith("#!/bin/sh\n") and "\nset -eu\n" in text
    assert not re.search(
        r"\[\[|\bfunction\b|\blocal\b|\bsource /|\$'|<<<|&>|^\s*eval\b|sudo|curl",
        text,
        re.MULTILINE,
    )
    assert not re.search(r"(?i)(token|secret|password|api_?key)\s*=", text)


class City:
    """A city as the scripts see it: what gc sets, a PATH, and a gtft that writes down how it is called."""

    def __init__(self, home: Path) -> None:
        self.home = home / "a city"
        self.bin = home / "bin"
        self.state = self.home / ".gc" / "runtime" / "packs" / "gtft"
        self.home.mkdir()
        self.bin.mkdir()
        self.log = home / "log"

    def put(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    def put_gtft(self, path: Path | None = None) -> None:
        text = f'{{ pwd; echo "$GTFT_WORKSPACE"; printf "<%s>\\n" "$@"; }} >> "{self.log}"\necho "gtft 1.2.3"\n'
        self.put(path or self.state / "venv" / "bin" / "gtft", text)

    def run(self, script: str, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "GC_CITY_PATH": str(self.home),
            "GC_PACK_DIR": str(REPO),
            **changed,
        }
        return subprocess.run(
            [str(REPO / script), *words],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )


@pytest.fixture
def city(tmp_path: Path) -> City:
    return City(tmp_path)


@pytest.mark.parametrize(
    ("name", "words", "called"),
    [
        ("status", ["--json"], ["status", "--json"]),
        ("eval", ["show", "a b", "$(x)", "*"], ["eval", "show", "a b", "$(x)", "*"]),
        ("review", [], ["review"]),
        ("deploy", ["m", "--role", "witness"], ["deploy", "m", "--role", "witness"]),
        ("rollback", ["--role", ""], ["rollback", "--role", ""]),
        ("train", ["mol-x", "--var", "a=b c"], ["run", "--detach", "mol-x", "--var", "a=b c"]),
    ],
)
def test_a_command_hands_its_words_on(
    city: City, name: str, words: list[str], called: list[str]
) -> None:
    city.put_gtft()
    done = city.run(f"commands/{name}/run.sh", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gtft 1.2.3\n", "")
    where, workspace, *given = city.log.read_text().splitlines()
    assert where == str(city.home)
    assert workspace == str(city.state / "workspace")
    assert given == [f"<{w}>" for w in called]


def test_a_city_without_gtft_is_told_what_to_do(city: City) -> None:
    done = city.run("commands/status/run.sh")
    assert done.returncode == 3 and "Next: gc gtft install" in done.stderr
    swept = city.run("assets/gtft-sweep.sh", PACK_DIR=str(REPO))
    assert swept.returncode == 0 and "skipped" in swept.stderr
    city.put_gtft(city.bin / "gtft")
    assert city.run("commands/status/run.sh").returncode == 0
    assert city.run("commands/train/run.sh").returncode == 2
    bare = subprocess.run(
        [str(REPO / "commands/status/run.sh")],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert bare.returncode != 0 and b"GC_PACK_DIR" in bare.stderr


def test_the_order_sweeps_with_what_an_order_gets(city: City) -> None:
    """An order has PACK_DIR, and a GC_PACK_DIR only in some builds."""
    city.put_gtft()
    done = city.run("assets/gtft-sweep.sh", GC_PACK_DIR="", PACK_DIR=str(REPO))
    assert done.returncode == 0, done.stderr
    assert city.log.read_text().splitlines()[2:] == ["<sweep>"]


@pytest.mark.parametrize(
    ("wanted", "extra"), [((), "[train]"), (("core",), ""), (("serve",), "[serve]")]
)
def test_install_makes_an_environment_and_touches_nothing_else(
    city: City, wanted: tuple[str, ...], extra: str
) -> None:
    """The program ``python3`` is a stand-in here: the real install takes minutes and needs an index."""
    make_gtft = f'mkdir -p "$3/bin"; cp "{city.bin}/python3" "$3/bin/python"; cp "{city.bin}/gtft-real" "$3/bin/gtft"'
    city.put(
        city.bin / "python3",
        f'printf "<%s>" "$@" >> "{city.log}"; echo >> "{city.log}"\n'
        f'[ "$2" = venv ] && {{ {make_gtft}; }}\n'
        '[ "$2" = pip ] && { for last; do :; done; ls "${last%%\\[*}" >> "'
        + f'{city.log}"; }}\nexit 0\n',
    )
    city.put(city.bin / "gtft-real", 'echo "gtft 1.2.3"\n')
    before = {p: p.stat().st_mtime_ns for p in REPO.iterdir()}
    done = city.run("commands/install/run.sh", *wanted)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in REPO.iterdir()} == before
    assert "gtft 1.2.3 is installed" in done.stdout
    assert (city.state / "installed").read_text() == "gtft 1.2.3\n"
    assert {p.name for p in city.state.iterdir()} == {"venv", "installed"}
    _, venv, pip, *parts = city.log.read_text().splitlines()
    assert venv == f"<-m><venv><{city.state / 'venv'}>"
    source = city.state / "source"
    assert pip.endswith(f"<-c><{REPO / 'constraints.txt'}><{source}{extra}>")
    assert set(parts) == {
        "LICENSE", "README.md", "formulas", "gtft", "hooks", "plugins", "pyproject.toml",
    }  # fmt: skip


def test_an_install_that_fails_is_not_taken_for_one(city: City) -> None:
    assert city.run("commands/install/run.sh", "everything").returncode == 2
    assert not city.state.exists()
    city.put(city.bin / "python3", '[ "$2" = venv ] && exit 9\nexit 0\n')
    city.state.mkdir(parents=True)
    (city.state / "installed").write_text("gtft 0.9\n")
    assert city.run("commands/install/run.sh").returncode == 9
    assert not (city.state / "installed").exists() and not (city.state / "source").exists()


def test_what_install_copies_is_what_the_wheel_is_made_of() -> None:
    project = tomli.loads((REPO / "pyproject.toml").read_text("utf-8"))
    used = {
        p.split("/")[0] for ps in project["tool"]["setuptools"]["data-files"].values() for p in ps
    }
    text = (REPO / "commands/install/run.sh").read_text("utf-8")
    copied = set(re.findall(r"for part in (.*); do", text)[0].split())
    assert copied == used | {"gtft", "pyproject.toml", project["project"]["readme"], "LICENSE"}


def test_doctor_tells_in_one_line_and_by_exit_code(city: City) -> None:
    done = city.run("doctor/python/run.sh", GTFT_PYTHON=sys.executable)
    assert done.returncode == 0 and re.match(r"Python 3\.\d+\.\d+\n", done.stdout)
    # Without any Python: a PATH that holds only what sh itself needs.
    for name in ("sh", "df", "awk"):
        (city.bin / name).symlink_to(
            f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
        )
    done = city.run("doctor/python/run.sh", PATH=str(city.bin))
    assert done.returncode == 2 and done.stdout.startswith("no Python 3.11 or later")
    done = city.run("doctor/disk/run.sh", PATH=str(city.bin))
    assert done.returncode in (0, 1, 2) and re.match(r"\d+ [MG]iB free", done.stdout)


@pytest.mark.parametrize(
    ("kib", "code"), [(1024 * 1024, 2), (10 * 1024 * 1024, 1), (50 * 1024 * 1024, 0)]
)
def test_doctor_measures_the_disk(city: City, kib: int, code: int) -> None:
    city.put(
        city.bin / "df",
        f"printf 'Filesystem 1024-blocks Used Available\\n/dev/x 9 9 {kib} 1%% /\\n'\n",
    )
    done = city.run("doctor/disk/run.sh")
    assert done.returncode == code and done.stderr == ""


def test_doctor_knows_a_missing_a_torn_and_a_broken_install(city: City) -> None:
    done = city.run("doctor/runtime/run.sh")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        1,
        "gtft is not installed in this city",
    )
    city.put_gtft()
    done = city.run("doctor/runtime/run.sh")
    assert (done.returncode, done.stdout.splitlines()[0]) == (2, "the install of gtft was cut off")
    (city.state / "installed").write_text("gtft 1.2.3\n")
    done = city.run("doctor/runtime/run.sh")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "gtft 1.2.3")
    city.put(city.state / "venv" / "bin" / "gtft", "echo broken >&2; exit 1\n")
    done = city.run("doctor/runtime/run.sh")
    assert (done.returncode, done.stdout.splitlines()[:2]) == (2, ["gtft does not start", "broken"])
