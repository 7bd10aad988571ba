"""Many clients at once, slow ones, and ones that send nonsense, against the worker with a nano model: nobody is lost, it stays well.

The figures of a run are printed (pytest -s).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

import evals_case as case

CLIENTS, TOKENS, QUEUE = 200, 24, 64
# Growth while all are answered: keys and values of the rows that run (bounded by the engine, KiB for this model), 200
# connections with their buffers, and what torch's allocator keeps. 0.5 MiB for each client is six times what is seen.
MOST_GROWTH = 100 << 20
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Server:
    port: int
    process: psutil.Process

    def ask(self, text: str, *, stream: bool, timeout: float = 300) -> tuple[int, str]:
        """Status and body."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        line.request("POST", PATH, write(text, stream), {"Content-Type": "application/json"})
        response = line.getresponse()
        body = response.read().decode()
        if response.status == 429:
            assert int(response.headers["Retry-After"]) >= 1
        line.close()
        return response.status, body

    def get(self, path: str) -> str:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        line.request("GET", path)
        body = line.getresponse().read().decode()
        line.close()
        return body

    def read_gauge(self, name: str) -> float:
        lines = self.get("/metrics").splitlines()
        return sum(float(x.rpartition(" ")[2]) for x in lines if x.startswith(name))

    def open(self, data: bytes) -> socket.socket:
        line = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        line.sendall(data)
        return line

    def wait_idle(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while self.read_gauge("gtft_queue_length") or self.read_gauge("gtft_in_flight"):
            assert time.monotonic() < end, "something is still being answered"
            time.sleep(0.1)


def write(text: str, stream: bool, tokens: int = TOKENS) -> str:
    messages = [{"role": "user", "content": text}]
    return json.dumps(
        {"model": "tuned", "messages": messages, "max_tokens": tokens, "stream": stream}
    )


def write_request(text: str, stream: bool, tokens: int = TOKENS) -> bytes:
    body = write(text, stream, tokens).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("load")
    corpus = case.make_corpus(root / "artifacts", [case.example(1)], [case.example(2)])
    adapter = case.make_adapter(root / "artifacts", case.make_base(root), root, corpus)
    places = {"workspace": str(root), "root": str(root), "artifacts": str(root / "artifacts")}
    file = root / "serve.json"
    file.write_text(json.dumps({**places, "adapter": str(adapter.path), "queue": QUEUE}))
    worker = subprocess.Popen(
        [sys.executable, "-m", "gtft.workers.serve", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    url = json.loads(worker.stdout.readline())["url"]
    found = Server(int(url.removesuffix("/v1").rpartition(":")[2]), psutil.Process(worker.pid))
    # What is made at the first answer stays.
    assert found.ask("which pump leaks?", stream=False)[0] == 200
    yield found
    worker.stdin.close()
    assert worker.wait(60) == 0


def test_two_hundred_at_once_are_answered_or_refused(server: Server) -> None:
    before = server.process.memory_info().rss
    found: list[tuple[int, float, str]] = []
    start = threading.Barrier(CLIENTS)
    most = [before]
    over = threading.Event()

    def ask(n: int) -> None:
        start.wait()
        began = time.monotonic()
        status, body = server.ask(f"which pump of the harbor leaks, number {n}?", stream=n % 2 == 0)
        found.append((status, time.monotonic() - began, body))

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], server.process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    over.set()
    watcher.join()
    statuses = Counter(status for status, _, _ in found)
    assert sum(statuses.values()) == CLIENTS
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] >= QUEUE
    for status, _, body in found:
        if status == 200:
            assert "[DONE]" in body or json.loads(body)["choices"][0]["finish_reason"]
        else:
            assert json.loads(body)["error"]["message"]
    server.wait_idle()
    growth = most[0] - before
    taken = sorted(s for status, s, _ in found if status == 200)
    print(
        f"\n{CLIENTS} at once: {dict(statuses)}; answers took {taken[0]:.2f} to {taken[-1]:.2f} s, median "
        f"{statistics.median(taken):.2f} s; memory {before >> 20} MiB, at most {growth / 2**20:.1f} MiB more"
    )
    assert growth < MOST_GROWTH
    # Who was refused is answered when asking again.
    assert server.ask("and now?", stream=False)[0] == 200


def test_slow_half_closed_and_vanished_clients_do_no_harm(server: Server) -> None:
    lines = [server.open(write_request(f"slow {n}", True)) for n in range(12)]
    halves = [server.open(write_request(f"half {n}", True, 200)) for n in range(12)]
    gone = [server.open(write_request(f"gone {n}", n % 2 == 0, 200)) for n in range(12)]
    partial = [server.open(write_request("partial", True)[:-20]) for _ in range(12)]
    for line in halves:
        line.shutdown(socket.SHUT_WR)
    for line in gone:
        line.close()
    stop = threading.Event()

    def sip(line: socket.socket) -> None:
        while not stop.wait(1.0) and line.recv(1):
            pass

    sippers = [threading.Thread(target=sip, args=(line,)) for line in lines]
    for t in sippers:
        t.start()
    # Meanwhile others are answered.
    statuses = Counter(server.ask(f"fast {n}", stream=False)[0] for n in range(8))
    assert statuses == {200: 8}
    for line in partial:
        line.close()
    server.wait_idle()
    stop.set()
    for t in sippers:
        t.join(60)
    for line in [*lines, *halves]:
        line.close()
    assert json.loads(server.get("/health"))["ready"] is True


def test_nonsense_does_no_harm(server: Server) -> None:
    rng = random.Random(7)
    good = write_request("which pump leaks?", False)
    found: Counter[str] = Counter()
    for n in range(150):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = data[: rng.randrange(1, len(data))] if n % 3 == 0 else data
        line = server.open(bytes(cut))
        line.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while piece := line.recv(4096):
                said += piece
        except ConnectionResetError:
            pass
        line.close()
        found[said[9:12].decode("latin-1") or "closed"] += 1
    server.wait_idle()
    print(f"\n150 damaged requests: {dict(found)}")
    assert not [status for status in found if status.startswith("5")]
    assert json.loads(server.get("/health"))["ready"] is True
    assert server.ask("and now?", stream=False)[0] == 200
