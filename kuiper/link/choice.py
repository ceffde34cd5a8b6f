"""Which rows will count: known from the device profiles before anything is computed."""

from __future__ import annotations

import numpy as np

from kuiper import random
from kuiper.attacks.adversary import Adversary
from kuiper.errors import QuorumLost
from kuiper.link.base import Channel
from kuiper.link.clock import VirtualClock


def first(clock: VirtualClock | None, adversary: Adversary, model: Channel, reply: Channel, step: int,
          to: np.ndarray, quorum: int | None, deadline: float | None, minimum: int) -> np.ndarray:
    """The nodes of `to` whose rows are in first, ascending; the clock goes on to the last of them.

    By default the rows of Byzantine nodes arrive before all others. Ties are drawn by seed, step and node: by id, the
    same nodes of a cluster of equal devices would be left out at every step, and their samples with them.

    Args:
        clock: None where everything takes no time.
        to: (m,) ids of the nodes that the hub publishes `model` to now.
        quorum: rows that count; None for all.
        deadline: seconds after which what has arrived must do.
        minimum: fewer rows than this is an error.

    Raises:
        QuorumLost: too few arrive by the deadline.
    """
    wanted = len(to) if quorum is None else min(quorum, len(to))
    begun = clock.hub if clock else 0.0
    to = to[np.argsort(random.keys(adversary.seed, "tie", to, step))]  # sorts from here on keep this order
    arrival = clock.arrivals(model, reply, to) if clock else np.zeros(len(to))
    byzantine = np.isin(to, adversary.byzantine)
    arrival[byzantine] = begun
    order = np.lexsort((~byzantine, arrival))[:wanted]
    order = order[arrival[order] <= begun + (np.inf if deadline is None else deadline)]
    if clock:
        everyone = len(order) == wanted
        clock.hub = arrival[order].max(initial=begun) if everyone else begun + deadline
    if len(order) < max(minimum, 1):
        by = "" if deadline is None else f" by the deadline of {deadline:g} s"
        raise QuorumLost(
            f"{reply.name}, {reply.unit} {step}: {len(order)} rows of {len(to)}{by}, {max(minimum, 1)} are needed",
            "declare a larger `f`, raise `deadline`, or use faster `devices`")
    return np.sort(to[order])
