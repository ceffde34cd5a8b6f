"""The collective link: torch.distributed moves the rows, the mesh announces them and watches.

For synchronous algorithms that wait for every row, between processes that trust each other: the rows
are neither encrypted nor authenticated. Each block of rows is announced by a frame of the mesh that
has its step, nodes and columns and no row, so a collective begins only when all are there for it.
The mesh stays open and says at once who is gone; that ends the job, for a group cannot be mended.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from kuiper.aggregation.sums import ordered_sum
from kuiper.attacks.adversary import Adversary
from kuiper.errors import JobFailed, KuiperError, ProtocolError, QuorumLost
from kuiper.link.base import Channel, Gathered, Request
from kuiper.link.mesh import LEFT
from kuiper.link.remote import Notify, RemoteLink
from kuiper.link.wire import Header, byte_view
from kuiper.topology import Exchange

RENDEZVOUS = Channel("rendezvous", 302, width=1, dtype=torch.int64, shared=True, charged=False)
"""Rank 0 tells the others the port of torch.distributed's store."""
_STALLED = timedelta(minutes=10)
"""A transfer that stands still for so long fails the job."""
_DRAIN_SECONDS = 5.0
"""How long what a process sent before its goodbye may still be on its way."""
_NEWS_SECONDS = 2.0
"""How long a failed collective waits for the mesh to say who is gone."""
_LOOPBACK = "127.0.0.1"
_REMEDY = "look for the first error: `kuiper logs JOB --errors`"


