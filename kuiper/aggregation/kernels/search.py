"""The branch and bound of SMEA, compiled: a set is given up as soon as its scatter is too large."""

from __future__ import annotations

import math

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def narrow(gram, most, chosen, seen, limit, lower):  # noqa: ANN001, ANN201 - Numba infers them
    """The next set of points whose scatter has no eigenvalue of `most` or more: (found, branches taken).

    Sets come in descending order of their lists of indices, from `chosen` on, and `chosen` becomes the set.
    A scatter is below `most` in every direction if most (1 + I) - D is positive definite, D being the inner
    products of the differences from the set's first point. The Cholesky factor of a set is that of the set
    without its last point and one row more, k^2 operations; and a further point never lessens a scatter.

    Args:
        gram: (n, n) float64, inner products of the points.
        chosen: (k,) int64, ascending; changed.
        seen: whether `chosen` itself is left out.
        limit: branches after which nothing is found.
        lower: (k, k) float64, where the factor is kept.
    """
    last, spare = len(chosen) - 1, len(gram) - len(chosen)
    first, level, branches = chosen[0], 0, 0
    while branches < limit:
        branches += 1
        point = chosen[level]
        if level == 0:
            first = point
        pivot = most * min(level + 1, 2)
        if level > 0:
            pivot -= gram[point, point] - 2 * gram[point, first] + gram[first, first]
        for i in range(level - 1):
            other = chosen[i + 1]
            value = most - (gram[point, other] - gram[point, first] - gram[other, first] + gram[first, first])
            for j in range(i):
                value -= lower[level, j] * lower[i + 1, j]
            lower[level, i] = value / lower[i + 1, i]
            pivot -= lower[level, i] ** 2
        if pivot > 0 and level < last:
            if level > 0:
                lower[level, level - 1] = math.sqrt(pivot)
            level += 1
            continue
        if pivot > 0 and not seen:
            return True, branches
        seen = False
        while level > 0 and chosen[level] == chosen[level - 1] + 1:
            level -= 1
        if chosen[level] == 0:
            return False, branches
        chosen[level] -= 1
        for i in range(level + 1, last + 1):
            chosen[i] = spare + i
    return False, branches
