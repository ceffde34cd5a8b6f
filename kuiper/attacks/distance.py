"""Attackers as far from the honest mean as honest rows are from each other (Shejwalkar & Houmansadr 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kuiper.attacks._moments import deviation, mean
from kuiper.errors import SpecError

DIRECTIONS = ("std", "unit", "sign")


def min_max(honest_hd: Tensor, count: int, *, direction: str = "std") -> Tensor:
    """mu - gamma p with the largest gamma for which no honest row is farther from it than two are from each
    other (section IV-B; by the quadratic equation, not by bisection).

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        direction: p: `std`, the deviation per coordinate; `unit`, mu / ||mu||; `sign`, the sign of mu.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no honest row.
        SpecError: an unknown direction.
    """
    return _pushed(honest_hd, count, direction, lambda squared, b_h, a_h, c: min(
        _root(c, float(b), float(a) - float(squared.max())) for a, b in zip(a_h, b_h, strict=True)))


def min_sum(honest_hd: Tensor, count: int, *, direction: str = "std") -> Tensor:
    """mu - gamma p with the largest gamma for which its squared distances to the honest rows sum to no more
    than an honest row's do (section IV-C).

    Args, Returns, Raises: as `min_max`.
    """
    return _pushed(honest_hd, count, direction, lambda squared, b_h, a_h, c: _root(
        c * len(a_h), float(b_h.sum()), float(a_h.sum()) - float(squared.sum(1).max())))


def _pushed(honest_hd: Tensor, count: int, direction: str, largest) -> Tensor:  # noqa: ANN001
    mean_d = mean(honest_hd)
    if direction not in DIRECTIONS:
        raise SpecError(f"direction = {direction!r}", f"choose one of {', '.join(DIRECTIONS)}")
    if direction == "std":
        along_d = deviation(honest_hd, mean_d)
    else:
        along_d = mean_d.sign() if direction == "sign" else mean_d / mean_d.norm().clamp_min(1e-300)
    # ||mu - gamma p - x_i||^2 = a_i - 2 gamma b_i + gamma^2 c
    away = [mean_d - row_d for row_d in honest_hd]
    a_h = torch.stack([one.square().sum() for one in away])
    b_h = torch.stack([one @ along_d for one in away])
    c = float(along_d.square().sum())
    squared = torch.stack([torch.stack([(one - other).square().sum() for other in away]) for one in away])
    gamma = largest(squared, b_h, a_h, c) if c > 0 else 0.0
    return (mean_d - gamma * along_d).to(honest_hd.dtype).expand(count, -1)


def _root(c: float, b: float, excess: float) -> float:
    """The largest gamma with c gamma^2 - 2 b gamma + excess <= 0, where 0 is one."""
    return (b + math.sqrt(max(b * b - c * excess, 0.0))) / c
