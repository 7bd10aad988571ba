"""Formulas: one example per formula, description in, TOML out (JSON for the oldest ones)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation, Entry, Evidence, Labels
from gtft.corpus.files import InputFile, read_head
from gtft.corpus.jsonl import parse_object
from gtft.corpus.sources.clues import Held
from gtft.corpus.tally import Tally

LONGEST_FORMULA = 256 * 1024
# tomllib takes a time that grows with the square of a dotted key.
_MOST_DOTS = 100
_LEAST_DESCRIPTION = 20


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """One conversation per formula. Tables: ``records``, ``dropped``, ``kept``."""
    for file in files:
        tally.add("records", "formula")
        held = Held(claims)
        talk = _read_formula(file, held, tally)
        if isinstance(talk, str):
            tally.add("dropped", talk)
        else:
            tally.add("kept", "formula")
            yield talk
        held.note(f"formula:{file.name}")


def _read_formula(file: InputFile, held: Held, tally: Tally) -> Conversation | str:
    """What a file asks and answers, or the reason why it is left out."""
    raw = read_head(file, LONGEST_FORMULA + 1)
    if len(raw) > LONGEST_FORMULA:
        tally.name("formula too long", file.name, 1)
        return "too long"
    text = raw.decode("utf-8", "replace").strip("\ufeff \t\r\n")
    kind = "json" if text.startswith("{") else "toml"
    doc = _parse(text, kind, file, tally)
    if doc is None:
        return f"not {kind.upper()}"
    short = file.name.rsplit("/", 1)[-1].partition(".formula.")[0]
    found = doc.get("formula")
    name = found if isinstance(found, str) and found else short
    description = doc.get("description")
    if not isinstance(description, str) or len(description.strip()) < _LEAST_DESCRIPTION:
        return "no description"
    if not held.take(f"formula {text}"):
        return "copy of another formula"
    return Conversation(
        source="formulas",
        file=file.name,
        links=(f"formula:{name}",),
        entries=(
            Entry("user", 1, text=f"Write the formula {name}.\n\n{description.strip()}"),
            Entry("assistant", text.count("\n") + 1, text=f"```{kind}\n{text}\n```", response=name),
        ),
        evidence=Evidence(candidates=(Labels(rung="formula"),)),
        provenance="human",
        plain=text,
    )


def _parse(text: str, kind: str, file: InputFile, tally: Tally) -> dict[str, Any] | None:
    if kind == "json":
        doc = parse_object(text)
        if doc is None:
            tally.name("not JSON", file.name, 1)
        return doc
    try:
        return parse_toml(text)
    except ValueError as e:
        tally.name("not TOML", file.name, int(getattr(e, "lineno", 0) or 0))
        return None


def parse_toml(text: str) -> dict[str, Any]:
    """The document. Raises ValueError when it is none, nests too deep, or would take too long."""
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
        raise ValueError("a line with too many dots")
    try:
        return tomllib.loads(text)
    except RecursionError as e:
        raise ValueError("nested too deep") from e
