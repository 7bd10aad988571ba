"""Views: the same text as somebody else would read it, so that a secret in another form is found by the same rules.

One step undoes one layer:

- `decode`: JSON escapes of one level, ANSI sequences and URL escapes;
- `strip_prefixes`: ``cat -n``, ``grep -n``, diff, quotes and boxes at the start of lines;
- `join_wraps`: lines that were cut at a width in the middle of a token;
- `decode_base64`: runs of base64 (both alphabets) that hold text.

A view holds its bytes, and pieces that map each of them back to its parent; a hit is mapped through the chain to a
span of the source. `HINTS` are expressions for the gate: where none of a step hits, its view is not made.
"""

from __future__ import annotations

import binascii
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property

from gtft.corpus.redaction.gate import compile_re2

# JSON in JSON in JSON is the deepest that tools write; base64 and wraps come on top.
_LEVELS = 3
_DEEPEST = 9
# All views of a text together are at most so many times its size.
_MOST_TIMES = 12

_CHARS = "A-Za-z0-9+/_=.~!@$&*%^#?-"
_BEFORE_LINE = (
    r"(?:[ \t]{0,12}(?:\d{1,7}(?:\xe2\x86\x92|\t|:|-| ?\|)|[+>|-]|\xe2\x94\x82)[ \t]?|[ \t]{1,40})?"
)
# Base64 of ASCII: the first bit of every byte is 0, and that shows in three characters of four.
_BASE64_ASCII = "[A-Za-f][A-HQ-Xg-nw-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_-]"

# What a token is made of near a cut; without the full stop, which ends sentences.
_CUT = r"\-A-Za-z0-9+/_=!#%^*"
# A line break between two pieces of a token, with a digit near it: random text has one, prose and code seldom.
_CUTS = (
    rf"[0-9][A-Za-z0-9+/_=-]{{0,12}}\\?\r?\n{_BEFORE_LINE}(?:[A-Za-z+/_=@^*]|[0-9]{{1,20}}[A-Za-z+/_=-])[A-Za-z0-9+/_=*^%\r\n\"'-]",
    rf"[A-Za-z0-9+/_=.-]{{2}}\\?\r?\n{_BEFORE_LINE}(?:[A-Za-z+/_][A-Za-z0-9+/_=-]{{0,20}}[0-9]|[0-9]{{1,20}}[A-Za-z+/_-])",
    # Base64 may have no digit there. It has a hint of its own.
    rf"(?:{_BASE64_ASCII}){{4}}[A-Za-z0-9+/_-]{{0,3}}\r?\n{_BEFORE_LINE}[A-Za-z0-9+/_-]{{2}}",
)
HINTS: dict[str, tuple[str, ...]] = {
    "decode": (r'\\["\\/bfnrtu\']', r"\\x[2-7]", r"%(?:[2-7][0-9A-Fa-f]|0[9AaDd])", r"\x1b[\[\]]"),
    "join": _CUTS[:2],
    "base64": (rf"(?:{_BASE64_ASCII}){{5}}",),
}


@dataclass(frozen=True)
class Pieces:
    """Piece i starts at ``at[i]`` of the view and stands for the parent's bytes from ``source[i]``.

    ``width[i]`` is 0 for bytes copied one to one; else every byte of the piece stands for that many of the parent's.
    """

    at: list[int]
    source: list[int]
    width: list[int]

    def map(self, start: int, end: int) -> tuple[int, int]:
        """The parent's span of a span that is not empty."""
        i = bisect_right(self.at, start) - 1
        first = self.source[i] if self.width[i] else self.source[i] + start - self.at[i]
        i = bisect_right(self.at, end - 1) - 1
        return first, self.source[i] + (self.width[i] or end - self.at[i])


