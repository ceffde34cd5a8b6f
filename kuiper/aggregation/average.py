"""The mean: what everyone does, and what one Byzantine row breaks."""

from __future__ import annotations

from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation.sums import ordered_mean


def average(rows_nd: Tensor, f: int) -> Tensor:
    """Mean of all rows, added in float64 in node order.

    Not robust, and does not pretend to be: f is ignored and a non-finite entry passes through.

    Args:
        rows_nd: (n, d), n >= 1, any float dtype.
        f: ignored.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: there is no row.

    Laws: permutation (within rounding), translation, scale, orthogonal, identical rows, hull.
    """
    require("average", len(rows_nd), 0, factor=0, plus=1)
    return ordered_mean(rows_nd)
