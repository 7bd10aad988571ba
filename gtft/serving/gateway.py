"""Roles of a town: the model answers, and where it fails or abstains, who answered before.

To escalate is a decision of the model, and is acted on; it abstains when it asks, abstains, or escalates because
something is missing (`gtft.evals.checks.abstain.declines`).

What a route asks for is generated whole before any of it is sent, so that a client never has the beginning of one answer
and the end of another. Answers are greedy, as they were when the model was evaluated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.responses import Response

from gtft.artifact import hash_json
from gtft.errors import GtftError
from gtft.evals.checks.abstain import declines, escalates
from gtft.service import AnswerLine, Route, Why, add_answer, stays_with_previous
from gtft.serving.desk import Desk, Visit, check_end, read_object, read_refusal
from gtft.serving.engine import Busy, Engine, Unanswerable
from gtft.serving.fault import find_fault
from gtft.serving.previous import Previous
from gtft.serving.question import Bounds, Question, Refused, Tongue, Whole, collect
from gtft.serving.routes import RoutesFile
from gtft.serving.subject import find_bead, find_session

# Of a request that may be passed on: as much as the largest that agents send.
MOST_PASSED = 32 << 20
# On a request of gtft's own that only asks whether the model answers: it is neither recorded nor passed on.
PROBE_HEADER = "x-gtft-probe"
# After the time of an answer, for an engine that keeps no time.
_GRACE_S = 2.0
# As many tokens as any client asks for.
_ANY = 1 << 30

# Loads the model of a route that is not served yet. Raises GtftError.
Admit = Callable[[Route], Awaitable[None]]


@dataclass(frozen=True)
class Tried:
    """What the model made of a request: an answer, or ``why`` it is none to act on. ``refusal``: what to say when nobody
    else is there to ask."""

    why: Why = ""
    cause: str = ""
    question: Question | None = None
    whole: Whole | None = None
    refusal: Refused | None = None


class Gateway:
    """Follows the routes of a workspace. ``admit`` loads what a new deployment brings."""

    def __init__(
        self, desk: Desk, workspace: Path | None, previous: Previous, admit: Admit
    ) -> None:
        self.routes = RoutesFile(workspace)
        self._desk, self._workspace, self._previous, self._admit = desk, workspace, previous, admit
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def answer(self, visit: Visit, role: str, rig: str, path: str) -> Response:
        """Who is set to answer for a role, in the client's protocol. Raises Refused."""
        route = self.routes.find(role, rig)
        body = await visit.read_body(MOST_PASSED)
        headers = visit.request.headers
        probed = PROBE_HEADER in headers
        if route.mode != "live" and not probed:
            return await self._pass_on(visit, route, path, body)
        doc = read_object(body)
        if probed:
            question = self._read(visit.tongue, doc, route)
            engine = await visit.wait(self._find_engine(route))
            return await visit.answer(engine, question)
        bead = find_bead(headers, doc)
        line = AnswerLine(
            at_us=int(self._desk.now() * 1e6),
            deployment=route.deployment,
            mode=route.mode,
            took="model",
            bead=bead,
            session=find_session(headers, doc),
        )
        if route.fallback and stays_with_previous(bead, route.ab_share):
            self._desk.metrics.count("gtft_fallbacks_total", role=route.role, cause="ab")
            return await self._pass_on(
                visit, route, path, body, line.model_copy(update={"why": "ab"})
            )
        tried = await visit.wait(self._try(visit.tongue, doc, route))
        line = self._note(line, tried, visit)
        # An abstention with nobody else to ask is an answer too.
        holds = not tried.why or (tried.why == "abstained" and route.fallback is None)
        if holds and tried.whole is not None and tried.question is not None:
            self._record(line.model_copy(update={"took": "model", "why": ""}))
            return visit.tell(tried.question, tried.whole)
        self._desk.metrics.count("gtft_fallbacks_total", role=route.role, cause=tried.cause)
        if route.fallback is None:
            self._record(line.model_copy(update={"took": "nobody"}))
            raise tried.refusal or Refused(503, "the model has no answer")
        return await self._pass_on(visit, route, path, body, line)

    async def count_tokens(self, visit: Visit, role: str, rig: str, path: str) -> Response:
        """The model's own count where it answers; else the count of who answers."""
        route = self.routes.find(role, rig)
        body = await visit.read_body(MOST_PASSED)
        if route.mode != "live":
            return await self._pass_on(visit, route, path, body)
        counted = await visit.wait(self._try_count(visit.tongue, body, route))
        if isinstance(counted, int):
            return visit.say_count(counted)
        if route.fallback is None and counted.refusal is not None:
            raise counted.refusal
        return await self._pass_on(visit, route, path, body)

    async def find_engine(self, model: str) -> Engine:
        """The engine, with the model of that name in it where a route names one that is not served yet. Raises Refused."""
        engine = self._desk.find_engine()
        known = {n for m in engine.list_models() for n in (m.name, *m.aliases)}
        if model and model not in known:
            for route in self.routes.read().routes:
                if route.model == model:
                    return await self._find_engine(route)
        return engine

    def _read(self, tongue: Tongue, doc: dict[str, object], route: Route) -> Question:
        question = tongue.read(doc, Bounds(_ANY, _ANY, route.seconds))
        wanted = question.ask.max_tokens
        ask = replace(question.ask, model=route.model, temperature=0.0, top_p=1.0)
        ask = replace(ask, max_tokens=min(wanted, route.max_new_tokens))
        return replace(question, ask=ask, wanted=wanted)

    async def _try(self, tongue: Tongue, doc: dict[str, object], route: Route) -> Tried:
        question: Question | None = None
        try:
            question = self._read(tongue, doc, route)
            async with asyncio.timeout(route.seconds + _GRACE_S):
                engine = await self._find_engine(route)
                whole = await collect(engine.answer(question.ask))
            check_end(whole.end)
        except Exception as e:  # noqa: BLE001 - whatever the model broke, the previous agent answers
            return replace(_read_failure(e), question=question)
        end = whole.end
        fault = find_fault(
            end.text,
            end.finish,
            end.tokens,
            offered={t["function"]["name"] for t in question.ask.tools},
            wanted=question.wanted,
            must_call=question.must_call,
        )
        if fault:
            return Tried("error", "damaged", question, whole, Refused(500, fault))
        if declines(end.text):
            return Tried("abstained", "abstained", question, whole)
        return Tried(question=question, whole=whole)

    async def _try_count(self, tongue: Tongue, body: bytes, route: Route) -> int | Tried:
        try:
            question = self._read(tongue, read_object(body), route)
            async with asyncio.timeout(route.seconds + _GRACE_S):
                engine = await self._find_engine(route)
                return await engine.count_tokens(question.ask)
        except Exception as e:  # noqa: BLE001 - whatever the model broke, the previous agent answers
            return _read_failure(e)

    async def _find_engine(self, route: Route) -> Engine:
        """The engine, with the route's model in it. Raises Refused."""
        engine = self._desk.find_engine()
        served = {m.name: m.id for m in engine.list_models()}
        if route.model not in served:
            # It goes on when this client has gone: the next one needs it too.
            task = self._loading.get(route.adapter)
            if task is None:
                task = asyncio.ensure_future(self._admit(route))
                self._loading[route.adapter] = task
                task.add_done_callback(lambda _: self._loading.pop(route.adapter, None))
            try:
                await asyncio.shield(task)
            except GtftError as e:
                logging.getLogger(__name__).warning("%s cannot be loaded: %s", route.model, e.what)
                raise Refused(503, f"the model {route.model} cannot be loaded") from e
            served = {m.name: m.id for m in engine.list_models()}
        if served.get(route.model) != route.adapter:
            raise Refused(503, f"another model is served under the name {route.model}")
        return engine

    def _note(self, line: AnswerLine, tried: Tried, visit: Visit) -> AnswerLine:
        known: dict[str, object] = {"took": "previous" if tried.why else "model", "why": tried.why}
        known["seconds"] = round(self._desk.clock() - visit.began, 4)
        if tried.question is not None:
            known["prompt_sha256"] = hash_json(list(tried.question.ask.messages)).removeprefix(
                "sha256:"
            )
        if tried.whole is not None:
            end = tried.whole.end
            known |= {
                "abstained": tried.why == "abstained",
                "escalated": escalates(end.text),
                "confidence": end.confidence,
                "tokens": end.tokens,
                "prompt_tokens": end.prompt_tokens,
            }
        return line.model_copy(update=known)

    async def _pass_on(
        self, visit: Visit, route: Route, path: str, body: bytes, line: AnswerLine | None = None
    ) -> Response:
        """To who answered before. ``line``: what to record, None where the model was not asked for."""
        fallback = route.fallback
        took = "nobody"
        try:
            if fallback is None:
                raise Refused(
                    503,
                    f"the role {route.role} has a model in {route.mode}, and nobody who answers",
                )
            if fallback.protocol != visit.tongue.name:
                raise Refused(
                    502, f"who answered before is asked in {fallback.protocol}'s protocol"
                )
            asking = self._previous.ask(fallback.url, path, visit.request, body, visit.finish)
            response = await visit.wait(asking)
            took = "previous" if response.status_code < 400 else "nobody"
            return response
        finally:
            if line is not None:
                seconds = round(self._desk.clock() - visit.began, 4)
                self._record(line.model_copy(update={"took": took, "seconds": seconds}))

    def _record(self, line: AnswerLine) -> None:
        if self._workspace is None:
            return
        try:
            add_answer(self._workspace, line)
        except GtftError as e:
            # The agent has its answer all the same; the loss is told where the operator looks.
            self._desk.metrics.count("gtft_answers_not_recorded_total")
            logging.getLogger(__name__).warning("an answer was not recorded: %s", e.what)


def _read_failure(error: Exception) -> Tried:
    """A bug of ours, too: it is no reason for a role to stand still while somebody else can answer."""
    if isinstance(error, TimeoutError):
        return Tried("timeout", "timeout", refusal=Refused(504, "no answer within the time limit"))
    if isinstance(error, (Refused, Unanswerable, Busy)):
        status, text, after = read_refusal(error)
        why: Why = "timeout" if status == 504 else "error"
        cause = "busy" if isinstance(error, Busy) else why
        return Tried(why, cause, refusal=Refused(status, text, after=after))
    name = type(error).__name__
    logging.getLogger(__name__).error("a bug in gtft: %s", name, exc_info=error)
    return Tried("error", "bug", refusal=Refused(500, f"a bug in gtft ({name})"))
