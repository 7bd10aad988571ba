"""Models side by side, from what the store has of each."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from gtft.cli.main import main
from gtft.errors import EvidenceError, UsageError
from gtft.models.comparison import Score, compare_models
from gtft.records.deployments import Deployments
from gtft.runner.workspace import Workspace
from models_case import RATE, SUITE, add_export, add_model, deploy


@pytest.fixture
def call(ws: Workspace) -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(main, ["--workspace", str(ws.path), "model", *args])


def test_each_column_tells_its_own_and_recipes_where_they_differ(ws: Workspace) -> None:
    one = add_model(ws, 1, train={"epochs": 2.0})
    better = SUITE | {"tuned": RATE | {"rate": 0.75, "low": 0.6, "high": 0.9}, "gain": 0.5}
    two = add_model(
        ws,
        2,
        base="nano-b",
        train={"epochs": 4.0},
        evaluated={"suites": {"heldout": better | {"capabilities": {}}}},
    )
    deploy(ws, two, 1)
    Deployments(ws.store).note_figures("d1", {"agreement": 0.9})
    add_export(ws, two, dtype="q8_0", bytes=900, kl_mean=0.002, verified=True)
    side = compare_models(ws.store, [one, two])
    a, b = side.columns
    assert (a.base, b.base) == ("nano-0123456789ab", "nano-b")
    assert (a.train, a.heldout, a.bytes, a.loss_last, a.gates_met) == (8, 2, 300, 1.0, True)
    assert a.scores == {
        "heldout": Score(2, 0.5, 0.4, 0.6, 0.25),
        "heldout: safety": Score(2, 0.5, 0.4, 0.6, 0.25),
    }
    assert b.scores == {"heldout": Score(2, 0.75, 0.6, 0.9, 0.5)}
    assert side.measured == ("heldout", "heldout: safety")
    assert side.recipe == {"train.epochs": (2.0, 4.0)}
    assert a.deployments == () and b.deployments[0]["figures"] == {"agreement": 0.9}
    assert b.exports == {"gguf q8_0": {"bytes": 900, "kl": 0.002}}


def test_it_reads_the_store_alone(ws: Workspace) -> None:
    models = [add_model(ws, n) for n in (1, 2)]
    ws.artifacts.rename(ws.path / "elsewhere")
    assert compare_models(ws.store, models).recipe == {}


def test_a_figure_that_the_store_has_not_is_named(ws: Workspace) -> None:
    one, two = add_model(ws, 1), add_model(ws, 2, evaluated={"suites": {}})
    with pytest.raises(EvidenceError, match="suites"):
        compare_models(ws.store, [one, two])


def test_the_command_for_people_and_for_programs(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    one, two = add_model(ws, 1, train={"epochs": 2.0}), add_model(ws, 2, train={"epochs": 4.0})
    add_export(ws, one)
    shown = call("compare", one.name, "witness")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].split("\t") == ["", one.name, two.name]
    assert "heldout\t50% [40%, 60%] of 2, +25%\t50% [40%, 60%] of 2, +25%" in lines
    assert "train.epochs\t2.0\t4.0" in lines
    assert "exports\tgguf, KL not measured\tnone" in lines
    data = json.loads(call("compare", one.name, two.name, "--json").output)["data"]
    assert [m["model"] for m in data["models"]] == [one.name, two.name]
    assert data["models"][0]["scores"]["heldout"]["low"] == 0.4


@pytest.mark.parametrize(
    ("names", "match"),
    [(("witness",), "two or three"), (("a", "b", "c", "d"), "two or three"),
     (("witness", "witness"), "with another one"), (("witness", "nobody"), "no model nobody")],
)  # fmt: skip
def test_what_it_refuses(
    ws: Workspace, call: Callable[..., Result], names: tuple[str, ...], match: str
) -> None:
    add_model(ws, 1)
    done = call("compare", *names)
    assert isinstance(done.exception, UsageError) and match in done.exception.what
