"""The hub of a star on the virtual clock whose nodes are spread over the processes of a mesh.

Whose rows count is known from the profiles before anything is sent, so each process is asked
for those of its nodes only, and the hub waits for all of them, however long that really takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kuiper.errors import QuorumLost
from kuiper.link.base import Channel, Gathered
from kuiper.link.choice import first
from kuiper.link.clock import VirtualClock
from kuiper.link.remote import RemoteLink
from kuiper.link.wire import frame_bytes


class VirtualHub(RemoteLink):
    """Rank 0's link: the choices, the times and the traffic of a simulation, over real sockets.

    Args:
        clock: of the whole job; the processes of the nodes know no time.
        idle: ask also processes none of whose nodes count, with a request for no node, so that they
            get to know which steps are over; for nodes with state of their own.
    """

    def __init__(self, *link: Any, clock: VirtualClock, idle: bool) -> None:
        super().__init__(*link)
        self._virtual = clock
        self._idle = idle
        self._due: tuple[Channel, torch.Tensor, np.ndarray] | None = None

    def start(self) -> None:
        """The virtual clock begins with the first step."""

    def now(self) -> float:
        return self._virtual.now()

    def set_times(self, times: np.ndarray) -> None:
        self._virtual.hub = float(times.max())

    def live(self, nodes: np.ndarray) -> np.ndarray:
        """Mask of the nodes whose process is here, or may return: when it died decides nothing."""
        before = self._here.may_return()
        live = super().live(nodes)
        returning = [*before, *self._here.may_return()]  # asked twice: one may go or come meanwhile
        return live | np.isin(self._here.rank_of[nodes], returning)

    async def publish(self, channel: Channel, step: int, row: torch.Tensor, to: np.ndarray,
                      reply: Channel) -> None:
        self._here.welcome(step)
        self._due = (channel, row, to)

    async def gather(self, channel: Channel, step: int, quorum: int | None = None,
                     deadline: float | None = None, minimum: int = 1) -> Gathered:
        """As `Link.gather`. Nodes of processes that are gone for good are not chosen.

        A process that is started again is waited for, which takes no virtual time; if it does not come
        back, its rows are late.
        """
        if self._due is None:
            return await super().gather(channel, step, quorum, deadline, minimum)
        (model, row, to), self._due = self._due, None
        here = to[self.live(to)]
        chosen = first(self._virtual, self._adversary, model, channel, step, here, quorum, deadline, minimum)
        await super().publish(model, step, row, chosen, reply=channel)
        if self._idle:
            for rank in np.setdiff1d(np.flatnonzero(self._here.alive)[1:], self._here.rank_of[chosen]):
                self._post(int(rank), model, step, chosen[:0], row, keep=1)
        try:
            gathered = await super().gather(channel, step, minimum=len(chosen))
        except QuorumLost:
            gathered = await super().gather(channel, step, minimum=minimum)
        gathered = replace(gathered, late=len(to) - len(gathered.nodes))
        self.traffic.take()  # what really moved; a simulation counts what would move between the nodes
        self.traffic.add(bytes_out=len(to) * frame_bytes(model, 1, 1), bytes_in=len(to) * frame_bytes(channel, 1, 1),
                         rows=len(gathered.nodes), late=gathered.late)
        return gathered
