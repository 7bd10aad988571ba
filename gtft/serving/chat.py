"""OpenAI's chat completions: requests read, answers and streams written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.serving.engine import Ask, End, Token
from gtft.serving.question import Bounds, Question, Refused, Stream, Whole, describe, read_stop
from gtft.serving.speech import Called, Parter, Piece, Said, part

_TOP = 20
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class _Read(BaseModel):
    """What is not named is ignored, as every server of this protocol does; what would change the answer is named."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Part(_Read):
    type: str
    text: str | None = None
    refusal: str | None = None


class _CallFunction(_Read):
    name: str
    arguments: str | dict[str, Any] = ""


class _Call(_Read):
    id: str = ""
    type: str = "function"
    function: _CallFunction


class _Message(_Read):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[_Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[_Call, ...] | None = None
    tool_call_id: str | None = None


class _Function(_Read):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(_Read):
    type: str
    function: _Function | None = None


class _Named(_Read):
    name: str


class _Choice(_Read):
    type: str
    function: _Named | None = None


class _StreamOptions(_Read):
    include_usage: bool | None = None


class _Format(_Read):
    type: str


_Tokens = Annotated[int, Field(ge=1)]


class _Asked(_Read):
    model: str | None = None
    messages: Annotated[tuple[_Message, ...], Field(min_length=1)]
    tools: tuple[_Tool, ...] | None = None
    tool_choice: str | _Choice | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=_TOP)] | None = None
    response_format: _Format | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    functions: tuple[Any, ...] | None = None
    modalities: tuple[str, ...] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None


class Chat:
    """``/v1/chat/completions``."""

    name = "openai"

    def read(self, doc: Mapping[str, Any], bounds: Bounds) -> Question:
        try:
            asked = _Asked.model_validate(doc)
        except ValidationError as e:
            raise Refused(400, describe(e)) from e
        _refuse_what_is_not_done(asked)
        tools, must = _read_tools(asked)
        tokens = asked.max_completion_tokens or asked.max_tokens or bounds.tokens
        stop = (asked.stop,) if isinstance(asked.stop, str) else asked.stop or ()
        ask = Ask(
            model=asked.model or "",
            messages=tuple(_read_messages(asked.messages)),
            tools=tuple(tools),
            max_tokens=min(tokens, bounds.most),
            seconds=bounds.seconds,
            temperature=asked.temperature or 0.0,
            top_p=asked.top_p or 1.0,
            seed=asked.seed or 0,
            stop=read_stop(stop),
            top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        )
        metadata = {**(asked.metadata or {}), **({"user_id": asked.user} if asked.user else {})}
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        seeded = asked.seed is not None
        return Question(ask, bool(asked.stream), metadata, must, usage, seeded=seeded)

    def write(self, question: Question, whole: Whole, key: str, at: int) -> dict[str, Any]:
        said, calls, _ = part(whole.end.text)
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if calls:
            message["content"] = said or None
            message["tool_calls"] = [_write_call(c, key, n) for n, c in enumerate(calls)]
        choice = {"index": 0, "message": message, "logprobs": None}
        choice["finish_reason"] = _finish(whole.end, bool(calls))
        if question.ask.top_logprobs is not None:
            choice["logprobs"] = _write_logprobs(whole.tokens)
        return {
            "id": f"chatcmpl-{key}",
            "object": "chat.completion",
            "created": at,
            "model": question.ask.model,
            "choices": [choice],
            "usage": _write_usage(whole.end),
        }

    def stream(self, question: Question, key: str, at: int) -> Stream:
        return _ChatStream(question, key, at)

    def refuse(self, status: int, why: str) -> dict[str, Any]:
        code = "model_not_found" if status == 404 else None
        kind = _KINDS.get(status, "server_error" if status >= 500 else _KINDS[400])
        return {"error": {"message": why, "type": kind, "param": None, "code": code}}


class _ChatStream:
    def __init__(self, question: Question, key: str, at: int) -> None:
        self._question, self._key, self._at = question, key, at
        self._parter = Parter()
        self._calls = 0

    def begin(self) -> str:
        return self._chunk({"role": "assistant", "content": ""})

    def add(self, token: Token) -> str:
        logprobs = None
        if self._question.ask.top_logprobs is not None:
            logprobs = _write_logprobs([token])
        return self._write(self._parter.feed(token.text), logprobs)

    def finish(self, end: End) -> str:
        out = self._write(self._parter.end(), None)
        out += self._chunk({}, finish=_finish(end, self._calls > 0))
        if self._question.include_usage:
            out += _event({**self._head(), "choices": [], "usage": _write_usage(end)})
        return out + "data: [DONE]\n\n"

    def fail(self, why: str) -> str:
        return _event(Chat().refuse(500, why))

    def _write(self, pieces: Sequence[Piece], logprobs: dict[str, Any] | None) -> str:
        deltas: list[dict[str, Any]] = []
        for piece in pieces:
            if isinstance(piece, Said):
                deltas.append({"content": piece.text})
            else:
                call = {"index": self._calls, **_write_call(piece, self._key, self._calls)}
                deltas.append({"tool_calls": [call]})
                self._calls += 1
        if not deltas and logprobs:
            deltas = [{"content": ""}]
        chunks = [self._chunk(d, logprobs if n == 0 else None) for n, d in enumerate(deltas)]
        return "".join(chunks)

    def _chunk(
        self,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        usage = {"usage": None} if self._question.include_usage else {}
        return _event({**self._head(), "choices": [choice], **usage})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._key}",
            "object": "chat.completion.chunk",
            "created": self._at,
            "model": self._question.ask.model,
        }


