"""OpenAI's responses, the protocol of codex and of newer clients: requests read, answers and streams written.

Nothing is kept: a client sends the whole conversation with every request. It is read as the harvest reads codex's
rollouts: what an assistant says and calls between two inputs is one message, what it thought is left out, and texts of
one message are parted by an empty line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.serving.chat import Chat
from gtft.serving.engine import Ask, End, Token
from gtft.serving.question import Bounds, Question, Refused, Stream, Whole, describe
from gtft.serving.speech import Called, Parter, Piece

# Deeper than any tool's parameters; far from where Python's own JSON gives up.
_DEEPEST = 100
# Where another server would have to act for the answer. Whatever else is no function (codex always sends some) can
# simply not be offered.
_RUN_ELSEWHERE = (
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "file_search",
    "mcp",
)
# What was thought, searched or kept aside says nothing to a model here.
_LEFT_OUT = (
    "agent_message",
    "compaction",
    "compaction_summary",
    "context_compaction",
    "ghost_snapshot",
    "image_generation_call",
    "reasoning",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
)
_CALLS = ("function_call", "custom_tool_call", "local_shell_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


class _Read(BaseModel):
    """What is not named (store, reasoning, service_tier, truncation) is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Part(_Read):
    type: str
    text: str = ""
    refusal: str = ""


class _Message(_Read):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[_Part, ...]


class _Call(_Read):
    call_id: str = ""
    name: str = "local_shell"
    arguments: str = ""
    # Of a custom tool, and of the shell that codex once had.
    input: str = ""
    action: dict[str, Any] = Field(default_factory=dict)


class _Output(_Read):
    call_id: str = ""
    output: str | tuple[_Part, ...]


class _Function(_Read):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Named(_Read):
    type: str
    name: str = ""


class _Choice(_Named):
    mode: Literal["auto", "required"] = "auto"
    tools: tuple[_Named, ...] = ()


class _Format(_Read):
    type: str


class _Text(_Read):
    format: _Format | None = None


class _Asked(_Read):
    model: str | None = None
    input: str | tuple[dict[str, Any], ...]
    instructions: str | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    text: _Text | None = None
    metadata: dict[str, str] | None = None
    include: tuple[str, ...] | None = None
    top_logprobs: int | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None


_M = TypeVar("_M", bound=_Read)


class Responses:
    """``/v1/responses``."""

    name = "openai"

    def read(self, doc: Mapping[str, Any], bounds: Bounds) -> Question:
        if _is_deep(doc):
            raise Refused(400, "the body is nested too deeply")
        asked = _take(_Asked, doc)
        _refuse_what_is_not_done(asked)
        functions, must = _read_tools(asked)
        ask = Ask(
            model=asked.model or "",
            messages=tuple(_read_messages(asked)),
            tools=tuple(_offer(f) for f in functions),
            max_tokens=min(asked.max_output_tokens or bounds.tokens, bounds.most),
            seconds=bounds.seconds,
            temperature=asked.temperature or 0.0,
            top_p=asked.top_p or 1.0,
        )
        metadata = asked.metadata or {}
        echo = {
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": metadata,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "tool_choice": doc.get("tool_choice") or "auto",
            "tools": [{"type": "function", **_spell(f)} for f in functions],
        }
        return Question(ask, bool(asked.stream), metadata, must, echo=echo)

    def write(self, question: Question, whole: Whole, key: str, at: int) -> dict[str, Any]:
        parter = Parter()
        writer = _ResponseStream(question, key, at)
        writer.write([*parter.feed(whole.end.text), *parter.end()])
        writer.close(whole.end)
        return writer.tell(whole.end)

    def stream(self, question: Question, key: str, at: int) -> Stream:
        return _ResponseStream(question, key, at)

    def refuse(self, status: int, why: str) -> dict[str, Any]:
        return Chat().refuse(status, why)


