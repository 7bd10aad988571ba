"""Rows that join and leave between two tokens answer as they would alone; text comes whole; memory is bounded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

import evals_case
from gtft.evals.asking.decode import Limits, decode
from gtft.evals.asking.local import count_bytes
from gtft.serving import batching
from gtft.serving.batching import Batcher
from gtft.serving.engine import End
from gtft.serving.row import Row
from gtft.serving.spelling import Spelling

ENDS = frozenset({2, 5, 7, 11, 13, 17})
NEW = 20
FAMILIES = ("llama", "gemma3", "lfm2")


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Tiny models of random weights: full attention, sliding windows, and one that also convolves."""
    import torch
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        Lfm2Config,
        Lfm2ForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    shape: dict[str, Any] = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(4)
    mixed = ["sliding_attention", "full_attention"]
    made = {
        "llama": LlamaForCausalLM(LlamaConfig(**shape)),
        "gemma3": Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=8, layer_types=mixed)),
        "lfm2": Lfm2ForCausalLM(Lfm2Config(**shape, layer_types=["conv", "full_attention"])),
    }
    for model in made.values():
        for weights in model.parameters():
            if weights.dim() > 1:
                torch.nn.init.normal_(weights, 0, 0.3)
        model.eval()
    return made


def spell(ids: Sequence[int]) -> str:
    return "".join(f"{i}," for i in ids)


def make_row(ids: Sequence[int], model: str = "m", **settings: Any) -> Row:
    return Row(model, tuple(ids), NEW, ENDS, spell, **settings)


def make_batcher(model: Any, columns: int = 10_000, rows: int = 8) -> Batcher:
    column = count_bytes(model)
    return Batcher(lambda _: model, column=column, budget=2 * columns * column, rows=rows)


def make_prompts() -> list[list[int]]:
    """Thirteen of very unlike lengths; every second one begins alike."""
    dice = random.Random(1)
    begin = [dice.randrange(20, 99) for _ in range(24)]
    lengths = [1, 40, 3, 90, 5, 8, 2, 60, 13, 21, 34, 4, 55]
    return [
        (begin if n % 2 else []) + [dice.randrange(20, 99) for _ in range(length)]
        for n, length in enumerate(lengths)
    ]


def run(batcher: Batcher, rows: Sequence[Row], every: int = 3) -> dict[Row, End]:
    """Until all have ended; another row comes every few steps, when there is room."""
    ended: dict[Row, End] = {}
    waiting = list(rows)
    for step in range(10_000):
        if waiting and step % every == 0 and batcher.fits(waiting[0]):
            batcher.add(waiting.pop(0))
        for row, what in batcher.advance():
            assert row not in ended
            if isinstance(what, End):
                ended[row] = what
        if not waiting and not batcher.rows:
            return ended
    raise AssertionError("rows without an end")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("piece", [7, 512])
def test_rows_that_come_and_go_answer_as_they_would_alone(
    models: dict[str, Any], family: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_PIECE", piece)
    model = models[family]
    prompts = make_prompts()
    # Some are asked again: what was computed for them is used again.
    rows = [make_row(p) for p in [*prompts, *prompts[:6]]]
    ended = run(make_batcher(model), rows)
    lengths = set()
    for row in rows:
        (alone,) = decode(
            model, [row.ids], ends=ENDS, pad=0, limits=Limits(NEW, 60.0), clock=lambda: 0.0
        )
        assert tuple(row.made) == alone.ids
        assert ended[row].finish == alone.finish
        assert ended[row].confidence == pytest.approx(alone.confidence, rel=1e-4)
        lengths.add(len(alone.ids))
    assert len(lengths) > 2, "no row left before another"


def test_what_was_computed_is_not_computed_again(models: dict[str, Any]) -> None:
    read: list[int] = []
    model = models["llama"]
    prompt = make_prompts()[3]
    batcher = make_batcher(model)

    def count(row: Row) -> int:
        batcher.add(row)
        batcher.advance()
        return read[-1]

    def watch(given: Any, ids: Any, **rest: Any) -> Any:
        read.append(ids.shape[1])
        return real(given, ids, **rest)

    real = batching.call_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "call_model", watch)
        first = make_row(prompt)
        batcher.add(first)
        batcher.advance()
        assert read[0] == len(prompt)
        run(batcher, [])
        read.clear()
        # The next turn of the same conversation, and the same conversation of another model.
        run(batcher, [make_row([*prompt, *first.made, 50, 51, 52])])
        assert read[0] <= 4
        read.clear()
        run(batcher, [make_row(prompt, model="other")])
        assert read[0] == len(prompt)


