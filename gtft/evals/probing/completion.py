"""Going on from a chat that is cut in the middle: completions, and how surprising a given continuation is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any

from gtft.dialect import TemplateRefuses, learn_dialect, write_chat
from gtft.evals.asking.decode import Limits, Prefix, decode, find_common, read_prefix
from gtft.evals.asking.load import Candidates
from gtft.evals.item import Message

CANDIDATES = ("base", "tuned")
# The word at which a rendered chat is cut: everything after it is left for the model.
CUT = "gtftcuthere"
# Tokens of a prefix, the last ones.
_CONTEXT = 256
_BATCH = 32
# Logits that are held at once, numbers (128 MB).
_LOGITS = 1 << 25

Tell = Callable[[int, int, str], None]
# Which row goes on, and with which dice; None is greedy.
_Job = tuple[int, random.Random | None]


class Completer:
    """Writes prefixes, and continues and scores them with either candidate."""

    def __init__(self, candidates: Candidates, samples: int, seed: int, tell: Tell) -> None:
        self.samples, self.seed = samples, seed
        self._candidates, self._tell = candidates, tell
        self._tokenizer = candidates.tokenizer
        self._dialect = learn_dialect(candidates.tokenizer)

    def write(self, messages: Sequence[Message], tools: Sequence[Message] = ()) -> str:
        """The chat as it is rendered up to `CUT`, which one of its texts holds; "" where the template leaves it out."""
        dialect = self._dialect
        try:
            text = write_chat(
                self._tokenizer,
                dialect.template,
                [dialect.shape(dialect.escape(m)) for m in messages],
                [dialect.escape(t) for t in tools],
            )
        except TemplateRefuses:
            return ""
        before, cut, _ = text.partition(CUT)
        # A space at the end would be part of the next word's token.
        return before.rstrip(" ") if cut else ""

    def complete(self, heads: Sequence[str], tokens: int, note: str) -> dict[str, list[list[str]]]:
        """Candidate → for each head its completions: greedy, then drawn ones. Both draw with the same dice."""
        room = max(16, min(_CONTEXT, self._candidates.context - tokens))
        rows = [self._encode(h)[-room:] for h in heads]
        done, total = 0, len(rows) * (1 + self.samples) * len(CANDIDATES)
        out: dict[str, list[list[str]]] = {}
        for name in CANDIDATES:
            out[name] = [[] for _ in rows]
            with self._candidates.answering(as_base=name == "base") as model:
                for jobs in self._plan(len(rows)):
                    self._tell(done, total, note)
                    texts = self._continue(model, [rows[at] for at, _ in jobs], jobs, tokens)
                    for (at, _), text in zip(jobs, texts, strict=True):
                        out[name][at].append(text)
                    done += len(jobs)
        return out

    def _plan(self, rows: int) -> Iterator[Sequence[_Job]]:
        """Batches: all rows greedy, then one row as often as is drawn: it is read once."""
        for at in range(0, rows, _BATCH):
            yield [(row, None) for row in range(at, min(rows, at + _BATCH))]
        for row in range(rows):
            dice = [random.Random(f"{self.seed}:{row}:{n}") for n in range(self.samples)]  # noqa: S311
            for at in range(0, len(dice), _BATCH):
                yield [(row, die) for die in dice[at : at + _BATCH]]

    def _continue(
        self,
        model: Any,
        rows: Sequence[Sequence[int]],
        jobs: Sequence[_Job],
        tokens: int,
    ) -> list[str]:
        alike = len(rows) > 1 and all(r == rows[0] for r in rows)
        made = decode(
            model,
            rows,
            ends={self._tokenizer.eos_token_id},
            pad=self._tokenizer.pad_token_id,
            limits=Limits(tokens, inf),
            clock=lambda: 0.0,
            prefix=read_prefix(model, rows[0]) if alike else None,
            dice=[dice for _, dice in jobs if dice is not None],
        )
        return [self._tokenizer.decode(m.ids, skip_special_tokens=True) for m in made]

    def score(self, heads: Sequence[str], tails: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
        """Candidate → for each head the log-perplexity of each of its tails, in nats."""
        out: dict[str, list[Any]] = {}
        for number, name in enumerate(CANDIDATES):
            with self._candidates.answering(as_base=name == "base") as model:
                out[name] = []
                for at, (head, some) in enumerate(zip(heads, tails, strict=True)):
                    done = number * len(heads) + at
                    self._tell(done, len(CANDIDATES) * len(heads), "exposure of planted values")
                    rows = [self._encode(head + tail) for tail in some]
                    out[name].append(_score_rows(model, rows))
        return out

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _score_rows(model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Nats of what differs between the rows, given what they have in common, which is computed once where the model
    allows it; rows of one length go together."""
    import torch

    common = max(1, len(find_common(rows)))
    prefix = read_prefix(model, rows[0][: common - 1])
    begin = common - 1 if prefix else 0
    out = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    vocabulary = model.get_output_embeddings().weight.shape[0]
    while order:
        length = len(rows[order[0]])
        most = max(1, min(_BATCH, _LOGITS // ((length - begin) * vocabulary)))
        batch = [i for i in order[:most] if len(rows[i]) == length]
        order = order[len(batch) :]
        ids = torch.tensor([list(rows[i][begin:]) for i in batch], device=model.device)
        past = _spread(prefix, len(batch)) if prefix else None
        with torch.inference_mode():
            logits = model(input_ids=ids, past_key_values=past, use_cache=past is not None).logits
            losses = torch.nn.functional.cross_entropy(
                logits[:, common - 1 - begin : -1].float().transpose(1, 2),
                ids[:, common - begin :],
                reduction="none",
            )
        for i, loss in zip(batch, losses.double().sum(1).tolist(), strict=True):
            out[i] = loss
    return out


def _spread(prefix: Prefix, lines: int) -> Any:
    """A cache that begins with the prefix in every line."""
    from transformers import DynamicCache

    past = DynamicCache()
    for number, (keys, values) in enumerate(prefix.layers):
        past.update(*(part.expand(lines, -1, -1, -1) for part in (keys, values)), number)
    return past
