"""Honest computation on false data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def label_flip(labels: Tensor, classes: int) -> Tensor:
    """Label y becomes classes - 1 - y; any shape, integer dtype; the input is not changed."""
    return classes - 1 - labels


def corrupt_inputs(inputs_kb: Tensor, *, scale: float = -1e12,
                   generator: np.random.Generator | None = None) -> Tensor:
    """Inputs times `scale`, in an order of their own: labels stay (AggregaThor's corrupted data).

    Args:
        inputs_kb: (k, b, ...), b samples of each of k nodes; not changed.
        generator: of the order; None for one that is always the same.
    """
    draws = generator or np.random.default_rng(0)
    orders = torch.from_numpy(np.stack([draws.permutation(inputs_kb.shape[1]) for _ in inputs_kb]))
    return torch.stack([x[order.to(x.device)] for x, order in zip(inputs_kb, orders, strict=True)]) * scale
