"""Adagrad, as torch.optim.Adagrad computes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kuiper.optim.base import State


@dataclass(frozen=True)
class Adagrad:
    """s <- s + g^2, theta <- theta - lr g / (sqrt(s) + eps) (Duchi, Hazan & Singer 2011, diagonal form).

    Args:
        lr: learning rate, multiplied by each step's lr_scale.
        eps: added to the root.
        initial: value of s before the first step.
        weight_decay: L2 penalty, added to the gradient.
    """

    lr: float = 0.01
    eps: float = 1e-10
    initial: float = 0.0
    weight_decay: float = 0.0

    def init(self, theta: Tensor) -> State:
        """sum: like theta, full of `initial`."""
        return {"sum": torch.full_like(theta, self.initial)}

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d,) or (k, d); the inputs are not changed."""
        if self.weight_decay:
            gradient = gradient + theta * self.weight_decay
        total = state["sum"] + gradient * gradient
        move = (gradient / total.sqrt().add_(self.eps)).mul_(self.lr * lr_scale)
        return torch.sub(theta, move, out=out), {"sum": total}
