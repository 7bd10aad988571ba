"""Answers of any number of candidates, in batches of like length, each one judged and stored as it comes.

A batch is made from the whole list of prompts, never from what is left of it: a run that was killed
and resumed puts the same prompts together and gets the same answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from gtft.artifact import canonical_json, hash_file, hash_json, write_file
from gtft.dialect import Dialect, TemplateRefuses, learn_dialect, write_chat
from gtft.errors import EvidenceError, translate_os_error
from gtft.evals.asking.candidate import UNANSWERED, Candidate, Prompt, Reply
from gtft.evals.asking.referee import Referee
from gtft.evals.checks import Outcome
from gtft.evals.item import Item, Message

BATCH = 64

Extend = Callable[[Item], tuple[Message, ...]]


class Progress(Protocol):
    """What generation tells, and whether it should stop."""

    @property
    def stop_requested(self) -> bool: ...

    def progress(
        self, done: int, total: int | None, unit: str, eta_s: float | None = None, note: str = ""
    ) -> None: ...


class StopRequested(Exception):
    """Generation was asked to stop; everything answered so far is on disk. ``done`` counts answers."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


@dataclass(frozen=True)
class Generation:
    """One answer, judged. ``finish``, ``tokens``, ``prompt_tokens`` and ``confidence`` as in `Reply`; an answer that
    did not come ("timeout", "error") has failed. ``seconds`` stays out of artifacts, which hold no clock."""

    candidate: str
    item: str
    seed: int
    prompt_sha256: str
    output: str
    passed: bool
    reason: str
    tokens: int
    prompt_tokens: int
    finish: str
    confidence: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "seconds"}


_Done = dict[tuple[str, str, int], Generation]


def write_prompts(
    items: Sequence[Item], tokenizer: Any, room: int, extend: Extend | None = None
) -> tuple[list[Prompt], list[Item]]:
    """Render prompts of at most ``room`` tokens; the second list are items that cannot be made to fit, or
    that the chat template refuses.

    Older messages go first, the first request stays, and a tool result never loses its call: the same way
    that training cuts. ``extend``: the chat to send for an item, additions included.
    """
    prompts: list[Prompt] = []
    too_long: list[Item] = []
    dialect = learn_dialect(tokenizer)
    for item in items:
        for messages in list_windows(item.messages):
            cut = replace(item, messages=tuple(messages))
            sent = extend(cut) if extend else cut.messages
            try:
                text, ids = write_prompt(tokenizer, dialect, sent, item.tools)
            except TemplateRefuses:
                continue
            if len(ids) <= room:
                digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
                known = cut.identified()
                asked = item.id if known.id != item.id else ""
                prompts.append(Prompt(known, tuple(sent), ids, digest, asked))
                break
        else:
            too_long.append(item)
    return prompts, too_long