def _refuse_what_is_not_done(asked: _Asked) -> None:
    refused = {
        "n": asked.n not in (None, 1),
        "response_format": asked.response_format is not None
        and asked.response_format.type != "text",
        "frequency_penalty": bool(asked.frequency_penalty),
        "presence_penalty": bool(asked.presence_penalty),
        "logit_bias": bool(asked.logit_bias),
        "functions": bool(asked.functions),
        "modalities": asked.modalities is not None and asked.modalities != ("text",),
    }
    reasons = {
        "n": "one answer is given to a request",
        "response_format": "what is generated is not constrained here: ask for JSON in the prompt",
        "functions": "functions are asked for as tools",
        "modalities": "there is text only",
    }
    for key, is_refused in refused.items():
        if is_refused:
            raise Refused(400, f"{key}: {reasons.get(key, 'not supported here')}")


def _read_tools(asked: _Asked) -> tuple[list[dict[str, Any]], bool]:
    """The tools to offer, and whether one must be called. A choice narrows what is offered; nothing can force a model."""
    tools: list[dict[str, Any]] = []
    for tool in asked.tools or ():
        if tool.type != "function" or tool.function is None:
            raise Refused(400, f"tools: {tool.type[:40]} is not a function")
        tools.append({"type": "function", "function": tool.function.model_dump(exclude_none=True)})
    choice = asked.tool_choice
    if isinstance(choice, _Choice):
        if choice.type != "function" or choice.function is None:
            raise Refused(400, "tool_choice: none, auto, required, or one function")
        tools = [t for t in tools if t["function"]["name"] == choice.function.name]
        if not tools:
            raise Refused(400, "tool_choice: names a function that is not among the tools")
        return tools, True
    if choice not in (None, "none", "auto", "required"):
        raise Refused(400, "tool_choice: none, auto, required, or one function")
    return ([] if choice == "none" else tools), choice == "required"


def _read_messages(messages: Iterable[_Message]) -> Iterable[dict[str, Any]]:
    names: dict[str, str] = {}
    for m in messages:
        out: dict[str, Any] = {"role": "system" if m.role == "developer" else m.role}
        out["content"] = _read_content(m.content)
        if m.tool_calls:
            if m.role != "assistant":
                raise Refused(400, "messages: only an assistant calls tools")
            out["tool_calls"] = [_read_call(c) for c in m.tool_calls]
            names |= {c.id: c.function.name for c in m.tool_calls}
        if m.role == "tool":
            out["tool_call_id"] = m.tool_call_id or ""
            out["name"] = m.name or names.get(m.tool_call_id or "", "tool")
        yield out


def _read_content(content: str | tuple[_Part, ...] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for p in content:
        if p.type not in ("text", "refusal", "input_text"):
            raise Refused(400, f"messages: content of type {p.type[:40]} cannot be read, only text")
    return "".join(p.text or p.refusal or "" for p in content)


def _read_call(call: _Call) -> dict[str, Any]:
    arguments = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
            # Half a character can be written in JSON and in nothing else.
            json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as e:
            raise Refused(400, "messages: the arguments of a call are not JSON") from e
    if not isinstance(arguments, dict):
        raise Refused(400, "messages: the arguments of a call are no JSON object")
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _write_call(call: Called, key: str, number: int) -> dict[str, Any]:
    arguments = json.dumps(call.arguments)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{key}{number}", "type": "function", "function": function}


def _write_logprobs(tokens: Iterable[Token]) -> dict[str, Any] | None:
    content = [
        {**_write_token(t.text, t.logprob), "top_logprobs": [_write_token(*top) for top in t.top]}
        for t in tokens
        if t.logprob is not None
    ]
    return {"content": content, "refusal": None} if content else None


def _write_token(text: str, logprob: float) -> dict[str, Any]:
    # A token may be part of a character: what cannot be told in UTF-8 is replaced, as in its text.
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def _write_usage(end: End) -> dict[str, int]:
    total = end.prompt_tokens + end.tokens
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.tokens,
        "total_tokens": total,
    }


def _finish(end: End, called: bool) -> str:
    if end.finish == "length":
        return "length"
    return "tool_calls" if called else "stop"


def _event(doc: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(doc)}\n\n"
