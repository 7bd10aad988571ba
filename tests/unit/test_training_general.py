"""General text: the shipped set, foreign files of any kind, what is replayed and what is only measured on."""

from __future__ import annotations

import ast
import json
import os
import re
from array import array
from dataclasses import replace
from datetime import date
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest

from gtft.errors import EvidenceError, InputError
from gtft.recipe.schema import Retention, Train
from gtft.training import general
from gtft.training.general import PREFIX, SHIPPED, General, Item, make_rows, mix, read_general
from gtft.training.render import Row
from gtft.training.validation import divide, keep_out, pick_measured, read_clusters
from training_case import TEXT, Recorder, make_tokenizer

_NUMBER = r"\d+(?:\.\d+)?"
_SUM = re.compile(rf"(?<![\d/.²³]){_NUMBER}(?: [+×÷-] {_NUMBER})+ = -?{_NUMBER}(?![\d.]*[%/])")


def read(path: Path | str, root: Path = Path("/"), watch: Recorder | None = None) -> General:
    return read_general(str(path), root=root, base_text=None, watch=watch or Recorder())


def shipped() -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in SHIPPED.read_text("utf-8").splitlines()]


def work_out(text: str) -> Fraction:
    """The value of "a + b × c", products first."""
    total = Fraction(0)
    for sign, term in re.findall(rf"(^|[+-] )({_NUMBER}(?: [×÷] {_NUMBER})*)", text):
        first, *rest = re.split(r" ([×÷]) ", term)
        value = Fraction(first)
        for op, factor in zip(rest[::2], rest[1::2], strict=True):
            value = value * Fraction(factor) if op == "×" else value / Fraction(factor)
        total += -value if sign.startswith("-") else value
    return total


# --- the shipped set -----------------------------------------------------------------------------


def test_shipped_set_is_whole_varied_and_not_of_a_town() -> None:
    chats = shipped()
    assert 160 <= len(chats) <= 200
    assert len(
        {c[0]["content"] if c[0]["role"] == "user" else c[1]["content"] for c in chats}
    ) == len(chats)
    for chat in chats:
        roles = [m["role"] for m in chat]
        body = roles[1:] if roles[0] == "system" else roles
        assert body == ["user", "assistant"] * (len(body) // 2)
        assert all(m["content"] == m["content"].strip() != "" for m in chat)
    # No pattern that a model would take up: neither one opening nor one length.
    openings = [c[-1]["content"].split()[0] for c in chats]
    assert max(openings.count(o) for o in set(openings)) <= len(chats) // 10
    lengths = sorted(len(c[-1]["content"]) for c in chats)
    assert lengths[20] < 40
    assert lengths[-20] > 250
    everything = json.dumps(chats).lower()
    town = ("gas town", "polecat", "refinery", "bead", "wisp", "witness", "deacon", "convoy")
    assert not [w for w in town if w in everything]


def test_shipped_arithmetic_is_right() -> None:
    found = [
        m.group()
        for chat in shipped()
        for message in chat
        if message["role"] == "assistant"
        for m in _SUM.finditer(message["content"].replace("```", ""))
    ]
    assert len(found) >= 50
    for sum_ in found:
        left, right = sum_.split(" = ")
        assert work_out(left) == Fraction(right), sum_


def test_shipped_code_parses_and_runs_where_it_can() -> None:
    python, data = 0, 0
    for chat in shipped():
        text = chat[-1]["content"]
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(ast.parse(code), "shipped", "exec"), {})
            python += 1
        if text[0] in "{[" and text[-1] in "}]":
            json.loads(text)
            data += 1
    assert python >= 5
    assert data >= 4


def test_shipped_weekdays_are_right() -> None:
    days = re.findall(r"(\d{4}-\d\d-\d\d) was a (\w+)", SHIPPED.read_text("utf-8"))
    assert days
    for day, name in days:
        assert date.fromisoformat(day).strftime("%A") == name


