"""How one base's chat template wants its messages: found by rendering short conversations, once per tokenizer.

Templates differ in whether the arguments of a call are an object or its JSON text, whether content is a
string or a list of parts, and in what they leave out without a word.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

# What a template that writes today's date is given: rows must not differ from one day to the next.
_DAY = date(2026, 1, 1)
_DATE_CALL = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_ASKED, _SAID, _NEXT = "gtftasked", "gtftsaid", "gtftnext"
_NAME, _KEY, _VALUE, _RESULT = "gtftname", "gtftkey", "gtftvalue", "gtftresult"

Message = dict[str, Any]


class TemplateRefuses(Exception):
    """The chat template does not render these messages. The text is the template's own."""


@dataclass(frozen=True)
class Dialect:
    """What a chat template wants, and what it does with it.

    ``parts``: content is a list of parts. ``text_arguments``: the arguments of a call are JSON text, else an
    object. ``null_content``: a turn of calls alone has content None, else "". ``drops_tools``: calls or
    results are left out. ``drops_text``: what is said beside a call is left out. ``closing``: what ends a
    conversation after its last end of turn, and is no part of the turn. ``end_of_text`` and ``end_of_calls``:
    the special token that ends a turn where the template writes it only with the message that follows.
    """

    template: str
    special: tuple[str, ...]
    parts: bool = False
    text_arguments: bool = False
    null_content: bool = False
    drops_tools: bool = False
    drops_text: bool = False
    closing: str = ""
    end_of_text: str = ""
    end_of_calls: str = ""

    def shape(self, message: Message) -> Message:
        """The message as this template reads it."""
        out = dict(message)
        content = out.get("content")
        if calls := out.get("tool_calls"):
            out["tool_calls"] = [self._shape_call(c) for c in calls]
            if self.null_content and not content:
                out["content"] = None
                return out
        if self.parts and isinstance(content, str):
            out["content"] = [{"type": "text", "text": content}]
        return out

    def escape(self, message: Message) -> Message:
        """The message with a space inside every special token that its text spells: it would end a turn early."""
        escaped: Message = _map_text(message, self._space_out)
        return escaped

    def _space_out(self, text: str) -> str:
        return self._spelled.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(s) for s in self.special if len(s) > 1) or r"(?!)")

    def _shape_call(self, call: Mapping[str, Any]) -> Message:
        function = call.get("function")
        if not isinstance(function, dict):
            return dict(call)
        arguments = function.get("arguments")
        if self.text_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        elif not self.text_arguments and isinstance(arguments, str):
            arguments = _parse_object(arguments)
        return {**call, "function": {**function, "arguments": arguments}}


