"""Branch and bound, compiled: MDA's vertex covers, and SMEA's sets, given up once their scatter is too large."""

from __future__ import annotations

import math

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def covered(apart, degree, most, left):  # noqa: ANN001, ANN201 - Numba infers them
    """Whether dropping at most `most` vertices leaves no edge.

    Args:
        apart: (n, n) bool, symmetric: the edges, also those of vertices that were dropped.
        degree: (n,) int64, edges to vertices that were not dropped, -1 for those that were; changed.
        left: (1,) int64, branches that may be taken; below 0 when they were not enough (and False means nothing).
    """
    left[0] -= 1
    if left[0] < 0:
        return False
    vertex, edges = 0, 0
    for i in range(len(degree)):
        edges += max(degree[i], 0)
        if degree[i] > degree[vertex]:
            vertex = i
    if degree[vertex] <= 0:
        return True
    if most == 0 or edges > 2 * most * degree[vertex]:
        return False
    if degree[vertex] <= most:
        without = degree.copy()
        for i in range(len(degree)):
            if apart[vertex, i] and degree[i] >= 0:
                drop(apart, without, i)
        if covered(apart, without, most - degree[vertex], left):
            return True
    drop(apart, degree, vertex)
    return covered(apart, degree, most - 1, left)


@njit(nogil=True, cache=True, error_model="numpy")
def drop(apart, degree, vertex):  # noqa: ANN001, ANN201
    """Take a vertex out of `degree`."""
    degree[vertex] = -1
    for i in range(len(degree)):
        if apart[vertex, i] and degree[i] >= 0:
            degree[i] -= 1


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