def test_replayed_and_measured_items_are_apart_and_do_not_depend_on_order(tmp_path: Path) -> None:
    whole = read_general("", root=tmp_path, base_text=None, watch=Recorder())
    assert whole.source == "the shipped set"
    assert not {i.hash for i in whole.replayed} & {i.hash for i in whole.measured}
    assert len(whole.replayed) + len(whole.measured) == len(shipped())
    assert 32 <= len(whole.measured) <= 64
    lines = SHIPPED.read_text("utf-8").splitlines()
    (tmp_path / "turned.jsonl").write_text("\n".join([*lines[::-1], *lines]) + "\n")
    turned = read("turned.jsonl", tmp_path)
    assert turned.id == whole.id
    # What is added later does not move an item from one side to the other.
    (tmp_path / "fewer.jsonl").write_text("\n".join(lines[:90]))
    fewer = read("fewer.jsonl", tmp_path)
    assert {i.hash for i in fewer.measured} <= {i.hash for i in whole.measured}


# --- files of others -----------------------------------------------------------------------------


def test_a_folder_gives_chats_and_passages_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    folder = tmp_path / "general"
    (folder / "deep").mkdir(parents=True)
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    bad = [
        "{",
        "[" * 30000,
        '"text"',
        json.dumps({"messages": "none"}),
        json.dumps({"messages": [{"role": "user", "content": "alone"}]}),
        json.dumps({"messages": [{"role": "tool", "content": "x"}, *good["messages"]]}),
        json.dumps({"messages": [{"role": "user"}]}),
        '{"messages":[{"role":"user","content":"\\ud800"},{"role":"assistant","content":"x"}]}',
        '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":'
        + "9" * 5000
        + "}]}",
    ]
    lines = [json.dumps(good), *bad, json.dumps(good)]
    (folder / "deep" / "chats.jsonl").write_text("\n".join(lines))
    (folder / "notes.md").write_text("# Pumps\n\nA pump lifts water.\n")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "empty.txt").write_text("\n\n")
    (folder / "picture.png").write_bytes(b"x")
    (folder / "away.md").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.txt")
    watch = Recorder()
    found = read("general", tmp_path, watch)
    assert sorted(i.text for i in found.items) == ["", "# Pumps\n\nA pump lifts water."]
    assert [i.messages for i in found.items if i.messages] == [tuple(good["messages"])]
    skipped = dict(found.skipped)
    assert skipped["lines that are no chat"] == len(bad)
    assert skipped["links or special files"] == 2
    assert skipped["passages that are not text"] > 0
    assert [code for code, _ in watch.warnings] == ["general-skipped"]


@pytest.mark.parametrize("name", ["absent.jsonl", "empty.jsonl", "folder", "pipe.txt"])
def test_nothing_to_read_is_said_with_the_next_command(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError):
        read(name, tmp_path)


def test_huge_files_are_read_in_pieces_and_a_fair_part_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(general, "ITEMS_AT_MOST", 50)
    monkeypatch.setattr(general, "BYTES_AT_MOST", 200_000)
    chats = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"q {n}"},
                    {"role": "assistant", "content": "a"},
                ]
            }
        )
        for n in range(400)
    ]
    long = '{"messages": "' + "x" * (3 * general.LINE_AT_MOST) + '"}'
    (tmp_path / "a.jsonl").write_text("\n".join([*chats[:200], long, *chats[200:]]))
    found = read("a.jsonl", tmp_path)
    assert len(found.items) == 50
    assert dict(found.skipped) == {
        "lines too long": 1,
        "files longer than what is read (0 MiB in all)": 1,
    }
    # Those with the smallest hashes of all that was read, whatever came first.
    (tmp_path / "b.jsonl").write_text("\n".join(chats[::-1]))
    every = read("b.jsonl", tmp_path)
    monkeypatch.setattr(general, "ITEMS_AT_MOST", 4096)
    whole = read("b.jsonl", tmp_path)
    assert len(whole.items) == 400
    assert every.items == whole.items[:50]


