"""The link of a process on the mesh: the same interface as the local one, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_mean
from kuiper.attacks.adversary import Adversary
from kuiper.errors import JobFailed, QuorumLost, Unreachable
from kuiper.link.attendance import Attendance, Losses, Notify
from kuiper.link.base import Channel, Gathered, Link, Neighbours, Request, Traffic
from kuiper.link.clock import WallClock
from kuiper.link.inbox import Inbox
from kuiper.link.local import tampering
from kuiper.link.mesh import LEFT, Mesh
from kuiper.link.stream import SILENT
from kuiper.link.wire import Header, byte_view, frame_bytes
from kuiper.topology import Exchange

OFFER = Channel("offer", 300, width=0, columns=("first", "second", "third"), charged=False)
ANSWER = replace(OFFER, name="answer", number=301)
_BLAMED = 3
"""Lost processes that a failure names."""
CONSULT = (OFFER, ANSWER)
"""What every process tells the hub, and what the hub tells all, when they go on together."""


def reduce_channels(width: int, processes: int, dtype: torch.dtype) -> tuple[Channel, Channel]:
    """The two channels of a reduce over `processes` processes: parts of rows, parts of the mean."""
    part = -(-width // processes)
    return Channel("reduce", 200, width=part, dtype=dtype), Channel("reduced", 201, width=part)


class RemoteLink(Link):
    """Gather, publish and exchange over a mesh.

    Args:
        rank: of this process; 0 is the hub's.
        blocks: the nodes of every rank; blocks[0] is the hub, node n.
        notify: called with (event, **values) for what a person should know.
        device: where the role wants its rows; they travel from and to the CPU's memory.
        losses: what is done about processes that are lost.
    """

    def __init__(self, rank: int, blocks: Sequence[np.ndarray], channels: Sequence[Channel],
                 adversary: Adversary, notify: Notify, device: torch.device,
                 losses: Losses = Losses()) -> None:
        self.nodes = blocks[rank]
        self.traffic = Traffic()
        self.mesh: Mesh | None = None
        self._rank = rank
        self._blocks = blocks
        self._adversary = adversary
        self._notify = notify
        self._device = device
        self._here = Attendance(blocks, notify, losses)
        self._clock = WallClock()
        self._published: tuple[Channel, int, torch.Tensor, np.ndarray] | None = None
        self._inboxes = {c.number: Inbox(c, self.live) for c in channels if not c.shared}
        self._channels = {c.number: c for c in channels}
        self._asked = Requests()
        self._own: tuple[np.ndarray, torch.Tensor] | None = None

    # -- called by the mesh, in a peer's receiving thread -----------------------------------

    def place(self, sender: int, header: Header, nodes: np.ndarray,
              columns: np.ndarray | None) -> list[memoryview] | None:
        if self._channels[header.channel].shared:
            return [byte_view(self._asked.buffer(self._channels[header.channel]))]
        views = self._inboxes[header.channel].place(header, nodes.astype(np.int64))
        if views is None:  # a late row has moved all the same
            self._charge(header)
        return views

    def arrived(self, sender: int, header: Header, nodes: np.ndarray, columns: np.ndarray | None) -> None:
        self._charge(header)
        if self._channels[header.channel].shared:
            self._asked.put(header.step, nodes.astype(np.int64))
        else:
            self._inboxes[header.channel].arrived(header, nodes.astype(np.int64), columns)

    def _charge(self, header: Header) -> None:
        """Count a frame that was received, read into its place or thrown away."""
        channel = self._channels[header.channel]
        if channel.charged:
            self.traffic.add(bytes_in=frame_bytes(channel, header.nodes, header.rows))

    def joined(self, rank: int, attempt: int) -> None:
        self._here.joined(rank, attempt)
        self._wake()

    def gone(self, rank: int, reason: str) -> None:
        for inbox in self._inboxes.values():
            inbox.forget(self._blocks[rank])
        if not self._here.gone(rank, reason):
            return
        if rank == 0:
            self._asked.end(None if reason == LEFT else reason)
        self._wake()

    def barred(self, rank: int, reason: str) -> None:
        self._here.barred(rank, reason)
        self._wake()

    def _wake(self) -> None:
        for inbox in self._inboxes.values():
            inbox.wake()

    def live(self, nodes: np.ndarray) -> np.ndarray:
        return self._here.live(nodes)

    # -- the link ---------------------------------------------------------------------------

    def start(self) -> None:
        """Everyone is here: the clock begins."""
        self._clock = WallClock()

    def now(self) -> float:
        return self._clock.now()

    async def publish(self, channel: Channel, step: int, row: torch.Tensor, to: np.ndarray,
                      reply: Channel) -> None:
        self._here.welcome(step)
        self._inboxes[reply.number].ask(step, to)
        self._published = (channel, step, row.cpu(), to)  # from the device once, not once a process
        self._ask(np.flatnonzero(self._here.alive))

    def _ask(self, ranks: Iterable[int]) -> None:
        """Send what is published to those processes that have some of its nodes."""
        channel, step, row, to = self._published
        owners = self._here.rank_of[to]
        for rank in ranks:
            if (owners == rank).any():
                self._post(int(rank), channel, step, to[owners == rank], row, keep=1)

    def _hope(self) -> float:
        """Ask those that have come back for the step at hand; until when others may come (monotonic seconds)."""
        if self._published is None:
            return 0.0
        self._ask(self._here.welcome(self._published[1]))
        return max(self._here.may_return().values(), default=0.0)

    async def requests(self, channel: Channel, together: int) -> AsyncIterator[Request]:
        while (request := await self._asked.next()) is not None:
            row = request.row.to(self._device)
            for start in range(0, max(len(request.nodes), 1), together):
                if start and self._asked.newer:
                    break  # the hub went on without the rest
                yield Request(request.step, request.nodes[start : start + together], row)

    async def send(self, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
                   columns: dict[str, np.ndarray] | None = None, to: Exchange | None = None,
                   keep: int | None = None) -> None:
        if channel.charged:
            rows = self._adversary.leaving(nodes, rows, step).to(channel.dtype)
        table = np.stack([columns[name] for name in channel.columns], axis=1) if columns else None
        if to is None:
            self._post(0, channel, step, nodes, rows, table)
            return
        self._own = (nodes, rows.float())
        rows = rows.cpu()
        self._inboxes[channel.number].put(step, nodes, rows)
        for rank in range(1, len(self._blocks)):
            needed = to.between(nodes, self._blocks[rank]) if rank != self._rank else nodes[:0]
            if len(needed) and self._here.alive[rank]:
                places = torch.from_numpy(np.searchsorted(nodes, needed))
                part = rows if len(needed) == len(nodes) else rows[places]
                self._post(rank, channel, step, needed, part, keep=keep)

    def expect(self, channel: Channel, senders: Callable[[int], np.ndarray]) -> None:
        self._inboxes[channel.number].expect(senders)

    async def gather(self, channel: Channel, step: int, quorum: int | None = None,
                     deadline: float | None = None, minimum: int = 1) -> Gathered:
        gathered = await self._gathered(channel, step, quorum, deadline, minimum)
        if channel.charged:
            self.traffic.add(rows=len(gathered.nodes), late=gathered.late)
        return gathered

    async def _gathered(self, channel: Channel, step: int, quorum: int | None = None,
                        deadline: float | None = None, minimum: int = 1) -> Gathered:
        """`gather` without the count of its rows."""
        inbox = self._inboxes[channel.number]
        try:
            gathered, missing = await inbox.gather(step, quorum, deadline, minimum, self._hope)
        except QuorumLost as error:
            raise QuorumLost("; ".join([error.message, *self._losses()]), error.remedy) from None
        gathered = replace(gathered, rows=gathered.rows.to(self._device, torch.float32))
        if len(missing):
            self._notify("late", step=step, nodes=missing.tolist(), deadline=deadline)
        if not channel.charged:
            return gathered
        rows = self._adversary.arriving(gathered.nodes, gathered.rows, step)
        return replace(gathered, rows=rows)

    def _losses(self) -> list[str]:
        """Who is gone, and why."""
        lost = [f"{self.mesh.names[rank]} {reason}" for rank, reason in sorted(self._here.lost().items())]
        return [*lost[:_BLAMED], f"and {len(lost) - _BLAMED} more"] if len(lost) > _BLAMED else lost

    async def neighbours(self, channel: Channel, step: int, exchange: Exchange,
                         deadline: float | None = None) -> Neighbours:
        gathered, missing = await self._inboxes[channel.number].gather(step, None, deadline, minimum=0)
        if len(missing):
            self._notify("late", step=step, nodes=missing.tolist(), deadline=deadline)
        gathered = replace(gathered, rows=gathered.rows.to(self._device, torch.float32))
        here = np.isin(exchange.receivers, self.nodes)
        heard = int((here & np.isin(exchange.senders, gathered.nodes)).sum())
        self.traffic.add(rows=heard, late=int(here.sum()) - heard)
        return Neighbours(gathered, exchange, tampering(self._adversary, *self._own))

    async def reduce(self, step: int, nodes: np.ndarray, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Reduce-scatter, then all-gather: each process sums its part of the columns."""
        rows = self._adversary.leaving(nodes, rows, step).to(dtype)
        workers = range(1, len(self._blocks))
        parts, means = reduce_channels(rows.shape[1], len(workers), dtype)
        summed = np.concatenate([self._blocks[rank] for rank in workers])
        leaders = np.array([self._blocks[rank][0] for rank in workers])
        self.expect(parts, lambda _: summed)
        self.expect(means, lambda _: leaders)
        padded = torch.nn.functional.pad(rows, (0, parts.width * len(workers) - rows.shape[1]))
        for rank in workers:
            part = padded[:, (rank - 1) * parts.width : rank * parts.width].contiguous()
            self._put_or_post(rank, parts, step, nodes, part)
        mine = await self._gathered(parts, step, minimum=len(summed))
        mean = ordered_mean(mine.rows)[None]
        for rank in workers:
            self._put_or_post(rank, means, step, nodes[:1], mean)
        reduced = await self._gathered(means, step, minimum=len(leaders))
        self.traffic.add(rows=len(nodes))
        return reduced.rows.reshape(-1)[: rows.shape[1]].clone()

    def charge(self, samples: float) -> None:
        """Wall time charges itself."""

    def times(self) -> np.ndarray:
        return np.full(len(self.nodes), self.now())

    def set_times(self, times: np.ndarray) -> None:
        self._clock.set(float(times.max()))

    async def meet(self, step: int) -> None:
        await self.consult(step + 1, [step], lambda offers: [step])  # 1 is taken by the start

    async def consult(self, number: int, told: Sequence[float],
                      answer: Callable[[dict[int, list[float]]], Sequence[float]]) -> list[float]:
        """Every live process tells the hub up to three numbers; the hub answers all of them alike.

        Args:
            number: of the consultation: later ones have larger numbers.
            answer: on the hub, from what each rank told.
        """
        hub = self._blocks[0]
        leaders = np.array([block[0] for block in self._blocks[1:]])
        self.expect(OFFER, lambda _: leaders)
        self.expect(ANSWER, lambda _: hub)

        def tell(rank: int, channel: Channel, numbers: Sequence[float]) -> None:
            table = np.array([[*numbers, 0.0, 0.0, 0.0][:3]])
            self._post(rank, channel, number, self.nodes[:1], torch.empty(1, 0), table)

        if self._rank:
            tell(0, OFFER, told)
            heard = await self.gather(ANSWER, number)
            return [float(column[0]) for column in heard.columns.values()]
        offers = await self.gather(OFFER, number)
        table = np.stack(list(offers.columns.values()), axis=1).tolist()
        reply = answer(dict(zip(self._here.rank_of[offers.nodes].tolist(), table, strict=True)))
        for rank in np.flatnonzero(self._here.alive)[1:].tolist():
            tell(rank, ANSWER, reply)
        return list(reply)

    async def close(self, failed: bool = False) -> None:
        for inbox in self._inboxes.values():
            inbox.shut()
        await asyncio.to_thread(self.mesh.close, failed)

    def _put_or_post(self, rank: int, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor) -> None:
        if rank == self._rank:
            self._inboxes[channel.number].put(step, nodes, rows)
        else:
            self._post(rank, channel, step, nodes, rows)

    def _post(self, rank: int, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
              columns: np.ndarray | None = None, keep: int | None = None) -> None:
        if channel.charged:
            self.traffic.add(bytes_out=frame_bytes(channel, len(nodes), 1 if channel.shared else len(nodes)))
        self.mesh.post(rank, channel, step, nodes.astype(np.uint32), rows.cpu().contiguous(), columns, keep)


