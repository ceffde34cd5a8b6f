"""Device profiles: how fast each simulated node computes and communicates.

Times follow FedScale's model of a client: 3 (forward and backward) x samples x ms_per_sample
for compute, 8 x bytes / (1000 x kbit_per_s) for a transfer, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kuiper import random


@dataclass(frozen=True)
class Profiles:
    """Profiles of nodes 0..n-1, and the bandwidth of the server's port.

    Attributes:
        ms_per_sample: (n,) milliseconds for one forward pass of one sample.
        kbit_per_s: (n,) bandwidth in each direction; inf for a free network.
        latency: (n,) seconds, one way.
        server_kbit_per_s: shared by those who use it at once; inf for no limit.
    """

    ms_per_sample: np.ndarray
    kbit_per_s: np.ndarray
    latency: np.ndarray
    server_kbit_per_s: float

    def compute(self, nodes: np.ndarray, samples: float) -> np.ndarray:
        """Seconds for each node to train on so many samples."""
        return 3.0 * samples * self.ms_per_sample[nodes] / 1000.0

    def download(self, nodes: np.ndarray, size: int) -> np.ndarray:
        """Seconds for each node to fetch `size` bytes while all of `nodes` do so."""
        share = self.server_kbit_per_s / max(len(nodes), 1)
        return self.latency[nodes] + transfer(size, np.minimum(self.kbit_per_s[nodes], share))

    def upload(self, nodes: np.ndarray, ready: np.ndarray, size: int) -> np.ndarray:
        """When each node's `size` bytes are in, given when each is ready (both seconds).

        The server's port serves what has arrived in order, at full rate: the last byte is in
        at the same instant as under fair sharing. Ties are served in the order of `nodes`.
        """
        rate = np.minimum(self.kbit_per_s[nodes], self.server_kbit_per_s)
        arrival = ready + self.latency[nodes] + transfer(size, rate)
        service = transfer(size, np.asarray(self.server_kbit_per_s))
        if not service > 0:
            return arrival
        port_free = -np.inf
        for place in np.argsort(arrival, kind="stable"):
            port_free = max(arrival[place], port_free + service)
            arrival[place] = port_free
        return arrival


def transfer(size: int, kbit_per_s: np.ndarray) -> np.ndarray:
    """Seconds for `size` bytes."""
    return 8.0 * size / (1000.0 * kbit_per_s)


def uniform(nodes: int, seed: int, *, ms_per_sample: float = 1.0, kbit_per_s: float | None = None,
            latency: float = 0.0, server_kbit_per_s: float | None = None) -> Profiles:
    """The same device everywhere; a bandwidth of null is infinite."""
    ones = np.ones(nodes)
    return Profiles(ms_per_sample * ones, _or_infinite(kbit_per_s) * ones, latency * ones,
                    _or_infinite(server_kbit_per_s))


def lognormal(nodes: int, seed: int, *, ms_per_sample: float = 1.0, ms_sigma: float = 0.5,
              kbit_per_s: float | None = 10_000.0, kbit_sigma: float = 0.5, latency: float = 0.0,
              server_kbit_per_s: float | None = None) -> Profiles:
    """Medians as given, times exp(sigma z) with z standard normal, keyed by node."""
    speed = ms_per_sample * np.exp(ms_sigma * _normal(seed, "device compute", nodes))
    bandwidth = _or_infinite(kbit_per_s) * np.exp(kbit_sigma * _normal(seed, "device bandwidth", nodes))
    return Profiles(speed, bandwidth, latency * np.ones(nodes), _or_infinite(server_kbit_per_s))


def _or_infinite(kbit_per_s: float | None) -> float:
    return np.inf if kbit_per_s is None else kbit_per_s


def _normal(seed: int, purpose: str, nodes: int) -> np.ndarray:
    """Standard normal per node, by Box and Muller's transform."""
    radius, angle = (random.uniforms(seed, purpose, np.arange(nodes), part) for part in (0, 1))
    return np.sqrt(-2.0 * np.log1p(-radius)) * np.cos(2.0 * np.pi * angle)
