"""A model as one flat vector: parameters and gradients are views into two buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of logits (B, classes) at labels (B,).

    Written with gather: under vmap, torch's own takes 2.5 s to import a decomposition.
    """
    return -functional.log_softmax(logits, 1).gather(1, labels[:, None]).mean()


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared error of logits (B, classes) against one-hot labels (B,)."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    return functional.mse_loss(logits, (labels[:, None] == classes).to(logits.dtype))


LOSSES: dict[str, Callable[..., torch.Tensor]] = {"cross_entropy": cross_entropy, "mse": mse}


class FlatModel:
    """A module whose parameters live in one buffer of d float32.

    Attributes:
        theta: (d,) the buffer behind the parameters.
        gradient: (d,) the buffer behind their `.grad`.
    """

    def __init__(self, module: nn.Module, loss: str, device: torch.device | str = "cpu") -> None:
        self.module = module.to(device).train()
        self.loss = LOSSES[loss]
        parameters = list(self.module.parameters())
        self.theta = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.theta)
        self.slices: dict[str, tuple[int, torch.Size]] = {}
        offset = 0
        for name, parameter in self.module.named_parameters():
            size, shape = parameter.numel(), parameter.shape
            self.slices[name] = (offset, shape)
            parameter.data = self.theta[offset : offset + size].view(shape)
            parameter.grad = self.gradient[offset : offset + size].view(shape)
            offset += size

    @property
    def size(self) -> int:
        return self.theta.numel()

    def has(self, *kinds: type[nn.Module]) -> bool:
        return any(isinstance(module, kinds) for module in self.module.modules())

    def unflatten(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameters by name, views into theta, (d,) or (k, d)."""
        lead = theta.shape[:-1]
        return {name: theta[..., offset : offset + shape.numel()].view(*lead, *shape)
                for name, (offset, shape) in self.slices.items()}
