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

_SHRINK = (math.sqrt(5) - 1) / 2
_RATIO, _STEPS = 0.75, 8


def optimal_ipm(honest_hd: Tensor, count: int, *, rule: Rule, limit: float = 10.0,
                evaluations: int = 64) -> Tensor:
    """-eps mu with the eps in -limit..limit that maximises ||rule(honest rows and attackers) - mu||.

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        rule: what the receiver will apply; only a copy of its state is touched.
        limit: of |eps|.
        evaluations: of the rule, at most.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no honest row.
    """
    mean_d = mean(honest_hd)
    return _best(honest_hd, count, rule, limit, evaluations, mean_d, lambda eps: -eps * mean_d)


def optimal_alie(honest_hd: Tensor, count: int, *, rule: Rule, limit: float = 10.0,
                 evaluations: int = 64) -> Tensor:
    """mu - z sigma with the z in -limit..limit that maximises ||rule(honest rows and attackers) - mu||.

    Args, Returns, Raises: as `optimal_ipm`.
    """
    mean_d = mean(honest_hd)
    sigma_d = deviation(honest_hd, mean_d)
    return _best(honest_hd, count, rule, limit, evaluations, mean_d, lambda z: mean_d - z * sigma_d)


def _best(honest_hd: Tensor, count: int, rule: Rule, limit: float, evaluations: int, mean_d: Tensor,
          row: Callable[[float], Tensor]) -> Tensor:
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

    factor = maximum(moved, limit, evaluations)
    return row(factor).to(honest_hd.dtype).expand(count, -1)


def maximum(value: Callable[[float], float], limit: float, evaluations: int) -> float:
    """Where a function of -limit..limit is largest, as far as so many evaluations tell.

    Many rules accept a small push wholly and a large one not at all: the grid is geometric, and golden
    section between a peak's neighbours comes to lie on the high side of a cliff. Two thirds of the
    evaluations go into the grid, the others into its highest peaks.
    """
    seen: dict[float, float] = {}

    def at(factor: float) -> float:
        seen[factor] = value(factor)
        return seen[factor]

    each_side = max(1, evaluations // 3)
    sizes = [limit * _RATIO**k for k in range(each_side)]
    grid = [-size for size in sizes] + [0.0] + sizes[::-1]
    values = [at(factor) if factor else -math.inf for factor in grid]
    fences = [-math.inf, *values, -math.inf]
    peaks = [place for place in range(len(grid)) if values[place] >= max(fences[place], fences[place + 2])]
    peaks.sort(key=values.__getitem__, reverse=True)
    left = evaluations - 2 * each_side
    for place in peaks[: max(1, left // _STEPS)]:
        around = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
        _golden(at, *around, min(left, _STEPS))
    return max(seen, key=seen.__getitem__)


def _golden(value: Callable[[float], float], low: float, high: float, evaluations: int) -> None:
    left, right = high - _SHRINK * (high - low), low + _SHRINK * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(evaluations - 2):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _SHRINK * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _SHRINK * (high - low)
            at_right = value(right)
