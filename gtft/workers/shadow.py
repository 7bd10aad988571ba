"""The shadow worker: ``python -m gtft.workers.shadow DIR``. A deployment beside the town's sessions since it began.

``DIR`` holds ``job.json`` (a Job of the model's run: its recipe, sources, consents and withdrawals as they stand now) and
``watch.json``:

    {"deployment": id, "model": name, "adapter": folder, "role": …, "rig": "", "mode": "shadow", "since": seconds since 1970,
     "url": "http://127.0.0.1:8750" or "", "seconds": 120, "most": 200, "ab_share": 0.0, "limits": {…}, "max_new_tokens": 512}

In shadow it asks the model what held-out items ask, each question of each session once, and adds a line for each answer;
advice is compared with what the agent did then. In every mode it writes ``figures.json``: figures, the limit that is
breached, what was asked. A killed worker goes on where it was: an answer is a line, and a line is whole or not there.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict

from gtft.artifact import canonical_json, verify_artifact, write_file, write_json
from gtft.contract import LOCK_FILE, Job
from gtft.corpus.governance.row import describe
from gtft.corpus.linking.preference import GOOD_OUTCOMES
from gtft.corpus.linking.town_record import read_records
from gtft.errors import ConflictError, GtftError
from gtft.evals.agreement import agrees
from gtft.evals.asking.candidate import UNANSWERED, Candidate, Prompt
from gtft.evals.checks import run_check
from gtft.evals.checks.abstain import declines, escalates
from gtft.evals.heldout import derive_item, derive_item_at, write_reference
from gtft.evals.item import Item
from gtft.models.service_figures import Share, TownFigures, describe_service, find_breach
from gtft.recipe.schema import Endpoint, Recipe
from gtft.service import (
    FOLDER,
    PREFERENCES_FOLDER,
    AnswerLine,
    Mode,
    Why,
    add_answer,
    read_answers,
    settle_answers,
)
from gtft.serving.fault import find_fault
from gtft.workers.frame import answer_once
from gtft.workers.harvest import make_settings
from gtft.workers.sessions import Sessions, Told, read_sessions
from gtft.workers.town_outcomes import count_costs, count_rejects, list_arms

WATCH_FILE, FIGURES_FILE = "watch.json", "figures.json"
# What there is to compare with begins this long before the deployment at least, seconds.
LEAST_BEFORE_S = 7 * 86_400.0
_BATCH = 4
# Of the context, so much stays for an answer in live (gtft.serving.local).
_FOR_ANSWER = 4
_ADVICE = re.compile(r"\badvice-[0-9a-f]{8}\b")


class Watch(BaseModel):
    """``watch.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: str
    model: str
    adapter: Path
    role: str
    rig: str = ""
    mode: Mode
    since: float
    url: str = ""
    key_env: str = ""
    seconds: float = 120.0
    most: int = 200
    # Why nothing is asked now, "" when it is.
    kept: str = ""
    ab_share: float = 0.0
    limits: dict[str, float]
    max_new_tokens: int = 512
    answer_seconds: float = 60.0


@dataclass
class Asked:
    """What this look did. ``why``: what kept it from asking, "" when nothing did."""

    asked: int = 0
    left: int = 0
    compared: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "skipped": dict(sorted(self.skipped.items()))}


