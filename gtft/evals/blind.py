"""Two answers to one prompt, to be judged without knowing whose they are.

The prompts are of the training side: what people judge becomes preference pairs to train on, and no pair may
ever hold a prompt that the eval asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError
from gtft.evals.answer import BadAnswer, parse_answer
from gtft.evals.asking.candidate import Candidate
from gtft.evals.item import CheckSpec, Item, Message, read_jsonl

FILE = "blind.jsonl"
JUDGEMENTS = "judgements.jsonl"
SIDES = ("tuned", "base")
# No check is run on these: people are asked.
_BY_PEOPLE = CheckSpec("by people", {})
_BATCH = 8


@dataclass(frozen=True)
class Duel:
    """A prompt with the answers of ``base`` and ``tuned``. ``example`` is the training example (id) it is of."""

    id: str
    example: str
    role: str | None
    messages: tuple[Message, ...]
    tools: tuple[Message, ...]
    answers: Mapping[str, str]

    def order(self, judge: str) -> tuple[str, str]:
        """Which candidate is shown as A and which as B: by a hash, another one for every judge."""
        digest = hashlib.sha256(f"{self.id}:{judge}".encode()).digest()
        return SIDES if digest[0] % 2 else (SIDES[1], SIDES[0])


@dataclass(frozen=True)
class Judgement:
    """``choice``: base, tuned, or same. ``at``: RFC 3339, UTC. ``tools``: those of the prompt."""

    eval: str
    duel: str
    example: str
    by: str
    at: str
    choice: str
    prompt: tuple[Message, ...]
    tools: tuple[Message, ...]
    chosen: str
    rejected: str

    def to_json(self) -> dict[str, Any]:
        """A line of ``judgements.jsonl``."""
        return asdict(self)


def choose_prompts(examples: Iterable[Mapping[str, Any]], most: int, seed: int) -> list[Item]:
    """At most ``most`` training examples (lines of train.jsonl) as items without an answer, chosen by a hash of their
    id. ``cluster`` of such an item is the example's id. Made-up examples and planted canaries are no work of the
    town: they are left out."""
    ranked = sorted(
        (
            (hashlib.sha256(f"{seed}:{e['id']}".encode()).hexdigest(), e)
            for e in examples
            if e["messages"][-1]["role"] == "assistant"
            and e.get("provenance", "") != "synthetic"
            and e.get("source") != "canary"
        ),
        key=lambda pair: pair[0],
    )
    return [
        Item(
            id="",
            suite="blind",
            capability="by people",
            role=e.get("role"),
            template=str(e.get("source")),
            cluster=str(e["id"]),
            messages=tuple(e["messages"][:-1]),
            tools=tuple(e.get("tools") or ()),
            check=_BY_PEOPLE,
            reference="",
        ).identified()
        for _, e in ranked[:most]
        if len(e["messages"]) > 1
    ]


def answer_blind(candidates: Mapping[str, Candidate], items: Sequence[Item]) -> list[Duel]:
    """Both answers to every item that fits. Where they are equal, or one has none, there is nothing to judge."""
    answers: dict[str, dict[str, str]] = {}
    shown: dict[str, Item] = {}
    for name in SIDES:
        prompts, _ = candidates[name].write(items)
        for start in range(0, len(prompts), _BATCH):
            batch = prompts[start : start + _BATCH]
            for prompt, reply in zip(batch, candidates[name].answer(batch, 0), strict=True):
                answers.setdefault(prompt.item.id, {})[name] = reply.text
                shown[prompt.item.id] = prompt.item
    return [
        Duel(k, item.cluster, item.role, item.messages, item.tools, answers[k])
        for k, item in sorted(shown.items())
        if len(answers[k]) == len(SIDES)
        and all(answers[k].values())
        and len(set(answers[k].values())) == len(SIDES)
    ]


def read_duels(path: Path) -> list[Duel]:
    """The lines of ``blind.jsonl``. Raises EvidenceError that names a bad one."""
    found = []
    for number, doc in read_jsonl(path):
        try:
            found.append(
                Duel(
                    doc["id"],
                    doc["example"],
                    doc["role"],
                    tuple(doc["messages"]),
                    tuple(doc["tools"]),
                    {name: str(doc["answers"][name]) for name in SIDES},
                )
            )
        except (KeyError, TypeError) as e:
            raise EvidenceError(
                f"{path.name}:{number} is no pair of answers", why=repr(e), fix="gtft doctor"
            ) from e
    return found


def judge_duel(duel: Duel, eval_id: str, by: str, at: str, choice: str) -> Judgement:
    """``choice``: A, B or same, as ``by`` was shown them."""
    first, second = duel.order(by)
    chosen = {"A": first, "B": second}.get(choice, "same")
    rejected = {first: second, second: first}.get(chosen, "")
    return Judgement(
        eval_id,
        duel.id,
        duel.example,
        by,
        at,
        chosen,
        duel.messages,
        duel.tools,
        duel.answers.get(chosen, ""),
        duel.answers.get(rejected, ""),
    )


def read_judgements(path: Path) -> list[Judgement]:
    """The lines of ``judgements.jsonl``, none when there is no file. Raises EvidenceError that names a bad one."""
    found = []
    for number, doc in read_jsonl(path) if path.is_file() else ():
        try:
            lists = {k: tuple(doc[k]) for k in ("prompt", "tools")}
            found.append(Judgement(**{**doc, **lists}))
        except (KeyError, TypeError) as e:
            raise EvidenceError(
                f"{path.name}:{number} is no judgement",
                why=repr(e),
                fix=f"mend or remove line {number} of {path.name}",
            ) from e
    return found


def settle(judgements: Iterable[Judgement]) -> list[Judgement]:
    """One judgement for each pair of answers: a judge's last word counts, the majority decides, a tie says nothing."""
    last = {(j.duel, j.by): j for j in judgements}
    by_duel: dict[str, list[Judgement]] = {}
    for j in last.values():
        if j.choice in SIDES:
            by_duel.setdefault(j.duel, []).append(j)
    settled = []
    for _, votes in sorted(by_duel.items()):
        tuned = [v for v in votes if v.choice == "tuned"]
        base = [v for v in votes if v.choice == "base"]
        if len(tuned) != len(base):
            settled.append(max(tuned, base, key=len)[0])
    return settled


def write_message(text: str) -> Message:
    """An answer as a chat message: its text, and its tool calls where they can be read."""
    try:
        answer = parse_answer(text)
    except BadAnswer:
        return {"role": "assistant", "content": text}
    message: Message = {"role": "assistant", "content": answer.text}
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{n}",
                "type": "function",
                "function": {"name": c.name, "arguments": c.arguments},
            }
            for n, c in enumerate(answer.calls)
        ]
    return message


def write_duels(duels: Sequence[Duel]) -> bytes:
    """``blind.jsonl``."""
    lines = (json.dumps(asdict(d), sort_keys=True, ensure_ascii=True) for d in duels)
    return "".join(line + "\n" for line in lines).encode()
