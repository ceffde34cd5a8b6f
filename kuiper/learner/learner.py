"""Model + data + parameters -> gradients or updates, for a block of nodes."""

from __future__ import annotations

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_sum
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
        self.engine = engine
        self._engine = ENGINES[engine](model, batches)

    @property
    def size(self) -> int:
        """The width of a row: d parameters, and BatchNorm's statistics where rows hold them."""
        return self.model.size

    @property
    def parameters(self) -> int:
        """d, parameters of the model."""
        return self.model.parameters

    @property
    def together(self) -> int:
        """How many nodes are computed at once."""
        return self._engine.chunk

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    def samples(self, nodes: np.ndarray) -> np.ndarray:
        """(k,) training samples that each node holds."""
        return self.batches.sizes[nodes].astype(np.float64)

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray,
                  batch: int, out: torch.Tensor | None = None) -> tuple[torch.Tensor, np.ndarray]:
        """One gradient per node.

        Args:
            thetas: (d,) for all nodes, or (k, d), one model each.
            batch: number of the batch, from 1.
            out: (k, d) to write to; None for a matrix of their own.
        Returns:
            gradients (k, d) and losses (k,); where rows hold statistics, old - new of those behind them.
        """
        rows = torch.empty(len(nodes), self.size, device=thetas.device) if out is None else out
        return rows, self._engine.gradients(thetas, nodes, batch, rows)

    def updates(self, theta: torch.Tensor, nodes: np.ndarray, batch: int, local_steps: int, optimizer: Optimizer,
                lr_scale: float, out: torch.Tensor | None = None) -> tuple[torch.Tensor, np.ndarray]:
        """What local training from theta (d,) changes: `local_steps` steps on each node.

        The optimiser starts afresh on every node.

        Args:
            batch: number of the first batch.
            out: (k, d) to write to; None for a matrix of their own.
        Returns:
            updates (k, d) and mean losses (k,).
        """
        rows = torch.empty(len(nodes), self.size, device=theta.device) if out is None else out
        numbers = range(batch, batch + local_steps)
        return rows, self._engine.updates(theta, nodes, numbers, optimizer, lr_scale, rows)

    def weighted_sum(self, rows: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
        """(d,) float64, of rows (m, d) times weights (m,), added one row after the other (`ordered_sum`)."""
        return ordered_sum(rows, weights.tolist())

    def evaluate(self, theta: torch.Tensor) -> dict[str, float]:
        """top_1, top_5 (percent) and loss of theta (d,) on the test set, and on a validation set, if any."""
        return evaluate(self.model, theta, self.data)
