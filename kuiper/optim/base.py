"""What every optimiser offers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

State = dict[str, Tensor]


class Optimizer(Protocol):
    """A functional optimiser: nothing is changed in place but `out`, nothing is kept between calls.

    Every state tensor has theta's leading dimension, one entry per node of a block, so a cohort's
    state is `tensor[nodes]`.
    """

    lr: float

    def init(self, theta: Tensor) -> State:
        """State before the first step, for theta (d,) or (k, d)."""
        ...

    def step(
        self, theta: Tensor, gradient: Tensor, state: State, lr_scale: float = 1.0, out: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """New theta and state; the learning rate is lr * lr_scale.

        Args:
            out: where to write the new theta; theta itself is allowed.
        """
        ...