@dataclass
class View:
    """``data`` as read by one ``step`` from ``parent``; ``joins``: offsets where a line break was taken out."""

    data: bytes
    step: str = "text"
    parent: View | None = None
    make_pieces: Callable[[], Pieces] | None = None
    joins: tuple[int, ...] = ()
    depth: int = 0
    levels: int = 0

    @cached_property
    def pieces(self) -> Pieces:
        """Made when the first hit asks: nearly every view has none."""
        assert self.make_pieces is not None
        return self.make_pieces()

    def find_source(self, start: int, end: int) -> tuple[int, int]:
        """The span of the source that ``data[start:end]`` (not empty) stands for."""
        view = self
        while view.parent is not None:
            start, end = view.pieces.map(start, end)
            view = view.parent
        return start, end

    def has_step(self, step: str) -> bool:
        """True when this view or a parent of it was made by ``step``."""
        view: View | None = self
        while view is not None:
            if view.step == step:
                return True
            view = view.parent
        return False


@dataclass
class _Builder:
    """Collects from left to right what is copied and what is put in its place."""

    data: bytes
    parts: list[bytes] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    size: int = 0

    def copy(self, start: int, end: int) -> None:
        if end > start:
            self._add(self.data[start:end], start, 0)

    def replace(self, text: bytes, start: int, end: int) -> None:
        if text:
            self._add(text, start, end - start)

    def _add(self, text: bytes, source: int, width: int) -> None:
        self.parts.append(text)
        self.at.append(self.size)
        self.source.append(source)
        self.width.append(width)
        self.size += len(text)

    def view(self, step: str, parent: View, joins: tuple[int, ...] = ()) -> View | None:
        if not self.parts:
            return None
        pieces = Pieces(self.at, self.source, self.width)
        return _child(parent, b"".join(self.parts), step, lambda: pieces, joins)


def _child(
    parent: View,
    data: bytes,
    step: str,
    make_pieces: Callable[[], Pieces],
    joins: tuple[int, ...] = (),
) -> View:
    levels = parent.levels + (step == "decode")
    return View(data, step, parent, make_pieces, joins, parent.depth + 1, levels)


_ANSI = (
    rb"\x1b(?:\[[0-9;:?]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\)?|[()][0-9A-B])"
)
_HARD = (
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\x[0-7][0-9a-fA-F]"
    rb"|%[0-7][0-9a-fA-F]|" + _ANSI
)
_SIMPLE = {
    b'\\"': b'"', b"\\'": b"'", b"\\/": b"/", b"\\b": b"\b", b"\\f": b"\f",
    b"\\n": b"\n", b"\\r": b"\r", b"\\t": b"\t", b"\\\\": b"\\",
}  # fmt: skip
_ESCAPE = re.compile(rb"\\[\"'\\/bfnrt]|" + _HARD)
_ANY_ESCAPE = compile_re2("|".join(HINTS["decode"]))


def _undo(escape: bytes) -> bytes:
    simple = _SIMPLE.get(escape)
    if simple is not None:
        return simple
    if escape[0] == 0x1B:
        return b""
    if escape[0] == 0x25:
        return bytes((int(escape[1:], 16),))
    if escape[1] == 0x78:
        return bytes((int(escape[2:], 16),))
    units = bytes.fromhex((escape[2:6] + escape[8:]).decode())
    return units.decode("utf-16-be", "replace").encode()


# Few lines reach further; a value and what tells of it stand nearer.
_AROUND = 300
_SHORT = 2048


def decode(view: View) -> View | None:
    """One level of JSON escapes, ANSI sequences and URL escapes taken off; None when there are none."""
    near = _excerpt(view)
    data = _decode_quickly(near.data)
    if data == near.data:
        return None
    return _child(near, data, "decode", lambda: _decoded_pieces(near.data))


