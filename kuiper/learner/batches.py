"""Which samples a node sees at a step: indices into tensors that are already in memory.

Letters: k nodes of a block, b samples of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from kuiper import random
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset
from kuiper.data.augment import augment

_INDICES = 1 << 20  # that are drawn at once
_VALUES = 1 << 17  # of inputs that are picked out at once: still in the cache when they are used

Batch = tuple[torch.Tensor, torch.Tensor]


class Batches:
    """Batches keyed by (seed, node, batch number): equal keys, equal samples and augmentation.

    A node walks through its shard in a fresh random order each epoch; a batch that reaches
    the end of an epoch goes on in the next, so that all batches have the same size and no
    sample is left out. Nodes are handled as arrays: one costs as much as dozens.

    Args:
        shards: for each node 0..n-1 the indices of its training samples.

    Attributes:
        sizes: (n,) int64, samples that each node holds.
    """

    def __init__(self, data: Dataset, shards: list[np.ndarray], batch_size: int, seed: int,
                 adversary: Adversary) -> None:
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.adversary = adversary
        self.sizes = np.array([len(shard) for shard in shards])
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._samples = np.concatenate(shards)
        self._orders = np.empty_like(self._samples)  # each shard as its node walks through it
        self._epochs = np.full(len(shards), -1)  # in this epoch

    def stacked(self, nodes: np.ndarray, number: int) -> Batch:
        """Inputs (k, b, ...) and labels (k, b) of each node's batch, numbered from 1."""
        index = self._on_device(self.indices(nodes, number))
        x = self.data.train_x.index_select(0, index.flatten()).unflatten(0, index.shape)
        if self.data.augment:
            x = augment(x, self.data.augment, self.seed, nodes, number)
        return self.adversary.inputs(nodes, x, number), self._labels(nodes, index)

    def walks(self, nodes: np.ndarray, numbers: range) -> Iterator[Iterator[Batch]]:
        """For each node its batches of consecutive numbers: inputs (b, ...) and labels (b,)."""
        at_once = max(1, _INDICES // (len(numbers) * self.batch_size))
        for start in range(0, len(nodes), at_once):
            block = nodes[start : start + at_once]
            index = self._on_device(self.indices(block, numbers[0], len(numbers)))
            labels = self._labels(block, index)
            for place, node in enumerate(block.tolist()):
                yield self._walk(node, numbers, index[place], labels[place])

    def _walk(self, node: int, numbers: range, index: torch.Tensor, labels: torch.Tensor) -> Iterator[Batch]:
        """Samples are picked out for many batches at once, which is cheaper."""
        size, inputs = self.batch_size, self.data.train_x
        at_once = max(1, _VALUES // (size * inputs[0].numel()))
        for start in range(0, len(numbers), at_once):
            part = numbers[start : start + at_once]
            here = slice(start * size, (start + len(part)) * size)
            x = inputs.index_select(0, index[here]).unflatten(0, (len(part), size))
            y = labels[here].view(len(part), size)
            for number, x_b, y_b in zip(part, x.unbind(), y.unbind(), strict=True):
                if self.data.augment:
                    x_b = augment(x_b, self.data.augment, self.seed, node, number)
                if self.adversary.acts_on == "inputs":
                    x_b = self.adversary.inputs(np.array([node]), x_b[None], number)[0]
                yield x_b, y_b

    def indices(self, nodes: np.ndarray, number: int, count: int = 1) -> np.ndarray:
        """(k, count b) int64 indices into the training set, of `count` batches from `number` on."""
        wanted = np.arange((number - 1) * self.batch_size, (number - 1 + count) * self.batch_size)
        epochs, places = np.divmod(wanted, self.sizes[nodes, None])
        places += self._starts[nodes, None]
        first, last = epochs[:, 0], epochs[:, -1]
        index = np.empty_like(places)
        for later in range((last - first).max(initial=0) + 1):
            there = first + later <= last
            self._shuffle(nodes[there], first[there] + later)
            now = epochs == first[:, None] + later
            index[now] = self._orders[places[now]]
        return index

    def _shuffle(self, nodes: np.ndarray, epochs: np.ndarray) -> None:
        """Lay out the orders of the given epochs, one per node; shards of one size are a rectangle."""
        stale = self._epochs[nodes] != epochs
        nodes, epochs = nodes[stale], epochs[stale]
        for size in np.unique(self.sizes[nodes]).tolist():
            equal = np.flatnonzero(self.sizes[nodes] == size)
            for part in np.array_split(equal, -(-len(equal) * size // _INDICES)):
                order = random.permutation(self.seed, "batch", nodes[part, None], epochs[part, None], size)
                places = self._starts[nodes[part], None]
                self._orders[places + np.arange(size)] = self._samples[places + order]
        self._epochs[nodes] = epochs

    def _labels(self, nodes: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """As each node sees them, (k, ...) like index."""
        labels = self.data.train_y.index_select(0, index.flatten()).view(index.shape)
        return self.adversary.labels(nodes, labels, self.data.classes)

    def _on_device(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(index).to(self.data.train_y.device)
