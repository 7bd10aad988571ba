"""One peer of a swarm: the DHT, the averager and the lookout, behind the seam of `gtft.training.averaging`.

Import it only where torch and Hivemind may be loaded. The Hivemind processes start from the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

import torch
from hivemind.averaging.allreduce import AllreduceException
from hivemind.averaging.control import AveragingStage, StepControl
from hivemind.averaging.matchmaking import MatchmakingException
from hivemind.dht import DHT
from hivemind.dht.protocol import ValidationError
from hivemind.p2p import P2PDaemonError, P2PHandlerError
from hivemind.utils.auth import AuthorizerBase
from hivemind.utils.timed_storage import get_dht_time

from gtft.errors import InputError, TrainingError
from gtft.recipe import schema
from gtft.swarm.place import Seat, leave_requested
from gtft.training.averaging import Adopted, Averaged, Failed, Forked, Member
from gtft.training.swarm.exchange import Refused, StrictAverager, measure
from gtft.training.swarm.layout import Layout, flatten
from gtft.training.swarm.lineage import (
    Standing,
    begin_lineage,
    extend,
    find_excess,
    is_plausible,
    parse_standing,
)
from gtft.training.swarm.lookout import Lookout, Sign
from gtft.training.swarm.progress import Progress, RoundNote
from gtft.training.swarm.roster import Roster
from gtft.training.swarm.timeouts import Timeouts, find_timeouts
from gtft.training.swarm.transport import Host, explain_start
from gtft.training.watch import StopRequested, Watch

# A round moves the weights by less than a few times their norm; a joiner starts from fresh ones.
_ROUND_BOUND = 10.0
_PULL_BOUND = 100.0
_TICK_S = 0.05
_LOST = (
    AllreduceException, MatchmakingException, P2PDaemonError, P2PHandlerError, TimeoutError,
    CancelledError, asyncio.CancelledError, asyncio.InvalidStateError, RuntimeError, StopAsyncIteration,
)  # fmt: skip


class Peer:
    """An `Averager` that meets the members of a swarm. ``max_weight``: rows one peer can have for a round.

    Raises InputError where this peer cannot come in (clock, addresses, identity in use), and TrainingError
    where it came in and cannot go on. ``close`` ends every process and removes every socket it started.
    """

    def __init__(
        self,
        seat: Seat,
        swarm: schema.Swarm,
        *,
        authorizer: AuthorizerBase,
        roster: Roster,
        progress: Progress,
        watch: Watch,
        clock: Callable[[], float],
        max_weight: int,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.rounds = swarm.rounds
        self.every = swarm.every
        self._seat = seat
        self._swarm = swarm
        self._roster = roster
        self._progress = progress
        self._watch = watch
        self._clock = clock
        self._max_weight = max_weight
        self._timeouts = timeouts or find_timeouts(swarm)
        self._standing = begin_lineage(seat.swarm, seat.fingerprint)
        self._fresh = True
        self._own_samples = 0
        self._pulls = 0
        self._last_members: tuple[str, ...] = ()
        self._stepped_at: float | None = None
        self._step_s = 0.0
        self._final = ""
        self._layout = Layout()
        self._vector = torch.empty(0)
        self._averager: StrictAverager | None = None
        self._lookout: Lookout | None = None
        self._dht: DHT | None = None
        self._host = Host()
        # Its tracebacks are of failures that come back here as reasons.
        logging.getLogger("hivemind.averaging").setLevel(logging.CRITICAL)
        if not seat.creator and not seat.initial_peers:
            raise InputError(
                "this peer knows no address of the swarm",
                why="with an empty list it would train alone without a word",
                fix="gtft swarm join INVITATION, with the invitation that the creator made last",
            )
        try:
            self._dht = self._start_dht(authorizer)
        except BaseException:
            # Ctrl-C too: the peer-to-peer daemon is a process of its own.
            self.close()
            raise

    # The seam.

    def begin(
        self,
        names: Sequence[str],
        tensors: Sequence[torch.Tensor],
        companion: Mapping[str, Any] | None,
    ) -> Adopted | None:
        """Start the averager for tensors of these names and shapes; come in.

        A creator that finds nobody further than itself offers its own state; everybody else takes over a
        donor's, or TrainingError is raised.
        """
        self._layout = Layout(names, tensors)
        fingerprint = self._layout.sign(self._seat.fingerprint)
        self._standing = begin_lineage(self._seat.swarm, fingerprint)
        if companion is not None:
            self._resume(companion, fingerprint)
        self._vector = flatten(tensors)
        self._start_averager(self._vector.numel(), fingerprint)
        adopted = None
        if self._seat.initial_peers:
            # Who was further than the swarm is now goes back to it; the creator's own state counts.
            adopted = self.pull_state(self._standing.round if self._seat.creator else 0)
        if adopted is None and self._watch.stop_requested:
            raise StopRequested(None, "stopped before it came into the swarm")
        if adopted is None and not self._seat.creator:
            raise TrainingError(
                "no peer of the swarm gives its state",
                why="a peer that joins takes the common weights before its first step; "
                f"members in sight: {len(self._look())}",
                fix="gtft swarm status shows who is there; then gtft runs resume RUN",
            )
        if adopted is None:
            self._fresh = False
            self._need_averager().serve(self._vector, self._standing)
            self._say(round=self._standing.round, samples=self._standing.samples)
        return adopted

    def due(self) -> bool:
        """Whether a peer waits for this one, or another is further. To be asked after every update."""
        self._measure_pace()
        others = self._lookout.others() if self._lookout else {}
        here = self._standing.round
        return any((s.waiting and s.round == here) or s.round > here for s in others.values())

    def average(
        self, tensors: Sequence[torch.Tensor], weight: int, round: int
    ) -> Averaged | Failed | Forked:
        """One attempt at ``round``, wholly or not at all; the caller's tensors are not touched."""
        began = self._clock()
        vector = flatten(tensors)
        rows = min(weight, self._max_weight)
        outcome = self._attempt(vector, rows, round)
        seconds = self._clock() - began
        self._say(waiting=False)
        if isinstance(outcome, Averaged):
            self._own_samples += rows
            outcome = Averaged(
                outcome.tensors, outcome.members, outcome.samples, outcome.lineage, seconds
            )
        self._note(round, outcome, seconds)
        self._stepped_at = None
        return outcome

    def pull_state(self, min_round: int) -> Adopted | None:
        """The state of the furthest peer that passes every check, or None after all tries."""
        reasons: dict[str, str] = {}
        for attempt in range(self._timeouts.pulls):
            if self._watch.stop_requested:
                return None
            if attempt:
                time.sleep(self._timeouts.look)
            signs = self._look()
            self._refuse_strangers(signs)
            for peer, sign in sorted(signs.items(), key=_furthest, reverse=True):
                if sign.round < min_round:
                    continue
                adopted = self._take_over(peer, min_round)
                if isinstance(adopted, Adopted):
                    return adopted
                reasons[peer] = adopted
        for peer, reason in sorted(reasons.items()):
            self._watch.warn("swarm-donor", f"the state of {peer[-8:]} was not taken: {reason}")
        return None

    def finish(self) -> Adopted:
        """After the last round: the same bytes for everybody; stays a donor until the others have them.

        The creator's bytes count; without it those of the first member, by id, of the last round.
        """
        order = sorted(self._last_members, key=lambda p: (p != self._roster.document.creator, p))
        own = self._layout.hash(self._vector)
        turn = order.index(self._seat.peer_id) if self._seat.peer_id in order else None
        began = self._clock()
        while self._clock() - began < self._timeouts.pull * self._timeouts.pulls:
            finals = self._read_finals()
            chosen = next((finals[p] for p in (*order, *sorted(finals)) if p in finals), "")
            if (
                not chosen
                and turn is not None
                and self._clock() - began >= turn * self._timeouts.turn
            ):
                chosen = own
            if chosen == own:
                return self._settle(own, self._seat.peer_id)
            for donor in [p for p in finals if finals[p] == chosen]:
                if self._take_final(donor, chosen):
                    return self._settle(chosen, donor)
            if self._watch.stop_requested:
                raise StopRequested(None, "stopped before it had the swarm's final adapter")
            time.sleep(self._timeouts.look)
        raise TrainingError(
            "this peer did not get the swarm's final adapter",
            why="after the last round nobody that has it could be reached",
            fix="ask a member for the adapter; gtft swarm status shows who has it",
        )

    def leaving(self) -> bool:
        """Whether ``gtft swarm leave`` was typed."""
        return leave_requested(self._seat)

    def members(self) -> tuple[Member, ...]:
        """The others as last heard of, by id."""
        others = self._lookout.others() if self._lookout else {}
        return tuple(Member(p, s.round, s.samples) for p, s in sorted(others.items()))

    def companion(self) -> dict[str, Any]:
        """What a checkpoint keeps of the swarm."""
        if self._fresh:
            return {}
        return {**self._standing.as_dict(), "own_samples": self._own_samples}

    def evidence(self) -> dict[str, Any]:
        """What this peer and the others signed: rounds, samples, lineage. Call it before ``close``."""
        if self._dht is not None:
            with self._alone_with_dht() as dht:
                self._progress.others(dht)
        return self._progress.evidence()

    def close(self) -> None:
        """Say goodbye, end the processes (averager, then DHT), remove the sockets. May be called twice."""
        if self._lookout is not None:
            self._lookout.stop()
            if self._dht is not None and self._dht.is_alive():
                self._lookout.say(left=True)
                self._lookout.look()
                if not self._final:
                    self._progress.leave(self._dht)
            self._lookout = None
        if self._averager is not None:
            if self._averager.is_alive():
                self._averager.shutdown()
            self._averager = None
        if self._dht is not None:
            self._dht.shutdown()
            self._dht = None
        self._host.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this peer."""
        return tuple(str(a) for a in self._need_dht().get_visible_maddrs())

    # Coming in.

    def _start_dht(self, authorizer: AuthorizerBase) -> DHT:
        options = self._seat.dht_options()
        try:
            return self._run_dht(authorizer, options)
        except InputError:
            if not self._seat.creator or not options["initial_peers"]:
                raise
        self._watch.warn("swarm-alone", "no known peer answers; the creator waits for them to come")
        return self._run_dht(authorizer, {**options, "initial_peers": []})

    def _run_dht(self, authorizer: AuthorizerBase, options: Mapping[str, Any]) -> DHT:
        try:
            with self._host.starting():
                return DHT(start=True, authorizer=authorizer, **options)
        except (ValidationError, P2PDaemonError, RuntimeError, TimeoutError, OSError) as e:
            raise explain_start(e) from e

    def _start_averager(self, size: int, fingerprint: str) -> None:
        t = self._timeouts
        dht = self._need_dht()
        with self._host.starting():
            averager = StrictAverager(
                size,
                dht,
                prefix=f"{self._seat.swarm}-{fingerprint[:12]}",
                is_allowed=self._roster.is_allowed,
                min_peers=self._swarm.min_peers,
                max_weight=self._max_weight,
                fp16=self._swarm.compression == "fp16",
                min_matchmaking_time=t.matchmaking,
                request_timeout=t.request,
                next_chunk_timeout=t.chunk,
                allreduce_timeout=t.allreduce,
            )
            averager.run_in_background(await_ready=True, timeout=60)
        self._averager = averager
        self._lookout = Lookout(
            dht,
            self._seat.swarm,
            self._seat.peer_id,
            self._roster.is_allowed,
            every=t.look,
            lifetime=t.lifetime,
        )
        # Not yet a donor, and not to be waited for: only in sight.
        self._lookout.say(fingerprint=fingerprint)
        self._lookout.start()

    def _resume(self, companion: Mapping[str, Any], fingerprint: str) -> None:
        try:
            standing = parse_standing(dict(companion))
        except ValueError as e:
            raise TrainingError(
                "the checkpoint's swarm state cannot be used", why=str(e), fix="gtft runs show RUN"
            ) from e
        if standing.fingerprint == fingerprint:
            self._standing = standing
            self._own_samples = int(companion.get("own_samples", 0))

    def _refuse_strangers(self, signs: Mapping[str, Sign]) -> None:
        own = self._standing.fingerprint
        told = {p: s.fingerprint for p, s in signs.items() if s.fingerprint}
        if self._fresh and told and own not in told.values():
            raise InputError(
                "the swarm trains another recipe or base",
                why=f"its fingerprint is {sorted(told.values())[0][:12]}, this run's is {own[:12]}",
                fix="gtft swarm join INVITATION with the recipe and base that it names",
            )

    # A round.

    def _attempt(self, vector: torch.Tensor, rows: int, number: int) -> Averaged | Failed | Forked:
        norm = measure(vector)
        if find_excess(norm, norm, 1.0):
            return Failed("this peer's own numbers are not finite")
        self._check_alive()
        signs = self._look()
        ahead = _find_ahead(signs, number)
        if ahead:
            return Failed(ahead, behind=True)
        averager, t = self._need_averager(), self._timeouts
        same = [s for s in signs.values() if s.round == number - 1]
        expected = len(same) + 1
        averager.fill(vector)
        averager.set_round(number, expected if expected >= self._swarm.min_peers else None)
        self._say(waiting=True)
        slowest = max((s.step_s for s in same), default=0.0)
        window = max(t.matchmaking, min(t.allreduce, 2 * slowest))
        control = averager.step(
            gather={"standing": self._standing.as_dict(), "rows": rows},
            weight=float(max(1, rows)),
            scheduled_time=get_dht_time() + window,
            timeout=window + t.allreduce + 3,
            allow_retries=False,
            wait=False,
        )
        interrupted = self._wait(control, number, window + 2 * t.allreduce + 10)
        if interrupted is not None:
            return interrupted
        try:
            gathered = {p.to_base58(): words for p, words in control.result().items()}
        except Refused as e:
            fork = e.pull or e.reason.startswith("a fork")
            return Forked(e.members, e.reason, e.pull) if fork else Failed(e.reason)
        except _LOST as e:
            return Failed(_explain_failure(e))
        return self._accept(vector, norm, {p: w["rows"] for p, w in gathered.items()})

    def _wait(self, control: StepControl, number: int, limit: float) -> Failed | None:
        began = self._clock()
        while not control.done():
            time.sleep(_TICK_S)
            reason, behind = "", False
            if self._watch.stop_requested:
                reason = "this run was asked to stop"
            elif control.stage == AveragingStage.LOOKING_FOR_GROUP:
                others = self._lookout.others() if self._lookout else {}
                reason = _find_ahead(others, number)
                behind = bool(reason)
            self._check_alive()
            if not reason and self._clock() - began > limit:
                reason = "the exchange did not end in time"
            if reason:
                control.cancel()
                return Failed(reason, behind)
        return None

    def _accept(
        self, vector: torch.Tensor, norm: float, rows: Mapping[str, int]
    ) -> Averaged | Failed:
        averager = self._need_averager()
        with averager.get_tensors() as (flat,):
            result = flat.clone()
        excess = find_excess(measure(result - vector), norm, _ROUND_BOUND)
        if excess:
            return Failed(f"the average was refused: {excess}")
        self._standing = extend(self._standing, rows)
        self._last_members = tuple(sorted(rows))
        self._hold(result)
        standing = self._standing
        return Averaged(
            self._layout.split(result), self._last_members, standing.samples, standing.lineage, 0.0
        )

    def _hold(self, vector: torch.Tensor) -> None:
        """The common state from now on: served to whoever asks."""
        self._vector, self._fresh = vector, False
        self._need_averager().serve(vector, self._standing)
        self._say(round=self._standing.round, samples=self._standing.samples, waiting=False)

    def _note(self, number: int, outcome: Averaged | Failed | Forked, seconds: float) -> None:
        ok = isinstance(outcome, Averaged)
        members = outcome.members if isinstance(outcome, Averaged) else ()
        share = 2 * (len(members) - 1) / len(members) if members else 0.0
        note = RoundNote(
            round=number,
            ok=ok,
            members=members,
            samples=self._own_samples,
            lineage=self._standing.lineage,
            adapter_hash=self._layout.hash(self._vector),
            seconds=round(seconds, 3),
            bytes_sent=int(share * self._vector.numel() * 4),
            failed_size=0 if ok else self._vector.numel(),
            retries=0 if ok else 1,
            pulls=self._pulls,
            reason="" if isinstance(outcome, Averaged) else outcome.reason,
        )
        self._pulls = 0
        with self._alone_with_dht() as dht:
            self._progress.note(note, dht)
            self._roster.refresh(dht)

    # Another peer's state.

    def _take_over(self, peer: str, min_round: int) -> Adopted | str:
        got = self._need_averager().download(peer, self._timeouts.pull)
        if isinstance(got, str):
            return got
        words, vector = got
        try:
            standing = parse_standing(words)
        except ValueError as e:
            return str(e)
        own = self._standing
        if standing.fingerprint != own.fingerprint:
            return "it trains another recipe or base"
        if not min_round <= standing.round <= self.rounds:
            return f"it is at round {standing.round}"
        if not is_plausible(standing, len(self._roster.document.members), self._max_weight):
            return f"it claims {standing.samples} rows in {standing.round} rounds"
        if not self._fresh and _rank(standing) <= _rank(own):
            return "it is not further than this peer"
        excess = find_excess(measure(vector - self._vector), measure(self._vector), _PULL_BOUND)
        if excess:
            return excess
        self._standing = standing
        self._pulls += 1
        self._last_members = ()
        self._hold(vector)
        return Adopted(
            self._layout.split(vector), standing.round, standing.samples, standing.lineage, peer
        )

    def _read_finals(self) -> dict[str, str]:
        with self._alone_with_dht() as dht:
            others = self._progress.others(dht)
        return {
            p: str(r["final"])
            for p, r in others.items()
            if r["final"] and self._roster.is_allowed(p)
        }

    def _take_final(self, donor: str, final: str) -> bool:
        got = self._need_averager().download(donor, self._timeouts.pull)
        if isinstance(got, str) or self._layout.hash(got[1]) != final:
            self._watch.warn("swarm-donor", f"{donor[-8:]} does not give the final adapter")
            return False
        self._vector = got[1]
        return True

    def _settle(self, final: str, donor: str) -> Adopted:
        self._final = final
        self._hold(self._vector)
        with self._alone_with_dht() as dht:
            self._progress.finish(final, dht)
        self._say(final=final[:64])
        began = self._clock()
        while self._clock() - began < self._timeouts.linger and not self._watch.stop_requested:
            others = self._look()
            if all(s.final for s in others.values()):
                break
            time.sleep(self._timeouts.look)
        standing = self._standing
        return Adopted(
            self._layout.split(self._vector),
            standing.round,
            standing.samples,
            standing.lineage,
            donor,
        )

    # Small things.

    def _check_alive(self) -> None:
        if not (self._need_averager().is_alive() and self._need_dht().is_alive()):
            raise TrainingError(
                "a process of the swarm peer ended by itself",
                why="the system may have ended it for its memory; worker.log has its last words",
                fix="gtft runs resume RUN",
            )

    @contextlib.contextmanager
    def _alone_with_dht(self) -> Iterator[DHT]:
        with self._lookout.lock if self._lookout else contextlib.nullcontext():
            yield self._need_dht()

    def _look(self) -> dict[str, Sign]:
        return self._lookout.look() if self._lookout else {}

    def _say(self, **changed: Any) -> None:
        if self._lookout is not None:
            self._lookout.say(**changed)

    def _measure_pace(self) -> None:
        now = self._clock()
        if self._stepped_at is not None:
            taken = now - self._stepped_at
            # Told again only when it changed much: a record per update would be traffic.
            if not 0.67 * self._step_s <= taken <= 1.5 * self._step_s:
                self._step_s = taken
                self._say(step_s=round(taken, 3))
        self._stepped_at = now

    def _need_averager(self) -> StrictAverager:
        assert self._averager is not None, "begin() comes first"
        return self._averager

    def _need_dht(self) -> DHT:
        assert self._dht is not None, "the peer is closed"
        return self._dht


def _explain_failure(error: BaseException) -> str:
    text = str(error).removeprefix("Unable to run All-Reduce:").strip()
    text = text.removeprefix("Averaging step failed: ")
    return text or "the exchange was cut off, or took longer than allreduce_s"


def _furthest(entry: tuple[str, Sign]) -> tuple[int, int, str]:
    peer, sign = entry
    return sign.round, sign.samples, peer


def _rank(standing: Standing) -> tuple[int, int, str]:
    """Which of two states is taken over: the later round, then more samples, then the lineage's hash."""
    return standing.round, standing.samples, standing.lineage


def _find_ahead(signs: Mapping[str, Sign], number: int) -> str:
    furthest = max((s.round for s in signs.values()), default=0)
    return f"the swarm is at round {furthest} already" if furthest >= number else ""
