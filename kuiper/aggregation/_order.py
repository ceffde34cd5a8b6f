"""Order statistics of every column: one network of compare-exchanges gives them all.

On a CPU compiled kernels do it; elsewhere the same network runs over blocks of columns with elementwise
minima and maxima, which do all columns of a block at once. The bits are the same.

Dimension letters: n rows, d parameters, w columns of one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kuiper.aggregation import kernels
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation.kernels.network import network

_WIDTH = 1 << 18


def statistic(rule: str, what: str, rows_nd: Tensor, f: int, *, low: int | None = None,
              high: int | None = None, chosen: Sequence[int] | None = None) -> Tensor:
    """A statistic of every coordinate, (d,) in the rows' dtype and on their device.

    Args:
        rule: who asks, for the message.
        what: 'median' (midpoint of ranks `low` and `high`), 'trimmed_mean' (without the f lowest and f
            highest), 'meamed' and 'phocas' (mean of the n - f values nearest the median, the trimmed mean;
            equally near: the lower).
        rows_nd: any float dtype; not changed. Rows that are not finite are ordered last everywhere.
        low, high: ranks of the median, from 0; None for the middle ones.
        chosen: rows that are looked at, once or more often; None for all.

    Raises:
        JobFailed: more than f rows are not finite.
    """
    n = len(rows_nd) if chosen is None else len(chosen)
    low, high = (n - 1) // 2 if low is None else low, n // 2 if high is None else high
    compute = kernels.statistic if rows_nd.device.type == "cpu" else in_blocks
    result = compute(rows_nd, what, f, low, high, (), chosen)
    if result is None:
        result = compute(rows_nd, what, f, low, high, infinitely_far(rule, rows_nd, f), chosen)
    return result


def in_blocks(rows_nd: Tensor, what: str, f: int, low: int, high: int,
              last: Sequence[int] = (), chosen: Sequence[int] | None = None) -> Tensor | None:
    """What `kernels.statistic` gives, in torch: for other devices, and to check the kernels by."""
    chosen = range(len(rows_nd)) if chosen is None else chosen
    n, d = len(chosen), rows_nd.shape[1]
    result = torch.empty(d, dtype=rows_nd.dtype, device=rows_nd.device)
    if not last and not rows_nd.sum(1, dtype=torch.float64).isfinite().all():
        return None
    for columns, values in _ordered(rows_nd, what, f, low, high, last, chosen):
        if what == "median":
            result[columns] = values[low] if low == high else _midpoint(values[low], values[high])
            continue
        centre = _midpoint(values[low], values[high]) if what == "meamed" else _mean(values[f : n - f])
        result[columns] = centre if what == "trimmed_mean" else _nearest(values, n - f, centre)
    return result


def _ordered(rows_nd: Tensor, what: str, f: int, low: int, high: int, last: Sequence[int], chosen: Sequence[int]
             ) -> Iterator[tuple[slice, list[Tensor]]]:
    """(columns, their n values of which the ranks that are needed are in place, each (w,))."""
    n, d = len(chosen), rows_nd.shape[1]
    wide = {"median": (low, high), "trimmed_mean": (f, n - f - 1)}.get(what, (0, n - 1))
    dtype = torch.float64 if rows_nd.dtype == torch.float64 else torch.float32
    width = min(d, max(1, min(_WIDTH, n * d // (8 * n) + 1)))
    for start in range(0, d, width):
        columns = slice(start, min(start + width, d))
        block = rows_nd[:, columns].to(dtype, copy=True)
        for row in last:
            block[row] = math.inf
        values = [block[row] for row in chosen]
        for i, j in network(n, *wide):
            values[i], values[j] = torch.minimum(values[i], values[j]), torch.maximum(values[i], values[j])
        yield columns, values


def _midpoint(low_w: Tensor, high_w: Tensor) -> Tensor:
    return low_w.double() * 0.5 + high_w.double() * 0.5


def _mean(values: Sequence[Tensor]) -> Tensor:
    total_w = torch.zeros_like(values[0], dtype=torch.float64)
    for value_w in values:
        total_w += value_w
    return total_w / len(values)


def _nearest(values: Sequence[Tensor], kept: int, centre_w: Tensor) -> Tensor:
    start_w = torch.zeros_like(centre_w)
    for first in range(len(values) - kept):
        start_w += (values[first + kept].double() - centre_w) < (centre_w - values[first].double())
    total_w = torch.zeros_like(centre_w)
    for rank, value_w in enumerate(values):
        total_w += torch.where((rank >= start_w) & (rank - kept < start_w), value_w.double(), 0.0)
    return total_w / kept
