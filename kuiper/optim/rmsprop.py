"""RMSprop, as torch.optim.RMSprop computes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kuiper.optim.base import State


@dataclass(frozen=True)
class RMSprop:
    """s <- alpha s + (1 - alpha) g^2, b <- momentum b + g / (sqrt(s) + eps), theta <- theta - lr b.

    Hinton's lecture 6e (2012); momentum and the centred form, with sqrt(s - m^2) for m the running
    mean of g, are those of Graves (2013), eps outside the root.

    Args:
        lr: learning rate, multiplied by each step's lr_scale.
        alpha: decay of the running mean square.
        eps: added to the root.
        momentum: 0 keeps no b.
        centered: divide by the running deviation of the gradient.
        weight_decay: L2 penalty, added to the gradient.
    """

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0

    def init(self, theta: Tensor) -> State:
        """square, and mean and momentum where they are used: zeros like theta."""
        used = {"square": True, "mean": self.centered, "momentum": self.momentum > 0}
        return {name: torch.zeros_like(theta) for name, wanted in used.items() if wanted}

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d,) or (k, d); the inputs are not changed."""
        if self.weight_decay:
            gradient = gradient + theta * self.weight_decay
        # Multiplied and added apart: see kuiper.optim.sgd on fused operations.
        square = (state["square"] * self.alpha).add_((gradient * gradient).mul_(1 - self.alpha))
        new_state, spread = {"square": square}, square
        if self.centered:
            mean = (state["mean"] * self.alpha).add_(gradient * (1 - self.alpha))
            new_state["mean"] = mean
            # A constant gradient leaves no spread, and rounding may leave less than none.
            spread = (square - mean * mean).clamp_(min=0)
        move = gradient / spread.sqrt().add_(self.eps)
        if self.momentum:
            move = (state["momentum"] * self.momentum).add_(move)
            new_state["momentum"] = move
        return torch.sub(theta, move * (self.lr * lr_scale), out=out), new_state
