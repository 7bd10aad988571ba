"""Asking who answered before: the request goes on as it came, and what comes back goes to the client as it comes.

The client's own credentials go to the one address that the route names, and nowhere else: redirects are not followed,
nothing is written down, and another machine is only asked over https. What belongs to this server is taken out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import Response

from gtft.serving.access import holds
from gtft.serving.desk import Events
from gtft.serving.question import Refused

# Of one connection, and none of the message (RFC 9110, 7.6.1); the rest is written anew.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "content-length", "expect",
    }
)  # fmt: skip
_OURS = "x-gtft-"
# Its clients put it right behind an address that has a path of its own, which need not end with a version.
_RESPONSES = "/v1/responses"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HERE = ("all://127.0.0.1", "all://[::1]", "all://localhost")
_CONNECT_S = 10.0
# Between two pieces of an answer, while the other server thinks.
_READ_S = 600.0

Finish = Callable[[], Awaitable[None]]


class Previous:
    """One client for all routes. ``token``: of this server, which is never passed on."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S),
            # A proxy of the environment has nothing to do with this machine.
            mounts=dict.fromkeys(_HERE),
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(
        self, url: str, path: str, request: Request, body: bytes, finish: Finish
    ) -> Response:
        """The other server's response, as it comes; ``finish`` runs at its end. Raises Refused when there is none."""
        address = make_address(url, path, request.url.query)
        if urlsplit(address).netloc == request.headers.get("host"):
            raise Refused(
                502, "the previous agent's server is this one: it cannot be asked instead"
            )
        headers = self._pass_headers(request)
        try:
            # Not through the client's own defaults: the request goes on as it came.
            sent = httpx.Request(request.method, address, headers=headers, content=body or None)
            response = await self._client.send(sent, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            why = f"the previous agent's server did not answer ({type(e).__name__})"
            raise Refused(502, why) from e
        if response.is_redirect:
            await response.aclose()
            raise Refused(502, "the previous agent's server sends elsewhere, which is not followed")

        async def end() -> None:
            await response.aclose()
            await finish()

        passed = Events(_read(response), end)
        passed.status_code = response.status_code
        passed.raw_headers = [
            (name.lower(), value)
            for name, value in response.headers.raw
            if name.decode("latin-1").lower() not in _HOP_BY_HOP - {"content-length"}
        ]
        return passed

    def _pass_headers(self, request: Request) -> list[tuple[bytes, bytes]]:
        """As bytes: what is in them need not be ASCII."""
        named = request.headers.get("connection", "").lower().split(",")
        left_out = _HOP_BY_HOP | {n.strip() for n in named}
        return [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in request.headers.items()
            if name not in left_out
            and not name.startswith(_OURS)
            and not (self._token and holds(value, self._token))
        ]


def make_address(url: str, path: str, query: str = "") -> str:
    """Where ``path`` is below ``url``, whether or not that ends with /v1. Raises Refused for an address that is none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as e:
        raise Refused(502, "the previous agent's server has no address that can be asked") from e
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query:
        raise Refused(502, "the previous agent's server has no address that can be asked")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise Refused(502, "the previous agent's server is asked over https only")
    below = parts.path.rstrip("/")
    if below and path == _RESPONSES:
        path = path.removeprefix("/v1")
    else:
        below = below.removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{below}{path}{'?' + query if query else ''}"


async def _read(response: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes as they come, packed as they are. One that breaks off ends the client's stream too, unfinished."""
    async for chunk in response.aiter_raw():
        yield chunk
