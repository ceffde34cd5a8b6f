"""The coordinate-wise trimmed mean, and the mean of what is near it."""

from __future__ import annotations

from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation._order import statistic
from kuiper.aggregation.average import average
from kuiper.aggregation.cloud import by_coordinate


@by_coordinate
def trimmed_mean(rows_nd: Tensor, f: int) -> Tensor:
    """In every coordinate drop the f lowest and the f highest values; mean of the rest (Yin et al. 2018).

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows are ordered last in every coordinate, so
            they are among the f highest.
        f: values to drop at each end, 2f < n. With f = 0 it is `average`, to the bit.

    Returns:
        (d,), the input's dtype and device; the mean is taken in float64, in ascending order.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are non-finite.

    Laws: permutation, translation, scale, identical rows, hull; (f, kappa)-robust with
    kappa = 6 r (1 + r), r = f / (n - 2f) (Allouah et al. 2023).
    """
    require("trimmed_mean", len(rows_nd), f, factor=2, plus=1)
    if f == 0:
        infinitely_far("trimmed_mean", rows_nd, f)
        return average(rows_nd, f)
    return statistic("trimmed_mean", "trimmed_mean", rows_nd, f)


@by_coordinate
def phocas(rows_nd: Tensor, f: int) -> Tensor:
    """In every coordinate the mean of the n - f values nearest the trimmed mean (Xie et al. 2018, "Phocas").

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows are ordered last in every coordinate.
        f: values to leave out, 2f < n. Of two equally near, the lower stays.

    Returns:
        (d,), the input's dtype and device; the mean is taken in float64, in ascending order.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are non-finite.

    Laws: permutation, translation, scale, identical rows, hull.
    """
    require("phocas", len(rows_nd), f, factor=2, plus=1)
    return statistic("phocas", "phocas", rows_nd, f)
