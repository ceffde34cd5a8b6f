"""Two ways to compute the gradients of a block of nodes, behind one call.

Both return (gradients (k, d), losses (k,) float64 on the CPU) for models thetas, (d,) or (k, d).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from kuiper import random
from kuiper.errors import SpecError
from kuiper.learner.batches import Batches
from kuiper.learner.flat import FlatModel, to_flat

_RANDOM_LAYERS = (nn.modules.dropout._DropoutNd,)
_BATCH_LAYERS = (nn.modules.batchnorm._BatchNorm,)


class Sequential:
    """One node after the other through one module; any model.

    Dropout, and whatever else draws, is keyed by (seed, node, batch number). BatchNorm trains on
    the statistics of each batch, as always; its running averages are not kept here but
    re-estimated at evaluation.
    """

    chunk = 1

    def __init__(self, model: FlatModel, batches: Batches) -> None:
        self.model = model
        self.batches = batches

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray,
                  number: int) -> tuple[torch.Tensor, np.ndarray]:
        model = self.model
        rows = torch.empty(len(nodes), model.size, device=model.theta.device)
        losses = np.empty(len(nodes))
        model.module.train()
        for place, node in enumerate(nodes):
            if thetas.dim() == 2 or place == 0:
                model.theta.copy_(thetas if thetas.dim() == 1 else thetas[place])
            random.seed_torch(self.batches.seed, "dropout", int(node), number)
            x, y = self.batches.get(int(node), number)
            model.gradient.zero_()
            loss = model.loss(model.module(x), y)
            loss.backward()
            rows[place] = model.gradient
            losses[place] = loss.item()
        return rows, losses


class Batched:
    """A block of nodes at once through torch.func.vmap; dense networks and kernels that are small.

    Raises:
        SpecError: the model has dropout or BatchNorm, whose draws and buffers a batched call
            cannot key by node.
    """

    chunk = 64  # nodes whose activations are held at once

    def __init__(self, model: FlatModel, batches: Batches) -> None:
        if model.has(*_RANDOM_LAYERS, *_BATCH_LAYERS):
            raise SpecError("engine: batched does not take models with dropout or BatchNorm",
                            "use engine: sequential, or auto")
        self.model = model
        self.batches = batches

        def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return model.loss(functional_call(model.module, parameters, (x,)), y)

        self._losses = vmap(loss)

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray,
                  number: int) -> tuple[torch.Tensor, np.ndarray]:
        rows = torch.empty(len(nodes), self.model.size, device=self.model.theta.device)
        losses = np.empty(len(nodes))
        thetas = thetas.expand(len(nodes), -1)
        for start in range(0, len(nodes), self.chunk):
            block = slice(start, start + self.chunk)
            batches = [self.batches.get(int(node), number) for node in nodes[block]]
            x, y = (torch.stack(parts) for parts in zip(*batches, strict=True))
            parameters = {name: part.detach().requires_grad_()
                          for name, part in self.model.unflatten(thetas[block]).items()}
            # A node's loss depends on its own parameters only: the gradient of the sum is all gradients.
            # torch.func.grad would do the same, and import torch._dynamo (2 s) first.
            values = self._losses(parameters, x, y)
            gradients = torch.autograd.grad(values.sum(), list(parameters.values()))
            torch.cat([to_flat(g) for g in gradients], dim=1, out=rows[block])
            losses[block] = values.detach().cpu()
        return rows, losses


ENGINES = {"sequential": Sequential, "batched": Batched}
