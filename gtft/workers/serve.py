"""The serve worker: ``python -m gtft.workers.serve FILE``. An adapter and its base behind an OpenAI-compatible chat endpoint.

``FILE`` is JSON: ``adapter`` (folder of the artifact), ``workspace``, ``root``, ``artifacts``, and optionally ``port`` (0 = any free
one) and ``max_new_tokens``. It listens on this machine only, without a token, and answers for the models ``tuned`` and ``base``, one
request at a time. Its first line on stdout is JSON: ``url``, ``models``, or ``error``. It ends by SIGTERM, or when stdin closes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gtft.artifact import verify_artifact
from gtft.errors import GtftError, UsageError
from gtft.evals.answer import BadAnswer, parse_answer
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.load import Candidates, find_base, find_role, load_candidates, read_base
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.item import CheckSpec, Item
from gtft.training.environment import prepare_environment, require_training_extra

MODELS = ("tuned", "base")
HOST = "127.0.0.1"
_LARGEST = 4 << 20
_SECONDS = 600.0


class Refused(Exception):
    """The request cannot be answered; the message says why (HTTP 400)."""


class Speaker:
    """Answers chat requests with one loaded model, one at a time."""

    def __init__(self, loaded: Candidates, max_new_tokens: int) -> None:
        self._loaded, self._most = loaded, max_new_tokens
        self._lock = threading.Lock()

    def complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The body of ``/v1/chat/completions``. Raises Refused."""
        model = asked.get("model", MODELS[0])
        if model not in MODELS or asked.get("stream"):
            raise Refused(f"models are {', '.join(MODELS)}; answers are not streamed here")
        try:
            temperature, seed = float(asked.get("temperature") or 0), int(asked.get("seed") or 1)
            limit = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or self._most)
            messages = tuple(_read_message(m) for m in asked["messages"])
            tools = tuple(asked.get("tools") or ())
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise Refused(f"not a chat request: {type(e).__name__} {e}"[:200]) from e
        item = Item("", "", "", None, "", "", messages, tools, CheckSpec("", {}), "")
        with self._lock:
            candidate = LocalCandidate(
                model,
                self._loaded,
                as_base=model == "base",
                limits=Limits(limit, _SECONDS),
                clock=time.monotonic,
                temperature=temperature or 1.0,
            )
            prompts, _ = candidate.write([item])
            if not prompts or limit < 1:
                most = self._loaded.context
                raise Refused(f"the prompt and {limit} tokens do not fit {most} tokens")
            (reply,) = candidate.answer(prompts, seed if temperature > 0 else 0)
        message = _write_message(reply.text)
        finish = "tool_calls" if "tool_calls" in message else "stop"
        choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
        choice["finish_reason"] = finish if reply.finish == "stop" else "length"
        if asked.get("logprobs") and reply.confidence:
            # The mean over all tokens, as the logarithm of one: single tokens are not kept.
            choice["logprobs"] = {"content": [{"token": "", "logprob": math.log(reply.confidence)}]}
        return {
            "id": f"chatcmpl-{prompts[0].sha256[:16]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.tokens,
                "total_tokens": reply.prompt_tokens + reply.tokens,
            },
        }


def make_server(speaker: Speaker, port: int) -> ThreadingHTTPServer:
    """Bound to loopback; whoever calls starts it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            if self.path.rstrip("/") == "/v1/models":
                listed = [{"id": m, "object": "model", "owned_by": "gtft"} for m in MODELS]
                self._say(200, {"object": "list", "data": listed})
            else:
                self._refuse(404, "there is /v1/models and /v1/chat/completions")

        def do_POST(self) -> None:
            # A page in a browser can send neither this host name nor this type without asking first.
            host = self.headers.get("Host", "").rpartition(":")[0]
            kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
            size = self.headers.get("Content-Length", "")
            if self.path.rstrip("/") != "/v1/chat/completions":
                return self._refuse(404, "there is /v1/models and /v1/chat/completions")
            if host not in (HOST, "localhost") or kind != "application/json":
                return self._refuse(403, "ask from this machine, with application/json")
            if not size.isdigit() or int(size) > _LARGEST:
                return self._refuse(413, f"at most {_LARGEST} bytes")
            try:
                asked = json.loads(self.rfile.read(int(size)))
                if not isinstance(asked, dict):
                    raise Refused("not a JSON object")
                self._say(200, speaker.complete(asked))
            except (Refused, ValueError, RecursionError) as e:
                self._refuse(400, str(e)[:300])

        def _refuse(self, code: int, why: str) -> None:
            self.close_connection = True
            self._say(code, {"error": {"message": why, "type": "invalid_request_error"}})

        def _say(self, code: int, doc: dict[str, Any]) -> None:
            body = json.dumps(doc).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: prompts are nobody else's business."""

    return ThreadingHTTPServer((HOST, port), Handler)


def load(asked: dict[str, Any]) -> Candidates:
    """Adapter and base, hashed again. Raises EvidenceError, BaseMissing or MissingExtra."""
    require_training_extra()
    prepare_environment(os.environ, offline=True)
    artifacts = Path(asked["artifacts"])
    adapter = verify_artifact(Path(asked["adapter"]), kind="adapter")
    record = read_base(adapter)
    folder = find_base(record, Path(asked["workspace"]), Path(asked["root"]))
    return load_candidates(adapter, record, folder, find_role(record, artifacts))


def _read_message(message: dict[str, Any]) -> dict[str, Any]:
    """The protocol's message as ours: arguments of a call are an object, content is one text."""
    out = dict(message)
    if isinstance(out.get("content"), list):
        out["content"] = "".join(str(p["text"]) for p in out["content"])
    for call in out.get("tool_calls") or ():
        function = call["function"]
        if isinstance(function["arguments"], str):
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return out


def _write_message(text: str) -> dict[str, Any]:
    """An answer as the protocol has it; one whose calls are damaged stays text."""
    try:
        answer = parse_answer(text)
    except BadAnswer:
        return {"role": "assistant", "content": text}
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text if answer.calls else text,
    }
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call-{n}",
                "type": "function",
                "function": {"name": c.name, "arguments": json.dumps(c.arguments)},
            }
            for n, c in enumerate(answer.calls)
        ]
    return message


def main() -> None:
    try:
        asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
        server = make_server(
            Speaker(load(asked), int(asked.get("max_new_tokens", 512))), int(asked.get("port", 0))
        )
    except (GtftError, OSError, ValueError, LookupError) as e:
        error = e if isinstance(e, GtftError) else UsageError("it cannot be served", why=repr(e))
        sys.stdout.write(json.dumps({"error": error.as_dict()}) + "\n")
        sys.exit(error.exit_code)
    url = f"http://{HOST}:{server.server_address[1]}/v1"
    sys.stdout.write(json.dumps({"url": url, "models": list(MODELS)}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # Whoever started this is gone when stdin ends.
    sys.stdin.buffer.read()
    server.shutdown()


if __name__ == "__main__":
    main()
