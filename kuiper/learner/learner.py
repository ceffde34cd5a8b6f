"""Model + data + parameters -> gradients or updates, for a block of nodes."""

from __future__ import annotations

import numpy as np
import torch

from kuiper.data import Dataset
from kuiper.learner.batches import Batches
from kuiper.learner.engines import ENGINES
from kuiper.learner.evaluate import evaluate
from kuiper.learner.flat import FlatModel
from kuiper.optim import Optimizer


class Learner:
    """Computes rows. The point and the batch are separate: asking twice for one batch number,
    at different points, sees the same samples, dropout and augmentation.

    Args:
        engine: 'sequential' or 'batched'.
    """

    def __init__(self, model: FlatModel, data: Dataset, batches: Batches, engine: str) -> None:
        self.model = model
        self.data = data
        self.batches = batches
        self._engine = ENGINES[engine](model, batches)

    @property
    def size(self) -> int:
        """d, parameters of the model."""
        return self.model.size

    @property
    def together(self) -> int:
        """How many nodes are computed at once."""
        return self._engine.chunk

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    def samples(self, nodes: np.ndarray) -> np.ndarray:
        """(k,) training samples that each node holds."""
        return np.array([len(self.batches.shards[node]) for node in nodes], dtype=np.float64)

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray,
                  batch: int) -> tuple[torch.Tensor, np.ndarray]:
        """One gradient per node.

        Args:
            thetas: (d,) for all nodes, or (k, d), one model each.
            batch: number of the batch, from 1.
        Returns:
            gradients (k, d) and losses (k,).
        """
        return self._engine.gradients(thetas, nodes, batch)

    def updates(self, theta: torch.Tensor, nodes: np.ndarray, batch: int, local_steps: int,
                optimizer: Optimizer, lr_scale: float) -> tuple[torch.Tensor, np.ndarray]:
        """What local training from theta (d,) changes: `local_steps` steps on each node.

        The optimiser starts afresh on every node.

        Args:
            batch: number of the first batch.
        Returns:
            updates (k, d) and mean losses (k,).
        """
        rows = torch.empty(len(nodes), self.size, device=theta.device)
        losses = np.zeros(len(nodes))
        for start in range(0, len(nodes), self.together):
            block = slice(start, start + self.together)
            here = theta.repeat(len(nodes[block]), 1)
            state = optimizer.init(here)
            for step in range(local_steps):
                gradients, step_losses = self.gradients(here, nodes[block], batch + step)
                here, state = optimizer.step(here, gradients, state, lr_scale)
                losses[block] += step_losses / local_steps
            torch.sub(here, theta, out=rows[block])
        return rows, losses

    def evaluate(self, theta: torch.Tensor) -> dict[str, float]:
        """top_1, top_5 (percent) and loss of theta (d,) on the test set."""
        return evaluate(self.model, theta, self.data)