class _Stop:
    """True once SIGTERM came, or the time of this look is up."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signum: int, _frame: FrameType | None) -> None:
        self.end = 0.0

    def __call__(self) -> bool:
        return time.monotonic() >= self.end


def look(
    job: Job, watch: Watch, now: Callable[[], float], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Ask and compare what is new, then take all figures. Nothing outside the workspace is touched."""
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    before = watch.since - max(now() - watch.since, LEAST_BEFORE_S)
    done, sessions = Asked(), Sessions()
    try:
        who = [f"role:{watch.role}", *([f"rig:{watch.rig}"] if watch.rig else [])]
        sessions = read_sessions(job, recipe, select=who, since=before, own=watch.mode == "live")
    except GtftError as e:
        # Its answers are figures all the same.
        done.why = f"the sessions could not be read: {e.what}"
    done.skipped.update(sessions.dropped)
    since = [t for t in sessions.told if t.started >= watch.since]
    lines = settle_answers(read_answers(job.workspace, watch.deployment))
    if watch.mode == "shadow":
        _ask_new(job, watch, since, lines, sessions.redact, now, stop, done)
    elif watch.mode == "advise":
        _compare_advice(job, since, lines, done)
    _note_outcomes(job, since, watch.deployment)
    lines = settle_answers(read_answers(job.workspace, watch.deployment))
    if watch.mode == "shadow" and not done.why:
        _write_preferences(job, since, watch.deployment, lines)
    town = _read_town(job, recipe, watch, sessions, lines, before, now())
    figures = describe_service(watch.mode, lines, town, ab_share=watch.ab_share)
    figures["at_us"] = int(now() * 1_000_000)
    figures["sessions"] = {"since": len({t.session for t in since}), "look": done.to_json()}
    return {"figures": figures, "breach": find_breach(figures, watch.limits, repeatedly=True)}


# -- shadow: what would it have answered?


def _ask_new(
    job: Job,
    watch: Watch,
    since: list[Told],
    lines: list[AnswerLine],
    redact: Callable[[str], str],
    now: Callable[[], float],
    stop: Callable[[], bool],
    done: Asked,
) -> None:
    known = {(a.session, a.item) for a in lines}
    waiting: dict[tuple[str, str], tuple[Item, Told]] = {}
    for told, item in _list_items(since, done):
        if (told.session, item.id) not in known:
            waiting.setdefault((told.session, item.id), (item, told))
    chosen = list(waiting.values())[: watch.most]
    done.left = len(waiting)
    if not chosen or stop():
        done.why = watch.kept if waiting else ""
        return
    try:
        candidate = _find_candidate(job, watch)
    except GtftError as e:
        done.why = f"the model could not be asked: {e.what}"
        return
    prompts, too_long = candidate.write([item for item, _ in chosen])
    # Two sessions may ask the very same.
    told_of: dict[str, list[Told]] = {}
    for item, told in chosen:
        told_of.setdefault(item.id, []).append(told)
    for item in {i.id: i for i in too_long}.values():
        # In live the previous agent would have to answer.
        for told in told_of[item.id]:
            line = _judge(
                watch, Prompt(item, (), (), ""), told, "", "error", int(now() * 1_000_000)
            )
            add_answer(job.workspace, line)
            done.skipped["longer than the model's context"] += 1
            done.left -= 1
    # A prompt may be shortened to fit: it still asks what was chosen.
    whole = {item.id: item for item, _ in chosen}
    prompts = [replace(p, item=whole[p.asked or p.item.id]) for p in prompts]
    ids = {p.item.id: p for p in prompts}
    size = candidate.most or _BATCH
    ordered = list(ids.values())
    for start in range(0, len(ordered), size):
        if stop():
            return
        batch = ordered[start : start + size]
        for prompt, reply in zip(batch, candidate.answer(batch, 0), strict=True):
            if reply.finish == "error" and not reply.refused:
                done.why = f"the model gave no answer: {reply.error}"
                continue
            for told in told_of[prompt.item.id]:
                line = _judge(
                    watch,
                    prompt,
                    told,
                    reply.text,
                    reply.finish,
                    int(now() * 1_000_000),
                    tokens=reply.tokens,
                )
                figures = {
                    "output": redact(reply.text),
                    "seconds": reply.seconds,
                    "confidence": reply.confidence,
                    "prompt_tokens": reply.prompt_tokens,
                }
                add_answer(job.workspace, line.model_copy(update=figures))
                done.asked += 1
                done.left -= 1
        if done.why:
            return


def _list_items(since: list[Told], done: Asked) -> Iterator[tuple[Told, Item]]:
    for told in since:
        item = derive_item(told.example.to_json())
        if item is None:
            done.skipped["no answer that code can check"] += 1
        elif not run_check(item.check, item.reference).passed:
            done.skipped["the agent's own answer fails the check"] += 1
        else:
            yield told, item


