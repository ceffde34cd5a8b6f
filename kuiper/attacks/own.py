"""What an attacker makes of its own row alone; on a published model it is a Byzantine server's attack."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kuiper.errors import SpecError


def sign_flip(rows_kd: Tensor) -> Tensor:
    """-g of each attacker's own g, (k, d) -> (k, d); the input is not changed."""
    return -rows_kd


def reverse(rows_kd: Tensor, *, c: float = 100.0) -> Tensor:
    """-c g (Garfield's reverse; c = 100 there), (k, d) -> (k, d)."""
    return -c * rows_kd


def random_row(rows_kd: Tensor, *, distribution: str = "uniform", scale: float = 1.0,
               generator: np.random.Generator | None = None) -> Tensor:
    """Noise in place of each row, (k, d) in its dtype.

    Args:
        distribution: `uniform` in [0, scale), or `gaussian` of mean 0 and deviation `scale`.
        generator: None for one that is always the same.

    Raises:
        SpecError: an unknown distribution.
    """
    draws = generator or np.random.default_rng(0)
    if distribution not in ("uniform", "gaussian"):
        raise SpecError(f"random: distribution = {distribution!r}", "choose one of uniform, gaussian")
    draw = draws.random if distribution == "uniform" else draws.standard_normal
    return torch.from_numpy(scale * draw(tuple(rows_kd.shape))).to(rows_kd)


def drop(rows_kd: Tensor, *, p: float = 0.3, generator: np.random.Generator | None = None) -> Tensor:
    """Each row with every coordinate zeroed with probability p, (k, d) -> (k, d).

    Args:
        generator: None for one that is always the same.
    """
    draws = generator or np.random.default_rng(0)
    lost_kd = torch.from_numpy(draws.random(tuple(rows_kd.shape)) < p).to(rows_kd.device)
    return rows_kd.masked_fill(lost_kd, 0)


def nan(rows_kd: Tensor) -> Tensor:
    """NaN in every coordinate."""
    return torch.full_like(rows_kd, math.nan)


def inf(rows_kd: Tensor) -> Tensor:
    """Infinity in every coordinate."""
    return torch.full_like(rows_kd, math.inf)


def zero(rows_kd: Tensor) -> Tensor:
    """Zero in every coordinate."""
    return torch.zeros_like(rows_kd)
