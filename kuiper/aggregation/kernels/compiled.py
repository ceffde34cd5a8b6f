"""The kernels that Numba compiles, each over a range of columns; the caller shares ranges among threads.

They release the interpreter's lock, keep temporaries in the cache, and leave code on disk for the next
process. Dimension letters: n rows, d parameters, m vectors, p points.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit

from kuiper.aggregation.kernels.emit import LANES, statistic
from kuiper.aggregation.kernels.multiply import PANEL, TILE, dots, panel

BLOCK = 512
"""Columns that are worked on at a time, in the cache."""
PITCH = BLOCK + 8
"""Values from one row of a block to the next: at 4096 bytes all rows would share the same few cache lines."""
MEDIAN, TRIMMED, MEAMED, PHOCAS = range(4)
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@lru_cache(maxsize=256)
def in_registers(n: int, f: int, what: int, low: int, high: int) -> Callable[..., float]:
    """`in_cache` for one n and statistic, with columns in registers: four times as fast, some tenths of a
    second to compile. At least LANES columns; `steps` is not looked at.
    """

    @njit(**_OPTIONS)
    def run(rows, start, stop, steps, what_, f_, low_, high_, out):  # noqa: ANN001, ANN202 - Numba infers them
        bad = 0.0
        for column in range(start, stop, LANES):
            first = min(column, stop - LANES)
            bad += statistic(rows, first, out, first - start, n, f, what, low, high)
        return bad

    return run


@njit(**_OPTIONS)
def in_cache(rows, start, stop, steps, what, f, low, high, out):  # noqa: ANN001, ANN201
    """out[k] = a statistic of rows[:, start + k]; returns 0.0, or NaN where a value was not finite.

    Args:
        rows: (n, d) float32 or float64.
        steps: (s, 2) int32, the network that puts the ranks that are needed in their places.
        what: MEDIAN (midpoint of the ranks low and high), TRIMMED, MEAMED or PHOCAS.
    """
    n = rows.shape[0]
    kept = n - f
    block = np.empty((n, BLOCK), rows.dtype)
    check, centre, shift = np.zeros(BLOCK, rows.dtype), np.empty(BLOCK), np.empty(BLOCK)
    for column in range(start, stop, BLOCK):
        width, place = min(BLOCK, stop - column), column - start
        for i in range(n):
            row, values = rows[i, column : column + width], block[i]
            for k in range(width):
                values[k] = row[k]
                check[k] += row[k] - row[k]
        _exchange(block, width, steps)
        if what == MEDIAN and low == high:
            out[place : place + width] = block[low, :width]
            continue
        if what in (MEDIAN, MEAMED):
            lower, upper = block[low], block[high]
            for k in range(width):
                centre[k] = np.float64(lower[k]) * 0.5 + np.float64(upper[k]) * 0.5
        else:
            centre[:width] = 0
            for rank in range(f, kept):
                values = block[rank]
                for k in range(width):
                    centre[k] += np.float64(values[k])
            for k in range(width):
                centre[k] /= n - 2 * f
        if what in (MEAMED, PHOCAS):
            _nearest(block, width, kept, centre, shift)
        out[place : place + width] = centre[:width]
    return check.sum()


@njit(**_OPTIONS)
def _exchange(block, width, steps):  # noqa: ANN001, ANN202
    for step in range(len(steps)):
        low, high = block[steps[step, 0]], block[steps[step, 1]]
        for k in range(width):
            less = low[k] < high[k]
            low[k], high[k] = (low[k] if less else high[k]), (high[k] if less else low[k])


@njit(**_OPTIONS)
def _nearest(block, width, kept, centre, shift):  # noqa: ANN001, ANN202
    """Replace centre[k] by the mean of the `kept` ascending values block[:, k] that are nearest to it.

    They are neighbours: the window starts after as many values as are farther below the centre than what
    would enter is above it. Equally far: the lower value stays.
    """
    n = len(block)
    shift[:width] = 0
    for first in range(n - kept):
        leaving, entering = block[first], block[first + kept]
        for k in range(width):
            above, below = np.float64(entering[k]) - centre[k], centre[k] - np.float64(leaving[k])
            shift[k] += 1.0 if above < below else 0.0
    centre[:width] = 0
    for rank in range(n):
        values, late, early = block[rank], np.float64(rank), np.float64(rank - kept)
        for k in range(width):
            inside = (late >= shift[k]) & (early < shift[k])
            centre[k] += np.float64(values[k]) if inside else 0.0
    for k in range(width):
        centre[k] /= kept


@njit(**_OPTIONS)
def products(rows, start, stop, centre, gram):  # noqa: ANN001, ANN201
    """Add to gram (p, p) the inner products of rows and origin less `centre`, over columns start..stop-1.

    p is n + 1 rounded up to TILE. float64; the upper triangle, by tiles. centre[0] belongs to `start`.
    """
    n, points = rows.shape[0], len(gram)
    block = np.zeros((points, PITCH))
    for column in range(start, stop, BLOCK):
        width, offset = min(BLOCK, stop - column), column - start
        about = centre[offset : offset + width]
        for i in range(n):
            row, values = rows[i, column : column + width], block[i]
            for k in range(width):
                values[k] = np.float64(row[k]) - np.float64(about[k])
        origin = block[n]
        for k in range(width):
            origin[k] = -np.float64(about[k])
        block[:, width:] = 0
        for i in range(0, points, TILE):
            for j in range(i, points, TILE):
                dots(block, i, j, width, gram)


@njit(fastmath={"contract"}, **_OPTIONS)
def combine(rows, weights, used, counts, divisors, start, stop, out, place):  # noqa: ANN001, ANN201
    """out[v, place + k] = sum over i of weights[v, i] rows[i, start + k], over divisors[v]; row by row.

    Four rows at a time, to read the sums less often.

    Args:
        weights: (m, n) float64.
        used: (m, n) int64, first the rows whose weight is not 0, ascending; no other is looked at.
        counts, divisors: (m,) int64 and float64, how many those are, and what their sum is divided by.
    """
    total = np.empty(BLOCK)
    for column in range(start, stop, BLOCK):
        width, here = min(BLOCK, stop - column), place + column - start
        for v in range(len(weights)):
            total[:] = 0
            weight, fours = weights[v], counts[v] // 4 * 4
            for turn in range(0, fours, 4):
                i, j, m, p = used[v, turn], used[v, turn + 1], used[v, turn + 2], used[v, turn + 3]
                a, b, c, e = weight[i], weight[j], weight[m], weight[p]
                x, y = rows[i, column : column + width], rows[j, column : column + width]
                z, w = rows[m, column : column + width], rows[p, column : column + width]
                for k in range(width):
                    value = total[k] + a * np.float64(x[k])
                    value = value + b * np.float64(y[k])
                    value = value + c * np.float64(z[k])
                    total[k] = value + e * np.float64(w[k])
            for i in used[v, fours : counts[v]]:
                a, x = weight[i], rows[i, column : column + width]
                for k in range(width):
                    total[k] += a * np.float64(x[k])
            result = out[v, here : here + width]
            for k in range(width):
                result[k] = total[k] / divisors[v]


@njit(**_OPTIONS)
def mix(rows, weights, start, stop, out, place):  # noqa: ANN001, ANN201
    """`combine` by tiles, weights of 0 multiplied, too, and divisors of 1: the same bits where it returns True.

    Args:
        weights: (m, n) float64, m a multiple of TILE; the first len(out) are meant.

    Returns:
        Whether all values are finite; where not, `out` means nothing.
    """
    n, check = len(rows), np.zeros(PANEL)
    sums, wide = np.empty((len(weights), PITCH)), np.empty((BLOCK // PANEL, n, PANEL))
    for column in range(start, stop, BLOCK):
        width, here = min(BLOCK, stop - column), place + column - start
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
            result, total = out[v, here : here + width], sums[v]
            for k in range(width):
                result[k] = total[k]
    return check.sum() == 0


@njit(fastmath={"reassoc", "contract", "nsz"}, **_OPTIONS)
def norms(rows, centre, start, stop, squares):  # noqa: ANN001, ANN201
    """Add to squares (n,) each row's squared distance from centre, centre[0] being `start`'s, in float64."""
    for i in range(rows.shape[0]):
        row, total = rows[i, start:stop], 0.0
        for k in range(len(row)):
            away = np.float64(row[k]) - np.float64(centre[k])
            total += away * away
        squares[i] += total


@njit(**_OPTIONS)
def signs(rows, start, stop, counts):  # noqa: ANN001, ANN201
    """Add to counts (n, 2) int64 how many of each row's values are above 0, and below."""
    for i in range(rows.shape[0]):
        row, above, below = rows[i, start:stop], 0, 0
        for k in range(len(row)):
            above += row[k] > 0
            below += row[k] < 0
        counts[i, 0] += above
        counts[i, 1] += below


