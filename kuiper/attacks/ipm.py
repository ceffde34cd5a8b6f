"""Inner product manipulation: the honest mean, turned around."""

from __future__ import annotations

from torch import Tensor

from kuiper.attacks._moments import mean


def ipm(honest_hd: Tensor, count: int, *, eps: float = 0.5) -> Tensor:
    """-eps mu for every attacker (Xie, Koyejo & Gupta 2019, equation 3; also called empire).

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        eps: 0.5, 0.1 and 10 are all in use. Below (n - f) / f the mean only shrinks; above, it reverses.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no honest row.
    """
    if count == 0:
        return honest_hd.new_empty((0, honest_hd.shape[1]))
    return (-eps * mean(honest_hd)).to(honest_hd.dtype).expand(count, -1)