class _ResponseStream:
    """Events of one answer. ``_items``: what is said and called so far, the last one open while ``_open``."""

    def __init__(self, question: Question, key: str, at: int) -> None:
        self._question, self._key, self._at = question, key, at
        self._parter = Parter()
        self._items: list[dict[str, Any]] = []
        self._open = False
        self._events = 0

    def begin(self) -> str:
        response = {"response": self._head("in_progress")}
        return self._event("response.created", response) + self._event(
            "response.in_progress", response
        )

    def add(self, token: Token) -> str:
        return self.write(self._parter.feed(token.text))

    def finish(self, end: End) -> str:
        out = self.write(self._parter.end()) + self.close(end)
        response = self.tell(end)
        return out + self._event(f"response.{response['status']}", {"response": response})

    def fail(self, why: str) -> str:
        error = {"code": "server_error", "message": why}
        return self._event(
            "response.failed", {"response": {**self._head("failed"), "error": error}}
        )

    def tell(self, end: End) -> dict[str, Any]:
        """The response when it is over."""
        cut = end.finish == "length"
        out = self._head("incomplete" if cut else "completed")
        out["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        return {**out, "usage": _write_usage(end)}

    def write(self, pieces: Sequence[Piece]) -> str:
        out = ""
        for piece in pieces:
            if isinstance(piece, Called):
                out += self._close() + self._call(piece)
                continue
            text = piece.text
            if not self._open:
                text = text.lstrip()
                out += self._begin_message()
            self._items[-1]["content"][0]["text"] += text
            delta = {**self._place(), "delta": text, "logprobs": []}
            out += self._event("response.output_text.delta", delta)
        return out

    def close(self, end: End) -> str:
        """An answer has at least one item: many clients read the first one without a look."""
        out = "" if self._items else self._begin_message()
        return out + self._close("incomplete" if end.finish == "length" else "completed")

    def _begin_message(self) -> str:
        item = {"id": f"msg_{self._key}{len(self._items)}", "type": "message", "role": "assistant"}
        item |= {"status": "in_progress"}
        out = self._add({**item, "content": []})
        self._items[-1]["content"] = [{"type": "output_text", "text": "", "annotations": []}]
        self._open = True
        part = {"part": self._items[-1]["content"][0]}
        return out + self._event("response.content_part.added", {**self._place(), **part})

    def _close(self, status: str = "completed") -> str:
        """The end of a message, where one is open."""
        if not self._open:
            return ""
        self._open = False
        item = self._items[-1]
        item["status"] = status
        part = item["content"][0]
        done = {**self._place(), "text": part["text"], "logprobs": []}
        out = self._event("response.output_text.done", done)
        out += self._event("response.content_part.done", {**self._place(), "part": part})
        return out + self._done()

    def _call(self, call: Called) -> str:
        number, arguments = len(self._items), json.dumps(call.arguments)
        item = {"id": f"fc_{self._key}{number}", "type": "function_call", "status": "in_progress"}
        item |= {"call_id": f"call_{self._key}{number}", "name": call.name, "arguments": ""}
        out = self._add(item)
        kind = "response.function_call_arguments"
        place = {"item_id": item["id"], "output_index": number}
        out += self._event(f"{kind}.delta", {**place, "delta": arguments})
        done = {**place, "name": call.name, "arguments": arguments}
        out += self._event(f"{kind}.done", done)
        item |= {"status": "completed", "arguments": arguments}
        return out + self._done()

    def _add(self, item: dict[str, Any]) -> str:
        self._items.append(item)
        place = {"output_index": len(self._items) - 1}
        return self._event("response.output_item.added", {**place, "item": item})

    def _done(self) -> str:
        place = {"output_index": len(self._items) - 1}
        return self._event("response.output_item.done", {**place, "item": self._items[-1]})

    def _place(self) -> dict[str, Any]:
        number = len(self._items) - 1
        return {"item_id": self._items[-1]["id"], "output_index": number, "content_index": 0}

    def _event(self, kind: str, doc: Mapping[str, Any]) -> str:
        told = {"type": kind, "sequence_number": self._events, **doc}
        self._events += 1
        return f"event: {kind}\ndata: {json.dumps(told)}\n\n"

    def _head(self, status: str) -> dict[str, Any]:
        ask = self._question.ask
        return {
            "id": f"resp_{self._key}",
            "object": "response",
            "created_at": self._at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": ask.model,
            "output": list(self._items),
            "previous_response_id": None,
            "store": False,
            "temperature": ask.temperature,
            "text": {"format": {"type": "text"}},
            "top_p": ask.top_p,
            "truncation": "auto",
            "usage": None,
            **self._question.echo,
        }


def _take(model: type[_M], value: Mapping[str, Any], where: str = "") -> _M:
    """Raises Refused."""
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise Refused(400, where + describe(e)) from e


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inner = [v.values() if isinstance(v, Mapping) else v for v in level]
        level = [c for v in inner for c in v if isinstance(c, Mapping | list)]
        if not level:
            return False
    return True


def _refuse_what_is_not_done(asked: _Asked) -> None:
    stored = "nothing is stored here: send the whole conversation as input"
    told = asked.text.format if asked.text else None
    logprobs = "message.output_text.logprobs" in (asked.include or ())
    refused = {
        f"previous_response_id: {stored}": asked.previous_response_id,
        f"conversation: {stored}": asked.conversation,
        "prompt: no prompts are stored here": asked.prompt,
        "background: an answer is waited for": asked.background,
        "text.format: what is generated is not constrained here: ask for JSON in the prompt": (
            told is not None and told.type != "text"
        ),
        "include: logprobs are told by chat completions": logprobs,
        "top_logprobs: logprobs are told by chat completions": asked.top_logprobs,
    }
    for why, is_refused in refused.items():
        if is_refused:
            raise Refused(400, why)


def _read_tools(asked: _Asked) -> tuple[list[_Function], bool]:
    """The functions to offer, and whether one must be called. A choice narrows what is offered; nothing can force a
    model."""
    functions: list[_Function] = []
    for n, tool in enumerate(asked.tools or ()):
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise Refused(400, f"tools.{n}.type: names no kind of tool")
        if kind in _RUN_ELSEWHERE:
            raise Refused(400, f"tools: {kind} is run by another server, not by a model")
        if kind == "function":
            functions.append(_take(_Function, tool, f"tools.{n}."))
    choice = asked.tool_choice
    if choice in (None, "auto"):
        return functions, False
    if choice == "none":
        return [], False
    must = True
    if isinstance(choice, _Choice):
        if choice.type not in ("function", "allowed_tools"):
            raise Refused(400, f"tool_choice: {choice.type[:40]} is not offered, only functions")
        several = choice.type == "allowed_tools"
        must = not several or choice.mode == "required"
        names = {t.name for t in choice.tools if t.type == "function"} if several else {choice.name}
        functions = [f for f in functions if f.name in names]
    elif choice != "required":
        raise Refused(400, "tool_choice: none, auto, required, or functions")
    if must and not functions:
        raise Refused(400, "tool_choice: there is no such function")
    return functions, must


def _offer(function: _Function) -> dict[str, Any]:
    found = {k: v for k, v in _spell(function).items() if k != "strict" and v is not None}
    return {"type": "function", "function": found}


def _spell(function: _Function) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "strict": function.strict,
    }


