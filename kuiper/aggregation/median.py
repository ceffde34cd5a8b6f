"""The coordinate-wise median."""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation._order import ordered
from kuiper.errors import SpecError

CONVENTIONS = ("midpoint", "lower", "upper")


def median(rows_nd: Tensor, f: int, *, convention: str = "midpoint") -> Tensor:
    """Median of every coordinate (Yin et al. 2018, definition 1).

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
    n, d = rows_nd.shape
    require("median", n, f, factor=2, plus=1)
    if convention not in CONVENTIONS:
        raise SpecError(f"median: convention = {convention!r}", f"choose one of {', '.join(CONVENTIONS)}")
    lowest = n // 2 if convention == "upper" else (n - 1) // 2
    highest = (n - 1) // 2 if convention == "lower" else n // 2
    result = torch.empty(d, dtype=rows_nd.dtype, device=rows_nd.device)
    for columns, values in ordered(rows_nd, lowest, highest, infinitely_far("median", rows_nd, f)):
        # Halves in float64: the sum of two large values of the input's own dtype could overflow.
        result[columns] = values[0] if len(values) == 1 else values[0].double() / 2 + values[1].double() / 2
    return result
