"""What a bead id costs in tokens of a tokenizer: ids that fall apart into many pieces are hard to copy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gtft.corpus.example import Example
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
            "tokens per bead id need the tokenizers library",
            why=str(e),
            fix='pip install "gtft[train]", or leave --tokenizer out',
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


def measure_tokens(examples: Iterable[Example], encode: Encode) -> dict[str, Any]:
    """Tokens per bead id, by prefix, over the ids that the examples mention. Examples are read once."""
    prefixes: set[str] = set()
    met: Counter[tuple[str, str]] = Counter()
    for example in examples:
        if example.bead and (own := _ID.fullmatch(example.bead)):
            prefixes.add(own[1])
        for message in example.messages:
            if "-" in message["content"]:
                for prefix, rest in _ID.findall(message["content"]):
                    if (prefix, rest) in met or len(met) < _MOST_IDS:
                        met[prefix, rest] += 1
    ids = {f"{p}-{r}": n for (p, r), n in sorted(met.items()) if p in prefixes}
    costs = {name: encode(name) for name in ids}
    by_prefix = {
        prefix: _describe([costs[i] for i in ids if i.startswith(f"{prefix}-")])
        for prefix in sorted(prefixes)
    }
    dearest = sorted(ids, key=lambda i: (-costs[i], i))[:_SHOWN]
    mentions = sum(ids.values())
    tokens = sum(costs[i] * n for i, n in ids.items())
    return {
        "ids": len(ids),
        "mentions": mentions,
        "tokens per mention": round(tokens / mentions, 2) if mentions else 0.0,
        "by prefix": {p: d for p, d in by_prefix.items() if d},
        "dearest": {i: costs[i] for i in dearest},
    }


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
