"""Every chat template that TRL ships: rows that are exactly the assistant's turns, or a refusal with its cause."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gtft.dialect import pin_date
from gtft.evals.asking.generate import write_prompts
from gtft.evals.item import CheckSpec, Item
from gtft.training.examples import Conversation
from gtft.training.render import Renderer, Row
from training_case import chat, make_tokenizer

_TRL = importlib.util.find_spec("trl")
assert _TRL is not None and _TRL.submodule_search_locations
TEMPLATES = {
    p.stem: p.read_text("utf-8")
    for p in sorted((Path(_TRL.submodule_search_locations[0]) / "chat_templates").glob("*.jinja"))
}
FAMILIES = sorted({stem.removesuffix("_training") for stem in TEMPLATES})

# The families that cannot be trained on such a conversation, and the cause that says so. A template for
# training stands with its family.
REFUSED = {
    "template-refuses": {
        "system": {"gemma"},
        "tools": {"cohere", "gemma", "gemma3", "llava_next"},
    },
    "template-drops-tools": {
        "tools": {
            "cohere2", "deepseek_r1_distill", "idefics3", "lfm2", "llama3", "phi3", "phi3_5",
            "qwen2_5_vl", "smolvlm",
        },
    },
    # Their prompt opens a thought that a turn without one never closes.
    "prefix-differs": {
        "plain": {"deepseek_r1_distill", "deepseekv3"},
        "system": {"deepseek_r1_distill", "deepseekv3"},
        "turns": {"deepseek_r1_distill", "deepseekv3"},
        "tools": {"deepseekv3"},
        "thinking": {"deepseek_r1_distill", "deepseekv3", "qwen3_5_nothink"},
    },
}  # fmt: skip
CALL = {
    "id": "c12345678",
    "type": "function",
    "function": {"name": "Bash", "arguments": {"command": "bd show gz-1"}},
}
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "Bash",
            "description": "runs a command",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string", "description": "the command"}},
                "required": ["command"],
            },
        },
    },
)
RESULT = {"role": "tool", "name": "Bash", "content": "the pump is dry", "tool_call_id": "c12345678"}
TALKS: dict[str, tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]] = {
    "plain": (chat("user: pump 7?", "assistant: mend it"), ()),
    "system": (chat("system: be brief", "user: pump 7?", "assistant: mend it"), ()),
    "turns": (chat("user: pump 7?", "assistant: mend it", "user: and 8?", "assistant: wait"), ()),
    "tools": (
        (
            *chat("user: look at 7"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            RESULT,
            *chat("assistant: mend it", "user: thanks", "assistant: wait"),
        ),
        TOOLS,
    ),
    "thinking": (
        (
            *chat("user: pump 7?"),
            {"role": "assistant", "content": "mend it", "reasoning_content": "seven leaks"},
            *chat("user: and 8?"),
            {"role": "assistant", "content": "wait", "reasoning_content": "eight drips"},
        ),
        (),
    ),
}
_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|<｜[^｜]+｜>|<\|[a-z_]+>|<[a-z_]+\|>|<(?:start|end)_of_\w+>|\[/?[A-Z_]+\]|</?s>|<bos>"
)
_PLAIN_TAG = re.compile(r"</?(?:think|tool_call|tool_response|arg_key|arg_value)>")


@functools.cache
def tokenizer_for(stem: str) -> Any:
    """Bytes, and what the template writes: role markers as special tokens, tags as added ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    template = TEMPLATES[stem]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    special = sorted({*_SPECIAL.findall(template), "<s>", "</s>"})
    made.add_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    made.add_tokens([AddedToken(s) for s in sorted(set(_PLAIN_TAG.findall(template)))])
    made.chat_template = template
    return made


def find_cause(stem: str, kind: str) -> str | None:
    family = stem.removesuffix("_training")
    return next((cause for cause, kinds in REFUSED.items() if family in kinds.get(kind, ())), None)


def served(renderer: Renderer, talk: Any, tools: Any, turn: int) -> list[int]:
    """What serving sends for the answer at ``turn``; the day is the only thing that is not today's."""
    tokenizer = renderer.tokenizer
    ids = tokenizer.apply_chat_template(
        [renderer.dialect.shape(m) for m in talk[:turn]],
        tools=list(tools) or None,
        chat_template=pin_date(tokenizer.chat_template),
        add_generation_prompt=True,
        tokenize=True,
    )["input_ids"]
    return list(ids)


