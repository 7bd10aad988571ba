"""A candidate behind an OpenAI-compatible server: today's agent, or any other model that somebody serves.

What leaves this machine: the messages and tools of eval items, the model's name, the limits, and the key, to the address that the
recipe names and to no other (redirects are not followed). The key is read from the environment, and stands in no file, message or error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from gtft.errors import InputError, MissingExtra
from gtft.evals.asking.candidate import Prompt, Reply
from gtft.evals.asking.generate import make_key
from gtft.evals.heldout import write_reference
from gtft.evals.item import Item
from gtft.recipe.schema import Endpoint

PARALLEL = 4
# Further tries after a server that is busy or down, with so many seconds before the first; each next wait is twice as long.
RETRIES = 3
_FIRST_WAIT = 0.5
_LARGEST = 4 << 20
# HTTP's words for a request that cannot be answered as it is: too large, or not to be processed.
_REFUSED = (413, 422)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# What some servers refuse; asked for only to know more about the answer.
_OPTIONAL = ("logprobs", "seed")


class EndpointCandidate:
    """Asks a server, ``PARALLEL`` prompts at a time. Seed 0 asks at temperature 0, other seeds at ``temperature``.

    ``item_seconds`` is for one answer, retries included. ``environ`` holds the key. Raises InputError when it does not, or when
    the key would travel in the clear.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        max_new_tokens: int,
        item_seconds: float,
        temperature: float,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"endpoint:{endpoint.name}"
        self.most: int | None = PARALLEL
        self.key = make_key(
            [endpoint.url, endpoint.model, max_new_tokens, item_seconds, temperature]
        )
        self._endpoint, self._clock, self._sleep = endpoint, clock, sleep
        self._tokens, self._seconds, self._temperature = max_new_tokens, item_seconds, temperature
        self._secret = _find_key(endpoint, environ)
        self._client = _make_client(endpoint.url, self._secret)
        self._headers = _make_headers(self._secret)
        self._left_out: set[str] = set()
        self._limit = "max_tokens"

    def write(self, items: Sequence[Item]) -> tuple[list[Prompt], list[Item]]:
        """The server counts tokens itself: nothing is shortened, and nothing is too long before it is asked."""
        prompts = []
        for item in items:
            digest = make_key([list(map(_shape, item.messages)), _shape_tools(item.tools)])
            prompts.append(Prompt(item, item.messages, (), digest))
        return prompts, []

    def answer(self, batch: Sequence[Prompt], seed: int) -> list[Reply]:
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(pool.map(lambda prompt: self._ask(prompt, seed), batch))

    def _ask(self, prompt: Prompt, seed: int) -> Reply:
        import httpx2
        import openai

        began = self._clock()
        end, wait, tries = began + self._seconds, _FIRST_WAIT, RETRIES
        while True:
            left = end - self._clock()
            if left <= 0:
                return self._fail("timeout", "no answer within the time limit", began)
            try:
                return self._read(self._send(prompt, seed, left, end), began)
            except (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError):
                continue
            except openai.BadRequestError as e:
                if not self._adapt(str(e)):
                    return self._fail("error", f"{type(e).__name__}: {e}", began, refused=True)
                continue
            except (
                openai.RateLimitError,
                openai.InternalServerError,
                openai.APIConnectionError,
                httpx2.TransportError,
            ) as e:
                if not tries:
                    return self._fail("error", f"{type(e).__name__}: {e}", began)
                tries -= 1
                self._sleep(max(0.0, min(_read_wait(e, wait), end - self._clock())))
                wait *= 2
            except openai.OpenAIError as e:
                refused = getattr(e, "status_code", 0) in _REFUSED
                return self._fail("error", f"{type(e).__name__}: {e}", began, refused=refused)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
                # What a server answers is not trusted to have any shape.
                return self._fail("error", f"{type(e).__name__}: {e}", began)

    def _send(self, prompt: Prompt, seed: int, left: float, end: float) -> dict[str, Any]:
        """One request. Raises an error of the client, TimeoutError at ``end``, ValueError for what is no JSON object."""
        asked: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [_shape(m) for m in prompt.messages],
            "temperature": self._temperature if seed else 0,
            self._limit: self._tokens,
            "logprobs": True,
        }
        if seed:
            asked["seed"] = seed
        if prompt.item.tools:
            asked["tools"] = _shape_tools(prompt.item.tools)
        body = {k: v for k, v in asked.items() if k not in self._left_out}
        completions = self._client.chat.completions.with_streaming_response
        said = bytearray()
        with completions.create(**body, timeout=left, extra_headers=self._headers) as response:
            for piece in response.iter_bytes():
                said += piece
                if len(said) > _LARGEST:
                    raise ValueError(f"more than {_LARGEST} bytes")
                # A server that sends a byte now and then never runs into the client's own limit.
                if self._clock() > end:
                    raise TimeoutError
        found = json.loads(said)
        if not isinstance(found, dict):
            raise ValueError("the reply is not a JSON object")
        return found

    def _adapt(self, said: str) -> bool:
        """After a refused request: whether another way of asking is left."""
        if self._limit == "max_tokens" and "max_completion_tokens" in said:
            self._limit = "max_completion_tokens"
            return True
        named = [o for o in _OPTIONAL if o in said and o not in self._left_out]
        self._left_out |= set(named)
        return bool(named)

    def _read(self, doc: Mapping[str, Any], began: float) -> Reply:
        choice = doc["choices"][0]
        message, why = choice["message"], str(choice.get("finish_reason"))
        used = doc.get("usage") or {}
        text = write_answer(message)
        finish, error = ("length", "") if why == "length" else ("stop", "")
        if why == "content_filter":
            finish, error = "error", "the server's filter held the answer back"
        return Reply(
            text,
            _count(used.get("completion_tokens")),
            _count(used.get("prompt_tokens")),
            finish,
            round(self._clock() - began, 4),
            _find_confidence(choice.get("logprobs")),
            error,
            refused=bool(error),
        )

    def _fail(self, finish: str, why: str, began: float, *, refused: bool = False) -> Reply:
        told = why.replace(self._secret, "(key)") if self._secret else why
        seconds = round(self._clock() - began, 4)
        said = " ".join(told.split())[:200]
        return Reply("", 0, 0, finish, seconds, error=said, refused=refused)