class Requests:
    """The newest model that the hub asks this block to work on.

    One model is being worked on, one is ready, one is arriving: three buffers, used in turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[torch.Tensor] = []
        self._arriving: torch.Tensor | None = None
        self._ready: Request | None = None
        self._working: torch.Tensor | None = None
        self._over = False
        self._reason: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def buffer(self, channel: Channel) -> torch.Tensor:
        with self._lock:
            self._arriving = self._free.pop() if self._free else torch.empty(channel.width, dtype=channel.dtype)
            return self._arriving

    def put(self, step: int, nodes: np.ndarray) -> None:
        """The model that was arriving is complete; one that was not begun is replaced."""
        with self._lock:
            if self._ready is not None:
                self._free.append(self._ready.row)
            self._ready = Request(step, nodes, self._arriving)
        self._signal()

    def end(self, reason: str | None) -> None:
        """No more requests; a reason makes it a failure."""
        with self._lock:
            self._over, self._reason = True, reason
        self._signal()

    @property
    def newer(self) -> bool:
        """Whether another request is ready, or none will come any more."""
        return self._ready is not None or self._over

    async def next(self) -> Request | None:
        """The newest request; None after an orderly goodbye.

        Raises:
            JobFailed: the hub is gone without one.
            Unreachable: its host, or the link to it, is.
        """
        self._loop, self._wake = asyncio.get_running_loop(), self._wake or asyncio.Event()
        while True:
            self._wake.clear()
            with self._lock:
                if self._ready is not None:
                    if self._working is not None:
                        self._free.append(self._working)
                    request, self._ready = self._ready, None
                    self._working = request.row
                    return request
                if self._over:
                    if self._reason is None:
                        return None
                    message = f"the server is gone: it {self._reason}"
                    if self._reason == SILENT:  # it may be there again for the next attempt
                        raise Unreachable(message, "see that the link is mended")
                    raise JobFailed(message, "look at the log of ps")
            await self._wake.wait()

    def _signal(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)
