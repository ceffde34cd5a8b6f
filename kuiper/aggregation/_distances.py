"""Squared distances between rows from one Gram product; nothing of size n * n * d is ever made.

Dimension letters: n rows, d parameters, w columns of one block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kuiper.aggregation._blocks import WIDTH
from kuiper.aggregation._order import ordered


def squared_distances(rows_nd: Tensor, f: int, non_finite: Sequence[int] = ()) -> Tensor:
    """||x_i - x_j||^2, (n, n) float64 with a zero diagonal, as G_ii + G_jj - 2 G_ij.

    The Gram matrix G is of rows centred near the honest ones, or the difference would cancel: rows at
    norm 1e8 that differ by 1 leave no digit. The mean will not do, since a few rows at 1e5 drag it
    away; the coordinate median of any 2f + 1 rows lies among the honest values, so the first 2f + 1
    are enough, at a fraction of the price of the median of all. Products are in float64, where only
    rows beyond 1e150 overflow.

    Args:
        rows_nd: any float dtype; not changed.
        f: declared Byzantine rows, 2f < n.
        non_finite: the rows that are, at most f.

    Returns:
        The distances; inf to the rows that are non-finite or overflow.
    """
    n, d = rows_nd.shape
    few = 2 * f + 1
    last = [i for i in non_finite if i < few]
    gram_nn = torch.zeros((n, n), dtype=torch.float64, device=rows_nd.device)
    buffer = torch.empty((n, min(d, WIDTH)), dtype=torch.float64, device=rows_nd.device)
    for columns, (centre_w,) in ordered(rows_nd[:few], f, f, last):
        centred_nw = buffer[:, : columns.stop - columns.start]
        centred_nw.copy_(rows_nd[:, columns]).sub_(centre_w)
        gram_nn += centred_nw @ centred_nw.T
    norms_n = gram_nn.diagonal()
    distances_nn = norms_n[:, None] + norms_n[None, :] - 2 * gram_nn
    # A NaN or an infinity in row i, or an overflow of G_ii, leaves no finite distance to row i.
    distances_nn = torch.where(distances_nn.isfinite(), distances_nn.clamp_min(0), math.inf)
    return distances_nn.fill_diagonal_(0)
