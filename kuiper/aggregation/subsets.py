"""Rules that look for the best n - f rows of all: MDA, MVA and SMEA, by branch and bound in n-space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kuiper.aggregation.cloud import Cloud, Weights, in_n_space, majority
from kuiper.errors import JobFailed, SpecError

SEARCHES = ("exact", "nearest")
LIMIT, NARROW_LIMIT = 200_000, 20_000_000
"""Branches that a search takes before it gives up, ten seconds or so: of MDA and MVA, and of SMEA."""
TIED = 1e-12
"""Measures that differ by a smaller part are equal."""
ROUNDING = 1e-10
"""More than what rounding makes of a Cholesky factor: what it lets pass is measured."""


@in_n_space
def mda(cloud: Cloud, f: int, *, search: str = "exact", limit: int = LIMIT) -> Weights:
    """Minimum-diameter average (El Mhamdi et al. 2020, "Genuinely distributed"): mean of the n - f rows whose
    largest distance is smallest. Garfield calls it brute.

    Whether n - f rows lie within a distance of each other is a vertex cover of at most f rows among the
    pairs that are farther apart; the smallest such distance is found by bisection. Equal diameters: the
    first rows, compared as sorted lists.

    Args:
        cloud: rows (n, d), any float dtype.
        f: rows to drop, 2f < n.
        search: `exact`, or `nearest`: the best of the n sets that are a row and its n - f - 1 nearest,
            whose diameter is at most twice the smallest.
        limit: branches that an exact search may take.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far, or the exact search passes its limit.

    Laws: permutation, translation, scale, orthogonal (where the best set is unique), identical rows, hull.
    """
    majority("mda", len(cloud), f)
    squared, kept = cloud.squared_mm, len(cloud) - f

    def diameter(chosen: np.ndarray) -> float:
        return float(squared[np.ix_(chosen, chosen)].max())

    if not _exact("mda", search):
        return _of(_neighbourhood(cloud, kept, diameter), len(cloud))
    budget = _Budget("mda", len(cloud), f, limit)
    levels = np.unique(squared)
    low, high = 0, int(np.searchsorted(levels, diameter(_neighbourhood(cloud, kept, diameter))))
    while low < high:
        middle = (low + high) // 2
        apart = squared > levels[middle]
        if _covered(apart, apart.sum(0), f, budget):
            high = middle
        else:
            low = middle + 1
    return _first_subset(squared > levels[high], f, budget)


def _covered(apart: np.ndarray, degree: np.ndarray, f: int, budget: _Budget) -> bool:
    """Whether dropping at most f of the vertices of degree 0 or more leaves no edge; see `search.covered`."""
    from kuiper.aggregation.kernels.search import covered

    left = np.array([budget.left])
    found = covered(apart, degree, f, left)
    budget.spend(budget.left - int(left[0]))
    return found


def _first_subset(apart: np.ndarray, f: int, budget: _Budget) -> Weights:
    """The first n - f vertices, as a sorted list, of which no two are apart."""
    from kuiper.aggregation.kernels.search import drop

    kept, left, degree = [], f, apart.sum(0)
    for vertex in range(len(apart)):
        if degree[vertex] < 0:
            continue
        others = np.flatnonzero(apart[vertex] & (degree >= 0))
        without = degree.copy()
        for other in others:
            drop(apart, without, other)
        if len(others) <= left and _covered(apart, without.copy(), left - len(others), budget):
            kept.append(vertex)
            degree, left = without, left - len(others)
        else:
            drop(apart, degree, vertex)
            left -= 1
    return _of(kept[: len(apart) - f], len(apart))


@in_n_space
def mva(cloud: Cloud, f: int, *, search: str = "exact", limit: int = LIMIT) -> Weights:
    """Minimum-variance average: mean of the n - f rows whose variance is smallest (Yi et al. 2024:
    1-mean clustering with outliers).

    Args, Returns, Raises, Laws: as `mda`.
    """
    majority("mva", len(cloud), f)
    n, kept, squared = len(cloud), len(cloud) - f, cloud.squared_mm

    def variance(chosen: Sequence[int] | np.ndarray) -> float:
        return float(squared[np.ix_(chosen, chosen)].sum())

    def least(chosen: list[int], others: np.ndarray, missing: int) -> float:
        """Each vector to come is at least that far from those that are chosen, and from others to come."""
        to_chosen = np.sort(squared[np.ix_(others, chosen)].sum(1))[:missing].sum()
        to_others = np.sort(squared[np.ix_(others, others)], axis=1)[:, :missing].sum(1)
        return variance(chosen) + 2 * to_chosen + float(np.sort(to_others)[:missing].sum())

    best = _improved(_neighbourhood(cloud, kept, variance), n, variance)
    if not _exact("mva", search):
        return _of(best, n)
    smallest, budget, remote = variance(best), _Budget("mva", n, f, limit), _remote(cloud, kept)

    def look(place: int, chosen: list[int], dropped: int) -> None:
        nonlocal best, smallest
        budget.spend()
        missing = kept - len(chosen)
        size = 0.0
        if chosen:
            size = least(chosen, remote[place:], missing) if missing else variance(chosen)
        if not size < smallest * (1 - TIED):
            return
        if not missing:
            best, smallest = np.array(chosen), size
            return
        if dropped < f:
            look(place + 1, chosen, dropped + 1)
        look(place + 1, [*chosen, int(remote[place])], dropped)

    look(0, [], 0)
    return _of(best, n)


@in_n_space
def smea(cloud: Cloud, f: int, *, search: str = "exact", limit: int = NARROW_LIMIT) -> Weights:
    """Smallest maximum eigenvalue average: mean of the n - f rows whose covariance has the smallest top
    eigenvalue (Allouah et al. 2023, "Privacy-robustness-utility trilemma").

    Args, Returns, Raises, Laws: as `mda`; but 2 to 20 million branches take a second.
    """
    majority("smea", len(cloud), f)
    n, kept, gram, far = len(cloud), len(cloud) - f, cloud.gram_mm, cloud.far

    def top(chosen: np.ndarray) -> float:
        return math.inf if far[chosen].any() else top_eigenvalue(gram[np.ix_(chosen, chosen)])

    best = _improved(_neighbourhood(cloud, kept, top), n, top)
    if not _exact("smea", search):
        return _of(best, n)
    from kuiper.aggregation.kernels.search import narrow

    smallest, budget = top(best), _Budget("smea", n, f, limit)
    order = _remote(cloud, kept)[int(far.sum()) :]
    ordered, lower = gram[np.ix_(order, order)], np.zeros((kept, kept))
    places, seen, found = np.arange(len(order) - kept, len(order)), False, True
    while found:
        found, branches = narrow(ordered, smallest * (1 + ROUNDING), places, seen, budget.left + 1, lower)
        budget.spend(branches)
        if found and (size := top(order[places])) < smallest * (1 - TIED):
            best, smallest = order[places], size
        seen = True
    return _of(best, n)


def top_eigenvalue(gram: np.ndarray) -> float:
    """Of the scatter of some points about their mean, from their inner products."""
    mean = gram.mean(0)
    return float(np.linalg.eigvalsh(gram - mean - mean[:, None] + mean.mean())[-1])


def _remote(cloud: Cloud, kept: int) -> np.ndarray:
    """All vectors, the most remote first: a set with one of them is then seen to be too large while it is
    small."""
    return np.argsort(-np.sort(cloud.squared_mm, axis=1)[:, :kept].sum(1), kind="stable")


def _neighbourhood(cloud: Cloud, kept: int, measure: Callable[[np.ndarray], float]) -> np.ndarray:
    """Of the n sets of a vector and its nearest, the one of smallest measure."""
    sets = np.argsort(cloud.squared_mm, axis=1, kind="stable")[cloud.near][:, :kept]
    return min((np.sort(one) for one in sets), key=measure)


def _improved(chosen: np.ndarray, n: int, measure: Callable[[np.ndarray], float]) -> np.ndarray:
    """The set after exchanges of one vector, for as long as one makes it better."""
    smallest, better = measure(chosen), True
    while better:
        better = False
        for out in chosen:
            for into in np.setdiff1d(np.arange(n), chosen):
                other = np.sort(np.append(chosen[chosen != out], into))
                size = measure(other)
                if size < smallest * (1 - TIED):
                    chosen, smallest, better = other, size, True
                    break
            if better:
                break
    return chosen


def _of(chosen: Sequence[int] | np.ndarray, n: int) -> Weights:
    weights = np.zeros(n)
    weights[chosen] = 1
    return weights


def _exact(rule: str, search: str) -> bool:
    if search not in SEARCHES:
        raise SpecError(f"{rule}: search = {search!r}", f"choose one of {', '.join(SEARCHES)}")
    return search == "exact"


class _Budget:
    """Branches that a search may still take."""

    def __init__(self, rule: str, n: int, f: int, limit: int) -> None:
        self.rule, self.n, self.f, self.limit = rule, n, f, limit
        self.left = limit

    def spend(self, branches: int = 1) -> None:
        """Raises JobFailed where nothing is left."""
        self.left -= branches
        if self.left < 0:
            raise JobFailed(
                f"{self.rule}: no best set among the {math.comb(self.n, self.f):,} of n - f = "
                f"{self.n - self.f} rows (n = {self.n}, f = {self.f}) after {self.limit:,} branches",
                f"write `{self.rule}: {{search: nearest}}` for a good set at once, or raise `limit`",
            )
