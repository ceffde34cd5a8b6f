"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation._order import ordered
from kuiper.aggregation.sums import ordered_mean


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
    n, d = rows_nd.shape
    require("trimmed_mean", n, f, factor=2, plus=1)
    last = infinitely_far("trimmed_mean", rows_nd, f)
    if f == 0:
        return ordered_mean(rows_nd)
    result = torch.empty(d, dtype=rows_nd.dtype, device=rows_nd.device)
    for columns, kept in ordered(rows_nd, f, n - f - 1, last):
        total_w = torch.zeros_like(kept[0], dtype=torch.float64)
        for values in kept:
            total_w += values
        result[columns] = total_w / len(kept)
    return result
