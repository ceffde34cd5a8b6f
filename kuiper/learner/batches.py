"""Which samples a node sees at a step: indices into tensors that are already in memory."""

from __future__ import annotations

import numpy as np
import torch

from kuiper import random
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset
from kuiper.data.augment import augment


class Batches:
    """Batches keyed by (seed, node, batch number): equal keys, equal samples and augmentation.

    A node walks through its shard in a fresh random order each epoch; a batch that reaches
    the end of an epoch goes on in the next, so that all batches have the same size and no
    sample is left out.

    Args:
        shards: for each node 0..n-1 the indices of its training samples.
    """

    def __init__(self, data: Dataset, shards: list[np.ndarray], batch_size: int, seed: int,
                 adversary: Adversary) -> None:
        self.data = data
        self.shards = shards
        self.batch_size = batch_size
        self.seed = seed
        self.adversary = adversary
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def get(self, node: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (B, ...) and labels (B,) of a node's batch, numbered from 1."""
        index = torch.from_numpy(self.indices(node, number)).to(self.data.train_y.device)
        x, y = self.data.train_x[index], self.data.train_y[index]
        if self.data.augment:
            x = augment(x, self.data.augment, self.seed, node, number)
        return x, self.adversary.labels(node, y, self.data.classes)

    def indices(self, node: int, number: int) -> np.ndarray:
        """(B,) int64 indices into the training set."""
        shard = self.shards[node]
        position = (number - 1) * self.batch_size
        parts, missing = [], self.batch_size
        while missing:
            epoch, offset = divmod(position, len(shard))
            part = self._order(node, epoch)[offset : offset + missing]
            parts.append(part)
            position, missing = position + len(part), missing - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _order(self, node: int, epoch: int) -> np.ndarray:
        cached_epoch, order = self._orders.get(node, (-1, None))
        if cached_epoch != epoch:
            shard = self.shards[node]
            order = shard[random.permutation(self.seed, "batch", node, epoch, len(shard))]
            self._orders[node] = (epoch, order)
        return order
