"""Two ways to compute the gradients of a block of nodes, or to train on them, behind the same calls.

`gradients` writes rows (k, d) for models thetas, (d,) or (k, d); `updates` writes what local training from
one theta (d,) changes. Both return losses (k,), float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from kuiper import random
from kuiper.errors import SpecError
from kuiper.learner.batches import Batch, Batches
from kuiper.learner.flat import FlatModel, Gradients, to_flat
from kuiper.optim import Optimizer

_RANDOM_LAYERS = (nn.modules.dropout._DropoutNd,)
_ON_CPU, _ON_GPU = 1 << 20, 1 << 24  # parameters and inputs of the nodes of one batched call
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

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray, number: int, rows: torch.Tensor) -> np.ndarray:
        model, losses = self.model, []
        self._train_mode()
        for place, steps in enumerate(self._nodes(nodes, range(number, number + 1))):
            if thetas.dim() == 2 or place == 0:
                model.theta.copy_(thetas if thetas.dim() == 1 else thetas[place])
            for loss, gradients in steps:
                _join(gradients, rows[place])
                losses.append(loss)
        return _numbers(losses)

    def updates(self, theta: torch.Tensor, nodes: np.ndarray, numbers: range, optimizer: Optimizer,
                lr_scale: float, rows: torch.Tensor) -> np.ndarray:
        model, losses = self.model, []
        self._train_mode()
        joined = torch.empty_like(theta)
        for place, steps in enumerate(self._nodes(nodes, numbers)):
            model.theta.copy_(theta)
            state = optimizer.init(model.theta)
            for loss, gradients in steps:
                losses.append(loss)
                if state:  # several operations: fewer in all when the gradients are joined first
                    _join(gradients, joined)
                    _, state = optimizer.step(model.theta, joined, state, lr_scale, out=model.theta)
                    continue
                for part, gradient in zip(model.parts, gradients, strict=True):
                    optimizer.step(part, gradient, state, lr_scale, out=part)
            torch.sub(model.theta, theta, out=rows[place])
        return _numbers(losses).reshape(len(nodes), -1).mean(1)

    def _train_mode(self) -> None:
        if not self.model.module.training:  # as evaluation leaves it
            self.model.module.train()

    def _nodes(self, nodes: np.ndarray, numbers: range) -> Iterator[Iterator[tuple[torch.Tensor, Gradients]]]:
        """For each node its losses and gradients, batch after batch, at the model's theta of that moment.

        What draws is keyed by the first batch and draws on from there: to key each takes 5% of a small step.
        """
        keys = random.keys(self.batches.seed, "dropout", nodes, numbers[0]).tolist()
        for key, walk in zip(keys, self.batches.walks(nodes, numbers), strict=True):
            random.key_torch(key)
            yield map(self._backward, walk)

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, Gradients]:
        x, y = batch
        loss = self.model.loss(self.model.module(x), y)
        return loss.detach(), self.model.gradients(loss)


def _join(gradients: Gradients, row: torch.Tensor) -> None:
    """Write the gradients of all parts to row (d,)."""
    torch.cat([to_flat(gradient, 0) for gradient in gradients], out=row)


def _numbers(losses: list[torch.Tensor]) -> np.ndarray:
    """All at the end: one by one, a GPU would be waited for at every step."""
    return torch.stack(losses).double().cpu().numpy()


class Batched:
    """A block of nodes at once through torch.func.vmap; dense networks and kernels that are small.

    Attributes:
        chunk: nodes at once: enough that the call itself costs them little, few enough for the cache.

    Raises:
        SpecError: the model has dropout or BatchNorm, whose draws and buffers a batched call
            cannot key by node.
    """

    def __init__(self, model: FlatModel, batches: Batches) -> None:
        if model.has(*_RANDOM_LAYERS, *_BATCH_LAYERS):
            raise SpecError("engine: batched does not take models with dropout or BatchNorm",
                            "use engine: sequential, or auto")
        self.model = model
        self.batches = batches
        at_once = _ON_CPU if model.theta.device.type == "cpu" else _ON_GPU
        self.chunk = max(1, at_once // (model.size + batches.batch_size * batches.data.train_x[0].numel()))

        def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return model.loss(functional_call(model.module, parameters, (x,)), y)

        self._losses = vmap(loss)

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray, number: int, rows: torch.Tensor) -> np.ndarray:
        losses = np.empty(len(nodes))
        thetas = thetas.expand(len(nodes), -1)
        for start in range(0, len(nodes), self.chunk):
            block = slice(start, start + self.chunk)
            x, y = self.batches.stacked(nodes[block], number)
            parameters = {name: part.detach().requires_grad_()
                          for name, part in self.model.unflatten(thetas[block]).items()}
            # A node's loss depends on its own parameters only: the gradient of the sum is all gradients.
            # torch.func.grad would do the same, and import torch._dynamo (2 s) first.
            values = self._losses(parameters, x, y)
            gradients = torch.autograd.grad(values.sum(), list(parameters.values()))
            torch.cat([to_flat(g, 1) for g in gradients], dim=1, out=rows[block])
            losses[block] = values.detach().cpu()
        return losses

    def updates(self, theta: torch.Tensor, nodes: np.ndarray, numbers: range, optimizer: Optimizer,
                lr_scale: float, rows: torch.Tensor) -> np.ndarray:
        losses = np.zeros(len(nodes))
        for start in range(0, len(nodes), self.chunk):
            block = slice(start, start + self.chunk)
            here = theta.repeat(len(nodes[block]), 1)
            state = optimizer.init(here)
            for number in numbers:
                losses[block] += self.gradients(here, nodes[block], number, rows[block]) / len(numbers)
                here, state = optimizer.step(here, rows[block], state, lr_scale, out=here)
            torch.sub(here, theta, out=rows[block])
        return losses


ENGINES = {"sequential": Sequential, "batched": Batched}
