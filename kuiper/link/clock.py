"""Wall and virtual time behind one method."""

from __future__ import annotations

import time

import numpy as np

from kuiper.link.base import Channel
from kuiper.link.profiles import Profiles, transfer
from kuiper.link.wire import frame_bytes
from kuiper.topology import Exchange


class WallClock:
    """Seconds since the job began on this machine; charging it changes nothing."""

    def __init__(self) -> None:
        self.set(0.0)

    def set(self, elapsed: float) -> None:
        """From now on, as if the job had begun so many seconds ago."""
        self._start = time.monotonic() - elapsed

    def now(self) -> float:
        return time.monotonic() - self._start


class VirtualClock:
    """Time as a pure function of profiles: it jumps, and only when a gather says so.

    Peers each have a time of their own (a synchronous gossip step waits for neighbours only);
    the hub's time is that of the last row that counted.
    """

    def __init__(self, profiles: Profiles) -> None:
        self.profiles = profiles
        self.hub = 0.0
        self.nodes = np.zeros(len(profiles.ms_per_sample))

    def now(self) -> float:
        return max(self.hub, float(self.nodes.max()))

    def arrivals(self, model: Channel, reply: Channel, nodes: np.ndarray) -> np.ndarray:
        """When the row of each of `nodes` is in, if the hub publishes now."""
        begun = self.hub + self.profiles.download(nodes, frame_bytes(model, 1, 1))
        done = begun + self.profiles.compute(nodes, reply.work)
        return self.profiles.upload(nodes, done, frame_bytes(reply, 1, 1))

    def charge(self, nodes: np.ndarray, samples: float) -> None:
        self.nodes[nodes] += self.profiles.compute(nodes, samples)

    def exchange(self, channel: Channel, departed: np.ndarray, exchange: Exchange,
                 deadline: float | None) -> np.ndarray:
        """Each receiver waits for its senders; both ends share their bandwidth among transfers.

        Args:
            departed: (n,) when each node's row left.
            deadline: seconds that a receiver waits at most.
        Returns:
            (e,) mask of the edges whose row came in time.
        """
        to, by = exchange.receivers, exchange.senders
        if not len(to):
            return np.ones(0, bool)
        heard, told = exchange.degrees(len(self.nodes))
        rate = np.minimum(self.profiles.kbit_per_s[to] / heard[to], self.profiles.kbit_per_s[by] / told[by])
        arrival = departed[by] + self.profiles.latency[by] + transfer(frame_bytes(channel, 1, 1), rate)
        until = self.nodes[to] + (np.inf if deadline is None else deadline)
        np.maximum.at(self.nodes, to, np.minimum(arrival, until))
        return arrival <= until

    def all_reduce(self, width_bytes: int, nodes: np.ndarray) -> None:
        """A ring: 2 (n - 1) transfers of 1/n of the row, at the pace of the slowest link."""
        n = len(nodes)
        slowest = self.profiles.kbit_per_s[nodes].min()
        hop = self.profiles.latency[nodes].max() + transfer(width_bytes / n, slowest)
        self.nodes[nodes] = self.nodes[nodes].max() + 2 * (n - 1) * hop