def spans(rows: tuple[Row, ...]) -> Iterator[tuple[Row, int, int]]:
    return ((row, first, last) for row in rows for first, last in row.spans)


@pytest.mark.parametrize("kind", TALKS)
@pytest.mark.parametrize("stem", TEMPLATES)
def test_rows_are_the_assistants_turns_or_the_cause_is_named(stem: str, kind: str) -> None:
    tokenizer = tokenizer_for(stem)
    talk, tools = TALKS[kind]
    renderer = Renderer(tokenizer, 4096)
    done = renderer.render(Conversation("ex-1", talk, tools))
    if cause := find_cause(stem, kind):
        assert {c.split(":")[0] for c in done.causes} == {cause}
        assert len(done.rows) == (kind == "tools" and stem.startswith("deepseekv3"))
        return
    assert done.causes == ()
    turns = [i for i, m in enumerate(talk) if m["role"] == "assistant"]
    found = list(spans(done.rows))
    assert len(found) == len(turns)
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    for turn, (row, first, last) in zip(turns, found, strict=True):
        assert list(row.input_ids[:first]) == served(renderer, talk, tools, turn)
        trained = tokenizer.decode(row.input_ids[first:last])
        assert row.input_ids[last - 1] in special
        call = talk[turn].get("tool_calls")
        said = ("Bash", "bd show gz-1") if call else (talk[turn]["content"],)
        assert all(s in trained for s in said)
        for other in {"pump 7?", "look at 7", "and 8?", "thanks", "be brief", "is dry"}:
            assert other not in trained
        others = {"mend it", "wait"} - set(said)
        assert not any(s in trained for s in others)
    for row in done.rows:
        assert row.spans[-1][1] == len(row.input_ids)
        assert sum(x != -100 for x in row.labels) == row.supervised


def test_the_refused_are_templates_that_are_shipped_and_stand_in_the_docs() -> None:
    named = {f for kinds in REFUSED.values() for families in kinds.values() for f in families}
    assert named <= set(FAMILIES)
    page = (Path(__file__).parents[2] / "docs" / "corpus.md").read_text("utf-8")
    assert [f for f in sorted(named) if f"`{f}`" not in page] == []


@pytest.mark.parametrize(
    ("stem", "text", "null"), [("llama3_1", False, False), ("deepseekv3", True, False)]
)
def test_arguments_are_given_as_the_template_wants_them(stem: str, text: bool, null: bool) -> None:
    renderer = Renderer(tokenizer_for(stem), 4096)
    assert (renderer.dialect.text_arguments, renderer.dialect.null_content) == (text, null)
    for arguments in ({"command": "bd show gz-1"}, '{"command": "bd show gz-1"}'):
        call = {**CALL, "function": {"name": "Bash", "arguments": arguments}}
        talk = (
            *chat("user: look"),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            RESULT,
            *chat("assistant: mend it"),
        )
        rows = renderer.render(Conversation("ex-1", talk, TOOLS)).rows
        text_of = renderer.tokenizer.decode(rows[-1].input_ids)
        assert '{"command": "bd show gz-1"}' in text_of


def test_text_that_a_template_leaves_out_beside_a_call_is_counted() -> None:
    talk = (
        *chat("user: look"),
        {"role": "assistant", "content": "I look", "tool_calls": [CALL]},
        RESULT,
        *chat("assistant: mend it"),
    )
    silenced = {
        stem: Renderer(tokenizer_for(stem), 4096).render(Conversation("e", talk, TOOLS)).silenced
        for stem in ("llama3_1", "qwen3", "qwen2_5")
    }
    assert silenced == {"llama3_1": 1, "qwen3": 0, "qwen2_5": 0}


@pytest.mark.parametrize("stem", ["gptoss", "diffusion_gemma", "gemma4_v5"])
def test_templates_that_reorder_text_beside_a_call_do_not_train_what_follows(stem: str) -> None:
    talk = (
        *chat("user: look"),
        {"role": "assistant", "content": "I look", "tool_calls": [CALL]},
        RESULT,
        *chat("assistant: mend it"),
    )
    done = Renderer(tokenizer_for(stem), 4096).render(Conversation("e", talk, TOOLS))
    assert (len(done.rows), done.causes) == (1, ("prefix-differs",))