def write_chat(
    tokenizer: Any,
    template: str,
    messages: Sequence[Message],
    tools: Sequence[Message] | None = None,
    *,
    prompt: bool = False,
) -> str:
    """The text of a conversation; with ``prompt``, up to where the assistant goes on. Raises TemplateRefuses."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) if tools else None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as e:
        # A template is a program of strangers: it may also add an object to a string.
        raise TemplateRefuses(" ".join(str(e).split())[:200] or type(e).__name__) from e


def learn_dialect(tokenizer: Any) -> Dialect:
    """Ask the tokenizer's chat template what it wants."""
    special = tuple(
        sorted(
            {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
            | set(tokenizer.all_special_tokens),
            key=lambda s: (-len(s), s),
        )
    )
    template = pin_date(tokenizer.chat_template)
    parts = not _shows_content(tokenizer, template, False) and _shows_content(
        tokenizer, template, True
    )
    plain = Dialect(template, special, parts)
    drops = False
    chosen = None
    for text_arguments, null_content in itertools.product((False, True), repeat=2):
        shape = Dialect(template, special, parts, text_arguments, null_content)
        shown = _shows_calls(tokenizer, shape)
        drops |= shown is False
        if shown:
            chosen = shape
            break
    best = chosen or plain
    return Dialect(
        template,
        special,
        parts,
        best.text_arguments,
        best.null_content,
        drops_tools=chosen is None and drops,
        drops_text=chosen is not None and not _shows_text_beside_calls(tokenizer, chosen),
        closing=_find_closing(tokenizer, plain),
        end_of_text=_find_end(tokenizer, plain, _talk(), None),
        end_of_calls=_find_end(tokenizer, best, _calls(""), _tools()) if chosen else "",
    )


def pin_date(template: str) -> str:
    """The template with ``strftime_now`` always giving the same day."""
    formats = sorted({f for _, f in _DATE_CALL.findall(template)})
    if not formats:
        return template
    days = "".join(
        f"{{% if format == {json.dumps(f)} %}}{_DAY.strftime(f)}{{% endif %}}" for f in formats
    )
    return f"{{% macro strftime_now(format) %}}{days}{{% endmacro %}}\n{template}"


def _shows_content(tokenizer: Any, template: str, parts: bool) -> bool:
    shape = Dialect(template, (), parts)
    try:
        text = write_chat(tokenizer, template, [shape.shape(m) for m in _talk()], prompt=True)
    except TemplateRefuses:
        return False
    # A template may loop over the letters of a string, or print a list as Python does.
    return all(s in text for s in (_ASKED, _SAID, _NEXT)) and "'text':" not in text


def _shows_calls(tokenizer: Any, shape: Dialect) -> bool | None:
    """Whether a call and its result come out as they should; None when the template refuses them."""
    try:
        text = write_chat(
            tokenizer, shape.template, [shape.shape(m) for m in _calls("")], _tools(), prompt=True
        )
    except TemplateRefuses:
        return None
    called = text.rpartition(_ASKED)[2]
    mangled = f"'{_KEY}':" in called or f'\\"{_KEY}' in called
    return not mangled and all(s in called for s in (_NAME, _KEY, _VALUE, _RESULT))


def _shows_text_beside_calls(tokenizer: Any, shape: Dialect) -> bool:
    try:
        return _SAID in write_chat(
            tokenizer, shape.template, [shape.shape(m) for m in _calls(_SAID)], _tools()
        )
    except TemplateRefuses:
        return False


def _find_closing(tokenizer: Any, shape: Dialect) -> str:
    """What follows the end of the last turn only because nothing comes after it."""
    try:
        last, going_on = (
            write_chat(tokenizer, shape.template, [shape.shape(m) for m in talk]).rpartition(_SAID)[
                2
            ]
            for talk in (_talk()[:2], _talk())
        )
    except TemplateRefuses:
        return ""
    split = re.compile("(" + "|".join(map(re.escape, shape.special)) + ")")
    pairs = itertools.zip_longest(split.split(last), split.split(going_on))
    common = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    closing = last[len(common) :]
    only_special = not "".join(p for p in split.split(closing) if p not in shape.special).strip()
    return closing if common.strip() and only_special else ""


def _find_end(
    tokenizer: Any, shape: Dialect, talk: list[Message], tools: list[Message] | None
) -> str:
    """The special token that comes after a turn that itself ends with none."""
    messages = [shape.shape(m) for m in talk]
    try:
        whole = write_chat(tokenizer, shape.template, messages[:2], tools).rstrip()
        more = write_chat(tokenizer, shape.template, messages, tools)
    except TemplateRefuses:
        return ""
    if whole.endswith(shape.special) or not more.startswith(whole):
        return ""
    rest = more[len(whole) :]
    found = next((s for s in shape.special if rest.lstrip().startswith(s)), "")
    return rest[: rest.index(found) + len(found)] if found else ""


def _talk() -> list[Message]:
    return [
        {"role": "user", "content": _ASKED},
        {"role": "assistant", "content": _SAID},
        {"role": "user", "content": _NEXT},
    ]


def _calls(said: str) -> list[Message]:
    function = {"name": _NAME, "arguments": {_KEY: _VALUE}}
    return [
        {"role": "user", "content": _ASKED},
        {
            "role": "assistant",
            "content": said,
            "tool_calls": [{"id": "gtft00001", "type": "function", "function": function}],
        },
        {"role": "tool", "name": _NAME, "tool_call_id": "gtft00001", "content": _RESULT},
    ]


def _tools() -> list[Message]:
    parameters = {"type": "object", "properties": {_KEY: {"type": "string", "description": "."}}}
    function = {"name": _NAME, "description": ".", "parameters": parameters}
    return [{"type": "function", "function": function}]


def _parse_object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text


def _map_text(value: Any, change: Any) -> Any:
    """``value`` with every string in it changed, keys of objects too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_map_text(k, change): _map_text(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_text(v, change) for v in value]
    return value