def _judge(
    watch: Watch, prompt: Prompt, told: Told, text: str, finish: str, at_us: int, tokens: int = 0
) -> AnswerLine:
    item = prompt.item
    missed = finish in UNANSWERED
    # In live the previous agent would be asked, for each of these.
    offered = {str(t.get("function", t)["name"]) for t in item.tools}
    faulty = not missed and bool(
        find_fault(text, finish, tokens, offered=offered, wanted=sys.maxsize)
    )
    abstained = not missed and not faulty and declines(text)
    why: Why = "timeout" if finish == "timeout" else "error" if missed or faulty else ""
    return AnswerLine(
        at_us=at_us,
        deployment=watch.deployment,
        mode="shadow",
        took="nobody",
        why="abstained" if abstained else why,
        bead=told.example.bead or "",
        session=told.session,
        item=item.id,
        prompt_sha256=prompt.sha256,
        agreed=None if missed else not faulty and agrees(item, text),
        abstained=abstained,
        escalated=not missed and escalates(text),
        agent_escalated=escalates(item.reference),
        outcome=told.example.outcome,
        tokens=tokens,
    )


def _find_candidate(job: Job, watch: Watch) -> Candidate:
    """The server that runs, else the adapter loaded here. Raises GtftError."""
    if watch.url:
        from gtft.evals.asking.endpoint import EndpointCandidate

        served = Endpoint(
            name="served", url=f"{watch.url}/v1", model=watch.model, key_env=watch.key_env
        )
        return EndpointCandidate(
            served,
            max_new_tokens=watch.max_new_tokens,
            item_seconds=watch.answer_seconds,
            temperature=1.0,
            environ=os.environ,
        )
    from gtft.evals.asking.decode import Limits
    from gtft.evals.asking.load import find_base, find_role, load_candidates, read_base
    from gtft.evals.asking.local import LocalCandidate
    from gtft.training.environment import prepare_environment, require_training_extra

    require_training_extra()
    prepare_environment(os.environ, offline=True)
    adapter = verify_artifact(watch.adapter, kind="adapter")
    base = read_base(adapter)
    folder = find_base(base, job.workspace, job.root)
    loaded = load_candidates(adapter, base, folder, find_role(base, job.artifacts))
    tokens = min(watch.max_new_tokens, loaded.context // _FOR_ANSWER)
    return LocalCandidate(
        "tuned",
        loaded,
        as_base=False,
        limits=Limits(tokens, watch.answer_seconds),
        clock=time.monotonic,
    )


# -- advise: did the agent do what it was advised?


def _compare_advice(job: Job, since: list[Told], lines: list[AnswerLine], done: Asked) -> None:
    waiting = {a.item: a for a in lines if a.agreed is None and not a.why and a.output}
    for told in since:
        for name, at in _find_advice(told).items():
            if name not in waiting:
                continue
            item = _find_next(told, at)
            if item is None:
                done.skipped["no answer after the advice that code can check"] += 1
                continue
            advice = waiting.pop(name)
            found = {
                "agreed": agrees(item, advice.output),
                "agent_escalated": escalates(item.reference),
                "bead": advice.bead or told.example.bead or "",
                "outcome": told.example.outcome,
            }
            add_answer(job.workspace, advice.model_copy(update=found))
            done.compared += 1
    done.left = len(waiting)


def _find_advice(told: Told) -> dict[str, int]:
    """Each piece of advice in a session, by its id → the message that holds it first."""
    found: dict[str, int] = {}
    for at, message in enumerate(told.example.messages):
        for name in _ADVICE.findall(str(message.get("content") or "")):
            found.setdefault(name, at)
    return found


def _find_next(told: Told, at: int) -> Item | None:
    """What the agent did first after message ``at``, of what code can check."""
    doc = told.example.to_json()
    for later in range(at + 1, len(doc["messages"])):
        item = derive_item_at(doc, later)
        if item is not None and run_check(item.check, item.reference).passed:
            return item
    return None


# -- what became of it


def _note_outcomes(job: Job, since: list[Told], deployment: str) -> None:
    """A later word about what was asked, or advised, stands in place of the earlier one: of one session, one answer
    may have been denied and another merged."""
    outcomes: dict[tuple[str, str], str] = {}
    for told in since:
        doc = told.example.to_json()
        # Each answer: a session that has gone on since has a later one at its end.
        for at in range(1, len(doc["messages"])):
            if (item := derive_item_at(doc, at)) is not None:
                outcomes.setdefault((told.session, item.id), told.example.outcome)
    advised: dict[str, str] = {}
    for told in since:
        for name in _find_advice(told):
            advised.setdefault(name, told.example.outcome)
    for a in settle_answers(read_answers(job.workspace, deployment)):
        now = outcomes.get((a.session, a.item)) or advised.get(a.item) or a.outcome
        if a.item and now != a.outcome:
            add_answer(job.workspace, a.model_copy(update={"outcome": now}))


def _write_preferences(
    job: Job, since: list[Told], deployment: str, lines: list[AnswerLine]
) -> None:
    """Where the agent's way ended well and the model would have gone another: for the next harvest, which asks consents
    and withdrawals again. Each time anew, from the sessions that may be read now."""
    worse = {
        (a.session, a.item): a
        for a in lines
        if a.agreed is False and a.output and a.outcome in GOOD_OUTCOMES
    }
    rows = []
    for told, item in _list_items(since, Asked()):
        if line := worse.get((told.session, item.id)):
            origin = {**msgspec.to_builtins(describe(told.example)), "session": told.session}
            body = {"example": told.example.id, "prompt": item.messages, "tools": item.tools}
            rows.append(
                {"origin": origin, **body, "chosen": item.reference, "rejected": line.output}
            )
    path = job.workspace / FOLDER / PREFERENCES_FOLDER / f"{deployment}.jsonl"
    if rows or path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, "".join(canonical_json(r) + "\n" for r in rows).encode(), mode=0o600)


