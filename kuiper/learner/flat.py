"""A model as one flat vector: parameters and gradients are views into two buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from kuiper.errors import SpecError

Gradients = list[torch.Tensor]  # by parameter


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of logits (B, classes) at labels (B,)."""
    if torch._C._functorch.is_batchedtensor(logits):  # torch's own takes 2.5 s to import a decomposition
        return -functional.log_softmax(logits, 1).gather(1, labels[:, None]).mean()
    return functional.cross_entropy(logits, labels)


def nll(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of log-probabilities (B, classes) at labels (B,).

    For models that end in log_softmax. For any other it has no lower bound, and training it would
    look like progress; scores are computed before the first step, so the mistake ends a run there.

    Raises:
        SpecError: while scoring, a sample's probabilities do not sum to 1.
    """
    if not torch.is_grad_enabled() and log_probabilities.logsumexp(1).abs().max() > 1e-2:
        raise SpecError("loss: nll takes log-probabilities, and those of this model do not sum to 1",
                        "kuiper's own models output logits: use loss: cross_entropy, which is the same")
    return -log_probabilities.gather(1, labels[:, None]).mean()


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared error of logits (B, classes) against one-hot labels (B,)."""
    return functional.mse_loss(logits, _one_hot(logits, labels))


def bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy of logits (B, classes) against one-hot labels (B,): one against the rest."""
    return (functional.softplus(logits) - logits * _one_hot(logits, labels)).mean()


def _one_hot(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Labels (B,) as ones and zeros like logits (B, classes)."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    return (labels[:, None] == classes).to(logits.dtype)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": cross_entropy, "nll": nll, "mse": mse, "bce": bce}


class FlatModel:
    """A module whose parameters live in one buffer of d float32.

    Attributes:
        theta: (d,) the buffer behind the parameters.
        parts: the parameters as views into it that autograd does not see.
    """

    def __init__(self, module: nn.Module, loss: str, device: torch.device | str = "cpu") -> None:
        self.module = module.to(device).train()
        self.loss = LOSSES[loss]
        parameters = dict(self.module.named_parameters())
        self.theta = torch.empty(sum(p.numel() for p in parameters.values()), device=device)
        self.slices: dict[str, tuple[int, torch.Size]] = {}
        offset = 0
        for name, parameter in parameters.items():
            self.slices[name] = (offset, parameter.shape)
            offset += parameter.numel()
        views = self.unflatten(self.theta)
        self.parts = list(views.values())
        for name, parameter in parameters.items():
            views[name].copy_(parameter.detach())
            parameter.data = views[name]
        self._parameters = list(parameters.values())

    @property
    def size(self) -> int:
        return self.theta.numel()

    def has(self, *kinds: type[nn.Module]) -> bool:
        return any(isinstance(module, kinds) for module in self.module.modules())

    def gradients(self, loss: torch.Tensor) -> Gradients:
        """Of a loss () with respect to `parts`; zeros for a part that it does not depend on.

        New tensors, as autograd makes them: to add them up in a buffer takes a sixth of a small step.
        """
        loss.backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients

    def unflatten(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameters by name, views into theta, (d,) or (k, d)."""
        return {name: _from_flat(theta[..., offset : offset + shape.numel()], shape)
                for name, (offset, shape) in self.slices.items()}


def _from_flat(part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A parameter's view of its part of the buffer, (..., numel).

    Convolutions lie as (out, height, width, in): torch's channels_last, a third faster on CPUs.
    """
    lead = part.shape[:-1]
    if len(shape) != 4:
        return part.view(*lead, *shape)
    out, channels, height, width = shape
    return part.view(*lead, out, height, width, channels).movedim(-1, -3)


def to_flat(parameter: torch.Tensor, lead: int) -> torch.Tensor:
    """The inverse: a parameter whose first `lead` dimensions count nodes -> (*lead, numel)."""
    return (parameter.movedim(lead + 1, -1) if parameter.dim() == lead + 4 else parameter).flatten(lead)
