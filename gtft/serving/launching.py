"""Starting somebody else's server for one of our models: on this machine only, and for as long as this process lives.

How each is called stands here as data. vLLM needs a GPU that no test here had: its line follows its documentation and
was never run by us.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gtft.artifact import Artifact
from gtft.errors import MissingExtra, UsageError, WorkerFailed, translate_os_error
from gtft.evals.asking.load import is_whole

HOST = "127.0.0.1"
_STOP_S = 10.0
_LOOK_S = 0.2
# Of an adapter's artifact: what is about gtft, and no part of the model.
_OURS = frozenset({"artifact.json", "base.json", "summary.json", "mask.json", "loss.jsonl"})
_OF_BASE = ("config.json", "generation_config.json")
# Ends the program when whoever started it is gone, also by kill -9 (Linux). Then it becomes that program.
_GUARD = (
    "import ctypes, os, signal, sys\n"
    "prctl = getattr(ctypes.CDLL(None), 'prctl', None)\n"
    "prctl and prctl(1, signal.SIGTERM)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


@dataclass(frozen=True)
class Program:
    """``argv``: the arguments, with {model} (folder or file), {name}, {adapter}, {port} and {context} to fill in;
    its first is a program of this Python's, or of the PATH. ``asked``: the model's name in requests.
    ``modules``: what must be installed. ``takes``: which form of a model it reads.
    ``lacks``: fields of requests that it refuses, ``parallel``: requests that it takes at once (`gtft.serving.upstream`).
    """

    name: str
    argv: tuple[str, ...]
    takes: str
    health: str
    asked: str = "{name}"
    modules: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()
    parallel: int = 4
    fix: str = ""


PROGRAMS: tuple[Program, ...] = (
    Program(
        "transformers",
        ("transformers", "serve", "{model}", "--host", HOST, "--port", "{port}", "--dtype", "auto"),
        takes="complete folder",
        health="/health",
        asked="{model}",
        modules=("fastapi", "uvicorn", "openai"),
        lacks=frozenset({"logprobs", "top_logprobs", "stream_options"}),
        fix="pip install 'transformers[serving]' -c constraints.txt",
    ),
    Program(
        "llama-cpp-python",
        (
            "python", "-m", "llama_cpp.server", "--model", "{model}", "--model_alias", "{name}",
            "--host", HOST, "--port", "{port}", "--n_ctx", "{context}",
            # Its default ends an answer when the next request comes.
            "--interrupt_requests", "false",
        ),
        takes="gguf",
        health="/v1/models",
        parallel=1,
        modules=("llama_cpp", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings"),
        fix="pip install 'llama-cpp-python[server]' -c constraints.txt",
    ),
    Program(
        "llama-server",
        (
            "llama-server", "--model", "{model}", "--alias", "{name}", "--host", HOST, "--port", "{port}",
            "--ctx-size", "{context}", "--jinja",
        ),
        takes="gguf",
        health="/health",
        fix="build llama.cpp, and put llama-server on the PATH",
    ),
    # Not run by us (no GPU).
    Program(
        "vllm",
        (
            "vllm", "serve", "{model}", "--host", HOST, "--port", "{port}", "--enable-lora",
            "--lora-modules", "{name}={adapter}",
        ),
        takes="base and adapter",
        health="/health",
        fix="install vLLM, on a machine with a GPU",
    ),
)  # fmt: skip


def find_program(name: str) -> Program:
    """Raises UsageError."""
    for program in PROGRAMS:
        if program.name == name:
            return program
    raise UsageError(
        f"gtft does not know how to start {name}",
        why=f"it knows {', '.join(p.name for p in PROGRAMS)}",
        fix="start it yourself, and name its address",
    )


@dataclass(frozen=True)
class Launched:
    """A server that runs. ``url`` ends in /v1; ``asked``: the model's name in requests."""

    url: str
    asked: str
    pid: int


@contextmanager
def launch(
    program: Program,
    model: Path,
    *,
    name: str,
    log: Path,
    environ: Mapping[str, str],
    adapter: Path | None = None,
    context: int = 0,
    seconds: float = 300.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Launched]:
    """Start a server and wait until it is well; it ends with the block. ``log`` takes what it says.

    Raises MissingExtra when it is not installed, WorkerFailed when it does not come up in ``seconds``. The server also
    ends when the thread that called this does.
    """
    port = _find_port()
    words = {
        "model": model.absolute(),
        "name": name,
        "adapter": adapter.absolute() if adapter else "",
        "port": port,
        "context": context,
    }
    argv = [str(part).format(**words) for part in program.argv]
    argv[0] = _find_executable(program)
    cache = log.parent / "hub"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        out = log.open("wb")
    except OSError as e:
        raise translate_os_error(e, "starting a server") from e
    with out:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _GUARD, *argv],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
            start_new_session=True,
        )
    try:
        _await_health(
            process, f"http://{HOST}:{port}{program.health}", log, clock() + seconds, clock
        )
        asked = program.asked.format(**words)
        yield Launched(f"http://{HOST}:{port}/v1", asked, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def stage_complete(adapter: Artifact, base: Path, folder: Path) -> Path:
    """A folder that is a complete model with its adapter inside, as ``transformers serve`` reads it; returns it.

    Weights are hard links where the file system can, else copies. Raises UsageError for an adapter that lies on
    another one.
    """
    _require_alone(adapter)
    folder.mkdir(parents=True, exist_ok=True)
    files = [adapter.path / f.name for f in adapter.files if f.name not in _OURS]
    if not is_whole(adapter):
        of_base = [base / n for n in _OF_BASE if (base / n).is_file()]
        files += [
            *of_base,
            *sorted(base.glob("*.safetensors")),
            *base.glob("*.safetensors.index.json"),
        ]
    for path in files:
        target = folder / path.name
        try:
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:
                # Another file system, or one without hard links.
                shutil.copyfile(path, target)
        except OSError as e:
            raise translate_os_error(e, "putting a model together") from e
    return folder


def _require_alone(adapter: Artifact) -> None:
    from gtft.evals.asking.load import read_base

    if read_base(adapter).stacks_on:
        raise UsageError(
            "this server cannot answer with a task adapter",
            why="it reads one adapter, and this one lies on its role's",
            fix="gtft model export MODEL --format merged, or serve it with gtft's own engine",
        )


def _find_executable(program: Program) -> str:
    missing = [m for m in program.modules if importlib.util.find_spec(m) is None]
    first = program.argv[0]
    here = Path(sys.executable).parent / first
    found = (
        sys.executable
        if first == "python"
        else str(here)
        if here.is_file()
        else shutil.which(first)
    )
    if missing or not found:
        raise MissingExtra(
            f"the server {program.name} is not installed",
            why=f"there is no {', '.join(missing) or first} here",
            fix=program.fix,
        )
    return found


def _find_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


def _await_health(
    process: subprocess.Popen[bytes], url: str, log: Path, end: float, clock: Callable[[], float]
) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and clock() < end:
        try:
            with opener.open(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(_LOOK_S)
    last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise WorkerFailed(
        "the server did not come up" if process.poll() is None else "the server ended at once",
        why=last[0][:300],
        fix=f"cat {log}",
    )
