"""Order statistics of columns, compiled: in vector registers, or in the cache where that is not worth it.

See `compiled` for what the functions of all kernels have in common. Dimension letters: n rows, d parameters,
q pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit

from kuiper.aggregation.kernels.emit import LANES, MEAMED, MEDIAN, PHOCAS, statistic
from kuiper.aggregation.kernels.team import share

BLOCK = 512
"""Columns that are worked on at a time, in the cache."""
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@lru_cache(maxsize=256)
def in_registers(n: int, f: int, what: int, low: int, high: int) -> Callable[..., None]:
    """`in_cache` for one n and statistic, with columns in registers: four times as fast, some tenths of a
    second to compile. At least LANES columns; without `steps` and what follows.
    """

    @njit(**_OPTIONS)
    def run(threads, done, cut, rows, chosen, out, bad):  # noqa: ANN001, ANN202
        share(_in_registers, (rows, chosen, out, bad, n, f, what, low, high), threads, done, cut)

    return run


@njit(**_OPTIONS)
def _in_registers(piece, start, stop, rows, chosen, out, bad, n, f, what, low, high):  # noqa: ANN001, ANN202
    total = 0.0
    for column in range(start, stop, LANES):
        first = min(column, stop - LANES)
        total += statistic(rows, chosen, first, out, first, n, f, what, low, high)
    bad[piece] = total


@njit(**_OPTIONS)
def in_cache(threads, done, cut, *arguments):  # noqa: ANN001, ANN002, ANN201
    share(_in_cache, arguments, threads, done, cut)


@njit(**_OPTIONS)
def _in_cache(piece, start, stop, rows, chosen, out, bad, steps, what, f, low, high):  # noqa: ANN001, ANN202
    """out[k] = a statistic of rows[chosen, k]; bad[piece] = 0.0, or NaN where a value was not finite.

    Args:
        rows: (m, d) float32 or float64.
        chosen: (n,) int64.
        out: (d,) of the rows' dtype.
        bad: (q,) float64.
        steps: (s, 2) int32, the network that puts the ranks that are needed in their places.
        what: MEDIAN (midpoint of the ranks low and high), TRIMMED, MEAMED or PHOCAS.
    """
    n = len(chosen)
    kept = n - f
    block = np.empty((n, BLOCK), rows.dtype)
    check, centre, shift = np.zeros(BLOCK, rows.dtype), np.empty(BLOCK), np.empty(BLOCK)
    for column in range(start, stop, BLOCK):
        width = min(BLOCK, stop - column)
        for i in range(n):
            row, values = rows[chosen[i], column : column + width], block[i]
            for k in range(width):
                values[k] = row[k]
                check[k] += row[k] - row[k]
        _exchange(block, width, steps)
        if what == MEDIAN and low == high:
            out[column : column + width] = block[low, :width]
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
        out[column : column + width] = centre[:width]
    bad[piece] = check.sum()


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