def _read_town(
    job: Job,
    recipe: Recipe,
    watch: Watch,
    sessions: Sessions,
    lines: list[AnswerLine],
    before: float,
    now: float,
) -> TownFigures:
    paths = make_settings(job, recipe).records
    records = read_records(paths)
    who = (watch.role, watch.rig)
    earlier = [t for t in sessions.told if t.started < watch.since]
    return TownFigures(
        escalated_before=count_escalations(earlier),
        rejected_before=count_rejects(records, *who, before, watch.since),
        rejected_since=count_rejects(records, *who, watch.since, now),
        cost_before=count_costs(paths, *who, before, watch.since),
        cost_since=count_costs(paths, *who, watch.since, now),
        arms=tuple(list_arms(records, lines, watch.since, now)),
    )


def count_escalations(told: Sequence[Told]) -> Share:
    """Sessions in which the agent escalated, of all: as live answers are counted."""
    found: dict[str, bool] = {}
    for t in told:
        key = t.session or t.example.id
        said = (write_reference(m) for m in t.example.messages if m["role"] == "assistant")
        found[key] = found.get(key, False) or any(map(escalates, said))
    return Share(sum(found.values()), len(found))


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """One look at a time; the kernel drops the lock with us. Raises ConflictError."""
    with (folder / LOCK_FILE).open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ConflictError(
                "another process looks after this deployment now", fix="gtft deploy status"
            ) from e
        yield


def main() -> int:
    """Look once; see `answer_once`."""

    def work(folder: Path, job: Job) -> None:
        watch = Watch.model_validate_json((folder / WATCH_FILE).read_bytes())
        with _hold(folder):
            write_json(folder / FIGURES_FILE, look(job, watch, time.time, _Stop(watch.seconds)))

    return answer_once(work, "looking after a deployment")


if __name__ == "__main__":
    sys.exit(main())
