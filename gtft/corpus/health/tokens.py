"""What a bead id costs in tokens of a tokenizer: ids that fall apart into many pieces are hard to copy."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gtft.corpus.example import Example, Message
from gtft.errors import InputError, MissingExtra

# An id is a known prefix, a dash, and 2 to 8 of base 36, perhaps ".1": prefixes come from ids that are labels.
_ID = re.compile(r"\b([a-z][a-z0-9]{0,19})-([a-z0-9]{2,8}(?:\.\d{1,4}){0,3})(?![\w-])")
_MOST_IDS = 50_000
_SHOWN = 5

Encode = Callable[[str], int]


def load_tokenizer(path: Path) -> Encode:
    """Text → number of tokens, by the ``tokenizer.json`` at ``path`` or in the folder ``path``.

    Raises MissingExtra without the tokenizers library, InputError for a file that is not one.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        from tokenizers import Tokenizer
    except ImportError as e:
        raise MissingExtra(
            "counting tokens needs the tokenizers library",
            why=str(e),
            fix='pip install "gtft[train]" -c constraints.txt',
        ) from e
    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as e:
        raise InputError(
            f"{file} cannot be read", why=str(e), fix="name a folder that holds a tokenizer.json"
        ) from e
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as e:  # the library raises nothing narrower
        raise InputError(
            f"{file} is not a tokenizer", why=str(e)[:200], fix="name a tokenizer.json"
        ) from e
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def list_texts(message: Message) -> Iterator[str]:
    """What a message says: its content, and the arguments of its calls as JSON."""
    if message["content"]:
        yield message["content"]
    for call in message.get("tool_calls") or ():
        yield json.dumps(call["function"].get("arguments"), ensure_ascii=False)


class BeadIds:
    """The bead ids that examples mention, known by the prefixes of those that are labels."""

    def __init__(self) -> None:
        self._prefixes: set[str] = set()
        self._met: Counter[tuple[str, str]] = Counter()

    def add(self, example: Example) -> None:
        if example.bead and (own := _ID.fullmatch(example.bead)):
            self._prefixes.add(own[1])
        for message in example.messages:
            for text in list_texts(message):
                for found in _ID.findall(text) if "-" in text else ():
                    if found in self._met or len(self._met) < _MOST_IDS:
                        self._met[found] += 1

    def describe(self, encode: Encode) -> dict[str, Any]:
        """Tokens per bead id, by prefix."""
        met = sorted(self._met.items())
        ids = {f"{p}-{r}": n for (p, r), n in met if p in self._prefixes}
        costs = {name: encode(name) for name in ids}
        by_prefix = {
            prefix: _describe([costs[i] for i in ids if i.startswith(f"{prefix}-")])
            for prefix in sorted(self._prefixes)
        }
        dearest = sorted(ids, key=lambda i: (-costs[i], i))[:_SHOWN]
        mentions = sum(ids.values())
        tokens = sum(costs[i] * n for i, n in ids.items())
        return {
            "ids": len(ids),
            "mentions": mentions,
            "tokens": tokens,
            "tokens per mention": round(tokens / mentions, 2) if mentions else 0.0,
            "by prefix": {p: d for p, d in by_prefix.items() if d},
            "dearest": {i: costs[i] for i in dearest},
        }


def measure_tokens(examples: Iterable[Example], encode: Encode) -> dict[str, Any]:
    """Tokens per bead id, by prefix, over the ids that the examples mention. Examples are read once."""
    ids = BeadIds()
    for example in examples:
        ids.add(example)
    return ids.describe(encode)


def _describe(costs: list[int]) -> dict[str, Any]:
    if not costs:
        return {}
    return {"ids": len(costs), "mean": round(sum(costs) / len(costs), 2), "max": max(costs)}


def render_tokens(tokens: dict[str, Any]) -> str:
    """The same as a section of the page."""
    if not tokens["ids"]:
        return "## Tokens per bead id\n\nNo example is labelled with a bead id, so none can be told from a word.\n"
    lines = [
        "## Tokens per bead id",
        "",
        f"{tokens['ids']:,} ids, {tokens['mentions']:,} mentions, "
        f"{tokens['tokens per mention']} tokens each on average.",
        "",
    ]
    lines += [
        f"- {prefix}-…: {d['ids']:,} ids, {d['mean']} tokens on average, {d['max']} at most"
        for prefix, d in tokens["by prefix"].items()
    ]
    return "\n".join(lines) + "\n"
