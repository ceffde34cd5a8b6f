"""Backpropagation written out for chains of dense layers, where autograd takes as long as the arithmetic.

Letters: b samples, i inputs and o outputs of a layer.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

Gradients = list[torch.Tensor]
"""By parameter, in the order of the module's own."""


class Chain:
    """Linear layers with or without ReLU between them, and the mean cross entropy of what comes out.

    Args:
        layers: weight (o, i), bias (o,) and whether ReLU follows, for each layer.
    """

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor, bool]]) -> None:
        self._layers = layers

    @staticmethod
    def of(module: nn.Module) -> Chain | None:
        """The chain that a module is: Flatten, then Linear and ReLU only; None when it is anything else."""
        first, *rest = module if type(module) is nn.Sequential and len(module) else [None]
        if type(first) is not nn.Flatten or (first.start_dim, first.end_dim) != (1, -1):
            return None
        layers: list[tuple[torch.Tensor, torch.Tensor, bool]] = []
        for each in rest:
            if type(each) is nn.Linear and each.bias is not None:
                layers.append((each.weight.data, each.bias.data, False))
            elif type(each) is nn.ReLU and layers:
                layers[-1] = (*layers[-1][:2], True)
            else:
                return None
        parameters = list(module.parameters())
        own = len(parameters) == 2 * len(layers) and all(each.requires_grad for each in parameters)
        return Chain(layers) if layers and own else None  # none shared between layers, none frozen

    @torch.no_grad()
    def gradients(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
        """The loss () of a batch, and its gradients by weight and bias, first layer first."""
        seen = [inputs.flatten(1)]
        for weight, bias, relu in self._layers:
            out = torch.addmm(bias, seen[-1], weight.t())
            seen.append(out.relu_() if relu else out)
        logs = functional.log_softmax(seen[-1], 1)
        loss = functional.nll_loss(logs, labels)
        slope_bo = logs.exp_().scatter_add_(1, labels[:, None], logs.new_full((len(labels), 1), -1.0))
        slope_bo.div_(len(labels))
        gradients: Gradients = []
        for place in range(len(self._layers) - 1, -1, -1):
            weight, _, relu = self._layers[place]
            if relu:
                slope_bo = slope_bo.mul_(seen[place + 1] > 0)
            gradients += [slope_bo.sum(0), slope_bo.t() @ seen[place]]
            if place:
                slope_bo = slope_bo @ weight
        return loss, gradients[::-1]
