"""Rows that hold more than parameters: the optimiser moves those, and the rest as it is told."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kuiper.optim.base import Optimizer, State


@dataclass(frozen=True)
class Apart:
    """An optimiser for the first `parameters` coordinates; from the others the gradient itself is subtracted.

    The others are BatchNorm's running statistics, whose "gradient" is old - new: they have no learning
    rate, no momentum and no weight decay.

    Args:
        optimizer: of the parameters.
        parameters: how many there are, d; rows are (d + b,) or (k, d + b).
    """

    optimizer: Optimizer
    parameters: int

    @property
    def lr(self) -> float:
        return self.optimizer.lr

    def init(self, theta: Tensor) -> State:
        """Of the parameters alone."""
        return self.optimizer.init(theta[..., : self.parameters])

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d + b,) or (k, d + b); the inputs are not changed, unless `out` is theta."""
        out = torch.empty_like(theta) if out is None else out
        (here, rest), (along, change), (to, there) = (
            each.tensor_split((self.parameters,), dim=-1) for each in (theta, gradient, out))
        _, state = self.optimizer.step(here, along, state, lr_scale, out=to)
        torch.sub(rest, change, out=there)
        return out, state
