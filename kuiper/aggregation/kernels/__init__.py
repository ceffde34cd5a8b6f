"""Compiled kernels for rows on a CPU: order statistics, Gram matrices, weighted sums, norms.

Numba is imported, and code compiled or read from its cache on disk, at the first call. Bits depend neither
on how many threads share the work (`torch.set_num_threads`) nor on how rows lie in memory.

Dimension letters: n rows, d parameters, m vectors, p points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation.kernels.network import network, ranks

LANES = 16
STATISTICS = ("median", "trimmed_mean", "meamed", "phocas")
T = TypeVar("T")
_NATIVE = (torch.float32, torch.float64)
_IN_CACHE = 1 << 19  # values of one piece of work
_IN_REGISTERS, _WORTH_IT = 128, 1 << 20
_DENSE = 0.2
"""Part of the weights that are not 0, from which on all are multiplied."""


def statistic(rows_nd: Tensor, what: str, f: int, low: int, high: int,
              last: Sequence[int] = ()) -> Tensor | None:
    """A statistic of every column, (d,) in the rows' dtype; None where a row not in `last` is not finite.

    Args:
        what: one of STATISTICS.
        f: what a mean trims at each end, or leaves out.
        low, high: ranks whose midpoint is the median.
        last: rows that are ordered after all others in every column (the non-finite ones).
    """
    compute = _statistic(*rows_nd.shape, f, STATISTICS.index(what), low, high)
    result = torch.empty(rows_nd.shape[1], dtype=rows_nd.dtype)

    def piece(columns: slice) -> float:
        values, start, stop = _plain(rows_nd, columns, last, np.inf)
        out = np.empty(stop - start, values.dtype)
        bad = compute(values, start, stop, out)
        result[columns] = torch.from_numpy(out[: columns.stop - columns.start])
        return bad

    bad = sum(_shared(piece, *rows_nd.shape))
    return result if bad == 0 or last else None


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
    middle = _statistic(median_of, rows_nd.shape[1], 0, 0, (median_of - 1) // 2, median_of // 2)
    points = -(-(n + 1) // compiled.TILE) * compiled.TILE

    def piece(columns: slice) -> np.ndarray:
        values, start, stop = _plain(rows_nd, columns, far, 0)
        centre = np.zeros(stop - start, values.dtype)
        if centre_d is None:
            middle(values[:median_of], start, stop, centre)
        else:
            centre[: columns.stop - columns.start] = _numpy(centre_d[columns])
        total = np.zeros((points, points))
        compiled.products(values, start, stop, centre, total)
        return total

    total = np.zeros((points, points))
    with np.errstate(invalid="ignore", over="ignore"):
        for part in _shared(piece, *rows_nd.shape):
            total += part
    upper = np.triu(total[: n + 1, : n + 1])
    return upper + np.triu(upper, 1).T


def combine(rows_nd: Tensor, weights_mn: np.ndarray, divisors_m: np.ndarray) -> Tensor:
    """weights @ rows / divisors, (m, d) in the rows' dtype, added in float64 row after row.

    A row whose weight is 0 is not looked at.
    """
    from kuiper.aggregation.kernels import compiled

    vectors = len(weights_mn)
    result = _empty(vectors, rows_nd)
    native = result.numpy() if rows_nd.dtype in _NATIVE else None
    counts_m = np.count_nonzero(weights_mn, axis=1)
    used_mn = np.argsort(weights_mn == 0, axis=1, kind="stable")
    dense = vectors > 1 and counts_m.sum() > _DENSE * weights_mn.size and (divisors_m == 1).all()
    padded = np.pad(weights_mn, ((0, -vectors % compiled.TILE), (0, 0)))

    def piece(columns: slice) -> None:
        values, start, stop = _plain(rows_nd, columns)
        in_place = native is not None and stop - start == columns.stop - columns.start
        out = native if in_place else np.empty((vectors, stop - start), values.dtype)
        place = columns.start if in_place else 0
        if not (dense and compiled.mix(values, padded, start, stop, out, place)):
            compiled.combine(values, weights_mn, used_mn, counts_m, divisors_m, start, stop, out, place)
        if not in_place:
            result[:, columns] = torch.from_numpy(out[:, : columns.stop - columns.start]).to(rows_nd.dtype)

    _shared(piece, *rows_nd.shape)
    return result


def finite_means(rows_nd: Tensor) -> Tensor:
    """Mean of the finite values of every column, (d,) in the rows' dtype; 0 where there is none."""
    from kuiper.aggregation.kernels import compiled

    return _by_column(rows_nd, compiled.finite_means)


def majorities(rows_nd: Tensor, left_out: Sequence[int]) -> Tensor:
    """The sign that most values of every column have, (d,) in the rows' dtype.

    Args:
        left_out: rows that do not vote.
    """
    from kuiper.aggregation.kernels import compiled

    mask_n = np.isin(np.arange(len(rows_nd)), left_out)
    return _by_column(rows_nd, lambda rows, *place: compiled.majorities(rows, mask_n, *place))


