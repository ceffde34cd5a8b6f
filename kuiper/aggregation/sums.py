"""Sums whose bits do not depend on where the rows were computed."""

from __future__ import annotations

import torch

_BLOCK = 65_536  # columns whose float64 accumulator stays in the cache


def ordered_sum(rows_md: torch.Tensor, weights: list[float] | None = None) -> torch.Tensor:
    """Weighted sum over rows, one row after the other in float64: (m, d) -> (d,) float64.

    torch.sum regroups its terms by shape; this never does, so that a part of the columns
    gives the same bits as the whole.
    """
    total = torch.zeros(rows_md.shape[1], dtype=torch.float64, device=rows_md.device)
    wide = torch.empty_like(total[:_BLOCK])
    for start in range(0, rows_md.shape[1], _BLOCK):
        part = total[start : start + _BLOCK]
        term = wide[: len(part)]
        for index, row in enumerate(rows_md[:, start : start + _BLOCK]):
            part.add_(term.copy_(row), alpha=1.0 if weights is None else weights[index])
    return total


def ordered_mean(rows_md: torch.Tensor) -> torch.Tensor:
    """Mean over rows, summed as above, in the dtype of the rows."""
    return ordered_sum(rows_md).div_(len(rows_md)).to(rows_md.dtype)
