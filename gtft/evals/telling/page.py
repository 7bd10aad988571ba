"""The verdict as one HTML page: no script, no network, good in light and dark, without colour and on paper."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from gtft.evals.telling.advice import DEPLOY, SHADOW
from gtft.evals.telling.blocks import Block, Bullets, Paragraph, Plot, Section, Table, split_code
from gtft.evals.telling.verdict import answer_first, list_sections

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def draw_page(report: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> str:
    """verdict.html. The same figures give the same bytes; every text in it is escaped."""
    style = files("gtft.evals.telling").joinpath("page.css").read_text("utf-8")
    head, *rest = list_sections(report, timing)
    body = [_draw_head(report, head), *map(_draw_section, rest)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Verdict: {_write(report['advice']['do'])}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _draw_head(report: Mapping[str, Any], head: Section) -> str:
    advice = report["advice"]["do"]
    kind = "" if advice == DEPLOY else " shadow" if advice == SHADOW else " stop"
    rows = "".join(f"<dt>{_write(q)}</dt><dd>{_write(a)}</dd>\n" for q, a in answer_first(report))
    lead = "".join(_draw(b) for b in head.blocks if isinstance(b, Paragraph))
    return f'<h1>{_write(head.title)}: {_write(advice)}</h1>\n{lead}\n<div class="first{kind}"><dl>\n{rows}</dl></div>'


def _draw_section(section: Section) -> str:
    blocks = "\n".join(drawn for b in section.blocks if (drawn := _draw(b)))
    return f"<section>\n<h2>{_write(section.title)}</h2>\n{blocks}\n</section>"


def _draw(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_write(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_write(i)}</li>" for i in items) + "\n</ul>"
        case Table(columns, rows, numeric):
            lines = [
                _draw_row("th", columns, numeric),
                *(_draw_row("td", r, numeric) for r in rows),
            ]
            return '<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>"
        case Plot(caption, svg):
            return f"<figure>\n<figcaption>{_write(caption)}</figcaption>\n{svg}\n</figure>" * bool(
                svg
            )


def _draw_row(tag: str, cells: Sequence[str], numeric: Sequence[int]) -> str:
    kinds = [' class="number"' if n in numeric else "" for n in range(len(cells))]
    drawn = (f"<{tag}{k}>{_write(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True))
    return f"<tr>{''.join(drawn)}</tr>"


def _write(text: str) -> str:
    return "".join(
        f"<code>{html.escape(piece)}</code>" if code else html.escape(piece)
        for piece, code in split_code(text)
    )
