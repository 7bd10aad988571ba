"""A report as sections of blocks, written as Markdown or as plain text of a given width.

In texts, ``…`` between backticks is code. All else is shown as it is: nothing in it is read as markup.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gtft.evals.telling.words import clean

LONGEST = 4000
# Names up to this length are not broken in a table of a terminal.
_NAME = 18
_MARKUP = re.compile(r"([\\*_\[\]|&#~$]|<(?=[A-Za-z/!?]))")
_CODE = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """``numeric``: columns that align right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()


@dataclass(frozen=True)
class Plot:
    """Only a page shows it; its figures stand in a table or sentence beside it. ``svg`` is markup."""

    caption: str
    svg: str


Block = Paragraph | Bullets | Table | Plot


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


def quote(text: object, longest: int = 300) -> str:
    """Others' text (answers, reasons, names) as code: one line, no markup in any of the forms."""
    return f"`{clean(text, longest).replace('`', chr(39)) or ' '}`"


def split_code(text: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a text as one line, and whether each is code."""
    for n, piece in enumerate(_CODE.split(clean(text, LONGEST))):
        if piece:
            yield piece, n % 2 == 1


def write_markdown(sections: Sequence[Section]) -> str:
    """The first section's title is the document's."""
    parts: list[str] = []
    for n, section in enumerate(sections):
        parts.append(f"{'#' if n == 0 else '##'} {_escape(section.title)}")
        parts += [text for b in section.blocks if (text := _mark(b))]
    return "\n\n".join(parts) + "\n"


def to_json(section: Section) -> dict[str, Any]:
    """For the store: texts and tables; plots stay on the page."""
    blocks: list[dict[str, Any]] = []
    for block in section.blocks:
        match block:
            case Paragraph(text):
                blocks.append({"text": _strip(text)})
            case Bullets(items):
                blocks += [{"text": _strip(i)} for i in items]
            case Table(columns, rows, _):
                cells = [[_strip(c) for c in r] for r in rows]
                blocks.append({"columns": list(columns), "rows": cells})
            case Plot():
                continue
    return {"title": section.title, "blocks": blocks}


def write_plain(sections: Sequence[Section], width: int) -> str:
    """For a terminal: lines of at most ``width`` characters, no colour."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table as Grid
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system=None, force_terminal=False, highlight=False
    )
    for n, section in enumerate(sections):
        title = section.title.upper() if n == 0 else section.title
        console.print(Text(f"{title}\n{('═' if n == 0 else '─') * len(title)}"))
        for block in section.blocks:
            match block:
                case Paragraph(text):
                    console.print(Text(_strip(text)))
                case Bullets(items):
                    for item in items:
                        grid = Grid.grid(padding=(0, 1))
                        grid.add_row(Text("-"), Text(_strip(item)))
                        console.print(grid)
                case Table(columns, rows, numeric):
                    grid = Grid(
                        box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=any(columns)
                    )
                    for at, name in enumerate(columns):
                        grid.add_column(
                            Text(name, style="none"),
                            justify="right" if at in numeric else "left",
                            no_wrap=at in numeric,
                            overflow="fold",
                            min_width=_find_width(rows, at),
                        )
                    for row in rows:
                        grid.add_row(*(Text(_strip(c)) for c in row))
                    console.print(Padding(grid, (0, 0, 0, 1)))
                case Plot():
                    continue
            console.print()
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines()) + "\n"


def _find_width(rows: Sequence[Sequence[str]], at: int) -> int | None:
    """The first column holds names, which are not broken unless they are long."""
    widest = max((len(_strip(r[at])) for r in rows), default=0)
    return widest if at == 0 and widest <= _NAME else None


def _mark(block: Block) -> str:
    match block:
        case Paragraph(text):
            return _escape(text)
        case Bullets(items):
            return "\n".join(f"- {_escape(i)}" for i in items)
        case Table(columns, rows, numeric):
            rule = ["---:" if n in numeric else "---" for n in range(len(columns))]
            lines = [[_escape(c) for c in columns], rule, *([_escape(c) for c in r] for r in rows)]
            return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        case Plot():
            return ""


def _escape(text: str) -> str:
    return "".join(
        "`" + piece.replace("|", "\\|") + "`" if code else _MARKUP.sub(r"\\\1", piece)
        for piece, code in split_code(text)
    )


def _strip(text: str) -> str:
    return "".join(piece for piece, _ in split_code(text))