def test_one_endless_line_of_text_becomes_passages(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text(" ".join(str(n) for n in range(60_000)))
    found = read("line.txt", tmp_path)
    assert len(found.items) > 200
    assert max(len(i.text) for i in found.items) <= 1400


# --- rows ----------------------------------------------------------------------------------------


def test_passages_train_every_token_and_chats_only_answers() -> None:
    tokenizer = make_tokenizer()
    chat = ({"role": "user", "content": "pump?"}, {"role": "assistant", "content": "mend it"})
    items = [Item("a" * 64, text="The gauge sticks.<|im_end|>"), Item("b" * 64, messages=chat)]
    passage, talk = make_rows(items, tokenizer, 64)
    assert passage.example == PREFIX + "a" * 16
    assert passage.supervised == len(passage.input_ids) - 1
    assert not set(passage.input_ids) & set(tokenizer.all_special_ids)
    assert talk.example == PREFIX + "b" * 16
    trained = [t for t in talk.labels if t != -100]
    assert tokenizer.decode(trained).replace("<|im_end|>", "").strip() == "mend it"
    short = make_rows([Item("c" * 64, text=TEXT)], tokenizer, 64)
    assert len(short[0].input_ids) == 64


def row(example: str, length: int = 4) -> Row:
    return Row(example, array("i", range(length)), ((1, length),), cut=0)


def test_mix_has_the_share_spread_evenly_and_every_own_row_in_order() -> None:
    own = [row(f"ex-{n}") for n in range(170)]
    extra = [row(f"{PREFIX}{n}") for n in range(100)]
    mixed = mix(own, extra, 0.15, seed=7)
    assert (mixed.replayed, mixed.wanted, len(mixed.rows)) == (30, 30, 200)
    assert [r for r in mixed.rows if not r.example.startswith(PREFIX)] == own
    for quarter in range(4):
        part = mixed.rows[quarter * 50 : (quarter + 1) * 50]
        assert 7 <= sum(r.example.startswith(PREFIX) for r in part) <= 8
    assert mix(own, extra[::-1], 0.15, seed=7).rows == mixed.rows
    assert mix(own, extra, 0.15, seed=8).rows != mixed.rows


def test_a_small_set_is_in_an_epoch_once_and_that_is_told() -> None:
    mixed = mix([row(f"ex-{n}") for n in range(100)], [row(f"{PREFIX}1")], 0.5, seed=1)
    assert (mixed.replayed, mixed.wanted, mixed.short) == (1, 100, True)
    assert mixed.as_dict() == {"rows": 1, "wanted_rows": 100, "share": 0.0099}
    assert mix([row("ex-1")], [row(f"{PREFIX}1")], 0.0, seed=1).rows == (row("ex-1"),)


# --- what is kept out ----------------------------------------------------------------------------


def test_clusters_are_kept_out_whole_and_the_same_ones_every_time() -> None:
    names = [f"bead:{n}" for n in range(200)]
    kept = keep_out(names, 0.05, 7, Recorder())
    assert len(kept) == 10
    assert keep_out(names[::-1] * 2, 0.05, 7, Recorder()) == kept
    assert keep_out(names, 0.05, 8, Recorder()) != kept
    assert len(keep_out(names[:20], 0.001, 7, Recorder())) == 1
    assert keep_out(names, 0.0, 7, Recorder()) == ()
    watch = Recorder()
    assert keep_out(names[:19], 0.5, 7, watch) == ()
    assert [code for code, _ in watch.warnings] == ["validation-none"]


def test_every_row_is_in_one_place(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    clusters = {f"ex-{n}": f"session:{n // 3}" for n in range(120)}
    file.write_text(
        "".join(json.dumps({"id": e, "cluster": c}) + "\n" for e, c in clusters.items())
    )
    rows = [row(e) for e in clusters for _ in range(2)]
    texts = [f"The gauge sticks at {n}." for n in range(40)]
    source = General("x", tuple(Item(sha256(t.encode()).hexdigest(), text=t) for t in texts))
    train = Train(retention=Retention(replay=0.1, validation=0.1))
    out = divide(rows, file, source, make_tokenizer(), train, Recorder())
    assert len(out.kept_out) == 4
    trained = {r.example for r in out.mixed.rows if not r.example.startswith(PREFIX)}
    kept = {r.example for r in out.validation}
    assert trained | kept == set(clusters)
    assert not {clusters[e] for e in trained} & {clusters[e] for e in kept}
    assert {clusters[e] for e in kept} == set(out.kept_out)
    assert len(out.mixed.rows) - out.mixed.replayed + len(out.validation) == len(rows)
    replayed = {r.example for r in out.mixed.rows if r.example.startswith(PREFIX)}
    assert replayed
    assert not replayed & {r.example for r in out.general}
    told = json.loads(json.dumps(out.as_dict()))
    assert {e for e, *_ in told["validation"]["per_row"]} == kept
    assert {e for e, *_ in told["replay"]["per_row"]} == replayed
    assert len(out.own) + len(out.validation) == len(rows)


@pytest.mark.parametrize(("on", "wanted"), [(True, [0.4, 1.6]), (False, [1.0, 1.0])])
def test_outcome_weights_are_balanced_or_not_there(
    tmp_path: Path, on: bool, wanted: list[float]
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"id": "ex-1"}\n{"id": "ex-2"}\n')
    rows = [replace(row("ex-1"), weight=0.25), replace(row("ex-2"), weight=1.0)]
    train = Train(outcome_weights=on, retention=Retention(replay=0.0, validation=0.0))
    out = divide(rows, file, General("x", ()), make_tokenizer(), train, Recorder())
    assert [round(r.weight, 9) for r in out.own] == wanted


def test_replayed_passages_are_no_more_of_the_loss_than_their_share(tmp_path: Path) -> None:
    """A passage trains every token: unweighed, 15 % of the rows were most of the loss."""
    file = tmp_path / "train.jsonl"
    file.write_text("".join(f'{{"id": "ex-{n}"}}\n' for n in range(40)))
    texts = [f"The gauge of pump {n} sticks when it starts, so look again." for n in range(40)]
    source = General("x", tuple(Item(sha256(t.encode()).hexdigest(), text=t) for t in texts))
    train = Train(retention=Retention(replay=0.2, validation=0.0))
    rows = [row(f"ex-{n}") for n in range(40)]
    out = divide(rows, file, source, make_tokenizer(), train, Recorder())
    parts = {True: 0.0, False: 0.0}
    for r in out.mixed.rows:
        parts[r.example.startswith(PREFIX)] += r.weight * r.supervised
    assert parts[True] == pytest.approx(0.2 * sum(parts.values()))
    assert all(r.weight == 1.0 for r in out.mixed.rows if not r.example.startswith(PREFIX))


def test_a_line_that_is_no_example_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"id": "ex-1"}\n[]\n')
    clusters = read_clusters(tmp_path / "train.jsonl")
    assert next(iter(clusters)) == ("ex-1", "ex-1")
    with pytest.raises(EvidenceError, match=r"train.jsonl:2"):
        list(read_clusters(tmp_path / "train.jsonl"))


def test_the_measured_rows_are_the_same_whatever_else_there_is() -> None:
    rows = [row(f"ex-{n}") for n in range(100)]
    picked = pick_measured(rows, 8)
    assert len(picked) == 8
    assert {r.example for r in pick_measured(rows[::-1], 8)} == {r.example for r in picked}
    assert pick_measured(rows[:3], 8) == tuple(rows[:3])
