"""Sources in, an artifact out: same input, same id; every error leaves nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import Artifact, verify_artifact
from gtft.contract import Governance, Withdrawal
from gtft.corpus.example import Example
from gtft.corpus.governance.quarantine import Held
from gtft.corpus.intake import Source
from gtft.corpus.library import read_examples
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.errors import CorpusTooSmall, InputError, RedactionError, UsageError
from gtft.shelf import find_on_shelf, list_shelf, read_document

SETTINGS = Settings(
    sources=(
        Source("claude-code", "transcripts"),
        Source("beads", "beads"),
        Source("formulas", "formulas"),
    ),
    min_examples=5,
    heldout=0.25,
    window_tokens=1000,
    tool_result_chars=400,
    near_duplicate=0.8,
    seed=7,
    role="witness",
    key=b"k" * 32,
)
PHRASES = [
    "copper",
    "barley",
    "lantern",
    "orchid",
    "timber",
    "falcon",
    "meadow",
    "cobalt",
    "walnut",
    "harbor",
]


def words(n: int) -> str:
    """Twenty words that no other number gives in the same order; none holds a digit."""
    return " ".join(f"{PHRASES[(n * k) % 10]}{spell(n * k)}" for k in range(1, 21))


def spell(n: int) -> str:
    """A number as letters."""
    return chr(103 + n % 20) + (spell(n // 20) if n >= 20 else "")


def session(n: int, ask: str = "", answer: str = "") -> str:
    beacon = f"[GAS TOWN] witness (rig: gizmo) <- deacon • 2026-03-01T09:{n % 60:02d} • patrol"
    rows = [
        {"type": "user", "message": {"role": "user", "content": ask or f"{beacon}\n{words(n)}"}},
        {
            "type": "assistant",
            "message": {
                "id": f"m{n}",
                "role": "assistant",
                "content": [
                    {"type": "text", "text": answer or f'{{"action": "nudge-{spell(n)}"}}'}
                ],
            },
        },
    ]
    common = {"sessionId": f"s{n}", "version": "2.1.7"}
    return "\n".join(json.dumps({**r, **common, "uuid": f"{n}-{i}"}) for i, r in enumerate(rows))


def make_town(root: Path, sessions: int = 20) -> Path:
    for folder in ("transcripts", "beads", "formulas"):
        (root / folder).mkdir(parents=True)
    for n in range(sessions):
        (root / "transcripts" / f"s{n:02d}.jsonl").write_text(session(n) + "\n")
    beads = [
        {
            "id": f"gz-{n}",
            "title": f"Fix {words(n + 300)[:60]}",
            "description": words(n + 500),
            "issue_type": "bug",
            "priority": 2,
            "updated_at": "2026-01-01T00:00:00Z",
        }
        for n in range(8)
    ]
    (root / "beads" / "issues.jsonl").write_text("\n".join(map(json.dumps, beads)))
    (root / "formulas" / "mill.formula.toml").write_text(
        'description = "Watches the gauges of the mill by night."\nformula = "mol-mill"\nversion = 1\n'
    )
    (root / "formulas" / "GUIDE.md").write_text("# The guide\n\nHow a mill is watched.\n")
    return root


def harvest(root: Path, out: Path, suites: Sequence[Path] = (), **changes: Any) -> Artifact:
    settings = replace(SETTINGS, **changes)
    return make_corpus(settings, root, out / "artifacts", out / "work", suites, lambda *_: None)


def both(corpus: Artifact) -> list[Example]:
    return [e for side in ("train.jsonl", "heldout.jsonl") for e in read_examples(corpus, side)]


def test_the_same_input_gives_the_same_id_in_any_place(tmp_path: Path) -> None:
    one = harvest(make_town(tmp_path / "here"), tmp_path / "ws1")
    two = harvest(make_town(tmp_path / "else" / "where"), tmp_path / "ws2")
    assert one.id == two.id
    assert verify_artifact(two.path, kind="corpus", expect=one.id).id == one.id
    assert harvest(tmp_path / "here", tmp_path / "ws3", seed=8).id != one.id
    for f in one.files:
        assert str(tmp_path) not in (one.path / f.name).read_text()


def test_what_is_written(tmp_path: Path) -> None:
    corpus = harvest(make_town(tmp_path / "t"), tmp_path / "ws")
    names = {f.name for f in corpus.files}
    assert names == {
        "train.jsonl", "heldout.jsonl", "manifest.json", "health.json", "health.md", "base.txt",
        "summary.json", "flags.jsonl", "preferences.jsonl",
    }  # fmt: skip
    manifest, health = (read_document(corpus, n) for n in ("manifest.json", "health.json"))
    assert {i["file"] for i in manifest["inputs"]} >= {
        "transcripts/s00.jsonl", "beads/issues.jsonl", "formulas/mill.formula.toml", "formulas/GUIDE.md"
    }  # fmt: skip
    assert (health["examples"]["train"], health["examples"]["heldout"]) == (22, 7)
    for row in health["flow"]:
        assert row["in"] == row["kept"] + sum(row["dropped"].values())
    for e in both(corpus):
        assert Example.from_json(e.to_json()) == e == e.identified()
    ids = [e.id for e in read_examples(corpus, "train.jsonl")]
    assert ids == sorted(ids)
    witness = next(e for e in both(corpus) if e.source == "claude-code")
    assert (witness.role, witness.rig) == ("witness", "gizmo")


def test_a_rig_outside_the_scope_is_left_out_and_counted(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    foreign = session(77).replace("(rig: gizmo)", "(rig: harbor)")
    (root / "transcripts" / "foreign.jsonl").write_text(foreign + "\n")
    everything = harvest(root, tmp_path / "ws1")
    own = harvest(root, tmp_path / "ws2", scope=("rig:gizmo",))
    assert {e.rig for e in both(everything)} >= {"gizmo", "harbor"}
    assert "harbor" not in {e.rig for e in both(own)}
    flow = read_document(own, "health.json")["flow"][-1]
    assert flow["dropped"]["outside the recipe's scope"] == 1
    assert flow["in"] == flow["kept"] + sum(flow["dropped"].values())


def test_base_text_is_of_the_training_side_and_never_from_transcripts(tmp_path: Path) -> None:
    corpus = harvest(make_town(tmp_path / "t"), tmp_path / "ws")
    base = corpus.file("base.txt").read_text()
    held = [e for e in read_examples(corpus, "heldout.jsonl") if e.source == "beads"]
    train = [e for e in read_examples(corpus, "train.jsonl") if e.source == "beads"]
    assert held and train
    for e in held:
        assert e.messages[0]["content"].split("\n\n")[1] not in base
    for e in train:
        assert e.messages[0]["content"].split("\n\n")[1] in base
    assert "How a mill is watched" in base
    assert "GAS TOWN" not in base


def test_sides_share_no_cluster_and_no_rare_phrase(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t", sessions=40)
    corpus = harvest(root, tmp_path / "ws")
    held_words = [e for e in read_examples(corpus, "heldout.jsonl") if e.source == "claude-code"]
    copied = held_words[0].messages[0]["content"].split("\n")[1]
    (root / "transcripts" / "zz.jsonl").write_text(
        session(900, ask=f"{words(901)} {words(902)} {words(903)}\n{copied}\n{words(904)}")
    )
    again = harvest(root, tmp_path / "ws2")
    health = read_document(again, "health.json")
    assert health["leakage"]["shared clusters"] == 0
    assert health["leakage"]["training examples with a rare held-out phrase"] == 0
    sides = [{e.cluster for e in read_examples(again, s)} for s in ("train.jsonl", "heldout.jsonl")]
    assert not sides[0] & sides[1]
    train = [e.messages[0]["content"] for e in read_examples(again, "train.jsonl")]
    held = [e.messages[0]["content"] for e in read_examples(again, "heldout.jsonl")]
    # On one side or on the other, never on both.
    assert any(copied in t for t in held) != any(copied in t for t in train)


def test_copies_go_near_copies_go_and_near_copies_answered_otherwise_stay_together(
    tmp_path: Path,
) -> None:
    root = make_town(tmp_path / "t")
    text = " ".join(words(700 + i) for i in range(3))
    for n, (ask, answer) in enumerate(
        [
            (text, "same answer"),
            (text, "same answer"),
            (text + " tail", "same answer"),
            (text + " other tail", "another answer"),
        ]
    ):
        (root / "transcripts" / f"z{n}.jsonl").write_text(session(800 + n, ask, answer))
    corpus = harvest(root, tmp_path / "ws")
    flow = read_document(corpus, "health.json")["flow"][-1]
    assert flow["dropped"] == {"exact duplicate": 1, "near-duplicate": 1}
    kept = [e for e in both(corpus) if e.messages[0]["content"].startswith(text)]
    assert len(kept) == 2
    assert len({e.cluster for e in kept}) == 1


def test_an_eval_suite_is_never_trained_on(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    suite = tmp_path / "suite.jsonl"
    plain = harvest(root, tmp_path / "ws")
    chosen = next(read_examples(plain, "train.jsonl"))
    item = {"messages": [chosen.messages[0]], "reference": "x"}
    suite.write_text(json.dumps(item) + "\n")
    corpus = harvest(root, tmp_path / "ws2", suites=[suite])
    assert chosen.id not in {e.id for e in read_examples(corpus, "train.jsonl")}
    dropped = read_document(corpus, "health.json")["flow"][-1]["dropped"]
    assert dropped["shares a rare phrase with an eval suite"] == 1


def test_secrets_of_any_source_are_gone_from_every_file(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    token = "gh" + "p_" + "A1b2C3d4E5" * 4
    word = "correct" + "horse" + "battery"
    (root / "transcripts" / "y.jsonl").write_text(
        session(910, ask=f"use {token} in /home/steve/x", answer=f'password = "{word}"')
    )
    (root / "formulas" / "NOTES.md").write_text(f"The key was {token} once.\n")
    corpus = harvest(root, tmp_path / "ws")
    everything = "".join((corpus.path / f.name).read_text() for f in corpus.files)
    assert token not in everything and word not in everything and "steve" not in everything
    redaction = read_document(corpus, "health.json")["redaction"]
    assert redaction["secrets"] == {"assigned_secret": 1, "github_pat": 1}
    assert redaction["personal"] == {"home folder": 1}


def nothing_left(out: Path) -> bool:
    artifacts = out / "artifacts"
    return not artifacts.exists() or not list(artifacts.iterdir())


def test_too_few_examples_is_an_error_that_says_what_would_help(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    with pytest.raises(CorpusTooSmall, match="22 training examples") as caught:
        harvest(root, tmp_path / "ws", min_examples=100)
    assert "min_examples" in caught.value.fix
    assert nothing_left(tmp_path / "ws")


@pytest.mark.parametrize(
    ("path", "match"),
    [("nowhere", "nowhere does not exist"), ("empty", "empty holds no file")],
)
def test_a_missing_or_empty_source_is_named(tmp_path: Path, path: str, match: str) -> None:
    root = make_town(tmp_path / "t")
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=match):
        harvest(root, tmp_path / "ws", sources=(Source("claude-code", path),))
    assert nothing_left(tmp_path / "ws")


def test_what_is_no_file_is_named_and_ends_nothing(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    os.mkfifo(root / "transcripts" / "s99.jsonl")
    (root / "transcripts" / "notes.bin").write_bytes(b"\x7fELF\x00\x01\x02")
    corpus = harvest(root, tmp_path / "ws")
    said = read_document(corpus, "manifest.json")["sources"]["claude-code transcripts"]
    assert said["tables"]["files"] == {"no plain file": 1, "of no known format": 1, "taken": 20}
    assert {n["file"] for n in said["named"]} == {"transcripts/s99.jsonl", "transcripts/notes.bin"}


def test_a_file_of_another_format_is_named_or_read_for_what_it_is(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    bead = (root / "beads" / "issues.jsonl").read_text()
    (root / "transcripts" / "zz.jsonl").write_text(bead)
    corpus = harvest(root, tmp_path / "ws1", sources=(Source("claude-code", "transcripts"),))
    said = read_document(corpus, "manifest.json")["sources"]["claude-code transcripts"]
    assert said["tables"]["files"] == {"of another format": 1, "taken": 20}
    assert [(n["file"], n["detail"]) for n in said["named"]] == [("transcripts/zz.jsonl", "beads")]
    everything = harvest(root, tmp_path / "ws2", sources=(Source("auto", "transcripts"),))
    assert {e.source for e in both(everything)} == {"claude-code", "beads"}


def test_an_eval_set_is_no_source(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    tests = root / "transcripts" / "gt-model-eval" / "tests"
    tests.mkdir(parents=True)
    (tests / "case.jsonl").write_text(session(500) + "\n")
    corpus = harvest(root, tmp_path / "ws")
    said = read_document(corpus, "manifest.json")["sources"]["claude-code transcripts"]
    assert said["tables"]["files"] == {"gt-model-eval: an eval set": 1, "taken": 20}


def test_own_models_and_made_up_examples_are_capped(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t", sessions=40)
    for path in sorted((root / "transcripts").glob("s*.jsonl"))[:20]:
        path.write_text(
            path.read_text().replace(
                '"role": "assistant"', '"role": "assistant", "model": "witness-1"'
            )
        )
    own = {"witness-1": 2}
    without = harvest(root, tmp_path / "ws1", own_models=own)
    assert not [
        e
        for e in both(without)
        if e.provenance == "own" and e in list(read_examples(without, "train.jsonl"))
    ]
    half = harvest(root, tmp_path / "ws2", own_models=own, own_model=0.2)
    train = list(read_examples(half, "train.jsonl"))
    ours = [e for e in train if e.provenance == "own"]
    assert 0 < len(ours) <= 0.2 * len(train)
    assert {b for e in ours for b in e.by} == {"harness", "own:witness-1:2"}


def test_no_source_at_all_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no source"):
        harvest(tmp_path, tmp_path / "ws", sources=())


def test_a_secret_found_on_disk_leaves_no_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.corpus.redaction.verify import Verifier

    monkeypatch.setattr(Verifier, "clean_text", lambda self, text, where="": (text, []))
    root = make_town(tmp_path / "t")
    (root / "transcripts" / "y.jsonl").write_text(
        session(910, answer=f'blob = "{base64.b64encode(hashlib.sha384(b"x").digest()).decode()}"')
    )
    with pytest.raises(RedactionError, match="not written"):
        harvest(root, tmp_path / "ws")
    assert nothing_left(tmp_path / "ws")


def test_what_the_second_reader_finds_goes_too_or_stops_or_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.corpus.redaction.verify import Suspect, Verifier

    blob = base64.b64encode(hashlib.sha384(b"x").digest()).decode()
    root = make_town(tmp_path / "t")
    (root / "transcripts" / "y.jsonl").write_text(session(910, answer=f'blob = "{blob}"'))
    corpus = harvest(root, tmp_path / "ws")
    assert blob not in "".join((corpus.path / f.name).read_text() for f in corpus.files)
    redaction = read_document(corpus, "health.json")["redaction"]
    assert redaction["secrets"] == {"suspect": 1}
    assert redaction["suspects by plugin"] == {"Base64HighEntropyString": 1}

    def stays(self: Verifier, text: str, where: str = "text") -> tuple[str, list[Suspect]]:
        return text, [Suspect("Entropy", f"{where}:8-72")] if "blob" in text else []

    monkeypatch.setattr(Verifier, "clean_text", stays)
    held: list[Held] = []
    settings = replace(SETTINGS, workers=1)
    out = tmp_path / "ws2"
    corpus = make_corpus(
        settings, root, out / "artifacts", out / "work", [], lambda *_: None, hold=held.extend
    )
    assert [h.reasons[0].where for h in held] == ["messages[1].content:8-72"]
    assert held[0].id not in {e.id for e in both(corpus)}
    manifest = read_document(corpus, "manifest.json")
    assert manifest["quarantined"] == [held[0].id]
    assert manifest["flow"][-1]["dropped"] == {"in quarantine": 1}
    (root / "formulas" / "BLOB.md").write_text("# The blob\n\nIt is a blob, and a note says so.\n")
    noted = harvest(root, tmp_path / "ws5")
    left_out = read_document(noted, "manifest.json")["left out"]
    assert left_out["prose: a hit stays after it was replaced"] == 1
    with pytest.raises(RedactionError, match="after it was replaced"):
        harvest(root, tmp_path / "ws3", stop_on_hit=True)
    away = harvest(root, tmp_path / "ws4", sent_away=frozenset({held[0].id}))
    assert held[0].id not in {e.id for e in both(away)}


def test_made_up_decisions_help_a_small_town_up_to_a_share(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    corpus = harvest(root, tmp_path / "ws", scenarios=200, synthetic=0.4)
    train = list(read_examples(corpus, "train.jsonl"))
    made = [e for e in train if e.source == "scenarios"]
    assert 0.3 * len(train) < len(made) <= 0.4 * len(train)
    assert {e.provenance for e in made} == {"synthetic"}
    dropped = read_document(corpus, "health.json")["flow"][-1]["dropped"]
    assert dropped["above the share of made-up ones"] > 0


def say(corpus: Artifact) -> str:
    return "".join((corpus.path / f.name).read_text() for f in corpus.files)


def test_a_warm_cache_gives_the_same_bytes_and_hides_the_same_values(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    word = "hq7X" + "tuvW9" + "zzKpq42"
    told = session(910, ask=f"use it {words(5)}", answer=f'password = "{word}"')
    (root / "transcripts" / "y.jsonl").write_text(told)
    bare = session(911, ask=f"the word {word} was said {words(6)}", answer="yes nice")
    (root / "transcripts" / "z.jsonl").write_text(bare)
    cold = harvest(root, tmp_path / "cold", seed=8)
    harvest(root, tmp_path / "warm")
    warm = harvest(root, tmp_path / "warm", seed=8)
    assert warm.id == cold.id
    assert word not in say(warm)
    (root / "transcripts" / "s03.jsonl").unlink()
    assert harvest(root, tmp_path / "warm").id == harvest(root, tmp_path / "cold2").id
    assert harvest(root, tmp_path / "warm").id == harvest(root, tmp_path / "two", workers=2).id


def test_the_kind_of_a_value_does_not_depend_on_who_met_it_first(tmp_path: Path) -> None:
    token = "gh" + "p_" + "A1b2C3d4E5" * 4
    ids = set()
    for names in (("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")):
        root = make_town(tmp_path / "".join(names))
        texts = (
            session(910, ask=f"take {token} {words(5)}"),
            session(911, ask=f'password = "{token[4:]}" {words(6)}'),
            session(912, ask=f"here {token[4:]} it is {words(7)}"),
        )
        for name, text in zip(names, texts, strict=True):
            (root / "transcripts" / f"y{name}.jsonl").write_text(text)
        corpus = harvest(root, tmp_path / f"ws{''.join(names)}")
        assert token[4:] not in say(corpus)
        ids.add(frozenset(e.id for e in both(corpus)))
    assert len(ids) == 1


def test_a_withdrawn_session_does_not_come_back_through_its_fork(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    text = session(900, ask=f"Fix the WITHDRAWN mill {words(3)}", answer="sure")
    (root / "transcripts" / "y.jsonl").write_text(text)
    rows = [json.loads(line) for line in text.splitlines()]
    fork = [{**r, "sessionId": "fork", "version": "2.1.6"} for r in rows]
    (root / "transcripts" / "z.jsonl").write_text("\n".join(map(json.dumps, fork)))
    assert "WITHDRAWN" in say(harvest(root, tmp_path / "ws1"))
    gone = Governance(withdrawals=(Withdrawal(kind="session", who="s900"),))
    assert "WITHDRAWN" not in say(harvest(root, tmp_path / "ws2", governance=gone))


def test_hostile_names_end_nothing_and_stand_nowhere(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    token = "gh" + "p_" + "A1b2C3d4E5" * 4
    rows = [json.loads(line) for line in session(920, answer="").splitlines()]
    rows[0]["timestamp"] = token
    rows[1]["message"]["model"] = f"/home/steve/{token}"
    rows[1]["message"]["content"] = [
        {"type": "text", "text": "yes"},
        {"type": f"block {token}"},
        {"type": "tool_use", "id": "c", "name": token, "input": {token: "x"}},
    ]
    done = {"type": "tool_result", "tool_use_id": "c", "content": "ok"}
    rows.append({**rows[0], "uuid": "920-9", "message": {"role": "user", "content": [done]}})
    rows.append({**rows[0], "uuid": "920-8", "type": f"kind {token}", "sessionId": token})
    (root / "transcripts" / f"{token}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = harvest(root, tmp_path / "ws")
    assert token not in say(corpus) and "steve" not in say(corpus)
    assert [e for e in both(corpus) if e.messages[-1]["role"] == "tool"]


def test_a_source_that_stands_twice_is_counted_once_and_named_apart(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    once = harvest(root, tmp_path / "ws1", sources=(Source("auto", "transcripts", "MIT"),))
    twice = (Source("auto", "transcripts", "MIT"), Source("auto", "transcripts", "own"))
    corpus = harvest(root, tmp_path / "ws2", sources=twice)
    assert {e.id for e in both(corpus)} == {e.id for e in both(once)}
    licences = read_document(corpus, "health.json")["licences"]
    assert licences == {"auto transcripts": "MIT", "auto transcripts (2)": "own"}


def test_an_unknown_outcome_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'clsed' is no outcome"):
        harvest(make_town(tmp_path / "t"), tmp_path / "ws", outcomes={"clsed": 0.0})


def test_a_towns_own_formula_is_not_stale(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    (root / "formulas" / "day.formula.toml").write_text(
        'description = "Watches the mill by day."\nformula = "mol-mill-by-day"\nversion = 1\n'
    )
    for n, name in enumerate(("mol-mill-by-day", "mol-mill-by-night")):
        said = session(930 + n, answer=f"```bash\ngt sling {name} gizmo\n```")
        (root / "transcripts" / f"y{n}.jsonl").write_text(said)
    stale = read_document(harvest(root, tmp_path / "ws"), "health.json")["staleness"]
    assert [s["what"] for s in stale["most common"]] == ["mol-mill-by-night"]


def test_corpora_are_found_by_the_start_of_their_id(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    one = harvest(root, tmp_path / "ws")
    two = harvest(root, tmp_path / "ws", seed=8)
    artifacts = tmp_path / "ws" / "artifacts"
    (artifacts / "corpus-0123456789ab").mkdir()
    shelf = list_shelf(artifacts, "corpus")
    assert {c.id for c in shelf.found} == {one.id, two.id}
    assert [name for name, _ in shelf.damaged] == ["corpus-0123456789ab"]
    assert find_on_shelf(artifacts, "corpus", one.id[7:13]).id == one.id
    assert find_on_shelf(artifacts, "corpus", f"corpus-{two.id[7:19]}").id == two.id
    with pytest.raises(UsageError, match="no ids of kind corpus start with"):
        find_on_shelf(artifacts, "corpus", "zz")
    with pytest.raises(UsageError, match="no corpus yet"):
        find_on_shelf(tmp_path / "empty", "corpus", None)


def test_what_the_town_worked_by_is_recorded_and_is_part_of_the_id(tmp_path: Path) -> None:
    root = make_town(tmp_path / "t")
    now = {f"formula mol-{spell(n)}-patrol": hash_text(n) for n in range(40)}
    now |= {"commands gt": f"1.1.0 {hash_text(41)}", "directive witness": hash_text(42)}
    made = harvest(root, tmp_path / "ws", conventions=now)
    assert read_document(made, "summary.json")["conventions"] == now
    assert harvest(root, tmp_path / "ws", conventions=dict(reversed(now.items()))).id == made.id
    other = harvest(root, tmp_path / "ws", conventions=now | {"directive witness": "0" * 16})
    none = harvest(root, tmp_path / "ws")
    assert len({made.id, other.id, none.id}) == 3
    assert "conventions" not in read_document(none, "summary.json")


def hash_text(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()[:16]
