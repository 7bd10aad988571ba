"""What an ask that may have to be refused is made of."""

from __future__ import annotations

from typing import NamedTuple


class Twin(NamedTuple):
    """``instead`` is what is done: the thing asked for, or what is right in its place."""

    role: str
    me: str
    state: str
    ask: str
    refused: bool
    why: str
    instead: str
    shape: tuple[object, ...]
