"""Bundles: the same corpus gives the same bytes, comes back whole, and a hostile file brings nothing in."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance_case import make_corpus, make_example
from gtft.artifact import Artifact, stage_artifact, verify_artifact
from gtft.corpus.governance import bundle as bundles
from gtft.corpus.governance.bundle import pack, unpack
from gtft.errors import EvidenceError, GtftError, RedactionError, UsageError

Members = list[tuple[tarfile.TarInfo, bytes]]


def accept(corpus: Artifact) -> None:
    """A scan that finds nothing."""


@pytest.fixture
def corpus(tmp_path: Path) -> Artifact:
    return make_corpus(tmp_path / "here", [make_example(n) for n in range(5)], [make_example(9)])


def read_members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(m, (tar.extractfile(m) or io.BytesIO()).read()) for m in tar.getmembers()]


def write_members(path: Path, members: Members, *, form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w:gz", format=form) as tar:
        for head, data in members:
            if head.isreg():
                head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return path


def make_member(
    name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE
) -> tuple[tarfile.TarInfo, bytes]:
    head = tarfile.TarInfo(name)
    head.type = kind
    head.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return head, data if kind == tarfile.REGTYPE else b""


def list_shelf(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_corpus_comes_back_as_it_went_in(tmp_path: Path, corpus: Artifact) -> None:
    size = pack(corpus, tmp_path / "a.tar.gz")
    assert size == (tmp_path / "a.tar.gz").stat().st_size
    made = unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept)
    assert made.id == corpus.id
    assert verify_artifact(made.path, kind="corpus", expect=corpus.id).files == corpus.files
    again = unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept)
    assert again.path == made.path
    assert list_shelf(tmp_path / "there") == [made.path.name]


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, corpus: Artifact) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    (corpus.path / "train.jsonl").touch()
    (corpus.path / "train.jsonl").chmod(0o600)
    pack(corpus, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert read_members(tmp_path / "a.tar.gz")[0][0].name == "artifact.json"


def test_nothing_is_packed_over_or_from_a_corpus_that_changed(
    tmp_path: Path, corpus: Artifact
) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    with pytest.raises(UsageError, match="there already"):
        pack(corpus, tmp_path / "a.tar.gz")
    with (corpus.path / "train.jsonl").open("a") as f:
        f.write("\n")
    with pytest.raises(EvidenceError, match="has changed"):
        pack(corpus, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_trial_keeps_nothing(tmp_path: Path, corpus: Artifact) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept, keep=False).id == corpus.id
    assert list_shelf(tmp_path / "there") == []


def test_a_bundle_that_the_scan_refuses_brings_nothing_in(tmp_path: Path, corpus: Artifact) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    seen: list[str] = []

    def refuse(found: Artifact) -> None:
        seen.extend(f.name for f in found.files if (found.path / f.name).is_file())
        raise RedactionError("it holds a secret")

    with pytest.raises(RedactionError):
        unpack(tmp_path / "a.tar.gz", tmp_path / "there", refuse)
    assert seen == [f.name for f in corpus.files]
    assert list_shelf(tmp_path / "there") == []


def change(members: Members, name: str, data: bytes) -> Members:
    return [(m, data if m.name == name else d) for m, d in members]


def rename(members: Members, name: str, to: str) -> Members:
    """A member and its entry in the manifest under another name; ids made again by nobody."""
    for m, _ in members:
        m.name = to if m.name == name else m.name
    return members


HOSTILE: dict[str, Callable[[Members], Members]] = {
    "a changed byte": lambda m: change(m, "train.jsonl", m[-1][1] + b" "),
    "same size, other bytes": lambda m: change(
        m, "train.jsonl", b"x" * next(len(d) for h, d in m if h.name == "train.jsonl")
    ),
    "a file too many": lambda m: [*m, make_member("more.txt")],
    "a file too few": lambda m: m[:-1],
    "a file twice": lambda m: [*m, m[1]],
    "manifest not first": lambda m: m[::-1],
    "no manifest": lambda m: m[1:],
    "a path upwards": lambda m: rename(m, "train.jsonl", "../train.jsonl"),
    "an absolute path": lambda m: rename(m, "train.jsonl", "/tmp/train.jsonl"),
    "a link": lambda m: [*m[:2], make_member("link", kind=tarfile.SYMTYPE), *m[2:]],
    "a link as a listed file": lambda m: [m[0], make_member(m[1][0].name, kind=tarfile.SYMTYPE)],
    "a hard link": lambda m: [m[0], make_member(m[1][0].name, kind=tarfile.LNKTYPE)],
    "a device": lambda m: [m[0], make_member("dev", kind=tarfile.CHRTYPE), *m[1:]],
    "a pipe": lambda m: [m[0], make_member("pipe", kind=tarfile.FIFOTYPE), *m[1:]],
    "a folder": lambda m: [m[0], make_member("folder", kind=tarfile.DIRTYPE), *m[1:]],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_bundle_is_refused_and_leaves_nothing(
    tmp_path: Path, corpus: Artifact, case: str
) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    members = HOSTILE[case](read_members(tmp_path / "a.tar.gz"))
    write_members(tmp_path / "b.tar.gz", members)
    with pytest.raises(EvidenceError, match=r"bundle b\.tar\.gz is refused"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)
    assert list_shelf(tmp_path / "there") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.tar.gz",
        "b.tar.gz",
        "here",
        "there",
    ] or (sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "b.tar.gz", "here"])


def test_extended_headers_are_refused(tmp_path: Path, corpus: Artifact) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    members = read_members(tmp_path / "a.tar.gz")
    members[1][0].pax_headers = {"path": "../../out.txt"}
    write_members(tmp_path / "b.tar.gz", members, form=tarfile.PAX_FORMAT)
    with pytest.raises(EvidenceError, match="not a regular file"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)


MANIFESTS = {
    "not JSON": b"{",
    "deep": b"[" * 50_000,
    "a list": b"[]",
    "no files": b'{"id": "sha256:0", "kind": "corpus", "parents": []}',
    "names that are numbers": b'{"id": "a", "kind": "corpus", "parents": [], "files":'
    b' [{"name": 1, "size": 1, "sha256": ""}]}',
    "an endless size": b'{"id": "a", "kind": "corpus", "parents": [], "files":'
    b' [{"name": "a", "size": 1e999, "sha256": ""}]}',
    "another id": b'{"id": "sha256:00", "kind": "corpus", "parents": [], "files": []}',
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, corpus: Artifact, case: str) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    members = change(read_members(tmp_path / "a.tar.gz"), "artifact.json", MANIFESTS[case])
    write_members(tmp_path / "b.tar.gz", members)
    with pytest.raises(EvidenceError):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)
    assert list_shelf(tmp_path / "there") == []


def sign(files: list[tuple[str, int]]) -> bytes:
    """A manifest whose id is right, over files that need not be."""
    from gtft.artifact import FORMAT, hash_json

    doc = {
        "format": FORMAT,
        "kind": "corpus",
        "parents": [],
        "files": [{"name": n, "size": s, "sha256": "0" * 64} for n, s in files],
    }
    return json.dumps({**doc, "id": hash_json(doc)}).encode()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("../up", 1)], "outside itself"),
        ([("/abs", 1)], "outside itself"),
        ([(".hidden", 1)], "lists"),
        ([("a\\b", 1)], "lists"),
        ([("a\nb", 1)], "lists"),
        ([("a", -1)], "lists"),
        ([("artifact.json", 1)], "lists"),
        ([("a", 1), ("A", 1)], "twice"),
        ([(f"f{n}", 1) for n in range(2000)], "larger than"),
        ([("a", 1 << 40)], "larger than"),
        ([("a", 1)], "holds no train.jsonl"),
    ],
)
def test_a_manifest_that_promises_too_much_is_refused(
    tmp_path: Path, files: list[tuple[str, int]], words: str
) -> None:
    write_members(tmp_path / "b.tar.gz", [make_member("artifact.json", sign(files))])
    with pytest.raises(EvidenceError, match=words):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)
    assert list_shelf(tmp_path / "there") == []


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    manifest = sign([("train.jsonl", 3)])
    head, _ = make_member("artifact.json", manifest)
    head.size = 1 << 33
    with gzip.open(tmp_path / "b.tar.gz", "wb") as f:
        f.write(head.tobuf(tarfile.GNU_FORMAT))
        f.write(bytes(1 << 20))
    with pytest.raises(EvidenceError, match="larger than"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)


def test_a_bundle_that_needs_more_than_the_disk_has_is_refused_first(
    tmp_path: Path, corpus: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(corpus, tmp_path / "a.tar.gz")
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(bundles.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(GtftError, match="does not fit"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept)
    assert list_shelf(tmp_path / "there") == []


def test_a_line_without_an_end_is_refused(
    tmp_path: Path, corpus: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage_artifact(tmp_path / "here", "corpus") as staging:
        for f in corpus.files:
            (staging.path / f.name).write_bytes((corpus.path / f.name).read_bytes())
        (staging.path / "base.txt").write_bytes(b"\n" + bytes(5 << 20))
    pack(staging.result, tmp_path / "a.tar.gz")
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept, keep=False)
    monkeypatch.setattr(bundles, "MOST_LINE", 4 << 20)
    with pytest.raises(EvidenceError, match=r"base\.txt has a line over 4 MiB"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept)


LINES = {
    "no JSON": b"{",
    "a list": b"[]",
    "deep": b'{"x":' + b"[" * 100_000 + b"\n",
    "no id": b'{"source": "x"}\n',
    "a message that is a number": b'{"id":"ex-1","source":"x","cluster":"c","messages":[1],'
    b'"origin":{"file":"f","lines":[1,2],"session":null,"segment":0}}\n',
    "an unknown role": b'{"id":"ex-1","source":"x","cluster":"c","messages":[{"role":"root","content":""}],'
    b'"origin":{"file":"f","lines":[1,2],"session":null,"segment":0}}\n',
}


@pytest.mark.parametrize("case", LINES)
def test_what_is_no_example_is_refused(tmp_path: Path, case: str) -> None:
    with stage_artifact(tmp_path / "here", "corpus") as staging:
        for name in ("train.jsonl", "heldout.jsonl", "manifest.json", "summary.json"):
            (staging.path / name).write_bytes(LINES[case] if name == "heldout.jsonl" else b"")
    pack(staging.result, tmp_path / "a.tar.gz")
    with pytest.raises(EvidenceError, match=r"heldout\.jsonl:1 is no example"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "there", accept)
    assert list_shelf(tmp_path / "there") == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_bundle_is_refused_or_unchanged(
    tmp_path: Path, corpus: Artifact, data: st.DataObject
) -> None:
    whole = tmp_path / "a.tar.gz"
    if not whole.exists():
        pack(corpus, whole)
    raw = bytearray(whole.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] ^= data.draw(st.integers(1, 255))
    else:
        del raw[at:]
    (tmp_path / "b.tar.gz").write_bytes(bytes(raw))
    try:
        made = unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept, keep=False)
    except GtftError as e:
        assert e.kind == "evidence"
    else:
        # Only a byte of gzip's header that means nothing may differ.
        assert made.id == corpus.id
    assert list_shelf(tmp_path / "there") == []


@pytest.mark.parametrize("raw", [b"", b"\x1f\x8b", b"no gzip", gzip.compress(b"x" * 5000, mtime=0)])
def test_what_is_no_bundle_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "b.tar.gz").write_bytes(raw)
    with pytest.raises(EvidenceError, match="refused"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "there", accept)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GtftError, match=r"reading none\.tar\.gz"):
        unpack(tmp_path / "none.tar.gz", tmp_path / "there", accept)
