"""Swarms on loopback for the tests: signed member files, and peers as real processes of their own.

A peer process fits a line to its own shard through the real `Averaging` callback and `Peer`; it writes one
JSON line per event and its weights after every round. Peers are forked, so torch is imported only once.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HIVEMIND_LOGLEVEL", "WARNING")

import hivemind.dht.protocol
import numpy
import torch
from hivemind.averaging.allreduce import AllReduceRunner
from hivemind.p2p import P2P, PeerID
from hivemind.proto import averaging_pb2
from hivemind.utils import MPFuture

from gtft.artifact import hash_json
from gtft.errors import GtftError
from gtft.recipe.schema import Swarm
from gtft.swarm.document import Members, make_member, name_swarm, sign_members
from gtft.swarm.keys import OPERATOR, ensure_identity, make_operator
from gtft.swarm.place import Seat, SeatFile, identity_folder, keep_members, sit_down, swarm_folder
from gtft.training.averaging import Averaging, _trainable
from gtft.training.swarm.authorizer import make_authorizer
from gtft.training.swarm.exchange import StrictAverager
from gtft.training.swarm.lineage import Standing
from gtft.training.swarm.peer import Peer
from gtft.training.swarm.progress import Progress
from gtft.training.swarm.roster import Roster
from gtft.training.swarm.timeouts import find_timeouts

LIMIT_S = 90.0
RULES = {"every": 4, "rounds": 4, "min_peers": 2, "matchmaking_s": 2.0, "allreduce_s": 12.0}


@dataclass
class Town:
    """A swarm's operator and members, one workspace per peer name. The first is the creator."""

    root: Path
    names: tuple[str, ...]
    rules: dict[str, Any] = field(default_factory=lambda: dict(RULES))
    listed: tuple[str, ...] | None = None
    started: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.operator = make_operator(self.root / OPERATOR)
        self.ids = {n: ensure_identity(identity_folder(self.root / n)) for n in self.names}
        self.swarm = name_swarm("line", self.operator.public_key)
        self.members = self._sign_members()

    def _sign_members(self) -> bytes:
        expires = int(time.time()) + 3600
        terms = {"role": "witness"}
        members = tuple(
            make_member(self.operator, self.swarm, n, self.ids[n].public_key, 1, expires)
            for n in (self.listed or self.names)
        )
        document = Members(
            swarm=self.swarm,
            operator=self.operator.public_key,
            serial=1,
            not_before=0,
            expires=expires,
            formula="line",
            recipe=hash_json(terms),
            terms=terms,
            base=hash_json("base"),
            base_name="base",
            creator=self.ids[self.names[0]].peer_id,
            bootstrap=(),
            members=members,
        )
        return sign_members(document, self.operator)

    def seat(self, name: str, bootstrap: tuple[str, ...]) -> Seat:
        workspace = self.root / name
        folder = swarm_folder(workspace, self.swarm)
        members = keep_members(folder, self.members)
        listen = SeatFile(run="run-1", listen=("/ip4/127.0.0.1/tcp/0",))
        seat = sit_down(workspace, folder, listen, members, self.ids[name].peer_id)
        known = dict.fromkeys((*bootstrap, *seat.initial_peers))
        return replace(seat, initial_peers=tuple(known))

    def start(self, name: str, bootstrap: tuple[str, ...] = (), **play: Any) -> Process:
        """A peer process. ``play``: see ``run_peer``."""
        return self.fork(name, lambda folder: run_peer(self, name, bootstrap, folder, **play))

    def fork(self, name: str, life: Callable[[Path], int | None]) -> Process:
        """A process of this test's own code; what ``life`` returns is its exit code."""
        folder = self.root / name / "log"
        folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            code = 70
            # Its locks came from this test's process: a killed peer would hold those of all the others.
            MPFuture.reset_backend()
            try:
                code = life(folder) or 0
            except BaseException:  # noqa: BLE001 - a forked child must not go on in the test's own code
                (folder / "trace").write_text(traceback.format_exc())
            finally:
                os._exit(code)
        process = Process(name, pid, folder)
        self.started.append(process)
        return process

    def let_go(self, *peers: Process) -> None:
        """Once all of them are in: train. Who starts later does not wait."""
        for peer in peers:
            peer.wait_for(lambda p: p.of("in"), "the swarm")
        (self.root / "go").touch()

    def close(self) -> None:
        """End what still runs."""
        for process in self.started:
            process.kill()


