"""A little is enough: deviations small enough to hide among the honest ones."""

from __future__ import annotations

import warnings
from statistics import NormalDist

from torch import Tensor

from kuiper.attacks._moments import deviation, mean
from kuiper.errors import SpecError


def largest_hidden_z(n: int, f: int) -> float:
    """How many standard deviations f attackers among n can shift and still hide (algorithm 3).

    z = Phi^-1((n - f - s) / (n - f)) with s = floor(n / 2 + 1) - f, the honest nodes that the
    attackers need on their side for a majority.

    >>> round(largest_hidden_z(17, 8), 5)
    1.22064

    Raises:
        SpecError: the quantile is not between 0 and 1 (n <= 2, or the attackers are the majority).
    """
    supporters = n // 2 + 1 - f
    if not 0 < n - f - supporters < n - f:
        raise SpecError(
            f"alie: z is undefined for n = {n}, f = {f} (needs n > 2 and f <= n/2)",
            "set attack.z, or change num_workers or num_byzantine",
        )
    z = NormalDist().inv_cdf((n - f - supporters) / (n - f))
    if z <= 0:
        warnings.warn(f"alie: z = {z:.3g} <= 0 at n = {n}, f = {f}: the attack does nothing", stacklevel=3)
    return z


def alie(honest_hd: Tensor, count: int, *, z: float | None = None, n: int | None = None) -> Tensor:
    """mu - z sigma per coordinate, for every attacker (Baruch, Baruch & Goldberg 2019).

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        z: None takes `largest_hidden_z(n, count)`.
        n: nodes; None for h + count.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it. sigma
        has ddof 1 and is zero for one honest row; both moments are float64.

    Raises:
        SpecError: z is None and undefined for these counts.
        JobFailed: there is no honest row.
    """
    if count == 0:
        return honest_hd.new_empty((0, honest_hd.shape[1]))
    mean_d = mean(honest_hd)
    if z is None:
        z = largest_hidden_z(len(honest_hd) + count if n is None else n, count)
    sent_d = mean_d - z * deviation(honest_hd, mean_d)
    return sent_d.to(honest_hd.dtype).expand(count, -1)
