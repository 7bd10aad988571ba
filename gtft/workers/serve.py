"""The serve worker: ``python -m gtft.workers.serve FILE``. Models behind OpenAI's chat completions and Anthropic's messages.

``FILE`` is JSON: ``workspace``, ``root``, ``artifacts``; which models: ``adapter`` (a folder: it is served as ``tuned``),
``models`` (name, adapter, role, aliases), ``deployed`` (what the workspace's routes name), or both; and optionally ``engine``, ``host``,
``port`` (0 = any free one), ``token_file``, ``queue``, ``max_new_tokens``, ``seconds``, ``announce`` (write address.json, where no other server has).
Its first line on stdout is JSON: ``url``, ``models``, or ``error``. Until then it listens and answers 503. It ends by SIGTERM or
when stdin closes: answers in flight are still given.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gtft.errors import ConflictError, GtftError, UsageError
from gtft.service import (
    ADDRESS_FILE,
    FOLDER,
    Address,
    Route,
    read_address,
    read_routes,
    write_address,
)
from gtft.serving.access import read_token
from gtft.serving.app import make_app
from gtft.serving.desk import Desk
from gtft.serving.engine import Engine
from gtft.serving.gateway import Gateway
from gtft.serving.listen import Listener, log_without_prompts, open_socket
from gtft.serving.loading import Places, Wanted
from gtft.serving.many import ManyEngines
from gtft.serving.previous import Previous
from gtft.serving.question import Bounds
from gtft.shelf import find_on_shelf
from gtft.training.environment import prepare_environment, require_training_extra
from gtft.workers.engines import LOCAL, open_engine

HOST = "127.0.0.1"
_LOOPBACK = (HOST, "::1", "localhost")
# Every address of this machine, and how this machine asks there.
_EVERYWHERE = {"0.0.0.0": HOST, "::": "::1"}  # noqa: S104
# What may be asked for; the engine cuts it to what the context leaves.
_MOST_TOKENS = 1 << 20
_STOP_S = 15.0
_LOOK_S = 2.0


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Model(_Table):
    name: str
    adapter: Path
    role: str = ""
    aliases: tuple[str, ...] = ()


class Asked(_Table):
    """``FILE``."""

    workspace: Path
    root: Path
    artifacts: Path
    adapter: Path | None = None
    models: tuple[_Model, ...] = ()
    deployed: bool = False
    engine: str = LOCAL
    host: str = HOST
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    token_file: Path | None = None
    queue: Annotated[int, Field(ge=1)] = 64
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    seconds: Annotated[float, Field(gt=0)] = 600.0
    announce: bool = False

    @property
    def places(self) -> Places:
        return Places(self.workspace, self.root, self.artifacts)

    def list_wanted(self) -> list[Wanted]:
        """Raises UsageError when nothing is asked for."""
        wanted = [Wanted(m.name, m.adapter, m.role, m.aliases) for m in self.models]
        if self.adapter is not None:
            wanted.append(Wanted("tuned", self.adapter))
        if self.deployed:
            # One without a model only passes on, for agents that were started before a rollback.
            routes = {r.model: r for r in read_routes(self.workspace).routes if r.model}
            named = {w.name for w in wanted}
            wanted += [want(r, self.artifacts) for n, r in routes.items() if n not in named]
        if not wanted:
            raise UsageError(
                "there is no model to serve",
                why="nothing is deployed" if self.deployed else "no model was named",
                fix="gtft model list, then: gtft model serve MODEL",
            )
        return wanted


def want(route: Route, artifacts: Path) -> Wanted:
    """The model of a route, from the shelf: the store may be away. Raises UsageError."""
    folder = find_on_shelf(artifacts, "adapter", route.adapter).path
    return Wanted(route.model, folder, route.role)


async def serve(asked: Asked, environ: Mapping[str, str]) -> None:
    """Listen, load, answer, until it is told to end. Raises what loading raises."""
    token = read_token(asked.token_file, environ)
    if asked.host not in _LOOPBACK and not token:
        raise UsageError(
            f"whoever reaches {asked.host} could ask without a token",
            why="only this machine may ask without one",
            fix="gtft model serve --host HOST --token-file FILE",
        )
    wanted = asked.list_wanted()
    announce = asked.announce
    if announce and (other := read_address(asked.workspace)) and _listens(other.url):
        if asked.deployed:
            raise ConflictError(
                f"a server runs for this workspace: {other.url} (process {other.pid})",
                why="the town's roles are answered by one",
                fix=f"kill {other.pid}, then start it again; or: gtft model serve MODEL --port 0",
            )
        # The roles stay with that one; this is another for who asks it by its address.
        announce = False
    sock = open_socket(asked.host, asked.port)
    port = sock.getsockname()[1]
    shown = _EVERYWHERE.get(asked.host, asked.host)
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    desk = Desk(
        now=time.time,
        clock=time.monotonic,
        make_key=lambda: secrets.token_hex(12),
        make_seed=lambda: secrets.randbits(31),
    )
    previous = Previous(token)

    async def admit(route: Route) -> None:
        if not isinstance(desk.engine, ManyEngines):
            raise UsageError(f"{route.model} cannot be loaded here", why="another server answers")
        await desk.engine.add_model(want(route, asked.artifacts))
        if announce:
            models = tuple(m.name for m in desk.engine.list_models())
            write_address(asked.workspace, announced.model_copy(update={"models": models}))

    gateway = Gateway(desk, asked.workspace, previous, admit)
    bounds = Bounds(asked.max_new_tokens, _MOST_TOKENS, asked.seconds)
    app = make_app(desk, gateway, bounds, token)
    listener = Listener(app, asked.seconds, lambda: setattr(desk, "closing", True))
    loop = asyncio.get_running_loop()
    _watch_stdin(loop, listener)
    listening = asyncio.create_task(listener.serve(sockets=[sock]))
    # From then on a signal is heard.
    while not listener.started and not listening.done():
        await asyncio.sleep(0.01)
    announced = Address(
        url=url, pid=os.getpid(), models=tuple(w.name for w in wanted), token=bool(token)
    )
    if announce:
        write_address(asked.workspace, announced)
    loading = Loading(asked, wanted, environ)
    try:
        either: set[asyncio.Future[Any]] = {listening, loading.engine}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not loading.engine.done():
            return
        desk.engine = loading.engine.result()
        models = tuple(m.name for m in desk.engine.list_models())
        if announce:
            write_address(asked.workspace, announced.model_copy(update={"models": models}))
        _say({"url": f"{url}/v1", "models": models, "token": bool(token)})
        await listening
        await desk.engine.aclose()
    finally:
        if announce:
            _withdraw(asked.workspace)
        listener.stop()
        await asyncio.gather(listening, return_exceptions=True)
        await previous.aclose()
        await asyncio.to_thread(loading.end)


class Loading:
    """A thread that loads the engine, and stays: what it started ends with it. It does not keep the process from ending."""

    def __init__(self, asked: Asked, wanted: list[Wanted], environ: Mapping[str, str]) -> None:
        self._asked, self._wanted, self._environ = asked, wanted, environ
        self._loop = asyncio.get_running_loop()
        self.engine: asyncio.Future[Engine] = self._loop.create_future()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loading", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends what was started; a thread that still loads is not waited for."""
        self._end.set()
        if self.engine.done():
            self._thread.join(_STOP_S)

    def _work(self) -> None:
        with ExitStack() as stack:
            try:
                require_training_extra()
                prepare_environment(os.environ, offline=True)
                engine = open_engine(
                    self._asked.engine,
                    self._wanted,
                    self._asked.places,
                    queue=self._asked.queue,
                    environ=self._environ,
                    stack=stack,
                )
            except Exception as e:  # noqa: BLE001
                # Whatever it is, it is raised where it is waited for.
                self._tell(self.engine.set_exception, e)
                return
            self._tell(self.engine.set_result, engine)
            self._end.wait()

    def _tell(self, settle: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):
            # The loop may be over by now.
            self._loop.call_soon_threadsafe(settle, what)