def _read_messages(asked: _Asked) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if asked.instructions:
        out.append({"role": "system", "content": [asked.instructions]})
    if isinstance(asked.input, str):
        out.append({"role": "user", "content": [asked.input]})
    else:
        names: dict[str, str] = {}
        for n, item in enumerate(asked.input):
            for message in _read_item(item, f"input.{n}", names):
                _join(out, message)
    if not any(m["role"] != "system" for m in out):
        raise Refused(400, "input: nothing is said in it")
    return [{**m, "content": "\n\n".join(t for t in m["content"] if t)} for m in out]


def _read_item(
    item: Mapping[str, Any], where: str, names: dict[str, str]
) -> Iterable[dict[str, Any]]:
    """What an item says, as a message of ours with a list of texts. ``names``: of the calls so far."""
    kind = item.get("type", "message")
    if kind == "message":
        said = _take(_Message, item, f"{where}.")
        role = "system" if said.role == "developer" else said.role
        return [{"role": role, "content": [_read_text(said.content, where, "\n\n")]}]
    if kind in _CALLS:
        call = _take(_Call, item, f"{where}.")
        names[call.call_id] = call.name
        function = {"name": call.name, "arguments": _read_arguments(kind, call, where)}
        called = {"id": call.call_id, "type": "function", "function": function}
        return [{"role": "assistant", "content": [], "tool_calls": [called]}]
    if kind in _OUTPUTS:
        result = _take(_Output, item, f"{where}.")
        told = {"tool_call_id": result.call_id, "name": names.get(result.call_id, "tool")}
        return [{"role": "tool", **told, "content": [_read_text(result.output, where, "\n")]}]
    if kind in _LEFT_OUT:
        return []
    named = kind[:40] if isinstance(kind, str) else "unknown type"
    raise Refused(400, f"{where}: {named} cannot be read, only messages and calls of functions")


def _join(messages: list[dict[str, Any]], new: dict[str, Any]) -> None:
    """Add a message. What an assistant says and calls in a row is one; so is what stands at the beginning for the
    system, of which one message is never left out."""
    last = messages[-1] if messages else {}
    head = new["role"] == "system" and len(messages) == 1
    if last.get("role") != new["role"] or not (head or new["role"] == "assistant"):
        messages.append(new)
        return
    last["content"] += new["content"]
    if "tool_calls" in new:
        last.setdefault("tool_calls", []).extend(new["tool_calls"])


def _read_text(content: str | tuple[_Part, ...], where: str, between: str) -> str:
    if isinstance(content, str):
        return content
    for p in content:
        if p.type not in ("input_text", "output_text", "text", "refusal"):
            raise Refused(400, f"{where}: {p.type[:40]} cannot be read, only text")
    return between.join(p.text or p.refusal for p in content)


def _read_arguments(kind: str, call: _Call, where: str) -> dict[str, Any]:
    if kind == "custom_tool_call":
        return {"input": call.input}
    if kind == "local_shell_call":
        return call.action
    try:
        arguments = json.loads(call.arguments or "{}")
        # Half a character can be written in JSON and in nothing else.
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"{where}: the arguments of a call are not JSON") from e
    if not isinstance(arguments, dict) or _is_deep(arguments):
        raise Refused(400, f"{where}: the arguments of a call are no JSON object of use")
    return arguments


def _write_usage(end: End) -> dict[str, Any]:
    return {
        "input_tokens": end.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": end.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": end.prompt_tokens + end.tokens,
    }
