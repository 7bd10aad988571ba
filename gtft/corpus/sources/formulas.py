"""Formulas: one example per ``*.formula.toml``, description in, TOML out; Markdown beside them as prose."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence

from gtft.corpus.example import Conversation, Entry, Labels
from gtft.corpus.files import InputFile, read_input_text
from gtft.corpus.tally import Tally

_SUFFIX = ".formula.toml"


def read(files: Sequence[InputFile], tally: Tally) -> Iterator[Conversation]:
    """One conversation per formula. Tables: ``records``, ``dropped``, ``kept``."""
    for file in files:
        tally.add("records", "formula")
        text = read_input_text(file)
        try:
            doc = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as e:
            tally.name("not TOML", file.name, int(getattr(e, "lineno", 0) or 0))
            tally.add("dropped", "not TOML")
            continue
        short = file.name.rsplit("/", 1)[-1].removesuffix(_SUFFIX)
        found = doc.get("formula")
        name = found if isinstance(found, str) and found else short
        description = doc.get("description")
        if not isinstance(description, str) or len(description.strip()) < 20:
            tally.add("dropped", "no description")
            continue
        tally.add("kept", "formula")
        lines = text.count("\n") + 1
        yield Conversation(
            source="formulas",
            file=file.name,
            links=(f"formula:{name}",),
            entries=(
                Entry("user", 1, text=f"Write the formula {name}.\n\n{description.strip()}"),
                Entry("assistant", lines, text=f"```toml\n{text.strip()}\n```", response=name),
            ),
            labels=Labels(rung="formula"),
            provenance="human",
            plain=text.strip(),
        )
