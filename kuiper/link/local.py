"""The local transport: every node in one process, all nodes of a kind one block.

On the virtual clock arrival times are known before anything is computed, so a gather picks
the rows that count first, and the nodes are asked for those only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_mean
from kuiper.attacks.adversary import Adversary
from kuiper.link.base import Channel, Gathered, Link, Neighbours, Request, Traffic
from kuiper.link.choice import first
from kuiper.link.clock import VirtualClock, WallClock
from kuiper.link.wire import frame_bytes
from kuiper.topology import Exchange

_Message = tuple[np.ndarray, torch.Tensor, dict[str, np.ndarray]]


class Switchboard:
    """What the hub's link and the nodes' link share: the clock, the rows on their way."""

    def __init__(self, nodes: int, adversary: Adversary, clock: WallClock | VirtualClock) -> None:
        self.nodes = nodes
        self.adversary = adversary
        self.clock = clock
        self.requests: asyncio.Queue[Request | None] = asyncio.Queue()
        self.sent: dict[tuple[int, int], asyncio.Future[_Message]] = defaultdict(
            lambda: asyncio.get_running_loop().create_future())

    def links(self) -> tuple[LocalLink, LocalLink]:
        """The hub's link and the nodes' link."""
        return (LocalLink(self, np.array([self.nodes])), LocalLink(self, np.arange(self.nodes)))


class LocalLink(Link):
    def __init__(self, switchboard: Switchboard, nodes: np.ndarray) -> None:
        self.nodes = nodes
        self.traffic = Traffic()
        self._shared = switchboard
        self._adversary = switchboard.adversary
        self._clock = switchboard.clock
        self._virtual = switchboard.clock if isinstance(switchboard.clock, VirtualClock) else None
        self._asked: tuple[Channel, int, torch.Tensor, np.ndarray] | None = None
        self._departed = np.zeros(switchboard.nodes)

    def now(self) -> float:
        return self._clock.now()

    async def publish(self, channel: Channel, step: int, row: torch.Tensor, to: np.ndarray,
                      reply: Channel) -> None:
        self._asked = (channel, step, row, to)
        self.traffic.add(bytes_out=len(to) * frame_bytes(channel, 1, 1))

    def live(self, nodes: np.ndarray) -> np.ndarray:
        return np.ones(len(nodes), bool)

    async def requests(self, channel: Channel, together: int) -> AsyncIterator[Request]:
        while (request := await self._shared.requests.get()) is not None:
            yield request

    async def send(self, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
                   columns: dict[str, np.ndarray] | None = None, to: Exchange | None = None,
                   keep: int | None = None) -> None:
        if channel.charged:
            rows = self._adversary.leaving(nodes, rows, step).to(channel.dtype).float()
            copies = len(nodes) if to is None else len(to.senders)
            self.traffic.add(bytes_out=copies * frame_bytes(channel, 1, 1))
        if self._virtual and to is not None:
            self._departed = self._virtual.nodes.copy()
        self._shared.sent[channel.number, step].set_result((nodes, rows, columns or {}))
        if to is None:
            await asyncio.sleep(0)  # the hub takes it now: peers do not run ahead of their observer

    def expect(self, channel: Channel, senders: Callable[[int], np.ndarray]) -> None:
        """Nothing to prepare: what is sent here is already in memory."""

    async def gather(self, channel: Channel, step: int, quorum: int | None = None,
                     deadline: float | None = None, minimum: int = 1) -> Gathered:
        late = 0
        if self._asked is not None:
            late = self._ask(channel, quorum, deadline, minimum)
        nodes, rows, columns = await self._shared.sent[channel.number, step]
        del self._shared.sent[channel.number, step]
        if channel.charged:
            rows = self._adversary.arriving(nodes, rows, step)
            arrived = (len(nodes) + late) * frame_bytes(channel, 1, 1)
            self.traffic.add(bytes_in=arrived, rows=len(nodes), late=late)
        return Gathered(nodes, rows, columns, late)

    def _ask(self, reply: Channel, quorum: int | None, deadline: float | None, minimum: int) -> int:
        """Ask those whose rows will count; the number of the others."""
        model, step, row, to = self._asked
        self._asked = None
        chosen = first(self._virtual, self._adversary, model, reply, step, to, quorum, deadline, minimum)
        self._shared.requests.put_nowait(Request(step, chosen, row))
        return len(to) - len(chosen)

    async def neighbours(self, channel: Channel, step: int, exchange: Exchange,
                         deadline: float | None = None) -> Neighbours:
        nodes, rows, columns = await self._shared.sent[channel.number, step]
        del self._shared.sent[channel.number, step]
        edges = len(exchange.senders)
        if self._virtual:
            in_time = self._virtual.exchange(channel, self._departed, exchange, deadline)
            exchange = Exchange(exchange.receivers[in_time], exchange.senders[in_time])
        heard = len(exchange.senders)
        self.traffic.add(bytes_in=edges * frame_bytes(channel, 1, 1), rows=heard, late=edges - heard)
        return Neighbours(Gathered(nodes, rows, columns), exchange, tampering(self._adversary, nodes, rows))

    async def reduce(self, step: int, nodes: np.ndarray, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        mean = ordered_mean(self._adversary.leaving(nodes, rows, step).to(dtype).float())
        if self._virtual:
            self._virtual.all_reduce(rows.shape[1] * dtype.itemsize, nodes)
        moved = (len(nodes) - 1) * rows.shape[1] * (dtype.itemsize + mean.element_size())
        self.traffic.add(bytes_in=moved, bytes_out=moved, rows=len(nodes))
        return mean

    def charge(self, samples: float) -> None:
        if self._virtual:
            self._virtual.charge(self.nodes, samples)

    def times(self) -> np.ndarray:
        if self._virtual is None:
            return np.full(len(self.nodes), self.now())
        return np.array([self._virtual.hub]) if self._is_hub else self._virtual.nodes.copy()

    def set_times(self, times: np.ndarray) -> None:
        if self._virtual is None:
            self._clock.set(float(times.max()))
        elif self._is_hub:
            self._virtual.hub = float(times[0])
        else:
            self._virtual.nodes[:] = times

    async def meet(self, step: int) -> None:
        """They are all here."""

    @property
    def _is_hub(self) -> bool:
        return self.nodes[0] == self._shared.nodes

    async def close(self, failed: bool = False) -> None:
        if self._is_hub:
            self._shared.requests.put_nowait(None)


def tampering(adversary: Adversary, nodes: np.ndarray, rows: torch.Tensor) -> Callable | None:
    """An omniscient attack at one receiver of an exchange; None when there is none."""
    if adversary.acts_on not in ("gather", "neighbours"):
        return None
    own = {int(node): place for place, node in enumerate(nodes)}

    def tamper(receiver: int, senders: np.ndarray, heard: torch.Tensor) -> torch.Tensor:
        return adversary.at_receiver(rows[own[receiver]], senders, heard)

    return tamper
