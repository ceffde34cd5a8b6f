"""Compiled kernels for rows on a CPU: order statistics, Gram matrices, weighted sums, norms.

Numba is imported, and code compiled or read from its cache on disk, at the first call. Bits depend neither
on how many threads share the work (`torch.set_num_threads`) nor on how rows lie in memory.

Dimension letters: n rows, d parameters, m vectors, p points, q pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation.kernels.network import network, ranks
from kuiper.aggregation.kernels.pieces import NATIVE, Part, parts, written

STATISTICS = ("median", "trimmed_mean", "meamed", "phocas")
_IN_REGISTERS, _WORTH_IT = 128, 1 << 20
_DENSE = 0.2
"""Part of the weights that are not 0, from which on all are multiplied."""


def statistic(rows_nd: Tensor, what: str, f: int, low: int, high: int, last: Sequence[int] = (),
              chosen: Sequence[int] | None = None) -> Tensor | None:
    """A statistic of every column, (d,) in the rows' dtype; None where a row not in `last` is not finite.

    Args:
        what: one of STATISTICS.
        f: what a mean trims at each end, or leaves out.
        low, high: ranks whose midpoint is the median.
        last: rows that are ordered after all others in every column (the non-finite ones).
        chosen: rows that are looked at, once or more often; None for all.
    """
    picked = np.arange(len(rows_nd)) if chosen is None else np.asarray(chosen, np.int64)
    result = torch.empty(rows_nd.shape[1], dtype=rows_nd.dtype)
    for part in parts(rows_nd, last, np.inf):
        with written(result, part) as out:
            finite = _statistic(part, picked, out, f, STATISTICS.index(what), low, high, rows_nd.shape[1])
        if not (finite or last):
            return None
    return result


def gram(rows_nd: Tensor, centre_d: Tensor | None, median_of: int = 1, far: Sequence[int] = ()) -> np.ndarray:
    """Inner products of the rows and the origin (in this order) less a centre, (n + 1, n + 1) float64.

    Entries of a row that is not finite, and of one that overflows, are not finite.

    Args:
        centre_d: in the rows' dtype; None for the coordinate median of the first rows, all of them finite.
        median_of: how many.
        far: rows to leave at zero.
    """
    from kuiper.aggregation.kernels import compiled

    n = len(rows_nd)
    points = -(-(n + 1) // compiled.TILE) * compiled.TILE
    first, low, high = np.arange(median_of), (median_of - 1) // 2, median_of // 2
    total = np.zeros((points, points))
    for part in parts(rows_nd, far, 0):
        totals = np.zeros((part.pieces, points, points))
        if centre_d is None and _in_registers(median_of, rows_nd.shape[1]):
            part.share(compiled.about_median(median_of, low, high), part.values, first, totals)
        else:
            if centre_d is not None:
                centre = part.vector(centre_d)
            else:
                centre = np.empty(part.values.shape[1], part.values.dtype)
                _statistic(part, first, centre, 0, 0, low, high, rows_nd.shape[1])
            part.share(compiled.products, part.values, centre, totals)
        with np.errstate(invalid="ignore", over="ignore"):
            for one in totals:
                total += one
    upper = np.triu(total[: n + 1, : n + 1])
    return upper + np.triu(upper, 1).T


def combine(rows_nd: Tensor, weights_mn: np.ndarray, divisors_m: np.ndarray) -> Tensor:
    """weights @ rows / divisors, (m, d) in the rows' dtype, added in float64 row after row.

    A row whose weight is 0 is not looked at.
    """
    from kuiper.aggregation.kernels import compiled

    vectors = len(weights_mn)
    result = _empty(vectors, rows_nd)
    counts_m = np.count_nonzero(weights_mn, axis=1)
    used_mn = np.argsort(weights_mn == 0, axis=1, kind="stable")
    dense = vectors > 1 and counts_m.sum() > _DENSE * weights_mn.size and (divisors_m == 1).all()
    padded = np.pad(weights_mn, ((0, -vectors % compiled.TILE), (0, 0))) if dense else None
    for part in parts(rows_nd):
        bad = np.ones(part.pieces)
        with written(result, part) as out:
            if dense:
                part.share(compiled.mix, part.values, padded, out, bad)
            if bad.any():
                part.share(compiled.combine, part.values, weights_mn, used_mn, counts_m, divisors_m, out)
    return result


def finite_means(rows_nd: Tensor) -> Tensor:
    """Mean of the finite values of every column, (d,) in the rows' dtype; 0 where there is none."""
    from kuiper.aggregation.kernels import compiled

    if (mean := combine(rows_nd, np.ones((1, len(rows_nd))), np.array([float(len(rows_nd))]))[0]).isfinite().all():
        return mean
    result = torch.empty(rows_nd.shape[1], dtype=rows_nd.dtype)
    for part in parts(rows_nd):
        with written(result, part) as out:
            part.share(compiled.finite_means, part.values, out)
    return result


