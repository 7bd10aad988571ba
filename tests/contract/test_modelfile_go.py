"""The Modelfile's template, run by real Go as Ollama runs it, writes what the model's own chat template writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gguf_case import CHATML, HEADERS
from gtft.dialect import learn_dialect, write_chat
from gtft.errors import UsageError
from gtft.exports.modelfile import find_frame, write_modelfile
from town_case import make_path, need_tools
from training_case import make_tokenizer

PROGRAM = Path(__file__).parent / "ollama_chat.go"
# Other ones than a frame is found with.
CHATS = [
    [{"role": "user", "content": "Which rig holds gt-x7?"}],
    [
        {"role": "system", "content": "Answer in JSON.\nOne line."},
        {"role": "user", "content": "é 日本 🚀 {{ range . }} \"q\" 's' <a&b> `c` \\n"},
        {"role": "assistant", "content": '{"a": [1, 2]}'},
        {"role": "user", "content": "{{- .System -}} {% if x %} next"},
    ],
    [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2\n\n3"},
        {"role": "user", "content": "4"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "6"},
    ],
]
# Families of published models, as TRL ships their chat templates.
SHIPPED = ("qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3", "llama3_1", "llama3_2")


def make_tokenizers() -> dict[str, Any]:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    templates = {name: (folder / f"{name}.jinja").read_text("utf-8") for name in SHIPPED}
    made = {"nano": make_tokenizer()}
    for name, template in {**templates, "chatml": CHATML, "headers": HEADERS}.items():
        made[name] = make_tokenizer()
        made[name].chat_template = template
        made[name].bos_token = "<|endoftext|>" if "bos_token" in template else None
    return made


def test_go_writes_every_chat_as_the_models_own_template_does(tmp_path: Path) -> None:
    need_tools("go")
    tokenizers = make_tokenizers()
    cases = []
    for name, tokenizer in tokenizers.items():
        folder = tmp_path / name
        folder.mkdir()
        write_modelfile(
            folder, tokenizer, model="model-f16.gguf", context=512, stops=["<|im_end|>"]
        )
        text = (folder / "Modelfile").read_text("utf-8")
        found = re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)
        assert found is not None
        cases.append({"template": found[1], "chats": CHATS})
    done = subprocess.run(
        ["go", "run", str(PROGRAM)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PATH": make_path(), "GOTOOLCHAIN": "local"},
    )
    assert done.returncode == 0, done.stderr
    for (name, tokenizer), texts in zip(tokenizers.items(), json.loads(done.stdout), strict=True):
        template = learn_dialect(tokenizer).template
        bos = tokenizer.bos_token or ""
        expected = [write_chat(tokenizer, template, c, prompt=True) for c in CHATS]
        assert [bos + text for text in texts] == expected, name
        assert all(text.startswith(bos) for text in expected)


@pytest.mark.parametrize("name", ["gemma", "phi3", "gptoss"])
def test_a_template_that_no_frame_accounts_for_is_refused(name: str, tmp_path: Path) -> None:
    import trl

    tokenizer = make_tokenizer()
    shipped = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    tokenizer.chat_template = shipped.read_text("utf-8")
    tokenizer.bos_token = "<|endoftext|>"
    with pytest.raises(UsageError, match="chat template for Ollama") as e:
        find_frame(tokenizer)
    assert "--format gguf" in e.value.fix
    with pytest.raises(UsageError):
        write_modelfile(tmp_path, tokenizer, model="m.gguf", context=64, stops=[])
    assert list(tmp_path.iterdir()) == []