def _excerpt(view: View) -> View:
    """The lines around escapes, when those are few: what stands far from any reads the same decoded."""
    data = view.data
    if len(data) < _SHORT:
        return view
    out = _Builder(data)
    at = 0
    while (m := _ANY_ESCAPE.search(data, at)) is not None:
        start = max(at, data.rfind(b"\n", 0, max(0, m.start() - _AROUND)) + 1)
        end = data.find(b"\n", m.end() + _AROUND) + 1 or len(data)
        out.copy(start, end)
        at = end
    if out.size * 4 > len(data) * 3:
        return view
    return out.view("excerpt", view) or view


def _decode_quickly(data: bytes) -> bytes:
    if b"\\u" in data or b"\\x" in data or b"%" in data or b"\x1b" in data or b"\0" in data:
        return _ESCAPE.sub(lambda m: _undo(m.group()), data)
    # The same in a few passes of C: pairs of backslashes first, held aside as NUL.
    data = data.replace(b"\\\\", b"\0")
    for escape, plain in _SIMPLE.items():
        data = data.replace(escape, plain)
    return data.replace(b"\0", b"\\")


def _decoded_pieces(data: bytes) -> Pieces:
    out = _Builder(data)
    at = 0
    for m in _ESCAPE.finditer(data):
        start, end = m.span()
        out.copy(at, start)
        out.replace(_undo(m.group()), start, end)
        at = end
    out.copy(at, len(data))
    return Pieces(out.at, out.source, out.width)


# A number and what cat -n, grep -n, blame and editors put behind it; diff, quote and box marks; indents.
_NUMBERED = re.compile(
    rb"[ \t]{0,12}(?:[\w./-]{1,200}[:-])?(\d{1,7})(?:\xe2\x86\x92|\t|: ?|- ?| ?\| ?|  )"
)
_MARKED = re.compile(rb"[ \t]{0,12}(?:[+>|#*]|-(?!-)|\xe2\x94\x82|//)[ \t]?")
_INDENT = re.compile(rb"[ \t]{1,80}")


def _find_prefix(line: bytes) -> tuple[bytes, int, int]:
    """(class, length, number) of what may stand before the text of a line."""
    m = _NUMBERED.match(line)
    if m:
        return b"number", m.end(), int(m.group(1))
    m = _MARKED.match(line)
    if m:
        return m.group().strip(), m.end(), 0
    m = _INDENT.match(line)
    if m:
        return b"indent", m.end(), 0
    return b"", 0, 0


def strip_prefixes(view: View) -> View | None:
    """The text without what stands before its lines, where a line beside has the same; None without any."""
    lines = view.data.split(b"\n")
    found = [_find_prefix(line) for line in lines]
    out = _Builder(view.data)
    at = 0
    stripped = False
    for i, line in enumerate(lines):
        skip = _shared_prefix(found, i)
        stripped = stripped or skip > 0
        end = min(at + len(line) + 1, len(view.data))
        out.copy(at + skip, end)
        at = end
    return out.view("strip", view) if stripped else None


def _shared_prefix(found: list[tuple[bytes, int, int]], i: int) -> int:
    kind, length, number = found[i]
    if not kind:
        return 0
    for j, step in ((i - 1, 1), (i + 1, -1)):
        same = 0 <= j < len(found) and found[j][0] == kind
        if same and (kind != b"number" or found[j][2] + step == number):
            return length
    return 0


_BREAK = compile_re2("|".join(f"(?:{c})" for c in _CUTS))
_HEAD = re.compile(rb"[%s]{1,400}\Z" % _CHARS.encode())
_TAIL = re.compile(rb"[%s]{1,400}" % _CHARS.encode())
_LISTED = 4
_LEAST_WIDTH = 10
_CLOSING = re.compile(rb"[\"'`,;)}\]>\\]{0,6}\s*\Z")
_KEY_AFTER = re.compile(rb"\s?[=(]|:(?:\s|\Z)")
_WORD = re.compile(rb"[.,:]?[A-Za-z]?[a-z]+[.,:!?]?|[A-Z]+")
_NAME = re.compile(rb"[A-Za-z_][\w.-]*")
_CONTINUED = re.compile(rb"\\?\r?\Z")
_TERMINAL = 50


