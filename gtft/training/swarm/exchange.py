"""Hivemind's averager with its traps closed: who may call, whom it meets, and what counts as a success.

The averager lives in a forked process; the trainer talks to it through pipes and shared memory. One flat
float32 vector is exchanged, so a failed exchange leaves nothing half averaged and few files stay open.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, AsyncIterator  # noqa: UP035 - Hivemind reads the RPCs' annotations by this name

import torch
from hivemind.averaging import DecentralizedAverager
from hivemind.averaging.allreduce import AllreduceException
from hivemind.averaging.group_info import GroupInfo
from hivemind.compression import (
    CompressionInfo,
    Float16Compression,
    NoCompression,
    deserialize_torch_tensor,
)
from hivemind.dht import DHT
from hivemind.p2p import P2PContext, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.proto import averaging_pb2, runtime_pb2
from hivemind.utils import MPFuture
from hivemind.utils.asyncio import aiter_with_timeout
from hivemind.utils.streaming import combine_from_streaming, split_for_streaming

from gtft.training.swarm.lineage import Standing, judge, parse_standing

_WORDS = 4096  # bytes kept for the served state's standing
_EXACT_EVERY = 10
_LARGEST_PART = 2**19


class Refused(AllreduceException):  # type: ignore[misc]
    """A group that must not exchange numbers. ``pull``: this peer is the one that gives way."""

    def __init__(self, reason: str, pull: bool = False, members: tuple[str, ...] = ()) -> None:
        super().__init__(reason, pull, members)
        self.reason, self.pull, self.members = reason, pull, members


class StrictAverager(DecentralizedAverager):  # type: ignore[misc]
    """Averages one flat vector with allowed peers of the same round and lineage, wholly or not at all.

    ``is_allowed``: asked in the averager's process for every call. ``max_weight``: rows that a peer may
    declare for a round. The served state is what ``serve`` was last given; nothing before the first call.
    """

    def __init__(
        self,
        size: int,
        dht: DHT,
        *,
        prefix: str,
        is_allowed: Callable[[str], bool],
        min_peers: int,
        max_weight: int,
        fp16: bool,
        **options: Any,
    ) -> None:
        self._is_allowed = is_allowed
        self._min_peers = min_peers
        self._max_weight = max_weight
        self._fp16 = fp16
        self.flat = torch.zeros(size, dtype=torch.float32)
        self._served = _share(torch.zeros(size, dtype=torch.float32))
        self._words = _share(torch.zeros(_WORDS, dtype=torch.uint8))
        self._one_download = asyncio.Lock()
        super().__init__(
            [self.flat],
            dht,
            start=False,
            prefix=prefix,
            min_group_size=min_peers,
            part_size_bytes=max(4096, min(_LARGEST_PART, size * 4 // 16)),
            allow_state_sharing=False,
            **options,
        )

    # What the trainer calls.

    def fill(self, vector: torch.Tensor) -> None:
        """Put this peer's numbers into the buffer; waits for a running exchange to end."""
        with self.get_tensors() as (flat,):
            flat.copy_(vector)

    def serve(self, vector: torch.Tensor, standing: Standing) -> None:
        """What peers that ask for the state get from now on."""
        words = json.dumps(standing.as_dict()).encode()
        with self.get_tensors():
            self._served.copy_(vector)
            self._words.zero_()
            self._words[: len(words)] = torch.frombuffer(bytearray(words), dtype=torch.uint8)

    def set_round(self, number: int, expected: int | None) -> None:
        """Meet only peers of that round; a group of ``expected`` starts at once."""
        future: Any = MPFuture()
        self._outer_pipe.send(
            ("_set_round", [], {"number": number, "expected": expected, "future": future})
        )
        future.result(timeout=10)

    def download(self, peer: str, patience: float) -> tuple[object, torch.Tensor] | str:
        """The state of a peer as (its words, flat vector), or why there is none."""
        future: Any = MPFuture()
        self._outer_pipe.send(
            ("_download", [], {"peer": peer, "patience": patience, "future": future})
        )
        try:
            result = future.result(timeout=patience + 5)
        except TimeoutError:
            return "it did not answer in time"
        if isinstance(result, str):
            return result
        words, vector = result
        try:
            return json.loads(words), vector
        except (ValueError, RecursionError):
            return "it sent words that are not JSON"

    # What runs in the averager's process.

    async def _set_round(self, *, number: int, expected: int | None, future: Any) -> None:
        manager = self._matchmaking.group_key_manager
        manager.group_bits = format(number, "b")
        manager.update_key_on_group_assembled = _keep_key
        self._matchmaking.target_group_size = expected
        future.set_result(None)

    async def _download(self, *, peer: str, patience: float, future: Any) -> None:
        try:
            result: object = await asyncio.wait_for(self._fetch_state(peer), patience)
        except (TimeoutError, P2PDaemonError, P2PHandlerError, ConnectionError, ValueError) as e:
            result = str(e) or f"it stopped answering ({type(e).__name__})"
        except BaseException as e:
            # Cancelled too: whoever waits for the future in another process must not wait for ever.
            future.set_result(f"{type(e).__name__}: {e}")
            raise
        future.set_result(result)

    async def _fetch_state(self, peer: str) -> tuple[bytes, torch.Tensor]:
        stub = self.get_stub(self._p2p, PeerID.from_base58(peer), namespace=self.prefix)
        stream = await stub.rpc_download_state(averaging_pb2.DownloadRequest())
        words, parts, received = b"", [], 0
        expected = self.total_size * 4
        async for message in aiter_with_timeout(stream, timeout=self.next_chunk_timeout):
            words = words or message.metadata[: _WORDS + 1]
            received += len(message.tensor_part.buffer)
            if received > expected:
                raise ValueError("it sends more than an adapter of this shape")
            parts.append(message.tensor_part)
        if not parts:
            raise ValueError("it has no state to give, or does not let this peer in")
        head = parts[0]
        plain = head.compression == runtime_pb2.CompressionType.NONE and head.dtype == "float32"
        if not plain or list(head.size) != [self.total_size] or received != expected:
            raise ValueError("it sends an adapter of another shape")
        return words, deserialize_torch_tensor(combine_from_streaming(parts)).detach()

    async def rpc_download_state(
        self, _request: averaging_pb2.DownloadRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """Nothing to a stranger, and nothing before there is a common state; one download at a time."""
        if not self._is_allowed(context.remote_id.to_base58()):
            return
        async with self._one_download:
            loop = asyncio.get_running_loop()
            words, vector = await loop.run_in_executor(None, self._copy_served)
            if not words:
                return
            packed = NoCompression().compress(vector, CompressionInfo.from_tensor(vector))
            for part in split_for_streaming(packed):
                yield averaging_pb2.DownloadData(tensor_part=part, metadata=words)
                words = b""

    def _copy_served(self) -> tuple[bytes, torch.Tensor]:
        with self.lock_averaged_tensors:
            return bytes(self._words.tolist()).rstrip(b"\0"), self._served.clone()

    async def rpc_join_group(
        self, request: averaging_pb2.JoinRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.MessageFromLeader]:
        """Hivemind's, for allowed peers only."""
        if not self._is_allowed(context.remote_id.to_base58()):
            yield averaging_pb2.MessageFromLeader(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        async for message in super().rpc_join_group(request, context):
            yield message

    async def rpc_aggregate_part(
        self, stream: AsyncIterator[averaging_pb2.AveragingData], context: P2PContext
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        """Hivemind's, for allowed peers only, and with a weight that a peer can have."""
        if not self._is_allowed(context.remote_id.to_base58()):
            yield averaging_pb2.AveragingData(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        async for message in super().rpc_aggregate_part(self._weigh(stream), context):
            yield message

    async def _weigh(
        self, stream: AsyncIterator[averaging_pb2.AveragingData]
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        async for message in stream:
            if not 0 < message.weight <= self._max_weight:  # NaN fails too
                raise AllreduceException(f"a weight of {message.weight}")
            yield message

    async def _aggregate_with_group(
        self, group_info: GroupInfo, min_vector_size: int, **kwargs: Any
    ) -> Any:
        """Look at the group before any number is exchanged."""
        number = self._check_group(group_info)
        exact = not self._fp16 or number % _EXACT_EVERY == 0
        kwargs["compression"] = NoCompression() if exact else Float16Compression()
        return await super()._aggregate_with_group(group_info, min_vector_size, **kwargs)

    def _check_group(self, group: GroupInfo) -> int:
        ids = [p.to_base58() for p in group.peer_ids]
        strangers = [p for p in ids if not self._is_allowed(p)]
        if strangers:
            raise Refused(f"a group with a peer that is not a member ({strangers[0]})")
        if len(set(ids)) < self._min_peers:
            raise Refused(f"a group of {len(ids)}, the recipe asks for {self._min_peers}")
        try:
            words = [self.serializer.loads(self.serializer.loads(g)[2]) for g in group.gathered]
            standings = {p: parse_standing(w["standing"]) for p, w in zip(ids, words, strict=True)}
            rows = [w["rows"] for w in words]
        except (ValueError, KeyError, TypeError, IndexError) as e:
            raise Refused(f"a member that sends no standing ({e})") from e
        if not all(type(r) is int and 0 <= r <= self._max_weight for r in rows):
            raise Refused("a member that declares more rows than a round has")
        own = standings.pop(self.peer_id.to_base58())
        verdict = judge(own, standings)
        if verdict.reason:
            raise Refused(verdict.reason, verdict.pull, verdict.heirs)
        return own.round + 1

    async def _run_allreduce_inplace_(
        self,
        tensors: Sequence[torch.Tensor],
        group_info: GroupInfo,
        group_id: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        """An exchange of which a part failed is a failure: Hivemind fills it with local numbers."""
        group_id = group_info.group_id if group_id is None else group_id
        await super()._run_allreduce_inplace_(tensors, group_info, group_id, **kwargs)
        runner = self._running_groups[group_id].result()
        lost = runner.tensor_part_container.failed_size
        if lost or runner.banned_senders:
            raise AllreduceException(
                f"partial exchange: {lost} of {self.total_size} numbers and "
                f"{len(runner.banned_senders)} members were lost"
            )


def _share(tensor: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


async def _keep_key(_group: GroupInfo) -> None:
    """The group key is the round's number; Hivemind would draw another one."""


def measure(vector: torch.Tensor) -> float:
    """The norm of a vector as a float; infinite or NaN when it holds such a number."""
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    return norm if math.isfinite(norm) else math.inf
