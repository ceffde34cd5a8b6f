"""Which samples a node sees at a step: indices into tensors that are already in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from kuiper import random
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset
from kuiper.data.augment import augment

_AT_ONCE = 1 << 20  # values of inputs that are picked out of the training set at once


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
        return next(self.several(node, range(number, number + 1)))

    def several(self, node: int, numbers: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of consecutive numbers; samples are picked out for many at once, which is cheaper."""
        at_once = max(1, _AT_ONCE // (self.batch_size * self.data.train_x[0].numel()))
        for start in range(0, len(numbers), at_once):
            part = numbers[start : start + at_once]
            index = torch.from_numpy(self.indices(node, part[0], len(part))).to(self.data.train_y.device)
            x, y = self.data.train_x.index_select(0, index), self.data.train_y.index_select(0, index)
            for number, inputs, labels in zip(part, x.split(self.batch_size), y.split(self.batch_size), strict=True):
                if self.data.augment:
                    inputs = augment(inputs, self.data.augment, self.seed, node, number)
                yield inputs, self.adversary.labels(node, labels, self.data.classes)

    def indices(self, node: int, number: int, count: int = 1) -> np.ndarray:
        """(count B,) int64 indices into the training set, of `count` batches from `number` on."""
        shard = self.shards[node]
        position = (number - 1) * self.batch_size
        parts, missing = [], count * self.batch_size
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
