"""The socket: connections that send or read nothing are ended, signals let answers in flight end, nothing of a prompt is logged."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from gtft.errors import InputError

# Open connections; further ones are told 503.
MOST_CONNECTIONS = 512
# Bytes of a request's line and headers.
_MOST_HEADERS = 32 << 10
# Of a connection that has not sent one whole request, or reads nothing of its answer.
_HEADERS_S = 15.0
_WRITE_S = 60.0
_LOOK_S = 5.0
_KEEP_S = 15


class _Line(H11Protocol):
    """uvicorn has a limit for neither: a client that never ends its headers, one that never takes its answer."""

    _begun = 0.0
    _full_since = 0.0
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begun = self.loop.time()
        self._look = self.loop.call_later(_LOOK_S, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        now = self.loop.time()
        if not self.transport.get_write_buffer_size():
            self._full_since = 0.0
        elif not self._full_since:
            self._full_since = now
        idle = self.cycle is None or (
            self.cycle.response_complete and self.timeout_keep_alive_task is None
        )
        if not idle:
            self._begun = now
        slow = idle and now - self._begun > _HEADERS_S
        stuck = bool(self._full_since) and now - self._full_since > _WRITE_S
        if slow or stuck:
            self.transport.abort()
        else:
            self._look = self.loop.call_later(_LOOK_S, self._watch)


class Listener(uvicorn.Server):
    """Serves ``app`` on a socket that listens already, until a signal or `stop`. ``begin_end`` is told when it begins to
    end; answers in flight have ``seconds`` then."""

    def __init__(self, app: ASGIApp, seconds: float, begin_end: Callable[[], None]) -> None:
        super().__init__(
            Config(
                app,
                http=_Line,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=_MOST_HEADERS,
                timeout_keep_alive=_KEEP_S,
                timeout_graceful_shutdown=max(1, round(seconds)),
            )
        )
        self._begin_end = begin_end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again afterwards: ending as asked is no failure.
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        self._begin_end()
        self.should_exit = True


def open_socket(host: str, port: int) -> socket.socket:
    """Bound and listening; port 0 is any free one. Raises InputError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except OSError as e:
        raise InputError(
            f"{host}:{port} cannot be listened on",
            why=e.strerror or str(e),
            fix="gtft model serve --port 0",
        ) from e
    found.setblocking(False)
    return found


def log_without_prompts() -> None:
    """Warnings and bugs go to stderr: where and of what kind, without a message, which may quote a request."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    # uvicorn warns of every request that is none.
    logging.getLogger("gtft").setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    def formatException(  # noqa: N802
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        found = ei[1]
        if found is None:
            return ""
        frames = traceback.extract_tb(found.__traceback__)[-6:]
        places = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames))
        return f"{type(found).__name__} at {places}"
