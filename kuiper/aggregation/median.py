"""The coordinate-wise median, and the means of what is near it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation._order import statistic
from kuiper.aggregation.cloud import by_coordinate
from kuiper.errors import SpecError

CONVENTIONS = ("midpoint", "lower", "upper")


@by_coordinate
def median(rows_nd: Tensor, f: int, *, convention: str = "midpoint") -> Tensor:
    """Median of every coordinate (Yin et al. 2018).

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows are ordered last in every coordinate.
        f: declared Byzantine rows, 2f < n; it only sets how many non-finite rows are accepted.
        convention: of the two middle values of an even n, their `midpoint`, the `lower` (what
            torch.median gives) or the `upper`.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are non-finite.
        SpecError: an unknown convention.

    Laws: permutation, translation, scale (midpoint: of either sign), identical rows, hull;
    (f, kappa)-robust with kappa = 4 (1 + f / (n - 2f))^2 (Allouah et al. 2023).
    """
    n = len(rows_nd)
    require("median", n, f, factor=2, plus=1)
    if convention not in CONVENTIONS:
        raise SpecError(f"median: convention = {convention!r}", f"choose one of {', '.join(CONVENTIONS)}")
    low = n // 2 if convention == "upper" else (n - 1) // 2
    high = (n - 1) // 2 if convention == "lower" else n // 2
    return statistic("median", "median", rows_nd, f, low=low, high=high)


@by_coordinate
def meamed(rows_nd: Tensor, f: int) -> Tensor:
    """In every coordinate the mean of the n - f values nearest the median (Xie et al. 2018, "Generalized").

    AggregaThor calls it averaged-median, and takes the upper of two middle values for the median. Of two
    values equally near, the lower: then the order of rows changes nothing.

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows are ordered last in every coordinate.
        f: values to leave out, 2f < n.

    Returns:
        (d,), the input's dtype and device; the mean is taken in float64, in ascending order.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are non-finite.

    Laws: permutation, translation, scale, identical rows, hull.
    """
    require("meamed", len(rows_nd), f, factor=2, plus=1)
    return statistic("meamed", "meamed", rows_nd, f)


@by_coordinate
def condense(rows_nd: Tensor, f: int, *, p: float = 0.9,
             generator: np.random.Generator | None = None) -> Tensor:
    """Per coordinate the median with probability p, else the first row's value (Garfield's condense).

    Row 0 is taken on trust: a Byzantine one decides 1 - p of the coordinates.

    Args:
        rows_nd: (n, d), any float dtype. The first finite row stands for row 0 where that is not finite.
        f: n >= 2f + 2.
        p: probability of the median.
        generator: of the coordinates; None for one that is always the same.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: n < 2f + 2.
        JobFailed: more than f rows are non-finite.
        SpecError: p is not within 0..1.

    Laws: translation, scale, identical rows, hull; permutation where row 0 stays.
    """
    require("condense", len(rows_nd), f, factor=2, plus=2)
    if not 0 <= p <= 1:
        raise SpecError(f"condense: p = {p} is not within 0..1", "give a probability")
    first = 0
    if not rows_nd[0].isfinite().all():
        far = infinitely_far("condense", rows_nd, f)
        first = next(i for i in range(len(rows_nd)) if i not in far)
    generator = generator or np.random.default_rng(0)
    taken_d = torch.from_numpy(generator.random(rows_nd.shape[1]) < p).to(rows_nd.device)
    return torch.where(taken_d, statistic("condense", "median", rows_nd, f), rows_nd[first])
