"""A model as one flat vector: parameters and gradients are views into two buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call

from kuiper.errors import SpecError
from kuiper.learner.losses import LOSSES, VMAPPED

Gradients = list[torch.Tensor]  # by parameter


class FlatModel:
    """A module whose parameters live in one buffer of float32.

    Args:
        module: what produces logits; it is changed, and trained in place.
        loss: a name of `LOSSES`.
        buffers: whether the running means and variances of BatchNorm lie behind the parameters, so that
            they travel in every row. Without, they are nobody's, and re-estimated at evaluation.
        precision: of the forward and the backward pass, float32 or bfloat16 (torch.autocast); parameters,
            gradients, statistics and the loss are float32 in both.

    Attributes:
        theta: (size,) d parameters, then b statistics (b = 0 without BatchNorm or `buffers`).
        parts: the parameters as views into it that autograd does not see.
        parameters: d.
        statistics: BatchNorm's running means and variances by name, whether they lie in theta or not.

    Raises:
        SpecError: `buffers`, and a BatchNorm layer averages over all batches that it ever saw.
    """

    def __init__(self, module: nn.Module, loss: str, device: torch.device | str = "cpu", *,
                 buffers: bool = False, precision: torch.dtype = torch.float32) -> None:
        self.module = module.to(device).train()
        self.loss, self.vmapped_loss = LOSSES[loss], VMAPPED[loss]
        self.precision = precision
        parameters = dict(self.module.named_parameters())
        self.statistics = _statistics(self.module, buffers)
        self.parameters = sum(p.numel() for p in parameters.values())
        self.slices: dict[str, tuple[int, torch.Size]] = {}
        offset = 0
        for name, tensor in (parameters | self.statistics if buffers else parameters).items():
            self.slices[name] = (offset, tensor.shape)
            offset += tensor.numel()
        self.theta = torch.empty(offset, device=device)
        views = self.unflatten(self.theta)
        for name, view in views.items():
            tensor = parameters[name] if name in parameters else self.statistics[name]
            view.copy_(tensor.detach())
            tensor.data = view  # not the view itself: autograd counts the writes to each of them apart
        self.parts = [views[name] for name in parameters]
        self._parameters = list(parameters.values())

    @property
    def size(self) -> int:
        """d + b, the width of a row."""
        return self.theta.numel()

    @property
    def keeps_statistics(self) -> bool:
        """Whether rows hold statistics: b > 0."""
        return self.size > self.parameters

    def train_mode(self) -> None:
        """Evaluation leaves the module in the other one."""
        if not self.module.training:
            self.module.train()

    def forward(self, inputs: torch.Tensor,
                tensors: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Logits (B, classes) of inputs (B, ...) in float32, computed in `precision`.

        Args:
            tensors: parameters and statistics by name, in place of the model's own.
        """
        if self.precision is torch.float32:
            return self._call(inputs, tensors)
        with torch.autocast(inputs.device.type, self.precision):
            return self._call(inputs, tensors).float()

    def _call(self, inputs: torch.Tensor, tensors: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
        if tensors is None:
            return self.module(inputs)
        return functional_call(self.module, dict(tensors), (inputs,))

    def gradients(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
        """The loss () of a batch at theta, and its gradients by parameter.

        Behind them stands old - new of the statistics (b,), where rows hold them; they are what they were
        again, and a step of size 1 along that moves them, as `kuiper.optim.Apart` takes. The gradients are
        new tensors, as autograd makes them: to add them up in a buffer takes a sixth of a small step.
        """
        statistics = self.theta[self.parameters :]
        before = statistics.clone() if self.keeps_statistics else None
        loss = self.loss(self.forward(inputs), labels)
        loss.backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        if before is not None:
            gradients.append(before - statistics)
            statistics.copy_(before)
        return loss.detach(), gradients

    def unflatten(self, theta: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameters, and statistics where rows hold them, by name; views into theta (size,) or (k, size)."""
        return {name: _from_flat(theta[..., offset : offset + shape.numel()], shape)
                for name, (offset, shape) in self.slices.items()}


def _statistics(module: nn.Module, kept: bool) -> dict[str, torch.Tensor]:
    """Running means and variances by name; the count of batches needs no keeping where momentum is fixed."""
    found = {}
    for name, buffer in module.named_buffers():
        layer = module.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and buffer.is_floating_point():
            if kept and layer.momentum is None:
                raise SpecError(f"buffers: the layer of {name} has momentum None, an average over all batches "
                                "that it ever saw, which no step can apply",
                                "write `buffers: reestimate`, or give the layer a momentum")
            found[name] = buffer
    return found


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
