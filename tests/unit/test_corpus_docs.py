"""Pages → prose."""

from __future__ import annotations

from pathlib import Path

import pytest

from gtft.corpus.claims import Claims
from gtft.corpus.files import InputFile
from gtft.corpus.sources import docs
from gtft.corpus.tally import Tally
from source_case import read_settled


def test_a_page_is_prose_and_nobody_says_anything(tmp_path: Path) -> None:
    files = []
    for name, data in {
        "AGENTS.md": b"\xef\xbb\xbf# Mill\n\nTurn it \x00off.\n",
        "copy.md": b"# Mill\n\nTurn it off.\n",
        "empty.md": b" \n",
        "odd.md": b"# caf\xe9\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        files.append(InputFile(tmp_path / name, name))
    tally = Tally()
    talks = list(read_settled(docs.read, files, tally))
    assert [(t.file, t.plain) for t in talks] == [
        ("AGENTS.md", "# Mill\n\nTurn it off."),
        ("odd.md", "# caf\ufffd"),
    ]
    assert {t.entries for t in talks} == {()}
    assert dict(tally.tables["dropped"]) == {"copy of another page": 1, "empty": 1}
    assert tally.total("records") == tally.total("kept") + tally.total("dropped")


def test_a_page_that_is_a_dump_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "LONGEST_PAGE", 10)
    (tmp_path / "long.md").write_text("# A long page")
    tally = Tally()
    assert list(docs.read([InputFile(tmp_path / "long.md", "long.md")], tally, Claims())) == []
    assert [(n.reason, n.file) for n in tally.named] == [("page too long", "long.md")]
