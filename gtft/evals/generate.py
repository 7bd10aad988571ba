"""Answers: greedy, in batches of like length, each one stored as it comes.

A batch is made from the whole list of prompts, never from what is left of it: a run that was killed
and resumed puts the same prompts together and gets the same answers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gtft.artifact import canonical_json
from gtft.dialect import TemplateRefuses, learn_dialect, write_chat
from gtft.errors import translate_os_error
from gtft.evals.checks import run_check
from gtft.evals.item import Item

CANDIDATES = ("base", "tuned")
BATCH = 32


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
    """One answer. ``finish``: "stop" at an end-of-turn token, "length" at the limit. ``seconds`` is the
    share of its batch's wall time and stays out of artifacts, which hold no clock."""

    candidate: str
    item: str
    prompt_sha256: str
    output: str
    passed: bool
    reason: str
    tokens: int
    finish: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "seconds"}


@dataclass(frozen=True)
class Prompt:
    """An item with its prompt as the model reads it."""

    item: Item
    ids: tuple[int, ...]
    sha256: str


def write_prompts(
    items: Sequence[Item], tokenizer: Any, room: int
) -> tuple[list[Prompt], list[Item]]:
    """Render prompts of at most ``room`` tokens; the second list are items that cannot be made to fit, or
    that the chat template refuses.

    Older messages go first, the first request stays, and a tool result never loses its call: the same way
    that training cuts.
    """
    prompts: list[Prompt] = []
    too_long: list[Item] = []
    dialect = learn_dialect(tokenizer)
    for item in items:
        for messages in _windows(item):
            try:
                text = write_chat(
                    tokenizer,
                    dialect.template,
                    [dialect.shape(dialect.escape(m)) for m in messages],
                    [dialect.escape(t) for t in item.tools],
                    prompt=True,
                )
            except TemplateRefuses:
                continue
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) <= room:
                cut = replace(item, messages=tuple(messages)).identified()
                digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
                prompts.append(Prompt(cut, tuple(ids), digest))
                break
        else:
            too_long.append(item)
    return prompts, too_long


def generate(
    candidates: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    log: Path,
    key: str,
    report: Progress,
    clock: Callable[[], float],
) -> list[Generation]:
    """Answer every prompt as base and as tuned; returns the answers in order (candidate, prompt).

    ``log`` is appended to and fsynced after each batch; answers in it under the same ``key`` are kept, a
    torn last line is dropped. Raises StopRequested between batches when asked to stop.
    """
    done = _resume(log, key)
    total = len(prompts) * len(CANDIDATES)
    batches = list(_batch(prompts))
    began, answered = clock(), 0
    report.progress(len(done), total, "answers", None, "generation")
    for candidate in CANDIDATES:
        for batch in batches:
            if all((candidate, p.item.id) in done for p in batch):
                continue
            if report.stop_requested:
                raise StopRequested(len(done))
            fresh = _answer(candidates, candidate, batch, max_new_tokens, clock)
            fresh = [g for g in fresh if (g.candidate, g.item) not in done]
            _append(log, [json.dumps({**vars(g), "key": key}, ensure_ascii=True) for g in fresh])
            done |= {(g.candidate, g.item): g for g in fresh}
            answered += len(fresh)
            left = (clock() - began) / max(1, answered) * (total - len(done))
            report.progress(len(done), total, "answers", left, candidate)
    return [done[c, p.item.id] for c in CANDIDATES for p in prompts]


def make_key(parts: Any) -> str:
    """What stored answers must have been made with to be used again."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]


def _windows(item: Item) -> Iterator[list[dict[str, Any]]]:
    messages = [dict(m) for m in item.messages]
    yield messages
    head = messages[:1] if messages[:1] and messages[0]["role"] == "system" else []
    body = messages[len(head) :]
    for start in range(1, len(body)):
        if body[start]["role"] == "tool":
            continue
        lead = body[:1] if body[start]["role"] == "assistant" else []
        yield [*head, *lead, *body[start:]]


def _batch(prompts: Sequence[Prompt]) -> Iterator[list[Prompt]]:
    ordered = sorted(prompts, key=lambda p: (len(p.ids), p.item.id))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def _answer(
    candidates: Any,
    candidate: str,
    batch: Sequence[Prompt],
    max_new_tokens: int,
    clock: Callable[[], float],
) -> list[Generation]:
    began = clock()
    rows = _decode(candidates, candidate == "base", [p.ids for p in batch], max_new_tokens)
    seconds = round((clock() - began) / len(batch), 4)
    out = []
    for prompt, (text, tokens, finish) in zip(batch, rows, strict=True):
        outcome = run_check(prompt.item.check, text)
        out.append(
            Generation(
                candidate,
                prompt.item.id,
                prompt.sha256,
                text,
                outcome.passed,
                outcome.reason,
                tokens,
                finish,
                seconds,
            )
        )
    return out


def _decode(
    candidates: Any, as_base: bool, rows: Sequence[Sequence[int]], max_new_tokens: int
) -> list[tuple[str, int, str]]:
    """Greedy continuation of token rows: text, tokens, "stop" or "length" for each."""
    import torch

    tokenizer = candidates.tokenizer
    ends = _end_tokens(candidates)
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
    with torch.inference_mode(), candidates.answering(as_base=as_base) as model:
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=sorted(ends),
        )
    out = []
    for row in made[:, longest:].tolist():
        end = next((i for i, t in enumerate(row) if t in ends), None)
        kept = row if end is None else row[:end]
        text = tokenizer.decode(kept, skip_special_tokens=False).strip()
        finish = "length" if end is None else "stop"
        out.append((text, len(kept), finish))
    return out


def _end_tokens(candidates: Any) -> set[int]:
    ends = {candidates.tokenizer.eos_token_id}
    extra = candidates.model.generation_config.eos_token_id
    ends |= set(extra if isinstance(extra, list) else [extra])
    im_end = candidates.tokenizer.convert_tokens_to_ids("<|im_end|>")
    if isinstance(im_end, int) and im_end != candidates.tokenizer.unk_token_id:
        ends.add(im_end)
    return {e for e in ends if e is not None}


def _resume(log: Path, key: str) -> dict[tuple[str, str], Generation]:
    """The answers of ``log`` that were made with ``key``; what else is in it is cut off."""
    done: dict[tuple[str, str], Generation] = {}
    good = 0
    try:
        if not log.exists():
            return done
        with log.open("rb+") as f:
            for line in f:
                found = _read_line(line, key)
                if found is None:
                    break
                done[found.candidate, found.item] = found
                good += len(line)
            f.truncate(good)
    except OSError as e:
        raise translate_os_error(e, "reading the answers so far") from e
    return done


def _read_line(line: bytes, key: str) -> Generation | None:
    if not line.endswith(b"\n"):
        return None
    try:
        doc = json.loads(line)
        if doc.pop("key") != key:
            return None
        return Generation(**doc)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _append(log: Path, lines: Sequence[str]) -> None:
    try:
        with log.open("a", encoding="utf-8") as f:
            f.write("".join(line + "\n" for line in lines))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise translate_os_error(e, "storing answers") from e
