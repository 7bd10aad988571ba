"""Names that move from model to model, what a name means, and the archive."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from gtft.artifact import short_id
from gtft.cli.main import main
from gtft.errors import ConflictError, EvidenceError, UsageError
from gtft.models.registry import archive, check_alias, find_model, set_alias, unarchive
from gtft.records.deployments import Deployments
from gtft.records.rows import ModelRow
from gtft.runner.workspace import Workspace
from models_case import add_export, add_model, deploy, find


def point(ws: Workspace, name: str, model: ModelRow, pin: str = "") -> ModelRow | None:
    return set_alias(ws.store, name, model, ws.path, actor="ann", pin=pin)


@pytest.mark.parametrize("name", ["witness@stable", "a", "A1.b_c-d@e", "9lives", "w" * 64])
def test_a_name_that_may_be_an_alias(name: str) -> None:
    assert check_alias(name, []) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "-x", "@x", ".x", "a/b", "a b", "a:b", "näive", "x\n", "w" * 65, "../x", "$(x)",
        "witness", "mayor", "overseer", "gardener", "witness-1a2b3c4d5e6f", "any-0123456789ab",
        "abcdef", "deadbeef", "0" * 64,
    ],
)  # fmt: skip
def test_a_name_that_may_not(name: str, ws: Workspace) -> None:
    """Never what could be taken for a path, a role (gt's own or a model's), a model or an id."""
    models = [add_model(ws, 1, "gardener")]
    with pytest.raises(UsageError, match="cannot be an alias"):
        check_alias(name, models)


def test_a_name_means_in_this_order(ws: Workspace) -> None:
    """A full name or id, an alias, a role, the beginning of one."""
    first, second = add_model(ws, 1), add_model(ws, 2)
    assert find_model(ws.store, "witness") == second
    begin = first.name[:12]
    assert find_model(ws.store, begin) == first
    point(ws, begin, second)
    assert find_model(ws.store, begin) == second
    assert find_model(ws.store, first.name) == first
    assert find_model(ws.store, first.id) == first


def test_an_alias_that_a_later_role_is_called_like_is_ambiguous(ws: Workspace) -> None:
    first = add_model(ws, 1)
    point(ws, "gardener", first)
    later = add_model(ws, 1, "gardener")
    with pytest.raises(UsageError, match="both an alias and a role") as e:
        find_model(ws.store, "gardener")
    assert first.name in e.value.why and later.name in e.value.why


def test_an_alias_moves_and_tells_what_it_meant(ws: Workspace) -> None:
    first, second = add_model(ws, 1), add_model(ws, 2)
    assert point(ws, "w@stable", first) is None
    assert point(ws, "w@stable", second) == first
    assert find_model(ws.store, "w@stable") == second


def test_a_pin_does_not_move(ws: Workspace) -> None:
    first, second = add_model(ws, 1), add_model(ws, 2)
    point(ws, "w@audit", first, "cited")
    with pytest.raises(ConflictError, match="a pin does not move"):
        point(ws, "w@audit", second)
    point(ws, "w@audit", first, "cited twice")
    (alias,) = Deployments(ws.store).list_aliases()
    assert (alias.model_id, alias.pin) == (first.id, "cited twice")
    # Said again without a reason, it is a pin still.
    point(ws, "w@audit", first)
    with pytest.raises(ConflictError, match="a pin does not move"):
        point(ws, "w@audit", second)


def test_an_alias_of_a_model_that_the_store_lost_says_so(ws: Workspace) -> None:
    lost = add_model(ws, 1)
    rows = Deployments(ws.store)
    rows.set_alias("w@x", lost, actor="ann")
    with ws.store.units.engine.connect() as c, c.begin():
        c.exec_driver_sql("DELETE FROM gtft_models")
    with pytest.raises(EvidenceError, match="which the store has not"):
        find_model(ws.store, "w@x")


def test_the_archive_takes_what_is_not_in_use_and_gives_it_back(ws: Workspace) -> None:
    model = add_model(ws, 1)
    point(ws, "w@x", model)
    with pytest.raises(ConflictError, match="what w@x means"):
        archive(ws.store, model, actor="ann")
    other = add_model(ws, 2)
    point(ws, "w@x", other)
    archive(ws.store, model, actor="ann")
    assert find(ws, model).status == "archived"
    unarchive(ws.store, find(ws, model), ws.path, actor="ann")
    assert find(ws, model).status == "approved"
    with pytest.raises(ConflictError, match="is not archived"):
        unarchive(ws.store, find(ws, model), ws.path, actor="ann")


def test_what_serves_is_not_archived(ws: Workspace) -> None:
    model = add_model(ws, 1)
    deploy(ws, model, 1, rig="gizmo")
    with pytest.raises(ConflictError, match="is deployed") as e:
        archive(ws.store, model, actor="ann")
    assert e.value.why == "live for witness of gizmo"


# -- the command


@pytest.fixture
def call(ws: Workspace) -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(main, ["--workspace", str(ws.path), "model", *args])


def read(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["data"]


def test_the_command_sets_moves_lists_and_drops(ws: Workspace, call: Callable[..., Result]) -> None:
    first, second = add_model(ws, 1), add_model(ws, 2)
    assert "No alias yet" in call("alias").output
    assert "a new alias" in call("alias", "w@stable", first.name).output
    moved = read(call("alias", "w@stable", second.name, "--json"))
    assert moved == {
        "alias": "w@stable", "model": second.name, "before": first.name, "pin": "",
    }  # fmt: skip
    call("alias", "w@audit", first.name, "--pin", "cited in May", "--as", "gizmo/witness")
    rows = read(call("alias", "--json"))
    assert isinstance(rows, list)
    assert next((r["alias"], r["model"], r["pin"], r["by"]) for r in rows) == (
        "w@audit", first.name, "cited in May", "gizmo/witness",
    )  # fmt: skip
    assert "pinned: cited in May" in call("alias", "w@audit", first.name).output
    shown = read(call("show", "w@audit", "--json"))
    assert isinstance(shown, dict) and shown["name"] == first.name
    assert shown["aliases"] == [{"alias": "w@audit", "pin": "cited in May"}]
    listed = read(call("list", "--json"))
    assert isinstance(listed, list) and listed[0]["aliases"] == ["w@stable"]
    assert "before: " + first.name in call("alias", "w@audit", "--drop").output
    assert [a.name for a in Deployments(ws.store).list_aliases()] == ["w@stable"]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("alias", "w@x"), UsageError),
        (("alias", "w@x", "--drop"), UsageError),
        (("alias", "w@x", "witness", "--drop"), UsageError),
        (("alias", "--drop"), UsageError),
        (("alias", "--pin", "why"), UsageError),
        (("alias", "witness", "witness"), UsageError),
        (("alias", "w@x", "nobody"), UsageError),
        (("archive", "witness", "--undo"), ConflictError),
    ],
)
def test_what_the_command_refuses(
    ws: Workspace, call: Callable[..., Result], args: tuple[str, ...], error: type[Exception]
) -> None:
    add_model(ws, 1)
    done = call(*args)
    assert isinstance(done.exception, error)
    assert Deployments(ws.store).list_aliases() == []


def test_show_lists_the_exports_with_what_was_measured(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    model = add_model(ws, 1)
    add_export(ws, model, "gguf", dtype="q8_0", kl_mean=0.000082, verified=True)
    bare = add_export(ws, model, "adapter", verified=False)
    data = read(call("show", model.name, "--json"))
    assert isinstance(data, dict)
    assert [(e["format"], e["kl_mean"], e["verified"], e["here"]) for e in data["exports"]] == [
        ("gguf q8_0", 0.000082, True, True),
        ("adapter", None, False, True),
    ]
    shown = call("show", model.name).output
    assert "verified, KL 8.2e-05 nats per token" in shown
    assert f"adapter ({short_id(bare.id)}), not verified" in shown
    assert str(bare.path) in shown


def test_the_archive_by_command(ws: Workspace, call: Callable[..., Result]) -> None:
    model = add_model(ws, 1)
    assert "approved → archived" in call("archive", model.name).output
    data = read(call("archive", model.name, "--undo", "--json"))
    assert data == {"model": model.name, "before": "archived", "status": "approved"}