@dataclass(frozen=True)
class _Cut:
    """A token stops at ``start`` and goes on at ``end``, in another line; ``text`` is where the text of the first
    line starts behind its prefix, ``width`` how long it is."""

    start: int
    end: int
    line_start: int
    line_end: int
    text: int
    width: int


def join_wraps(view: View) -> View | None:
    """The lines around each place where a line break cuts a token, without those breaks; None without any.

    Prefixes that the lines on both sides have go as well. Lines far from any cut are not in the view.
    """
    data = view.data
    out = _Builder(data)
    joins: list[int] = []
    at = 0
    while (m := _BREAK.search(data, at)) is not None:
        newline = data.index(b"\n", m.start())
        chain = _find_chain(data, newline, at)
        at = newline + 1
        if not chain:
            continue
        at = data.rfind(b"\n", 0, chain[-1].end) + 1
        first = chain[0].line_start
        # The line above may hold the key of what was cut.
        out.copy(data.rfind(b"\n", 0, max(0, first - 1)) + 1, first)
        start = chain[0].text
        for cut in chain:
            out.copy(start, cut.start)
            joins.append(out.size)
            start = cut.end
        out.copy(start, min(chain[-1].line_end + 1, len(data)))
    return out.view("join", view, tuple(joins)) if joins else None


def _find_chain(data: bytes, newline: int, done: int) -> list[_Cut]:
    """The cut at a line break, and those of the lines before and after it that are as wide."""
    cut = _find_cut(data, newline)
    if cut is None:
        return []
    chain = [cut]
    while chain[0].line_start - 1 >= done:
        before = _find_cut(data, chain[0].line_start - 1, width=cut.width)
        if before is None or before.width != cut.width:
            break
        chain.insert(0, before)
    while True:
        after = _find_cut(data, chain[-1].line_end, chain[-1], cut.width)
        if after is None or after.width != cut.width:
            return chain
        chain.append(after)


def _find_cut(data: bytes, newline: int, before: _Cut | None = None, width: int = 0) -> _Cut | None:
    """The cut at a line break, or None; ``before`` is the cut at the break before, ``width`` that of a cut beside it:
    lines that are as wide on both sides of the break were cut there whatever they hold."""
    if not 0 <= newline < len(data):
        return None
    line_start = data.rfind(b"\n", 0, newline) + 1
    line_end = data.find(b"\n", newline + 1)
    line_end = len(data) if line_end < 0 else line_end
    if line_end - newline > newline - line_start + 4:
        return None
    line, following = data[line_start:newline], data[newline + 1 : line_end]
    one, two = _find_prefix(line), _find_prefix(following)
    same = one[0] == two[0] and (one[0] != b"number" or one[2] + 1 == two[2])
    skip, skip_next = (one[1], two[1]) if same else (0, 0)
    text = _CONTINUED.sub(b"", line[skip:])
    text_next = _CONTINUED.sub(b"", following[skip_next:])
    folded = _LEAST_WIDTH <= width == len(text) == len(text_next)
    if not folded and not _is_cut(text, text_next, before.width if before else 0):
        return None
    first = line_start + skip
    return _Cut(first + len(text), newline + 1 + skip_next, line_start, line_end, first, len(text))


