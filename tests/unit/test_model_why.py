"""From a model to all it comes from and all that came of it, and to the examples in it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from governance_case import KEY, make_corpus, make_example
from gtft.artifact import short_id, stage_artifact
from gtft.cli.main import main
from gtft.corpus.example import Example
from gtft.corpus.governance.held import MOST_SHOWN, find_held
from gtft.corpus.governance.withdrawal import KEY_FILE, Withdrawals, make_withdrawal
from gtft.corpus.redaction.redactor import load_key
from gtft.errors import ConflictError, EvidenceError, UsageError
from gtft.models.lineage import trace_model
from gtft.models.registry import set_alias
from gtft.records.ancestry import list_corpora, list_needed
from gtft.records.deployments import Deployments
from gtft.records.governance import Governance, make_withdrawal_id
from gtft.records.rows import ConsentRow, IncidentRow, ModelRow, WithdrawalRow
from gtft.runner.deployment_gates import check_withdrawals
from gtft.runner.workspace import Workspace
from models_case import add_export, add_model, deploy

NOBODY = Withdrawals((), KEY)
HARVEST = {"sources": [{"type": "claude-code", "path": "t", "licence": "own", "rig": None}]}


def read(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)["data"]
    assert isinstance(data, dict)
    return data


@pytest.fixture
def call(ws: Workspace) -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(
        main, ["--workspace", str(ws.path), "model", "why", *args]
    )


# -- both ways


def test_a_model_leads_to_all_that_it_came_from_and_that_came_of_it(ws: Workspace) -> None:
    first = add_model(ws, 1)
    model = add_model(ws, 2, summary={"continues": first.adapter_id})
    export = add_export(ws, model)
    deploy(ws, model, 1, end="undone")
    rows = Deployments(ws.store)
    rows.add_incident(IncidentRow("i1", model.id, "d1", "gz-1", "harm", None, "ann", 1), model)
    set_alias(ws.store, "w@x", model, ws.path, actor="ann")
    for who, touched in (("s1", (model.corpus_id,)), ("s2", ("sha256:other",))):
        Governance(ws.store).add_withdrawal(
            WithdrawalRow(make_withdrawal_id("session", who), "session", who, "", "a", touched, 1)
        )
    story = trace_model(ws.store, model, ws.path)
    assert story.continues == first.adapter_id and story.children == ()
    assert story.base.name == "nano-0123456789ab" and set(story.base.files) == {"config.json"}
    assert [e.id for e in story.exports] == [export.id]
    assert [(d.id, d.reason) for d in story.deployments] == [("d1", "undone")]
    assert [i.id for i in story.incidents] == ["i1"] and [a.name for a in story.aliases] == ["w@x"]
    assert [w.who for w in story.withdrawals] == ["s1"]
    assert [m.id for m in trace_model(ws.store, first, ws.path).children] == [model.id]


def test_what_a_model_needs_is_followed_to_the_first_even_in_a_circle(ws: Workspace) -> None:
    first = add_model(ws, 1)
    second = add_model(ws, 2, summary={"stacks_on": first.adapter_id})
    third = add_model(ws, 3, summary={"continues": second.adapter_id})
    assert list_needed(ws.store, third) == {first.adapter_id, second.adapter_id}
    with ws.store.units.engine.connect() as c, c.begin():
        loop = json.dumps({"continues": third.adapter_id})
        c.exec_driver_sql(
            "UPDATE gtft_artifacts SET summary = ? WHERE id = ?", (loop, first.adapter_id)
        )
    assert third.adapter_id in list_needed(ws.store, third)


def test_a_withdrawal_reaches_every_model_that_goes_on_from_its_corpus(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    first = add_model(ws, 1)
    second = add_model(ws, 2, summary={"continues": first.adapter_id})
    third = add_model(ws, 3, summary={"stacks_on": second.adapter_id})
    other = add_model(ws, 4)
    rows = Governance(ws.store)
    rows.add_withdrawal(
        WithdrawalRow("w1", "rig", "gizmo", "", "ann", (first.corpus_id,), ws.store.now_us())
    )
    assert list_corpora(ws.store, third) == {
        m.corpus_id: m.adapter_id for m in (first, second, third)
    }
    assert next(iter(list_corpora(ws.store, third))) == third.corpus_id
    for model in (first, second, third):
        gate = check_withdrawals(ws, model, "")
        assert not gate.met and (short_id(first.id) in gate.told) == (model != first)
        assert [w.id for w in trace_model(ws.store, model, ws.path).withdrawals] == ["w1"]
        assert "some of what it was trained on" in show(ws, "show", model.name)
        assert "withdrawn    one rig" in call(model.name).output
    assert check_withdrawals(ws, other, "").met
    assert trace_model(ws.store, other, ws.path).withdrawals == ()
    assert show(ws, "list").count("holds withdrawn data") == 3
    assert {m.id for m in rows.list_made_from([first.corpus_id])[1]} == {
        first.id, second.id, third.id,
    }  # fmt: skip


def show(ws: Workspace, *args: str) -> str:
    return CliRunner().invoke(main, ["--workspace", str(ws.path), "model", *args]).output


def test_a_base_file_that_is_no_json_is_named(ws: Workspace) -> None:
    model = add_model(ws, 1)
    row = ws.store.find_artifact(model.adapter_id)
    assert row is not None
    (ws.path / row.path / "base.json").write_text("[")
    with pytest.raises(EvidenceError, match=r"base\.json of adapter"):
        trace_model(ws.store, model, ws.path)


def test_the_command_tells_it_for_people_and_programs(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    model = add_model(ws, 1)
    later = add_model(ws, 2, summary={"continues": model.adapter_id})
    add_export(ws, model)
    add_export(ws, model, "merged", verified=True)
    deploy(ws, model, 1, rig="gizmo")
    shown = call(model.name).output
    for word in (
        model.run_id,
        model.corpus_id,
        "ab" * 32,
        "gguf, not verified",
        "merged, verified",
        "live for witness of gizmo",
    ):
        assert word in shown
    data = read(call(model.name, "--json"))
    assert data["continued_by"] == [later.name]
    assert [a["kind"] for a in data["artifacts"]] == ["corpus", "adapter", "eval", "card"]  # type: ignore[attr-defined]


# -- an example, a session, a bead


def held(
    corpus_path: Path, train: list[Example], who: str, heldout: Sequence[Example] = ()
) -> dict[str, int]:
    return dict(find_held(make_corpus(corpus_path, train, heldout), who, NOBODY).counts)


def test_an_example_a_session_and_a_bead_are_found_on_both_sides(tmp_path: Path) -> None:
    session = "5b1c2e8a-0b7d-4c7e-9d7e-1a2b3c4d5e6f"
    one = make_example(1, session=session, bead="gz-4f2")
    two = make_example(2, session=session, segment=1, bead="gz-4f2.1")
    train, heldout = [one, make_example(3, bead="gz-4f2x")], [two]
    assert held(tmp_path, train, one.id, heldout) == {"train": 1}
    assert held(tmp_path, train, one.id[:12], heldout) == {"train": 1}
    assert held(tmp_path, train, one.id.removeprefix("ex-"), heldout) == {"train": 1}
    assert held(tmp_path, train, session, heldout) == {"train": 1, "heldout": 1}
    assert held(tmp_path, train, session[:9], heldout) == {"train": 1, "heldout": 1}
    hexed = make_example(4, session="f8764ab6-04b7-43ee-af10-9864ae3b2057")
    assert held(tmp_path, [hexed], "f8764ab6") == {"train": 1}
    # A bead stands for those below it, not for one whose name begins alike.
    assert held(tmp_path, train, "gz-4f2", heldout) == {"train": 1, "heldout": 1}
    assert held(tmp_path, train, "gz-4f2.1", heldout) == {"heldout": 1}
    assert held(tmp_path, train, "gz-none", heldout) == {}


@pytest.mark.parametrize("who", ["", "x", "a\nb", "y" * 256])
def test_what_can_be_no_example_is_refused(tmp_path: Path, who: str) -> None:
    with pytest.raises(UsageError, match="no example, session or bead"):
        find_held(make_corpus(tmp_path, [make_example(1)]), who, NOBODY)


def test_a_long_session_is_counted_whole_and_shown_in_part(tmp_path: Path) -> None:
    many = [make_example(n, session="session-1", segment=n) for n in range(MOST_SHOWN + 5)]
    found = find_held(make_corpus(tmp_path, many), "session-1", NOBODY)
    assert found.counts["train"] == MOST_SHOWN + 5 and len(found.examples) == MOST_SHOWN


def test_how_it_is_redacted_licensed_and_withdrawn(tmp_path: Path) -> None:
    text = "use <SECRET:github_pat:7f3a9c21> and <SECRET:github_pat:7f3a9c22> <SECRET:x>"
    one = make_example(1, text=text)
    corpus = make_corpus(tmp_path, [one], harvest=HARVEST)
    register = Withdrawals([make_withdrawal("session", "s1", KEY)], KEY)
    (found,) = find_held(corpus, one.id, register).examples
    assert found.redacted == {"github_pat": 2}
    assert (found.licence, found.consent) == ("own", "not recorded")
    assert found.withdrawn == "withdrawn: session"


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    with stage_artifact(tmp_path, "corpus") as staging:
        (staging.path / "train.jsonl").write_text("[" * 100_000 + "\n")
        (staging.path / "heldout.jsonl").write_text("")
        (staging.path / "manifest.json").write_text("{}")
    with pytest.raises(EvidenceError, match=r"train\.jsonl cannot be read"):
        find_held(staging.result, "gz-1", NOBODY)


def trained_on(ws: Workspace, *examples: Example) -> ModelRow:
    corpus = make_corpus(ws.artifacts, examples, [make_example(99)], harvest=HARVEST)
    return add_model(ws, 1, corpus_artifact=corpus)


def test_the_command_says_yes_from_where_with_whose_consent_and_what_since(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    one = make_example(1, rig="harbor", bead="hb-1", file="t/one.jsonl")
    model = trained_on(ws, one, make_example(2))
    key = load_key(ws.path / KEY_FILE)
    taken = make_withdrawal("session", "s1", key)
    rows = Governance(ws.store)
    rows.add_withdrawal(WithdrawalRow("w1", taken.kind, taken.who, "", "ann", (), 1))
    rows.add_consent(ConsentRow("c1", "harbor", "", "", "ann", "ann", 1))
    rows.revoke_consents("harbor", "ann")
    data = read(call(model.name, "--example", one.id, "--json"))
    assert (data["trained_on"], data["held_out"], data["withdrawn_since"]) == (1, 0, 1)
    (example,) = data["examples"]  # type: ignore[misc]
    assert example["file"] == "t/one.jsonl" and example["bead"] == "hb-1"
    assert example["consent_revoked"] and example["withdrawn"] == "withdrawn: session"
    shown = call(model.name, "--example", "hb-1").output
    assert "yes: " in shown and "revoked since" in shown and "not unlearned" in shown
    assert "not trained on" in call(model.name, "--example", "s99").output
    assert "no: the corpus" in call(model.name, "--example", "hb-2").output


def test_an_example_is_looked_for_in_what_an_earlier_adapter_was_trained_on(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    first = trained_on(ws, make_example(1, bead="gz-1"))
    corpus = make_corpus(ws.artifacts, [make_example(2, bead="gz-2")], [make_example(99)])
    model = add_model(ws, 2, summary={"continues": first.adapter_id}, corpus_artifact=corpus)
    data = read(call(model.name, "--example", "gz-1", "--json"))
    (example,) = data["examples"]  # type: ignore[misc]
    assert data["trained_on"] == 1 and data["looked_in"] == [model.corpus_id, first.corpus_id]
    assert (example["corpus"], example["through"]) == (first.corpus_id, first.adapter_id)
    assert (
        f"the earlier adapter {short_id(first.id)}" in call(model.name, "--example", "gz-1").output
    )
    assert "through" not in call(model.name, "--example", "gz-2").output
    assert "none of the 2 corpora" in call(model.name, "--example", "gz-3").output
    # "No" is not said where one could not be looked in.
    row = ws.store.find_artifact(first.corpus_id)
    assert row is not None
    (ws.path / row.path).rename(ws.path / "away")
    assert (
        f"not looked in: corpus {short_id(row.id)}" in call(model.name, "--example", "gz-2").output
    )
    done = call(model.name, "--example", "gz-3")
    assert isinstance(done.exception, ConflictError) and short_id(row.id) in done.exception.what


def test_a_corpus_that_is_not_on_the_disk_says_so(
    ws: Workspace, call: Callable[..., Result]
) -> None:
    model = trained_on(ws, make_example(1))
    row = ws.store.find_artifact(model.corpus_id)
    assert row is not None
    (ws.path / row.path).rename(ws.path / "away")
    done = call(model.name, "--example", "s1")
    assert isinstance(done.exception, ConflictError) and "not on this disk" in done.exception.what
    assert "not on this disk any more" in call(model.name).output
