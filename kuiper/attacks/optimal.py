"""Attackers that know the rule, and search for the factor that moves its result farthest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kuiper.attacks._moments import deviation, mean
from kuiper.errors import JobFailed

if TYPE_CHECKING:
    from kuiper.aggregation import Rule

_GRID, _BEND, _GAIN = 0.6, 4.0, 1.01


def optimal_ipm(honest_hd: Tensor, count: int, *, rule: Rule, limit: float = 10.0,
                evaluations: int = 256) -> Tensor:
    """-eps mu with the eps in -limit..limit that maximises ||rule(honest rows and attackers) - mu||.

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        rule: what the receiver will apply; only a copy of its state is touched.
        limit: of |eps|.
        evaluations: of the rule, at most. Where a rule selects, its result jumps as the factor grows, and a
            peak can be narrower than a hundredth of the range: 64 evaluations miss one in twenty, 256 one in
            a hundred (mostly of bulyan, caf and dnc).

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no honest row.
    """
    mean_d = mean(honest_hd)
    return _best(honest_hd, count, rule, limit, evaluations, mean_d, mean_d, lambda eps: -eps * mean_d)


def optimal_alie(honest_hd: Tensor, count: int, *, rule: Rule, limit: float = 10.0,
                 evaluations: int = 256) -> Tensor:
    """mu - z sigma with the z in -limit..limit that maximises ||rule(honest rows and attackers) - mu||.

    Args, Returns, Raises: as `optimal_ipm`.
    """
    mean_d = mean(honest_hd)
    sigma_d = deviation(honest_hd, mean_d)
    return _best(honest_hd, count, rule, limit, evaluations, mean_d, sigma_d, lambda z: mean_d - z * sigma_d)


def _best(honest_hd: Tensor, count: int, rule: Rule, limit: float, evaluations: int, mean_d: Tensor,
          along_d: Tensor, row: Callable[[float], Tensor]) -> Tensor:
    if count == 0:
        return honest_hd.new_empty((0, honest_hd.shape[1]))
    rows_nd = torch.cat([honest_hd, honest_hd.new_empty((count, honest_hd.shape[1]))])

    def moved(factor: float) -> float:
        rows_nd[len(honest_hd) :] = row(factor)
        try:
            result_d = rule.copy()(rows_nd)
        except JobFailed:  # a factor that the rule refuses is no attack
            return -math.inf
        return float((result_d - mean_d).norm())

    factor = maximum(moved, limit, evaluations, float(along_d.norm()))
    return row(factor).to(honest_hd.dtype).expand(count, -1)


def maximum(value: Callable[[float], float], limit: float, evaluations: int, steepest: float) -> float:
    """Where a function of -limit..limit is largest, as far as so many evaluations tell.

    A rule's result follows the attackers for as long as it accepts them, then lets go: the highest point is
    at the edge of a cliff. A grid, finest around 0, takes most evaluations; then the interval is halved
    in which the slope beside it, carried on, would lead highest, or the widest where none leads higher.

    Args:
        steepest: slopes above it are jumps, and not carried on.
    """
    half = max(1, int(_GRID * evaluations) // 2)
    sizes = [limit * math.sinh(_BEND * k / half) / math.sinh(_BEND) for k in range(1, half + 1)]
    at = [-size for size in reversed(sizes)] + [0.0, *sizes]
    values = [value(factor) for factor in at]

    def slope(to: int, beside: int) -> float:
        if not 0 <= beside < len(at) or not math.isfinite(values[to] - values[beside]):
            return 0.0
        return min(max((values[to] - values[beside]) / abs(at[to] - at[beside]), 0.0), steepest)

    def promise(left: int) -> float:
        width = at[left + 1] - at[left]
        return max(values[left] + slope(left, left - 1) * width,
                   values[left + 1] + slope(left + 1, left + 2) * width)

    def coarseness(left: int) -> float:
        return (at[left + 1] - at[left]) / (limit / 10 + abs(at[left] + at[left + 1]))

    promises = [promise(left) for left in range(len(at) - 1)]
    while len(at) < evaluations:
        left = max(range(len(promises)), key=promises.__getitem__)
        if promises[left] <= _GAIN * max(values):
            left = max(range(len(promises)), key=coarseness)
        middle = (at[left] + at[left + 1]) / 2
        at.insert(left + 1, middle)
        values.insert(left + 1, value(middle))
        promises.insert(left, 0.0)
        for near in range(max(left - 1, 0), min(left + 3, len(promises))):
            promises[near] = promise(near)
    return at[max(range(len(at)), key=values.__getitem__)]
