"""Where arriving rows land: one matrix per channel and step, filled by the receiving threads.

The threads of the mesh call `place` and `arrived`; the event loop waits in `gather`. A late,
repeated or unexpected frame gets no memory. A peer that is ahead of this process waits in its
own receiving thread, so that the network holds it back.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from math import inf

import numpy as np
import torch

from kuiper.errors import ProtocolError, QuorumLost
from kuiper.link.base import Channel, Gathered
from kuiper.link.wire import Header, byte_view

_AHEAD = 2  # steps that a sender may be ahead of this gather
_NONE = np.empty(0, np.int64)


class Slot:
    """The rows of one channel and step.

    Attributes:
        senders: (m,) ascending ids of the nodes expected.
        rows: (m, d).
        state: (m,) 0 nothing yet, 1 arriving, 2 there.
    """

    def __init__(self, channel: Channel, senders: np.ndarray, rows: torch.Tensor) -> None:
        self.senders = senders
        self.rows = rows
        self.columns = np.zeros((len(senders), len(channel.columns)))
        self.state = np.zeros(len(senders), np.int8)

    def places(self, nodes: np.ndarray) -> np.ndarray | None:
        """Positions of nodes, or None when one of them is not expected."""
        place = np.searchsorted(self.senders, nodes)
        inside = place < len(self.senders)
        return place if inside.all() and (self.senders[place] == nodes).all() else None


class Inbox:
    """The slots of one channel, from one gather to the next.

    Args:
        live: mask (m,) of given nodes whose process is alive.
    """

    def __init__(self, channel: Channel, live: Callable[[np.ndarray], np.ndarray]) -> None:
        self.channel = channel
        self.loop: asyncio.AbstractEventLoop | None = None
        self._expected: Callable[[int], np.ndarray] | None = None
        self.closed_step = 0
        self._gathering = 0
        self.asked_step: int | None = None  # a hub's channel: nothing is due before it asks
        self._live = live
        self._slots: dict[int, Slot] = {}
        self._spare: deque[torch.Tensor] = deque()
        self._last: Slot | None = None
        self._changed = threading.Condition()
        self._wake: asyncio.Event | None = None
        self._shut = False

    # -- the receiving threads ------------------------------------------------------------

    def place(self, header: Header, nodes: np.ndarray) -> list[memoryview] | None:
        """Memory for the rows of a frame; None when they are late, repeated or not expected."""
        with self._changed:
            self._changed.wait_for(lambda: self._shut or self._unasked(header.step) or self._due(header.step))
            if self._unasked(header.step):
                raise ProtocolError(f"channel {self.channel.name}: a row for {self.channel.unit} {header.step}, "
                                    f"asked for {self.channel.unit} {self.asked_step}")
            if self._shut or header.step <= self.closed_step:
                return None
            slot = self._slot(header.step)
            place = slot.places(nodes)
            if place is None or slot.state[place].any():
                return None
            slot.state[place] = 1
            if place[-1] - place[0] == len(place) - 1:
                return [byte_view(slot.rows[place[0] : place[-1] + 1])] if self.channel.width else []
            return [byte_view(slot.rows[index]) for index in place]

    def _unasked(self, step: int) -> bool:
        """Whether a hub that has begun to ask has not asked for rows of this step."""
        return self.asked_step is not None and step > self.asked_step

    def _due(self, step: int) -> bool:
        """Whether this process is far enough along to take rows of a step."""
        return self._expected is not None and step <= max(self.closed_step + _AHEAD, self._gathering)

    def arrived(self, header: Header, nodes: np.ndarray, columns: np.ndarray | None) -> None:
        with self._changed:
            slot = self._slots.get(header.step)
            if slot is None:
                return  # the gather closed while the row was on its way
            place = slot.places(nodes)
            if columns is not None:
                slot.columns[place] = columns
            slot.state[place] = 2
        self.wake()

    def forget(self, nodes: np.ndarray) -> None:
        """Their process is gone: rows that it had begun can come again, from one that takes its place."""
        with self._changed:
            for slot in self._slots.values():
                slot.state[np.isin(slot.senders, nodes) & (slot.state == 1)] = 0

    def put(self, step: int, nodes: np.ndarray, rows: torch.Tensor,
            columns: np.ndarray | None = None) -> None:
        """Rows of this process's own nodes: those that are expected are copied in."""
        with self._changed:
            slot = self._slot(step)
            mine = np.isin(nodes, slot.senders)
            place = slot.places(nodes[mine])
            slot.rows[torch.from_numpy(place)] = rows[torch.from_numpy(np.flatnonzero(mine))]
            if columns is not None:
                slot.columns[place] = columns[mine]
            slot.state[place] = 2
        self.wake()

    def wake(self) -> None:
        """Something changed: rows arrived, or a peer is gone."""
        if self._wake is not None and self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake.set)

    def shut(self) -> None:
        """Let go of every waiting thread."""
        with self._changed:
            self._shut = True
            self._changed.notify_all()

    # -- the event loop -------------------------------------------------------------------

    def expect(self, senders: Callable[[int], np.ndarray]) -> None:
        """Whose rows are gathered at a step; frames that came earlier have waited for this."""
        with self._changed:
            self._expected = senders
            self._changed.notify_all()

    def ask(self, step: int, senders: np.ndarray) -> None:
        """A hub's channel: from now on rows of this step are due from `senders`."""
        with self._changed:
            self.asked_step = step
            self.closed_step = step - 1
            self._expected = lambda _: senders
            self._changed.notify_all()

    async def gather(self, step: int, quorum: int | None, deadline: float | None, minimum: int,
                     hope: Callable[[], float] = lambda: 0.0) -> tuple[Gathered, np.ndarray]:
        """What arrived, in node order, and the live nodes (ids) that were waited for in vain.

        Args:
            hope: called when there are too few; until when (monotonic seconds) some that are gone may come back.

        Raises:
            QuorumLost: fewer than `minimum` rows are still possible, or there at the deadline.
        """
        self.loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        with self._changed:
            self._gathering = step
            self._changed.notify_all()
            slot = self._slot(step)
        ends = inf if deadline is None else self.loop.time() + deadline
        while True:
            self._wake.clear()
            there = slot.state == 2
            possible = there | self._live(slot.senders)
            overdue = self.loop.time() >= ends
            if there.sum() >= max(minimum, possible.sum() if quorum is None else min(quorum, possible.sum())):
                return self._close(step, slot, there), _NONE
            if overdue and there.sum() >= minimum:
                return self._close(step, slot, there), slot.senders[~there]
            until = inf if overdue else ends
            if overdue or possible.sum() < minimum:
                until = min(until, hope())
                if (self._live(slot.senders) & ~possible).any():  # some are back, and begin now
                    ends = inf if deadline is None else self.loop.time() + deadline
                    continue
                if self.loop.time() >= until:
                    raise self._too_few(step, slot, there, possible, minimum, deadline if overdue else None)
            try:
                async with asyncio.timeout_at(None if until == inf else until):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _too_few(self, step: int, slot: Slot, there: np.ndarray, possible: np.ndarray, minimum: int,
                 deadline: float | None) -> QuorumLost:
        where = f"{self.channel.name}, {self.channel.unit} {step}"
        if deadline is None:
            return QuorumLost(
                f"{where}: {possible.sum()} of {len(slot.senders)} senders are alive, {minimum} are needed",
                "look for the first error: `kuiper logs JOB --errors`; to survive more, declare a larger `f`")
        return QuorumLost(
            f"{where}: {there.sum()} rows after the deadline of {deadline:g} s, {minimum} are needed; "
            f"missing: nodes {slot.senders[~there].tolist()}", "raise `deadline`, or declare a larger `f`")

    def _slot(self, step: int) -> Slot:
        slot = self._slots.get(step)
        if slot is None:
            senders = np.asarray(self._expected(step))
            shape = (len(senders), self.channel.width)
            reusable = next((rows for rows in self._spare if rows.shape == shape), None)
            if reusable is None:
                reusable = torch.empty(shape, dtype=self.channel.dtype)
            else:
                self._spare = deque(rows for rows in self._spare if rows is not reusable)
            slot = self._slots[step] = Slot(self.channel, senders, reusable)
        return slot

    def _close(self, step: int, slot: Slot, there: np.ndarray) -> Gathered:
        """End a step. Its memory is used again only once the next step is closed too."""
        with self._changed:
            self.closed_step = step
            del self._slots[step]
            if self._last is not None and not (self._last.state == 1).any():
                self._spare = deque([*self._spare, self._last.rows], maxlen=_AHEAD)
            self._last = slot
            self._changed.notify_all()
        full = there.all()
        rows = slot.rows if full else slot.rows[torch.from_numpy(np.flatnonzero(there))]
        columns = slot.columns[there]
        named = {name: columns[:, place] for place, name in enumerate(self.channel.columns)}
        return Gathered(slot.senders[there], rows, named, int(len(there) - there.sum()))