def announcements(channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """What the mesh carries beside the collectives: charged channels without their rows, the others whole."""
    return (*(replace(c, width=0) if c.charged else c for c in channels), RENDEZVOUS)


def backend(processes: Sequence[Mapping[str, Any]]) -> str:
    """nccl where each of the processes (`host`, `device`) has a GPU to itself, else gloo."""
    places = {(process["host"], process["device"]) for process in processes}
    alone = len(places) == len(processes) and all(device.startswith("cuda") for _, device in places)
    return "nccl" if alone else "gloo"


class CollectiveLink(RemoteLink):
    """Broadcast, gather and all-reduce by torch.distributed; see `RemoteLink` for what is not said here.

    `publish` is a broadcast; `gather` receives each process's block straight into one matrix, the same
    bits as over the mesh. `reduce` sums a block in float64 and the blocks in the dtype that travels, in
    the order of the backend: equal to the mesh's to rounding, and the same bits at every process.
    The channels of a peer-to-peer job's observer stay on the mesh.

    Args:
        channels: of the mesh, from `announcements`.
        processes: of the job by rank, each with `host` and `device`.
        peers: whether rank 0 only observes; the group is then that of the others.
    """

    def __init__(self, rank: int, blocks: Sequence[np.ndarray], channels: Sequence[Channel],
                 adversary: Adversary, notify: Notify, device: torch.device, *,
                 processes: Sequence[Mapping[str, Any]], peers: bool) -> None:
        super().__init__(rank, blocks, channels, adversary, notify, device)
        self._members = range(int(peers), len(blocks))
        self._processes = processes
        self._backend = backend([processes[rank] for rank in self._members])
        self._memory = device if self._backend == "nccl" else torch.device("cpu")
        self._calls = Calls()
        self._port = torch.zeros(1, dtype=torch.int64)
        self._told = threading.Event()
        self._store: dist.Store | None = None
        self._due = 0
        self._model: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None

    # -- called by the mesh, in a peer's receiving thread -----------------------------------

    def place(self, sender: int, header: Header, nodes: np.ndarray,
              columns: np.ndarray | None) -> list[memoryview] | None:
        if header.channel != RENDEZVOUS.number:
            return super().place(sender, header, nodes, columns)
        if sender or self._told.is_set():
            raise ProtocolError(f"channel {RENDEZVOUS.name}: rank {sender} sent what rank 0 says once")
        return [byte_view(self._port)]

    def arrived(self, sender: int, header: Header, nodes: np.ndarray, columns: np.ndarray | None) -> None:
        if header.channel == RENDEZVOUS.number:
            self._told.set()
        else:
            super().arrived(sender, header, nodes, columns)

    def gone(self, rank: int, reason: str) -> None:
        error = QuorumLost(f"rank {rank} (nodes {self._blocks[rank].tolist()}) is gone: {reason}; "
                           "`transport: collective` needs every process",
                           f"{_REMEDY}; `transport: mesh` survives losses")
        if reason == LEFT:  # at the end of a job the others may still be receiving its last rows
            timer = threading.Timer(_DRAIN_SECONDS, self._calls.fail, (error,))
            timer.daemon = True
            timer.start()
        else:
            self._calls.fail(error)
        super().gone(rank, reason)

    def live(self, nodes: np.ndarray) -> np.ndarray:
        if self._calls.error is not None:
            raise self._calls.error
        return super().live(nodes)

    # -- the link ---------------------------------------------------------------------------

    def start(self) -> None:
        """Rank 0 opens a store and says where; the group forms; the clock begins.

        Raises:
            JobFailed: a process is gone, or the group cannot form.
        """
        self._calls.start()
        self._calls.submit(self._form).result()
        super().start()

    def _form(self) -> None:
        local = all(process["host"] == "localhost" for process in self._processes)
        if local:
            loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
            if loopback is not None:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        host = _LOOPBACK if local else self._processes[0]["host"]
        if self._rank == 0:
            both = not local and socket.has_dualstack_ipv6()
            listener = socket.create_server((_LOOPBACK if local else "", 0), dualstack_ipv6=both,
                                            family=socket.AF_INET6 if both else socket.AF_INET)
            self._port[0] = listener.getsockname()[1]
            self._store = dist.TCPStore(host, int(self._port), is_master=True, wait_for_workers=False,
                                        master_listen_fd=listener.detach())
            for rank in range(1, len(self._blocks)):
                self.mesh.post(rank, RENDEZVOUS, 0, self._blocks[rank].astype(np.uint32), self._port)
        else:
            self._told.wait()
            self._store = dist.TCPStore(host, int(self._port), is_master=False)
        if self._rank in self._members:
            dist.init_process_group(self._backend, store=self._store, timeout=_STALLED,
                                    rank=self._rank - self._members[0], world_size=len(self._members))

    async def publish(self, channel: Channel, step: int, row: torch.Tensor, to: np.ndarray,
                      reply: Channel) -> None:
        self._due = len(to)
        await super().publish(self._channels[channel.number], step, row[:0], to, reply)
        self.traffic.add(bytes_out=channel.row_bytes * (len(self._blocks) - 1))
        await self._collect(partial(dist.broadcast, self._ready(row), 0))

    async def requests(self, channel: Channel, together: int) -> AsyncIterator[Request]:
        """One cohort, the block: its rows travel together."""
        if self._model is None:
            self._model = torch.empty(channel.width, dtype=channel.dtype, device=self._memory)
        while (request := await self._asked.next()) is not None:
            await self._collect(partial(dist.broadcast, self._model, 0))
            self.traffic.add(bytes_in=channel.row_bytes)
            yield replace(request, row=self._model.to(self._device))

    async def send(self, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
                   columns: dict[str, np.ndarray] | None = None, to: Exchange | None = None,
                   keep: int | None = None) -> None:
        if not channel.charged:
            return await super().send(channel, step, nodes, rows, columns)
        rows = self._ready(self._adversary.leaving(nodes, rows, step).to(channel.dtype))
        table = np.stack([columns[name] for name in channel.columns], axis=1) if columns else None
        self._post(0, self._channels[channel.number], step, nodes, rows[:, :0], table)
        self.traffic.add(bytes_out=rows.nbytes)
        self._calls.submit(partial(_transfer, [dist.P2POp(dist.isend, rows, 0)]))
        # Not waited for, as on the mesh: the next call is behind it, and fails if it does.

    async def gather(self, channel: Channel, step: int, quorum: int | None = None,
                     deadline: float | None = None, minimum: int = 1) -> Gathered:
        """The rows of all nodes that were asked; `quorum` and `deadline` are None.

        The rows are valid until the next gather.
        """
        if not channel.charged:
            return await super().gather(channel, step, quorum, deadline, minimum)
        announced, _ = await self._inboxes[channel.number].gather(step, None, None, self._due)
        if self._rows is None:
            self._rows = torch.empty(self._due, channel.width, dtype=channel.dtype, device=self._memory)
        await self._collect(partial(_transfer, [
            dist.P2POp(dist.irecv, self._rows[block[0] : block[-1] + 1], rank)
            for rank, block in enumerate(self._blocks) if rank]))
        self.traffic.add(bytes_in=self._rows.nbytes, rows=self._due)
        rows = self._rows.to(self._device, torch.float32)
        return replace(announced, rows=self._adversary.arriving(announced.nodes, rows, step))

    async def reduce(self, step: int, nodes: np.ndarray, rows: torch.Tensor,
                     dtype: torch.dtype) -> torch.Tensor:
        rows = self._adversary.leaving(nodes, rows, step).to(dtype)
        total = sum(len(block) for block in self._blocks[1:])
        share = self._ready(ordered_sum(rows).div_(total).to(dtype))
        await self._collect(partial(dist.all_reduce, share))
        moved = 2 * (len(self._members) - 1) * share.nbytes // len(self._members)  # a ring's
        self.traffic.add(bytes_in=moved, bytes_out=moved, rows=len(nodes))
        return share.to(self._device, torch.float32)

    async def close(self, failed: bool = False) -> None:
        if dist.is_initialized():
            with suppress(KuiperError):  # who failed has said so
                await self._collect(dist.destroy_process_group)
        self._calls.end()
        await super().close(failed)

    def _ready(self, tensor: torch.Tensor) -> torch.Tensor:
        """Where the backend takes it from."""
        return tensor.to(self._memory).contiguous()

    async def _collect(self, function: Callable[[], Any]) -> None:
        await asyncio.wrap_future(self._calls.submit(function))


def _transfer(operations: list[dist.P2POp]) -> None:
    """Send or receive; as one batch, so that NCCL uses the group's communicator at both ends."""
    for work in dist.batch_isend_irecv(operations):
        work.wait()


class Calls(threading.Thread):
    """The one thread that may block in a collective, and the calls that wait for it, in order.

    A collective whose peer is gone may never return. `fail` gives every call its error; the thread
    is left where it is, and ends with the process.

    Attributes:
        error: why no call succeeds any more.
    """

    def __init__(self) -> None:
        super().__init__(name="kuiper-collective", daemon=True)
        self.error: KuiperError | None = None
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[None]] | None] = queue.SimpleQueue()
        self._outstanding: set[Future[None]] = set()
        self._changed = threading.Condition()

    def submit(self, function: Callable[[], Any]) -> Future[None]:
        """Call it after those before it; the future is done when the device has it done too."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # what has begun elsewhere cannot be taken back
        with self._changed:
            if self.error is not None:
                future.set_exception(self.error)
                return future
            self._outstanding.add(future)
        self._queue.put((function, future))
        return future

    def fail(self, error: KuiperError) -> None:
        """From now on every call fails, the outstanding ones too; the first error stays."""
        with self._changed:
            self.error = self.error or error
            outstanding, self._outstanding = self._outstanding, set()
            self._changed.notify_all()
        for future in outstanding:
            future.set_exception(self.error)

    def end(self) -> None:
        """Let the thread end after the calls before this."""
        self._queue.put(None)

    def run(self) -> None:
        while self.error is None and (call := self._queue.get()) is not None:
            function, future = call
            try:
                function()
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # NCCL returns before it has moved anything
            except Exception as error:  # whatever it is, somebody waits for this call
                with self._changed:
                    self._changed.wait_for(lambda: self.error is not None, _NEWS_SECONDS)
                self.fail(JobFailed(f"torch.distributed: {error}", _REMEDY))
                return
            with self._changed:
                done = future in self._outstanding
                self._outstanding.discard(future)
            if done:
                future.set_result(None)
