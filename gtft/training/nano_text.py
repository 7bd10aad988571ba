"""The nano base's reading matter: a corpus's ``base.txt`` as plain documents and as chats.

The embeddings of a base stay frozen under LoRA, so the chat tokens must mean something before
fine-tuning starts. Documents are therefore also read as chats: the first line asks, the rest answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

END = "<|endoftext|>"
START_TURN = "<|im_start|>"
END_TURN = "<|im_end|>"
SPECIAL = (END, START_TURN, END_TURN)

_CHUNK_CHARS = 700
_TITLE_CHARS = 200


def split_documents(text: str) -> list[str]:
    """The documents of a base text: between form feeds, else between runs of blank lines."""
    parts = text.split("\f") if "\f" in text else re.split(r"\n{3,}", text)
    return [p.strip("\n") for p in parts if p.strip()]


def split_passages(document: str, limit: int = _CHUNK_CHARS) -> Iterator[str]:
    """Cut a document between paragraphs (else between lines) into passages of about ``limit`` characters."""
    held = ""
    for block in re.split(r"\n{2,}", document):
        for piece in _cut_lines(block, limit):
            if held and len(held) + len(piece) > limit:
                yield held
                held = ""
            held = f"{held}\n\n{piece}" if held else piece
    if held:
        yield held


def render_passages(document: str) -> list[str]:
    """Every passage of a document as training text: as it is, and as a chat where it has a first line."""
    out: list[str] = []
    for passage in split_passages(document):
        clean = escape_special(passage)
        out.append(clean + END)
        title, _, rest = clean.partition("\n")
        rest = rest.strip("\n")
        if rest and title.strip():
            out.append(_chat(title.strip()[:_TITLE_CHARS], rest))
    return out


def escape_special(text: str, special: tuple[str, ...] = SPECIAL) -> str:
    """Text in which no special token's spelling is left: a space follows its first character."""
    for token in special:
        if len(token) > 1 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _chat(question: str, answer: str) -> str:
    return (
        f"{START_TURN}user\n{question}{END_TURN}\n{START_TURN}assistant\n{answer}{END_TURN}\n{END}"
    )


def _cut_lines(block: str, limit: int) -> Iterator[str]:
    held = ""
    for line in block.split("\n"):
        if held and len(held) + len(line) > limit:
            yield held
            held = ""
        held = f"{held}\n{line}" if held else line[: 4 * limit]
    if held.strip():
        yield held
