"""Columns in blocks that stay in cache, so that a rule's temporaries stay small.

Dimension letters: n rows, d parameters, w columns of one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

WIDTH = 16384


def blocks(d: int) -> Iterator[slice]:
    """Slices of at most WIDTH columns that cover 0..d-1 in order."""
    return (slice(start, min(start + WIDTH, d)) for start in range(0, d, WIDTH))


def mean_in_order(rows_nd: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
    """Mean of the chosen rows (all by default), (d,), in the rows' dtype.

    Added in float64 one row after the other in the order given, so that the bits depend neither on
    the layout of the input nor on the number of threads.
    """
    n, d = rows_nd.shape
    order = range(n) if chosen is None else chosen
    mean = torch.empty(d, dtype=rows_nd.dtype, device=rows_nd.device)
    for columns in blocks(d):
        block_nw = rows_nd[:, columns]
        total_w = torch.zeros(block_nw.shape[1], dtype=torch.float64, device=rows_nd.device)
        for i in order:
            total_w += block_nw[i]
        mean[columns] = total_w / len(order)
    return mean
