"""The mean: what everyone does, and what one Byzantine row breaks; and the mean of what is finite."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation import kernels
from kuiper.aggregation._bounds import require
from kuiper.aggregation.cloud import Cloud, Weights, by_coordinate, in_n_space


@in_n_space
def average(cloud: Cloud, f: int) -> Weights:
    """Mean of all rows, added in float64 in node order.

    Not robust, and does not pretend to be: f is ignored and a non-finite entry passes through.

    Args:
        cloud: rows (n, d), n >= 1, any float dtype.
        f: ignored.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: there is no row.

    Laws: permutation (within rounding), translation, scale, orthogonal, identical rows, hull.
    """
    require("average", len(cloud), 0, factor=0, plus=1)
    return np.ones(len(cloud))


@by_coordinate
def average_finite(rows_nd: Tensor, f: int) -> Tensor:
    """In every coordinate the mean of the finite values; 0 where none is (AggregaThor: NaN).

    Not robust: it stands lost coordinates, not false ones. f is ignored.

    Args:
        rows_nd: (n, d), n >= 1, any float dtype.

    Returns:
        (d,), the input's dtype and device; added in float64 in node order.

    Raises:
        TooManyByzantine: there is no row.
    """
    require("average_finite", len(rows_nd), 0, factor=0, plus=1)
    if rows_nd.device.type == "cpu":
        return kernels.finite_means(rows_nd)
    total_d = torch.zeros(rows_nd.shape[1], dtype=torch.float64, device=rows_nd.device)
    count_d = torch.zeros_like(total_d)
    for row_d in rows_nd:
        finite_d = row_d.isfinite()
        total_d += torch.where(finite_d, row_d, 0)
        count_d += finite_d
    return (total_d / count_d.clamp_min_(1)).to(rows_nd.dtype)