def _by_column(rows_nd: Tensor, compute: Callable[..., None]) -> Tensor:
    """What compute(rows, start, stop, out) writes for every column, (d,) in the rows' dtype."""
    result = torch.empty(rows_nd.shape[1], dtype=rows_nd.dtype)

    def piece(columns: slice) -> None:
        values, start, stop = _plain(rows_nd, columns)
        out = np.empty(stop - start, values.dtype)
        compute(values, start, stop, out)
        result[columns] = torch.from_numpy(out[: columns.stop - columns.start])

    _shared(piece, *rows_nd.shape)
    return result


def signs(rows_nd: Tensor) -> np.ndarray:
    """How many entries of each row are above 0, and below, (n, 2) int64."""
    from kuiper.aggregation.kernels import compiled

    def piece(columns: slice) -> np.ndarray:
        values, start, stop = _plain(rows_nd, columns)
        counts = np.zeros((len(values), 2), np.int64)
        compiled.signs(values, start, stop, counts)
        return counts

    return sum(_shared(piece, *rows_nd.shape), np.zeros((len(rows_nd), 2), np.int64))


def squared_norms(rows_nd: Tensor, centre_d: Tensor | None = None) -> np.ndarray:
    """Of every row less a centre, (n,) float64; not finite where a row is not, or overflows."""
    from kuiper.aggregation.kernels import compiled

    def piece(columns: slice) -> np.ndarray:
        values, start, stop = _plain(rows_nd, columns)
        squares = np.zeros(len(values))
        centre = np.zeros(stop - start, values.dtype)
        if centre_d is not None:
            centre[: columns.stop - columns.start] = _numpy(centre_d[columns])
        compiled.norms(values, centre, start, stop, squares)
        return squares

    with np.errstate(invalid="ignore", over="ignore"):
        return sum(_shared(piece, *rows_nd.shape), np.zeros(len(rows_nd)))


def _statistic(n: int, d: int, f: int, what: int, low: int, high: int) -> Callable[..., float]:
    """(rows, start, stop, out) -> 0.0 or NaN: in registers where that is worth its compiling. Same bits."""
    from kuiper.aggregation.kernels import compiled

    if n <= _IN_REGISTERS and n * d >= _WORTH_IT:
        kernel, steps = compiled.in_registers(n, f, what, low, high), np.empty((0, 2), np.int32)
    else:
        steps = np.array(network(n, *ranks(n, f, what, low, high)), np.int32).reshape(-1, 2)
        kernel = compiled.in_cache
    return lambda rows, start, stop, out: kernel(rows, start, stop, steps, what, f, low, high, out)


def _plain(rows_nd: Tensor, columns: slice, replaced: Sequence[int] = (), by: float = 0.0
           ) -> tuple[np.ndarray, int, int]:
    """Columns as a kernel takes them: an array of one layout and native dtype, first and last + 1.

    The rows themselves where they are like that; else a copy, padded with zeros to at least LANES columns.
    """
    width = columns.stop - columns.start
    if rows_nd.dtype in _NATIVE and rows_nd.is_contiguous() and width >= LANES and not replaced:
        return rows_nd.numpy(), columns.start, columns.stop
    dtype = torch.float64 if rows_nd.dtype == torch.float64 else torch.float32
    copy = torch.zeros((len(rows_nd), max(width, LANES)), dtype=dtype)
    copy[:, :width] = rows_nd[:, columns]
    for row in replaced:
        copy[row, :width] = by
    return copy.numpy(), 0, copy.shape[1]


def _empty(count: int, rows_nd: Tensor) -> Tensor:
    """(count, d) in the rows' dtype; of NumPy's memory, whose pages are huge, which takes a third of the time."""
    if rows_nd.dtype not in _NATIVE:
        return torch.empty((count, rows_nd.shape[1]), dtype=rows_nd.dtype)
    dtype = np.float64 if rows_nd.dtype == torch.float64 else np.float32
    return torch.from_numpy(np.empty((count, rows_nd.shape[1]), dtype))


def _numpy(values: Tensor) -> np.ndarray:
    return (values if values.dtype in _NATIVE else values.float()).numpy()


def _shared(piece: Callable[[slice], T], n: int, d: int) -> list[T]:
    """`piece` of every range of columns, in their order; ranges depend on n and d alone."""
    size = max(512, _IN_CACHE // max(n, 1) // 512 * 512)
    ranges = [slice(start, min(start + size, d)) for start in range(0, d, size)]
    helpers = min(torch.get_num_threads(), len(ranges)) - 1
    results: list[T] = [None] * len(ranges)
    left = iter(range(len(ranges)))

    def work() -> None:
        for place in left:
            results[place] = piece(ranges[place])

    helping = [_threads(helpers).submit(work) for _ in range(helpers)]
    work()
    for one in helping:
        one.result()
    return results


@lru_cache(maxsize=4)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="rows")