def write_prompt(
    tokenizer: Any, dialect: Dialect, messages: Sequence[Message], tools: Sequence[Message]
) -> tuple[str, tuple[int, ...]]:
    """The text of one prompt, and its tokens. Raises TemplateRefuses."""
    text = write_chat(
        tokenizer,
        dialect.template,
        [dialect.shape(dialect.escape(m)) for m in messages],
        [dialect.escape(t) for t in tools],
        prompt=True,
    )
    return text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def list_windows(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages whole, then with fewer and fewer of the older ones, as training cuts."""
    messages = [dict(m) for m in messages]
    yield messages
    head = messages[:1] if messages[:1] and messages[0]["role"] == "system" else []
    body = messages[len(head) :]
    for start in range(1, len(body)):
        if body[start]["role"] == "tool":
            continue
        lead = body[:1] if body[start]["role"] == "assistant" else []
        yield [*head, *lead, *body[start:]]


def generate(
    candidates: Sequence[Candidate],
    prompts: Mapping[str, Sequence[Prompt]],
    *,
    seeds: int,
    item_seconds: float,
    log: Path,
    key: str,
    report: Progress,
    clock: Callable[[], float],
) -> list[Generation]:
    """Every candidate's answers to its prompts; in order (candidate, seed, prompt).

    One seed is number 0, which is greedy; more are numbers 1 to ``seeds``, which are drawn. A prompt that stands
    twice is answered once. ``log`` is appended to and fsynced after each batch. Answers in it are used again when
    ``key``, the candidate's key, seeds, ``item_seconds`` and all prompts are the same; a torn last line is dropped.

    Raises StopRequested between batches when asked to stop, EvidenceError when a line of the log was changed.
    """
    keys = {
        c.name: make_key(
            [key, c.name, c.key, seeds, item_seconds, hash_code()]
            + [[p.item.id, p.sha256] for p in prompts[c.name]]
        )
        for c in candidates
    }
    done = _resume(log, keys)
    numbers = [0] if seeds == 1 else list(range(1, seeds + 1))
    total = sum(len(prompts[c.name]) for c in candidates) * len(numbers)
    began, answered = clock(), 0
    report.progress(len(done), total, "answers", None, "generation")
    with Referee() as referee:
        for candidate in candidates:
            batches = list(_batch(prompts[candidate.name], candidate.most or BATCH))
            for seed in numbers:
                for batch in batches:
                    name = candidate.name
                    if all((name, p.item.id, seed) in done for same in batch for p in same):
                        continue
                    if report.stop_requested:
                        raise StopRequested(len(done))
                    fresh = [
                        g
                        for g in _answer(candidate, batch, seed, referee)
                        if (name, g.item, seed) not in done
                    ]
                    _append(log, [_seal(g, keys[name]) for g in fresh])
                    done |= {(name, g.item, seed): g for g in fresh}
                    answered += len(fresh)
                    left = (clock() - began) / max(1, answered) * (total - len(done))
                    report.progress(len(done), total, "answers", left, name)
    return [
        done[c.name, p.item.id, seed]
        for c in candidates
        for seed in numbers
        for p in prompts[c.name]
    ]


@cache
def hash_code() -> str:
    """Of the code that decodes and judges: stored answers of another gtft are not used again."""
    room = Path(__file__).parent
    files = sorted(
        [
            *room.glob("*.py"),
            *(room.parent / "checks").iterdir(),
            *(room.parent / "trees").iterdir(),
            room.parent / "answer.py",
        ]
    )
    return hash_json([[p.name, hash_file(p)] for p in files if p.is_file()])


def make_key(parts: Any) -> str:
    """What stored answers must have been made with to be used again."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def _batch(prompts: Sequence[Prompt], most: int) -> Iterator[list[list[Prompt]]]:
    """Batches of at most ``most`` unlike prompts of like length; each prompt as the list of those that are the same."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: (len(p.ids), p.item.id)):
        groups.setdefault(prompt.sha256, []).append(prompt)
    ordered = list(groups.values())
    for start in range(0, len(ordered), most):
        yield ordered[start : start + most]


def _answer(
    candidate: Candidate, batch: Sequence[Sequence[Prompt]], seed: int, referee: Referee
) -> list[Generation]:
    replies = candidate.answer([same[0] for same in batch], seed)
    given = [(p, reply) for same, reply in zip(batch, replies, strict=True) for p in same]
    outcomes = _judge(given, referee)
    return [
        Generation(
            candidate=candidate.name,
            item=prompt.item.id,
            seed=seed,
            prompt_sha256=prompt.sha256,
            output=_make_plain(reply.text),
            passed=outcome.passed,
            reason=_make_plain(outcome.reason),
            tokens=reply.tokens,
            prompt_tokens=reply.prompt_tokens,
            finish=reply.finish,
            confidence=reply.confidence,
            seconds=reply.seconds,
        )
        for (prompt, reply), outcome in zip(given, outcomes, strict=True)
    ]


def _make_plain(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _judge(given: Sequence[tuple[Prompt, Reply]], referee: Referee) -> list[Outcome]:
    came = [(p.item.check, r.text) for p, r in given if r.finish not in UNANSWERED]
    judged = iter(referee.judge(came))
    return [
        Outcome(False, f"no answer: {reply.error}")
        if reply.finish == "error"
        else Outcome(False, "no answer within the time limit")
        if reply.finish == "timeout"
        else next(judged)
        for _, reply in given
    ]


def _seal(generation: Generation, key: str) -> str:
    doc = {**vars(generation), "key": key}
    return json.dumps({**doc, "sha256": _digest(doc)}, ensure_ascii=True)


def _digest(doc: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(doc).encode("utf-8", "surrogatepass")).hexdigest()


def _resume(log: Path, keys: Mapping[str, str]) -> _Done:
    """The answers of ``log`` that were made with the same ``keys`` (by candidate); the others are taken out of it."""
    done: _Done = {}
    try:
        if not log.exists():
            return done
        lines = log.read_bytes().splitlines(keepends=True)
    except OSError as e:
        raise translate_os_error(e, "reading the answers so far") from e
    kept = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            # What a killed writer left.
            break
        key, found = _read_line(line, log, number)
        # What failed for the server's or the machine's sake is asked again.
        if keys.get(found.candidate) == key and found.finish not in UNANSWERED:
            done[found.candidate, found.item, found.seed] = found
            kept.append(line)
    if kept != lines:
        write_file(log, b"".join(kept))
    return done


def _read_line(line: bytes, log: Path, number: int) -> tuple[str, Generation]:
    why = "its sha256 does not belong to what it says"
    try:
        doc = json.loads(line)
        digest = doc.pop("sha256")
        if digest == _digest(doc):
            return doc.pop("key"), Generation(**doc)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        why = f"it is no stored answer: {type(e).__name__}"
    raise EvidenceError(
        f"{log.name}:{number} is not the answer that was stored there",
        why=why,
        fix=f"rm {log}, then: gtft runs resume RUN (everything is answered again)",
    )


def _append(log: Path, lines: Sequence[str]) -> None:
    try:
        with log.open("a", encoding="utf-8") as f:
            f.write("".join(line + "\n" for line in lines))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise translate_os_error(e, "storing answers") from e
