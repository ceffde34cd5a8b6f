"""Sums whose bits depend neither on where the rows were computed nor on how many columns are summed at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_BLOCK = 65_536  # columns whose float64 accumulator stays in the cache


def ordered_sum(rows_md: torch.Tensor, weights: Sequence[float] | None = None,
                chosen: Sequence[int] | None = None) -> torch.Tensor:
    """Weighted sum over rows, one row after the other in float64: (m, d) -> (d,) float64.

    torch.sum regroups its terms by shape; this never does, so that a part of the columns
    gives the same bits as the whole.

    Args:
        weights: of all rows; None for 1 each.
        chosen: indices of the rows to add, in this order; None for all.
    """
    total = torch.zeros(rows_md.shape[1], dtype=torch.float64, device=rows_md.device)
    wide = torch.empty_like(total[:_BLOCK])
    order = range(len(rows_md)) if chosen is None else chosen
    for start in range(0, rows_md.shape[1], _BLOCK):
        part, rows = total[start : start + _BLOCK], rows_md[:, start : start + _BLOCK].unbind()
        term = wide[: len(part)]
        for index in order:
            part.add_(term.copy_(rows[index]), alpha=1.0 if weights is None else weights[index])
    return total


def ordered_mean(rows_md: torch.Tensor, chosen: Sequence[int] | None = None) -> torch.Tensor:
    """Mean over rows, or over the chosen ones, summed as above, in the dtype of the rows."""
    count = len(rows_md) if chosen is None else len(chosen)
    return ordered_sum(rows_md, chosen=chosen).div_(count).to(rows_md.dtype)
