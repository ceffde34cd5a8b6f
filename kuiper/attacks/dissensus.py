"""Gossip: neighbours pushed apart along what they disagree on."""

from __future__ import annotations

from torch import Tensor

from kuiper.errors import JobFailed


def dissensus(honest_hd: Tensor, count: int, *, eps: float = 1.0) -> Tensor:
    """x_i - eps sum over honest k of (x_k - x_i) / count (He, Karimireddy & Jaggi 2022, definition 3).

    What honest neighbours pull a node towards, the attackers together pull it from, eps times as hard; all
    neighbours weigh the same.

    Args:
        honest_hd: (1 + h, d): the receiver's own row, then those of its honest neighbours; not changed.
        count: attackers among its neighbours.
        eps: 1 undoes the honest neighbours' pull.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no receiver's row.
    """
    if not len(honest_hd):
        raise JobFailed("dissensus needs the row of the node that it attacks", "choose an algorithm of peers")
    own_d = honest_hd[0].double()
    pull_d = (honest_hd[1:].double() - own_d).sum(0)
    return (own_d - eps * pull_d / max(count, 1)).to(honest_hd.dtype).expand(count, -1)
