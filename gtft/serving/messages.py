"""Anthropic's messages: requests read, answers and streams written.

Read as the harvest reads transcripts of this protocol: what an assistant thought is left out, a result of a tool is a
message of its own, texts of one message are parted by an empty line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.serving.engine import Ask, End, Token
from gtft.serving.question import Bounds, Question, Refused, Stream, Whole, describe, read_stop
from gtft.serving.speech import Called, Parter, Piece, Said, part

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# What was thought, and what only concerns the server's cache, says nothing to a model here.
_LEFT_OUT = ("thinking", "redacted_thinking")


class _Read(BaseModel):
    """What is not named (cache_control, thinking, service_tier, betas) is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Block(_Read):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = Field(default_factory=dict)
    tool_use_id: str = ""
    content: str | tuple[_Block, ...] | None = None


class _Message(_Read):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[_Block, ...]


class _Tool(_Read):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _Choice(_Read):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""


class _Metadata(_Read):
    user_id: str | None = None
    bead: str | None = None


class _OutputConfig(_Read):
    format: dict[str, Any] | None = None


class _Asked(_Read):
    model: str = ""
    messages: Annotated[tuple[_Message, ...], Field(min_length=1)]
    system: str | tuple[_Block, ...] | None = None
    # Absent when tokens are only counted.
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: _Choice | None = None
    stream: bool | None = None
    stop_sequences: tuple[str, ...] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    metadata: _Metadata | None = None
    output_config: _OutputConfig | None = None
    # The same, as it was called first.
    output_format: dict[str, Any] | None = None


class Messages:
    """``/v1/messages``."""

    name = "anthropic"

    def read(self, doc: Mapping[str, Any], bounds: Bounds) -> Question:
        try:
            asked = _Asked.model_validate(doc)
        except (ValidationError, RecursionError) as e:
            why = describe(e) if isinstance(e, ValidationError) else "nested too deeply"
            raise Refused(400, why) from e
        _refuse_what_is_not_done(asked)
        tools, must = _read_tools(asked)
        system = _read_text(asked.system, "system") if asked.system else ""
        messages = [{"role": "system", "content": system}] if system else []
        names: dict[str, str] = {}
        for m in asked.messages:
            messages += _read_message(m, names)
        if not any(m["role"] != "system" for m in messages):
            raise Refused(400, "messages: nothing is said in them")
        ask = Ask(
            model=asked.model,
            messages=tuple(messages),
            tools=tuple(tools),
            max_tokens=min(asked.max_tokens or bounds.tokens, bounds.most),
            seconds=bounds.seconds,
            temperature=asked.temperature or 0.0,
            top_p=asked.top_p or 1.0,
            stop=read_stop(asked.stop_sequences or ()),
        )
        told = asked.metadata.model_dump(exclude_none=True) if asked.metadata else {}
        return Question(ask, bool(asked.stream), told, must)

    def write(self, question: Question, whole: Whole, key: str, at: int) -> dict[str, Any]:
        said, calls, _ = part(whole.end.text)
        content: list[dict[str, Any]] = [{"type": "text", "text": said}] if said else []
        content += [_open_call(c, key, n) | {"input": c.arguments} for n, c in enumerate(calls)]
        return {
            **_open(question, key),
            "content": content,
            **_read_end(whole.end, bool(calls)),
            "usage": _write_usage(whole.end),
        }

    def stream(self, question: Question, key: str, at: int) -> Stream:
        return _MessageStream(question, key)

    def refuse(self, status: int, why: str) -> dict[str, Any]:
        kind = _KINDS.get(status, "api_error" if status >= 500 else _KINDS[400])
        return {"type": "error", "error": {"type": kind, "message": why}}


