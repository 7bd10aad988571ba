"""The application: which path is answered by what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from gtft.serving.access import Access
from gtft.serving.chat import Chat
from gtft.serving.desk import Desk, Visit, ask_by_name, find_name, read_object, say, write_refusal
from gtft.serving.engine import Served
from gtft.serving.gateway import Gateway
from gtft.serving.messages import Messages
from gtft.serving.metrics import CONTENT_TYPE
from gtft.serving.question import Bounds, Refused, Tongue
from gtft.serving.responses import Responses

CHAT, RESPONSES, MESSAGES = Chat(), Responses(), Messages()
CHAT_PATH, RESPONSES_PATH = "/v1/chat/completions", "/v1/responses"
MESSAGES_PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"

Act = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk, gateway: Gateway, bounds: Bounds, token: str = "") -> ASGIApp:
    """``bounds``: of an answer that is asked for by the model's name. ``token``: "" = only this machine may ask."""

    def visit(tongue: Tongue, act: Act) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await Visit(desk, request, tongue).serve(act)

        return endpoint

    def answer_in(tongue: Tongue) -> Endpoint:
        async def act(v: Visit) -> Response:
            desk.find_engine()
            question = tongue.read(read_object(await v.read_body()), bounds)
            engine = await v.wait(gateway.find_engine(question.ask.model))
            return await v.answer(engine, ask_by_name(question, engine, desk.make_seed))

        return visit(tongue, act)

    async def count(v: Visit) -> Response:
        desk.find_engine()
        question = MESSAGES.read(read_object(await v.read_body()), bounds)
        engine = await v.wait(gateway.find_engine(question.ask.model))
        found = ask_by_name(question, engine, desk.make_seed)
        return v.say_count(await v.wait(engine.count_tokens(found.ask)))

    def list_models(request: Request) -> Response:
        try:
            found = desk.find_engine().list_models()
        except Refused as e:
            return write_refusal(_find_tongue(request), e.status, e.why, e.after)
        wanted = request.path_params.get("model")
        if wanted is None:
            return say(_write_models(found))
        wanted = find_name(wanted, found)
        for model in found:
            if wanted == model.name or wanted in model.aliases:
                return say(_write_model(model))
        return write_refusal(CHAT, 404, "there is no such model")

    def tell_health(request: Request) -> Response:
        routes = gateway.routes.read().routes
        # Why an engine answers nothing any more, where it can tell.
        broken = str(getattr(desk.engine, "fault", ""))
        fault = broken or gateway.routes.fault
        ready = desk.engine is not None and not desk.closing and not broken
        doc: dict[str, Any] = {"ready": ready}
        if desk.engine is not None:
            doc["models"] = [m.name for m in desk.engine.list_models()]
        # One without a model only passes on to who answered before.
        modes = [r.mode if r.model else "previous" for r in routes]
        doc["roles"] = [
            {"role": r.role, "rig": r.rig, "mode": m} for r, m in zip(routes, modes, strict=True)
        ]
        if fault:
            doc["fault"] = fault
        return say(doc, 200 if ready else 503)

    def tell_metrics(request: Request) -> Response:
        waiting = desk.engine.count_waiting() if desk.engine is not None else 0
        gauges = {"gtft_up": int(desk.engine is not None), "gtft_queue_length": waiting}
        gauges["gtft_in_flight"] = desk.in_flight
        return Response(desk.metrics.write(gauges), headers={"Content-Type": CONTENT_TYPE})

    def role_in(tongue: Tongue, path: str) -> Endpoint:
        async def act(v: Visit) -> Response:
            named = v.request.path_params
            ask = gateway.count_tokens if path == COUNT_PATH else gateway.answer
            return await ask(v, named["role"], named.get("rig", ""), path)

        return visit(tongue, act)

    def list_role_models(request: Request) -> Response:
        named = request.path_params
        try:
            route = gateway.routes.find(named["role"], named.get("rig", ""))
        except Refused as e:
            return write_refusal(_find_tongue(request), e.status, e.why, e.after)
        return say(_write_models((Served(route.model, route.adapter, route.role, "role", 0),)))

    of_role = [
        Route("/v1/models", _plain(list_role_models)),
        Route(CHAT_PATH, role_in(CHAT, CHAT_PATH), methods=["POST"]),
        Route(RESPONSES_PATH, role_in(RESPONSES, RESPONSES_PATH), methods=["POST"]),
        Route(MESSAGES_PATH, role_in(MESSAGES, MESSAGES_PATH), methods=["POST"]),
        Route(COUNT_PATH, role_in(MESSAGES, COUNT_PATH), methods=["POST"]),
    ]
    paths = [
        Route("/health", _plain(tell_health)),
        Route("/metrics", _plain(tell_metrics)),
        Route("/v1/models", _plain(list_models)),
        Route("/v1/models/{model}", _plain(list_models)),
        Route(CHAT_PATH, answer_in(CHAT), methods=["POST"]),
        Route(RESPONSES_PATH, answer_in(RESPONSES), methods=["POST"]),
        Route(MESSAGES_PATH, answer_in(MESSAGES), methods=["POST"]),
        Route(COUNT_PATH, visit(MESSAGES, count), methods=["POST"]),
        Mount("/roles/{role}", routes=of_role),
        Mount("/rigs/{rig}/roles/{role}", routes=of_role),
    ]
    faults: dict[Any, Any] = {HTTPException: _tell_missing, Exception: _tell_bug}
    app = Starlette(routes=paths, exception_handlers=faults)
    app.router.redirect_slashes = False

    def deny(request: Request, status: int, why: str) -> Response:
        desk.metrics.count("gtft_denied_total", status=str(status))
        return _refuse(request, status, why)

    return Access(app, token=token, refuse=deny)


def _plain(tell: Callable[[Request], Response]) -> Endpoint:
    """Told in the event loop: what it tells of belongs to it."""

    async def endpoint(request: Request) -> Response:
        return tell(request)

    return endpoint


def _find_tongue(request: Request) -> Tongue:
    if MESSAGES_PATH in request.url.path or "anthropic-version" in request.headers:
        return MESSAGES
    return CHAT


def _refuse(request: Request, status: int, why: str) -> Response:
    return write_refusal(_find_tongue(request), status, why)


async def _tell_missing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.headers.get("upgrade", "").lower() == "websocket":
        # The status at which codex asks over HTTP at once; at any other it tries several times more.
        return _refuse(request, 426, "answers are given over HTTP, not over a WebSocket")
    served = f"{CHAT_PATH}, {RESPONSES_PATH}, {MESSAGES_PATH}"
    why = f"there is {served}, /v1/models, /health and /metrics"
    if f"{RESPONSES_PATH}/" in request.url.path:
        why = f"no response is stored here: there is {RESPONSES_PATH}"
    return _refuse(request, error.status_code, why if error.status_code == 404 else error.detail)


async def _tell_bug(request: Request, error: Exception) -> Response:
    return _refuse(request, 500, f"a bug in gtft ({type(error).__name__})")


def _write_models(models: tuple[Served, ...]) -> dict[str, Any]:
    """One list that both protocols' clients read."""
    data = [_write_model(m) for m in models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": False, **ends}


def _write_model(model: Served) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "gtft",
        "type": "model",
        "display_name": model.name,
        "created_at": "1970-01-01T00:00:00Z",
        "role": model.role,
        "adapter": model.id,
    }
