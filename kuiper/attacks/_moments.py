"""Mean and standard deviation of the honest rows, bit-reproducible.

Dimension letters: h honest rows, d parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.errors import JobFailed


def mean(honest_hd: Tensor) -> Tensor:
    """Mean of the rows, (d,) float64, added in node order.

    Raises:
        JobFailed: there is no honest row.
    """
    if not len(honest_hd):
        raise JobFailed(
            "an omniscient attack found no honest row in the gather",
            "raise the quorum or lower num_byzantine: some honest rows must be among those gathered",
        )
    total_d = torch.zeros(honest_hd.shape[1], dtype=torch.float64, device=honest_hd.device)
    for row_d in honest_hd:
        total_d += row_d
    return total_d / len(honest_hd)


def deviation(honest_hd: Tensor, mean_d: Tensor) -> Tensor:
    """Standard deviation about the mean with ddof 1, (d,) float64; zero for one row."""
    total_d = torch.zeros_like(mean_d)
    for row_d in honest_hd:
        total_d += (row_d - mean_d).square_()
    return (total_d / max(len(honest_hd) - 1, 1)).sqrt_()
