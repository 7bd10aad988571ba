"""The house itself: imports point down, nothing heavy at start, no room too large, errors closed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from gtft.errors import KINDS, PAUSED_EXIT, find_kind

REPO = Path(__file__).resolve().parents[2]
BOTTOM = {
    "dialect",
    "errors",
    "artifact",
    "contract",
    "footprint",
    "markdown",
    "memory",
    "service",
    "shelf",
    "tool",
    "weights",
}
# room -> rooms it may import, besides the bottom ones and itself (design: imports point down only).
MAY = {
    "recipe": set(),
    "beads": set(),
    "records": set(),
    "town": set(),
    "swarm": {"recipe"},
    "runner": {"beads", "records", "town", "recipe", "swarm"},
    "models": {"beads", "records", "town", "recipe"},
    "corpus": {"recipe"},
    "training": {"recipe", "swarm"},
    "evals": {"recipe"},
    # They load, decode and judge answers as the evaluation does.
    "serving": {"recipe", "evals"},
    "exports": {"recipe", "evals"},
    "workers": {
        "corpus",
        "training",
        "evals",
        "models",
        "recipe",
        "records",
        "swarm",
        "serving",
        "exports",
    },  # fmt: skip,
    "cli": {"runner", "models", "beads", "records", "town", "recipe", "corpus", "evals", "swarm"},
}
HEAVY = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "matplotlib")


def list_files() -> list[Path]:
    return sorted((REPO / "gtft").rglob("*.py"))


def list_imports(path: Path, *, top_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


@pytest.mark.parametrize("path", list_files(), ids=lambda p: str(p.relative_to(REPO)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(REPO / "gtft").parts[0].removesuffix(".py")
    for name in list_imports(path):
        parts = name.split(".")
        if parts[0] != "gtft" or len(parts) < 2:
            continue
        other = parts[1]
        allowed = BOTTOM | {room} | (MAY.get(room) or set())
        assert other in allowed, f"{path.name} imports gtft.{other}"
    if room not in ("training", "evals", "workers", "serving", "exports"):
        assert not {n.split(".")[0] for n in list_imports(path)} & {"torch", "transformers", "trl"}


@pytest.mark.parametrize("path", list_files(), ids=lambda p: str(p.relative_to(REPO)))
def test_no_room_is_too_large(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 600


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["--version"], ["recipe", "--help"], ["status", "--help"], ["run", "--help"]],
)
def test_nothing_heavy_is_imported_at_start(argv: list[str]) -> None:
    """Modules are counted, not seconds: the same on any box (seconds are in benchmarks/startup.py)."""
    code = (
        "import sys\nfrom gtft.cli.main import run\n"
        f"try:\n    run({argv!r})\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', sorted(set(sys.modules) & {set(HEAVY)!r}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr


def test_help_of_the_whole_program_imports_no_room() -> None:
    code = (
        "import sys\nfrom gtft.cli.main import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('gtft.', 'sqlalchemy', 'pydantic', 'rich'))),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "['gtft.cli', 'gtft.cli.main', 'gtft.errors']"


def test_error_kinds_are_closed_and_distinct() -> None:
    codes = [k.exit_code for k in KINDS]
    assert len(set(codes)) == len(codes) == len({k.kind for k in KINDS})
    assert PAUSED_EXIT not in codes
    for k in KINDS:
        assert find_kind(k.kind) is k
    assert find_kind("made-up").kind == "internal"


def test_the_docs_list_every_error_kind() -> None:
    page = (REPO / "docs" / "errors.md").read_text("utf-8")
    for k in KINDS:
        assert f"| {k.exit_code} | `{k.kind}` |" in page