def write_answer(message: Mapping[str, Any]) -> str:
    """A reply's message as our answers are written: text, then ``<tool_call>`` objects; a refusal is its text.

    Raises ValueError, TypeError or LookupError for another shape.
    """
    said = message.get("content") or message.get("refusal") or ""
    if not isinstance(said, str):
        raise TypeError("content is not a text")
    calls = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        calls.append({"function": {"name": function["name"], "arguments": arguments}})
    return write_reference({"content": said.strip(), "tool_calls": calls})


def _find_key(endpoint: Endpoint, environ: Mapping[str, str]) -> str:
    address = urlsplit(endpoint.url)
    if address.scheme not in ("http", "https") or not address.hostname or address.username:
        raise InputError(
            f"the endpoint {endpoint.name} has no address that can be asked",
            why="its url is https://HOST/… or http://HOST/…, without user and password",
            fix="correct eval.endpoints in the recipe (gtft recipe lint)",
        )
    if not endpoint.key_env:
        return ""
    key = environ.get(endpoint.key_env, "").strip()
    if not key:
        raise InputError(
            f"there is no key for the endpoint {endpoint.name}",
            why=f"the environment variable {endpoint.key_env} is empty where the eval runs",
            fix=f"export {endpoint.key_env}=…, then: gtft runs resume RUN",
        )
    if address.scheme == "http" and address.hostname not in _LOOPBACK:
        raise InputError(
            f"the key for the endpoint {endpoint.name} would travel in the clear",
            why="its url is http:// to another machine",
            fix="use https:// in eval.endpoints, or leave key_env empty",
        )
    return key


def _make_client(url: str, key: str) -> Any:
    """The official client, without what it would take from the environment besides proxies."""
    try:
        import openai
    except ImportError as e:
        raise MissingExtra(
            "endpoints are asked with the openai package, which is not installed",
            why="the core install leaves it out",
            fix="pip install 'gtft[train]' -c constraints.txt",
        ) from e
    return openai.OpenAI(
        api_key=key or "none",
        base_url=url,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )


def _make_headers(key: str) -> dict[str, Any]:
    """Instead of what the client takes from the environment of another account."""
    import openai

    absent = openai.Omit()
    return {
        "OpenAI-Organization": absent,
        "OpenAI-Project": absent,
        "Authorization": f"Bearer {key}" if key else absent,
    }


def _shape(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the protocol has it: the arguments of a call are JSON text."""
    out = dict(message)
    if calls := out.get("tool_calls"):
        out["tool_calls"] = [
            {
                "id": str(c.get("id") or f"call-{n}"),
                "type": "function",
                "function": {
                    "name": c["function"]["name"],
                    "arguments": json.dumps(c["function"]["arguments"], sort_keys=True),
                },
            }
            for n, c in enumerate(calls)
        ]
    return out


def _shape_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools whose arguments nobody recorded take any."""
    shaped = []
    for tool in tools:
        function = dict(tool.get("function", tool))
        function["parameters"] = function.get("parameters") or {"type": "object", "properties": {}}
        shaped.append({"type": "function", "function": function})
    return shaped


def _find_confidence(logprobs: Any) -> float | None:
    """The geometric mean of the tokens' probabilities."""
    listed = logprobs.get("content") if isinstance(logprobs, dict) else None
    found = [float(t["logprob"]) for t in listed or ()]
    if not found or not all(map(math.isfinite, found)):
        return None
    return round(math.exp(min(0.0, math.fsum(found) / len(found))), 6)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _read_wait(error: Any, wait: float) -> float:
    """Seconds that the server asks for, else ours."""
    response = getattr(error, "response", None)
    said = response.headers.get("retry-after", "") if response is not None else ""
    return float(said) if said.isdigit() else wait