@njit(**_OPTIONS)
def finite_means(rows, start, stop, out):  # noqa: ANN001, ANN201
    """out[k] = mean of the finite values of rows[:, start + k], float64 row by row; 0 where none is.

    A block is looked at value by value only where its sum is not finite.
    """
    n, total, count = len(rows), np.empty(BLOCK), np.empty(BLOCK)
    for column in range(start, stop, BLOCK):
        width, block = min(BLOCK, stop - column), rows[:, column : column + BLOCK]
        total[:] = 0
        for i in range(n):
            row = block[i]
            for k in range(width):
                total[k] += np.float64(row[k])
        result = out[column - start : column - start + width]
        for k in range(width):
            result[k] = total[k] / n
        if np.isfinite(total[:width].sum()):
            continue
        total[:] = 0
        count[:] = 0
        for i in range(n):
            row = block[i]
            for k in range(width):
                finite = row[k] - row[k] == 0
                total[k] += np.float64(row[k]) if finite else 0.0
                count[k] += 1.0 if finite else 0.0
        for k in range(width):
            result[k] = total[k] / max(count[k], 1.0)


@njit(**_OPTIONS)
def majorities(rows, left_out, start, stop, out):  # noqa: ANN001, ANN201
    """out[k] = the sign, -1, 0 or 1, that most values of rows[:, start + k] have; left_out: (n,) bool."""
    votes = np.empty(BLOCK, np.int32)
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        votes[:] = 0
        for i in range(len(rows)):
            if not left_out[i]:
                row = rows[i, column : column + width]
                for k in range(width):
                    votes[k] += np.int32(row[k] > 0) - np.int32(row[k] < 0)
        result = out[column - start : column - start + width]
        for k in range(width):
            result[k] = np.sign(votes[k])