def majorities(rows_nd: Tensor, left_out: Sequence[int]) -> Tensor:
    """The sign that most values of every column have, (d,) in the rows' dtype.

    Args:
        left_out: rows that do not vote.
    """
    from kuiper.aggregation.kernels import compiled

    mask_n = np.isin(np.arange(len(rows_nd)), left_out)
    result = torch.empty(rows_nd.shape[1], dtype=rows_nd.dtype)
    for part in parts(rows_nd):
        with written(result, part) as out:
            part.share(compiled.majorities, part.values, out, mask_n)
    return result


def signs(rows_nd: Tensor) -> np.ndarray:
    """How many entries of each row are above 0, and below, (n, 2) int64."""
    from kuiper.aggregation.kernels import compiled

    total = np.zeros((len(rows_nd), 2), np.int64)
    for part in parts(rows_nd):
        counts = np.empty((part.pieces, len(rows_nd), 2), np.int64)
        part.share(compiled.signs, part.values, counts)
        total += counts.sum(0)
    return total


def squared_norms(rows_nd: Tensor, centre_d: Tensor | None = None) -> np.ndarray:
    """Of every row less a centre, (n,) float64; not finite where a row is not, or overflows."""
    from kuiper.aggregation.kernels import compiled

    total = np.zeros(len(rows_nd))
    for part in parts(rows_nd):
        centre = part.vector(torch.zeros(1).expand(rows_nd.shape[1]) if centre_d is None else centre_d)
        squares = np.empty((part.pieces, len(rows_nd)))
        part.share(compiled.norms, part.values, centre, squares)
        with np.errstate(invalid="ignore", over="ignore"):
            for one in squares:
                total += one
    return total


def _statistic(part: Part, chosen: np.ndarray, out: np.ndarray, f: int, what: int, low: int, high: int,
               d: int) -> bool:
    """Into out, in registers where that is worth its compiling (same bits); whether all is finite."""
    from kuiper.aggregation.kernels import order

    n, bad = len(chosen), np.empty(part.pieces)
    if _in_registers(n, d):
        part.share(order.in_registers(n, f, what, low, high), part.values, chosen, out, bad)
    else:
        steps = np.array(network(n, *ranks(n, f, what, low, high)), np.int32).reshape(-1, 2)
        part.share(order.in_cache, part.values, chosen, out, bad, steps, what, f, low, high)
    return not bad.any()


def _in_registers(n: int, d: int) -> bool:
    return n <= _IN_REGISTERS and n * d >= _WORTH_IT


def _empty(count: int, rows_nd: Tensor) -> Tensor:
    """(count, d) in the rows' dtype; of NumPy's memory, whose pages are huge, which takes a third of the time."""
    if rows_nd.dtype not in NATIVE:
        return torch.empty((count, rows_nd.shape[1]), dtype=rows_nd.dtype)
    dtype = np.float64 if rows_nd.dtype == torch.float64 else np.float32
    return torch.from_numpy(np.empty((count, rows_nd.shape[1]), dtype))
