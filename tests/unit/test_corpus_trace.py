"""From an example back to its corpora, and from a withdrawal to the examples it covers."""

from collections import Counter
from pathlib import Path

import pytest

from governance_case import KEY, make_corpus, make_example
from gtft.corpus.governance.trace import count_covered, trace
from gtft.corpus.governance.withdrawal import Withdrawals, make_withdrawal
from gtft.errors import EvidenceError, UsageError


def test_an_example_is_found_in_every_corpus_that_holds_it(tmp_path: Path) -> None:
    wanted = make_example(1, bead="gz-1", contributor="00ff")
    a = make_corpus(tmp_path, [wanted, make_example(2)])
    b = make_corpus(tmp_path, [make_example(3)], [wanted])
    c = make_corpus(tmp_path, [make_example(4)])
    found = trace([a, b, c], wanted.id[:14])
    assert [(f.corpus, f.side) for f in found] == [(a.id, "train"), (b.id, "heldout")]
    e = found[0].example
    assert (e.origin.file, e.origin.lines, e.origin.session) == ("t/s1.jsonl", (1, 4), "s1")
    assert (e.bead, e.contributor, e.actor) == ("gz-1", "00ff", "gizmo/witness")
    assert trace([a], wanted.id.removeprefix("ex-"))[0].example.id == wanted.id


@pytest.mark.parametrize("prefix", ["", "ex-", "ex-zz", "../x", "e", "ex-0123456789abcdef0"])
def test_what_is_no_id_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(UsageError, match="not the start"):
        trace([make_corpus(tmp_path, [make_example(1)])], prefix)


def test_none_and_several_are_told_apart(tmp_path: Path) -> None:
    examples = [make_example(n) for n in range(600)]
    corpus = make_corpus(tmp_path, examples)
    with pytest.raises(UsageError, match="no examples"):
        trace([corpus], "0123456789abcdef")
    shared = Counter(e.id[:5] for e in examples).most_common(1)[0]
    with pytest.raises(UsageError, match=f"{shared[1]} examples start") as e:
        trace([corpus], shared[0])
    assert "write more" in e.value.fix


def test_what_is_withdrawn_is_counted_by_side(tmp_path: Path) -> None:
    corpus = make_corpus(
        tmp_path,
        [make_example(1, rig="harbor", actor="harbor/witness"), make_example(2)],
        [make_example(3, rig="harbor", actor="harbor/witness")],
    )
    register = Withdrawals([make_withdrawal("rig", "harbor", KEY)], KEY)
    assert count_covered(corpus, register) == {"train": 1, "heldout": 1}
    assert not count_covered(corpus, Withdrawals([], KEY))


def test_a_damaged_corpus_is_named(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [make_example(1)])
    with (corpus.path / "train.jsonl").open("a") as f:
        f.write('{"id": "ex-1"}\n')
    with pytest.raises(EvidenceError, match=r"train\.jsonl cannot be read"):
        trace([corpus], make_example(1).id)
