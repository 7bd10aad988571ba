"""Two corpora compared: what came, went and changed, by cause; settings; places."""

from dataclasses import replace
from pathlib import Path

from governance_case import make_corpus, make_example
from gtft.corpus.governance.diff import compare


def test_a_corpus_does_not_differ_from_itself(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [make_example(n) for n in range(3)], [make_example(9)])
    found = compare(corpus, corpus)
    assert found.same == 4
    assert not any(found.groups().values())
    assert not found.settings


def test_every_kind_of_change_is_told_apart_with_its_cause(tmp_path: Path) -> None:
    same, gone, moves, labelled = (make_example(n) for n in range(4))
    old, new = make_example(5, text="once"), make_example(5, text="now")
    other = make_example(6, role="mayor", source="codex")
    a = make_corpus(
        tmp_path,
        [same, gone, moves, labelled, old],
        harvest={"heldout": 0.2, "sources": [{"type": "x"}]},
    )
    b = make_corpus(
        tmp_path,
        [same, replace(labelled, weight=0.5), new, other],
        [moves],
        harvest={"heldout": 0.3, "sources": [{"type": "x"}, {"type": "y"}]},
        inputs={
            "t/s0.jsonl": "sha-1",
            "t/s2.jsonl": "sha-1",
            "t/s3.jsonl": "sha-1",
            "t/s5.jsonl": "sha-2",
            "t/s6.jsonl": "sha-1",
        },
    )
    found = compare(a, b)
    assert found.same == 1
    assert [(c.id, c.why) for c in found.added] == [(other.id, "its file is new")]
    assert [(c.id, c.why) for c in found.removed] == [(gone.id, "its file is not read any more")]
    (changed,) = found.changed
    assert (changed.id, changed.other, changed.why) == (new.id, old.id, "its file changed")
    assert [c.why for c in found.moved] == ["train → heldout"]
    assert [c.id for c in found.relabelled] == [labelled.id]
    assert found.settings == {
        "harvest.heldout": (0.2, 0.3),
        "harvest.sources[1].type": (None, "y"),
    }
    assert found.inputs == {"same": 3, "changed": 1, "removed": 1, "added": 1}
    doc = found.as_dict()
    assert doc["added"]["by_role"] == {"mayor": 1}
    assert doc["added"]["by_source"] == {"codex": 1}
    assert doc["changed"]["by_reason"] == {"its file changed": 1}
    assert doc["changed"]["examples"][0]["other"] == old.id


def test_the_same_file_under_other_rules_says_so(tmp_path: Path) -> None:
    a = make_corpus(tmp_path, [make_example(1, text="with a name")], harvest={"redaction": "r1"})
    b = make_corpus(tmp_path, [make_example(1, text="without")], harvest={"redaction": "r2"})
    (changed,) = compare(a, b).changed
    assert changed.why == "other rules or settings"


def test_settings_are_not_named_as_the_cause_when_they_are_the_same(tmp_path: Path) -> None:
    a = make_corpus(tmp_path, [make_example(1), make_example(2)])
    b = make_corpus(
        tmp_path, [make_example(1)], inputs={"t/s1.jsonl": "sha-1", "t/s2.jsonl": "sha-1"}
    )
    found = compare(a, b)
    assert not found.settings
    assert [c.why for c in found.removed] == ["withdrawals, consents or the examples beside it"]


def test_examples_without_a_session_are_compared_by_id(tmp_path: Path) -> None:
    place = {"session": None, "file": "beads/issues.jsonl", "source": "beads"}
    a = make_corpus(tmp_path, [make_example(1, **place), make_example(2, **place)])
    b = make_corpus(tmp_path, [make_example(2, **place), make_example(3, **place)])
    found = compare(a, b)
    assert (found.same, len(found.added), len(found.removed), len(found.changed)) == (1, 1, 1, 0)


def test_several_examples_of_one_place_are_all_counted(tmp_path: Path) -> None:
    place = {"session": "s1", "file": "t/s1.jsonl"}
    a = make_corpus(tmp_path, [make_example(n, **place) for n in (1, 2, 3)])
    b = make_corpus(tmp_path, [make_example(n, **place) for n in (3, 4)])
    found = compare(a, b)
    assert (found.same, len(found.changed), len(found.removed), len(found.added)) == (1, 1, 1, 0)
    assert {found.changed[0].other, found.removed[0].id} == {
        make_example(n, **place).id for n in (1, 2)
    }


def test_what_was_left_out_is_compared_by_reason(tmp_path: Path) -> None:
    a = make_corpus(tmp_path, [make_example(1)], dropped={"no consent of rig harbor": 3, "wisp": 1})
    b = make_corpus(tmp_path, [make_example(1)], dropped={"withdrawn: rig": 2, "wisp": 1})
    assert compare(a, b).dropped == {"no consent of rig harbor": (3, 0), "withdrawn: rig": (0, 2)}


def test_back_and_forth_is_the_same_the_other_way_round(tmp_path: Path) -> None:
    a = make_corpus(tmp_path, [make_example(n) for n in range(4)])
    b = make_corpus(tmp_path, [make_example(n) for n in range(2, 7)])
    there, back = compare(a, b), compare(b, a)
    assert {c.id for c in there.added} == {c.id for c in back.removed}
    assert {c.id for c in there.removed} == {c.id for c in back.added}
    assert there.same == back.same == 2
