"""Two ways to compute the gradients of a block of nodes, or to train on them, behind the same calls.

`gradients` writes rows (k, d) for models thetas, (d,) or (k, d); `updates` writes what local training from
one theta (d,) changes. Both return losses (k,), float64 on the CPU. Where rows hold BatchNorm's statistics,
theirs in a row of gradients is old - new, and the optimiser one that knows (`kuiper.optim.Apart`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import starmap

import numpy as np
import torch
from torch.func import vmap

from kuiper import random
from kuiper.errors import SpecError
from kuiper.learner.batches import Batches
from kuiper.learner.flat import FlatModel, Gradients, to_flat
from kuiper.optim import Optimizer

_ON_CPU, _ON_GPU = 1 << 20, 1 << 24  # parameters and inputs of the nodes of one batched call


class Sequential:
    """One node after the other through one module; any model.

    Dropout, and whatever else draws, is keyed by (seed, node, batch number). BatchNorm trains on
    the statistics of each batch, as always.
    """

    chunk = 1

    def __init__(self, model: FlatModel, batches: Batches) -> None:
        self.model = model
        self.batches = batches

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray, number: int, rows: torch.Tensor) -> np.ndarray:
        model, losses = self.model, []
        model.train_mode()
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
        model.train_mode()
        joined = torch.empty_like(theta)
        for place, steps in enumerate(self._nodes(nodes, numbers)):
            model.theta.copy_(theta)
            state = optimizer.init(model.theta)
            # An optimiser with state is many operations, so that one on all parameters costs less.
            whole = model.keeps_statistics or bool(state)
            for loss, gradients in steps:
                losses.append(loss)
                if whole:
                    _join(gradients, joined)
                    _, state = optimizer.step(model.theta, joined, state, lr_scale, out=model.theta)
                    continue
                for part, gradient in zip(model.parts, gradients, strict=True):
                    optimizer.step(part, gradient, state, lr_scale, out=part)
            torch.sub(model.theta, theta, out=rows[place])
        return _numbers(losses).reshape(len(nodes), -1).mean(1)

    def _nodes(self, nodes: np.ndarray, numbers: range) -> Iterator[Iterator[tuple[torch.Tensor, Gradients]]]:
        """For each node its losses and gradients, batch after batch, at the model's theta of that moment.

        What draws is keyed by the first batch and draws on from there: to key each takes 5% of a small step.
        """
        keys = random.keys(self.batches.seed, "dropout", nodes, numbers[0]).tolist()
        for key, walk in zip(keys, self.batches.walks(nodes, numbers), strict=True):
            random.key_torch(key)
            yield starmap(self.model.gradients, walk)


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
        SpecError: the model draws (dropout, stochastic depth), which one call for many nodes cannot key,
            or does something else that vmap cannot.
    """

    def __init__(self, model: FlatModel, batches: Batches) -> None:
        self.model = model
        self.batches = batches
        at_once = _ON_CPU if model.theta.device.type == "cpu" else _ON_GPU
        self.chunk = max(1, at_once // (model.size + batches.batch_size * batches.data.train_x[0].numel()))

        def loss(tensors: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return model.vmapped_loss(model.forward(x, tensors), y)

        self._losses = vmap(loss)
        self._try()

    def _try(self) -> None:
        """Two samples, so that what cannot be batched is said before anything runs."""
        x, y = (part[:, :2] for part in self.batches.stacked(np.arange(1), 1))
        named = self.model.unflatten(self.model.theta[None])
        try:
            self._losses(named | self._statistics(named, 1), x, y)
        except RuntimeError as error:
            raise SpecError(f"engine: batched cannot compute this model: {error}",
                            "use engine: sequential; one call for many nodes cannot key what each of them "
                            "draws (dropout, stochastic depth)") from error

    def _statistics(self, named: dict[str, torch.Tensor], nodes: int) -> dict[str, torch.Tensor]:
        """What BatchNorm may write to: a copy for each node, of the module's own where rows hold none."""
        return {name: named[name].clone() if name in named else own.repeat(nodes, 1)
                for name, own in self.model.statistics.items()}

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray, number: int, rows: torch.Tensor) -> np.ndarray:
        losses = np.empty(len(nodes))
        self.model.train_mode()
        thetas = thetas.expand(len(nodes), -1)
        for start in range(0, len(nodes), self.chunk):
            block = slice(start, start + self.chunk)
            x, y = self.batches.stacked(nodes[block], number)
            before = self.model.unflatten(thetas[block])
            statistics = self._statistics(before, len(x))
            parameters = {name: part.detach().requires_grad_()
                          for name, part in before.items() if name not in statistics}
            # A node's loss depends on its own parameters only: the gradient of the sum is all gradients.
            # torch.func.grad would do the same, and import torch._dynamo (2 s) first.
            values = self._losses(parameters | statistics, x, y)
            gradients = torch.autograd.grad(values.sum(), list(parameters.values()))
            changes = (before[name] - now for name, now in statistics.items() if name in before)
            torch.cat([to_flat(part, 1) for part in (*gradients, *changes)], dim=1, out=rows[block])
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
