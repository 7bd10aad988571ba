"""An Ollama Modelfile. Ollama writes chats with a Go template of its own kind and does not run the one in the GGUF file.

It compares that one with the templates it knows, letter by letter, and takes the bare prompt when none is near: so the
Modelfile brings a Go template. What is written around each message is found by rendering short conversations with
the model's own chat template; a Modelfile is made only where that accounts for every letter of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import write_file
from gtft.dialect import Dialect, Message, TemplateRefuses, learn_dialect, write_chat
from gtft.errors import UsageError

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.gguf")
_SYSTEM, _ASKED, _SAID, _NEXT = "gtftsystem", "gtftasked", "gtftsaid", "gtftnext"
# Parity is required on these. None has white space around a message: Go's templates cannot trim.
CHATS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "Which rig holds gt-a1b2?"),),
    (("system", "You are the witness."), ("user", "Report.")),
    (("user", "one"), ("assistant", "two"), ("user", "three")),
    (
        ("system", "Be short.\n\nTwo lines."),
        ("user", "naïve café 日本語 🚀 {{ .Content }} {% x %} \"q\" 'q' <b>&amp;</b> \\n"),
        ("assistant", '{"action": "nudge", "target": "gastown/nux"}'),
        ("user", "and now?"),
        ("assistant", "line one\nline two\n\n    indented"),
        ("user", "go on"),
    ),
)


@dataclass(frozen=True)
class Frame:
    """What a chat template writes around messages: (before, after) by role; ``lead``: before a chat without a system
    message; ``prompt``: after the last message. ``bos``: at the very start; left to the GGUF file, which says so."""

    bos: str
    lead: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    prompt: str

    def write(self, chat: Sequence[tuple[str, str]]) -> str:
        """A chat as the Go template writes it, from (role, content)."""
        parts = [] if chat[0][0] == "system" else [self.lead]
        for role, content in chat:
            before, after = getattr(self, role)
            parts += [before, content, after]
        return "".join([*parts, self.prompt])


def find_frame(tokenizer: Any) -> Frame:
    """The frame of a tokenizer's chat template. Raises UsageError when no frame accounts for all of `CHATS`."""
    shape = learn_dialect(tokenizer)
    bos = tokenizer.bos_token or ""
    try:
        frame = _measure(tokenizer, shape, bos)
        for chat in CHATS:
            if frame.bos + frame.write(chat) != _write(tokenizer, shape, chat):
                raise _NoFrame
    except (_NoFrame, TemplateRefuses) as e:
        raise UsageError(
            "gtft cannot translate this model's chat template for Ollama",
            why="Ollama does not run the template in the GGUF file, and what this one writes does not only depend on "
            "each message's role",
            fix="gtft model export MODEL --format gguf, then: llama-server -m FILE --jinja",
        ) from e
    return frame


def write_template(frame: Frame) -> str:
    """The frame as a Go template over Ollama's ``.Messages``. Raises UsageError for text that cannot stand in one."""
    turns = "".join(
        f'{{{{ {"if" if role == "system" else "else if"} eq $m.Role "{role}" }}}}'
        f"{before}{{{{ $m.Content }}}}{after}"
        for role, (before, after) in (
            ("system", frame.system),
            ("user", frame.user),
            ("assistant", frame.assistant),
        )
    )
    lead = f'{{{{ if and (eq $i 0) (ne $m.Role "system") }}}}{frame.lead}{{{{ end }}}}'
    _require_writable("".join([frame.lead, *frame.system, *frame.user, *frame.assistant]))
    _require_writable(frame.prompt)
    return (
        "{{ range $i, $m := .Messages }}"
        + (lead if frame.lead else "")
        + turns
        + "{{ end }}{{ end }}"
        + frame.prompt
    )


