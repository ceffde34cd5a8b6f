"""Adam and AdamW, as torch.optim computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kuiper.optim.base import State


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with an L2 penalty, eps outside the corrected root.

    Args:
        lr: learning rate, multiplied by each step's lr_scale.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: added to the root.
        weight_decay: L2 penalty, added to the gradient (not decoupled).
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def init(self, theta: Tensor) -> State:
        """first and second: zeros like theta; step: int64 per node, () for one theta and (k,) for a block."""
        return {
            "first": torch.zeros_like(theta),
            "second": torch.zeros_like(theta),
            "step": torch.zeros(theta.shape[:-1], dtype=torch.int64, device=theta.device),
        }

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d,) or (k, d); the inputs are not changed, unless `out` is theta."""
        if self.weight_decay:
            gradient = gradient + theta * self.weight_decay
        return self._move(theta, gradient, state, lr_scale, out)

    def _move(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float, out: Tensor | None
    ) -> tuple[Tensor, State]:
        # Multiplied and added apart: see kuiper.optim.sgd on fused operations.
        first = (state["first"] * self.beta1).add_(gradient * (1 - self.beta1))
        second = (state["second"] * self.beta2).add_((gradient * gradient).mul_(1 - self.beta2))
        steps = state["step"] + 1
        size, root = self._corrections(steps, theta, lr_scale)
        denominator = second.sqrt().div_(root).add_(self.eps)
        moved = (first / denominator).mul_(size)
        return torch.sub(theta, moved, out=out), {"first": first, "second": second, "step": steps}

    def _corrections(self, steps: Tensor, theta: Tensor, lr_scale: float) -> tuple[Tensor, Tensor]:
        """Step size and divisor of the root per node, (..., 1) in theta's dtype.

        Powers are Python's, one per node: torch's differ in the last bit between a vectorised (k,)
        and a single (), and a node's bits would depend on the size of its block.
        """
        counts = steps.reshape(-1).tolist()
        sizes = [self.lr * lr_scale / (1 - self.beta1**t) for t in counts]
        roots = [math.sqrt(1 - self.beta2**t) for t in counts]
        both = torch.tensor([sizes, roots], dtype=torch.float64).to(theta.device, theta.dtype)
        size, root = both.reshape(2, *steps.shape, 1)
        return size, root


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2): theta shrinks by
    lr lr_scale weight_decay of itself at each step, and the moments never see it. As torch does, and
    unlike the paper, the decay is multiplied by lr and not by the schedule alone.

    Args:
        weight_decay: share of theta, in units of the learning rate; the others as for Adam.
    """

    weight_decay: float = 0.01

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d,) or (k, d); the inputs are not changed."""
        return self._move(theta * (1 - self.lr * lr_scale * self.weight_decay), gradient, state, lr_scale, out)
