"""Stochastic gradient descent with momentum, as torch.optim.SGD computes it.

A node's bits must not depend on its place in a block. The last operation, the only one of plain SGD, is a
multiply-add in one pass, which rounds alike in the vectorised part and the tail of a tensor in torch's
builds (a test compares every length of tail); the others are products and sums apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kuiper.errors import SpecError
from kuiper.optim.base import State


@dataclass(frozen=True)
class SGD:
    """theta <- theta - lr g, with g <- g + weight_decay theta and b <- momentum b + (1 - dampening) g.

    The first b is g itself, undamped; Nesterov steps along g + momentum b (Sutskever et al. 2013, in
    torch's form).

    Args:
        lr: learning rate, multiplied by each step's lr_scale.
        momentum: 0 keeps no state.
        nesterov: needs momentum and no dampening.
        dampening: share of the new gradient that is left out of b.
        weight_decay: L2 penalty.

    Raises:
        SpecError: nesterov without momentum, or with dampening.
    """

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise SpecError(
                f"sgd: nesterov with momentum = {self.momentum}, dampening = {self.dampening}",
                "nesterov needs momentum > 0 and dampening = 0",
            )

    def init(self, theta: Tensor) -> State:
        """momentum: zeros like theta; step: int64 per node, only where dampening makes the first differ."""
        state: State = {}
        if self.momentum:
            state["momentum"] = torch.zeros_like(theta)
            if self.dampening:
                state["step"] = torch.zeros(theta.shape[:-1], dtype=torch.int64, device=theta.device)
        return state

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of theta (d,) or (k, d); the inputs are not changed, unless `out` is theta."""
        if self.weight_decay:
            gradient = gradient + theta * self.weight_decay
        new_state: State = {}
        if self.momentum:
            fresh = gradient
            if self.dampening:
                first = (state["step"] == 0).unsqueeze(-1)
                fresh = torch.where(first, gradient, gradient * (1 - self.dampening))
                new_state["step"] = state["step"] + 1
            buffer = (state["momentum"] * self.momentum).add_(fresh)
            new_state["momentum"] = buffer
            gradient = gradient + buffer * self.momentum if self.nesterov else buffer
        if out is theta:  # the same operation, found sooner: a twentieth of a small step
            return theta.sub_(gradient, alpha=self.lr * lr_scale), new_state
        return torch.sub(theta, gradient, alpha=self.lr * lr_scale, out=out), new_state
