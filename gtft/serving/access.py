"""Who may ask, and what a request may be: checked before anything of it is read."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gtft.errors import InputError, UsageError, translate_os_error

TOKEN_VARIABLE = "GTFT_SERVE_TOKEN"  # noqa: S105
# A header of our own, for who needs the other two for the server that is asked instead.
TOKEN_HEADER = "x-gtft-token"  # noqa: S105
_TOKEN_HEADERS = ("authorization", "x-api-key", TOKEN_HEADER)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_SHORTEST_TOKEN = 16
_LARGEST_FILE = 4096

Refuse = Callable[[Request, int, str], Response]


class Access:
    """In front of the whole application.

    Without a token only this machine may ask, under a name of this machine: a page in a browser can neither send another
    Host than its own, nor JSON to another origin without asking first.
    """

    def __init__(self, app: ASGIApp, *, token: str, refuse: Refuse) -> None:
        self._app, self._token, self._refuse = app, token.encode(), refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        if found := self._judge(request):
            response = self._refuse(request, *found)
            # What comes of its body is not read.
            response.headers["Connection"] = "close"
            return await response(scope, receive, send)
        return await self._app(scope, receive, send)

    def _judge(self, request: Request) -> tuple[int, str] | None:
        if self._token:
            if not carries(request, self._token):
                return 401, "the token is missing or wrong: Authorization: Bearer, or x-api-key"
        elif _strip_port(request.headers.get("host", "")) not in _LOOPBACK:
            return 403, "ask from this machine, as 127.0.0.1 or localhost"
        if request.method == "POST":
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 403, "ask with Content-Type: application/json"
        return None


def carries(request: Request, token: bytes) -> bool:
    """Whether one of the headers for it holds the token."""
    return any(holds(request.headers.get(name, ""), token) for name in _TOKEN_HEADERS)


def holds(value: str, token: bytes) -> bool:
    """Whether a header's value is the token, with or without ``Bearer``; the time tells nothing."""
    scheme, _, rest = value.partition(" ")
    bare = rest if scheme.lower() == "bearer" else value
    return hmac.compare_digest(bare.strip().encode(), token)


def read_token(file: Path | None, environ: Mapping[str, str]) -> str:
    """The token of a file that only its owner may read, else of the environment, else "".

    Raises UsageError for a file that others may read, InputError for one that holds no token.
    """
    if file is None:
        return _check(environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE)
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise UsageError(
                    f"others may read the token in {file}",
                    why=f"its mode is {stat.S_IMODE(found.st_mode):o}",
                    fix=f"chmod 600 {file}",
                )
            data = f.read(_LARGEST_FILE + 1)
    except OSError as e:
        raise translate_os_error(e, "reading the token") from e
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise _refuse_token(str(file), "it is empty")
    return _check(text, str(file))


def _check(token: str, where: str) -> str:
    if not token:
        return ""
    if len(token) < _SHORTEST_TOKEN or len(token) > _LARGEST_FILE:
        raise _refuse_token(where, f"a token has at least {_SHORTEST_TOKEN} characters")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise _refuse_token(where, "a token is one word of letters and digits")
    return token


def _refuse_token(where: str, why: str) -> InputError:
    make = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
    return InputError(f"{where} holds no token that can be used", why=why, fix=make)


def _strip_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
