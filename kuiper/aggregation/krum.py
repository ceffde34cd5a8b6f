"""Krum and Multi-Krum: keep the rows whose nearest neighbours are nearest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._distances import squared_distances
from kuiper.aggregation._finite import infinitely_far, refuse_beyond
from kuiper.aggregation.sums import ordered_mean
from kuiper.errors import SpecError


def multi_krum(rows_nd: Tensor, f: int, *, m: int | None = None) -> Tensor:
    """Mean of the m rows of lowest score (Blanchard et al. 2017, sections 4 and 5).

    The score of a row is the sum of its n - f - 2 smallest squared distances to the others. Equal
    scores: the lowest index first. m = 1 is Krum.

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows, and rows whose squared distances overflow
            float64, are infinitely far.
        f: declared Byzantine rows, n >= 2f + 3.
        m: rows to keep, 1..n-f; None is the paper's n - f - 2, also when f = 0.

    Returns:
        (d,), the input's dtype and device: the mean of the kept rows, added in float64 in node order.

    Raises:
        TooManyByzantine: n < 2f + 3.
        JobFailed: more than f rows are infinitely far.
        SpecError: m is out of bounds.

    Laws: permutation, translation, scale, orthogonal (all where no two scores are equal within
    rounding), identical rows, hull; for m = 1 (f, kappa)-robust with kappa = 6 (1 + f / (n - 2f))
    (Allouah et al. 2023).
    """
    n = len(rows_nd)
    require("multi_krum", n, f, factor=2, plus=3)
    kept = n - f - 2 if m is None else m
    if not 1 <= kept <= n - f:
        raise SpecError(
            f"multi_krum: m = {m} is not in 1..n-f = 1..{n - f} (n = {n}, f = {f})",
            "leave m out for n - f - 2, or set 1 for Krum",
        )
    distances_nn = squared_distances(rows_nd, f, infinitely_far("multi_krum", rows_nd, f))
    nearest_nn = distances_nn.fill_diagonal_(math.inf).sort(dim=1).values
    scores_n = nearest_nn[:, : n - f - 2].sum(dim=1)
    refuse_beyond("multi_krum", int(scores_n.isinf().sum()), n, f)
    best = torch.sort(scores_n, stable=True).indices[:kept]
    return ordered_mean(rows_nd, sorted(best.tolist()))
