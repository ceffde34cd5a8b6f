"""The kernels that Numba compiles. A call's columns are cut into pieces, which torch's threads share.

Each kernel is two functions: `_name` works on one piece, the columns start..stop-1, and `name` (see `share` for
its first arguments) on all. What comes out of a column has the column's index.

They release the interpreter's lock, keep temporaries in the cache, and leave code on disk for the next
process. Dimension letters: n rows, d parameters, m vectors, p points, q pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit

from kuiper.aggregation.kernels.emit import LANES, MEDIAN, statistic
from kuiper.aggregation.kernels.multiply import LANES as LANES_64
from kuiper.aggregation.kernels.multiply import PANEL, TILE, dots, panel
from kuiper.aggregation.kernels.stream import WIDE, count_signs, differences, squares, weighted_sum
from kuiper.aggregation.kernels.team import share

BLOCK = 512
"""Columns that are worked on at a time, in the cache."""
PITCH = BLOCK + 8
"""Values from one row of a block to the next: at 4096 bytes all rows would share the same few cache lines."""
CACHE_LINE = 64  # bytes
NARROW, GROUP = 256, 3
"""Columns, and rows of tiles, of which products are made at a time."""
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(inline="always", **_OPTIONS)
def _aligned(rows, width):  # noqa: ANN001, ANN202
    """Zeros (rows, width) float64 that begin with a cache line, as vectors of a line's size should."""
    line = CACHE_LINE // 8
    space = np.empty(rows * width + line)
    for k in range(len(space)):
        space[k] = 0
    skipped = -space.ctypes.data // 8 % line
    return space[skipped : skipped + rows * width].reshape(rows, width)


@lru_cache(maxsize=256)
def about_median(n: int, low: int, high: int) -> Callable[..., None]:
    """`products` about the median of n rows, those `chosen`; at least LANES columns."""

    @njit(**_OPTIONS)
    def run(threads, done, cut, rows, chosen, totals):  # noqa: ANN001, ANN202
        share(_about_median, (rows, chosen, totals, n, low, high), threads, done, cut)

    return run


@njit(**_OPTIONS)
def _about_median(piece, start, stop, rows, chosen, totals, n, low, high):  # noqa: ANN001, ANN202
    centre = np.empty(max(stop - start, LANES), rows.dtype)
    for column in range(start, stop, LANES):
        first = min(column, stop - LANES)
        statistic(rows, chosen, first, centre, max(first - start, 0), n, 0, MEDIAN, low, high)
    _add_products(rows, start, stop, centre[max(start - stop + LANES, 0):], totals[piece])