@pytest.mark.parametrize("stem", ["llama3_2", "gptoss", "muse_glimmer"])
def test_rows_do_not_change_with_the_day(stem: str) -> None:
    talk, tools = TALKS["plain"]
    row = Renderer(tokenizer_for(stem), 4096).render(Conversation("e", talk, tools)).rows[0]
    text = tokenizer_for(stem).decode(row.input_ids)
    assert "01 Jan 2026" in text or "2026-01-01" in text


def joined(stem: str) -> int:
    talk, tools = TALKS["turns"]
    return len(Renderer(tokenizer_for(stem), 4096).render(Conversation("e", talk, tools)).rows)


def test_turns_share_a_row_only_where_the_template_keeps_its_history() -> None:
    assert [joined(s) for s in ("llama3_1", "qwen2_5", "phi3", "gemma3")] == [1, 1, 1, 1]
    assert [joined(s) for s in ("qwen3", "gptoss", "nemotron_3_nano")] == [2, 2, 2]


@pytest.mark.parametrize("kind", ["turns", "tools", "thinking"])
@pytest.mark.parametrize("stem", ["llama3_1", "qwen2_5", "qwen3_training", "glm4moe"])
def test_a_joined_row_trains_the_same_targets_after_the_same_tokens(stem: str, kind: str) -> None:
    talk, tools = TALKS[kind]
    renderer = Renderer(tokenizer_for(stem), 4096)
    together = renderer.render(Conversation("ex-1", talk, tools)).rows

    def pairs(row: Row, first: int, last: int) -> set[tuple[tuple[int, ...], int]]:
        return {(tuple(row.input_ids[:i]), row.input_ids[i]) for i in range(first, last)}

    alone = []
    for turn in (i for i, m in enumerate(talk) if m["role"] == "assistant"):
        row = renderer.render(Conversation("ex-1", talk[: turn + 1], tools)).rows[-1]
        alone.append((row, *row.spans[-1]))
    assert set().union(*(pairs(*s) for s in spans(together))) == set().union(
        *(pairs(*s) for s in alone)
    )
    assert sum(r.supervised for r in together) == sum(last - first for _, first, last in alone)


def make_item(talk: Any, tools: Any) -> Item:
    check = CheckSpec("contains", {})
    return Item(
        "i", "heldout", "c", None, "t", "k", tuple(talk), tuple(tools), check, ""
    ).identified()


@pytest.mark.parametrize("kind", ["turns", "tools"])
@pytest.mark.parametrize("stem", ["llama3_1", "qwen2_5", "qwen3", "qwen3_8", "glm4moe", "lfm2_v2"])
def test_training_eval_and_serving_send_the_same_prompt(stem: str, kind: str) -> None:
    talk, tools = TALKS[kind]
    renderer = Renderer(tokenizer_for(stem), 4096)
    rows = renderer.render(Conversation("ex-1", talk, tools)).rows
    turns = [i for i, m in enumerate(talk) if m["role"] == "assistant"]
    for turn, (row, first, _) in zip(turns, spans(rows), strict=True):
        (prompt,), _ = write_prompts([make_item(talk[:turn], tools)], renderer.tokenizer, 4096)
        context = list(row.input_ids[:first])
        assert context == list(prompt.ids) == served(renderer, talk, tools, turn)


@pytest.mark.parametrize("stem", ["llama3_1", "qwen2_5", "qwen3", "nano"])
def test_a_cut_context_is_the_one_that_eval_cuts(stem: str) -> None:
    tokenizer = make_tokenizer() if stem == "nano" else tokenizer_for(stem)
    talk: list[dict[str, Any]] = list(chat("system: be brief", "user: look at all pumps"))
    for n in range(8):
        talk += [
            {"role": "assistant", "content": f"look {n}", "tool_calls": [CALL]},
            {**RESULT, "content": f"result {n} " + "dry " * n},
        ]
    talk += chat("assistant: mend it", "user: all?", "assistant: wait")
    renderer = Renderer(tokenizer, 1500 if stem != "nano" else 320)
    rows = renderer.render(Conversation("ex-1", tuple(talk), TOOLS)).rows
    assert any(row.cut for row in rows)
    turns = [i for i, m in enumerate(talk) if m["role"] == "assistant"]
    for turn, (row, first, _) in zip(turns, spans(rows), strict=True):
        if first == row.spans[0][0]:
            item = make_item(talk[:turn], TOOLS)
            (prompt,), _ = write_prompts([item], renderer.tokenizer, first)
            assert list(row.input_ids[:first]) == list(prompt.ids)