def _watch_stdin(loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
    """Whoever started this is gone when stdin ends."""

    def read() -> None:
        sys.stdin.buffer.read()
        if not loop.is_closed():
            loop.call_soon_threadsafe(listener.stop)

    threading.Thread(target=read, name="stdin", daemon=True).start()


def _listens(url: str) -> bool:
    """Whether anybody does: the process of a server that was killed may be another one's number by now."""
    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname or "", place.port or 80), _LOOK_S).close()
    except OSError:
        return False
    return True


def _withdraw(workspace: Path) -> None:
    found = read_address(workspace)
    if found is not None and found.pid == os.getpid():
        (workspace / FOLDER / ADDRESS_FILE).unlink(missing_ok=True)


def _say(doc: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(doc) + "\n")
    sys.stdout.flush()


def main() -> None:
    log_without_prompts()
    try:
        asked = Asked.model_validate_json(Path(sys.argv[1]).read_bytes())
        asyncio.run(serve(asked, os.environ))
    except (GtftError, OSError, ValueError, LookupError) as e:
        error = e if isinstance(e, GtftError) else UsageError("it cannot be served", why=_name(e))
        _say({"error": error.as_dict()})
        code = error.exit_code
    else:
        code = 0
    sys.stdout.flush()
    # Threads that load or read may still be at it; the interpreter would wait for what they hold.
    os._exit(code)


def _name(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_input=False)[0]["msg"])
    return repr(error)[:300]


if __name__ == "__main__":
    main()
