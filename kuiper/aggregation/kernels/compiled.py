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

BLOCK = 512
"""Columns that are worked on at a time, in the cache."""
TILE = 4
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
            for k in range(width):
                value = rows[i, column + k]
                block[i, k] = value
                check[k] += value - value
        _exchange(block, width, steps)
        if what == MEDIAN and low == high:
            out[place : place + width] = block[low, :width]
            continue
        if what == MEDIAN or what == MEAMED:
            for k in range(width):
                centre[k] = np.float64(block[low, k]) * 0.5 + np.float64(block[high, k]) * 0.5
        else:
            centre[:width] = 0
            for rank in range(f, kept):
                for k in range(width):
                    centre[k] += np.float64(block[rank, k])
            for k in range(width):
                centre[k] /= n - 2 * f
        if what == MEAMED or what == PHOCAS:
            _nearest(block, width, kept, centre, shift)
        for k in range(width):
            out[place + k] = centre[k]
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
        for k in range(width):
            above, below = np.float64(block[first + kept, k]) - centre[k], centre[k] - np.float64(block[first, k])
            shift[k] += 1.0 if above < below else 0.0
    centre[:width] = 0
    for rank in range(n):
        for k in range(width):
            inside = rank >= shift[k] and rank - kept < shift[k]
            centre[k] += np.float64(block[rank, k]) if inside else 0.0
    for k in range(width):
        centre[k] /= kept


@njit(**_OPTIONS)
def products(rows, start, stop, centre, gram):  # noqa: ANN001, ANN201
    """Add to gram (p, p) the inner products of rows and origin less `centre`, over columns start..stop-1.

    p is n + 1 rounded up to TILE. float64; the upper triangle, by tiles. centre[0] belongs to `start`.
    """
    n, points = rows.shape[0], len(gram)
    block = np.zeros((points, BLOCK))
    for column in range(start, stop, BLOCK):
        width, offset = min(BLOCK, stop - column), column - start
        for i in range(n):
            for k in range(width):
                block[i, k] = np.float64(rows[i, column + k]) - np.float64(centre[offset + k])
        for k in range(width):
            block[n, k] = -np.float64(centre[offset + k])
        for i in range(0, points, TILE):
            for j in range(i, points, TILE):
                _tile(block, i, j, width, gram)


@njit(fastmath={"reassoc", "contract", "nsz"}, **_OPTIONS)
def _tile(block, i, j, width, gram):  # noqa: ANN001, ANN202
    """Sixteen dot products at once: eight loads for sixteen multiply-adds."""
    a0, a1, a2, a3 = block[i], block[i + 1], block[i + 2], block[i + 3]
    b0, b1, b2, b3 = block[j], block[j + 1], block[j + 2], block[j + 3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
    for k in range(width):
        x0, x1, x2, x3 = a0[k], a1[k], a2[k], a3[k]
        y0, y1, y2, y3 = b0[k], b1[k], b2[k], b3[k]
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    for r, row in enumerate(((s00, s01, s02, s03), (s10, s11, s12, s13),
                             (s20, s21, s22, s23), (s30, s31, s32, s33))):
        for c, value in enumerate(row):
            gram[i + r, j + c] += value


@njit(**_OPTIONS)
def combine(rows, weights, divisors, start, stop, out, place):  # noqa: ANN001, ANN201
    """out[:, place + k] = weights (m, n) @ rows[:, start + k] / divisors (m,), added in float64, row by row."""
    block = np.empty((len(weights), BLOCK))
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        block[:] = 0
        for i in range(rows.shape[0]):
            for v in range(len(weights)):
                weight = weights[v, i]
                if weight != 0:
                    for k in range(width):
                        block[v, k] += weight * np.float64(rows[i, column + k])
        for v in range(len(weights)):
            for k in range(width):
                out[v, place + column - start + k] = block[v, k] / divisors[v]


@njit(fastmath={"reassoc", "contract", "nsz"}, **_OPTIONS)
def norms(rows, start, stop, squares):  # noqa: ANN001, ANN201
    """Add each row's sum of squares over columns start..stop-1 to squares (n,), in float64."""
    for i in range(rows.shape[0]):
        total = 0.0
        for k in range(start, stop):
            total += np.float64(rows[i, k]) * np.float64(rows[i, k])
        squares[i] += total