def write_modelfile(
    folder: Path,
    tokenizer: Any,
    *,
    model: str,
    adapter: str = "",
    context: int,
    stops: Sequence[str],
) -> tuple[str, ...]:
    """Write ``folder/Modelfile``; returns what a user must know.

    ``model``, ``adapter``: names of GGUF files in the folder; ``context`` in tokens; ``stops``: texts that end an answer.
    Raises UsageError when the chat template cannot be translated.
    """
    frame = find_frame(tokenizer)
    for name in filter(None, (model, adapter)):
        if not _FILE.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be named in a Modelfile", why="letters, digits, . _ -"
            )
    for stop in stops:
        _require_writable(stop)
        if '"' in stop or "\n" in stop:
            raise UsageError(f"{stop!r} cannot stop an answer in a Modelfile", why="it has a quote")
    lines = [f"FROM ./{model}"]
    if adapter:
        lines.append(f"ADAPTER ./{adapter}")
    lines.append(f'TEMPLATE """{write_template(frame)}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f"PARAMETER num_ctx {context}", "PARAMETER temperature 0"]
    write_file(folder / "Modelfile", ("\n".join(lines) + "\n").encode())
    notes = ["Ollama's template carries system, user and assistant messages; no tools"]
    if _trims(tokenizer):
        notes.append(
            "the model was trained on messages without white space around them; Ollama does not trim"
        )
    if "strftime_now" in tokenizer.chat_template:
        notes.append(
            "the chat template writes today's date; the Modelfile's is the one of training"
        )
    return tuple(notes)


class _NoFrame(Exception):
    pass


def _measure(tokenizer: Any, shape: Dialect, bos: str) -> Frame:
    asked, said, following = ("user", _ASKED), ("assistant", _SAID), ("user", _NEXT)
    one = _write(tokenizer, shape, [asked], prompt=False)
    two = _write(tokenizer, shape, [asked, said], prompt=False)
    three = _write(tokenizer, shape, [asked, said, following])
    led = _write(tokenizer, shape, [("system", _SYSTEM), asked])
    start, user_after = _cut(one, _ASKED)
    _, said_after = _cut(two, _SAID)
    between, user_before = _cut(three, _ASKED)[1], ""
    said_before, rest = _cut(between, _SAID)
    user_before = _strip(_cut(rest, _NEXT)[0], said_after)
    tail = _cut(rest, _NEXT)[1]
    system_before, after_system = _cut(led, _SYSTEM)
    start, system_before = _strip(start, bos), _strip(system_before, bos)
    if not start.endswith(user_before):
        raise _NoFrame
    system_after = _cut(after_system, _ASKED)[0]
    if not system_after.endswith(user_before):
        raise _NoFrame
    return Frame(
        bos=bos if one.startswith(bos) else "",
        lead=start.removesuffix(user_before),
        system=(system_before, system_after.removesuffix(user_before)),
        user=(user_before, user_after),
        assistant=(_strip(said_before, user_after), said_after),
        prompt=_strip(tail, user_after),
    )


def _write(
    tokenizer: Any, shape: Dialect, chat: Sequence[tuple[str, str]], prompt: bool = True
) -> str:
    messages: list[Message] = [{"role": role, "content": text} for role, text in chat]
    shaped = [shape.shape(m) for m in messages]
    return write_chat(tokenizer, shape.template, shaped, prompt=prompt)


def _cut(text: str, at: str) -> tuple[str, str]:
    if text.count(at) != 1:
        raise _NoFrame
    before, _, after = text.partition(at)
    return before, after


def _strip(text: str, start: str) -> str:
    if start and not text.startswith(start):
        raise _NoFrame
    return text.removeprefix(start)


def _trims(tokenizer: Any) -> bool:
    shape = learn_dialect(tokenizer)
    return f" {_ASKED} " not in _write(tokenizer, shape, [("user", f" {_ASKED} ")])


def _require_writable(text: str) -> None:
    """Ollama drops what does not print; quotes and braces would end the text."""
    odd = [c for c in text if not c.isprintable() and c != "\n"]
    if odd or '"""' in text or "{{" in text:
        raise UsageError(
            "this model's chat template cannot stand in a Modelfile",
            why=f"it writes {odd[0]!r}" if odd else 'it writes """ or {{',
            fix="gtft model export MODEL --format gguf, then: llama-server -m FILE --jinja",
        )