@dataclass
class Process:
    """A peer process as its test sees it."""

    name: str
    pid: int
    folder: Path
    code: int | None = None

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Its events of one kind so far."""
        path = self.folder / "events.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [e for e in map(json.loads, lines) if kind in ("", e["event"])]

    def wait_for(self, reached: Callable[[Process], Any], what: str) -> Any:
        """What ``reached`` returns once it is true; the process must not end before."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            ended = self.ended()
            if found := reached(self):
                return found
            if ended:
                break
            time.sleep(0.05)
        raise AssertionError(f"{self.name} did not reach {what}: {self.story()}")

    def addresses(self) -> tuple[str, ...]:
        return tuple(self.wait_for(lambda p: p.of("up"), "its start")[0]["addresses"])

    def reach_round(self, number: int) -> None:
        self.wait_for(
            lambda p: [e for e in p.of("round") if e["round"] >= number], f"round {number}"
        )

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self) -> int:
        """Its exit code; one that does not end tells where it stands and is killed."""
        deadline = time.monotonic() + LIMIT_S
        while not self.ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGUSR1)
                time.sleep(0.5)
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"{self.name} did not end: {self.story()}")
            time.sleep(0.05)
        assert self.code is not None
        return self.code

    def kill(self) -> list[int]:
        """SIGKILL this process alone; returns the processes that it had started."""
        below = list_below(self.pid)
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        return below

    def story(self) -> str:
        """Its last events and words."""
        told = [
            (self.folder / n).read_text()[-4000:]
            for n in ("trace", "stderr")
            if (self.folder / n).exists()
        ]
        return "\n".join([*map(json.dumps, self.of("")[-12:]), *told])


def list_below(pid: int) -> list[int]:
    """All living descendants of a process, from /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(stat.parent.name)] = int(words[1])
    found = [pid]
    for parent in found:
        found += [p for p, above in parents.items() if above == parent]
    return found[1:]


def are_gone(pids: list[int]) -> bool:
    """Whether all of them end within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if all(_find_state(p) in ("", "Z") for p in pids):
            return True
        time.sleep(0.05)
    return False


def _find_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Log:
    """A watch that writes events."""

    stop_requested = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def write(self, event: str, **fields: Any) -> None:
        self._file.write(json.dumps({"event": event, "at": round(time.time(), 2), **fields}) + "\n")
        self._file.flush()

    def progress(self, *_: Any, **__: Any) -> None:
        pass

    def metric(self, step: int, name: str, value: float) -> None:
        if name == "swarm_round":
            self.write("round", step=step, round=int(value))
        else:
            self.write("metric", step=step, name=name, value=value)

    def checkpoint(self, path: str, step: int) -> None:
        pass

    def warn(self, code: str, text: str) -> None:
        self.write("warning", code=code, text=text)


def run_peer(
    town: Town,
    name: str,
    bootstrap: tuple[str, ...],
    folder: Path,
    *,
    size: int = 400,
    pace: float = 0.05,
    solo_after: int = 0,
    die_in: int = 0,
    clock_off: float = 0.0,
    fingerprint: str = "",
) -> int:
    """The life of one peer. ``pace``: seconds per step; ``solo_after``: a round is made up alone after
    that one; ``die_in``: SIGKILL in the middle of that round's exchange; ``clock_off``: seconds."""
    with (folder / "stderr").open("w") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watch = Log(folder / "events.jsonl")
    if clock_off:
        hivemind.dht.protocol.get_dht_time = lambda: time.time() + clock_off
    if die_in:
        _cut_exchange(folder / "cut")
    seat = town.seat(name, bootstrap)
    if fingerprint:
        seat = replace(seat, fingerprint=fingerprint)
    roster = Roster(seat.folder, time.time)
    rules = Swarm(**town.rules)
    peer = None
    try:
        peer = Peer(
            seat,
            rules,
            authorizer=make_authorizer(seat, roster, time.time),
            roster=roster,
            progress=Progress(seat, "run-1", roster, time.time),
            watch=watch,
            clock=time.monotonic,
            max_weight=rules.every * 8 * 61,
            timeouts=replace(find_timeouts(rules), pulls=6, lifetime=6.0, turn=5.0),
        )
        watch.write("up", addresses=peer.addresses, below=list_below(os.getpid()))
        _train(peer, rules, watch, town.names, name, folder, size, pace, solo_after, die_in)
        return 0
    except KeyboardInterrupt:
        watch.write("interrupted")
        return 130
    except GtftError as e:
        watch.write("failed", kind=e.kind, what=e.what, why=e.why, fix=e.fix)
        return e.exit_code
    finally:
        if peer is not None:
            peer.close()
        watch.write("closed", sockets=[str(p) for p in _own_sockets()])