def test_rows_and_what_is_kept_of_them_stay_within_the_budget(models: dict[str, Any]) -> None:
    model = models["llama"]
    columns = 300
    batcher = make_batcher(model, columns)
    rows = [make_row(p) for p in make_prompts() * 2]
    assert batcher.longest == columns
    waiting, most = list(rows), 0
    while waiting or batcher.rows:
        while waiting and batcher.fits(waiting[0]):
            batcher.add(waiting.pop(0))
        batcher.advance()
        held = sum(len(k.ids) for k in batcher._kept)
        for lane in batcher._lanes:
            held += lane._past.layers[0]._all[0].shape[2] * len(lane.rows)
        most = max(most, held)
    # Rows that have just ended are there twice for a moment: in their lane, and kept.
    assert columns < most <= 2 * columns
    assert not batcher.fits(make_row(range(20, 20 + columns)))


def test_a_row_that_nobody_waits_for_leaves(models: dict[str, Any]) -> None:
    batcher = make_batcher(models["llama"])
    stays, leaves = make_row(make_prompts()[1]), make_row(make_prompts()[3])
    for row in (stays, leaves):
        batcher.add(row)
    told = [t for _ in range(3) for t in batcher.advance()]
    assert {row for row, _ in told} == {stays, leaves}
    leaves.gone = True
    later = [row for _ in range(40) for row, _ in batcher.advance()]
    assert set(later) <= {stays} and not batcher.rows


def test_an_error_ends_the_rows_it_concerns_and_no_other(models: dict[str, Any]) -> None:
    def activate(key: str) -> Any:
        if key == "broken":
            raise ValueError("its file is damaged")
        return models["llama"]

    batcher = Batcher(activate, column=1, budget=10_000, rows=8)
    good, bad = make_row(make_prompts()[1]), make_row(make_prompts()[3], model="broken")
    ended = run(batcher, [good, bad])
    assert ended[bad].finish == "error" and "its file is damaged" in ended[bad].error
    assert ended[good].finish in ("stop", "length") and ended[good].tokens


def test_without_memory_for_all_the_last_row_goes(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = batching.call_model

    def call(model: Any, ids: Any, **given: Any) -> Any:
        found = real(model, ids, **given)
        if ids.shape[0] > 2:
            # Every layer has written already.
            raise MemoryError
        return found

    rows = [make_row(p, began=float(n)) for n, p in enumerate(make_prompts()[1:8:2])]
    expected = [run(make_batcher(models["llama"]), [make_row(r.ids)]).popitem()[1] for r in rows]
    monkeypatch.setattr(batching, "call_model", call)
    ended = run(make_batcher(models["llama"]), rows, every=1)
    failed = [r for r in rows if ended[r].finish == "error"]
    assert failed and rows[0] not in failed and rows[1] not in failed
    for row, end in zip(rows, expected, strict=True):
        assert row in failed or ended[row].text == end.text


def test_text_comes_whole_and_is_the_decoded_answer() -> None:
    from gtft.training.nano_tokenizer import train_tokenizer

    tokenizer = train_tokenizer(evals_case.TEXT, 512, 256)
    dice = random.Random(3)
    texts = ["Grüße, 世界 👩‍🚀!", "  two\n\nlines  \n ", "��", "tide 🌊", "</tool_call>\n"]
    for n in range(60):
        ids = [dice.randrange(len(tokenizer)) for _ in range(n)]
        for text in dice.sample(texts, 2):
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        spelling = Spelling(lambda i: str(tokenizer.decode(list(i))))
        told = [spelling.add(i) for i in ids] + [spelling.end()]
        assert "".join(told) == tokenizer.decode(ids).strip()
        assert told[0] == told[0].lstrip()
    ids = tokenizer("👩‍🚀 ok", add_special_tokens=False)["input_ids"]
    spelling = Spelling(lambda i: str(tokenizer.decode(list(i))))
    assert all("\ufffd" not in spelling.add(i) for i in ids)


def test_nothing_of_a_stop_string_is_told() -> None:
    def spell_by_letter(text: str, stop: Sequence[str]) -> tuple[str, list[str], str]:
        spelling = Spelling(lambda ids: "".join(map(chr, ids)), stop)
        told = []
        for letter in text:
            told.append(spelling.add(ord(letter)))
            if spelling.stopped_by:
                break
        return "".join([*told, spelling.end()]), told, spelling.stopped_by

    assert spell_by_letter("one two STOP three", ["STOP"])[::2] == ("one two", "STOP")
    assert spell_by_letter("one STO", ["STOP"])[::2] == ("one STO", "")
    assert spell_by_letter("aab aac", ["aac"])[::2] == ("aab", "aac")
    assert spell_by_letter("\n\nno", ["\n\n", ""])[::2] == ("", "\n\n")
    whole, told, _ = spell_by_letter("a STo", ["STOP"])
    # It is held back only as long as it may become one.
    assert whole == "a STo" and told == ["a", "", "", "", " STo"]
