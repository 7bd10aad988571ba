"""Second reader: independent, not to be silenced, and nothing passes it twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gtft.corpus import second_reader
from gtft.corpus.example import Example, Origin
from gtft.corpus.redact import Redactor, make_canaries
from gtft.corpus.second_reader import Hit, SecondReader, replace_suspects, widen
from gtft.corpus.verify import Verifier
from gtft.errors import RedactionError


@pytest.fixture(scope="module")
def reader() -> Iterator[SecondReader]:
    yield SecondReader()


def planted(kind: str) -> str:
    return next(text for k, text, _ in make_canaries() if k == kind)


def test_an_allowlist_comment_hides_nothing(reader: SecondReader) -> None:
    line = planted("github_pat") + "  # pragma: allowlist secret"
    assert reader.find(line)


def test_an_assigned_password_is_found_in_code_and_in_yaml(reader: SecondReader) -> None:
    word = "correct" + "horse"
    assert reader.find(f'password = "{word}"')
    assert reader.find(f"password: {word}")


def test_prose_hashes_ids_and_placeholders_are_no_hits(reader: SecondReader) -> None:
    for line in (
        "the secret: ask the mayor before you nuke a worktree",
        '"commit": "3f2a9b7c1d4e5f60718293a4b5c6d7e8f9012345"',
        '"uuid": "6113e919-3a1b-4c2d-9e8f-001122334455"',
        'password = "<SECRET:assigned_secret:1>"',
        "postgres://app:<SECRET:url_password:3>@db:5432/x",
        "Authorization: Bearer <SECRET:bearer_token:2>",
        "bd close gt-4k2x9 --reason 'merged as 3f2a9b7'",
    ):
        assert reader.find(line) == [], line


def test_a_hit_is_widened_to_the_whole_token() -> None:
    line = 'x = "gh_abc.def-1=="; y'
    assert line[slice(*widen(line, 8, 9))] == "gh_abc.def-1=="


def test_a_suspect_is_replaced_counted_and_gone(reader: SecondReader) -> None:
    redactor = Redactor()
    word = "correct" + "horse"
    text, plugins = replace_suspects(f'a\npassword = "{word}"\nb', reader, redactor)
    assert text == 'a\npassword = "<SECRET:suspect:1>"\nb'
    assert plugins == ["KeywordDetector"]
    assert replace_suspects(text, reader, redactor) == (text, [])


def test_a_hit_that_stays_stops_the_corpus() -> None:
    class Stubborn(SecondReader):
        def find(self, line: str) -> list[Hit]:
            return [Hit(0, 1, "Stubborn")] if "canary" not in line and line else super().find(line)

        def _check(self) -> None:
            return

    with pytest.raises(RedactionError, match="still finds"):
        replace_suspects("anything", Stubborn(), Redactor())


def test_a_reader_that_misses_its_canaries_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecondReader, "_read", lambda self, line: [])
    with pytest.raises(RedactionError, match="planted"):
        SecondReader()


def test_a_very_long_line_is_read_in_pieces(reader: SecondReader) -> None:
    secret = planted("aws_access_key")
    line = "x " * 30_000 + secret + " y" * 30_000
    assert any(line[h.start : h.end] == secret for h in reader.find(line))


def make_example(arguments: dict[str, object], content: str = "go") -> Example:
    call = {"id": "call-1", "type": "function", "function": {"name": "Run", "arguments": arguments}}
    messages = (
        {"role": "user", "content": content},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    )
    origin = Origin("a.jsonl", (1, 2), "s", 0)
    made = Example(
        "", "claude-code", "session:s", messages, (), None, None, None, 1.0, "agent", origin
    )
    return made.identified()


def test_an_argument_is_read_together_with_its_key(reader: SecondReader) -> None:
    verifier = Verifier(Redactor(), reader)
    cleaned = verifier.clean_example(make_example({"db_password": "correct" + "horse", "n": 1}))
    arguments = cleaned.messages[1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"db_password": "<SECRET:suspect:1>", "n": 1}
    assert cleaned.id == cleaned.identified().id


def test_what_is_found_on_disk_is_refused_with_file_and_line(
    tmp_path_factory: pytest.TempPathFactory, reader: SecondReader
) -> None:
    folder = tmp_path_factory.mktemp("scan")
    good, bad = folder / "good.jsonl", folder / "base.txt"
    good.write_text('{"messages": [{"role": "user", "content": "fine"}]}\n')
    bad.write_text("fine\n" + planted("gitlab_token") + "\n")
    verifier = Verifier(Redactor(), reader)
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
        Verifier(Redactor(), reader).scan_files([path])


def test_the_settings_never_verify_with_a_vendor(reader: SecondReader) -> None:
    from detect_secrets.settings import get_settings

    assert not any("verification" in f or "allowlist" in f for f in get_settings().filters)
    assert not second_reader._OFF & {type(p).__name__ for p in reader._plugins}
    assert len(reader._plugins) >= 20