def _train(
    peer: Peer,
    rules: Swarm,
    watch: Log,
    names: tuple[str, ...],
    name: str,
    folder: Path,
    size: int,
    pace: float,
    solo_after: int,
    die_in: int,
) -> None:
    model, step = make_worker(name, size)
    averaging = Averaging(peer, watch, 8)
    state = SimpleNamespace(global_step=0, max_steps=rules.every * rules.rounds)
    control = SimpleNamespace(should_training_stop=False)
    args = SimpleNamespace(output_dir=str(folder))
    averaging.on_train_begin(args, state, control, model=model)
    kept = averaging._round
    watch.write("in", round=kept, prefix=peer._averager.prefix, step=state.global_step)
    while not (folder.parent.parent / "go").exists():
        time.sleep(0.02)
    while state.global_step < state.max_steps and not control.should_training_stop:
        if die_in and averaging._round == die_in - 1:
            (folder / "cut").touch()
        step()
        state.global_step += 1
        time.sleep(pace)
        averaging.on_step_end(args, state, control, model=model)
        if averaging._round != kept:
            kept = averaging._round
            numpy.save(folder / f"round-{kept}.npy", peer._vector.numpy())
            if kept == solo_after:
                solo_after = 0
                _step_alone(peer, model)
    averaging.on_train_end(args, state, control, model=model)
    loss = measure_loss(model, names, size)
    watch.write(
        "done", final=peer._final, loss=loss, steps=state.global_step, evidence=peer.evidence()
    )


def make_worker(name: str, size: int) -> tuple[Any, Callable[[], None]]:
    """A line to fit, and one step of it on the shard of ``name``."""
    torch.set_num_threads(1)
    torch.manual_seed(sum(map(ord, name)))
    model = torch.nn.Linear(size, 1)
    inputs, targets = make_shard(name, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def step() -> None:
        rows = torch.randperm(len(inputs))[:8]
        loss = torch.nn.functional.mse_loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def make_shard(name: str, size: int) -> tuple[Any, Any]:
    """Rows of one true line of which this shard shows a quarter of the inputs only."""
    truth = torch.linspace(-1, 1, size).unsqueeze(1)
    dice = torch.Generator().manual_seed(sum(map(ord, name)))
    seen = (torch.arange(size) % 4 == ord(name[0]) - ord("a")).float()
    rows = 64 if size < 10_000 else 2
    inputs = torch.randn(rows, size, generator=dice) * seen * (4 / size) ** 0.5
    return inputs, inputs @ truth


def measure_loss(model: Any, names: tuple[str, ...], size: int) -> float:
    """Loss over the rows of all shards."""
    if size > 10_000:
        return 0.0
    shards = [make_shard(n, size) for n in names]
    inputs, targets = (torch.cat(part) for part in zip(*shards, strict=True))
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(model(inputs), targets))


def train_alone(name: str, names: tuple[str, ...], steps: int, size: int = 400) -> float:
    """The loss over all shards of one worker with so many steps on its own shard."""
    model, step = make_worker(name, size)
    for _ in range(steps):
        step()
    return measure_loss(model, names, size)


def call_as_stranger(address: str, prefix: str, folder: Path) -> None:
    """Dial a peer without any token and ask its averager for its state and for a group."""

    async def call() -> dict[str, Any]:
        p2p = await P2P.create(initial_peers=[address], nat_port_map=False, auto_nat=False)
        try:
            peer = PeerID.from_base58(address.rpartition("/")[2])
            stub = StrictAverager.get_stub(p2p, peer, namespace=prefix)
            received = 0
            async for part in await stub.rpc_download_state(averaging_pb2.DownloadRequest()):
                received += part.ByteSize()
            request = averaging_pb2.JoinRequest(
                schema_hash=b"x", expiration=time.time() + 60, group_key=f"{prefix}.0b1"
            )
            codes = [m.code async for m in await stub.rpc_join_group(request)]
            names = [averaging_pb2.MessageCode.Name(c) for c in codes]
            return {"received": received, "codes": names}
        finally:
            await p2p.shutdown()

    (folder / "stranger.json").write_text(json.dumps(asyncio.run(call())))


def _step_alone(peer: Peer, model: Any) -> None:
    """A fork: a history and weights that nobody else has."""
    with torch.no_grad():
        for _, p in _trainable(model):
            p.add_(0.1)
    s = peer._standing
    peer._standing = Standing(s.round, "f" * 64, max(0, s.samples - 1), s.fingerprint)
    peer._hold(torch.cat([p.detach().reshape(-1) for _, p in _trainable(model)]))


def _cut_exchange(flag: Path) -> None:
    """Kill the trainer from inside its averager, after the first parts have been sent."""
    whole = AllReduceRunner._generate_input_for_peer
    trainer = os.getpid()

    async def cut(self: Any, peer_index: int) -> Any:
        sent = 0
        async for message in whole(self, peer_index):
            yield message
            sent += 1
            if flag.exists() and sent == 2:
                os.kill(trainer, signal.SIGKILL)
                time.sleep(60)  # it dies with its trainer, and sends nothing until then

    AllReduceRunner._generate_input_for_peer = cut


def _own_sockets() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"gtft-swarm-{os.getpid()}-*"))
