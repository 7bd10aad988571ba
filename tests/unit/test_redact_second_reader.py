"""Second reader: independent, not to be silenced, and nothing passes it twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtft.corpus.redaction import second_reader
from gtft.corpus.redaction.canaries import make_canaries
from gtft.corpus.redaction.engine import PLACEHOLDER
from gtft.corpus.redaction.redactor import Redactor
from gtft.corpus.redaction.second_reader import Hit, SecondReader, replace_suspects, widen
from gtft.corpus.redaction.verify import Verifier
from gtft.errors import RedactionError

KEY = b"k" * 32
GATED = SecondReader()
UNGATED = SecondReader()
UNGATED._gate = lambda text: range(len(GATED._plugins) + 1)


@pytest.fixture(scope="module")
def reader() -> Iterator[SecondReader]:
    yield SecondReader()


def planted(kind: str) -> str:
    return next(text for k, text, _ in make_canaries() if k == kind)


def test_an_allowlist_comment_hides_nothing(reader: SecondReader) -> None:
    line = planted("github_pat") + "  # pragma: allowlist secret"
    assert reader.suspects(line)


def test_an_assigned_password_is_found_in_code_and_in_yaml(reader: SecondReader) -> None:
    word = "correct" + "horse"
    assert reader.suspects(f'password = "{word}"')
    assert reader.suspects(f"password: {word}")


def test_prose_hashes_ids_and_placeholders_are_no_hits(reader: SecondReader) -> None:
    for line in (
        "the secret: ask the mayor before you nuke a worktree",
        '"commit": "3f2a9b7c1d4e5f60718293a4b5c6d7e8f9012345"',
        '"uuid": "6113e919-3a1b-4c2d-9e8f-001122334455"',
        'password = "<SECRET:assigned_secret:0a1b2c3d>"',
        "postgres://app:<SECRET:url_password:0a1b2c3d>@db:5432/x",
        "Authorization: Bearer <SECRET:bearer_token:0a1b2c3d>",
        "bd close gt-4k2x9 --reason 'merged as 3f2a9b7'",
    ):
        assert reader.suspects(line) == [], line


def test_a_hit_is_widened_to_the_whole_token() -> None:
    line = 'x = "gh_abc.def-1=="; y'
    assert line[slice(*widen(line, 8, 9))] == "gh_abc.def-1=="


def test_a_key_before_the_value_is_kept() -> None:
    line = "export DB_PASSWORD=abcdef"
    assert line[slice(*widen(line, 20, 25))] == "abcdef"


def test_a_suspect_is_replaced_counted_and_gone(reader: SecondReader) -> None:
    redactor = Redactor(KEY)
    word = "correct" + "horse"
    cleaned = replace_suspects(f'a\npassword = "{word}"\nb', reader, redactor)
    assert re.fullmatch(r'a\npassword = "<SECRET:suspect:[0-9a-f]{8}>"\nb', cleaned.text)
    assert cleaned.plugins == ("KeywordDetector",) and cleaned.left == ()
    assert replace_suspects(cleaned.text, reader, redactor).text == cleaned.text


def test_a_hit_that_stays_is_named_with_its_place() -> None:
    class Stubborn(SecondReader):
        def suspects(self, text: str) -> list[Hit]:
            return [] if text in ("messages", "content") else [Hit(0, 1, "Stubborn")]

    verifier = Verifier(Redactor(KEY))
    verifier.reader = Stubborn()
    assert replace_suspects("anything", verifier.reader, verifier.redactor).left
    _, stays = verifier.clean_tree({"messages": [{"content": "anything"}]})
    assert any(s.where == "messages[0].content:0-1" for s in stays)


def test_a_reader_that_misses_its_canaries_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecondReader, "_read", lambda self, text: [])
    with pytest.raises(RedactionError, match="planted"):
        SecondReader()


def test_a_very_long_line_is_read_in_pieces(reader: SecondReader) -> None:
    secret = planted("aws_access_key")
    line = "x " * 30_000 + secret + " y" * 30_000
    assert any(line[h.start : h.end] == secret for h in reader.suspects(line))


def test_a_placeholder_on_the_edge_of_a_piece_is_no_hit(reader: SecondReader) -> None:
    for at in range(970, 1030):
        line = "x" * at + " <SECRET:github_pat:0a1b2c3d> " + "y" * 3000
        assert reader.suspects(line) == []


def test_an_argument_is_read_together_with_its_key(reader: SecondReader) -> None:
    verifier = Verifier(Redactor(KEY))
    cleaned, stays = verifier.clean_tree({"db_password": "correct" + "horse", "n": 1})
    assert PLACEHOLDER.fullmatch(cleaned["db_password"]) and cleaned["n"] == 1
    assert stays == [] and verifier.suspects


def test_verdicts_outlive_the_process_as_digests_alone(tmp_path: Path) -> None:
    clean = [f"line {i} says nothing" for i in range(50)]
    first = SecondReader(tmp_path / "verdicts")
    assert not any(first.suspects(t) for t in clean)
    first.save()
    (file,) = (tmp_path / "verdicts").iterdir()
    assert file.stat().st_size % 8 == 0 and b"nothing" not in file.read_bytes()
    second = SecondReader(tmp_path / "verdicts")
    second._read = lambda text: [Hit(0, 1, "read again")]  # type: ignore[method-assign]
    assert not any(second.suspects(t) for t in clean)
    assert second.suspects("something new")


def test_a_damaged_verdict_file_tells_nothing(tmp_path: Path) -> None:
    first = SecondReader(tmp_path)
    first.suspects("nothing here")
    first.save()
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    second = SecondReader(tmp_path)
    second._read = lambda text: [Hit(0, 1, "read again")]  # type: ignore[method-assign]
    assert second.suspects("nothing here")


def test_many_processes_share_one_folder_of_verdicts(tmp_path: Path) -> None:
    for i in range(20):
        reader = SecondReader(tmp_path)
        reader.suspects(f"text number {i}")
        reader.save()
    assert len(list(tmp_path.iterdir())) <= 17
    last = SecondReader(tmp_path)
    last._read = lambda text: [Hit(0, 1, "read again")]  # type: ignore[method-assign]
    assert not any(last.suspects(f"text number {i}") for i in range(20))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["password", "secret_key", " = ", ": ", "'", '"', "correct" + "horse", "Zx9" * 9, "→", "é", "\n", "://u:",
             "p4ss@", "ey" + "JhbGci.", "AK" + "IA" + "ABCDEFGH12345678", "api_key", ":=", "`", "\u2028", "\r"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_the_gate_hides_nothing_from_any_plugin(parts: list[str]) -> None:
    text = "".join(parts)
    assert GATED._read(text) == UNGATED._read(text)


def test_what_is_found_on_disk_is_refused_with_file_and_line(
    tmp_path_factory: pytest.TempPathFactory, reader: SecondReader
) -> None:
    folder = tmp_path_factory.mktemp("scan")
    good, bad = folder / "good.jsonl", folder / "base.txt"
    good.write_text('{"messages": [{"role": "user", "content": "fine"}]}\n')
    bad.write_text("fine\n" + planted("gitlab_token") + "\n")
    verifier = Verifier(Redactor(KEY))
    assert verifier.scan_files([good]) > 0
    with pytest.raises(RedactionError) as caught:
        verifier.scan_files([good, bad])
    assert "line 2 of base.txt" in caught.value.why
    assert planted("gitlab_token") not in str(caught.value)


def test_secrets_in_json_strings_are_found_decoded(
    tmp_path_factory: pytest.TempPathFactory, reader: SecondReader
) -> None:
    path = tmp_path_factory.mktemp("scan") / "train.jsonl"
    escaped = "".join(f"\\u{ord(c):04x}" for c in planted("github_pat"))
    path.write_text('{"content": "' + escaped + '"}\n')
    with pytest.raises(RedactionError):
        Verifier(Redactor(KEY)).scan_files([path])


def test_the_settings_never_verify_with_a_vendor(reader: SecondReader) -> None:
    from detect_secrets.settings import get_settings

    assert not any("verification" in f or "allowlist" in f for f in get_settings().filters)
    assert not second_reader._OFF & {type(p).__name__ for p in reader._plugins}
    assert len(reader._plugins) >= 20
