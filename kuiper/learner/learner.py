"""Model + data + parameters -> gradients or updates, for a block of nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_sum
from kuiper.data import Dataset
from kuiper.learner.batches import Batches
from kuiper.learner.engines import ENGINES
from kuiper.learner.evaluate import evaluate, trusted_batches
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
        def compute(places: np.ndarray, numbers: range, out: torch.Tensor) -> np.ndarray:
            points = thetas if thetas.dim() == 1 else thetas[torch.from_numpy(places)]
            return self._engine.gradients(points, nodes[places], numbers.start, out)

        return self._rows(nodes, range(batch, batch + 1), compute, thetas.device, out)

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
        def compute(places: np.ndarray, numbers: range, out: torch.Tensor) -> np.ndarray:
            return self._engine.updates(theta, nodes[places], numbers, optimizer, lr_scale, out)

        return self._rows(nodes, range(batch, batch + local_steps), compute, theta.device, out)

    def _rows(self, nodes: np.ndarray, numbers: range, compute: Callable[..., np.ndarray],
              device: torch.device, out: torch.Tensor | None) -> tuple[torch.Tensor, np.ndarray]:
        """Rows (k, d) and losses (k,) of some batches; of attackers that guess, from k times as many."""
        rows = torch.empty(len(nodes), self.size, device=device) if out is None else out
        losses = compute(np.arange(len(nodes)), numbers, rows)
        adversary = self.batches.adversary
        guessing = adversary.guessing(nodes)
        if len(guessing):
            guesses = rows.new_empty(adversary.batches, len(guessing), self.size)
            before, length = numbers.start - 1, len(numbers)
            for place, guess in enumerate(guesses):
                first = before * len(guesses) + place * length + 1
                compute(guessing, range(first, first + length), guess)
            sent = adversary.guessed(guesses.transpose(0, 1), before // length + 1)
            rows[torch.from_numpy(guessing)] = sent
        return rows, losses

    def weighted_sum(self, rows: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
        """(d,) float64, of rows (m, d) times weights (m,), added one row after the other (`ordered_sum`)."""
        return ordered_sum(rows, weights.tolist())

    def evaluate(self, theta: torch.Tensor) -> dict[str, float]:
        """top_1, top_5 (percent) and loss of theta (d,) on the test set, and on a validation set, if any."""
        return evaluate(self.model, theta, self.data, self._trusted)

    @cached_property
    def _trusted(self) -> list[torch.Tensor]:
        """The same in every process, and of the labels as they are: no attack acts on them."""
        return trusted_batches(self.data.train_y, self.batches.seed)
