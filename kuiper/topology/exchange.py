"""Who sends to whom at one step: a pure function of (seed, step) that every process computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kuiper import random


@dataclass(frozen=True)
class Exchange:
    """Directed edges sender -> receiver, sorted by receiver, then by sender, without repeats.

    Attributes:
        receivers: (e,) int64 node ids.
        senders: (e,) int64 node ids.
    """

    receivers: np.ndarray
    senders: np.ndarray

    @staticmethod
    def of(receivers: np.ndarray, senders: np.ndarray) -> Exchange:
        """Sort the edges and drop repeats: a mutual pick counts once."""
        base = 1 + senders.max(initial=0)
        return Exchange(*np.divmod(np.unique(receivers * base + senders), base))

    def between(self, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
        """Those of `senders` whose rows some node of `receivers` needs, ascending."""
        wanted = np.isin(self.receivers, receivers) & np.isin(self.senders, senders)
        return np.unique(self.senders[wanted])

    def degrees(self, nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """(in, out) degree of nodes 0..nodes-1."""
        return (np.bincount(self.receivers, minlength=nodes), np.bincount(self.senders, minlength=nodes))


def random_peers(seed: int, step: int, nodes: np.ndarray, probability: float, period: int) -> tuple:
    """The gossip draw of one step (arXiv 1812.02407): who takes part, and the peer each one picks.

    A node takes part if `step % period == 0` and a coin with `probability` comes up; its
    peer is uniform over the other nodes.

    Returns:
        (pickers, picked): two int64 arrays of equal length.
    """
    if step % period or len(nodes) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    coin = random.uniforms(seed, "gossip coin", nodes, step) < probability
    place = np.flatnonzero(coin)
    draw = random.uniforms(seed, "gossip peer", nodes[place], step)
    other = (draw * (len(nodes) - 1)).astype(np.int64)
    other += other >= place
    return nodes[place], nodes[other]


def pull(seed: int, step: int, nodes: np.ndarray, probability: float, period: int) -> Exchange:
    """Gossiping SGD, pull: each picker hears from its peer; being asked changes nothing."""
    pickers, picked = random_peers(seed, step, nodes, probability, period)
    return Exchange.of(pickers, picked)


def mutual(seed: int, step: int, nodes: np.ndarray, probability: float, period: int) -> Exchange:
    """Elastic gossip: K_i is the peer that i picked and all that picked i."""
    pickers, picked = random_peers(seed, step, nodes, probability, period)
    return Exchange.of(np.concatenate([pickers, picked]), np.concatenate([picked, pickers]))
