"""Rule files of a town: gitleaks TOML and kingfisher YAML or JSON become rules, or an error that names the rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gtft.corpus.redaction.redactor import RedactionConfig, Redactor
from gtft.corpus.redaction.rule_files import RuleFile, keep_group, read_rule_file
from gtft.errors import InputError, RedactionError

KEY = bytes(range(32))
BODY = "q7" + "Zx81Kd" * 3
GITLEAKS = """
title = "ours"
[allowlist]
paths = ['''vendor/''']
[[rules]]
id = "acme-Token"
description = "Acme"
regex = '''(?i)(acme)(?:.{0,20})['"=: ](zz[a-z0-9]{18})\\b'''
secretGroup = 2
keywords = ["acme"]
entropy = 2.5
[[rules.allowlists]]
stopwords = ["allowed"]
regexes = ['''^zz0+''']
[[rules]]
id = "only-a-path"
path = '''\\.pem$'''
"""


def write(tmp_path: Path, name: str, text: str) -> RuleFile:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_rule_file(path)


def hits(file: RuleFile, text: str) -> list[tuple[str, str]]:
    redactor = Redactor(KEY, RedactionConfig(rules=file.rules))
    return [(f.kind, text[f.start : f.end]) for f in redactor.find(text) if not f.personal]


def test_a_gitleaks_rule_takes_its_group(tmp_path: Path) -> None:
    file = write(tmp_path, "ours.toml", GITLEAKS)
    value = "zz" + "k3m9q1x8" * 2 + "p7"
    assert hits(file, f"acme value {value} end") == [("acme_token", value)]


def test_keywords_entropy_and_allowlists_hold(tmp_path: Path) -> None:
    file = write(tmp_path, "ours.toml", GITLEAKS)
    value = "zz" + "k3m9q1x8" * 2 + "p7"
    assert hits(file, f"other value {value} end") == []
    assert hits(file, "acme value zz" + "1" * 18 + " end") == []
    assert hits(file, "acme value zz0" + "k3m9q1x8" * 2 + "7 end") == []
    assert hits(file, "acme value zzallowed" + "k3m9q1x8p7b" + " end") == []


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    left = write(tmp_path, "ours.toml", GITLEAKS).left_out
    assert [line.split(":")[0] for line in left] == ["only-a-path", "all rules"]


def test_a_kingfisher_rule_in_yaml_with_white_space_and_comments(tmp_path: Path) -> None:
    text = r"""
rules:
  - name: Acme Key
    id: kingfisher.acme.1
    pattern: |
      (?xi)
      \b acme [:=\ ]+   # the name
      (?P<TOKEN> q7 [A-Z0-9]{18} )
      \b
    min_entropy: 2.0
    examples: []
"""
    file = write(tmp_path, "acme.yml", text)
    assert hits(file, f"set acme: {BODY} now") == [("acme_1", BODY)]


def test_a_kingfisher_export_in_json(tmp_path: Path) -> None:
    rules = [
        {"id": "acme.2", "name": "Acme", "pattern": "acme=(q7[A-Za-z0-9]{18})", "min_entropy": None}
    ]
    for tree in (rules, {"rules": rules}):
        assert hits(write(tmp_path, "a.json", json.dumps(tree)), f"acme={BODY}") == [
            ("acme_2", BODY)
        ]


@pytest.mark.parametrize("pattern", ["(?=ahead)x", "a{1,5000}", "(unclosed", r"(a)\1"])
def test_a_rule_that_does_not_compile_is_an_error_that_names_it(
    tmp_path: Path, pattern: str
) -> None:
    rules = [{"id": "good", "pattern": "abc"}, {"id": "bad-one", "pattern": pattern}]
    with pytest.raises(RedactionError) as e:
        write(tmp_path, "team.json", json.dumps(rules))
    assert "team.json" in str(e.value) and "rule 2 (bad-one)" in str(e.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "x = ["),
        ("a.json", "{"),
        ("a.yml", "a: [b"),
        ("a.json", '{"rules": {}}'),
        ("a.json", "[1]"),
        ("a.json", '[{"pattern": "x"}]'),
        ("a.json", "[" * 100_000),
    ],
)
def test_a_file_that_is_none_of_rules_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError):
        write(tmp_path, name, text)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_rule_file(tmp_path / "none.toml")


def test_the_digest_tells_files_apart(tmp_path: Path) -> None:
    digests = set()
    for entropy in (1.0, 2.0):
        rules = [{"id": "x", "regex": "abc(d+)", "entropy": entropy}]
        file = write(tmp_path, "x.json", json.dumps(rules))
        digests.add(Redactor(KEY, RedactionConfig(rules=file.rules)).digest)
    assert len(digests) == 2


def test_one_group_is_kept() -> None:
    assert keep_group(r"(a)(b[(])(?:c)(?P<n>d)\(", 2) == r"(?:a)(b[(])(?:c)(?:d)\("
    assert keep_group(r"[]()](x)(?<TOKEN>y)(?i:z)", 0) == r"[]()](?:x)(y)(?i:z)"
