"""The Modelfile: what it holds, what it must not hold, and templates that look translatable and are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gguf_case import CHATML, HEADERS
from gtft.errors import UsageError
from gtft.exports.modelfile import Frame, find_frame, write_modelfile, write_template
from training_case import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def put(tokenizer: Any, template: str, bos: str | None = None) -> Any:
    tokenizer.chat_template, tokenizer.bos_token = template, bos
    return tokenizer


def test_the_nano_models_modelfile(tmp_path: Path) -> None:
    notes = write_modelfile(
        tmp_path,
        make_tokenizer(),
        model="model-f16.gguf",
        context=256,
        stops=["<|endoftext|>", "<|im_end|>"],
    )
    assert (tmp_path / "Modelfile").read_text() == (
        "FROM ./model-f16.gguf\n"
        'TEMPLATE """{{ range $i, $m := .Messages }}'
        '{{ if eq $m.Role "system" }}<|im_start|>system\n{{ $m.Content }}<|im_end|>\n'
        '{{ else if eq $m.Role "user" }}<|im_start|>user\n{{ $m.Content }}<|im_end|>\n'
        '{{ else if eq $m.Role "assistant" }}<|im_start|>assistant\n{{ $m.Content }}<|im_end|>\n'
        '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|endoftext|>"\n'
        'PARAMETER stop "<|im_end|>"\n'
        "PARAMETER num_ctx 256\n"
        "PARAMETER temperature 0\n"
    )
    assert notes == ("Ollama's template carries system, user and assistant messages; no tools",)


def test_a_default_system_message_stands_before_chats_that_have_none(tokenizer: Any) -> None:
    frame = find_frame(put(tokenizer, CHATML))
    assert frame.lead == "<|im_start|>system\nYou help.<|im_end|>\n"
    assert frame.bos == ""
    template = write_template(frame)
    assert '{{ if and (eq $i 0) (ne $m.Role "system") }}<|im_start|>system\nYou help.' in template


def test_the_start_token_is_left_to_the_file_and_trimming_is_told(
    tokenizer: Any, tmp_path: Path
) -> None:
    frame = find_frame(put(tokenizer, HEADERS, "<|endoftext|>"))
    assert (frame.bos, frame.lead) == ("<|endoftext|>", "")
    notes = write_modelfile(
        tmp_path, tokenizer, model="m.gguf", adapter="adapter.gguf", context=64, stops=[]
    )
    text = (tmp_path / "Modelfile").read_text()
    assert "<|endoftext|>" not in text
    assert text.startswith("FROM ./m.gguf\nADAPTER ./adapter.gguf\nTEMPLATE")
    assert any("does not trim" in note for note in notes)


@pytest.mark.parametrize(
    "template",
    [
        # The number of the turn, the length of the text, the role before: more than the role.
        CHATML.replace("{{ m.content }}", "{{ loop.index }}{{ m.content }}"),
        CHATML.replace("{{ m.content }}", "{{ m.content }}{{ m.content | length }}"),
        CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"),
        CHATML.replace("{% for m in messages %}", "{% for m in messages[-3:] %}"),
        CHATML.replace("{% if add_gen", "{{ messages | length }}{% if add_gen"),
    ],
)
def test_a_template_that_depends_on_more_than_the_role_is_refused(
    tokenizer: Any, template: str
) -> None:
    with pytest.raises(UsageError, match="chat template for Ollama"):
        find_frame(put(tokenizer, template))


@pytest.mark.parametrize("around", ['"""', "{{ .System }}", "a\u200bb", "\x1b[2J"])
def test_text_that_would_end_or_change_the_template_is_refused(around: str) -> None:
    plain = ("<", ">")
    frame = Frame("", "", plain, (around, ""), plain, "")
    with pytest.raises(UsageError, match="cannot stand in a Modelfile"):
        write_template(frame)


@pytest.mark.parametrize(
    "name", ["a b.gguf", "../m.gguf", "m.gguf\nFROM x", "-x.gguf", "$(x).gguf"]
)
def test_names_that_are_more_than_a_file_are_refused(
    tokenizer: Any, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="named in a Modelfile"):
        write_modelfile(tmp_path, put(tokenizer, CHATML), model=name, context=64, stops=[])
    with pytest.raises(UsageError, match="stop an answer"):
        write_modelfile(tmp_path, tokenizer, model="m.gguf", context=64, stops=['a"\nSYSTEM b'])
    assert list(tmp_path.iterdir()) == []