class _MessageStream:
    def __init__(self, question: Question, key: str) -> None:
        self._question, self._key = question, key
        self._parter = Parter()
        self._block = -1
        self._in_text = False
        self._calls = 0

    def begin(self) -> str:
        # How long the prompt is comes with the end.
        message = {**_open(self._question, self._key), "stop_reason": None, "stop_sequence": None}
        usage = {"input_tokens": 0, "output_tokens": 0}
        start = {"message": {**message, "content": [], "usage": usage}}
        return _event("message_start", start) + _event("ping", {})

    def add(self, token: Token) -> str:
        return self._write(self._parter.feed(token.text))

    def finish(self, end: End) -> str:
        out = self._write(self._parter.end()) + self._close()
        delta = {"delta": _read_end(end, self._calls > 0), "usage": _write_usage(end)}
        return out + _event("message_delta", delta) + _event("message_stop", {})

    def fail(self, why: str) -> str:
        doc = Messages().refuse(500, why)
        return f"event: error\ndata: {json.dumps(doc)}\n\n"

    def _write(self, pieces: Sequence[Piece]) -> str:
        out = ""
        for piece in pieces:
            if isinstance(piece, Called):
                out += self._close()
                out += self._open_block(_open_call(piece, self._key, self._calls))
                arguments = json.dumps(piece.arguments)
                out += self._delta({"type": "input_json_delta", "partial_json": arguments})
                out += _event("content_block_stop", {"index": self._block})
                self._calls += 1
                continue
            if not self._in_text:
                out += self._open_block({"type": "text", "text": ""})
                self._in_text = True
            out += self._delta({"type": "text_delta", "text": _text(piece)})
        return out

    def _open_block(self, block: Mapping[str, Any]) -> str:
        self._block += 1
        return _event("content_block_start", {"index": self._block, "content_block": block})

    def _delta(self, delta: Mapping[str, Any]) -> str:
        return _event("content_block_delta", {"index": self._block, "delta": delta})

    def _close(self) -> str:
        if not self._in_text:
            return ""
        self._in_text = False
        return _event("content_block_stop", {"index": self._block})


def _text(piece: Said) -> str:
    return piece.text


def _refuse_what_is_not_done(asked: _Asked) -> None:
    if asked.output_format or (asked.output_config and asked.output_config.format):
        raise Refused(
            400,
            "output_config.format: what is generated is not constrained here: ask for JSON in the prompt",
        )
    # Where tokens are only counted, there is nothing to go on with.
    if asked.max_tokens is not None and asked.messages[-1].role == "assistant":
        raise Refused(
            400,
            "messages: the last one is the assistant's, and an answer that is begun is not gone on with here",
        )


def _read_tools(asked: _Asked) -> tuple[list[dict[str, Any]], bool]:
    """The tools to offer, and whether one must be called. A choice narrows what is offered; nothing can force a model."""
    tools: list[dict[str, Any]] = []
    for tool in asked.tools or ():
        if tool.type not in (None, "custom"):
            raise Refused(400, f"tools: {tool.type[:40]} is run by another server, not by a model")
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        function["parameters"] = tool.input_schema or {"type": "object", "properties": {}}
        tools.append({"type": "function", "function": function})
    choice = asked.tool_choice
    if choice is None or choice.type == "auto":
        return tools, False
    if choice.type == "none":
        return [], False
    if choice.type == "tool":
        tools = [t for t in tools if t["function"]["name"] == choice.name]
    if not tools:
        raise Refused(400, "tool_choice: there is no such tool")
    return tools, True


def _read_message(message: _Message, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One message as ours: results of tools come first, then what is said. ``names``: of the calls so far."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.content:
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "tool_use" and message.role == "assistant":
            function = {"name": block.name, "arguments": block.input}
            calls.append({"id": block.id, "type": "function", "function": function})
            names[block.id] = block.name
        elif block.type == "tool_result" and message.role == "user":
            name = names.get(block.tool_use_id, "tool")
            content = _read_text(block.content or "", "tool_result")
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "name": name} | {
                "content": content
            }
        elif block.type not in _LEFT_OUT:
            raise _refuse_block(block.type, "messages")
    out: dict[str, Any] = {"role": message.role, "content": "\n\n".join(texts)}
    if calls:
        out["tool_calls"] = calls
    if texts or calls:
        yield out


def _read_text(content: str | tuple[_Block, ...], where: str) -> str:
    if isinstance(content, str):
        return content
    for block in content:
        if block.type != "text":
            raise _refuse_block(block.type, where)
    return ("\n" if where == "tool_result" else "\n\n").join(b.text for b in content)


def _refuse_block(kind: str, where: str) -> Refused:
    return Refused(400, f"{where}: a block of type {kind[:40]} cannot be read, only text and tools")


def _open(question: Question, key: str) -> dict[str, Any]:
    named = {"id": f"msg_{key}", "type": "message", "role": "assistant"}
    return {**named, "model": question.ask.model}


def _open_call(call: Called, key: str, number: int) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{key}{number}", "name": call.name, "input": {}}


def _read_end(end: End, called: bool) -> dict[str, str | None]:
    if end.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if end.stopped_by:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
    return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}


def _write_usage(end: End) -> dict[str, int]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": end.prompt_tokens, **cached, "output_tokens": end.tokens}


def _event(kind: str, doc: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **doc})}\n\n"