def _is_cut(line: bytes, following: bytes, before: int) -> bool:
    """Whether a token goes on in the next line. ``before``: the width at which the line before was cut, or 0."""
    if len(following) > len(line) or not following or len(line) < 4:
        return False
    if line[:_LISTED] == following[:_LISTED]:
        # A list of paths or ids, each on a line of its own.
        return False
    head = _HEAD.search(line, max(0, len(line) - 400))
    tail = _TAIL.match(following)
    if head is None or tail is None:
        return False
    rest = following[tail.end() :]
    if _is_setting(tail.group(), rest):
        # The next line is a setting of its own, unless all lines before are as wide as this one.
        return before == len(line) and _looks_random(head.group())
    if not _looks_random(head.group() + tail.group()):
        return False
    full = before == len(line) or (len(line) == len(following) and not rest)
    if _WORD.fullmatch(tail.group()):
        if tail.group().isupper() and head.group().isupper() and _looks_random(head.group()[-16:]):
            # A token in capitals goes on in capitals.
            return _CLOSING.match(rest) is not None
        # The rest of another random token seldom reads as a word, unless it is short.
        return tail.end() <= (3 if full else 2 if not rest else 0)
    if full or (tail.group().startswith(b"@") and b"://" in line):
        return True
    if tail.group().startswith((b"/", b"./", b"--")) or tail.group() in (b"-", b"+"):
        return False
    # At a terminal's width the rest of a token need not look like one.
    wide = len(line) >= _TERMINAL and len(tail.group()) >= 3
    return wide or _looks_random(tail.group()) or _CLOSING.match(rest) is not None


def _is_setting(token: bytes, rest: bytes) -> bool:
    """Whether a line that starts so gives a name and what it is set to."""
    key, equals, value = token.partition(b"=")
    if _NAME.fullmatch(key) is None or _looks_random(key):
        return False
    return bool(equals and value.strip(b"=")) or (not equals and _KEY_AFTER.match(rest) is not None)


def _looks_random(token: bytes) -> bool:
    """Digits among letters, or letters that change their case again and again: no word of prose."""
    digits = len(token) - len(token.translate(None, b"0123456789"))
    return (0 < digits < len(token) and not token.isdigit()) or len(_TURN.findall(token)) >= 3


_TURN = re.compile(rb"[a-z][A-Z]")
_RUN = compile_re2(rf"[A-Za-z0-9+/_-]*?((?:{_BASE64_ASCII}){{5}})[A-Za-z0-9+/_-]*={{0,2}}")
_SHORTEST_RUN = 24
_URL_TO_STD = bytes.maketrans(b"-_", b"+/")


def decode_base64(view: View) -> View | None:
    """The texts in runs of base64, each on lines of its own and mapped to its whole run; None without any."""
    out = _Builder(view.data)
    for m in _RUN.finditer(view.data):
        start, end = m.span()
        if end - start < _SHORTEST_RUN:
            continue
        text = _decode_run(view.data[start:end], (m.start(1) - start) % 4)
        if text:
            out.replace(b"\n" + text + b"\n", start, end)
    return out.view("base64", view)


def _decode_run(run: bytes, skip: int) -> bytes:
    """What the run says when its quads start at ``skip``, or nothing when that is no text."""
    quads = run[skip:].rstrip(b"=").translate(_URL_TO_STD)
    quads += b"A" if len(quads) % 4 == 1 else b""
    try:
        text = binascii.a2b_base64(quads + b"=" * (-len(quads) % 4))
    except binascii.Error:
        return b""
    plain = text.translate(None, _CONTROL)
    return text if len(plain) * 10 >= len(text) * 9 else b""


_CONTROL = bytes(c for c in range(256) if (c < 32 and c not in (9, 10, 13, 27)) or c == 127)


def grow(view: View, hints: Set[str]) -> Iterator[View]:
    """The views that ``hints`` ask for; ``lines`` asks for the text without line prefixes."""
    if view.depth >= _DEEPEST:
        return
    if "decode" in hints and view.levels < _LEVELS:
        yield from _present(decode(view))
    if "lines" in hints and view.step != "strip":
        yield from _present(strip_prefixes(view))
    if ("join" in hints or "base64" in hints) and view.step != "join":
        yield from _present(join_wraps(view))
    if "base64" in hints:
        yield from _present(decode_base64(view))


def _present(view: View | None) -> Iterator[View]:
    if view is not None:
        yield view


def limit_size(size: int) -> int:
    """How many bytes all views of a text of ``size`` bytes may have together."""
    return size * _MOST_TIMES + (1 << 16)