@njit(**_OPTIONS)
def products(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_products, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _products(piece, start, stop, rows, centre, totals):  # noqa: ANN001, ANN202
    """totals[piece] = the inner products of rows and origin less `centre`, over a piece's columns.

    Args:
        centre: (d,) in the rows' dtype.
        totals: (q, p, p) float64 zeros, p being n + 1 rounded up to TILE; the upper triangles, by tiles.
    """
    _add_products(rows, start, stop, centre[start:stop], totals[piece])


@njit(inline="always", **_OPTIONS)
def _add_products(rows, start, stop, centre, gram):  # noqa: ANN001, ANN202
    """Tiles of GROUP rows of tiles are made in turn: their rows stay in the first cache."""
    n, tiles = rows.shape[0], len(gram) // TILE
    block, sums = _aligned(len(gram), NARROW + 8), _aligned(tiles * tiles, TILE * TILE * LANES_64)
    for column in range(start, stop, NARROW):
        width, offset = min(NARROW, stop - column), column - start
        even = width - width % LANES_64
        for i in range(n):
            differences(rows, i, column, even, centre, offset, block)
            for k in range(even, width):
                block[i, k] = np.float64(rows[i, column + k]) - np.float64(centre[offset + k])
        for k in range(width):
            block[n, k] = -np.float64(centre[offset + k])
        block[:, width:] = 0
        for first in range(0, tiles, GROUP):
            for j in range(first, tiles):
                for i in range(first, min(first + GROUP, j + 1)):
                    dots(block, i * TILE, j * TILE, width, sums, i * tiles + j)
    for i in range(len(gram)):
        for j in range(len(gram)):
            lanes = (i % TILE * TILE + j % TILE) * LANES_64
            for lane in range(lanes, lanes + LANES_64):
                gram[i, j] += sums[i // TILE * tiles + j // TILE, lane]


@njit(**_OPTIONS)
def combine(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_combine, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _combine(piece, start, stop, rows, weights, used, counts, divisors, out):  # noqa: ANN001, ANN202
    """out[v, k] = sum over i of weights[v, i] rows[i, k], over divisors[v], in float64, row after row.

    Args:
        weights: (m, n) float64.
        used: (m, n) int64, first the rows whose weight is not 0, ascending; no other is looked at.
        counts, divisors: (m,) int64 and float64, how many those are, and what their sum is divided by.
        out: (m, d) in the rows' dtype.
    """
    for column in range(start, stop, BLOCK):
        last = min(column + BLOCK, stop)
        wide = last - (last - column) % WIDE
        for v in range(len(weights)):
            for k in range(column, wide, WIDE):
                weighted_sum(rows, k, weights, used, counts, divisors, v, out, WIDE)
            for k in range(wide, last):
                weighted_sum(rows, k, weights, used, counts, divisors, v, out, 1)


@njit(**_OPTIONS)
def mix(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_mix, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _mix(piece, start, stop, rows, weights, out, bad):  # noqa: ANN001, ANN202
    """`_combine` by tiles, weights of 0 multiplied, too, and divisors of 1: the same bits if all is finite.

    Args:
        weights: (m, n) float64, m a multiple of TILE; the first len(out) are meant.
        bad: (q,) float64; bad[piece] = 0.0, or NaN where a value was not finite (and `out` means nothing).
    """
    n, check = len(rows), np.zeros(PANEL)
    sums, wide = _aligned(len(weights), PITCH), _aligned(BLOCK // PANEL, n * PANEL).reshape(-1, n, PANEL)
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        for i in range(n):
            for part in range(len(wide)):
                first = column + part * PANEL
                last = max(0, min(PANEL, column + width - first))
                for k in range(last):
                    wide[part, i, k] = rows[i, first + k]
                for k in range(last, PANEL):
                    wide[part, i, k] = 0
                for k in range(PANEL):
                    check[k] += wide[part, i, k] - wide[part, i, k]
        for part in range(len(wide)):
            for first in range(0, len(weights), TILE):
                panel(wide[part], weights, first, n, sums, part * PANEL)
        for v in range(len(out)):
            result, total = out[v, column : column + width], sums[v]
            for k in range(width):
                result[k] = total[k]
    bad[piece] = check.sum()


@njit(**_OPTIONS)
def norms(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_norms, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _norms(piece, start, stop, rows, centre, distances):  # noqa: ANN001, ANN202
    """distances[piece, i] = squared distance of rows[i] from centre (d,), in float64; distances: (q, n)."""
    distances[piece] = 0
    for column in range(start, stop, BLOCK):
        last = min(column + BLOCK, stop)
        wide = last - (last - column) % WIDE
        for i in range(rows.shape[0]):
            total = squares(rows, i, column, wide - column, centre)
            for k in range(wide, last):
                away = np.float64(rows[i, k]) - np.float64(centre[k])
                total += away * away
            distances[piece, i] += total


@njit(**_OPTIONS)
def signs(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_signs, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _signs(piece, start, stop, rows, counts):  # noqa: ANN001, ANN202
    """counts[piece, i] = how many values of rows[i] are above 0, and below; counts: (q, n, 2) int64."""
    counts[piece] = 0
    for column in range(start, stop, BLOCK):
        last = min(column + BLOCK, stop)
        wide = last - (last - column) % WIDE
        for i in range(rows.shape[0]):
            above, below = count_signs(rows, i, column, wide - column)
            for k in range(wide, last):
                above += rows[i, k] > 0
                below += rows[i, k] < 0
            counts[piece, i, 0] += above
            counts[piece, i, 1] += below


@njit(**_OPTIONS)
def finite_means(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_finite_means, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _finite_means(piece, start, stop, rows, out):  # noqa: ANN001, ANN202
    """out[k] = mean of the finite values of rows[:, k], float64 row by row; 0 where none is."""
    total, count = np.empty(BLOCK), np.empty(BLOCK)
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        total[:] = 0
        count[:] = 0
        for i in range(len(rows)):
            row = rows[i, column : column + width]
            for k in range(width):
                finite = row[k] - row[k] == 0
                total[k] += np.float64(row[k]) if finite else 0.0
                count[k] += 1.0 if finite else 0.0
        for k in range(width):
            out[column + k] = total[k] / max(count[k], 1.0)


@njit(**_OPTIONS)
def majorities(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_majorities, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _majorities(piece, start, stop, rows, out, left_out):  # noqa: ANN001, ANN202
    """out[k] = the sign, -1, 0 or 1, that most values of rows[:, k] have; left_out: (n,) bool."""
    votes = np.empty(BLOCK, np.int32)
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        votes[:] = 0
        for i in range(len(rows)):
            if not left_out[i]:
                row = rows[i, column : column + width]
                for k in range(width):
                    votes[k] += np.int32(row[k] > 0) - np.int32(row[k] < 0)
        result = out[column : column + width]
        for k in range(width):
            result[k] = np.sign(votes[k])
